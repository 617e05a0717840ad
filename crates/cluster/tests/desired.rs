//! The desired layer on both engines: many writers, one that dies in the middle, history, garbage, confirmation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use evenkeel_cluster::desired::{DesiredError, Ledger};
use evenkeel_cluster::{Space, Store};
use model::config::{Config, Name};
use model::desired::{Change, ChangeQuery, DesiredAnswer, DesiredQuery, Text};
use model::parse::parse_toml;
use model::plan::Format;
use model::state::Timestamp;
use peers::Etcd;
use reconcile::desired::commands::Refusal;
use reconcile::desired::records::keys;
use store::EtcdSettings;
use store::Transaction;

use common::{embedded, query, run};

const NOW: Timestamp = Timestamp(1_790_000_000_000);

macro_rules! both_engines {
    ($($scenario:ident),* $(,)?) => {
        mod with_embedded {
            $(#[test]
            fn $scenario() {
                crate::embedded(super::$scenario);
            })*
        }
        mod with_etcd {
            $(#[test]
            fn $scenario() {
                crate::etcd(super::$scenario);
            })*
        }
    };
}

both_engines!(
    what_is_applied_can_be_read_compared_deleted_and_brought_back,
    of_many_writers_at_once_no_update_is_lost,
    a_writer_that_dies_in_the_middle_leaves_nothing_half_made,
    garbage_goes_and_what_is_needed_stays,
    a_change_is_confirmed_or_taken_back_once,
    what_is_confirmed_is_not_taken_back,
    a_store_that_was_scribbled_over_is_not_taken_for_an_empty_one,
    where_the_history_begins_is_found_out_when_that_was_scribbled_over,
);

fn etcd<F: Future<Output = ()>>(scenario: impl FnOnce(Space) -> F) {
    let etcd = Etcd::start(1);
    run(async {
        let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
        scenario(Space::new(store, "/evenkeel/")).await;
    });
}

/// The file of a node with a load balancer of its own.
fn file() -> Config {
    let text = "[load_balancers.own]\nlisten = \"127.0.0.1:1000\"\nbackend_servers = [\"10.0.0.1:1\"]\n";
    parse_toml(text, "node.toml").unwrap()
}

/// Sets a load balancer that listens on a port and has a backend of that port.
fn set(name: &str, port: u16, backend: u16) -> ChangeQuery {
    let text = format!(
        "[load_balancers.{name}]\nlisten = \"127.0.0.1:{port}\"\nbackend_servers = [\"10.0.0.1:{backend}\"]\n"
    );
    query(Change::Apply(Text {
        text,
        format: Format::Toml,
        name: Some("lbs.toml".to_owned()),
    }))
}

fn remove(name: &str) -> ChangeQuery {
    query(Change::Delete(vec![Name::parse(name).unwrap()]))
}

async fn change(ledger: &Ledger, query: ChangeQuery) -> u64 {
    let done = ledger.change(&query, &file(), NOW).await.unwrap();
    done.change.unwrap().head.revision
}

/// The backends of the load balancers in force, by name.
async fn backends(ledger: &Ledger, revision: Option<u64>) -> Vec<(String, u16)> {
    let objects = match revision {
        Some(revision) => ledger.objects_at(revision).await.unwrap().1,
        None => ledger.current().await.unwrap().objects.clone(),
    };
    let each = objects.into_iter().map(|(name, object)| {
        let balancer = object.meaning.unwrap();
        let backend = balancer
            .pools
            .values()
            .flat_map(|pool| &pool.backends)
            .next()
            .unwrap();
        (name.to_string(), backend.address.port())
    });
    each.collect()
}

