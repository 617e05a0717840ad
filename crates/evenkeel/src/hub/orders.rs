//! Orders of operators on their way: checked against the config, given to the store, taken when the store has them.
//!
//! The hub never waits for the store: an order is a task of its own, and what came of it comes back over a channel.
//! As many are on their way as the admin API lets requests in.

use std::sync::Arc;

use anyhow::Context;
use cluster::Space;
use cluster::orders::{self, Book, GiveError, Given, InForce, OrderKey, Seen, Wish};
use console::{OrderError, OrderRequest, WeightsRequest};
use model::config::{Config, StoreConfig};
use model::state::{Override, Overrides, RouteOrder};
use tokio::sync::{mpsc, oneshot, watch};

use super::Hub;
use super::core::Input;
use crate::data_dir::DataDir;
use crate::now;

/// Orders whose answer is not taken yet.
const BACK: usize = 64;

/// The orders, and the store that they are in.
#[derive(Debug)]
pub(crate) struct Orders {
    space: Space,
    book: Book,
    /// Other nodes share the store: an order about what this one does not know may be known to them.
    shared: bool,
    /// What is kept on this disk of a store that is elsewhere.
    copy: Option<watch::Sender<Overrides>>,
    back: mpsc::Sender<Back>,
}

/// The orders as far as they are known before anything runs.
#[derive(Debug)]
pub(crate) struct KnownOrders {
    /// All of them.
    pub(crate) all: Overrides,
    /// Those of an earlier version, which may not be in the store yet.
    imported: Option<Overrides>,
    /// Other nodes share the store.
    shared: bool,
}

impl KnownOrders {
    /// # Errors
    /// When what is on this disk cannot be read.
    pub(crate) async fn load(data: &DataDir, space: &Space, config: &Config) -> anyhow::Result<Self> {
        let shared = config.store != StoreConfig::Embedded;
        let mut all = match shared {
            true => data.last_orders()?,
            false => orders::list(space)
                .await
                .context("cannot read the orders in the store")?,
        };
        let imported = data.load_overrides()?;
        for (key, order) in imported.backends.iter() {
            if !all.backends.contains_key(key) {
                all.backends.insert(key.clone(), order.clone());
            }
        }
        for (key, order) in imported.routes.iter() {
            if !all.routes.contains_key(key) {
                all.routes.insert(key.clone(), order.clone());
            }
        }
        let is_any = !(imported.backends.is_empty() && imported.routes.is_empty());
        let imported = is_any.then_some(imported);
        Ok(Self {
            all,
            imported,
            shared,
        })
    }
}

/// What the hub hears of orders.
#[derive(Debug)]
pub(crate) struct OrderNews {
    /// What became of those that it gave.
    pub(super) back: mpsc::Receiver<Back>,
    /// What stands in the store.
    pub(super) seen: mpsc::Receiver<Seen>,
}

/// What became of an order.
#[derive(Debug)]
pub(super) struct Back {
    key: OrderKey,
    wish: Option<(Wish, Reply)>,
    result: Result<Given, GiveError>,
}

/// Who asked.
#[derive(Debug)]
enum Reply {
    Backend(oneshot::Sender<Result<Option<Override>, OrderError>>),
    Route(oneshot::Sender<Result<Option<RouteOrder>, OrderError>>),
}

impl Orders {
    /// Follows the store, in the tokio runtime that this is called in.
    pub(crate) fn start(space: Space, data: &Arc<DataDir>, known: KnownOrders) -> (Self, OrderNews) {
        let KnownOrders {
            all,
            imported,
            shared,
        } = known;
        let (back, back_in) = mpsc::channel(BACK);
        let (seen_out, seen) = mpsc::channel(BACK);
        let import = imported.map(|overrides| {
            let data = data.clone();
            let done = Box::new(move || data.overrides_are_imported());
            orders::Import { overrides, done }
        });
        let followed = space.clone();
        tokio::spawn(async move {
            if let Err(error) = orders::follow(followed, import, seen_out).await {
                tracing::error!("orders in the store cannot be followed: {error}");
            }
        });
        let orders = Self {
            space,
            book: Book::of(all),
            shared,
            copy: shared.then(|| keep_copy(data.clone())),
            back,
        };
        (orders, OrderNews { back: back_in, seen })
    }

    fn give(&mut self, wish: Wish, reply: Reply) {
        let key = wish.key();
        self.book.begin(&key);
        let (space, back) = (self.space.clone(), self.back.clone());
        tokio::spawn(async move {
            let result = orders::give(&space, &wish).await;
            let wish = Some((wish, reply));
            // The hub has ended: so has everything.
            let _ = back.send(Back { key, wish, result }).await;
        });
    }

