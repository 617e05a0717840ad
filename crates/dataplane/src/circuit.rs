//! The circuit breaker of a pool, as a request meets it: asked before anything is tried, told at the end.

use balance::{Admission, Circuit, Probe};
use model::reason::{Fault, Reason};
use model::state::CircuitMoved;

use crate::DataplaneEvent;
use crate::exchange::Request;

/// A request that was let on. Dropped without an end, it says nothing about the pool.
pub(crate) struct Passage<'a> {
    request: &'a Request<'a>,
    probe: bool,
    end: Probe,
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
        probe,
        end: Probe::Nothing,
    }))
}

impl Passage<'_> {
    /// Notes how the request ended: with `reason`, or else a response with `status`.
    pub(crate) fn end(mut self, status: u16, reason: Option<Reason>) {
        self.end = match reason.map(Reason::fault) {
            Some(Fault::Backend) => Probe::Failure,
            Some(_) => Probe::Nothing,
            None if matches!(status, 502..=504) => Probe::Failure,
            None => Probe::Success,
        };
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let (shard, pool) = (self.request.shard, self.request.pool);
        let Some(rules) = &pool.config.overload.circuit_breaker else {
            return;
        };
        let now_us = shard.timers.recent_us();
        let load = pool.balancer.pool();
        let Some((circuit, why)) = load.note_end(rules, self.probe, self.end, now_us) else {
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
