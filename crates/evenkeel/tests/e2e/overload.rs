//! More than the backends can do: caps, the queue, the circuit breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::{Backend, Client, Evenkeel, Gate, free_ip, shop, wait_for, wait_until};

const THREE_SHARDS: &str = "[node]\nthreads = 3\n";

/// A backend whose answers wait at the gate, and which knows how many it serves at once.
struct Counting {
    backend: Backend,
    gate: Gate,
    most: Arc<AtomicUsize>,
}

impl Counting {
    fn new() -> Self {
        let (gate, inside, most) = (
            Gate::default(),
            AtomicUsize::new(0),
            Arc::new(AtomicUsize::new(0)),
        );
        let (at, greatest) = (gate.clone(), most.clone());
        let backend = Backend::answering(move |request| {
            greatest.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
            at.pass();
            thread::yield_now();
            inside.fetch_sub(1, SeqCst);
            let body = request.target().to_owned();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        });
        Self { backend, gate, most }
    }
}

fn waiting(evenkeel: &Evenkeel) -> usize {
    evenkeel.metric("evenkeel_pool_queue_depth", &[]) as usize
}

/// Another client asks, and is at its place when this returns.
fn ask_and_wait(evenkeel: &Evenkeel, target: &str) -> Client {
    let before = waiting(evenkeel);
    let mut client = evenkeel.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    wait_until("it waits", || waiting(evenkeel) == before + 1);
    client
}

/// Two backends of four, forty clients on three shards that ask again and again: never five at once, and whoever
/// comes gets an answer.
#[test]
fn a_cap_holds_exactly_over_all_shards() {
    let (one, two) = (Counting::new(), Counting::new());
    let config = shop(
        &[&one.backend, &two.backend],
        "max_requests = 4\nqueue.timeout = \"60s\"\n",
    );
    let evenkeel = Evenkeel::start(&format!("{config}{THREE_SHARDS}"));
    let address = evenkeel.address();
    let clients: Vec<_> = (0..40)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..25).all(|_| client.get("/").status() == 200)
            })
        })
        .collect();
    wait_until("the others wait", || waiting(&evenkeel) == 32);
    wait_until("both are full", || (one.gate.came(), two.gate.came()) == (4, 4));
    let backend = one.backend.address.to_string();
    let of_one = [("backend", backend.as_str())];
    evenkeel.wait_for_metric("evenkeel_backend_in_flight", &of_one, 4.0);
    evenkeel.wait_for_metric("evenkeel_backend_max_in_flight", &of_one, 4.0);
    one.gate.open();
    two.gate.open();
    for client in clients {
        assert!(client.join().unwrap());
    }
    assert_eq!((one.most.load(SeqCst), two.most.load(SeqCst)), (4, 4));
    assert_eq!(one.backend.count() + two.backend.count(), 1000);
    assert_eq!(waiting(&evenkeel), 0);
    evenkeel.wait_for_metric("evenkeel_backend_in_flight", &of_one, 0.0);
}

/// The same for connections: two backends of three, thirty clients on three shards, none of which keeps one idle that
/// another needs. Never a fourth, and whoever comes gets an answer.
#[test]
fn a_cap_of_connections_holds_exactly_over_all_shards() {
    let (one, two) = (Counting::new(), Counting::new());
    let config = shop(
        &[&one.backend, &two.backend],
        // A check would have a connection of its own for a moment.
        "health = false\nmax_connections = 3\nqueue.timeout = \"60s\"\ntimeouts.connect = \"60s\"\n",
    );
    let evenkeel = Evenkeel::start(&format!("{config}{THREE_SHARDS}"));
    let address = evenkeel.address();
    let clients: Vec<_> = (0..30)
        .map(|_| {
            thread::spawn(move || {
                // Some come back on new connections, and so to other shards.
                (0..5).all(|_| {
                    let mut client = Client::connect(address);
                    (0..5).all(|_| client.get("/").status() == 200)
                })
            })
        })
        .collect();
    let backends = [&one.backend, &two.backend];
    wait_until("the others wait", || waiting(&evenkeel) == 24);
    wait_until("both are full", || (one.gate.came(), two.gate.came()) == (3, 3));
    assert_eq!(backends.map(|backend| backend.open_connections()), [3, 3]);
    one.gate.open();
    two.gate.open();
    while !clients.iter().all(|client| client.is_finished()) {
        for backend in backends {
            let status = evenkeel.backend(backend.address);
            assert!(status["connections"].as_u64().unwrap() <= 3, "{status}");
            assert_eq!(status["max_connections"], 3);
            assert_eq!(status["max_in_flight"], 3);
        }
    }
    for client in clients {
        assert!(client.join().unwrap());
    }
    assert_eq!(one.backend.count() + two.backend.count(), 750);
    for counting in [&one, &two] {
        assert_eq!(counting.most.load(SeqCst), 3);
    }
}

