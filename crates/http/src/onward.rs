//! Requests and responses between our one message form and a backend's HTTP/2 (RFC 9113 section 8).
//!
//! There is one place that decides what a backend is told, [`crate::forward::write_request`], and one that decides
//! what a response means, [`ResponseHead::parse`](crate::ResponseHead::parse). HTTP/2 goes through both: the
//! head that was written is read back as a header list, and a header list that came is written as a head. So no
//! rule about fields, framing or provenance can hold for one protocol and not for the other.

use memchr::{memchr, memmem};

use crate::fields;
use crate::message::{FieldKind, Method};
use crate::syntax::push_decimal;
use crate::websocket;

/// A request head of our own writing, taken apart for HTTP/2.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'w> {
    /// `:method`.
    pub method: &'w [u8],
    /// `:path`.
    pub path: &'w [u8],
    /// `:authority`.
    pub authority: &'w [u8],
    /// `:protocol`: a wish to switch becomes an extended CONNECT (RFC 8441 section 4).
    pub protocol: Option<&'w [u8]>,
    /// Lines behind `Host`.
    lines: &'w [u8],
}

impl<'w> Onward<'w> {
    /// Takes apart what [`crate::forward::write_request`] wrote; `None` for anything else.
    pub fn read(written: &'w [u8]) -> Option<Self> {
        let (first, rest) = line(written)?;
        let (method, rest_of_line) = split(first, b' ')?;
        let (path, _) = split(rest_of_line, b' ')?;
        let (host, lines) = line(rest)?;
        let (name, authority) = field(host)?;
        let protocol = lines_of(lines).find(|(name, _)| name.eq_ignore_ascii_case(b"upgrade"));
        name.eq_ignore_ascii_case(b"host").then_some(Self {
            method: protocol.map_or(method, |_| b"CONNECT"),
            path,
            authority,
            protocol: protocol.map(|(_, protocol)| protocol),
            lines,
        })
    }

    /// Names and values without those that belong to a connection of HTTP/1 (RFC 9113 section 8.2.2), and without
    /// the key of WebSocket's handshake, which HTTP/2 does not need (RFC 8441 section 5). Names stand as written;
    /// HTTP/2 wants them in lower case.
    pub fn fields(&self) -> impl Iterator<Item = (&'w [u8], &'w [u8])> + use<'w> {
        let switches = self.protocol.is_some();
        lines_of(self.lines).filter(move |(name, _)| {
            let handshake = switches && name.eq_ignore_ascii_case(websocket::KEY_FIELD.as_bytes());
            !handshake && !belongs_to_connection(name)
        })
    }
}

fn lines_of<'w>(mut rest: &'w [u8]) -> impl Iterator<Item = (&'w [u8], &'w [u8])> + use<'w> {
    std::iter::from_fn(move || {
        let (this, behind) = line(rest)?;
        rest = behind;
        field(this)
    })
}

fn belongs_to_connection(name: &[u8]) -> bool {
    matches!(
        fields::request_kind(name),
        FieldKind::Host
            | FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
    )
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memmem::find(bytes, b"\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 2..)?)).filter(|(line, _)| !line.is_empty())
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(at, bytes)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = split(line, b':')?;
    Some((name, value.strip_prefix(b" ").unwrap_or(value)))
}

/// Writes a response that came as a header list as the head of an HTTP/1.1 message, to be parsed as such.
///
/// `request` is the method it answers. `ends`: nothing follows the list. A body of unknown length is announced as
/// chunked, so that trailers have a place.
pub fn write_response<'f>(
    out: &mut Vec<u8>,
    status: u16,
    list: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    request: Method,
    ends: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.extend_from_slice(b" \r\n");
    let mut has_length = false;
    for (name, value) in list {
        has_length |= name.eq_ignore_ascii_case(b"content-length");
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    let bodiless = status < 200 || matches!(status, 204 | 304) || request == Method::Head;
    if !bodiless && !has_length {
        out.extend_from_slice(match ends {
            true => b"Content-Length: 0\r\n",
            false => b"Transfer-Encoding: chunked\r\n",
        });
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::{Framing, Parsed, ResponseHead};

    type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

    #[test]
    fn a_written_head_becomes_pseudo_fields_and_fields_without_those_of_the_connection() {
        let written =
            b"POST /a?b=c HTTP/1.1\r\nHost: x.example:80\r\nCookie: a=b\r\nTransfer-Encoding: chunked\r\n\
            TE: trailers\r\nConnection: TE\r\nForwarded: for=\"[::1]\";proto=http\r\n\r\n";
        let onward = Onward::read(written).unwrap();
        assert_eq!(onward.method, b"POST");
        assert_eq!(onward.path, b"/a?b=c");
        assert_eq!(onward.authority, b"x.example:80");
        let fields: Pairs<'_> = onward.fields().collect();
        let expected: Pairs<'_> = vec![
            (b"Cookie", b"a=b"),
            (b"TE", b"trailers"),
            (b"Forwarded", b"for=\"[::1]\";proto=http"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_we_did_not_write_is_not_taken_apart() {
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /\r\nX: y\r\n\r\n",
        ] {
            assert!(Onward::read(bytes).is_none());
        }
    }

    fn framing(status: u16, list: &[(&[u8], &[u8])], request: Method, ends: bool) -> Framing {
        let mut out = Vec::new();
        write_response(&mut out, status, list.iter().copied(), request, ends);
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(&out, request), Ok(Parsed::Complete));
        assert_eq!(head.head_len, out.len());
        assert!(head.keep_alive);
        head.framing
    }

    /// RFC 9113 section 8.1: a body ends with its stream; its length may be told.
    #[test]
    fn a_header_list_says_how_its_body_ends() {
        let length: &[(&[u8], &[u8])] = &[(b"content-length", b"7")];
        assert_eq!(framing(200, length, Method::Get, false), Framing::Length(7));
        assert_eq!(framing(200, &[], Method::Get, false), Framing::Chunked);
        assert_eq!(framing(200, &[], Method::Get, true), Framing::Length(0));
        assert_eq!(framing(200, length, Method::Head, true), Framing::None);
        for status in [103, 204, 304] {
            assert_eq!(framing(status, &[], Method::Get, true), Framing::None);
        }
    }
}
