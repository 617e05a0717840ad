//! Content codings: which one a client accepts, and which responses may be given one (RFC 9110 sections 8.4 and
//! 12.5.3).
//!
//! Refused on principle: guessing what a client takes that did not say so, encoding what a backend has encoded or
//! signed, and, unless asked, encoding what may hold secrets: the length of a compressed text tells about its
//! content to whoever can put a part of it there (BREACH).

use model::config::{Compression, Encoding};

use crate::fields;
use crate::message::{Field, FieldKind, Framing, Method};
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::syntax::{list, trim};
use crate::{FieldList, message};

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// It is encoded.
    Encode(Encoding),
    /// It stays as it is, for this client: another one might get it encoded.
    Plain,
    /// It stays as it is for every client; why, in a few words.
    Never(&'static str),
}

/// What becomes of `response`, whose head stands in `answer`, as the answer to `request`, whose head stands in
/// `asked`.
pub fn decide(
    config: &Compression,
    (request, asked): (&RequestHead, &[u8]),
    (response, answer): (&ResponseHead, &[u8]),
) -> Coding {
    if let Some(why) = unfit(config, response, answer) {
        return Coding::Never(why);
    }
    if !config.with_credentials {
        let secret = request.field(asked, "authorization").is_some()
            || request.fields.iter().any(|f| f.kind == FieldKind::Cookie)
            || response.field(answer, "set-cookie").is_some();
        if secret {
            return Coding::Never("it may hold secrets");
        }
    }
    if request.method == Method::Head {
        return Coding::Plain;
    }
    let accepted = values(&request.fields, asked, b"accept-encoding");
    match negotiate(accepted, &config.encodings) {
        Some(encoding) => Coding::Encode(encoding),
        None => Coding::Plain,
    }
}

/// Why a response is encoded for no client.
fn unfit(config: &Compression, response: &ResponseHead, answer: &[u8]) -> Option<&'static str> {
    let has = |name| response.field(answer, name).is_some();
    if matches!(response.status, 206 | 304) || has("content-range") {
        return Some("it is a part");
    }
    if has("content-encoding") {
        return Some("it is encoded already");
    }
    let content_type = response.field(answer, "content-type").unwrap_or_default();
    if !is_listed(&config.types, content_type) {
        return Some("its type is not listed");
    }
    let length = match response.framing {
        Framing::Length(length) => Some(length),
        _ => response.content_length,
    };
    if length.is_some_and(|length| length < config.minimum_size || length == 0) {
        return Some("it is small");
    }
    let directives = values(&response.fields, answer, b"cache-control").flat_map(list);
    let mut directives = directives.filter(|d| d.eq_ignore_ascii_case(b"no-transform"));
    if directives.next().is_some() {
        return Some("no-transform");
    }
    // Sums over what is sent would not hold any more (RFC 9530).
    let sums = ["content-digest", "repr-digest", "digest", "content-md5"];
    if sums.into_iter().any(has) {
        return Some("it has a sum of its content");
    }
    let bodiless = matches!(response.status, 0..=199 | 204 | 205);
    bodiless.then_some("it has no body")
}

/// Whether a `Content-Type` is in a list of types in lower case.
fn is_listed(types: &[String], value: &[u8]) -> bool {
    let end = value.iter().position(|&b| b == b';').unwrap_or(value.len());
    let found = trim(value.get(..end).unwrap_or_default());
    types.iter().any(|wanted| match wanted.strip_suffix('*') {
        // The slash stays: `text/`.
        Some(start) => fields::starts_with(found, start.as_bytes()),
        None => found.eq_ignore_ascii_case(wanted.as_bytes()),
    })
}

