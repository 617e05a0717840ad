//! RFC 9112 section 7: the chunked coding.

use super::*;
use evenkeel_http::chunked::{
    ChunkDecoder, ChunkError, ChunkEvent, MAX_CHUNK_EXTENSION, MAX_EXTENSIONS, MAX_TRAILER_BYTES,
    MAX_TRAILER_FIELDS, write_chunk_head, write_last_chunk,
};
use proptest::prelude::*;

/// What a body decodes to.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    body: Vec<u8>,
    /// The last chunk as it would be forwarded, with trailer fields.
    ending: String,
    /// Bytes used.
    used: usize,
}

/// Decodes in pieces of this size; `None` while incomplete.
fn decode_in(bytes: &[u8], piece: usize) -> Result<Option<Decoded>, ChunkError> {
    let mut decoder = ChunkDecoder::new();
    let mut body = Vec::new();
    let mut used = 0;
    while used < bytes.len() {
        let input = &bytes[used..bytes.len().min(used + piece)];
        let (taken, event) = decoder.next(input)?;
        match event {
            ChunkEvent::NeedMore => assert_eq!(taken, input.len()),
            ChunkEvent::Data(range) => {
                assert_eq!(range.end, taken);
                assert!(!range.is_empty());
                body.extend_from_slice(&input[range]);
            }
            ChunkEvent::End => {
                let mut ending = Vec::new();
                write_last_chunk(&mut ending, Some(decoder.trailers()));
                let used = used + taken;
                assert_eq!(decoder.next(b"more"), Ok((0, ChunkEvent::End)));
                return Ok(Some(Decoded {
                    body,
                    ending: String::from_utf8(ending).unwrap(),
                    used,
                }));
            }
        }
        used += taken;
    }
    Ok(None)
}

fn decode(bytes: impl AsRef<[u8]>) -> Result<Option<Decoded>, ChunkError> {
    let bytes = bytes.as_ref();
    let whole = decode_in(bytes, usize::MAX / 2);
    assert_eq!(whole, decode_in(bytes, 1), "{:?}", String::from_utf8_lossy(bytes));
    whole
}

fn body_of(bytes: &str) -> String {
    let decoded = decode(bytes).unwrap_or_else(|error| panic!("{error:?}: {bytes:?}"));
    String::from_utf8(decoded.unwrap_or_else(|| panic!("incomplete: {bytes:?}")).body).unwrap()
}

#[test]
fn chunks_become_a_body_and_what_follows_is_left() {
    let decoded = decode("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET /")
        .unwrap()
        .unwrap();
    assert_eq!(decoded.body, b"Wikipedia");
    assert_eq!(decoded.used, "4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n".len());
    assert_eq!(decoded.ending, "0\r\n\r\n");
}

#[test]
fn a_size_is_one_to_sixteen_hexadecimal_digits() {
    assert_eq!(body_of("a\r\n0123456789\r\n0\r\n\r\n"), "0123456789");
    assert_eq!(body_of("A\r\n0123456789\r\n0\r\n\r\n"), "0123456789");
    assert_eq!(body_of("0000000000000001\r\nx\r\n0000000000000000\r\n\r\n"), "x");
    for bad in [
        "0x1\r\nx\r\n",
        "+1\r\nx\r\n",
        "-1\r\n",
        "1_0\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\t\r\nx\r\n",
        "\r\n",
        "g\r\n",
        "1g\r\n",
        "1.0\r\n",
        "00000000000000001\r\nx\r\n",
        "1 ;a\r\nx\r\n",
        ";a\r\n",
        "\u{661}\r\n",
    ] {
        assert_eq!(decode(bad), Err(ChunkError::Chunk), "{bad:?}");
    }
}

#[test]
fn a_size_that_overflows_is_refused() {
    for bad in [
        "8000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "FFFFFFFFFFFFFFFF\r\n",
        "10000000000000000\r\n",
    ] {
        assert_eq!(decode(bad), Err(ChunkError::Chunk), "{bad:?}");
    }
    assert_eq!(decode("7fffffffffffffff\r\nx"), Ok(None));
}

#[test]
fn data_must_end_in_crlf() {
    for bad in [
        "1\r\nxy\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nx\r0\r\n\r\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1\r\nx\r\r\n",
    ] {
        assert_eq!(decode(bad), Err(ChunkError::Chunk), "{bad:?}");
    }
}

#[test]
fn a_size_line_must_end_in_crlf() {
    for bad in [
        "1\nx\r\n",
        "1\rx\r\n",
        "1\r\rx\r\n",
        "0\n\r\n",
        "1;a\nx\r\n",
        "1;a\rx\r\n",
        "1;a=\"\n\"\r\nx\r\n",
        "1;a=\"\r\n\"\r\nx\r\n",
        "1;a\r\r\n",
    ] {
        assert_eq!(decode(bad), Err(ChunkError::Chunk), "{bad:?}");
    }
}

