//! Published attacks on other proxies against the running program, where more than one message, connection or protocol
//! is needed to show them. Those that a parser alone decides are in the conformance tests of `http`; the table of all is
//! in `docs/security.md`.

use std::collections::BTreeSet;

use crate::support::frames::*;
use crate::support::{Backend, Evenkeel, QUIET, http2_server, shop, shop_on, shop_with_listener, wait_until};

const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;

fn odd(i: u32) -> u32 {
    2 * i + 1
}

/// Connections that hold all they can: each stream asks with this block (the first puts a crumb of a cookie into the
/// table), and no window is opened for any answer but in drips of a byte. Returns the greatest growth of memory in KiB,
/// and the connections, which are left open.
fn bomb(evenkeel: &Evenkeel, references: usize) -> (u64, Vec<Frames>) {
    let before = evenkeel.memory_kib();
    let mut most = 0;
    let mut held = Vec::new();
    for _ in 0..8 {
        // SETTINGS_INITIAL_WINDOW_SIZE 0.
        let mut client = Frames::connect(evenkeel.address(), &[(4, 0)]);
        for i in 0..100 {
            let mut block = GET.to_vec();
            if i == 0 {
                // `cookie` by its index in the static table (32), into the dynamic one.
                block.extend([0x60, 3, b'a', b'=', b'1']);
            }
            block.resize(block.len() + references, 0xbe);
            let sent = client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), &block)
                && (i % 4 != 0 || client.send(WINDOW_UPDATE, 0, odd(i), &1u32.to_be_bytes()));
            if !sent {
                break;
            }
        }
        most = most.max(evenkeel.memory_kib().saturating_sub(before));
        held.push(client);
    }
    (most, held)
}

/// CVE-2026-47774 and CVE-2026-49975, the "HTTP/2 bomb": headers made of references of one byte each to a crumb of a
/// cookie, on streams whose windows stay shut so that nothing is freed. 16,000 fields for 16 KB are too many, whoever
/// counts them; nothing of them reaches the backend, memory stays where it was, others are served.
#[test]
fn cve_2026_47774_references_of_one_byte_behind_shut_windows() {
    let backend = Backend::named("one");
    let listener = "http2 = { window_idle = \"500ms\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    // Eight times a hundred times 16,000 crumbs, joined or not, would be many times as much.
    let (most, held) = bomb(&evenkeel, 16_000);
    assert!(most < 16 * 1024, "{most} KiB more");
    assert_eq!(backend.count(), 0);
    assert_eq!(evenkeel.client().get("/").text(), "one");
    let ended = || {
        let resets = evenkeel.metric("evenkeel_http2_resets_total", &[]);
        resets + evenkeel.metric("evenkeel_http2_abuse_total", &[])
    };
    wait_until("it is counted", || ended() >= 8.0);
    drop(held);
    let connections = || evenkeel.metric("evenkeel_listener_connections", &[]);
    wait_until("nothing is held for them", || connections() == 0.0);
}

/// The same within the limits on headers, so that the backend answers: what waits for a window is bounded by
/// `connection_memory`, and a drip of a byte keeps no stream for good.
#[test]
fn cve_2026_47774_as_many_references_as_are_allowed() {
    let body = "x".repeat(200_000);
    let backend = Backend::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{body}"));
    let listener = "http2 = { window_idle = \"500ms\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    let (most, held) = bomb(&evenkeel, 90);
    assert!(most < 48 * 1024, "{most} KiB more");
    let stalled = || evenkeel.metric("evenkeel_http2_resets_total", &[("cause", "stalled")]);
    let refused = || evenkeel.metric("evenkeel_http2_refused_total", &[]);
    wait_until("each stream is over", || stalled() + refused() >= 800.0);
    assert!(backend.count() > 0, "some went through");
    let in_flight = || evenkeel.metric("evenkeel_backend_in_flight", &[]);
    wait_until("no backend is held", || in_flight() == 0.0);
    drop(held);
    assert_eq!(evenkeel.client().get("/").status(), 200);
}

/// CVE-2026-27135: after an error that ends the connection nghttp2 read on, and failed over the next malformed frame.
/// Whatever stands behind the first error says nothing any more and harms nobody.
#[test]
fn cve_2026_27135_malformed_frames_after_the_end_of_a_connection() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let short = |kind: u8| encode(kind, 0, 0, &[0; 3]);
    let errors: [Vec<u8>; 4] = [
        // A size that no such frame has, a stream that nobody opened, settings beyond their range.
        short(PING),
        short(SETTINGS),
        encode(DATA, 0, 0, b"x"),
        encode(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
    ];
    for first in errors {
        let mut client = Frames::connect(evenkeel.address(), &[]);
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, GET));
        client.wait_for(HEADERS).expect("it works until then");
        let mut bytes = first;
        for kind in [
            PRIORITY,
            RST_STREAM,
            SETTINGS,
            PING,
            GOAWAY,
            WINDOW_UPDATE,
            CONTINUATION,
        ] {
            bytes.extend(short(kind));
        }
        client.raw(&bytes);
        let mut told = Vec::new();
        while let Some(frame) = client.next() {
            told.extend((frame.kind == GOAWAY).then(|| frame.code()));
        }
        assert!(told.len() <= 1, "it is told once: {told:?}");
        assert!(told.iter().all(|code| *code != 0), "{told:?}");
    }
    let mut client = Frames::connect(evenkeel.address(), &[]);
    client.raw(&short(PING));
    let told = client.wait_for(GOAWAY).expect("it is told where it can be read");
    // The protocol library gives the more general of the two.
    assert!(
        [PROTOCOL_ERROR, FRAME_SIZE_ERROR].contains(&told.code()),
        "{told:?}"
    );
    assert_eq!(evenkeel.client().get("/").text(), "one");
    assert!(!evenkeel.log().contains("panicked"), "{}", evenkeel.log());
}