/// The coding to use for a client that sent these `Accept-Encoding` values; `None` for none. Of those offered, the
/// one with the greatest weight; of equals, the first. A client that sent nothing takes nothing encoded, as far as
/// we know, and one that likes `identity` better gets that.
pub fn negotiate<'v>(accepted: impl Iterator<Item = &'v [u8]>, offered: &[Encoding]) -> Option<Encoding> {
    let mut named = [None; 3];
    let mut rest = None;
    let mut identity = None;
    for (coding, weight) in accepted.flat_map(list).filter_map(weighted) {
        let slot = match index(coding) {
            Some(at) => named.get_mut(at),
            None if coding == b"*" => Some(&mut rest),
            None if coding.eq_ignore_ascii_case(b"identity") => Some(&mut identity),
            None => None,
        };
        if let Some(slot) = slot {
            // Named twice, what is said first counts.
            slot.get_or_insert(weight);
        }
    }
    let weight = |encoding: Encoding| {
        let at = index(encoding.as_str().as_bytes()).unwrap_or(0);
        named.get(at).copied().flatten().or(rest).unwrap_or(0)
    };
    let mut best = None;
    for &encoding in offered {
        let weight = weight(encoding);
        if weight > best.map_or(0, |(_, w)| w) {
            best = Some((encoding, weight));
        }
    }
    best.filter(|(_, weight)| identity.is_none_or(|plain| plain <= *weight))
        .map(|(encoding, _)| encoding)
}

fn index(coding: &[u8]) -> Option<usize> {
    // RFC 9110 section 8.4.1.3: `x-gzip` means the same.
    let names: [&[&[u8]]; 3] = [&[b"gzip", b"x-gzip"], &[b"br"], &[b"zstd"]];
    names
        .iter()
        .position(|known| known.iter().any(|name| coding.eq_ignore_ascii_case(name)))
}

/// A coding with its weight in thousandths (RFC 9110 section 12.4.2); `None` when the weight is malformed.
fn weighted(element: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = element.iter().position(|&b| b == b';') else {
        return Some((element, 1000));
    };
    let (coding, parameter) = element.split_at(at);
    let parameter = trim(parameter.get(1..)?);
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    Some((trim(coding), thousandths(value)?))
}

/// `0` to `1` with up to three decimals.
fn thousandths(value: &[u8]) -> Option<u16> {
    let (&whole, decimals) = value.split_first()?;
    let decimals = match decimals {
        [] => decimals,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut number = u16::from(match whole {
        b'0' | b'1' => whole - b'0',
        _ => return None,
    });
    for place in 0..3 {
        let digit = *decimals.get(place).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u16::from(digit - b'0');
    }
    (number <= 1000).then_some(number)
}

fn values<'b>(
    fields: &'b [message::Field],
    buf: &'b [u8],
    name: &'static [u8],
) -> impl Iterator<Item = &'b [u8]> {
    fields
        .iter()
        .filter(move |f| f.kind == FieldKind::Other && f.name.of(buf).eq_ignore_ascii_case(name))
        .map(|f| f.value.of(buf))
}

/// Edits the head of a response according to its [`Coding`]: says by what it varies and, when it is encoded, names
/// the coding, weakens its validator and takes back the offer of parts. Its length is the caller's.
pub fn edit(coding: Coding, response: &mut ResponseHead, answer: &[u8], extra: &mut FieldList) {
    if matches!(coding, Coding::Never(_)) {
        return;
    }
    let varies = |value: &[u8]| value == b"*" || value.eq_ignore_ascii_case(b"accept-encoding");
    if !values(&response.fields, answer, b"vary")
        .flat_map(list)
        .any(varies)
    {
        extra.push(b"Vary", b"Accept-Encoding");
    }
    let Coding::Encode(encoding) = coding else {
        return;
    };
    extra.push(b"Content-Encoding", encoding.as_str().as_bytes());
    let mut tag = None;
    for field in &mut response.fields {
        let name = field.name.of(answer);
        if field.kind == FieldKind::Other && name.eq_ignore_ascii_case(b"etag") {
            tag = tag.or(Some(field.value));
            drop_field(field);
        } else if name.eq_ignore_ascii_case(b"accept-ranges") {
            drop_field(field);
        }
    }
    // What is encoded is not the same bytes, only the same content (RFC 9110 section 8.8.1).
    let tag = tag.map(|tag| tag.of(answer)).unwrap_or_default();
    match tag {
        [] => {}
        [b'W', b'/', ..] => extra.push(b"ETag", tag),
        _ => extra.push_with(b"ETag", |out| {
            out.extend_from_slice(b"W/");
            out.extend_from_slice(tag);
        }),
    }
}

fn drop_field(field: &mut Field) {
    field.kind = FieldKind::Dropped;
}
