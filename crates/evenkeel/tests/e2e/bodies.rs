//! Bodies of any size, both ways: whole, in order, with backpressure, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{
    Backend, Broken, Client, Evenkeel, Gate, Nginx, QUIET, free_ip, pattern, shop, shop_on,
    shop_with_listener, wait_until, wait_until_still,
};

const MIB: usize = 1024 * 1024;
/// Much more than all sockets and buffers on the way can hold.
const HUGE: usize = 64 * MIB;
/// What the process may grow by while a huge body passes; its own need is a few buffers.
const GROWTH_KIB: u64 = 16 * 1024;

/// Splits bytes into chunks of odd sizes.
fn chunked(body: &[u8], tail: &str) -> Vec<u8> {
    let mut coded = Vec::with_capacity(body.len() + body.len() / 8);
    let mut rest = body;
    let mut size = 1;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        coded.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
        rest = after;
        size = size * 3 % 65_521 + 1;
    }
    coded.extend_from_slice(format!("0\r\n{tail}\r\n").as_bytes());
    coded
}

/// Sizes around every border: nothing, one byte, buffers, where splicing begins, many buffers.
#[test]
fn downloads_arrive_whole() {
    let sizes = [
        0,
        1,
        16_383,
        16_384,
        16_385,
        65_535,
        65_536,
        65_537,
        300_000,
        10 * MIB,
    ];
    let content = Arc::new(pattern(10 * MIB));
    let nginx = Nginx::start("nginx");
    for size in sizes {
        nginx.file(&size.to_string(), &content[..size]);
    }
    let served = content.clone();
    let coding = Backend::answering(move |request| {
        let size: usize = request.target()[1..].parse().unwrap();
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.extend(chunked(&served[..size], ""));
        answer
    });
    let listen = format!("{}:0", free_ip());
    let spliced = Evenkeel::start(&shop_on(&listen, &[nginx.address], QUIET));
    let mut client = spliced.client();
    for size in sizes {
        let answer = client.get(&format!("/files/{size}"));
        assert_eq!(answer.status(), 200, "{size}");
        assert!(answer.body == content[..size] && !answer.is_chunked(), "{size}");
    }
    let evenkeel = Evenkeel::start(&shop(&[&coding], QUIET));
    let mut client = evenkeel.client();
    let mut old = evenkeel.client();
    for size in sizes {
        let answer = client.get(&format!("/{size}"));
        assert!(answer.body == content[..size] && answer.is_chunked(), "{size}");
    }
    let answer = old.ask(&format!("GET /{} HTTP/1.0\r\n\r\n", 10 * MIB));
    assert!(
        answer.body == *content && !answer.is_chunked(),
        "an HTTP/1.0 client knows no chunks"
    );
    assert!(
        coding.accepted() <= 2,
        "two shards at most need no more connections"
    );
}

/// The same the other way, with a length and in chunks, to a server that was not written here.
#[test]
fn uploads_arrive_whole() {
    let nginx = Nginx::start("nginx");
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &[nginx.address], QUIET));
    let content = pattern(10 * MIB);
    let mut client = evenkeel.client();
    for size in [0, 1, 16_384, 65_537, 300_000, 10 * MIB] {
        client.send(format!(
            "PUT /put/{size} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        ));
        assert_eq!(client.send(&content[..size]).response().status(), 201, "{size}");
        assert!(nginx.uploaded(&size.to_string()) == content[..size], "{size}");
        client.send(format!(
            "PUT /put/c{size} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        assert_eq!(
            client.send(chunked(&content[..size], "")).response().status(),
            201,
            "{size} in chunks"
        );
        assert!(
            nginx.uploaded(&format!("c{size}")) == content[..size],
            "{size} in chunks"
        );
    }
}

/// RFC 9112 section 7.1.2: trailers go to who said that it takes them, less those that must not be there.
#[test]
fn trailers() {
    let one = Backend::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nSet-Cookie: a=b\r\n\r\n",
    );
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    assert_eq!(one.last().field("te"), Some("trailers"));
    let answer = client.get("/");
    assert_eq!((answer.text(), answer.trailers.len()), ("ok", 0), "not asked for");
    assert_eq!(one.last().field("te"), None);
    client.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 2\r\nHost: evil\r\nX-Forwarded-For: evil\r\nAuthorization: evil\r\n\r\n",
    );
    let got = one.last();
    assert_eq!(
        (got.body.as_slice(), got.trailers.as_slice()),
        (&b"hi"[..], &[("X-Sum".to_owned(), "2".to_owned())][..])
    );
}

