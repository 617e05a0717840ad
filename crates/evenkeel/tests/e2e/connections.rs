//! RFC 9112 section 9: connections to clients and to backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Backend, Broken, Evenkeel, Gate, Message, QUIET, shop, shop_with_listener, wait_for, wait_until,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn echo_target(request: &Message) -> Vec<u8> {
    let target = request.target();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
        target.len()
    )
    .into_bytes()
}

/// Section 9.3.2: requests sent ahead are answered in order, however long each backend takes.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let slow_may_go = Gate::default();
    let gate = slow_may_go.clone();
    let slow = Backend::answering(move |request| {
        gate.pass();
        echo_target(request)
    });
    let fast = Backend::answering(echo_target);
    let evenkeel = Evenkeel::start(&shop(&[&slow, &fast], QUIET));
    let mut client = evenkeel.client();
    let requests: String = (1..=6)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(requests);
    wait_until("the slow backend has the first", || {
        slow_may_go.came() == 1 || fast.count() == 1
    });
    slow_may_go.open();
    for n in 1..=6 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    assert_eq!((slow.count(), fast.count()), (3, 3));
}

/// Bodies between pipelined requests are taken for bodies, never for requests.
#[test]
fn pipelined_requests_with_bodies() {
    let one = Backend::answering(echo_target);
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\nGET /no HTTP/1.1\r\nHost: evil\r\n\r\n...\
         POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nGET /n\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for n in 1..=3 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    assert_eq!(one.count(), 3);
    assert_eq!(one.requests()[1].body, b"GET /n");
}

/// A request that must be refused ends a pipeline: what came before is answered, what comes after is not served.
#[test]
fn a_bad_request_ends_the_pipeline() {
    let one = Backend::answering(echo_target);
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().reason(), "bad_host");
    assert!(client.is_ended());
    assert_eq!(one.count(), 1);
}

/// A head that comes byte by byte, after the empty line that section 2.2 asks to skip.
#[test]
fn a_head_byte_by_byte() {
    let one = Backend::answering(echo_target);
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        for byte in b"\r\nPOST /drip HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" {
            client.send([*byte]);
        }
        assert_eq!(client.response().text(), "/drip");
        assert_eq!(one.last().body, b"abc");
    }
}

/// Section 9.6: a client that has said all and closes its side still gets its answer.
#[test]
fn a_half_closed_client_is_answered() {
    let one = Backend::answering(echo_target);
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client
        .send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
        .finish_sending();
    assert_eq!(client.response().text(), "/last");
    assert!(client.is_ended());
}

/// Requests of one client share a backend connection; it is reused across clients too.
#[test]
fn backend_connections_are_reused() {
    let one = Backend::named("one");
    let config = format!("[node]\nthreads = 1\n{}", shop(&[&one], QUIET));
    let evenkeel = Evenkeel::start(&config);
    for _ in 0..3 {
        let mut client = evenkeel.client();
        for _ in 0..5 {
            assert_eq!(client.get("/").status(), 200);
        }
    }
    assert_eq!(one.accepted(), 1);
    evenkeel.wait_for_metric("evenkeel_backend_connections_opened_total", &[], 1.0);
    evenkeel.wait_for_metric("evenkeel_backend_connections_reused_total", &[], 14.0);
    wait_until("one is kept", || {
        evenkeel.backend(one.address)["idle_connections"] == 1
    });
}

/// A backend that closes idle connections: the next request of any kind is served as if nothing had been.
#[test]
fn a_backend_that_closes_idle_connections_is_not_noticed() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(client.get("/").status(), 200);
        one.close_all();
        wait_until("it is closed", || one.open_connections() == 0);
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.ask(&request).status(), 200, "{method}");
    }
    assert_eq!(evenkeel.metric("evenkeel_request_failures_total", &[]), 0.0);
}

/// A backend that says `Connection: close` is taken at its word.
#[test]
fn a_backend_that_wants_to_close_is_not_asked_again() {
    let one = Backend::saying("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert!(
            answer.text() == "ok" && !answer.closes(),
            "the client's side goes on: {}",
            answer.head
        );
    }
    assert_eq!(one.accepted(), 3);
}

