//! Heads that arrive in pieces, and heads that are reused.

use super::*;
use proptest::prelude::*;

/// Texts to damage: each exercises another part of the grammar.
pub(crate) const SAMPLES: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nPOST /a/../%7e?q={x} HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "PUT http://[::1]:81/x HTTP/1.1\r\nHost: [::1]:81\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n",
    "DELETE /%e2%82%ac/.. HTTP/1.1\r\nhost:a\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
];

/// A sample with a few bytes replaced, inserted or removed.
pub(crate) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'\r'),
        Just(b'\n'),
        Just(b' '),
        Just(b':'),
        Just(b'%'),
        Just(b'/'),
        Just(b'.'),
        Just(0),
        any::<u8>()
    ];
    let edit = (0u8..3, any::<prop::sample::Index>(), byte);
    (prop::sample::select(SAMPLES), prop::collection::vec(edit, 0..4)).prop_map(|(sample, edits)| {
        let mut bytes = sample.as_bytes().to_vec();
        for (kind, index, byte) in edits {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

proptest! {
    /// Byte by byte or at once: the same head, or the same reason ([`parse_with`] compares).
    #[test]
    fn a_request_comes_to_the_same_in_any_pieces(bytes in damaged()) {
        let small = ListenerLimits { header_bytes: 96, header_fields: 3, target_bytes: 12, body_bytes: Some(4) };
        for limits in [ListenerLimits::default(), small] {
            if let Ok(Some(request)) = parse_with(&bytes, &limits) {
                prop_assert!(request.head.head_len <= bytes.len());
            }
        }
    }

    /// The same for responses.
    #[test]
    fn a_response_comes_to_the_same_in_any_pieces(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let sample = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nConnection: x\r\nX: y\r\n\r\nhello";
        let mut bytes = sample.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some(response)) = parse_response(&bytes, Method::Get) {
            prop_assert!(response.head.head_len <= bytes.len());
        }
    }
}

#[test]
fn a_reused_head_carries_nothing_over() {
    let limits = ListenerLimits::default();
    let mut head = RequestHead::new();
    let full = SAMPLES[1].as_bytes();
    assert_eq!(head.parse(full, &limits), Ok(Parsed::Complete));
    assert!(head.expect_continue);
    let plain = SAMPLES[0].as_bytes();
    assert_eq!(head.parse(plain, &limits), Ok(Parsed::Complete));
    let mut fresh = RequestHead::new();
    assert_eq!(fresh.parse(plain, &limits), Ok(Parsed::Complete));
    assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
}

#[test]
fn after_a_refusal_the_head_begins_anew() {
    let limits = ListenerLimits::default();
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: y", &limits),
        Ok(Parsed::Incomplete)
    );
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n", &limits),
        Err(Reason::BadLineEnding)
    );
    assert_eq!(
        head.parse(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", &limits),
        Ok(Parsed::Complete)
    );
}

#[test]
fn an_abandoned_head_is_forgotten_by_reset() {
    let limits = ListenerLimits::default();
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &limits),
        Ok(Parsed::Incomplete)
    );
    head.reset();
    assert_eq!(
        head.parse(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", &limits),
        Ok(Parsed::Complete)
    );
    let mut head = ResponseHead::new();
    assert_eq!(
        head.parse(b"HTTP/1.1 200 OK\r\nX: ", Method::Get),
        Ok(Parsed::Incomplete)
    );
    head.reset();
    assert_eq!(
        head.parse(b"HTTP/1.1 204 \r\n\r\n", Method::Get),
        Ok(Parsed::Complete)
    );
    assert_eq!(head.status, 204);
}

#[test]
fn a_shrunken_or_foreign_buffer_does_no_harm() {
    let limits = ListenerLimits::default();
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &limits),
        Ok(Parsed::Incomplete)
    );
    assert_eq!(head.parse(b"GET", &limits), Ok(Parsed::Incomplete));
    let request = accepted(SAMPLES[1]);
    assert_eq!(request.head.host(b""), b"");
    assert_eq!(request.head.host_name(b""), b"");
    assert_eq!(request.head.cookie(b"x", "a"), None);
}

#[test]
fn a_reused_head_allocates_no_more() {
    let limits = ListenerLimits::default();
    let mut head = RequestHead::new();
    let bytes = SAMPLES[1].as_bytes();
    assert_eq!(head.parse(bytes, &limits), Ok(Parsed::Complete));
    let fields = (head.fields.as_ptr(), head.fields.capacity());
    let target = head.target(bytes).as_ptr();
    for _ in 0..3 {
        assert_eq!(head.parse(bytes, &limits), Ok(Parsed::Complete));
        assert_eq!((head.fields.as_ptr(), head.fields.capacity()), fields);
        assert_eq!(head.target(bytes).as_ptr(), target);
    }
}

#[test]
fn span_of_another_buffer_is_empty() {
    let span = evenkeel_http::Span { start: 3, end: 9 };
    assert_eq!(span.of(b"abc"), b"");
    assert_eq!(evenkeel_http::Span { start: 2, end: 1 }.of(b"abc"), b"");
    assert!(evenkeel_http::Span { start: 2, end: 1 }.is_empty());
}
