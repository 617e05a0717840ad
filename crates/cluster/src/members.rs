//! Members that register themselves, and who was heard: the store's side of `reconcile::membership`.
//!
//! What stands under `members/` and what nodes tell under `beats/` is followed and handed on, each for itself: what is
//! asked about a record holds up no telling. The writes that are asked for are made. Nothing is decided here. Of what
//! this version cannot read it is said that it stands there.
//!
//! A record that is gone says that its member has left, unless the store was emptied: nodes remove one record at a time,
//! so several at once were somebody's hand, and of single ones it is asked whether the store's identity went along: once
//! for all that have come until then.
//!
//! Whoever tells is one life of a process, and not a node: each has a key of its own, by a name that no other process
//! ever has. So nobody writes over, or believes to be his own, what another process of the same node's name has told:
//! its former life, or a machine that was copied (`docs/adr/0032-who-tells-of-members.md`).
//!
//! Bounds: whoever asks for writes has at most [`MOST_WRITES`] under way, and one telling.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use model::config::Name;
use model::state::BackendId;
use reconcile::membership::{
    Beats, MemberRecord, Outcome, Write, beats_path, beats_teller, member_backend, member_path, teller,
};
use serde::de::DeserializeOwned;
use store::{
    Changes, Committed, Entry, ErrorKind, Event, Follow, Followed, Held, LeaseId, Listing, Revision,
    Standing, StoreError, Transaction,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::{Space, identity};

/// Writes of records under way at once.
pub const MOST_WRITES: usize = 16;
/// Seconds that a node which takes beats and has died is still taken for one.
pub const LEASE_SECONDS: u32 = 10;
/// Longest wait for one write, or for a lease; what it became is unknown then.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two attempts to learn whether the store was emptied; after [`PATIENCE`] it is taken for that, which keeps
/// members until they are silent.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for a telling: the next one says the same and more, and has to come before the others take those whom
/// this node alone has heard for silent ([`SLACK_MS`](reconcile::membership::SLACK_MS)).
const TELLING_PATIENCE: Duration = Duration::from_millis(1_500);
/// Changes of records taken together, at most.
const AT_ONCE: usize = 64;
/// Room for what is heard; whoever does not take it holds the store's watch up.
const HEARD: usize = 256;
/// Room for what is to be said: more than can be under way.
const SAY: usize = 2 * MOST_WRITES;

/// What is heard of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersHeard {
    /// A record as a revision left it; none: the member has left.
    Record(BackendId, u64, Option<MemberRecord>),
    /// Something stands at a revision that this version cannot read.
    Unread(BackendId, u64),
    /// A record went with a revision that emptied the store: that says nothing of the member.
    Lost(BackendId, u64),
    /// All records at a revision, each with its own; none: it cannot be read.
    Records(u64, Vec<(BackendId, u64, Option<MemberRecord>)>),
    /// The same of another store than before: it was emptied, or put back from a backup.
    OtherRecords(u64, Vec<(BackendId, u64, Option<MemberRecord>)>),
    /// Whether records are heard from now on.
    HearsRecords(bool),
    /// Somebody told whom he has heard.
    Told(Name, Beats),
    /// Somebody takes no beats any more.
    Gone(Name),
    /// All who take beats.
    Tellers(BTreeMap<Name, Beats>),
    /// Whether tellings are heard from now on.
    HearsBeats(bool),
    /// What became of a write.
    Made(BackendId, Outcome),
    /// Whether the telling was made.
    BeatsTold(bool),
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersSay {
    /// These writes are to be made.
    Writes(Vec<Write>),
    /// This node has heard these.
    Beats(Beats),
    /// This node takes no beats any more.
    LetGo,
}

/// Both ends.
#[derive(Debug)]
pub struct SharedMembers {
    /// By which name this process tells: new with each start.
    pub teller: Name,
    /// What is heard.
    pub heard: mpsc::Receiver<MembersHeard>,
    /// Where to say something.
    pub say: mpsc::Sender<MembersSay>,
    /// Closed when that is not heard any more, and nothing is said.
    pub works: watch::Receiver<()>,
}

impl SharedMembers {
    /// Begins, for a process of this node, in the tokio runtime that this is called in; ends when either end is dropped.
    ///
    /// # Errors
    /// When the store's prefix is no key.
    pub fn start(space: Space, node: &Name) -> Result<Self, StoreError> {
        let teller = teller(node, RandomState::new().hash_one(()));
        let records = space.follow("members/")?;
        let beats = space.follow("beats/")?;
        let (tell, heard) = mpsc::channel(HEARD);
        let (say, said) = mpsc::channel(SAY);
        let writer = Writer {
            key: space.key(&beats_path(&teller)),
            space: space.clone(),
            tell: tell.clone(),
            held: None,
        };
        let (works, is_at_work) = watch::channel(());
        tokio::spawn(async move {
            // Where one ends, the others are of no use.
            tokio::select! {
                () = follow_records(&space, records, &tell) => {}
                () = follow_beats(&space, beats, &tell) => {}
                () = writer.run(said) => {}
            }
            drop(works);
        });
        Ok(Self {
            teller,
            heard,
            say,
            works: is_at_work,
        })
    }
}

/// Hands on what is heard of records, until nobody listens.
async fn follow_records(space: &Space, mut records: Follow, tell: &mpsc::Sender<MembersHeard>) {
    loop {
        let found = tokio::select! {
            found = records.next() => found,
            () = tell.closed() => None,
        };
        let Some(found) = found else {
            return;
        };
        let (mut changed, mut other) = (Vec::new(), None);
        take(found, &mut changed, &mut other);
        while other.is_none() && changed.len() < AT_ONCE {
            tokio::select! {
                biased;
                Some(found) = records.next() => take(found, &mut changed, &mut other),
                () = ready(()) => break,
            }
        }
        let lost = lost(space, &changed).await;
        let of_changes = changed
            .iter()
            .flat_map(|changes| of_changes(space, changes, lost.contains(&changes.revision)));
        let of_other = other.into_iter().flat_map(|found| of_other(space, found));
        for heard in of_changes.chain(of_other) {
            if tell.send(heard).await.is_err() {
                return;
            }
        }
    }
}

fn take(found: Followed, changed: &mut Vec<Changes>, other: &mut Option<Followed>) {
    match found {
        Followed::Changed(changes) => changed.push(changes),
        found => *other = Some(found),
    }
}

fn of_changes(space: &Space, changes: &Changes, lost: bool) -> Vec<MembersHeard> {
    let revision = changes.revision.0;
    let each = changes.events.iter().filter_map(|event| {
        let backend = member_backend(space.path(event.key())?)?;
        Some(match event {
            Event::Put(entry) => match read(entry) {
                Some(record) => MembersHeard::Record(backend, revision, Some(record)),
                None => MembersHeard::Unread(backend, revision),
            },
            Event::Deleted { .. } if lost => MembersHeard::Lost(backend, revision),
            Event::Deleted { .. } => MembersHeard::Record(backend, revision, None),
        })
    });
    each.collect()
}

fn of_other(space: &Space, found: Followed) -> Vec<MembersHeard> {
    match found {
        Followed::CutOff(_) => vec![MembersHeard::HearsRecords(false)],
        Followed::Back => vec![MembersHeard::HearsRecords(true)],
        Followed::Listed(listing) => {
            let (revision, all) = records(space, &listing);
            let heard = MembersHeard::Records(revision, all);
            vec![heard, MembersHeard::HearsRecords(true)]
        }
        Followed::Another(listing) => {
            let (revision, all) = records(space, &listing);
            let heard = MembersHeard::OtherRecords(revision, all);
            vec![heard, MembersHeard::HearsRecords(true)]
        }
        Followed::Changed(changes) => of_changes(space, &changes, false),
    }
}

/// Which of these deleted records without that being a farewell; also where that cannot be learnt.
async fn lost(space: &Space, changed: &[Changes]) -> BTreeSet<Revision> {
    let deletions = |changes: &Changes| {
        let events = changes.events.iter();
        events
            .filter(|event| matches!(event, Event::Deleted { .. }))
            .count()
    };
    let with = |wanted: fn(usize) -> bool| {
        let all = changed.iter().filter(|changes| wanted(deletions(changes)));
        all.map(|changes| changes.revision).collect::<BTreeSet<_>>()
    };
    let (mut lost, single) = (with(|count| count > 1), with(|count| count == 1));
    if single.is_empty() {
        return lost;
    }
    let asked = async {
        loop {
            match identity::went_with(space, &single).await {
                Ok(went) => return went,
                Err(error) if error.retry_helps() => {
                    tracing::debug!("whether the store was emptied is not known yet: {error}");
                    sleep(ASK_AGAIN).await;
                }
                Err(_) => return single.clone(),
            }
        }
    };
    lost.extend(timeout(PATIENCE, asked).await.unwrap_or_else(|_| single.clone()));
    lost
}

fn records(space: &Space, listing: &Listing) -> (u64, Vec<(BackendId, u64, Option<MemberRecord>)>) {
    let read = |entry: &Entry| {
        let backend = member_backend(space.path_of(entry)?)?;
        Some((backend, entry.changed.0, read(entry)))
    };
    let all = listing.entries.iter().filter_map(read);
    (listing.revision.0, all.collect())
}

/// Hands on what is heard of tellings, until nobody listens.
async fn follow_beats(space: &Space, mut beats: Follow, tell: &mpsc::Sender<MembersHeard>) {
    loop {
        let found = tokio::select! {
            found = beats.next() => found,
            () = tell.closed() => None,
        };
        let Some(found) = found else {
            return;
        };
        for heard in of_beats(space, found) {
            if tell.send(heard).await.is_err() {
                return;
            }
        }
    }
}

fn of_beats(space: &Space, found: Followed) -> Vec<MembersHeard> {
    match found {
        Followed::CutOff(_) => vec![MembersHeard::HearsBeats(false)],
        Followed::Back => vec![MembersHeard::HearsBeats(true)],
        Followed::Listed(listing) | Followed::Another(listing) => {
            let read = |entry: &Entry| Some((beats_teller(space.path_of(entry)?)?, read(entry)?));
            let all = listing.entries.iter().filter_map(read).collect();
            vec![MembersHeard::Tellers(all), MembersHeard::HearsBeats(true)]
        }
        Followed::Changed(changes) => {
            let each = changes.events.iter().filter_map(|event| {
                let teller = beats_teller(space.path(event.key())?)?;
                match event {
                    Event::Put(entry) => Some(MembersHeard::Told(teller, read(entry)?)),
                    Event::Deleted { .. } => Some(MembersHeard::Gone(teller)),
                }
            });
            each.collect()
        }
    }
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let read = serde_json::from_slice(&entry.value);
    if let Err(error) = &read {
        tracing::debug!("{} is passed over: {error}", entry.key);
    }
    read.ok()
}

struct Writer {
    space: Space,
    key: String,
    tell: mpsc::Sender<MembersHeard>,
    held: Option<Held>,
}

impl Writer {
    async fn run(mut self, mut said: mpsc::Receiver<MembersSay>) {
        while let Some(say) = said.recv().await {
            match say {
                MembersSay::Writes(writes) => {
                    for write in writes {
                        tokio::spawn(make(self.space.clone(), write, self.tell.clone()));
                    }
                }
                MembersSay::Beats(beats) => {
                    let failed = self.beats(&beats).await.err();
                    if let Some(error) = &failed {
                        tracing::debug!("whom this node has heard could not be told: {error}");
                    }
                    if self
                        .tell
                        .send(MembersHeard::BeatsTold(failed.is_none()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                MembersSay::LetGo => {
                    if let Some(held) = self.held.take() {
                        // The lease ends by itself if this does not.
                        _ = timeout(PATIENCE, self.space.store().revoke(held.lease())).await;
                    }
                }
            }
        }
    }

    /// Tells on the lease that this process has. It keeps that when there is no answer in time: a slow store would
    /// otherwise have to grant one before each telling, and be told nothing.
    async fn beats(&mut self, beats: &Beats) -> Result<(), String> {
        let lease = self.lease().await?;
        let value = serde_json::to_vec(beats).unwrap_or_default();
        let transaction = Transaction::new().put_leased(&self.key, value, lease);
        match timeout(TELLING_PATIENCE, self.space.store().commit(transaction)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                if error.kind() == ErrorKind::LeaseGone {
                    self.held = None;
                }
                Err(error.to_string())
            }
            Err(_) => Err(format!("no answer within {TELLING_PATIENCE:?}")),
        }
    }

    /// The lease that this process has; a new one when it has none, or that has ended.
    async fn lease(&mut self) -> Result<LeaseId, String> {
        let stands = |held: &&Held| *held.standing().borrow() != Standing::Gone;
        if let Some(held) = self.held.as_ref().filter(stands) {
            return Ok(held.lease());
        }
        let granted = timeout(PATIENCE, self.space.store().hold(LEASE_SECONDS)).await;
        let held = granted
            .map_err(|_| format!("no lease within {PATIENCE:?}"))?
            .map_err(|error| error.to_string())?;
        Ok(self.held.insert(held).lease())
    }
}

async fn make(space: Space, write: Write, tell: mpsc::Sender<MembersHeard>) {
    let key = space.key(&member_path(&write.backend));
    let transaction = match write.seen {
        Some(revision) => Transaction::new().unchanged(&key, Revision(revision)),
        None => Transaction::new().absent(&key),
    };
    let transaction = match &write.put {
        Some(record) => transaction.put(&key, serde_json::to_vec(record).unwrap_or_default()),
        None => transaction.delete(&key),
    };
    let outcome = match timeout(PATIENCE, space.store().commit(transaction)).await {
        Ok(Ok(Committed::Done(revision))) => Outcome::Done(revision.0),
        Ok(Ok(Committed::Conflict)) => Outcome::Lost,
        Ok(Err(error)) => {
            tracing::debug!(
                "what {} said of itself could not be written: {error}",
                write.backend
            );
            Outcome::Failed
        }
        Err(_) => Outcome::Failed,
    };
    // Nobody may be there any more.
    _ = tell.send(MembersHeard::Made(write.backend, outcome)).await;
}
