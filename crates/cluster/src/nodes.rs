//! The registry of nodes: each tells of itself under a lease, and those who look after them follow it.
//!
//! A node writes `nodes/NAME` when what it serves has changed, and every [`TELL_EVERY`] for its load. When it stops in
//! order it says so and takes the key away; when it dies, the lease takes it. A name that another living process has
//! is not taken: both would be one node to everybody else. That is told once it is sure not to be the node's own
//! former life, whose lease runs out, and the name is tried again until it is free. What no node of this version can
//! read, and nobody writes for longer than a living one would be silent, is nobody's record, and is written over.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::config::Name;
use model::node::{NameTaken, NodeEvent, NodeRecord};
use model::state::Timestamp;
use reconcile::desired::poll::spread;
use store::{Committed, Entry, Event, Followed, Held, Listing, Revision, Standing, StoreError, Transaction};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Space;

/// Seconds that a silent node is still taken for alive.
pub const LEASE_SECONDS: u32 = 10;
/// A node tells its load this often.
pub const TELL_EVERY: Duration = Duration::from_secs(10);
/// Longest wait before a node tells that it serves something new: all nodes have it at the same moment, and the store
/// should still be bringing it to the last of them when the first ones report.
const TELL_SPREAD: Duration = Duration::from_millis(100);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// A former life of a node is gone after so long, and whoever lives has written.
const SILENCE: Duration = Duration::from_secs(2 * LEASE_SECONDS as u64);
/// Longest wait for the farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// Lost nodes that are remembered; beyond it the one that was lost first is forgotten.
const MAX_LOST: usize = 1_000;

/// All nodes that are there, by name.
pub type Nodes = Arc<BTreeMap<Name, NodeRecord>>;

/// Nodes that fell silent while they were looked after, with when that was noticed, until they are back.
pub type Lost = Arc<BTreeMap<Name, Timestamp>>;

/// Keeps a node in the registry: what `record` says, as often as it changes and every [`TELL_EVERY`]; `taken` tells
/// while another process has its name. Ends, with a farewell, when `stop` is sent or dropped.
pub async fn register(
    space: Space,
    name: Name,
    mut record: watch::Receiver<NodeRecord>,
    taken: watch::Sender<Option<NameTaken>>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut entry = Registration {
        key: space.key(&format!("nodes/{name}")),
        space,
        held: None,
        refused: None,
        taken,
    };
    loop {
        let told = record.borrow_and_update().clone();
        let failed = tokio::select! {
            biased;
            _ = &mut stop => break,
            told = entry.tell(&told) => told.err(),
        };
        if let Some(error) = &failed {
            tracing::debug!("this node could not be registered: {error}");
        }
        let pause = if failed.is_some() || entry.held.is_none() {
            RETRY
        } else {
            TELL_EVERY
        };
        tokio::select! {
            _ = &mut stop => break,
            changed = record.changed() => if changed.is_err() { break },
            () = gone(entry.held.as_ref()) => {}
            () = sleep(pause) => continue,
        }
        tokio::select! {
            _ = &mut stop => break,
            () = sleep(spread(TELL_SPREAD, RandomState::new().hash_one(()))) => {}
        }
    }
    let told = record.borrow().clone();
    // A store that is away gets none: the lease ends by itself.
    _ = timeout(FAREWELL, entry.leave(told)).await;
}

/// Waits until the store says that the lease has ended, for whatever reason: the others miss this node then.
async fn gone(own: Option<&Own>) {
    if let Some(own) = own {
        let mut standing = own.lease.standing();
        if standing
            .wait_for(|standing| matches!(standing, Standing::Gone))
            .await
            .is_ok()
        {
            return;
        }
    }
    std::future::pending().await
}

struct Registration {
    space: Space,
    key: String,
    held: Option<Own>,
    /// Since when the name is somebody else's, and what stood there first.
    refused: Option<(Instant, Timestamp, Revision)>,
    taken: watch::Sender<Option<NameTaken>>,
}

