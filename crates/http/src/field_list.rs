//! Header fields of our own: what is added to a message when its head is written.
//!
//! Parsed heads are spans into the received bytes and cannot grow; whatever a proxy adds (rules of a route,
//! request ids, cookies) is collected here and written behind the fields that came. Reused from request to
//! request, so that on the steady path nothing is allocated.

use crate::message::Span;

/// Fields in the order added, over one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldList {
    bytes: Vec<u8>,
    fields: Vec<(Span, Span)>,
}

impl FieldList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields; keeps the capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Forgets what was added when there were more than `len` fields.
    pub fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
        let end = self.fields.last().map_or(0, |(_, value)| value.end as usize);
        self.bytes.truncate(end);
    }

    /// Adds a field. The caller answers for the name being a token and the value holding no CR, LF or NUL
    /// (RFC 9110 section 5): both come from the config or from parsed messages.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_with(name, |out| out.extend_from_slice(value));
    }

    /// Adds a field whose value `write` appends to the buffer, which holds other fields already.
    pub fn push_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len().max(middle);
        self.fields
            .push((Span::new(start, middle), Span::new(middle, end)));
    }

    /// Takes away all fields of this name (any case).
    pub fn remove(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.fields
            .retain(|(own, _)| !own.of(bytes).eq_ignore_ascii_case(name));
    }

    /// Whether there is a field of this name (any case).
    pub fn has(&self, name: &[u8]) -> bool {
        self.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|(name, value)| (name.of(&self.bytes), value.of(&self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_taken_away_is_gone_whatever_the_letters_of_its_name() {
        let mut list = FieldList::new();
        list.push(b"X-A", b"1");
        list.push(b"x-a", b"2");
        list.push(b"X-B", b"3");
        assert!(list.has(b"X-a") && !list.has(b"X-C"));
        list.remove(b"X-a");
        assert_eq!(list.iter().collect::<Vec<_>>(), [(&b"X-B"[..], &b"3"[..])]);
    }

    #[test]
    fn fields_come_out_as_they_went_in_and_clearing_forgets_them() {
        let mut list = FieldList::new();
        list.push(b"X-A", b"1");
        list.push_with(b"X-B", |out| out.extend_from_slice(b"two"));
        list.push(b"X-Empty", b"");
        let fields: Vec<_> = list.iter().collect();
        assert_eq!(
            fields,
            [(&b"X-A"[..], &b"1"[..]), (b"X-B", b"two"), (b"X-Empty", b"")]
        );
        list.clear();
        assert!(list.is_empty() && list.iter().next().is_none());
    }
}
