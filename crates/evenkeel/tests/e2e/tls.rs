//! TLS towards clients: real clients (curl, openssl, rustls), real files, real changes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{
    Authority, Backend, Evenkeel, Place, QUIET, TlsClient, TlsLoad, Wish, curl, openssl, shop_with_listener,
    wait_until,
};

/// Asks by curl for a path of `host`, trusting `authority`; what it printed.
fn ask(authority: &Authority, at: SocketAddr, host: &str, more: &[&str]) -> String {
    let (ca, resolve) = (
        authority.file("ca.pem"),
        format!("{host}:{}:{}", at.port(), at.ip()),
    );
    let url = format!("https://{host}:{}/", at.port());
    let args = ["--include", "--cacert", &ca, "--resolve", &resolve, &url];
    let output = curl(&[&args[..], more].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The common name of the certificate that `openssl` is shown.
fn shown(at: SocketAddr, more: &[&str]) -> String {
    let at = at.to_string();
    let text = openssl(&[&["s_client", "-connect", &at][..], more].concat());
    let line = text
        .lines()
        .find(|line| line.contains("subject="))
        .unwrap_or_default();
    line.rsplit("CN")
        .next()
        .unwrap_or_default()
        .trim_matches([' ', '='])
        .to_owned()
}

/// Scenario: browsers of today and of some years ago come to an address with several names.
#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let authority = Authority::new();
    authority.issue("first", &["first.test"]);
    authority.issue("shop", &["shop.test"]);
    authority.issue("wild", &["*.wild.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["first", "shop", "wild"], "");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let at = evenkeel.address();
    for host in ["first.test", "shop.test", "a.wild.test"] {
        for version in ["1.2", "1.3"] {
            let answer = ask(&authority, at, host, &["--http1.1", "--tls-max", version]);
            assert!(answer.contains(" 200 "), "{host} {version}: {answer}");
            assert_eq!(backend.last().field("x-forwarded-proto"), Some("https"));
        }
    }
    // No name, or one that nobody knows: the first.
    assert_eq!(shown(at, &["-noservername"]), "first");
    assert_eq!(shown(at, &["-servername", "other.test"]), "first");
    assert_eq!(shown(at, &["-servername", "b.a.wild.test"]), "first");
    // A client may be done with a handshake before we are.
    let handshakes = "evenkeel_tls_handshakes_total";
    evenkeel.wait_for_metric(handshakes, &[("version", "1.2")], 3.0);
    evenkeel.wait_for_metric(handshakes, &[("version", "1.3")], 6.0);
    evenkeel.wait_for_metric("evenkeel_tls_handshake_seconds_count", &[], 9.0);
}

/// Scenario: old devices know only RSA, the others are served with ECDSA, under one name.
#[test]
fn ecdsa_is_shown_to_who_knows_it_and_rsa_to_the_others() {
    let authority = Authority::new();
    let rsa = Wish {
        rsa: true,
        ..Wish::default()
    };
    authority.issue_as("rsa", &["shop.test"], rsa);
    authority.issue("ecdsa", &["shop.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["rsa", "ecdsa"], "");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let with = |schemes| {
        shown(
            evenkeel.address(),
            &["-servername", "shop.test", "-sigalgs", schemes],
        )
    };
    assert_eq!(with("ECDSA+SHA256:RSA-PSS+SHA256"), "ecdsa");
    assert_eq!(with("RSA-PSS+SHA256"), "rsa");
}

/// Scenario: the security office wants 1.3 alone on one address.
#[test]
fn a_version_below_the_least_is_refused_and_counted() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["shop"], ", min_version = \"1.3\"");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let at = evenkeel.address().to_string();
    let refused = openssl(&["s_client", "-connect", &at, "-tls1_2"]);
    assert!(refused.contains("alert protocol version"), "{refused}");
    let failures = [("reason", "version")];
    evenkeel.wait_for_metric("evenkeel_tls_handshake_failures_total", &failures, 1.0);
}

/// Scenario: partners come with certificates, and somebody tries to pass for one by header fields.
#[test]
fn a_client_certificate_is_verified_and_told_and_cannot_be_forged() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("shop", &["shop.test"]);
    authority.issue("alice", &["alice"]);
    stranger.issue("mallory", &["mallory"]);
    let backend = Backend::named("one");
    let with_mode = |mode: &str| {
        let ca = authority.file("ca.pem");
        let clients = format!(", client_certificates = {{ mode = \"{mode}\", ca = \"{ca}\" }}");
        let listener = authority.listener(&["shop"], &clients);
        Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET))
    };
    let forged = [
        "--header",
        "X-Client-Cert-Subject: CN=root",
        "--header",
        "Client-Cert: :AA==:",
    ];
    let certificate = |of: &Authority, name: &str| {
        [
            "--cert".to_owned(),
            of.file(&format!("{name}.pem")),
            "--key".to_owned(),
            of.file(&format!("{name}.key")),
        ]
    };
    let optional = with_mode("optional");
    ask(&authority, optional.address(), "shop.test", &forged);
    let seen = backend.last();
    assert_eq!(seen.all("x-client-cert-verified"), ["NONE"]);
    assert!(seen.field("x-client-cert-subject").is_none() && seen.field("client-cert").is_none());

    let alice = certificate(&authority, "alice");
    let alice: Vec<&str> = alice.iter().map(String::as_str).collect();
    for evenkeel in [&optional, &with_mode("require")] {
        ask(
            &authority,
            evenkeel.address(),
            "shop.test",
            &[&alice[..], &forged].concat(),
        );
        let seen = backend.last();
        assert_eq!(seen.all("x-client-cert-verified"), ["SUCCESS"]);
        assert_eq!(seen.all("client-cert").len(), 1);
        assert!(seen.field("x-client-cert-subject").unwrap().contains("CN=alice"));
        assert_eq!(seen.field("x-client-cert-fingerprint").unwrap().len(), 64);
        // A certificate of somebody else's authority is refused even where none is needed.
        let (at, pem, key) = (
            evenkeel.address().to_string(),
            stranger.file("mallory.pem"),
            stranger.file("mallory.key"),
        );
        openssl(&["s_client", "-connect", &at, "-cert", &pem, "-key", &key]);
        let unknown = [("reason", "unknown_issuer")];
        wait_until("it is counted", || {
            evenkeel.metric("evenkeel_tls_handshake_failures_total", &unknown) == 1.0
        });
    }
}

