//! The history of the desired layer has a bound in bytes, and a store that is full takes changes all the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use evenkeel_cluster::desired::{DesiredError, Ledger};
use evenkeel_cluster::{Space, Store};
use model::config::{Config, Name};
use model::desired::{Change, ChangeQuery, Text};
use model::parse::parse_toml;
use model::plan::Format;
use model::state::Timestamp;
use peers::Etcd;
use reconcile::desired::garbage::KEEP_BYTES;
use reconcile::desired::records::keys;
use store::bounds::MAX_EMBEDDED_BYTES;
use store::{EtcdSettings, Transaction};

use common::{embedded, query, run};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const MIB: usize = 1024 * 1024;
/// Bytes of a load balancer here.
const LARGE: usize = 900 * 1024;
/// Pages that it has them in.
const PAGES: usize = 15;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A load balancer with pages that are large, and others each time.
fn large(number: u64) -> ChangeQuery {
    all_large(&["shop"], number)
}

fn all_large(names: &[&str], number: u64) -> ChangeQuery {
    let page = format!("{number}{}", "x".repeat(LARGE / PAGES));
    let mut text = String::new();
    for (name, port) in names.iter().zip(1..) {
        text += &format!("[load_balancers.{name}]\nlisten = \"127.0.0.1:{port}\"\n");
        for of in 0..PAGES {
            text += &format!("[[load_balancers.{name}.routes]]\nmatch.path = \"/{of}\"\n");
            text += &format!("respond = {{ status = 200, body = \"{name}{page}\" }}\n");
        }
    }
    query(Change::Apply(Text {
        text,
        format: Format::Toml,
        name: None,
    }))
}

/// A node's file without load balancers.
fn file() -> Config {
    parse_toml("[store]\n", "node.toml").unwrap()
}

async fn change(ledger: &Ledger, query: ChangeQuery) -> u64 {
    let done = ledger.change(&query, &file(), NOW).await;
    done.unwrap().change.unwrap().head.revision
}

async fn bytes(space: &Space, path: &str) -> usize {
    let listing = space.store().list(&space.key(path)).await.unwrap();
    listing.entries.iter().map(|entry| entry.value.len()).sum()
}

/// Fills the store until only so much is left and a mebibyte at most, a mebibyte at a time.
async fn fill(space: &Space, path: &str, left: usize) {
    let room = MAX_EMBEDDED_BYTES - bytes(space, "").await - 64 * 1024;
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..room.saturating_sub(left) / MIB {
        // A name that a digest could have.
        let key = space.key(&format!("{path}{number:08x}{}", "0".repeat(32)));
        let (store, put) = (
            space.store().clone(),
            Transaction::default().put(key, vec![b'x'; MIB - 128]),
        );
        puts.spawn(async move { store.commit(put).await });
    }
    puts.join_all().await.into_iter().for_each(|put| _ = put.unwrap());
}

/// What is said to be kept can be read; the oldest and the newest revision.
async fn history(space: &Space) -> (u64, u64) {
    let ledger = Ledger::new(space.clone());
    let history = ledger.history(2000).await.unwrap();
    let (newest, oldest) = (history[0].revision, history[history.len() - 1].revision);
    for revision in [oldest, oldest + 1, u64::midpoint(oldest, newest), newest] {
        ledger.objects_at(revision.min(newest)).await.unwrap();
    }
    let gone = ledger.objects_at(oldest - 1).await;
    assert!(
        oldest == 1 || matches!(gone, Err(DesiredError::Refused(_))),
        "{oldest}: {gone:?}"
    );
    (oldest, newest)
}

/// Scenario: a load balancer of 900 KiB is changed 85 times. Its history has a bound of 64 MiB, so it is collected long
/// before there are a thousand revisions of it; what is kept can be read and brought back.
async fn a_history_has_a_bound_in_bytes(space: Space) {
    let ledger = Ledger::new(space.clone());
    for number in 1..=85 {
        change(&ledger, large(number)).await;
    }
    let started = Instant::now();
    while ledger.objects_at(1).await.is_ok() {
        assert!(started.elapsed() < LONG, "{}", bytes(&space, keys::OBJECTS).await);
        tokio::time::sleep(Duration::from_millis(50)).await; // condition poll
    }
    ledger.collect().await.unwrap();
    let bound = usize::try_from(KEEP_BYTES).unwrap() + 2 * MIB;
    assert!(bytes(&space, keys::OBJECTS).await < bound);
    let (oldest, newest) = history(&space).await;
    assert_eq!((oldest, newest), (13, 85));
    assert_eq!(change(&ledger, query(Change::Rollback(oldest))).await, 86);
    assert!(
        ledger
            .change(&query(Change::Rollback(12)), &file(), NOW)
            .await
            .is_err()
    );
}

#[test]
fn a_history_has_a_bound_in_bytes_with_etcd() {
    let etcd = Etcd::start(1);
    run(async {
        let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
        a_history_has_a_bound_in_bytes(Space::new(store, "/evenkeel/")).await;
    });
}

/// Scenario: an embedded store has room for ten more versions of a load balancer, and that was filled by large changes
/// which were never made. It is changed forty times: what they put makes room, then the oldest versions do. When there is
/// room for two, it is changed on trial and taken back, brought
/// back, and deleted. What is too large for all that can be left is refused, and what was before stays.
#[test]
fn a_full_store_takes_changes_all_the_same() {
    embedded(|space| async move {
        fill(&space, "elsewhere/", 10 * LARGE).await;
        fill(&space, keys::OBJECTS, 0).await;
        let ledger = Ledger::new(space.clone());
        let names = ["a", "b"];
        assert_eq!(change(&ledger, all_large(&names, 1)).await, 1);
        assert!(bytes(&space, keys::OBJECTS).await < 3 * MIB);
        let delete = names.map(|name| Name::parse(name).unwrap());
        change(&ledger, query(Change::Delete(delete.into()))).await;
        for number in 3..=40 {
            assert_eq!(change(&ledger, large(number)).await, number);
        }
        let (oldest, newest) = history(&space).await;
        assert!(
            (30..=40).contains(&oldest) && newest == 40,
            "{oldest} to {newest}"
        );
        fill(&space, "more/", 0).await;
        let on_trial = ChangeQuery {
            confirm: Some("2m".to_owned()),
            ..large(41)
        };
        assert_eq!(change(&ledger, on_trial).await, 41);
        let pending = ledger.current().await.unwrap().pending.clone().unwrap();
        fill(&space, "yet-more/", 0).await;
        ledger
            .revert(&pending, "evenkeel", "not confirmed", NOW)
            .await
            .unwrap();
        let objects = async |revision| ledger.objects_at(revision).await.unwrap().1;
        assert_eq!(objects(42).await, objects(40).await);
        assert_eq!(change(&ledger, query(Change::Rollback(41))).await, 43);
        let shop = Name::parse("shop").unwrap();
        assert_eq!(change(&ledger, query(Change::Delete(vec![shop]))).await, 44);
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let refused = ledger
            .change(&all_large(&names, 1), &file(), NOW)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("no room left"), "{refused}");
        assert_eq!(history(&space).await.1, 44);
        assert_eq!(change(&ledger, large(45)).await, 45);
    });
}
