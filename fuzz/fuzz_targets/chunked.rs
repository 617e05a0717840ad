//! Any bytes as a chunked body: no panic, the same in pieces of any size, and what is written reads back.
#![no_main]

use evenkeel_http::chunked::{ChunkDecoder, ChunkError, ChunkEvent, write_chunk_head, write_last_chunk};
use libfuzzer_sys::fuzz_target;

/// Body, trailer section in written form, bytes used; `None` when incomplete.
type Decoded = Option<(Vec<u8>, Vec<u8>, usize)>;

fn decode(bytes: &[u8], piece: usize) -> Result<Decoded, ChunkError> {
    let mut decoder = ChunkDecoder::new();
    let mut body = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let input = &bytes[at..bytes.len().min(at + piece)];
        let (used, event) = decoder.next(input)?;
        at += used;
        match event {
            ChunkEvent::NeedMore => assert_eq!(used, input.len()),
            ChunkEvent::Data(range) => body.extend_from_slice(&input[range]),
            ChunkEvent::End => {
                let mut ending = Vec::new();
                write_last_chunk(&mut ending, Some(decoder.trailers()));
                return Ok(Some((body, ending, at)));
            }
        }
    }
    Ok(None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(whole, decode(bytes, usize::from(piece) + 1));
    let Ok(Some((body, ending, _))) = whole else {
        return;
    };
    let mut written = Vec::new();
    for part in body.chunks(usize::from(piece) + 1) {
        write_chunk_head(&mut written, part.len());
        written.extend_from_slice(part);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(&ending);
    let length = written.len();
    assert_eq!(decode(&written, length), Ok(Some((body, ending, length))));
});