/// Scenario: a browser reuses a connection for a name that has another certificate (RFC 9110 section 15.5.20).
#[test]
fn a_request_for_another_host_than_the_connection_is_misdirected() {
    let authority = Authority::new();
    authority.issue("both", &["shop.test", "www.shop.test"]);
    authority.issue("other", &["other.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["both", "other"], "");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let at = evenkeel.address();
    let answer = ask(&authority, at, "shop.test", &["--header", "Host: other.test"]);
    assert!(
        answer.contains(" 421") && answer.contains("misdirected_request"),
        "{answer}"
    );
    assert_eq!(backend.count(), 0);
    // The same certificate serves both names.
    let answer = ask(&authority, at, "shop.test", &["--header", "Host: www.shop.test"]);
    assert!(answer.contains(" 200"), "{answer}");
}

/// Scenario: an `http://` link to the TLS port.
#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_with_listener(
        &[&backend],
        &authority.listener(&["shop"], ""),
        QUIET,
    ));
    let answer = evenkeel.client().get("/");
    assert_eq!(
        (answer.status(), answer.reason()),
        (400, "plain_http_on_tls_port")
    );
    assert_eq!(backend.count(), 0);
}

/// Scenario: slowloris on the handshake, and a client that sends nothing at all.
#[test]
fn a_half_handshake_is_closed_in_time() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["shop"], "") + "timeouts = { tls_handshake = \"300ms\" }\n";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let begin = Instant::now();
    // The head of a record that announces a ClientHello which never comes.
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        let mut tcp = TcpStream::connect(evenkeel.address()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.write_all(start).unwrap();
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = tcp.read_to_end(&mut rest);
    }
    assert!(
        begin.elapsed() > Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    let timeouts = [("reason", "timeout")];
    wait_until("both are counted", || {
        evenkeel.metric("evenkeel_tls_handshake_failures_total", &timeouts) == 2.0
    });
    wait_until("nothing is left", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) == 0.0
    });
}

