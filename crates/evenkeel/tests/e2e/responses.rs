//! Backends that answer garbage: 502 with the reason, and their connection is never used again.

use crate::support::{Backend, Evenkeel, Gate, QUIET, shop, wait_until};

const MALFORMED: &[(&str, &str)] = &[
    ("not HTTP", "hello\r\n\r\n"),
    ("another protocol", "SSH-2.0-OpenSSH_9.7\r\n\r\n"),
    ("no status", "HTTP/1.1 OK\r\n\r\n"),
    ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"),
    ("a status beyond 599", "HTTP/1.1 600 x\r\n\r\n"),
    ("a later version", "HTTP/2.0 200 OK\r\n\r\n"),
    ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    (
        "folding",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "a bare CR",
        "HTTP/1.1 200 OK\r\nX: 1\r2\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "a NUL",
        "HTTP/1.1 200 OK\r\nX: 1\u{0}2\r\nContent-Length: 2\r\n\r\nok",
    ),
    ("no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok"),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    ),
    (
        "both lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    ),
    (
        "another coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with 204",
        "HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

/// Each on one client connection, which goes on: it is not the client's fault.
#[test]
fn malformed_responses_are_502_and_never_pooled() {
    let mut wrong = Vec::new();
    for (name, bytes) in MALFORMED {
        let one = Backend::saying(*bytes);
        let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
        let mut client = evenkeel.client();
        for turn in 1..=2 {
            let answer = client.get("/");
            if (answer.status(), answer.reason(), answer.closes()) != (502, "bad_response", false) {
                wrong.push(format!("{name}: {}", answer.head));
            }
            if one.accepted() != turn {
                wrong.push(format!(
                    "{name}: {} connections after {turn} requests",
                    one.accepted()
                ));
            }
        }
        wait_until("none is kept", || one.open_connections() == 0);
        evenkeel.wait_for_failures("bad_response", 2);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A header without end, or with too many fields.
#[test]
fn a_response_header_beyond_the_bounds() {
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    let endless = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\n");
        while conversation.send("X-Again: and again\r\n") {}
    });
    for backend in [Backend::saying(long), Backend::saying(many), endless] {
        let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
        let answer = evenkeel.client().get("/");
        assert_eq!(
            (answer.status(), answer.reason()),
            (502, "response_header_too_large")
        );
        wait_until("the connection ends", || backend.open_connections() == 0);
    }
}

/// A large header within the bounds passes, to the client and back.
#[test]
fn a_large_header_within_the_bounds_passes() {
    let value = "v".repeat(60_000);
    let answer = format!("HTTP/1.1 200 OK\r\nX-Long: {value}\r\nContent-Length: 2\r\n\r\nok");
    let one = Backend::saying(answer);
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
            "c".repeat(30_000)
        );
        let answer = client.ask(&request);
        assert_eq!(answer.field("x-long").map(str::len), Some(60_000));
        assert_eq!(one.last().field("x-long").map(str::len), Some(30_000));
    }
    assert_eq!(one.accepted(), 1);
}

/// A backend that talks before it is asked.
#[test]
fn a_backend_that_talks_first_is_not_believed() {
    let one = Backend::scripted(|conversation| {
        if conversation.number > 1 {
            return;
        }
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        conversation.hold();
    });
    let more = format!("{QUIET}timeouts = {{ first_byte = \"5s\" }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&one], &more));
    let mut client = evenkeel.client();
    // A first answer that was there before its question cannot be told from a quick one; but it is one answer to
    // one request, and no more.
    let first = client.get("/");
    let second = client.get("/");
    assert!(
        first.status() == 200 || first.reason() == "bad_response",
        "{}",
        first.head
    );
    assert_ne!(second.status(), 200, "{}", second.head);
}

/// A 204 that claims a body: the claim is dropped, and the connection, on which a body may follow, is not kept.
#[test]
fn a_204_with_a_length_is_not_believed() {
    let one = Backend::saying("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for turn in 1..=3 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.field("content-length")), (204, None));
        assert_eq!(one.accepted(), turn);
    }
}

/// A faulty backend sends a body where there may be none, later: what comes before the next request is never taken for
/// its answer.
#[test]
fn late_bytes_after_an_answer_without_a_body_poison_nothing() {
    for (method, head) in [
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ] {
        let (late, sent) = (Gate::default(), Gate::default());
        let (may, did) = (late.clone(), sent.clone());
        let one = Backend::scripted(move |conversation| {
            while let Some(request) = conversation.request() {
                if request.target() != "/none" {
                    conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                    continue;
                }
                conversation.send(head);
                may.pass();
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
                did.pass();
            }
        });
        let evenkeel = Evenkeel::start(&format!("[node]\nthreads = 1\n{}", shop(&[&one], QUIET)));
        let mut client = evenkeel.client();
        client.send(format!("{method} /none HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.head();
        late.open();
        wait_until("the late bytes are sent", || sent.came() == 1);
        sent.open();
        for _ in 0..5 {
            assert_eq!(client.get("/").text(), "good", "{method} {head}");
        }
    }
}
