//! A request's header list into a [`RequestHead`] (RFC 9113 section 8).
//!
//! The list is copied into one buffer and described by spans over it, as a head of HTTP/1 is. Everything that
//! decides about a request afterwards does not see where it came from. An extended CONNECT (RFC 8441) becomes the
//! `GET` with `Upgrade` that it stands for. What is malformed ends its stream and is never answered: an answer
//! would tell a smuggler what was understood.

use model::config::ListenerLimits;
use model::reason::Reason;

use crate::fields;
use crate::message::{Field, FieldKind, Framing, Method, Span, Version};
use crate::request::{RequestHead, is_real_upgrade};
use crate::syntax::{decimal, is_token, is_value};
use crate::target;
use crate::websocket;
use Refusal::Malformed;

/// What HTTP/2 counts for a field besides its name and value (RFC 9113 section 10.5.1).
const FIELD_OVERHEAD: usize = 32;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed: the stream ends with PROTOCOL_ERROR (RFC 9113 section 8.1.1).
    Malformed(Reason),
    /// It is answered with the reason's status.
    Answer(Reason),
}

/// Pseudo-header fields of a request, as spans of their values.
#[derive(Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
}

/// What the fields of a request say together.
#[derive(Default)]
struct Said {
    host: Option<Span>,
    length: Option<u64>,
    expect: bool,
    crumbs: usize,
}

