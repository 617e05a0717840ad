//! What is accepted and written anew is, to another parser, exactly one message with the same body. Shared with
//! the fuzz target `differential_hyper`.

use evenkeel_http::chunked::{ChunkDecoder, ChunkEvent, write_chunk_head, write_last_chunk};
use evenkeel_http::forward::{Via, write_request};
use evenkeel_http::{FieldList, Framing, Parsed, RequestHead, Version};
use model::config::ListenerLimits;

use crate::hyper_view::{Seen, messages};

/// Follows the message, so that a parser that ends it elsewhere shows.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n";

/// Compares our reading of `bytes` with hyper's reading of the same message, both as it came and as it is
/// forwarded. Returns whether there was a complete message to compare.
pub(crate) fn compare(bytes: &[u8]) -> bool {
    let mut head = RequestHead::new();
    if head.parse(bytes, &ListenerLimits::default()) != Ok(Parsed::Complete) {
        return false;
    }
    let Some((body, length)) = body(&head, &bytes[head.head_len..]) else {
        return false;
    };
    let expected = Seen {
        method: String::from_utf8_lossy(head.method_bytes(bytes)).into_owned(),
        target: String::from_utf8_lossy(head.target(bytes)).into_owned(),
        body: Some(body.clone()),
    };
    let sentinel = Seen {
        method: "GET".into(),
        target: "/sentinel".into(),
        body: Some(Vec::new()),
    };

    let mut written = Vec::new();
    let via = Via {
        client: [192, 0, 2, 7].into(),
        client_text: b"192.0.2.7",
        trusted: true,
        scheme: b"http",
        backend: b"127.0.0.1:9001",
        upgrade: None,
        trace: None,
    };
    write_request(&mut written, bytes, &head, &via, &FieldList::new());
    match head.framing {
        Framing::Chunked => {
            for piece in body.chunks(7) {
                write_chunk_head(&mut written, piece.len());
                written.extend_from_slice(piece);
                written.extend_from_slice(b"\r\n");
            }
            write_last_chunk(&mut written, None);
        }
        _ => written.extend_from_slice(&body),
    }
    written.extend_from_slice(SENTINEL);
    assert_eq!(
        messages(&written),
        [expected.clone(), sentinel.clone()],
        "as forwarded: {}",
        String::from_utf8_lossy(&written)
    );

    // As it came, hyper may refuse more, but must not see other bodies or more messages.
    let mut raw = bytes[..head.head_len + length].to_vec();
    raw.extend_from_slice(SENTINEL);
    let seen = messages(&raw);
    if let Some(first) = seen.first() {
        assert_eq!(
            (&first.method, &first.body),
            (&expected.method, &expected.body),
            "as it came: {}",
            String::from_utf8_lossy(&raw)
        );
        let kept = head.keep_alive && head.version == Version::Http11;
        assert!(
            seen.len() <= 2 && seen.get(1).is_none_or(|second| *second == sentinel),
            "as it came: {seen:?}"
        );
        assert!(
            !kept || seen.len() == 2,
            "hyper saw no second message: {}",
            String::from_utf8_lossy(&raw)
        );
    }
    true
}

/// The body at the start of `rest` and how many bytes it takes there; `None` when it is incomplete or malformed.
fn body(head: &RequestHead, rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    match head.framing {
        Framing::None | Framing::UntilClose => Some((Vec::new(), 0)),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            Some((rest.get(..length)?.to_vec(), length))
        }
        Framing::Chunked => {
            let mut decoder = ChunkDecoder::new();
            let mut body = Vec::new();
            let mut at = 0;
            loop {
                let input = &rest[at..];
                let (used, event) = decoder.next(input).ok()?;
                at += used;
                match event {
                    ChunkEvent::Data(range) => body.extend_from_slice(&input[range]),
                    ChunkEvent::End => return Some((body, at)),
                    ChunkEvent::NeedMore => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incremental::{SAMPLES, damaged};
    use proptest::prelude::*;

    #[test]
    fn hyper_reads_the_samples_alike() {
        for sample in SAMPLES {
            assert!(compare(sample.as_bytes()), "{sample:?}");
        }
    }

    #[test]
    fn hyper_reads_bodies_alike() {
        for bytes in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nGET /x HTTP/1.1\r\n\r\n.",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /next HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb;x=\"y\"\r\nhello world\r\n0\r\nA: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        ] {
            assert!(compare(bytes.as_bytes()), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn hyper_reads_alike_whatever_is_accepted(bytes in damaged()) {
            compare(&bytes);
        }
    }
}
