//! Header fields: from lines to [`Field`]s, recognised names, and what `Connection` says.

use httparse::{EMPTY_HEADER, Header};
use memchr::{memchr, memchr_iter};
use model::reason::Reason;

use crate::message::{Field, FieldKind, Span};
use crate::syntax::{PLAIN, class, list};

/// Options that all `Connection` fields of a message may hold together; each costs a walk over the fields.
const MAX_CONNECTION_OPTIONS: usize = 64;

/// Turns the `count` field lines in `block`, which begins at offset `base` of the buffer and ends with the empty
/// line, into fields. The caller has seen that each line ends in CRLF and none begins with white space: with
/// that, `httparse` refuses everything else outside RFC 9112 section 5 (it tolerates bare LF, which cannot occur).
///
/// # Errors
/// [`Reason::BadLineEnding`] for a bare CR, otherwise [`Reason::BadHeader`].
pub(crate) fn tokenise(
    block: &[u8],
    base: usize,
    count: usize,
    recognise: fn(&[u8]) -> FieldKind,
    fields: &mut Vec<Field>,
) -> Result<(), Reason> {
    // Clearing the table costs more than parsing when it is far larger than the head.
    match count {
        0..=12 => tokenise_into(&mut [EMPTY_HEADER; 12], block, base, recognise, fields),
        13..=32 => tokenise_into(&mut [EMPTY_HEADER; 32], block, base, recognise, fields),
        33..=128 => tokenise_into(&mut [EMPTY_HEADER; 128], block, base, recognise, fields),
        // Only where an operator has lifted the limit above its default of 100, and for odd backends.
        _ => tokenise_into(&mut vec![EMPTY_HEADER; count], block, base, recognise, fields),
    }
}

fn tokenise_into<'b>(
    table: &mut [Header<'b>],
    block: &'b [u8],
    base: usize,
    recognise: fn(&[u8]) -> FieldKind,
    fields: &mut Vec<Field>,
) -> Result<(), Reason> {
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(block, table) else {
        let bare = memchr_iter(b'\r', block).count() != memchr_iter(b'\n', block).count();
        return Err(if bare {
            Reason::BadLineEnding
        } else {
            Reason::BadHeader
        });
    };
    let origin = block.as_ptr() as usize;
    let span = |bytes: &[u8]| {
        let start = base + (bytes.as_ptr() as usize).wrapping_sub(origin);
        Span::new(start, start + bytes.len())
    };
    fields.extend(headers.iter().map(|header| Field {
        name: span(header.name.as_bytes()),
        value: span(header.value),
        kind: recognise(header.name.as_bytes()),
    }));
    Ok(())
}

/// What a request field is to a proxy.
pub(crate) fn request_kind(name: &[u8]) -> FieldKind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    let known = match name.len() {
        2 if is(b"te") => FieldKind::Te,
        4 if is(b"host") => FieldKind::Host,
        5 if is(b"proxy") => FieldKind::Dropped,
        6 if is(b"cookie") => FieldKind::Cookie,
        6 if is(b"expect") => FieldKind::Expect,
        7 if is(b"upgrade") => FieldKind::Upgrade,
        7 if is(b"trailer") => FieldKind::Dropped,
        9 if is(b"forwarded") => FieldKind::Forwarded,
        9 if is(b"x-real-ip") => FieldKind::Identity,
        10 if is(b"connection") => FieldKind::Connection,
        10 if is(b"keep-alive") => FieldKind::KeepAlive,
        11 if is(b"client-cert") => FieldKind::Identity,
        14 if is(b"content-length") => FieldKind::ContentLength,
        14 if is(b"http2-settings") => FieldKind::Dropped,
        15 if is(b"x-forwarded-for") => FieldKind::XForwardedFor,
        16 if is(b"x-forwarded-host") => FieldKind::XForwardedHost,
        17 if is(b"transfer-encoding") => FieldKind::TransferEncoding,
        17 if is(b"x-forwarded-proto") => FieldKind::XForwardedProto,
        17 if is(b"client-cert-chain") => FieldKind::Identity,
        _ => FieldKind::Other,
    };
    if known == FieldKind::Other {
        request_family(name)
    } else {
        known
    }
}

/// What a request field is by the family of its name.
fn request_family(name: &[u8]) -> FieldKind {
    if name.iter().any(|&b| class(b) & PLAIN == 0) {
        return alias(name);
    }
    let begins = |prefix: &[u8]| starts_with(name, prefix);
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'p') if begins(b"proxy-") => FieldKind::Dropped,
        Some(b'x') if begins(b"x-forwarded") || begins(b"x-ssl-client") || begins(b"x-client-cert") => {
            FieldKind::Identity
        }
        Some(b's') if begins(b"ssl-client") => FieldKind::Identity,
        _ => FieldKind::Other,
    }
}

