//! Published attacks on other HTTP/1 parsers, which must stay without effect here.

use super::*;
use evenkeel_http::chunked::{ChunkDecoder, ChunkError, ChunkEvent};

#[test]
fn cve_2021_40346_a_name_that_overflows_into_content_length() {
    // HAProxy kept name lengths in 8 bits: this name of 270 bytes counted as `Content-Length0` with another value.
    let long = format!("Content-Length0{}", "a".repeat(255));
    let request = accepted(with_fields("POST", &format!("{long}:\r\nContent-Length: 23\r\n")));
    assert_eq!(request.head.framing, Framing::Length(23));
    assert!(request.forwarded().contains(&format!("\r\n{long}: \r\n")));
}

#[test]
fn cve_2023_25725_an_empty_name_ends_no_header() {
    let bytes = "POST / HTTP/1.1\r\nHost: a\r\n: x\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(refused(bytes), Reason::BadHeader);
    assert_eq!(
        refused("GET / HTTP/1.1\r\n:\r\nHost: a\r\n\r\n"),
        Reason::BadHeader
    );
}

#[test]
fn cve_2023_40225_an_empty_content_length_is_not_forwarded() {
    assert_eq!(
        refused(with_fields("POST", "Content-Length:\r\n")),
        Reason::BadContentLength
    );
    assert_eq!(
        refused(with_fields("POST", "Content-Length: \r\nContent-Length: 3\r\n")),
        Reason::BadContentLength
    );
}

#[test]
fn cve_2023_45539_a_fragment_in_the_target_does_not_choose_the_route() {
    assert_eq!(
        refused("GET /index.html#.png HTTP/1.1\r\nHost: a\r\n\r\n"),
        Reason::BadTarget
    );
}

#[test]
fn cve_2025_4366_the_body_of_a_get_is_part_of_it() {
    // Pingora reused a connection with the body of a GET unread; here the framing says that it is there.
    let request =
        accepted(with_fields("GET", "Content-Length: 30\r\n") + "GET /evil HTTP/1.1\r\nHost: b\r\n");
    assert_eq!(request.head.framing, Framing::Length(30));
}

#[test]
fn cve_2025_22871_a_bare_line_feed_ends_no_chunk_size() {
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.next(b"5;\nhello"), Err(ChunkError::Chunk));
    assert_eq!(ChunkDecoder::new().next(b"5\nhello"), Err(ChunkError::Chunk));
}

#[test]
fn cve_2025_55315_a_line_ending_in_a_chunk_extension_is_refused() {
    for bytes in ["2;\n", "2;a\n", "2;a=b\n", "2;a=\"\n", "2;a\rb", "2;\r\n"] {
        assert_eq!(
            ChunkDecoder::new().next(bytes.as_bytes()),
            Err(ChunkError::Chunk),
            "{bytes:?}"
        );
    }
}

#[test]
fn cve_2026_2833_bytes_after_an_upgrade_request_are_not_a_tunnel() {
    let bytes =
        with_fields("GET", "Connection: upgrade\r\nUpgrade: x\r\n") + "GET /evil HTTP/1.1\r\nHost: b\r\n\r\n";
    // One request ends here; what follows is the next one's, and nothing of it is sent along.
    let request = accepted(bytes);
    assert_eq!(request.head.framing, Framing::None);
    assert!(!request.forwarded().contains("evil"));
}

#[test]
fn cve_2024_45410_connection_cannot_remove_what_the_proxy_says() {
    let bytes = with_fields("GET", "Connection: close, X-Forwarded-Host, X-Forwarded-For\r\n");
    let sent = accepted(bytes).forwarded();
    assert!(
        sent.contains("X-Forwarded-For: 192.0.2.7") && sent.contains("X-Forwarded-Host: a"),
        "{sent}"
    );
}

#[test]
fn cve_2026_39858_an_underscore_is_no_hyphen() {
    let sent = accepted(with_fields(
        "GET",
        "X_Forwarded_For: 6.6.6.6\r\nContent_Length: 777\r\n",
    ))
    .forwarded();
    assert!(!sent.contains("6.6.6.6") && !sent.contains("777"), "{sent}");
}

