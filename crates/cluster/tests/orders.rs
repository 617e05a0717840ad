//! Orders in the store, on both engines' terms: given at the same time, lapsing, brought over from before.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use evenkeel_cluster::member::Post;
use evenkeel_cluster::orders::collect::{self, IsDeclared, Terms, When};
use evenkeel_cluster::orders::{self, Book, Import, InForce, OrderKey, Place, Seen, Silence, Wish};
use evenkeel_cluster::{Space, Store};
use model::config::Name;
use model::state::{Mode, Order, OrderAction, Override, OverrideKey, Overrides, Timestamp};
use peers::Etcd;
use store::{Committed, ErrorKind, EtcdSettings, StoreError, Transaction};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

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
        let (drained, weighed) = tokio::join!(
            orders::give(&space, &drain, true),
            orders::give(&space, &weigh, true)
        );
        let (drained, weighed) = (drained.unwrap(), weighed.unwrap());
        assert_ne!(drained.revision, weighed.revision);
        let overrides = standing(&space).await;
        let order = overrides.backends.get(&key(1)).unwrap();
        assert_eq!((order.mode, order.weight), (Mode::Drain, Some(round)));
        let ready = wish(1, OrderAction::Mode(Mode::Ready), "carol");
        assert_eq!(orders::give(&space, &ready, true).await.unwrap().order, None);
        assert!(standing(&space).await.backends.is_empty());
    }
}

/// A drain that lasts for a moment only.
fn short(port: u16) -> Wish {
    let mut wish = wish(port, OrderAction::Mode(Mode::Drain), "alice");
    if let Wish::Backend(order) = &mut wish {
        order.lasts = Some(Duration::from_millis(50));
    }
    wish
}

/// One node follows: it sees what others give, in order, and what has lapsed, which counts for nothing and stays: by
/// its own clock it deletes nothing. An order that was given anew in the meantime is left alone by who forgets the old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_what_is_given_and_deletes_nothing() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let (seen_out, mut seen) = mpsc::channel(16);
    let followed = tokio::spawn(orders::follow(space.clone(), None, None, seen_out));
    assert!(matches!(seen.recv().await.unwrap(), (Seen::All(_, orders, _), None) if orders.is_empty()));
    orders::give(&space, &short(1), true).await.unwrap();
    orders::give(&space, &wish(2, OrderAction::Weight(7), "bob"), true)
        .await
        .unwrap();
    let mut book = Book::default();
    while book.overrides(Timestamp(0)).backends.len() != 2 {
        book.see(seen.recv().await.unwrap().0);
    }
    assert_eq!(book.count(), 2);
    let other = OrderKey::Backend(key(2));
    let stale = InForce::Backend(Override {
        mode: Mode::Ready,
        weight: Some(1),
        by: "bob".into(),
        since: Timestamp(1),
        expires: None,
    });
    orders::forget(&space, &other, &stale).await.unwrap();
    let later = Timestamp(u64::MAX);
    assert!(
        !book.overrides(later).backends.contains_key(&key(1)),
        "it has lapsed"
    );
    assert_eq!(standing(&space).await.backends.len(), 2);
    followed.abort();
}

