//! What stands in the store, and transactions over it, as data.
//!
//! The shell turns a [`Key`] into the store's by [`Key::path`], a [`Value`] into JSON by serde and back by
//! [`Key::read`], and a [`Transaction`] into the store's own.

use std::collections::{BTreeMap, BTreeSet};

use model::config::Name;
use model::state::{BackendId, Health, Timestamp};
use serde::{Deserialize, Serialize};

use super::Slot;

/// One number that grows with every write to the store; 0 is before all of them.
pub type Revision = u64;

/// A lease, as the store names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

/// What the cluster keeps in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Who leads; goes with its lease. The revision that made it is the epoch.
    Leader,
    /// The last round of assignments. Each round compares and rewrites it, so they follow one another.
    Round,
    /// A worker; goes with its lease.
    Worker(Name),
    /// What a worker is to check.
    Assignment(Name),
    /// What was found of a backend.
    Verdict(BackendId),
}

impl Key {
    /// The key's text below the store's prefix. No worker is named `head`: names of workers end in `-` and a number
    /// ([`incarnation`](super::incarnation)).
    pub fn path(&self) -> String {
        match self {
            Self::Leader => "leader".to_owned(),
            Self::Round => "assign/head".to_owned(),
            Self::Worker(name) => format!("workers/{name}"),
            Self::Assignment(name) => format!("assign/{name}"),
            Self::Verdict(backend) => format!("verdicts/{backend}"),
        }
    }

    /// The key of a path below the store's prefix; none that is not of the cluster's.
    pub fn parse(path: &str) -> Option<Self> {
        let Some((head, rest)) = path.split_once('/') else {
            return (path == "leader").then_some(Self::Leader);
        };
        match (head, rest) {
            ("assign", "head") => Some(Self::Round),
            ("assign", name) => Some(Self::Assignment(Name::parse(name).ok()?)),
            ("workers", name) => Some(Self::Worker(Name::parse(name).ok()?)),
            ("verdicts", rest) => {
                let mut parts = rest.splitn(3, '/');
                let mut next = || parts.next();
                Some(Self::Verdict(BackendId {
                    load_balancer: Name::parse(next()?).ok()?,
                    pool: Name::parse(next()?).ok()?,
                    address: next()?.parse().ok()?,
                }))
            }
            _ => None,
        }
    }

    /// What stands under this key. Fields that this version does not know are passed over.
    ///
    /// # Errors
    /// When it is no JSON, or not what belongs under this key.
    pub fn read(&self, json: &[u8]) -> Result<Value, serde_json::Error> {
        match self {
            Self::Leader => serde_json::from_slice(json).map(Value::Leader),
            Self::Round => serde_json::from_slice(json).map(Value::Round),
            Self::Worker(_) => serde_json::from_slice(json).map(Value::Worker),
            Self::Assignment(_) => serde_json::from_slice(json).map(Value::Assignment),
            Self::Verdict(_) => serde_json::from_slice(json).map(Value::Verdict),
        }
    }
}

/// What stands under a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Under [`Key::Leader`].
    Leader(Leadership),
    /// Under [`Key::Assignment`].
    Assignment(Assignment),
    /// Under [`Key::Verdict`].
    Verdict(VerdictRecord),
    /// Under [`Key::Round`].
    Round(Round),
    /// Under [`Key::Worker`].
    Worker(WorkerRecord),
    /// Under any key: what this version cannot read. It counts for nothing, and is replaced.
    Foreign {
        /// Whether the key goes with a lease. Then whoever holds that is alive, and of another version.
        leased: bool,
    },
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The leader.
    pub name: Name,
    /// The lease that the key hangs on: a leader knows by it whether the key is of its present session.
    pub lease: LeaseId,
}

/// A round of assignments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Who made it.
    pub by: Name,
    /// In which epoch.
    pub epoch: Revision,
    /// Who was there, and under which lease: by this it is known how many have vanished since, even by a leader who
    /// was not there then.
    pub workers: BTreeMap<Name, LeaseId>,
}

/// A worker, as it tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// The lease that the key hangs on.
    pub lease: LeaseId,
    /// Revision of the assignment that it has carried out: it runs what that names, and nothing else any more.
    /// 0: it knows of none.
    pub acknowledged: Revision,
}

/// What a worker is to check. Its revision in the store is its sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Of the leader that wrote it.
    pub epoch: Revision,
    /// What it checks.
    pub slots: BTreeSet<Slot>,
    /// What was taken from it. Until it has acknowledged this assignment it may still be checking these.
    pub leaving: BTreeSet<Slot>,
}

/// What was found of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Up or down.
    pub health: Health,
    /// Why, in words.
    pub reason: String,
    /// When, by the clock of who found it: for people, never compared.
    pub at: Timestamp,
    /// Who found it.
    pub by: Name,
    /// Epoch of the assignment under which it was looked at.
    pub epoch: Revision,
    /// The number of the membership that it is about; 0 where nobody counts, and in records of before there were
    /// numbers.
    #[serde(default, skip_serializing_if = "is_uncounted")]
    pub life: u64,
}

fn is_uncounted(life: &u64) -> bool {
    *life == 0
}

/// Writes that happen all together, if all conditions hold, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What is written then.
    pub writes: Vec<Write>,
}

/// What a transaction compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(Key),
    /// The key's last change is of this revision.
    Unchanged(Key, Revision),
}

impl Condition {
    /// The key is as it was read: at this revision, or absent.
    pub(crate) fn still(key: Key, revision: Option<Revision>) -> Self {
        match revision {
            Some(revision) => Self::Unchanged(key, revision),
            None => Self::Absent(key),
        }
    }
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// Which.
        key: Key,
        /// To what.
        value: Value,
        /// The key goes when this lease ends.
        lease: Option<LeaseId>,
    },
    /// Deletes a key.
    Delete(Key),
}
