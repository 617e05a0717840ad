//! RFC 9113 section 10.5, denial of service: each known trick against the running program. The client is told with
//! GOAWAY, the trick is counted, memory does not grow, and other clients notice nothing.

use crate::support::frames::*;
use crate::support::*;

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn odd(i: u32) -> u32 {
    2 * i + 1
}

/// Does `step` again and again until the server has had enough; checks what it says, and what it counts.
fn abuse(limit: &str, mut step: impl FnMut(&mut Frames, u32) -> bool) {
    let gate = Gate::default();
    let waiting = gate.clone();
    let backend = Backend::scripted(move |conversation| {
        while conversation.request().is_some() {
            waiting.pass();
            if !conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") {
                break;
            }
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let address = evenkeel.address();
    let before = evenkeel.memory_kib();
    let mut client = Frames::connect(address, &[]);
    for i in 0..20_000 {
        if !step(&mut client, i) {
            break;
        }
    }
    // What the kernel throws away with a reset cannot be read; what was counted can.
    if let Some(goaway) = client.wait_for(GOAWAY) {
        assert_eq!(goaway.code(), ENHANCE_YOUR_CALM, "{goaway:?}");
    }
    let counted = || evenkeel.metric("evenkeel_http2_abuse_total", &[("limit", limit)]);
    wait_until(limit, || counted() == 1.0);
    let grown = evenkeel.memory_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{limit}: {grown} KiB more");
    gate.open();
    assert_eq!(Client::connect(address).get("/").status(), 200);
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    abuse("max_cancelled", |client, i| {
        client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET)
            && client.send(RST_STREAM, 0, odd(i), &CANCEL.to_be_bytes())
    });
}

/// CVE-2025-8671: a window beyond all bounds makes the server reset the stream.
#[test]
fn made_you_reset() {
    abuse("max_error_resets", |client, i| {
        client.send(HEADERS, END_HEADERS, odd(i), POST)
            && client.send(WINDOW_UPDATE, 0, odd(i), &0x7fff_ffff_u32.to_be_bytes())
    });
}

/// CVE-2019-9512.
#[test]
fn ping_flood() {
    abuse("max_pings", |client, _| client.send(PING, 0, 0, &[0; 8]));
}

/// CVE-2019-9515.
#[test]
fn settings_flood() {
    abuse("max_settings", |client, _| client.send(SETTINGS, 0, 0, &[]));
}

/// CVE-2019-9518.
#[test]
fn empty_frames_flood() {
    abuse("max_empty_frames", |client, i| match i {
        0 => client.send(HEADERS, END_HEADERS, 1, POST),
        _ => client.send(DATA, 0, 1, &[]),
    });
}

/// CVE-2024-27316.
#[test]
fn continuation_flood() {
    abuse("max_continuations", |client, i| match i {
        0 => client.send(HEADERS, 0, 1, GET),
        _ => client.send(CONTINUATION, 0, 1, &[0x00, 1, b'x', 1, b'y']),
    });
}

/// CVE-2019-9513.
#[test]
fn resource_loop() {
    abuse("max_priorities", |client, i| {
        client.send(PRIORITY, 0, 1, &[0, 0, 0, 3, (i % 256) as u8])
    });
}

/// A flood of window updates.
#[test]
fn window_update_flood() {
    abuse("max_window_updates", |client, _| {
        client.send(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())
    });
}

/// An HPACK bomb (CVE-2016-6581 and its family): one large field in the table, then references of one byte each.
#[test]
fn hpack_bomb() {
    let mut block = GET.to_vec();
    // A literal with indexing: name `a`, value of 4000 bytes.
    block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    block.extend([b'v'; 4000]);
    block.extend([0xbe; 8000]);
    abuse("library", |client, i| {
        client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), &block)
    });
}

