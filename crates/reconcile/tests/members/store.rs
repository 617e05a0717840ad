//! The store of the simulation: it is always right, and every change of it is in one of two logs that watches read.

use std::collections::BTreeMap;

use evenkeel_reconcile::membership::{Beats, MemberRecord, Outcome, Write};
use model::config::Name;
use model::state::BackendId;

/// Time of a lease, from its last keep-alive on.
pub(crate) const LEASE: u64 = 10_000;

/// By which revision, and what; `None`: something that cannot be read.
pub(crate) type Records = BTreeMap<BackendId, (u64, Option<MemberRecord>)>;

/// What a change left under the key of a member.
#[derive(Clone)]
pub(crate) enum Change {
    Put(MemberRecord),
    /// Something that cannot be read.
    Spoilt,
    Removed,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) revision: u64,
    pub(crate) records: Records,
    /// Records as they were a while ago.
    pub(crate) backup: Records,
    /// What each has told last, and on which lease that hangs.
    pub(crate) tellers: BTreeMap<Name, (Beats, u64)>,
    /// Leases, and when each was last kept alive.
    leases: BTreeMap<u64, u64>,
    granted: u64,
    /// Revision, time, and what became of whose record.
    pub(crate) record_log: Vec<(u64, u64, BackendId, Change)>,
    /// Time, and what somebody told; `None`: he is gone.
    pub(crate) beat_log: Vec<(u64, Name, Option<Beats>)>,
    /// Writes of records that were asked for, and those that were made.
    pub(crate) record_tries: u64,
    pub(crate) record_writes: u64,
    pub(crate) beat_writes: u64,
}

impl Shared {
    /// A write of a record, when nothing else stands there than its author saw.
    pub(crate) fn make(&mut self, now: u64, write: Write) -> Outcome {
        self.record_tries += 1;
        let stands = self.records.get(&write.backend).map(|(revision, _)| *revision);
        if stands != write.seen {
            return Outcome::Lost;
        }
        self.revision += 1;
        self.record_writes += 1;
        let change = match write.put {
            Some(record) => {
                let entry = (self.revision, Some(record.clone()));
                self.records.insert(write.backend.clone(), entry);
                Change::Put(record)
            }
            None => {
                self.records.remove(&write.backend);
                Change::Removed
            }
        };
        self.record_log.push((self.revision, now, write.backend, change));
        Outcome::Done(self.revision)
    }

    /// Somebody puts something under the key of a member that cannot be read.
    pub(crate) fn spoil(&mut self, now: u64, backend: &BackendId) {
        self.revision += 1;
        self.records.insert(backend.clone(), (self.revision, None));
        self.record_log
            .push((self.revision, now, backend.clone(), Change::Spoilt));
    }

    /// Somebody tells, on this lease or on a new one; `None`: the lease has ended.
    pub(crate) fn tell(&mut self, now: u64, teller: &Name, beats: Beats, lease: Option<u64>) -> Option<u64> {
        let lease = lease.unwrap_or_else(|| {
            self.granted += 1;
            self.leases.insert(self.granted, now);
            self.granted
        });
        if !self.leases.contains_key(&lease) {
            return None;
        }
        self.beat_writes += 1;
        self.beat_log.push((now, teller.clone(), Some(beats.clone())));
        self.tellers.insert(teller.clone(), (beats, lease));
        Some(lease)
    }

    /// A lease is kept alive, when it has not ended.
    pub(crate) fn keep(&mut self, now: u64, lease: u64) {
        self.leases.entry(lease).and_modify(|kept| *kept = now);
    }

    /// Leases that nobody has kept alive end, or all of them.
    pub(crate) fn expire(&mut self, now: u64, all: bool) {
        let before = self.leases.len();
        self.leases.retain(|_, kept| !all && *kept + LEASE > now);
        if self.leases.len() == before {
            return;
        }
        let leases = &self.leases;
        let log = &mut self.beat_log;
        self.tellers.retain(|teller, (_, lease)| {
            let stands = leases.contains_key(lease);
            if !stands {
                log.push((now, teller.clone(), None));
            }
            stands
        });
    }

    /// Another store takes its place: an empty one, or one that was put back from the backup.
    pub(crate) fn replace(&mut self, from_backup: bool) {
        let records = match from_backup {
            true => self.backup.clone(),
            false => Records::new(),
        };
        self.revision = records.values().map(|(revision, _)| *revision).max().unwrap_or(0) + 1;
        self.records = records;
        self.tellers.clear();
        self.leases.clear();
        self.record_log.clear();
        self.beat_log.clear();
    }
}
