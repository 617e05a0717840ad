//! The verdict on one backend: rise, fall, and when to look again.
//!
//! A verdict needs several results in a row (`rise` successes or `fall` failures), so that one lost packet takes
//! nobody out and one lucky answer brings nobody back. The first result alone decides: until it is there nothing
//! is known, and waiting for more of them would only send traffic to a dead backend for longer. While a change is
//! in the air (a contrary result has been seen, the verdict not yet) probes follow at the faster interval.
//!
//! Intervals are moved at random by the check's jitter, and the first probe is due at a phase that the caller
//! spreads over the interval, so that thousands of checks do not fire together. An interval runs from the end of
//! one check to the start of the next: a slow backend is never asked twice at once.
//!
//! The machine refuses to guess: a check that could not be made for want of something on *this* side (file
//! descriptors, local ports) is [`ProbeResult::Inconclusive`] and counts neither way.

use std::time::Duration;

use model::config::HealthCheck;
use model::state::Health;

/// What one check found. The text is the reason in words: `status 200`, `connection refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The backend answered as it should.
    Success(String),
    /// It did not.
    Failure(String),
    /// The check could not be made, through no fault of the backend: says nothing about it.
    Inconclusive(String),
}

/// A verdict, or a new reason for the standing one.
///
/// `health` equal to the verdict before means that a backend that is down now fails for another reason: its state
/// lasts, only the cause shown changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What the backend is now. Never [`Health::Unchecked`].
    pub health: Health,
    /// The words of the result that decided.
    pub reason: String,
}

/// The state of one backend under one check.
///
/// Driving it: when [`next_probe`](Self::next_probe) is reached make one check, then pass what it found to
/// [`handle`](Self::handle), which sets the next due time. Times are milliseconds since an epoch of the caller's
/// choice and must not go backwards.
#[derive(Clone, Debug)]
pub struct HealthMachine {
    interval_ms: u64,
    fast_interval_ms: u64,
    jitter_percent: u64,
    rise: u16,
    fall: u16,
    health: Health,
    /// Last reason reported.
    reason: String,
    /// Results in a row that contradict `health`.
    contrary: u16,
    next_probe_ms: u64,
}

impl HealthMachine {
    /// A backend of which nothing is known yet.
    ///
    /// `phase` in 0..1 is the place in the first interval at which the first check is due; values outside are
    /// moved to the nearest end. A `fast_interval` longer than the interval counts as the interval, an interval
    /// below a millisecond as one, a `rise` or `fall` of 0 as 1.
    pub fn new(check: &HealthCheck, now_ms: u64, phase: f64) -> Self {
        let interval_ms = milliseconds(check.interval);
        Self {
            interval_ms,
            fast_interval_ms: milliseconds(check.fast_interval).min(interval_ms),
            jitter_percent: u64::from(check.jitter.min(100)),
            rise: check.rise.max(1),
            fall: check.fall.max(1),
            health: Health::Unchecked,
            reason: String::new(),
            contrary: 0,
            next_probe_ms: now_ms.saturating_add((interval_ms as f64 * phase.clamp(0.0, 1.0)) as u64),
        }
    }

    /// Goes on from a verdict that another process has reached under the same check: one result alone does not
    /// overturn it, so that a check that moves from one process to another does not flap.
    #[must_use]
    pub fn going_on_from(mut self, health: Health, reason: String) -> Self {
        self.health = health;
        self.reason = reason;
        self
    }

    /// Puts the next check off until then: it could not be made, and nothing was found.
    pub fn put_off(&mut self, until_ms: u64) {
        self.next_probe_ms = until_ms;
    }

    /// When the next check is due, in milliseconds.
    pub fn next_probe(&self) -> u64 {
        self.next_probe_ms
    }

    /// The standing verdict.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The words of the result that decided; empty while nothing is known.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Takes the result of a check that ended at `now_ms`; `rand` is any random number, for the jitter.
    ///
    /// Returns what is to be made known: a new verdict, or another reason for being down.
    pub fn handle(&mut self, now_ms: u64, result: ProbeResult, rand: u64) -> Option<Transition> {
        let transition = self.judge(result);
        let deciding = self.contrary > 0 || self.health == Health::Unchecked;
        let interval = if deciding {
            self.fast_interval_ms
        } else {
            self.interval_ms
        };
        self.next_probe_ms = now_ms.saturating_add(jittered(interval, self.jitter_percent, rand));
        transition
    }

    fn judge(&mut self, result: ProbeResult) -> Option<Transition> {
        let (found, reason) = match result {
            ProbeResult::Success(reason) => (Health::Up, reason),
            ProbeResult::Failure(reason) => (Health::Down, reason),
            ProbeResult::Inconclusive(_) => return None,
        };
        let decides = if found == self.health {
            self.contrary = 0;
            found == Health::Down && reason != self.reason
        } else {
            self.contrary = self.contrary.saturating_add(1);
            self.contrary >= self.needed()
        };
        if !decides {
            return None;
        }
        self.contrary = 0;
        self.health = found;
        self.reason.clone_from(&reason);
        Some(Transition {
            health: found,
            reason,
        })
    }

    /// Contrary results in a row that change the verdict.
    fn needed(&self) -> u16 {
        match self.health {
            Health::Unchecked => 1,
            Health::Up => self.fall,
            Health::Down => self.rise,
        }
    }
}

/// `interval` moved by at most `percent` of itself, either way.
fn jittered(interval: u64, percent: u64, rand: u64) -> u64 {
    let most = interval.saturating_mul(percent) / 100;
    let width = most.saturating_mul(2).saturating_add(1);
    (interval - most).saturating_add(rand % width)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
