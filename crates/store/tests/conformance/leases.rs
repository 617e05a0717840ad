//! Leases, long enough for a slow machine to keep. No scenario says how soon after its time one must end,
//! only that it does not before, and does.

use std::time::{Duration, Instant};

use evenkeel_store::{ErrorKind, Event, Happened, Standing, Store, Transaction};
use tokio::time::timeout;

use crate::engines::{PATIENCE, until};
use crate::transactions::{done, put};

both_engines!(
    what_is_tied_to_a_lease_vanishes_with_it,
    a_lease_that_is_held_stands,
    a_revoked_lease_is_gone_at_once,
    a_key_is_tied_to_the_lease_of_its_last_write,
    a_lease_tells_what_is_left_of_it,
);

/// Nobody keeps it: after its time, not before, its keys vanish, in one revision.
async fn what_is_tied_to_a_lease_vanishes_with_it(store: Store) {
    let granted = store.grant(10).await.unwrap();
    let leased = |key: &str| Transaction::new().put_leased(key, "v", granted.lease);
    done(&store, leased("/l/a")).await;
    let last = done(&store, leased("/l/b").put("/l/c", "v")).await;
    assert_eq!(
        store.get("/l/b").await.unwrap().unwrap().lease,
        Some(granted.lease)
    );

    let mut watch = store.watch("/l/", last.next()).await.unwrap();
    let changes = timeout(PATIENCE, watch.next())
        .await
        .expect("the end of the lease")
        .unwrap();
    assert!(granted.sent.elapsed() >= Duration::from_secs(granted.seconds.into()));
    let gone = ["/l/a", "/l/b"].map(|key| Event::Deleted { key: key.to_owned() });
    assert_eq!((changes.revision, &changes.events[..]), (last.next(), &gone[..]));
    assert_eq!(store.list("/l/").await.unwrap().entries.len(), 1);

    let error = store.keep_alive(granted.lease).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.happened()),
        (ErrorKind::LeaseGone, Happened::No)
    );
    let error = store.commit(leased("/l/a")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.happened()),
        (ErrorKind::LeaseGone, Happened::No)
    );
    assert_eq!(store.get("/l/a").await.unwrap(), None);
}

/// It outlives its time twice over, and ends when its holder lets go.
async fn a_lease_that_is_held_stands(store: Store) {
    let begun = Instant::now();
    let held = store.hold(8).await.unwrap();
    done(&store, Transaction::new().put_leased("/l/a", "v", held.lease())).await;
    let whole = Duration::from_secs(held.seconds().into());
    until("twice its time", async || {
        assert!(
            store.get("/l/a").await.unwrap().is_some(),
            "gone after {:?}",
            begun.elapsed()
        );
        let Standing::Since(sent) = *held.standing().borrow() else {
            panic!("gone")
        };
        assert!(sent <= Instant::now());
        (begun.elapsed() > whole * 2 && sent > begun + whole).then_some(())
    })
    .await;
    drop(held);
    until("the end of the lease", async || {
        match store.get("/l/a").await.unwrap() {
            None => Some(()),
            Some(_) => None,
        }
    })
    .await;
}

async fn a_revoked_lease_is_gone_at_once(store: Store) {
    let held = store.hold(3600).await.unwrap();
    let lease = held.lease();
    let last = done(
        &store,
        Transaction::new()
            .put_leased("/l/a", "v", lease)
            .put_leased("/l/b", "v", lease),
    )
    .await;
    store.revoke(lease).await.unwrap();
    assert!(store.list("/l/").await.unwrap().entries.is_empty());
    assert_eq!(store.revision("/l/").await.unwrap(), last.next());
    assert_eq!(store.lease_left(lease).await.unwrap(), None);
    assert_eq!(
        store.keep_alive(lease).await.unwrap_err().kind(),
        ErrorKind::LeaseGone
    );
    store.revoke(lease).await.unwrap();
    // A conflict comes before a lease that is gone.
    let both = Transaction::new()
        .unchanged("/l/a", last)
        .put_leased("/l/a", "v", lease);
    assert_eq!(
        store.commit(both).await.unwrap(),
        evenkeel_store::Committed::Conflict
    );
}

/// Written without a lease, or with another, a key is no longer the first one's.
async fn a_key_is_tied_to_the_lease_of_its_last_write(store: Store) {
    let first = store.grant(3600).await.unwrap().lease;
    let second = store.grant(3600).await.unwrap().lease;
    assert_ne!(first, second);
    for key in ["/l/free", "/l/moved", "/l/again", "/l/kept"] {
        done(&store, Transaction::new().put_leased(key, "v", first)).await;
    }
    put(&store, "/l/free", "w").await;
    done(&store, Transaction::new().put_leased("/l/moved", "w", second)).await;
    done(&store, Transaction::new().delete("/l/again")).await;
    put(&store, "/l/again", "w").await;
    store.revoke(first).await.unwrap();
    let listing = store.list("/l/").await.unwrap();
    let left: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.lease))
        .collect();
    assert_eq!(
        left,
        [("/l/again", None), ("/l/free", None), ("/l/moved", Some(second))]
    );
}

async fn a_lease_tells_what_is_left_of_it(store: Store) {
    let granted = store.grant(600).await.unwrap();
    assert_eq!(granted.seconds, 600);
    let left = store.lease_left(granted.lease).await.unwrap().unwrap();
    assert_eq!(left.seconds, 600);
    assert!(
        left.left <= Duration::from_secs(600) && left.left > Duration::from_secs(300),
        "{left:?}"
    );
    let before = Instant::now();
    let kept = store.keep_alive(granted.lease).await.unwrap();
    assert!(kept.sent >= before && kept.seconds == 600);
    assert_eq!(
        store.lease_left(evenkeel_store::LeaseId(12345)).await.unwrap(),
        None
    );
}
