//! Requests that two parsers could read in two ways, through the real program: each is refused with its reason, the
//! connection ends, and the backend hears nothing of it. The whole grammar is in the conformance tests of `http`;
//! here are the rows that attacks are made of.

use crate::support::{Backend, Client, Evenkeel, Place, QUIET, shop};

/// Name, bytes, status, reason.
type Row = (&'static str, &'static [u8], u16, &'static str);

const ROWS: &[Row] = &[
    // RFC 9112 section 6: where the body ends.
    (
        "both lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        400,
        "ambiguous_length",
    ),
    (
        "both lengths, the other way round",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_length",
    ),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        400,
        "bad_content_length",
    ),
    (
        "the same length twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        400,
        "bad_content_length",
    ),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400, "bad_content_length"),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, "bad_content_length"),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", 400, "bad_content_length"),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", 400, "bad_content_length"),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx", 400, "bad_content_length"),
    (
        "a length beyond 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx",
        400,
        "bad_content_length",
    ),
    (
        "chunked is not last",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
        "bad_transfer_encoding",
    ),
    (
        "chunked twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_transfer_encoding",
    ),
    (
        "chunked with a tail",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        400,
        "bad_transfer_encoding",
    ),
    (
        "a vertical tab before chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_header",
    ),
    (
        "chunked with HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_transfer_encoding",
    ),
    (
        "a coding that is not ours",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "unknown_transfer_coding",
    ),
    // RFC 9112 section 5: field lines.
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx", 400, "bad_header"),
    ("folding", b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n Content-Length: 1\r\n\r\nx", 400, "obsolete_folding"),
    ("white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obsolete_folding"),
    ("a bare LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bad_line_ending"),
    ("a bare LF in the fields", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, "bad_line_ending"),
    ("a bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rContent-Length: 1\r\n\r\n", 400, "bad_line_ending"),
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "bad_header"),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400, "bad_header"),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400, "bad_header"),
    ("a name beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: b\r\n\r\n", 400, "bad_header"),
    // RFC 9112 section 3: request line and host.
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad_host"),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "bad_host"),
    ("a host that is not the target's", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_host"),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_line"),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400, "bad_request_line"),
    ("a method that is no token", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_method"),
    ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_method"),
    ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("a backslash", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("a target beyond ASCII", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("a target that is only an authority", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("an encoded slash", b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_path"),
    ("an encoded dot segment", b"GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_path"),
    ("an encoded NUL", b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_path"),
    ("an overlong escape", b"GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_path"),
    ("half an escape", b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method_not_allowed"),
    ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    ("a lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
    ("a long version", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "bad_version"),
    ("a later version", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version_unsupported"),
    ("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_line"),
    // RFC 9110.
    (
        "an expectation that is not ours",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx",
        417,
        "expectation_failed",
    ),
    (
        "an upgrade that is not allowed",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n",
        501,
        "upgrade_unsupported",
    ),
    ("a body with an HTTP/1.0 GET", b"GET / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", 413, "body_too_large"),
];

/// Each row on a connection of its own, followed by what would be a second request if the first were misread.
#[test]
fn each_is_refused_closed_and_unheard() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let address = evenkeel.address();
    let mut wrong = Vec::new();
    for (name, bytes, status, reason) in ROWS {
        let mut client = Client::connect(address);
        client.send(bytes);
        // A refusal may overtake this.
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response();
        let said = (answer.status(), answer.reason().to_owned());
        if said != (*status, (*reason).to_owned()) {
            wrong.push(format!("{name}: {said:?}, expected {:?}", (status, reason)));
        }
        if !answer.closes() || !client.is_ended() {
            wrong.push(format!("{name}: the connection goes on"));
        }
        if *status == 405 && answer.field("allow").is_none() {
            wrong.push(format!("{name}: no Allow"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        one.accepted(),
        0,
        "the backend was never asked: {:?}",
        one.requests()
    );
    let all = ROWS.len() as f64;
    evenkeel.wait_for_metric("evenkeel_request_failures_total", &[], all);
    evenkeel.wait_for_metric("evenkeel_requests_total", &[], all);
}

/// RFC 9112 section 7.1: chunked bodies that are malformed. The head is good, so the backend may have been asked;
/// but it never gets a whole request, and the client gets the reason.
#[test]
fn malformed_chunks_are_refused() {
    let bodies: &[(&str, &[u8], &str)] = &[
        ("a sign", b"+5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        ("a prefix", b"0x5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        ("a space", b"5 \r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        ("an empty size", b"\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        (
            "too many digits",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            "bad_chunk",
        ),
        (
            "a size beyond 63 bits",
            b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "bad_chunk",
        ),
        ("a bare LF after the size", b"5\nhello\r\n0\r\n\r\n", "bad_chunk"),
        (
            "a bare CR in an extension",
            b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
            "bad_chunk",
        ),
        ("data that is too long", b"5\r\nhello!\r\n0\r\n\r\n", "bad_chunk"),
        ("data that is too short", b"5\r\nhel\r\n0\r\n\r\n", "bad_chunk"),
        ("a trailer without a colon", b"0\r\nX\r\n\r\n", "bad_trailer"),
        ("a folded trailer", b"0\r\nX: a\r\n b\r\n\r\n", "bad_trailer"),
        (
            "a trailer that ends in a bare LF",
            b"0\r\nX: a\n\r\n",
            "bad_trailer",
        ),
    ];
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut wrong = Vec::new();
    for (name, body, reason) in bodies {
        let mut client = evenkeel.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(body);
        let answer = client.response();
        if (answer.status(), answer.reason()) != (400, *reason) {
            wrong.push(format!("{name}: {} {}", answer.status(), answer.reason()));
        }
        if !client.is_ended() {
            wrong.push(format!("{name}: the connection goes on"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(one.count(), 0, "{:?}", one.requests());
}

/// What is dropped or normalised instead: the backend sees the plain form only.
#[test]
fn what_is_forwarded_is_written_anew() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for (target, seen) in [
        ("/a/./b/../c", "/a/c"),
        ("/%7euser/%C3%a4", "/~user/%C3%A4"),
        ("/a//b", "/a//b"),
        ("/../../etc", "/etc"),
        ("/q?x=/../y&z=%2f", "/q?x=/../y&z=%2f"),
        ("http://shop.test/abs?x", "/abs?x"),
        ("/{x}|\"y\"", "/%7Bx%7D%7C%22y%22"),
    ] {
        assert_eq!(client.get(target).status(), 200, "{target}");
        assert_eq!(one.last().target(), seen, "{target}");
    }
    client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(one.last().line, "OPTIONS * HTTP/1.1");
    client.ask("\r\nGET /after-an-empty-line HTTP/1.1\r\nHost:  a\t\r\nx-OdD:\tv \r\n\r\n");
    let got = one.last();
    assert_eq!(got.line, "GET /after-an-empty-line HTTP/1.1");
    assert!(
        got.head.contains("\r\nx-OdD: v\r\n") && got.head.contains("\r\nHost: a\r\n"),
        "{:?}",
        got.head
    );
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: upgrade, http2-settings\r\n\r\n");
    assert!(
        !one.last().head.to_lowercase().contains("http2"),
        "{}",
        one.last().head
    );
}

/// A `Connection` that names fields of ours cannot remove them.
#[test]
fn connection_cannot_remove_what_we_write() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    evenkeel.client().ask(
        "POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: Host, Content-Length, X-Forwarded-For, Forwarded\r\n\
         Content-Length: 2\r\n\r\nhi",
    );
    let got = one.last();
    assert_eq!(got.field("host"), Some("shop.test"));
    assert_eq!(got.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got.field("content-length"), Some("2"));
    assert_eq!(got.body, b"hi");
}

/// Nothing that a test can throw ends the process: bytes of all kinds, cut at every place.
#[test]
fn a_request_cut_at_every_byte_does_no_harm() {
    let one = Backend::named("one");
    let place = Place::new(&shop(&[&one], QUIET));
    let evenkeel = place.start();
    let address = evenkeel.address();
    let whole =
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for end in 1..whole.len() {
        let mut client = Client::connect(address);
        client.send(&whole[..end]);
        client.finish_sending();
        match client.try_response() {
            Ok(answer) => assert_eq!(
                (answer.status(), answer.reason()),
                (400, "truncated_request"),
                "at {end}"
            ),
            // Without a whole head there may be silence.
            Err(_) => assert!(end < 57, "at {end}: an answer was due"),
        }
    }
    assert_eq!(one.count(), 0, "none was a whole request");
    assert_eq!(Client::connect(address).ask(whole).status(), 200);
}
