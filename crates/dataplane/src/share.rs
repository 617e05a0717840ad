//! Bytes that requests share, of memory or of a disk: taken as long as there are any, given back with what held them.
//! Exact over all shards: what is taken is never more than there is, not even for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that all have taken together.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one has taken of them.
#[derive(Debug)]
pub(crate) struct Share {
    total: Arc<Total>,
    most: u64,
    bytes: u64,
}

impl Share {
    /// Nothing yet of what may be `most` over all.
    pub(crate) fn empty(total: Arc<Total>, most: u64) -> Self {
        Self {
            total,
            most,
            bytes: 0,
        }
    }

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes so many more, or none when there are fewer left; whether it did. What was taken may be more than a bound
    /// that came later: nothing more is then still to be had.
    pub(crate) fn take(&mut self, more: u64) -> bool {
        if more == 0 {
            return true;
        }
        let within = |used: u64| used.checked_add(more).filter(|sum| *sum <= self.most);
        let taken = self.total.0.fetch_update(Relaxed, Relaxed, within).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_what_is_asked_for_or_nothing() {
        let total = Arc::new(Total::default());
        let mut one = Share::empty(total.clone(), 10);
        let mut other = Share::empty(total.clone(), 10);
        assert!(one.take(6) && other.take(4));
        assert!(!one.take(1) && one.take(0) && !other.take(u64::MAX));
        assert_eq!((one.bytes(), other.bytes(), total.bytes()), (6, 4, 10));
        drop(one);
        assert!(!other.take(7) && other.take(6));
        let mut lower = Share::empty(total.clone(), 5);
        assert!(lower.take(0) && !lower.take(1));
        drop(other);
        assert_eq!(total.bytes(), 0);
    }

    /// However many take at once, what is taken is never over the bound, and nobody is refused what is there.
    #[test]
    fn exact_over_threads() {
        let total = Arc::new(Total::default());
        let most = 64;
        let takers = || -> u64 {
            let mut share = Share::empty(total.clone(), most);
            let refused = (0..1000).filter(|_| !share.take(1)).count() as u64;
            assert!(total.bytes() <= most && refused == 1000 - share.bytes());
            let bytes = share.bytes();
            // All are kept until all are counted.
            std::mem::forget(share);
            bytes
        };
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takers)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, total.bytes()), (most, most));
    }
}