async fn what_is_applied_can_be_read_compared_deleted_and_brought_back(space: Space) {
    let ledger = Ledger::new(space.clone());
    assert_eq!(backends(&ledger, None).await, []);
    assert_eq!(change(&ledger, set("shop", 80, 1)).await, 1);
    assert_eq!(change(&ledger, set("blog", 81, 2)).await, 2);
    assert_eq!(change(&ledger, set("shop", 80, 3)).await, 3);
    // The same again makes no revision.
    let same = ledger.change(&set("shop", 80, 3), &file(), NOW).await.unwrap();
    assert!(same.change.is_none());
    assert_eq!(change(&ledger, remove("blog")).await, 4);
    // Another node, which knows nothing yet.
    let other = Ledger::new(space);
    assert_eq!(backends(&other, None).await, [("shop".to_owned(), 3)]);
    assert_eq!(
        backends(&other, Some(2)).await,
        [("blog".to_owned(), 2), ("shop".to_owned(), 1)]
    );
    assert_eq!(change(&other, query(Change::Rollback(2))).await, 5);
    assert_eq!(
        backends(&ledger, None).await,
        [("blog".to_owned(), 2), ("shop".to_owned(), 1)]
    );
    let history = ledger.history(3).await.unwrap();
    let told: Vec<(u64, &str)> = history.iter().map(|r| (r.revision, r.what.as_str())).collect();
    assert_eq!(told, [(5, "rollback to 2"), (4, "delete"), (3, "apply")]);
    let diff = ledger
        .answer(DesiredQuery::Diff { from: 1, to: Some(2) }, &file(), NOW)
        .await
        .unwrap();
    let DesiredAnswer::Diff(diff) = diff.answer else {
        panic!("{diff:?}")
    };
    assert!(diff.changes.iter().any(|line| line.contains("blog")), "{diff:?}");
    assert_eq!(diff.note.unwrap().author, "alice");
    refusals(&ledger).await;
}

async fn refusals(ledger: &Ledger) {
    let refused = async |query| ledger.change(&query, &file(), NOW).await.unwrap_err();
    let own = refused(set("own", 2000, 1)).await.to_string();
    assert!(own.contains("declared in this node's own file"), "{own}");
    // The address is that of the file's own.
    let DesiredError::Refused(Refusal::Invalid(errors)) = refused(set("new", 1000, 1)).await else {
        panic!("it is listened on twice")
    };
    assert!(
        errors[0].contains("127.0.0.1:1000 is listened on twice"),
        "{errors:?}"
    );
    let late = ChangeQuery {
        expect: Some(4),
        ..set("new", 90, 1)
    };
    let late = refused(late).await.to_string();
    assert!(
        late.contains("5 is in force, made by alice: rollback to 2"),
        "{late}"
    );
    let gone = refused(query(Change::Rollback(77))).await.to_string();
    assert_eq!(gone, "there is no revision 77: 1 to 5 are kept");
    assert!(matches!(refused(query(Change::Apply(Text {
        text: "[node]\nname = \"x\"\n[load_balancers.x]\nbackend_servers = 5\n".to_owned(),
        format: Format::Toml,
        name: None,
    }))).await, DesiredError::Text(errors) if errors.len() == 2));
    assert_eq!(ledger.current().await.unwrap().state.revision, 5);
}

