//! Collecting what nothing needs any more: revisions that are too old, or for which there is no room, and objects that
//! none that is kept needs. See [`reconcile::desired::garbage`] for what is kept, and why nothing that is needed can go.
//!
//! It is done with the first revision of a block, and when this process has put so much that there may be
//! something to collect. A store that says it is full is collected from at once, down to less and less of the history,
//! and the change that it had no room for begins anew: it is better to forget what was than to take no change any more.
//!
//! A change and the collecting in the same process take turns, so that neither makes the other begin anew for long. That is a
//! courtesy: nothing but time is lost where it is not kept, and between processes there is none but the pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reconcile::desired::garbage::{self, Wanted};
use reconcile::desired::records::{Digest, LogRecord, keys};
use store::{Committed, ErrorKind, Revision, StoreError};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{sleep, timeout};

use super::read::{Reading, read};
use super::{DesiredError, Done, Ledger};

/// Keys that are deleted at once, beside what is compared and written with them.
const DELETED_AT_ONCE: usize = 100;
/// Times that so many are deleted before there is a pause.
const DELETIONS_A_TURN: usize = 10;
/// The pause: a writer who had to begin anew because of it gets through.
const PAUSE: Duration = Duration::from_millis(300);
/// Times that it begins anew because the head went on.
const ATTEMPTS: usize = 16;
/// Bytes that a process puts before it collects.
const AFTER_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of the history that are kept in a store that is full: first as much as ever, then less and less.
const WHEN_FULL: [u64; 4] = [
    garbage::KEEP_BYTES,
    garbage::KEEP_BYTES / 4,
    garbage::KEEP_BYTES / 16,
    0,
];
/// How long a change waits for the collecting, and the other way round.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records of changes.
    pub records: usize,
    /// Load balancers as they were, or never came to be.
    pub objects: usize,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, objects } = self;
        write!(
            f,
            "{records} records and {objects} objects that nothing needs any more"
        )
    }
}

/// What this process puts and collects.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes that were put since it last collected.
    put: AtomicUsize,
    /// Somebody collects.
    collecting: Mutex<()>,
    /// Changes have it together, the collecting alone.
    turns: RwLock<()>,
}

impl Room {
    /// The turn of a change; none when it would wait for too long.
    pub(super) async fn turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        timeout(PATIENCE, self.turns.read()).await.ok()
    }

    async fn alone(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        timeout(PATIENCE, self.turns.write()).await.ok()
    }
}

/// How a change makes room in a store that is full.
pub(super) struct WhenFull {
    /// What it goes back to, and therefore needs.
    goes_back_to: Option<u64>,
    left: std::slice::Iter<'static, u64>,
}

impl WhenFull {
    pub(super) fn new(goes_back_to: Option<u64>) -> Self {
        Self {
            goes_back_to,
            left: WHEN_FULL.iter(),
        }
    }
}

/// How a collection goes about it.
#[derive(Clone, Copy)]
struct Manner {
    bytes: u64,
    /// Revisions from this one on stay; so do those from what a change on trial goes back to.
    spared: Option<u64>,
    pause: Duration,
}

impl Ledger {
    /// Collects garbage. More often than is needed does no harm.
    ///
    /// # Errors
    /// [`DesiredError`]; what was collected until then is gone, and the rest is for the next time.
    pub async fn collect(&self) -> Result<Collected, DesiredError> {
        self.collect_so(Manner {
            bytes: garbage::KEEP_BYTES,
            spared: None,
            pause: PAUSE,
        })
        .await
    }

    /// So many bytes were put, whatever became of the change that they are of. Collects when it is time, or when `due`.
    pub(super) fn has_put(&self, bytes: usize, due: bool) {
        let put = self.room.put.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !due && put < AFTER_BYTES {
            return;
        }
        let ledger = self.clone();
        tokio::spawn(async move {
            let Ok(_alone) = ledger.room.collecting.try_lock() else {
                return;
            };
            match ledger.collect().await {
                Ok(collected) if collected == Collected::default() => {}
                Ok(collected) => tracing::info!("the store was cleaned up: {collected}"),
                Err(error) => {
                    tracing::warn!("the store was not cleaned up, and will be after more changes: {error}");
                }
            }
        });
    }

    /// What a beginning of a change came to; none, so that it begins anew, when there was no room and now is more.
    pub(super) async fn unless_full(
        &self,
        came_to: Result<Option<Done>, DesiredError>,
        when_full: &mut WhenFull,
    ) -> Result<Option<Done>, DesiredError> {
        match came_to {
            Err(DesiredError::Store(error)) if error.kind() == ErrorKind::Full => {
                self.make_room(error, when_full).await.map(|()| None)
            }
            came_to => came_to,
        }
    }

    async fn make_room(&self, full: StoreError, when_full: &mut WhenFull) -> Result<(), DesiredError> {
        for bytes in when_full.left.by_ref() {
            let manner = Manner {
                bytes: *bytes,
                spared: Some(when_full.goes_back_to.unwrap_or(u64::MAX)),
                pause: Duration::ZERO,
            };
            match self.collect_so(manner).await {
                Ok(collected) if collected == Collected::default() => {}
                Ok(collected) => {
                    tracing::warn!("the store is full; room was made for a change: {collected}");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!("the store is full, and no room could be made: {error}");
                    break;
                }
            }
        }
        Err(full.into())
    }

