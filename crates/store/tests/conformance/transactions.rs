//! Comparisons, writes, lists.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_store::bounds::{
    MAX_KEY_BYTES, MAX_LEASE_SECONDS, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES,
};
use evenkeel_store::{Committed, ErrorKind, Fault, Happened, Revision, Store, StoreError, Transaction};

both_engines!(
    a_key_is_guarded_by_its_revisions,
    a_transaction_is_made_whole_or_not_at_all,
    writers_at_once_lose_no_update,
    a_list_is_in_order_and_tells_its_revision,
    a_long_list_is_of_one_moment,
    what_changes_nothing_makes_no_revision,
    the_largest_transaction_fits,
    what_is_out_of_bounds_is_refused,
);

/// Commits what must succeed.
pub(crate) async fn done(store: &Store, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Committed::Done(revision) => revision,
        Committed::Conflict => panic!("a conflict"),
    }
}

pub(crate) async fn put(store: &Store, key: &str, value: &str) -> Revision {
    done(store, Transaction::new().put(key, value.to_owned())).await
}

async fn conflicts(store: &Store, transaction: Transaction) {
    assert_eq!(store.commit(transaction).await.unwrap(), Committed::Conflict);
}

/// Who made a key, who changed it last, and that it was not there: each can be a condition, and is judged at the
/// moment of the write.
async fn a_key_is_guarded_by_its_revisions(store: Store) {
    let new = || Transaction::new().put("/t/a", "x");
    assert_eq!(store.get("/t/a").await.unwrap(), None);
    conflicts(&store, new().unchanged("/t/a", Revision(1))).await;
    let made = done(&store, new().absent("/t/a")).await;
    conflicts(&store, new().absent("/t/a")).await;

    let changed = done(&store, new().unchanged("/t/a", made)).await;
    assert!(changed > made);
    conflicts(&store, new().unchanged("/t/a", made)).await;
    done(&store, Transaction::new().created("/t/a", made).put("/t/b", "y")).await;
    let entry = store.get("/t/a").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.changed), (made, changed));
    assert_eq!(
        (entry.key.as_str(), &entry.value[..], entry.lease),
        ("/t/a", &b"x"[..], None)
    );

    done(&store, Transaction::new().delete("/t/a")).await;
    conflicts(&store, new().created("/t/a", made)).await;
    let again = done(&store, new().absent("/t/a")).await;
    let entry = store.get("/t/a").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.changed), (again, again));
}

/// All writes of a transaction have one revision; one comparison that does not hold keeps them all back.
async fn a_transaction_is_made_whole_or_not_at_all(store: Store) {
    let first = done(
        &store,
        Transaction::new()
            .put("/t/a", "1")
            .put("/t/b", "1")
            .put("/t/c", "1"),
    )
    .await;
    for key in ["/t/a", "/t/b", "/t/c"] {
        assert_eq!(store.get(key).await.unwrap().unwrap().changed, first);
    }
    let mixed = Transaction::new()
        .unchanged("/t/a", first)
        .absent("/t/b")
        .put("/t/a", "2")
        .delete("/t/c");
    conflicts(&store, mixed).await;
    assert_eq!(store.revision("/t/a").await.unwrap(), first);

    let second = done(
        &store,
        Transaction::new()
            .unchanged("/t/a", first)
            .put("/t/a", "2")
            .delete("/t/c"),
    )
    .await;
    assert_eq!(second, first.next());
    let listing = store.list("/t/").await.unwrap();
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value[..]))
        .collect();
    assert_eq!(found, [("/t/a", &b"2"[..]), ("/t/b", &b"1"[..])]);
}

/// Eight writers add to two counters, each by reading, adding and writing under the condition that nobody else did.
async fn writers_at_once_lose_no_update(store: Store) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    while !add(&store).await {}
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for key in ["/count/a", "/count/b"] {
        let entry = store.get(key).await.unwrap().unwrap();
        assert_eq!(entry.value, (WRITERS * EACH).to_string());
    }
}

/// Adds one to both counters, unless another did so in between.
async fn add(store: &Store) -> bool {
    let mut transaction = Transaction::new();
    for key in ["/count/a", "/count/b"] {
        let entry = store.get(key).await.unwrap();
        let count: u64 = entry
            .as_ref()
            .map_or(0, |e| String::from_utf8_lossy(&e.value).parse().unwrap());
        transaction = match entry {
            None => transaction.absent(key),
            Some(entry) => transaction.unchanged(key, entry.changed),
        };
        transaction = transaction.put(key, (count + 1).to_string());
    }
    store.commit(transaction).await.unwrap() != Committed::Conflict
}

/// A prefix is a prefix of bytes: what merely sorts beside it is not under it.
async fn a_list_is_in_order_and_tells_its_revision(store: Store) {
    let empty = store.list("/l/").await.unwrap();
    assert!(empty.entries.is_empty());
    for key in ["/l/b", "/l0", "/l/", "/l/é", "/l", "/l/a/x", "/k/z", "/l/ÿÿ"] {
        put(&store, key, "v").await;
    }
    let last = put(&store, "/elsewhere", "v").await;
    let listing = store.list("/l/").await.unwrap();
    assert_eq!(listing.revision, last);
    let keys: Vec<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/l/", "/l/a/x", "/l/b", "/l/é", "/l/ÿÿ"]);
    assert_eq!(store.list("/l/ÿ").await.unwrap().entries.len(), 1);
}

