//! The whole prefix, then its changes, for ever: what consumers use.
//!
//! A task lists, watches from the revision after the list, and puts what it finds into a short queue. When the
//! watch ends, it goes on from the revision after the last one seen; when that is compacted, or the store has gone
//! back (restored from a backup), it lists anew. A consumer that is slow holds the task up, and nothing piles up
//! here: at worst its place is compacted, and it gets a new list.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::bounds::FOLLOW_QUEUE;
use crate::error::{ErrorKind, StoreError};
use crate::types::{Changes, Listing, Revision};
use crate::{Store, backoff};

/// What there is to know about a prefix, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// All of it: the first thing told, and again whenever the changes in between are lost. What is not in it is
    /// not there.
    Listed(Listing),
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
    pub(crate) fn start(store: Store, prefix: &str) -> Self {
        let (tell, found) = mpsc::channel(FOLLOW_QUEUE);
        let follower = Follower {
            store,
            prefix: prefix.to_owned(),
            tell,
            next: None,
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
    /// The revision to go on from; none when a list is needed.
    next: Option<Revision>,
    cut_off: bool,
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
            let Err(ended) = self.round().await;
            match ended {
                Ended::Unwanted => return,
                Ended::Failed(error) if error.kind() == ErrorKind::Compacted => self.next = None,
                Ended::Failed(error) => {
                    if !self.cut_off {
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
            sleep(backoff::pause(failures)).await;
        }
    }

    /// Lists where that is needed, then watches until that fails.
    async fn round(&mut self) -> Result<std::convert::Infallible, Ended> {
        let from = match self.next {
            Some(from) => from,
            None => {
                let listing = self.store.list(&self.prefix).await?;
                self.back().await?;
                let from = listing.revision.next();
                self.say(Followed::Listed(listing)).await?;
                self.next = Some(from);
                from
            }
        };
        let mut watch = self.store.watch(&self.prefix, from).await?;
        // Asked once the watch stands, because it may stand in another store than the one before.
        let now = self.store.revision(&self.prefix).await?;
        if now.next() < from {
            let detail = format!("the store went back to {now}");
            return Err(StoreError::not_done(ErrorKind::Compacted, detail).into());
        }
        self.back().await?;
        loop {
            let changes = watch.next().await?;
            self.next = Some(changes.revision.next());
            self.say(Followed::Changed(changes)).await?;
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
