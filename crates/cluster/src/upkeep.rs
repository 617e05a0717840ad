//! What the leader does for the whole store: old history is forgotten, and so are verdicts on what nobody declares.
//!
//! etcd keeps every change until somebody has it forgotten, and ends in its quota. The leader forgets what is older
//! than one round, so that whoever was cut off for a few minutes goes on from where it was. Verdicts are deleted when
//! they were about nobody in two rounds, and only while the leader is one: the transaction compares its key. One that
//! was deleted by mistake, because this node's config is behind, is written again by who checks the backend.
//!
//! A cluster may do without orchestrators. Then every other node forgets old history in the leader's place, each by what it
//! saw a round ago itself: that it is done several times does no harm, and nobody's last minutes are forgotten.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use model::state::BackendId;
use reconcile::cluster::records::Key;
use reconcile::cluster::roster::Wanted;
use store::{Committed, Entry, Revision, StoreError, Transaction};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Space;
use crate::member::Post;

/// Between two rounds.
pub const EVERY: Duration = Duration::from_secs(300);

/// Works while this process leads, in rounds `every` so long, until nobody orchestrates any more.
pub async fn run(
    space: Space,
    post: watch::Receiver<Post>,
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    every: Duration,
) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Round::default();
    while post.has_changed().is_ok() {
        rounds.tick().await;
        let Some(epoch) = post.borrow().leads else {
            last = Round::default();
            continue;
        };
        let Some(wanted) = wanted.borrow().clone() else {
            continue;
        };
        match round(&space, epoch, &wanted, &last).await {
            Ok(next) => last = next,
            Err(error) => {
                // What was seen may be of another store than the one that is there now.
                last = Round::default();
                tracing::warn!("the store could not be tidied, and will be in the next round: {error}");
            }
        }
    }
}

/// Forgets old history while nobody leads, in rounds about `every` so long, each process at its own times; for as long as
/// the process runs.
pub async fn run_for_nobody(space: Space, every: Duration) {
    let mut last = None;
    loop {
        let share = RandomState::new().hash_one(()) % 1000;
        sleep(every * 4 / 5 + every / 2500 * u32::try_from(share).unwrap_or_default()).await;
        match round_for_nobody(&space, last.take()).await {
            Ok(seen) => last = seen,
            Err(error) => {
                tracing::debug!("old history could not be forgotten, and will be in the next round: {error}");
            }
        }
    }
}

/// Where the store is; none when somebody leads, whose work it is. `last`: where it was a round ago.
async fn round_for_nobody(space: &Space, last: Option<Revision>) -> Result<Option<Revision>, StoreError> {
    let leader = space.key(&Key::Leader.path());
    let listing = space.store().list(&leader).await?;
    // Without a lease that is no leader's, and nobody would ever take it away here.
    let leads = |entry: &Entry| entry.key == leader && entry.lease.is_some();
    if listing.entries.iter().any(leads) {
        return Ok(None);
    }
    if let Some(before) = last {
        space.store().compact(before).await?;
    }
    Ok(Some(listing.revision))
}

/// What was seen in the round before.
#[derive(Debug, Default)]
struct Round {
    /// Where the store was.
    revision: Option<Revision>,
    /// Verdicts on nobody, as they stood.
    orphans: BTreeMap<BackendId, Revision>,
}

async fn round(space: &Space, epoch: u64, wanted: &Wanted, last: &Round) -> Result<Round, StoreError> {
    let listing = space.store().list(&space.key("verdicts/")).await?;
    let mut orphans = BTreeMap::new();
    for entry in &listing.entries {
        if let Some(Key::Verdict(backend)) = space.path_of(entry).and_then(Key::parse)
            && !wanted.contains_key(&backend)
        {
            orphans.insert(backend, entry.changed);
        }
    }
    let gone = orphans
        .iter()
        .filter(|(backend, changed)| last.orphans.get(*backend) == Some(*changed));
    for (backend, changed) in gone {
        let key = space.key(&Key::Verdict(backend.clone()).path());
        let transaction = Transaction::new()
            .created(space.key(&Key::Leader.path()), Revision(epoch))
            .unchanged(&key, *changed)
            .delete(&key);
        if space.store().commit(transaction).await? == Committed::Conflict {
            tracing::debug!(%backend, "a verdict on nobody was written again, or this process leads no more");
        }
    }
    if let Some(before) = last.revision {
        space.store().compact(before).await?;
    }
    let revision = Some(listing.revision);
    Ok(Round { revision, orphans })
}
