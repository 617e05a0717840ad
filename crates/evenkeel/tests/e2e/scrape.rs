//! Metrics: complete, exact, and with labels that no client can make.

use std::collections::BTreeSet;
use std::path::Path;

use crate::members::{TOKEN, hash};
use crate::support::{Authority, Backend, Client, Evenkeel, Gate, Load, QUIET, shop, wait_until};

/// Names in the tables of the reference.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let names = text
        .lines()
        .filter_map(|l| l.strip_prefix("| `"))
        .filter_map(|l| l.split('`').next());
    names.map(str::to_owned).collect()
}

/// A second load balancer that speaks TLS on both sides.
fn secure(backend: &Backend, authority: &Authority) -> String {
    authority.issue("shop", &["localhost"]);
    let file = |name: &str| authority.file(name);
    std::fs::write(file("ocsp"), authority.ocsp_response("shop", 4_000_000_000)).unwrap();
    format!(
        r#"
[load_balancers.secure]
backend_servers = ["{}"]
tls = {{ insecure = true }}
{QUIET}
[[load_balancers.secure.listeners]]
address = "127.0.0.1:0"
protocol = "https"
[[load_balancers.secure.listeners.tls.certificates]]
cert = "{}"
key = "{}"
ocsp = "{}"
"#,
        backend.address,
        file("shop.pem"),
        file("shop.key"),
        file("ocsp"),
    )
}

/// A scrape after some of everything has every name of the reference and no other.
#[test]
fn the_scrape_is_what_the_reference_says() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    two.kill();
    let more = "sticky = { client_address = true }\nroutes = [{ pool = \"default\", rate_limit = { requests = 1000 }, buffer_requests = {} }]\npassive = { consecutive_failures = 1 }\nmax_requests = 100\ncircuit_breaker.window = \"10s\"\nhealth = { interval = \"100ms\", fast_interval = \"50ms\" }\ndiscovery = { file = \"/nonexistent/members\" }\nheartbeat = { token_hash = \"HASH\", timeout = \"1h\" }\n[load_balancers.named.discovery.dns]\nname = \"shop.test\"\nport = 1\nresolvers = \"127.0.0.1:1\"\n[[alerts.webhooks]]\nurl = \"http://127.0.0.1:1/\"\n";
    let authority = Authority::new();
    let evenkeel =
        Evenkeel::start(&(shop(&[&one, &two], &more.replace("HASH", &hash())) + &secure(&one, &authority)));
    evenkeel.wait_for_state(two.address, "down");
    let shop = evenkeel.listener("shop", "http");
    assert_eq!(Client::connect(shop).get("/").status(), 200);
    let heartbeat = format!(
        "POST /api/v1/load-balancers/shop/pools/default/heartbeats/{}",
        one.address
    );
    let heartbeat =
        format!("{heartbeat} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(Client::connect(evenkeel.admin).ask(&heartbeat).status(), 204);
    assert_eq!(Client::connect(shop).ask("GET / HTTP/1.1\r\n\r\n").status(), 400);
    assert_eq!(evenkeel.cli(&["reload"]).status.code(), Some(0));
    evenkeel.wait_for_metric("evenkeel_requests_total", &[("load_balancer", "shop")], 2.0);
    wait_until("members were looked for", || {
        let metrics = evenkeel.metrics();
        metrics
            .series()
            .any(|(name, ..)| name == "evenkeel_pool_source_stale")
    });
    let metrics = evenkeel.metrics();
    let mut seen = BTreeSet::new();
    for line in metrics.text().lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        seen.insert(format!("{name}{suffix}"));
    }
    assert_eq!(seen, documented());
    assert!(metrics.text().ends_with("# EOF\n"));
    // Each family has a series, too: a name without one would be promised and never kept.
    for name in &seen {
        let has = metrics
            .series()
            .any(|(series, ..)| series == name || series == format!("{name}_count"));
        assert!(has, "{name} has no series");
    }
    let types = metrics
        .text()
        .lines()
        .filter(|l| l.starts_with("# TYPE "))
        .count();
    let helps = metrics
        .text()
        .lines()
        .filter(|l| l.starts_with("# HELP "))
        .count();
    assert_eq!((types, helps), (seen.len(), seen.len()));
}

