//! Response heads (RFC 9112 sections 4, 5 and 6), strictly.
//!
//! A backend is believed less than RFC 9112 permits: whatever makes the length of a response doubtful fails the
//! request, because a wrong guess would hand one client's bytes to the next one on a reused connection.

use model::reason::Reason;

use crate::fields;
use crate::message::{Field, FieldKind, Framing, Method, Parsed, Span, Version};
use crate::scan::Lines;
use crate::syntax::{decimal, is_value, list, trim};

/// Greatest response head in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Greatest number of response fields.
const MAX_FIELDS: usize = 256;

/// A parsed response head. Reuse it: parsing again keeps the capacity of its vector.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Version.
    pub version: Version,
    /// How the body ends; [`Framing::None`] for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// Whether the connection can be used again after the body.
    pub keep_alive: bool,
    /// How long the backend keeps the idle connection, in seconds (`Keep-Alive: timeout=`).
    pub keep_alive_timeout: Option<u32>,
    /// `Content-Length` as sent; for HEAD and 304 it tells of a body that does not follow. `None` for 1xx and
    /// 204, which must not have it (RFC 9110 section 8.6).
    pub content_length: Option<u64>,
    /// Bytes of the head with its final CRLF: the body begins here.
    pub head_len: usize,
    /// Fields in the order sent.
    pub fields: Vec<Field>,
    phrase: Span,
    /// How far an incomplete head was seen; `None` before its first byte.
    progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    lines: Lines,
    /// Offset of the first field line; 0 while the status line is not complete.
    block: usize,
    count: usize,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseHead {
    /// An empty head to parse into.
    pub fn new() -> Self {
        Self {
            status: 0,
            version: Version::Http11,
            framing: Framing::None,
            keep_alive: false,
            keep_alive_timeout: None,
            content_length: None,
            head_len: 0,
            fields: Vec::new(),
            phrase: Span::default(),
            progress: None,
        }
    }

    /// Forgets everything, an incomplete head too; keeps the capacity of the vector.
    pub fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::new()
        };
    }

    /// Parses the head at the start of `buf`, which answers a request with this method.
    ///
    /// After [`Parsed::Incomplete`], call again with the same bytes and more behind them; what was seen is not
    /// looked at again. After any other answer, or [`ResponseHead::reset`], the next call begins a new head.
    /// Interim responses (1xx) are heads like any other, with [`Framing::None`]; 101 is one that the caller
    /// did not ask for.
    ///
    /// # Errors
    /// [`Reason::BadResponse`] or [`Reason::ResponseHeaderTooLarge`]; the connection cannot be used again.
    pub fn parse(&mut self, buf: &[u8], request: Method) -> Result<Parsed, Reason> {
        let mut progress = match self.progress.take() {
            Some(progress) => progress,
            None => {
                self.reset();
                Progress::default()
            }
        };
        let window = buf.get(..buf.len().min(MAX_HEAD_BYTES)).unwrap_or_default();
        let parsed = self
            .advance(window, request, &mut progress)
            .map_err(|reason| match reason {
                Reason::ResponseHeaderTooLarge => reason,
                _ => Reason::BadResponse,
            })?;
        if parsed == Parsed::Incomplete {
            if window.len() == MAX_HEAD_BYTES {
                return Err(Reason::ResponseHeaderTooLarge);
            }
            self.progress = Some(progress);
        }
        Ok(parsed)
    }

    fn advance(&mut self, buf: &[u8], request: Method, progress: &mut Progress) -> Result<Parsed, Reason> {
        let Progress { lines, block, count } = progress;
        if *block == 0 {
            check_start(buf)?;
            let Some((start, end)) = lines.next(buf)? else {
                return Ok(Parsed::Incomplete);
            };
            self.status_line(buf, start, end)?;
            *block = lines.position();
        }
        loop {
            let Some((start, end)) = lines.next(buf)? else {
                return Ok(Parsed::Incomplete);
            };
            if start == end {
                break;
            }
            if matches!(buf.get(start), Some(b' ' | b'\t')) {
                return Err(Reason::BadResponse);
            }
            *count += 1;
            if *count > MAX_FIELDS {
                return Err(Reason::ResponseHeaderTooLarge);
            }
        }
        self.head_len = lines.position();
        let bytes = buf.get(*block..self.head_len).unwrap_or_default();
        fields::tokenise(bytes, *block, *count, fields::response_kind, &mut self.fields)?;
        self.interpret(buf, request)?;
        Ok(Parsed::Complete)
    }

    /// `HTTP/1.x SP status SP [reason]`; the second space may be missing, as many servers leave it out.
    fn status_line(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), Reason> {
        let line = buf.get(start..end).unwrap_or_default();
        let (version, rest) = line.split_at_checked(9).ok_or(Reason::BadResponse)?;
        self.version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            _ => return Err(Reason::BadResponse),
        };
        let (status, phrase) = rest.split_at_checked(3).ok_or(Reason::BadResponse)?;
        let status = decimal(status).and_then(|s| u16::try_from(s).ok());
        self.status = status
            .filter(|s| (100..=599).contains(s))
            .ok_or(Reason::BadResponse)?;
        let spaced = matches!(phrase.first(), None | Some(b' '));
        if !spaced || !is_value(phrase) {
            return Err(Reason::BadResponse);
        }
        self.phrase = Span::new((start + 13).min(end), end);
        Ok(())
    }

    fn interpret(&mut self, buf: &[u8], request: Method) -> Result<(), Reason> {
        let options = fields::connection_options(buf, &mut self.fields)?;
        let mut length = None;
        let mut chunked = false;
        for field in &self.fields {
            let value = field.value.of(buf);
            match field.kind {
                FieldKind::ContentLength => {
                    let number = decimal(value).ok_or(Reason::BadResponse)?;
                    if length.replace(number).is_some() {
                        return Err(Reason::BadResponse);
                    }
                }
                FieldKind::TransferEncoding => {
                    if chunked {
                        return Err(Reason::BadResponse);
                    }
                    fields::require_chunked(value)?;
                    chunked = true;
                }
                FieldKind::KeepAlive => {
                    self.keep_alive_timeout = self.keep_alive_timeout.or_else(|| idle_timeout(value));
                }
                _ => {}
            }
        }
        let bodiless_status = self.status < 200 || self.status == 204;
        // A coding on HTTP/1.0, on a status that has no body, or beside a length (RFC 9112 section 6.1).
        if chunked && (length.is_some() || self.version == Version::Http10 || bodiless_status) {
            return Err(Reason::BadResponse);
        }
        self.framing = if bodiless_status || self.status == 304 || request == Method::Head {
            Framing::None
        } else if chunked {
            Framing::Chunked
        } else {
            length.map_or(Framing::UntilClose, Framing::Length)
        };
        self.content_length = length.filter(|_| !bodiless_status);
        let persistent = match self.version {
            Version::Http11 | Version::Http2 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        };
        // A status without a body that announces one may be followed by it all the same.
        let doubtful = bodiless_status && length.is_some_and(|length| length > 0);
        self.keep_alive = persistent && !doubtful && self.framing != Framing::UntilClose;
        Ok(())
    }

    /// The reason phrase as sent, perhaps empty.
    pub fn phrase<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.phrase.of(buf)
    }

    /// Whether this 101 switches to `protocol`: its `Upgrade` names it and nothing else (RFC 9110 section 7.8).
    pub fn switches_to(&self, buf: &[u8], protocol: &[u8]) -> bool {
        let mut named = self.fields.iter().filter(|f| f.kind == FieldKind::Upgrade);
        let first = named.next().map(|f| f.value.of(buf));
        self.status == 101
            && first.is_some_and(|v| v.eq_ignore_ascii_case(protocol))
            && named.next().is_none()
    }

    /// Takes away all fields of this name that would be forwarded as they stand.
    pub fn drop_fields(&mut self, buf: &[u8], name: &str) {
        fields::drop_named(buf, &mut self.fields, name.as_bytes());
    }

    /// The value that the response sets the cookie of this name to (RFC 6265 section 5.2); of several the last,
    /// which is the one that a browser keeps.
    pub fn set_cookie<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let fields = self.fields.iter().rev();
        let set = fields.filter(|field| field.name.of(buf).eq_ignore_ascii_case(b"set-cookie"));
        set.filter_map(|field| {
            let pair = field.value.of(buf).split(|&b| b == b';').next()?;
            let at = pair.iter().position(|&b| b == b'=')?;
            let (key, value) = pair.split_at_checked(at)?;
            (trim(key) == name.as_bytes()).then(|| trim(value.get(1..).unwrap_or_default()))
        })
        .next()
    }

    /// First value of the field of this name (any case) that is not dropped.
    pub fn field<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        fields::find(buf, &self.fields, name)
    }

    /// All values of the field of this name (any case) that would be forwarded, in the order sent.
    pub fn values<'a>(&'a self, buf: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        let forwarded = self.fields.iter().filter(|field| field.kind == FieldKind::Other);
        let named = forwarded.filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()));
        named.map(|field| field.value.of(buf))
    }
}

/// Refuses what cannot become a status line, so that garbage does not wait for a timeout.
fn check_start(window: &[u8]) -> Result<(), Reason> {
    const START: &[u8] = b"HTTP/1.";
    let seen = window.len().min(START.len());
    if window.get(..seen) == START.get(..seen) {
        Ok(())
    } else {
        Err(Reason::BadResponse)
    }
}

/// `timeout=` of a `Keep-Alive` value, in seconds.
fn idle_timeout(value: &[u8]) -> Option<u32> {
    list(value)
        .find_map(|parameter| {
            fields::starts_with(parameter, b"timeout=").then(|| parameter.get(8..).unwrap_or_default())
        })
        .and_then(decimal)
        .and_then(|seconds| u32::try_from(seconds).ok())
}
