//! LB servers without orchestrators, and without a store: they hold, then look themselves, then hand back.

use std::time::Instant;

use model::cluster::ClusterNews;
use model::state::Health::{Down, Up};
use peers::{Etcd, wait_until};

use crate::backend::Backend;
use crate::node::{AFTER, Does, Node, wanted};

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

    only.crash();
    let died = Instant::now();
    backends[1].is_well(false);
    wait_until("they hold", || all_in(&servers, "holding"));
    all_believe(&servers, &backends[1], Up).expect("the last verdicts stand");
    wait_until("they look themselves", || all_in(&servers, "own_checks"));
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
        assert!(server.news().contains(&why), "{:?}", server.news());
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