/// A client that reads slowly holds its backend back instead of filling our memory: spliced, and in chunks.
#[test]
fn a_slow_reader_holds_the_backend_back() {
    for coding in ["Content-Length: 67108864", "Transfer-Encoding: chunked"] {
        let written = Arc::new(AtomicU64::new(0));
        let count = written.clone();
        let is_chunked = coding.starts_with('T');
        let one = Backend::scripted(move |conversation| {
            if conversation.request().is_none() {
                return;
            }
            conversation.send(format!("HTTP/1.1 200 OK\r\n{coding}\r\n\r\n"));
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..HUGE / piece.len() {
                let sent = if is_chunked {
                    conversation.send("10000\r\n") && conversation.send(&piece) && conversation.send("\r\n")
                } else {
                    conversation.send(&piece)
                };
                if !sent {
                    return;
                }
                count.fetch_add(piece.len() as u64, Ordering::AcqRel);
            }
            if is_chunked {
                conversation.send("0\r\n\r\n");
            }
            conversation.hold();
        });
        let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
        let before = evenkeel.memory_kib();
        let mut client = Client::with_small_window(evenkeel.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = client.head();
        let held = wait_until_still("the backend is held back", || written.load(Ordering::Acquire));
        assert!(
            held < HUGE as u64 / 2,
            "{coding}: {held} bytes were taken ahead of the client"
        );
        client.body(&mut answer).unwrap();
        assert_eq!(answer.body.len(), HUGE);
        let peak = evenkeel.peak_kib();
        assert!(
            peak < before + GROWTH_KIB,
            "{coding}: from {before} to {peak} KiB"
        );
    }
}

/// A backend that reads slowly holds the client back.
#[test]
fn a_slow_backend_holds_the_client_back() {
    for coding in ["Content-Length: 67108864", "Transfer-Encoding: chunked"] {
        let gate = Gate::default();
        let go = gate.clone();
        let one = Backend::scripted(move |conversation| {
            let Some(mut request) = conversation.head() else {
                return;
            };
            go.pass();
            let whole = conversation.body(&mut request);
            let length = request.body.len();
            conversation.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Got: {length} {whole}\r\n\r\n"
            ));
            conversation.hold();
        });
        let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
        let before = evenkeel.memory_kib();
        let address = evenkeel.address();
        let sent = Arc::new(AtomicU64::new(0));
        let count = sent.clone();
        let is_chunked = coding.starts_with('T');
        let sender = std::thread::spawn(move || {
            let mut client = Client::connect(address);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{coding}\r\n\r\n"));
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..HUGE / piece.len() {
                if is_chunked {
                    client.send("10000\r\n").send(&piece).send("\r\n");
                } else {
                    client.send(&piece);
                }
                count.fetch_add(piece.len() as u64, Ordering::AcqRel);
            }
            if is_chunked {
                client.send("0\r\n\r\n");
            }
            client.response()
        });
        let held = wait_until_still("the client is held back", || sent.load(Ordering::Acquire));
        assert!(
            held < HUGE as u64 / 2,
            "{coding}: {held} bytes were taken ahead of the backend"
        );
        gate.open();
        let answer = sender.join().unwrap();
        assert_eq!(
            answer.field("x-got"),
            Some(format!("{HUGE} true").as_str()),
            "{coding}"
        );
        let peak = evenkeel.peak_kib();
        assert!(
            peak < before + GROWTH_KIB,
            "{coding}: from {before} to {peak} KiB"
        );
    }
}

/// A backend that answers before it has read the body: the client gets the answer, and the connection ends, for
/// the rest of the body is in the way.
#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let one = Backend::scripted(|conversation| {
        if conversation.head().is_some() {
            conversation.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            conversation.hold();
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    for length in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let mut client = evenkeel.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (403, "no"));
        assert!(answer.closes(), "{}", answer.head);
        assert!(client.is_ended());
    }
    wait_until("the backend's connections end", || one.open_connections() == 0);
}

