//! Members by a name of the DNS in a cluster: every node asks for the name, and one of them checks each member.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use peers::{Etcd, Knot};

use crate::support::{Backend, Client, Evenkeel, Place, free_ip, wait_until};

fn node(name: &str, roles: &str, etcd: &Etcd) -> Place {
    Place::new(&format!(
        "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{}\"\nplan_b_after = \"12s\"\nthreads = 1\n\
         [store]\nkind = \"etcd\"\nendpoints = {:?}\n",
        free_ip(),
        etcd.endpoints()
    ))
}

fn checks(backend: &Backend) -> usize {
    let requests = backend.requests();
    requests
        .iter()
        .filter(|request| request.target() == "/health")
        .count()
}

fn is_up(node: &Evenkeel, backend: &Backend) -> bool {
    let status = node.status();
    let known = status["load_balancers"][0]["pools"][0]["backends"].as_array();
    let address = backend.address.to_string();
    known.is_some_and(|known| {
        known
            .iter()
            .any(|member| member["address"] == address.as_str() && member["health"] == "up")
    })
}

/// Three LB servers and two orchestrators look up the same name: a member is checked by one of them, as often as if
/// there were one LB server. A record that is added is checked and served the same way.
#[test]
fn a_member_found_by_name_is_checked_by_one() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let backends = ["one", "two"].map(|name| Backend::named_at((free_ip(), port).into(), name));
    let record = |backend: &Backend| format!("app 1 A {}\n", backend.address.ip());
    let mut dns = Knot::start(&record(&backends[0]));
    let etcd = Etcd::start(1);
    let places = [
        node("edge-1", r#"["lb"]"#, &etcd),
        node("edge-2", r#"["lb"]"#, &etcd),
        node("edge-3", r#"["lb"]"#, &etcd),
        node("brain-1", r#"["orchestrator", "console"]"#, &etcd),
        node("brain-2", r#"["orchestrator", "console"]"#, &etcd),
    ];
    let nodes: Vec<Evenkeel> = places.iter().map(Place::start).collect();
    let front = peers::free_ports(1)[0];
    let shop = Place::new(&format!(
        "[load_balancers.shop]\nlisten = \"0.0.0.0:{front}\"\nslow_start = 0\n\
         health = {{ path = \"/health\", interval = \"1s\", fast_interval = \"1s\", jitter = \"0%\" }}\n\
         [load_balancers.shop.discovery.dns]\nname = \"app.test\"\nport = {port}\nresolvers = \"127.0.0.1:{}\"\nmin_ttl = \"1s\"\n",
        dns.port
    ));
    nodes[3].cli_ok(&["apply", &shop.config().display().to_string()]);
    wait_until("all know the verdict", || {
        nodes.iter().all(|node| is_up(node, &backends[0]))
    });
    let alone = |node: &Evenkeel| node.metric("evenkeel_plan_b_alone", &[]);
    wait_until("no LB server looks itself", || {
        nodes[..3].iter().all(|node| alone(node) == 0.0)
    });
    let (began, before) = (Instant::now(), checks(&backends[0]));
    wait_until("it was checked a few times", || {
        checks(&backends[0]) >= before + 6
    });
    let (asked, time) = (checks(&backends[0]) - before, began.elapsed());
    println!("{asked} checks within {time:?}, an interval of 1s, three LB servers, two orchestrators");
    assert!(
        Duration::from_millis(900) * u32::try_from(asked - 1).unwrap() <= time,
        "{asked} in {time:?}"
    );
    for node in &nodes[..3] {
        assert_eq!(alone(node), 0.0);
    }
    dns.set(&backends.each_ref().map(record).concat());
    wait_until("the new one is known", || {
        nodes.iter().all(|node| is_up(node, &backends[1]))
    });
    let listener = |node: &Evenkeel| -> SocketAddr { node.listener("shop", "http") };
    for node in &nodes[..3] {
        let mut client = Client::connect(listener(node));
        let names = [
            client.get("/").text().to_owned(),
            client.get("/").text().to_owned(),
        ];
        assert!(
            names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()),
            "{names:?}"
        );
    }
}

/// Starts a node whose system asks this resolver.
fn start_with_resolver(place: &Place, resolver: &Knot) -> Evenkeel {
    let file = place.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", resolver.address.ip())).unwrap();
    let own = format!(
        "mount --bind '{}' /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let program = place.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &own, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    Evenkeel::spawn(&mut command)
}

/// What answers there, after a few requests.
fn served(node: &Evenkeel) -> BTreeSet<String> {
    let mut client = Client::connect(node.listener("shop", "http"));
    (0..6).map(|_| client.get("/").text().to_owned()).collect()
}

/// Scenario: a name says one thing where one LB server and the orchestrator stand, and another where the second LB
/// server stands: each asks the resolver of its own system. The address that both have is checked by the orchestrator,
/// and so is the one that it knows with the first LB server. The one that only the second knows is checked by that one.
/// Each is served by who knows it, and nobody misses what only another one knows.
#[test]
fn a_name_with_two_answers_is_served_by_who_knows_which() {
    let isolated = Command::new("unshare").args(["--mount", "true"]).output();
    if !Uid::effective().is_root() || !isolated.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root, with CAP_SYS_ADMIN, can give each node a resolver of its own");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let backends = ["both", "here", "there"].map(|name| Backend::named_at((free_ip(), port).into(), name));
    let [both, here, there] = &backends;
    let records = |known: [&Backend; 2]| known.map(|b| format!("app 1 A {}\n", b.address.ip())).concat();
    let one = Knot::start_as_system(free_ip(), &records([both, here]));
    let mut two = Knot::start_as_system(free_ip(), &records([both, there]));
    let etcd = Etcd::start(1);
    let places = [
        node("edge-1", r#"["lb"]"#, &etcd),
        node("edge-2", r#"["lb"]"#, &etcd),
        node("brain-1", r#"["orchestrator", "console"]"#, &etcd),
    ];
    let [first, second, brain] =
        [(0, &one), (1, &two), (2, &one)].map(|(n, resolver)| start_with_resolver(&places[n], resolver));
    let front = peers::free_ports(1)[0];
    let shop = Place::new(&format!(
        "[load_balancers.shop]\nlisten = \"0.0.0.0:{front}\"\nslow_start = 0\n\
         health = {{ path = \"/health\", interval = \"1s\", fast_interval = \"1s\", jitter = \"0%\" }}\n\
         [load_balancers.shop.discovery.dns]\nname = \"app.test\"\nport = {port}\nmin_ttl = \"1s\"\n"
    ));
    brain.cli_ok(&["apply", &shop.config().display().to_string()]);
    wait_until("each knows its own", || {
        let known = [
            (&first, both),
            (&first, here),
            (&second, both),
            (&second, there),
            (&brain, both),
            (&brain, here),
        ];
        known.iter().all(|(node, backend)| is_up(node, backend))
    });
    let names = |names: [&str; 2]| BTreeSet::from(names.map(str::to_owned));
    assert_eq!(served(&first), names(["both", "here"]));
    assert_eq!(served(&second), names(["both", "there"]));
    wait_until("one is looked at by the second alone", || {
        let alone = |node: &Evenkeel| node.metric("evenkeel_plan_b_alone", &[]);
        (alone(&first), alone(&second)) == (0.0, 1.0)
            && second.backend(there.address)["checked_by"] == "this_node"
    });
    wait_until("the others by the orchestrator", || {
        let those = [(&first, both), (&first, here), (&second, both), (&brain, here)];
        those.iter().all(|(node, backend)| {
            let by = node.backend(backend.address)["checked_by"]["orchestrator"].clone();
            by.as_str().is_some_and(|by| by.starts_with("brain-1"))
        })
    });
    // A few looks and checks later nothing is different: each address is checked by one.
    let looks = |node: &Evenkeel| node.metric("evenkeel_dns_lookups_total", &[("result", "good")]);
    let (began, before) = (Instant::now(), [both, here, there].map(checks));
    let looked = looks(&second);
    wait_until("names were looked up again", || looks(&second) >= looked + 3.0);
    wait_until("each is checked again", || {
        let mut each = backends.iter().zip(before);
        each.all(|(backend, before)| checks(backend) > before)
    });
    for (backend, before) in backends.iter().zip(before) {
        let (asked, time) = (checks(backend) - before, began.elapsed());
        assert!(
            Duration::from_millis(900) * u32::try_from(asked - 1).unwrap() <= time,
            "{asked} checks in {time:?}"
        );
    }
    for node in [&first, &second, &brain] {
        assert_eq!(node.metric("evenkeel_pool_members", &[("source", "dns")]), 2.0);
        wait_until("its answers are fresh", || {
            node.metric("evenkeel_pool_source_stale", &[]) == 0.0
        });
        let told = node.events("members_changed").join("\n");
        assert!(!told.contains("left"), "{told}");
    }
    // What is gone for the second is gone there, and nowhere else.
    two.set(&records([there, there]));
    wait_until("it has left", || {
        second.metric("evenkeel_pool_members", &[("source", "dns")]) == 1.0
    });
    wait_until("it is served no more", || {
        served(&second) == BTreeSet::from(["there".to_owned()])
    });
    assert_eq!(served(&first), names(["both", "here"]));
    assert!(is_up(&brain, both));
}
