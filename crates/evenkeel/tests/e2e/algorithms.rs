//! Algorithms, as far as only the whole can show: that the data plane asks them the right question.

use std::collections::BTreeMap;

use crate::support::{Backend, Client, Evenkeel, Gate, QUIET, free_ip, shop, shop_on, wait_until};

fn with(algorithm: &str, backends: &[&Backend]) -> Evenkeel {
    Evenkeel::start(&shop(backends, &format!("{QUIET}{algorithm}\n")))
}

/// Weights of the config, exactly, over both shards.
#[test]
fn weighted_round_robin() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n{QUIET}\
         backend_servers = [\"{}\", {{ address = \"{}\", weight = 3 }}]\n",
        free_ip(),
        one.address,
        two.address
    );
    let evenkeel = Evenkeel::start(&config);
    let mut clients: Vec<Client> = (0..4).map(|_| evenkeel.client()).collect();
    for _ in 0..10 {
        for client in &mut clients {
            assert_eq!(client.get("/").status(), 200);
        }
    }
    assert_eq!((one.count(), two.count()), (10, 30));
}

/// A backend that sits on its requests gets no more while others are free; counts are over all shards.
#[test]
fn least_loaded_avoids_the_slow_one() {
    for algorithm in ["least_connections", "power_of_two", "peak_ewma"] {
        let gate = Gate::default();
        let go = gate.clone();
        let slow = Backend::answering(move |_| {
            go.pass();
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec()
        });
        let fast = Backend::named("fast");
        let evenkeel = with(&format!("algorithm = \"{algorithm}\""), &[&slow, &fast]);
        let mut stuck = Vec::new();
        while gate.came() == 0 {
            let mut client = evenkeel.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            wait_until("it is somewhere", || gate.came() == 1 || client.has_answer());
            stuck.push(client);
        }
        for _ in 0..20 {
            // A request counts as in flight until a moment after its client has the answer.
            wait_until("the fast one is free", || {
                evenkeel.backend(fast.address)["in_flight"] == 0
            });
            assert_eq!(evenkeel.client().get("/").text(), "fast", "{algorithm}");
        }
        assert_eq!(gate.came(), 1, "{algorithm}");
        gate.open();
    }
}

/// Asks with each key; which backend each got.
fn spread(evenkeel: &Evenkeel, request: impl Fn(usize) -> String) -> BTreeMap<usize, String> {
    let mut clients = [evenkeel.client(), evenkeel.client()];
    (0..60)
        .map(|key| {
            let [first, again] = clients.each_mut().map(|c| c.ask(&request(key)).text().to_owned());
            assert_eq!(
                first, again,
                "key {key} meets the same backend from any connection"
            );
            (key, first)
        })
        .collect()
}

/// Every kind of key sticks, spreads, and says nothing where it is missing.
#[test]
fn consistent_hash_sticks_by_its_key() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = backends.each_ref();
    type Request = fn(usize) -> String;
    let kinds: [(&str, Request); 4] = [
        ("header:x-user", |n| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {n}\r\n\r\n")
        }),
        ("cookie:user", |n| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; user={n}\r\n\r\n")
        }),
        ("query:user", |n| {
            format!("GET /?a=b&user={n} HTTP/1.1\r\nHost: a\r\n\r\n")
        }),
        ("path", |n| format!("GET /{n}?x HTTP/1.1\r\nHost: a\r\n\r\n")),
    ];
    for (key, request) in kinds {
        for table in ["ring", "maglev"] {
            let hash =
                format!("algorithm = \"consistent_hash\"\nhash = {{ key = \"{key}\", table = \"{table}\" }}");
            let evenkeel = with(&hash, &[one, two, three]);
            let seen = spread(&evenkeel, request);
            for name in ["one", "two", "three"] {
                let share = seen.values().filter(|b| *b == name).count();
                assert!(share >= 5, "{key} {table}: {name} got {share} of 60");
            }
        }
    }
}

/// A backend that leaves takes only its own keys along, and they come back with it.
#[test]
fn few_keys_move() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let addresses = backends.each_ref().map(|b| b.address);
    let listen = format!("{}:0", free_ip());
    let hash = format!("{QUIET}algorithm = \"consistent_hash\"\nhash = {{ key = \"header:x-user\" }}\n");
    let evenkeel = Evenkeel::start(&shop_on(&listen, &addresses, &hash));
    let request = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: user-{n}\r\n\r\n");
    let before = spread(&evenkeel, request);
    evenkeel.cli_ok(&["backend", "drain", "shop", &addresses[1].to_string()]);
    let without = spread(&evenkeel, request);
    for (key, backend) in &before {
        assert!(
            backend == "two" || without[key] == *backend,
            "key {key} moved from {backend}"
        );
        assert_ne!(without[key], "two");
    }
    evenkeel.cli_ok(&["backend", "ready", "shop", &addresses[1].to_string()]);
    assert_eq!(spread(&evenkeel, request), before);
}

/// The client's address decides: all of one client's requests meet one backend; behind a trusted proxy it is the
/// address that the proxy reports.
#[test]
fn ip_hash() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = backends.each_ref();
    let listener = "trusted_proxies = [\"127.0.0.1\"]";
    let more = format!("{QUIET}algorithm = \"ip_hash\"\n");
    let evenkeel = Evenkeel::start(&crate::support::shop_with_listener(
        &[one, two, three],
        listener,
        &more,
    ));
    let direct = spread(&evenkeel, |_| "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned());
    assert!(direct.values().all(|b| *b == direct[&0]), "{direct:?}");
    let reported = spread(&evenkeel, |n| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.{n}\r\n\r\n")
    });
    for name in ["one", "two", "three"] {
        assert!(
            reported.values().filter(|b| *b == name).count() >= 5,
            "{reported:?}"
        );
    }
}
