//! Orders of operators on their way: checked against the config, given to the store, taken when the store has them.
//!
//! The hub never waits for the store: an order is a task of its own, and what came of it comes back over a channel.
//! As many are on their way as the admin API lets requests in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use cluster::Space;
use cluster::orders::{
    self, Book, GiveError, Given, InForce, MAX_ORDERS, OrderKey, Place, Restored, Seen, Wish,
};
use console::{OrderError, OrderRequest, WeightsRequest};
use model::cluster::ClusterNews;
use model::config::{Config, StoreConfig};
use model::state::{Mode, OrderAction, Override, Overrides, RouteOrder, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use super::Hub;
use super::core::Input;
use crate::data_dir::DataDir;
use crate::now;
use crate::vital::Vital;

/// Orders whose answer is not taken yet.
const BACK: usize = 64;
/// Pause before what could not be kept on this disk is kept again.
const KEEP_AGAIN: Duration = Duration::from_secs(5);
/// While nothing changes, it is noted this often on this disk that the store is still heard.
const NOTE_EVERY: Duration = Duration::from_secs(300);

/// The orders, and the store that they are in.
#[derive(Debug)]
pub(crate) struct Orders {
    space: Space,
    book: Book,
    /// Other nodes share the store: an order about what this one does not know may be known to them.
    shared: bool,
    /// What is kept on this disk of a store that is elsewhere.
    copy: Option<watch::Sender<Overrides>>,
    /// Where that copy was seen.
    seen_in: SeenIn,
    /// Until when the store was heard when that was last put on this disk for its own sake.
    noted: Timestamp,
    back: mpsc::Sender<Back>,
    restoring: Restoring,
}

/// Where the orders were seen that are kept on this disk.
type SeenIn = Arc<Mutex<Option<Place>>>;

/// How what the store has lost comes to be in it again.
#[derive(Debug)]
struct Restoring {
    /// Somebody is at it.
    is_under_way: bool,
    /// That it failed has been told.
    told: bool,
    /// The store is heard. While it is not, somebody may write what is lacking, and end it.
    stands: bool,
    steps: mpsc::Sender<RestoreStep>,
}

/// What there is to do about orders that the store has lost.
#[derive(Debug)]
pub(super) enum RestoreStep {
    /// Those that it lacks now are to be written.
    Due,
    /// They were, or not.
    Done(Restored),
}

/// The orders as far as they are known before anything runs.
#[derive(Debug)]
pub(crate) struct KnownOrders {
    /// All of them.
    pub(crate) all: Overrides,
    /// Those of an earlier version, which may not be in the store yet.
    imported: Option<Overrides>,
    /// Where they were followed last; none where the store is nobody else's.
    seen_in: Option<Place>,
    /// Other nodes share the store.
    shared: bool,
}

impl KnownOrders {
    /// # Errors
    /// When what is on this disk cannot be read.
    pub(crate) async fn load(data: &DataDir, space: &Space, config: &Config) -> anyhow::Result<Self> {
        let shared = config.store != StoreConfig::Embedded;
        let (mut all, seen_in) = match shared {
            true => {
                let (orders, seen_in) = data.last_orders()?;
                (orders, Some(seen_in.unwrap_or_default()))
            }
            false => {
                let listed = orders::list(space).await;
                (listed.context("cannot read the orders in the store")?, None)
            }
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
            seen_in,
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
    pub(super) seen: mpsc::Receiver<(Seen, Option<Place>)>,
    /// What there is to do about orders that the store has lost.
    pub(super) restoring: mpsc::Receiver<RestoreStep>,
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
    pub(crate) fn start(
        space: Space,
        data: &Arc<DataDir>,
        known: KnownOrders,
        vital: &Vital,
    ) -> (Self, OrderNews) {
        let KnownOrders {
            all,
            imported,
            seen_in,
            shared,
        } = known;
        let (back, back_in) = mpsc::channel(BACK);
        let (seen_out, seen) = mpsc::channel(BACK);
        let import = imported.map(|overrides| {
            let data = data.clone();
            let done = Box::new(move || data.overrides_are_imported());
            orders::Import { overrides, done }
        });
        let (steps, restoring) = mpsc::channel(1);
        let (followed, place) = (space.clone(), seen_in.clone());
        let seen_in: SeenIn = Arc::new(Mutex::new(seen_in));
        vital.spawn("orders", async move {
            if let Err(error) = orders::follow(followed, import, place, seen_out).await {
                tracing::error!("orders in the store cannot be followed: {error}");
            }
        });
        let orders = Self {
            space,
            book: Book::of(all),
            shared,
            copy: shared.then(|| keep_copy(data.clone(), seen_in.clone(), vital)),
            seen_in,
            noted: Timestamp(0),
            back,
            restoring: Restoring {
                is_under_way: false,
                told: false,
                stands: false,
                steps,
            },
        };
        // Those who ask for what stands begin with what is known.
        orders.overrides();
        let back = back_in;
        let news = OrderNews {
            back,
            seen,
            restoring,
        };
        (orders, news)
    }

    /// All that stand in a store that other nodes share, also about what this node does not serve.
    pub(crate) fn standing(&self) -> Option<watch::Receiver<Overrides>> {
        self.copy.as_ref().map(watch::Sender::subscribe)
    }

    fn give(&mut self, wish: Wish, reply: Reply) {
        let key = wish.key();
        let stands = self.book.has(&key);
        self.book.begin(&key);
        let (space, back) = (self.space.clone(), self.back.clone());
        tokio::spawn(async move {
            let result = orders::give(&space, &wish, stands).await;
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
        gone.iter().for_each(|(key, _)| self.book.begin(key));
        let (space, back) = (self.space.clone(), self.back.clone());
        // One after the other: with a config that has lost all its backends there may be very many.
        tokio::spawn(async move {
            for (key, order) in gone {
                let result = orders::forget(&space, &key, &order)
                    .await
                    .map_err(GiveError::from);
                if let Err(error) = &result {
                    tracing::warn!("an order about nobody could not be deleted: {error}");
                }
                let wish = None;
                let _ = back.send(Back { key, wish, result }).await;
            }
        });
    }

    /// Takes what was seen; so many orders the store lacks now.
    fn saw(&mut self, seen: Seen) -> usize {
        self.restoring.stands = seen != Seen::CutOff;
        self.book.see(seen);
        self.restore()
    }

    /// Takes what came of an own order; should the store have changed meanwhile, it is written to the one that lacks it.
    fn came_back(&mut self, key: &OrderKey, given: Option<Given>) {
        self.book.end(key, given);
        self.restore();
    }

    /// Has what the store lost written to it again, after a pause, while it is heard; how much that is now.
    fn restore(&mut self) -> usize {
        let count = self.book.lacking(now()).len();
        let is_due = count > 0 && self.restoring.stands;
        if is_due && !std::mem::replace(&mut self.restoring.is_under_way, true) {
            let (steps, failed) = (self.restoring.steps.clone(), self.restoring.told);
            tokio::spawn(async move {
                orders::pause(failed).await;
                // The hub has ended: so has everything.
                _ = steps.send(RestoreStep::Due).await;
            });
        }
        count
    }

    /// Writes what is lacking now: others may have written it meanwhile, or ended it.
    fn restore_now(&mut self) {
        if !self.restoring.stands {
            self.restoring.is_under_way = false;
            return;
        }
        let lacking = self.book.lacking(now());
        let (space, steps) = (self.space.clone(), self.restoring.steps.clone());
        tokio::spawn(async move {
            let restored = orders::restore(&space, lacking).await;
            _ = steps.send(RestoreStep::Done(restored)).await;
        });
    }

    /// Takes what came of that; what is still lacking is tried again.
    fn restored(&mut self, restored: &Restored) {
        self.restoring.is_under_way = false;
        self.book.restored(&restored.there);
        if restored.written > 0 {
            let written = restored.written;
            tracing::info!("the store has {written} orders again that were in force, written by this node");
        }
        match &restored.trouble {
            Some(error) if !std::mem::replace(&mut self.restoring.told, true) => tracing::warn!(
                "orders that are in force here cannot be written to the store that lost them; it is tried again: \
                 {error}"
            ),
            Some(_) => {}
            None => self.restoring.told = false,
        }
        self.restore();
    }

    /// Notes where and until when the orders were followed, for a start in which the store may have lost some.
    fn note_place(&mut self, place: Option<Place>) {
        let (Some(copy), Some(place)) = (&self.copy, place) else {
            return;
        };
        let mut seen_in = self.seen_in.lock().unwrap_or_else(PoisonError::into_inner);
        let is_another = seen_in
            .as_ref()
            .is_none_or(|noted| noted.identity != place.identity);
        let is_later = place.heard.since(self.noted) >= NOTE_EVERY;
        if is_another || is_later {
            self.noted = place.heard;
        }
        *seen_in = Some(place);
        drop(seen_in);
        if is_another || is_later {
            copy.send_modify(|_| {});
        }
    }

    /// Whether there is no room for an order about what none stands for.
    fn is_full(&self, key: &OrderKey) -> bool {
        self.book.count() >= MAX_ORDERS && !self.book.has(key)
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
fn keep_copy(data: Arc<DataDir>, seen_in: SeenIn, vital: &Vital) -> watch::Sender<Overrides> {
    let (copy, mut wanted) = watch::channel(Overrides::default());
    vital.spawn("copy of the orders", async move {
        let mut failed = false;
        loop {
            // What could not be kept is tried again, also when nothing changes: the disk may have room by then.
            let changed = match failed {
                true => tokio::time::timeout(KEEP_AGAIN, wanted.changed()).await,
                false => Ok(wanted.changed().await),
            };
            if let Ok(Err(_)) = changed {
                return;
            }
            let overrides = wanted.borrow_and_update().clone();
            let place = seen_in.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let data = data.clone();
            let kept = tokio::task::spawn_blocking(move || data.keep_orders(&overrides, place)).await;
            let trouble = kept.ok().and_then(Result::err);
            if let Some(error) = trouble.as_ref().filter(|_| !failed) {
                tracing::error!(
                    "the orders could not be kept on this disk, for a start without the store; it is tried again: \
                     {error}"
                );
            }
            failed = trouble.is_some();
        }
    });
    copy
}

impl Hub {
    /// Gives an order to the store; it is taken when it is there.
    pub(super) fn order(&mut self, request: OrderRequest) {
        let OrderRequest { order, reply } = request;
        let key = OrderKey::Backend(order.key.clone());
        match self.core.check(&order) {
            // What stands can be ended, whatever has become of its subject.
            Err(_) if order.action == OrderAction::Mode(Mode::Ready) && self.orders.book.has(&key) => {
                self.orders.give(Wish::Backend(order), Reply::Backend(reply));
            }
            Ok(()) if self.orders.is_full(&key) => _ = reply.send(Err(too_many())),
            Ok(()) => self.orders.give(Wish::Backend(order), Reply::Backend(reply)),
            // Whoever asked may have gone.
            Err(error) => _ = reply.send(Err(error)),
        }
    }

    /// As [`Hub::order`], for the weights of a split.
    pub(super) fn weigh(&mut self, request: WeightsRequest) {
        let WeightsRequest { order, reply } = request;
        let (key, now) = (OrderKey::Route(order.key.clone()), now());
        match self.core.check_weights(now, &order) {
            Err(_) if order.in_force(now).is_none() && self.orders.book.has(&key) => {
                self.orders.give(Wish::Route(order), Reply::Route(reply));
            }
            Ok(()) if self.orders.is_full(&key) => _ = reply.send(Err(too_many())),
            Ok(()) => self.orders.give(Wish::Route(order), Reply::Route(reply)),
            Err(error) => _ = reply.send(Err(error)),
        }
    }

    /// Takes what became of an order.
    pub(super) async fn ordered(&mut self, back: Back) {
        let Back { key, wish, result } = back;
        let refused = result.as_ref().err().map(order_error);
        self.orders.came_back(&key, result.ok());
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
    pub(super) async fn saw_orders(&mut self, (seen, place): (Seen, Option<Place>)) {
        let is_listing = matches!(seen, Seen::All(..));
        let is_news = is_listing || matches!(seen, Seen::Some(..));
        let lacking = self.orders.saw(seen);
        if is_listing && lacking > 0 {
            let news = ClusterNews::OrdersKept { count: lacking };
            self.handle(Input::Cluster(news)).await;
        }
        if is_news {
            self.look_at_orders().await;
        }
        self.orders.note_place(place);
    }

    /// Goes on with writing orders that the store has lost.
    pub(super) fn restore_orders(&mut self, step: &RestoreStep) {
        match step {
            RestoreStep::Due => self.orders.restore_now(),
            RestoreStep::Done(restored) => self.orders.restored(restored),
        }
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

fn too_many() -> OrderError {
    OrderError::StoreFailed(format!(
        "{MAX_ORDERS} orders stand already, and no more are taken: end those that are not needed \
         (`evenkeel backend ready`), and give others an end (`--for`)"
    ))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use cluster::orders::Silence;
    use model::config::Name;
    use model::state::OverrideKey;

    use super::*;

    /// The orders of a store that others share, with nothing ordered yet.
    fn shared(data: &Arc<DataDir>) -> (Space, Orders, OrderNews) {
        let space = Space::new(cluster::Store::embedded(&data.store()).unwrap(), "/test/");
        let known = KnownOrders {
            all: Overrides::default(),
            imported: None,
            seen_in: Some(Place::default()),
            shared: true,
        };
        let (orders, news) = Orders::start(space.clone(), data, known, &crate::vital::tasks().0);
        (space, orders, news)
    }

    /// Scenario: the disk takes nothing when an order comes, and then it does, with no other order after it.
    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_later() {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let in_the_way = dir.path().join("orders.json");
        std::fs::create_dir_all(in_the_way.join("full")).unwrap();
        let place = Place {
            identity: Some("some".into()),
            revision: 7,
            heard: Timestamp(5),
        };
        let copy = keep_copy(
            data.clone(),
            Arc::new(Mutex::new(Some(place.clone()))),
            &crate::vital::tasks().0,
        );
        let key = OverrideKey {
            load_balancer: Name::parse("shop").unwrap(),
            address: ([10, 0, 0, 1], 80).into(),
        };
        let order = Override {
            mode: Mode::Drain,
            weight: None,
            by: "alice".into(),
            since: Timestamp(1),
            expires: None,
        };
        copy.send_modify(|kept| _ = kept.backends.insert(key, order));
        let work = async {
            // condition poll
            let pause = || tokio::time::sleep(Duration::from_millis(20));
            // It has tried when there is its new file, beside the lock and what is in the way.
            while std::fs::read_dir(dir.path()).unwrap().count() < 3 {
                pause().await;
            }
            std::fs::remove_dir_all(&in_the_way).unwrap();
            while !in_the_way.is_file() {
                pause().await;
            }
        };
        tokio::time::timeout(12 * KEEP_AGAIN, work).await.unwrap();
        let (orders, seen_in) = data.last_orders().unwrap();
        assert_eq!((orders.backends.len(), seen_in), (1, Some(place)));
    }

    /// Scenario: the store is emptied while an own order is on its way, and its answer is of the store before. It is
    /// written again without anything else being heard; not while the store is not heard, when others may end it.
    #[tokio::test]
    async fn an_own_order_that_was_on_its_way_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let (space, mut orders, mut news) = shared(&data);
        let order = Override {
            mode: Mode::Drain,
            weight: None,
            by: "alice".into(),
            since: Timestamp(1),
            expires: None,
        };
        let key = OrderKey::Backend(OverrideKey {
            load_balancer: Name::parse("shop").unwrap(),
            address: ([10, 0, 0, 1], 80).into(),
        });
        orders.book.begin(&key);
        orders.saw(Seen::All(7, Vec::new(), Silence::LOSS));
        let given = Given {
            revision: 100,
            order: Some(InForce::Backend(order)),
        };
        orders.came_back(&key, Some(given));
        let step = news.restoring.recv().await.unwrap();
        assert!(matches!(step, RestoreStep::Due), "{step:?}");
        orders.saw(Seen::CutOff);
        orders.restore_now();
        assert!(!orders.restoring.is_under_way);
        assert_eq!(orders.saw(Seen::Still), 1);
        let step = news.restoring.recv().await.unwrap();
        assert!(matches!(step, RestoreStep::Due), "{step:?}");
        orders.restore_now();
        let Some(RestoreStep::Done(restored)) = news.restoring.recv().await else {
            panic!("it is done");
        };
        assert_eq!(restored.written, 1, "{restored:?}");
        orders.restored(&restored);
        assert_eq!(orders.restore(), 0);
        assert_eq!(orders::list(&space).await.unwrap().backends.len(), 1);
    }

    /// Scenario: nothing is ordered for a while, and the store is heard. Until when that was so is on this disk, at most
    /// every few minutes.
    #[tokio::test]
    async fn it_is_noted_until_when_the_store_was_heard() {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let (_, mut orders, _news) = shared(&data);
        let at = |minute: u64| Place {
            identity: Some("some".into()),
            revision: 7,
            heard: Timestamp(minute * 60_000),
        };
        for (minute, noted) in [(100, 100), (104, 100), (105, 105), (106, 105), (111, 111)] {
            orders.note_place(Some(at(minute)));
            assert_eq!(orders.noted, Timestamp(noted * 60_000), "{minute}");
        }
        let work = async {
            while data.last_orders().unwrap().1 != Some(at(111)) {
                // condition poll
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(12 * KEEP_AGAIN, work).await.unwrap();
    }
}
