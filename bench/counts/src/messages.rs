//! Parsing and writing of HTTP/1.1 heads and chunks.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use http::FieldList;
use http::chunked::{ChunkDecoder, ChunkEvent};
use http::forward::Via;
use http::message::{Method, Parsed, Version};
use http::request::RequestHead;
use http::response::ResponseHead;
use model::config::ListenerLimits;

/// What a load generator sends.
pub(crate) const SMALL_REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What a browser sends.
pub(crate) const BROWSER_REQUEST: &[u8] = b"GET /cart/items?id=42&view=full HTTP/1.1\r\n\
Host: shop.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://shop.example.org/cart\r\n\
Connection: keep-alive\r\n\
Cookie: theme=dark; basket=9f3c2a7e51d84b06; seen=1731980000\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
Priority: u=0, i\r\n\r\n";

/// What a plain origin answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Sat, 21 Nov 2026 04:00:00 GMT\r\n\
Content-Type: application/octet-stream\r\n\
Content-Length: 128\r\n\
Connection: keep-alive\r\n\r\n";

/// A chunk of 16 KiB.
fn chunk() -> Vec<u8> {
    [b"4000\r\n", vec![b'x'; 0x4000].as_slice(), b"\r\n"].concat()
}

pub(crate) fn parse_request(bytes: &'static [u8]) -> Box<dyn FnMut()> {
    let (mut head, limits) = (RequestHead::new(), ListenerLimits::default());
    Box::new(move || {
        head.reset();
        let parsed = head.parse(black_box(bytes), &limits);
        assert!(matches!(parsed, Ok(Parsed::Complete)));
    })
}

pub(crate) fn parse_response() -> Box<dyn FnMut()> {
    let mut head = ResponseHead::new();
    Box::new(move || {
        head.reset();
        let parsed = head.parse(black_box(RESPONSE), Method::Get);
        assert!(matches!(parsed, Ok(Parsed::Complete)));
    })
}

pub(crate) fn write_request(bytes: &'static [u8]) -> Box<dyn FnMut()> {
    let mut head = RequestHead::new();
    assert!(matches!(
        head.parse(bytes, &ListenerLimits::default()),
        Ok(Parsed::Complete)
    ));
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        out.clear();
        let via = Via {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client_text: b"127.0.0.1",
            trusted: false,
            scheme: b"http",
            backend: b"127.0.0.1:9001",
            upgrade: None,
            trace: None,
        };
        http::forward::write_request(&mut out, black_box(bytes), &head, &via, &FieldList::new());
        assert!(black_box(&out).len() > bytes.len());
    })
}

pub(crate) fn write_response() -> Box<dyn FnMut()> {
    let mut head = ResponseHead::new();
    assert!(matches!(head.parse(RESPONSE, Method::Get), Ok(Parsed::Complete)));
    let framing = http::forward::response_framing(&head, Version::Http11);
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        out.clear();
        http::forward::write_response(
            &mut out,
            black_box(RESPONSE),
            &head,
            Version::Http11,
            framing,
            &FieldList::new(),
            false,
        );
        assert!(black_box(&out).ends_with(b"\r\n\r\n"));
    })
}

pub(crate) fn decode_chunk() -> Box<dyn FnMut()> {
    let (bytes, mut decoder) = (chunk(), ChunkDecoder::new());
    Box::new(move || {
        let (mut rest, mut seen) = (black_box(bytes.as_slice()), 0);
        while !rest.is_empty() {
            let Ok((used, event)) = decoder.next(rest) else {
                break;
            };
            if let ChunkEvent::Data(range) = event {
                seen += range.len();
            }
            rest = rest.get(used..).unwrap_or_default();
        }
        assert!(seen == 0x4000);
    })
}
