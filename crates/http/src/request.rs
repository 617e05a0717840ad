//! Request heads (RFC 9112 sections 3, 5 and 6), strictly.
//!
//! What a lenient parser could read in two ways is refused; see `docs/http.md` for the whole table. Refused on
//! principle: several values where one is meant, guessing at a length, repairing a line.

mod edit;

use memchr::{memchr, memchr3};
use model::config::ListenerLimits;
use model::reason::Reason;

use crate::fields::{self, ConnectionOptions};
use crate::message::{Field, FieldKind, Framing, Method, Parsed, Span, Version};
use crate::scan::Lines;
use crate::syntax::{TOKEN, class, decimal, list, trim};
use crate::target;

/// A parsed request head. Reuse it: parsing again keeps the capacity of its vectors.
///
/// The spans are meant for the buffer given to [`RequestHead::parse`]; with another one the accessors return
/// other bytes or nothing, and never panic.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Version.
    pub version: Version,
    /// How the body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client wants to keep the connection: by version and `Connection` (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. Clear it once answered: the field
    /// is passed on while this is true.
    pub expect_continue: bool,
    /// Whether the client takes trailer fields (`TE: trailers`).
    pub te_trailers: bool,
    /// Bytes of the head with its final CRLF and a skipped leading one: the body begins here.
    pub head_len: usize,
    /// Fields in the order sent.
    pub fields: Vec<Field>,
    pub(crate) method_token: Span,
    /// Target in the buffer, when it is sent on as it came.
    pub(crate) target: Span,
    /// Target in normal form, when that differs from what came; else empty.
    rewritten: Vec<u8>,
    pub(crate) path_len: usize,
    pub(crate) host: Span,
    pub(crate) host_name_len: u32,
    /// Host for the backend, when it is another than the client's.
    sent_host: Vec<u8>,
    pub(crate) upgrade: Span,
    /// The client asked to switch by an extended CONNECT (RFC 8441).
    pub extended_connect: bool,
    progress: Progress,
}

/// How far an incomplete head was seen.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Nothing was seen yet.
    Fresh,
    /// Within the request line.
    RequestLine {
        start: usize,
        line: PartialLine,
        lines: Lines,
    },
    /// Within the fields, which begin at `block`.
    Fields {
        start: usize,
        block: usize,
        count: usize,
        lines: Lines,
    },
}

/// What is known of a request line whose end has not arrived.
#[derive(Clone, Copy, Debug)]
struct PartialLine {
    checked: usize,
    method_end: Option<usize>,
    target_end: Option<usize>,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestHead {
    /// An empty head to parse into.
    pub fn new() -> Self {
        Self {
            method: Method::Other,
            version: Version::Http11,
            framing: Framing::None,
            keep_alive: false,
            expect_continue: false,
            te_trailers: false,
            head_len: 0,
            fields: Vec::new(),
            method_token: Span::default(),
            target: Span::default(),
            rewritten: Vec::new(),
            path_len: 0,
            host: Span::default(),
            host_name_len: 0,
            sent_host: Vec::new(),
            upgrade: Span::default(),
            extended_connect: false,
            progress: Progress::Fresh,
        }
    }

    /// Forgets everything, an incomplete head too; keeps the capacity of the vectors.
    pub fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        let mut rewritten = std::mem::take(&mut self.rewritten);
        let mut sent_host = std::mem::take(&mut self.sent_host);
        fields.clear();
        rewritten.clear();
        sent_host.clear();
        *self = Self {
            fields,
            rewritten,
            sent_host,
            ..Self::new()
        };
    }

    /// Parses the head at the start of `buf`.
    ///
    /// After [`Parsed::Incomplete`], call again with the same bytes and more behind them; what was seen is not
    /// looked at again. After any other answer, or [`RequestHead::reset`], the next call begins a new head.
    ///
    /// # Errors
    /// The reason to refuse the request, as soon as it is certain. The connection cannot be used further, since
    /// where the next request begins is unknown. Method and version are set as far as they were read, for the
    /// answer's sake.
    pub fn parse(&mut self, buf: &[u8], limits: &ListenerLimits) -> Result<Parsed, Reason> {
        let outcome = self.advance(buf, limits);
        if outcome != Ok(Parsed::Incomplete) {
            self.progress = Progress::Fresh;
        }
        outcome
    }

