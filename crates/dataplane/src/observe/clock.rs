//! The wall clock of a shard: read once a tick, carried on by the steady clock, and written from a text that is
//! kept for a second.

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{FieldList, ResponseHead};
use model::calendar::date;

/// Microseconds in a day.
const DAY_US: u64 = 86_400_000_000;

/// The wall clock of a shard.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// Unix time of the steady clock's zero, in microseconds.
    zero_us: Cell<u64>,
    /// A second, with its text in both formats.
    shown: RefCell<Shown>,
}

#[derive(Debug)]
struct Shown {
    second: u64,
    /// `2026-11-21T07:30:00`
    rfc3339: [u8; 19],
    /// `21/Nov/2026:07:30:00 +0000`
    common: [u8; 26],
}

impl Default for WallClock {
    fn default() -> Self {
        Self {
            zero_us: Cell::new(0),
            shown: RefCell::new(Shown::at(0)),
        }
    }
}

impl WallClock {
    /// Reads the clock of the system; `now_us` is the steady clock's time.
    pub(crate) fn set(&self, now_us: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.zero_us.set(unix_us.saturating_sub(now_us));
    }

    /// Unix time in microseconds at `now_us` of the steady clock.
    pub(crate) fn unix_us(&self, now_us: u64) -> u64 {
        self.zero_us.get().saturating_add(now_us)
    }

    /// Writes a Unix time in microseconds as `2026-11-21T07:30:00.123Z`.
    pub(super) fn write_rfc3339(&self, out: &mut Vec<u8>, unix_us: u64) {
        let mut shown = self.shown.borrow_mut();
        out.extend_from_slice(&shown.moved_to(unix_us / 1_000_000).rfc3339);
        let ms = unix_us / 1000 % 1000;
        let digit = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }

    /// Writes a Unix time in microseconds as `21/Nov/2026:07:30:00 +0000`.
    pub(super) fn write_common(&self, out: &mut Vec<u8>, unix_us: u64) {
        let mut shown = self.shown.borrow_mut();
        out.extend_from_slice(&shown.moved_to(unix_us / 1_000_000).common);
    }
}

impl Shown {
    fn moved_to(&mut self, second: u64) -> &Self {
        if second != self.second {
            *self = Self::at(second);
        }
        self
    }

    fn at(second: u64) -> Self {
        const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let (year, month, day) = date(second / (DAY_US / 1_000_000));
        let (hour, minute, of_minute) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let mut rfc3339 = *b"0000-00-00T00:00:00";
        put(&mut rfc3339, 0, year / 100);
        put(&mut rfc3339, 2, year);
        for (at, number) in [(5, month), (8, day), (11, hour), (14, minute), (17, of_minute)] {
            put(&mut rfc3339, at, number);
        }
        let mut common = *b"00/Jan/0000:00:00:00 +0000";
        for (at, number) in [
            (0, day),
            (7, year / 100),
            (9, year),
            (12, hour),
            (15, minute),
            (18, of_minute),
        ] {
            put(&mut common, at, number);
        }
        let name = 3 * usize::try_from(month - 1).unwrap_or(0);
        if let (Some(to), Some(from)) = (common.get_mut(3..6), MONTHS.get(name..name + 3)) {
            to.copy_from_slice(from);
        }
        Self {
            second,
            rfc3339,
            common,
        }
    }
}

/// Gives a response that came without a time that of its arrival (RFC 9110 section 6.6.1).
pub(crate) fn add_date(response: &ResponseHead, buffer: &[u8], extra: &mut FieldList) {
    if response.field(buffer, "date").is_none() && !extra.has(b"Date") {
        extra.push(b"Date", &http_date_now());
    }
}

/// Now, as HTTP writes it.
pub(crate) fn http_date_now() -> [u8; 29] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    http_date(now.as_secs())
}

/// A time, in seconds since 1970, as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn http_date(unix_s: u64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    let day = unix_s / (DAY_US / 1_000_000);
    let weekday = 3 * usize::try_from(day % 7).unwrap_or(0);
    let shown = Shown::at(unix_s);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // Day, month, year and time stand in both in the same order: `06/Nov/1994:08:49:37`.
    for (to, from) in [(5..7, 0..2), (8..11, 3..6), (12..16, 7..11), (17..25, 12..20)] {
        if let (Some(to), Some(from)) = (text.get_mut(to), shown.common.get(from)) {
            to.copy_from_slice(from);
        }
    }
    if let (Some(to), Some(from)) = (text.get_mut(0..3), DAYS.get(weekday..weekday + 3)) {
        to.copy_from_slice(from);
    }
    text
}

/// Writes the last two digits of `number` at `at`.
fn put(text: &mut [u8], at: usize, number: u64) {
    if let Some([tens, ones]) = text.get_mut(at..at + 2) {
        *tens = b'0' + (number / 10 % 10) as u8;
        *ones = b'0' + (number % 10) as u8;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn both(unix_us: u64) -> (String, String) {
        let clock = WallClock::default();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        clock.write_rfc3339(&mut a, unix_us);
        clock.write_common(&mut b, unix_us);
        (String::from_utf8(a).unwrap(), String::from_utf8(b).unwrap())
    }

    /// The example of RFC 9110 section 5.6.7, and leap days, checked with `date -u`.
    #[test]
    fn times_as_http_writes_them() {
        for (second, written) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&http_date(second)), Ok(written));
        }
    }

    /// Leap days, ends of years and centuries, checked with `date -u`.
    #[test]
    fn times_are_those_of_the_calendar() {
        for (second, rfc3339, common) in [
            (0, "1970-01-01T00:00:00.007Z", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400,
                "2000-02-29T00:00:00.007Z",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_709_251_199,
                "2024-02-29T23:59:59.007Z",
                "29/Feb/2024:23:59:59 +0000",
            ),
            (
                1_795_246_200,
                "2026-11-21T07:30:00.007Z",
                "21/Nov/2026:07:30:00 +0000",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00.007Z",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ] {
            assert_eq!(both(second * 1_000_000 + 7_999), (rfc3339.into(), common.into()));
        }
    }

    #[test]
    fn the_text_moves_with_the_second() {
        let clock = WallClock::default();
        for second in [5, 6, 5] {
            let mut out = Vec::new();
            clock.write_rfc3339(&mut out, second * 1_000_000);
            assert!(out.ends_with(format!("{second}.000Z").as_bytes()));
        }
    }

    #[test]
    fn the_wall_clock_is_that_of_the_system() {
        let clock = WallClock::default();
        clock.set(1_000_000);
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let shown = clock.unix_us(1_000_000);
        assert!(u128::from(shown).abs_diff(system.as_micros()) < 60_000_000);
        assert_eq!(clock.unix_us(1_000_005), shown + 5);
    }
}
