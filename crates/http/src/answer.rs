//! Whole answers of our own: redirects, fixed responses, error pages.

use model::reason::Reason;

use crate::field_list::FieldList;
use crate::forward::{phrase, write_extra, write_framing, write_line, write_persistence, write_status_line};
use crate::message::{Framing, Method, Version};
use crate::syntax::push_decimal;

/// An answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Location`: as [`crate::template::location`] makes it.
    pub location: Option<&'a [u8]>,
    /// What went wrong, for an answer that tells of a failure.
    pub reason: Option<Reason>,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// The body; none for 204, 205 and 304.
    pub body: &'a [u8],
}

/// Writes an answer with `extra` fields, which stand in the place of its own of the same name. After HEAD no body
/// follows.
pub fn write(
    out: &mut Vec<u8>,
    answer: &Answer<'_>,
    (request, version): (Method, Version),
    extra: &FieldList,
    close: bool,
) {
    let Answer {
        status,
        content_type,
        location,
        reason,
        retry_after_s,
        body,
    } = *answer;
    write_status_line(out, status, phrase(status));
    let mut own = |name: &[u8], value: &[u8]| {
        if !extra.has(name) {
            write_line(out, name, value);
        }
    };
    if let Some(content_type) = content_type {
        own(b"Content-Type", content_type);
    }
    if let Some(location) = location {
        own(b"Location", location);
    }
    if let Some(reason) = reason {
        own(b"Cache-Control", b"no-store");
        own(b"X-Evenkeel-Reason", reason.code().as_bytes());
    }
    if let Some(seconds) = retry_after_s {
        let mut text = Vec::with_capacity(10);
        push_decimal(&mut text, u64::from(seconds));
        own(b"Retry-After", &text);
    }
    write_extra(out, extra);
    match status {
        204 | 304 => {}
        205 => write_framing(out, Framing::Length(0)),
        _ => write_framing(out, Framing::Length(body.len() as u64)),
    }
    write_persistence(out, version, close);
    out.extend_from_slice(b"\r\n");
    if request != Method::Head && !matches!(status, 204 | 205 | 304) {
        out.extend_from_slice(body);
    }
}
