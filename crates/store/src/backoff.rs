//! Pauses between attempts: twice as long each time, and never the same for two who lost the same server; and where
//! each begins.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::bounds::{BACKOFF_FIRST, BACKOFF_MOST};

/// The pause after `failures` (one or more) in a row: from half to one and a half of a step that doubles.
pub(crate) fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let step = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
    step / 2 + step.mul_f64(share())
}

/// A time up to `most`, different each time.
pub(crate) fn within(most: Duration) -> Duration {
    most.mul_f64(share())
}

/// A number below `count`, different each time; 0 where there is none.
pub(crate) fn below(count: usize) -> usize {
    let random = usize::try_from(random()).unwrap_or_default();
    random.checked_rem(count).unwrap_or_default()
}

/// From 0 to 1, different each time.
fn share() -> f64 {
    f64::from(random()) / f64::from(u32::MAX)
}

/// Each state of the standard library's hasher has random keys of its own.
fn random() -> u32 {
    u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_within_their_bounds_and_differ() {
        for failures in 1..100 {
            let pause = pause(failures);
            assert!(
                pause >= BACKOFF_FIRST / 2 && pause <= BACKOFF_MOST * 3 / 2,
                "{pause:?}"
            );
        }
        assert!(pause(1) <= BACKOFF_FIRST * 3 / 2);
        assert!(pause(100) >= BACKOFF_MOST / 2);
        assert!((0..20).map(|_| pause(7)).any(|other| other != pause(7)));
    }
}
