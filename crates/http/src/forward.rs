//! Writing messages anew, for the backend and for the client.
//!
//! Heads are written from their parsed form only. What ends at this hop is left out, framing has one line of our
//! own, and what is said about the client comes from us, or from a peer that the operator trusts.

use std::net::IpAddr;

use model::config::IpNet;
use model::reason::Reason;

use crate::field_list::FieldList;
use crate::message::{Field, FieldKind, Framing, Method, Version};
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::syntax::{is_token, push_decimal, trim};
use crate::trace::TraceContext;
use crate::websocket;

/// From where and to where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// Address of the peer that sent it: the other end of the client's connection.
    pub client: IpAddr,
    /// The same as text, made once per connection.
    pub client_text: &'a [u8],
    /// Whether that peer is in `trusted_proxies`, so that what it says about its own client is kept.
    pub trusted: bool,
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// Host to send when the client sent none (HTTP/1.0): the backend's address.
    pub backend: &'a [u8],
    /// What the backend is asked to switch to; only for a request without a body.
    pub upgrade: Option<Upgrade<'a>>,
    /// Place in a trace to name as `traceparent`: that of this attempt.
    pub trace: Option<TraceContext>,
}

/// A wish to switch to another protocol (RFC 9110 section 7.8).
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// Name of the protocol.
    pub protocol: &'a [u8],
    /// Key of our own for WebSocket's handshake, where the client's protocol has none (RFC 8441 section 5.1).
    pub key: Option<websocket::Key>,
}

/// Writes the request head for a backend, as HTTP/1.1.
///
/// `Expect` is passed on while [`RequestHead::expect_continue`] is true. The body follows in the framing of the
/// head: as it came for [`Framing::Length`], in chunks for [`Framing::Chunked`]. `extra` stands last.
pub fn write_request(out: &mut Vec<u8>, buf: &[u8], head: &RequestHead, via: &Via<'_>, extra: &FieldList) {
    out.reserve(head.head_len + 384);
    let host = match head.host_to_send(buf) {
        [] => via.backend,
        host => host,
    };
    out.extend_from_slice(head.method_bytes(buf));
    out.push(b' ');
    out.extend_from_slice(head.target(buf));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_line(out, b"Host", host);
    for field in &head.fields {
        match field.kind {
            FieldKind::Other | FieldKind::Cookie => write_field(out, buf, field),
            FieldKind::Identity if via.trusted => write_field(out, buf, field),
            _ => {}
        }
    }
    write_framing(out, head.framing);
    if let Some(upgrade) = via.upgrade {
        write_upgrade(out, upgrade.protocol);
        if let Some(key) = upgrade.key {
            write_line(out, websocket::KEY_FIELD.as_bytes(), &key.text());
        }
    } else if head.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    if head.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    write_provenance(out, buf, head, via);
    if let Some(trace) = via.trace {
        write_line(out, b"traceparent", &trace.text());
    }
    write_extra(out, extra);
    out.extend_from_slice(b"\r\n");
}

