//! RFC 9113 by section: what one connection may hold and one header may be, against the running program. What ends a
//! connection as abuse is in `http2_abuse.rs`.

use crate::support::frames::*;
use crate::support::*;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

fn odd(i: u32) -> u32 {
    2 * i + 1
}

/// A literal field without indexing.
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x00, u8::try_from(name.len()).expect("a short name")];
    block.extend(name.as_bytes());
    match u8::try_from(value.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            // RFC 7541 section 5.1.
            let mut rest = value.len() - 127;
            block.push(127);
            while rest >= 128 {
                block.push(0x80 | u8::try_from(rest % 128).expect("seven bits"));
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("seven bits"));
        }
    }
    block.extend(value);
    block
}

/// A backend that holds every request until it is closed.
fn holding() -> Backend {
    Backend::scripted(|conversation| {
        conversation.request();
        conversation.hold();
    })
}

/// Waits for a response, which is `:status 200` by its index in the static table.
#[track_caller]
fn answered(client: &mut Frames) {
    let head = client.wait_for(HEADERS).expect("a response");
    assert_eq!(head.payload.first(), Some(&0x88), "{head:?}");
}

/// Section 4.3, RFC 7541 section 4.2: the table for decompression holds 4 KiB, and a client that wants more has erred.
#[test]
fn section_4_3_the_table_does_not_grow_beyond_what_was_agreed() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    // A size update to 4097.
    let block = [&[0x3f, 0xe2, 0x1f][..], GET].concat();
    let mut client = Frames::connect(evenkeel.address(), &[]);
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    let goaway = client.wait_for(GOAWAY).expect("the connection ends");
    // The protocol library gives the more general of the two.
    assert!(
        [COMPRESSION_ERROR, PROTOCOL_ERROR].contains(&goaway.code()),
        "{goaway:?}"
    );
    // 4096 is agreed.
    let block = [&[0x3f, 0xe1, 0x1f][..], GET].concat();
    let mut client = Frames::connect(evenkeel.address(), &[]);
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    answered(&mut client);
}

/// Section 10.5.1, CVE-2026-49975 and its family: many cookie crumbs of one byte each are many fields, whatever they
/// cost on the wire. The request is refused, and the connection lives on.
#[test]
fn section_10_5_1_each_cookie_crumb_is_a_field() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    // `cookie` by its index in the static table (32), into the dynamic one, and then references to it.
    let mut block = [GET, &[0x60, 3, b'a', b'=', b'1']].concat();
    block.extend([0xbe; 200]);
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    client.wait_for(HEADERS).expect("an answer");
    evenkeel.wait_for_failures("too_many_headers", 1);
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 3, GET));
    answered(&mut client);
    assert_eq!(backend.count(), 1);
}

/// CVE-2019-9516: fields without a name.
#[test]
fn section_8_2_1_a_field_without_a_name_is_malformed() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let block = [GET, &field("", b"")].concat();
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    let refused = std::iter::from_fn(|| client.next()).find(|f| [RST_STREAM, GOAWAY].contains(&f.kind));
    assert_eq!(refused.expect("it is refused").code(), PROTOCOL_ERROR);
    assert_eq!(backend.accepted(), 0);
    assert_eq!(Client::connect(evenkeel.address()).get("/").status(), 200);
}

/// Section 6.10: a header in few but large frames is bounded by its bytes.
#[test]
fn section_6_10_a_header_is_bounded_in_bytes() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let part = field("x", &[b'v'; 15_000]);
    let mut sent = client.send(HEADERS, 0, 1, &[GET, &part].concat());
    for _ in 0..3 {
        sent = sent && client.send(CONTINUATION, 0, 1, &part);
    }
    if let Some(goaway) = client.wait_for(GOAWAY) {
        assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    }
    let counted = || evenkeel.metric("evenkeel_http2_abuse_total", &[("limit", "header_bytes")]);
    wait_until("it is counted", || counted() == 1.0);
    assert_eq!(backend.accepted(), 0);
}

