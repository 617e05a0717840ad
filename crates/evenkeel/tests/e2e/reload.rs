//! Hot everything: whatever changes, no request fails and no unrelated connection is touched.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::support::{Backend, Client, Evenkeel, Gate, Load, QUIET, free_ip, shop_on, wait_until};

/// A listener address that stays the same over reloads.
fn listen() -> String {
    format!("{}:0", free_ip())
}

/// Pools, algorithms, checks, backends, routes, listeners, load balancers: each is added, changed and removed under
/// load. Not one request fails, and every client keeps its connection.
#[test]
fn every_kind_of_change_under_load() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = backends.each_ref().map(|b| b.address);
    let (main, other) = (listen(), listen());
    let shop = |backends: &[SocketAddr], more: &str| shop_on(&main, backends, more);
    let evenkeel = Evenkeel::start(&shop(&[one, two], QUIET));
    let address = evenkeel.address();
    let load = Load::start(address, 16);
    let changes = [
        ("a backend more", shop(&[one, two, three], QUIET)),
        ("another order", shop(&[three, one, two], QUIET)),
        ("a backend less", shop(&[three, two], QUIET)),
        (
            "another algorithm",
            shop(
                &[three, two],
                &format!("{QUIET}algorithm = \"least_connections\"\n"),
            ),
        ),
        (
            "a hash",
            shop(
                &[three, two],
                &format!("{QUIET}algorithm = \"consistent_hash\"\nhash = {{ key = \"path\" }}\n"),
            ),
        ),
        (
            "a check",
            shop(
                &[three, two],
                "slow_start = 0\nhealth = { interval = \"100ms\" }\n",
            ),
        ),
        (
            "another check",
            shop(
                &[one, two],
                "slow_start = \"1s\"\nhealth = { path = \"/\", interval = \"200ms\" }\n",
            ),
        ),
        ("no check", shop(&[one, two], QUIET)),
        (
            "other timeouts",
            shop(
                &[one, two],
                &format!("{QUIET}timeouts = {{ first_byte = \"10s\" }}\n"),
            ),
        ),
        (
            "a load balancer more",
            format!(
                "{}\n[load_balancers.b]\nlisten = \"{other}\"\nbackend_servers = [\"{three}\"]\n",
                shop(&[one, two], QUIET)
            ),
        ),
        (
            "pools and routes",
            format!(
                "[load_balancers.shop]\nlisten = [\"{main}\", \"{other}\"]\n\
                 routes = [{{ match = {{ path = \"/load\" }}, pool = \"a\" }}, {{ pool = \"b\" }}]\n\
                 [load_balancers.shop.pools.a]\nbackend_servers = [\"{one}\", \"{two}\"]\n\
                 [load_balancers.shop.pools.b]\nbackend_servers = [\"{three}\"]\n"
            ),
        ),
        ("back to the beginning", shop(&[one, two], QUIET)),
    ];
    for (number, (what, config)) in changes.iter().enumerate() {
        evenkeel.reload(config);
        assert_eq!(evenkeel.revision(), number as u64 + 2, "{what}");
        load.wait_for_more(32);
        if *what == "a load balancer more" {
            assert_eq!(
                Client::connect(evenkeel.listener("b", "http")).get("/").text(),
                "three"
            );
        }
        if *what == "pools and routes" {
            let second = evenkeel.listener("shop", "http-2");
            assert_eq!(Client::connect(second).get("/else").text(), "three");
        }
    }
    assert_eq!(evenkeel.address(), address, "the listener was never opened anew");
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 16, "no client lost its connection");
    assert_eq!(report.by_backend.len(), 3, "{:?}", report.by_backend);
}

/// Two hundred reloads under load, each with other backends, another algorithm and other listeners.
#[test]
fn two_hundred_reloads_under_load() {
    const ALGORITHMS: [&str; 6] = [
        "round_robin",
        "least_connections",
        "random",
        "power_of_two",
        "peak_ewma",
        "ip_hash",
    ];
    let backends = ["one", "two", "three"].map(Backend::named);
    let all = backends.each_ref().map(|b| b.address);
    let (main, more) = (listen(), [listen(), listen()]);
    let config = |turn: usize| {
        let some: Vec<SocketAddr> = (0..=turn % 3).map(|i| all[(turn + i) % 3]).collect();
        let idle = "connections = { idle_timeout = \"100ms\" }";
        let algorithm = format!("{QUIET}{idle}\nalgorithm = \"{}\"\n", ALGORITHMS[turn % 6]);
        let shop = shop_on(&main, &some, &algorithm);
        let other = shop_on(&more[turn % 2], &some, QUIET).replace("shop", "other");
        if turn.is_multiple_of(5) {
            shop
        } else {
            format!("{shop}\n{other}")
        }
    };
    let evenkeel = Evenkeel::start(&config(0));
    let files = evenkeel.open_files();
    let load = Load::start(evenkeel.address(), 8);
    for turn in 1..=200 {
        evenkeel.reload(&config(turn));
        load.wait_for_more(4);
    }
    load.wait_for_more(16);
    assert_eq!(evenkeel.revision(), 201);
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 8);
    evenkeel.reload(&config(0));
    wait_until("nothing is left open", || evenkeel.open_files() <= files + 3);
}

