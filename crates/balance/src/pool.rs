//! What the members of one pool share: the turn of the round robin, the retry budget, the lock of the ejections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::breaker::Breaker;
use crate::load::Load;
use crate::queue::Queue;
use crate::window::{Count, Window};

/// Retries allowed in ten seconds beside the percentage: enough to save the requests that one dying backend had in
/// flight, and for a pool with hardly any traffic to retry at all.
pub const RETRY_RESERVE: u32 = 100;

/// Length of one tick of the retry budget; its window has ten.
const RETRY_TICK_US: u64 = 1_000_000;

/// Live figures of one pool, over all threads. Kept in an `Arc` by the caller for as long as the pool is
/// configured, so that reloads forget nothing.
#[derive(Debug, Default)]
pub struct PoolLoad {
    turn: AtomicU64,
    /// First count: requests; second: retries.
    retries: Window,
    pub(crate) queue: Queue,
    pub(crate) breaker: Breaker,
    /// Held while one thread decides about an ejection, so that no two take out the last two together.
    ejecting: Mutex<()>,
}

impl PoolLoad {
    /// A pool of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a request (not a retry), of which `percent` in a hundred earn a retry. Once per request.
    pub fn note_request(&self, now_us: u64, percent: u8) {
        // Nothing per cent of it earns nothing: spare the counting.
        if percent > 0 {
            self.retries.add(now_us / RETRY_TICK_US, Count::First);
        }
    }

    /// Takes one retry out of the budget: true when it may be made.
    ///
    /// Allowed are [`RETRY_RESERVE`] and `budget_percent` of the requests, both over the last ten seconds. Threads
    /// that ask at the very same moment may each be let through: the budget is exceeded by less than their number.
    pub fn try_retry(&self, now_us: u64, budget_percent: u8) -> bool {
        let allowed = self.retry_budget_left(now_us, budget_percent) > 0;
        if allowed {
            self.retries.add(now_us / RETRY_TICK_US, Count::Second);
        }
        allowed
    }

    /// Retries that may be made now.
    pub fn retry_budget_left(&self, now_us: u64, budget_percent: u8) -> u32 {
        let sums = self.retries.sums(now_us / RETRY_TICK_US);
        let earned = sums.first * u64::from(budget_percent.min(100)) / 100;
        let left = (earned + u64::from(RETRY_RESERVE)).saturating_sub(sums.second);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Takes the next turn.
    pub(crate) fn take_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// The next turn, without taking it.
    pub(crate) fn peek_turn(&self) -> u64 {
        self.turn.load(Relaxed)
    }

    /// What requests meet at a backend counts from now on when they were sent there in the membership of this number
    /// ([`Member::life`](model::snapshot::Member::life)). When that `is_another` instance than before, its ejection ends,
    /// and nothing is known of it but the requests in flight, which are those to its address.
    pub fn set_membership(&self, load: &Load, number: u64, is_another: bool) {
        if is_another || load.membership() != number {
            let _no_ejection_meanwhile = self.lock_ejections();
            load.set_membership(number, is_another);
        }
    }

    pub(crate) fn lock_ejections(&self) -> MutexGuard<'_, ()> {
        // It guards no data that a panic could leave half-written.
        self.ejecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// A quiet pool loses a backend with a hundred requests in flight: all of them may be retried.
    #[test]
    fn the_reserve_saves_a_burst_on_a_quiet_pool() {
        let pool = PoolLoad::new();
        let granted = (0..500).filter(|_| pool.try_retry(SECOND, 20)).count();
        assert_eq!(granted, 100);
        assert_eq!(pool.retry_budget_left(SECOND, 20), 0);
        assert_eq!(pool.retry_budget_left(11 * SECOND, 20), 100);
    }

    /// Everything fails and everything is retried: retries stay at a fifth of the requests and the reserve.
    #[test]
    fn retries_stay_at_a_fifth_beside_the_reserve() {
        let pool = PoolLoad::new();
        let mut granted = 0;
        for i in 0..10_000u64 {
            let now = 100 * SECOND + i * 900;
            pool.note_request(now, 20);
            granted += u64::from(pool.try_retry(now, 20));
        }
        assert_eq!(granted, 2_000 + 100);
    }

    /// Over any ten seconds of a long outage the bound holds too, give or take the tick that is filling.
    #[test]
    fn over_a_long_outage_the_share_holds() {
        let pool = PoolLoad::new();
        let (mut requests, mut granted) = (0u64, 0u64);
        for i in 0..100_000u64 {
            let now = i * SECOND / 1_000;
            pool.note_request(now, 20);
            requests += 1;
            granted += u64::from(pool.try_retry(now, 20));
        }
        let bound = requests / 5 + 11 * 100;
        assert!(granted <= bound, "{granted} > {bound}");
        assert!(granted >= requests / 5, "{granted}");
    }

    #[test]
    fn a_budget_of_nothing_leaves_the_reserve() {
        let pool = PoolLoad::new();
        (0..1_000).for_each(|_| pool.note_request(SECOND, 0));
        assert_eq!(pool.retry_budget_left(SECOND, 0), RETRY_RESERVE);
    }

    /// Four threads ask at once: at most three beyond the budget.
    #[test]
    fn four_threads_exceed_it_by_less_than_four() {
        let pool = PoolLoad::new();
        let granted: usize = std::thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| pool.try_retry(SECOND, 0)).count();
            let threads = [
                scope.spawn(ask),
                scope.spawn(ask),
                scope.spawn(ask),
                scope.spawn(ask),
            ];
            threads.map(|t| t.join().unwrap()).iter().sum()
        });
        assert!((100..104).contains(&granted), "{granted}");
    }
}
