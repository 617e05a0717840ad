//! Accepts that fail for want of file descriptors or memory: all counted, few told. While that lasts every shard fails
//! twenty times a second, and a log that fills the disk would be the second trouble.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time from one line in the log to the next, in milliseconds.
const TELL_EVERY_MS: u64 = 10_000;

/// Failed accepts of all shards.
#[derive(Debug, Default)]
pub(crate) struct AcceptErrors {
    total: AtomicU64,
    /// How many of them the log has told of.
    told: AtomicU64,
    /// When the log may tell again.
    next_ms: AtomicU64,
}

impl AcceptErrors {
    /// Counts one. How many the log has not told of, when it may tell now.
    pub(crate) fn note(&self, now_ms: u64) -> Option<u64> {
        let total = self.total.fetch_add(1, Relaxed) + 1;
        let next_ms = self.next_ms.load(Relaxed);
        let later = now_ms.saturating_add(TELL_EVERY_MS);
        if now_ms < next_ms
            || self
                .next_ms
                .compare_exchange(next_ms, later, Relaxed, Relaxed)
                .is_err()
        {
            return None;
        }
        Some(total.saturating_sub(self.told.swap(total, Relaxed)))
    }

    /// How many there were.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_tells_of_all_between() {
        let errors = AcceptErrors::default();
        assert_eq!(errors.note(5), Some(1));
        for ms in (55..10_005).step_by(50) {
            assert_eq!(errors.note(ms), None);
        }
        assert_eq!(errors.note(10_005), Some(200));
        assert_eq!(errors.note(10_006), None);
        assert_eq!(errors.note(60_000), Some(2));
        assert_eq!(errors.total(), 203);
    }
}
