//! What the codec must do, filed by the section of the RFC that says so. Each refusal is checked with the whole
//! head at once and byte by byte; both must come to the same reason.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;
mod failures;
mod hyper_view;
mod incremental;
mod known_attacks;
mod rfc3986_section_6;
mod rfc7239;
mod rfc8441;
mod rfc9110_section_10;
mod rfc9110_section_12;
mod rfc9110_section_15;
mod rfc9110_section_6;
mod rfc9110_section_7;
mod rfc9110_section_9;
mod rfc9112_section_2;
mod rfc9112_section_3;
mod rfc9112_section_4;
mod rfc9112_section_5;
mod rfc9112_section_6;
mod rfc9112_section_7;
mod rfc9112_section_9;
mod rfc9113_limits;
mod rfc9113_section_8;
mod roundtrip;
mod routing;
mod translation;
mod unreachable;

use evenkeel_http::forward::{Via, write_request, write_response};
use evenkeel_http::{FieldList, Framing, Method, Parsed, RequestHead, ResponseHead, Version};
use model::config::ListenerLimits;
use model::reason::Reason;

/// A head that was accepted, with the bytes it came from.
struct Request {
    head: RequestHead,
    buf: Vec<u8>,
}

impl Request {
    fn target(&self) -> &str {
        std::str::from_utf8(self.head.target(&self.buf)).unwrap()
    }

    fn host(&self) -> &str {
        std::str::from_utf8(self.head.host(&self.buf)).unwrap()
    }

    /// What the backend gets when the peer is not trusted.
    fn forwarded(&self) -> String {
        self.forwarded_via(&via("192.0.2.7", false))
    }

    fn forwarded_via(&self, via: &Via<'_>) -> String {
        let mut out = Vec::new();
        write_request(&mut out, &self.buf, &self.head, via, &FieldList::new());
        String::from_utf8(out).unwrap()
    }
}

fn via(client: &'static str, trusted: bool) -> Via<'static> {
    Via {
        client: client.parse().unwrap(),
        client_text: client.as_bytes(),
        trusted,
        scheme: b"http",
        backend: b"127.0.0.1:9001",
        upgrade: None,
        trace: None,
    }
}

/// Parses whole and byte by byte, and insists that both come to the same.
fn parse_with(bytes: impl AsRef<[u8]>, limits: &ListenerLimits) -> Result<Option<Request>, Reason> {
    let buf = bytes.as_ref().to_vec();
    let mut head = RequestHead::new();
    let whole = head.parse(&buf, limits);
    let mut slow = RequestHead::new();
    let dripped = (0..=buf.len())
        .map(|end| slow.parse(&buf[..end], limits))
        .find(|outcome| *outcome != Ok(Parsed::Incomplete))
        .unwrap_or(Ok(Parsed::Incomplete));
    let text = String::from_utf8_lossy(&buf);
    assert_eq!(whole, dripped, "whole and dripped differ for {text:?}");
    if whole == Ok(Parsed::Complete) {
        assert_eq!(
            format!("{head:?}"),
            format!("{slow:?}"),
            "whole and dripped differ for {text:?}"
        );
    }
    Ok(match whole? {
        Parsed::Incomplete => None,
        Parsed::Complete => Some(Request { head, buf }),
    })
}

fn accepted(bytes: impl AsRef<[u8]>) -> Request {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    match parse_with(bytes, &ListenerLimits::default()) {
        Ok(Some(request)) => request,
        Ok(None) => panic!("incomplete: {text:?}"),
        Err(reason) => panic!("refused with {reason}: {text:?}"),
    }
}

fn refused(bytes: impl AsRef<[u8]>) -> Reason {
    refused_with(bytes, &ListenerLimits::default())
}

fn refused_with(bytes: impl AsRef<[u8]>, limits: &ListenerLimits) -> Reason {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    match parse_with(bytes, limits) {
        Err(reason) => reason,
        Ok(Some(_)) => panic!("accepted: {text:?}"),
        Ok(None) => panic!("incomplete: {text:?}"),
    }
}

/// A request with these lines after `Host`.
fn with_fields(method: &str, fields: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// A response head that was accepted, with the bytes it came from.
struct Response {
    head: ResponseHead,
    buf: Vec<u8>,
}

impl Response {
    fn forwarded(&self, client: Version, framing: Framing, close: bool) -> String {
        let mut out = Vec::new();
        write_response(
            &mut out,
            &self.buf,
            &self.head,
            client,
            framing,
            &FieldList::new(),
            close,
        );
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn parse_response(bytes: impl AsRef<[u8]>, request: Method) -> Result<Option<Response>, Reason> {
    let buf = bytes.as_ref().to_vec();
    let mut head = ResponseHead::new();
    let whole = head.parse(&buf, request);
    let mut slow = ResponseHead::new();
    let dripped = (0..=buf.len())
        .map(|end| slow.parse(&buf[..end], request))
        .find(|outcome| *outcome != Ok(Parsed::Incomplete))
        .unwrap_or(Ok(Parsed::Incomplete));
    let text = String::from_utf8_lossy(&buf);
    assert_eq!(whole, dripped, "whole and dripped differ for {text:?}");
    Ok(match whole? {
        Parsed::Incomplete => None,
        Parsed::Complete => Some(Response { head, buf }),
    })
}

fn answer(bytes: impl AsRef<[u8]>) -> Response {
    answer_to(Method::Get, bytes)
}

fn answer_to(request: Method, bytes: impl AsRef<[u8]>) -> Response {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    match parse_response(bytes, request) {
        Ok(Some(response)) => response,
        Ok(None) => panic!("incomplete: {text:?}"),
        Err(reason) => panic!("refused with {reason}: {text:?}"),
    }
}

fn bad_answer(bytes: impl AsRef<[u8]>) {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert_eq!(
        parse_response(bytes, Method::Get).err(),
        Some(Reason::BadResponse),
        "{text:?}"
    );
}
