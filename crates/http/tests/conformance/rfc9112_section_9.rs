//! RFC 9112 section 9: persistence; RFC 9110 section 7.8: upgrades.

use super::*;

#[test]
fn a_client_keeps_its_connection_by_version_and_wish() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive\r\n", true),
        ("1.1", "Connection: keep-alive, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: x-close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let request = accepted(format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"));
        assert_eq!(request.head.keep_alive, kept, "{version} {connection:?}");
    }
}

#[test]
fn a_backend_connection_is_kept_by_version_and_wish() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
    ] {
        let bytes = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{connection}\r\n");
        assert_eq!(answer(bytes).head.keep_alive, kept, "{version} {connection:?}");
    }
}

#[test]
fn the_backends_idle_timeout_is_read() {
    for (value, timeout) in [
        ("timeout=5", Some(5)),
        ("timeout=5, max=100", Some(5)),
        ("max=100, Timeout=7", Some(7)),
        ("max=100", None),
        ("timeout=x", None),
        ("timeout=", None),
        ("timeout=99999999999", None),
    ] {
        let response = answer(format!(
            "HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(response.head.keep_alive_timeout, timeout, "{value}");
    }
}

#[test]
fn the_client_is_told_what_happens_to_its_connection() {
    let response =
        answer("HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n");
    for (client, close, line) in [
        (Version::Http11, false, ""),
        (Version::Http11, true, "Connection: close\r\n"),
        (Version::Http10, false, "Connection: keep-alive\r\n"),
        (Version::Http10, true, "Connection: close\r\n"),
    ] {
        let sent = response.forwarded(client, Framing::Length(0), close);
        assert_eq!(
            sent,
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{line}\r\n")
        );
    }
}

#[test]
fn an_upgrade_is_seen_when_it_is_meant_and_forwarded_only_on_purpose() {
    for (fields, meant) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        (
            "Connection: keep-alive, upgrade\r\nUpgrade: h2c, websocket\r\n",
            true,
        ),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
        ("Connection: upgrade\r\nUpgrade:\r\n", false),
        (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            false,
        ),
        ("Connection: upgrade\r\nUpgrade: H2\r\n", false),
    ] {
        let bytes = with_fields("GET", fields);
        let request = accepted(bytes);
        let protocol = request.head.upgrade(&request.buf);
        assert_eq!(protocol, meant.then_some(&b"websocket"[..]), "{fields:?}");
        let sent = request.forwarded().to_ascii_lowercase();
        assert!(
            !sent.contains("upgrade") && !sent.contains("http2-settings"),
            "{sent}"
        );
    }
}

#[test]
fn an_upgrade_on_http_1_0_is_ignored() {
    let request = accepted("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(!request.forwarded().to_ascii_lowercase().contains("upgrade"));
}

#[test]
fn pipelined_requests_are_parsed_one_after_the_other_with_one_head() {
    let buf =
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /%7e HTTP/1.1\r\nHost: b\r\n\r\nGET /3 HTTP/1.0\r\n\r\n";
    let mut head = RequestHead::new();
    let mut at = 0;
    let mut seen = Vec::new();
    while at < buf.len() {
        let rest = &buf[at..];
        assert_eq!(head.parse(rest, &ListenerLimits::default()), Ok(Parsed::Complete));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        seen.push((text(head.target(rest)), text(head.host(rest)), head.version));
        at += head.head_len;
    }
    assert_eq!(
        seen,
        [
            ("/1".into(), "a".into(), Version::Http11),
            ("/~".into(), "b".into(), Version::Http11),
            ("/3".into(), String::new(), Version::Http10),
        ]
    );
}
