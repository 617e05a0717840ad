//! A store that is always right: linearizable, with revisions, transactions and leases.

use std::collections::BTreeMap;

use evenkeel_reconcile::cluster::records::{Condition, Key, LeaseId, Revision, Transaction, Value, Write};
use evenkeel_reconcile::cluster::view::Prefix;

/// What a revision changed: each key with what it is now.
pub(crate) type Batch = Vec<(Key, Option<Value>)>;

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) revision: Revision,
    pub(crate) keys: BTreeMap<Key, Stored>,
    /// When each lease ends.
    pub(crate) leases: BTreeMap<LeaseId, u64>,
    granted: i64,
    /// How often it was emptied.
    pub(crate) emptied: u32,
}

pub(crate) struct Stored {
    pub(crate) revision: Revision,
    pub(crate) value: Value,
    lease: Option<LeaseId>,
}

impl Store {
    pub(crate) fn grant(&mut self, ends: u64) -> LeaseId {
        self.granted += 1;
        let lease = LeaseId(self.granted);
        self.leases.insert(lease, ends);
        lease
    }

    pub(crate) fn holds(&self, transaction: &Transaction) -> bool {
        transaction.conditions.iter().all(|condition| match condition {
            Condition::Absent(key) => !self.keys.contains_key(key),
            Condition::Unchanged(key, revision) => self
                .keys
                .get(key)
                .is_some_and(|there| there.revision == *revision),
        })
    }

    /// Loses all that it had; its revisions go on from there.
    pub(crate) fn forget(&mut self, revision: Revision) {
        self.keys.clear();
        self.leases.clear();
        self.revision = revision;
        self.emptied += 1;
    }

    /// Whether every lease that it names is there.
    pub(crate) fn has_leases_of(&self, transaction: &Transaction) -> bool {
        transaction.writes.iter().all(|write| match write {
            Write::Put {
                lease: Some(lease), ..
            } => self.leases.contains_key(lease),
            _ => true,
        })
    }

    pub(crate) fn commit(&mut self, transaction: Transaction) -> Batch {
        self.revision += 1;
        let mut batch = Vec::new();
        for write in transaction.writes {
            match write {
                Write::Put { key, value, lease } => {
                    batch.push((key.clone(), Some(value.clone())));
                    let stored = Stored {
                        revision: self.revision,
                        value,
                        lease,
                    };
                    self.keys.insert(key, stored);
                }
                Write::Delete(key) => {
                    self.keys.remove(&key);
                    batch.push((key, None));
                }
            }
        }
        batch
    }

    /// Ends a lease; what it held goes with it.
    pub(crate) fn end(&mut self, lease: LeaseId) -> Batch {
        self.leases.remove(&lease);
        let held = |stored: &Stored| stored.lease == Some(lease);
        let keys: Vec<Key> = self
            .keys
            .iter()
            .filter(|(_, s)| held(s))
            .map(|(key, _)| key.clone())
            .collect();
        if keys.is_empty() {
            return Vec::new();
        }
        self.revision += 1;
        keys.iter().for_each(|key| _ = self.keys.remove(key));
        keys.into_iter().map(|key| (key, None)).collect()
    }

    /// Everything but the verdicts is deleted.
    pub(crate) fn empty(&mut self) -> Batch {
        self.revision += 1;
        let keys = self.keys.keys().filter(|key| !matches!(key, Key::Verdict(_)));
        let keys: Vec<Key> = keys.cloned().collect();
        keys.iter().for_each(|key| _ = self.keys.remove(key));
        keys.into_iter().map(|key| (key, None)).collect()
    }

    /// Somebody writes what no process can read, perhaps under a lease.
    pub(crate) fn scribble(&mut self, key: Key, lease: Option<LeaseId>) -> Batch {
        let value = Value::Foreign {
            leased: lease.is_some(),
        };
        let write = Write::Put { key, value, lease };
        self.commit(Transaction {
            conditions: Vec::new(),
            writes: vec![write],
        })
    }

    pub(crate) fn list(&self, prefix: Option<Prefix>) -> Vec<(Key, Revision, Value)> {
        self.keys
            .iter()
            .filter(|(key, _)| prefix_of(key) == prefix)
            .map(|(key, stored)| (key.clone(), stored.revision, stored.value.clone()))
            .collect()
    }
}

/// The watch that a key belongs to; `None`: that of the verdicts.
pub(crate) fn prefix_of(key: &Key) -> Option<Prefix> {
    match key {
        Key::Leader => Some(Prefix::Leader),
        Key::Worker(_) => Some(Prefix::Workers),
        Key::Round | Key::Assignment(_) => Some(Prefix::Assignments),
        Key::Verdict(_) => None,
    }
}