/// A list of several pages shows one moment, though somebody writes meanwhile. The writer keeps all keys alike, in
/// transactions of their own: a list that mixes two moments has two values.
async fn a_long_list_is_of_one_moment(store: Store) {
    const KEYS: usize = 120;
    const FOLDERS: usize = 3;
    let everything = |value: usize| {
        let folders = 0..FOLDERS;
        folders.map(move |folder| {
            (0..KEYS).fold(Transaction::new(), |all, n| {
                all.put(format!("/m/{folder}/{n:03}"), value.to_string())
            })
        })
    };
    for transaction in everything(0) {
        done(&store, transaction).await;
    }
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for value in 1..20 {
                for transaction in everything(value) {
                    done(&store, transaction).await;
                }
            }
        })
    };
    loop {
        let listing = store.list("/m/").await.unwrap();
        assert_eq!(listing.entries.len(), KEYS * FOLDERS);
        let newest = listing.entries.iter().map(|entry| entry.changed).max().unwrap();
        assert_eq!(newest, listing.revision);
        for folder in listing.entries.chunks(KEYS) {
            assert!(folder.iter().all(|entry| entry.changed == folder[0].changed));
        }
        if writer.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

/// Nothing to write, or a deletion of what is not there: it succeeds, and the revision stays.
async fn what_changes_nothing_makes_no_revision(store: Store) {
    let last = put(&store, "/t/a", "1").await;
    assert_eq!(done(&store, Transaction::new()).await, last);
    assert_eq!(
        done(&store, Transaction::new().unchanged("/t/a", last)).await,
        last
    );
    assert_eq!(done(&store, Transaction::new().delete("/t/none")).await, last);
    assert_eq!(store.revision("/t/").await.unwrap(), last);
    assert_eq!(put(&store, "/t/a", "1").await, last.next());
}

/// What our own bounds allow, etcd takes as it is set when nobody sets it.
async fn the_largest_transaction_fits(store: Store) {
    let key = |n: usize| format!("/big/{n:0>width$}", width = MAX_KEY_BYTES - 5);
    let value = vec![b'v'; MAX_TRANSACTION_BYTES / MAX_OPERATIONS - MAX_KEY_BYTES - MAX_KEY_BYTES];
    let many = (0..MAX_OPERATIONS).fold(Transaction::new(), |all, n| {
        all.absent(key(n)).put(key(n), Bytes::from(value.clone()))
    });
    done(&store, many).await;
    assert_eq!(store.list("/big/").await.unwrap().entries.len(), MAX_OPERATIONS);
    let huge: Bytes = (0..MAX_VALUE_BYTES)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    done(&store, Transaction::new().put("/huge", huge.clone())).await;
    assert_eq!(store.get("/huge").await.unwrap().unwrap().value, huge);
    assert_eq!(store.list("/huge").await.unwrap().entries[0].value, huge);
}

async fn what_is_out_of_bounds_is_refused(store: Store) {
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    let half = || vec![0_u8; MAX_TRANSACTION_BYTES / 2 + 1];
    let many = (0..=MAX_OPERATIONS).fold(Transaction::new(), |all, n| all.put(format!("/k{n}"), ""));
    let conditions = (0..=MAX_OPERATIONS).fold(Transaction::new(), |all, n| all.absent(format!("/k{n}")));
    let wrong = [
        (Transaction::new().put("", "v"), ErrorKind::Invalid),
        (Transaction::new().put("a\0b", "v"), ErrorKind::Invalid),
        (Transaction::new().absent(""), ErrorKind::Invalid),
        (Transaction::new().put("/a", "1").delete("/a"), ErrorKind::Invalid),
        (Transaction::new().put(long.clone(), "v"), ErrorKind::TooMuch),
        (
            Transaction::new().put("/a", vec![0; MAX_VALUE_BYTES + 1]),
            ErrorKind::TooMuch,
        ),
        (
            Transaction::new().put("/a", half()).put("/b", half()),
            ErrorKind::TooMuch,
        ),
        (many, ErrorKind::TooMuch),
        (conditions, ErrorKind::TooMuch),
    ];
    let before = store.revision("/").await.unwrap();
    for (transaction, kind) in wrong {
        refused(&store.commit(transaction).await.unwrap_err(), kind);
    }
    refused(&store.get(&long).await.unwrap_err(), ErrorKind::TooMuch);
    refused(&store.list("").await.unwrap_err(), ErrorKind::Invalid);
    refused(
        &store.watch("", Revision(1)).await.unwrap_err(),
        ErrorKind::Invalid,
    );
    refused(&store.grant(0).await.unwrap_err(), ErrorKind::Invalid);
    refused(
        &store.grant(MAX_LEASE_SECONDS + 1).await.unwrap_err(),
        ErrorKind::Invalid,
    );
    refused(
        &store.compact(Revision(1_000_000)).await.unwrap_err(),
        ErrorKind::Invalid,
    );
    assert_eq!(store.revision("/").await.unwrap(), before);
    let status = tokio::time::timeout(Duration::from_secs(60), store.status())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((status.revision, status.trouble), (before, Vec::new()));
}

fn refused(error: &StoreError, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!((error.happened(), error.fault()), (Happened::No, Fault::Caller));
    assert!(!error.retry_helps());
}
