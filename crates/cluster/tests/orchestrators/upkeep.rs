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
        let (_keep, wanted_in) = watch::channel(wanted);
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
