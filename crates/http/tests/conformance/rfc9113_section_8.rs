//! RFC 9113 section 8: requests and responses over HTTP/2.

use evenkeel_http::forward::write_request;
use evenkeel_http::h2::{Refusal, content_length, response_fields};
use evenkeel_http::{FieldList, Framing, Method, Parsed, RequestHead, ResponseHead, Version};
use model::config::ListenerLimits;
use model::reason::Reason;

use crate::via;

type List<'a> = Vec<(&'a str, &'a str)>;

/// The pseudo-header fields of a plain request.
const PLAIN: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "shop.example"),
    (":path", "/a"),
];

struct Translated {
    head: RequestHead,
    buf: Vec<u8>,
}

impl Translated {
    /// What a backend gets.
    fn forwarded(&self) -> String {
        let mut out = Vec::new();
        write_request(
            &mut out,
            &self.buf,
            &self.head,
            &via("192.0.2.7", false),
            &FieldList::new(),
        );
        String::from_utf8(out).unwrap()
    }
}

fn translate(list: &[(&str, &str)], end_stream: bool) -> Result<Translated, Refusal> {
    translate_within(list, end_stream, false, &ListenerLimits::default())
}

fn translate_within(
    list: &[(&str, &str)],
    end_stream: bool,
    extended_connect: bool,
    limits: &ListenerLimits,
) -> Result<Translated, Refusal> {
    let (mut head, mut buf) = (RequestHead::new(), Vec::new());
    let list = list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    head.from_http2(list, end_stream, extended_connect, limits, &mut buf)?;
    Ok(Translated { head, buf })
}

fn plain_with(more: &[(&'static str, &'static str)]) -> List<'static> {
    [&PLAIN[..], more].concat()
}

