//! An orchestrator dies, hangs, is cut off; the store forgets everything. ADR 0022 promises 5.5 s after a death and
//! 10 s after anything else that is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_cluster::{Space, Store};
use model::state::Health::Down;
use peers::{Etcd, wait_until};
use reconcile::cluster::records::{Key, Value, VerdictRecord};
use reconcile::cluster::roster::Wanted;
use store::EtcdSettings;
use tokio::runtime::Runtime;

use crate::backend::Backend;
use crate::line::Line;
use crate::node::{Does, Node, PREFIX, is_shared_out, may_check, wanted};
use crate::watcher::Watcher;

/// Far above that: how long it takes to the millisecond, the simulation of `reconcile` holds; here it is measured.
const BOUND: Duration = Duration::from_secs(30);

fn three(etcd: &Etcd, wanted: &Arc<Wanted>) -> Vec<Node> {
    let start = |name| Node::start(etcd.endpoints(), name, Does::Orchestrate, wanted.clone());
    let nodes: Vec<Node> = ["a", "b", "c"].map(start).into();
    wait_until("three share the work", || is_shared_out(&nodes, 3).then_some(()));
    nodes
}

fn watch(nodes: &[Node], backends: &[Backend]) -> Watcher {
    let leaves = nodes.iter().map(|node| node.leave.clone()).collect();
    Watcher::start(leaves, backends.iter().map(|backend| backend.address).collect())
}

/// The one that leads is taken out.
fn leader(nodes: &mut Vec<Node>) -> Node {
    let place = wait_until("somebody leads", || nodes.iter().position(Node::leads));
    nodes.remove(place)
}

fn checks_some(node: &Node, backends: &[Backend]) -> Option<()> {
    let mut all = backends.iter();
    all.any(|backend| may_check(node, backend.address)).then_some(())
}

/// Waits until every backend was asked again since then; the longest that one was not.
fn all_asked_again(backends: &[Backend], since: Instant) -> Duration {
    let before: Vec<Instant> = backends
        .iter()
        .map(|backend| backend.last_asked().filter(|at| *at < since).unwrap_or(since))
        .collect();
    wait_until("every backend is asked again", || {
        backends
            .iter()
            .all(|backend| !backend.asked_since(since).is_empty())
            .then_some(())
    });
    let gaps = backends
        .iter()
        .zip(before)
        .map(|(backend, before)| backend.asked_since(since)[0] - before);
    gaps.max().unwrap()
}

/// The leader crashes. Another leads, and what it checked is checked by others.
#[test]
fn a_leader_that_crashes_is_replaced() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(12);
    let wanted = wanted(&["shop"], &backends);
    let mut nodes = three(&etcd, &wanted);
    let watcher = watch(&nodes, &backends);
    let dead = leader(&mut nodes);
    wait_until("it has some of them", || checks_some(&dead, &backends));
    let mut its: Vec<Backend> = backends;
    its.retain(|backend| may_check(&dead, backend.address));
    assert!(!its.is_empty());
    dead.crash();
    let died = Instant::now();
    let gap = all_asked_again(&its, died);
    wait_until("another leads", || nodes.iter().any(Node::leads).then_some(()));
    wait_until("two have everything", || is_shared_out(&nodes, 2).then_some(()));
    println!(
        "after a crash of the leader: {} backends were without a check for {gap:?} at most; all settled after {:?}",
        its.len(),
        died.elapsed()
    );
    assert!(gap < BOUND, "{gap:?}");
    watcher.end();
}

/// The leader is stopped dead for longer than its lease, and goes on later. Meanwhile others have its checks; when it
/// goes on it checks nothing of what was its own, and leads no more until it is elected.
#[test]
fn a_leader_that_was_stopped_comes_back_as_nobody() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(12);
    let wanted = wanted(&["shop"], &backends);
    let mut nodes = three(&etcd, &wanted);
    let watcher = watch(&nodes, &backends);
    let frozen = leader(&mut nodes);
    let epoch = frozen.status.borrow().epoch.unwrap();
    wait_until("it has some of them", || checks_some(&frozen, &backends));
    let mut its = Vec::new();
    let mut others = Vec::new();
    for backend in backends {
        match may_check(&frozen, backend.address) {
            true => its.push(backend),
            false => others.push(backend),
        }
    }
    assert!(!its.is_empty());
    frozen.freeze();
    let stopped = Instant::now();
    let gap = all_asked_again(&its, stopped + Duration::from_millis(50));
    let next = wait_until("another leads", || nodes.iter().find(|node| node.leads()));
    let later = wait_until("it says so", || {
        next.status.borrow().epoch.filter(|now| *now > epoch)
    });
    wait_until("two have everything", || is_shared_out(&nodes, 2).then_some(()));
    let recovered = stopped.elapsed();
    assert!(
        its.iter().all(|backend| !may_check(&frozen, backend.address)),
        "its time is over"
    );
    frozen.thaw();
    nodes.push(frozen);
    wait_until("it takes a share again", || {
        is_shared_out(&nodes, 3).then_some(())
    });
    let leading = wait_until("one leads", || {
        let leading: Vec<bool> = nodes.iter().map(Node::leads).collect();
        (leading.iter().filter(|leads| **leads).count() == 1).then_some(leading)
    });
    assert!(!leading[2], "it leads no more");
    println!(
        "a leader stopped dead: {} backends without a check for {gap:?} at most, all settled after {recovered:?}; \
         epoch {epoch}, then {later}",
        its.len()
    );
    assert!(gap < BOUND, "{gap:?}");
    watcher.end();
}

