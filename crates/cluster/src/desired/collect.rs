//! Collecting what nothing needs any more: blocks of the log that are too old, then objects that no record that is
//! kept refers to. See [`reconcile::desired::garbage`] for why nothing that is needed can go.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use reconcile::desired::garbage;
use reconcile::desired::records::{Digest, LogRecord, keys};
use store::{Committed, Revision};
use tokio::time::sleep;

use super::read::Reading;
use super::{DesiredError, Ledger};

/// Keys that are deleted at once, beside what is compared and written with them.
const DELETED_AT_ONCE: usize = 100;
/// Pause after each of these: a writer who had to begin anew because of it gets through.
const PAUSE: Duration = Duration::from_millis(100);
/// Times that it begins anew because the head went on.
const ATTEMPTS: usize = 16;

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Revisions that are no longer remembered.
    pub revisions: usize,
    /// Load balancers as they were, or never came to be.
    pub objects: usize,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revisions, objects } = self;
        write!(
            f,
            "{revisions} revisions and {objects} objects that nothing needs any more"
        )
    }
}

impl Ledger {
    /// Collects garbage. Who writes the first revision of a block does it; more often does no harm.
    ///
    /// # Errors
    /// [`DesiredError`]; what was collected until then is gone, and the rest is for the next time.
    pub async fn collect(&self) -> Result<Collected, DesiredError> {
        let mut collected = Collected::default();
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let reading = self.read().await?;
            let kept = garbage::first_kept_block(reading.current.state.revision);
            let mut records = self.log().await?;
            let old = records
                .iter()
                .position(|record| keys::block_of(record.revision) >= kept);
            let old = old.unwrap_or(0).min(DELETED_AT_ONCE);
            if old > 0 {
                let old: Vec<String> = records
                    .drain(..old)
                    .map(|record| keys::log(record.revision))
                    .collect();
                match self.delete(&reading, &old).await? {
                    Some(_) => collected.revisions += old.len(),
                    None => attempts += 1,
                }
                continue;
            }
            if self
                .collect_objects(reading, &garbage::referred_to(&records), &mut collected)
                .await?
            {
                return Ok(collected);
            }
            attempts += 1;
        }
        Ok(collected)
    }

    /// The objects, looked at a part at a time; `false` when the head went on.
    async fn collect_objects(
        &self,
        mut reading: Reading,
        needed: &BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<bool, DesiredError> {
        let needed: BTreeSet<String> = needed.iter().map(|digest| keys::object(*digest)).collect();
        let mut dead = Vec::new();
        for part in 0..=u8::MAX {
            let prefix = self.space.key(&format!("{}{part:02x}", keys::OBJECTS));
            let listing = self.space.store().list(&prefix).await?;
            let paths = listing
                .entries
                .iter()
                .filter_map(|entry| self.space.path_of(entry));
            let paths = paths.filter(|path| !needed.contains(*path));
            dead.extend(paths.map(str::to_owned));
        }
        for dead in dead.chunks(DELETED_AT_ONCE) {
            let Some(at) = self.delete(&reading, dead).await? else {
                return Ok(false);
            };
            collected.objects += dead.len();
            reading.garbage += 1;
            reading.garbage_at = Some(at);
            sleep(PAUSE).await;
        }
        Ok(true)
    }

    /// Deletes, unless the head or the garbage has changed since it was read.
    async fn delete(&self, reading: &Reading, paths: &[String]) -> Result<Option<Revision>, DesiredError> {
        let number = (reading.garbage + 1).to_string();
        let mut transaction = self.still(reading).put(self.space.key(keys::GARBAGE), number);
        for path in paths {
            transaction = transaction.delete(self.space.key(path));
        }
        match self.space.store().commit(transaction).await? {
            Committed::Done(at) => Ok(Some(at)),
            Committed::Conflict => Ok(None),
        }
    }

    /// All records, oldest first.
    async fn log(&self) -> Result<Vec<LogRecord>, DesiredError> {
        let listing = self.space.store().list(&self.space.key(keys::LOG)).await?;
        let records = listing.entries.iter().map(|entry| {
            serde_json::from_slice(&entry.value)
                .map_err(|error| DesiredError::Damaged(format!("{}: {error}", entry.key)))
        });
        records.collect()
    }
}
