//! The circuit breaker of a pool: while most requests fail whatever backend they try, they are refused at once, and
//! a few of them find out when that is over.
//!
//! Closed, it counts how requests end. Opened by their failures, it refuses everything for a while. Then it is half
//! open: a number of requests are let through as probes. When all of them succeed it closes, and requests come back
//! by a share that grows over the pool's slow start; when one fails it opens again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::config::CircuitBreaker;

use crate::pool::PoolLoad;
use crate::rng::{Rng, scale};
use crate::window::{BUCKETS, Count, Window};

/// Share of the requests let through right after it closes: a tenth, as slow start begins.
const FIRST_SHARE: u64 = 10;

/// State of the breaker.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Closed and not coming back from anything, so that nobody need look further: 0.
    busy: AtomicU64,
    /// First count: requests; second: failures.
    outcomes: Window,
    phase: Mutex<Phase>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Phase {
    #[default]
    Closed,
    /// Since then more and more requests are let through.
    Returning {
        since_us: u64,
    },
    Open {
        until_us: u64,
    },
    HalfOpen {
        running: u32,
        succeeded: u32,
    },
}

/// What is said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may go on.
    Pass,
    /// It may go on, and what it meets decides. To be told by [`crate::PoolLoad::note_end`] in any case.
    Probe,
    /// It may not; to come again after so many seconds.
    Refuse(u32),
}

/// How a request ended, for the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The pool served it.
    Success,
    /// The pool failed it.
    Failure,
    /// It says nothing about the pool: its client left.
    Nothing,
}

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// A few are let through to try.
    HalfOpen,
}

impl Circuit {
    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    /// Whether a request may go on.
    pub(crate) fn admit(
        &self,
        rules: &CircuitBreaker,
        slow_start: Duration,
        now_us: u64,
        rng: &mut Rng,
    ) -> Admission {
        if self.busy.load(Relaxed) == 0 {
            return Admission::Pass;
        }
        let mut phase = self.lock();
        if let Phase::Open { until_us } = *phase {
            if now_us < until_us {
                return Admission::Refuse(seconds(until_us - now_us));
            }
            *phase = Phase::HalfOpen {
                running: 0,
                succeeded: 0,
            };
        }
        match &mut *phase {
            Phase::HalfOpen { running, succeeded } if *running + *succeeded < rules.half_open_requests => {
                *running += 1;
                Admission::Probe
            }
            Phase::HalfOpen { .. } | Phase::Open { .. } => Admission::Refuse(1),
            Phase::Returning { since_us } => {
                let past = now_us.saturating_sub(*since_us);
                let whole = micros(slow_start);
                if past >= whole {
                    *phase = Phase::Closed;
                    self.busy.store(0, Relaxed);
                    return Admission::Pass;
                }
                let share = FIRST_SHARE + (100 - FIRST_SHARE) * past / whole.max(1);
                if scale(rng.next_u64(), 100) < share {
                    Admission::Pass
                } else {
                    Admission::Refuse(seconds(whole - past))
                }
            }
            Phase::Closed => Admission::Pass,
        }
    }

    /// Takes in how a request ended. `Some` when this very end moved the breaker, with why in words.
    pub(crate) fn note(
        &self,
        rules: &CircuitBreaker,
        probe: bool,
        end: Probe,
        now_us: u64,
    ) -> Option<(Circuit, String)> {
        if probe {
            return self.note_probe(rules, end, now_us);
        }
        let tick = now_us / (micros(rules.window) / BUCKETS as u64).max(1);
        match end {
            Probe::Nothing => return None,
            Probe::Success => {
                self.outcomes.add(tick, Count::First);
                return None;
            }
            Probe::Failure => self.outcomes.add(tick, Count::Both),
        }
        let sums = self.outcomes.sums(tick);
        let enough = sums.first >= u64::from(rules.minimum_requests);
        if !enough || sums.second * 100 < sums.first * u64::from(rules.failure_ratio) {
            return None;
        }
        let mut phase = self.lock();
        if matches!(*phase, Phase::Open { .. } | Phase::HalfOpen { .. }) {
            return None;
        }
        self.open(&mut phase, rules, now_us);
        let percent = sums.second * 100 / sums.first.max(1);
        let why = format!(
            "{percent}% of {} requests failed in {:?}",
            sums.first, rules.window
        );
        Some((Circuit::Open, why))
    }

    fn note_probe(&self, rules: &CircuitBreaker, end: Probe, now_us: u64) -> Option<(Circuit, String)> {
        let mut phase = self.lock();
        let Phase::HalfOpen { running, succeeded } = &mut *phase else {
            return None;
        };
        *running = running.saturating_sub(1);
        match end {
            Probe::Nothing => None,
            Probe::Failure => {
                self.open(&mut phase, rules, now_us);
                Some((Circuit::Open, "a request that tried it failed".to_owned()))
            }
            Probe::Success => {
                *succeeded += 1;
                if *succeeded < rules.half_open_requests {
                    return None;
                }
                let why = format!("{} requests that tried it succeeded", *succeeded);
                *phase = Phase::Returning { since_us: now_us };
                self.outcomes.clear();
                Some((Circuit::Closed, why))
            }
        }
    }

    fn open(&self, phase: &mut Phase, rules: &CircuitBreaker, now_us: u64) {
        let until_us = now_us.saturating_add(micros(rules.open_time));
        *phase = Phase::Open { until_us };
        self.outcomes.clear();
        self.busy.store(1, Relaxed);
    }

    /// Where it stands at `now_us`.
    pub(crate) fn circuit(&self, now_us: u64) -> Circuit {
        match *self.lock() {
            Phase::Closed | Phase::Returning { .. } => Circuit::Closed,
            Phase::Open { until_us } if now_us < until_us => Circuit::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Phase> {
        // Written as a whole: a panic leaves nothing half-written.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolLoad {
    /// Whether the pool's circuit breaker lets a request go on.
    pub fn admit(
        &self,
        rules: &CircuitBreaker,
        slow_start: Duration,
        now_us: u64,
        rng: &mut Rng,
    ) -> Admission {
        self.breaker.admit(rules, slow_start, now_us, rng)
    }

    /// Takes in how a request ended that was let on, as a probe or not. `Some` when this very end moved the
    /// breaker: exactly one caller sees each move, with why in words.
    pub fn note_end(
        &self,
        rules: &CircuitBreaker,
        probe: bool,
        end: Probe,
        now_us: u64,
    ) -> Option<(Circuit, String)> {
        self.breaker.note(rules, probe, end, now_us)
    }

    /// Where the circuit breaker stands.
    pub fn circuit(&self, now_us: u64) -> Circuit {
        self.breaker.circuit(now_us)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(time_us: u64) -> u32 {
    u32::try_from(time_us.div_ceil(1_000_000))
        .unwrap_or(u32::MAX)
        .max(1)
}