/// Section 10.5: headers of running requests count against `connection_memory`; beyond it streams are refused, which
/// may be repeated, and none of those that run is harmed.
#[test]
fn section_10_5_a_connection_holds_no_more_than_its_memory() {
    let backend = holding();
    let listener = "http2 = { connection_memory = \"64KiB\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let block = [GET, &field("x", &[b'v'; 14_000])].concat();
    for i in 0..6 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), &block));
    }
    let refused = client.wait_for(RST_STREAM).expect("one is refused");
    assert_eq!((refused.stream, refused.code()), (odd(5), REFUSED_STREAM));
    wait_until("the others are at the backend", || backend.count() == 5);
    let counted = || evenkeel.metric("evenkeel_http2_refused_total", &[("limit", "memory")]);
    wait_until("it is counted", || counted() == 1.0);
    // What one leaves is room for another.
    assert!(client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
    evenkeel.wait_for_failures("client_gone", 1);
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(6), &block));
    wait_until("it is at the backend", || backend.count() == 6);
}

/// Section 10.5: streams that all come at once count one after the other, before the first of them is served.
#[test]
fn section_10_5_a_burst_holds_no_more_than_the_memory_of_its_connection() {
    const STREAMS: u32 = 60;
    const HEADER: usize = 2_000;
    let backend = holding();
    let listener = "http2 = { connection_memory = \"64KiB\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], listener, QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let block = [GET, &field("x", &[b'v'; HEADER])].concat();
    let burst = (0..STREAMS).flat_map(|i| encode(HEADERS, END_STREAM | END_HEADERS, odd(i), &block));
    client.raw(&burst.collect::<Vec<u8>>());
    let refused = || evenkeel.metric("evenkeel_http2_refused_total", &[("limit", "memory")]);
    wait_until("each is refused or at the backend", || {
        backend.count() as f64 + refused() == f64::from(STREAMS)
    });
    assert!(
        backend.count() * HEADER <= 64 * 1024 + HEADER,
        "{}",
        backend.count()
    );
}

/// Takes data until this much of it is here, of whatever streams.
#[track_caller]
fn take(client: &mut Frames, bytes: usize) {
    let mut came = 0;
    while came < bytes {
        came += client
            .wait_for(DATA)
            .expect("there is room for more")
            .payload
            .len();
    }
    assert_eq!(came, bytes);
}

/// Section 5.2: what a stream has of the connection's window when its client resets it, others get. Each stream takes
/// all there is and is reset half-way, and the one behind it waits for that; at the end not a byte is missing.
#[test]
fn section_5_2_a_reset_stream_leaves_its_part_of_the_window_to_others() {
    const WINDOW: usize = 65_535;
    const BODY: usize = 90_000;
    let body = "x".repeat(BODY);
    let backend = Backend::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n{body}"));
    let route = "[[load_balancers.shop.routes]]\npool = \"default\"\n";
    for actions in ["", "buffer_responses = { memory = \"1MiB\" }\n"] {
        let evenkeel = Evenkeel::start(&shop(&[&backend], &format!("{QUIET}{route}{actions}")));
        // SETTINGS_INITIAL_WINDOW_SIZE: what bounds is the connection's window.
        let mut client = Frames::connect(evenkeel.address(), &[(4, 1 << 20)]);
        let open = encode(WINDOW_UPDATE, 0, 0, &u32::try_from(WINDOW).unwrap().to_be_bytes());
        for i in 0..20 {
            assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET));
            answered(&mut client);
            if i > 0 {
                let reset = encode(RST_STREAM, 0, odd(i - 1), &CANCEL.to_be_bytes());
                // Either may come first.
                client.raw(&match i % 2 {
                    0 => [&*reset, &open].concat(),
                    _ => [&*open, &reset].concat(),
                });
            }
            take(&mut client, WINDOW);
        }
        client.raw(&open);
        let last = std::iter::from_fn(|| client.wait_for(DATA)).find(|data| data.flags & END_STREAM != 0);
        assert_eq!(last.map(|data| data.stream), Some(odd(19)));
    }
}

/// Section 5.4.2 and CVE-2023-44487: streams that are cancelled after their response has begun, too fast.
#[test]
fn section_5_4_2_answered_streams_may_not_be_cancelled_too_fast() {
    let backend = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let abuse = |limit| evenkeel.metric("evenkeel_http2_abuse_total", &[("limit", limit)]);
    for i in 0..101 {
        assert!(client.send(HEADERS, END_STREAM | END_HEADERS, odd(i), GET));
        client.wait_for(HEADERS).expect("a response");
        if i == 100 {
            assert_eq!(abuse("max_resets"), 0.0);
        }
        assert!(client.send(RST_STREAM, 0, odd(i), &CANCEL.to_be_bytes()));
    }
    let goaway = client.wait_for(GOAWAY).expect("that was one too many");
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    wait_until("it is counted", || abuse("max_resets") == 1.0);
    assert_eq!(abuse("max_cancelled"), 0.0);
}