/// Polls what stands in the store until it is as wanted.
async fn until(space: &Space, what: &str, ports: &[u16]) {
    let work = async {
        loop {
            let there: Vec<u16> = standing(space)
                .await
                .backends
                .keys()
                .map(|key| key.address.port())
                .collect();
            if there == ports {
                return;
            }
            // condition poll
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(peers::PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Scenario: an order lapses, and is deleted when its grace is over, by the only process that has the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_lapsed_is_deleted_after_its_grace() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    for wish in [short(1), wish(2, OrderAction::Weight(7), "bob")] {
        orders::give(&space, &wish, true).await.unwrap();
    }
    let terms = |lapsed| Terms {
        every: Duration::from_millis(20),
        lapsed,
        ..Terms::default()
    };
    let declared: Arc<IsDeclared> = Arc::new(|_, _| true);
    let run = |lapsed| collect::run(space.clone(), When::Always, declared.clone(), terms(lapsed));
    let patient = tokio::spawn(run(Duration::from_secs(3600)));
    tokio::time::timeout(Duration::from_millis(300), until(&space, "", &[2]))
        .await
        .unwrap_err();
    patient.abort();
    let hasty = tokio::spawn(run(Duration::from_millis(50)));
    until(&space, "the lapsed one is deleted", &[2]).await;
    hasty.abort();
}

/// Scenario: nobody declares what an order is about. It is deleted when that has been so for long enough, by who leads;
/// not by who leads no more, and not when it was declared again in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_nobody_is_deleted_by_who_leads() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    for port in [1, 2, 3] {
        orders::give(&space, &wish(port, OrderAction::Weight(7), "bob"), true)
            .await
            .unwrap();
    }
    let put = Transaction::new().put(space.key("leader"), "{}");
    let Committed::Done(epoch) = space.store().commit(put).await.unwrap() else {
        panic!("it compares nothing");
    };
    let post = |epoch: Option<u64>| Post {
        name: Name::parse("a-1").unwrap(),
        stays: Arc::default(),
        leads: epoch,
        frozen: false,
    };
    let declared = Arc::new(Mutex::new(vec![1]));
    let asked = declared.clone();
    let is_declared: Arc<IsDeclared> = Arc::new(move |key, _| {
        let OrderKey::Backend(key) = key else { return true };
        asked.lock().unwrap().contains(&key.address.port())
    });
    let terms = |gone| Terms {
        every: Duration::from_millis(20),
        gone,
        ..Terms::default()
    };
    let (former, former_post) = watch::channel(post(Some(epoch.0 - 1)));
    let (idle, idle_post) = watch::channel(post(None));
    let now = Duration::ZERO;
    let run = |post, gone| {
        let work = collect::run(
            space.clone(),
            When::Leading(post),
            is_declared.clone(),
            terms(gone),
        );
        tokio::spawn(work)
    };
    let none = [run(former_post, now), run(idle_post, now)];
    let (leader, leader_post) = watch::channel(post(Some(epoch.0)));
    let long = run(leader_post.clone(), Duration::from_secs(3600));
    // Rounds pass in which the only one that would may not.
    tokio::time::timeout(Duration::from_millis(200), until(&space, "", &[1]))
        .await
        .unwrap_err();
    until(&space, "none is deleted yet", &[1, 2, 3]).await;
    declared.lock().unwrap().push(3);
    let short = run(leader_post, Duration::from_millis(50));
    until(&space, "the one about nobody is deleted", &[1, 3]).await;
    let record = space
        .store()
        .get(&space.key(&OrderKey::Backend(key(2)).path()))
        .await
        .unwrap();
    assert!(record.is_some(), "it says that it was ended");
    drop((former, idle, leader));
    for task in none.into_iter().chain([long, short]) {
        tokio::time::timeout(peers::PATIENCE, task)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Scenario: a node starts again on a store that has its identity, another one, or none yet, after a short time and a
/// long one. What the store lacks is lost after a short one, whatever it is; and where it is too young to have forgotten
/// an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_tells_what_was_lost_from_what_was_ended() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = since.as_millis() as u64;
    let (old, young) = (Some("b-1000".to_owned()), Some(format!("b-{now}")));
    for (stands, known, minutes_away, another, lost) in [
        (&None, &old, 1, true, true),
        (&old, &old, 1, false, true),
        (&old, &old, 60, false, false),
        (&old, &young, 60, true, false),
        (&young, &old, 60, true, true),
        (&None, &old, 60, true, true),
    ] {
        let key = space.key("identity");
        let transaction = match stands {
            Some(identity) => Transaction::new().put(key, identity.clone()),
            None => Transaction::new().delete(key),
        };
        space.store().commit(transaction).await.unwrap();
        let place = Place {
            identity: known.clone(),
            revision: 0,
            heard: Timestamp(now - minutes_away * 60_000),
        };
        let (seen_out, mut seen) = mpsc::channel(16);
        let followed = tokio::spawn(orders::follow(space.clone(), None, Some(place), seen_out));
        let (Seen::All(_, _, silence), place) = seen.recv().await.unwrap() else {
            panic!("first of all comes all");
        };
        assert_eq!(
            silence,
            Silence { another, lost },
            "{stands:?} after {known:?}, {minutes_away} min"
        );
        let place = place.unwrap();
        assert_eq!(place.identity, *stands);
        assert!(place.heard >= Timestamp(now));
        followed.abort();
    }
}

/// Scenario: under a standing watch an order is deleted by hand, then one with the identity, as everything is; then one
/// more, before there is an identity again, and one after: a store without identity has been emptied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_emptied_under_a_watch_is_noticed() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let identity = space.key("identity");
    let commit = async |transaction| match space.store().commit(transaction).await.unwrap() {
        Committed::Done(revision) => revision.0,
        Committed::Conflict => panic!("it compares nothing"),
    };
    commit(Transaction::new().put(&identity, "a-1")).await;
    for port in [1, 2, 3, 4] {
        let wish = wish(port, OrderAction::Weight(7), "bob");
        orders::give(&space, &wish, true).await.unwrap();
    }
    let (seen_out, mut seen) = mpsc::channel(16);
    let known = Some(Place::default());
    let followed = tokio::spawn(orders::follow(space.clone(), None, known, seen_out));
    let (found, place) = seen.recv().await.unwrap();
    assert!(matches!(found, Seen::All(_, all, Silence::END) if all.len() == 4));
    assert_eq!(place.unwrap().identity.as_deref(), Some("a-1"));
    let of = |port| OrderKey::Backend(key(port));
    let delete = |port| Transaction::new().delete(space.key(&of(port).path()));
    let gone = |revision, port| Seen::Some(revision, vec![(of(port), None)]);
    let all_lost = |revision| Seen::All(revision, Vec::new(), Silence::LOSS);
    let revision = commit(delete(1)).await;
    assert_eq!(seen.recv().await.unwrap().0, gone(revision, 1));
    for transaction in [delete(2).delete(&identity), delete(3)] {
        let revision = commit(transaction).await;
        let (found, place) = seen.recv().await.unwrap();
        assert_eq!(found, all_lost(revision));
        let place = place.unwrap();
        assert_eq!((place.identity, place.revision), (None, revision));
    }
    commit(Transaction::new().put(&identity, "b-2")).await;
    let revision = commit(delete(4)).await;
    assert_eq!(seen.recv().await.unwrap().0, gone(revision, 4));
    followed.abort();
}

/// Scenario: an order is ended where nothing stands, neither in the store nor here; and where the store has lost what
/// stands here: only then there is somebody to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_noted_where_something_may_have_stood() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let ready = wish(1, OrderAction::Mode(Mode::Ready), "alice");
    for (stands, records) in [(false, 0), (true, 1)] {
        let given = orders::give(&space, &ready, stands).await.unwrap();
        assert_eq!(given.order, None);
        let listing = space.store().list(&space.key("orders/")).await.unwrap();
        assert_eq!(listing.entries.len(), records);
    }
}

