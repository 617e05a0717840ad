//! Parse, write, parse: what was accepted is written so that it means the same, and from then on the text is a
//! fixed point.
#![no_main]

use evenkeel_http::forward::{Via, write_request};
use evenkeel_http::{FieldList, Parsed, RequestHead};
use libfuzzer_sys::fuzz_target;
use model::config::ListenerLimits;

fn written(bytes: &[u8], head: &RequestHead, trusted: bool) -> Vec<u8> {
    let via = Via {
        client: [192, 0, 2, 7].into(),
        client_text: b"192.0.2.7",
        trusted,
        scheme: b"http",
        backend: b"127.0.0.1:9001",
        upgrade: None,
        trace: None,
    };
    let mut out = Vec::new();
    write_request(&mut out, bytes, head, &via, &FieldList::new());
    out
}

/// Reads what was written; it may be longer than what came, so the limits are wider.
fn read(bytes: &[u8]) -> RequestHead {
    let limits = ListenerLimits {
        header_bytes: 1 << 20,
        header_fields: 200,
        target_bytes: 1 << 16,
        body_bytes: None,
    };
    let mut head = RequestHead::new();
    assert_eq!(head.parse(bytes, &limits), Ok(Parsed::Complete));
    assert_eq!(head.head_len, bytes.len());
    head
}

fuzz_target!(|input: (bool, &[u8])| {
    let (trusted, bytes) = input;
    let mut head = RequestHead::new();
    if head.parse(bytes, &ListenerLimits::default()) != Ok(Parsed::Complete) {
        return;
    }
    let first = written(bytes, &head, trusted);
    let again = read(&first);
    assert_eq!(head.method_bytes(bytes), again.method_bytes(&first));
    assert_eq!(head.target(bytes), again.target(&first));
    assert_eq!(head.path(bytes), again.path(&first));
    assert_eq!(head.framing, again.framing);
    assert_eq!(
        (head.expect_continue, head.te_trailers),
        (again.expect_continue, again.te_trailers)
    );
    if !head.host(bytes).is_empty() {
        assert_eq!(
            (head.host(bytes), head.host_name(bytes)),
            (again.host(&first), again.host_name(&first))
        );
    }
    let second = written(&first, &again, false);
    let third = written(&second, &read(&second), false);
    assert_eq!(second, third);
});