/// The plain request with this pseudo-header field otherwise, or without it.
fn otherwise(name: &str, value: Option<&'static str>) -> List<'static> {
    let list = PLAIN.iter().map(|(n, v)| match value {
        Some(value) if *n == name => Some((*n, value)),
        None if *n == name => None,
        _ => Some((*n, *v)),
    });
    list.flatten().collect()
}

#[track_caller]
fn malformed(list: &[(&str, &str)], reason: Reason) {
    for end_stream in [true, false] {
        let refusal = translate(list, end_stream).err();
        assert_eq!(refusal, Some(Refusal::Malformed(reason)), "{list:?}");
    }
}

#[track_caller]
fn answered(list: &[(&str, &str)], reason: Reason) {
    assert_eq!(
        translate(list, true).err(),
        Some(Refusal::Answer(reason)),
        "{list:?}"
    );
}

/// Section 8.3.1: a request is its pseudo-header fields; to a backend of HTTP/1 it is a request line and Host.
#[test]
fn a_request_becomes_a_head_like_any_other() {
    let request = translate(&plain_with(&[("x-one", "1"), ("accept", "*/*")]), true).unwrap();
    let (head, buf) = (&request.head, &request.buf);
    assert_eq!(
        (head.method, head.version, head.framing),
        (Method::Get, Version::Http2, Framing::None)
    );
    assert_eq!(
        (head.path(buf), head.host_name(buf)),
        (&b"/a"[..], &b"shop.example"[..])
    );
    assert_eq!(head.field(buf, "X-One"), Some(&b"1"[..]));
    let text = request.forwarded();
    assert!(
        text.starts_with("GET /a HTTP/1.1\r\nHost: shop.example\r\nx-one: 1\r\naccept: */*\r\n"),
        "{text}"
    );
}

/// Section 8.3: unknown, repeated and late ones.
#[test]
fn pseudo_header_fields_are_known_once_and_first() {
    malformed(&plain_with(&[(":path", "/b")]), Reason::BadHeader);
    malformed(&[&[("x-early", "1")], &PLAIN[..]].concat(), Reason::BadHeader);
    malformed(&plain_with(&[("x", "1"), (":unknown", "1")]), Reason::BadHeader);
    let unknown = [&[(":unknown", "1")], &PLAIN[..]].concat();
    malformed(&unknown, Reason::BadHeader);
    malformed(&[&[(":status", "200")], &PLAIN[..]].concat(), Reason::BadHeader);
}

/// Section 8.3.1: method, scheme and path must be there; a host by one name or the other.
#[test]
fn what_is_missing_or_of_no_use_ends_the_stream() {
    for (name, reason) in [
        (":method", Reason::BadMethod),
        (":scheme", Reason::BadTarget),
        (":path", Reason::BadTarget),
        (":authority", Reason::BadHost),
    ] {
        malformed(&otherwise(name, None), reason);
        malformed(&otherwise(name, Some("")), reason);
    }
    malformed(&otherwise(":method", Some("GE T")), Reason::BadMethod);
    malformed(&otherwise(":scheme", Some("ht tp")), Reason::BadTarget);
    malformed(&otherwise(":scheme", Some("1http")), Reason::BadTarget);
}

/// Section 8.3.1: a path is what HTTP/1 has in origin form, or `*` for OPTIONS.
#[test]
fn a_path_follows_the_same_rules_as_over_http_1() {
    for bad in ["a", "http://x/", "*", "/a b", "/a#b", "/a\\b", "/\u{fc}", "/%zz"] {
        malformed(&otherwise(":path", Some(bad)), Reason::BadTarget);
    }
    // Well-formed, and not allowed.
    answered(&otherwise(":path", Some("/a%2fb")), Reason::BadPath);
    answered(&otherwise(":path", Some("/%2e%2e/")), Reason::BadPath);
    let normal = translate(&otherwise(":path", Some("/a/../%7eb?q=/../")), true).unwrap();
    assert_eq!(normal.head.target(&normal.buf), b"/~b?q=/../");
    let mut options = otherwise(":path", Some("*"));
    options[0].1 = "OPTIONS";
    let options = translate(&options, true).unwrap();
    assert_eq!(options.head.target(&options.buf), b"*");
}

/// Section 8.3.1: `:authority` has no user information, and Host may only repeat it.
#[test]
fn authority_and_host_are_one() {
    for bad in [
        "user@shop.example",
        "shop.example/",
        "shop.example:0",
        "a b",
        "a,b",
    ] {
        malformed(&otherwise(":authority", Some(bad)), Reason::BadHost);
    }
    malformed(&plain_with(&[("host", "other.example")]), Reason::BadHost);
    let twice = plain_with(&[("host", "shop.example"), ("host", "shop.example")]);
    malformed(&twice, Reason::BadHost);
    assert!(translate(&plain_with(&[("host", "SHOP.example")]), true).is_ok());
    let mut by_host = otherwise(":authority", None);
    by_host.push(("host", "shop.example:8080"));
    let by_host = translate(&by_host, true).unwrap();
    assert_eq!(by_host.head.host(&by_host.buf), b"shop.example:8080");
    assert!(by_host.forwarded().contains("\r\nHost: shop.example:8080\r\n"));
}

/// Section 8.2.1: lower-case tokens, and values that no parser of HTTP/1 would take for more than one line.
#[test]
fn fields_are_clean() {
    for name in ["", "X-Upper", "a b", "a:b", "a\r\nb", "a\0", "\u{fc}"] {
        malformed(&[&PLAIN[..], &[(name, "1")]].concat(), Reason::BadHeader);
    }
    for value in [
        "a\r\nx: 1",
        "a\rb",
        "a\nb",
        "a\0b",
        " a",
        "a ",
        "\ta",
        "a\t",
        "a\x7f",
    ] {
        malformed(&[&PLAIN[..], &[("x", value)]].concat(), Reason::BadHeader);
    }
    malformed(&otherwise(":path", Some("/a\r\nx: 1")), Reason::BadHeader);
    assert!(translate(&plain_with(&[("x", "a\tb \u{fc}"), ("y", "")]), true).is_ok());
}

/// Section 8.2.2: what belongs to a connection of HTTP/1 makes a request malformed.
#[test]
fn fields_of_a_connection_end_the_stream() {
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        malformed(&[&PLAIN[..], &[(name, "close")]].concat(), Reason::BadHeader);
    }
    malformed(
        &plain_with(&[("transfer-encoding", "chunked")]),
        Reason::BadTransferEncoding,
    );
    malformed(&plain_with(&[("te", "trailers, gzip")]), Reason::BadHeader);
    let trailers = translate(&plain_with(&[("te", "trailers")]), true).unwrap();
    assert!(trailers.head.te_trailers);
    assert!(
        trailers
            .forwarded()
            .contains("\r\nTE: trailers\r\nConnection: TE\r\n")
    );
}