/// What is full, what waits and what the circuit breaker does is in `status`, for people and for programs.
#[test]
fn status_shows_caps_the_queue_and_the_circuit_breaker() {
    let one = Counting::new();
    let evenkeel = Evenkeel::start(&shop(
        &[&one.backend],
        "slow_start = 0\nmax_requests = 1\nqueue = { size = 3, timeout = \"60s\" }\n\
         circuit_breaker = { failure_ratio = \"50%\" }\n",
    ));
    let mut served = evenkeel.client();
    served.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || one.gate.came() == 1);
    let mut waits = ask_and_wait(&evenkeel, "/");
    let pool = evenkeel.status()["load_balancers"][0]["pools"][0].clone();
    let queue = serde_json::json!({ "waiting": 1, "size": 3, "timeout_ms": 60000, "overloaded": false });
    assert_eq!((&pool["queue"], &pool["circuit"]), (&queue, &"closed".into()));
    let backend = &pool["backends"][0];
    assert_eq!(
        (&backend["in_flight"], &backend["max_in_flight"]),
        (&1.into(), &1.into())
    );
    let text = evenkeel.cli_ok(&["status"]);
    assert!(text.contains("queue: 1 of at most 3 wait, up to 1m"), "{text}");
    assert!(text.contains("circuit breaker: closed"), "{text}");
    assert!(text.contains("1 of 1"), "{text}");
    one.gate.open();
    assert!(
        [&mut served, &mut waits]
            .into_iter()
            .all(|client| client.response().status() == 200)
    );
}

/// A backend's own cap is in force instead of the pool's.
#[test]
fn a_backend_has_a_cap_of_its_own() {
    let (one, two) = (Counting::new(), Counting::new());
    let config = shop(&[], "max_requests = 1\nqueue.timeout = \"60s\"\n").replace(
        "backend_servers = []",
        &format!(
            "backend_servers = [{{ address = \"{}\", max_requests = 3 }}, \"{}\"]",
            one.backend.address, two.backend.address
        ),
    );
    let evenkeel = Evenkeel::start(&config);
    let mut clients: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = evenkeel.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    wait_until("all are there", || one.gate.came() + two.gate.came() == 4);
    assert_eq!((one.gate.came(), two.gate.came()), (3, 1));
    clients.push(ask_and_wait(&evenkeel, "/"));
    one.gate.open();
    two.gate.open();
    assert!(clients.iter_mut().all(|client| client.response().status() == 200));
}

