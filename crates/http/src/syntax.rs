//! Byte classes and small grammars of RFC 9110 and RFC 3986 that several modules share.

/// Byte of a token (RFC 9110 section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// Byte of a field value: HTAB, SP, visible, obs-text; no other control (RFC 9110 section 5.5).
pub(crate) const VALUE: u8 = 1 << 1;
/// Byte that is never part of a request target: control, SP, `#`, backslash, 0x80 and above.
pub(crate) const NOT_TARGET: u8 = 1 << 2;
/// Visible byte outside the URI grammar that is forwarded percent-encoded.
pub(crate) const ENCODE: u8 = 1 << 3;
/// `%`, which begins an escape.
pub(crate) const PERCENT: u8 = 1 << 4;
/// Unreserved (RFC 3986 section 2.3).
pub(crate) const UNRESERVED: u8 = 1 << 5;
/// Letter, digit or hyphen, of which nearly all names of fields are.
pub(crate) const PLAIN: u8 = 1 << 6;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric() || in_set(b, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            class |= VALUE;
        }
        if b <= b' ' || b >= 0x7f || b == b'#' || b == b'\\' {
            class |= NOT_TARGET;
        }
        if in_set(b, b"\"<>^`{|}") {
            class |= ENCODE;
        }
        if b == b'%' {
            class |= PERCENT;
        }
        if b.is_ascii_alphanumeric() || in_set(b, b"-._~") {
            class |= UNRESERVED;
        }
        if b.is_ascii_alphanumeric() || b == b'-' {
            class |= PLAIN;
        }
        table[i] = class;
        i += 1;
    }
    table
}

const fn in_set(b: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == b {
            return true;
        }
        i += 1;
    }
    false
}

/// The classes of a byte.
#[inline]
pub(crate) fn class(b: u8) -> u8 {
    CLASS[usize::from(b)]
}

/// Whether the bytes are a token.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| class(b) & TOKEN != 0)
}

/// Whether the bytes may stand in a field value or reason phrase.
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| class(b) & VALUE != 0)
}

/// Without the optional white space (SP, HTAB) around it.
#[inline]
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().take_while(|b| blank(b)).count();
    let bytes = bytes.get(start..).unwrap_or_default();
    let end = bytes.len() - bytes.iter().rev().take_while(|b| blank(b)).count();
    bytes.get(..end).unwrap_or_default()
}

/// Elements of a comma-separated list, trimmed; empty ones included.
#[inline]
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// A decimal number of 1 to 19 digits, at most 2^63 - 1. No sign, no white space.
#[inline]
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number: u64 = 0;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        // 19 nines fit into a u64.
        number = number * 10 + u64::from(b - b'0');
    }
    (number <= i64::MAX as u64).then_some(number)
}

/// Value of a hexadecimal digit.
#[inline]
pub(crate) fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// Appends a decimal number.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_only_and_bounded() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "+1",
            "-1",
            "1_0",
            "0x1",
            " 1",
            "1 ",
            "9223372036854775808",
            "00000000000000000001",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 7, 10, 65_535, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn trimming_takes_spaces_and_tabs_only() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
    }
}
