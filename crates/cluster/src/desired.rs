//! The load balancers of the store: read, changed, remembered ([ADR 0023](../../../docs/adr/0023-the-desired-layer.md)).
//!
//! What a command makes of the store is decided in [`reconcile::desired`]; here it is read and written. One transaction
//! writes the record, the head and what awaits confirmation, and holds only while the head and the number of the garbage
//! are as they were read. Objects go with it where they are few, which spares the disk of the store one write and every
//! node one message; many are put first. Whoever dies before the transaction has changed nothing, and what it has put is
//! collected. An answer that was lost is found out by reading.
//!
//! What it refuses: to try a change on top of another than the one it was made for. Who has lost a race is told so.

mod answer;
mod apart;
mod collect;
mod guard;
mod read;
mod words;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use model::config::{Config, Name};
use model::desired::{Awaiting, Change as Wish, ChangeQuery, Text};
use model::diagnostic::Diagnostic;
use model::merge::merge;
use model::parse::check_declared;
use model::state::Timestamp;
use model::units::parse_duration;
use reconcile::desired::commands::{
    self, Answer, Change, Current, Next, Object, Outcome, Refusal, Site, Terms,
};
use reconcile::desired::records::{Digest, LogRecord, Pending, keys};
use serde::Serialize;
use store::{Committed, Happened, Revision, StoreError, Transaction};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Space;
pub use answer::{Answered, is_order};
pub use collect::Collected;
use collect::WhenFull;
pub use guard::Guard;
use read::Reading;

/// Objects that are read, or groups of them that are put, at the same time.
const AT_ONCE: usize = 16;
/// Objects of a group, which is put in one transaction: half of what the store takes.
const GROUP: usize = 64;
/// Bytes of a group, unless its one object has more.
const GROUP_BYTES: usize = 512 * 1024;
/// Objects up to so many bytes go with the transaction of their change. With the largest record, a mebibyte, that is
/// within what the store takes.
const WITH_THE_CHANGE_BYTES: usize = 192 * 1024;
/// Times that a commit without an answer is made, before it is told that nobody knows.
const COMMITS: usize = 3;
/// Times that a confirmation is made whose answer was lost, or in whose way something came.
const CONFIRMATIONS: usize = 4;
/// Times that a command begins anew because garbage was collected in between.
const BEGINNINGS: usize = 8;
/// Characters of a message.
pub const MAX_MESSAGE_CHARS: usize = 500;
/// Longest time that a change may await its confirmation, in milliseconds: a day.
pub const MAX_CONFIRM_MS: u64 = 24 * 3600 * 1000;

/// The desired layer of a store. A clone is another handle of the same one.
#[derive(Clone, Debug)]
pub struct Ledger {
    space: Space,
    known: Arc<Mutex<BTreeMap<(Name, Digest), Object>>>,
    /// For what takes the processor for long.
    turns: Arc<Semaphore>,
    /// The same, of who only asks.
    turns_of_questions: Arc<Semaphore>,
    room: Arc<collect::Room>,
}

/// Why a command was not carried out. Nothing was changed, except where it says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// It is refused for what is in force.
    #[error("{0}")]
    Refused(Refusal),
    /// The text has errors.
    #[error("{} in the text", count(.0.len()))]
    Text(Vec<Diagnostic>),
    /// The terms make no sense.
    #[error("{0}")]
    Terms(String),
    /// The store cannot be asked.
    #[error("{0}; nothing was changed")]
    Store(#[from] StoreError),
    /// No answer, and none to be had: it may have been made.
    #[error("{0}; see `evenkeel history` for whether revision {1} is yours")]
    Unknown(StoreError, u64),
    /// No answer to a confirmation, and none to be had: it may have been made.
    #[error("{0}; see `evenkeel get` for whether revision {1} still awaits confirmation")]
    Unconfirmed(StoreError, u64),
    /// What stands in the store cannot be read.
    #[error("what stands in the store cannot be read: {0}")]
    Damaged(String),
    /// Garbage was collected each time.
    #[error("garbage of the store is being collected without end; try again")]
    Collecting,
}