#[test]
fn cve_2026_88011_a_dot_is_no_hyphen() {
    let fields = "X.Forwarded.For: 6.6.6.6\r\nx-forwarded.anything-that-is-long-enough-to-be-cut: 6.6.6.6\r\n\
                  X.Real-IP: 6.6.6.6\r\nContent.Length: 777\r\nTransfer.Encoding: chunked\r\nProxy.Foo: 6.6.6.6\r\n\
                  Ssl.Client.Verify: 6.6.6.6\r\nForwarded.: 1\r\nVersion.Of.Api: 2\r\n";
    let request = accepted(with_fields("GET", fields));
    assert_eq!(request.head.framing, Framing::None);
    let sent = request.forwarded();
    for gone in ["6.6.6.6", "777", "chunked"] {
        assert!(!sent.contains(gone), "{sent}");
    }
    for kept in ["Forwarded.: 1", "Version.Of.Api: 2"] {
        assert!(sent.contains(kept), "{sent}");
    }
}

/// The same with any other sign that a name may have: lighttpd writes each of them as `_` for CGI.
#[test]
fn no_sign_is_a_hyphen() {
    for sign in "!#$%&'*+.^_`|~".chars() {
        let names = [
            "X-Forwarded-For",
            "X-Real-IP",
            "Content-Length",
            "Client-Cert",
            "Proxy-Foo",
            "SSL-Client-Verify",
        ];
        let alias = |name: &str| name.replace('-', &sign.to_string());
        let fields: String = names
            .iter()
            .map(|name| format!("{}: 666\r\n", alias(name)))
            .collect();
        let request = accepted(with_fields("GET", &format!("{fields}Of{sign}None: 7\r\n")));
        assert_eq!(request.head.framing, Framing::None);
        let sent = request.forwarded();
        assert!(!sent.contains("666"), "{sent}");
        assert_eq!(sent.contains(&format!("Of{sign}None: 7")), sign != '_', "{sent}");
    }
}

#[test]
fn cve_2026_88004_a_trailer_says_nothing_of_who_the_client_is() {
    let names = [
        "X-Forwarded-Prefix",
        "X_Auth_User",
        "X.Forwarded.For",
        "X!Forwarded!For",
        "Content.Type",
        "Set*Cookie",
        "If.Match",
        "X-SSL-Client-Verify",
        "X-Client-Cert",
        "SSL-Client-S-DN",
        "Client-Cert",
        "Forwarded",
        "X-Real-IP",
    ];
    let lines: String = names.iter().map(|name| format!("{name}: evil\r\n")).collect();
    let body = format!("0\r\n{lines}X-Sum: 7\r\n\r\n");
    let mut decoder = ChunkDecoder::new();
    while decoder.next(body.as_bytes()).unwrap() != (body.len(), ChunkEvent::End) {}
    let kept: Vec<&[u8]> = decoder.trailers().iter().map(|(name, _)| name).collect();
    assert_eq!(kept, [b"X-Sum"]);
}

#[test]
fn httpoxy_the_proxy_field_reaches_nobody() {
    assert!(
        !accepted(with_fields("GET", "Proxy: http://evil\r\nPROXY: x\r\n"))
            .forwarded()
            .contains("evil")
    );
}

#[test]
fn the_classic_desync_pairs_are_refused() {
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\tchunked, identity\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "Content-Length: 6\r\nContent-Length: 0\r\n",
        "Content-Length: 6 \x0b\r\n",
    ] {
        let reason = refused(with_fields("POST", fields));
        assert!(matches!(reason.status(), 400 | 501), "{fields:?}: {reason}");
    }
}

#[test]
fn a_response_cannot_be_split_by_its_backend() {
    for value in ["a\rSet-Cookie: b", "a\nSet-Cookie: b", "a\0b"] {
        bad_answer(format!(
            "HTTP/1.1 200 OK\r\nLocation: {value}\r\nContent-Length: 0\r\n\r\n"
        ));
        bad_answer(format!("HTTP/1.1 200 {value}\r\nContent-Length: 0\r\n\r\n"));
    }
}
