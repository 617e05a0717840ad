//! Checks that several want, checks that go on from elsewhere, and checks that may not be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::{Backend, Runner, Script, http, often, once, target};
use evenkeel_orchestrator::{Gate, Target};
use model::config::{CheckKind, HealthCheck, Name};
use model::state::Health::{Down, Up};
use model::state::Standing;

fn of_lb(lb: &str, backend: &Backend, check: HealthCheck) -> Target {
    let mut target = target(backend.address, check);
    target.backend.load_balancer = Name::parse(lb).unwrap();
    target
}

/// Three load balancers want the same check of the same backend: it is asked once, and all three hear of it. One
/// that comes later hears what is known, without a further probe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_several_want_is_made_once() {
    let backend = Backend::start(Script::status(200)).await;
    let of = |lb| of_lb(lb, &backend, once(CheckKind::Http(http())));
    let mut runner = Runner::start(vec![of("a"), of("b"), of("c")]);
    let mut told = Vec::new();
    for _ in 0..3 {
        let verdict = runner.next().await;
        assert_eq!(verdict.health, Up);
        told.push(verdict.backend.load_balancer.to_string());
    }
    assert_eq!(told, ["a", "b", "c"]);
    runner.targets.send(vec![of("b"), of("d")]).unwrap();
    let verdict = runner.next().await;
    assert_eq!((verdict.backend, verdict.health), (of("d").backend, Up));
    assert_eq!(backend.count(), 1);
}

/// A check that goes on from a verdict: one result that agrees changes nothing, and it takes `fall` of them to
/// overturn it, as if it had always been made here. Another life begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_goes_on_from_the_verdict_that_stands() {
    let backend = Backend::start(Script::status(503)).await;
    let mut going_on = target(backend.address, often(CheckKind::Http(http())));
    going_on.standing = Some(Standing {
        health: Up,
        reason: "status 200".into(),
    });
    let mut runner = Runner::start(vec![going_on.clone()]);
    assert_eq!(runner.next().await.health, Down);
    assert!(backend.count() >= 3, "fall = 3 failures were needed");
    going_on.life.run += 1;
    going_on.standing = None;
    let before = backend.count();
    runner.targets.send(vec![going_on]).unwrap();
    assert_eq!(
        runner.next().await.health,
        Down,
        "nothing was known, so it is told"
    );
    assert!(backend.count() > before);
}

/// Closed, nothing is asked; opened, it is. Closed again while a probe waits for its answer, that probe is ended and
/// what it would have found is not told; opened again, the check goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_lets_nothing_through() {
    let (held, free) = (
        Backend::start(Script::silence()).await,
        Backend::start(Script::status(200)).await,
    );
    let open = Arc::new(AtomicBool::new(false));
    let (asked, address) = (open.clone(), held.address);
    let gate = Gate::new(move |of| of != address || asked.load(Relaxed));
    let check = || often(CheckKind::Http(http()));
    let patient = HealthCheck {
        timeout: once(CheckKind::Tcp).timeout,
        ..check()
    };
    let targets = vec![target(held.address, patient), target(free.address, check())];
    let mut runner = Runner::behind(gate.clone(), targets);
    assert_eq!(runner.next().await.backend.address, free.address);
    free.until("others are checked", |seen| seen.requests.len() > 20)
        .await;
    assert_eq!(held.count(), 0, "nothing came through");
    open.store(true, Relaxed);
    held.until("the probe has asked", |seen| seen.requests.len() == 1)
        .await;
    gate.cut();
    assert_eq!(held.seen.lock().unwrap().left, 0, "what may be made is not cut");
    open.store(false, Relaxed);
    gate.cut();
    held.until("the probe has gone", |seen| seen.left == 1).await;
    held.now_does(Script::status(200));
    open.store(true, Relaxed);
    let verdict = runner.next().await;
    assert_eq!((verdict.backend.address, verdict.health), (held.address, Up));
}