/// Section 8.1.1: a length that the body cannot have.
#[test]
fn a_length_is_one_number_and_tells_how_the_body_goes_on() {
    for bad in ["", "+1", "1, 1", "0x1", "9223372036854775808"] {
        malformed(
            &plain_with(&[])[..]
                .iter()
                .copied()
                .chain([("content-length", bad)])
                .collect::<List<'_>>(),
            Reason::BadContentLength,
        );
    }
    malformed(
        &plain_with(&[("content-length", "1"), ("content-length", "1")]),
        Reason::BadContentLength,
    );
    let one = plain_with(&[("content-length", "1")]);
    assert_eq!(
        translate(&one, true).err(),
        Some(Refusal::Malformed(Reason::BadContentLength))
    );
    let framing = |list: &[(&str, &str)], end| translate(list, end).unwrap().head.framing;
    assert_eq!(framing(&one, false), Framing::Length(1));
    assert_eq!(framing(&PLAIN, false), Framing::Chunked);
    assert_eq!(framing(&PLAIN, true), Framing::None);
    let chunked = translate(&PLAIN, false).unwrap().forwarded();
    assert!(
        chunked.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{chunked}"
    );
    assert!(!chunked.contains("Content-Length"), "{chunked}");
}

/// Section 8.2.3: crumbs are one field again, in their order, wherever they stood.
#[test]
fn cookie_crumbs_are_joined() {
    let list = plain_with(&[
        ("cookie", "a=1"),
        ("x", "y"),
        ("cookie", "b=2; c=3"),
        ("cookie", "d=4"),
    ]);
    let request = translate(&list, true).unwrap();
    let text = request.forwarded();
    assert_eq!(text.matches("cookie").count(), 1, "{text}");
    assert!(text.contains("\r\ncookie: a=1; b=2; c=3; d=4\r\n"), "{text}");
    assert_eq!(request.head.cookie(&request.buf, "d"), Some(&b"4"[..]));
}

/// Section 10.5.1: limits count every crumb, and what HTTP/2 counts for each field.
#[test]
fn limits_are_answered_and_count_crumbs() {
    let limits = ListenerLimits {
        header_fields: 3,
        ..ListenerLimits::default()
    };
    let crumbs = |n| [&PLAIN[..], &vec![("cookie", "a=1"); n]].concat();
    assert!(translate_within(&crumbs(3), true, false, &limits).is_ok());
    assert_eq!(
        translate_within(&crumbs(4), true, false, &limits).err(),
        Some(Refusal::Answer(Reason::TooManyHeaders))
    );
    let limits = ListenerLimits {
        header_bytes: 1024,
        target_bytes: 64,
        header_fields: 1000,
        body_bytes: Some(10),
    };
    let refused = |list: &[(&str, &str)], end| translate_within(list, end, false, &limits).err();
    assert_eq!(
        refused(&crumbs(30), true),
        Some(Refusal::Answer(Reason::HeaderTooLarge))
    );
    let long = format!("/{}", "a".repeat(64));
    let long: List<'_> = vec![PLAIN[0], PLAIN[1], PLAIN[2], (":path", &long)];
    assert_eq!(refused(&long, true), Some(Refusal::Answer(Reason::TargetTooLong)));
    let large = plain_with(&[("content-length", "11")]);
    assert_eq!(
        refused(&large, false),
        Some(Refusal::Answer(Reason::BodyTooLarge))
    );
}

/// Section 8.5 and RFC 8441 section 4: CONNECT only as extended, and only where that was offered.
#[test]
fn connect_is_served_only_when_it_was_offered() {
    let plain: List<'_> = vec![(":method", "CONNECT"), (":authority", "shop.example:443")];
    answered(&plain, Reason::MethodNotAllowed);
    let trace: List<'_> = vec![(":method", "TRACE"), PLAIN[1], PLAIN[2], PLAIN[3]];
    answered(&trace, Reason::MethodNotAllowed);
    let extended = |protocol| {
        vec![
            (":method", "CONNECT"),
            (":protocol", protocol),
            PLAIN[1],
            PLAIN[2],
            PLAIN[3],
        ]
    };
    malformed(&extended("websocket"), Reason::BadHeader);
    let limits = ListenerLimits::default();
    let offered = translate_within(&extended("websocket"), false, true, &limits).unwrap();
    assert_eq!(offered.head.upgrade(&offered.buf), Some(&b"websocket"[..]));
    assert_eq!(offered.head.framing, Framing::None);
    for refused in ["h2c", "h2", "H2"] {
        assert_eq!(
            translate_within(&extended(refused), false, true, &limits).err(),
            Some(Refusal::Answer(Reason::UpgradeUnsupported))
        );
    }
    let get = [&[(":protocol", "websocket")], &PLAIN[..]].concat();
    assert_eq!(
        translate_within(&get, true, true, &limits).err(),
        Some(Refusal::Malformed(Reason::BadHeader))
    );
}

