//! Several share the checks: each backend is asked once, by whomever, and all hear of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::state::Health::{Down, Up};
use peers::{Etcd, wait_until};

use crate::backend::{Backend, assert_asked_by_one, least_interval};
use crate::node::{Does, Node, is_shared_out, may_check, wanted};
use crate::watcher::Watcher;

/// How long probes are counted.
const COUNTED: Duration = Duration::from_secs(4);

/// Probes of all backends within a while in which nothing moves. None is asked more often than its check says,
/// whoever asks.
fn count(backends: &[Backend], orchestrators: &[Node]) -> usize {
    let (begin, last) = wait_until("nobody loses a lease while probes are counted", || {
        let lost = || -> Vec<u64> { orchestrators.iter().map(Node::leases_lost).collect() };
        let (before, begin) = (lost(), Instant::now());
        let last = wait_until("probes are counted", || {
            (begin.elapsed() >= COUNTED).then(Instant::now)
        });
        (lost() == before).then_some((begin, last))
    });
    let asked: Vec<Vec<Instant>> = backends
        .iter()
        .map(|backend| backend.asked_since(begin))
        .map(|times| times.into_iter().filter(|time| *time <= last).collect())
        .collect();
    let most = (last - begin).div_duration_f64(least_interval()) as usize + 1;
    for times in &asked {
        assert!(times.len() <= most, "{} probes, {most} at most", times.len());
        assert_asked_by_one(times);
    }
    asked.iter().map(Vec::len).sum()
}

/// Five LB servers that want the same for two load balancers, and one orchestrator; then three. A backend is asked
/// as often by three as by one, each address by exactly one of them; a backend that falls ill is so for all.
#[test]
fn three_orchestrators_ask_as_often_as_one() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(12);
    let wanted = wanted(&["shop", "blog"], &backends);
    let start = |name: &str, does| Node::start(etcd.endpoints(), name, does, wanted.clone());
    let mut orchestrators = vec![start("o1", Does::Orchestrate)];
    let servers: Vec<Node> = (1..=5).map(|n| start(&format!("lb{n}"), Does::Balance)).collect();
    let believe = |backend: &Backend, health| {
        let ids = ["shop", "blog"].map(|lb| backend.id(lb));
        ids.iter().all(|id| {
            let belief = |node: &Node| node.belief(id).map(|verdict| verdict.health);
            servers.iter().all(|node| belief(node) == Some(health))
        })
    };
    wait_until("all believe that all are up", || {
        backends.iter().all(|backend| believe(backend, Up)).then_some(())
    });
    let by_one = count(&backends, &orchestrators);

    orchestrators.push(start("o2", Does::Orchestrate));
    orchestrators.push(start("o3", Does::Orchestrate));
    let leaves = orchestrators.iter().map(|node| node.leave.clone()).collect();
    let addresses = backends.iter().map(|backend| backend.address).collect();
    let watcher = Watcher::start(leaves, addresses);
    let begun = Instant::now();
    wait_until("three share the work", || {
        let shares = orchestrators
            .iter()
            .map(|node| node.status.borrow().own.as_ref().map_or(0, |own| own.slots));
        let balanced = shares.into_iter().all(|slots| slots > 150);
        (balanced && is_shared_out(&orchestrators, 3)).then_some(())
    });
    println!("two more took their shares within {:?}", begun.elapsed());
    // What moves last moves now: a backend that changes hands begins a new interval.
    wait_until("nothing moves any more", || {
        let before: Vec<_> = orchestrators
            .iter()
            .map(|node| node.status.borrow().clone())
            .collect();
        let until = Instant::now() + Duration::from_secs(1);
        wait_until("a second is over", || (Instant::now() >= until).then_some(()));
        let after: Vec<_> = orchestrators
            .iter()
            .map(|node| node.status.borrow().clone())
            .collect();
        let slots = |all: &[model::cluster::OrchestratorsStatus]| -> Vec<_> {
            all.iter().map(|status| status.orchestrators.clone()).collect()
        };
        (slots(&before) == slots(&after)).then_some(())
    });
    let by_three = count(&backends, &orchestrators);
    println!(
        "{by_one} probes by one orchestrator, {by_three} by three, with five LB servers, in {COUNTED:?} each"
    );
    // That there are never two, the watcher sees.
    wait_until("each is checked by one", || {
        let owners = |backend: &Backend| {
            let owners = orchestrators
                .iter()
                .filter(|node| may_check(node, backend.address));
            owners.count()
        };
        backends.iter().all(|backend| owners(backend) == 1).then_some(())
    });

    let ill = Instant::now();
    backends[0].is_well(false);
    wait_until("all believe that it is ill", || {
        believe(&backends[0], Down).then_some(())
    });
    println!("an ill backend was out everywhere within {:?}", ill.elapsed());
    assert!(backends[1..].iter().all(|backend| believe(backend, Up)));
    watcher.end();
}