    fn advance(&mut self, buf: &[u8], limits: &ListenerLimits) -> Result<Parsed, Reason> {
        if let Progress::Fresh = self.progress {
            self.reset();
            let Some(start) = leading_line(buf)? else {
                return Ok(Parsed::Incomplete);
            };
            self.progress = Progress::RequestLine {
                start,
                line: PartialLine {
                    checked: start,
                    method_end: None,
                    target_end: None,
                },
                lines: Lines::starting_at(start),
            };
        }
        if let Progress::RequestLine {
            start,
            mut line,
            mut lines,
        } = self.progress
        {
            let window = window(buf, start, limits);
            line.check(window, start, limits)?;
            let Some((_, end)) = lines.next(window)? else {
                self.progress = Progress::RequestLine { start, line, lines };
                return incomplete(window, start, limits);
            };
            self.request_line(buf, start, line, end)?;
            self.progress = Progress::Fields {
                start,
                block: lines.position(),
                count: 0,
                lines,
            };
        }
        self.advance_fields(buf, limits)
    }

    /// Goes on with the field lines, once the request line is read.
    fn advance_fields(&mut self, buf: &[u8], limits: &ListenerLimits) -> Result<Parsed, Reason> {
        let Progress::Fields {
            start,
            block,
            mut count,
            mut lines,
        } = self.progress
        else {
            return Ok(Parsed::Complete);
        };
        let window = window(buf, start, limits);
        loop {
            let Some((line, end)) = lines.next(window)? else {
                self.progress = Progress::Fields {
                    start,
                    block,
                    count,
                    lines,
                };
                return incomplete(window, start, limits);
            };
            if line == end {
                break;
            }
            if matches!(window.get(line), Some(b' ' | b'\t')) {
                return Err(Reason::ObsoleteFolding);
            }
            count += 1;
            if count > usize::from(limits.header_fields) {
                return Err(Reason::TooManyHeaders);
            }
        }
        self.head_len = lines.position();
        let bytes = buf.get(block..self.head_len).unwrap_or_default();
        fields::tokenise(bytes, block, count, fields::request_kind, &mut self.fields)?;
        self.interpret(buf, limits)?;
        Ok(Parsed::Complete)
    }

