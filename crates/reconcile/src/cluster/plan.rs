//! What a leader does: from what stands in the store to the next round of assignments.
//!
//! The store is all that a round depends on, so a new leader goes on where the last one was. One thing a leader
//! knows besides, by its own clock: since when more than half of the workers have been missing, or there has been no
//! round. It may forget that without harm.
//!
//! **Mass loss**: a round notes who was there and under which lease. When more than half have lost that lease since,
//! and some are not back, nothing is given anew for one lease: it is more likely the store that lost the leases
//! before their time, their holders may still be checking, and all are about to come back to what they had. That
//! the note is in the store matters: the leader's lease is lost with the others, so whoever leads then was not
//! leading before. The price is one lease more without checks when more than half do die; a worker that stops in
//! order takes itself out of its assignment, and is not missed.
//!
//! **No round yet**: the store is new, or has lost all that it had, and then those who had something may still be
//! checking it. The first round waits for one lease, too.
//!
//! **What cannot be read** ([`View::unread`]) was written by a hand or by another version. A round that cannot be read is
//! none. An assignment that cannot be read may have said anything, and who has it may not have noticed that yet: for
//! one lease nothing is given anew, then it is written over, or deleted with the dead. A worker whose key cannot be
//! read is neither dead nor given anything: alive it registers anew, and a key with a lease goes with that. Without a
//! lease, and still the same after one, it is of nobody who lives.
//!
//! A round is one transaction: it compares the leader's key (nobody else leads), the round before (nothing has
//! been given since the view was taken, and no earlier call can land later), and the key of every worker: those it
//! takes for dead have none, or still the one that cannot be read, and the others are as seen. So a round that takes effect was planned from what was
//! true. It deletes the assignments of the dead and rewrites those that change.
//!
//! A *live* move takes two rounds: the slot goes from the old worker's `slots` to its `leaving`, and to the new
//! worker when the old one has acknowledged that. What the dead had is given in the round that sees them dead.

use std::collections::{BTreeMap, BTreeSet};

use model::config::Name;

use super::Slot;
use super::records::{Assignment, Condition, Key, LeaseId, Revision, Round, Transaction, Value, Write};
use super::spread::spread;
use super::view::View;

/// Workers that get something to do. More of them stand by: a round compares the key of each, and etcd takes 128
/// operations in a transaction.
pub const WORKERS: usize = 100;

/// Dead workers whose slots one round gives to others; the rest follows in the next.
pub const DEAD_PER_ROUND: usize = 24;

/// Plans rounds.
#[derive(Clone, Debug)]
pub struct Planner {
    lease_ms: u64,
    max_moves: usize,
    missing: Missing,
    /// Since when a key has had this value that cannot be read.
    unread: BTreeMap<(Key, Revision), u64>,
    /// An assignment has had one for less than a lease.
    waits: bool,
}

/// Whether more than half of the workers are gone, or nothing is known of who was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    No,
    Since(u64),
    /// For so long that they are not coming back.
    Gone,
}

impl Planner {
    /// A leader's, at its election. `max_moves`: slots that may be on the way from one live worker to another at the
    /// same time (0 counts as 1).
    pub fn new(lease_ms: u64, max_moves: usize) -> Self {
        Self {
            lease_ms,
            max_moves: max_moves.max(1),
            missing: Missing::No,
            unread: BTreeMap::new(),
            waits: false,
        }
    }

    /// Whether nothing is given out now, because so many vanished at once that the store is more likely at fault, or
    /// because the store has no round, or an assignment that cannot be read.
    pub fn is_frozen(&self) -> bool {
        self.waits || matches!(self.missing, Missing::Since(_))
    }

    /// The round to make now; `None` when all is as it should be, or frozen, or nobody is there to work.
    ///
    /// `weights` has one number per slot and says how many there are; `leader` is who plans and `epoch` the revision
    /// of its key.
    pub fn plan(
        &mut self,
        view: &View,
        weights: &[u64],
        leader: &Name,
        epoch: Revision,
        now: u64,
    ) -> Option<Transaction> {
        self.look_at_unread(view, now);
        let dead = self.dead(view, now);
        self.count(view, !dead.is_empty(), now);
        if self.is_frozen() || view.workers.is_empty() {
            return None;
        }
        let dead = &dead[..dead.len().min(DEAD_PER_ROUND)];
        let workers = workers(view);
        let given = give(view, &workers, weights, dead, self.max_moves, epoch);
        let lease = |name: &&Name| Some(((*name).clone(), view.workers.get(*name)?.value.lease));
        let round = Round {
            by: leader.clone(),
            epoch,
            workers: workers.iter().filter_map(lease).collect(),
        };
        let noted = view
            .round
            .as_ref()
            .is_some_and(|last| last.value.workers == round.workers);
        if noted && given.is_empty() && dead.is_empty() {
            return None;
        }
        Some(transaction(view, dead, given, round))
    }

