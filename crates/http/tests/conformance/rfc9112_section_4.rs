//! RFC 9112 section 4: the status line.

use super::*;

#[test]
fn a_status_line_is_taken_apart_and_written_anew() {
    let response = answer("HTTP/1.0 404 Not Here\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        (response.head.status, response.head.version),
        (404, Version::Http10)
    );
    let sent = response.forwarded(Version::Http11, Framing::Length(0), false);
    assert_eq!(sent, "HTTP/1.1 404 Not Here\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn the_phrase_may_be_empty_and_its_space_missing() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 "] {
        let response = answer(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        let sent = response.forwarded(Version::Http11, Framing::Length(0), false);
        assert!(sent.starts_with("HTTP/1.1 200 \r\n"), "{sent}");
    }
}

#[test]
fn a_malformed_status_line_is_a_bad_response() {
    for line in [
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1",
        "ICY 200 OK",
        " HTTP/1.1 200 OK",
        "",
        "220 mail.example ESMTP",
    ] {
        bad_answer(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
    }
}

#[test]
fn no_empty_line_stands_before_a_response() {
    bad_answer("\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn what_cannot_become_a_status_line_is_refused_at_once() {
    for bytes in ["S", "HTTP/2", "<html>"] {
        let mut head = ResponseHead::new();
        assert_eq!(
            head.parse(bytes.as_bytes(), Method::Get),
            Err(Reason::BadResponse)
        );
    }
}

#[test]
fn bare_line_endings_and_folding_are_bad_responses() {
    for bytes in [
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
    ] {
        bad_answer(bytes);
    }
}

#[test]
fn malformed_response_fields_are_bad_responses() {
    for field in [
        "X : a",
        ": a",
        "X",
        "X y: a",
        "X: a\0b",
        "X: a\x0bb",
        "X\u{e4}: a",
    ] {
        bad_answer(format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n"));
    }
}

#[test]
fn a_response_head_over_its_limits_is_refused() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(257));
    assert_eq!(
        parse_response(many, Method::Get).err(),
        Some(Reason::ResponseHeaderTooLarge)
    );
    let enough = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(256));
    assert_eq!(answer(enough).head.fields.len(), 256);
    let mut head = ResponseHead::new();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(64 * 1024));
    assert_eq!(
        head.parse(long.as_bytes(), Method::Get),
        Err(Reason::ResponseHeaderTooLarge)
    );
}
