//! What one process has seen of the store: leader, workers, assignments.
//!
//! It comes by three watches, one per [`Prefix`], each in order and by whole revisions, but not in step with one
//! another: a worker's acknowledgement may be seen before the assignment that it is of. Nobody may therefore rely
//! on a view being of one moment. [`plan`](super::plan) does not: it compares revisions, and the store has the last
//! word.

use std::collections::BTreeMap;

use model::config::Name;

use super::Slot;
use super::records::{Assignment, Key, Leadership, Revision, Round, Value, WorkerRecord};

/// What is watched by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// [`Key::Leader`].
    Leader,
    /// All [`Key::Worker`]s.
    Workers,
    /// [`Key::Round`] and all [`Key::Assignment`]s.
    Assignments,
}

impl Prefix {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Leader, Self::Workers, Self::Assignments];

    /// By which watch changes of a key come; `None`: by that of the verdicts, which is not one of these.
    pub fn of(key: &Key) -> Option<Self> {
        match key {
            Key::Leader => Some(Self::Leader),
            Key::Worker(_) => Some(Self::Workers),
            Key::Round | Key::Assignment(_) => Some(Self::Assignments),
            Key::Verdict(_) => None,
        }
    }
}

/// All changes of one revision under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Where.
    pub prefix: Prefix,
    /// Of which revision.
    pub revision: Revision,
    /// What each key is now; `None`: deleted.
    pub changes: Vec<(Key, Option<Value>)>,
}

/// All that stands under a prefix at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Where.
    pub prefix: Prefix,
    /// The moment.
    pub revision: Revision,
    /// It is of another store than what was seen before: their revisions cannot be compared.
    pub another: bool,
    /// Each key with the revision of its last change.
    pub entries: Vec<(Key, Revision, Value)>,
}

/// Something with the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Last change.
    pub revision: Revision,
    /// What it is.
    pub value: T,
}

/// Something that this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Last change.
    pub revision: Revision,
    /// Whether it goes with a lease ([`Value::Foreign`]).
    pub leased: bool,
}

/// What was seen of the store so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who leads; its revision is the epoch.
    pub leader: Option<Entry<Leadership>>,
    /// The last round; `None`: there was none yet.
    pub round: Option<Entry<Round>>,
    /// Workers whose lease holds.
    pub workers: BTreeMap<Name, Entry<WorkerRecord>>,
    /// Assignments, of workers and of those that are no more.
    pub assignments: BTreeMap<Name, Entry<Assignment>>,
    /// Keys whose values cannot be read. They are in none of the others, and are no less there: who writes such a key
    /// compares this revision.
    pub unread: BTreeMap<Key, Unread>,
    seen: BTreeMap<Prefix, Revision>,
}

impl View {
    /// Takes changes; older ones than seen are passed over.
    pub fn apply(&mut self, changes: Changes) {
        if changes.revision <= self.seen(changes.prefix) {
            return;
        }
        self.seen.insert(changes.prefix, changes.revision);
        for (key, value) in changes.changes {
            self.set(key, changes.revision, value);
        }
    }

    /// Takes everything under a prefix in place of what was known; an older listing than seen is passed over.
    pub fn list(&mut self, listing: Listing) {
        if listing.revision < self.seen(listing.prefix) && !listing.another {
            return;
        }
        self.seen.insert(listing.prefix, listing.revision);
        self.unread
            .retain(|key, _| Prefix::of(key) != Some(listing.prefix));
        match listing.prefix {
            Prefix::Leader => self.leader = None,
            Prefix::Workers => self.workers.clear(),
            Prefix::Assignments => {
                self.round = None;
                self.assignments.clear();
            }
        }
        for (key, revision, value) in listing.entries {
            self.set(key, revision, Some(value));
        }
    }

    /// Revision up to which a prefix was seen; 0: never.
    pub fn seen(&self, prefix: Prefix) -> Revision {
        self.seen.get(&prefix).copied().unwrap_or(0)
    }

    /// Whether all of it was listed at least once.
    pub fn is_whole(&self) -> bool {
        self.seen.len() == Prefix::ALL.len()
    }

    /// Whether a worker runs what it was given, and nothing else: it has acknowledged the assignment as it stands.
    pub fn is_settled(&self, worker: &Name) -> bool {
        let given = self.assignments.get(worker).map_or(0, |given| given.revision);
        self.workers
            .get(worker)
            .is_some_and(|worker| worker.value.acknowledged == given || given == 0)
    }

    /// Whether every one of `slots` slots is being checked by a worker that is there and has said so.
    pub fn is_given_out(&self, slots: u16) -> bool {
        let checked: usize = self
            .assignments
            .iter()
            .filter(|(name, _)| self.is_settled(name))
            .map(|(_, given)| given.value.slots.range(..Slot(slots)).count())
            .sum();
        checked >= usize::from(slots)
    }

    fn set(&mut self, key: Key, revision: Revision, value: Option<Value>) {
        match value {
            Some(Value::Foreign { leased }) => {
                self.unread.insert(key.clone(), Unread { revision, leased });
            }
            _ => _ = self.unread.remove(&key),
        }
        match (key, value) {
            (Key::Leader, Some(Value::Leader(value))) => self.leader = Some(Entry { revision, value }),
            (Key::Leader, _) => self.leader = None,
            (Key::Round, Some(Value::Round(value))) => self.round = Some(Entry { revision, value }),
            (Key::Round, _) => self.round = None,
            (Key::Worker(name), Some(Value::Worker(value))) => {
                self.workers.insert(name, Entry { revision, value });
            }
            (Key::Worker(name), _) => {
                self.workers.remove(&name);
            }
            (Key::Assignment(name), Some(Value::Assignment(value))) => {
                self.assignments.insert(name, Entry { revision, value });
            }
            (Key::Assignment(name), _) => {
                self.assignments.remove(&name);
            }
            (Key::Verdict(_), _) => {}
        }
    }
}
