//! The shadow model: what must be true, told from what really happens and not from what anybody believes.
//!
//! It sees every write that takes effect, every check that begins and every process's hands (what it really runs,
//! and whether its own clock still lets it). It shares no code with the machines but the types of the records.

use std::collections::BTreeMap;

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::records::{Assignment, Key, Transaction, Value, VerdictRecord, Write};
use model::config::Name;
use model::state::BackendId;

use crate::store::Store;

/// Who a backend was, between two returns.
struct Instance {
    since: u64,
    was_up: bool,
    was_down: bool,
}

impl Instance {
    fn new(since: u64, up: bool) -> Self {
        Self {
            since,
            was_up: up,
            was_down: !up,
        }
    }
}

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
    /// The epoch of the last verdict on each backend.
    epochs: BTreeMap<BackendId, u64>,
    /// When the last one on each membership was found.
    verdicts: BTreeMap<(BackendId, u64), u64>,
    /// Each backend has been these, one after the other; the number of a membership is its place.
    members: Vec<Vec<Instance>>,
    backends: Vec<BackendId>,
    pub(crate) written: u64,
    pub(crate) rounds: u64,
    pub(crate) refused: u64,
}

impl Shadow {
    pub(crate) fn new(slots: u16, max_moves: usize, backends: Vec<BackendId>) -> Self {
        Self {
            slots,
            max_moves,
            sealed: false,
            checked: vec![0; backends.len()],
            worst: 0,
            measured_from: None,
            epoch: 0,
            epochs: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            members: backends.iter().map(|_| vec![Instance::new(0, true)]).collect(),
            backends,
            written: 0,
            rounds: 0,
            refused: 0,
        }
    }

    /// The store has lost all that it had.
    pub(crate) fn forget(&mut self) {
        self.epoch = 0;
        self.epochs.clear();
        self.verdicts.clear();
    }

    /// In which membership a backend is.
    pub(crate) fn member(&self, backend: usize) -> u64 {
        self.members[backend].len() as u64 - 1
    }

    /// A backend left and is back as another one; in which membership.
    pub(crate) fn returns(&mut self, backend: usize, up: bool, now: u64) -> u64 {
        self.members[backend].push(Instance::new(now, up));
        self.member(backend)
    }

    /// A backend is up now, or down.
    pub(crate) fn is_now(&mut self, backend: usize, up: bool) {
        if let Some(instance) = self.members[backend].last_mut() {
            instance.was_up |= up;
            instance.was_down |= !up;
        }
    }

    /// Somebody believes this of a membership: it must have been true of that one. (Or of a later one, of which who
    /// looked had not heard.)
    pub(crate) fn may_believe(&self, backend: usize, life: u64, up: bool) -> Result<(), String> {
        let was = |one: &Instance| if up { one.was_up } else { one.was_down };
        match self.members[backend][life as usize..].iter().any(was) {
            true => Ok(()),
            false => Err(format!(
                "a server believes up is {up} of backend {backend}, membership {life}, of which that was never true"
            )),
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
                    self.verdict(store, backend, by, verdict)?;
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
        verdict: &VerdictRecord,
    ) -> Result<(), String> {
        let slot = Slot::of(backend.address, self.slots);
        let owns = assignments(store).any(|(name, given)| name == by && given.slots.contains(&slot));
        if !owns {
            return Err(format!("{by} wrote a verdict on {backend}, which is not its own"));
        }
        let (life, at) = (verdict.life, verdict.at.0);
        let of = self.backends.iter().position(|one| one == backend);
        let member = of.and_then(|of| self.members[of].get(life as usize));
        if member.is_none_or(|member| member.since > at) {
            return Err(format!(
                "a verdict on {backend}, membership {life}, that was found at {at}, before it began"
            ));
        }
        let epoch = self.epochs.insert(backend.clone(), verdict.epoch);
        let before = self.verdicts.insert((backend.clone(), life), at);
        if epoch > Some(verdict.epoch) || before > Some(at) {
            return Err(format!(
                "an older verdict on {backend} took the place of a newer one: {verdict:?} after {epoch:?}, {before:?}"
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
