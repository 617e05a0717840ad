//! The faults of `faults.rs` over every mix: clients of HTTP/1.1 and HTTP/2, in clear and over TLS, and backends of both
//! that do wrong in every way they can, from the handshake to the last byte. What must hold is the same: a response is
//! that of its request or visibly broken, a request arrives as it was sent and no more often than it may, and nothing
//! stays counted once all have left.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use crate::support::{
    Authority, Backend, Evenkeel, PythonPeer, QUIET, free_address, free_ip, http2_client, wait_until,
};

/// Another number, other faults (`FAULTS_SEED` is taken instead). They are drawn in an order that depends on the threads,
/// so a run is never quite the same as another.
const SEED: u64 = 0x00e5_6e1e;

/// Connections of each kind of client; on a machine that is too busy for them they stop after a minute.
const CONNECTIONS: u32 = 60;

const POOLS: [(&str, &str, bool); 4] = [
    ("one", "http1", false),
    ("one-tls", "http1", true),
    ("two", "http2", false),
    ("two-tls", "http2", true),
];

const ACTIONS: [(&str, &str); 4] = [
    ("plain", ""),
    (
        "disk",
        "buffer_requests = { memory = \"8KiB\", memory_total = \"64KiB\", disk = \"4MiB\" }",
    ),
    ("held", "buffer_responses = { memory = \"64KiB\" }"),
    (
        "all",
        "buffer_requests = { memory = \"64KiB\" }\nbuffer_responses = { memory = \"64KiB\" }\n\
         mirror = { pool = \"shadow\", share = \"50%\", max_in_flight = 4, timeout = \"1s\" }",
    ),
];

/// A backend for each pool, on two addresses, and the config that leads to them.
fn pool(authority: &Authority, seed: u64, (name, protocol, tls): (&str, &str, bool)) -> (PythonPeer, String) {
    let more = free_address();
    let mut settings = vec![
        format!("protocol={protocol}"),
        format!("more={more}"),
        format!("log={}", authority.file("log")),
        format!("seed={seed}-{name}"),
    ];
    let mut config = format!("protocol = \"{protocol}\"\n");
    if tls {
        settings.push(format!("cert={}", authority.file("web.pem")));
        settings.push(format!("key={}", authority.file("web.key")));
        let ca = authority.file("ca.pem");
        config.push_str(&format!(
            "tls = {{ ca = \"{ca}\", server_name = \"web.internal\" }}\n"
        ));
    }
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = PythonPeer::start_with(include_str!("support/fault_server.py"), &settings);
    let config = format!(
        "[load_balancers.shop.pools.{name}]\nbackend_servers = [\"{}\", \"{more}\"]\n{config}{QUIET}\
         max_requests = 4\nqueue = {{ size = 20 }}\n\
         circuit_breaker = {{ failure_ratio = \"99%\", open_time = \"100ms\" }}\n\
         retries = {{ attempts = 2, on = [\"connect\", \"reset\", \"timeout\", 503], per_try_timeout = \"300ms\" }}\n",
        server.address(),
    );
    (server, config)
}

fn config(authority: &Authority, pools: &[String], shadow: &Backend) -> String {
    let listener = |name: &str, more: &str| {
        let ip = free_ip();
        format!("[[load_balancers.shop.listeners]]\nname = \"{name}\"\naddress = \"{ip}:0\"\n{more}\n")
    };
    let routes = POOLS.iter().flat_map(|(pool, ..)| {
        ACTIONS.iter().map(move |(path, actions)| {
            format!(
                "[[load_balancers.shop.routes]]\nmatch = {{ path = \"/{pool}/{path}\" }}\npool = \"{pool}\"\n{actions}\n"
            )
        })
    });
    format!(
        "{}{}{}[load_balancers.shop.pools.shadow]\nbackend_servers = [\"{}\"]\n{QUIET}{}",
        listener("clear", ""),
        listener("tls", &authority.listener(&["shop"], "")),
        pools.concat(),
        shadow.address,
        routes.collect::<String>(),
    )
}

