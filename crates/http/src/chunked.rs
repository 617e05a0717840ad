//! The chunked coding (RFC 9112 section 7.1), read strictly and written plainly.
//!
//! Chunk extensions are checked and dropped: nobody needs them across a proxy, and parsers that disagree on
//! where they end have smuggled requests. Trailer fields are kept only when they cannot change what the head
//! already decided.

use std::ops::Range;

use model::reason::Reason;

use crate::fields::{LONGEST_COMPARED, plain, request_kind, starts_with};
use crate::message::FieldKind;
use crate::syntax::{TOKEN, VALUE, class, hex, is_token, is_value, trim};

/// Greatest length of the extensions of one chunk in bytes.
pub const MAX_CHUNK_EXTENSION: u32 = 1024;
/// Greatest length of all chunk extensions of a message in bytes.
pub const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Greatest size of the trailer section in bytes.
pub const MAX_TRAILER_BYTES: usize = 32 * 1024;
/// Greatest number of trailer fields.
pub const MAX_TRAILER_FIELDS: usize = 100;

/// What the decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// All input was used; more is needed.
    NeedMore,
    /// Body bytes, as a range of the input.
    Data(Range<usize>),
    /// The body is complete.
    End,
}

/// Why a chunked body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// Size, extension or line ending of a chunk.
    Chunk,
    /// A trailer field, or too many of them.
    Trailer,
}

impl ChunkError {
    /// The reason on the client's side; from a backend it is [`Reason::BadResponse`].
    pub fn reason(self) -> Reason {
        match self {
            Self::Chunk => Reason::BadChunk,
            Self::Trailer => Reason::BadTrailer,
        }
    }
}

/// The trailer fields that may be forwarded, already in the form in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    lines: Vec<u8>,
}

impl Trailers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a field, unless no trailer may have its name. For trailers that come otherwise than in chunks.
    ///
    /// # Errors
    /// [`ChunkError::Trailer`], when it is malformed, or there is more than a trailer section may hold.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), ChunkError> {
        let size = self.lines.len() + name.len() + value.len() + 4;
        if !is_token(name) || !is_value(value) || trim(value) != value || size > MAX_TRAILER_BYTES {
            return Err(ChunkError::Trailer);
        }
        if is_allowed_trailer(name) {
            for part in [name, b": ", value, b"\r\n"] {
                self.lines.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.split(|&b| b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            Some((line.get(..colon)?, trim(line.get(colon + 1..)?)))
        })
    }
}

/// Decodes one chunked body that arrives in pieces. Reuse it with [`ChunkDecoder::reset`].
#[derive(Clone, Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Size of the chunk, then what is left of it.
    left: u64,
    chunk_extension: u32,
    extensions: u32,
    line: Vec<u8>,
    trailer_bytes: usize,
    trailer_fields: usize,
    trailers: Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size, with this many digits seen.
    Size(u8),
    Extension(Extension),
    /// After the CR of the size line.
    SizeLineFeed,
    Data,
    /// Before the CR that ends the data.
    DataReturn,
    DataLineFeed,
    Trailer,
    End,
}

