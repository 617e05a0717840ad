//! The circuit breaker of a pool, as a request meets it: asked before anything is tried, told when it is known how
//! the pool does.
//!
//! For a request that tries whether the pool is back, that is the head of a response: it may be a stream without an
//! end, or its client may read it slowly, and nobody else should wait for that.

use std::cell::Cell;

use balance::{Admission, Circuit, Probe};
use model::reason::{Fault, Reason};
use model::state::CircuitMoved;

use crate::DataplaneEvent;
use crate::exchange::Request;

/// A request that was let on. Dropped without an end, it says nothing about the pool.
pub(crate) struct Passage<'a> {
    request: &'a Request<'a>,
    /// It tries whether the pool is back, and that is not known yet.
    probes: Cell<bool>,
    /// Its success was told.
    told: Cell<bool>,
    end: Cell<Probe>,
}

/// Asks whether the request may go on; `None` without a circuit breaker.
///
/// # Errors
/// It may not; to come again after so many seconds.
pub(crate) fn enter<'a>(request: &'a Request<'a>) -> Result<Option<Passage<'a>>, u32> {
    let pool = request.pool;
    let Some(rules) = &pool.config.overload.circuit_breaker else {
        return Ok(None);
    };
    let rng = &mut *request.shard.rng.borrow_mut();
    let load = pool.balancer.pool();
    let probe = match load.admit(rules, pool.config.slow_start, request.started_us, rng) {
        Admission::Pass => false,
        Admission::Probe => true,
        Admission::Refuse(after_s) => return Err(after_s),
    };
    Ok(Some(Passage {
        request,
        probes: Cell::new(probe),
        told: Cell::new(false),
        end: Cell::new(Probe::Nothing),
    }))
}

/// What a response with this status says about the pool.
fn of_status(status: u16) -> Probe {
    match status {
        502..=504 => Probe::Failure,
        _ => Probe::Success,
    }
}

impl Passage<'_> {
    /// Notes that the head of a response with this status is here.
    pub(crate) fn answered(&self, status: u16) {
        // A failure may be made good by another attempt.
        if self.probes.get() && of_status(status) == Probe::Success {
            self.tell(Probe::Success);
            self.told.set(true);
        }
    }

    /// Notes how the request ended: with `reason`, or else a response with `status`.
    pub(crate) fn end(self, status: u16, reason: Option<Reason>) {
        self.end.set(match reason.map(Reason::fault) {
            Some(Fault::Backend) => Probe::Failure,
            Some(_) => Probe::Nothing,
            None => of_status(status),
        });
    }

    fn tell(&self, end: Probe) {
        let (shard, pool) = (self.request.shard, self.request.pool);
        let Some(rules) = &pool.config.overload.circuit_breaker else {
            return;
        };
        let now_us = shard.timers.recent_us();
        let load = pool.balancer.pool();
        let Some((circuit, why)) = load.note_end(rules, self.probes.take(), end, now_us) else {
            return;
        };
        if circuit == Circuit::Open {
            pool.cell.counters.of(shard.index).circuit_opened.add(1);
        }
        shard.event(DataplaneEvent::CircuitMoved(CircuitMoved {
            load_balancer: pool.cell.load_balancer.clone(),
            pool: pool.cell.name.clone(),
            open: circuit == Circuit::Open,
            why,
        }));
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let end = self.end.get();
        // What broke off later is a failure like any other.
        if !(self.told.get() && end == Probe::Success) {
            self.tell(end);
        }
    }
}

impl std::fmt::Debug for Passage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passage")
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}
