//! The circuit breaker of a pool: when too much of what it answers is failure, it is left alone for a while.
//!
//! Ejection takes single backends out and never the last; a breaker is for the pool as a whole, whatever stands
//! behind all of its backends. Closed, it counts over a sliding window. Open, every request is refused at once,
//! which costs the client no waiting and the pool no work. When `open_us` is over, a few requests try
//! (half-open); if all of them succeed it closes with a clean slate, if one fails it opens again.
//!
//! Shared by all threads: one lock, held for a few instructions and only where a breaker is configured.

use std::sync::{Mutex, PoisonError};

/// Buckets of the window.
const BUCKETS: usize = 10;

/// Bounds of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Share of failures that opens it, in percent: 1 to 100.
    pub failure_percent: u8,
    /// Requests in the window below which the share says nothing.
    pub minimum_requests: u32,
    /// Length of the window in microseconds.
    pub window_us: u64,
    /// How long it stays open, in microseconds.
    pub open_us: u64,
    /// Requests that try while it is half-open: at least 1.
    pub trials: u32,
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It may, and its outcome counts.
    Free,
    /// It may, as one of the trials: its outcome must be told with [`Breaker::record`] or [`Breaker::abandon`].
    Trial,
    /// It may not; come back in so many seconds, at least 1.
    Refused {
        /// Seconds.
        retry_after_s: u32,
    },
}

/// A change of state, for the one who caused it to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// Failures over the bound: percent and requests in the window. After a failed trial both are 0.
    Opened {
        /// Share of failures in percent.
        percent: u8,
        /// Requests in the window.
        requests: u32,
    },
    /// All trials succeeded.
    Closed,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused until this time, in microseconds.
    Open {
        /// Microseconds.
        until_us: u64,
    },
    /// Some requests try.
    HalfOpen,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until_us: u64 },
    HalfOpen { begun: u32, succeeded: u32 },
}

/// A breaker.
#[derive(Debug)]
pub struct Breaker(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    /// Requests and failures of each bucket, with the number of the bucket in time.
    buckets: [(u64, u32, u32); BUCKETS],
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new() -> Self {
        Self(Mutex::new(Inner {
            state: State::Closed,
            buckets: [(0, 0, 0); BUCKETS],
        }))
    }

    /// How it stands.
    pub fn state(&self, now_us: u64) -> BreakerState {
        match self.lock().state {
            State::Closed => BreakerState::Closed,
            State::Open { until_us } if until_us > now_us => BreakerState::Open { until_us },
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks for passage.
    pub fn enter(&self, now_us: u64, limits: &BreakerLimits) -> Passage {
        let mut inner = self.lock();
        if let State::Open { until_us } = inner.state {
            if until_us > now_us {
                let left = (until_us - now_us).div_ceil(1_000_000);
                let retry_after_s = u32::try_from(left).unwrap_or(u32::MAX).max(1);
                return Passage::Refused { retry_after_s };
            }
            inner.state = State::HalfOpen {
                begun: 0,
                succeeded: 0,
            };
        }
        match &mut inner.state {
            State::HalfOpen { begun, .. } if *begun < limits.trials => {
                *begun += 1;
                Passage::Trial
            }
            State::HalfOpen { .. } => Passage::Refused { retry_after_s: 1 },
            State::Closed | State::Open { .. } => Passage::Free,
        }
    }

    /// Tells how a request that passed has ended.
    pub fn record(
        &self,
        passage: Passage,
        success: bool,
        now_us: u64,
        limits: &BreakerLimits,
    ) -> Option<Switched> {
        let mut inner = self.lock();
        match (&mut inner.state, passage) {
            (State::HalfOpen { succeeded, .. }, Passage::Trial) if success => {
                *succeeded += 1;
                if *succeeded < limits.trials {
                    return None;
                }
                inner.state = State::Closed;
                inner.buckets = [(0, 0, 0); BUCKETS];
                Some(Switched::Closed)
            }
            (State::HalfOpen { .. }, Passage::Trial) => {
                inner.open(now_us, limits);
                Some(Switched::Opened {
                    percent: 0,
                    requests: 0,
                })
            }
            (State::Closed, Passage::Free) => inner.count(success, now_us, limits),
            // What began before the last change says nothing about now.
            _ => None,
        }
    }

    /// Gives a trial back whose request ended without saying anything about the pool.
    pub fn abandon(&self, passage: Passage) {
        if let (State::HalfOpen { begun, .. }, Passage::Trial) = (&mut self.lock().state, passage) {
            *begun = begun.saturating_sub(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn open(&mut self, now_us: u64, limits: &BreakerLimits) {
        self.state = State::Open {
            until_us: now_us.saturating_add(limits.open_us),
        };
        self.buckets = [(0, 0, 0); BUCKETS];
    }

    fn count(&mut self, success: bool, now_us: u64, limits: &BreakerLimits) -> Option<Switched> {
        let bucket_us = (limits.window_us / BUCKETS as u64).max(1);
        // From 1, so that a bucket never used is in no window.
        let number = now_us / bucket_us + 1;
        let index = usize::try_from(number % BUCKETS as u64).unwrap_or(0);
        if let Some(bucket) = self.buckets.get_mut(index) {
            if bucket.0 != number {
                *bucket = (number, 0, 0);
            }
            bucket.1 = bucket.1.saturating_add(1);
            bucket.2 = bucket.2.saturating_add(u32::from(!success));
        }
        if success {
            return None;
        }
        let oldest = (number + 1).saturating_sub(BUCKETS as u64).max(1);
        let live = self
            .buckets
            .iter()
            .filter(|(n, ..)| (oldest..=number).contains(n));
        let (requests, failures) = live.fold((0_u64, 0_u64), |(r, f), bucket| {
            (r + u64::from(bucket.1), f + u64::from(bucket.2))
        });
        let enough = requests >= u64::from(limits.minimum_requests.max(1));
        if !enough || failures * 100 < requests * u64::from(limits.failure_percent) {
            return None;
        }
        self.open(now_us, limits);
        Some(Switched::Opened {
            percent: u8::try_from(failures * 100 / requests).unwrap_or(100),
            requests: u32::try_from(requests).unwrap_or(u32::MAX),
        })
    }
}
