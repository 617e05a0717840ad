//! When a request is tried elsewhere, and when it must not be.

use crate::support::{Backend, Evenkeel, Message, QUIET, pattern, shop};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A backend that takes each request whole and closes without an answer.
fn closing() -> Backend {
    Backend::scripted(|conversation| {
        conversation.request();
    })
}

/// One that answers the first request of a connection and resets the second, once it has it whole.
fn resetting_the_second() -> Backend {
    Backend::scripted(|conversation| {
        if conversation.request().is_some() && conversation.send(OK) && conversation.request().is_some() {
            conversation.reset();
        }
    })
}

fn post(body: &[u8], fields: &str) -> Vec<u8> {
    request("POST", body, fields)
}

fn request(method: &str, body: &[u8], fields: &str) -> Vec<u8> {
    let mut bytes = format!(
        "{method} /order HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends a request until the bad backend had its turn; the answer to that one.
fn until_it_meets(evenkeel: &Evenkeel, bad: &Backend, request: &[u8]) -> Message {
    let mut client = evenkeel.client();
    for _ in 0..4 {
        let before = bad.count();
        let answer = client.send(request).response();
        if bad.count() > before || answer.status() != 200 {
            return answer;
        }
    }
    panic!("round robin never chose the bad backend");
}

/// A GET whose backend closes without an answer is answered by the other one.
#[test]
fn a_get_is_tried_elsewhere() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], QUIET));
    let answer = until_it_meets(&evenkeel, &bad, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status(), 200);
    assert_eq!(evenkeel.metric("evenkeel_pool_retries_total", &[]), 1.0);
}

/// A POST was sent and nothing came back: it may have been done, so it is not done again.
#[test]
fn a_post_is_not_repeated_once_it_was_sent() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], QUIET));
    let answer = until_it_meets(&evenkeel, &bad, &post(b"buy", ""));
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
    assert!(answer.text().contains("backend_reset"), "{}", answer.text());
    let orders: usize = [&bad, &good].iter().map(|b| b.count()).sum();
    assert!(orders <= 2, "the failed order went to one backend only: {orders}");
    assert_eq!(evenkeel.metric("evenkeel_pool_retries_total", &[]), 0.0);
}

/// The same on a connection that was used before: still not repeated, for the backend had read it.
#[test]
fn a_post_is_not_repeated_on_a_kept_connection() {
    let bad = resetting_the_second();
    let evenkeel = Evenkeel::start(&shop(&[&bad], QUIET));
    let mut client = evenkeel.client();
    assert_eq!(client.send(post(b"one", "")).response().status(), 200);
    let answer = client.send(post(b"two", "")).response();
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
    assert_eq!(bad.count(), 2);
}

/// A GET on a connection that the backend resets is tried again on a fresh one, even where there is no other
/// backend: a stale connection says nothing about the server.
#[test]
fn a_get_on_a_stale_connection_is_tried_on_a_fresh_one() {
    let only = resetting_the_second();
    let evenkeel = Evenkeel::start(&shop(&[&only], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").status(), 200);
    }
}

/// Nobody listens: nothing was sent, so even a POST goes elsewhere, with its body.
#[test]
fn a_post_that_could_not_connect_is_tried_elsewhere_with_its_body() {
    let (dead, good) = (Backend::saying(OK), Backend::saying(OK));
    dead.kill();
    let evenkeel = Evenkeel::start(&shop(&[&dead, &good], QUIET));
    let mut client = evenkeel.client();
    for length in [3, 60_000, 3_000_000] {
        let body = pattern(length);
        for _ in 0..2 {
            assert_eq!(client.send(post(&body, "")).response().status(), 200);
            assert!(
                good.last().body == body,
                "{length} bytes arrived as they were sent"
            );
        }
    }
    assert!(evenkeel.metric("evenkeel_pool_retries_total", &[]) >= 3.0);
}

/// With an `Idempotency-Key` the client says that a POST may be repeated.
#[test]
fn a_post_with_an_idempotency_key_is_tried_elsewhere() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], QUIET));
    let answer = until_it_meets(
        &evenkeel,
        &bad,
        &post(b"buy", "Idempotency-Key: \"8e03978e\"\r\n"),
    );
    assert_eq!(answer.status(), 200);
    assert_eq!(bad.last(), good.last(), "it is the same request");
    assert_eq!(good.last().body, b"buy");
}

/// A PUT may be repeated while its body was kept: up to `replay_bytes`, in any framing.
#[test]
fn a_put_is_repeated_with_its_body_when_that_is_small() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], QUIET));
    for length in [0, 5, 30_000, 64 * 1024] {
        let body = pattern(length);
        let answer = until_it_meets(&evenkeel, &bad, &request("PUT", &body, ""));
        assert_eq!(answer.status(), 200, "{length}");
        assert!(good.last().body == body, "{length}");
    }
    let chunked =
        b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n";
    assert_eq!(until_it_meets(&evenkeel, &bad, chunked).status(), 200);
    assert_eq!(good.last().body, b"abcdefg");
    let lines: Vec<String> = good.requests().into_iter().map(|r| r.line).collect();
    assert!(
        lines.iter().all(|l| l.starts_with("PUT ")),
        "nothing follows a body: {lines:?}"
    );
}

/// A body over the bound is gone once it was sent: the failure is told.
#[test]
fn a_put_over_the_bound_is_not_repeated() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let more = format!("{QUIET}retries = {{ replay_bytes = \"16KiB\" }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &more));
    let body = pattern(100_000);
    let answer = until_it_meets(&evenkeel, &bad, &request("PUT", &body, ""));
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
    assert_eq!(evenkeel.metric("evenkeel_pool_retries_total", &[]), 0.0);
}

/// Retries switched off: the first failure is told.
#[test]
fn no_retries_where_they_are_switched_off() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(
        &[&bad, &good],
        &format!("{QUIET}retries = {{ attempts = 0 }}\n"),
    ));
    let answer = until_it_meets(&evenkeel, &bad, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
}

/// An outage: retries stop at the reserve of a hundred and the share of the budget, so they cannot double the load
/// of a pool in trouble.
#[test]
fn the_budget_bounds_retries() {
    let (bad, worse) = (closing(), closing());
    let more = format!("{QUIET}retries = {{ attempts = 1, budget = \"0%\" }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&bad, &worse], &more));
    let mut client = evenkeel.client();
    for _ in 0..130 {
        assert_eq!(client.get("/").reason(), "backend_reset");
    }
    let metrics = evenkeel.metrics();
    let made = metrics.sum("evenkeel_pool_retries_total", &[]);
    let refused = metrics.sum("evenkeel_pool_retries_over_budget_total", &[]);
    assert_eq!(made + refused, 130.0);
    // The window moves while the test runs on a slow machine; it never grants more than the reserve at once.
    assert!(made >= 100.0 && refused > 0.0, "made {made}, refused {refused}");
    assert_eq!((bad.count() + worse.count()) as f64, 130.0 + made);
}

/// A response that has begun is never repeated: its client sees the end of the connection.
#[test]
fn a_response_that_has_begun_is_not_repeated() {
    let bad = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Le");
    });
    let evenkeel = Evenkeel::start(&shop(&[&bad], QUIET));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
    assert_eq!(bad.count(), 1);
}
