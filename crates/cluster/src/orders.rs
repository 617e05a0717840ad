//! Operators' orders in the store: all nodes follow them, and an order is taken when the store has it.
//!
//! `orders/backends/LB/ADDRESS` and `orders/routes/LB/ROUTE` hold one order each. Giving one reads what stands there
//! and writes under the condition that this still stands, again if need be: of two operators who order at the same
//! time, one draining and the other weighing, neither undoes the other. An order whose time is over is deleted by
//! whoever notices, under the same condition.

mod book;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::config::Name;
use model::state::{Order, OverrideKey, Overrides, RouteKey, RouteWeights, Timestamp};
use store::{Committed, Entry, Event, Follow, Followed, Happened, StoreError, Transaction};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub use book::{Book, InForce};

use crate::Space;

/// An order is tried so often when others order the same at the same time.
const ATTEMPTS: usize = 8;
/// How long an order may take; who asked for it waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two looks at orders whose time may be over, and two attempts at what failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Deleted so long after its time: until then its node has taken it for lapsed by itself.
const GRACE: Duration = Duration::from_secs(1);

/// Whose order it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderKey {
    /// A backend's.
    Backend(OverrideKey),
    /// A route's.
    Route(RouteKey),
}

impl OrderKey {
    /// The key's text below the store's prefix.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Backend(key) => format!("orders/backends/{}/{}", key.load_balancer, key.address),
            Self::Route(key) => format!("orders/routes/{}/{}", key.load_balancer, key.route),
        }
    }

    /// The key of a path below the prefix; none that is no order's.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("orders/")?.splitn(3, '/');
        let (kind, lb, last) = (parts.next()?, parts.next()?, parts.next()?);
        let load_balancer = Name::parse(lb).ok()?;
        match kind {
            "backends" => Some(Self::Backend(OverrideKey {
                load_balancer,
                address: last.parse().ok()?,
            })),
            "routes" => Some(Self::Route(RouteKey {
                load_balancer,
                route: Name::parse(last).ok()?,
            })),
            _ => None,
        }
    }

    fn read(&self, json: &[u8]) -> Result<InForce, serde_json::Error> {
        match self {
            Self::Backend(_) => serde_json::from_slice(json).map(InForce::Backend),
            Self::Route(_) => serde_json::from_slice(json).map(InForce::Route),
        }
    }
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Of a backend.
    Backend(Order),
    /// Of a route.
    Route(RouteWeights),
}

impl Wish {
    /// Whose order it is.
    #[must_use]
    pub fn key(&self) -> OrderKey {
        match self {
            Self::Backend(order) => OrderKey::Backend(order.key.clone()),
            Self::Route(order) => OrderKey::Route(order.key.clone()),
        }
    }

    /// What stands then; `None`: nothing any more.
    fn upon(&self, old: Option<&InForce>, now: Timestamp) -> Option<InForce> {
        match self {
            Self::Backend(order) => {
                let old = old.and_then(|old| match old {
                    InForce::Backend(order) => Some(order),
                    InForce::Route(_) => None,
                });
                order.upon(old, now).map(InForce::Backend)
            }
            Self::Route(order) => order.in_force(now).map(InForce::Route),
        }
    }
}

/// An order that the store has taken: what stands since which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The revision of the store.
    pub revision: u64,
    /// What stands; `None`: nothing any more.
    pub order: Option<InForce>,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveError {
    /// The store cannot be reached, or is too busy: trying again may help. It was not taken.
    #[error("{0}")]
    Unavailable(String),
    /// The answer was lost: the order may have been taken all the same.
    #[error("{0}")]
    Unknown(String),
    /// The store refuses: somebody must look.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for GiveError {
    fn from(error: StoreError) -> Self {
        match (error.happened(), error.retry_helps()) {
            (Happened::Unknown, _) => Self::Unknown(error.to_string()),
            (Happened::No, true) => Self::Unavailable(error.to_string()),
            (Happened::No, false) => Self::Failed(error.to_string()),
        }
    }
}