    /// Reads the complete request line, whose CRLF begins at `end`.
    fn request_line(
        &mut self,
        buf: &[u8],
        start: usize,
        line: PartialLine,
        end: usize,
    ) -> Result<(), Reason> {
        let whole = buf.get(start..end).unwrap_or_default();
        if memchr(b'\r', whole).is_some() {
            return Err(Reason::BadLineEnding);
        }
        let (Some(method_end), Some(target_end)) = (line.method_end, line.target_end) else {
            return Err(Reason::BadRequestLine);
        };
        let version = buf.get(target_end + 1..end).unwrap_or_default();
        let blank = method_end == start || target_end == method_end + 1 || version.is_empty();
        if blank || memchr(b' ', version).is_some() {
            return Err(Reason::BadRequestLine);
        }
        self.method_token = Span::new(start, method_end);
        let method = self.method_token.of(buf);
        self.method = Method::of(method);
        self.version = read_version(version)?;
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Reason::MethodNotAllowed);
        }
        self.read_target(buf, method_end + 1, target_end)
    }

    fn read_target(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), Reason> {
        let target = buf.get(start..end).unwrap_or_default();
        target::check(target)?;
        let options = self.method == Method::Options;
        if target == b"*" && options {
            self.target = Span::new(start, end);
            self.path_len = 1;
            return Ok(());
        }
        if target.first() == Some(&b'/') {
            return self.keep_target(buf, Span::new(start, end));
        }
        let parts = target::absolute(target).ok_or(Reason::BadTarget)?;
        self.host = Span::new(start + parts.authority, start + parts.rest);
        target::host_length(self.host.of(buf)).ok_or(Reason::BadTarget)?;
        let rest = Span::new(start + parts.rest, end);
        match rest.of(buf).first() {
            Some(b'/') => return self.keep_target(buf, rest),
            // RFC 9112 section 3.2.4: OPTIONS for the server as a whole, sent through a proxy.
            None if options => self.rewritten.push(b'*'),
            _ => {
                target::normalise(rest.of(buf), &mut self.rewritten)?;
            }
        }
        self.path_len = target::path_length(&self.rewritten);
        Ok(())
    }

    /// Takes a target in origin form.
    pub(crate) fn keep_target(&mut self, buf: &[u8], target: Span) -> Result<(), Reason> {
        let bytes = target.of(buf);
        if target::is_normal(bytes) {
            self.target = target;
            self.path_len = target::path_length(bytes);
        } else {
            self.path_len = target::normalise(bytes, &mut self.rewritten)?;
        }
        Ok(())
    }

    /// Decides what the fields mean together.
    fn interpret(&mut self, buf: &[u8], limits: &ListenerLimits) -> Result<(), Reason> {
        let options = fields::connection_options(buf, &mut self.fields)?;
        let seen = self.read_fields(buf)?;
        self.settle_host(buf, seen.host)?;
        self.settle_framing(&seen, limits)?;
        let modern = self.version == Version::Http11;
        self.upgrade = seen
            .upgrade
            .filter(|_| options.upgrade && modern)
            .unwrap_or_default();
        let ConnectionOptions {
            close, keep_alive, ..
        } = options;
        self.keep_alive = !close && (modern || keep_alive);
        self.te_trailers = seen.trailers && modern;
        let has_body = !matches!(self.framing, Framing::None | Framing::Length(0));
        self.expect_continue = seen.expect && modern && has_body;
        Ok(())
    }

    fn read_fields(&self, buf: &[u8]) -> Result<Seen, Reason> {
        let mut seen = Seen::default();
        for field in &self.fields {
            let value = field.value.of(buf);
            match field.kind {
                FieldKind::Host if seen.host.is_some() => return Err(Reason::BadHost),
                FieldKind::Host => seen.host = Some(field.value),
                FieldKind::ContentLength if seen.length.is_some() => return Err(Reason::BadContentLength),
                FieldKind::ContentLength => {
                    seen.length = Some(decimal(value).ok_or(Reason::BadContentLength)?);
                }
                FieldKind::TransferEncoding => {
                    if seen.chunked || self.version == Version::Http10 {
                        return Err(Reason::BadTransferEncoding);
                    }
                    fields::require_chunked(value)?;
                    seen.chunked = true;
                }
                FieldKind::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(Reason::ExpectationFailed);
                }
                FieldKind::Expect => seen.expect = true,
                FieldKind::Te => seen.trailers |= list(value).any(|t| t.eq_ignore_ascii_case(b"trailers")),
                FieldKind::Upgrade if seen.upgrade.is_none() => {
                    let mut offers = list(value).filter(|offer| is_real_upgrade(offer));
                    seen.upgrade = offers.next().map(|offer| within(field.value, value, offer));
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    /// The authority of an absolute target stands in for Host (RFC 9112 section 3.2.2); a Host that says
    /// something else is refused.
    fn settle_host(&mut self, buf: &[u8], field: Option<Span>) -> Result<(), Reason> {
        let absolute = !self.host.is_empty();
        match field {
            None if self.version == Version::Http11 => return Err(Reason::BadHost),
            None if !absolute => return Ok(()),
            None => {}
            Some(host) if !absolute => self.host = host,
            Some(host) if host.of(buf).eq_ignore_ascii_case(self.host.of(buf)) => {}
            Some(_) => return Err(Reason::BadHost),
        }
        let length = target::host_length(self.host.of(buf)).ok_or(Reason::BadHost)?;
        self.host_name_len = u32::try_from(length).map_err(|_| Reason::BadHost)?;
        Ok(())
    }

    /// How the body ends (RFC 9112 section 6.3).
    fn settle_framing(&mut self, seen: &Seen, limits: &ListenerLimits) -> Result<(), Reason> {
        self.framing = match (seen.chunked, seen.length) {
            (true, Some(_)) => return Err(Reason::AmbiguousLength),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        let length = seen.length.unwrap_or(0);
        // HTTP/1.0 defines a body for these two methods only; a server may not look for one in others.
        let may_have_body =
            self.version == Version::Http11 || matches!(self.method, Method::Post | Method::Put);
        if length > limits.body_bytes.unwrap_or(u64::MAX) || (length > 0 && !may_have_body) {
            return Err(Reason::BodyTooLarge);
        }
        Ok(())
    }

    /// The method as sent.
    pub fn method_bytes<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.method_token.of(buf)
    }

    /// What is forwarded as the target: path and query in normal form, or `*`.
    pub fn target<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        if self.rewritten.is_empty() {
            self.target.of(buf)
        } else {
            &self.rewritten
        }
    }

    /// Path of [`RequestHead::target`]. Routing sees what is forwarded.
    pub fn path<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        self.target(buf).get(..self.path_len).unwrap_or_default()
    }

    /// Query of [`RequestHead::target`] without the `?`; `None` when there is no `?`.
    pub fn query<'a>(&'a self, buf: &'a [u8]) -> Option<&'a [u8]> {
        self.target(buf).get(self.path_len + 1..)
    }

    /// Host, with the port if one was given; empty for an HTTP/1.0 request without one.
    pub fn host<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        self.host.of(buf)
    }

    /// Host without port; an IPv6 address stays in brackets. Compare it ignoring ASCII case.
    pub fn host_name<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        self.host(buf)
            .get(..self.host_name_len as usize)
            .unwrap_or_default()
    }

    /// The protocol that the client wants to switch to: `:protocol` of an extended CONNECT, which stands here as the
    /// `GET` with `Upgrade` that it means; otherwise the first of its offers that an HTTP/1.1 connection can
    /// switch to, when `Connection` names `upgrade` (RFC 9110 section 7.8). `None` on HTTP/1.0, and for offers of
    /// HTTP/2.
    pub fn upgrade<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        Some(self.upgrade.of(buf)).filter(|protocol| !protocol.is_empty())
    }

    /// First value of the field of this name (any case) that is not dropped.
    pub fn field<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        fields::find(buf, &self.fields, name)
    }

    /// First value of the cookie of this name (RFC 6265 section 4.2; names are case-sensitive).
    pub fn cookie<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.cookies(buf, name).next()
    }

    /// All values of the cookie of this name, in the order sent, which says nothing (RFC 6265 section 4.2.2).
    pub fn cookies<'a>(&self, buf: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(|field| field.kind == FieldKind::Cookie)
            .flat_map(|field| field.value.of(buf).split(|&b| b == b';'))
            .filter_map(move |pair| value_of(trim(pair), name))
    }

    /// First value of the query parameter of this name, as it stands in the target: not decoded.
    pub fn query_parameter<'a>(&'a self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.query(buf)?
            .split(|&b| b == b'&')
            .find_map(|pair| value_of(pair, name))
    }

    /// Whether it may be sent a second time when the first may have been acted on: the method is idempotent, or
    /// the client sent an `Idempotency-Key`.
    pub fn may_repeat(&self, buf: &[u8]) -> bool {
        self.method.is_idempotent()
            || self
                .field(buf, "idempotency-key")
                .is_some_and(|key| !key.is_empty())
    }
}