/// Runs each kind of client; for each request its method and whether it may be repeated.
fn ask(evenkeel: &Evenkeel, authority: &Authority, seed: u64) -> BTreeMap<String, bool> {
    let paths: Vec<String> = POOLS
        .iter()
        .flat_map(|(pool, ..)| ACTIONS.iter().map(move |(path, _)| format!("/{pool}/{path}")))
        .collect();
    let (paths, seed, ca) = (paths.join(","), seed.to_string(), authority.file("ca.pem"));
    let connections = CONNECTIONS.to_string();
    let clients = [
        ("1", "clear", ""),
        ("1", "tls", &*ca),
        ("2", "clear", ""),
        ("2", "tls", &*ca),
    ];
    let told: String = thread::scope(|scope| {
        let running = clients.map(|(protocol, listener, ca)| {
            let address = evenkeel.listener("shop", listener).to_string();
            let prefix = format!("h{protocol}-{listener}");
            let (paths, seed, connections) = (&paths, &seed, &connections);
            scope.spawn(move || {
                let args = [&*address, ca, protocol, seed, &prefix, connections, paths];
                let told = http2_client(include_str!("support/fault_clients.py"), &args);
                assert!(told.ends_with("done\n"), "{told}");
                told
            })
        });
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let requests = told.lines().filter_map(|line| line.rsplit_once(' '));
    requests
        .map(|(request, repeats)| {
            let name = request.split(' ').next().unwrap_or_default();
            (name.to_owned(), repeats == "repeats")
        })
        .collect()
}

/// What arrived at the backends: how often each, all of it whole and as it was sent.
fn arrived(log: &str) -> BTreeMap<String, usize> {
    let mut heads = BTreeMap::new();
    for line in log.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["head", name, _] => *heads.entry(name.to_owned()).or_default() += 1,
            ["unseen", ..] | ["body", _, "ok"] => {}
            _ => panic!("another body arrived: {line}"),
        }
    }
    heads
}

#[test]
fn whatever_happens_over_every_mix() {
    let seed = std::env::var("FAULTS_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    eprintln!("seed {seed}");
    let authority = Authority::new();
    authority.issue("web", &["web.internal"]);
    authority.issue("shop", &["shop.test"]);
    let shadow = Backend::named("shadow");
    let (servers, pools): (Vec<_>, Vec<_>) = POOLS.map(|of| pool(&authority, seed, of)).into_iter().unzip();
    let mut evenkeel = Evenkeel::start(&config(&authority, &pools, &shadow));
    let sent = ask(&evenkeel, &authority, seed);
    for gauge in [
        "evenkeel_backend_in_flight",
        "evenkeel_pool_queue_depth",
        "evenkeel_listener_connections",
        "evenkeel_buffered_bytes",
    ] {
        wait_until(gauge, || evenkeel.metric(gauge, &[]) == 0.0);
    }
    wait_until("connections are idle or gone", || {
        let connections = evenkeel.metric("evenkeel_backend_connections", &[]);
        connections == evenkeel.metric("evenkeel_backend_connections_idle", &[])
    });
    let seen = arrived(&std::fs::read_to_string(authority.path("log")).unwrap());
    for (name, times) in &seen {
        let repeats = sent.get(name).unwrap_or_else(|| panic!("{name} was never sent"));
        assert!(*repeats || *times <= 1, "{name} was sent {times} times");
    }
    let kinds: BTreeSet<&str> = seen
        .keys()
        .filter_map(|name| name.rsplitn(3, '-').last())
        .collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert!(
        sent.len() > 100 && seen.len() > 50,
        "{} {}",
        sent.len(),
        seen.len()
    );
    assert!(!evenkeel.log().contains("panicked"), "{}", evenkeel.log());
    drop(servers);
    evenkeel.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(evenkeel.wait_for_end().success());
}
