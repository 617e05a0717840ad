//! What readers see, and what is prepared for the disk beside it.
//!
//! [`Staged`] is a group of writes that is not on disk yet: each is judged by what the memory holds and what the
//! group did before it. Only when the disk has it, [`Memory::publish`] makes it visible, at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{Loaded, Numbers};
use crate::bounds::{MAX_EMBEDDED_BYTES, MAX_EMBEDDED_LEASES, MAX_HISTORY_BYTES, MAX_HISTORY_REVISIONS};
use crate::error::{ErrorKind, StoreError};
use crate::transaction::{Compare, Transaction, With, Write};
use crate::types::{Changes, Committed, Entry, Event, LeaseId, Revision};

/// What is on disk, as readers see it.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) revision: Revision,
    /// The first revision from which on all changes are kept.
    pub(super) oldest: Revision,
    /// The writer has ended.
    pub(super) closed: bool,
    /// Why the last write failed.
    pub(super) trouble: Option<String>,
    /// One for each revision, without gaps.
    history: VecDeque<Changes>,
    history_bytes: usize,
    /// Keys and values of all entries.
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) seconds: u32,
    pub(super) ends: Instant,
    /// Its end is on the way to the disk: too late to keep it alive.
    ending: bool,
    keys: BTreeSet<String>,
}

impl Memory {
    /// What a file held. Each lease gets its whole time again: nobody knows for how long nobody could keep it.
    pub(super) fn new(loaded: Loaded, now: Instant) -> Self {
        let mut memory = Self {
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: loaded.numbers.revision,
            oldest: loaded.numbers.revision.next(),
            closed: false,
            trouble: None,
            history: VecDeque::new(),
            history_bytes: 0,
            bytes: 0,
        };
        for (id, seconds) in loaded.leases {
            memory.leases.insert(id, Lease::new(seconds, now));
        }
        for entry in loaded.entries {
            memory.insert(entry);
        }
        memory
    }

    /// The entries under a prefix, in order.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self
            .entries
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    /// The first revision at or after `from` that changed something under `prefix`.
    pub(super) fn changes(&self, from: Revision, prefix: &str) -> Option<Changes> {
        let first = self.history.front()?.revision;
        let skip = usize::try_from(from.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        self.history.iter().skip(skip).find_map(|changes| {
            let within = |event: &&Event| event.key().starts_with(prefix);
            let count = changes.events.iter().filter(within).count();
            match count {
                0 => None,
                all if all == changes.events.len() => Some(changes.clone()),
                _ => Some(Changes {
                    revision: changes.revision,
                    events: changes.events.iter().filter(within).cloned().collect(),
                }),
            }
        })
    }

    /// Gives a lease its whole time again.
    pub(super) fn keep(&mut self, id: LeaseId, now: Instant) -> Result<u32, StoreError> {
        let alive = self
            .leases
            .get_mut(&id)
            .filter(|lease| !lease.ending && lease.ends > now);
        let Some(lease) = alive else {
            return Err(lease_gone(id));
        };
        lease.ends = now + Duration::from_secs(lease.seconds.into());
        Ok(lease.seconds)
    }

    /// Forgets changes before a revision.
    pub(super) fn compact(&mut self, before: Revision) -> Result<(), StoreError> {
        if before > self.revision {
            let detail = format!(
                "compaction before {before}, which is not reached: {}",
                self.revision
            );
            return Err(StoreError::not_done(ErrorKind::Invalid, detail));
        }
        while self
            .history
            .front()
            .is_some_and(|oldest| oldest.revision < before)
        {
            self.forget();
        }
        self.oldest = self.oldest.max(before);
        Ok(())
    }

    /// The time of the lease that ends next.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }

    /// Leases whose time is over; from now on they cannot be kept.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<LeaseId> {
        let over = self.leases.iter_mut().filter(|(_, lease)| lease.ends <= now);
        over.map(|(id, lease)| {
            lease.ending = true;
            *id
        })
        .collect()
    }

    /// Says whether a lease is on its way out.
    pub(super) fn set_ending(&mut self, id: LeaseId, ending: bool) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.ending = ending;
        }
    }

    /// Makes visible what is on disk now.
    pub(super) fn publish(&mut self, staged: Staged, now: Instant) {
        for (id, state) in staged.leases {
            match state {
                Some(seconds) => self.leases.insert(id, Lease::new(seconds, now)),
                None => self.leases.remove(&id),
            };
        }
        for (key, state) in staged.entries {
            self.remove(&key);
            if let Some(entry) = state {
                self.insert(entry);
            }
        }
        for changes in staged.changes {
            self.history_bytes += weight(&changes);
            self.history.push_back(changes);
        }
        while self.history.len() > MAX_HISTORY_REVISIONS || self.history_bytes > MAX_HISTORY_BYTES {
            self.forget();
        }
        self.revision = staged.numbers.revision;
    }

    fn forget(&mut self) {
        if let Some(changes) = self.history.pop_front() {
            self.history_bytes -= weight(&changes);
            self.oldest = self.oldest.max(changes.revision.next());
        }
    }

    fn insert(&mut self, entry: Entry) {
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(entry.key.clone());
        }
        self.bytes += size(&entry);
        self.entries.insert(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &str) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.bytes -= size(&entry);
        if let Some(lease) = entry.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }
}