    fn look_at_unread(&mut self, view: &View, now: u64) {
        let there = view.unread.iter();
        let since = there.map(|(key, there)| {
            let which = (key.clone(), there.revision);
            let since = self.unread.get(&which).copied().unwrap_or(now);
            (which, since)
        });
        self.unread = since.collect();
        self.waits = self.unread.iter().any(|((key, _), since)| {
            matches!(key, Key::Assignment(_)) && now.saturating_sub(*since) < self.lease_ms
        });
    }

    /// Those that have an assignment and live no more.
    fn dead<'a>(&self, view: &'a View, now: u64) -> Vec<&'a Name> {
        let unread = view.unread.keys().filter_map(|key| match key {
            Key::Assignment(name) => Some(name),
            _ => None,
        });
        let names: BTreeSet<&Name> = view.assignments.keys().chain(unread).collect();
        let is_dead = |name: &&Name| !view.workers.contains_key(*name) && !self.may_live(view, name, now);
        names.into_iter().filter(is_dead).collect()
    }

    /// Whether a key that cannot be read may be that of a worker that lives.
    fn may_live(&self, view: &View, name: &Name, now: u64) -> bool {
        let key = Key::Worker(name.clone());
        let Some(there) = view.unread.get(&key) else {
            return false;
        };
        let since = self.unread.get(&(key, there.revision)).copied();
        there.leased || now.saturating_sub(since.unwrap_or(now)) < self.lease_ms
    }

    /// Freezes, once for a lease, while somebody is missing and more than half have lost their lease; and while
    /// nobody knows who was there.
    fn count(&mut self, view: &View, somebody_is_dead: bool, now: u64) {
        let lost = view.round.as_ref().is_none_or(|round| {
            let known = &round.value.workers;
            let gone = |(name, lease): &(&Name, &LeaseId)| {
                let worker = view.workers.get(*name);
                worker.is_none_or(|worker| worker.value.lease != **lease)
            };
            somebody_is_dead && known.iter().filter(gone).count() * 2 > known.len()
        });
        self.missing = match self.missing {
            _ if !lost => Missing::No,
            Missing::No => Missing::Since(now),
            Missing::Since(then) if now.saturating_sub(then) >= self.lease_ms => Missing::Gone,
            as_before => as_before,
        };
    }
}

/// Those that are given something to do, by name: who has something already comes before who stands by.
fn workers(view: &View) -> Vec<&Name> {
    let mut workers: Vec<&Name> = view.workers.keys().collect();
    if workers.len() > WORKERS {
        workers.sort_by_key(|name| !view.assignments.contains_key(*name));
        workers.truncate(WORKERS);
        workers.sort();
    }
    workers
}

/// The assignments that change.
fn give(
    view: &View,
    workers: &[&Name],
    weights: &[u64],
    dead: &[&Name],
    max_moves: usize,
    epoch: Revision,
) -> BTreeMap<Name, Assignment> {
    let places = Places::of(view, workers, weights.len(), dead);
    let wanted = spread(workers, weights, &places.owners());
    let mut next = Next::of(view, workers, epoch);
    let mut moves = max_moves.saturating_sub(places.on_the_way());
    for (slot, (place, to)) in (0..).map(Slot).zip(places.0.iter().zip(wanted)) {
        match *place {
            Place::With(from) if from != to && moves > 0 => {
                next.take(from, slot);
                moves -= 1;
            }
            Place::Free => next.give(to, slot),
            Place::Leaving(from) if from == to => next.give(to, slot),
            _ => {}
        }
    }
    next.changed(workers)
}

/// Where a slot is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nobody can be checking it.
    Free,
    /// It is given to this worker.
    With(usize),
    /// It was taken from this worker, which has not acknowledged that yet.
    Leaving(usize),
    /// A dead worker has it that this round leaves for the next.
    Kept,
}

struct Places(Vec<Place>);

