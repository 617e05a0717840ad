//! The shadow model: what must be true, told from what really happens and not from what anybody believes.
//!
//! It sees every write that takes effect, every check that begins and every process's hands (what it really runs,
//! and whether its own clock still lets it). It shares no code with the machines but the types of the records.

use std::collections::BTreeMap;

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::records::{Assignment, Key, Transaction, Value, Write};
use model::config::Name;
use model::state::BackendId;

use crate::store::Store;

pub(crate) struct Shadow {
    slots: u16,
    max_moves: usize,
    /// Assignments may not change: nothing but leases was lost.
    pub(crate) sealed: bool,
    /// When each backend was last looked at.
    pub(crate) checked: Vec<u64>,
    /// The longest that any was not, within what is measured.
    pub(crate) worst: u64,
    /// Gaps are measured from here on; `None`: not now.
    pub(crate) measured_from: Option<u64>,
    epoch: u64,
    verdicts: BTreeMap<BackendId, (u64, u64)>,
    pub(crate) written: u64,
    pub(crate) rounds: u64,
    pub(crate) refused: u64,
}

impl Shadow {
    pub(crate) fn new(slots: u16, max_moves: usize, backends: usize) -> Self {
        Self {
            slots,
            max_moves,
            sealed: false,
            checked: vec![0; backends],
            worst: 0,
            measured_from: None,
            epoch: 0,
            verdicts: BTreeMap::new(),
            written: 0,
            rounds: 0,
            refused: 0,
        }
    }

    /// A check of a backend begins, by somebody who may.
    pub(crate) fn check_begins(&mut self, backend: usize, now: u64) {
        self.measure(backend, now);
        self.checked[backend] = now;
    }

    pub(crate) fn measure(&mut self, backend: usize, now: u64) {
        if let Some(from) = self.measured_from {
            self.worst = self
                .worst
                .max(now.saturating_sub(self.checked[backend].max(from)));
        }
    }

    /// A transaction is about to take effect: may it?
    pub(crate) fn before(
        &mut self,
        store: &Store,
        transaction: &Transaction,
        by: &Name,
    ) -> Result<(), String> {
        for write in &transaction.writes {
            match write {
                Write::Put {
                    key: Key::Assignment(name),
                    ..
                }
                | Write::Delete(Key::Assignment(name))
                    if self.sealed =>
                {
                    return Err(format!(
                        "the assignment of {name} changes, and nothing but leases was lost"
                    ));
                }
                Write::Put {
                    value: Value::Round(round),
                    ..
                } => {
                    let leader = store.keys.get(&Key::Leader);
                    let leads = leader.is_some_and(|leader| {
                        leader.revision == round.epoch
                            && matches!(&leader.value, Value::Leader(leader) if leader.name == *by)
                    });
                    if !leads || round.epoch < self.epoch {
                        return Err(format!(
                            "a round of {by}, epoch {}, who does not lead",
                            round.epoch
                        ));
                    }
                    self.epoch = round.epoch;
                    self.rounds += 1;
                }
                Write::Put {
                    key: Key::Verdict(backend),
                    value: Value::Verdict(verdict),
                    ..
                } => {
                    self.verdict(store, backend, by, (verdict.epoch, verdict.at.0))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn verdict(
        &mut self,
        store: &Store,
        backend: &BackendId,
        by: &Name,
        is: (u64, u64),
    ) -> Result<(), String> {
        let slot = Slot::of(backend.address, self.slots);
        let owns = assignments(store).any(|(name, given)| name == by && given.slots.contains(&slot));
        if !owns {
            return Err(format!("{by} wrote a verdict on {backend}, which is not its own"));
        }
        let before = self.verdicts.insert(backend.clone(), is).unwrap_or_default();
        if is.0 < before.0 || is.1 < before.1 {
            return Err(format!(
                "an older verdict on {backend} took the place of a newer one: {is:?} after {before:?}"
            ));
        }
        self.written += 1;
        Ok(())
    }

    /// A transaction has taken effect: what stands there now?
    pub(crate) fn after(&self, store: &Store) -> Result<(), String> {
        let mut owners = BTreeMap::new();
        let mut on_the_way = 0;
        for (name, given) in assignments(store) {
            for slot in &given.slots {
                if let Some(other) = owners.insert(slot, name) {
                    return Err(format!("{slot:?} is given to {other} and {name}"));
                }
            }
            let revision = store
                .keys
                .get(&Key::Assignment(name.clone()))
                .map_or(0, |given| given.revision);
            let settled = match store
                .keys
                .get(&Key::Worker(name.clone()))
                .map(|worker| &worker.value)
            {
                Some(Value::Worker(worker)) => worker.acknowledged == revision,
                _ => true,
            };
            on_the_way += if settled { 0 } else { given.leaving.len() };
        }
        if on_the_way > self.max_moves {
            return Err(format!("{on_the_way} slots are on the way at once"));
        }
        Ok(())
    }
}

pub(crate) fn assignments(store: &Store) -> impl Iterator<Item = (&Name, &Assignment)> {
    store
        .keys
        .iter()
        .filter_map(|(key, stored)| match (key, &stored.value) {
            (Key::Assignment(name), Value::Assignment(given)) => Some((name, given)),
            _ => None,
        })
}
