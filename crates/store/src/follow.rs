//! The whole prefix, then its changes, for ever: what consumers use.
//!
//! A task lists, watches from the revision after the list, and puts what it finds into a short queue. When the
//! watch ends, it goes on after the last one seen; when that is compacted, or the store has gone back (restored from a
//! backup), it lists anew. So it does when another store answers, one that was emptied, say, and
//! written to until it was further than the first: the revision alone would not tell, so a key is compared that is
//! written once in the life of a store. A consumer that is slow holds the task up, and nothing piles up
//! here: at worst its place is compacted, and it gets a new list.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::bounds::FOLLOW_QUEUE;
use crate::error::{ErrorKind, StoreError};
use crate::types::{Changes, Entry, Listing, Revision};
use crate::{Store, backoff};

/// What there is to know about a prefix, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// All of it: the first thing told, and again whenever the changes in between are lost. What is not in it is
    /// not there.
    Listed(Listing),
    /// As [`Listed`](Self::Listed), of another store than the one that was seen before: it has gone back, or was put in
    /// its place. Revisions of the two cannot be compared.
    Another(Listing),
    /// What changed since.
    Changed(Changes),
    /// From now on nothing is heard of the store; what is known grows old. Told once.
    CutOff(StoreError),
    /// The store is heard again; what was missed follows.
    Back,
}

/// A consumer's end; see [`Store::follow`]. Dropping it ends the task.
#[derive(Debug)]
pub struct Follow {
    found: mpsc::Receiver<Followed>,
    task: AbortHandle,
}

impl Follow {
    pub(crate) fn start(store: Store, prefix: &str, identity: Option<&str>, return_within: Duration) -> Self {
        let (tell, found) = mpsc::channel(FOLLOW_QUEUE);
        let follower = Follower {
            store,
            prefix: prefix.to_owned(),
            tell,
            identity: identity.map(str::to_owned),
            return_within,
            next: None,
            listed: None,
            cut_off: false,
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        Self { found, task }
    }

    /// The next thing to know. None only when the runtime ends. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Followed> {
        self.found.recv().await
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    store: Store,
    prefix: String,
    tell: mpsc::Sender<Followed>,
    /// The key that tells one store from another, where there is one.
    identity: Option<String>,
    /// Who loses the store comes back within this, and an instant more.
    return_within: Duration,
    /// The revision to go on from; none when a list is needed.
    next: Option<Revision>,
    /// Of which store the last list was, and up to where that was seen.
    listed: Option<(Identity, Revision)>,
    cut_off: bool,
}

/// What stands under the key that tells one store from another, and since when.
type Identity = Option<(Revision, Bytes)>;

fn identity_of(entry: Entry) -> (Revision, Bytes) {
    (entry.created, entry.value)
}

/// Why a round of watching ended.
enum Ended {
    /// The consumer is gone.
    Unwanted,
    Failed(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Follower {
    async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            let before = self.next;
            let mut spread = Duration::ZERO;
            let Err(ended) = self.round().await;
            match ended {
                Ended::Unwanted => return,
                Ended::Failed(error) if error.kind() == ErrorKind::Compacted => self.next = None,
                Ended::Failed(error) => {
                    if !self.cut_off {
                        spread = backoff::within(self.return_within);
                        self.cut_off = true;
                        if self.say(Followed::CutOff(error)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            // Who got anywhere begins with the shortest pause.
            failures = if self.next == before {
                failures.saturating_add(1)
            } else {
                1
            };
            sleep(backoff::pause(failures) + spread).await;
        }
    }

    /// Lists where that is needed, then watches until that fails.
    async fn round(&mut self) -> Result<std::convert::Infallible, Ended> {
        let from = match self.next {
            Some(from) => from,
            None => {
                let identity = self.identity().await?;
                let listing = self.store.list(&self.prefix).await?;
                self.back().await?;
                let (from, at) = (listing.revision.next(), listing.revision);
                let another = self.listed.as_ref().is_some_and(|(before, seen)| {
                    // One that had no identity before has come to have one.
                    at < *seen || before.is_some() && *before != identity
                });
                self.listed = Some((identity, at));
                self.say(match another {
                    true => Followed::Another(listing),
                    false => Followed::Listed(listing),
                })
                .await?;
                self.next = Some(from);
                from
            }
        };
        let mut watch = self.store.watch_on(&self.prefix, from).await?;
        // Asked once the watch stands, because it may stand in another store than the one before.
        let (now, identity) = match &self.identity {
            Some(key) => {
                let (now, entry) = self.store.get_at(key).await?;
                (now, entry.map(identity_of))
            }
            None => (self.store.revision(&self.prefix).await?, None),
        };
        if now.next() < from {
            let detail = format!("the store went back to {now}");
            return Err(StoreError::not_done(ErrorKind::Compacted, detail).into());
        }
        if self
            .listed
            .as_ref()
            .is_some_and(|(before, _)| *before != identity)
        {
            let detail = "the store is another one than before".to_owned();
            return Err(StoreError::not_done(ErrorKind::Compacted, detail).into());
        }
        self.back().await?;
        loop {
            let changes = watch.next().await?;
            if changes.revision < from {
                // The last one seen.
                continue;
            }
            self.next = Some(changes.revision.next());
            if let Some((_, seen)) = &mut self.listed {
                *seen = changes.revision;
            }
            self.say(Followed::Changed(changes)).await?;
        }
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        match &self.identity {
            Some(key) => Ok(self.store.get(key).await?.map(identity_of)),
            None => Ok(None),
        }
    }

    async fn back(&mut self) -> Result<(), Ended> {
        match std::mem::take(&mut self.cut_off) {
            true => self.say(Followed::Back).await,
            false => Ok(()),
        }
    }

    async fn say(&self, what: Followed) -> Result<(), Ended> {
        self.tell.send(what).await.map_err(|_| Ended::Unwanted)
    }
}
