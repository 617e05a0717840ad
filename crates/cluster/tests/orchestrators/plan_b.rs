//! LB servers without orchestrators, and without a store: they hold, then look themselves, then hand back.

use std::sync::Arc;
use std::time::Instant;

use model::cluster::ClusterNews;
use model::state::Health::{Down, Up};
use peers::{Etcd, wait_until};
use reconcile::cluster::roster::Wanted;

use crate::backend::{Backend, assert_asked_by_one};
use crate::node::{AFTER, Does, Node, is_shared_out, may_check, wanted};

fn all_believe(servers: &[Node], backend: &Backend, health: model::state::Health) -> Option<()> {
    let id = backend.id("shop");
    let belief = |node: &Node| node.belief(&id).map(|verdict| verdict.health);
    servers
        .iter()
        .all(|node| belief(node) == Some(health))
        .then_some(())
}

fn all_in(servers: &[Node], phase: &str) -> Option<()> {
    servers
        .iter()
        .all(|node| node.phase().as_deref() == Some(phase))
        .then_some(())
}

/// The only orchestrator crashes: the last verdicts stand for a while, then each LB server looks itself. Another
/// comes: they hand back, and own checks end.
#[test]
fn without_orchestrators_servers_look_themselves_and_hand_back() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(4);
    let wanted = wanted(&["shop"], &backends);
    let start = |name: &str, does| Node::start(etcd.endpoints(), name, does, wanted.clone());
    let only = start("o", Does::Orchestrate);
    let servers: Vec<Node> = ["l1", "l2"].map(|name| start(name, Does::Balance)).into();
    backends[0].is_well(false);
    wait_until("the verdicts are known", || {
        all_believe(&servers, &backends[0], Down)?;
        all_believe(&servers, &backends[1], Up)
    });
    wait_until("they follow", || all_in(&servers, "following"));

    let died = Instant::now();
    only.crash();
    backends[1].is_well(false);
    wait_until("they hold", || all_in(&servers, "holding"));
    wait_until("they look themselves", || {
        for server in &servers {
            let belief = server
                .belief(&backends[1].id("shop"))
                .map(|verdict| verdict.health);
            // Looked at later: it finds nothing itself before it says that it looks.
            let looks = server.phase().as_deref() == Some("own_checks");
            assert!(looks || belief == Some(Up), "the last verdicts stand");
        }
        all_in(&servers, "own_checks")
    });
    let began = died.elapsed();
    assert!(began >= AFTER);
    wait_until("and see what has changed", || {
        all_believe(&servers, &backends[1], Down)
    });
    println!(
        "own checks began {began:?} after the crash, and had found what changed after {:?}",
        died.elapsed()
    );
    all_believe(&servers, &backends[0], Down).expect("what was known is gone on from");
    for server in &servers {
        let why = ClusterNews::PlanBBegan {
            why: "no_orchestrator".into(),
        };
        wait_until("it is news", || server.news().contains(&why).then_some(()));
        assert_eq!(server.status.borrow().plan_b.as_ref().unwrap().began, 1);
    }

    let back = Instant::now();
    let again = start("o", Does::Orchestrate);
    wait_until("they follow again", || all_in(&servers, "following"));
    println!("handed back {:?} after an orchestrator came", back.elapsed());
    for server in &servers {
        wait_until("it is news", || {
            server.news().contains(&ClusterNews::PlanBEnded).then_some(())
        });
    }
    // Only the orchestrator asks now.
    backends[1].is_well(true);
    wait_until("its verdicts count", || all_believe(&servers, &backends[1], Up));
    drop(again);
}

/// The store dies, with the orchestrators alive and well: nobody hears of verdicts, so each LB server looks itself,
/// and hands back when the store is there again.
#[test]
fn without_a_store_servers_look_themselves_and_hand_back() {
    let mut etcd = Etcd::start(1);
    let backends = Backend::many(4);
    let wanted = wanted(&["shop"], &backends);
    let start = |name: &str, does| Node::start(etcd.endpoints(), name, does, wanted.clone());
    let nodes = [start("both", Does::Both), start("lb", Does::Balance)];
    wait_until("the verdicts are known", || all_believe(&nodes, &backends[0], Up));
    wait_until("they follow", || all_in(&nodes, "following"));
    etcd.members[0].crash();
    let died = Instant::now();
    wait_until("they look themselves", || all_in(&nodes, "own_checks"));
    backends[0].is_well(false);
    wait_until("and see what has changed", || {
        all_believe(&nodes, &backends[0], Down)
    });
    println!(
        "own checks had found what changed {:?} after the store died",
        died.elapsed()
    );
    let status = nodes[1].status.borrow().clone();
    assert!(!status.heard);
    assert_eq!(status.plan_b.unwrap().why.as_deref(), Some("store_unreachable"));
    etcd.members[0].start_again();
    let back = Instant::now();
    wait_until("they follow again", || all_in(&nodes, "following"));
    println!("handed back {:?} after the store was back", back.elapsed());
    wait_until("what was found meanwhile stands", || {
        all_believe(&nodes, &backends[0], Down)
    });
}

