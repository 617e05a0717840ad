//! Whether a check may be made right now: asked before each probe, by any thread, without waiting.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reconcile::cluster::Slot;
use tokio::time::Instant;

/// The slots that run here, and until when.
#[derive(Debug)]
pub struct Leave {
    /// Zero of the milliseconds.
    started: Instant,
    /// Nothing may be checked from then on.
    until_ms: AtomicU64,
    slots: u16,
    /// A bit for each slot that runs.
    running: Vec<AtomicU64>,
}

impl Leave {
    /// Of a cluster with this many slots; nothing may be checked yet.
    #[must_use]
    pub fn new(slots: u16) -> Self {
        let words = usize::from(slots).div_ceil(64);
        Self {
            started: Instant::now(),
            until_ms: AtomicU64::new(0),
            slots,
            running: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether a check of this address may begin now.
    #[must_use]
    pub fn may_check(&self, address: SocketAddr) -> bool {
        let slot = Slot::of(address, self.slots).0;
        let word = self.running.get(usize::from(slot / 64));
        let runs = word.is_some_and(|word| word.load(Ordering::Acquire) & (1 << (slot % 64)) != 0);
        runs && self.now_ms() < self.until_ms.load(Ordering::Acquire)
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a time in milliseconds; one far ahead when there is none.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        const FAR: Duration = Duration::from_secs(3600);
        let far = Instant::now() + FAR;
        let at = self.started.checked_add(Duration::from_millis(at_ms));
        at.map_or(far, |at| at.min(far))
    }

    pub(super) fn set_until(&self, until_ms: u64) {
        self.until_ms.store(until_ms, Ordering::Release);
    }

    pub(super) fn set_slots(&self, slots: &BTreeSet<Slot>) {
        for (word, place) in self.running.iter().zip(0_u16..) {
            let bits = slots
                .range(Slot(place * 64)..=Slot(place * 64 + 63))
                .fold(0, |bits, slot| bits | 1_u64 << (slot.0 % 64));
            word.store(bits, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    /// Scenario: exactly the addresses of the slots that run, and only until the time is over.
    #[test]
    fn what_runs_may_be_checked_until_the_time_is_over() {
        let leave = Leave::new(1000);
        assert!(!leave.may_check(address(1)));
        let slots: BTreeSet<Slot> = (0..1000).filter(|n| n % 3 == 0).map(Slot).collect();
        leave.set_slots(&slots);
        assert!((0..3000).all(|port| !leave.may_check(address(port))), "no time");
        leave.set_until(u64::MAX);
        for port in 0..3000 {
            let runs = slots.contains(&Slot::of(address(port), 1000));
            assert_eq!(leave.may_check(address(port)), runs);
        }
        leave.set_until(leave.now_ms());
        assert!((0..3000).all(|port| !leave.may_check(address(port))), "over");
        leave.set_until(u64::MAX);
        leave.set_slots(&BTreeSet::new());
        assert!(
            (0..3000).all(|port| !leave.may_check(address(port))),
            "nothing runs"
        );
    }
}