/// A listener that is removed finishes what runs on it, then nobody answers there; the other one notices nothing.
#[test]
fn a_removed_listener_finishes_what_runs() {
    let gate = Gate::default();
    let go = gate.clone();
    let one = Backend::answering(move |request| {
        if request.target() == "/slow" {
            go.pass();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let (stays, goes) = (listen(), listen());
    let config = |listen: &str| {
        format!(
            "[load_balancers.shop]\nlisten = [{listen}]\nbackend_servers = [\"{}\"]\n{QUIET}",
            one.address
        )
    };
    let evenkeel = Evenkeel::start(&config(&format!("\"{stays}\", \"{goes}\"")));
    let (kept, gone) = (
        evenkeel.listener("shop", "http"),
        evenkeel.listener("shop", "http-2"),
    );
    let mut bystander = Client::connect(kept);
    assert_eq!(bystander.get("/").status(), 200);
    let (mut running, mut idle) = (Client::connect(gone), Client::connect(gone));
    assert_eq!(idle.get("/").status(), 200);
    running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow request is at the backend", || gate.came() == 1);

    evenkeel.reload(&config(&format!("\"{stays}\"")));
    wait_until("nobody listens there", || Client::refused(gone));
    gate.open();
    let answer = running.response();
    assert!(answer.text() == "ok" && answer.closes(), "{}", answer.head);
    assert!(running.is_ended());
    assert!(idle.is_ended(), "an idle connection of a removed listener ends");
    assert_eq!(bystander.get("/").status(), 200);
    wait_until("it is told", || {
        let events = evenkeel.events("listener_closed");
        events.iter().any(|e| e.contains("http-2"))
    });
}

/// A running request keeps the backend it was given, also when that leaves the config.
#[test]
fn a_running_request_outlives_its_backend_in_the_config() {
    let gate = Gate::default();
    let go = gate.clone();
    let old = Backend::answering(move |_| {
        go.pass();
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold".to_vec()
    });
    let new = Backend::named("new");
    let listen = listen();
    let evenkeel = Evenkeel::start(&shop_on(&listen, &[old.address], QUIET));
    let mut running = evenkeel.client();
    running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request is at the backend", || gate.came() == 1);
    evenkeel.reload(&shop_on(&listen, &[new.address], QUIET));
    assert_eq!(evenkeel.client().get("/").text(), "new");
    gate.open();
    assert_eq!(running.response().text(), "old");
    assert_eq!(
        running.get("/").text(),
        "new",
        "its next one is served by the new config"
    );
    wait_until("the old backend is left alone", || old.open_connections() == 0);
}

/// A bad file changes nothing, and log, status, events and metrics say so; a good one afterwards is taken.
#[test]
fn a_bad_file_is_refused_and_changes_nothing() {
    let one = Backend::named("one");
    let listen = listen();
    let good = shop_on(&listen, &[one.address], QUIET);
    let evenkeel = Evenkeel::start(&good);
    let mut client = evenkeel.client();
    evenkeel.wait_for_metric("evenkeel_config_last_reload_successful", &[], 1.0);
    let bad = good.replace("backend_servers", "backend_server") + "algorithm = \"fastest\"\n";
    let answer = evenkeel.try_reload(&bad);
    assert_eq!(answer.status(), 422, "{}", answer.text());
    for needed in ["reload_refused", "backend_server", "did you mean", "fastest"] {
        assert!(answer.text().contains(needed), "{needed}: {}", answer.text());
    }
    assert_eq!(client.get("/").text(), "one");
    let status = evenkeel.status();
    assert_eq!(
        (
            &status["config"]["revision"],
            &status["config"]["last_reload"]["ok"]
        ),
        (&1.into(), &false.into())
    );
    assert!(
        status["config"]["last_reload"]["messages"]
            .to_string()
            .contains("fastest"),
        "{status}"
    );
    assert_eq!(evenkeel.events("reload_refused").len(), 1);
    let metrics = evenkeel.metrics();
    assert_eq!(metrics.sum("evenkeel_config_last_reload_successful", &[]), 0.0);
    assert_eq!(
        metrics.sum("evenkeel_config_reloads_total", &[("result", "refused")]),
        1.0
    );
    assert_eq!(metrics.sum("evenkeel_config_revision", &[]), 1.0);
    wait_until("the log has every error", || evenkeel.log().contains("fastest"));
    let output = evenkeel.cli(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("fastest") && said.contains("evenkeel.toml:"),
        "{said}"
    );
    assert!(evenkeel.cli_ok(&["status"]).contains("REFUSED"));

    evenkeel.reload(&(good.clone() + "algorithm = \"random\"\n"));
    assert_eq!(evenkeel.revision(), 2);
    evenkeel.wait_for_metric("evenkeel_config_last_reload_successful", &[], 1.0);
    assert_eq!(client.get("/").text(), "one");
}

/// A new listener on an address that another process has: nothing of the change is taken.
#[test]
fn a_listener_that_cannot_be_opened_refuses_the_whole_change() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let taken = std::net::TcpListener::bind((free_ip(), 0)).unwrap();
    let listen = listen();
    let evenkeel = Evenkeel::start(&shop_on(&listen, &[one.address], QUIET));
    let change = format!(
        "{}\n[load_balancers.b]\nlisten = \"{}\"\nbackend_servers = [\"{}\"]\n",
        shop_on(&listen, &[two.address], QUIET),
        taken.local_addr().unwrap(),
        two.address
    );
    let answer = evenkeel.try_reload(&change);
    assert_eq!(answer.status(), 422, "{}", answer.text());
    assert!(
        answer.text().contains("another process listens there"),
        "{}",
        answer.text()
    );
    assert_eq!(evenkeel.client().get("/").text(), "one");
    drop(taken);
    assert_eq!(evenkeel.post("/api/v1/reload", "").status(), 200);
    assert_eq!(
        Client::connect(evenkeel.listener("shop", "http")).get("/").text(),
        "two"
    );
    assert_eq!(
        Client::connect(evenkeel.listener("b", "http")).get("/").text(),
        "two"
    );
}

/// SIGHUP reads the file at once; so does a changed file by itself, replaced or written in place.
#[test]
fn sighup_and_a_changed_file() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let listen = listen();
    let config = |n: usize| shop_on(&listen, &[backends[n].address], QUIET);
    let evenkeel = Evenkeel::start(&config(0));
    let mut client = evenkeel.client();
    evenkeel.place().write(&config(1));
    evenkeel.signal(Signal::SIGHUP);
    wait_until("SIGHUP is obeyed", || client.get("/").text() == "two");
    evenkeel.place().write(&config(2));
    wait_until("the renamed file is seen", || client.get("/").text() == "three");
    std::fs::write(evenkeel.place().config(), config(0)).unwrap();
    wait_until("the file written in place is seen", || {
        client.get("/").text() == "one"
    });
    wait_until("it is told", || evenkeel.revision() == 4);
    evenkeel.signal(Signal::SIGHUP);
    wait_until("the same file again is no new revision", || {
        evenkeel.metric("evenkeel_config_reloads_total", &[("result", "ok")]) >= 4.0
    });
    assert_eq!(evenkeel.revision(), 4);
    std::fs::remove_file(evenkeel.place().config()).unwrap();
    evenkeel.signal(Signal::SIGHUP);
    wait_until("a file that is gone is told", || {
        !evenkeel.events("reload_refused").is_empty()
    });
    assert_eq!(client.get("/").text(), "one");
}

/// Health and orders survive a reload that does not concern them.
#[test]
fn what_is_known_survives_a_reload() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    two.kill();
    let listen = listen();
    let health = "health = { interval = \"2s\", fast_interval = \"50ms\", fall = 1, rise = 1 }\n";
    let config = |more: &str| shop_on(&listen, &[one.address, two.address], &format!("{health}{more}"));
    let evenkeel = Evenkeel::start(&config("slow_start = 0\n"));
    evenkeel.wait_for_state(two.address, "down");
    wait_until("the other is up", || {
        evenkeel.backend(one.address)["health"] == "up"
    });
    evenkeel.cli_ok(&["backend", "weight", "shop", &one.address.to_string(), "7"]);
    let before = evenkeel.backend(two.address);
    evenkeel.reload(&config("slow_start = 0\nalgorithm = \"random\"\n"));
    let after = evenkeel.backend(two.address);
    for key in ["health", "health_reason", "health_since", "eligibility"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(evenkeel.backend(one.address)["weight"], 7);
}
