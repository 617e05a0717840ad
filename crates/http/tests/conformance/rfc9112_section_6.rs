//! RFC 9112 section 6: where a message ends, in both directions.

use super::*;
use evenkeel_http::forward::response_framing;

fn body(fields: &str) -> String {
    with_fields("POST", fields)
}

#[test]
fn a_request_ends_by_length_by_chunks_or_at_its_head() {
    assert_eq!(
        accepted(body("Content-Length: 5\r\n")).head.framing,
        Framing::Length(5)
    );
    assert_eq!(
        accepted(body("Content-Length: 0\r\n")).head.framing,
        Framing::Length(0)
    );
    assert_eq!(
        accepted(body("Transfer-Encoding: chunked\r\n")).head.framing,
        Framing::Chunked
    );
    assert_eq!(
        accepted(body("transfer-encoding: CHUNKED\r\n")).head.framing,
        Framing::Chunked
    );
    assert_eq!(accepted(body("")).head.framing, Framing::None);
}

#[test]
fn both_transfer_encoding_and_content_length_are_refused() {
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nX: y\r\nTRANSFER-ENCODING: chunked\r\n",
    ] {
        assert_eq!(refused(body(fields)), Reason::AmbiguousLength, "{fields:?}");
    }
}

#[test]
fn transfer_encoding_on_http_1_0_is_refused() {
    for coding in ["chunked", "gzip", ""] {
        let bytes = format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert_eq!(refused(bytes), Reason::BadTransferEncoding);
    }
}

#[test]
fn transfer_encoding_must_be_exactly_one_chunked() {
    for coding in [
        "",
        ",",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked, gzip",
        "chunked, identity",
        "gzip,,chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked chunked",
        "gzip chunked",
        "chun ked",
        "chunked\u{a0}",
        "\u{85}chunked",
    ] {
        let bytes = body(&format!("Transfer-Encoding: {coding}\r\n"));
        assert_eq!(refused(bytes), Reason::BadTransferEncoding, "{coding:?}");
    }
}

#[test]
fn raw_high_bytes_beside_chunked_are_refused() {
    for byte in [b'\x85', b'\xa0'] {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(b"\r\n\r\n");
        assert_eq!(refused(bytes), Reason::BadTransferEncoding);
    }
}

#[test]
fn controls_beside_chunked_are_refused() {
    for coding in ["\x0bchunked", "chunked\x0c", "chun\0ked", "\x0b chunked"] {
        let bytes = body(&format!("Transfer-Encoding: {coding}\r\n"));
        assert_eq!(refused(bytes), Reason::BadHeader, "{coding:?}");
    }
    assert_eq!(
        refused(body("Transfer-Encoding:\r\n chunked\r\n")),
        Reason::ObsoleteFolding
    );
    assert_eq!(
        refused(body("Transfer-Encoding : chunked\r\n")),
        Reason::BadHeader
    );
}

#[test]
fn a_repeated_transfer_encoding_is_refused() {
    assert_eq!(
        refused(body(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"
        )),
        Reason::BadTransferEncoding
    );
}

#[test]
fn an_unknown_coding_is_not_implemented() {
    for coding in [
        "gzip",
        "gzip, chunked",
        "identity",
        "xchunked",
        "deflate, gzip, chunked",
        "chunked-x",
    ] {
        let bytes = body(&format!("Transfer-Encoding: {coding}\r\n"));
        assert_eq!(refused(bytes), Reason::UnknownTransferCoding, "{coding:?}");
    }
}

#[test]
fn transfer_encoding_with_an_underscore_frames_nothing_and_is_not_forwarded() {
    let request = accepted(body(
        "Transfer_Encoding: chunked\r\nContent_Length: 7\r\nContent-Length: 3\r\n",
    ));
    assert_eq!(request.head.framing, Framing::Length(3));
    assert!(!request.forwarded().contains('_'));
}

#[test]
fn a_malformed_content_length_is_refused() {
    for length in [
        "",
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5 0",
        "5,",
        "5, 5",
        "5.0",
        "5e1",
        "\"5\"",
        "five",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
        "00000000000000000005",
        "\u{665}",
    ] {
        let bytes = body(&format!("Content-Length: {length}\r\n"));
        assert_eq!(refused(bytes), Reason::BadContentLength, "{length:?}");
    }
    let most = accepted(body("Content-Length: 9223372036854775807\r\n"));
    assert_eq!(most.head.framing, Framing::Length(i64::MAX as u64));
}

#[test]
fn a_repeated_content_length_is_refused_even_if_equal() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
    ] {
        assert_eq!(refused(body(fields)), Reason::BadContentLength);
    }
}

#[test]
fn get_head_and_delete_may_have_a_framed_body_on_1_1() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let request = accepted(with_fields(method, "Content-Length: 3\r\n"));
        assert_eq!(request.head.framing, Framing::Length(3));
        assert!(request.forwarded().contains("\r\nContent-Length: 3\r\n"));
    }
}

