//! What is known about one backend from the requests it got.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crate::latency::Latency;
use crate::window::{Count, Sums, Window};

/// Set in `ejected_until` when the pool was failing open at that moment (see [`Load::is_out`]).
const WHILE_FAILING_OPEN: u64 = 1;

/// Live figures of one backend in one pool, over all threads. Kept in an `Arc` by the caller for as long as the
/// backend is configured, so that reloads forget nothing.
// A cache line of its own: threads that count on one backend do not slow those that count on its neighbour.
#[repr(align(64))]
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    failures_in_a_row: AtomicU32,
    /// Microseconds; lowest bit: [`WHILE_FAILING_OPEN`]; 0: never.
    ejected_until: AtomicU64,
    pub(crate) latency: Latency,
    /// First count: requests; second: failures among them.
    outcomes: Window,
    /// Ejections not yet forgotten. Written under the pool's lock only.
    ejections: AtomicU32,
    /// The number of the membership that all but the requests in flight is of. Written under the pool's lock only.
    membership: AtomicU64,
}

impl Load {
    /// A backend of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request sent there. Each is ended by exactly one [`Load::end`].
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Counts a request sent there if fewer than `cap` are in flight. Each is ended by exactly one [`Load::end`].
    pub(crate) fn try_begin(&self, cap: u32) -> bool {
        let more = |now: u32| (now < cap).then_some(now + 1);
        self.in_flight.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Counts the end of a request.
    pub fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a request ended that never began");
    }

    /// Whether it is ejected at `now_us`, whatever the pool's policy makes of that.
    pub fn ejected(&self, now_us: u64) -> bool {
        self.ejected_until.load(Relaxed) > now_us
    }

    /// Whether an ejection keeps it from new requests. In a pool that fails open, an ejection from before counts
    /// no more (the policy says to use those), but one from that very state does: it is news.
    pub(crate) fn is_out(&self, now_us: u64, fail_open: bool) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until > now_us && (!fail_open || until & WHILE_FAILING_OPEN != 0)
    }

    /// End of its last ejection in microseconds; 0 when there was none.
    pub(crate) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Relaxed) & !WHILE_FAILING_OPEN
    }

    /// Puts it out until then and starts its history anew.
    pub(crate) fn eject(&self, until_us: u64, ejections: u32, fail_open: bool) {
        let flag = if fail_open { WHILE_FAILING_OPEN } else { 0 };
        self.ejected_until
            .store((until_us & !WHILE_FAILING_OPEN) | flag, Relaxed);
        self.ejections.store(ejections, Relaxed);
        self.failures_in_a_row.store(0, Relaxed);
        self.outcomes.clear();
    }

    /// Ejections not yet forgotten, as of the last one.
    pub(crate) fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// The number of the membership whose requests count; 0 where nobody counts.
    pub(crate) fn membership(&self) -> u64 {
        self.membership.load(Relaxed)
    }

    /// Requests of this membership count from now on; nothing is held against it when it `is_another` instance.
    pub(crate) fn set_membership(&self, number: u64, is_another: bool) {
        self.membership.store(number, Relaxed);
        if is_another {
            self.eject(0, 0, false);
            self.latency.clear();
        }
    }

    pub(crate) fn note_success(&self, tick: u64) {
        // Read first: on a healthy backend nobody needs to own the line for this.
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
        self.outcomes.add(tick, Count::First);
    }

    /// Counts a failure; returns how many there were in a row, and the sums of the window.
    pub(crate) fn note_failure(&self, tick: u64) -> (u32, Sums) {
        self.outcomes.add(tick, Count::Both);
        let in_a_row = self.failures_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        (in_a_row, self.outcomes.sums(tick))
    }
}