/// Two LB servers have a member that no orchestrator knows: each looks itself, at that one only. Then the orchestrator
/// comes to know it too: its verdict counts, and nobody else asks any more.
#[test]
fn what_no_orchestrator_knows_is_looked_at_here_until_one_does() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(3);
    let (known, unknown) = backends.split_at(2);
    let (all, shared) = (wanted(&["shop"], &backends), wanted(&["shop"], known));
    let orchestrator = Node::serving(
        etcd.endpoints(),
        "o",
        Does::Orchestrate,
        all.clone(),
        Some(shared),
    );
    let start = |name: &str| Node::start(etcd.endpoints(), name, Does::Balance, all.clone());
    let servers: Vec<Node> = ["l1", "l2"].map(start).into();
    let began = Instant::now();
    for server in &servers {
        server.doubts(wanted(&["shop"], &backends[1..]));
    }
    wait_until("they look themselves", || all_believe(&servers, &unknown[0], Up));
    assert!(began.elapsed() >= AFTER.mul_f32(0.9), "{:?}", began.elapsed());
    wait_until("the others are the orchestrator's", || {
        all_believe(&servers, &known[1], Up)
    });
    unknown[0].is_well(false);
    wait_until("and see what changes", || {
        all_believe(&servers, &unknown[0], Down)
    });
    let alone = |node: &Node| node.status.borrow().plan_b.as_ref().map(|plan_b| plan_b.alone);
    wait_until("it is the only one", || {
        servers
            .iter()
            .all(|server| alone(server) == Some(1))
            .then_some(())
    });
    wait_until("they follow", || all_in(&servers, "following"));

    orchestrator.learns(all.clone());
    wait_until("it is the orchestrator's now", || {
        servers
            .iter()
            .all(|server| alone(server) == Some(0))
            .then_some(())
    });
    unknown[0].is_well(true);
    wait_until("whose verdicts count", || all_believe(&servers, &unknown[0], Up));
    let asked = wait_until("nobody loses a lease while it is asked a few times", || {
        let (lost, since) = (orchestrator.leases_lost(), Instant::now());
        let asked = wait_until("it was asked a few times", || {
            let asked = unknown[0].asked_since(since);
            (asked.len() >= 6).then_some(asked)
        });
        (orchestrator.leases_lost() == lost).then_some(asked)
    });
    assert_asked_by_one(&asked);
}

/// One orchestrator knows all members, and has given its verdicts. Another comes that does not know some of them, and
/// takes half of the slots: what stands about those that it got and does not know is taken back, and the LB server looks
/// itself, at those alone, from what it believed. Then the first loses its own of them as well, and at last the second
/// comes to know all.
#[test]
fn what_the_owner_of_the_slot_does_not_know_is_looked_at_here() {
    let etcd = Etcd::start(1);
    let backends = Backend::many(16);
    let (known, found) = backends.split_at(4);
    let (all, some) = (wanted(&["shop"], &backends), wanted(&["shop"], known));
    let start = |name: &str, shared: &Arc<Wanted>| {
        let shared = Some(shared.clone());
        Node::serving(etcd.endpoints(), name, Does::Orchestrate, all.clone(), shared)
    };
    let first = start("o1", &all);
    let servers = [Node::start(etcd.endpoints(), "l", Does::Balance, all.clone())];
    servers[0].doubts(wanted(&["shop"], found));
    let all_up = |of: &[Backend]| of.iter().all(|one| all_believe(&servers, one, Up).is_some());
    wait_until("all are up", || all_up(&backends).then_some(()));
    let alone = || {
        servers[0]
            .status
            .borrow()
            .plan_b
            .as_ref()
            .map(|plan_b| plan_b.alone)
    };
    wait_until("none is looked at here", || (alone() == Some(0)).then_some(()));

    let second = start("o2", &some);
    let both = [first, second];
    wait_until("two share the work", || is_shared_out(&both, 2).then_some(()));
    // More of them may follow while slots move.
    let its = || found.iter().filter(|one| may_check(&both[1], one.address));
    let one = wait_until("it has some of them", || its().next());
    one.is_well(false);
    let died = Instant::now();
    wait_until("the server sees it", || all_believe(&servers, one, Down));
    println!(
        "{:?} after the owner had the slot and did not know it",
        died.elapsed()
    );
    wait_until("at these alone", || {
        (alone() == Some(its().count())).then_some(())
    });

    both[0].learns(some);
    wait_until("at all of them", || (alone() == Some(found.len())).then_some(()));
    assert!(
        servers[0]
            .news()
            .iter()
            .all(|news| !matches!(news, ClusterNews::PlanBBegan { .. }))
    );
    both[1].learns(all);
    wait_until("the owner's verdicts count again", || {
        (alone() == Some(found.len() - its().count())).then_some(())
    });
    one.is_well(true);
    wait_until("it is up again", || all_believe(&servers, one, Up));
    assert!(all_up(&backends));
}
