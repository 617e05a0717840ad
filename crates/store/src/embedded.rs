//! The embedded engine: everything in memory, in a map that readers share, and in one file before it is
//! acknowledged.
//!
//! One thread writes. It takes what waits in its queue together, so that many small writes cost one `fsync`, and
//! shows readers only what is on disk: nobody ever sees what a crash could take back. It also ends the leases.
//!
//! Readers take a lock for as long as they copy what they read; values are shared, not copied. One process has the
//! file, by the lock of the database. After a restart each lease gets its whole time again, and watches of before
//! are told that their changes are no longer kept.

mod disk;
mod memory;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use crate::bounds::{MAX_LIST_BYTES, MAX_QUEUED_WRITES};
use crate::error::{ErrorKind, StoreError};
use crate::transaction::Transaction;
use crate::types::{
    Changes, Committed, Entry, Granted, Kept, LeaseId, LeaseLeft, Listing, Revision, StoreStatus,
};
use disk::Disk;
use memory::Memory;
use writer::{Command, Writer};

/// The name of the file in its folder.
const FILE: &str = "store.redb";

/// A handle of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Taken when the last handle goes.
    queue: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    memory: RwLock<Memory>,
    /// The last revision that readers can see.
    revision: watch::Sender<Revision>,
}

impl Embedded {
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        disk::make_folder(folder)?;
        let (disk, loaded) = Disk::open(&path)?;
        let numbers = loaded.numbers;
        let memory = Memory::new(loaded, Instant::now());
        let shared = Arc::new(Shared {
            path,
            revision: watch::Sender::new(memory.revision),
            memory: RwLock::new(memory),
        });
        let (queue, commands) = sync_channel(MAX_QUEUED_WRITES);
        let writer = Writer::new(Arc::clone(&shared), disk, numbers, commands);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::not_done(ErrorKind::Busy, format!("no thread: {error}")))?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                queue: Some(queue),
                thread: Some(thread),
            }),
        })
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.inner.shared.open()?.entries.get(key).cloned())
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let memory = self.inner.shared.open()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in memory.under(prefix) {
            bytes += entry.key.len() + entry.value.len();
            if bytes > MAX_LIST_BYTES {
                return Err(StoreError::not_done(
                    ErrorKind::TooMuch,
                    format!("more than {MAX_LIST_BYTES} bytes under {prefix}"),
                ));
            }
            entries.push(entry.clone());
        }
        Ok(Listing {
            revision: memory.revision,
            entries,
        })
    }

    pub(crate) fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.inner.shared.open()?.revision)
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        self.order(|answer| Command::Commit(transaction, answer)).await
    }

    pub(crate) async fn grant(&self, seconds: u32) -> Result<Granted, StoreError> {
        let sent = Instant::now();
        let lease = self.order(|answer| Command::Grant(seconds, answer)).await?;
        Ok(Granted { lease, seconds, sent })
    }

    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.order(|answer| Command::Revoke(lease, answer)).await
    }

    pub(crate) fn keep_alive(&self, lease: LeaseId) -> Result<Kept, StoreError> {
        let sent = Instant::now();
        drop(self.inner.shared.open()?);
        let seconds = self.inner.shared.write().keep(lease, sent)?;
        Ok(Kept { seconds, sent })
    }

    pub(crate) fn lease_left(&self, lease: LeaseId) -> Result<Option<LeaseLeft>, StoreError> {
        let now = Instant::now();
        let memory = self.inner.shared.open()?;
        let alive = memory.leases.get(&lease).filter(|found| found.ends > now);
        Ok(alive.map(|found| LeaseLeft {
            seconds: found.seconds,
            left: found.ends - now,
        }))
    }

    pub(crate) fn watch(&self, prefix: &str, from: Revision) -> EmbeddedWatch {
        EmbeddedWatch {
            shared: Arc::clone(&self.inner.shared),
            moved: self.inner.shared.revision.subscribe(),
            prefix: prefix.to_owned(),
            next: from,
        }
    }

    pub(crate) fn compact(&self, before: Revision) -> Result<(), StoreError> {
        drop(self.inner.shared.open()?);
        self.inner.shared.write().compact(before)
    }

    pub(crate) fn status(&self) -> Result<StoreStatus, StoreError> {
        let shared = &self.inner.shared;
        let memory = shared.open()?;
        Ok(StoreStatus {
            engine: "embedded",
            place: shared.path.display().to_string(),
            version: None,
            revision: memory.revision,
            bytes: std::fs::metadata(&shared.path).map_or(0, |about| about.len()),
            trouble: memory.trouble.iter().cloned().collect(),
        })
    }

    /// Has the writer do something, and waits for it.
    async fn order<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let Some(queue) = &self.inner.queue else {
            return Err(closed());
        };
        match queue.try_send(command(answer)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let detail = format!("{MAX_QUEUED_WRITES} writes wait for the disk");
                return Err(StoreError::not_done(ErrorKind::Busy, detail));
            }
            Err(TrySendError::Disconnected(_)) => return Err(closed()),
        }
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::unknown(ErrorKind::Closed, "the writer has ended")),
        }
    }
}

fn closed() -> StoreError {
    StoreError::not_done(ErrorKind::Closed, "the writer has ended")
}

impl Drop for Inner {
    /// Waits until the file is free: who opens it next must not be refused.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has told everybody already, by closing.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory, unless the writer has ended: it would grow old unnoticed.
    fn open(&self) -> Result<RwLockReadGuard<'_, Memory>, StoreError> {
        let memory = self.read();
        match memory.closed {
            true => Err(closed()),
            false => Ok(memory),
        }
    }
}

/// A place in the changes that are kept: it holds none of them back.
#[derive(Debug)]
pub(crate) struct EmbeddedWatch {
    shared: Arc<Shared>,
    moved: watch::Receiver<Revision>,
    prefix: String,
    next: Revision,
}

impl EmbeddedWatch {
    pub(crate) async fn next(&mut self) -> Result<Changes, StoreError> {
        loop {
            // Marked as seen before it is looked at, so that nothing falls in between.
            self.moved.borrow_and_update();
            if let Some(changes) = self.look()? {
                return Ok(changes);
            }
            self.moved.changed().await.map_err(|_| closed())?;
        }
    }

    fn look(&mut self) -> Result<Option<Changes>, StoreError> {
        let memory = self.shared.open()?;
        if self.next < memory.oldest {
            let detail = format!("from {} on; {} is the oldest", self.next, memory.oldest);
            return Err(StoreError::not_done(ErrorKind::Compacted, detail));
        }
        let found = memory.changes(self.next, &self.prefix);
        self.next = match &found {
            Some(changes) => changes.revision.next(),
            None => self.next.max(memory.revision.next()),
        };
        Ok(found)
    }
}