/// A lease, and the entry that hangs on it.
struct Own {
    lease: Held,
    changed: Revision,
}

impl Registration {
    async fn tell(&mut self, record: &NodeRecord) -> Result<(), StoreError> {
        let value = serde_json::to_vec(record).unwrap_or_default();
        if let Some(own) = &mut self.held {
            let transaction = Transaction::new().unchanged(&self.key, own.changed).put_leased(
                &self.key,
                value.clone(),
                own.lease.lease(),
            );
            match self.space.store().commit(transaction).await {
                Ok(Committed::Done(revision)) => {
                    own.changed = revision;
                    return Ok(());
                }
                // The lease has ended, or a write without an answer was made after all.
                Ok(Committed::Conflict) => self.held = None,
                Err(error) => {
                    self.held = None;
                    return Err(error);
                }
            }
        }
        let claimed = self.claim(record, value).await;
        if claimed.is_err() {
            // While the store was away leases lived on: a former life of this node may have, too.
            self.refused = None;
        }
        claimed
    }

    /// Takes the name, when nobody else has it.
    async fn claim(&mut self, record: &NodeRecord, value: Vec<u8>) -> Result<(), StoreError> {
        let standing = self.space.store().get(&self.key).await?;
        let mut transaction = match &standing {
            None => Transaction::new().absent(&self.key),
            Some(entry) if is_own(entry, record) || self.is_nobodys(entry) => {
                Transaction::new().unchanged(&self.key, entry.changed)
            }
            Some(entry) => {
                self.is_refused(entry);
                return Ok(());
            }
        };
        let lease = self.space.store().hold(LEASE_SECONDS).await?;
        transaction = transaction.put_leased(&self.key, value, lease.lease());
        if let Committed::Done(changed) = self.space.store().commit(transaction).await? {
            self.held = Some(Own { lease, changed });
            self.refused = None;
            self.taken.send_if_modified(|taken| taken.take().is_some());
        }
        Ok(())
    }

    /// Whether what stands there is no record that this version can read, and nobody has written it for long.
    fn is_nobodys(&mut self, standing: &Entry) -> bool {
        if read(standing).is_some() {
            return false;
        }
        match self.refused {
            Some((seen, _, changed)) if changed == standing.changed => seen.elapsed() > SILENCE,
            _ => {
                tracing::warn!(
                    "`{}` in the store is no record that this version can read, so this node is not registered; it is \
                     written over unless somebody writes it within {SILENCE:?}",
                    self.key
                );
                self.refused = Some((Instant::now(), now(), standing.changed));
                false
            }
        }
    }

    /// Tells whose the name is once that is surely no former life of this node: it still writes, or has been there for
    /// longer than the lease of one that is dead could last.
    fn is_refused(&mut self, standing: &Entry) {
        let (seen, since, first) = *self
            .refused
            .get_or_insert_with(|| (Instant::now(), now(), standing.changed));
        let Some(other) = read(standing) else {
            return;
        };
        let writes = standing.changed != first && !other.leaving;
        if writes || seen.elapsed() > SILENCE {
            let other = NameTaken {
                since,
                started: other.started,
                zone: other.zone,
                addresses: other.addresses,
            };
            self.taken.send_if_modified(|taken| {
                let news = taken.as_ref() != Some(&other);
                *taken = Some(other);
                news
            });
        }
    }

    async fn leave(&mut self, mut record: NodeRecord) {
        record.leaving = true;
        if self.held.is_some()
            && self.tell(&record).await.is_ok()
            && let Some(own) = self.held.take()
        {
            _ = self.space.store().revoke(own.lease.lease()).await;
        }
    }
}

fn is_own(entry: &Entry, record: &NodeRecord) -> bool {
    read(entry).is_some_and(|found| found.life == record.life)
}