/// Within `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// After `;`.
    BeforeName,
    Name,
    AfterName,
    /// After `=`.
    BeforeValue,
    Value,
    Quoted,
    QuotedPair,
    /// Directly after the closing quote.
    QuoteEnd,
    AfterValue,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    /// A decoder at the start of a body. Allocates only when trailer fields arrive.
    pub fn new() -> Self {
        Self {
            state: State::Size(0),
            left: 0,
            chunk_extension: 0,
            extensions: 0,
            line: Vec::new(),
            trailer_bytes: 0,
            trailer_fields: 0,
            trailers: Trailers::default(),
        }
    }

    /// Begins a new body, keeping the capacity of its buffers.
    pub fn reset(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let mut trailers = std::mem::take(&mut self.trailers);
        line.clear();
        trailers.lines.clear();
        *self = Self {
            line,
            trailers,
            ..Self::new()
        };
    }

    /// Takes input up to the next event; returns how many bytes were used and the event. Body bytes are the last
    /// ones used. After [`ChunkEvent::End`] no byte is used any more.
    ///
    /// # Errors
    /// [`ChunkError`]; where the body ends is then unknown, and the connection cannot be used further.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, ChunkEvent), ChunkError> {
        let mut at = 0;
        loop {
            if self.state == State::End {
                return Ok((at, ChunkEvent::End));
            }
            if self.state == State::Data && at < input.len() {
                let end = usize::try_from(self.left)
                    .map_or(input.len(), |left| input.len().min(at.saturating_add(left)));
                self.left -= (end - at) as u64;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                return Ok((end, ChunkEvent::Data(at..end)));
            }
            let Some(&b) = input.get(at) else {
                return Ok((at, ChunkEvent::NeedMore));
            };
            self.state = self.step(b)?;
            at += 1;
        }
    }

    /// The trailer fields; complete after [`ChunkEvent::End`].
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    fn step(&mut self, b: u8) -> Result<State, ChunkError> {
        match (self.state, b) {
            (State::Size(digits), _) => self.size(digits, b),
            (State::Extension(place), _) => self.extension(place, b),
            (State::SizeLineFeed, b'\n') => Ok(if self.left == 0 {
                State::Trailer
            } else {
                State::Data
            }),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size(0)),
            (State::Trailer, _) => self.trailer(b),
            _ => Err(ChunkError::Chunk),
        }
    }

    fn size(&mut self, digits: u8, b: u8) -> Result<State, ChunkError> {
        match hex(b) {
            Some(digit) if digits < 16 => {
                if digits == 0 {
                    self.left = 0;
                    self.chunk_extension = 0;
                }
                // 16 digits fit; what no signed 64-bit length can hold is refused.
                self.left = self.left << 4 | u64::from(digit);
                if self.left > i64::MAX as u64 {
                    return Err(ChunkError::Chunk);
                }
                Ok(State::Size(digits + 1))
            }
            None if digits > 0 && b == b'\r' => Ok(State::SizeLineFeed),
            None if digits > 0 && b == b';' => self.extension(Extension::AfterValue, b),
            _ => Err(ChunkError::Chunk),
        }
    }

    fn extension(&mut self, place: Extension, b: u8) -> Result<State, ChunkError> {
        use Extension as E;
        let token = class(b) & TOKEN != 0;
        let blank = b == b' ' || b == b'\t';
        let next = match place {
            // White space is bad here but must be understood (RFC 9112 section 7.1.1).
            E::BeforeName | E::AfterName | E::BeforeValue | E::AfterValue if blank => place,
            E::BeforeName | E::Name if token => E::Name,
            E::Name if blank => E::AfterName,
            E::Name | E::AfterName if b == b'=' => E::BeforeValue,
            E::BeforeValue if b == b'"' => E::Quoted,
            E::BeforeValue | E::Value if token => E::Value,
            E::Value | E::QuoteEnd if blank => E::AfterValue,
            E::Quoted if b == b'\\' => E::QuotedPair,
            E::Quoted if b == b'"' => E::QuoteEnd,
            E::Quoted | E::QuotedPair if class(b) & VALUE != 0 => E::Quoted,
            E::Name | E::AfterName | E::Value | E::QuoteEnd | E::AfterValue if b == b';' => E::BeforeName,
            E::Name | E::Value | E::QuoteEnd if b == b'\r' => return Ok(State::SizeLineFeed),
            _ => return Err(ChunkError::Chunk),
        };
        self.chunk_extension += 1;
        self.extensions += 1;
        if self.chunk_extension > MAX_CHUNK_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(ChunkError::Chunk);
        }
        Ok(State::Extension(next))
    }

    fn trailer(&mut self, b: u8) -> Result<State, ChunkError> {
        self.trailer_bytes += 1;
        // The final CRLF is not a field.
        if self.trailer_bytes > MAX_TRAILER_BYTES + 2 {
            return Err(ChunkError::Trailer);
        }
        if b != b'\n' {
            self.line.push(b);
            return Ok(State::Trailer);
        }
        let line = self.line.strip_suffix(b"\r").ok_or(ChunkError::Trailer)?;
        if line.is_empty() {
            return Ok(State::End);
        }
        self.trailer_fields += 1;
        if self.trailer_fields > MAX_TRAILER_FIELDS {
            return Err(ChunkError::Trailer);
        }
        let colon = line.iter().position(|&b| b == b':').ok_or(ChunkError::Trailer)?;
        let (name, value) = line.split_at(colon);
        let value = trim(value.get(1..).unwrap_or_default());
        if !is_token(name) || !is_value(value) {
            return Err(ChunkError::Trailer);
        }
        if is_allowed_trailer(name) {
            for part in [name, b": ", value, b"\r\n"] {
                self.trailers.lines.extend_from_slice(part);
            }
        }
        self.line.clear();
        Ok(State::Trailer)
    }
}

/// Names that a trailer may not have (RFC 9110 section 6.5.1): framing, routing, who the client is, control
/// data, authentication, cookies, how the content is to be read, and what ends at each hop.
const NOT_IN_TRAILERS: &[&str] = &[
    "age",
    "authorization",
    "authentication-info",
    "cache-control",
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-real-ip",
];

fn is_allowed_trailer(name: &[u8]) -> bool {
    let mut space = [0; LONGEST_COMPARED];
    let plain = plain(name, &mut space);
    // What means something to a proxy in a header, under whatever name, means nothing in a trailer.
    request_kind(name) == FieldKind::Other
        && !starts_with(plain, b"if-")
        && !NOT_IN_TRAILERS
            .iter()
            .any(|known| plain.eq_ignore_ascii_case(known.as_bytes()))
}

/// Begins a chunk of `len` bytes; the caller appends the bytes and CRLF. A length of 0 writes nothing, since it
/// would end the body.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|i| DIGITS[len >> (4 * i) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body, with trailer fields where they are given.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&Trailers>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        out.extend_from_slice(&trailers.lines);
    }
    out.extend_from_slice(b"\r\n");
}