/// What a field is whose name some backends take for another: CGI and its heirs know no hyphen, and some write anything
/// that is no letter or digit as they write that. Names with an underscore reach nobody; those with a dot, which are
/// in use, or with another sign, unless they would be the name of a field that means something here.
fn alias(name: &[u8]) -> FieldKind {
    let mut space = [0; LONGEST_COMPARED];
    match memchr(b'_', name).is_none() && request_kind(plain(name, &mut space)) == FieldKind::Other {
        true => FieldKind::Other,
        false => FieldKind::Dropped,
    }
}

/// Bytes of a name that decide what it is: all of the names known here, and of the prefixes, are shorter.
pub(crate) const LONGEST_COMPARED: usize = 32;

/// A name with hyphens in the place of all signs, cut where nothing that follows decides.
pub(crate) fn plain<'s>(name: &[u8], space: &'s mut [u8; LONGEST_COMPARED]) -> &'s [u8] {
    for (to, &from) in space.iter_mut().zip(name) {
        *to = if class(from) & PLAIN != 0 { from } else { b'-' };
    }
    space.get(..name.len()).unwrap_or(space)
}

/// What a response field is to a proxy.
pub(crate) fn response_kind(name: &[u8]) -> FieldKind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is(b"te") => FieldKind::Dropped,
        7 if is(b"upgrade") => FieldKind::Upgrade,
        7 if is(b"trailer") => FieldKind::Dropped,
        10 if is(b"connection") => FieldKind::Connection,
        10 if is(b"keep-alive") => FieldKind::KeepAlive,
        14 if is(b"content-length") => FieldKind::ContentLength,
        16 if is(b"proxy-connection") => FieldKind::Dropped,
        17 if is(b"transfer-encoding") => FieldKind::TransferEncoding,
        18 if is(b"proxy-authenticate") => FieldKind::Dropped,
        25 if is(b"proxy-authentication-info") => FieldKind::Dropped,
        _ => FieldKind::Other,
    }
}

/// What the `Connection` fields of a message ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    /// `close`.
    pub(crate) close: bool,
    /// `keep-alive`.
    pub(crate) keep_alive: bool,
    /// `upgrade`.
    pub(crate) upgrade: bool,
}

/// Reads the `Connection` fields and marks the fields that they list as dropped (RFC 9110 section 7.6.1).
///
/// Only what would be forwarded as it stands can be listed away: framing, routing and what this proxy says about
/// the client are written anew and cannot be removed by the client.
///
/// # Errors
/// [`Reason::BadHeader`] above [`MAX_CONNECTION_OPTIONS`].
pub(crate) fn connection_options(buf: &[u8], fields: &mut [Field]) -> Result<ConnectionOptions, Reason> {
    let mut options = ConnectionOptions::default();
    let mut count = 0;
    for i in 0..fields.len() {
        let value = match fields.get(i) {
            Some(field) if field.kind == FieldKind::Connection => field.value.of(buf),
            _ => continue,
        };
        for option in list(value).filter(|option| !option.is_empty()) {
            count += 1;
            if count > MAX_CONNECTION_OPTIONS {
                return Err(Reason::BadHeader);
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                drop_listed(buf, fields, option);
            }
        }
    }
    Ok(options)
}

fn drop_listed(buf: &[u8], fields: &mut [Field], option: &[u8]) {
    for field in fields {
        let removable = matches!(field.kind, FieldKind::Other | FieldKind::Cookie);
        if removable && field.name.of(buf).eq_ignore_ascii_case(option) {
            field.kind = FieldKind::Dropped;
        }
    }
}

/// Takes away the fields of this name that would be forwarded as they stand.
pub(crate) fn drop_named(buf: &[u8], fields: &mut [Field], name: &[u8]) {
    for field in fields {
        let forwarded = matches!(
            field.kind,
            FieldKind::Other | FieldKind::Cookie | FieldKind::Identity
        );
        if forwarded && field.name.of(buf).eq_ignore_ascii_case(name) {
            field.kind = FieldKind::Dropped;
        }
    }
}

/// First value of the field of this name that is not dropped.
pub(crate) fn find<'a>(buf: &'a [u8], fields: &[Field], name: &str) -> Option<&'a [u8]> {
    fields
        .iter()
        .find(|f| f.kind != FieldKind::Dropped && f.name.of(buf).eq_ignore_ascii_case(name.as_bytes()))
        .map(|f| f.value.of(buf))
}

/// Whether a `Transfer-Encoding` value is exactly `chunked`.
///
/// # Errors
/// [`Reason::UnknownTransferCoding`] for a list of tokens that ends in `chunked` or lacks it,
/// [`Reason::BadTransferEncoding`] for all else: empty, gaps, repeated or not final `chunked`, parameters.
pub(crate) fn require_chunked(value: &[u8]) -> Result<(), Reason> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut after_chunked = false;
    for coding in list(value) {
        if after_chunked || !crate::syntax::is_token(coding) {
            return Err(Reason::BadTransferEncoding);
        }
        after_chunked = coding.eq_ignore_ascii_case(b"chunked");
    }
    Err(Reason::UnknownTransferCoding)
}

pub(crate) fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