fn read(entry: &Entry) -> Option<NodeRecord> {
    serde_json::from_slice(&entry.value).ok()
}

/// Follows the registry; tells who is there, who is lost, and who comes and goes. Ends when nobody listens any more.
pub async fn follow(
    space: Space,
    nodes: watch::Sender<Nodes>,
    lost: watch::Sender<Lost>,
    events: mpsc::Sender<NodeEvent>,
) {
    let prefix = space.key("nodes/");
    let mut follow = match space.follow("nodes/") {
        Ok(follow) => follow,
        Err(error) => {
            tracing::error!("the registry of nodes cannot be followed: {error}");
            return;
        }
    };
    let mut known: BTreeMap<Name, NodeRecord> = BTreeMap::new();
    let mut first = true;
    while let Some(found) = follow.next().await {
        let mut before = known.clone();
        match found {
            Followed::Listed(listing) => known = listed(&prefix, &listing),
            Followed::Another(listing) => {
                known = listed(&prefix, &listing);
                // The store that they were in is lost, and not they.
                before.retain(|name, _| known.contains_key(name));
            }
            Followed::Changed(changes) => changes
                .events
                .iter()
                .for_each(|event| apply(&mut known, &prefix, event)),
            Followed::CutOff(_) | Followed::Back => continue,
        }
        nodes.send_replace(Arc::new(known.clone()));
        // Who was there already when this process came is no news.
        if !std::mem::take(&mut first) {
            let news = news(&before, &known);
            note_lost(&lost, &news);
            for event in news {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn listed(prefix: &str, listing: &Listing) -> BTreeMap<Name, NodeRecord> {
    let entries = listing.entries.iter();
    entries
        .filter_map(|entry| Some((name(prefix, &entry.key)?, read(entry)?)))
        .collect()
}

/// Remembers who is silent. Whoever misses events finds it here.
fn note_lost(lost: &watch::Sender<Lost>, news: &[NodeEvent]) {
    let mut now_lost = BTreeMap::clone(&lost.borrow());
    for event in news {
        match event {
            NodeEvent::Lost(name) => now_lost.extend(Name::parse(name).ok().map(|name| (name, now()))),
            NodeEvent::Joined(name) | NodeEvent::Left(name) => {
                now_lost.retain(|lost, _| lost.as_str() != name)
            }
            // Of this process itself; who is lost is another matter.
            NodeEvent::NameTaken(..) | NodeEvent::NameFree(_) => {}
        }
    }
    while now_lost.len() > MAX_LOST {
        let first = now_lost.iter().min_by_key(|(_, at)| **at);
        let Some(name) = first.map(|(name, _)| name.clone()) else {
            break;
        };
        now_lost.remove(&name);
    }
    lost.send_if_modified(|lost| {
        let changed = **lost != now_lost;
        if changed {
            *lost = Arc::new(now_lost);
        }
        changed
    });
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn apply(known: &mut BTreeMap<Name, NodeRecord>, prefix: &str, event: &Event) {
    let Some(name) = name(prefix, event.key()) else {
        return;
    };
    match event {
        Event::Put(entry) => known.extend(read(entry).map(|record| (name, record))),
        Event::Deleted { .. } => _ = known.remove(&name),
    }
}

fn name(prefix: &str, key: &str) -> Option<Name> {
    Name::parse(key.strip_prefix(prefix)?).ok()
}

fn news(before: &BTreeMap<Name, NodeRecord>, after: &BTreeMap<Name, NodeRecord>) -> Vec<NodeEvent> {
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let gone = gone.map(|(name, record)| match record.leaving {
        true => NodeEvent::Left(name.to_string()),
        false => NodeEvent::Lost(name.to_string()),
    });
    let came = after
        .iter()
        .filter(|(name, record)| before.get(*name).is_none_or(|before| before.life != record.life));
    gone.chain(came.map(|(name, _)| NodeEvent::Joined(name.to_string())))
        .collect()
}
