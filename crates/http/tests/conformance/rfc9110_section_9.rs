//! RFC 9110 section 9: methods and which may be sent again.

use super::*;

#[test]
fn methods_are_known_by_exact_name() {
    for (name, method, idempotent) in [
        ("GET", Method::Get, true),
        ("HEAD", Method::Head, true),
        ("PUT", Method::Put, true),
        ("DELETE", Method::Delete, true),
        ("OPTIONS", Method::Options, true),
        ("POST", Method::Post, false),
        ("PATCH", Method::Patch, false),
        ("get", Method::Other, false),
        ("BREW", Method::Other, false),
    ] {
        let request = accepted(with_fields(name, ""));
        assert_eq!(request.head.method, method);
        assert_eq!(method.is_idempotent(), idempotent, "{name}");
        assert_eq!(request.head.may_repeat(&request.buf), idempotent, "{name}");
    }
}

#[test]
fn an_idempotency_key_makes_a_post_repeatable() {
    let request = accepted(with_fields("POST", "Idempotency-Key: \"7\"\r\n"));
    assert!(request.head.may_repeat(&request.buf));
    let request = accepted(with_fields("POST", "Idempotency-Key:\r\n"));
    assert!(!request.head.may_repeat(&request.buf));
}
