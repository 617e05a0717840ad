//! Bounds on what a client may send, and on how many clients there are.

use crate::support::{
    Backend, Broken, Client, Evenkeel, QUIET, free_ip, shop, shop_with_listener, wait_until,
};

fn with_limits(backend: &Backend, limits: &str) -> Evenkeel {
    Evenkeel::start(&shop_with_listener(
        &[backend],
        &format!("limits = {{ {limits} }}"),
        QUIET,
    ))
}

/// A header over its bytes is refused as soon as that is certain, complete or not.
#[test]
fn header_bytes() {
    let one = Backend::named("one");
    let evenkeel = with_limits(&one, "header_bytes = \"2KiB\"");
    let request =
        |filler: usize, end: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}{end}", "x".repeat(filler));
    assert_eq!(evenkeel.client().ask(&request(1900, "\r\n\r\n")).status(), 200);
    for unfinished in [request(2100, "\r\n\r\n"), request(2100, "")] {
        let mut client = evenkeel.client();
        let answer = client.ask(&unfinished);
        assert_eq!((answer.status(), answer.reason()), (431, "header_too_large"));
        assert!(answer.closes() && client.is_ended());
    }
    assert_eq!(one.count(), 1);
}

#[test]
fn header_fields() {
    let one = Backend::named("one");
    let evenkeel = with_limits(&one, "header_fields = 10");
    let request = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields));
    assert_eq!(evenkeel.client().ask(&request(9)).status(), 200);
    let answer = evenkeel.client().ask(&request(10));
    assert_eq!((answer.status(), answer.reason()), (431, "too_many_headers"));
}

#[test]
fn target_bytes() {
    let one = Backend::named("one");
    let evenkeel = with_limits(&one, "target_bytes = \"100B\"");
    assert_eq!(
        evenkeel.client().get(&format!("/{}", "x".repeat(99))).status(),
        200
    );
    let answer = evenkeel.client().get(&format!("/{}", "x".repeat(100)));
    assert_eq!((answer.status(), answer.reason()), (414, "target_too_long"));
    let answer = evenkeel.client().ask(&format!("GET /{}", "x".repeat(5000)));
    assert_eq!(
        (answer.status(), answer.reason()),
        (414, "target_too_long"),
        "without an end in sight"
    );
}

/// A body over the limit: by its length before the backend is asked, in chunks as soon as it is over.
#[test]
fn body_bytes() {
    let one = Backend::named("one");
    let evenkeel = with_limits(&one, "body_bytes = \"1KiB\"");
    let exact = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    assert_eq!(evenkeel.client().ask(&exact).status(), 200);
    let mut client = evenkeel.client();
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!((answer.status(), answer.reason()), (413, "body_too_large"));
    assert!(client.is_ended());
    assert_eq!((one.count(), one.accepted()), (1, 1));
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        evenkeel
            .client()
            .ask(&format!("{head}{chunk}{chunk}0\r\n\r\n"))
            .status(),
        200
    );
    let answer = evenkeel.client().ask(&format!("{head}{chunk}{chunk}1\r\nx\r\n"));
    assert_eq!((answer.status(), answer.reason()), (413, "body_too_large"));
    assert_eq!(one.count(), 2);
}

fn expect_bound_of_two(evenkeel: &Evenkeel, address: std::net::SocketAddr) {
    let (mut first, mut second) = (Client::connect(address), Client::connect(address));
    assert_eq!((first.get("/").status(), second.get("/").status()), (200, 200));
    let mut third = Client::connect(address);
    assert!(matches!(third.end(), Broken::Closed | Broken::Reset));
    wait_until("it is counted", || {
        evenkeel.metric("evenkeel_listener_refused_total", &[]) >= 1.0
    });
    wait_until("the log says so", || evenkeel.log().contains("connection_limit"));
    assert_eq!(
        first.get("/").status(),
        200,
        "those that are there are not disturbed"
    );
    drop(second);
    wait_until("there is room again", || {
        let mut again = Client::connect(address);
        again.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() && again.try_response().is_ok()
    });
}

/// Connections over the listener's bound are closed at once and counted.
#[test]
fn connections_of_a_listener() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], "max_connections = 2", QUIET));
    expect_bound_of_two(&evenkeel, evenkeel.address());
}

/// The same over all listeners, changed by a reload.
#[test]
fn connections_of_the_node() {
    let one = Backend::named("one");
    let config = shop(&[&one], QUIET);
    let evenkeel = Evenkeel::start(&config);
    evenkeel.reload(&format!("[node]\nmax_connections = 2\n{config}"));
    expect_bound_of_two(&evenkeel, evenkeel.address());
}

/// A tightened limit holds for connections that are already there.
#[test]
fn a_changed_limit_holds_at_once() {
    let one = Backend::named("one");
    let listen = free_ip();
    let config = |limit: &str| {
        format!(
            "[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}\
             [[load_balancers.shop.listeners]]\naddress = \"{listen}:0\"\nlimits = {{ target_bytes = \"{limit}\" }}\n",
            one.address
        )
    };
    let evenkeel = Evenkeel::start(&config("1KiB"));
    let mut client = evenkeel.client();
    let target = format!("/{}", "x".repeat(500));
    assert_eq!(client.get(&target).status(), 200);
    evenkeel.reload(&config("100B"));
    assert_eq!(client.get(&target).reason(), "target_too_long");
}
