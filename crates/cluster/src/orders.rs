//! Operators' orders in the store: all nodes follow them, and an order is taken when the store has it.
//!
//! `orders/backends/LB/ADDRESS` and `orders/routes/LB/ROUTE` hold one order each. Giving one reads what stands there
//! and writes under the condition that this still stands, again if need be: of two operators who order at the same
//! time, one draining and the other weighing, neither undoes the other. An order whose time is over counts for nothing
//! at once, and is deleted later ([`collect`]), under the same condition. One that is ended is not deleted at once
//! either: a record that says so takes its place, so that who was away can tell what was ended from what got lost.
//!
//! A store that was emptied, or put in the place of another, ends no order ([`Silence`], [`restore()`]).

mod book;
pub mod collect;
mod follow;
mod restore;
mod silence;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::config::Name;
use model::state::{
    Mode, Order, Override, OverrideKey, Overrides, RouteKey, RouteOrder, RouteWeights, Timestamp,
};
use store::{Committed, Entry, ErrorKind, Happened, StoreError, Transaction};
use tokio::time::timeout;

pub use book::{Book, InForce};
pub use follow::{Import, follow};
pub use restore::{Restored, pause, restore};
pub use silence::{Place, Silence};

use crate::Space;

/// An order is tried so often when others order the same at the same time.
const ATTEMPTS: usize = 8;
/// How long an order may take; who asked for it waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// Orders that may stand at the same time: beyond it a new one is refused.
pub const MAX_ORDERS: usize = 100_000;

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

    /// What says in the store that nothing stands any more: an order whose time is over as soon as it begins. It is
    /// deleted as any other whose time is over.
    fn end(&self, by: &str, now: Timestamp) -> InForce {
        match self {
            Self::Backend(_) => InForce::Backend(Override {
                mode: Mode::Ready,
                weight: None,
                by: by.to_owned(),
                since: now,
                expires: Some(now),
            }),
            Self::Route(_) => InForce::Route(RouteOrder {
                weights: BTreeMap::new(),
                by: by.to_owned(),
                since: now,
                expires: Some(now),
            }),
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

    /// Who wants it.
    fn by(&self) -> &str {
        match self {
            Self::Backend(order) => &order.by,
            Self::Route(order) => &order.by,
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

/// Brings an order into the store. `stands`: something stands here about the same, which the store may have lost.
///
/// # Errors
/// [`GiveError`].
pub async fn give(space: &Space, wish: &Wish, stands: bool) -> Result<Given, GiveError> {
    match timeout(PATIENCE, try_to_give(space, wish, stands)).await {
        Ok(given) => given,
        Err(_) => Err(GiveError::Unknown("the store did not answer in time".to_owned())),
    }
}

async fn try_to_give(space: &Space, wish: &Wish, stands: bool) -> Result<Given, GiveError> {
    let key = wish.key();
    let whole = space.key(&key.path());
    for _ in 0..ATTEMPTS {
        let entry = space.store().get(&whole).await?;
        let old = entry.as_ref().and_then(|entry| read(&key, entry));
        let now = now();
        let order = wish.upon(old.as_ref().filter(|old| !old.is_over(now)), now);
        if entry.is_none() && order.is_none() && !stands {
            // Nothing to end, and nobody to tell.
            return Ok(Given { revision: 0, order });
        }
        let compare = || match &entry {
            Some(entry) => Transaction::new().unchanged(&whole, entry.changed),
            None => Transaction::new().absent(&whole),
        };
        let record = order.clone().unwrap_or_else(|| key.end(wish.by(), now));
        let put = compare().put(&whole, record.json());
        let committed = match space.store().commit(put).await {
            // Without a record, whoever is away now may take it for lost later; but it has to be possible.
            Err(error) if error.kind() == ErrorKind::Full && order.is_none() && entry.is_some() => {
                space.store().commit(compare().delete(&whole)).await
            }
            committed => committed,
        }?;
        if let Committed::Done(revision) = committed {
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

/// What was seen of the orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of them, as of a revision, with none for those that were ended; and what it means that others are absent.
    All(u64, Vec<(OrderKey, Option<InForce>)>, Silence),
    /// What changed in a revision.
    Some(u64, Vec<(OrderKey, Option<InForce>)>),
    /// The store is heard, and nothing has changed.
    Still,
    /// It is not heard any more.
    CutOff,
}

/// All orders as they stand now.
///
/// # Errors
/// [`StoreError`].
pub async fn list(space: &Space) -> Result<Overrides, StoreError> {
    let listing = space.store().list(&space.key("orders/")).await?;
    let mut book = Book::default();
    let orders = all(space, &listing);
    book.see(Seen::All(listing.revision.0, orders, Silence::END));
    // Those whose time is over are told as such by who takes them.
    Ok(book.overrides(Timestamp(0)))
}

fn all(space: &Space, listing: &store::Listing) -> Vec<(OrderKey, Option<InForce>)> {
    let orders = listing.entries.iter().filter_map(|entry| {
        let key = OrderKey::parse(space.path_of(entry)?)?;
        let order = read(&key, entry);
        Some((key, order))
    });
    orders.collect()
}

/// The order in an entry; none that was ended, or cannot be read.
fn read(key: &OrderKey, entry: &Entry) -> Option<InForce> {
    let order = key.read(&entry.value);
    if let Err(error) = &order {
        tracing::warn!(
            "an order that cannot be read counts for nothing: {}: {error}",
            entry.key
        );
    }
    order.ok().filter(|order| !order.has_ended())
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
        assert!(!order.has_ended());
        let end = of_route("shop", "canary").end("bob", Timestamp(7));
        assert_eq!(
            String::from_utf8_lossy(&end.json()),
            r#"{"weights":{},"by":"bob","since":7,"expires":7}"#
        );
        assert!(end.has_ended());
    }
}
