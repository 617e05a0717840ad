//! Watches and followers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_store::{Changes, ErrorKind, Event, Follow, Followed, Happened, Revision, Store, Transaction};
use tokio::time::timeout;

use crate::engines::PATIENCE;
use crate::transactions::{done, put};

both_engines!(
    a_watch_tells_each_revision_whole_and_in_order,
    a_watch_begins_where_it_is_told_to,
    a_watch_of_what_is_forgotten_says_so,
    a_watch_that_waits_may_be_dropped,
    many_watches_see_the_same,
    large_changes_come_whole,
    a_follower_of_a_store_that_was_just_opened_lists_once,
    a_follower_gets_the_whole_then_what_changes,
    a_slow_follower_ends_at_the_same_state,
);

/// The next changes, which must come.
async fn next(watch: &mut evenkeel_store::Watch) -> Changes {
    timeout(PATIENCE, watch.next()).await.expect("changes").unwrap()
}

/// What changed, as `+key=value` and `-key`.
fn told(changes: &Changes) -> Vec<String> {
    let events = changes.events.iter().map(|event| match event {
        Event::Put(entry) => format!("+{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Event::Deleted { key } => format!("-{key}"),
    });
    events.collect()
}

/// Revisions that touch nothing under the prefix are passed over; of those that do, only what is under it is told.
async fn a_watch_tells_each_revision_whole_and_in_order(store: Store) {
    let start = put(&store, "/w/old", "0").await;
    let mut watch = store.watch("/w/", start.next()).await.unwrap();
    let first = done(
        &store,
        Transaction::new()
            .put("/w/a", "1")
            .put("/v/x", "1")
            .put("/w/b", "1"),
    )
    .await;
    put(&store, "/v/x", "2").await;
    let second = done(
        &store,
        Transaction::new()
            .delete("/w/a")
            .put("/w/b", "2")
            .delete("/w/none"),
    )
    .await;
    let third = put(&store, "/w/a", "3").await;

    let changes = next(&mut watch).await;
    assert_eq!(
        (changes.revision, told(&changes)),
        (first, vec!["+/w/a=1".to_owned(), "+/w/b=1".to_owned()])
    );
    let changes = next(&mut watch).await;
    assert_eq!(
        (changes.revision, told(&changes)),
        (second, vec!["-/w/a".to_owned(), "+/w/b=2".to_owned()])
    );
    let changes = next(&mut watch).await;
    assert_eq!(
        (changes.revision, told(&changes)),
        (third, vec!["+/w/a=3".to_owned()])
    );
    let Event::Put(entry) = &changes.events[0] else {
        panic!()
    };
    assert_eq!((entry.created, entry.changed), (third, third));
}

/// From an earlier revision on, what happened since is told first; a watch that ended is gone on with so.
async fn a_watch_begins_where_it_is_told_to(store: Store) {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(put(&store, "/w/k", &n.to_string()).await);
    }
    for (n, from) in revisions.iter().enumerate() {
        let mut watch = store.watch("/w/", *from).await.unwrap();
        for (m, revision) in revisions.iter().enumerate().skip(n) {
            let changes = next(&mut watch).await;
            assert_eq!(
                (changes.revision, told(&changes)),
                (*revision, vec![format!("+/w/k={m}")])
            );
        }
    }
    // From a revision that is still to come.
    let far = Revision(revisions[9].0 + 2);
    let mut watch = store.watch("/w/", far).await.unwrap();
    put(&store, "/w/k", "too early").await;
    put(&store, "/w/k", "now").await;
    assert_eq!(told(&next(&mut watch).await), ["+/w/k=now"]);
}

async fn a_watch_of_what_is_forgotten_says_so(store: Store) {
    let first = put(&store, "/w/k", "1").await;
    put(&store, "/w/k", "2").await;
    let third = put(&store, "/w/k", "3").await;
    let mut before = store.watch("/w/", first).await.unwrap();
    assert_eq!(next(&mut before).await.revision, first);
    store.compact(third).await.unwrap();
    store.compact(third).await.unwrap();
    let error = match store.watch("/w/", first).await {
        Ok(mut watch) => timeout(PATIENCE, watch.next()).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(
        (error.kind(), error.happened()),
        (ErrorKind::Compacted, Happened::No),
        "{error}"
    );
    // What is there is there all the same, and so is what comes after.
    assert_eq!(store.get("/w/k").await.unwrap().unwrap().value, "3");
    let mut after = store.watch("/w/", third.next()).await.unwrap();
    let fourth = put(&store, "/w/k", "4").await;
    assert_eq!(next(&mut after).await.revision, fourth);
}

/// As in a `select!`: the call to `next` is dropped over and over while changes come.
async fn a_watch_that_waits_may_be_dropped(store: Store) {
    const CHANGES: u32 = 200;
    let start = store.revision("/w/").await.unwrap();
    let mut watch = store.watch("/w/", start.next()).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..CHANGES {
                put(&store, "/w/k", &n.to_string()).await;
            }
        })
    };
    let mut seen = 0;
    while seen < CHANGES {
        if let Ok(changes) = timeout(Duration::from_micros(200), watch.next()).await {
            assert_eq!(told(&changes.unwrap()), [format!("+/w/k={seen}")]);
            seen += 1;
        }
    }
    writer.await.unwrap();
}