/// An orchestrator is cut off right when it has found a backend ill, and its write arrives only when others have
/// the backend and have found it well: it is refused.
#[test]
fn a_verdict_that_arrives_late_is_refused() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(12);
    let wanted = wanted(&["shop"], &backends);
    let server = etcd.members[0]
        .url
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let line = Line::to(server);
    let start = |name, endpoints| Node::start(endpoints, name, Does::Orchestrate, wanted.clone());
    let mut nodes = vec![
        start("cut", vec![format!("http://{}", line.address)]),
        start("b", etcd.endpoints()),
        start("c", etcd.endpoints()),
    ];
    wait_until("three share the work", || is_shared_out(&nodes, 3).then_some(()));
    let watcher = watch(&nodes, &backends);
    let cut = nodes.remove(0);
    let backend = wait_until("it has some of them", || {
        let mut all = backends.iter();
        all.find(|backend| may_check(&cut, backend.address))
    });
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    let runtime = runtime();
    let stands = || runtime.block_on(verdict(&store, backend));
    wait_until("a verdict stands", || stands().map(|_| ()));

    line.hold();
    let held = Instant::now();
    backend.is_well(false);
    let found_here = wait_until("it was asked, and is ill", || {
        (backend.asked_since(held).len() >= 3).then(Instant::now)
    });
    backend.is_well(true);
    wait_until("somebody else has it", || {
        nodes.iter().find(|node| may_check(node, backend.address))
    });
    println!("cut off: somebody else has its checks after {:?}", held.elapsed());
    assert!(held.elapsed() < BOUND);
    // A verdict of an heir, newer than what is on its way.
    let by_heir = |verdict: &VerdictRecord| nodes.iter().any(|node| node.name() == verdict.by);
    backend.is_well(false);
    wait_until("the heir has found it ill", || {
        stands().filter(|verdict| by_heir(verdict) && verdict.health == Down)
    });
    backend.is_well(true);
    wait_until("and well again", || {
        stands().filter(|verdict| by_heir(verdict) && verdict.health != Down)
    });
    assert!(!may_check(&cut, backend.address));
    line.release();
    nodes.push(cut);
    wait_until("it is back, and hears", || is_shared_out(&nodes, 3).then_some(()));
    let late = wait_until("the verdict is read", stands);
    assert_ne!(
        late.health,
        Down,
        "what was found {:?} ago stands",
        found_here.elapsed()
    );
    watcher.end();
}

/// What stands; what cannot be read is none, also for want of a store.
async fn verdict(store: &Store, backend: &Backend) -> Option<VerdictRecord> {
    let space = Space::new(store.clone(), PREFIX);
    let key = Key::Verdict(backend.id("shop"));
    let entry = store.get(&space.key(&key.path())).await.ok()??;
    match key.read(&entry.value) {
        Ok(Value::Verdict(verdict)) => Some(verdict),
        _ => None,
    }
}

fn all_stand(runtime: &Runtime, store: &Store, backends: &[Backend]) -> Option<()> {
    let of = |backend| runtime.block_on(verdict(store, backend));
    backends.iter().all(|backend| of(backend).is_some()).then_some(())
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap()
}

/// The store loses all its data: what the orchestrators knew is written again.
#[test]
fn a_store_that_forgot_everything_is_told_again() {
    let mut etcd = Etcd::start(1);
    let backends = Backend::many(6);
    let wanted = wanted(&["shop"], &backends);
    let nodes = three(&etcd, &wanted);
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    let runtime = runtime();
    let all_stand = || all_stand(&runtime, &store, &backends);
    wait_until("all verdicts stand", all_stand);
    let watcher = watch(&nodes, &backends);
    etcd.members[0].crash();
    etcd.members[0].forget();
    etcd.members[0].start_again();
    let back = Instant::now();
    wait_until("all verdicts stand again", all_stand);
    println!("an empty store: all verdicts again after {:?}", back.elapsed());
    watcher.end();
}