/// `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`: one line each.
fn write_provenance(out: &mut Vec<u8>, buf: &[u8], head: &RequestHead, via: &Via<'_>) {
    let host = head.host(buf);
    begin_list(out, buf, head, via, b"X-Forwarded-For", FieldKind::XForwardedFor);
    out.extend_from_slice(via.client_text);
    out.extend_from_slice(b"\r\n");
    let proto = said(buf, head, via, FieldKind::XForwardedProto).unwrap_or(via.scheme);
    write_line(out, b"X-Forwarded-Proto", proto);
    let forwarded_host = said(buf, head, via, FieldKind::XForwardedHost).unwrap_or(host);
    if !forwarded_host.is_empty() {
        write_line(out, b"X-Forwarded-Host", forwarded_host);
    }
    begin_list(out, buf, head, via, b"Forwarded", FieldKind::Forwarded);
    out.extend_from_slice(b"for=");
    if via.client.is_ipv6() {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(via.client_text);
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(via.client_text);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(via.scheme);
    if !host.is_empty() {
        // A host has no byte that would need an escape between quotes.
        let quote: &[u8] = if is_token(host) { b"" } else { b"\"" };
        for part in [b";host=", quote, host, quote] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Name, and what a trusted peer has put into the list so far.
fn begin_list(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &RequestHead,
    via: &Via<'_>,
    name: &[u8],
    kind: FieldKind,
) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    if !via.trusted {
        return;
    }
    for field in head
        .fields
        .iter()
        .filter(|field| field.kind == kind && !field.value.is_empty())
    {
        out.extend_from_slice(field.value.of(buf));
        out.extend_from_slice(b", ");
    }
}

/// What a trusted peer says; of several, the last, which stands nearest to it.
fn said<'a>(buf: &'a [u8], head: &RequestHead, via: &Via<'_>, kind: FieldKind) -> Option<&'a [u8]> {
    match via.trusted {
        true => last_value(buf, head, kind),
        false => None,
    }
}

fn last_value<'a>(buf: &'a [u8], head: &RequestHead, kind: FieldKind) -> Option<&'a [u8]> {
    let mut fields = head.fields.iter().rev();
    fields
        .find(|field| field.kind == kind && !field.value.is_empty())
        .map(|field| field.value.of(buf))
}

/// What a trusted peer says of the scheme that its client spoke (`X-Forwarded-Proto`).
pub fn forwarded_proto<'a>(buf: &'a [u8], head: &RequestHead) -> Option<&'a [u8]> {
    last_value(buf, head, FieldKind::XForwardedProto)
}

/// The client's address: the peer's, unless the peer is trusted; then the right-most address in
/// `X-Forwarded-For` that is not itself a trusted proxy.
///
/// Counted from the right, because each proxy appends: whatever a client writes itself stands further left than
/// what the first trusted proxy saw. An entry that is not an address ends the walk at the last hop that was one.
pub fn client_address(buf: &[u8], head: &RequestHead, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut address = peer.to_canonical();
    let hops = head
        .fields
        .iter()
        .rev()
        .filter(|field| field.kind == FieldKind::XForwardedFor);
    for hop in hops.flat_map(|field| field.value.of(buf).rsplit(|&b| b == b',')) {
        if !is_trusted(address) {
            break;
        }
        match hop_address(trim(hop)) {
            Some(ip) => address = ip,
            None => break,
        }
    }
    address
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn hop_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse()
            .ok()
            .map(IpAddr::V6)
    };
    let with_port = || {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    };
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(with_port)
        .or_else(bracketed)?;
    Some(ip.to_canonical())
}

/// How the client gets the body: an HTTP/1.0 client knows no chunks, and for an HTTP/1.1 client a body that ends
/// with the backend's connection is sent in chunks, so that its own connection can be kept.
pub fn response_framing(head: &ResponseHead, client: Version) -> Framing {
    match (head.framing, client) {
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    }
}

