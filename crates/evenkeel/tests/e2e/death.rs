//! Death of a backend: nobody notices, and everybody can read why it was taken out and when it came back.

use crate::support::{Backend, Evenkeel, Load, Nginx, free_ip, shop, shop_on, wait_until};

/// Checks that decide quickly, and a slow start long enough to be seen.
const QUICK: &str = "slow_start = \"5s\"\n\
    health = { interval = \"100ms\", fast_interval = \"50ms\", timeout = \"100ms\", rise = 2, fall = 2 }\n";
/// Ejection by a few failures; checks are no help.
const EJECTING: &str = "slow_start = 0\nhealth = false\n\
    passive = { consecutive_failures = 3, ejection_time = \"300ms\" }\n";

/// `kill -9` of one of three nginx under load, then its restart: not one request fails, it is marked down with a
/// reason in status, events and metrics, and comes back with a slow start.
#[test]
fn a_killed_server_is_not_noticed_by_any_client() {
    let servers = ["one", "two", "three"].map(Nginx::start);
    let addresses = servers.each_ref().map(|s| s.address);
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &addresses, QUICK));
    let dead = servers[1].address;
    let label = dead.to_string();
    wait_until("it is up", || evenkeel.backend(dead)["health"] == "up");
    let load = Load::start(evenkeel.address(), 32);
    load.wait_for_more(300);

    servers[1].kill();
    evenkeel.wait_for_state(dead, "down");
    load.wait_for_more(300);
    let status = evenkeel.backend(dead);
    assert_eq!(status["health"], "down");
    assert_eq!(status["health_reason"], "connection refused");
    assert_eq!(status["effective_weight"], 0.0);
    let down = evenkeel.events("backend_down");
    assert!(
        down.iter()
            .any(|e| e.contains(&label) && e.contains("connection refused")),
        "{down:?}"
    );
    let metrics = evenkeel.metrics();
    assert_eq!(metrics.sum("evenkeel_backend_up", &[("backend", &label)]), 0.0);
    assert_eq!(
        metrics.sum(
            "evenkeel_backend_state",
            &[("backend", &label), ("state", "down")]
        ),
        1.0
    );
    assert_eq!(
        metrics.sum(
            "evenkeel_backend_state_changes_total",
            &[("backend", &label), ("to", "down")]
        ),
        1.0
    );
    assert_eq!(metrics.sum("evenkeel_backend_eligible", &[]), 2.0);

    servers[1].restart();
    evenkeel.wait_for_state(dead, "eligible");
    wait_until("it ramps up", || {
        let weight = evenkeel.backend(dead)["effective_weight"].as_f64().unwrap();
        (0.05..0.95).contains(&weight)
    });
    wait_until("its slow start is over", || {
        evenkeel.backend(dead)["effective_weight"] == 1.0
    });
    load.wait_for_more(300);
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 32, "no client lost its connection");
    assert!(report.by_backend["two"] > 0, "{:?}", report.by_backend);
    assert!(evenkeel.events("backend_up").iter().any(|e| e.contains(&label)));
}

/// Every connection of a backend is reset under load, again and again, while it goes on listening: each request in
/// flight is tried elsewhere, and nothing fails.
#[test]
fn resets_of_connections_in_flight_are_not_noticed() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = &backends;
    // However long it takes until it listens again, what it refuses meanwhile may be tried elsewhere.
    let more = "health = false\npassive = false\nslow_start = 0\nretries = { budget = \"100%\" }\n";
    let evenkeel = Evenkeel::start(&shop(&[one, two, three], more));
    let load = Load::start(evenkeel.address(), 32);
    for _ in 0..5 {
        load.wait_for_more(100);
        two.kill_with_resets();
        two.start();
        load.wait_for_more(100);
        two.close_all();
    }
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 32);
}

/// Without any check: a dead backend is ejected by the requests that met it, with the reason everywhere; ejection
/// ends by itself, and a backend that lives again is used again.
#[test]
fn a_dead_server_is_ejected_by_what_requests_meet() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], EJECTING));
    let label = two.address.to_string();
    two.kill();
    let mut client = evenkeel.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "one");
    }
    wait_until("the ejection is reported", || {
        !evenkeel.events("backend_ejected").is_empty()
    });
    let ejected = evenkeel.events("backend_ejected");
    assert!(ejected[0].contains(&label), "{ejected:?}");
    assert!(
        ejected[0].contains("3 failures in a row (last: connection refused)"),
        "{ejected:?}"
    );
    assert!(evenkeel.metric("evenkeel_backend_ejections_total", &[("backend", &label)]) >= 1.0);
    assert_eq!(evenkeel.backend(two.address)["health"], "unchecked");
    two.start();
    wait_until("it serves again", || client.get("/").text() == "two");
    wait_until("its return is reported", || {
        !evenkeel.events("backend_returned").is_empty()
    });
}

/// A backend that begins every response and breaks it off does not count as well because its heads are fine.
#[test]
fn a_server_that_breaks_off_its_responses_is_ejected() {
    let good = Backend::named("good");
    let broken = Backend::scripted(|conversation| {
        conversation.head();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    });
    let evenkeel = Evenkeel::start(&shop(&[&good, &broken], EJECTING));
    wait_until("it is ejected", || {
        let _ = evenkeel
            .client()
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .try_response();
        !evenkeel.events("backend_ejected").is_empty()
    });
    let ejected = evenkeel.events("backend_ejected");
    assert!(ejected[0].contains("closed within a response"), "{ejected:?}");
}

/// The last backend that takes requests is never ejected.
#[test]
fn the_last_one_is_never_ejected() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let more = "slow_start = 0\nhealth = false\npassive = { consecutive_failures = 1, ejection_time = \"1h\", max_ejected = \"100%\" }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], more));
    one.kill();
    two.kill();
    let mut client = evenkeel.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").reason(), "connect_refused");
    }
    wait_until("one is ejected", || {
        !evenkeel.events("backend_ejected").is_empty()
    });
    assert_eq!(evenkeel.events("backend_ejected").len(), 1);
    one.start();
    two.start();
    assert_eq!(client.get("/").status(), 200);
}

/// A backend that answers 503 to its check is down with that reason; it keeps its connections until it is up.
#[test]
fn a_failing_check_says_what_failed() {
    let one = Backend::answering(|request| match request.target() {
        "/health" => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none".to_vec(),
    });
    let two = Backend::answering(|request| match request.target() {
        "/health" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnever".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo".to_vec(),
    });
    let three = Backend::scripted(crate::support::Conversation::hold);
    let four = Backend::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready".to_vec());
    let more = "slow_start = 0\nhealth = { path = \"/health\", body_contains = \"ready\", interval = \"3s\", \
                fast_interval = \"100ms\", timeout = \"3s\", rise = 1, fall = 1 }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one, &two, &three, &four], more));
    for (backend, reason) in [
        (&one, "status 503"),
        (&two, "body lacks \"ready\""),
        (&three, "timeout after 3s"),
    ] {
        wait_until(reason, || {
            let status = evenkeel.backend(backend.address);
            status["eligibility"] == "down" && status["health_reason"] == reason
        });
    }
    wait_until("four is up", || evenkeel.backend(four.address)["health"] == "up");
    let mut client = evenkeel.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "ready");
    }
    let check = one.last();
    assert_eq!(check.line, "GET /health HTTP/1.1");
    assert_eq!(check.field("host"), Some(one.address.to_string().as_str()));
}