/// A known number of requests over many connections and two shards: every count is exact.
#[test]
fn counts_are_exact_over_shards() {
    let backends = ["one", "two"].map(Backend::named);
    let config = format!(
        "[node]\nthreads = 2\n{}",
        shop(&[&backends[0], &backends[1]], QUIET)
    );
    let evenkeel = Evenkeel::start(&config);
    let load = Load::start(evenkeel.address(), 12);
    load.wait_for_more(400);
    let report = load.stop();
    report.assert_nothing_failed();
    for _ in 0..7 {
        assert_eq!(
            evenkeel
                .client()
                .ask("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n")
                .status(),
            400
        );
    }
    let total = report.ok as f64;
    wait_until("all connections have ended", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) == 0.0
    });
    let metrics = evenkeel.metrics();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("evenkeel_requests_total", &[("class", "2xx")]), total);
    assert_eq!(sum("evenkeel_requests_total", &[("class", "4xx")]), 7.0);
    assert_eq!(sum("evenkeel_requests_total", &[]), total + 7.0);
    assert_eq!(
        sum("evenkeel_request_failures_total", &[("reason", "bad_path")]),
        7.0
    );
    assert_eq!(sum("evenkeel_backend_requests_total", &[("class", "2xx")]), total);
    for (backend, name) in backends.iter().zip(["one", "two"]) {
        let label = backend.address.to_string();
        assert_eq!(
            sum("evenkeel_backend_requests_total", &[("backend", &label)]),
            report.by_backend[name] as f64
        );
        assert_eq!(backend.count() as u64, report.by_backend[name]);
    }
    let (one, two) = (report.by_backend["one"], report.by_backend["two"]);
    assert!(
        one.abs_diff(two) <= 1,
        "turns are exact over shards too: {one} {two}"
    );
    assert_eq!(sum("evenkeel_backend_first_byte_seconds_count", &[]), total);
    assert_eq!(sum("evenkeel_backend_request_seconds_count", &[]), total);
    let opened = sum("evenkeel_backend_connections_opened_total", &[]);
    assert_eq!(
        opened + sum("evenkeel_backend_connections_reused_total", &[]),
        total
    );
    assert_eq!(opened, backends.iter().map(Backend::accepted).sum::<u64>() as f64);
    assert_eq!(
        sum("evenkeel_listener_accepted_total", &[]),
        (report.connections + 7) as f64
    );
    assert_eq!(sum("evenkeel_backend_in_flight", &[]), 0.0);
}

/// Whatever clients send, they make no new series.
#[test]
fn no_client_can_make_a_series() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(
        client
            .ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            .status(),
        200
    );
    evenkeel.client().ask("GET / HTTP/1.1\r\n\r\n");
    // What is counted at the end of a request may come after its response.
    evenkeel.wait_for_metric("evenkeel_requests_total", &[], 3.0);
    evenkeel.wait_for_metric("evenkeel_request_duration_seconds_count", &[], 3.0);
    let before = evenkeel.metrics().identities();
    for n in 0..50 {
        client.ask(&format!(
            "M{n} /path{n}?q{n} HTTP/1.1\r\nHost: host{n}.test\r\nX-H{n}: v\r\nUser-Agent: u{n}\r\n\r\n"
        ));
        evenkeel
            .client()
            .ask(&format!("GET /{n} HTTP/1.1\r\nX: {n}\r\n\r\n"));
    }
    let after = evenkeel.metrics().identities();
    assert_eq!(before, after);
}

/// Gauges go up and come down again.
#[test]
fn gauges_follow() {
    let gate = Gate::default();
    let go = gate.clone();
    let one = Backend::answering(move |_| {
        go.pass();
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut clients: Vec<_> = (0..4).map(|_| evenkeel.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("all are at the backend", || gate.came() == 4);
    let metrics = evenkeel.metrics();
    assert_eq!(metrics.sum("evenkeel_backend_in_flight", &[]), 4.0);
    assert_eq!(metrics.sum("evenkeel_listener_connections", &[]), 4.0);
    assert_eq!(
        metrics.sum("evenkeel_open_tcp_connections", &[("side", "client")]),
        4.0
    );
    assert_eq!(
        metrics.sum("evenkeel_open_tcp_connections", &[("side", "backend")]),
        4.0
    );
    assert!(metrics.sum("process_open_fds", &[]) > 8.0);
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 1_000_000.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    drop(clients);
    wait_until("in flight is none", || {
        evenkeel.metric("evenkeel_backend_in_flight", &[]) == 0.0
    });
    evenkeel.wait_for_metric("evenkeel_backend_connections_idle", &[], 4.0);
    wait_until("the clients are gone", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) == 0.0
    });
}

/// A backend that leaves the config takes its series along.
#[test]
fn what_leaves_the_config_leaves_the_metrics() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let config = shop(&[&one, &two], QUIET);
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    assert_eq!((client.get("/").status(), client.get("/").status()), (200, 200));
    let label = two.address.to_string();
    assert!(evenkeel.metrics().text().contains(&label));
    evenkeel.reload(&config.replace(&format!(", \"{label}\""), ""));
    wait_until("its series are gone", || {
        !evenkeel.metrics().text().contains(&label)
    });
}

