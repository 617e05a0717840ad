//! What comes over HTTP/2 and is forwarded over HTTP/1 is, to any parser, exactly one message with the same body.
//! Shared with the fuzz target `http2_to_http1`.

use evenkeel_http::chunked::{write_chunk_head, write_last_chunk};
use evenkeel_http::forward::{Upgrade, Via, write_request};
use evenkeel_http::websocket::Key;
use evenkeel_http::{FieldList, Framing, Parsed, RequestHead};
use model::config::ListenerLimits;

use crate::hyper_view::{Seen, messages};

/// Follows the message, so that a parser that ends it elsewhere shows.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n";

/// Pseudo-header fields stand in for those that the list lacks, so that most lists are requests.
const USUAL: [(&[u8], &[u8]); 4] = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"shop.example"),
    (b":path", b"/a"),
];

/// Translates, writes, and compares what two parsers see with what was meant. Returns whether there was a request
/// to compare.
pub(crate) fn compare(end_stream: bool, list: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> bool {
    let has = |name: &[u8]| list.iter().any(|(n, _)| n == name);
    // A wish to switch is an extended CONNECT, and its `:protocol` stands among the pseudo-header fields.
    let extended = has(b":protocol");
    let usual = USUAL.iter().filter(|(name, _)| !has(name));
    let usual = usual.map(|(name, value)| match *name {
        b":method" if extended => (*name, &b"CONNECT"[..]),
        _ => (*name, *value),
    });
    let given = list.iter().map(|(n, v)| (n.as_slice(), v.as_slice()));
    let limits = ListenerLimits::default();
    let (mut head, mut buf) = (RequestHead::new(), Vec::new());
    if head
        .from_http2(usual.chain(given), end_stream, extended, &limits, &mut buf)
        .is_err()
    {
        return false;
    }
    // The protocol library holds a body to its length.
    let body = match head.framing {
        Framing::None => &[],
        Framing::Length(length) if length > body.len() as u64 => return false,
        Framing::Length(length) => &body[..usize::try_from(length).unwrap()],
        _ => body,
    };
    let written = write(&head, &buf, body);
    let expected = Seen {
        method: String::from_utf8_lossy(head.method_bytes(&buf)).into_owned(),
        target: String::from_utf8_lossy(head.target(&buf)).into_owned(),
        body: Some(body.to_vec()),
    };
    let sentinel = Seen {
        method: "GET".into(),
        target: "/sentinel".into(),
        body: Some(Vec::new()),
    };
    // Hyper stops at a switch; ours tells where the request ends.
    if !head.extended_connect {
        assert_eq!(
            messages(&written),
            [expected, sentinel],
            "hyper, of {}",
            written.escape_ascii()
        );
    }
    let wide = ListenerLimits {
        header_bytes: 1 << 20,
        header_fields: 200,
        target_bytes: 1 << 16,
        body_bytes: None,
    };
    let mut again = RequestHead::new();
    assert_eq!(again.parse(&written, &wide), Ok(Parsed::Complete));
    assert_eq!(again.method_bytes(&written), head.method_bytes(&buf));
    assert_eq!(again.target(&written), head.target(&buf));
    assert_eq!(again.host(&written), head.host(&buf));
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.upgrade(&written), head.upgrade(&buf));
    if head.extended_connect {
        assert_eq!(again.head_len + SENTINEL.len(), written.len());
    }
    true
}

fn write(head: &RequestHead, buf: &[u8], body: &[u8]) -> Vec<u8> {
    let via = Via {
        client: [192, 0, 2, 7].into(),
        client_text: b"192.0.2.7",
        trusted: true,
        scheme: b"https",
        backend: b"127.0.0.1:9001",
        upgrade: head.upgrade(buf).map(|protocol| Upgrade {
            protocol,
            key: Some(Key::new([7; 16])),
        }),
        trace: None,
    };
    let mut written = Vec::new();
    write_request(&mut written, buf, head, &via, &FieldList::new());
    if head.framing == Framing::Chunked {
        for piece in body.chunks(7) {
            write_chunk_head(&mut written, piece.len());
            written.extend_from_slice(piece);
            written.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut written, None);
    } else {
        written.extend_from_slice(body);
    }
    written.extend_from_slice(SENTINEL);
    written
}