/// Section 9.2: bytes that nobody asked for, on an idle connection or behind an answer, poison the connection and
/// never become somebody's response.
#[test]
fn unsolicited_bytes_are_nobodys_response() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let behind = Backend::saying(format!("{OK}{EVIL}"));
    let evenkeel = Evenkeel::start(&shop(&[&behind], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(behind.accepted(), 5, "no connection was used twice");

    // The same a moment later, when the connection is idle already.
    let sent = Arc::new(AtomicBool::new(false));
    let (go, done) = (Gate::default(), sent.clone());
    let gate = go.clone();
    let idle = Backend::scripted(move |conversation| {
        while conversation.request().is_some() && conversation.send(OK) {
            if conversation.number == 1 && !done.load(Ordering::Acquire) {
                gate.pass();
                conversation.send(EVIL);
                done.store(true, Ordering::Release);
            }
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&idle], QUIET));
    let mut client = evenkeel.client();
    assert_eq!(client.get("/").text(), "ok");
    go.open();
    wait_until("the bytes are sent", || sent.load(Ordering::Acquire));
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(idle.accepted(), 2);
}

/// The backend's own `Keep-Alive: timeout` is kept a second ahead of, so 1 means: do not keep it at all.
#[test]
fn a_backends_keep_alive_time_is_respected() {
    let one = Backend::saying("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(
            answer.field("keep-alive"),
            None,
            "that was between the backend and us"
        );
    }
    assert_eq!(one.accepted(), 3);
}

/// Idle backend connections are bounded in number and in time.
#[test]
fn idle_backend_connections_are_bounded() {
    let gate = Gate::default();
    let wait = gate.clone();
    let one = Backend::answering(move |_| {
        wait.pass();
        OK.into()
    });
    let more = format!("{QUIET}connections = {{ max_idle = 2, idle_timeout = \"300ms\" }}\n");
    let config = format!("[node]\nthreads = 1\n{}", shop(&[&one], &more));
    let evenkeel = Evenkeel::start(&config);
    let mut clients: Vec<_> = (0..6).map(|_| evenkeel.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("all are at the backend", || gate.came() == 6);
    assert_eq!(evenkeel.backend(one.address)["in_flight"], 6);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    wait_until("only two are kept", || one.open_connections() <= 2);
    wait_until("none is kept for long", || one.open_connections() == 0);
    wait_until("none is counted", || {
        evenkeel.backend(one.address)["idle_connections"] == 0
    });
}

/// A client that goes away while its backend thinks: the backend's connection ends too, and nothing is left behind.
#[test]
fn a_client_that_leaves_early_leaves_nothing_behind() {
    let one = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin");
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop(
        &[&one],
        &format!("{QUIET}timeouts = {{ stream_idle = \"1s\" }}\n"),
    ));
    let mut client = evenkeel.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.reset();
    wait_until("the backend's connection ends", || one.open_connections() == 0);
    wait_until("nothing is in flight", || {
        evenkeel.backend(one.address)["in_flight"] == 0
    });
    wait_until("no connection is counted", || {
        evenkeel.metric("evenkeel_open_tcp_connections", &[]) == 0.0
    });
}

/// A connection on which nothing was ever asked is closed after a while, without a word.
#[test]
fn a_silent_connection_is_closed() {
    let one = Backend::named("one");
    let listener = "timeouts = { request_headers = \"200ms\", keep_alive = \"300ms\" }";
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], listener, QUIET));
    assert_eq!(evenkeel.client().end(), Broken::Closed);
    // One that is slower than that to ask is closed before.
    let mut kept = wait_for("one asks in time", || {
        let mut client = evenkeel.client();
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        let answer = client.try_response().ok()?;
        assert_eq!(answer.status(), 200);
        Some(client)
    });
    assert_eq!(kept.end(), Broken::Closed, "keep-alive has an end");
}
