//! RFC 9112 section 5: field syntax, folding, and the limits on fields.

use super::*;

#[test]
fn malformed_field_lines_are_refused() {
    for (scenario, field) in [
        ("space before the colon", "X : a"),
        ("tab before the colon", "X\t: a"),
        ("empty name", ": a"),
        ("no colon", "X"),
        ("space in the name", "X y: a"),
        ("control in the name", "X\x01: a"),
        ("high byte in the name", "X\u{e4}: a"),
        ("parenthesis in the name", "X(y): a"),
        ("NUL in the value", "X: a\0b"),
        ("vertical tab in the value", "X: a\x0bb"),
        ("form feed in the value", "X: a\x0cb"),
        ("DEL in the value", "X: a\x7fb"),
        ("escape in the value", "X: \x1b[0m"),
    ] {
        assert_eq!(
            refused(with_fields("GET", &format!("{field}\r\n"))),
            Reason::BadHeader,
            "{scenario}"
        );
    }
}

#[test]
fn a_line_that_begins_with_white_space_is_refused_wherever_it_stands() {
    for bytes in [
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\t\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
    ] {
        assert_eq!(refused(bytes), Reason::ObsoleteFolding, "{bytes:?}");
    }
}

#[test]
fn white_space_around_a_value_is_not_part_of_it() {
    let request = accepted(with_fields("GET", "X: \t a\tb \t\r\nEmpty:\r\nBlank: \t \r\n"));
    let (head, buf) = (&request.head, &request.buf);
    assert_eq!(head.field(buf, "x"), Some(&b"a\tb"[..]));
    assert_eq!(head.field(buf, "empty"), Some(&b""[..]));
    assert_eq!(head.field(buf, "blank"), Some(&b""[..]));
    assert!(
        request
            .forwarded()
            .contains("\r\nX: a\tb\r\nEmpty: \r\nBlank: \r\n")
    );
}

#[test]
fn bytes_above_0x7f_pass_through_undecoded() {
    let request = accepted(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\x80\r\n\r\n");
    let mut out = Vec::new();
    write_request(
        &mut out,
        &request.buf,
        &request.head,
        &via("192.0.2.7", false),
        &FieldList::new(),
    );
    assert!(out.windows(7).any(|w| w == b": \xe4\xff\x80\r\n"), "{out:?}");
}

#[test]
fn the_number_of_fields_is_limited() {
    let limits = ListenerLimits {
        header_fields: 3,
        ..ListenerLimits::default()
    };
    let head = |more: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(more));
    assert!(parse_with(head(2), &limits).unwrap().is_some());
    assert_eq!(refused_with(head(3), &limits), Reason::TooManyHeaders);
}

#[test]
fn a_limit_far_above_the_default_is_honoured() {
    let limits = ListenerLimits {
        header_fields: 1000,
        ..ListenerLimits::default()
    };
    for count in [12, 13, 31, 32, 33, 127, 128, 129, 999] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(count));
        let request = parse_with(bytes, &limits).unwrap().unwrap();
        assert_eq!(request.head.fields.len(), count + 1);
    }
}

#[test]
fn the_size_of_a_head_is_limited_to_the_byte() {
    let limits = ListenerLimits {
        header_bytes: 64,
        ..ListenerLimits::default()
    };
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(64 - 32));
    assert_eq!(fits.len(), 64);
    assert!(parse_with(&fits, &limits).unwrap().is_some());
    let over = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(65 - 32));
    assert_eq!(refused_with(over, &limits), Reason::HeaderTooLarge);
}

#[test]
fn an_incomplete_head_counts_against_the_limit() {
    let limits = ListenerLimits {
        header_bytes: 64,
        ..ListenerLimits::default()
    };
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(100));
    assert_eq!(refused_with(endless, &limits), Reason::HeaderTooLarge);
    assert_eq!(refused_with("G".repeat(64), &limits), Reason::HeaderTooLarge);
}