impl Places {
    /// `dead` are those whose slots are free from now on.
    fn of(view: &View, workers: &[&Name], slots: usize, dead: &[&Name]) -> Self {
        let mut places = Self(vec![Place::Free; slots]);
        let kept = || view.assignments.iter().filter(|(name, _)| !dead.contains(name));
        for (name, given) in kept().filter(|(name, _)| !view.is_settled(name)) {
            let place = workers.binary_search(&name).map_or(Place::Kept, Place::Leaving);
            places.set(&given.value.leaving, place);
        }
        // Who has a slot counts for more than who seems to be leaving it: an acknowledgement may be seen late.
        for (name, given) in kept() {
            let place = workers.binary_search(&name).map_or(Place::Kept, Place::With);
            places.set(&given.value.slots, place);
        }
        places
    }

    fn set(&mut self, slots: &BTreeSet<Slot>, place: Place) {
        for slot in slots {
            if let Some(entry) = self.0.get_mut(usize::from(slot.0)) {
                *entry = place;
            }
        }
    }

    fn owners(&self) -> Vec<Option<usize>> {
        let owner = |place: &Place| match place {
            Place::With(worker) => Some(*worker),
            _ => None,
        };
        self.0.iter().map(owner).collect()
    }

    fn on_the_way(&self) -> usize {
        self.0
            .iter()
            .filter(|place| matches!(place, Place::Leaving(_)))
            .count()
    }
}

/// The assignments after this round, by the index of the worker.
struct Next {
    given: Vec<Assignment>,
    /// Those that differ from what stands in the store.
    changed: BTreeSet<usize>,
}

impl Next {
    fn of(view: &View, workers: &[&Name], epoch: Revision) -> Self {
        let now = |name: &&Name| {
            let given = view.assignments.get(*name).map(|given| &given.value);
            let acknowledged = view.is_settled(name);
            Assignment {
                epoch,
                slots: given.map(|given| given.slots.clone()).unwrap_or_default(),
                leaving: given
                    .filter(|_| !acknowledged)
                    .map(|given| given.leaving.clone())
                    .unwrap_or_default(),
            }
        };
        // Even who gets nothing gets an assignment: by that it is missed when it vanishes.
        let is_new = |worker: &usize| {
            workers
                .get(*worker)
                .is_some_and(|name| !view.assignments.contains_key(*name))
        };
        Self {
            given: workers.iter().map(now).collect(),
            changed: (0..workers.len()).filter(is_new).collect(),
        }
    }

    fn give(&mut self, worker: usize, slot: Slot) {
        self.change(worker, |given| {
            given.leaving.remove(&slot);
            given.slots.insert(slot);
        });
    }

    fn take(&mut self, worker: usize, slot: Slot) {
        self.change(worker, |given| {
            given.slots.remove(&slot);
            given.leaving.insert(slot);
        });
    }

    fn change(&mut self, worker: usize, how: impl FnOnce(&mut Assignment)) {
        if let Some(given) = self.given.get_mut(worker) {
            self.changed.insert(worker);
            how(given);
        }
    }

    fn changed(self, workers: &[&Name]) -> BTreeMap<Name, Assignment> {
        let changed = self.changed;
        self.given
            .into_iter()
            .enumerate()
            .filter(|(worker, _)| changed.contains(worker))
            .filter_map(|(worker, given)| Some(((*workers.get(worker)?).clone(), given)))
            .collect()
    }
}

fn transaction(view: &View, dead: &[&Name], given: BTreeMap<Name, Assignment>, round: Round) -> Transaction {
    let unread = |key: &Key| view.unread.get(key).map(|there| there.revision);
    let before = view.round.as_ref().map(|round| round.revision);
    let mut conditions = vec![
        Condition::Unchanged(Key::Leader, round.epoch),
        Condition::still(Key::Round, before.or_else(|| unread(&Key::Round))),
    ];
    conditions.extend(dead.iter().map(|name| {
        let key = Key::Worker((*name).clone());
        let there = unread(&key);
        Condition::still(key, there)
    }));
    conditions.extend(round.workers.keys().filter_map(|name| {
        let seen = view.workers.get(name)?.revision;
        Some(Condition::Unchanged(Key::Worker(name.clone()), seen))
    }));
    let mut writes = vec![put(Key::Round, Value::Round(round))];
    writes.extend(
        dead.iter()
            .map(|name| Write::Delete(Key::Assignment((*name).clone()))),
    );
    writes.extend(
        given
            .into_iter()
            .map(|(name, given)| put(Key::Assignment(name), Value::Assignment(given))),
    );
    Transaction { conditions, writes }
}

fn put(key: Key, value: Value) -> Write {
    Write::Put {
        key,
        value,
        lease: None,
    }
}
