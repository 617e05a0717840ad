//! Reading what is in force, what was, and what changed it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use model::config::Name;
use reconcile::desired::commands::{Current, Object, Refusal};
use reconcile::desired::garbage;
use reconcile::desired::records::{Digest, Head, LogRecord, Pending, State, keys};
use serde::de::DeserializeOwned;
use store::{Entry, Revision, StoreError};
use tokio::task::JoinSet;

use super::{AT_ONCE, DesiredError, Ledger};

/// Times that what is in force is read, when it changes meanwhile.
const READS: usize = 5;

/// What is in force, and where the store was when it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) current: Arc<Current>,
    /// When the head was last written.
    pub(super) head_at: Option<Revision>,
    /// When garbage was last collected. Read before anything else.
    pub(super) garbage_at: Option<Revision>,
    /// The number of the garbage.
    pub(super) garbage: u64,
    pub(super) pending_at: Option<Revision>,
}

impl Ledger {
    pub(super) async fn read(&self) -> Result<Reading, DesiredError> {
        let mut reads = 1;
        loop {
            match self.read_once().await {
                // What was looked for may have been collected: then the head has gone on.
                Err(DesiredError::Damaged(_)) if reads < READS => reads += 1,
                read => return read,
            }
        }
    }

    async fn read_once(&self) -> Result<Reading, DesiredError> {
        let garbage = self.entry(keys::GARBAGE).await?;
        let head = self.head_in_force().await?;
        let pending = self.entry(keys::PENDING).await?;
        let (state, last) = match &head {
            Some((_, head)) => {
                let (state, last) = self.state_at(head.revision).await?;
                if state.digest() != head.state {
                    return Err(DesiredError::Damaged(format!(
                        "revision {} is not what the head says it is",
                        head.revision
                    )));
                }
                (state, Some(last))
            }
            None => (State::default(), None),
        };
        let objects = self.objects(&state).await?;
        self.remember(&objects);
        let pending_at = pending.as_ref().map(|entry| entry.changed);
        let pending: Option<Pending> = pending.as_ref().map(read).transpose()?;
        Ok(Reading {
            current: Arc::new(Current {
                pending: pending.filter(|pending| pending.revision == state.revision),
                state,
                objects,
                last,
            }),
            head_at: head.map(|(at, _)| at),
            garbage_at: garbage.as_ref().map(|entry| entry.changed),
            garbage: garbage.as_ref().map(read).transpose()?.unwrap_or_default(),
            pending_at,
        })
    }

    /// The load balancers of a revision, with its number.
    ///
    /// # Errors
    /// [`Refusal::Gone`] when it is not kept.
    pub async fn objects_at(&self, revision: u64) -> Result<(u64, BTreeMap<Name, Object>), DesiredError> {
        if revision == 0 {
            return Ok((0, BTreeMap::new()));
        }
        self.kept(revision).await?;
        match self.all_at(revision).await {
            // It may have been collected meanwhile.
            Err(DesiredError::Damaged(why)) => {
                self.kept(revision).await?;
                Err(DesiredError::Damaged(why))
            }
            all => Ok((revision, all?)),
        }
    }

    async fn all_at(&self, revision: u64) -> Result<BTreeMap<Name, Object>, DesiredError> {
        let (state, _) = self.state_at(revision).await?;
        self.objects(&state).await
    }

    /// The digests of the load balancers of a revision.
    pub(super) async fn digests_at(&self, revision: u64) -> Result<BTreeMap<Name, Digest>, DesiredError> {
        if revision == 0 {
            return Ok(BTreeMap::new());
        }
        self.kept(revision).await?;
        Ok(self.state_at(revision).await?.0.objects)
    }

    /// One load balancer: as known, or read.
    pub(super) async fn one(&self, name: &Name, digest: Digest) -> Result<Object, DesiredError> {
        let key = (name.clone(), digest);
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(object) = known {
            return Ok(object);
        }
        Ok(self.object(key.0, digest).await?.1)
    }

    /// The change that made a revision.
    ///
    /// # Errors
    /// [`Refusal::Gone`] when it is not kept.
    pub async fn record(&self, revision: u64) -> Result<LogRecord, DesiredError> {
        self.kept(revision).await?;
        let entry = self.entry(&keys::log(revision)).await?;
        let entry =
            entry.ok_or_else(|| DesiredError::Damaged(format!("there is no record of {revision}")))?;
        read(&entry)
    }

    /// The last changes, newest first, at most `last`.
    ///
    /// # Errors
    /// [`DesiredError`].
    pub async fn history(&self, last: usize) -> Result<Vec<LogRecord>, DesiredError> {
        let Some((_, head)) = self.head_in_force().await? else {
            return Ok(Vec::new());
        };
        let oldest = garbage::oldest_kept(head.revision, self.cut().await?);
        let mut found = Vec::new();
        for block in (keys::block_of(oldest)..=keys::block_of(head.revision)).rev() {
            if found.len() >= last {
                break;
            }
            found.extend(self.block(block).await?.into_iter().rev());
        }
        found.retain(|record: &LogRecord| record.revision >= oldest);
        found.truncate(last);
        Ok(found)
    }