/// First come, first served; what finds no room is told so at once, with when to come again.
#[test]
fn the_queue_is_in_order_and_bounded() {
    let one = Counting::new();
    let evenkeel = Evenkeel::start(&shop(
        &[&one.backend],
        "max_requests = 1\nqueue = { size = 3, timeout = \"60s\" }\n",
    ));
    let mut served = evenkeel.client();
    served.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || one.gate.came() == 1);
    let mut clients: Vec<Client> = (1..4)
        .map(|i| ask_and_wait(&evenkeel, &format!("/{i}")))
        .collect();
    let refused = evenkeel.client().get("/");
    assert_eq!((refused.status(), refused.reason()), (503, "queue_full"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert!(!refused.closes());
    let explained = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/"]);
    assert!(
        explained.contains("full: 1 of 1 requests in flight"),
        "{explained}"
    );
    assert!(explained.contains("refused with 503 queue_full"), "{explained}");
    one.gate.open();
    assert_eq!(served.response().text(), "/0");
    for (i, client) in (1..4).zip(&mut clients) {
        assert_eq!(client.response().text(), format!("/{i}"));
    }
    let order: Vec<String> = one
        .backend
        .requests()
        .iter()
        .map(|r| r.target().to_owned())
        .collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3"]);
    let full = [("why", "full")];
    evenkeel.wait_for_metric("evenkeel_pool_queue_shed_total", &full, 1.0);
    evenkeel.wait_for_metric("evenkeel_pool_queue_wait_seconds_count", &[], 3.0);
}

/// Nobody waits longer than promised, and the backend never hears of who did.
#[test]
fn who_has_waited_long_enough_is_refused() {
    let one = Counting::new();
    let evenkeel = Evenkeel::start(&shop(
        &[&one.backend],
        "max_requests = 1\nqueue.timeout = \"100ms\"\n",
    ));
    let mut served = evenkeel.client();
    served.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || one.gate.came() == 1);
    let mut client = evenkeel.client();
    let refused = client.get("/1");
    assert_eq!((refused.status(), refused.reason()), (503, "queue_timeout"));
    assert!(refused.field("retry-after").is_some() && !refused.closes());
    one.gate.open();
    assert_eq!(served.response().text(), "/0");
    evenkeel.wait_for_metric("evenkeel_backend_in_flight", &[], 0.0);
    assert_eq!(client.get("/2").text(), "/2", "its connection goes on");
    assert_eq!(one.backend.count(), 2);
}

/// A client that resets, and one that closes: both make room at once, and none is sent to the backend. What only looks
/// like it is in `departures.rs`.
#[test]
fn departed_clients_leave_the_queue_at_once() {
    let one = Counting::new();
    let evenkeel = Evenkeel::start(&shop(
        &[&one.backend],
        "max_requests = 1\nqueue.timeout = \"60s\"\n",
    ));
    let mut served = evenkeel.client();
    served.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || one.gate.came() == 1);
    ask_and_wait(&evenkeel, "/reset").reset();
    wait_until("it is gone", || waiting(&evenkeel) == 0);
    drop(ask_and_wait(&evenkeel, "/closed"));
    wait_until("it is gone", || waiting(&evenkeel) == 0);
    // Bytes that wait to be read do not hide the end.
    let mut pipelining = ask_and_wait(&evenkeel, "/pipelined");
    pipelining.send("GET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(pipelining);
    wait_until("it is gone", || waiting(&evenkeel) == 0);
    let departed = [("why", "departed")];
    evenkeel.wait_for_metric("evenkeel_pool_queue_shed_total", &departed, 3.0);
    one.gate.open();
    assert_eq!(served.response().text(), "/0");
    assert_eq!(one.backend.count(), 1);
}

/// One of two backends hangs: it has its one request, and all others are served by the other.
#[test]
fn a_slow_backend_does_not_take_the_capacity_of_its_pool() {
    let (slow, fine) = (Counting::new(), Backend::named("fine"));
    let evenkeel = Evenkeel::start(&shop(&[&slow.backend, &fine], "max_requests = 1\n"));
    let mut held: Vec<Client> = (0..2).map(|_| evenkeel.client()).collect();
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("it hangs", || slow.gate.came() == 1);
    let mut client = evenkeel.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "fine");
    }
    assert_eq!(slow.gate.came(), 1);
    slow.gate.open();
    assert!(held.iter_mut().all(|client| client.response().status() == 200));
}

/// A session whose backend is full waits for that backend though another is free, and its backend's sessions fill no
/// more than their share of the queue; all others go past them.
#[test]
fn sessions_wait_for_their_own_backend_and_hold_up_nobody_else() {
    let both = [Counting::new(), Counting::new()];
    let evenkeel = Evenkeel::start(&shop(
        &[&both[0].backend, &both[1].backend],
        "slow_start = 0\nmax_requests = 1\nqueue = { size = 4, timeout = \"60s\" }\n\
         sticky = { header = \"X-Session\" }\n",
    ));
    let of_session = "GET /session HTTP/1.1\r\nHost: a\r\nX-Session: one\r\n\r\n";
    let mut served = evenkeel.client();
    served.send(of_session);
    let home = wait_for("it is served", || both.iter().position(|b| b.gate.came() == 1));
    let (home, other) = (&both[home], &both[1 - home]);
    other.gate.open();
    let mut waits: Vec<Client> = (1..=2)
        .map(|place| {
            let mut client = evenkeel.client();
            client.send(of_session);
            wait_until("it waits", || waiting(&evenkeel) == place);
            client
        })
        .collect();
    let refused = evenkeel.client().ask(of_session);
    assert_eq!((refused.status(), refused.reason()), (503, "queue_full"));
    let mut client = evenkeel.client();
    for _ in 0..50 {
        assert_eq!(client.get("/other").text(), "/other");
    }
    assert_eq!((home.gate.came(), waiting(&evenkeel)), (1, 2));
    home.gate.open();
    waits.push(served);
    assert!(
        waits
            .iter_mut()
            .all(|client| client.response().text() == "/session")
    );
    let at_home = home.backend.requests();
    assert_eq!(at_home.iter().filter(|r| r.target() == "/session").count(), 3);
    assert_eq!(at_home.len() + other.backend.count(), 53);
}

