//! RFC 9110 section 7.6: what an intermediary forwards.

use super::*;
use evenkeel_http::forward::write_interim;

#[test]
fn a_request_is_written_whole_and_in_order() {
    let request = accepted(
        "POST /a?b HTTP/1.1\r\nAccept: x\r\nHost: h:81\r\nCookie: c=d\r\nContent-Length: 2\r\nX-Y:z\r\n\r\nhi",
    );
    assert_eq!(
        request.forwarded(),
        "POST /a?b HTTP/1.1\r\nHost: h:81\r\nAccept: x\r\nCookie: c=d\r\nX-Y: z\r\nContent-Length: 2\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h:81\r\n\
         Forwarded: for=192.0.2.7;proto=http;host=\"h:81\"\r\n\r\n"
    );
}

#[test]
fn what_ends_at_this_hop_is_not_forwarded_to_the_backend() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Proxy",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "X_Real_IP",
        "a_b",
        "_",
        "proxy-x",
    ] {
        let request = accepted(with_fields("GET", &format!("{name}: zzz\r\n")));
        assert!(!request.forwarded().contains("zzz"), "{name}");
    }
}

#[test]
fn names_that_connection_lists_are_not_forwarded_nor_seen() {
    let request = accepted(with_fields(
        "GET",
        "Connection: X-A, , x-b\r\nX-a: 1\r\nX-B: 2\r\nX-C: 3\r\nconnection: x-d\r\nx-d: 4\r\n",
    ));
    let sent = request.forwarded();
    assert!(sent.contains("X-C: 3"), "{sent}");
    for gone in ["X-a", "X-B", "x-d"] {
        assert!(!sent.contains(gone), "{sent}");
        assert_eq!(request.head.field(&request.buf, gone), None);
    }
}

#[test]
fn listing_a_field_that_this_proxy_writes_does_not_remove_it() {
    let request = accepted(
        "POST / HTTP/1.1\r\nConnection: host, content-length, x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded, x-real-ip, te\r\n\
         Host: a\r\nContent-Length: 2\r\nX-Forwarded-For: 198.51.100.1\r\nX-Real-IP: 198.51.100.1\r\nTE: trailers\r\n\r\nhi",
    );
    let sent = request.forwarded_via(&via("192.0.2.7", true));
    for line in [
        "Host: a",
        "Content-Length: 2",
        "X-Forwarded-For: 198.51.100.1, 192.0.2.7",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a",
        "Forwarded: for=192.0.2.7",
        "X-Real-IP: 198.51.100.1",
        "TE: trailers",
    ] {
        assert!(sent.contains(&format!("\r\n{line}")), "{line} in {sent}");
    }
}

#[test]
fn a_flood_of_connection_options_is_refused() {
    let options = |count: usize| with_fields("GET", &format!("Connection: {}x\r\n", "x,".repeat(count - 1)));
    assert!(accepted(options(64)).head.keep_alive);
    assert_eq!(refused(options(65)), Reason::BadHeader);
}

#[test]
fn what_ends_at_this_hop_is_not_forwarded_to_the_client() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Trailer",
        "Upgrade",
        "TE",
    ] {
        let response = answer(format!(
            "HTTP/1.1 200 OK\r\n{name}: zzz\r\nContent-Length: 0\r\n\r\n"
        ));
        assert!(
            !response
                .forwarded(Version::Http11, Framing::Length(0), false)
                .contains("zzz"),
            "{name}"
        );
    }
    let response = answer(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, content-length\r\nX-Hop: zzz\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        response.forwarded(Version::Http11, Framing::Length(0), false),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn the_backends_own_fields_stay_as_they_are() {
    let response = answer(
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nx_y: z\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        response.forwarded(Version::Http11, Framing::Length(0), false),
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nx_y: z\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn an_interim_response_is_passed_on_without_framing() {
    let response = answer(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
    );
    let mut out = Vec::new();
    write_interim(&mut out, &response.buf, &response.head);
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
}