impl RequestHead {
    /// Reads a request's header list, in the order sent, pseudo-header fields included. `buf` is cleared and
    /// takes names and values; the spans are meant for it. `head_len` becomes its length, so that a body may
    /// stand behind. `end_stream`: no body follows. `extended_connect`: `:protocol` was advertised (RFC 8441).
    ///
    /// # Errors
    /// [`Refusal`]. Method and host are set as far as they were read.
    pub fn from_http2<'f>(
        &mut self,
        list: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        end_stream: bool,
        extended_connect: bool,
        limits: &ListenerLimits,
        buf: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.reset();
        buf.clear();
        self.version = Version::Http2;
        self.keep_alive = true;
        let pseudo = self.read_list(list, limits, buf)?;
        self.method_token = pseudo.method.ok_or(Malformed(Reason::BadMethod))?;
        self.method = Method::of(self.method_token.of(buf));
        let said = self.read_meaning(buf)?;
        self.join_cookies(said.crumbs, buf);
        self.settle_authority(pseudo.authority, said.host, buf)?;
        self.settle_target(&pseudo, extended_connect, limits, buf)?;
        self.settle_length(&said, end_stream, limits)?;
        self.head_len = buf.len();
        Ok(())
    }

    /// Copies the list, with the pseudo-header fields taken out.
    fn read_list<'f>(
        &mut self,
        list: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &ListenerLimits,
        buf: &mut Vec<u8>,
    ) -> Result<Pseudo, Refusal> {
        let mut pseudo = Pseudo::default();
        let mut size = 0;
        for (name, value) in list {
            size += name.len() + value.len() + FIELD_OVERHEAD;
            if size > limits.header_bytes as usize {
                return Err(Refusal::Answer(Reason::HeaderTooLarge));
            }
            if !is_clean(value) {
                return Err(Malformed(Reason::BadHeader));
            }
            if name.first() == Some(&b':') {
                let slot = pseudo.slot(name).ok_or(Malformed(Reason::BadHeader))?;
                if !self.fields.is_empty() || slot.is_some() {
                    return Err(Malformed(Reason::BadHeader));
                }
                *slot = Some(append(buf, value));
                continue;
            }
            if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
                return Err(Malformed(Reason::BadHeader));
            }
            if self.fields.len() >= usize::from(limits.header_fields) {
                return Err(Refusal::Answer(Reason::TooManyHeaders));
            }
            let kind = fields::request_kind(name);
            let name = append(buf, name);
            let value = append(buf, value);
            self.fields.push(Field { name, value, kind });
        }
        Ok(pseudo)
    }

    fn read_meaning(&mut self, buf: &[u8]) -> Result<Said, Refusal> {
        let mut said = Said::default();
        for field in &self.fields {
            let value = field.value.of(buf);
            match field.kind {
                // RFC 9113 section 8.2.2.
                FieldKind::Connection | FieldKind::KeepAlive | FieldKind::Upgrade => {
                    return Err(Malformed(Reason::BadHeader));
                }
                FieldKind::TransferEncoding => return Err(Malformed(Reason::BadTransferEncoding)),
                FieldKind::Dropped if field.name.of(buf) == b"proxy-connection" => {
                    return Err(Malformed(Reason::BadHeader));
                }
                FieldKind::Te if !value.eq_ignore_ascii_case(b"trailers") => {
                    return Err(Malformed(Reason::BadHeader));
                }
                FieldKind::Te => self.te_trailers = true,
                FieldKind::Host if said.host.is_some() => return Err(Malformed(Reason::BadHost)),
                FieldKind::Host => said.host = Some(field.value),
                FieldKind::ContentLength => {
                    let length = decimal(value).filter(|_| said.length.is_none());
                    said.length = Some(length.ok_or(Malformed(Reason::BadContentLength))?);
                }
                FieldKind::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(Refusal::Answer(Reason::ExpectationFailed));
                }
                FieldKind::Expect => said.expect = true,
                FieldKind::Cookie => said.crumbs += 1,
                _ => {}
            }
        }
        Ok(said)
    }

    /// Joins what HTTP/2 splits for the sake of compression (RFC 9113 section 8.2.3).
    fn join_cookies(&mut self, crumbs: usize, buf: &mut Vec<u8>) {
        if crumbs < 2 {
            return;
        }
        let start = buf.len();
        for i in 0..self.fields.len() {
            let Some(field) = self.fields.get(i).filter(|f| f.kind == FieldKind::Cookie) else {
                continue;
            };
            let crumb = field.value.start as usize..field.value.end as usize;
            if buf.len() > start {
                buf.extend_from_slice(b"; ");
            }
            buf.extend_from_within(crumb);
        }
        let joined = Span::new(start, buf.len());
        let mut first = true;
        self.fields
            .retain(|field| field.kind != FieldKind::Cookie || std::mem::take(&mut first));
        if let Some(cookie) = self.fields.iter_mut().find(|f| f.kind == FieldKind::Cookie) {
            cookie.value = joined;
        }
    }

    /// `:authority` and Host must not differ (RFC 9113 section 8.3.1), and one of them must be there.
    fn settle_authority(
        &mut self,
        authority: Option<Span>,
        host: Option<Span>,
        buf: &[u8],
    ) -> Result<(), Refusal> {
        let bad = Malformed(Reason::BadHost);
        let differ = |a: Span, b: Span| !a.of(buf).eq_ignore_ascii_case(b.of(buf));
        self.host = match (authority, host) {
            (Some(authority), Some(host)) if differ(authority, host) => return Err(bad),
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(bad),
        };
        let length = target::host_length(self.host.of(buf)).ok_or(bad)?;
        self.host_name_len = u32::try_from(length).map_err(|_| bad)?;
        Ok(())
    }

    fn settle_target(
        &mut self,
        pseudo: &Pseudo,
        extended_connect: bool,
        limits: &ListenerLimits,
        buf: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let method = self.method_token.of(buf);
        if !is_token(method) {
            return Err(Malformed(Reason::BadMethod));
        }
        let connect = method == b"CONNECT";
        if method == b"TRACE" || (connect && pseudo.protocol.is_none()) {
            return Err(Refusal::Answer(Reason::MethodNotAllowed));
        }
        if let Some(protocol) = pseudo.protocol {
            if !connect || !extended_connect || !is_token(protocol.of(buf)) {
                return Err(Malformed(Reason::BadHeader));
            }
            if !is_real_upgrade(protocol.of(buf)) {
                return Err(Refusal::Answer(Reason::UpgradeUnsupported));
            }
            self.become_upgrade(protocol, buf);
        }
        let scheme = pseudo.scheme.unwrap_or_default().of(buf);
        if !is_scheme(scheme) {
            return Err(Malformed(Reason::BadTarget));
        }
        let path = pseudo.path.ok_or(Malformed(Reason::BadTarget))?;
        let bytes = path.of(buf);
        if bytes.len() > limits.target_bytes as usize {
            return Err(Refusal::Answer(Reason::TargetTooLong));
        }
        target::check(bytes).map_err(Malformed)?;
        match bytes.first() {
            Some(b'/') => self.keep_target(buf, path).map_err(|reason| match reason {
                // Well-formed as HTTP/2 goes: what we do not allow is answered.
                Reason::BadPath => Refusal::Answer(reason),
                reason => Malformed(reason),
            }),
            _ if bytes == b"*" && self.method == Method::Options => {
                self.target = path;
                self.path_len = 1;
                Ok(())
            }
            _ => Err(Malformed(Reason::BadTarget)),
        }
    }

    /// The same wish in the form of HTTP/1. The handshake that WebSocket has there is left to whoever writes it
    /// (RFC 8441 section 5.1).
    fn become_upgrade(&mut self, protocol: Span, buf: &mut Vec<u8>) {
        self.extended_connect = true;
        self.upgrade = protocol;
        self.method = Method::Get;
        self.method_token = append(buf, b"GET");
        for name in [websocket::KEY_FIELD, websocket::ACCEPT_FIELD] {
            fields::drop_named(buf, &mut self.fields, name.as_bytes());
        }
    }

    /// How the body goes on from here: the length if it was told, otherwise in chunks.
    fn settle_length(
        &mut self,
        said: &Said,
        end_stream: bool,
        limits: &ListenerLimits,
    ) -> Result<(), Refusal> {
        let length = said.length.unwrap_or(0);
        if length > 0 && (end_stream || self.extended_connect) {
            return Err(Malformed(Reason::BadContentLength));
        }
        if length > limits.body_bytes.unwrap_or(u64::MAX) {
            return Err(Refusal::Answer(Reason::BodyTooLarge));
        }
        self.framing = match said.length {
            // What follows the head of a CONNECT belongs to the tunnel.
            _ if self.extended_connect => Framing::None,
            Some(length) => Framing::Length(length),
            None if end_stream => Framing::None,
            None => Framing::Chunked,
        };
        self.expect_continue = said.expect && !matches!(self.framing, Framing::None | Framing::Length(0));
        Ok(())
    }
}

impl Pseudo {
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Span>> {
        Some(match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return None,
        })
    }
}

fn append(buf: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = buf.len();
    buf.extend_from_slice(bytes);
    Span::new(start, buf.len())
}

/// No CR, LF, NUL or other control, and no white space around it (RFC 9113 section 8.2.1).
fn is_clean(value: &[u8]) -> bool {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    is_value(value) && !blank(value.first()) && !blank(value.last())
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}