    /// The head, and when it was written; as if there were none where it cannot be read.
    pub(super) async fn head(&self) -> Result<Option<(Revision, Head)>, StoreError> {
        let entry = self.space.store().get(&self.space.key(keys::HEAD)).await?;
        Ok(entry.and_then(|entry| Some((entry.changed, serde_json::from_slice(&entry.value).ok()?))))
    }

    /// The same, where it matters whether there is one.
    async fn head_in_force(&self) -> Result<Option<(Revision, Head)>, DesiredError> {
        let Some(entry) = self.entry(keys::HEAD).await? else {
            return Ok(None);
        };
        Ok(Some((entry.changed, read(&entry)?)))
    }

    /// The revision before which the history was cut for its bytes; 0 where it was not, and where what stands there is no
    /// revision: then what is asked for and gone is told to be damaged, until the next cut writes it anew.
    pub(super) async fn cut(&self) -> Result<u64, DesiredError> {
        let entry = self.entry(keys::OLDEST).await?;
        let cut = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        Ok(cut.unwrap_or_default())
    }

    async fn kept(&self, revision: u64) -> Result<(), DesiredError> {
        let newest = self.head_in_force().await?.map_or(0, |(_, head)| head.revision);
        let oldest = garbage::oldest_kept(newest, self.cut().await?);
        match revision >= 1 && (oldest..=newest).contains(&revision) {
            true => Ok(()),
            false => Err(Refusal::Gone {
                wanted: revision,
                oldest,
                newest,
            }
            .into()),
        }
    }

    /// The state at a revision, and the change that made it.
    async fn state_at(&self, revision: u64) -> Result<(State, LogRecord), DesiredError> {
        let records = self.block(keys::block_of(revision)).await?;
        let state = State::of_block(&records, revision).map_err(|b| DesiredError::Damaged(b.to_string()))?;
        let last = records.into_iter().find(|record| record.revision == revision);
        let last = last.ok_or_else(|| DesiredError::Damaged(format!("there is no record of {revision}")))?;
        Ok((state, last))
    }

    pub(super) async fn block(&self, block: u64) -> Result<Vec<LogRecord>, DesiredError> {
        let listing = self
            .space
            .store()
            .list(&self.space.key(&keys::block(block)))
            .await?;
        listing.entries.iter().map(read).collect()
    }

    pub(super) async fn entry(&self, path: &str) -> Result<Option<Entry>, DesiredError> {
        Ok(self.space.store().get(&self.space.key(path)).await?)
    }

    /// The objects of a state: those that are known, and the others read.
    async fn objects(&self, state: &State) -> Result<BTreeMap<Name, Object>, DesiredError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut objects = BTreeMap::new();
        let mut reads = JoinSet::new();
        for (name, digest) in &state.objects {
            if let Some(object) = known.get(&(name.clone(), *digest)) {
                objects.insert(name.clone(), object.clone());
                continue;
            }
            if reads.len() >= AT_ONCE {
                objects.extend(one(&mut reads).await?);
            }
            let ledger = self.clone();
            let (name, digest) = (name.clone(), *digest);
            reads.spawn(async move { ledger.object(name, digest).await });
        }
        while !reads.is_empty() {
            objects.extend(one(&mut reads).await?);
        }
        Ok(objects)
    }

    async fn object(&self, name: Name, digest: Digest) -> Result<(Name, Object), DesiredError> {
        let entry = self.entry(&keys::object(digest)).await?;
        let missing = || DesiredError::Damaged(format!("the content of `{name}`, {digest}, is not there"));
        let json: Arc<str> = String::from_utf8_lossy(&entry.ok_or_else(missing)?.value).into();
        let other = || DesiredError::Damaged(format!("the content of `{name}` is not that of {digest}"));
        let (of, text) = (name.clone(), json.clone());
        let read = self.apart(move || Object::read(&of, digest, &text)).await?;
        let object = read.ok_or_else(other)?;
        Ok((name, object))
    }
}

type Read = Result<(Name, Object), DesiredError>;

async fn one(reads: &mut JoinSet<Read>) -> Result<Option<(Name, Object)>, DesiredError> {
    match reads.join_next().await {
        Some(Ok(read)) => read.map(Some),
        Some(Err(error)) => Err(DesiredError::Damaged(error.to_string())),
        None => Ok(None),
    }
}

pub(super) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, DesiredError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| DesiredError::Damaged(format!("{}: {error}", entry.key)))
}