/// A full-duplex exchange: the backend streams its answer back while it reads.
#[test]
fn an_answer_may_stream_while_the_body_comes() {
    let one = Backend::scripted(|conversation| {
        if conversation.head().is_none() {
            return;
        }
        conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            // One chunk of the request is one of the response.
            if !conversation.read_all(7) {
                return;
            }
            conversation.send("2\r\nok\r\n");
        }
        conversation.read_all(5);
        conversation.send("0\r\n\r\n");
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for n in 0..3 {
        client.send("2\r\nhi\r\n");
        if n == 0 {
            assert_eq!(client.head().status(), 200);
        }
        let mut chunk = Vec::new();
        while chunk.len() < 7 {
            let more = client.read_some(7 - chunk.len());
            assert!(!more.is_empty(), "it was cut");
            chunk.extend(more);
        }
        assert_eq!(chunk, b"2\r\nok\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_some(64), b"0\r\n\r\n");
}

/// A client that stops within its body: the backend sees a broken request, never a whole one.
#[test]
fn a_client_that_aborts_its_upload() {
    let one = Backend::scripted(|conversation| {
        conversation.request();
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    for part in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut client = evenkeel.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{part}"));
        wait_until("the backend is asked", || one.open_connections() == 1);
        client.reset();
        wait_until("the backend's connection ends", || one.open_connections() == 0);
    }
    evenkeel.wait_for_failures("client_gone", 2);
    let mut client = evenkeel.client();
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .finish_sending();
    let answer = client.response();
    assert_eq!((answer.status(), answer.reason()), (400, "truncated_request"));
    assert_eq!(one.count(), 0);
    assert_eq!(
        evenkeel.metric("evenkeel_backend_failures_total", &[]),
        0.0,
        "it was not the backend's fault"
    );
}

/// A backend that dies within its answer: the client can tell, in every framing that can say so.
#[test]
fn a_truncated_answer_is_seen_as_such() {
    for (framing, body) in [
        ("Content-Length: 100", "short"),
        ("Content-Length: 1000000", "short"),
        ("Transfer-Encoding: chunked", "5\r\nshort\r\n"),
        ("Transfer-Encoding: chunked", "9\r\nsho"),
    ] {
        for reset in [false, true] {
            let gate = Gate::default();
            let go = gate.clone();
            let one = Backend::scripted(move |conversation| {
                conversation.request();
                conversation.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
                if reset {
                    // Only once the client has the head: a reset overtakes what was sent.
                    go.pass();
                    conversation.reset();
                }
            });
            let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
            let mut client = evenkeel.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut answer = client.head();
            gate.open();
            let end = client.body(&mut answer);
            assert!(
                matches!(end, Err(Broken::Truncated(_))),
                "{framing}, {body:?}: {end:?}"
            );
            evenkeel.wait_for_failures("backend_truncated", 1);
            let label = one.address.to_string();
            evenkeel.wait_for_metric("evenkeel_backend_failures_total", &[("backend", &label)], 1.0);
        }
    }
}

/// The same for a client of HTTP/1.0, whose answer only the end of the connection ends: that end is a reset. One that
/// comes whole ends in order.
#[test]
fn a_truncated_answer_of_http_1_0_ends_in_a_reset() {
    for (whole, framing, body) in [
        (false, "Transfer-Encoding: chunked", "5\r\nshort\r\n"),
        (true, "Transfer-Encoding: chunked", "5\r\nshort\r\n0\r\n\r\n"),
        (true, "Connection: close", "short"),
    ] {
        let one = Backend::scripted(move |conversation| {
            conversation.request();
            conversation.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
        });
        let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
        let mut client = evenkeel.client();
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let mut answer = client.head();
        assert_eq!((answer.status(), answer.is_chunked()), (200, false));
        let end = client.body(&mut answer);
        match whole {
            true => assert!(end.is_ok() && answer.text() == "short", "{framing}: {end:?}"),
            false => assert!(matches!(end, Err(Broken::Truncated(_))), "{end:?}"),
        }
        let truncated = if whole { 0 } else { 1 };
        evenkeel.wait_for_failures("backend_truncated", truncated);
    }
}

/// A malformed chunk within an answer that has begun: cut, not repaired. One that comes before the client has
/// anything of the answer: 502.
#[test]
fn a_malformed_chunk_in_an_answer_is_cut() {
    let gate = Gate::default();
    let end = gate.clone();
    let one = Backend::scripted(move |conversation| {
        conversation.head();
        conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
        end.pass();
        conversation.send("zz\r\n");
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = client.head();
    gate.open();
    let cut = client.body(&mut answer);
    assert!(
        matches!(cut, Err(Broken::Truncated(_) | Broken::Closed | Broken::Reset)),
        "{cut:?}"
    );
    evenkeel.wait_for_failures("bad_response", 1);
    wait_until("its connection is not kept", || one.open_connections() == 0);

    let one = Backend::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "bad_response"));
}

/// A client whose body turns out bad, or stops, after the answer has begun: the exchange is cut at once, and the
/// backend, which still waits for the body, is not blamed.
#[test]
fn a_body_that_goes_wrong_after_the_answer_began() {
    let one = Backend::scripted(|conversation| {
        if conversation.head().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
            conversation.hold();
        }
    });
    for (bytes, idle, reason) in [
        ("zz\r\n", "1h", "bad_chunk"),
        ("5\r\nhi", "3s", "request_body_timeout"),
    ] {
        let listener = format!("timeouts = {{ request_body_idle = \"{idle}\" }}");
        let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], &listener, QUIET));
        let mut client = evenkeel.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut answer = client.head();
        assert_eq!(answer.status(), 200);
        client.send(bytes);
        let end = client.body(&mut answer);
        assert_eq!(end, Err(Broken::Truncated(b"ok".to_vec())), "{reason}");
        evenkeel.wait_for_failures(reason, 1);
        wait_until("the backend is left alone", || one.open_connections() == 0);
        assert_eq!(evenkeel.metric("evenkeel_backend_failures_total", &[]), 0.0);
    }
}
