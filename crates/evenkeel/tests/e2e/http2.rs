//! HTTP/2 from clients (RFC 9113), with clients of other implementations: curl, h2load, and Python's h2.

use crate::support::frames::*;
use crate::support::frames_server::STATUS_200;
use crate::support::*;

/// Runs a scenario with Python's h2; `request`, `response` and `events` are those of its one connection.
fn run(evenkeel: &Evenkeel, scenario: &str) -> String {
    let prelude = "link = Http2()\nconn, request, response, flush = link.conn, link.request, link.response, link.flush\n\
                   events = lambda: link.events\n";
    http2_client(
        &format!("{prelude}{scenario}"),
        &[&evenkeel.address().to_string()],
    )
}

/// A listener with TLS in front of `backend`.
fn over_tls(authority: &Authority, backend: &Backend, more: &str) -> Evenkeel {
    authority.issue("shop", &["shop.test"]);
    let listener = authority.listener(&["shop"], "");
    Evenkeel::start(&shop_with_listener(
        &[backend],
        &format!("{listener}{more}"),
        QUIET,
    ))
}

/// Section 3.2: over TLS, `h2` is agreed on by ALPN, with curl and with Python; who does not offer it, or is not
/// offered it, speaks HTTP/1.1.
#[test]
fn over_tls_it_is_agreed_on_by_alpn() {
    let (authority, backend) = (Authority::new(), Backend::named("one"));
    let with = over_tls(&authority, &backend, "");
    let without = over_tls(&authority, &backend, "http2 = false\n");
    let ask = |evenkeel: &Evenkeel, version: &str| {
        let address = evenkeel.address();
        let output = curl(&[
            version,
            "--cacert",
            &authority.file("ca.pem"),
            "--connect-to",
            &format!("shop.test:443:{}:{}", address.ip(), address.port()),
            "-w",
            "%{http_version} %{http_code}",
            "https://shop.test/",
        ]);
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(ask(&with, "--http2"), "one2 200");
    assert_eq!(ask(&with, "--http1.1"), "one1.1 200");
    assert_eq!(ask(&without, "--http2"), "one1.1 200");
    let args = [with.address().to_string(), authority.file("ca.pem")];
    let out = http2_client(
        "link = Http2()\ngot = link.response(link.request())\nprint(got['body'].decode(), link.sock.version())",
        &args.each_ref().map(String::as_str),
    );
    assert_eq!(out, "one TLSv1.3\n");
    assert_eq!(with.metric("evenkeel_http2_connections_total", &[]), 2.0);
    assert_eq!(without.metric("evenkeel_http2_connections_total", &[]), 0.0);
}

/// RFC 9113 section 8.3.1: a path has no fragment. The protocol library cuts one off before anything sees it, so what
/// is routed, logged and forwarded is the same: the path without it, over either protocol to the backend.
#[test]
fn a_fragment_is_gone_before_anything_decides() {
    let (public, secret) = (Backend::named("public"), Backend::named("secret"));
    let server = http2_server(&[]);
    let pool = |name: &str, address: std::net::SocketAddr, more: &str| {
        format!("[load_balancers.shop.pools.{name}]\nbackend_servers = [\"{address}\"]\n{QUIET}{more}")
    };
    let route = |prefix: &str, pool: &str| {
        format!(
            "[[load_balancers.shop.routes]]\nmatch = {{ path_prefix = \"{prefix}\" }}\npool = \"{pool}\"\n"
        )
    };
    let evenkeel = Evenkeel::start(&format!(
        "[load_balancers.shop]\nlisten = \"127.0.0.1:0\"\n{}{}{}{}{}{}",
        pool("public", public.address, ""),
        pool("secret", secret.address, ""),
        pool("streams", server.address(), "protocol = \"http2\"\n"),
        route("/secret", "secret"),
        route("/h2", "streams"),
        route("/", "public"),
    ));
    let out = run(
        &evenkeel,
        r##"
for path in ("/a#/../secret", "/secret#/../a", "/a?q=1#x", "/secret?#", "/#"):
    print(response(request(path=path))["body"].decode())
seen = json.loads(response(request(path="/h2/b#/../secret"))["body"])
print(dict(seen["headers"])[":path"])
print(response(request(path="#/secret"))["body"].decode())
"##,
    );
    let targets = |backend: &Backend| -> Vec<String> {
        let requests = backend.requests();
        requests
            .iter()
            .map(|request| request.target().to_owned())
            .collect()
    };
    assert_eq!(targets(&public), ["/a", "/a?q=1", "/", "/"]);
    assert_eq!(targets(&secret), ["/secret", "/secret?"]);
    assert_eq!(out, "public\nsecret\npublic\nsecret\npublic\n/h2/b\npublic\n");
}

/// Section 3.3: curl by prior knowledge; HTTP/1 stays beside it on the same port.
#[test]
fn curl_is_served_beside_http_1() {
    let nginx = Nginx::start("one");
    let body = pattern(3_000_000);
    nginx.file("big", &body);
    let evenkeel = Evenkeel::start(&shop_on("127.0.0.1:0", &[nginx.address], QUIET));
    let url = format!("http://{}/", evenkeel.address());
    let told = curl(&[
        "--http2-prior-knowledge",
        "-w",
        "%{http_version} %{http_code}",
        &url,
    ]);
    assert_eq!(told.stdout, b"one2 200");
    let big = curl(&["--http2-prior-knowledge", &format!("{url}files/big")]);
    assert_eq!(big.stdout, body);
    let head = curl(&["--http2-prior-knowledge", "--head", &format!("{url}files/big")]);
    let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
    assert!(head.contains("content-length: 3000000"), "{head}");
    assert!(!head.contains("connection:"), "{head}");
    assert_eq!(evenkeel.client().get("/").status(), 200);
    evenkeel.wait_for_metric("evenkeel_http2_streams_total", &[], 3.0);
}

/// Without `http2` the preface is what it was: a request of a version that is not spoken.
#[test]
fn it_can_be_switched_off() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], "http2 = false", QUIET));
    let answer = evenkeel.client().ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(answer.status(), 505);
}

