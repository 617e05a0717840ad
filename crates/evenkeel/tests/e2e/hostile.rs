//! Slow and hostile clients and backends: others are served meanwhile, and afterwards everything is as before.

use crate::support::{Backend, Client, Evenkeel, Load, QUIET, pattern, shop, shop_with_listener, wait_until};

/// Hundreds of clients that begin and do not go on, in headers, in bodies, in silence, half closed, reset: others
/// are served without a failure, everyone is ended in time, memory and open files return to where they were.
#[test]
fn slow_and_broken_clients_are_ended_and_leave_nothing() {
    let one = Backend::named("one");
    let listener = "timeouts = { request_headers = \"1s\", request_body_idle = \"1s\" }\n\
                    limits = { header_bytes = \"4KiB\" }";
    let more = format!("{QUIET}connections = {{ idle_timeout = \"100ms\" }}\n");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], listener, &more));
    let address = evenkeel.address();
    // A first round, so that what is kept for reuse is there already.
    let round = |count: usize| {
        let begin = |number: usize| {
            let sent = match number % 6 {
                0 => "",
                1 => "GET / HTTP/1.1\r\nHost: a\r\nX: ",
                2 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
                3 => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                4 => "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
                _ => "G",
            };
            let mut client = Client::connect(address);
            client.send(sent);
            client
        };
        (0..count).map(begin).collect::<Vec<Client>>()
    };
    drop(round(60));
    wait_until("the first round is over", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) == 0.0
    });
    wait_until("no idle connection is kept", || {
        evenkeel.backend(one.address)["in_flight"] == 0
    });
    let (files, memory) = (evenkeel.open_files(), evenkeel.memory_kib());

    let load = Load::start(address, 4);
    let mut slow = round(300);
    for client in slow.drain(..100) {
        client.reset();
    }
    let oversized = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(8000));
    for _ in 0..50 {
        assert_eq!(evenkeel.client().ask(&oversized).status(), 431);
    }
    wait_until("only the load is left", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) <= 4.0
    });
    for client in &mut slow {
        while client.try_response().is_ok() {}
    }
    load.stop().assert_nothing_failed();
    assert!(evenkeel.failures("request_header_timeout") >= 50.0);
    assert!(evenkeel.failures("request_body_timeout") >= 50.0);
    wait_until("open files return", || evenkeel.open_files() <= files + 8);
    wait_until("memory returns", || evenkeel.memory_kib() <= memory + 16 * 1024);
}

/// Backends that accept and say nothing, reset, talk nonsense or dribble: the good one's requests are not touched,
/// and passive ejection takes the bad ones out.
#[test]
fn bad_backends_do_not_hold_up_the_good_one() {
    let mute = Backend::scripted(|c| c.hold());
    let resetting = Backend::scripted(|conversation| {
        conversation.head();
        conversation.reset();
    });
    let garbage = Backend::saying("\x01\x02\x03 what?\r\n\r\n");
    let good = Backend::named("good");
    let more = "slow_start = 0\nhealth = false\ntimeouts = { first_byte = \"5s\" }\n\
                passive = { consecutive_failures = 2, ejection_time = \"1h\", max_ejected = \"100%\" }\n";
    let evenkeel = Evenkeel::start(&shop(&[&mute, &resetting, &garbage, &good], more));
    // Beside each other, so that the mute one is waited for once.
    let mut first: Vec<Client> = (0..8).map(|_| evenkeel.client()).collect();
    for client in &mut first {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut client = evenkeel.client();
    wait_until("the bad ones are out", || {
        let _ = client.get("/");
        [&mute, &resetting, &garbage]
            .iter()
            .all(|b| evenkeel.backend(b.address)["eligibility"] == "ejected")
    });
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good");
    }
    let reasons = evenkeel.events("backend_ejected").join("\n");
    for words in [
        "first byte timeout",
        "connection closed before a response",
        "bad response",
    ] {
        assert!(reasons.contains(words), "{words}: {reasons}");
    }
}

/// A flood of answers that nobody reads, then a reset: the backends' connections end and nothing stays.
#[test]
fn readers_that_vanish_leave_nothing() {
    let one = Backend::answering(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n".to_vec();
        answer.extend(pattern(8 * 1024 * 1024));
        answer
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut first = evenkeel.client();
    assert_eq!(first.get("/").body.len(), 8 * 1024 * 1024);
    drop(first);
    let files = evenkeel.open_files();
    let mut clients: Vec<Client> = (0..20)
        .map(|_| Client::with_small_window(evenkeel.address()))
        .collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status(), 200);
    }
    clients.into_iter().for_each(Client::reset);
    wait_until("all have ended", || {
        evenkeel.metric("evenkeel_listener_connections", &[]) == 0.0
    });
    wait_until("nothing is in flight", || {
        evenkeel.backend(one.address)["in_flight"] == 0
    });
    wait_until("open files return", || evenkeel.open_files() <= files + 4);
    evenkeel.wait_for_failures("client_gone", 20);
}