/// Copies for another pool have slots there like requests: what finds none is left out and counted, and the request
/// itself is served.
#[test]
fn copies_keep_to_the_caps_of_the_pool_that_gets_them() {
    let (fine, shadow) = (Backend::named("fine"), Counting::new());
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n\
         [load_balancers.shop.pools.live]\nbackend_servers = [\"{}\"]\n\
         [load_balancers.shop.pools.shadow]\nbackend_servers = [\"{}\"]\nmax_requests = 1\nslow_start = 0\n\
         [[load_balancers.shop.routes]]\npool = \"live\"\nmirror = {{ pool = \"shadow\", timeout = \"60s\" }}\n",
        free_ip(),
        fine.address,
        shadow.backend.address
    );
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    assert_eq!(client.get("/first").text(), "fine");
    wait_until("its copy is there", || shadow.gate.came() == 1);
    for _ in 0..10 {
        assert_eq!(client.get("/more").text(), "fine");
    }
    let outcome = |outcome| [("outcome", outcome)];
    evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &outcome("busy"), 10.0);
    shadow.gate.open();
    evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &outcome("answered"), 1.0);
    assert_eq!(client.get("/again").text(), "fine");
    evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &outcome("answered"), 2.0);
    assert_eq!((shadow.backend.count(), shadow.most.load(SeqCst)), (2, 1));
}

/// More room by a reload is used at once, and a backend that is taken away leaves nobody behind.
#[test]
fn a_change_reaches_those_who_wait() {
    let (one, two) = (Counting::new(), Counting::new());
    let config = |cap: u32, backend: &Counting| {
        shop(
            &[&backend.backend],
            &format!("max_requests = {cap}\nslow_start = 0\nqueue.timeout = \"60s\"\n"),
        )
    };
    let first = config(1, &one);
    let evenkeel = Evenkeel::start(&first);
    let mut clients = vec![evenkeel.client()];
    clients[0].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || one.gate.came() == 1);
    clients.push(ask_and_wait(&evenkeel, "/"));
    clients.push(ask_and_wait(&evenkeel, "/"));
    evenkeel.reload(&first.replace("max_requests = 1", "max_requests = 2"));
    wait_until("the next is served", || one.gate.came() == 2);
    assert_eq!(waiting(&evenkeel), 1);
    // The one who waits was sent here before there was another backend, and there is no other that it knows.
    evenkeel.reload(&first.replace(&one.backend.address.to_string(), &two.backend.address.to_string()));
    let lost = clients.pop().unwrap().response();
    assert_eq!((lost.status(), lost.reason()), (503, "no_backend"));
    one.gate.open();
    assert!(clients.iter_mut().all(|client| client.response().status() == 200));
}

