//! The admin API where others can reach it: TLS, tokens, client certificates, roles, and those who try to get in.
//! curl and OpenSSL are the peers.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Authority, Backend, DEADLINE, Evenkeel, Place, QUIET, TlsClient, Wish, openssl, program, shop, wait_for,
    wait_until,
};

/// An admin API on every address, with TLS and a token for each role.
struct Office {
    authority: Authority,
    place: Place,
    evenkeel: Evenkeel,
    backend: Backend,
}

/// A token that `evenkeel token create` made, in a file, and what goes into the config.
fn token(place: &Place, name: &str, role: &str) -> String {
    let file = place.path().join(format!("{name}.token"));
    let output = program()
        .args(["token", "create", "--name", name, "--role", role, "--write"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Office {
    fn open() -> Self {
        let authority = Authority::new();
        authority.issue("admin", &["localhost", "127.0.0.1"]);
        authority.issue("alice", &[]);
        authority.issue("mallory", &[]);
        let backend = Backend::named("one");
        let place = Place::new("");
        let tokens: String = ["viewer", "operator", "admin"]
            .iter()
            .map(|role| token(&place, &format!("the-{role}"), role))
            .collect();
        let file = |name: &str| authority.file(name);
        place.write(&format!(
            "{}\n[admin]\ncertificates = [{{ name = \"alice\", role = \"operator\" }}]\n{tokens}\n[admin.tls]\n\
             certificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n",
            shop(&[&backend], QUIET),
            file("admin.pem"),
            file("admin.key"),
            file("ca.pem")
        ));
        let mut command = program();
        command
            .args(["run", "--admin", "0.0.0.0:0", "--config"])
            .arg(place.config());
        let evenkeel = Evenkeel::spawn(command.arg("--data-dir").arg(place.data()));
        Self {
            authority,
            place,
            evenkeel,
            backend,
        }
    }

    fn port(&self) -> u16 {
        self.evenkeel.admin.port()
    }

    fn token_file(&self, role: &str) -> String {
        let file = self.place.path().join(format!("the-{role}.token"));
        file.display().to_string()
    }

    fn token(&self, role: &str) -> String {
        std::fs::read_to_string(self.token_file(role))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// curl asks `path` with further options: its exit code, and the status and body of the answer.
    fn curl(&self, path: &str, options: &[&str]) -> (i32, u16, String) {
        let url = format!("https://localhost:{}{path}", self.port());
        let output = Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--max-time", "60", "--cacert"])
            .arg(self.authority.file("ca.pem"))
            .args(["--write-out", "\n%{http_code}"])
            .args(options)
            .arg(url)
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (
            output.status.code().unwrap(),
            status.parse().unwrap(),
            body.to_owned(),
        )
    }

    /// The same as somebody of this role.
    fn curl_as(&self, role: &str, path: &str, options: &[&str]) -> (u16, String) {
        let field = format!("Authorization: Bearer {}", self.token(role));
        let (code, status, body) = self.curl(path, &[&["-H", &field], options].concat());
        assert_eq!(code, 0, "{body}");
        (status, body)
    }

    fn order_path(&self) -> String {
        let backend = self.backend.address;
        format!("/api/v1/load-balancers/shop/backends/{backend}/order")
    }

    fn metric(&self, line: &str) -> bool {
        self.curl_as("viewer", "/metrics", &[]).1.contains(line)
    }

    /// `evenkeel` with these arguments, told where it is and whom to trust.
    fn cli(&self, args: &[&str], options: &[&str]) -> Output {
        let url = format!("https://localhost:{}", self.port());
        program()
            .args(args)
            .args(["--admin", &url])
            .args(options)
            .output()
            .unwrap()
    }
}

fn reason(body: &str) -> String {
    let document: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    document["reason"].as_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Scenario: somebody makes a certificate with the command of `docs/admin.md`, and asks the API with it as `--ca`, as that
/// page says. With one that OpenSSL makes when nothing is said of it, an authority's, the command says what to do.
#[test]
fn a_certificate_made_as_the_docs_say_is_taken() {
    let page = include_str!("../../../../docs/admin.md");
    let made = page.split("```sh\nopenssl req").nth(1).unwrap();
    let made = format!("openssl req{}", made.split("```").next().unwrap());
    let of_authority = made.replace("-addext basicConstraints=critical,CA:FALSE", "");
    assert_ne!(made, of_authority);
    for (script, taken) in [(made, true), (of_authority, false)] {
        let place = Place::new("");
        let mut bash = Command::new("bash");
        bash.args(["-euc", &script.replace("lb.internal", "localhost")]);
        let output = bash.current_dir(place.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let file = |name: &str| place.path().join(name).display().to_string();
        place.write(&format!(
            "[store]\n[admin.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{}",
            file("admin.pem"),
            file("admin.key"),
            token(&place, "eva", "viewer")
        ));
        let mut command = program();
        command
            .args(["run", "--admin", "127.0.0.1:0", "--config"])
            .arg(place.config());
        let evenkeel = Evenkeel::spawn(command.arg("--data-dir").arg(place.data()));
        let url = format!("https://localhost:{}", evenkeel.admin.port());
        let asked = program()
            .args(["status", "--admin", &url, "--ca", &file("admin.pem")])
            .args(["--token-file", &file("eva.token")])
            .output()
            .unwrap();
        assert_eq!(asked.status.success(), taken, "{asked:?}");
        let advice = text(&asked.stderr).contains("-addext basicConstraints=critical,CA:FALSE");
        assert_eq!(advice, !taken, "{asked:?}");
        let check = program().arg("check").arg(place.config()).output().unwrap();
        assert_eq!(text(&check.stderr).contains("CA:TRUE"), !taken, "{check:?}");
    }
}

/// Scenario: a viewer, an operator and an admin, with tokens that `evenkeel token create` made. Each may do what his
/// role says, over TLS on an address that everybody can reach; nobody else may do anything but probe.
#[test]
fn tokens_with_roles_over_tls() {
    let office = Office::open();
    for probe in ["/livez", "/readyz"] {
        assert_eq!(office.curl(probe, &[]).1, 200);
    }
    let (code, status, body) = office.curl("/api/v1/status", &[]);
    assert_eq!((code, status, reason(&body).as_str()), (0, 401, "unauthorized"));
    assert!(body.contains("client certificate"), "{body}");
    for role in ["viewer", "operator", "admin"] {
        assert_eq!(office.curl_as(role, "/api/v1/status", &[]).0, 200, "{role}");
    }
    let drain = ["--json", r#"{"action": "drain", "by": "bob"}"#];
    let (status, body) = office.curl_as("viewer", &office.order_path(), &drain);
    assert_eq!((status, reason(&body).as_str()), (403, "needs_operator"));
    assert!(body.contains("`the-viewer` has the role `viewer`"), "{body}");
    let (status, body) = office.curl_as("operator", &office.order_path(), &drain);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("bob via the-operator"), "{body}");
    assert!(office.metric("evenkeel_admin_denied_total{needs=\"operator\"} 1"));
    let config = office.curl_as("viewer", "/api/v1/config", &[]).1;
    assert!(config.contains("tokens: the-viewer (viewer)"), "{config}");
    assert!(!config.contains("sha256:"), "{config}");
    for role in ["viewer", "operator", "admin"] {
        assert!(!office.evenkeel.log().contains(&office.token(role)));
    }
}

/// Scenario: a token is taken back. After a reload, without a restart, it opens nothing, also on connections that are
/// open.
#[test]
fn a_token_is_taken_back_by_a_reload() {
    let office = Office::open();
    let config = std::fs::read_to_string(office.place.config()).unwrap();
    let viewer = config.split("\n[[admin.tokens]]").nth(1).unwrap();
    let bearer = office.token("viewer");
    let mut kept = TlsClient::connect(office.authority.client(), local(&office), "localhost");
    let mut ask = || {
        kept.ask(
            &format!("localhost\r\nAuthorization: Bearer {bearer}"),
            "/api/v1/events",
        )
    };
    assert_eq!(ask().unwrap(), 200);
    office
        .place
        .write(&config.replace(&format!("\n[[admin.tokens]]{viewer}"), ""));
    assert_eq!(
        office.curl_as("operator", "/api/v1/reload", &["-X", "POST"]).0,
        200
    );
    assert_eq!(ask().unwrap(), 401);
    assert_eq!(office.curl_as("viewer", "/api/v1/status", &[]).0, 401);
    assert_eq!(office.curl_as("admin", "/api/v1/status", &[]).0, 200);
}

fn local(office: &Office) -> SocketAddr {
    ([127, 0, 0, 1], office.port()).into()
}

/// Scenario: alice shows her certificate and needs no token; mallory has one of the same authority that nobody has
/// listed; eve has one of her own making.
#[test]
fn client_certificates_open_what_their_entry_says() {
    let office = Office::open();
    let show = |authority: &Authority, name: &str| {
        ["pem", "key"].map(|ending| authority.file(&format!("{name}.{ending}")))
    };
    let [pem, key] = show(&office.authority, "alice");
    let alice = ["--cert", &pem, "--key", &key];
    assert_eq!(office.curl("/api/v1/status", &alice).1, 200);
    let drain = ["--json", r#"{"action": "drain"}"#];
    let (_, status, body) = office.curl(&office.order_path(), &[&alice[..], &drain].concat());
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""by":"alice""#), "{body}");
    // A token counts more than the certificate: it was chosen for this request.
    let field = format!("Authorization: Bearer {}", office.token("viewer"));
    let as_viewer = [&alice[..], &drain, &["-H", &field]].concat();
    assert_eq!(office.curl(&office.order_path(), &as_viewer).1, 403);
    let [pem, key] = show(&office.authority, "mallory");
    let (_, status, body) = office.curl("/api/v1/status", &["--cert", &pem, "--key", &key]);
    assert_eq!((status, reason(&body).as_str()), (401, "unauthorized"));
    assert!(body.contains("does not list it"), "{body}");
    let eve = Authority::new();
    eve.issue("alice", &[]);
    let [pem, key] = show(&eve, "alice");
    let (code, status, _) = office.curl("/api/v1/status", &["--cert", &pem, "--key", &key]);
    assert_ne!(code, 0, "the handshake ends");
    assert_eq!(status, 0);
    wait_until("the handshake is counted", || {
        office.metric("evenkeel_admin_handshake_failures_total 1")
    });
    assert!(office.metric("evenkeel_admin_failed_logins_total{why=\"unknown_certificate\"} 1"));
}

/// The commands are clients like any other: by token or by certificate, and what goes wrong is said with what to do.
#[test]
fn the_commands_speak_tls() {
    let office = Office::open();
    let ca = office.authority.file("ca.pem");
    let token = office.token_file("viewer");
    let done = office.cli(&["status"], &["--ca", &ca, "--token-file", &token]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (pem, key) = (
        office.authority.file("alice.pem"),
        office.authority.file("alice.key"),
    );
    let mutual = ["--ca", &ca, "--client-certificate", &pem, "--client-key", &key];
    let done = office.cli(&["reload"], &mutual);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let fails = |options: &[&str]| {
        let output = office.cli(&["status"], options);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    assert!(fails(&["--ca", &ca]).contains("--token-file"));
    let other = Authority::new();
    let said = fails(&["--ca", &other.file("ca.pem"), "--token-file", &token]);
    assert!(
        said.contains("issued by nobody who is trusted") && said.contains("--ca FILE"),
        "{said}"
    );
    let wrong_key = other.file("ca.key");
    let said = fails(&[
        "--ca",
        &ca,
        "--client-certificate",
        &pem,
        "--client-key",
        &wrong_key,
    ]);
    assert!(said.contains("does not belong"), "{said}");
    let at = |admin: String| {
        let output = program()
            .args(["status", "--admin", &admin, "--ca", &ca, "--token-file", &token])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let said = at(format!("https://127.0.0.2:{}", office.port()));
    assert!(said.contains("Write a name that its certificate has"), "{said}");
    let said = at(format!("http://localhost:{}", office.port()));
    assert!(said.contains("write `https://`"), "{said}");
    let clear = program()
        .args(["status", "--token-file", &token, "--admin"])
        .arg(format!("http://localhost:{}", office.port()))
        .output()
        .unwrap();
    assert!(
        text(&clear.stderr).contains("The admin API speaks TLS here"),
        "{clear:?}"
    );
}

/// Scenario: the certificate is renewed, then its file is damaged, then it has expired. New connections see what can be
/// used; the one that was open all the while stays.
#[test]
fn changed_files_are_served_without_a_restart() {
    let office = Office::open();
    let connect = || TlsClient::connect(office.authority.client(), local(&office), "localhost");
    let mut kept = connect();
    assert_eq!(kept.ask("localhost", "/api/v1/status").unwrap(), 401);
    let before = kept.certificate();
    // Asked again and again, so that it is never idle for long.
    let mut is_open = || {
        let status = kept.ask("localhost", "/api/v1/status");
        assert_eq!(status.unwrap(), 401, "it is open still");
    };
    let shown = || {
        let mut client = connect();
        client.ask("localhost", "/api/v1/status").ok()?;
        Some(client.certificate())
    };
    office.authority.issue("admin", &["localhost"]);
    let renewed = wait_for("the renewed certificate is shown", || {
        is_open();
        shown().filter(|certificate| *certificate != before)
    });
    std::fs::write(office.authority.path("admin.pem"), "nonsense").unwrap();
    wait_until("the log tells", || {
        is_open();
        office.evenkeel.log().contains("the ones before stay")
    });
    assert_eq!(shown().as_ref(), Some(&renewed));
    is_open();
    let wish = Wish {
        expired: true,
        ..Wish::default()
    };
    office.authority.issue_as("admin", &["localhost"], wish);
    let ca = office.authority.file("ca.pem");
    wait_until("the command says that it has expired", || {
        let output = office.cli(&["status"], &["--ca", &ca]);
        text(&output.stderr).contains("Renew the file `admin.tls.certificate` there")
    });
}

/// Versions as listeners have them, by OpenSSL; and what is not TLS is told so.
#[test]
fn openssl_agrees_on_the_versions() {
    let office = Office::open();
    let connect = format!("127.0.0.1:{}", office.port());
    let ca = office.authority.file("ca.pem");
    let ask = |version: &str| {
        openssl(&[
            "s_client",
            "-connect",
            &connect,
            "-CAfile",
            &ca,
            version,
            "-verify_return_error",
        ])
    };
    for (version, agreed) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = ask(version);
        assert!(
            said.contains(agreed) && said.contains("Verification: OK"),
            "{said}"
        );
        assert!(
            !said.contains("Session Ticket"),
            "sessions are not resumed: {said}"
        );
    }
    let said = ask("-tls1_1");
    assert!(said.contains("no peer certificate available"), "{said}");
    let url = format!("http://localhost:{}/api/v1/status", office.port());
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "60", &url])
        .output()
        .unwrap();
    assert_eq!(reason(&text(&output.stdout)), "plain_http");
}

/// Scenario: as many connections as are served at once, from many addresses, which say nothing, or half a handshake. Each
/// is closed at the deadline of the handshake, and whoever came after them is served then.
#[test]
fn silent_connections_are_closed_and_others_served() {
    let office = Office::open();
    let connect = |n: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from(([127, 0, 0, 2 + n / 4], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&local(&office).into()).unwrap();
        TcpStream::from(socket)
    };
    let mut silent: Vec<TcpStream> = (0..128).map(connect).collect();
    for half in silent.iter_mut().step_by(2) {
        std::io::Write::write_all(half, b"\x16\x03\x01\x02\x00\x01").unwrap();
    }
    assert_eq!(office.curl("/livez", &[]).1, 200, "it waited for its turn");
    for mut stream in silent {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        // A reset is an end like another.
        let _ = stream.read_to_end(&mut rest);
    }
    // A connection ends a moment before it is counted.
    wait_until("all are counted", || {
        office.metric("evenkeel_admin_handshake_failures_total 128")
    });
}

/// Scenario: somebody guesses tokens from the address that the operators use. He is told to wait; they are let in.
#[test]
fn guessing_tokens_locks_nobody_out() {
    let office = Office::open();
    let guess = |n: usize| {
        office.curl(
            "/api/v1/status",
            &["-H", &format!("Authorization: Bearer guess{n}")],
        )
    };
    let begin = Instant::now();
    let mut answers = (0..60).map(guess).enumerate();
    let stopped = answers.find(|(_, (_, status, _))| *status != 401);
    let (wrong, (_, status, body)) = stopped.expect("he is told to wait");
    // Ten at once, and one more for every six seconds that it takes.
    let most = 10 + begin.elapsed().as_secs() / 6;
    assert!(wrong >= 10 && wrong as u64 <= most, "{wrong} of {most}");
    assert_eq!((status, reason(&body).as_str()), (429, "too_many_failures"));
    assert_eq!(office.curl_as("operator", "/api/v1/status", &[]).0, 200);
    let counted = format!("evenkeel_admin_failed_logins_total{{why=\"wrong_token\"}} {wrong}");
    assert!(office.metric(&counted));
}

/// Scenario: the day of an operator, told afterwards; the file is kept by SIGUSR1 and across a restart, and only its
/// owner can read it.
#[test]
fn the_audit_log_tells_the_day() {
    let one = Backend::named("one");
    let place = Place::new(&shop(&[&one], QUIET));
    let mut evenkeel = place.start();
    let address = one.address.to_string();
    evenkeel.cli_ok(&[
        "backend", "drain", "shop", &address, "--for", "10m", "--by", "alice",
    ]);
    evenkeel.cli_ok(&["reload"]);
    let file = place.data().join("audit.log");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::rename(&file, place.path().join("kept")).unwrap();
    evenkeel.signal(nix::sys::signal::Signal::SIGUSR1);
    wait_until("it is opened again", || file.exists());
    evenkeel.cli_ok(&["backend", "ready", "shop", &address, "--by", "bob"]);
    let kept = std::fs::read_to_string(place.path().join("kept")).unwrap();
    assert_eq!(kept.lines().count(), 2, "{kept}");
    assert!(kept.contains("drain for 10m, by alice"), "{kept}");
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    let told = evenkeel.cli_ok(&["audit"]);
    assert!(told.contains("ready, by bob") && told.contains("local"), "{told}");
    let json: Value = serde_json::from_str(&evenkeel.cli_ok(&["audit", "--json"])).unwrap();
    assert_eq!(json["records"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(evenkeel.metric("evenkeel_audit_records_total", &[]), 0.0);
}

/// Scenario: a viewer and an operator ask what a config would do that names a page which is there, and one that is not.
/// They are told the same. An admin is told which cannot be read.
#[test]
fn a_plan_tells_nobody_but_an_admin_which_files_there_are() {
    let office = Office::open();
    let whole = std::fs::read_to_string(office.place.config()).unwrap();
    let asked = |role: &str, page: &std::path::Path| {
        let text = format!(
            "[[load_balancers.shop.routes]]\npool = \"default\"\nerror_pages = {{ \"5xx\" = \"{}\" }}\n",
            page.display()
        );
        let text = format!("{whole}\n{text}");
        let body = serde_json::json!({ "text": text }).to_string();
        office.curl_as(role, "/api/v1/plan", &["--json", &body])
    };
    let there = office.place.config();
    let missing = there.with_file_name("missing.t");
    for role in ["viewer", "operator"] {
        let (status, plan) = asked(role, &missing);
        assert_eq!(status, 200, "{plan}");
        assert_eq!(asked(role, &there), (status, plan));
    }
    assert_eq!(asked("admin", &there).0, 200);
    let (status, told) = asked("admin", &missing);
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("missing.t"), "{told}");
}

/// Scenario: the disk of the audit log is full. A backend can be drained all the same; the record is in the log of the
/// process, and counted.
#[test]
fn a_full_disk_of_the_audit_log_stops_no_order() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&format!(
        "[admin]\naudit_log = \"/dev/full\"\n{}",
        shop(&[&one], QUIET)
    ));
    evenkeel.cli_ok(&[
        "backend",
        "drain",
        "shop",
        &one.address.to_string(),
        "--by",
        "alice",
    ]);
    evenkeel.wait_for_state(one.address, "draining");
    wait_until("the log has the record", || {
        let log = evenkeel.log();
        log.contains("cannot be written") && log.contains("drain, by alice")
    });
    evenkeel.wait_for_metric("evenkeel_audit_records_total", &[("result", "failed")], 1.0);
}

/// `check` reads the files too, and start ends with what is wrong: no process serves without the TLS that was asked
/// for.
#[test]
fn files_that_cannot_be_used_are_told_before_anything_listens() {
    let authority = Authority::new();
    authority.issue("admin", &["localhost"]);
    authority.issue("other", &["localhost"]);
    let one = Backend::named("one");
    let place = Place::new(&format!(
        "[admin.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{}",
        authority.file("admin.pem"),
        authority.file("other.key"),
        shop(&[&one], QUIET)
    ));
    let path = place.config().display().to_string();
    let output = program().args(["check", &path]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not belong to the certificate"), "{said}");
    let output = place.command().output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("admin.tls: the key in"), "{said}");
}
