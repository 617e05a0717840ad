//! The name of a request: taken over from a peer that is believed, or a new UUID of version 7.

use crate::trace::put_hex;

/// Most bytes of an id that is taken over.
pub const MAX_REQUEST_ID: usize = 128;

/// The name of a request. Its bytes are visible ASCII without quotes, commas and backslashes: it can stand in a
/// header field, a log line and a URL's path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; MAX_REQUEST_ID],
    length: u8,
}

impl RequestId {
    /// A new id (RFC 9562 section 5.7): the time in milliseconds since 1970, then 74 random bits. Ids sort by
    /// time, and are no secrets: whoever knows some may guess others.
    pub fn new(unix_ms: u64, random: [u64; 2]) -> Self {
        let time = unix_ms.to_be_bytes();
        let [a, b] = random.map(u64::to_be_bytes);
        let mut uuid = [0; 16];
        let parts = time[2..].iter().chain(&a[..2]).chain(&b);
        for (byte, part) in uuid.iter_mut().zip(parts) {
            *byte = *part;
        }
        uuid[6] = uuid[6] & 0x0f | 0x70;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let mut id = Self {
            bytes: [0; MAX_REQUEST_ID],
            length: 36,
        };
        // Five groups of hexadecimal digits with dashes between them.
        for (at, from, to) in [(0, 0, 4), (9, 4, 6), (14, 6, 8), (19, 8, 10), (24, 10, 16)] {
            put_hex(&mut id.bytes, at, &uuid[from..to]);
        }
        for at in [8, 13, 18, 23] {
            id.bytes[at] = b'-';
        }
        id
    }

    /// An id that somebody else gave; `None` when it is empty, over [`MAX_REQUEST_ID`] bytes, or has other
    /// characters than letters, digits and `-_.~:;=+/@`.
    pub fn accept(value: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~:;=+/@".contains(b);
        if value.is_empty() || !value.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; MAX_REQUEST_ID];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self {
            bytes,
            length: u8::try_from(value.len()).ok()?,
        })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9562, appendix A.6.
    #[test]
    fn a_new_id_is_a_uuid_of_version_7() {
        let id = RequestId::new(0x017f_22e2_79b0, [0xfcc3_u64 << 48, 0xd8c4_dc0c_0c07_398f]);
        assert_eq!(id.as_str(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        let greatest = RequestId::new(u64::MAX, [u64::MAX; 2]);
        assert_eq!(greatest.as_str(), "ffffffff-ffff-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn ids_sort_by_time() {
        let (older, newer) = (
            RequestId::new(1_000, [u64::MAX; 2]),
            RequestId::new(1_001, [0; 2]),
        );
        assert!(older.as_str() < newer.as_str());
    }

    #[test]
    fn an_id_is_taken_over_when_it_can_stand_anywhere() {
        for text in ["a", "Root=1-67891233-abcdef;Parent=1", &"x".repeat(128)] {
            assert_eq!(RequestId::accept(text.as_bytes()).unwrap().as_str(), text);
        }
        for bytes in [
            &b""[..],
            b"a b",
            b"a\"b",
            b"a\\b",
            b"a,b",
            b"a\nb",
            b"\xff",
            &[b'x'; 129],
        ] {
            assert_eq!(RequestId::accept(bytes), None, "{bytes:?}");
        }
    }
}
