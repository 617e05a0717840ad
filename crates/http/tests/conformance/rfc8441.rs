//! RFC 8441: an extended CONNECT and an HTTP/1.1 upgrade mean the same, and become each other.

use evenkeel_http::forward::{Upgrade, Via, write_request, write_switch};
use evenkeel_http::onward::Onward;
use evenkeel_http::websocket::Key;
use evenkeel_http::{FieldList, Framing, Method, Parsed, RequestHead, ResponseHead, Version};
use model::config::ListenerLimits;
use model::reason::Reason;

use crate::{accepted, via};

/// What the example of section 5.1 sends.
const EXAMPLE: [(&str, &str); 8] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":path", "/chat"),
    (":authority", "server.example.com"),
    ("sec-websocket-protocol", "chat, superchat"),
    ("sec-websocket-version", "13"),
    ("origin", "http://www.example.com"),
];

fn translate(list: &[(&str, &str)]) -> Result<(RequestHead, Vec<u8>), evenkeel_http::h2::Refusal> {
    let (mut head, mut buf) = (RequestHead::new(), Vec::new());
    let list = list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    head.from_http2(list, false, true, &ListenerLimits::default(), &mut buf)?;
    Ok((head, buf))
}

fn written(head: &RequestHead, buf: &[u8], key: Option<Key>) -> String {
    let protocol = head.upgrade(buf).unwrap();
    let via = Via {
        upgrade: Some(Upgrade { protocol, key }),
        ..via("192.0.2.7", false)
    };
    let mut out = Vec::new();
    write_request(&mut out, buf, head, &via, &FieldList::new());
    String::from_utf8(out).unwrap()
}

/// The key and the proof of RFC 6455 section 1.3.
fn sample_key() -> Key {
    Key::read(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap()
}

/// Section 4: it stands as the upgrade that it means, so that whatever decides about one decides about the other.
#[test]
fn an_extended_connect_is_the_upgrade_that_it_means() {
    let (head, buf) = translate(&EXAMPLE).unwrap();
    assert_eq!((head.method, head.version), (Method::Get, Version::Http2));
    assert_eq!(head.method_bytes(&buf), b"GET");
    assert_eq!((head.framing, head.head_len), (Framing::None, buf.len()));
    assert!(head.extended_connect);
    assert_eq!(head.upgrade(&buf), Some(&b"websocket"[..]));
    assert_eq!(head.path(&buf), b"/chat");
}

/// Section 5.1: the two requests of the example, of which the second is what a backend of HTTP/1.1 gets. A key that a
/// client sends all the same is not passed on.
#[test]
fn a_backend_of_http_1_gets_the_handshake() {
    let with_key = [&EXAMPLE[..], &[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")]].concat();
    for list in [&EXAMPLE[..], &with_key] {
        let (head, buf) = translate(list).unwrap();
        let text = written(&head, &buf, Some(sample_key()));
        assert!(
            text.starts_with("GET /chat HTTP/1.1\r\nHost: server.example.com\r\n"),
            "{text}"
        );
        for line in [
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "sec-websocket-protocol: chat, superchat\r\n",
            "sec-websocket-version: 13\r\n",
            "origin: http://www.example.com\r\n",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
        }
        assert_eq!(
            text.to_lowercase().matches("sec-websocket-key").count(),
            1,
            "{text}"
        );
        // Read back it is an upgrade without a body.
        let again = accepted(&text);
        assert_eq!(again.head.upgrade(&again.buf), Some(&b"websocket"[..]));
        assert_eq!(again.head.framing, Framing::None);
    }
}

/// Section 5: an upgrade becomes an extended CONNECT, without what belongs to the handshake and to the connection.
#[test]
fn a_backend_of_http_2_gets_an_extended_connect() {
    let request = accepted(
        "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n",
    );
    assert!(!request.head.extended_connect);
    let text = written(&request.head, &request.buf, None);
    let onward = Onward::read(text.as_bytes()).unwrap();
    assert_eq!(onward.method, b"CONNECT");
    assert_eq!(onward.protocol, Some(&b"websocket"[..]));
    assert_eq!(onward.path, b"/chat?room=1");
    assert_eq!(onward.authority, b"server.example.com");
    let names: Vec<String> = onward
        .fields()
        .map(|(name, _)| String::from_utf8_lossy(name).to_lowercase())
        .collect();
    for gone in ["sec-websocket-key", "connection", "upgrade", "host"] {
        assert!(!names.iter().any(|name| name == gone), "{gone}: {names:?}");
    }
    for kept in ["sec-websocket-version", "sec-websocket-protocol"] {
        assert!(names.iter().any(|name| name == kept), "{kept}: {names:?}");
    }
    // An ordinary request keeps whatever it has of such names.
    let plain = accepted("GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\n\r\n");
    let text = plain.forwarded();
    let onward = Onward::read(text.as_bytes()).unwrap();
    assert_eq!((onward.method, onward.protocol), (&b"GET"[..], None));
    assert_eq!(
        onward.fields().next(),
        Some((&b"Sec-WebSocket-Key"[..], &b"x"[..]))
    );
}

/// From HTTP/2 to HTTP/2 it stays what it was.
#[test]
fn from_stream_to_stream_it_stays_what_it_was() {
    let (head, buf) = translate(&EXAMPLE).unwrap();
    let text = written(&head, &buf, Some(sample_key()));
    let onward = Onward::read(text.as_bytes()).unwrap();
    assert_eq!(onward.method, b"CONNECT");
    assert_eq!(onward.protocol, Some(&b"websocket"[..]));
    assert!(
        !onward
            .fields()
            .any(|(name, _)| name.eq_ignore_ascii_case(b"sec-websocket-key"))
    );
}

/// RFC 9110 section 9.3.6: a CONNECT has no content; what follows belongs to the tunnel.
#[test]
fn an_extended_connect_announces_no_content() {
    let with = |length| [&EXAMPLE[..], &[("content-length", length)]].concat();
    assert_eq!(
        translate(&with("5")).err(),
        Some(evenkeel_http::h2::Refusal::Malformed(Reason::BadContentLength))
    );
    assert!(translate(&with("0")).is_ok());
}

/// RFC 6455 section 1.3 and 4.2.2: its own example; and what is no key.
#[test]
fn the_proof_is_that_of_rfc_6455() {
    assert_eq!(&sample_key().accept(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(&sample_key().text(), b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(Key::new(*b"the sample nonce"), sample_key());
    for none in [
        "",
        "?",
        "dGhlIHNhbXBsZQ==",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "dGhlIHNhbXBsZSBub25jZQ",
    ] {
        assert_eq!(Key::read(none.as_bytes()), None, "{none}");
    }
}

/// What a client of HTTP/1.1 is told, whatever status its backend agreed with.
#[test]
fn a_client_of_http_1_gets_101() {
    for agreed in [
        "HTTP/1.1 200 \r\nSec-WebSocket-Protocol: chat\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nSec-WebSocket-Protocol: chat\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(agreed.as_bytes(), Method::Get), Ok(Parsed::Complete));
        let mut out = Vec::new();
        write_switch(
            &mut out,
            agreed.as_bytes(),
            &head,
            &FieldList::new(),
            b"websocket",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: chat\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\n"
        );
    }
}