#[test]
fn on_1_0_only_post_and_put_have_a_body() {
    let old = |method: &str, length: u32| format!("{method} / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
    for method in ["POST", "PUT"] {
        assert_eq!(accepted(old(method, 3)).head.framing, Framing::Length(3));
    }
    for method in ["GET", "HEAD", "DELETE", "PATCH", "FOO"] {
        assert_eq!(refused(old(method, 3)), Reason::BodyTooLarge, "{method}");
        assert_eq!(accepted(old(method, 0)).head.framing, Framing::Length(0));
    }
}

#[test]
fn a_length_over_the_body_limit_is_refused_at_the_head() {
    let limits = ListenerLimits {
        body_bytes: Some(10),
        ..ListenerLimits::default()
    };
    assert_eq!(
        refused_with(body("Content-Length: 11\r\n"), &limits),
        Reason::BodyTooLarge
    );
    assert!(
        parse_with(body("Content-Length: 10\r\n"), &limits)
            .unwrap()
            .is_some()
    );
}

#[test]
fn the_backend_gets_one_framing_line() {
    let sent = accepted(body("transfer-encoding: Chunked\r\n")).forwarded();
    assert_eq!(sent.matches("ransfer-").count(), 1, "{sent}");
    assert!(sent.contains("\r\nTransfer-Encoding: chunked\r\n"), "{sent}");
    let sent = accepted(body("content-length: 007\r\n")).forwarded();
    assert_eq!(sent.matches("ength").count(), 1, "{sent}");
    assert!(sent.contains("\r\nContent-Length: 7\r\n"), "{sent}");
}

#[test]
fn a_response_ends_by_length_by_chunks_or_by_closing() {
    assert_eq!(
        answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            .head
            .framing,
        Framing::Length(5)
    );
    assert_eq!(
        answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .head
            .framing,
        Framing::Chunked
    );
    let closing = answer("HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(
        (closing.head.framing, closing.head.keep_alive),
        (Framing::UntilClose, false)
    );
}

#[test]
fn a_response_with_doubtful_length_is_bad() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length:",
    ] {
        bad_answer(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
    }
    bad_answer("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    bad_answer("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n");
    bad_answer("HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn head_204_304_and_1xx_have_no_body_whatever_they_say() {
    let head = answer_to(Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((head.head.framing, head.head.keep_alive), (Framing::None, true));
    let head = answer_to(
        Method::Head,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(head.head.framing, Framing::None);
    let head = answer_to(Method::Head, "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!((head.head.framing, head.head.keep_alive), (Framing::None, true));
    for status in [
        "204 No Content",
        "304 Not Modified",
        "103 Early Hints",
        "101 Switching Protocols",
    ] {
        let response = answer(format!("HTTP/1.1 {status}\r\n\r\n"));
        assert_eq!(
            (response.head.framing, response.head.keep_alive),
            (Framing::None, true),
            "{status}"
        );
    }
}

#[test]
fn the_length_of_an_unsent_body_is_told_for_head_and_304_only() {
    let head = answer_to(Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert!(
        head.forwarded(Version::Http11, Framing::None, false)
            .contains("Content-Length: 5\r\n")
    );
    let unchanged = answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
    assert!(
        unchanged
            .forwarded(Version::Http11, Framing::None, false)
            .contains("Content-Length: 5\r\n")
    );
    let empty = answer("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    assert!(empty.head.keep_alive);
    assert!(
        !empty
            .forwarded(Version::Http11, Framing::None, false)
            .contains("Content-Length")
    );
}

#[test]
fn a_204_that_announces_a_body_is_not_reused() {
    let response = answer("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(
        (response.head.framing, response.head.keep_alive),
        (Framing::None, false)
    );
    assert!(
        !response
            .forwarded(Version::Http11, Framing::None, false)
            .contains("Content-Length")
    );
}

#[test]
fn the_client_gets_a_framing_it_knows() {
    let chunked = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").head;
    let closing = answer("HTTP/1.0 200 OK\r\n\r\n").head;
    let sized = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").head;
    let none = answer("HTTP/1.1 204 No Content\r\n\r\n").head;
    for (head, new, old) in [
        (&chunked, Framing::Chunked, Framing::UntilClose),
        (&closing, Framing::Chunked, Framing::UntilClose),
        (&sized, Framing::Length(5), Framing::Length(5)),
        (&none, Framing::None, Framing::None),
    ] {
        assert_eq!(response_framing(head, Version::Http11), new);
        assert_eq!(response_framing(head, Version::Http10), old);
    }
}

#[test]
fn a_chunked_answer_is_written_for_either_version() {
    let response = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n");
    assert_eq!(
        response.forwarded(Version::Http11, Framing::Chunked, false),
        "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        response.forwarded(Version::Http10, Framing::UntilClose, false),
        "HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n"
    );
}
