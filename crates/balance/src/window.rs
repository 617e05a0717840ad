//! A sliding window of counts in ten buckets, shared by many threads without a lock.
//!
//! One word per bucket holds its tick and two counts, so adding is one atomic addition and a bucket is emptied
//! for its new tick by one exchange: no count is ever seen with another tick's time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets in a window. The newest one is still filling, so a window spans nine to ten ticks.
pub(crate) const BUCKETS: usize = 10;

/// Bits of each count; at its top a bucket counts no further (two million per bucket).
const COUNT_BITS: u32 = 21;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Where a bucket stops counting: room is left for threads that add at the same moment.
const COUNT_FULL: u64 = COUNT_MASK - 4096;
/// Bits of a tick; at a tick of a second they wrap after 48 days, which only a bucket idle that long could see.
const TICK_MASK: u64 = (1 << (64 - 2 * COUNT_BITS)) - 1;

/// Ten buckets of two counts each.
#[derive(Debug, Default)]
pub(crate) struct Window {
    buckets: [AtomicU64; BUCKETS],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// The first count.
    First,
    /// The second count.
    Second,
    /// Both.
    Both,
}

/// Sums over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) first: u64,
    pub(crate) second: u64,
}

impl Window {
    /// Counts once in the bucket of `tick`. A tick older than its bucket counts in the newer one.
    pub(crate) fn add(&self, tick: u64, count: Count) {
        let step = match count {
            Count::First => 1,
            Count::Second => 1 << COUNT_BITS,
            Count::Both => (1 << COUNT_BITS) | 1,
        };
        let Some(bucket) = self.buckets.get((tick % BUCKETS as u64) as usize) else {
            return;
        };
        let held = bucket.load(Relaxed);
        let age = (tick.wrapping_sub(held >> (2 * COUNT_BITS))) & TICK_MASK;
        let outdated = age != 0 && age <= TICK_MASK / 2;
        if outdated {
            let fresh = ((tick & TICK_MASK) << (2 * COUNT_BITS)) | step;
            if bucket.compare_exchange(held, fresh, Relaxed, Relaxed).is_ok() {
                return;
            }
            // Another thread emptied it first: count with that one.
        } else if held & COUNT_MASK >= COUNT_FULL || (held >> COUNT_BITS) & COUNT_MASK >= COUNT_FULL {
            return;
        }
        bucket.fetch_add(step, Relaxed);
    }

    /// Sums of the ten ticks up to `tick`.
    pub(crate) fn sums(&self, tick: u64) -> Sums {
        let mut sums = Sums::default();
        for bucket in &self.buckets {
            let held = bucket.load(Relaxed);
            let age = (tick.wrapping_sub(held >> (2 * COUNT_BITS))) & TICK_MASK;
            if age < BUCKETS as u64 {
                sums.first += held & COUNT_MASK;
                sums.second += (held >> COUNT_BITS) & COUNT_MASK;
            }
        }
        sums
    }

    /// Forgets everything. Counts added at the same moment may survive.
    pub(crate) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fall_out_after_ten_ticks() {
        let window = Window::default();
        window.add(100, Count::First);
        window.add(101, Count::Both);
        assert_eq!(window.sums(101), Sums { first: 2, second: 1 });
        assert_eq!(window.sums(109), Sums { first: 2, second: 1 });
        assert_eq!(window.sums(110), Sums { first: 1, second: 1 });
        assert_eq!(window.sums(111), Sums::default());
    }

    #[test]
    fn a_bucket_is_reused_empty() {
        let window = Window::default();
        window.add(5, Count::First);
        window.add(15, Count::Second);
        assert_eq!(window.sums(15), Sums { first: 0, second: 1 });
    }

    /// A thread whose clock reading is a tick behind must not wipe what others counted.
    #[test]
    fn a_late_thread_counts_in_the_newer_bucket() {
        let window = Window::default();
        window.add(25, Count::First);
        window.add(15, Count::First);
        assert_eq!(window.sums(25), Sums { first: 2, second: 0 });
    }

    #[test]
    fn a_full_bucket_stops_counting_and_spills_nowhere() {
        let window = Window::default();
        for _ in 0..(1 << COUNT_BITS) + 10 {
            window.add(3, Count::First);
        }
        assert_eq!(
            window.sums(3),
            Sums {
                first: COUNT_FULL,
                second: 0
            }
        );
    }

    #[test]
    fn four_threads_lose_no_count() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|i| window.add(50 + i / 2_000, Count::Both)));
            }
        });
        let sums = window.sums(54);
        assert_eq!(
            sums,
            Sums {
                first: 40_000,
                second: 40_000
            }
        );
    }
}
