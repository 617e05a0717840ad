//! Encoders for responses on their way to a client.
//!
//! Each works in a bounded window and gives what it has on request, so that streams arrive as they are made. The
//! levels are those at which encoding costs little more than copying: an edge has many cores' worth of clients on
//! few cores.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use model::config::Encoding;

/// Encoders at work in one shard. Beyond it responses go out as they are: each takes up to about 1 MiB.
const MAX_ENCODERS: usize = 256;

/// zstd: level, and the logarithm of the window. Browsers refuse windows over 8 MiB (RFC 9659); small ones do.
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW_LOG: u32 = 18;
/// Brotli: quality, and the logarithm of the window.
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW_LOG: u32 = 18;
const BROTLI_BUFFER: usize = 4096;
/// gzip: level; the window is 32 KiB always.
const GZIP_LEVEL: u32 = 5;

/// Counts the encoders of a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoders(Rc<Cell<usize>>);

impl Encoders {
    /// A new encoder; `None` when there are too many, or no memory for it.
    pub(crate) fn begin(&self, encoding: Encoding) -> Option<Encoder> {
        if self.0.get() >= MAX_ENCODERS {
            return None;
        }
        let coder = Coder::new(encoding).ok()?;
        self.0.set(self.0.get() + 1);
        Some(Encoder {
            coder,
            taken: 0,
            fresh: 0,
            given: 0,
            encoders: self.clone(),
        })
    }
}

/// One response being encoded.
pub(crate) struct Encoder {
    coder: Coder,
    /// Bytes taken in all.
    taken: u64,
    /// Bytes taken since it gave all that it had.
    fresh: usize,
    /// Bytes given in all.
    given: u64,
    encoders: Encoders,
}

/// As much as a read of the relay takes at most brings when more is waiting; less than this, and its source has
/// paused.
const PAUSED_BELOW: usize = 8 * 1024;

enum Coder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Coder {
    fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Encoding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW_LOG,
            ))),
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(coder) => coder,
            Self::Brotli(coder) => coder.as_mut(),
            Self::Zstd(coder) => coder,
        }
    }

    fn given(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(coder) => coder.get_mut(),
            Self::Brotli(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(coder) => coder.try_finish(),
            // Written when it is dropped, and there is no other way to ask for it.
            Self::Brotli(coder) => {
                let empty = brotli::CompressorWriter::new(Vec::new(), 1, 0, 10);
                let last = std::mem::replace(coder.as_mut(), empty).into_inner();
                *coder.get_mut() = last;
                Ok(())
            }
            Self::Zstd(coder) => coder.do_finish(),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Takes a part of the body; appends what comes of it so far to `out`.
    pub(crate) fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.taken += data.len() as u64;
        self.fresh += data.len();
        self.coder.writer().write_all(data)?;
        self.give(out);
        Ok(())
    }

    /// Gives all that was taken, when its source seems to pause.
    pub(crate) fn pause(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let paused = (1..PAUSED_BELOW).contains(&self.fresh);
        self.fresh = 0;
        if paused {
            self.coder.writer().flush()?;
            self.give(out);
        }
        Ok(())
    }

    /// Gives all that is left, and the end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.fresh = 0;
        self.coder.finish()?;
        self.give(out);
        Ok(())
    }

    /// Bytes taken and given so far.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        (self.taken, self.given)
    }

    fn give(&mut self, out: &mut Vec<u8>) {
        let given = self.coder.given();
        self.given += given.len() as u64;
        out.append(given);
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.encoders.0.set(self.encoders.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::io::Read;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    fn decode(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let result = match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
            Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text),
            Encoding::Zstd => zstd::stream::read::Decoder::new(bytes)
                .unwrap()
                .read_to_end(&mut text),
        };
        // A stream that goes on ends early; what came so far counts.
        let _ = result;
        text
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|i| format!("{} ", i % 1000).into_bytes())
            .collect();
        for encoding in ALL {
            let mut encoder = Encoders::default().begin(encoding).unwrap();
            let mut out = Vec::new();
            for piece in text.chunks(16 * 1024) {
                encoder.take(piece, &mut out).unwrap();
                encoder.pause(&mut out).unwrap();
            }
            encoder.finish(&mut out).unwrap();
            assert_eq!(decode(encoding, &out), text, "{encoding:?}");
            assert_eq!(encoder.sizes(), (text.len() as u64, out.len() as u64));
            assert!(out.len() < text.len() / 2, "{encoding:?}: {}", out.len());
        }
    }

    #[test]
    fn a_stream_that_pauses_is_given_whole_so_far() {
        for encoding in ALL {
            let mut encoder = Encoders::default().begin(encoding).unwrap();
            let mut out = Vec::new();
            for piece in ["one ", "two ", "three "] {
                encoder.take(piece.as_bytes(), &mut out).unwrap();
                encoder.pause(&mut out).unwrap();
                assert!(decode(encoding, &out).ends_with(piece.as_bytes()), "{encoding:?}");
            }
            encoder.finish(&mut out).unwrap();
            assert_eq!(decode(encoding, &out), b"one two three ", "{encoding:?}");
        }
    }

    #[test]
    fn encoders_are_counted_and_bounded() {
        let encoders = Encoders::default();
        let mut held: Vec<_> = (0..MAX_ENCODERS)
            .map(|_| encoders.begin(Encoding::Gzip).unwrap())
            .collect();
        assert!(encoders.begin(Encoding::Gzip).is_none());
        held.pop();
        assert!(encoders.begin(Encoding::Gzip).is_some());
    }
}
