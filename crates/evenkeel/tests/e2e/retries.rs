//! When a request is tried elsewhere, and when it must not be.

use crate::support::{Backend, Evenkeel, Gate, Message, QUIET, pattern, shop, wait_until};

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
    evenkeel.wait_for_metric("evenkeel_pool_retries_total", &[], 1.0);
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

// ---- on status, on timeout, by attempt ----

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const ON_503: &str = "retries = { on = [\"connect\", \"reset\", 503] }\n";

/// A GET that one backend answers with 503 is answered by the other; the client sees nothing of it.
#[test]
fn a_status_is_tried_elsewhere() {
    let (bad, good) = (Backend::saying(BUSY), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &format!("{QUIET}{ON_503}")));
    let answer = until_it_meets(&evenkeel, &bad, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    let by_status = [("cause", "status")];
    evenkeel.wait_for_metric("evenkeel_pool_retries_total", &by_status, 1.0);
    evenkeel.wait_for_metric("evenkeel_pool_retries_total", &[], 1.0);
}

/// Where all answer so, the client gets the last answer as it is, with its body.
#[test]
fn the_last_answer_is_passed_on() {
    let (bad, worse) = (Backend::saying(BUSY), Backend::saying(BUSY));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &worse], &format!("{QUIET}{ON_503}")));
    let answer = evenkeel.client().get("/");
    assert_eq!(
        (answer.status(), answer.reason(), answer.text()),
        (503, "", "busy")
    );
    assert_eq!(bad.count() + worse.count(), 2);
    let alone = Evenkeel::start(&shop(&[&bad], &format!("{QUIET}{ON_503}")));
    assert_eq!(alone.client().get("/").text(), "busy", "nobody else to ask");
}

/// A status that is not named is an answer like any other.
#[test]
fn other_statuses_are_answers() {
    let (bad, good) = (Backend::saying(BUSY), Backend::saying(OK));
    for on in ["", "retries = { on = [502, 504] }\n"] {
        let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &format!("{QUIET}{on}")));
        let answer = until_it_meets(&evenkeel, &bad, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer.status(), 503);
    }
    let all = "retries = { on = [\"5xx\"] }\n";
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &format!("{QUIET}{all}")));
    assert!((0..6).all(|_| evenkeel.client().get("/").status() == 200));
}

/// A POST that was answered with 503 may have been done: repeated only where its client allows it.
#[test]
fn a_post_is_not_repeated_on_a_status_without_a_key() {
    let (bad, good) = (Backend::saying(BUSY), Backend::saying(OK));
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &format!("{QUIET}{ON_503}")));
    assert_eq!(until_it_meets(&evenkeel, &bad, &post(b"buy", "")).status(), 503);
    let with_key = post(b"buy", "Idempotency-Key: \"8e03978e\"\r\n");
    assert_eq!(until_it_meets(&evenkeel, &bad, &with_key).status(), 200);
    assert_eq!(good.last().body, b"buy");
}

/// A body that is kept is sent again after a status; one over the bound is not, and that is counted.
#[test]
fn a_body_over_the_bound_is_not_sent_again_and_that_is_told() {
    let (bad, good) = (Backend::saying(BUSY), Backend::saying(OK));
    let more = format!("{QUIET}retries = {{ on = [503], replay_bytes = \"16KiB\" }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &more));
    let gone = || evenkeel.metric("evenkeel_pool_retries_body_gone_total", &[]);
    let small = request("PUT", &pattern(16 * 1024), "");
    assert_eq!(until_it_meets(&evenkeel, &bad, &small).status(), 200);
    assert!(good.last().body == pattern(16 * 1024));
    assert_eq!(gone(), 0.0);
    let large = request("PUT", &pattern(100_000), "");
    assert_eq!(until_it_meets(&evenkeel, &bad, &large).status(), 503);
    assert_eq!(gone(), 1.0);
}

/// A backend that hangs: the attempt is given up after its own time and another one answers, long before
/// `first_byte`.
#[test]
fn an_attempt_has_its_own_time() {
    let gate = Gate::default();
    let go = gate.clone();
    let slow = Backend::answering(move |_| {
        go.pass();
        OK.into()
    });
    let good = Backend::named("good");
    let more = format!(
        "{QUIET}retries = {{ on = [\"timeout\"], per_try_timeout = \"3s\" }}\ntimeouts = {{ first_byte = \"10m\" }}\n"
    );
    let evenkeel = Evenkeel::start(&shop(&[&slow, &good], &more));
    let mut client = evenkeel.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(slow.count() >= 1);
    assert!(evenkeel.metric("evenkeel_pool_retries_total", &[("cause", "timeout")]) >= 1.0);
    gate.open();
}

/// All hang: the last attempt's time ends the request, with a reason of its own.
#[test]
fn the_last_attempt_ends_the_request() {
    let gate = Gate::default();
    let hanging = |gate: &Gate| {
        let go = gate.clone();
        Backend::answering(move |_| {
            go.pass();
            OK.into()
        })
    };
    let (one, two) = (hanging(&gate), hanging(&gate));
    let more = format!("{QUIET}retries = {{ on = [\"timeout\"], per_try_timeout = \"1s\" }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], &more));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (504, "try_timeout"));
    // A backend may read late what it was sent in time.
    wait_until("each was asked once", || (one.count(), two.count()) == (1, 1));
    gate.open();
}

/// Without `timeout` in `on` a slow backend is waited for no longer than `first_byte`, and nobody else is asked; a
/// route may have another `first_byte` and `total` than its pool.
#[test]
fn a_route_has_its_own_timeouts() {
    let gate = Gate::default();
    let go = gate.clone();
    let slow = Backend::answering(move |_| {
        go.pass();
        OK.into()
    });
    let more = format!(
        "{QUIET}timeouts = {{ first_byte = \"10m\" }}\n\
         [[load_balancers.shop.routes]]\nmatch = {{ path_prefix = \"/first\" }}\npool = \"default\"\n\
         timeouts = {{ first_byte = \"1s\" }}\n\
         [[load_balancers.shop.routes]]\nmatch = {{ path_prefix = \"/total\" }}\npool = \"default\"\n\
         timeouts = {{ total = \"1s\" }}\n"
    );
    let evenkeel = Evenkeel::start(&shop(&[&slow], &more));
    assert_eq!(evenkeel.client().get("/first").reason(), "first_byte_timeout");
    assert_eq!(evenkeel.client().get("/total").reason(), "total_timeout");
    wait_until("tried once each", || slow.count() == 2);
    gate.open();
}

/// A cause that is not named is not tried elsewhere.
#[test]
fn only_named_causes_are_tried_elsewhere() {
    let (bad, good) = (closing(), Backend::saying(OK));
    let more = format!("{QUIET}retries = {{ on = [\"connect\"] }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&bad, &good], &more));
    let answer = until_it_meets(&evenkeel, &bad, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
    bad.kill();
    assert!((0..4).all(|_| evenkeel.client().get("/").status() == 200));
}
