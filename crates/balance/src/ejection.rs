//! Passive ejection: what real requests meet takes a member out for a while.
//!
//! A success costs a few relaxed atomic operations. Only a failure that might eject takes the pool's lock, where
//! one thread at a time decides, so that no two threads take out the last two members together and exactly one of
//! them reports an ejection. It is in force for every thread at once: the pick looks at the same word.

use std::time::Duration;

use model::config::{Algorithm, Passive};
use model::snapshot::Eligibility;
use model::state::Ejected;

use crate::balancer::Balancer;
use crate::load::Load;
use crate::window::Sums;

/// An ejection lasts at most this many times the first one.
pub const MAX_EJECTION_FACTOR: u32 = 10;
/// Each time a member has been back for this many times the pool's ejection time, one ejection is forgotten.
pub const FORGET_AFTER: u32 = 3;

/// What a request met at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer (of any status that is not a failure of the backend).
    Success {
        /// Time to the header of the response, in microseconds.
        latency_us: u64,
    },
    /// A connect error, reset, timeout, or a 502, 503 or 504 from the backend.
    Failure {
        /// In words: `connection refused`, `status 503`.
        what: &'static str,
    },
}

/// What trips an ejection.
enum Cause {
    InARow(u32),
    Ratio(Sums),
}

impl Balancer {
    /// Takes in what a request met at a member. `Some` when this very call ejected it: exactly one caller sees each
    /// ejection. What an ejected member's running requests still meet counts for nothing: its history starts anew
    /// when it returns. Nor does what requests meet that were sent to another instance at its address
    /// ([`PoolLoad::set_membership`](crate::PoolLoad::set_membership)).
    pub fn record(&self, index: usize, outcome: Outcome, now_us: u64) -> Option<Ejected> {
        let load = &self.members.get(index)?.load;
        if !self.is_of_now(index, load) {
            return None;
        }
        match outcome {
            Outcome::Success { latency_us } => {
                if self.measures_latency() {
                    load.latency.observe(latency_us, now_us);
                }
                if self.state.config.passive.is_some() && !self.is_out(index, now_us) {
                    load.note_success(now_us / self.tick_us);
                }
                None
            }
            Outcome::Failure { what } => self.failed(index, load, what, now_us),
        }
    }

    /// Whether the member is still the instance that this balancer knows.
    fn is_of_now(&self, index: usize, load: &Load) -> bool {
        let known = self.state.members.get(index);
        known.is_some_and(|member| member.life() == load.membership())
    }

    fn measures_latency(&self) -> bool {
        self.state.config.algorithm == Algorithm::PeakEwma
    }

    #[cold]
    fn failed(&self, index: usize, load: &Load, what: &str, now_us: u64) -> Option<Ejected> {
        if self.measures_latency() {
            load.latency.observe_failure(now_us);
        }
        let passive = self.state.config.passive.as_ref()?;
        if self.is_out(index, now_us) {
            return None;
        }
        let (in_a_row, sums) = load.note_failure(now_us / self.tick_us);
        let cause = cause(passive, in_a_row, sums)?;
        let lasts = self.eject(index, passive, now_us)?;
        let member = self.state.members.get(index)?;
        Some(Ejected {
            backend: member.id.clone(),
            life: member.life(),
            reason: cause.in_words(passive, what),
            lasts,
        })
    }

    /// Ejects the member if the pool can spare it; for how long.
    fn eject(&self, index: usize, passive: &Passive, now_us: u64) -> Option<Duration> {
        let _one_at_a_time = self.pool.lock_ejections();
        let load = &self.members.get(index)?.load;
        let spare = !self.is_out(index, now_us) && self.can_spare(index, passive, now_us);
        if !spare || !self.is_of_now(index, load) {
            return None;
        }
        let healthy_us = u128::from(now_us.saturating_sub(load.ejected_until()));
        let forget_us = (passive.ejection_time * FORGET_AFTER).as_micros().max(1);
        let forgotten = u32::try_from(healthy_us / forget_us).unwrap_or(u32::MAX);
        let count = (load.ejections().saturating_sub(forgotten) + 1).min(MAX_EJECTION_FACTOR);
        let lasts = passive.ejection_time * count;
        let lasts_us = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        load.eject(now_us.saturating_add(lasts_us), count, self.fail_open);
        Some(lasts)
    }

    /// Whether another eligible member remains, and the share of ejected ones stays allowed.
    fn can_spare(&self, index: usize, passive: &Passive, now_us: u64) -> bool {
        let (mut usable, mut ejected, mut others) = (0u64, 0u64, 0u64);
        for (i, (member, known)) in self.members.iter().zip(&self.state.members).enumerate() {
            // Those that take requests, or would if they were not ejected.
            if member.weight == 0 && known.eligibility != Eligibility::Ejected {
                continue;
            }
            usable += 1;
            if self.is_out(i, now_us) {
                ejected += 1;
            } else if member.weight > 0 && i != index {
                others += 1;
            }
        }
        let takes_requests = self.members.get(index).is_some_and(|m| m.weight > 0);
        takes_requests && others > 0 && (ejected + 1) * 100 <= usable * u64::from(passive.max_ejected)
    }
}

fn cause(passive: &Passive, in_a_row: u32, sums: Sums) -> Option<Cause> {
    if in_a_row >= u32::from(passive.consecutive_failures) {
        return Some(Cause::InARow(in_a_row));
    }
    let enough = sums.first >= u64::from(passive.minimum_requests);
    let too_many = sums.second * 100 >= sums.first * u64::from(passive.failure_ratio);
    (enough && too_many).then_some(Cause::Ratio(sums))
}

impl Cause {
    fn in_words(&self, passive: &Passive, last: &str) -> String {
        match self {
            Self::InARow(count) => format!("{count} failures in a row (last: {last})"),
            Self::Ratio(sums) => {
                let percent = sums.second * 100 / sums.first.max(1);
                let window = &passive.window;
                format!(
                    "{percent}% of {} requests failed in {window:?} (last: {last})",
                    sums.first
                )
            }
        }
    }
}