impl From<Refusal> for DesiredError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// What was in force before.
    pub before: Arc<Current>,
    /// The change that was made, or of a dry run: would be. None: all is as wanted already.
    pub change: Option<Box<Change>>,
    /// What is probably not meant in the text.
    pub warnings: Vec<Diagnostic>,
}

impl Ledger {
    /// The desired layer below the prefix of `space`.
    pub fn new(space: Space) -> Self {
        Self {
            space,
            known: Arc::default(),
            turns: apart::turns(),
            turns_of_questions: apart::turns(),
            room: Arc::default(),
        }
    }

    /// What is in force.
    ///
    /// # Errors
    /// [`DesiredError::Store`] and [`DesiredError::Damaged`].
    pub async fn current(&self) -> Result<Arc<Current>, DesiredError> {
        Ok(self.read().await?.current)
    }

    /// What a change would make of the store, without making it. `file` is the config in the node's own file.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn foresee(
        &self,
        query: &ChangeQuery,
        file: &Config,
        at: Timestamp,
    ) -> Result<Done, DesiredError> {
        let terms = terms(query, at)?;
        let reading = self.read().await?;
        let (outcome, warnings) = self.decide(&reading.current, &query.change, &terms, file).await?;
        Ok(Done {
            before: reading.current,
            change: changed(outcome),
            warnings,
        })
    }

    /// Makes a change. When this returns, the change is in the store, and every node that follows it will have it.
    ///
    /// # Errors
    /// [`DesiredError`].
    pub async fn change(
        &self,
        query: &ChangeQuery,
        file: &Config,
        at: Timestamp,
    ) -> Result<Done, DesiredError> {
        let mut terms = terms(query, at)?;
        let mut when_full = WhenFull::new(match query.change {
            Wish::Rollback(revision) => Some(revision),
            _ => None,
        });
        for _ in 0..BEGINNINGS {
            let turn = self.room.turn().await;
            let reading = self.read().await?;
            let (outcome, warnings) = self.decide(&reading.current, &query.change, &terms, file).await?;
            // Begun anew, it is still the change of what was looked at first.
            terms.expect = Some(reading.current.state.revision);
            let came_to = self.conclude(reading, outcome, warnings).await;
            drop(turn);
            if let Some(done) = self.unless_full(came_to, &mut when_full).await? {
                return Ok(done);
            }
        }
        Err(DesiredError::Collecting)
    }

    /// Lets the change that awaits confirmation hold; `revision`, when the author says which.
    ///
    /// # Errors
    /// [`DesiredError`].
    pub async fn confirm(&self, revision: Option<u64>) -> Result<Awaiting, DesiredError> {
        let mut revision = revision;
        let mut doubt: Option<(StoreError, Awaiting)> = None;
        for _ in 0..CONFIRMATIONS {
            let reading = match (self.read().await, &doubt) {
                (Err(DesiredError::Store(error)), Some((_, asked))) => {
                    return Err(DesiredError::Unconfirmed(error, asked.revision));
                }
                (read, _) => read?,
            };
            let current = &reading.current;
            // The answer was lost, and what it was about holds: it was made.
            if let Some((_, asked)) = &doubt
                && current.pending.is_none()
                && current.state.revision == asked.revision
            {
                return Ok(asked.clone());
            }
            let pending = commands::confirm(current, revision)?;
            let awaiting = words::awaiting(pending);
            // Whatever comes meanwhile is not what was meant.
            revision = Some(pending.revision);
            let Some(at) = reading.pending_at else {
                return Err(DesiredError::Damaged(
                    "nobody knows since when it awaits".to_owned(),
                ));
            };
            let key = self.space.key(keys::PENDING);
            let transaction = Transaction::default().unchanged(&key, at).delete(&key);
            match self.space.store().commit(transaction).await {
                Ok(Committed::Done(_)) => return Ok(awaiting),
                // It was confirmed, taken back, or followed by another change: look which.
                Ok(Committed::Conflict) => {}
                Err(error) if doubt.is_none() && error.happened() == Happened::No => return Err(error.into()),
                Err(error) => doubt = Some((error, awaiting)),
            }
        }
        Err(match doubt {
            Some((error, asked)) => DesiredError::Unconfirmed(error, asked.revision),
            None => DesiredError::Damaged("what awaits confirmation is another each time".to_owned()),
        })
    }

    /// Takes back the change that awaits confirmation, if it still does. `why` says what made us.
    ///
    /// # Errors
    /// [`DesiredError`]; [`Refusal::NothingPending`] when it is over already.
    pub async fn revert(
        &self,
        pending: &Pending,
        author: &str,
        why: &str,
        at: Timestamp,
    ) -> Result<Done, DesiredError> {
        let terms = Terms {
            author: author.to_owned(),
            message: why.to_owned(),
            at,
            token: token(),
            expect: None,
            confirm_ms: None,
        };
        let mut when_full = WhenFull::new(Some(pending.back_to));
        for _ in 0..BEGINNINGS {
            let turn = self.room.turn().await;
            let reading = self.read().await?;
            let before = self.objects_at(pending.back_to).await?.1;
            let outcome = commands::revert(&reading.current, pending, before, &terms)?;
            let came_to = self.conclude(reading, outcome, Vec::new()).await;
            drop(turn);
            if let Some(done) = self.unless_full(came_to, &mut when_full).await? {
                return Ok(done);
            }
        }
        Err(DesiredError::Collecting)
    }

    async fn decide(
        &self,
        current: &Arc<Current>,
        wish: &Wish,
        terms: &Terms,
        file: &Config,
    ) -> Result<(Outcome, Vec<Diagnostic>), DesiredError> {
        let then = match wish {
            Wish::Rollback(revision) => Some(self.objects_at(*revision).await?),
            _ => None,
        };
        let (current, wish, terms) = (current.clone(), wish.clone(), terms.clone());
        let file = file.clone();
        self.apart(move || decided(&current, &wish, then, &terms, &file))
            .await?
    }

    /// Carries out what was decided; `None` when only garbage was collected since it was read, and nothing was written.
    async fn conclude(
        &self,
        reading: Reading,
        outcome: Outcome,
        warnings: Vec<Diagnostic>,
    ) -> Result<Option<Done>, DesiredError> {
        let change = changed(outcome);
        if let Some(change) = &change {
            let made = self.carry_out(&reading, change).await;
            // With the first change of a block something may have become too old.
            let due = matches!(made, Ok(true)) && keys::begins_block(change.record.revision);
            self.has_put(bytes_of(&change.put), due);
            if !made? {
                return Ok(None);
            }
        }
        Ok(Some(Done {
            before: reading.current,
            change,
            warnings,
        }))
    }

    /// Writes a change; `false` when only garbage was collected since it was read, and nothing was written.
    async fn carry_out(&self, reading: &Reading, change: &Change) -> Result<bool, DesiredError> {
        if !goes_along(&change.put) {
            self.put(&change.put).await?;
        }
        let record = &change.record;
        let mut trouble = None;
        for _ in 0..COMMITS {
            let answer = match self
                .space
                .store()
                .commit(self.transaction(reading, change)?)
                .await
            {
                Ok(Committed::Done(_)) => Answer::Done,
                Ok(Committed::Conflict) => Answer::Conflict,
                Err(error) if error.happened() == Happened::Unknown => {
                    trouble = Some(error);
                    Answer::Unknown
                }
                Err(error) => match trouble {
                    Some(earlier) => return Err(DesiredError::Unknown(earlier, record.revision)),
                    None => return Err(error.into()),
                },
            };
            let (head, found) = match answer {
                Answer::Done => (record.revision, None),
                // In this order, see `resolve`.
                _ => match self.look(record.revision).await {
                    Ok(seen) => seen,
                    Err(error) if trouble.is_some() => {
                        return Err(DesiredError::Unknown(error, record.revision));
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            match commands::resolve(record, answer, found.as_ref(), head) {
                Next::Made => {
                    self.space.hint(record.revision);
                    self.remember(&change.after);
                    return Ok(true);
                }
                Next::Lost => {
                    let now = self.current().await?;
                    return Err(commands::lost(&now, record.parent).into());
                }
                Next::BeginAgain => return Ok(false),
                Next::CommitAgain => {}
            }
        }
        match trouble {
            Some(error) => Err(DesiredError::Unknown(error, record.revision)),
            None => Ok(false),
        }
    }

    fn transaction(&self, reading: &Reading, change: &Change) -> Result<Transaction, DesiredError> {
        let key = |path: &str| self.space.key(path);
        let mut transaction = self.still(reading);
        if goes_along(&change.put) {
            transaction = self.with(transaction, &change.put);
        }
        // What awaits confirmation, too: what was just confirmed must not be taken back.
        let transaction = self
            .as_read(transaction, keys::PENDING, reading.pending_at)
            .put(key(&keys::log(change.record.revision)), json(&change.record)?)
            .put(key(keys::HEAD), json(&change.head)?);
        Ok(match &change.pending {
            Some(pending) => transaction.put(key(keys::PENDING), json(pending)?),
            None => transaction.delete(key(keys::PENDING)),
        })
    }

    /// The head and the number of the garbage are as they were read.
    fn still(&self, reading: &Reading) -> Transaction {
        let transaction = self.as_read(Transaction::default(), keys::HEAD, reading.head_at);
        self.as_read(transaction, keys::GARBAGE, reading.garbage_at)
    }

    fn as_read(&self, transaction: Transaction, path: &str, at: Option<Revision>) -> Transaction {
        match at {
            Some(at) => transaction.unchanged(self.space.key(path), at),
            None => transaction.absent(self.space.key(path)),
        }
    }

    /// Puts objects, also those that are there: until something refers to them they may be collected at any time.
    async fn put(&self, objects: &[Object]) -> Result<(), DesiredError> {
        let mut puts = JoinSet::new();
        let mut rest = objects;
        while !rest.is_empty() {
            if puts.len() >= AT_ONCE {
                one(&mut puts).await?;
            }
            let (group, others) = rest.split_at(group(rest));
            rest = others;
            let store = self.space.store().clone();
            let transaction = self.with(Transaction::default(), group);
            puts.spawn(async move { store.commit(transaction).await });
        }
        while !puts.is_empty() {
            one(&mut puts).await?;
        }
        Ok(())
    }

    /// The transaction, and these objects in it.
    fn with(&self, transaction: Transaction, objects: &[Object]) -> Transaction {
        objects.iter().fold(transaction, |transaction, object| {
            let key = self.space.key(&keys::object(object.digest));
            transaction.put(key, object.json.as_bytes().to_vec())
        })
    }

    /// Keeps exactly these objects for the next command.
    fn remember(&self, objects: &BTreeMap<Name, Object>) {
        let known = objects
            .iter()
            .map(|(name, object)| ((name.clone(), object.digest), object.clone()));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.collect();
    }
}

/// What a wish makes of what is in force; `then`: the revision that it goes back to.
fn decided(
    current: &Current,
    wish: &Wish,
    then: Option<(u64, BTreeMap<Name, Object>)>,
    terms: &Terms,
    file: &Config,
) -> Result<(Outcome, Vec<Diagnostic>), DesiredError> {
    let own = file.load_balancers.keys().cloned().collect();
    let whole = |all: &_| merge(file, all).map(|_| ());
    let site = Site {
        own: &own,
        whole: &whole,
    };
    match (wish, then) {
        (Wish::Apply(text), _) => {
            let (objects, warnings) = objects(text, current)?;
            Ok((commands::apply(current, objects, terms, &site)?, warnings))
        }
        (Wish::Delete(names), _) => {
            let names = names.iter().cloned().collect();
            Ok((commands::delete(current, &names, terms, &own)?, Vec::new()))
        }
        (Wish::Rollback(_), then) => {
            let then = then.unwrap_or_default();
            Ok((commands::roll_back(current, then, terms, &site)?, Vec::new()))
        }
    }
}

/// Whether objects are so few that they go with the transaction of their change.
fn goes_along(objects: &[Object]) -> bool {
    objects.len() <= GROUP && bytes_of(objects) <= WITH_THE_CHANGE_BYTES
}

fn bytes_of(objects: &[Object]) -> usize {
    objects.iter().map(|object| object.json.len()).sum()
}

/// How many of the first objects make a group: one at least.
fn group(objects: &[Object]) -> usize {
    let mut bytes = 0;
    let fit = objects.iter().take(GROUP).take_while(|object| {
        bytes += object.json.len();
        bytes <= GROUP_BYTES
    });
    fit.count().max(1)
}

/// Waits for one of the puts. Whether it happened does not matter when it failed: nothing refers to it.
async fn one(puts: &mut JoinSet<Result<Committed, StoreError>>) -> Result<(), DesiredError> {
    match puts.join_next().await {
        Some(Ok(put)) => put.map(|_| ()).map_err(DesiredError::Store),
        Some(Err(error)) => Err(DesiredError::Damaged(error.to_string())),
        None => Ok(()),
    }
}

/// The load balancers of a text. Secrets that it does not say are those in force.
fn objects(
    text: &Text,
    current: &Current,
) -> Result<(BTreeMap<Name, Object>, Vec<Diagnostic>), DesiredError> {
    let name = text.name.as_deref().unwrap_or("config");
    let known = |name: &str| {
        let object = current.objects.get(&Name::parse(name).ok()?)?;
        serde_json::from_str(&object.json).ok()
    };
    let read = check_declared(&text.text, text.format, name, known).map_err(DesiredError::Text)?;
    let objects = read.load_balancers.iter();
    let objects = objects.map(|(name, declared)| (name.clone(), Object::of(declared)));
    Ok((objects.collect(), read.warnings))
}

fn terms(query: &ChangeQuery, at: Timestamp) -> Result<Terms, DesiredError> {
    let message = query.message.clone().unwrap_or_default();
    if message.chars().count() > MAX_MESSAGE_CHARS || message.chars().any(char::is_control) {
        return Err(DesiredError::Terms(format!(
            "a message has at most {MAX_MESSAGE_CHARS} characters, and no control characters"
        )));
    }
    let confirm_ms = match &query.confirm {
        Some(text) => {
            let lasts =
                parse_duration(text).map_err(|error| DesiredError::Terms(format!("`confirm`: {error}")))?;
            let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
            if !(1000..=MAX_CONFIRM_MS).contains(&lasts) {
                return Err(DesiredError::Terms("`confirm` is 1s to 24h".to_owned()));
            }
            Some(lasts)
        }
        None => None,
    };
    Ok(Terms {
        author: query.by.clone().unwrap_or_else(|| "api".to_owned()),
        message,
        at,
        token: token(),
        expect: query.expect,
        confirm_ms,
    })
}

/// 128 random bits: each state of the standard library's hasher has random keys of its own.
fn token() -> String {
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
}

fn changed(outcome: Outcome) -> Option<Box<Change>> {
    match outcome {
        Outcome::Unchanged => None,
        Outcome::Changed(change) => Some(change),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, DesiredError> {
    serde_json::to_vec(value).map_err(|error| DesiredError::Damaged(error.to_string()))
}

fn count(errors: usize) -> String {
    match errors {
        1 => "1 error".to_owned(),
        _ => format!("{errors} errors"),
    }
}

impl Ledger {
    /// The revision of the head, then the record of a revision.
    async fn look(&self, revision: u64) -> Result<(u64, Option<LogRecord>), StoreError> {
        let head = self.head().await?.map_or(0, |(_, head)| head.revision);
        let entry = self
            .space
            .store()
            .get(&self.space.key(&keys::log(revision)))
            .await?;
        let found = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        Ok((head, found))
    }
}