/// A tunnel has its slot until it ends.
#[test]
fn a_tunnel_counts_as_a_request() {
    let switching = Backend::scripted(|conversation| {
        while let Some(request) = conversation.head() {
            if request.field("upgrade").is_some() {
                conversation.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                );
                conversation.hold();
                return;
            }
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let evenkeel = Evenkeel::start(&shop(
        &[&switching],
        "max_requests = 1\nqueue.timeout = \"60s\"\n",
    ));
    let mut tunnel = evenkeel.client();
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.head().status(), 101);
    let mut next = ask_and_wait(&evenkeel, "/");
    drop(tunnel);
    assert_eq!(next.response().text(), "ok");
}

/// Everything fails: soon it is refused at once, a few try, and when they succeed all is as before.
#[test]
fn the_circuit_breaker_opens_tries_and_closes() {
    let fails = Arc::new(AtomicBool::new(true));
    let flag = fails.clone();
    let backend = Backend::answering(move |_| match flag.load(SeqCst) {
        true => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    });
    let evenkeel = Evenkeel::start(&shop(
        &[&backend],
        "passive = false\nslow_start = 0\nretries.attempts = 0\n\
         circuit_breaker = { minimum_requests = 5, open_time = \"4s\", half_open_requests = 2 }\n",
    ));
    let mut client = evenkeel.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").reason(), "", "the backend's own answer");
    }
    let refused = client.get("/");
    assert_eq!((refused.status(), refused.reason()), (503, "circuit_open"));
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!(
        (1..=4).contains(&wait),
        "what is left of the four seconds: {wait}"
    );
    assert!(!refused.closes());
    evenkeel.wait_for_metric("evenkeel_pool_circuit_opened_total", &[], 1.0);
    wait_until("it is told", || evenkeel.events("circuit_opened").len() == 1);
    // One that tries fails: open again.
    wait_until("it tries and fails", || {
        client.get("/");
        evenkeel.metric("evenkeel_pool_circuit_opened_total", &[]) == 2.0
    });
    fails.store(false, SeqCst);
    wait_until("it closes", || {
        client.get("/");
        evenkeel.metric("evenkeel_pool_circuit_state", &[]) == 0.0
    });
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "ok");
    }
    wait_until("it is told", || evenkeel.events("circuit_closed").len() == 1);
}

/// Far more clients than the backends can serve ask again and again, for as long as two thousand answers take. The
/// backends are never left idle, nobody who got through waited longer than promised, each of the others was told
/// when to come again, and memory is what it was.
#[test]
fn under_lasting_overload_the_backends_stay_busy() {
    let (one, two) = (Counting::new(), Counting::new());
    let config = shop(
        &[&one.backend, &two.backend],
        "max_requests = 4\nqueue = { size = 20, timeout = \"500ms\" }\n",
    );
    let evenkeel = Evenkeel::start(&format!("{config}{THREE_SHARDS}"));
    let (address, over) = (evenkeel.address(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let over = over.clone();
            thread::spawn(move || {
                let (mut client, mut served, mut refused) = (Client::connect(address), 0, 0);
                while !over.load(SeqCst) {
                    let answer = client.get("/");
                    match (answer.status(), answer.reason()) {
                        (200, _) => served += 1,
                        (503, "queue_full" | "queue_timeout" | "queue_overload") => {
                            assert!(answer.field("retry-after").is_some());
                            refused += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                (served, refused)
            })
        })
        .collect();
    wait_until("both are full", || one.gate.came() + two.gate.came() == 8);
    let before_kib = evenkeel.memory_kib();
    one.gate.open();
    two.gate.open();
    // Only while somebody wants to be served: clients that have not asked yet leave room.
    let (mut looks, mut busy) = (0, 0);
    while one.backend.count() + two.backend.count() < 2000 {
        let metrics = evenkeel.metrics();
        let in_flight = metrics.sum("evenkeel_backend_in_flight", &[]);
        assert!(in_flight <= 8.0, "{in_flight}");
        if metrics.sum("evenkeel_pool_queue_depth", &[]) > 0.0 {
            looks += 1;
            busy += u32::from(in_flight == 8.0);
        }
    }
    over.store(true, SeqCst);
    let ends: Vec<(usize, usize)> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    let served: usize = ends.iter().map(|(served, _)| served).sum();
    let refused: usize = ends.iter().map(|(_, refused)| refused).sum();
    assert!(refused > 0);
    assert_eq!(served, one.backend.count() + two.backend.count());
    assert!(looks > 0 && busy * 10 >= looks * 9, "{busy} of {looks}");
    let metrics = evenkeel.metrics();
    let waited = metrics.sum("evenkeel_pool_queue_wait_seconds_count", &[]);
    let in_time = metrics.sum("evenkeel_pool_queue_wait_seconds_bucket", &[("le", "10.0")]);
    assert!(waited > 0.0);
    assert_eq!(waited, in_time);
    assert_eq!((one.most.load(SeqCst), two.most.load(SeqCst)), (4, 4));
    let grown = evenkeel.memory_kib().saturating_sub(before_kib);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}
