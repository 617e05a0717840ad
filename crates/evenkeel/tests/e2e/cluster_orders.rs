//! Orders on a store that nodes share, and from before there was one.

use peers::Etcd;

use crate::support::{Backend, Evenkeel, Load, Place, QUIET, shop, wait_until};

fn node(name: &str, etcd: &Etcd, backends: &[&Backend]) -> Place {
    let endpoints = format!("{:?}", etcd.endpoints());
    let store = format!("[store]\nkind = \"etcd\"\nendpoints = {endpoints}\n");
    Place::new(&format!(
        "[node]\nname = \"{name}\"\n{store}{}",
        shop(backends, QUIET)
    ))
}

/// Two nodes declare the same load balancer and share etcd. What one is ordered the other follows; without etcd an
/// order is refused and changes nothing, and what was known holds over a restart; with etcd again all is as before.
#[test]
fn an_order_holds_on_every_node_and_without_the_store() {
    let mut etcd = Etcd::start(1);
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let places = ["edge-1", "edge-2"].map(|name| node(name, &etcd, &[&one, &two]));
    let (first, mut second) = (places[0].start(), places[1].start());
    let address = one.address.to_string();
    first.cli_ok(&["backend", "drain", "shop", &address, "--by", "alice"]);
    assert_eq!(first.backend(one.address)["order"]["by"], "alice");
    wait_until("the other follows", || {
        second.backend(one.address)["order"]["by"] == "alice"
    });
    assert!((0..10).all(|_| second.client().get("/").text() == "two"));
    second.cli_ok(&["backend", "weight", "shop", &address, "9", "--by", "bob"]);
    wait_until("the weight comes on top", || {
        let order = first.backend(one.address)["order"].clone();
        (&order["mode"], &order["weight"]) == (&"drain".into(), &9.into())
    });
    wait_until("events tell both", || {
        let told = first.events("order").join("\n");
        told.contains("drain by alice") && told.contains("given elsewhere")
    });

    etcd.members[0].crash();
    let refused = second.post(
        &format!("/api/v1/load-balancers/shop/backends/{address}/order"),
        r#"{"action": "ready", "by": "carol"}"#,
    );
    let problem = refused.text().to_owned();
    assert_eq!(refused.status(), 503, "{problem}");
    assert!(problem.contains("store_unavailable"), "{problem}");
    assert_eq!(second.backend(one.address)["order"]["weight"], 9);
    second.kill();
    drop(second);
    let second = places[1].start();
    assert_eq!(second.backend(one.address)["order"]["weight"], 9, "from its disk");
    assert!((0..10).all(|_| second.client().get("/").text() == "two"));

    etcd.members[0].start_again();
    let ready = || {
        let args = ["backend", "ready", "shop", &*address, "--by", "carol"];
        second.cli(&args).status.success()
    };
    wait_until("it is heard again", ready);
    wait_until("the other follows again", || {
        first.backend(one.address)["order"].is_null()
    });
}