/// RFC 9110 section 10.1.1: over HTTP/2 as over HTTP/1.
#[test]
fn an_expectation_needs_a_body_and_must_be_known() {
    let expecting = plain_with(&[("expect", "100-continue")]);
    assert!(translate(&expecting, false).unwrap().head.expect_continue);
    assert!(!translate(&expecting, true).unwrap().head.expect_continue);
    answered(&plain_with(&[("expect", "a-miracle")]), Reason::ExpectationFailed);
}

/// What is said about the client is dropped or kept by the same tables as over HTTP/1.
#[test]
fn names_mean_what_they_mean_over_http_1() {
    let list = plain_with(&[
        ("x-forwarded-for", "6.6.6.6"),
        ("proxy", "evil"),
        ("x_under", "1"),
        ("client-cert", "forged"),
    ]);
    let text = translate(&list, true).unwrap().forwarded();
    for gone in ["6.6.6.6", "evil", "x_under", "forged"] {
        assert!(!text.contains(gone), "{text}");
    }
}

/// Section 8.3.2 and 8.2.2: a response keeps its fields but for those of its connection.
#[test]
fn a_response_is_its_fields_without_those_of_its_connection() {
    let buf = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
        Transfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(buf, Method::Get), Ok(Parsed::Complete));
    let mut extra = FieldList::new();
    extra.push(b"X-Request-Id", b"1");
    extra.push(b"Connection", b"close");
    let fields: Vec<_> = response_fields(buf, &head, &extra)
        .map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii()))
        .collect();
    assert_eq!(
        fields,
        [
            "Server: x",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "X-Request-Id: 1"
        ]
    );
    assert_eq!(content_length(&head), None);
}

/// RFC 9110 section 8.6: the length of a body that does not follow is told all the same.
#[test]
fn a_length_is_told_where_it_is_known() {
    let buf = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(buf, method), Ok(Parsed::Complete));
        assert_eq!(content_length(&head), Some(7));
    }
}

/// Names and values that have smuggled requests over HTTP/1, and parts of them.
const SMUGGLERS: &[&str] = &[
    "",
    "a",
    "x",
    "host",
    "cookie",
    "content-length",
    "transfer-encoding",
    "chunked",
    "connection",
    "te",
    "trailers",
    "upgrade",
    ":protocol",
    "websocket",
    "H2",
    "sec-websocket-key",
    "expect",
    "100-continue",
    ":path",
    ":method",
    ":authority",
    "0",
    "5",
    "/",
    "/a b",
    "a\r\nx: y",
    "x\r\n\r\nGET /b HTTP/1.1\r\nHost: c\r\n\r\n",
    "\u{b}chunked",
    " chunked",
    "a:b",
    "\0",
    "X-Upper",
    "content_length",
    "GET /b HTTP/1.1",
    "/%0d%0aHost:%20b",
    "/a?b#c",
    "*",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    /// Whatever of that is accepted, a backend of HTTP/1 sees one request.
    #[test]
    fn nothing_is_smuggled_over_the_translation(
        end_stream in proptest::prelude::any::<bool>(),
        list in proptest::collection::vec((0..SMUGGLERS.len(), 0..SMUGGLERS.len()), 0..4),
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
    ) {
        let bytes = |i: usize| SMUGGLERS[i].as_bytes().to_vec();
        let list: Vec<_> = list.into_iter().map(|(n, v)| (bytes(n), bytes(v))).collect();
        crate::translation::compare(end_stream, &list, &body);
    }
}

/// So that the property above has something to compare.
#[test]
fn the_translation_is_compared() {
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    for (end_stream, list, body) in [
        (true, vec![], ""),
        (
            false,
            vec![field("x", "1"), field("cookie", "a=1"), field("cookie", "b=2")],
            "a body",
        ),
        (false, vec![field("content-length", "6")], "a body"),
        (
            false,
            vec![field("te", "trailers"), field("expect", "100-continue")],
            "a body",
        ),
        (
            true,
            vec![field(":path", "/{a}?b=%zz"), field("x-forwarded-for", "::1")],
            "",
        ),
        (
            false,
            vec![field(":protocol", "websocket"), field("sec-websocket-key", "x")],
            "",
        ),
    ] {
        assert!(
            crate::translation::compare(end_stream, &list, body.as_bytes()),
            "{list:?}"
        );
    }
}
