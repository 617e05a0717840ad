//! Small texts for people: durations, times of day, counted nouns.

use std::time::Duration;

use model::calendar::date;
use model::state::Timestamp;

/// A duration in its two greatest units: `850ms`, `12s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let pair = |great: u64, great_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{great}{great_unit}")
        } else {
            format!("{great}{great_unit} {small}{small_unit}")
        }
    };
    match seconds {
        0 if time.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", time.as_millis()),
        1..60 if time.subsec_millis() == 0 => format!("{seconds}s"),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => pair(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// Times in sentences are for people: no milliseconds once there are seconds.
pub(crate) fn whole_seconds(time: Duration) -> Duration {
    if time.as_secs() == 0 {
        time
    } else {
        Duration::from_secs(time.as_secs())
    }
}

/// How long ago something was, in whole seconds; `-` for what never was.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    if then == Timestamp(0) {
        return "-".to_owned();
    }
    duration(Duration::from_secs(now.since(then).as_secs())).replace("0ms", "0s")
}

/// A moment in UTC: `2026-03-01 12:34:56Z`.
pub(crate) fn utc(at: Timestamp) -> String {
    let seconds = at.0 / 1000;
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// `1 backend`, `2 backends`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_greatest_units() {
        let cases = [
            (850, "850ms"),
            (1_500, "1.5s"),
            (12_000, "12s"),
            (200_000, "3m 20s"),
            (600_000, "10m"),
            (7_500_000, "2h 5m"),
            (349_200_000, "4d 1h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn what_never_was_has_no_age_and_now_is_zero_seconds_ago() {
        assert_eq!(ago(Timestamp(5_000), Timestamp(0)), "-");
        assert_eq!(ago(Timestamp(5_000), Timestamp(4_600)), "0s");
        assert_eq!(ago(Timestamp(65_000), Timestamp(4_600)), "1m");
    }

    /// Known moments, with a leap day and a turn of the year.
    #[test]
    fn a_moment_is_shown_in_utc() {
        assert_eq!(utc(Timestamp(0)), "1970-01-01 00:00:00Z");
        assert_eq!(utc(Timestamp(951_782_400_000)), "2000-02-29 00:00:00Z");
        assert_eq!(utc(Timestamp(1_735_689_599_000)), "2024-12-31 23:59:59Z");
        assert_eq!(utc(Timestamp(1_772_368_496_000)), "2026-03-01 12:34:56Z");
    }

    #[test]
    fn nouns_are_counted() {
        assert_eq!(counted(1, "backend"), "1 backend");
        assert_eq!(counted(0, "backend"), "0 backends");
    }
}
