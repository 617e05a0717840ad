//! When a node looks at the head by itself: the plan B of who is told of changes by a watch or a hint.
//!
//! Each look is one small read, and nodes that started together must not look together: every interval is drawn
//! anew, so that they spread within a few rounds and stay spread. What happens to all nodes at once, a store that
//! restarts or the power that returns, is answered over a time, not in an instant (`tests/spread_of_reads.rs` shows
//! a thousand of them).

use std::time::Duration;

/// Mean time between two looks.
pub const EVERY: Duration = Duration::from_secs(30);
/// Share of [`EVERY`] by which each interval is moved, in percent, either way.
pub const JITTER_PERCENT: u64 = 20;
/// Longest wait after a hint: the watch usually brings the change itself in this time, and who has no watch is spread
/// over it.
pub const HINT_SPREAD: Duration = Duration::from_millis(50);
/// Longest wait before a node asks again that has lost the store: all lost it together. Also of whatever else an LB
/// server follows, each for itself, and of one that has started with what its disk had.
pub const RETURN_SPREAD: Duration = Duration::from_secs(2);
/// Longest wait of one that has started with nothing.
pub const START_SPREAD: Duration = Duration::from_millis(500);

/// Time to the next look: 24 to 36 s. `random` is any number.
#[must_use]
pub fn interval(random: u64) -> Duration {
    let mean = EVERY.as_millis() as u64;
    let most = mean * JITTER_PERCENT / 100;
    Duration::from_millis(mean - most + random % (2 * most + 1))
}

/// Time from the start of a node to its first look. `known`: it serves what was served last.
#[must_use]
pub fn first(known: bool, random: u64) -> Duration {
    spread(if known { RETURN_SPREAD } else { START_SPREAD }, random)
}

/// Time to the next try when the store was lost or not found, for the `failures`th time in a row: the first time
/// anything up to [`RETURN_SPREAD`], so that nodes that lost it together come back one by one; from then on not less
/// than half of that.
#[must_use]
pub fn again(failures: u32, random: u64) -> Duration {
    let least = match failures {
        0 | 1 => Duration::ZERO,
        _ => RETURN_SPREAD / 2,
    };
    least + spread(RETURN_SPREAD - least, random)
}

/// A time up to `most`; `random` is any number.
#[must_use]
pub fn spread(most: Duration, random: u64) -> Duration {
    Duration::from_micros(random % (most.as_micros() as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_30_seconds_give_or_take_a_fifth() {
        let drawn: Vec<u64> = (0..20_000)
            .map(|random| interval(random).as_millis() as u64)
            .collect();
        assert_eq!(drawn.iter().min(), Some(&24_000));
        assert_eq!(drawn.iter().max(), Some(&36_000));
        assert!(interval(u64::MAX) <= Duration::from_secs(36));
    }

    #[test]
    fn a_spread_stays_below_its_bound() {
        assert_eq!(spread(Duration::ZERO, 7), Duration::ZERO);
        let widest = (0..10_000)
            .map(|n| spread(Duration::from_millis(5), n * 7919))
            .max();
        assert!(widest.is_some_and(|widest| widest <= Duration::from_millis(5) && widest > Duration::from_millis(4)));
    }
}
