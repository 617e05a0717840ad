//! An LB server of the simulation: watches, a board, plan B, and checks of its own when it must.

use evenkeel_reconcile::cluster::board::{Board, Taken};
use evenkeel_reconcile::cluster::member::Event;
use evenkeel_reconcile::cluster::records::{Key, Revision, Value};
use evenkeel_reconcile::cluster::view::View;
use evenkeel_reconcile::plan_b::{Phase, PlanB, Sight};
use model::state::{BackendId, Health, Life, Verdict};

use crate::store::Batch;
use crate::world::INTERVAL_MS;

/// How long the last verdicts stand.
pub(crate) const AFTER_MS: u64 = 5000;
/// How long both check when it hands back.
pub(crate) const SETTLE_MS: u64 = 2 * INTERVAL_MS;

pub(crate) struct Server {
    slots: u16,
    view: View,
    pub(crate) board: Board,
    plan_b: PlanB,
    check_at: u64,
    /// Times that it began to check for itself.
    pub(crate) took_over: u32,
}

impl Server {
    pub(crate) fn new(slots: u16, now: u64) -> Self {
        Self {
            slots,
            view: View::default(),
            board: Board::default(),
            plan_b: PlanB::new(AFTER_MS, SETTLE_MS, now),
            check_at: 0,
            took_over: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.plan_b.phase()
    }

    /// What it believes of a backend in this membership.
    pub(crate) fn belief(&self, backend: &BackendId, life: u64) -> Option<Health> {
        self.board
            .belief(backend, life, self.phase().source())
            .map(|belief| belief.health)
    }

    pub(crate) fn verdicts(&mut self, revision: Revision, batch: &Batch) {
        for (key, value) in batch {
            if let (Key::Verdict(backend), Some(Value::Verdict(verdict))) = (key, value) {
                let taken = self.board.store(backend, revision, Some(verdict.clone()));
                assert_ne!(
                    taken,
                    Taken::EarlierEpoch,
                    "the store let an earlier epoch through"
                );
            }
        }
    }

    pub(crate) fn all_verdicts(&mut self, entries: Vec<(Key, Revision, Value)>) {
        for (key, revision, value) in entries {
            self.verdicts(revision, &vec![(key, Some(value))]);
        }
    }

    /// Takes an event; when it wants to be woken. Each of the `backends` with its membership, and whether it is up.
    pub(crate) fn handle<'a>(
        &mut self,
        event: Event,
        connected: bool,
        now: u64,
        backends: impl Iterator<Item = ((&'a BackendId, &'a u64), bool)>,
    ) -> u64 {
        match event {
            Event::Changes(changes) => self.view.apply(changes),
            Event::Listed(listing) => self.view.list(listing),
            _ => {}
        }
        let sight = Sight {
            connected,
            workers: self.view.workers.len(),
            led: self.view.leader.is_some(),
            given_out: self.view.is_given_out(self.slots),
        };
        let checked = self.phase().checks();
        self.plan_b.see(sight, now);
        match (checked, self.phase().checks()) {
            (false, true) => {
                self.took_over += 1;
                self.check_at = now;
            }
            (true, false) => self.board.forget_own(),
            _ => {}
        }
        if !self.phase().checks() {
            return self.plan_b.wake_at();
        }
        if self.check_at <= now {
            self.check_at = now + INTERVAL_MS;
            for ((backend, life), up) in backends {
                self.board.own(Verdict {
                    backend: backend.clone(),
                    health: if up { Health::Up } else { Health::Down },
                    reason: String::new(),
                    life: Life::of_member(*life),
                });
            }
        }
        self.check_at.min(self.plan_b.wake_at())
    }
}
