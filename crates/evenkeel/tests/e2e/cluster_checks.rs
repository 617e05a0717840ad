//! Nodes that share a store share the checks of what is declared there.

use std::time::Instant;

use peers::Etcd;

use crate::support::{Backend, Evenkeel, Place, free_ip, shop_on, wait_until};

const HEALTH: &str =
    "slow_start = \"0s\"\nhealth = { path = \"/h\", interval = \"200ms\", fast_interval = \"100ms\" }\n";

fn node(name: &str, roles: &str, etcd: &Etcd) -> Place {
    let endpoints = format!("{:?}", etcd.endpoints());
    Place::new(&format!(
        "[node]\nname = \"{name}\"\nroles = {roles}\nplan_b_after = \"8s\"\n\
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
    let declared = Place::new(&shop_on(
        &format!("{}:0", free_ip()),
        &[one.address, two.address],
        HEALTH,
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
    wait_until("it sees both orchestrators", || {
        edge.metric("evenkeel_orchestrators", &[]) == 2.0
    });
    assert_eq!(edge.metric("evenkeel_orchestrator_leader", &[]), 0.0);
    let table = edge.cli_ok(&["status"]);
    assert!(table.contains("orchestrators: 2, o"), "{table}");
    assert!(table.contains("CHECKED BY"), "{table}");
    let checked_by = |node: &Evenkeel| {
        let status = node.status();
        let backends = status["load_balancers"][0]["pools"][0]["backends"].as_array();
        let each = backends.unwrap().iter().map(|one| one["checked_by"].clone());
        each.collect::<Vec<_>>()
    };
    wait_until("each is checked by one of them", || {
        checked_by(&edge).iter().all(|by| {
            let name = by["orchestrator"].as_str().unwrap_or_default();
            name.starts_with("o1-") || name.starts_with("o2-")
        })
    });

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
    wait_until("an event tells it", || edge.events("plan_b_began").len() == 1);
    wait_until("both are checked here", || {
        checked_by(&edge) == ["this_node", "this_node"]
    });
    let asked = one.count();
    wait_until("it asks", || one.count() > asked + 2);
    let _back = orchestrators[0].start();
    let following = [("phase", "following")];
    wait_until("it follows again", || {
        edge.metric("evenkeel_plan_b_phase", &following) == 1.0
    });
    wait_until("an event tells that", || edge.events("plan_b_ended").len() == 1);
    assert!(believes(&edge, &[(&one, "up"), (&two, "down")]));
}

/// An orchestrator has a load balancer `shop` of its own, with another backend; then the store gets something that it
/// cannot serve, because its own listens there. Another node serves both and relies on it: all of it is checked.
#[test]
fn an_orchestrator_checks_also_what_it_does_not_serve() {
    let etcd = Etcd::start(1);
    let [one, two, own] = ["one", "two", "own"].map(Backend::named);
    let port = peers::free_ports(1)[0];
    let ips = [free_ip(), free_ip()];
    let place = |name: &str, roles: &str, ip, more: &str| {
        Place::new(&format!(
            "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{ip}\"\nplan_b_after = \"30s\"\n\
             [store]\nkind = \"etcd\"\nendpoints = {:?}\n{more}",
            etcd.endpoints()
        ))
    };
    let everywhere = format!("0.0.0.0:{port}");
    let file = shop_on(&everywhere, &[own.address], HEALTH);
    let orchestrator = place("o1", "[\"orchestrator\", \"lb\"]", ips[0], &file);
    let edge = place("edge", "[\"lb\", \"console\"]", ips[1], "");
    let (orchestrator, edge) = (orchestrator.start(), edge.start());
    let apply = |text: &str| {
        let declared = Place::new(text);
        edge.cli_ok(&["apply", &declared.config().display().to_string()]);
    };
    apply(&shop_on("0.0.0.0:0", &[one.address], HEALTH));
    let health = |lb: &str, node: &Evenkeel| {
        let status = node.status();
        let lbs = status["load_balancers"].as_array().unwrap();
        let lb = lbs.iter().find(|one| one["name"] == lb)?;
        lb["pools"][0]["backends"][0]["health"]
            .as_str()
            .map(str::to_owned)
    };
    let is = |lb, node, state| health(lb, node).as_deref() == Some(state);
    wait_until("what is hidden from it is checked", || is("shop", &edge, "up"));
    one.kill();
    wait_until("and goes on being checked", || is("shop", &edge, "down"));
    assert!(is("shop", &orchestrator, "up"), "its own is another one");

    apply(&shop_on(&everywhere, &[two.address], HEALTH).replace("balancers.shop", "balancers.blog"));
    wait_until("it refuses", || {
        !orchestrator.status()["store"]["refused"].is_null()
    });
    wait_until("what it refused is checked", || is("blog", &edge, "up"));
    wait_until("by the orchestrator", || {
        edge.metric("evenkeel_plan_b_phase", &[("phase", "following")]) == 1.0
    });
}

/// An LB server knows that a backend is down. The store and the orchestrators die, and it starts again: it believes what
/// it believed before, from the first request on. Then what was kept is damaged: it says so and begins with nothing. The
/// store comes back, and has the word.
#[test]
fn a_restart_without_the_store_begins_with_the_last_verdicts() {
    let mut etcd = Etcd::start(1);
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let orchestrator = node("o1", "[\"orchestrator\", \"console\"]", &etcd);
    let edge_at = Place::new(&format!(
        "[node]\nname = \"edge\"\nroles = [\"lb\"]\nplan_b_after = \"10m\"\n[store]\nkind = \"etcd\"\nendpoints = {:?}\n",
        etcd.endpoints()
    ));
    let (running, edge) = (orchestrator.start(), edge_at.start());
    let listen = format!("{}:{}", free_ip(), peers::free_ports(1)[0]);
    let declared = Place::new(&shop_on(&listen, &[one.address, two.address], HEALTH));
    running.cli_ok(&["apply", &declared.config().display().to_string()]);
    wait_until("both are up", || believes(&edge, &[(&one, "up"), (&two, "up")]));
    two.kill();
    wait_until("one is down", || believes(&edge, &[(&one, "up"), (&two, "down")]));
    let kept = edge_at.data().join("last/verdicts");
    wait_until("that is kept", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("\"down\""))
    });
    drop((edge, running));
    etcd.members[0].crash();

    let edge = edge_at.start();
    assert!(
        believes(&edge, &[(&one, "up"), (&two, "down")]),
        "from the beginning"
    );
    let before = one.count();
    for _ in 0..10 {
        assert_eq!(edge.client().get("/").text(), "one");
    }
    assert_eq!(one.count(), before + 10, "nobody asks for health yet");
    drop(edge);
    let text = std::fs::read_to_string(&kept).unwrap();
    std::fs::write(&kept, text.replace("\"down\"", "\"up\"")).unwrap();
    let edge = edge_at.start();
    wait_until("an event tells it", || edge.events("verdicts_damaged").len() == 1);
    assert!(believes(&edge, &[(&one, "unchecked"), (&two, "unchecked")]));
    etcd.members[0].start_again();
    wait_until("the store has the word", || {
        believes(&edge, &[(&one, "up"), (&two, "down")])
    });
}
