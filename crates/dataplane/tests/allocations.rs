//! Steady HTTP/1 keep-alive traffic allocates nothing: counted, not timed.
//!
//! Client and backend live in this process and use fixed buffers, so that what the global allocator counts is
//! the data plane's. A test of its own because the count is of the whole process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_dataplane::{Dataplane, Options};
use model::config::{
    AccessLog, Admin, Alerts, Algorithm, AllDown, Backend, Caps, Config, Connections, Listener,
    ListenerLimits, ListenerTimeouts, LoadBalancer, LogTarget, Membership, Name, Node, Observe, Overload,
    Passive, Pool, PoolTimeouts, Retries, Route, RouteMatch, RouteTarget, StoreConfig,
};
use model::snapshot::{Layers, Snapshot};
use model::state::{Observed, Overrides, Timestamp};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests of a round before counting begins: every buffer has been used by then.
const WARM_UP: usize = 500;
/// Rounds before counting begins: whoever writes the log has waited for lines and written some by then, however late
/// its thread began.
const ROUNDS: usize = 2;
/// Requests counted.
const REQUESTS: usize = 5_000;

const REQUEST: &[u8] =
    b"GET /index.html?a=b HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// The same with an access log in JSON.
#[test]
fn an_access_log_allocates_nothing() {
    let dir = std::env::temp_dir().join(format!("evenkeel-allocations-{}", std::process::id()));
    let log = AccessLog {
        to: LogTarget::File(dir.clone()),
        // All of them, should the disk stand still: a full queue drops lines.
        queue: 16 * 1024 * 1024,
        ..AccessLog::default()
    };
    let observe = Observe {
        access_log: Some(log),
        ..Observe::default()
    };
    let lines = || {
        let text = std::fs::read_to_string(&dir);
        text.map_or(0, |text| text.lines().count())
    };
    steady(observe, |requests| lines() == requests);
    assert_eq!(lines(), ROUNDS * WARM_UP + REQUESTS);
    std::fs::remove_file(&dir).unwrap();
}

/// Scenario: one keep-alive client sends the same small request again and again over two backends. After a
/// warm-up, thousands of requests pass without one allocation.
#[test]
fn steady_keep_alive_requests_allocate_nothing() {
    steady(Observe::default(), |_| true);
}

/// Counts while nothing else in this process runs.
static ALONE: Mutex<()> = Mutex::new(());

/// `is_logged`: whether so many requests have been written down, where they are.
fn steady(observe: Observe, is_logged: impl Fn(usize) -> bool) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let backends: Vec<SocketAddr> = (0..2).map(|_| start_backend()).collect();
    let (events, _unread) = tokio::sync::mpsc::channel(16);
    let snapshot = Arc::new(snapshot(&backends, observe));
    let dataplane = Dataplane::start(Options {
        threads: 1,
        secrets: Vec::new(),
        snapshot: snapshot.clone(),
        managed_dir: std::path::PathBuf::new(),
        events,
    })
    .unwrap();
    dataplane.tell(&snapshot).unwrap();
    let address = dataplane.listeners()[0].1.address;
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    for round in 1..=ROUNDS {
        for _ in 0..WARM_UP {
            exchange(&mut client, &mut buffer);
        }
        while !is_logged(round * WARM_UP) {
            std::thread::sleep(Duration::from_millis(10)); // condition poll
        }
    }
    let region = Region::new(GLOBAL);
    for _ in 0..REQUESTS {
        exchange(&mut client, &mut buffer);
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
    drop(client);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    assert!(
        runtime
            .block_on(dataplane.shutdown(Duration::from_secs(10)))
            .finished
    );
}

fn exchange(client: &mut TcpStream, buffer: &mut [u8]) {
    client.write_all(REQUEST).unwrap();
    let mut got = 0;
    while !buffer[..got].ends_with(b"\r\n\r\nhello") {
        let n = client.read(&mut buffer[got..]).unwrap();
        assert!(
            n > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&buffer[..got])
        );
        got += n;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

fn start_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut got = 0;
                while let Ok(n) = stream.read(&mut buffer[got..]) {
                    got += n;
                    if n == 0 {
                        break;
                    }
                    if buffer[..got].ends_with(b"\r\n\r\n") {
                        got = 0;
                        stream.write_all(RESPONSE).unwrap();
                    }
                }
            });
        }
    });
    address
}

fn snapshot(backends: &[SocketAddr], observe: Observe) -> Snapshot {
    let name = |text: &str| Name::parse(text).unwrap();
    let pool = Pool {
        name: name("default"),
        algorithm: Algorithm::RoundRobin,
        backends: backends
            .iter()
            .map(|address| Backend {
                address: *address,
                weight: 1,
                caps: Caps::default(),
            })
            .collect(),
        health: None,
        passive: Some(Passive::default()),
        slow_start: Duration::ZERO,
        all_down: AllDown::FailOpen,
        connections: Connections::default(),
        timeouts: PoolTimeouts::default(),
        retries: Retries::default(),
        http2: None,
        sticky: None,
        tls: None,
        overload: Overload::default(),
        membership: Membership::default(),
    };
    let listener = Listener {
        name: name("http"),
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        trusted_proxies: Vec::new(),
        upgrades: Vec::new(),
        redirect_to_https: None,
        max_connections: 100,
        limits: ListenerLimits::default(),
        timeouts: ListenerTimeouts::default(),
        http2: None,
    };
    let lb = LoadBalancer {
        name: name("test"),
        listeners: vec![Arc::new(listener)],
        routes: vec![Route {
            name: name("default"),
            priority: 0,
            matches: RouteMatch::default(),
            target: RouteTarget::Pool(name("default")),
            rate_limits: Vec::new(),
            timeouts: Default::default(),
            actions: Default::default(),
        }],
        pools: BTreeMap::from([(name("default"), Arc::new(pool))]),
        access_log: true,
        default_language: None,
    };
    let node = Node {
        name: "test".into(),
        threads: Some(1),
        data_dir: None,
        geoip: None,
        user: None,
        group: None,
        shutdown_timeout: Duration::from_secs(1),
        max_connections: 100,
        ..Node::default()
    };
    let config = Arc::new(Config {
        node,
        admin: Admin {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Admin::default()
        },
        observe,
        store: StoreConfig::default(),
        notify: None,
        alerts: Alerts::default(),
        load_balancers: BTreeMap::from([(name("test"), Arc::new(lb))]),
    });
    let layers = Layers {
        revision: 1,
        config: &config,
        overrides: &Overrides::default(),
        observed: &Observed::default(),
    };
    Snapshot::build(layers, None, Timestamp(1))
}