/// Writes the response head for the client with `extra` fields, in this framing (see [`response_framing`]).
///
/// `close` says that the connection ends after this response; [`Framing::UntilClose`] always does.
pub fn write_response(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &ResponseHead,
    client: Version,
    framing: Framing,
    extra: &FieldList,
    close: bool,
) {
    out.reserve(head.head_len + 96);
    write_status_and_fields(out, buf, head);
    write_extra(out, extra);
    match (framing, head.content_length) {
        // To HEAD, or 304: the length of what is not sent.
        (Framing::None, Some(length)) => write_framing(out, Framing::Length(length)),
        _ => write_framing(out, framing),
    }
    write_persistence(out, client, close || framing == Framing::UntilClose);
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response (1xx). Not for an HTTP/1.0 client, which does not know them.
pub fn write_interim(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead) {
    write_status_and_fields(out, buf, head);
    out.extend_from_slice(b"\r\n");
}

/// Writes the 101 with which a connection becomes a tunnel, whatever status the backend said it with. `protocol` is
/// what was asked for.
pub fn write_switch(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead, extra: &FieldList, protocol: &[u8]) {
    write_status_line(out, 101, b"Switching Protocols");
    write_fields(out, buf, head);
    write_extra(out, extra);
    write_upgrade(out, protocol);
    out.extend_from_slice(b"\r\n");
}

/// Writes a whole response of our own that names the reason; nothing for reasons without a status.
///
/// `request` decides whether a body follows; the head is the same for HEAD.
pub fn write_failure(
    out: &mut Vec<u8>,
    reason: Reason,
    request: Method,
    version: Version,
    extra: &FieldList,
    close: bool,
    retry_after_s: Option<u32>,
) {
    if reason.status() == 0 {
        return;
    }
    let phrase = phrase(reason.status());
    write_status_line(out, reason.status(), phrase);
    let body_len = reason.code().len() + 2 + reason.text().len() + 1;
    out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n");
    write_line(out, b"X-Evenkeel-Reason", reason.code().as_bytes());
    if reason == Reason::MethodNotAllowed {
        write_line(out, b"Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
    }
    if let Some(seconds) = retry_after_s {
        out.extend_from_slice(b"Retry-After: ");
        push_decimal(out, u64::from(seconds));
        out.extend_from_slice(b"\r\n");
    }
    write_extra(out, extra);
    write_framing(out, Framing::Length(body_len as u64));
    write_persistence(out, version, close);
    out.extend_from_slice(b"\r\n");
    if request != Method::Head {
        for part in [reason.code(), ": ", reason.text(), "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

fn write_status_and_fields(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead) {
    write_status_line(out, head.status, head.phrase(buf));
    write_fields(out, buf, head);
}

fn write_fields(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead) {
    for field in head.fields.iter().filter(|field| field.kind == FieldKind::Other) {
        write_field(out, buf, field);
    }
}

fn write_upgrade(out: &mut Vec<u8>, protocol: &[u8]) {
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    write_line(out, b"Upgrade", protocol);
}

pub(crate) fn write_status_line(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

pub(crate) fn write_persistence(out: &mut Vec<u8>, client: Version, close: bool) {
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if client == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

pub(crate) fn write_extra(out: &mut Vec<u8>, extra: &FieldList) {
    for (name, value) in extra.iter() {
        write_line(out, name, value);
    }
}

#[inline]
fn write_field(out: &mut Vec<u8>, buf: &[u8], field: &Field) {
    write_line(out, field.name.of(buf), field.value.of(buf));
}

#[inline]
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Reason phrase of the statuses that we answer with; empty for others.
pub(crate) fn phrase(status: u16) -> &'static [u8] {
    match status {
        200 => b"OK",
        201 => b"Created",
        202 => b"Accepted",
        204 => b"No Content",
        301 => b"Moved Permanently",
        302 => b"Found",
        303 => b"See Other",
        304 => b"Not Modified",
        307 => b"Temporary Redirect",
        308 => b"Permanent Redirect",
        400 => b"Bad Request",
        401 => b"Unauthorized",
        403 => b"Forbidden",
        404 => b"Not Found",
        405 => b"Method Not Allowed",
        408 => b"Request Timeout",
        410 => b"Gone",
        413 => b"Content Too Large",
        414 => b"URI Too Long",
        417 => b"Expectation Failed",
        421 => b"Misdirected Request",
        429 => b"Too Many Requests",
        431 => b"Request Header Fields Too Large",
        500 => b"Internal Server Error",
        501 => b"Not Implemented",
        502 => b"Bad Gateway",
        503 => b"Service Unavailable",
        504 => b"Gateway Timeout",
        505 => b"HTTP Version Not Supported",
        _ => b"",
    }
}
