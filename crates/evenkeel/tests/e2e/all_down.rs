//! When no backend is eligible: what the policy says, never anything in between.

use crate::support::{Backend, Evenkeel, shop, wait_until};

const CHECKED: &str = "slow_start = 0\npassive = false\n\
    health = { path = \"/health\", interval = \"3s\", fast_interval = \"50ms\", timeout = \"1s\", fall = 1, rise = 1 }\n";

/// A backend whose check always fails and whose pages are fine.
fn wrongly_checked() -> Backend {
    Backend::answering(|request| match request.target() {
        "/health" => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_vec(),
    })
}

/// A wrong check does no harm: all are used as if they were up, and it is said loudly.
#[test]
fn fail_open() {
    let (one, two) = (wrongly_checked(), wrongly_checked());
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], CHECKED));
    evenkeel.wait_for_state(one.address, "fail_open");
    evenkeel.wait_for_state(two.address, "fail_open");
    let mut client = evenkeel.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "fine");
    }
    evenkeel.wait_for_metric("evenkeel_pool_all_down", &[], 1.0);
    assert_eq!(evenkeel.events("pool_all_down").len(), 1);
    assert!(
        evenkeel
            .cli_ok(&["status"])
            .contains("NO BACKEND IS ELIGIBLE, fail_open")
    );
    // An order still holds.
    evenkeel.cli_ok(&["backend", "drain", "shop", &one.address.to_string()]);
    let before = one.count();
    for _ in 0..4 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert!(one.requests()[before..].iter().all(|r| r.target() == "/health"));
    evenkeel.cli_ok(&["backend", "drain", "shop", &two.address.to_string()]);
    assert_eq!(client.get("/").reason(), "no_backend", "both are drained");
}

/// Nothing is tried: 503 at once, with when to come again; the first that is up ends it.
#[test]
fn fail_closed() {
    let one = Backend::named("one");
    one.kill();
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{CHECKED}all_down = \"fail_closed\"\n")));
    evenkeel.wait_for_state(one.address, "down");
    let mut client = evenkeel.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.reason()), (503, "no_backend"));
        assert_eq!(answer.field("retry-after"), Some("3"));
        assert!(!answer.closes());
    }
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((answer.status(), answer.closes()), (503, false));
    evenkeel.wait_for_failures("no_backend", 4);
    one.start();
    wait_until("it is used again", || client.get("/").status() == 200);
    wait_until("it is told", || evenkeel.events("pool_recovered").len() == 1);
}

/// An empty pool is valid and answers 503.
#[test]
fn an_empty_pool() {
    let evenkeel = Evenkeel::start(&shop(&[], ""));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (503, "no_backend"));
}