/// Scenario: certbot renews under traffic; then somebody copies the wrong key.
#[test]
fn a_new_certificate_is_taken_under_load_and_a_bad_one_is_not() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_with_listener(
        &[&backend],
        &authority.listener(&["shop"], ""),
        QUIET,
    ));
    let (config, at) = (authority.client(), evenkeel.address());
    let shown = || {
        let mut client = TlsClient::connect(config.clone(), at, "shop.test");
        client.get("shop.test").unwrap();
        client.certificate()
    };
    let first = shown();
    let load = TlsLoad::start(&config, at, "shop.test");
    load.wait_for_more(20);
    authority.issue("shop", &["shop.test"]);
    wait_until("it is reloaded", || {
        !evenkeel.events("certificate_reloaded").is_empty()
    });
    load.wait_for_more(20);
    authority.issue("other", &["shop.test"]);
    std::fs::copy(authority.path("other.key"), authority.path("shop.key")).unwrap();
    wait_until("it is refused", || {
        !evenkeel.events("certificate_refused").is_empty()
    });
    load.wait_for_more(20);
    assert_eq!(load.stop(), Vec::<String>::new());
    let fresh = || TlsClientFresh(&authority, at).certificate();
    assert_ne!(fresh(), first);
    let events = evenkeel.events("certificate_refused");
    assert!(
        events[0].contains("does not belong to the certificate"),
        "{events:?}"
    );
    evenkeel.wait_for_metric("evenkeel_certificate_refused_total", &[], 1.0);
    let status = evenkeel.cli_ok(&["status"]);
    assert!(status.contains("NOT RELOADED: the key in"), "{status}");
}

/// A client without sessions to resume: it sees the certificate in use.
struct TlsClientFresh<'a>(&'a Authority, SocketAddr);

impl TlsClientFresh<'_> {
    fn certificate(&self) -> Vec<u8> {
        let mut client = TlsClient::connect(self.0.client(), self.1, "shop.test");
        client.get("shop.test").unwrap();
        client.certificate()
    }
}

/// Scenario: a client comes back, and the kernel gives it to another thread.
#[test]
fn a_session_resumes_on_every_shard() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let config = shop_with_listener(&[&backend], &authority.listener(&["shop"], ""), QUIET);
    let evenkeel = Evenkeel::start(&format!("[node]\nthreads = 4\n{config}"));
    let at = evenkeel.address().to_string();
    // It connects once, and five times more with that session.
    let text = openssl(&[
        "s_client",
        "-connect",
        &at,
        "-servername",
        "shop.test",
        "-tls1_2",
        "-reconnect",
    ]);
    assert_eq!(text.matches("Reused, TLSv1.2").count(), 5, "{text}");
    let resumed = [("version", "1.2"), ("resumed", "true")];
    evenkeel.wait_for_metric("evenkeel_tls_handshakes_total", &resumed, 5.0);
}

/// Scenario: a start and a reload with certificates that cannot be served.
#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    authority.issue("other", &["other.test"]);
    let old = Wish {
        expired: true,
        ..Wish::default()
    };
    authority.issue_as("old", &["old.test"], old);
    let backend = Backend::named("one");
    let good = shop_with_listener(&[&backend], &authority.listener(&["shop"], ""), QUIET);
    let mixed = good.replace("shop.key", "other.key");
    let check = |config: &str| {
        let place = Place::new(config);
        let mut command = crate::support::program();
        let output = command.arg("check").arg(place.config()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    assert!(check(&good).0);
    let (ok, text) = check(&mixed);
    assert!(
        !ok && text.contains("other.key does not belong to the certificate in"),
        "{text}"
    );
    let (ok, text) = check(&good.replace("shop.pem", "old.pem").replace("shop.key", "old.key"));
    assert!(!ok && text.contains("it expired"), "{text}");

    let evenkeel = Evenkeel::start(&good);
    let answer = evenkeel.try_reload(&mixed);
    assert!(
        answer.text().contains("does not belong to the certificate"),
        "{}",
        answer.text()
    );
    assert_eq!(evenkeel.revision(), 1);
    let at = evenkeel.address();
    assert!(ask(&authority, at, "shop.test", &[]).contains(" 200"));
}

/// Scenario: an OCSP response made by the authority stands beside the certificate.
#[test]
fn an_ocsp_response_is_sent_along() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let response = authority.file("shop.ocsp");
    std::fs::write(&response, authority.ocsp_response("shop", 4_000_000_000)).unwrap();
    let backend = Backend::named("one");
    let listener = authority.listener(&["shop"], "");
    let listener = listener.replace("shop.key\"", &format!("shop.key\", ocsp = \"{response}\""));
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let at = evenkeel.address().to_string();
    let text = openssl(&["s_client", "-connect", &at, "-servername", "shop.test", "-status"]);
    assert!(text.contains("OCSP Response Status: successful"), "{text}");
    assert!(text.contains("Cert Status: good"), "{text}");
}