/// Scenario: 8 writers, each with a load balancer of its own, count its backend up, and each tries again whenever it
/// lost a race. In the end each has its last count, and there are as many revisions as were told to be made.
async fn of_many_writers_at_once_no_update_is_lost(space: Space) {
    const WRITERS: u16 = 8;
    const CHANGES: u16 = 6;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let ledger = Ledger::new(space.clone());
        tasks.spawn(async move {
            let file = file();
            let mut lost = 0;
            let mut made = Vec::new();
            for count in 1..=CHANGES {
                loop {
                    let query = set(&format!("lb-{writer}"), 2000 + writer, count);
                    match ledger.change(&query, &file, NOW).await {
                        Ok(done) => {
                            made.push(done.change.unwrap().head.revision);
                            break;
                        }
                        Err(DesiredError::Refused(Refusal::Conflict { .. })) => lost += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            (made, lost)
        });
    }
    let results = tasks.join_all().await;
    let made: BTreeSet<u64> = results.iter().flat_map(|(made, _)| made).copied().collect();
    let all = u64::from(WRITERS * CHANGES);
    assert_eq!(made, (1..=all).collect());
    println!(
        "races lost: {}",
        results.iter().map(|(_, lost)| lost).sum::<u32>()
    );
    let ledger = Ledger::new(space);
    let expected: Vec<_> = (0..WRITERS).map(|w| (format!("lb-{w}"), CHANGES)).collect();
    assert_eq!(backends(&ledger, None).await, expected);
    assert_eq!(ledger.history(1000).await.unwrap().len() as u64, all);
}

/// Scenario: changes of twenty load balancers each are cut off at any moment. Whatever became of each, it is whole: all
/// twenty have the same backend.
async fn a_writer_that_dies_in_the_middle_leaves_nothing_half_made(space: Space) {
    let whole = |backend: u16| {
        let each = (0..20).map(|i| {
            format!(
                "[load_balancers.lb-{i:02}]\nlisten = \"127.0.0.1:{}\"\nbackend_servers = [\"10.0.0.1:{backend}\"]\n",
                3000 + i
            )
        });
        query(Change::Apply(Text {
            text: each.collect(),
            format: Format::Toml,
            name: None,
        }))
    };
    let file = Arc::new(file());
    let mut cut = 0;
    for round in 1..=40 {
        let ledger = Ledger::new(space.clone());
        let (query, file) = (whole(round), file.clone());
        let writer = tokio::spawn(async move { ledger.change(&query, &file, NOW).await });
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        writer.abort();
        cut += usize::from(writer.await.is_err());
        let after = backends(&Ledger::new(space.clone()), None).await;
        let distinct: BTreeSet<u16> = after.iter().map(|(_, backend)| *backend).collect();
        assert!(distinct.len() <= 1, "round {round}: {after:?}");
        assert!(after.is_empty() || after.len() == 20, "round {round}: {after:?}");
    }
    println!("cut off: {cut} of 40");
    assert!(cut > 0);
}

/// Scenario: 1200 changes; objects that were put and never referred to. The first block goes, with the objects of its
/// own; every revision that is kept can be read.
async fn garbage_goes_and_what_is_needed_stays(space: Space) {
    let ledger = Ledger::new(space.clone());
    let orphan = space.key("config/objects/ffffffffffffffffffffffffffffffffffffffff");
    space
        .store()
        .commit(Transaction::default().put(&orphan, "{}"))
        .await
        .unwrap();
    for revision in 1..=1200_u16 {
        change(&ledger, set("shop", 80, revision)).await;
    }
    let objects = async || {
        let listing = space.store().list(&space.key(keys::OBJECTS)).await.unwrap();
        listing.entries.len()
    };
    // The writer of revision 1153 began it; nothing changes any more, so this one finishes it.
    ledger.collect().await.unwrap();
    assert_eq!(space.store().get(&orphan).await.unwrap(), None);
    assert_eq!(objects().await, 1200 - 128);
    assert_eq!(
        ledger.collect().await.unwrap(),
        evenkeel_cluster::desired::Collected::default()
    );
    let other = Ledger::new(space.clone());
    for revision in [129, 130, 192, 193, 1000, 1199] {
        let expected = [("shop".to_owned(), u16::try_from(revision).unwrap())];
        assert_eq!(backends(&other, Some(revision)).await, expected);
    }
    let gone = other.objects_at(128).await.unwrap_err().to_string();
    assert_eq!(gone, "there is no revision 128: 129 to 1200 are kept");
    assert_eq!(other.history(2000).await.unwrap().len(), 1200 - 128);
    // The oldest is listed, so it can be asked for, though there is nothing to compare it with.
    let oldest = other.answer(DesiredQuery::Revision(129), &file(), NOW).await;
    let DesiredAnswer::Diff(oldest) = oldest.unwrap().answer else {
        panic!("it is a difference");
    };
    assert_eq!(
        oldest.changes,
        ["shop: set; what it was before is no longer kept"]
    );
    assert_eq!(oldest.note.unwrap().revision, 129);
    let gone = other.answer(DesiredQuery::Revision(128), &file(), NOW).await;
    let gone = gone.unwrap_err().detail;
    assert_eq!(gone, "there is no revision 128: 129 to 1200 are kept");
    assert_eq!(change(&other, query(Change::Rollback(129))).await, 1201);
    assert_eq!(backends(&ledger, None).await, [("shop".to_owned(), 129)]);
}

async fn a_change_is_confirmed_or_taken_back_once(space: Space) {
    let ledger = Ledger::new(space.clone());
    change(&ledger, set("shop", 80, 1)).await;
    let nothing = ledger.confirm(None).await.unwrap_err().to_string();
    assert_eq!(nothing, "nothing awaits confirmation: revision 1 holds");
    let try_it = |backend| ChangeQuery {
        confirm: Some("2m".to_owned()),
        ..set("shop", 80, backend)
    };
    change(&ledger, try_it(2)).await;
    assert_eq!(ledger.confirm(None).await.unwrap().revision, 2);
    assert!(ledger.confirm(None).await.is_err());
    change(&ledger, try_it(3)).await;
    let pending = ledger.current().await.unwrap().pending.clone().unwrap();
    assert_eq!(
        (pending.revision, pending.back_to, pending.until),
        (3, 2, Timestamp(NOW.0 + 120_000))
    );
    // Everybody notices at the same time, one of them does it.
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (ledger, pending) = (Ledger::new(space.clone()), pending.clone());
        all.spawn(async move {
            ledger
                .revert(&pending, "evenkeel", "not confirmed in time", NOW)
                .await
        });
    }
    let (done, over): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), over.len()), (1, 5), "{over:?}");
    assert_eq!(backends(&ledger, None).await, [("shop".to_owned(), 2)]);
    let last = ledger.history(1).await.unwrap().remove(0);
    assert_eq!(
        (last.revision, last.what.as_str(), last.message.as_str()),
        (4, "revert of 3", "not confirmed in time")
    );
}

