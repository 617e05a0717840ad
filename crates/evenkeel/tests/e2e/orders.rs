//! Operators' orders: obeyed at once, kept over a restart, forgotten in time.

use std::net::SocketAddr;

use crate::support::{
    Backend, Evenkeel, Gate, Load, Nginx, Place, QUIET, free_ip, program, shop, shop_on, wait_until,
};

fn order(evenkeel: &Evenkeel, action: &str, backend: SocketAddr, more: &[&str]) -> String {
    let address = backend.to_string();
    let mut args = vec!["backend", action, "shop", &address];
    args.extend(more);
    evenkeel.cli_ok(&args)
}

/// A drained backend gets no new requests, finishes what runs, and keeps no idle connection; `ready` ends it.
#[test]
fn drain() {
    let gate = Gate::default();
    let go = gate.clone();
    let one = Backend::answering(move |request| {
        if request.target() == "/slow" {
            go.pass();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none".to_vec()
    });
    let two = Backend::named("two");
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], QUIET));
    let mut running = evenkeel.client();
    for _ in 0..2 {
        running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("one slow request is at the backend", || gate.came() == 1);
    let said = order(&evenkeel, "drain", one.address, &["--by", "alice"]);
    assert!(said.contains("drain by alice"), "{said}");
    let status = evenkeel.backend(one.address);
    assert_eq!(
        (&status["eligibility"], &status["mode"]),
        (&"draining".into(), &"drain".into())
    );
    assert_eq!(status["order"]["by"], "alice");
    assert!(status["order"]["since"].as_u64().unwrap() > 0);
    assert_eq!(status["in_flight"], 1);
    let mut client = evenkeel.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "two");
    }
    gate.open();
    let mut answers = [
        running.response().text().to_owned(),
        running.response().text().to_owned(),
    ];
    answers.sort();
    assert_eq!(answers, ["one", "two"], "what ran was finished");
    wait_until("no connection is kept", || one.open_connections() == 0);
    evenkeel.wait_for_metric("evenkeel_backend_state", &[("state", "draining")], 1.0);
    let table = evenkeel.cli_ok(&["status"]);
    assert!(
        table.contains("draining") && table.contains("drain by alice"),
        "{table}"
    );
    order(&evenkeel, "ready", one.address, &[]);
    wait_until("it is asked again", || client.get("/").text() == "one");
    assert_eq!(evenkeel.backend(one.address)["order"], serde_json::Value::Null);
}

/// Maintenance stops the checks too.
#[test]
fn maintenance() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let more = "slow_start = 0\nhealth = { path = \"/h\", interval = \"100ms\", fast_interval = \"50ms\" }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], more));
    wait_until("both are checked", || one.count() > 2 && two.count() > 2);
    order(&evenkeel, "maintenance", one.address, &[]);
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "maintenance");
    // One may have been on its way.
    wait_until("its connections are gone", || one.open_connections() == 0);
    let (before, other) = (one.count(), two.count());
    wait_until("the other is checked on", || two.count() > other + 5);
    assert!(one.count() <= before + 1, "{before} {}", one.count());
    order(&evenkeel, "ready", one.address, &[]);
    wait_until("it is checked again", || one.count() > before + 1);
}

/// Another weight than the configured one, in effect at once.
#[test]
fn weight() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], QUIET));
    order(&evenkeel, "weight", one.address, &["3"]);
    assert_eq!(evenkeel.backend(one.address)["weight"], 3);
    let labels = [("backend", &*one.address.to_string())];
    assert_eq!(evenkeel.metric("evenkeel_backend_weight", &labels), 3.0);
    let mut client = evenkeel.client();
    let ones = (0..40).filter(|_| client.get("/").text() == "one").count();
    assert_eq!(ones, 30);
    order(&evenkeel, "weight", one.address, &["0"]);
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "zero_weight");
    assert!((0..10).all(|_| client.get("/").text() == "two"));
}