    /// Deletes orders about what is no longer configured, where nobody else can know better.
    pub(super) fn forget(&mut self, gone: Vec<(OrderKey, InForce)>) {
        if self.shared {
            return;
        }
        for (key, order) in gone {
            self.book.begin(&key);
            let (space, back) = (self.space.clone(), self.back.clone());
            tokio::spawn(async move {
                let result = orders::forget(&space, &key, &order)
                    .await
                    .map_err(GiveError::from);
                if let Err(error) = &result {
                    tracing::warn!("an order about nobody could not be deleted: {error}");
                }
                let _ = back
                    .send(Back {
                        key,
                        wish: None,
                        result,
                    })
                    .await;
            });
        }
    }

    /// What stands.
    pub(super) fn overrides(&self) -> Overrides {
        let overrides = self.book.overrides(now());
        if let Some(copy) = &self.copy {
            copy.send_if_modified(|kept| {
                let changed = *kept != overrides;
                kept.clone_from(&overrides);
                changed
            });
        }
        overrides
    }
}

/// Writes what it is given to this disk, the last only when several come at once.
fn keep_copy(data: Arc<DataDir>) -> watch::Sender<Overrides> {
    let (copy, mut wanted) = watch::channel(Overrides::default());
    tokio::spawn(async move {
        while wanted.changed().await.is_ok() {
            let overrides = wanted.borrow_and_update().clone();
            let data = data.clone();
            let kept = tokio::task::spawn_blocking(move || data.keep_orders(&overrides)).await;
            if let Ok(Err(error)) = kept {
                tracing::error!(
                    "the orders could not be kept on this disk, for a start without the store: {error}"
                );
            }
        }
    });
    copy
}

impl Hub {
    /// Gives an order to the store; it is taken when it is there.
    pub(super) fn order(&mut self, request: OrderRequest) {
        let OrderRequest { order, reply } = request;
        match self.core.check(&order) {
            Ok(()) => self.orders.give(Wish::Backend(order), Reply::Backend(reply)),
            // Whoever asked may have gone.
            Err(error) => _ = reply.send(Err(error)),
        }
    }

    /// As [`Hub::order`], for the weights of a split.
    pub(super) fn weigh(&mut self, request: WeightsRequest) {
        let WeightsRequest { order, reply } = request;
        match self.core.check_weights(now(), &order) {
            Ok(()) => self.orders.give(Wish::Route(order), Reply::Route(reply)),
            Err(error) => _ = reply.send(Err(error)),
        }
    }

    /// Takes what became of an order.
    pub(super) async fn ordered(&mut self, back: Back) {
        let Back { key, wish, result } = back;
        let refused = result.as_ref().err().map(order_error);
        self.orders.book.end(&key, result.ok());
        let overrides = self.orders.overrides();
        let Some((wish, reply)) = wish else {
            return self.handle(Input::OrdersSeen(overrides)).await;
        };
        self.handle(match wish {
            _ if refused.is_some() => Input::OrdersSeen(overrides),
            Wish::Backend(order) => Input::Ordered { order, overrides },
            Wish::Route(order) => Input::RouteOrdered { order, overrides },
        })
        .await;
        // Whoever asked may have gone; the order stands all the same.
        match (&key, reply) {
            (OrderKey::Backend(key), Reply::Backend(reply)) => {
                let standing = self.core.order(key).cloned();
                let _ = reply.send(refused.map_or(Ok(standing), Err));
            }
            (OrderKey::Route(key), Reply::Route(reply)) => {
                let standing = self.core.route_order(key).cloned();
                let _ = reply.send(refused.map_or(Ok(standing), Err));
            }
            _ => {}
        }
    }

    /// Takes what was seen of the orders in the store.
    pub(super) async fn saw_orders(&mut self, seen: Seen) {
        self.orders.book.see(seen);
        self.look_at_orders().await;
    }

    /// Takes the orders anew: what is declared has changed, and with it what they are about.
    pub(super) async fn look_at_orders(&mut self) {
        let overrides = self.orders.overrides();
        self.handle(Input::OrdersSeen(overrides)).await;
    }

    /// Whether an order that this node has no use for may come to have one.
    pub(super) fn shares_orders(&self) -> bool {
        self.orders.shared
    }
}

fn order_error(error: &GiveError) -> OrderError {
    match error {
        GiveError::Unavailable(detail) => OrderError::StoreUnavailable(detail.clone()),
        GiveError::Unknown(detail) => OrderError::StoreUnavailable(format!(
            "{detail}; should the store have taken it all the same, `evenkeel status` will show it"
        )),
        GiveError::Failed(detail) => OrderError::StoreFailed(detail.clone()),
    }
}