/// Brings an order into the store.
///
/// # Errors
/// [`GiveError`].
pub async fn give(space: &Space, wish: &Wish) -> Result<Given, GiveError> {
    match timeout(PATIENCE, try_to_give(space, wish)).await {
        Ok(given) => given,
        Err(_) => Err(GiveError::Unknown("the store did not answer in time".to_owned())),
    }
}

async fn try_to_give(space: &Space, wish: &Wish) -> Result<Given, GiveError> {
    let key = wish.key();
    let whole = space.key(&key.path());
    for _ in 0..ATTEMPTS {
        let entry = space.store().get(&whole).await?;
        let old = entry.as_ref().and_then(|entry| read(&key, entry));
        let now = now();
        let order = wish.upon(old.as_ref().filter(|old| !old.is_over(now)), now);
        let transaction = match &entry {
            Some(entry) => Transaction::new().unchanged(&whole, entry.changed),
            None => Transaction::new().absent(&whole),
        };
        let transaction = match &order {
            Some(order) => transaction.put(&whole, order.json()),
            None => transaction.delete(&whole),
        };
        if let Committed::Done(revision) = space.store().commit(transaction).await? {
            let revision = revision.0;
            return Ok(Given { revision, order });
        }
    }
    let detail = "others order the same at this moment".to_owned();
    Err(GiveError::Unavailable(detail))
}

/// Deletes an order, if it still is this one; what stands then.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(space: &Space, key: &OrderKey, order: &InForce) -> Result<Given, StoreError> {
    let whole = space.key(&key.path());
    let entry = space.store().get(&whole).await?;
    let standing = entry.as_ref().and_then(|entry| read(key, entry));
    let revision = entry.as_ref().map_or(0, |entry| entry.changed.0);
    if let Some(entry) = entry.filter(|_| standing.as_ref() == Some(order)) {
        let transaction = Transaction::new().unchanged(&whole, entry.changed).delete(&whole);
        if let Committed::Done(revision) = space.store().commit(transaction).await? {
            let (revision, order) = (revision.0, None);
            return Ok(Given { revision, order });
        }
    }
    let order = standing;
    Ok(Given { revision, order })
}

/// Orders from before they were kept in a store.
pub struct Import {
    /// The orders.
    pub overrides: Overrides,
    /// Told when the store has them.
    pub done: Box<dyn FnOnce() + Send>,
}

/// What was seen of the orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of them, as of a revision.
    All(u64, Vec<(OrderKey, InForce)>),
    /// What changed in a revision.
    Some(u64, Vec<(OrderKey, Option<InForce>)>),
}

/// All orders as they stand now.
///
/// # Errors
/// [`StoreError`].
pub async fn list(space: &Space) -> Result<Overrides, StoreError> {
    let listing = space.store().list(&space.key("orders/")).await?;
    let mut book = Book::default();
    book.see(all(space, &listing));
    // Those whose time is over are told as such by who takes them.
    Ok(book.overrides(Timestamp(0)))
}

/// Follows the orders until nobody listens any more, and deletes those whose time is over. First of all it brings
/// those of `imported` into the store for which nothing stands there, and tells when that is done.
pub async fn follow(
    space: Space,
    imported: Option<Import>,
    seen: mpsc::Sender<Seen>,
) -> Result<(), StoreError> {
    if let Some(Import { overrides, done }) = imported {
        while let Err(error) = import(&space, &overrides).await {
            tracing::debug!("orders of before cannot be brought into the store yet: {error}");
            sleep(LOOK_EVERY).await;
        }
        done();
    }
    let mut follow: Follow = space.store().follow(&space.key("orders/"))?;
    let mut standing: BTreeMap<OrderKey, InForce> = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        let told = tokio::select! {
            followed = follow.next() => match followed {
                Some(Followed::Listed(listing)) => all(&space, &listing),
                Some(Followed::Changed(changes)) => some(&space, &changes),
                Some(Followed::CutOff(_) | Followed::Back) => continue,
                None => return Ok(()),
            },
            _ = tick.tick() => {
                delete_lapsed(&space, &standing).await;
                continue;
            }
        };
        match &told {
            Seen::All(_, orders) => standing = orders.iter().cloned().collect(),
            Seen::Some(_, changes) => {
                for (key, order) in changes {
                    match order {
                        Some(order) => standing.insert(key.clone(), order.clone()),
                        None => standing.remove(key),
                    };
                }
            }
        }
        if seen.send(told).await.is_err() {
            return Ok(());
        }
    }
}

