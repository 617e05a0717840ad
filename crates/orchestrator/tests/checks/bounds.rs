//! What is bounded: probes that run at once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Backend, Runner, Script, http, once, target};
use evenkeel_orchestrator::PROBES_AT_ONCE;
use model::config::{CheckKind, Name};
use tokio::sync::watch;

/// Far more targets are due than may run: the bound runs, and as probes end all the others have their turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_beyond_the_bound_wait_their_turn() {
    let many = PROBES_AT_ONCE + 100;
    let (gate, opens) = watch::channel(false);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let backend = Backend::start(Script::Gate(opens, answer)).await;
    let mut runner = Runner::start(Vec::new());
    for n in 0..many as u64 {
        let mut check = once(CheckKind::Http(http()));
        // Short enough for every first check to be due at once, and no two equal, which would be one.
        check.interval = Duration::from_millis(1);
        check.fast_interval = Duration::from_millis(1);
        check.timeout += Duration::from_millis(n);
        let mut target = target(backend.address, check);
        target.backend.pool = Name::parse(&format!("pool-{n}")).unwrap();
        runner.targets.send_modify(|targets| targets.push(target));
    }
    backend
        .until("the bound is reached", |seen| {
            seen.requests.len() >= PROBES_AT_ONCE
        })
        .await;
    gate.send(true).unwrap();
    let mut told = BTreeSet::new();
    while told.len() < many {
        told.insert(runner.next().await.backend);
    }
    assert_eq!(backend.seen.lock().unwrap().most_busy, PROBES_AT_ONCE);
}