impl Lease {
    fn new(seconds: u32, now: Instant) -> Self {
        Self {
            seconds,
            ends: now + Duration::from_secs(seconds.into()),
            ending: false,
            keys: BTreeSet::new(),
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len()
}

fn weight(changes: &Changes) -> usize {
    let of = |event: &Event| match event {
        Event::Put(entry) => size(entry),
        Event::Deleted { key } => key.len(),
    };
    changes.events.iter().map(of).sum()
}

/// A group of writes on its way to the disk.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) numbers: Numbers,
    /// What becomes of each key that it touches.
    pub(super) entries: BTreeMap<String, Option<Entry>>,
    /// What becomes of each lease: its seconds, or its end.
    pub(super) leases: BTreeMap<LeaseId, Option<u32>>,
    changes: Vec<Changes>,
    /// Bytes of all entries once this is done.
    bytes: usize,
}

impl Staged {
    /// An empty group that follows `numbers`.
    pub(super) fn new(memory: &Memory, mut numbers: Numbers) -> Self {
        numbers.serial += 1;
        Self {
            numbers,
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            changes: Vec::new(),
            bytes: memory.bytes,
        }
    }

    /// Whether the disk need not be touched.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leases.is_empty()
    }

    pub(super) fn commit(
        &mut self,
        memory: &Memory,
        transaction: &Transaction,
    ) -> Result<Committed, StoreError> {
        if !transaction
            .compares
            .iter()
            .all(|compare| self.holds(memory, compare))
        {
            return Ok(Committed::Conflict);
        }
        let mut bytes = self.bytes;
        for write in &transaction.writes {
            bytes -= self.entry(memory, write.key()).map_or(0, size);
            if let Write::Put { key, value, lease } = write {
                bytes += key.len() + value.len();
                if let Some(id) = lease.filter(|id| !self.has_lease(memory, *id)) {
                    return Err(lease_gone(id));
                }
            }
        }
        if bytes > MAX_EMBEDDED_BYTES && bytes > self.bytes {
            let detail = format!("{MAX_EMBEDDED_BYTES} bytes of keys and values is all that it takes");
            return Err(StoreError::not_done(ErrorKind::Full, detail));
        }
        let revision = self.numbers.revision.next();
        let events = transaction.writes.iter();
        let events: Vec<Event> = events
            .filter_map(|write| self.write(memory, write, revision))
            .collect();
        self.bytes = bytes;
        self.close(events, revision);
        Ok(Committed::Done(self.numbers.revision))
    }

    pub(super) fn grant(&mut self, memory: &Memory, seconds: u32) -> Result<LeaseId, StoreError> {
        if memory.leases.len() + self.leases.len() >= MAX_EMBEDDED_LEASES {
            let detail = format!("{MAX_EMBEDDED_LEASES} leases are all that it takes");
            return Err(StoreError::not_done(ErrorKind::Busy, detail));
        }
        self.numbers.last_lease += 1;
        let id = LeaseId(self.numbers.last_lease);
        self.leases.insert(id, Some(seconds));
        Ok(id)
    }

    /// Ends a lease; its keys vanish in one revision.
    pub(super) fn end(&mut self, memory: &Memory, id: LeaseId) {
        if !self.has_lease(memory, id) {
            return;
        }
        let before = memory
            .leases
            .get(&id)
            .map(|lease| lease.keys.clone())
            .unwrap_or_default();
        let here = self
            .entries
            .iter()
            .filter(|(_, state)| state.as_ref().is_some_and(|e| e.lease == Some(id)));
        let mut keys: BTreeSet<String> = here.map(|(key, _)| key.clone()).collect();
        keys.extend(before.into_iter().filter(|key| !self.entries.contains_key(key)));
        let revision = self.numbers.revision.next();
        for key in &keys {
            self.bytes -= self.entry(memory, key).map_or(0, size);
            self.entries.insert(key.clone(), None);
        }
        self.leases.insert(id, None);
        self.close(
            keys.into_iter().map(|key| Event::Deleted { key }).collect(),
            revision,
        );
    }

    fn close(&mut self, events: Vec<Event>, revision: Revision) {
        if !events.is_empty() {
            self.numbers.revision = revision;
            self.changes.push(Changes {
                revision,
                events: events.into(),
            });
        }
    }

    fn write(&mut self, memory: &Memory, write: &Write, revision: Revision) -> Option<Event> {
        let before = self.entry(memory, write.key()).map(|entry| entry.created);
        match write {
            Write::Put { key, value, lease } => {
                let entry = Entry {
                    key: key.clone(),
                    // A copy: what was given may be a small part of a large buffer.
                    value: Bytes::copy_from_slice(value),
                    created: before.unwrap_or(revision),
                    changed: revision,
                    lease: *lease,
                };
                self.entries.insert(key.clone(), Some(entry.clone()));
                Some(Event::Put(entry))
            }
            Write::Delete { key } => {
                before?;
                self.entries.insert(key.clone(), None);
                Some(Event::Deleted { key: key.clone() })
            }
        }
    }

    fn holds(&self, memory: &Memory, compare: &Compare) -> bool {
        let entry = self.entry(memory, &compare.key);
        match compare.with {
            With::Absent => entry.is_none(),
            With::Changed(revision) => entry.is_some_and(|entry| entry.changed == revision),
            With::Created(revision) => entry.is_some_and(|entry| entry.created == revision),
        }
    }

    fn entry<'a>(&'a self, memory: &'a Memory, key: &str) -> Option<&'a Entry> {
        match self.entries.get(key) {
            Some(state) => state.as_ref(),
            None => memory.entries.get(key),
        }
    }

    fn has_lease(&self, memory: &Memory, id: LeaseId) -> bool {
        match self.leases.get(&id) {
            Some(state) => state.is_some(),
            None => memory.leases.contains_key(&id),
        }
    }
}

fn lease_gone(id: LeaseId) -> StoreError {
    StoreError::not_done(ErrorKind::LeaseGone, format!("lease {}", id.0))
}