async fn many_watches_see_the_same(store: Store) {
    let start = store.revision("/w/").await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(store.watch("/w/", start.next()).await.unwrap());
    }
    for n in 0..20 {
        put(&store, &format!("/w/{n}"), "v").await;
    }
    for watch in &mut watches {
        for n in 0..20 {
            assert_eq!(told(&next(watch).await), [format!("+/w/{n}=v")]);
        }
    }
}

/// Revisions of more than a megabyte, many of them unread: etcd sends such in parts.
async fn large_changes_come_whole(store: Store) {
    const PART: usize = 300 * 1024;
    let start = store.revision("/w/").await.unwrap();
    let mut watch = store.watch("/w/", start.next()).await.unwrap();
    let value = Bytes::from(vec![b'v'; PART]);
    for _ in 0..20 {
        let large = (0..4).fold(Transaction::new(), |all, n| {
            all.put(format!("/w/{n}"), value.clone())
        });
        done(&store, large).await;
    }
    for _ in 0..20 {
        let changes = next(&mut watch).await;
        let sizes: Vec<usize> = changes
            .events
            .iter()
            .map(|event| match event {
                Event::Put(entry) => entry.value.len(),
                Event::Deleted { .. } => 0,
            })
            .collect();
        assert_eq!(sizes, [PART; 4]);
    }
}

/// A consumer's picture of a prefix.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) entries: BTreeMap<String, Bytes>,
    pub(crate) revision: Revision,
    pub(crate) lists: u32,
    pub(crate) cut_off: bool,
    pub(crate) cuts: u32,
}

impl Picture {
    /// Takes in the next thing told.
    pub(crate) async fn look(&mut self, follow: &mut Follow) {
        let told = timeout(PATIENCE, follow.next())
            .await
            .expect("something to know")
            .unwrap();
        self.take(told);
    }

    fn take(&mut self, told: Followed) {
        match told {
            Followed::Listed(listing) | Followed::Another(listing) => {
                let entries = listing.entries.into_iter().map(|entry| (entry.key, entry.value));
                self.entries = entries.collect();
                self.revision = listing.revision;
                self.lists += 1;
            }
            Followed::Changed(changes) => {
                assert!(!self.cut_off && changes.revision > self.revision);
                for event in changes.events.iter() {
                    match event {
                        Event::Put(entry) => {
                            self.entries.insert(entry.key.clone(), entry.value.clone());
                        }
                        Event::Deleted { key } => {
                            self.entries.remove(key);
                        }
                    }
                }
                self.revision = changes.revision;
            }
            Followed::CutOff(error) => {
                assert!(!std::mem::replace(&mut self.cut_off, true), "told twice: {error}");
                self.cuts += 1;
            }
            Followed::Back => assert!(std::mem::take(&mut self.cut_off)),
        }
    }

    /// Looks on until the picture shows `key` as `value`.
    pub(crate) async fn until_shows(&mut self, follow: &mut Follow, key: &str, value: &str) {
        while self.entries.get(key).is_none_or(|found| found != value) {
            self.look(follow).await;
        }
    }
}

/// Nothing was written since the store was opened, so that nothing is kept of what was before the list.
async fn a_follower_of_a_store_that_was_just_opened_lists_once(store: Store) {
    let mut follow = store.follow("/f/").unwrap();
    let mut picture = Picture::default();
    picture.look(&mut follow).await;
    put(&store, "/f/a", "1").await;
    picture.until_shows(&mut follow, "/f/a", "1").await;
    assert_eq!((picture.lists, picture.cuts), (1, 0));
}

async fn a_follower_gets_the_whole_then_what_changes(store: Store) {
    put(&store, "/f/a", "1").await;
    put(&store, "/g/a", "1").await;
    let mut follow = store.follow("/f/").unwrap();
    let mut picture = Picture::default();
    picture.look(&mut follow).await;
    assert_eq!((picture.lists, picture.entries.len()), (1, 1));
    let last = done(&store, Transaction::new().delete("/f/a").put("/f/b", "2")).await;
    picture.look(&mut follow).await;
    let shown = BTreeMap::from([("/f/b".to_owned(), Bytes::from("2"))]);
    assert_eq!(
        (picture.revision, picture.lists, &picture.entries),
        (last, 1, &shown)
    );
    assert_eq!(picture.cuts, 0);
}

/// Much more happens than the follower's queue holds before it looks at all.
async fn a_slow_follower_ends_at_the_same_state(store: Store) {
    let mut follow = store.follow("/f/").unwrap();
    let mut picture = Picture::default();
    picture.look(&mut follow).await;
    for n in 0..300 {
        let key = format!("/f/{}", n % 7);
        let transaction = match n % 5 {
            0 => Transaction::new().delete(key),
            _ => Transaction::new().put(key, n.to_string()),
        };
        done(&store, transaction).await;
    }
    put(&store, "/f/end", "now").await;
    picture.until_shows(&mut follow, "/f/end", "now").await;
    let listing = store.list("/f/").await.unwrap();
    let entries: BTreeMap<String, Bytes> = listing
        .entries
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect();
    assert_eq!((picture.entries, picture.revision), (entries, listing.revision));
}