/// CVE-2026-42926: nginx put a body into its frames for a backend of HTTP/2 in a way that let the client make frames of
/// its own. Here a body that looks like frames is a body, wherever its pieces are cut.
#[test]
fn cve_2026_42926_frames_in_a_body_are_no_frames() {
    let server = http2_server(&[]);
    let config = shop_on(
        "127.0.0.1:0",
        &[server.address()],
        &format!("protocol = \"http2\"\n{QUIET}"),
    );
    let evenkeel = Evenkeel::start(&format!("[node]\nthreads = 1\n{config}"));
    let smuggled = [
        encode(DATA, END_STREAM, 1, b""),
        encode(HEADERS, END_STREAM | END_HEADERS, 3, GET),
        encode(RST_STREAM, 0, 1, &8u32.to_be_bytes()),
    ]
    .concat();
    let mut connections = BTreeSet::new();
    // Frames of 16,384 bytes are the usual size: what is injected stands at every place around their borders.
    for before in [0, 9, 16_375, 16_384, 16_393, 40_000] {
        let body = [&vec![b'.'; before][..], &smuggled].concat();
        for framing in [
            format!("Content-Length: {}", body.len()),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let mut client = evenkeel.client();
            client.send(format!("POST /in HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            if framing.starts_with("Transfer") {
                client
                    .send(format!("{:x}\r\n", body.len()))
                    .send(&body)
                    .send("\r\n0\r\n\r\n");
            } else {
                client.send(&body);
            }
            let answer = client.response();
            let seen: serde_json::Value = serde_json::from_str(answer.text()).expect("what it saw");
            let got: Vec<u8> = seen["body"].as_str().unwrap().chars().map(|c| c as u8).collect();
            assert!(got == body, "{before} {framing}: another body");
            connections.insert(seen["connection"].as_u64());
        }
    }
    assert_eq!(connections.len(), 1, "none of them did the connection any harm");
    evenkeel.wait_for_metric("evenkeel_backend_requests_total", &[], 12.0);
}

/// CVE-2026-1642: who sits between nginx and its backend could answer in clear before TLS began. Here nothing that comes
/// before the handshake's end is a response, at the first attempt or a later one.
#[test]
fn cve_2026_1642_an_answer_before_the_handshake_is_none() {
    let middleman = Backend::scripted(|conversation| {
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected");
        conversation.end();
    });
    let more = format!("{QUIET}tls = {{ insecure = true }}\nretries.attempts = 2\n");
    let evenkeel = Evenkeel::start(&shop(&[&middleman], &more));
    for _ in 0..3 {
        let answer = evenkeel.client().get("/");
        assert_eq!((answer.status(), answer.reason()), (502, "backend_tls_failed"));
        assert!(!answer.text().contains("injected"));
    }
    assert_eq!(
        evenkeel.metric("evenkeel_backend_connections_idle", &[]),
        0.0,
        "none is kept"
    );
}

/// CVE-2025-4366: Pingora answered from its cache without reading the request's body, which became the next request.
/// Here an answer that needs no body leaves no half of a request behind, and a backend gets the body as a body.
#[test]
fn cve_2025_4366_an_unread_body_is_no_request() {
    let backend = Backend::named("one");
    let own = "[[load_balancers.shop.routes]]\nmatch = { path = \"/own\" }\nrespond = { body = \"own\" }\n\
               [[load_balancers.shop.routes]]\npool = \"default\"\n";
    let evenkeel = Evenkeel::start(&shop(&[&backend], &format!("{QUIET}{own}")));
    let evil = "GET /evil HTTP/1.1\r\nHost: b\r\n\r\n";
    for path in ["/own", "/"] {
        let mut client = evenkeel.client();
        let fields = format!("Host: a\r\nContent-Length: {}\r\n", evil.len());
        // In two pieces, so that the answer may come before the body.
        client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n"));
        let early = (path == "/own").then(|| client.response());
        let _ = client.try_send(format!("{evil}GET /own HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(early.unwrap_or_else(|| client.response()).status(), 200, "{path}");
        // What follows is the second request, or the connection has ended; it is never the body.
        if let Ok(second) = client.try_response() {
            assert_eq!(second.text(), "own", "{path}");
        }
    }
    assert_eq!(
        (backend.count(), backend.last().target(), backend.last().text()),
        (1, "/", evil)
    );
}
