//! Ending: what runs is finished, nothing new is taken, and nothing is left that hinders the next start.

use nix::sys::signal::Signal;

use crate::support::{
    Backend, Client, Evenkeel, Gate, Load, Place, QUIET, free_address, shop, shop_on, wait_until,
};

/// A backend that answers `/slow` only when the gate is open.
fn gated() -> (Backend, Gate) {
    let gate = Gate::default();
    let go = gate.clone();
    let backend = Backend::answering(move |request| {
        if request.target() == "/slow" {
            go.pass();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    (backend, gate)
}

/// SIGTERM under load: a slow request finishes, new connections are refused, every answer given was a good one,
/// exit 0.
#[test]
fn sigterm_finishes_what_runs() {
    let (one, gate) = gated();
    let mut evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let address = evenkeel.address();
    let mut slow = evenkeel.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow request is at the backend", || gate.came() == 1);
    let load = Load::start(address, 8);
    load.wait_for_more(50);
    evenkeel.signal(Signal::SIGTERM);
    wait_until("nobody listens any more", || Client::refused(address));
    assert_eq!(evenkeel.get("/readyz").status(), 503);
    load.wait_for_more(50);
    let report = load.stop();
    assert!(
        report
            .failures
            .iter()
            .all(|f| f.starts_with("connect:") || f.starts_with("idle:")),
        "{:#?}",
        report.failures
    );
    gate.open();
    let answer = slow.response();
    assert!(answer.text() == "ok" && answer.closes(), "{}", answer.head);
    assert_eq!(evenkeel.wait_for_end().code(), Some(0));
    wait_until("the log says so", || evenkeel.log().contains("stopped"));
}

/// What does not finish is cut at the deadline; exit 0 all the same.
#[test]
fn the_deadline_cuts_what_does_not_finish() {
    let (one, gate) = gated();
    let config = format!("[node]\nshutdown_timeout = \"300ms\"\n{}", shop(&[&one], QUIET));
    let mut evenkeel = Evenkeel::start(&config);
    let mut slow = evenkeel.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow request is at the backend", || gate.came() == 1);
    evenkeel.signal(Signal::SIGTERM);
    assert_eq!(evenkeel.wait_for_end().code(), Some(0));
    wait_until("the log says so", || {
        evenkeel.log().contains("1 client connections were cut")
    });
    assert!(slow.is_ended());
    gate.open();
}

/// A second signal does not wait.
#[test]
fn a_second_signal_ends_at_once() {
    let (one, gate) = gated();
    let config = format!("[node]\nshutdown_timeout = \"1h\"\n{}", shop(&[&one], QUIET));
    let mut evenkeel = Evenkeel::start(&config);
    let address = evenkeel.address();
    let mut slow = evenkeel.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow request is at the backend", || gate.came() == 1);
    evenkeel.signal(Signal::SIGTERM);
    wait_until("it has begun to stop", || Client::refused(address));
    evenkeel.signal(Signal::SIGINT);
    assert_eq!(evenkeel.wait_for_end().code(), Some(0));
    gate.open();
}

/// With nothing to do the end is immediate, although clients hold idle connections.
#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let one = Backend::named("one");
    let config = format!("[node]\nshutdown_timeout = \"1h\"\n{}", shop(&[&one], QUIET));
    let mut evenkeel = Evenkeel::start(&config);
    let mut idle: Vec<Client> = (0..5).map(|_| evenkeel.client()).collect();
    for client in &mut idle[..3] {
        assert_eq!(client.get("/").status(), 200);
    }
    evenkeel.signal(Signal::SIGTERM);
    assert_eq!(evenkeel.wait_for_end().code(), Some(0));
    assert!(idle.iter_mut().all(Client::is_ended));
}

/// `kill -9` under load leaves nothing that blocks a start on the same addresses and data.
#[test]
fn kill_leaves_nothing_behind() {
    let one = Backend::named("one");
    let address = free_address();
    let place = Place::new(&shop_on(&address.to_string(), &[one.address], QUIET));
    for _ in 0..3 {
        let mut evenkeel = place.start();
        let load = Load::start(address, 8);
        load.wait_for_more(20);
        evenkeel.kill();
        load.wait_for_more(8);
        load.stop();
    }
    let evenkeel = place.start();
    assert_eq!(evenkeel.address(), address);
    assert_eq!(evenkeel.client().get("/").text(), "one");
}