/// An order is on disk before it is acknowledged: `kill -9` and a start later it holds, with who and since when.
#[test]
fn orders_survive_kill_and_restart() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let place = Place::new(&shop(&[&one, &two], QUIET));
    let mut evenkeel = place.start();
    order(&evenkeel, "drain", one.address, &["--by", "alice"]);
    order(&evenkeel, "weight", two.address, &["9", "--for", "1h"]);
    let before = (
        evenkeel.backend(one.address)["order"].clone(),
        evenkeel.backend(two.address)["order"].clone(),
    );
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    let after = (
        evenkeel.backend(one.address)["order"].clone(),
        evenkeel.backend(two.address)["order"].clone(),
    );
    assert_eq!(before, after);
    assert!(after.1["expires"].as_u64() > after.1["since"].as_u64());
    let mut client = evenkeel.client();
    assert!((0..10).all(|_| client.get("/").text() == "two"));
}

/// An order is signed with the user's name, by the system where the environment tells none, as in a container.
#[test]
fn an_order_of_a_user_without_a_name_in_the_environment() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let address = one.address.to_string();
    let signed = |environment: &[(&str, &str)]| {
        let mut command = program();
        for name in ["SUDO_USER", "USER", "LOGNAME"] {
            command.env_remove(name);
        }
        let output = command
            .args(["backend", "drain", "shop", &address])
            .args(["--admin", &evenkeel.admin.to_string()])
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let by = &evenkeel.backend(one.address)["order"]["by"];
        by.as_str().unwrap().to_owned()
    };
    assert_eq!(signed(&[("USER", ""), ("LOGNAME", "bob")]), "bob");
    let me = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(me).unwrap();
    assert_eq!(
        signed(&[]),
        user.map_or_else(|| format!("uid {me}"), |user| user.name)
    );
}

/// `--for`: the order ends by itself, also when the process was not running when its time came.
#[test]
fn orders_end_in_time() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let place = Place::new(&shop(&[&one, &two], QUIET));
    let mut evenkeel = place.start();
    // Long enough to be seen after a slow disk and a slow command.
    order(&evenkeel, "drain", one.address, &["--for", "6s"]);
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "draining");
    evenkeel.wait_for_state(one.address, "eligible");
    wait_until("its end is an event too", || evenkeel.events("order").len() >= 2);
    order(&evenkeel, "drain", two.address, &["--for", "1s"]);
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    evenkeel.wait_for_state(two.address, "eligible");
}

/// Drain, stop, start, ready: all three servers are restarted one after the other under load, and nothing fails.
#[test]
fn a_rolling_restart_under_load() {
    let servers = ["one", "two", "three"].map(Nginx::start);
    let addresses = servers.each_ref().map(|s| s.address);
    let more = "slow_start = \"1s\"\nhealth = { interval = \"200ms\", fast_interval = \"50ms\", rise = 1, fall = 1 }\n";
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &addresses, more));
    let load = Load::start(evenkeel.address(), 16);
    for server in &servers {
        load.wait_for_more(100);
        order(&evenkeel, "drain", server.address, &[]);
        wait_until("it has finished", || {
            evenkeel.backend(server.address)["in_flight"] == 0
        });
        server.kill();
        load.wait_for_more(50);
        server.restart();
        wait_until("it is up", || evenkeel.backend(server.address)["health"] == "up");
        order(&evenkeel, "ready", server.address, &[]);
        evenkeel.wait_for_state(server.address, "eligible");
    }
    load.wait_for_more(100);
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 16);
    assert_eq!(evenkeel.metric("evenkeel_request_failures_total", &[]), 0.0);
    assert_eq!(
        evenkeel.metric("evenkeel_pool_retries_total", &[]),
        0.0,
        "a drained server meets no request at all"
    );
}

/// Orders for what does not exist, and that make no sense: refused with what there is.
#[test]
fn wrong_orders_say_what_is_known() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let address = one.address.to_string();
    let refused = |args: &[&str]| {
        let output = evenkeel.cli(args);
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = refused(&["backend", "drain", "shp", &address]);
    assert!(
        code == 1 && said.contains("`shp`") && said.contains("`shop`"),
        "{code} {said}"
    );
    let (code, said) = refused(&["backend", "drain", "shop", "10.9.9.9:1"]);
    assert!(
        code == 1 && said.contains("10.9.9.9:1") && said.contains(&address),
        "{code} {said}"
    );
    let (code, said) = refused(&["backend", "drain", "shop", &address, "--for", "soon"]);
    assert!(code == 1 && said.contains("soon"), "{code} {said}");
    let (code, _) = refused(&["backend", "weight", "shop", &address, "1001"]);
    assert_eq!(code, 2);
    assert_eq!(evenkeel.backend(one.address)["order"], serde_json::Value::Null);
}