/// Somebody writes what nobody can read under the keys of leader, round, a worker, an assignment and a verdict. Somebody
/// leads all the same, everything is given out and written again, and what a dead one had is given to others.
#[test]
fn what_cannot_be_read_stops_nobody() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(12);
    let wanted = wanted(&["shop"], &backends);
    let mut nodes = three(&etcd, &wanted);
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    let runtime = runtime();
    let all_stand = || all_stand(&runtime, &store, &backends);
    wait_until("all verdicts stand", all_stand);
    let space = Space::new(store.clone(), PREFIX);
    let scribble = |key: Key| {
        let put = store::Transaction::new().put(space.key(&key.path()), "x");
        runtime.block_on(store.commit(put)).unwrap();
    };
    let epoch = nodes[0].status.borrow().epoch.unwrap();
    scribble(Key::Leader);
    scribble(Key::Round);
    scribble(Key::Worker(nodes[0].name()));
    scribble(Key::Assignment(nodes[1].name()));
    scribble(Key::Verdict(backends[0].id("shop")));
    let scribbled = Instant::now();
    let led = |node: &Node| node.status.borrow().epoch.is_some_and(|now| now > epoch);
    wait_until("somebody leads again", || nodes.iter().any(led).then_some(()));
    wait_until("all have their share", || {
        let whole = |node: &Node| node.status.borrow().slots_unchecked == 0;
        (nodes.iter().all(whole) && is_shared_out(&nodes, 3)).then_some(())
    });
    println!(
        "what cannot be read: all shared out after {:?}",
        scribbled.elapsed()
    );
    wait_until("all verdicts stand again", all_stand);
    let dead = nodes.remove(2);
    wait_until("it has some of them", || checks_some(&dead, &backends));
    let mut its: Vec<Backend> = backends;
    its.retain(|backend| may_check(&dead, backend.address));
    dead.crash();
    let gap = all_asked_again(&its, Instant::now());
    wait_until("two have everything", || is_shared_out(&nodes, 2).then_some(()));
    println!("and a death after that: no check for {gap:?} at most");
}

/// Another etcd takes the place of the first while everybody is cut off. It knows nothing of them, and it is further
/// than the first was: what was seen of that one would still seem to be the newest. All begin anew with it.
#[test]
fn a_store_that_was_replaced_and_overtaken_is_begun_with_anew() {
    let (mut first, second) = (Etcd::start(1), Etcd::start(1));
    let line = Line::to(address(&first));
    let backends = Backend::many(6);
    let wanted = wanted(&["shop"], &backends);
    let runtime = runtime();
    let put = |etcd: &Etcd, key: &str, times: usize| {
        let store = runtime.block_on(async { Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap() });
        for _ in 0..times {
            wait_until("it is put", || {
                let put = store::Transaction::new().put(format!("{PREFIX}{key}"), "some");
                runtime.block_on(store.commit(put)).ok()
            });
        }
    };
    put(&first, "identity", 1);
    let endpoints = vec![format!("http://{}", line.address)];
    let start = |name, does| Node::start(endpoints.clone(), name, does, wanted.clone());
    let nodes = [
        start("a", Does::Orchestrate),
        start("b", Does::Orchestrate),
        start("lb", Does::Balance),
    ];
    wait_until("two share the work", || is_shared_out(&nodes, 2).then_some(()));
    let watcher = watch(&nodes, &backends);
    put(&second, "other", 2000);
    put(&second, "identity", 1);
    first.members[0].crash();
    line.lead_to(address(&second));
    let replaced = Instant::now();
    let store = Store::etcd(EtcdSettings::new(second.endpoints()));
    let store = runtime.block_on(async { store }).unwrap();
    wait_until("all verdicts stand in the other one", || {
        all_stand(&runtime, &store, &backends)
    });
    wait_until("two share the work again", || {
        is_shared_out(&nodes, 2).then_some(())
    });
    println!("another store: all as before after {:?}", replaced.elapsed());
    let since = Instant::now();
    all_asked_again(&backends, since);
    watcher.end();
}

fn address(etcd: &Etcd) -> std::net::SocketAddr {
    etcd.endpoints()[0].trim_start_matches("http://").parse().unwrap()
}
