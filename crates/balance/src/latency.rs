//! A peak-sensitive moving average of latency in one word.
//!
//! It rises at once to a slower response and sinks gradually to faster ones; unheard of, it sinks by itself. That
//! last rule is what keeps a server that was slow once from being avoided for ever: its expected latency falls
//! until it is tried again, and after [`STALE_US`] nothing is held against it any more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time in which an old figure loses 63 % of its say: 10 s, in microseconds.
pub const DECAY_US: u64 = 10_000_000;
/// Age at which a figure counts as unknown: 30 s, in microseconds. An unknown server with nothing in flight is
/// preferred to any known one, so each is tried at least this often while there is traffic that draws it.
pub const STALE_US: u64 = 3 * DECAY_US;

/// A failure counts as a response this slow, or twice the present figure if that is more: a server that fails
/// fast must not look like a fast server.
const FAILURE_US: f32 = 1_000_000.0;
/// Greatest figure a failure can lead to.
const FAILURE_MAX_US: f32 = 60_000_000.0;

/// Times are kept in units of 1.024 ms, in 32 bits: they wrap after 50 days, and then only for a server unheard of
/// for all that time, which looks fresh for a moment.
const STAMP_SHIFT: u32 = 10;
const DECAY_STAMPS: f32 = (DECAY_US >> STAMP_SHIFT) as f32;
const STALE_STAMPS: u32 = (STALE_US >> STAMP_SHIFT) as u32;

/// High half: time of the last observation; low half: the figure in microseconds as `f32` (0: none).
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// Takes in a response that took this long.
    pub(crate) fn observe(&self, latency_us: u64, now_us: u64) {
        self.update(now_us, |_| (latency_us as f32).max(1.0));
    }

    /// Takes in a failure.
    pub(crate) fn observe_failure(&self, now_us: u64) {
        self.update(now_us, |held| (held * 2.0).clamp(FAILURE_US, FAILURE_MAX_US));
    }

    /// Expected latency in microseconds; `None` when never observed, or too long ago.
    pub(crate) fn expected_us(&self, now_us: u64) -> Option<f32> {
        let word = self.0.load(Relaxed);
        let held = f32::from_bits(word as u32);
        let age = age(word, stamp(now_us));
        if held == 0.0 || age > STALE_STAMPS {
            return None;
        }
        Some(held * remaining(age))
    }

    /// Nothing is known any more.
    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn update(&self, now_us: u64, sample: impl Fn(f32) -> f32) {
        let now = stamp(now_us);
        let step = |word: u64| {
            let held = f32::from_bits(word as u32);
            let sample = sample(held);
            let new = if sample >= held {
                sample
            } else {
                let keep = remaining(age(word, now));
                held * keep + sample * (1.0 - keep)
            };
            Some((u64::from(now) << 32) | u64::from(new.to_bits()))
        };
        // The closure always gives a value, so this cannot fail.
        let _ = self.0.fetch_update(Relaxed, Relaxed, step);
    }
}

fn stamp(now_us: u64) -> u32 {
    (now_us >> STAMP_SHIFT) as u32
}

/// Units since the word was written; 0 when it was written later than `now` by another thread's clock.
fn age(word: u64, now: u32) -> u32 {
    let age = now.wrapping_sub((word >> 32) as u32);
    if age > u32::MAX / 2 { 0 } else { age }
}

fn remaining(age: u32) -> f32 {
    (-(age as f32) / DECAY_STAMPS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn rises_at_once_and_sinks_gradually() {
        let latency = Latency::default();
        assert_eq!(latency.expected_us(0), None);
        latency.observe(1_000, SECOND);
        latency.observe(50_000, 2 * SECOND);
        assert_eq!(latency.expected_us(2 * SECOND), Some(50_000.0));
        latency.observe(1_000, 3 * SECOND);
        let after = latency.expected_us(3 * SECOND).unwrap();
        assert!((45_000.0..46_000.0).contains(&after), "{after}");
    }

    #[test]
    fn sinks_by_itself_and_is_unknown_after_thirty_seconds() {
        let latency = Latency::default();
        latency.observe(100_000, SECOND);
        let later = latency.expected_us(SECOND + DECAY_US).unwrap();
        assert!((36_000.0..38_000.0).contains(&later), "{later}");
        assert_eq!(latency.expected_us(SECOND + STALE_US + 10_000), None);
    }

    #[test]
    fn a_fast_failure_does_not_look_fast() {
        let latency = Latency::default();
        latency.observe(500, SECOND);
        latency.observe_failure(SECOND);
        assert_eq!(latency.expected_us(SECOND), Some(1_000_000.0));
        for _ in 0..100 {
            latency.observe_failure(SECOND);
        }
        assert_eq!(latency.expected_us(SECOND), Some(FAILURE_MAX_US));
    }

    #[test]
    fn a_clock_slightly_behind_does_no_harm() {
        let latency = Latency::default();
        latency.observe(1_000, 5 * SECOND);
        assert_eq!(latency.expected_us(4 * SECOND), Some(1_000.0));
    }
}