    async fn collect_so(&self, manner: Manner) -> Result<Collected, DesiredError> {
        let mut collected = Collected::default();
        for _ in 0..ATTEMPTS {
            if self.attempt(manner, &mut collected).await? {
                break;
            }
        }
        Ok(collected)
    }

    /// Collects until nothing is left; `false` when the head went on.
    async fn attempt(&self, manner: Manner, collected: &mut Collected) -> Result<bool, DesiredError> {
        let mut turn = self.room.alone().await;
        self.room.put.store(0, Ordering::Relaxed);
        let mut reading = self.read().await?;
        let Some(found) = self.find(&reading, manner).await? else {
            return Ok(false);
        };
        let mut cut = found.cut;
        for (at, dead) in found.dead.chunks(DELETED_AT_ONCE).enumerate() {
            if at > 0 && at % DELETIONS_A_TURN == 0 && !manner.pause.is_zero() {
                drop(turn.take());
                sleep(manner.pause).await;
                turn = self.room.alone().await;
            }
            let Some(at) = self.delete(&reading, dead, cut.take()).await? else {
                return Ok(false);
            };
            let records = dead.iter().filter(|path| path.starts_with(keys::LOG)).count();
            collected.records += records;
            collected.objects += dead.len() - records;
            reading.garbage += 1;
            reading.garbage_at = Some(at);
        }
        Ok(true)
    }

    /// What nothing needs any more; none when the head went on since it was read.
    async fn find(&self, reading: &Reading, manner: Manner) -> Result<Option<Dead>, DesiredError> {
        let current = &reading.current;
        let head = current.state.revision;
        let oldest = garbage::oldest_kept(head, self.cut().await?);
        let mut old = self.log().await?;
        let first = old.partition_point(|(record, _)| {
            keys::block_of(record.revision) < garbage::first_kept_block(head, oldest)
        });
        let records = old.split_off(first);
        if records.last().map_or(0, |(record, _)| record.revision) != head {
            return Ok(None);
        }
        let (sizes, strays) = self.sizes().await?;
        let on_trial = current.pending.as_ref().map(|pending| pending.back_to);
        // Unless there is no room at all, one can go back by one, however large that is.
        let spared = manner.spared.unwrap_or_else(|| head.saturating_sub(1));
        let wanted = Wanted {
            bytes: manner.bytes,
            spared: on_trial.map_or(spared, |back_to| spared.min(back_to)),
        };
        let kept = garbage::kept(&records, &sizes, oldest, wanted);
        let kept = kept.map_err(|broken| DesiredError::Damaged(broken.to_string()))?;
        let records = old.iter().chain(&records).map(|(record, _)| record.revision);
        let records = records.filter(|revision| keys::block_of(*revision) < keys::block_of(kept.oldest));
        let objects = sizes.keys().filter(|digest| !kept.needed.contains(*digest));
        let dead = records.map(keys::log).chain(strays);
        Ok(Some(Dead {
            dead: dead.chain(objects.map(|digest| keys::object(*digest))).collect(),
            cut: (kept.oldest > oldest).then_some(kept.oldest),
        }))
    }

    /// The sizes of all objects, looked at a part at a time; and what else stands among them.
    async fn sizes(&self) -> Result<(BTreeMap<Digest, u64>, BTreeSet<String>), DesiredError> {
        let (mut sizes, mut strays) = (BTreeMap::new(), BTreeSet::new());
        for part in 0..=u8::MAX {
            let prefix = self.space.key(&format!("{}{part:02x}", keys::OBJECTS));
            let listing = self.space.store().list(&prefix).await?;
            for entry in &listing.entries {
                let path = self.space.path_of(entry).unwrap_or_default();
                let digest = path.strip_prefix(keys::OBJECTS).unwrap_or_default();
                match Digest::try_from(digest.to_owned()) {
                    Ok(digest) if keys::object(digest) == path => {
                        sizes.insert(digest, entry.value.len() as u64);
                    }
                    _ => _ = strays.insert(path.to_owned()),
                }
            }
        }
        Ok((sizes, strays))
    }

    /// Deletes, and says which revision is the oldest now, unless the head or the garbage has changed since it was read.
    async fn delete(
        &self,
        reading: &Reading,
        paths: &[String],
        oldest: Option<u64>,
    ) -> Result<Option<Revision>, DesiredError> {
        let number = (reading.garbage + 1).to_string();
        let mut transaction = self.still(reading).put(self.space.key(keys::GARBAGE), number);
        if let Some(oldest) = oldest {
            transaction = transaction.put(self.space.key(keys::OLDEST), oldest.to_string());
        }
        for path in paths {
            transaction = transaction.delete(self.space.key(path));
        }
        match self.space.store().commit(transaction).await? {
            Committed::Done(at) => Ok(Some(at)),
            Committed::Conflict => Ok(None),
        }
    }

    /// All records, oldest first, with their sizes.
    async fn log(&self) -> Result<Vec<(LogRecord, u64)>, DesiredError> {
        let listing = self.space.store().list(&self.space.key(keys::LOG)).await?;
        let records = listing.entries.iter();
        let records = records.map(|entry| Ok((read(entry)?, entry.value.len() as u64)));
        records.collect()
    }
}

/// What nothing needs any more.
struct Dead {
    /// Paths.
    dead: Vec<String>,
    /// The oldest revision that is kept, where it is another now because of the bytes.
    cut: Option<u64>,
}