/// A body in both directions, larger than all windows, and echoed while it is still sent.
#[test]
fn bodies_stream_both_ways() {
    let nginx = Nginx::start("one");
    let evenkeel = Evenkeel::start(&shop_on("127.0.0.1:0", &[nginx.address], QUIET));
    let body = pattern(5_000_000);
    let file = evenkeel.place().path().join("up");
    std::fs::write(&file, &body).unwrap();
    let url = format!("http://{}/put/up", evenkeel.address());
    let file = file.display().to_string();
    curl(&["--http2-prior-knowledge", "--upload-file", &file, &url]);
    assert_eq!(nginx.uploaded("up"), body);
}

/// Section 8.2.3 and 8.3.1: what a backend of HTTP/1 gets.
#[test]
fn the_backend_gets_a_plain_request() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
got = response(request(path="/a/../b?q", more=[("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("te", "trailers")]))
print(dict(got["headers"])[":status"], got["body"].decode())
"#,
    );
    assert_eq!(out, "200 one\n");
    let request = backend.last();
    assert_eq!((request.method(), request.target()), ("GET", "/b?q"));
    assert_eq!(request.field("host"), Some("shop.test"));
    assert_eq!(request.field("cookie"), Some("a=1; b=2"));
    assert_eq!(request.field("te"), Some("trailers"));
}

/// RFC 9110 section 15.2 and 10.1.1: interim responses, and the one that a body waits for.
#[test]
fn interim_responses_and_expectations_are_passed_on() {
    let backend = Backend::scripted(|conversation| {
        while let Some(mut request) = conversation.head() {
            conversation
                .send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
            if !conversation.body(&mut request) {
                return;
            }
            let body = request.text().to_owned();
            let length = body.len();
            conversation.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
stream = request("POST", more=[("expect", "100-continue"), ("content-length", "4")], end=False)
seen = []
for event in events():
    if isinstance(event, h2.events.InformationalResponseReceived):
        seen.append(dict(event.headers)[":status"])
        if seen[-1] == "100":
            conn.send_data(stream, b"body", end_stream=True)
            flush()
    elif isinstance(event, h2.events.ResponseReceived):
        seen.append(dict(event.headers)[":status"])
    elif isinstance(event, h2.events.DataReceived):
        seen.append(event.data.decode())
    elif isinstance(event, h2.events.StreamEnded):
        break
print(seen)
"#,
    );
    assert_eq!(out, "['103', '100', '200', 'body']\n");
}

/// Section 8.1: trailers, from the client to the backend and back.
#[test]
fn trailers_go_both_ways() {
    let backend = Backend::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n".to_vec()
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
stream = request("POST", end=False)
conn.send_data(stream, b"up")
conn.send_headers(stream, [("x-up", "1"), ("host", "evil")], end_stream=True)
flush()
got = response(stream)
print(got["body"].decode(), got["trailers"])
"#,
    );
    assert_eq!(out, "hello [('x-sum', '7')]\n");
    let request = backend.last();
    assert_eq!(request.text(), "up");
    assert_eq!(request.trailers, [("x-up".to_owned(), "1".to_owned())]);
}

/// Section 5.4.2: a backend that breaks off in the middle resets its stream and no other.
#[test]
fn a_broken_response_resets_its_stream_only() {
    let backend = Backend::scripted(|conversation| {
        while let Some(request) = conversation.request() {
            if request.target() == "/broken" {
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                return;
            }
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
broken = response(request(path="/broken"))
after = response(request(path="/"))
print(int(broken["reset"]), after["body"].decode())
"#,
    );
    assert_eq!(out, "2 ok\n");
    evenkeel.wait_for_failures("backend_truncated", 1);
    evenkeel.wait_for_metric("evenkeel_http2_resets_total", &[("cause", "backend")], 1.0);
}

/// What cannot be served is answered by its reason, as over HTTP/1.
#[test]
fn our_own_answers_name_their_reason() {
    let backend = Backend::named("one");
    backend.kill();
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
for path in ("/", "/a%2fb", "/" + "a" * 9000):
    headers = dict(response(request(path=path))["headers"])
    print(headers[":status"], headers["x-evenkeel-reason"], "connection" in headers)
"#,
    );
    assert_eq!(
        out,
        "502 connect_refused False\n400 bad_path False\n414 target_too_long False\n"
    );
}

/// Section 6.8: when its listener goes, a client is told, and everything it has asked is answered.
#[test]
fn a_closing_listener_says_goaway_and_finishes_what_runs() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let backend = Backend::scripted(move |conversation| {
        while conversation.request().is_some() {
            waiting.pass();
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    for i in 0..50 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 2 * i + 1, GET));
    }
    wait_until("all are at the backend", || gate.came() == 50);
    // Another address: the old listener closes.
    evenkeel.reload(&shop(&[&backend], QUIET));
    let goaway = client.wait_for(GOAWAY).expect("the client is told");
    assert_eq!(goaway.code(), 0, "{goaway:?}");
    gate.open();
    let mut answered = 0;
    while let Some(frame) = client.next() {
        match frame.kind {
            HEADERS => answered += 1,
            PING => assert!(client.send(PING, 1, 0, &frame.payload)),
            RST_STREAM => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!(answered, 50);
}

/// A client sends its first request with the preface, and its connection is busy from then on: the time that it had for
/// the preface ends nothing.
#[test]
fn a_connection_that_is_never_idle_outlives_the_time_for_its_preface() {
    let gate = Gate::default();
    let go = gate.clone();
    let backend = Backend::answering(move |_| {
        go.pass();
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let listener = "timeouts = { request_headers = \"2s\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    let first = encode(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    let mut busy = Frames::connect_with(evenkeel.address(), &[], &first);
    wait_until("its request is at the backend", || gate.came() == 1);
    // It has passed for those that came after it.
    wait_until("one that came after it is refused", || {
        let mut slow = evenkeel.client();
        let asked = slow.try_send("GET / HTTP/1.1\r\n").is_ok();
        asked && slow.try_response().is_ok_and(|answer| answer.status() == 408)
    });
    gate.open();
    let until_answered = std::iter::from_fn(|| busy.next()).take_while(|frame| frame.kind != HEADERS);
    let kinds: Vec<u8> = until_answered.map(|frame| frame.kind).collect();
    assert!(!kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(busy.send(HEADERS, END_STREAM | END_HEADERS, 3, GET));
    let next = busy.wait_for(HEADERS).expect("a response");
    assert_eq!(next.stream, 3);
}

/// A client closes its window, and ends its request only then: the time that it has to take the response goes on. The
/// backend's, which begins with the end of the request, does not take its place.
#[test]
fn a_closed_window_has_its_own_time_also_when_the_request_ends() {
    let plain = Backend::scripted(|conversation| {
        conversation.head();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        conversation.hold();
    });
    let framed = FramesServer::start(|asked| {
        asked.send(HEADERS, END_HEADERS, STATUS_200);
        asked.send(DATA, 0, b"early");
    });
    for (backend, protocol) in [(plain.address, "http1"), (framed.address, "http2")] {
        let evenkeel = Evenkeel::start(&format!(
            "[load_balancers.shop]\nbackend_servers = [\"{backend}\"]\nprotocol = \"{protocol}\"\n{QUIET}\
             timeouts = {{ stream_idle = \"1h\" }}\n[[load_balancers.shop.listeners]]\naddress = \"127.0.0.1:0\"\n\
             http2 = {{ window_idle = \"3s\" }}\n"
        ));
        // SETTINGS_INITIAL_WINDOW_SIZE: the first byte comes, and the others wait.
        let mut client = Frames::connect(evenkeel.address(), &[(4, 1)]);
        assert!(client.send(HEADERS, END_HEADERS, 1, POST));
        client.wait_for(DATA).expect("a part of the response");
        assert!(client.send(DATA, END_STREAM, 1, b"x"));
        evenkeel.wait_for_failures("client_write_timeout", 1);
    }
}

/// h2load, many streams at once over several connections, while backends come and go: not one request fails.
#[test]
fn nothing_fails_under_load_while_the_pool_changes() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = backends.each_ref().map(|b| b.address);
    let listen = format!("{}:0", free_ip());
    let evenkeel = Evenkeel::start(&shop_on(&listen, &[one, two], QUIET));
    let url = format!("http://{}/", evenkeel.address());
    let load = std::thread::spawn(move || h2load(&["-n", "4000", "-c", "4", "-m", "16", &url]));
    for backends in [[one, three], [two, three], [one, two]].iter().cycle().take(12) {
        evenkeel.reload(&shop_on(&listen, backends, QUIET));
    }
    let out = load.join().expect("h2load ends");
    assert!(
        out.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{out}"
    );
    evenkeel.wait_for_metric("evenkeel_http2_streams_total", &[], 4000.0);
}
