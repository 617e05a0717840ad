//! Orders that count for nothing any more are deleted: by the orchestrator that leads, or the only process that has the
//! store; where no orchestrator leads, by any node, as far as their time is over. Every node takes a lapsed order for
//! lapsed by its own clock, so nothing hangs on when it is deleted, and a clock that is wrong undoes no order: it is kept
//! for an hour more.
//!
//! An order whose subject is gone is kept for a day: a load balancer may be declared again, and a store that lacks one
//! for a moment, or a node that is away with its file, must not end a drain. Then it is ended as by somebody: a record
//! says so, for who is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::state::Timestamp;
use reconcile::cluster::records::Key;
use store::{Committed, Entry, ErrorKind, Revision, StoreError, Transaction};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{InForce, OrderKey, now};
use crate::Space;
use crate::member::Post;

/// How long what counts for nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Between two looks.
    pub every: Duration,
    /// An order whose time is over.
    pub lapsed: Duration,
    /// An order about what nobody declares.
    pub gone: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(300),
            lapsed: Duration::from_secs(3600),
            gone: Duration::from_secs(24 * 3600),
        }
    }
}

/// When this process deletes.
#[derive(Clone, Debug)]
pub enum When {
    /// Always: nobody else has the store.
    Always,
    /// While it leads the orchestrators.
    Leading(watch::Receiver<Post>),
    /// While nobody leads: many may do so at once. It does not know what is declared elsewhere, so `declared` is not
    /// asked.
    NobodyLeads,
}

/// Says whether what an order is about is declared anywhere, such that the order could hold; the order itself is none
/// where it cannot be read.
pub type IsDeclared = dyn Fn(&OrderKey, Option<&InForce>) -> bool + Send + Sync;

/// Deletes what counts for nothing, until nobody orchestrates any more; where the store is nobody else's, for ever.
pub async fn run(space: Space, when: When, declared: Arc<IsDeclared>, terms: Terms) {
    let mut rounds = interval(terms.every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing = Missing::new();
    loop {
        rounds.tick().await;
        let epoch = match &when {
            When::Always => None,
            When::Leading(post) if post.has_changed().is_err() => return,
            When::Leading(post) => match post.borrow().leads {
                Some(epoch) => Some(epoch),
                None => {
                    missing.clear();
                    continue;
                }
            },
            When::NobodyLeads => match space.store().get(&space.key(&Key::Leader.path())).await {
                Ok(None) => None,
                _ => continue,
            },
        };
        let declared = (!matches!(when, When::NobodyLeads)).then_some(&*declared);
        match round(&space, epoch, declared, &mut missing, terms).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!("{deleted} orders were deleted that counted for nothing any more"),
            Err(error) => {
                tracing::debug!("old orders could not be deleted, and will be in the next round: {error}");
            }
        }
    }
}

/// Orders about what nobody declares, since when; as many as stand in the store.
type Missing = BTreeMap<OrderKey, Instant>;

async fn round(
    space: &Space,
    epoch: Option<u64>,
    declared: Option<&IsDeclared>,
    missing: &mut Missing,
    terms: Terms,
) -> Result<usize, StoreError> {
    let listing = space.store().list(&space.key("orders/")).await?;
    let lapsed = Timestamp(now().0.saturating_sub(terms.lapsed.as_millis() as u64));
    let before = std::mem::take(missing);
    let mut over = Vec::new();
    for entry in &listing.entries {
        let Some(key) = space.path_of(entry).and_then(OrderKey::parse) else {
            continue;
        };
        let order = key.read(&entry.value).ok();
        if order.as_ref().is_some_and(|order| order.is_over(lapsed)) {
            over.push((entry, None));
        } else if !order.as_ref().is_some_and(InForce::has_ended)
            && declared.is_some_and(|declared| !declared(&key, order.as_ref()))
        {
            let since = before.get(&key).copied().unwrap_or_else(Instant::now);
            if since.elapsed() >= terms.gone {
                over.push((entry, order.map(|order| key.end(order.by(), now()))));
            }
            missing.insert(key, since);
        }
    }
    let mut deleted = 0;
    for (entry, record) in over {
        deleted += usize::from(delete(space, epoch, entry, record).await?);
    }
    Ok(deleted)
}

/// Deletes an order as it was seen, or puts a record in its place that it has ended; not one that was given anew, and not
/// when another one leads.
async fn delete(
    space: &Space,
    epoch: Option<u64>,
    entry: &Entry,
    record: Option<InForce>,
) -> Result<bool, StoreError> {
    let compare = || {
        let transaction = Transaction::new().unchanged(&entry.key, entry.changed);
        match epoch {
            Some(epoch) => transaction.created(space.key(&Key::Leader.path()), Revision(epoch)),
            None => transaction,
        }
    };
    if let Some(record) = record {
        let put = compare().put(&entry.key, record.json());
        match space.store().commit(put).await {
            // Room is made by deleting.
            Err(error) if error.kind() == ErrorKind::Full => {}
            committed => return Ok(committed? != Committed::Conflict),
        }
    }
    Ok(space.store().commit(compare().delete(&entry.key)).await? != Committed::Conflict)
}
