//! `explain` and `status`: what they tell about a request is what would be done with it, whatever stands in the way.

use crate::support::{Backend, Client, Evenkeel, Place, QUIET, shop, wait_until};

/// How long a request has and what is tried again; values are those of the request; and what is known to be too
/// large is refused as it would be.
#[test]
fn how_long_and_how_much() {
    let one = Backend::named("one");
    let route = "[[load_balancers.shop.routes]]\nmatch.path_prefix = \"/api\"\npool = \"default\"\n\
                 max_body = \"1KiB\"\ntimeouts = { first_byte = \"5s\", total = \"20s\" }\n\
                 response_headers = { set = { X-Client = \"{client_address} {request_id}\" } }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{QUIET}{route}")));
    let ask = |length: &str| {
        let length = format!("Content-Length: {length}");
        let words = ["explain", "--listener", "shop", "POST", "/api/a", "-H", &length];
        evenkeel.cli_ok(&[&words[..], &["--client-address", "192.0.2.7"]].concat())
    };
    let sent = ask("1024");
    for line in [
        "timeouts: connect 1s, first_byte 5s, stream_idle 1m, total 20s",
        "retries: up to 1, on connect, reset",
        "sets in the response: x-client: 192.0.2.7 {request_id}",
        "bodies up to 1KiB",
        "goes to ",
    ] {
        assert!(sent.contains(line), "{line}: {sent}");
    }
    let refused = ask("1025");
    assert!(refused.contains("refused with 413 body_too_large"), "{refused}");
    assert!(!refused.contains("goes to"), "{refused}");
}

/// A pool whose circuit breaker is open takes nothing, although its backends could.
#[test]
fn an_open_circuit_refuses() {
    let one = Backend::saying("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let evenkeel = Evenkeel::start(&shop(
        &[&one],
        &format!(
            "{QUIET}retries.attempts = 0\ncircuit_breaker = {{ minimum_requests = 5, open_time = \"1h\" }}\n"
        ),
    ));
    let mut client = evenkeel.client();
    wait_until("it opens", || client.get("/").reason() == "circuit_open");
    let told = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/"]);
    assert!(told.contains("refused with 503 circuit_open"), "{told}");
    assert!(!told.contains("goes to"), "{told}");
}

/// A listener that sends everything to HTTPS asks no pool, and says nothing of one.
#[test]
fn a_listener_that_redirects() {
    let one = Backend::named("one");
    let config = format!(
        "[[load_balancers.shop.listeners]]\naddress = \"127.0.0.1:0\"\nredirect_to_https = 8443\n\
         [load_balancers.shop.pools.a]\nbackend_servers = [\"{0}\"]\n{QUIET}\
         [load_balancers.shop.pools.b]\nbackend_servers = [\"{0}\"]\n{QUIET}\
         [[load_balancers.shop.routes]]\nname = \"all\"\nsplit = [{{ pool = \"a\" }}, {{ pool = \"b\" }}]\n",
        one.address
    );
    let evenkeel = Place::new(&config).start();
    let told = evenkeel.cli_ok(&[
        "explain",
        "--listener",
        "shop",
        "GET",
        "/x?y",
        "-H",
        "Host: a.test",
    ]);
    assert!(
        told.contains("redirects with 308 to https://a.test:8443/x?y"),
        "{told}"
    );
    assert!(!told.contains("split") && !told.contains("pool"), "{told}");
}

/// Without a backend: a listener that sends everything to HTTPS, and routes that answer.
#[test]
fn a_load_balancer_that_forwards_nothing() {
    let evenkeel = Place::new(
        "[[load_balancers.front.listeners]]\naddress = \"127.0.0.1:0\"\nredirect_to_https = true\n\
         [load_balancers.shop]\nlisten = \"127.0.0.2:0\"\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/a\"\nrespond = { status = 503, body = \"closed\" }\n",
    )
    .start();
    let mut front = Client::connect(evenkeel.listener("front", "http"));
    let sent = front.ask("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(
        (sent.status(), sent.field("location")),
        (308, Some("https://a.test/x"))
    );
    let mut shop = Client::connect(evenkeel.listener("shop", "http"));
    assert_eq!((shop.get("/a").status(), shop.get("/a").text()), (503, "closed"));
    assert_eq!(
        (shop.get("/b").status(), shop.get("/b").reason()),
        (404, "no_route")
    );
    let told = evenkeel.cli_ok(&["explain", "--listener", "front", "GET", "/x"]);
    assert!(
        told.contains("redirects with 308 to https://localhost/x"),
        "{told}"
    );
}

/// `status` shows the routes in the order in which they are tried: what each matches, where it leads, what it does.
#[test]
fn the_routes_are_shown() {
    let one = Backend::named("one");
    let routes = "[[load_balancers.shop.routes]]\nname = \"rest\"\npool = \"default\"\n\
                  [[load_balancers.shop.routes]]\nname = \"login\"\nmatch = { path = \"/login\", method = \"POST\" }\n\
                  pool = \"default\"\nrate_limit = { requests = 5, per = \"1m\" }\ntimeouts = { total = \"20s\" }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{QUIET}{routes}")));
    let status = evenkeel.cli_ok(&["status"]);
    let line = |name: &str| {
        status
            .lines()
            .position(|line| line.trim_start().starts_with(name))
    };
    let login = line("login ").expect("the route is shown");
    let shown = status.lines().nth(login).unwrap();
    for words in [
        "path /login, method POST",
        "pool default",
        "5 in 1m by client_address; total 20s",
    ] {
        assert!(shown.contains(words), "{status}");
    }
    assert!(line("rest ").unwrap() > login, "{status}");
    let json: serde_json::Value = serde_json::from_str(evenkeel.get("/api/v1/status").text()).unwrap();
    let balancer = &json["load_balancers"][0];
    assert_eq!(
        (&balancer["route_count"], &balancer["routes"][0]["route"]),
        (&2.into(), &"login".into())
    );
}
