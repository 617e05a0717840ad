//! The main path: what a request looks like at the backend, and what its answer looks like at the client.

use crate::support::{
    Backend, Client, Evenkeel, Nginx, Python, QUIET, curl, free_ip, pattern, shop, shop_on,
    shop_with_listener,
};

/// An even spread over servers that were not written here, seen by a client that was not either.
#[test]
fn round_robin_spreads_evenly_over_nginx() {
    let servers = ["one", "two", "three"].map(Nginx::start);
    let addresses = servers.each_ref().map(|s| s.address);
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &addresses, ""));
    let url = format!("http://{}/?[1-30]", evenkeel.address());
    let seen = String::from_utf8(curl(&[&url]).stdout).unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(seen.matches(name).count(), 10, "{seen}");
    }
}

/// What the backend gets: Host first, the client's fields in order, hop-by-hop fields gone, where it came from.
#[test]
fn the_backend_learns_where_a_request_came_from() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().ask(
        "GET /cart?id=7 HTTP/1.1\r\nAccept: a\r\nHost: shop.test:8080\r\nX-B: b\r\nConnection: x-hop, keep-alive\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nProxy-Authorization: p\r\nX_Under: u\r\nCookie: c=1\r\n\r\n",
    );
    assert_eq!(answer.text(), "one");
    let got = one.last();
    assert_eq!(got.line, "GET /cart?id=7 HTTP/1.1");
    let names: Vec<String> = got.fields.iter().map(|(n, _)| n.to_lowercase()).collect();
    let expected = [
        "host",
        "accept",
        "x-b",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "x-request-id",
    ];
    assert_eq!(names, expected, "{}", got.head);
    assert_eq!(got.field("host"), Some("shop.test:8080"));
    assert_eq!(got.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.field("x-forwarded-proto"), Some("http"));
    assert_eq!(got.field("x-forwarded-host"), Some("shop.test:8080"));
    assert_eq!(
        got.field("forwarded"),
        Some("for=127.0.0.1;proto=http;host=\"shop.test:8080\"")
    );
}

const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: evil.test\r\nForwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n\
                      X-Forwarded-User: root\r\nX-Client-Cert: c\r\n\r\n";

/// Anyone may claim anything: from whom is not trusted, nothing of it arrives.
#[test]
fn spoofed_origins_are_stripped() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    evenkeel.client().ask(CLAIMS);
    let got = one.last();
    assert!(
        !got.head.contains("192.0.2.7") && !got.head.contains("evil"),
        "{}",
        got.head
    );
    assert_eq!(got.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got.all("x-forwarded-proto"), ["http"]);
    assert_eq!(got.all("forwarded").len(), 1);
    for gone in ["x-real-ip", "x-forwarded-user", "x-client-cert"] {
        assert_eq!(got.field(gone), None, "{}", got.head);
    }
}

/// A trusted proxy in front: its report is kept and added to.
#[test]
fn a_trusted_proxys_report_is_kept() {
    let one = Backend::named("one");
    let listener = "trusted_proxies = [\"127.0.0.0/8\"]";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], listener, QUIET));
    evenkeel.client().ask(CLAIMS);
    let got = one.last();
    assert_eq!(got.all("x-forwarded-for"), ["192.0.2.7, 127.0.0.1"]);
    assert_eq!(got.all("x-forwarded-proto"), ["https"]);
    assert_eq!(got.all("x-forwarded-host"), ["evil.test"]);
    let forwarded = got.all("forwarded").join("|");
    assert!(
        forwarded.starts_with("for=192.0.2.7, for=127.0.0.1"),
        "{forwarded}"
    );
}

/// An HTTP/1.0 client: closed after the answer, unless it asks to be kept.
#[test]
fn an_http_1_0_client_is_kept_only_when_it_asks() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    let answer = client.ask("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!((answer.text(), answer.closes()), ("one", true), "{}", answer.head);
    assert!(client.is_ended());
    let mut client = evenkeel.client();
    for _ in 0..3 {
        let answer = client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.text(), "one");
        assert_eq!(
            answer.field("connection").map(str::to_lowercase),
            Some("keep-alive".into())
        );
    }
    assert_eq!(
        one.last().field("host"),
        Some(one.address.to_string().as_str()),
        "a Host where it sent none"
    );
    assert_eq!(one.last().line, "GET / HTTP/1.1");
}

/// RFC 9112 section 9.6: a client that says `Connection: close` is answered, then closed.
#[test]
fn a_client_that_wants_to_close_is_closed() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.closes() && answer.text() == "one", "{}", answer.head);
    assert!(client.is_ended());
}

/// An HTTP/1.0 origin that closes after each answer (Python's), through a client that keeps its connection.
#[test]
fn an_http_1_0_origin_serves_a_client_that_stays() {
    let python = Python::start();
    let content = pattern(300_000);
    python.file("small.txt", b"small");
    python.file("large.bin", &content);
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &[python.address], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..5 {
        assert_eq!(client.get("/small.txt").text(), "small");
        assert!(client.get("/large.bin").body == content);
    }
    assert_eq!(client.get("/missing").status(), 404);
    let head = client.send("HEAD /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").head();
    assert_eq!(head.field("content-length"), Some("300000"));
    assert_eq!(client.get("/small.txt").text(), "small", "HEAD had no body");
}

/// A body without a length ends with the connection; an HTTP/1.1 client gets it in chunks and stays.
#[test]
fn a_body_until_close_becomes_chunked() {
    let body = "to the very end\n".repeat(2000);
    let answer = format!("HTTP/1.1 200 OK\r\nX-Kind: open\r\n\r\n{body}");
    let one = Backend::scripted(move |conversation| {
        if conversation.request().is_some() {
            conversation.send(&answer);
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert!(answer.is_chunked(), "{}", answer.head);
        assert_eq!(answer.text(), body);
    }
    let mut old = evenkeel.client();
    let answer = old.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(answer.text(), body);
    assert!(!answer.is_chunked() && answer.closes(), "{}", answer.head);
    assert_eq!(one.accepted(), 3, "each had a connection of its own");
}

/// HEAD, 204 and 304 have no body, whatever their fields say.
#[test]
fn answers_without_a_body() {
    let one = Backend::answering(|request| match (request.method(), request.target()) {
        ("HEAD", "/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n".to_vec(),
        (_, "/204") => b"HTTP/1.1 204 No Content\r\nX-Kind: none\r\n\r\n".to_vec(),
        (_, "/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    let head = client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1234")));
    let head = client.send("HEAD /chunked HTTP/1.1\r\nHost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.field("content-length")), (200, None));
    let none = client.get("/204");
    assert_eq!((none.status(), none.field("content-length")), (204, None));
    let unchanged = client.get("/304");
    assert_eq!(
        (unchanged.status(), unchanged.field("content-length")),
        (304, Some("99"))
    );
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(one.accepted(), 1, "all on one connection");
}

/// IPv6 on both sides.
#[test]
fn ipv6() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let backend = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; 4096];
        let n = stream.read(&mut bytes).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix")
            .unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    });
    let evenkeel = Evenkeel::start(&shop_on("[::1]:0", &[backend], QUIET));
    let answer = Client::connect(evenkeel.address()).get("/");
    assert_eq!(answer.text(), "six");
    let got = served.join().unwrap();
    assert!(got.contains("for=\"[::1]\"") && got.contains("::1\r\n"), "{got}");
}
