//! Changes on trial (`apply --confirm`) and orders: what is taken back leaves every order as its user set it.

use std::net::{Ipv4Addr, SocketAddr};

use peers::Etcd;

use crate::support::{Backend, Client, Evenkeel, Load, Place, QUIET, free_ip, wait_until};

/// A load balancer on a port of every node in front of these backends.
fn shop(port: u16, backends: &[&Backend]) -> String {
    let addresses: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.address)).collect();
    let addresses = addresses.join(", ");
    format!("[load_balancers.shop]\nlisten = \"0.0.0.0:{port}\"\nbackend_servers = [{addresses}]\n{QUIET}\n")
}

/// On one node with the embedded store, and on two that share etcd, with load through each.
#[test]
fn a_change_that_is_taken_back_leaves_maintenance_as_it_was() {
    let etcd = Etcd::start(1);
    let node = |name: &str, store: &str| {
        let ip = free_ip();
        let config = format!("[node]\nname = \"{name}\"\nbind = \"{ip}\"\nthreads = 1\n[store]\n{store}\n");
        (ip, Place::new(&config))
    };
    let shared = format!("kind = \"etcd\"\nendpoints = {:?}", etcd.endpoints());
    is_left_as_it_was(&[node("alone", "kind = \"embedded\"")]);
    is_left_as_it_was(&[node("edge-1", &shared), node("edge-2", &shared)]);
}

/// Scenario: a backend is in maintenance. A change on trial takes it out of the config, and during the trial another
/// backend is taken into maintenance. Nobody confirms: the
/// change is taken back, both are in maintenance by who ordered it last, on every node, and neither of them is sent one
/// request from its order on, also not in the moment in which the first is back.
fn is_left_as_it_was(places: &[(Ipv4Addr, Place)]) {
    let [one, two, three] = ["one", "two", "three"].map(Backend::named);
    let port = peers::free_ports(1)[0];
    let nodes: Vec<Evenkeel> = places.iter().map(|(_, place)| place.start()).collect();
    let apply = |text: String, more: &[&str]| {
        let path = places[0].1.path().join("shop.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        nodes[0].cli_ok(&[&["apply", &path], more].concat());
    };
    let order = |node: usize, backend: &Backend, by: &str| {
        let address = backend.address.to_string();
        nodes[node].cli_ok(&["backend", "maintenance", "shop", &address, "--by", by]);
    };
    let by = |node: &Evenkeel, backend: &Backend| {
        let order = node.backend(backend.address)["order"].clone();
        (order["mode"].clone(), order["by"].clone())
    };
    let is_in_maintenance = |node: &Evenkeel, backend: &Backend, who: &str| {
        by(node, backend) == ("maintenance".into(), who.into())
    };
    apply(shop(port, &[&one, &two, &three]), &[]);
    let served = |revision: u64| {
        let serves = |node: &Evenkeel| node.status()["store"]["served"].as_u64() >= Some(revision);
        wait_until("all serve it", || nodes.iter().all(serves));
    };
    served(1);
    order(0, &one, "alice");
    wait_until("all follow", || {
        nodes.iter().all(|node| is_in_maintenance(node, &one, "alice"))
    });
    let addresses = places.iter().map(|(ip, _)| SocketAddr::from((*ip, port)));
    let loads: Vec<Load> = addresses.clone().map(|address| Load::start(address, 2)).collect();
    let before = one.count();
    apply(shop(port, &[&two, &three]), &["--confirm", "4s"]);
    served(2);
    order(nodes.len() - 1, &two, "bob");
    wait_until("all follow the second", || {
        nodes.iter().all(|node| is_in_maintenance(node, &two, "bob"))
    });
    // What was begun before the order is waited for; then the load goes on.
    for load in loads {
        load.stop().assert_nothing_failed();
    }
    let before_two = two.count();
    let loads: Vec<Load> = addresses.clone().map(|address| Load::start(address, 2)).collect();
    wait_until("it is taken back", || {
        nodes[0].cli_ok(&["history"]).contains("revert of 2")
    });
    served(3);
    for node in &nodes {
        assert!(is_in_maintenance(node, &one, "alice"), "{:?}", by(node, &one));
        assert!(is_in_maintenance(node, &two, "bob"), "{:?}", by(node, &two));
    }
    for load in &loads {
        load.wait_for_more(50);
    }
    for address in addresses {
        assert!((0..10).all(|_| Client::connect(address).get("/").text() == "three"));
    }
    assert_eq!((one.count(), two.count()), (before, before_two));
    for load in loads {
        load.stop().assert_nothing_failed();
    }
}
