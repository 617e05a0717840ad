//! RFC 9112 section 2: message format, line endings, version.

use super::*;

#[test]
fn a_plain_request_is_taken_apart() {
    let request = accepted("GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\n\r\nrest");
    let (head, buf) = (&request.head, &request.buf);
    assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
    assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
    assert_eq!(head.method_bytes(buf), b"GET");
    assert_eq!(head.target(buf), b"/a/b?c=d");
    assert_eq!(head.path(buf), b"/a/b");
    assert_eq!(head.query(buf), Some(&b"c=d"[..]));
    assert_eq!(head.host(buf), b"example.com:8080");
    assert_eq!(head.host_name(buf), b"example.com");
    assert_eq!(head.field(buf, "ACCEPT"), Some(&b"*/*"[..]));
    assert_eq!(&buf[head.head_len..], b"rest");
}

#[test]
fn one_empty_line_before_the_request_is_skipped_and_a_second_is_not() {
    let request = accepted("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.head.head_len, request.buf.len());
    assert_eq!(
        refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Reason::BadRequestLine
    );
}

#[test]
fn a_bare_line_feed_ends_no_line() {
    for bytes in [
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
    ] {
        assert_eq!(refused(bytes), Reason::BadLineEnding, "{bytes:?}");
    }
}

#[test]
fn a_carriage_return_without_line_feed_is_refused_anywhere() {
    for bytes in [
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r: b\r\n\r\n",
    ] {
        assert_eq!(refused(bytes), Reason::BadLineEnding, "{bytes:?}");
    }
}

#[test]
fn a_malformed_version_is_a_bad_request() {
    for version in [
        "HTTP/1",
        "http/1.1",
        "HTTP/1.1.1",
        "HTTP/01.1",
        "HTTP/1.10",
        "HTTPS/1.1",
        "HTTP/0.9",
        "HTTP/1,1",
        "HTTP/1.1x",
        "ICY/1.1",
    ] {
        let bytes = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(bytes), Reason::BadVersion, "{version:?}");
    }
}

#[test]
fn a_well_formed_version_other_than_1_0_and_1_1_is_unsupported() {
    for version in ["HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0"] {
        let bytes = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(bytes), Reason::VersionUnsupported, "{version:?}");
    }
}

#[test]
fn the_http2_preface_is_refused() {
    assert_eq!(
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Reason::VersionUnsupported
    );
}

#[test]
fn garbage_is_refused_at_its_first_byte() {
    // The start of a TLS handshake sent to a plain port.
    for bytes in [&b"\x16\x03\x01\x02"[..], b"\x00", b"\x80", b"(", b"G\x01"] {
        let mut head = RequestHead::new();
        let outcome = head.parse(bytes, &ListenerLimits::default());
        assert_eq!(outcome, Err(Reason::BadMethod), "{bytes:?}");
    }
}