#[test]
fn extensions_are_checked_and_dropped() {
    for good in [
        ";a",
        ";a=b",
        ";a=\"b c\"",
        ";a=\"\\\"\\\\\"",
        ";a;b=c;d",
        "; a = b",
        ";\ta;b",
        ";a=\"\"",
        ";a=\"b\" ;c",
        ";a=\"\u{e4}\"",
        ";a=\";0\"",
    ] {
        assert_eq!(
            body_of(&format!("1{good}\r\nx\r\n0{good}\r\n\r\n")),
            "x",
            "{good:?}"
        );
    }
    for bad in [
        ";",
        ";;a",
        ";=b",
        ";a=",
        ";a=b=c",
        ";a b",
        ";a=b c",
        ";a=\"b",
        ";a=\"b\"c",
        ";a=\"\0\"",
        ";\0",
        ";a ",
        ";a=b ",
        ";a=\"b\\\0\"",
        ";(",
        ";a;",
    ] {
        assert_eq!(
            decode(format!("1{bad}\r\nx\r\n0\r\n\r\n")),
            Err(ChunkError::Chunk),
            "{bad:?}"
        );
    }
}

#[test]
fn extensions_are_limited_per_chunk_and_per_message() {
    let most = MAX_CHUNK_EXTENSION as usize;
    let chunk = |length: usize| format!("1;{}\r\nx\r\n", "a".repeat(length - 1));
    assert!(decode(chunk(most)).is_ok());
    assert_eq!(decode(chunk(most + 1)), Err(ChunkError::Chunk));
    let allowed = (MAX_EXTENSIONS / MAX_CHUNK_EXTENSION) as usize;
    assert!(decode(chunk(most).repeat(allowed)).is_ok());
    assert_eq!(
        decode(chunk(most).repeat(allowed) + &chunk(2)),
        Err(ChunkError::Chunk)
    );
}

#[test]
fn trailer_fields_are_parsed_and_kept_in_plain_form() {
    let decoded = decode("1\r\nx\r\n0\r\nX-Sum:  abc \r\nGrpc-Status: 0\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(decoded.ending, "0\r\nX-Sum: abc\r\nGrpc-Status: 0\r\n\r\n");
}

#[test]
fn trailer_fields_that_change_what_was_decided_are_dropped() {
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded",
        "Proxy",
        "If-Match",
        "Content-Type",
        "Content-Encoding",
        "Cache-Control",
        "Expect",
        "under_score",
        "content-LENGTH",
    ] {
        let decoded = decode(format!("0\r\n{name}: 5\r\nX: y\r\n\r\n"))
            .unwrap()
            .unwrap();
        assert_eq!(decoded.ending, "0\r\nX: y\r\n\r\n", "{name}");
    }
}

#[test]
fn malformed_trailers_are_refused() {
    for bad in [
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\nX: a\rb\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
    ] {
        assert_eq!(decode(bad), Err(ChunkError::Trailer), "{bad:?}");
    }
}

#[test]
fn trailers_are_limited_in_number_and_size() {
    let fields = |count: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert!(decode(fields(MAX_TRAILER_FIELDS)).unwrap().is_some());
    assert_eq!(decode(fields(MAX_TRAILER_FIELDS + 1)), Err(ChunkError::Trailer));
    let sized = |bytes: usize| format!("0\r\nX: {}\r\n\r\n", "y".repeat(bytes - 5));
    assert!(decode(sized(MAX_TRAILER_BYTES)).unwrap().is_some());
    assert_eq!(decode(sized(MAX_TRAILER_BYTES + 1)), Err(ChunkError::Trailer));
    assert_eq!(
        decode(format!("0\r\n{}", "y".repeat(MAX_TRAILER_BYTES + 3))),
        Err(ChunkError::Trailer)
    );
}

#[test]
fn a_reset_decoder_begins_anew_and_forgets_trailers() {
    let mut decoder = ChunkDecoder::new();
    let bytes = b"0;a\r\nX: y\r\n\r\n";
    assert_eq!(decoder.next(bytes), Ok((bytes.len(), ChunkEvent::End)));
    assert!(!decoder.trailers().is_empty());
    decoder.reset();
    assert!(decoder.trailers().is_empty());
    assert_eq!(decoder.next(b"1\r\nz"), Ok((4, ChunkEvent::Data(3..4))));
}

#[test]
fn errors_name_their_reason() {
    assert_eq!(ChunkError::Chunk.reason(), Reason::BadChunk);
    assert_eq!(ChunkError::Trailer.reason(), Reason::BadTrailer);
}

#[test]
fn an_empty_piece_is_never_written_as_the_last_chunk() {
    let mut out = Vec::new();
    write_chunk_head(&mut out, 0);
    assert_eq!(out, b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    /// Whatever is written in chunks is read back, in pieces of any size.
    #[test]
    fn what_is_written_is_read(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8), piece in 1usize..64) {
        let mut coded = Vec::new();
        for bytes in &pieces {
            write_chunk_head(&mut coded, bytes.len());
            coded.extend_from_slice(bytes);
            coded.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut coded, None);
        let decoded = decode_in(&coded, piece).unwrap().unwrap();
        prop_assert_eq!(decoded.body, pieces.concat());
        prop_assert_eq!(decoded.used, coded.len());
    }

    /// Any bytes, cut anywhere, come to the same as in one piece.
    #[test]
    fn cutting_changes_nothing(text in "[0-2aA;=\" \r\nx:\\\\]{0,40}", piece in 1usize..8) {
        prop_assert_eq!(decode_in(text.as_bytes(), piece), decode_in(text.as_bytes(), usize::MAX / 2));
    }
}
