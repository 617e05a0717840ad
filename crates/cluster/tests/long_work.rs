//! A thousand load balancers at once are long work for a processor, and the connection to the store lives on the same
//! threads: whatever is to be done on those has its turn all the while.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_cluster::desired::Ledger;
use evenkeel_cluster::{Space, Store, Sync};
use model::config::Config;
use model::desired::{Change, ChangeQuery, DesiredAnswer, DesiredQuery, Text};
use model::parse::parse_toml;
use model::plan::Format;
use model::state::Timestamp;
use tokio::task::yield_now;

const NOW: Timestamp = Timestamp(1_790_000_000_000);
/// Load balancers.
const MANY: u16 = 1_000;
/// Turns that others must have had: a hundred times as many as there are waits for the store in what is looked at.
const TURNS: u64 = 2_000;

/// Scenario: on a runtime with one thread, a thousand load balancers are foreseen, applied, read by a ledger that knows
/// nothing yet, told, and taken by a node that starts; beside it runs a task that wants the thread again and again. The
/// store is in this process, so that nothing but the work itself takes time: done on that thread, it would leave no turn
/// in between.
#[tokio::test]
async fn others_have_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    let space = Space::new(store, "/evenkeel/");
    let turns = Arc::new(AtomicU64::new(0));
    let counted = turns.clone();
    let spinning = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    let ledger = Ledger::new(space.clone());
    let (mut query, file) = (many(), file());
    leaves_turns(&turns, "foreseen", async || {
        ledger.foresee(&query, &file, NOW).await.unwrap();
    })
    .await;
    query.dry_run = true;
    leaves_turns(&turns, "foreseen and told", async || {
        let asked = DesiredQuery::Change(query.clone());
        ledger.answer(asked, &file, NOW).await.unwrap();
    })
    .await;
    query.dry_run = false;
    ledger.change(&query, &file, NOW).await.unwrap();
    leaves_turns(&turns, "read and told", async || {
        let fresh = Ledger::new(space.clone());
        let answered = fresh.answer(DesiredQuery::State(None), &file, NOW).await;
        let answered = answered.unwrap().answer;
        let DesiredAnswer::State(state) = answered else {
            panic!("{answered:?}");
        };
        assert_eq!(state.load_balancers.len(), usize::from(MANY));
    })
    .await;
    leaves_turns(&turns, "taken", async || {
        let taken = Sync::new(space.clone(), None).first().await.unwrap();
        assert_eq!(taken.load_balancers.len(), usize::from(MANY));
    })
    .await;
    spinning.abort();
}

/// Work that leaves others their turns. Where the machine itself gives this thread none, however often it is done, it is
/// looked at again; done on this thread, it leaves none each time.
async fn leaves_turns(turns: &AtomicU64, what: &str, work: impl AsyncFn()) {
    let mut most = 0;
    for _ in 0..10 {
        turns.store(0, Ordering::Relaxed);
        work().await;
        most = most.max(turns.load(Ordering::Relaxed));
        if most > TURNS {
            return;
        }
    }
    panic!("{most} turns while they were {what}");
}

fn file() -> Config {
    parse_toml("[store]\n", "node.toml").unwrap()
}

/// Sets them all, each with ten backends.
fn many() -> ChangeQuery {
    let mut text = String::new();
    for number in 0..MANY {
        let backends: Vec<String> = (1..=10).map(|b| format!("\"10.0.0.{b}:80\"")).collect();
        let listen = format!("127.0.0.1:{}", 10_000 + number);
        let backends = backends.join(", ");
        write!(
            text,
            "[load_balancers.lb-{number}]\nlisten = \"{listen}\"\nbackend_servers = [{backends}]\n"
        )
        .unwrap();
    }
    ChangeQuery {
        change: Change::Apply(Text {
            text,
            format: Format::Toml,
            name: None,
        }),
        dry_run: false,
        expect: None,
        confirm: None,
        message: None,
        by: Some("eva".to_owned()),
    }
}