/// Scenario: somebody confirms at the very moment at which the time is over. Whoever is told that he did it has done it,
/// and the other has not.
async fn what_is_confirmed_is_not_taken_back(space: Space) {
    let ledger = Ledger::new(space.clone());
    change(&ledger, set("shop", 80, 1)).await;
    let (mut confirmed, mut reverted) = (0, 0);
    let mut later = 0;
    for round in 2..42 {
        let try_it = ChangeQuery {
            confirm: Some("2m".to_owned()),
            ..set("shop", 80, round)
        };
        let before = backends(&ledger, None).await;
        change(&ledger, try_it).await;
        let after = backends(&ledger, None).await;
        let pending = ledger.current().await.unwrap().pending.clone().unwrap();
        let (one, two) = (Ledger::new(space.clone()), Ledger::new(space.clone()));
        let elsewhere = space.clone();
        let confirm = tokio::spawn(async move {
            for _ in 0..later {
                let write = Transaction::default().put(elsewhere.key("elsewhere"), "x");
                elsewhere.store().commit(write).await.unwrap();
            }
            one.confirm(None).await
        });
        let revert = tokio::spawn(async move { two.revert(&pending, "evenkeel", "late", NOW).await });
        let (confirm, revert) = (confirm.await.unwrap(), revert.await.unwrap());
        assert_eq!(confirm.is_ok(), revert.is_err(), "{confirm:?} {revert:?}");
        let now = backends(&ledger, None).await;
        assert_eq!(now, if confirm.is_ok() { after } else { before });
        confirmed += u32::from(confirm.is_ok());
        reverted += u32::from(revert.is_ok());
        // Who was the first begins later, or earlier again, the next time, until it is not.
        later = if confirm.is_ok() {
            (2 * later + 1).min(255)
        } else {
            later / 2
        };
    }
    println!("confirmed {confirmed}, reverted {reverted}");
    assert!(confirmed > 0 && reverted > 0);
}

/// Scenario: something stands where the head should be, a later version's or nonsense. Nobody is told that nothing is
/// declared, and nothing is applied on top of it.
async fn a_store_that_was_scribbled_over_is_not_taken_for_an_empty_one(space: Space) {
    let ledger = Ledger::new(space.clone());
    change(&ledger, set("shop", 80, 1)).await;
    let scribble = Transaction::default().put(space.key(keys::HEAD), r#"{"revision": "two"}"#);
    space.store().commit(scribble).await.unwrap();
    let told = |error: DesiredError| match error {
        DesiredError::Damaged(why) => assert!(why.contains("config/head"), "{why}"),
        other => panic!("{other}"),
    };
    told(ledger.current().await.unwrap_err());
    told(ledger.history(5).await.unwrap_err());
    told(ledger.objects_at(1).await.unwrap_err());
    let query = set("shop", 80, 2);
    told(ledger.change(&query, &file(), NOW).await.unwrap_err());
}

/// Scenario: something stands where it is said from when on the history is kept. It is read, and gone back to, all the
/// same; so a change on trial would be, too.
async fn where_the_history_begins_is_found_out_when_that_was_scribbled_over(space: Space) {
    let ledger = Ledger::new(space.clone());
    let first = change(&ledger, set("shop", 80, 1)).await;
    change(&ledger, set("shop", 80, 2)).await;
    let scribble = Transaction::default().put(space.key(keys::OLDEST), "x");
    space.store().commit(scribble).await.unwrap();
    assert_eq!(ledger.history(5).await.unwrap().len(), 2);
    change(&ledger, query(Change::Rollback(first))).await;
    assert_eq!(
        backends(&ledger, None).await,
        backends(&ledger, Some(first)).await
    );
}
