//! The registry of nodes: each tells of itself under a lease, and those who look after them follow it.
//!
//! A node writes `nodes/NAME` when what it serves has changed, and every [`TELL_EVERY`] for its load. When it stops in
//! order it says so and takes the key away; when it dies, the lease takes it. A name that another living process has
//! is not taken: both would be one node to everybody else. It is told, and tried again, because that process may be
//! the node's own former life, whose lease runs out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::config::Name;
use model::node::{NodeEvent, NodeRecord};
use store::{Committed, Entry, Event, Followed, Held, Revision, StoreError, Transaction};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Space;

/// Seconds that a silent node is still taken for alive.
pub const LEASE_SECONDS: u32 = 10;
/// A node tells its load this often.
pub const TELL_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for the farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// All nodes that are there, by name.
pub type Nodes = Arc<BTreeMap<Name, NodeRecord>>;

/// Keeps a node in the registry: what `record` says, as often as it changes and every [`TELL_EVERY`]. Ends, with a
/// farewell, when `stop` is sent or dropped.
pub async fn register(
    space: Space,
    name: Name,
    mut record: watch::Receiver<NodeRecord>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut entry = Registration {
        key: space.key(&format!("nodes/{name}")),
        space,
        held: None,
        refused_since: None,
        warned: false,
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
            () = sleep(pause) => {}
        }
    }
    let told = record.borrow().clone();
    // A store that is away gets none: the lease ends by itself.
    _ = timeout(FAREWELL, entry.leave(told)).await;
}

struct Registration {
    space: Space,
    key: String,
    held: Option<Own>,
    /// Since when the name is somebody else's.
    refused_since: Option<Instant>,
    warned: bool,
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
        self.claim(record, value).await
    }

    /// Takes the name, when nobody else has it.
    async fn claim(&mut self, record: &NodeRecord, value: Vec<u8>) -> Result<(), StoreError> {
        let standing = self.space.store().get(&self.key).await?;
        let mut transaction = match &standing {
            None => Transaction::new().absent(&self.key),
            Some(entry) if is_own(entry, record) => Transaction::new().unchanged(&self.key, entry.changed),
            Some(_) => {
                self.warn();
                return Ok(());
            }
        };
        let lease = self.space.store().hold(LEASE_SECONDS).await?;
        transaction = transaction.put_leased(&self.key, value, lease.lease());
        if let Committed::Done(changed) = self.space.store().commit(transaction).await? {
            self.held = Some(Own { lease, changed });
            (self.refused_since, self.warned) = (None, false);
        }
        Ok(())
    }

    /// Warns once the name has been another's for longer than the lease of a former life could last.
    fn warn(&mut self) {
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() > 2 * Duration::from_secs(LEASE_SECONDS.into())
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!(
                "another process has this node's name in the store ({}): give each a `node.name` of its own",
                self.key
            );
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

/// Follows the registry; tells who comes and goes. Ends when nobody listens any more.
pub async fn follow(space: Space, nodes: watch::Sender<Nodes>, events: mpsc::Sender<NodeEvent>) {
    let prefix = space.key("nodes/");
    let mut follow = match space.store().follow(&prefix) {
        Ok(follow) => follow,
        Err(error) => {
            tracing::error!("the registry of nodes cannot be followed: {error}");
            return;
        }
    };
    let mut known: BTreeMap<Name, NodeRecord> = BTreeMap::new();
    let mut first = true;
    while let Some(found) = follow.next().await {
        let before = known.clone();
        match found {
            Followed::Listed(listing) => {
                let entries = listing.entries.iter();
                known = entries
                    .filter_map(|entry| Some((name(&prefix, &entry.key)?, read(entry)?)))
                    .collect();
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
            for event in news(&before, &known) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
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
