//! Nodes that share a store share the checks of what is declared there.

use std::time::Instant;

use peers::Etcd;

use crate::support::{Backend, Evenkeel, Place, free_ip, shop_on, wait_until};

fn node(name: &str, roles: &str, etcd: &Etcd) -> Place {
    let endpoints = format!("{:?}", etcd.endpoints());
    Place::new(&format!(
        "[node]\nname = \"{name}\"\nroles = {roles}\nplan_b_after = \"1s\"\n\
         [store]\nkind = \"etcd\"\nendpoints = {endpoints}\n"
    ))
}

/// Whether a node believes that the backends are in these states.
fn believes(node: &Evenkeel, states: &[(&Backend, &str)]) -> bool {
    let status = node.status();
    let Some(lb) = status["load_balancers"].get(0) else {
        return false;
    };
    let backends = lb["pools"][0]["backends"].as_array().unwrap();
    states.iter().all(|(backend, state)| {
        let address = backend.address.to_string();
        backends
            .iter()
            .any(|one| one["address"] == address.as_str() && one["health"] == *state)
    })
}

/// Two orchestrators and an LB server: what is applied is checked, and the LB server takes the verdicts. An
/// orchestrator is stopped in order, the other is killed: the LB server looks itself, and goes on when one is back.
#[test]
fn verdicts_reach_who_checks_nothing_and_plan_b_begins_and_ends() {
    let etcd = Etcd::start(1);
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let orchestrators = ["o1", "o2"].map(|name| node(name, "[\"orchestrator\", \"console\"]", &etcd));
    let edge = node("edge", "[\"lb\"]", &etcd);
    let [mut first, mut second] = [orchestrators[0].start(), orchestrators[1].start()];
    let edge = edge.start();
    let health =
        "slow_start = \"0s\"\nhealth = { path = \"/h\", interval = \"200ms\", fast_interval = \"100ms\" }\n";
    let declared = Place::new(&shop_on(
        &format!("{}:0", free_ip()),
        &[one.address, two.address],
        health,
    ));
    let file = declared.config().display().to_string();
    first.cli_ok(&["apply", &file]);
    wait_until("all believe that both are up", || {
        [&first, &second, &edge]
            .iter()
            .all(|node| believes(node, &[(&one, "up"), (&two, "up")]))
    });
    let ill = Instant::now();
    two.kill();
    wait_until("the LB server believes that it is down", || {
        believes(&edge, &[(&one, "up"), (&two, "down")])
    });
    println!(
        "a dead backend was down at the LB server after {:?}",
        ill.elapsed()
    );
    assert_eq!(edge.metric("evenkeel_orchestrators", &[]), 2.0);
    assert_eq!(edge.metric("evenkeel_orchestrator_leader", &[]), 0.0);
    let table = edge.cli_ok(&["status"]);
    assert!(table.contains("orchestrators: 2, o"), "{table}");

    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait_for_end();
    wait_until("one has everything", || {
        second.metric("evenkeel_orchestrator_slots", &[]) == 1024.0
            && second.metric("evenkeel_orchestrator_leader", &[]) == 1.0
    });
    second.kill();
    let own = [("phase", "own_checks")];
    wait_until("the LB server looks itself", || {
        edge.metric("evenkeel_plan_b_phase", &own) == 1.0
    });
    assert_eq!(edge.events("plan_b_began").len(), 1);
    let asked = one.count();
    wait_until("it asks", || one.count() > asked + 2);
    let _back = orchestrators[0].start();
    let following = [("phase", "following")];
    wait_until("it follows again", || {
        edge.metric("evenkeel_plan_b_phase", &following) == 1.0
    });
    assert_eq!(edge.events("plan_b_ended").len(), 1);
    assert!(believes(&edge, &[(&one, "up"), (&two, "down")]));
}
