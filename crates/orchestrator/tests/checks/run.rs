//! The life of a list of targets: verdicts over time, changes of the list, intervals.

use std::time::{Duration, Instant};

use crate::support::{Backend, PATIENCE, Runner, Script, http, often, once, target};
use model::config::{CheckKind, HealthCheck, Name};
use model::state::Health::{Down, Up};

/// Up; then 503 and, still down, a refused connection; then up again: each told once, with its reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_falls_and_rises_and_every_change_has_its_reason() {
    let backend = Backend::start(Script::status(200)).await;
    let mut runner = Runner::start(vec![target(backend.address, often(CheckKind::Http(http())))]);
    let mut told = async || {
        let verdict = runner.next().await;
        (verdict.health, verdict.reason)
    };
    assert_eq!(told().await, (Up, "status 200".into()));
    let before = backend.count();
    backend.now_does(Script::status(503));
    assert_eq!(told().await, (Down, "status 503".into()));
    assert!(backend.count() >= before + 3, "fall = 3 failures were needed");
    backend.now_does(Script::Close);
    assert_eq!(told().await, (Down, "closed before a response".into()));
    let before = backend.count();
    backend.now_does(Script::status(200));
    assert_eq!(told().await, (Up, "status 200".into()));
    assert!(backend.count() >= before + 2, "rise = 2 successes were needed");
}

/// A process that dies and comes back on the same port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backend_is_down_with_connection_refused() {
    let backend = Backend::start(Script::silence()).await;
    let mut runner = Runner::start(vec![target(backend.address, often(CheckKind::Tcp))]);
    assert_eq!(runner.next().await.reason, "connected");
    backend.stop().await;
    let verdict = runner.next().await;
    assert_eq!(
        (verdict.health, verdict.reason.as_str()),
        (Down, "connection refused")
    );
}

/// Adding and removing others neither probes a known target again nor forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_change_leaves_the_others_alone() {
    let stays = Backend::start(Script::status(200)).await;
    let comes = Backend::start(Script::status(200)).await;
    let steady = target(stays.address, once(CheckKind::Http(http())));
    let mut runner = Runner::start(vec![steady.clone()]);
    assert_eq!(runner.next().await.backend, steady.backend);
    for n in 0..5 {
        // Another pool each time: lists that follow fast may be seen as one, so only a new name is surely new.
        let mut added = target(comes.address, often(CheckKind::Http(http())));
        added.backend.pool = Name::parse(&format!("pool-{n}")).unwrap();
        let list = vec![added.clone(), steady.clone(), steady.clone()];
        runner.targets.send(list).unwrap();
        assert_eq!(
            runner.next().await.backend,
            added.backend,
            "new, so decided at once"
        );
        runner.targets.send(vec![steady.clone()]).unwrap();
    }
    assert_eq!(stays.count(), 1);
}

/// Failures counted before a list change count after it, and nobody starts anew: then one would be enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_change_keeps_the_count_of_failures() {
    let backend = Backend::start(Script::status(200)).await;
    let check = HealthCheck {
        fall: 30,
        ..often(CheckKind::Http(http()))
    };
    let kept = target(backend.address, check);
    let mut runner = Runner::start(vec![kept.clone()]);
    assert_eq!(runner.next().await.health, Up);
    backend.now_does(Script::status(500));
    let before = backend.count();
    let verdict = loop {
        if let Ok(verdict) = runner.verdicts.try_recv() {
            break verdict;
        }
        runner.targets.send(vec![kept.clone()]).unwrap();
        // condition poll
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(verdict.reason, "status 500");
    // A connection that had come before the change may have met the new script.
    let failures = backend.count() - before + 1;
    assert!(
        failures >= 30,
        "down after {failures} failures, so somebody began anew"
    );
}

/// The same backend with another check is another target: nothing is known under the new check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_check_starts_afresh() {
    let backend = Backend::start(Script::status(204)).await;
    let mut runner = Runner::start(vec![target(backend.address, once(CheckKind::Tcp))]);
    assert_eq!(runner.next().await.reason, "connected");
    let changed = target(backend.address, often(CheckKind::Http(http())));
    runner.targets.send(vec![changed]).unwrap();
    assert_eq!(runner.next().await.reason, "status 204");
}

/// A target removed while its probe waits for an answer: the connection closes at once, no verdict follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_target_stops_at_once() {
    let silent = Backend::start(Script::silence()).await;
    let other = Backend::start(Script::status(200)).await;
    let mut runner = Runner::start(vec![target(silent.address, once(CheckKind::Http(http())))]);
    silent
        .until("the probe has asked", |seen| seen.requests.len() == 1)
        .await;
    let sentinel = target(other.address, often(CheckKind::Http(http())));
    runner.targets.send(vec![sentinel.clone()]).unwrap();
    silent.until("the probe has gone", |seen| seen.left == 1).await;
    assert_eq!(runner.next().await.backend, sentinel.backend);
    runner.targets.send(Vec::new()).unwrap();
    drop(runner.targets);
    runner.task.await.unwrap();
    assert_eq!(
        runner.verdicts.recv().await,
        None,
        "nothing about the removed target"
    );
    assert_eq!(silent.count(), 1);
}

/// Between two checks lies at least the interval less its jitter, measured where the checks arrive. There is no
/// upper bound that a busy machine could not break, so none is asserted but that checks keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_keep_their_interval() {
    let backend = Backend::start(Script::status(200)).await;
    let check = HealthCheck {
        interval: Duration::from_millis(40),
        jitter: 50,
        ..once(CheckKind::Http(http()))
    };
    let started = Instant::now();
    let _runner = Runner::start(vec![target(backend.address, check)]);
    backend
        .until("eleven checks came", |seen| seen.arrivals.len() >= 11)
        .await;
    assert!(started.elapsed() >= Duration::from_millis(10 * 20));
    let seen = backend.seen.lock().unwrap();
    for pair in seen.arrivals.windows(2) {
        // A millisecond for times that are kept in whole ones.
        assert!(
            pair[1] - pair[0] >= Duration::from_millis(19),
            "{:?}",
            pair[1] - pair[0]
        );
    }
    assert_eq!(seen.most_busy, 1, "never two checks of one backend at once");
}

/// It ends when nobody changes targets any more, and when nobody wants verdicts any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_ends_with_either_channel() {
    let backend = Backend::start(Script::silence()).await;
    let list = || vec![target(backend.address, once(CheckKind::Http(http())))];
    let runner = Runner::start(list());
    backend.until("a probe runs", |seen| seen.busy == 1).await;
    drop(runner.targets);
    tokio::time::timeout(PATIENCE, runner.task)
        .await
        .unwrap()
        .unwrap();
    backend.until("its probe was ended", |seen| seen.left == 1).await;

    let runner = Runner::start(list());
    drop(runner.verdicts);
    tokio::time::timeout(PATIENCE, runner.task)
        .await
        .unwrap()
        .unwrap();
}
