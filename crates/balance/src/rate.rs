//! Rate limits: a token bucket for each key, as the generic cell rate algorithm.
//!
//! Of each bucket one number is kept: the time at which it will be full again. A request moves it on by the time
//! that one token takes to come; it passes while that time lies no further ahead than the whole bucket is worth.
//! So a look is a maximum and an addition, a bucket that is full needs no memory, and the one nearest to full is
//! the one whose loss changes least: that is who gives way where the table is full. An attacker who comes with
//! millions of keys pushes out buckets of his own kind and hardly those of whoever is being held back.
//!
//! One table serves all threads, so a limit holds exactly, however requests are spread over them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::config::RateLimit;

use crate::table::{Found, Table};

/// One limit with its buckets.
#[derive(Debug)]
pub struct RateLimiter {
    /// When each bucket is full again, in nanoseconds.
    table: Table<u64>,
    /// The time that one token takes to come.
    token_ns: u64,
    burst: u64,
    displaced: AtomicU64,
}

/// What a limit says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass; its token is taken.
    Pass {
        /// Tokens left.
        left: u64,
        /// Until the bucket is full again.
        full_in: Duration,
    },
    /// It may not.
    Refuse {
        /// Until there is a token.
        wait: Duration,
    },
}

impl RateLimiter {
    /// The limit with all buckets full. `seed` decides where keys stand in the table and should be nobody's guess.
    pub fn new(limit: &RateLimit, seed: u64) -> Self {
        let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        Self {
            table: Table::new(limit.max_keys as usize, seed),
            // Rounded down, in the client's favour: by less than a nanosecond a request.
            token_ns: (per / u64::from(limit.requests.max(1))).max(1),
            burst: u64::from(limit.burst.max(1)),
            displaced: AtomicU64::new(0),
        }
    }

    /// Takes a token for `key`, a hash (see [`crate::hash()`]), at `now_us`.
    pub fn take(&self, key: u64, now_us: u64) -> Verdict {
        let now = now_us.saturating_mul(1000);
        self.table.enter(
            key,
            |full_at| *full_at,
            |full_at, found| {
                let before = match found {
                    Found::Same => *full_at,
                    Found::Free => 0,
                    Found::Other => {
                        if *full_at > now {
                            self.displaced.fetch_add(1, Relaxed);
                        }
                        0
                    }
                };
                let (verdict, after) = self.decide(before, now);
                *full_at = after;
                verdict
            },
        )
    }

    /// What [`RateLimiter::take`] would say now; takes nothing.
    pub fn look(&self, key: u64, now_us: u64) -> Verdict {
        let before = self.table.find(key, |full_at| *full_at).unwrap_or(0);
        self.decide(before, now_us.saturating_mul(1000)).0
    }

    /// Gives a token back: another limit refused the request that took it.
    pub fn give_back(&self, key: u64) {
        self.table
            .find(key, |full_at| *full_at = full_at.saturating_sub(self.token_ns));
    }

    /// Buckets that were not full and gave way to others since the beginning: their keys began anew.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Relaxed)
    }

    /// What is said to a request that finds a bucket which is full again at `full_at`, and when it is then.
    fn decide(&self, full_at: u64, now: u64) -> (Verdict, u64) {
        let whole = self.token_ns.saturating_mul(self.burst);
        let after = full_at.max(now).saturating_add(self.token_ns);
        let debt = after - now;
        if debt > whole {
            let wait = Duration::from_nanos(debt - whole);
            return (Verdict::Refuse { wait }, full_at);
        }
        let pass = Verdict::Pass {
            left: (whole - debt) / self.token_ns,
            full_in: Duration::from_nanos(debt),
        };
        (pass, after)
    }
}