/// What [`RequestHead::read_fields`] gathers.
#[derive(Default)]
struct Seen {
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    expect: bool,
    trailers: bool,
    /// The first protocol offered that `Upgrade` can lead to.
    upgrade: Option<Span>,
}

impl PartialLine {
    /// Checks what has arrived of the request line: a method that is no token and a target that is too long are
    /// certain before the line ends.
    fn check(&mut self, window: &[u8], start: usize, limits: &ListenerLimits) -> Result<(), Reason> {
        while self.method_end.is_none() {
            match window.get(self.checked) {
                None => return Ok(()),
                Some(b' ' | b'\r' | b'\n') => self.method_end = Some(self.checked),
                Some(&b) if class(b) & TOKEN == 0 => return Err(Reason::BadMethod),
                Some(_) => self.checked += 1,
            }
        }
        let target = match self.method_end {
            Some(end) if end > start && window.get(end) == Some(&b' ') => end + 1,
            _ => return Ok(()),
        };
        if self.target_end.is_none() {
            let unseen = self.checked.max(target);
            let rest = window.get(unseen..).unwrap_or_default();
            let end = memchr3(b' ', b'\r', b'\n', rest).map(|at| unseen + at);
            self.checked = end.unwrap_or(window.len());
            self.target_end = end.filter(|&end| window.get(end) == Some(&b' '));
            if self.checked.saturating_sub(target) > limits.target_bytes as usize {
                return Err(Reason::TargetTooLong);
            }
        }
        Ok(())
    }
}

/// Where the request line begins: behind at most one empty line (RFC 9112 section 2.2); `None` while unknown.
fn leading_line(buf: &[u8]) -> Result<Option<usize>, Reason> {
    match buf {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r' | b'\n', ..] => Err(Reason::BadLineEnding),
        _ => Ok(Some(0)),
    }
}

/// The bytes in which the whole head must lie.
fn window<'a>(buf: &'a [u8], start: usize, limits: &ListenerLimits) -> &'a [u8] {
    let end = start.saturating_add(limits.header_bytes as usize).min(buf.len());
    buf.get(..end).unwrap_or_default()
}

fn incomplete(window: &[u8], start: usize, limits: &ListenerLimits) -> Result<Parsed, Reason> {
    if window.len().saturating_sub(start) >= limits.header_bytes as usize {
        Err(Reason::HeaderTooLarge)
    } else {
        Ok(Parsed::Incomplete)
    }
}

/// `HTTP/` digit `.` digit (RFC 9112 section 2.3). HTTP/0.9 has no version in its request line, so one that
/// claims it is malformed.
fn read_version(version: &[u8]) -> Result<Version, Reason> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1'..=b'9', b'.', b'0'..=b'9'] => Err(Reason::VersionUnsupported),
        _ => Err(Reason::BadVersion),
    }
}

/// HTTP/2 cannot be reached by `Upgrade` (RFC 9113 section 3.1); offers of it are ignored, as RFC 9110 section
/// 7.8 allows.
pub(crate) fn is_real_upgrade(protocol: &[u8]) -> bool {
    !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c") && !protocol.eq_ignore_ascii_case(b"h2")
}

/// The span of `part`, which is a part of the `value` that `span` means.
fn within(span: Span, value: &[u8], part: &[u8]) -> Span {
    let offset = (part.as_ptr() as usize).wrapping_sub(value.as_ptr() as usize);
    let start = span.start as usize + offset;
    Span::new(start, start + part.len())
}

/// The value in `name=value`, when the name is this.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    match pair.strip_prefix(name.as_bytes())? {
        [b'=', value @ ..] => Some(value),
        _ => None,
    }
}