/// One of two stops in order: the other has its checks at once, without waiting for a lease.
#[test]
fn who_stops_in_order_keeps_nobody_waiting() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(8);
    let wanted = wanted(&["shop"], &backends);
    let start = |name| Node::start(etcd.endpoints(), name, Does::Orchestrate, wanted.clone());
    // A lease that nobody gives back expires in etcd.
    let expired = || etcd.members[0].metric("etcd_debugging_server_lease_expired_total");
    let stays = start("b");
    let mut nodes = vec![stays];
    let gave_back = (0..3).any(|_| {
        nodes.push(start("a"));
        wait_until("both work", || is_shared_out(&nodes, 2).then_some(()));
        let goes = nodes.pop().unwrap();
        let (before, lost) = (expired(), nodes[0].leases_lost());
        let stopped = Instant::now();
        goes.stop();
        let leads_at = wait_until("the other leads", || nodes[0].leads().then(Instant::now));
        wait_until("it has everything", || is_shared_out(&nodes, 1).then_some(()));
        wait_until("and checks it", || {
            let mut all = backends.iter();
            all.all(|backend| may_check(&nodes[0], backend.address))
                .then_some(())
        });
        println!(
            "after an orderly stop: another leads after {:?}, has everything after {:?}",
            leads_at - stopped,
            stopped.elapsed()
        );
        // Not where etcd itself stood still for the second that giving back may take.
        expired() - before <= nodes[0].leases_lost() - lost
    });
    assert!(gave_back, "each time a lease was left to expire");
}

/// An orchestrator joins that does not know yet what there is to check: nothing is given to it, and nothing lies idle.
/// Once it knows it takes its share, although it serves nothing of that itself.
#[test]
fn who_does_not_know_what_to_check_takes_no_part() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(8);
    let wanted = wanted(&["shop"], &backends);
    let knows = Node::start(etcd.endpoints(), "a", Does::Orchestrate, wanted.clone());
    let joins = Node::serving(etcd.endpoints(), "b", Does::Both, Arc::default(), None);
    let nodes = [knows, joins];
    wait_until("one works", || is_shared_out(&nodes[..1], 1).then_some(()));
    let until = Instant::now() + Duration::from_secs(2);
    wait_until("two seconds are over", || {
        let status = nodes[0].status.borrow();
        let mut there = status.orchestrators.iter();
        assert!(there.all(|one| one.name.as_str().starts_with("a-")));
        (Instant::now() >= until).then_some(())
    });
    nodes[1].learns(wanted);
    wait_until("two share the work", || is_shared_out(&nodes, 2).then_some(()));
    let its_own = wait_until("it has some of the backends", || {
        backends
            .iter()
            .find(|backend| may_check(&nodes[1], backend.address))
    });
    its_own.is_well(false);
    wait_until("what it found is in the store", || {
        let verdicts = nodes[0].belief(&its_own.id("shop"));
        verdicts
            .is_some_and(|verdict| verdict.health == Down)
            .then_some(())
    });
    assert_eq!(nodes[1].belief(&its_own.id("shop")), None, "it serves it not");
}
