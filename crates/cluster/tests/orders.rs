//! Orders in the store, on both engines' terms: given at the same time, lapsing, brought over from before.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use evenkeel_cluster::orders::{self, Book, Import, InForce, OrderKey, Seen, Wish};
use evenkeel_cluster::{Space, Store};
use model::config::Name;
use model::state::{Mode, Order, OrderAction, Override, OverrideKey, Overrides, Timestamp};
use tempfile::TempDir;
use tokio::sync::mpsc;

fn key(port: u16) -> OverrideKey {
    OverrideKey {
        load_balancer: Name::parse("shop").unwrap(),
        address: ([10, 0, 0, 1], port).into(),
    }
}

fn wish(port: u16, action: OrderAction, by: &str) -> Wish {
    Wish::Backend(Order {
        key: key(port),
        action,
        lasts: None,
        by: by.into(),
    })
}

fn space(folder: &TempDir) -> Space {
    Space::new(Store::embedded(folder.path()).unwrap(), "/test/")
}

/// What a node knows when it has seen all that stands.
async fn standing(space: &Space) -> Overrides {
    orders::list(space).await.unwrap()
}

/// Many operators order at once, half of them a mode and half of them a weight: each is told that its order stands,
/// and the last of each kind does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_who_order_at_the_same_time_undo_nothing() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    for round in 0..20 {
        let drain = wish(1, OrderAction::Mode(Mode::Drain), "alice");
        let weigh = wish(1, OrderAction::Weight(round), "bob");
        let (drained, weighed) = tokio::join!(orders::give(&space, &drain), orders::give(&space, &weigh));
        let (drained, weighed) = (drained.unwrap(), weighed.unwrap());
        assert_ne!(drained.revision, weighed.revision);
        let overrides = standing(&space).await;
        let order = overrides.backends.get(&key(1)).unwrap();
        assert_eq!((order.mode, order.weight), (Mode::Drain, Some(round)));
        let ready = wish(1, OrderAction::Mode(Mode::Ready), "carol");
        assert_eq!(orders::give(&space, &ready).await.unwrap().order, None);
        assert!(standing(&space).await.backends.is_empty());
    }
}

/// One node follows: it sees what others give, in order, and deletes what has lapsed. An order that was given anew
/// in the meantime is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_what_is_given_and_deletes_what_has_lapsed() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let (seen_out, mut seen) = mpsc::channel(16);
    let followed = tokio::spawn(orders::follow(space.clone(), None, seen_out));
    assert!(matches!(seen.recv().await.unwrap(), Seen::All(_, orders) if orders.is_empty()));
    let mut short = wish(1, OrderAction::Mode(Mode::Drain), "alice");
    if let Wish::Backend(order) = &mut short {
        order.lasts = Some(Duration::from_millis(50));
    }
    orders::give(&space, &short).await.unwrap();
    orders::give(&space, &wish(2, OrderAction::Weight(7), "bob"))
        .await
        .unwrap();
    let mut book = Book::default();
    while book.overrides(Timestamp(0)).backends.len() != 2 {
        book.see(seen.recv().await.unwrap());
    }
    let other = OrderKey::Backend(key(2));
    let stale = InForce::Backend(Override {
        mode: Mode::Ready,
        weight: Some(1),
        by: "bob".into(),
        since: Timestamp(1),
        expires: None,
    });
    orders::forget(&space, &other, &stale).await.unwrap();
    while book.overrides(Timestamp(0)).backends.contains_key(&key(1)) {
        book.see(seen.recv().await.unwrap());
    }
    let overrides = standing(&space).await;
    assert_eq!(overrides.backends.get(&key(2)).unwrap().weight, Some(7));
    assert_eq!(overrides.backends.len(), 1);
    followed.abort();
}

/// Orders of before are brought into the store once, and never over what stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_before_are_taken_over_where_nothing_stands() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    orders::give(&space, &wish(1, OrderAction::Weight(7), "bob"))
        .await
        .unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let old = |by: &str| Override {
        mode: Mode::Drain,
        weight: None,
        by: by.into(),
        since: Timestamp(now.as_millis() as u64),
        expires: None,
    };
    let overrides = Overrides {
        backends: [(key(1), old("before")), (key(2), old("before"))]
            .into_iter()
            .collect(),
        ..Overrides::default()
    };
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    let import = Import {
        overrides,
        done: Box::new(move || told.store(true, Relaxed)),
    };
    let (seen_out, mut seen) = mpsc::channel(16);
    let followed = tokio::spawn(orders::follow(space.clone(), Some(import), seen_out));
    let Seen::All(_, all) = seen.recv().await.unwrap() else {
        panic!("first of all comes all");
    };
    assert_eq!(all.len(), 2);
    assert!(done.load(Relaxed));
    let overrides = standing(&space).await;
    let by = |port| overrides.backends.get(&key(port)).unwrap().by.clone();
    assert_eq!((by(1).as_str(), by(2).as_str()), ("bob", "before"));
    followed.abort();
}
