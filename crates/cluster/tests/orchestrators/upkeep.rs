//! What the leader does for the whole store.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_cluster::member::Post;
use evenkeel_cluster::{Space, Store, upkeep};
use model::config::Name;
use peers::Etcd;
use reconcile::cluster::records::Key;
use store::{Committed, ErrorKind, EtcdSettings, Revision, Transaction};
use tokio::sync::watch;

use crate::backend::Backend;
use crate::node::{PREFIX, wanted};

const EVERY: Duration = Duration::from_millis(100);

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let work = async {
        while !condition().await {
            // condition poll
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(peers::PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// A verdict on a backend that nobody declares is deleted, another stays, and old history is forgotten. A process that
/// leads no more, and does not know it yet, deletes nothing.
#[test]
fn the_leader_tidies_the_store() {
    let etcd = Etcd::start(1);
    let (declared, gone) = (Backend::start(), Backend::start());
    let wanted = wanted(&["shop"], std::slice::from_ref(&declared));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
        let space = Space::new(store.clone(), PREFIX);
        let key = |backend: &Backend| space.key(&Key::Verdict(backend.id("shop")).path());
        let put = async |key: String| {
            let done = store.commit(Transaction::new().put(key, "{}")).await.unwrap();
            let Committed::Done(revision) = done else {
                panic!("it compares nothing");
            };
            revision
        };
        let epoch = put(space.key("leader")).await;
        put(key(&declared)).await;
        put(key(&gone)).await;
        let post = |epoch: Revision| Post {
            name: Name::parse("a-1").unwrap(),
            stays: Arc::default(),
            leads: Some(epoch.0),
            frozen: false,
        };
        let (post_out, post_in) = watch::channel(post(Revision(epoch.0 - 1)));
        let (_keep, wanted_in) = watch::channel(Some(wanted));
        let work = tokio::spawn(upkeep::run(space.clone(), post_in, wanted_in, EVERY));
        until("old history is forgotten", async || {
            put(space.key("other")).await;
            let mut watch = store.watch(&space.key(""), epoch).await.unwrap();
            matches!(watch.next().await, Err(error) if error.kind() == ErrorKind::Compacted)
        })
        .await;
        let there = async |backend| store.get(&key(backend)).await.unwrap().is_some();
        assert!(there(&gone).await, "who leads no more deletes nothing");
        post_out.send_replace(post(epoch));
        until("the verdict on nobody is deleted", async || !there(&gone).await).await;
        assert!(there(&declared).await);
        drop(post_out);
        tokio::time::timeout(peers::PATIENCE, work)
            .await
            .unwrap()
            .unwrap();
    });
}

/// Scenario: a cluster without orchestrators, so that nobody leads. Each of its nodes has old history forgotten. While
/// somebody leads they leave it alone: the leader knows best what is old. A key without a lease is no leader.
#[test]
fn without_a_leader_the_other_nodes_forget_old_history() {
    let etcd = Etcd::start(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
        let space = Space::new(store.clone(), PREFIX);
        let commit = async |transaction| match store.commit(transaction).await.unwrap() {
            Committed::Done(revision) => revision,
            Committed::Conflict => panic!("it compares nothing"),
        };
        let put = async |path: &str| commit(Transaction::new().put(space.key(path), "{}")).await;
        let forgotten = async |from: Revision| {
            put("other").await;
            let mut watch = store.watch(&space.key(""), from).await.unwrap();
            matches!(watch.next().await, Err(error) if error.kind() == ErrorKind::Compacted)
        };
        let lease = store.hold(60).await.unwrap();
        let leads = Transaction::new().put_leased(space.key("leader"), "{}", lease.lease());
        let first = commit(leads).await;
        let nodes =
            [space.clone(), space.clone()].map(|space| tokio::spawn(upkeep::run_for_nobody(space, EVERY)));
        for _ in 0..25 {
            assert!(!forgotten(first).await, "that is the leader's");
            tokio::time::sleep(Duration::from_millis(20)).await; // condition poll
        }
        // Somebody's hand leaves one behind that never goes.
        put("leader").await;
        until("old history is forgotten", async || forgotten(first).await).await;
        let later = put("other").await;
        until("and so is what came later", async || forgotten(later).await).await;
        nodes.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
