//! Bytes from a network as text that no reader can be misled by: pure ASCII, no control characters, no quote that
//! ends a value, and never longer than asked.

use std::fmt::Write;

/// Writes what stands between the quotes of a JSON string, at most `most` bytes of it: ASCII only, everything else
/// as `\u` escapes; what is not UTF-8 becomes U+FFFD. It always ends at the end of an escape.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let end = out.len().saturating_add(most);
    let mut rest = bytes;
    loop {
        let plain = plain_length(rest);
        let fits = plain.min(end.saturating_sub(out.len()));
        let (run, after) = rest.split_at(fits);
        out.extend_from_slice(run);
        rest = after;
        if rest.is_empty() || fits < plain {
            return;
        }
        let (character, length) = first_character(rest);
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        let short = match character {
            '"' => Some(b'"'),
            '\\' => Some(b'\\'),
            '\n' => Some(b'n'),
            '\r' => Some(b'r'),
            '\t' => Some(b't'),
            _ => None,
        };
        let needed = if short.is_some() { 2 } else { 6 * units.len() };
        if out.len() + needed > end {
            return;
        }
        match short {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => units.iter().for_each(|unit| push_unit(out, *unit)),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Writes a value of the combined log format as nginx does: `"`, `\`, control characters and all beyond ASCII as
/// `\xHH`. At most `most` bytes; nothing at all is `-`.
pub(super) fn common(out: &mut Vec<u8>, bytes: &[u8], most: usize) {
    if bytes.is_empty() {
        out.push(b'-');
        return;
    }
    let end = out.len().saturating_add(most);
    let mut rest = bytes;
    loop {
        let plain = plain_length(rest);
        let fits = plain.min(end.saturating_sub(out.len()));
        let (run, after) = rest.split_at(fits);
        out.extend_from_slice(run);
        let Some((byte, after)) = after.split_first() else {
            return;
        };
        if fits < plain || out.len() + 4 > end {
            return;
        }
        let digit = |nibble: u8| DIGITS[usize::from(nibble)];
        out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
        rest = after;
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn push_unit(out: &mut Vec<u8>, unit: u16) {
    let digit = |shift: u16| DIGITS[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// The character that begins `bytes`, with its length; U+FFFD of one byte for what is not UTF-8.
fn first_character(bytes: &[u8]) -> (char, usize) {
    let longest = bytes.get(..4.min(bytes.len())).unwrap_or_default();
    let valid = match std::str::from_utf8(longest) {
        Ok(text) => text,
        Err(error) => longest
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(character) => (character, character.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// How many bytes at the beginning need no escape: visible ASCII and spaces, but `"` and `\`.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // A byte that is zero has its high bit set in this; bytes before the first zero never do.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut length = 0;
    let chunks = bytes.chunks_exact(8);
    for chunk in chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let special = zeros(word ^ (ONES * u64::from(b'"')))
            | zeros(word ^ (ONES * u64::from(b'\\')))
            | zeros(word ^ (ONES * 0x7f))
            | word.wrapping_sub(ONES * 0x20) & !word & HIGHS
            | word & HIGHS;
        if special != 0 {
            break;
        }
        length += 8;
    }
    let rest = bytes.get(length..).unwrap_or_default();
    let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\';
    length + rest.iter().position(|b| !plain(b)).unwrap_or(rest.len())
}

/// Writes a number in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes microseconds as milliseconds with three decimals.
pub(super) fn milliseconds(out: &mut Vec<u8>, microseconds: u64) {
    decimal(out, microseconds / 1000);
    let rest = (microseconds % 1000) as u16;
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Writes a value that shows itself, without making a string of it.
pub(super) fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // A vector takes everything.
    let _ = write!(Bytes(out), "{value}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn as_json(bytes: &[u8], most: usize) -> String {
        let mut out = Vec::new();
        json(&mut out, bytes, most);
        String::from_utf8(out).unwrap()
    }

    fn as_common(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        common(&mut out, bytes, 1000);
        String::from_utf8(out).unwrap()
    }

    /// Every byte on its own, and at every place within a word: the string that a JSON parser reads back is what
    /// was sent, or U+FFFD.
    #[test]
    fn every_byte_comes_back_out_of_json() {
        for byte in 0..=u8::MAX {
            for at in 0..9 {
                let mut bytes = *b"abcdefghij";
                bytes[at] = byte;
                let text = format!("\"{}\"", as_json(&bytes, 1000));
                assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
                let back: String = serde_json::from_str(&text).unwrap();
                assert_eq!(back, String::from_utf8_lossy(&bytes), "{byte}");
            }
        }
    }

    #[test]
    fn characters_beyond_ascii_are_kept_as_escapes() {
        for text in ["grüße", "日本", "🚢 ahoy", "\u{85}\u{2028}\u{9b}31m"] {
            let back: String =
                serde_json::from_str(&format!("\"{}\"", as_json(text.as_bytes(), 1000))).unwrap();
            assert_eq!(back, text);
        }
        assert_eq!(as_json(b"\xf0\x9f\x9a", 100), "\\ufffd\\ufffd\\ufffd");
        assert_eq!(as_json("🚢".as_bytes(), 100), "\\ud83d\\udea2");
    }

    /// A limit cuts between characters and never within an escape.
    #[test]
    fn a_limit_leaves_a_valid_string() {
        let bytes = "ab\"\n\u{1}é🚢".as_bytes();
        for most in 0..40 {
            let text = as_json(bytes, most);
            assert!(text.len() <= most);
            let _valid: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        }
    }

    #[test]
    fn the_common_format_has_no_quote_and_no_line_break_of_a_client() {
        assert_eq!(
            as_common(b"a\"b\\c\r\nd\x7f\xff"),
            "a\\x22b\\x5cc\\x0d\\x0ad\\x7f\\xff"
        );
        assert_eq!(as_common(b""), "-");
        let mut out = Vec::new();
        common(&mut out, b"abc\ndef", 6);
        assert_eq!(out, b"abc");
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        let mut out = Vec::new();
        for number in [0, 7, 10, 999, u64::MAX] {
            out.clear();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
        out.clear();
        milliseconds(&mut out, 1_234_056);
        assert_eq!(out, b"1234.056");
    }
}