/// Scenario: etcd has no room left. An order is refused, and one that stands can be ended all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_can_be_ended_in_a_store_that_is_full() {
    let arguments = ["--quota-backend-bytes=4000000".to_owned()];
    let etcd = tokio::task::block_in_place(|| Etcd::start_with(1, &arguments));
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    let space = Space::new(store, "/test/");
    let drain = wish(1, OrderAction::Mode(Mode::Drain), "alice");
    orders::give(&space, &drain, false).await.unwrap();
    let large = || Transaction::new().put("/large", vec![b'v'; 500_000]);
    let mut puts = 0;
    let full = |error: StoreError| error.kind() == ErrorKind::Full;
    while !space.store().commit(large()).await.is_err_and(full) {
        puts += 1;
        assert!(puts < 100, "the quota does not get full");
    }
    let refused = orders::give(&space, &drain, true).await;
    assert!(
        matches!(refused, Err(orders::GiveError::Failed(_))),
        "{refused:?}"
    );
    let ready = wish(1, OrderAction::Mode(Mode::Ready), "bob");
    assert_eq!(orders::give(&space, &ready, true).await.unwrap().order, None);
    assert!(standing(&space).await.backends.is_empty());
    tokio::task::block_in_place(|| drop(etcd));
}

/// Scenario: nobody leads. Records of ends are deleted when their time has come, and what nobody declares stays; while
/// somebody leads, this node deletes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_leads_any_node_deletes_what_is_over() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    for wish in [
        wish(1, OrderAction::Mode(Mode::Ready), "alice"),
        wish(2, OrderAction::Weight(7), "bob"),
    ] {
        orders::give(&space, &wish, true).await.unwrap();
    }
    let leader = space.key("leader");
    let commit = async |transaction| space.store().commit(transaction).await.unwrap();
    commit(Transaction::new().put(&leader, "{}")).await;
    let terms = Terms {
        every: Duration::from_millis(20),
        lapsed: Duration::ZERO,
        gone: Duration::ZERO,
    };
    let declared: Arc<IsDeclared> = Arc::new(|_, _| false);
    let run = collect::run(space.clone(), When::NobodyLeads, declared, terms);
    let run = tokio::spawn(run);
    let keys = async || {
        let listing = space.store().list(&space.key("orders/")).await.unwrap();
        listing.entries.len()
    };
    // Rounds pass.
    tokio::time::timeout(Duration::from_millis(200), until(&space, "", &[]))
        .await
        .unwrap_err();
    assert_eq!(keys().await, 2);
    commit(Transaction::new().delete(&leader)).await;
    let work = async {
        while keys().await != 1 {
            // condition poll
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(peers::PATIENCE, work).await.unwrap();
    until(&space, "the order stays", &[2]).await;
    run.abort();
}

/// Scenario: a store that lost its orders has one again that somebody else wrote, and one that was ended in it. Of those
/// that are in force here, what is absent is written, and nothing else; not what is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_absent_is_written_again_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    let by_others = wish(1, OrderAction::Weight(7), "bob");
    let ended = wish(2, OrderAction::Mode(Mode::Ready), "carol");
    for wish in [by_others, ended] {
        orders::give(&space, &wish, true).await.unwrap();
    }
    let lost = |port, expires| {
        let order = Override {
            mode: Mode::Drain,
            weight: None,
            by: "alice".into(),
            since: Timestamp(1),
            expires,
        };
        (OrderKey::Backend(key(port)), InForce::Backend(order))
    };
    let all = vec![
        lost(1, None),
        lost(2, None),
        lost(3, None),
        lost(4, Some(Timestamp(2))),
    ];
    let restored = orders::restore(&space, all).await;
    assert!(restored.trouble.is_none());
    assert_eq!((restored.written, restored.there.len()), (1, 4));
    let standing = standing(&space).await.backends;
    let by: Vec<_> = standing
        .iter()
        .map(|(key, order)| (key.address.port(), order.by.as_str()))
        .collect();
    assert_eq!(by, [(1, "bob"), (3, "alice")]);
}

/// Orders of before are brought into the store once, and never over what stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_before_are_taken_over_where_nothing_stands() {
    let folder = TempDir::new().unwrap();
    let space = space(&folder);
    orders::give(&space, &wish(1, OrderAction::Weight(7), "bob"), true)
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
    let followed = tokio::spawn(orders::follow(space.clone(), Some(import), None, seen_out));
    let (Seen::All(_, all, _), _) = seen.recv().await.unwrap() else {
        panic!("first of all comes all");
    };
    assert_eq!(all.len(), 2);
    assert!(done.load(Relaxed));
    let overrides = standing(&space).await;
    let by = |port| overrides.backends.get(&key(port)).unwrap().by.clone();
    assert_eq!((by(1).as_str(), by(2).as_str()), ("bob", "before"));
    followed.abort();
}
