//! A [`ResponseHead`] as the header list of an HTTP/2 response (RFC 9113 section 8.3.2).

use crate::field_list::FieldList;
use crate::fields;
use crate::message::{FieldKind, Framing};
use crate::response::ResponseHead;

/// Names and values for the client: what the backend sent and `extra`, without what belongs to its connection.
/// Names stand as they came; the caller writes them in lower case. `Content-Length` is [`content_length`].
pub fn response_fields<'a>(
    buf: &'a [u8],
    head: &'a ResponseHead,
    extra: &'a FieldList,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let came = head.fields.iter().filter(|field| field.kind == FieldKind::Other);
    let ours = extra
        .iter()
        .filter(|(name, _)| fields::response_kind(name) == FieldKind::Other);
    came.map(move |field| (field.name.of(buf), field.value.of(buf)))
        .chain(ours)
}

/// The length of the body, where it is known; to HEAD and of 304, that of the body which does not follow.
pub fn content_length(head: &ResponseHead) -> Option<u64> {
    match head.framing {
        Framing::Length(length) => Some(length),
        Framing::None => head.content_length,
        Framing::Chunked | Framing::UntilClose => None,
    }
}