/// CVE-2019-9517 and 9511, and the "HTTP/2 bomb": streams whose window stays shut while responses are large. Memory
/// is bounded, each stream is reset in time, and the connection lives on.
#[test]
fn a_client_that_opens_no_window_is_bounded_and_loses_its_streams() {
    let body = "x".repeat(1_000_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{body}");
    let backend = Backend::saying(answer);
    let evenkeel = Evenkeel::start(&shop_with_listener(
        &[&backend],
        "http2 = { window_idle = \"500ms\" }",
        QUIET,
    ));
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let before = evenkeel.memory_kib();
    let mut client = Frames::connect(evenkeel.address(), &[(4, 0)]);
    for i in 0..100 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET));
    }
    let mut most = 0;
    for _ in 0..100 {
        let reset = client.wait_for(RST_STREAM).expect("the stream is reset");
        assert!([CANCEL, REFUSED_STREAM].contains(&reset.code()), "{reset:?}");
        most = most.max(evenkeel.memory_kib().saturating_sub(before));
    }
    assert!(most < 32 * 1024, "{most} KiB more");
    let stalled = || evenkeel.metric("evenkeel_http2_resets_total", &[("cause", "stalled")]);
    wait_until("stalled streams are counted", || stalled() > 0.0);
    assert!(client.send(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes()));
    assert!(client.send(PING, 0, 0, b"are you?"));
    assert_eq!(client.wait_for(PING).expect("it lives").payload, b"are you?");
}

/// Cancelled streams count until they have let go of their backend, and a reset cancels the attempt at once.
#[test]
fn a_cancelled_stream_leaves_its_backend_at_once() {
    let backend = Backend::scripted(|conversation| {
        conversation.request();
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    for i in 0..10 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET));
    }
    wait_until("all are at the backend", || backend.count() == 10);
    for i in 0..10 {
        assert!(client.send(RST_STREAM, 0, odd(i), &CANCEL.to_be_bytes()));
    }
    wait_until("the backend is left alone", || backend.open_connections() == 0);
    evenkeel.wait_for_failures("client_gone", 10);
    evenkeel.wait_for_metric("evenkeel_http2_resets_total", &[("cause", "client")], 10.0);
    let in_flight = || evenkeel.metric("evenkeel_backend_in_flight", &[]);
    wait_until("nothing is in flight", || in_flight() == 0.0);
}

/// Section 5.1.2: more streams at once than were offered are refused, and may be repeated.
#[test]
fn streams_beyond_the_limit_are_refused() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let backend = Backend::scripted(move |conversation| {
        while conversation.request().is_some() {
            waiting.pass();
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let listener = "http2 = { max_concurrent_streams = 4 }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    // The limit holds once the client has acknowledged it.
    client.wait_for(SETTINGS).expect("settings");
    assert!(client.send(SETTINGS, 1, 0, &[]));
    for i in 0..5 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET));
    }
    let refused = client.wait_for(RST_STREAM).expect("the fifth is refused");
    assert_eq!((refused.stream, refused.code()), (9, REFUSED_STREAM));
    evenkeel.wait_for_metric("evenkeel_http2_refused_total", &[("limit", "concurrent")], 1.0);
    gate.open();
    for _ in 0..4 {
        client.wait_for(HEADERS).expect("a response");
    }
}

/// Section 8.1.1: a malformed request ends its stream and no other, unanswered, and is counted by its reason.
#[test]
fn a_malformed_request_ends_its_stream_only() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let with = |name: &str, value: &str| {
        let mut block = GET.to_vec();
        block.push(0x00);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
        block
    };
    for (i, (name, value)) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("x", " blank"),
        ("host", "other"),
        ("content-length", "5"),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = odd(u32::try_from(i).unwrap());
        let flags = END_STREAM | END_HEADERS;
        assert!(client.send(HEADERS, flags, stream, &with(name, value)));
        let reset = client.wait_for(RST_STREAM).expect("a reset");
        assert_eq!((reset.stream, reset.code()), (stream, PROTOCOL_ERROR), "{name}");
    }
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(10), GET));
    assert_eq!(client.wait_for(HEADERS).expect("a response").stream, odd(10));
    assert_eq!(backend.count(), 1);
    evenkeel.wait_for_failures("bad_host", 1);
}
