//! Durations, sizes and percentages as people write them: `5s`, `64KiB`, `20%`.
//!
//! A duration is whole hours, minutes, seconds and milliseconds in that order (`1m30s`); a size is one number
//! with a binary (`KiB`) or decimal (`KB`) unit. Fractions are refused: `1.5s` is `1s500ms`, and there is
//! exactly one way to say it back.

use std::time::Duration;

/// Why a text is not a duration, size or percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error(
        "`{0}` is not a duration: write hours, minutes, seconds and milliseconds as in `1m30s` or `250ms`"
    )]
    Duration(String),
    /// Not a size.
    #[error("`{0}` is not a size: write a whole number with a unit as in `64KiB` or `10MB`")]
    Size(String),
    /// Not a percentage.
    #[error("`{0}` is not a percentage: write a whole number with a percent sign as in `20%`")]
    Percent(String),
}

/// Duration units with their milliseconds, in the order in which they may follow each other.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Size units with their bytes; the binary ones first, greatest first, as [`format_size`] tries them.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Pattern (ECMA 262) of what [`parse_duration`] takes, for schemas; the text may not be empty.
pub(crate) const DURATION_PATTERN: &str = "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
/// Pattern of what [`parse_size`] takes.
pub(crate) const SIZE_PATTERN: &str = "^[0-9]+([KMG]iB|[kKMG]?B)$";
/// Pattern of what [`parse_percent`] takes.
pub(crate) const PERCENT_PATTERN: &str = "^[0-9]+%$";

/// Parses a duration such as `5s`, `250ms`, `1m30s` or `2h`.
///
/// # Errors
/// [`UnitError::Duration`] on anything else, a missing unit and what overflows 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    let mut rest = text;
    let mut units = DURATION_UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(u, _)| *u == unit).ok_or_else(wrong)?;
        let (used, later) = units.split_at(at + 1);
        let scale = used.last().map_or(1, |(_, ms)| *ms);
        total = number
            .checked_mul(scale)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(wrong)?;
        units = later;
        rest = after;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_millis(total))
}

/// Parses a size in bytes such as `64KiB`, `10MB` or `500B`.
///
/// # Errors
/// [`UnitError::Size`] on anything else, a missing unit and what overflows 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Size(text.to_owned());
    let (number, unit) = leading_number(text).ok_or_else(wrong)?;
    let (_, scale) = SIZE_UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
    number.checked_mul(*scale).ok_or_else(wrong)
}

/// Parses a percentage such as `20%`.
///
/// # Errors
/// [`UnitError::Percent`] on anything else and above 65535.
pub fn parse_percent(text: &str) -> Result<u16, UnitError> {
    let wrong = || UnitError::Percent(text.to_owned());
    match leading_number(text) {
        Some((number, "%")) => u16::try_from(number).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Writes a duration so that [`parse_duration`] reads the same back; below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in DURATION_UNITS {
        if left >= scale {
            text.push_str(&format!("{}{unit}", left / scale));
            left %= scale;
        }
    }
    text
}

/// Writes a size in the greatest binary unit that is exact, else the greatest decimal one, else bytes.
pub fn format_size(bytes: u64) -> String {
    let exact = SIZE_UNITS
        .iter()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    let (unit, scale) = exact.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// Splits leading digits from what follows; `None` when there are none or too many.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_in_each_unit_and_in_falling_order() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1h1m1s1ms", 3_661_001),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "1.5s",
            "-1s",
            "1s1m",
            "1s1s",
            "5x",
            "99999999999999999999s",
            "9999999999999999h",
            "٣s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_size_has_binary_and_decimal_units() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("10MB", 10_000_000),
            ("500B", 500),
            ("1kB", 1000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "KiB", "64kib", "1 MiB", "1.5MiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_percentage_needs_its_sign() {
        assert_eq!(parse_percent("125%"), Ok(125));
        for text in ["", "20", "%", "20 %", "-1%", "70000%"] {
            assert!(parse_percent(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for ms in [0, 1, 999, 1000, 61_000, 90_500, 3_600_000, 86_400_001] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1000, 1024, 1025, 65_536, 10_000_000, 1 << 40] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(65_536), "64KiB");
        assert_eq!(format_duration(Duration::from_millis(90_250)), "1m30s250ms");
    }
}