async fn delete_lapsed(space: &Space, standing: &BTreeMap<OrderKey, InForce>) {
    let before = Timestamp(now().0.saturating_sub(GRACE.as_millis() as u64));
    for (key, order) in standing.iter().filter(|(_, order)| order.is_over(before)) {
        if let Err(error) = forget(space, key, order).await {
            // It counts for nothing all the same; the next look tries again.
            tracing::debug!("an order whose time is over could not be deleted: {error}");
            return;
        }
    }
}

async fn import(space: &Space, overrides: &Overrides) -> Result<(), StoreError> {
    let backends = overrides.backends.iter();
    let backends =
        backends.map(|(key, order)| (OrderKey::Backend(key.clone()), InForce::Backend(order.clone())));
    let routes = overrides.routes.iter();
    let routes = routes.map(|(key, order)| (OrderKey::Route(key.clone()), InForce::Route(order.clone())));
    for (key, order) in backends.chain(routes) {
        let whole = space.key(&key.path());
        let transaction = Transaction::new().absent(&whole).put(&whole, order.json());
        space.store().commit(transaction).await?;
    }
    Ok(())
}

fn all(space: &Space, listing: &store::Listing) -> Seen {
    let orders = listing.entries.iter().filter_map(|entry| {
        let key = OrderKey::parse(space.path_of(entry)?)?;
        let order = read(&key, entry)?;
        Some((key, order))
    });
    Seen::All(listing.revision.0, orders.collect())
}

fn some(space: &Space, changes: &store::Changes) -> Seen {
    let changed = changes.events.iter().filter_map(|event| {
        let key = OrderKey::parse(space.path(event.key())?)?;
        let order = match event {
            Event::Put(entry) => read(&key, entry),
            Event::Deleted { .. } => None,
        };
        Some((key, order))
    });
    Seen::Some(changes.revision.0, changed.collect())
}

fn read(key: &OrderKey, entry: &Entry) -> Option<InForce> {
    let order = key.read(&entry.value);
    if let Err(error) = &order {
        tracing::warn!(
            "an order that cannot be read counts for nothing: {}: {error}",
            entry.key
        );
    }
    order.ok()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For the tests of [`book`].
#[cfg(test)]
fn of_route(lb: &str, route: &str) -> OrderKey {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    OrderKey::Route(RouteKey {
        load_balancer: Name::parse(lb).unwrap(),
        route: Name::parse(route).unwrap(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::state::RouteOrder;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let of_backend = |address: &str| {
            OrderKey::Backend(OverrideKey {
                load_balancer: Name::parse("shop").unwrap(),
                address: address.parse().unwrap(),
            })
        };
        for (key, path) in [
            (of_backend("10.0.0.1:80"), "orders/backends/shop/10.0.0.1:80"),
            (
                of_backend("[2001:db8::1]:80"),
                "orders/backends/shop/[2001:db8::1]:80",
            ),
            (of_route("shop", "canary"), "orders/routes/shop/canary"),
        ] {
            assert_eq!(key.path(), path);
            assert_eq!(OrderKey::parse(path), Some(key));
        }
        for other in [
            "orders/",
            "orders/backends/shop",
            "orders/routes/a/b/c",
            "orders/x/a/b",
        ] {
            assert_eq!(OrderKey::parse(other), None, "{other}");
        }
    }

    /// The type of what a route's order holds is the API's own: another version reads it.
    #[test]
    fn an_order_is_read_as_it_is_written() {
        let order = InForce::Route(RouteOrder {
            weights: [(Name::parse("blue").unwrap(), 5)].into(),
            by: "alice".into(),
            since: Timestamp(1),
            expires: Some(Timestamp(2)),
        });
        let json = order.json();
        assert_eq!(
            String::from_utf8_lossy(&json),
            r#"{"weights":{"blue":5},"by":"alice","since":1,"expires":2}"#
        );
        assert_eq!(of_route("a", "b").read(&json).unwrap(), order);
        assert!(order.is_over(Timestamp(2)) && !order.is_over(Timestamp(1)));
    }
}
