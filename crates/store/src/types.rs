//! The nouns: entries, revisions, changes, leases.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The number of a write. Grows over the whole store; a store that holds nothing is at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision that made it. A key that was deleted and made again has a new one.
    pub created: Revision,
    /// The revision that last changed it.
    pub changed: Revision,
    /// The lease it is tied to.
    pub lease: Option<LeaseId>,
}

/// What is under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision of the store when this was so.
    pub revision: Revision,
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Its comparisons held, and its writes are made. When it changed nothing (no write, or deletions of what was
    /// not there), this is the revision at which that was so.
    Done(Revision),
    /// A comparison did not hold; nothing was written.
    Conflict,
}

/// What one revision changed under the prefix of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The revision.
    pub revision: Revision,
    /// The changes, at most one a key.
    pub events: Arc<[Event]>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put(Entry),
    /// The key was deleted, or its lease has ended.
    Deleted {
        /// The key.
        key: String,
    },
}

impl Event {
    /// Whose change it is.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key } => key,
        }
    }
}

/// A lease that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its name.
    pub lease: LeaseId,
    /// Its time in seconds; etcd may give more than was asked for.
    pub seconds: u32,
    /// When it was asked for: the store counts from then or later.
    pub sent: Instant,
}

/// A lease that was kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its whole time in seconds, which it has again.
    pub seconds: u32,
    /// When that was asked for. The store counts from then or later, so only this time is safe to count from.
    pub sent: Instant,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// Its whole time in seconds.
    pub seconds: u32,
    /// What is left of it; etcd tells whole seconds.
    pub left: Duration,
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// `embedded` or `etcd`.
    pub engine: &'static str,
    /// Where: the file, or the endpoint in use.
    pub place: String,
    /// The version of the server; none for the embedded engine.
    pub version: Option<String>,
    /// The revision.
    pub revision: Revision,
    /// Bytes on disk.
    pub bytes: u64,
    /// What is wrong: an alarm of etcd, a disk that failed at the last write.
    pub trouble: Vec<String>,
}
