//! The access log: true to the byte, one line a request whatever a client sends, and never in the way of traffic.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Backend, DEADLINE, Evenkeel, Load, Place, QUIET, curl, free_address, pattern, shop, shop_on,
    shop_with_listener, wait_for, wait_until,
};

/// A place with an access log in a file of its own.
struct Logged {
    evenkeel: Evenkeel,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Logged {
    /// `keys` are further keys of `[access_log]`.
    fn start(config: &str, keys: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = format!("[access_log]\nto = \"file:{}\"\n{keys}\n", path.display());
        Self {
            evenkeel: Evenkeel::start(&format!("{log}{config}")),
            path,
            _dir: dir,
        }
    }

    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<String> {
        wait_for("the lines are there", || {
            let lines = lines_of(&self.path);
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The same, as objects.
    fn objects(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count);
        lines.iter().map(|line| object(line)).collect()
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Sends a request on a connection of its own, and reads all that comes back.
fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// A download, an upload and a failure: status, reason, backend and every byte are those that went over the wire.
#[test]
fn lines_are_true_to_the_byte() {
    let body = pattern(70_000);
    let answer = body.clone();
    let one = Backend::answering(move |request| {
        let mut out = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len()).into_bytes();
        if request.method() != "HEAD" {
            out.extend_from_slice(&answer);
        }
        out
    });
    let dead = free_address();
    let routes = format!(
        "[[load_balancers.shop.routes]]\nname = \"dead\"\nmatch = {{ path = \"/dead\" }}\npool = \"dead\"\n\
         [[load_balancers.shop.routes]]\nname = \"main\"\nmatch = {{ path_prefix = \"/ok\" }}\npool = \"main\"\n\
         [load_balancers.shop.pools.main]\nbackend_servers = [\"{}\"]\n{QUIET}\
         [load_balancers.shop.pools.dead]\nbackend_servers = [\"{dead}\"]\n{QUIET}",
        one.address
    );
    let config = format!("[node]\nthreads = 1\n[load_balancers.shop]\nlisten = \"127.0.0.1:0\"\n{routes}");
    let logged = Logged::start(&config, "");
    let address = logged.evenkeel.address();
    let get = b"GET /ok?a=b HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: test/1\r\nConnection: close\r\n\r\n";
    let put_head = b"PUT /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\nConnection: close\r\n\r\n";
    let put = [put_head.as_slice(), &body].concat();
    let dead_get = b"GET /dead HTTP/1.0\r\nReferer: http://x/\r\n\r\n";
    let lost = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut sent = Vec::new();
    for (n, request) in [get.as_slice(), &put, dead_get, lost].into_iter().enumerate() {
        sent.push(exchange(address, request).len());
        logged.lines(n + 1);
    }
    let lines = logged.objects(4);
    let received = [get.len(), put.len(), dead_get.len(), lost.len()];
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["received_bytes"], received[n], "{line}");
        assert_eq!(line["sent_bytes"], sent[n], "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(line["total_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(line["load_balancer"], "shop");
    }
    assert_eq!(lines[0]["path"], "/ok?a=b");
    assert_eq!(lines[0]["host"], "shop.test");
    assert_eq!(lines[0]["user_agent"], "test/1");
    assert_eq!(lines[0]["backend"], one.address.to_string());
    assert_eq!(
        (&lines[0]["route"], &lines[0]["pool"]),
        (&"main".into(), &"main".into())
    );
    assert_eq!(lines[0]["reused"], false);
    assert!(lines[0]["connect_ms"].is_number() && lines[0]["first_byte_ms"].is_number());
    assert_eq!(
        (&lines[1]["method"], &lines[1]["reused"]),
        (&"PUT".into(), &true.into())
    );
    assert_eq!(lines[2]["reason"], "connect_refused");
    assert_eq!(
        (&lines[2]["status"], &lines[2]["protocol"]),
        (&502.into(), &"HTTP/1.0".into())
    );
    assert_eq!(
        (&lines[2]["backend"], &lines[2]["referer"]),
        (&dead.to_string().into(), &"http://x/".into())
    );
    assert_eq!(
        (&lines[3]["reason"], &lines[3]["attempts"]),
        (&"no_route".into(), &0.into())
    );
    assert!(lines[3].get("backend").is_none() && lines[3].get("route").is_none());
}

/// A retry shows: two attempts, and the backend that answered.
#[test]
fn a_retry_is_in_the_line() {
    let bad = Backend::scripted(|conversation| {
        conversation.request();
    });
    let good = Backend::named("good");
    let logged = Logged::start(&shop(&[&bad, &good], QUIET), "");
    let mut client = logged.evenkeel.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").status(), 200);
    }
    let lines = logged.objects(2);
    let retried = lines
        .iter()
        .find(|line| line["attempts"] == 2)
        .expect("one was retried");
    assert_eq!(retried["backend"], good.address.to_string());
    assert_eq!((&retried["status"], retried.get("reason")), (&200.into(), None));
}

/// The file is moved away again and again under load: every request has its line in one of the files, none is
/// torn, and no request notices.
#[test]
fn rotation_under_load_loses_no_line() {
    let one = Backend::named("one");
    let logged = Logged::start(&shop(&[&one], QUIET), "");
    let load = Load::start(logged.evenkeel.address(), 8);
    let moved: Vec<PathBuf> = (0..4)
        .map(|n| logged.path.with_extension(n.to_string()))
        .collect();
    for to in &moved {
        load.wait_for_more(200);
        fs::rename(&logged.path, to).unwrap();
        logged.evenkeel.signal(Signal::SIGUSR1);
        wait_until("the file is there again", || logged.path.exists());
    }
    let report = load.stop();
    report.assert_nothing_failed();
    let count = || {
        let files = moved.iter().chain([&logged.path]);
        files.map(|path| lines_of(path).len()).sum::<usize>() as u64
    };
    wait_until("every line is written", || count() >= report.ok);
    assert_eq!(count(), report.ok);
    let ids: std::collections::BTreeSet<String> = moved
        .iter()
        .chain([&logged.path])
        .flat_map(|path| lines_of(path))
        .map(|line| object(&line)["request_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len() as u64, report.ok, "each request has an id of its own");
    assert_eq!(
        logged.evenkeel.metric("evenkeel_access_log_dropped_total", &[]),
        0.0
    );
}

/// Nobody reads standard output: traffic goes on, lines are dropped and counted; once somebody reads again, every
/// line that was not dropped comes, whole.
#[test]
fn a_stuck_reader_stalls_nobody() {
    let one = Backend::named("one");
    let config = format!("[access_log]\nqueue = \"64KiB\"\n{}", shop(&[&one], QUIET));
    let place = Place::new(&format!("[node]\nthreads = 1\n{config}"));
    let (mut evenkeel, stdout) = Evenkeel::spawn_reading(&mut place.command());
    let mut client = evenkeel.client();
    let target = format!("/{}", "x".repeat(1_000));
    let mut asked = 0;
    wait_until("lines are dropped", || {
        for _ in 0..200 {
            assert_eq!(client.get(&target).status(), 200);
        }
        asked += 200;
        evenkeel.metric("evenkeel_access_log_dropped_total", &[]) > 0.0
    });
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.inspect(|line| drop(object(line.as_ref().unwrap()))).count()
    });
    wait_until("the rest is written", || {
        let metrics = evenkeel.metrics();
        let written = metrics.sum("evenkeel_access_log_lines_total", &[]);
        written + metrics.sum("evenkeel_access_log_dropped_total", &[]) == f64::from(asked)
    });
    let written = evenkeel.metric("evenkeel_access_log_lines_total", &[]);
    evenkeel.signal(Signal::SIGTERM);
    drop(client);
    assert!(evenkeel.wait_for_end().success());
    assert_eq!(reader.join().unwrap() as f64, written);
}

/// A full disk: requests go on, the lines are counted as dropped, and the trouble is said once.
#[test]
fn a_full_disk_stalls_nobody() {
    let one = Backend::named("one");
    let config = format!("[access_log]\nto = \"file:/dev/full\"\n{}", shop(&[&one], QUIET));
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    for round in 1..=3 {
        assert_eq!(client.get("/").status(), 200);
        wait_until("the line is counted", || {
            evenkeel.metric("evenkeel_access_log_dropped_total", &[]) >= f64::from(round)
        });
    }
    let metrics = evenkeel.metrics();
    assert_eq!(metrics.sum("evenkeel_access_log_dropped_total", &[]), 3.0);
    assert_eq!(metrics.sum("evenkeel_access_log_errors_total", &[]), 3.0);
    assert_eq!(metrics.sum("evenkeel_access_log_lines_total", &[]), 0.0);
    // Its log is read beside all this.
    let told = || evenkeel.log().matches("cannot write to file:/dev/full").count();
    wait_until("the trouble is said", || told() > 0);
    assert_eq!(told(), 1);
}

/// The end waits for the last lines, but not for a reader that never reads.
#[test]
fn a_stuck_reader_does_not_keep_the_process_alive() {
    let one = Backend::named("one");
    let place = Place::new(&format!("[access_log]\n{}", shop(&[&one], QUIET)));
    let (mut evenkeel, stdout) = Evenkeel::spawn_reading(&mut place.command());
    let mut client = evenkeel.client();
    let target = format!("/{}", "x".repeat(4_000));
    for _ in 0..200 {
        assert_eq!(client.get(&target).status(), 200);
    }
    drop(client);
    evenkeel.signal(Signal::SIGTERM);
    assert!(evenkeel.wait_for_end().success());
    drop(stdout);
}

#[test]
fn a_line_becomes_a_syslog_message() {
    let one = Backend::named("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.sock");
    let unix = UnixDatagram::bind(&path).unwrap();
    unix.set_read_timeout(Some(DEADLINE)).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(DEADLINE)).unwrap();
    let base = shop(&[&one], QUIET);
    let to_unix = format!("[access_log]\nto = \"syslog:{}\"\n{base}", path.display());
    let evenkeel = Evenkeel::start(&to_unix);
    let pid = evenkeel.pid();
    let message = |receive: &dyn Fn(&mut [u8]) -> std::io::Result<usize>, path: &str| {
        assert_eq!(evenkeel.client().get(path).status(), 200);
        let mut buffer = [0; 16_384];
        let length = receive(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        let (head, line) = text.split_once(" - {").expect("structured data and a message");
        let parts: Vec<&str> = head.split(' ').collect();
        assert_eq!(
            (parts[0], parts[3], parts[5]),
            ("<134>1", "evenkeel", "access"),
            "{text}"
        );
        assert_eq!(parts[4], pid.to_string());
        assert!(parts[1].ends_with('Z') && parts[1].len() == 24, "{text}");
        assert_eq!(object(&format!("{{{line}"))["path"], path);
    };
    message(&|buffer| unix.recv(buffer), "/unix");
    // The same process turns to another daemon.
    evenkeel.reload(&to_unix.replace(
        &format!("syslog:{}", path.display()),
        &format!("syslog:udp://{}", udp.local_addr().unwrap()),
    ));
    message(&|buffer| udp.recv(buffer), "/udp");
}

/// A daemon that is started anew has another socket at the same path: lines come there.
#[test]
fn a_syslog_daemon_may_be_restarted() {
    let one = Backend::named("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.sock");
    let first = UnixDatagram::bind(&path).unwrap();
    let config = format!(
        "[access_log]\nto = \"syslog:{}\"\n{}",
        path.display(),
        shop(&[&one], QUIET)
    );
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    drop(first);
    fs::remove_file(&path).unwrap();
    client.get("/lost");
    wait_until("it is noticed", || {
        evenkeel.metric("evenkeel_access_log_dropped_total", &[]) > 0.0
    });
    let second = UnixDatagram::bind(&path).unwrap();
    second.set_nonblocking(true).unwrap();
    wait_until("a line comes", || {
        client.get("/found");
        second.recv(&mut [0; 16_384]).is_ok()
    });
}

/// Whatever bytes a client sends, a line is one line, valid and ASCII, in both formats.
#[test]
fn hostile_bytes_break_no_line() {
    let one = Backend::named("one");
    for format in ["json", "common"] {
        let logged = Logged::start(&shop(&[&one], QUIET), &format!("format = \"{format}\""));
        let address = logged.evenkeel.address();
        let mut agent = b"\" \\ {} \x80\xff\xc2\x9b31m".to_vec();
        agent.extend_from_slice("ü\u{2028}🚢".as_bytes());
        let fields = [
            b"User-Agent: ".as_slice(),
            &agent,
            b"\r\nReferer: \"\\u0022\"\r\n",
        ]
        .concat();
        let good = [
            b"GET /a?\"%0a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".as_slice(),
            &fields,
            b"\r\n",
        ]
        .concat();
        exchange(address, &good);
        logged.lines(1);
        exchange(address, b"GET /\x1b]0;pwned\x07\" HTTP/9\r\nX: 1\r\n\r\n");
        logged.lines(2);
        exchange(address, b"\x16\x03\x01\x02\x00\x01\x00\"\"\"\r\n\r\n");
        let lines = logged.lines(3);
        assert_eq!(lines.len(), 3, "{lines:?}");
        for line in &lines {
            assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
        }
        if format == "json" {
            let lines = logged.objects(3);
            assert_eq!(
                lines[0]["user_agent"],
                String::from_utf8_lossy(&agent).into_owned()
            );
            assert_eq!(lines[0]["referer"], "\"\\u0022\"");
            assert_eq!(
                (&lines[1]["status"], &lines[2]["status"]),
                (&400.into(), &400.into())
            );
            assert_eq!(lines[1]["path"], "GET /\u{1b}]0;pwned\u{7}\" HTTP/9");
        } else {
            assert!(
                lines.iter().all(|line| line.matches('"').count() == 6),
                "{lines:?}"
            );
        }
    }
}

/// The combined format is read by what reads nginx's.
#[test]
fn the_common_format_is_what_other_programs_read() {
    let one = Backend::named("one");
    let logged = Logged::start(&shop(&[&one], QUIET), "format = \"common\"");
    let answer = exchange(
        logged.evenkeel.address(),
        b"GET /cart?id=7 HTTP/1.1\r\nHost: a\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n\r\n",
    );
    let line = logged.lines(1).remove(0);
    let (time, rest) = line
        .strip_prefix("127.0.0.1 - - [")
        .and_then(|rest| rest.split_once("] "))
        .expect("address and time");
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
    let expected = format!(
        "\"GET /cart?id=7 HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0\"",
        answer.len()
    );
    assert_eq!(rest, expected);
}

/// Queries left out, a load balancer left out, successes left out: failures stay.
#[test]
fn what_is_not_wanted_is_not_logged() {
    let one = Backend::named("one");
    let other = shop_on(
        "127.0.0.1:0",
        &[one.address],
        &format!("access_log = false\n{QUIET}"),
    );
    let other = other.replace("load_balancers.shop", "load_balancers.probes");
    let config = format!("{}\n{other}", shop(&[&one], QUIET));
    let logged = Logged::start(&config, "query = false\nsample = \"0%\"");
    let evenkeel = &logged.evenkeel;
    for lb in ["probes", "shop"] {
        let address = evenkeel.listener(lb, "http");
        exchange(
            address,
            b"GET /?ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
    }
    one.kill();
    for lb in ["probes", "shop"] {
        let address = evenkeel.listener(lb, "http");
        let request = format!("GET /{lb}?secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        exchange(address, request.as_bytes());
    }
    let lines = logged.objects(1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["path"], &lines[0]["status"]),
        (&"/shop".into(), &502.into())
    );
}

/// Behind a trusted proxy the client is the one that it reports; from anybody else it is not believed.
#[test]
fn the_client_is_the_one_that_trusted_proxies_report() {
    let one = Backend::named("one");
    for (trusted, client) in [("127.0.0.0/8", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let listener = format!("trusted_proxies = [\"{trusted}\"]");
        let logged = Logged::start(&shop_with_listener(&[&one], &listener, QUIET), "");
        exchange(
            logged.evenkeel.address(),
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(logged.objects(1)[0]["client"], client, "{trusted}");
    }
}

/// A log that cannot be opened: the start says so, a reload goes on and catches up when it can.
#[test]
fn a_log_that_cannot_be_opened_is_told() {
    let one = Backend::named("one");
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("not-there/access.log");
    let base = shop(&[&one], QUIET);
    let with_log = format!("[access_log]\nto = \"file:{}\"\n{base}", missing.display());
    let place = Place::new(&with_log);
    let output = place.command().stdout(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("access log: cannot open file:") && said.contains("not-there"),
        "{said}"
    );

    let evenkeel = Evenkeel::start(&base);
    evenkeel.reload(&with_log);
    let mut client = evenkeel.client();
    client.get("/lost");
    wait_until("the loss is counted", || {
        evenkeel.metric("evenkeel_access_log_dropped_total", &[]) > 0.0
    });
    fs::create_dir(missing.parent().unwrap()).unwrap();
    wait_until("lines are written", || {
        client.get("/found");
        !lines_of(&missing).is_empty()
    });
}

/// A tunnel has its line when it begins, not when it ends.
#[test]
fn a_tunnel_is_logged_when_it_begins() {
    let one = Backend::scripted(|conversation| {
        conversation.head();
        conversation
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        conversation.hold();
    });
    let logged = Logged::start(&shop(&[&one], QUIET), "");
    let mut client = logged.evenkeel.client();
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    let line = logged.objects(1).remove(0);
    assert_eq!((&line["status"], &line["path"]), (&101.into(), &"/chat".into()));
    assert_eq!(line["backend"], one.address.to_string());
    assert!(line.get("reason").is_none(), "{line}");
}

/// A request over HTTP/2 is told like any other: its line, its id in the response, its trace to the backend.
#[test]
fn requests_over_http2_are_told_alike() {
    let one = Backend::named("one");
    let tracing = format!("[tracing]\nendpoint = \"http://{}\"\n", free_address());
    let logged = Logged::start(&format!("{tracing}{}", shop(&[&one], QUIET)), "");
    let url = format!("http://{}/over?h2", logged.evenkeel.address());
    let output = curl(&["--http2-prior-knowledge", "--include", "--user-agent", "h2", &url]);
    let answer = String::from_utf8(output.stdout).unwrap();
    let line = logged.objects(1).remove(0);
    let id = line["request_id"].as_str().unwrap();
    assert!(answer.contains(&format!("x-request-id: {id}\r\n")), "{answer}");
    assert_eq!(
        (&line["protocol"], &line["status"]),
        (&"HTTP/2.0".into(), &200.into())
    );
    assert_eq!(
        (&line["path"], &line["user_agent"]),
        (&"/over?h2".into(), &"h2".into())
    );
    let got = one.last();
    assert_eq!(got.field("x-request-id"), Some(id));
    assert_eq!(line["trace_id"], got.field("traceparent").unwrap()[3..35]);
}