/// Two nodes share etcd, with load through both, and a backend is drained. etcd is emptied by somebody's hand, then it
/// loses its disk, then both nodes are restarted and it loses its disk meanwhile: not one request reaches the drained
/// backend on either, nothing fails, and each time the order is in the store again. What was ended is not brought back.
#[test]
fn an_emptied_store_ends_no_order() {
    let mut etcd = Etcd::start(1);
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let places = ["edge-1", "edge-2"].map(|name| node(name, &etcd, &[&one, &two]));
    let mut nodes = places.each_ref().map(Place::start);
    let drained = one.address.to_string();
    let by = |node: &Evenkeel, backend: &Backend| node.backend(backend.address)["order"]["by"].clone();
    nodes[0].cli_ok(&["backend", "drain", "shop", &drained, "--by", "alice"]);
    nodes[1].cli_ok(&[
        "backend",
        "weight",
        "shop",
        &two.address.to_string(),
        "9",
        "--by",
        "bob",
    ]);
    let both_follow = |nodes: &[Evenkeel; 2]| {
        let follows = |node: &Evenkeel| by(node, &one) == "alice" && by(node, &two) == "bob";
        wait_until("both follow both orders", || nodes.iter().all(follows));
    };
    both_follow(&nodes);
    let is_in_the_store = |etcd: &Etcd, backend: &Backend| {
        let key = format!("/evenkeel/orders/backends/shop/{}", backend.address);
        etcd.etcdctl(&["get", &key, "--print-value-only"])
            .contains("\"by\"")
    };
    let both_are_again = |etcd: &Etcd| {
        let again = || is_in_the_store(etcd, &one) && is_in_the_store(etcd, &two);
        wait_until("both orders are in the store again", again);
    };
    let load = |nodes: &[Evenkeel; 2]| nodes.each_ref().map(|node| Load::start(node.address(), 2));
    let unasked = |loads: [Load; 2], before: usize| {
        for load in loads {
            load.wait_for_more(50);
            load.stop().assert_nothing_failed();
        }
        assert_eq!(one.count(), before, "requests that reached the drained backend");
    };
    let before = one.count();
    let loads = load(&nodes);
    etcd.etcdctl(&["del", "--prefix", "/evenkeel/"]);
    both_are_again(&etcd);
    both_follow(&nodes);
    wait_until("an event tells it on both", || {
        let mut nodes = nodes.iter();
        nodes.all(|node| node.events("orders_kept").len() == 1)
    });
    etcd.members[0].crash();
    etcd.members[0].forget();
    etcd.members[0].start_again();
    both_are_again(&etcd);
    both_follow(&nodes);
    unasked(loads, before);

    etcd.members[0].crash();
    nodes.iter_mut().for_each(Evenkeel::kill);
    etcd.members[0].forget();
    let nodes = places.each_ref().map(Place::start);
    let loads = load(&nodes);
    etcd.members[0].start_again();
    both_are_again(&etcd);
    both_follow(&nodes);
    unasked(loads, before);

    let ready = || {
        let args = ["backend", "ready", "shop", &drained, "--by", "carol"];
        nodes[0].cli(&args).status.success()
    };
    wait_until("it is ended", ready);
    let ended = || nodes.iter().all(|node| by(node, &one).is_null());
    wait_until("both follow", ended);
    etcd.members[0].crash();
    etcd.members[0].forget();
    etcd.members[0].start_again();
    wait_until("the other is in the store again", || is_in_the_store(&etcd, &two));
    assert!(
        ended() && !is_in_the_store(&etcd, &one),
        "what was ended stays so"
    );
}

/// Orders in the file of an earlier version hold from the first start on, are in the store then, and the file is put
/// aside.
#[test]
fn orders_of_an_earlier_version_are_taken_over() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let place = Place::new(&shop(&[&one, &two], QUIET));
    std::fs::create_dir_all(place.data()).unwrap();
    let old = format!(
        r#"{{"version": 1, "overrides": [{{"load_balancer": "shop", "address": "{}", "mode": "drain", "by": "alice", "since": 5}}]}}"#,
        one.address
    );
    let file = place.data().join("overrides.json");
    std::fs::write(&file, old).unwrap();
    let holds = |evenkeel: &Evenkeel| {
        assert_eq!(evenkeel.backend(one.address)["order"]["by"], "alice");
        assert!((0..10).all(|_| evenkeel.client().get("/").text() == "two"));
    };
    let mut evenkeel = place.start();
    holds(&evenkeel);
    wait_until("the file is put aside", || !file.exists());
    assert!(place.data().join("overrides.json.imported").is_file());
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    holds(&evenkeel);
    evenkeel.cli_ok(&["backend", "ready", "shop", &one.address.to_string()]);
    assert!(evenkeel.backend(one.address)["order"].is_null());
}