/// A request that could not even be read is in every count that the others are in, with its bytes.
#[test]
fn what_is_refused_unread_is_counted_like_everything_else() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let request = "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = evenkeel.client();
    client.send(request);
    let answer = client.response();
    assert_eq!((answer.status(), answer.reason()), (400, "bad_request_line"));
    let of = [("load_balancer", "shop")];
    wait_until("it is counted", || {
        evenkeel.metric("evenkeel_requests_total", &of) == 1.0
    });
    for (name, labels, value) in [
        ("evenkeel_requests_total", ("class", "4xx"), 1),
        (
            "evenkeel_request_failures_total",
            ("reason", "bad_request_line"),
            1,
        ),
        ("evenkeel_request_duration_seconds_count", of[0], 1),
        ("evenkeel_received_bytes_total", of[0], request.len()),
        (
            "evenkeel_sent_bytes_total",
            of[0],
            answer.head.len() + 4 + answer.body.len(),
        ),
        ("evenkeel_route_requests_total", of[0], 0),
    ] {
        evenkeel.wait_for_metric(name, &[labels], value as f64);
    }
}

/// Scenario: a pool of two backends on a node that has room for the series of one. The pool's requests are counted
/// together, none is lost, and the states are told by number; with room for two, after a reload, each has its own.
#[test]
fn backends_without_room_are_summed_by_pool() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let text = |room: usize| {
        format!(
            "[admin]\nmetrics_backends = {room}\n{}",
            shop(&[&one, &two], QUIET)
        )
    };
    let evenkeel = Evenkeel::start(&text(1));
    assert!((0..10).all(|_| evenkeel.client().get("/").status() == 200));
    let requests = "evenkeel_backend_requests_total";
    evenkeel.wait_for_metric(requests, &[("backend", "all"), ("class", "2xx")], 10.0);
    let address = one.address.to_string();
    let timed = "evenkeel_backend_request_seconds_count";
    evenkeel.wait_for_metric(timed, &[("backend", "all")], 10.0);
    let metrics = evenkeel.metrics();
    assert!(!metrics.text().contains(&address), "{}", metrics.text());
    assert_eq!(metrics.sum("evenkeel_metrics_summed_backends", &[]), 2.0);
    let eligible = [("pool", "default"), ("state", "eligible")];
    assert_eq!(metrics.sum("evenkeel_pool_backends", &eligible), 2.0);
    let alone = evenkeel.get("/metrics?load_balancer=shop");
    assert!(
        alone.text().contains("evenkeel_listener_open"),
        "{}",
        alone.text()
    );
    assert_eq!(evenkeel.get("/metrics?load_balancer=blog").status(), 404);
    evenkeel.reload(&text(2));
    evenkeel.wait_for_metric(requests, &[("class", "2xx")], 10.0);
    assert_eq!(evenkeel.metric(requests, &[("backend", "all")]), 0.0);
    assert!(evenkeel.metric(requests, &[("backend", &address)]) > 0.0);
}

/// Scenario: one of three backends of a pool without room leaves it. No counter and no histogram of all falls.
#[test]
fn a_sum_does_not_fall_when_a_backend_leaves() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = &backends;
    let text = |backends: &[&Backend]| format!("[admin]\nmetrics_backends = 1\n{}", shop(backends, QUIET));
    let evenkeel = Evenkeel::start(&text(&[one, two, three]));
    assert!((0..12).all(|_| evenkeel.client().get("/").status() == 200));
    let all = [("backend", "all")];
    evenkeel.wait_for_metric("evenkeel_backend_request_seconds_count", &all, 12.0);
    let series = || -> Vec<(String, f64)> {
        let metrics = evenkeel.metrics();
        let lines = metrics
            .text()
            .lines()
            .filter(|line| line.contains("backend=\"all\""));
        let counts = lines.filter(|line| {
            let name = line.split('{').next().unwrap();
            ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        let parts = counts.map(|line| line.rsplit_once(' ').unwrap());
        parts
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    };
    let before = series();
    assert!(
        before.iter().filter(|(_, value)| *value > 0.0).count() > 10,
        "{before:?}"
    );
    evenkeel.reload(&text(&[one, two]));
    evenkeel.wait_for_metric("evenkeel_metrics_summed_backends", &[], 2.0);
    let after: std::collections::HashMap<String, f64> = series().into_iter().collect();
    let fallen = before
        .iter()
        .filter(|(series, value)| after.get(series).is_none_or(|now| now < value));
    let fallen: Vec<_> = fallen.collect();
    assert!(fallen.is_empty(), "{fallen:?}");
}
