//! Bodies taken whole before a backend is asked, responses taken from it before the client reads, and copies for
//! another pool.

use std::io::Write;

use crate::support::{Backend, Client, Evenkeel, Message, QUIET, curl, free_ip, pattern, shop, wait_until};

fn buffering(backend: &Backend, settings: &str) -> String {
    let route = "[[load_balancers.shop.routes]]\npool = \"default\"\n";
    shop(&[backend], &format!("{QUIET}{route}{settings}\n"))
}

/// A slow upload holds no backend: it is connected to only when the body is here. In memory, on disk, in chunks.
#[test]
fn a_slow_upload_holds_no_backend() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&buffering(
        &one,
        "buffer_requests = { memory = \"4KiB\", disk = \"1MiB\" }",
    ));
    let address = evenkeel.address();
    let body = pattern(300_000);
    for size in [3000, 300_000] {
        let body = &body[..size];
        let mut client = Client::connect(address);
        client.send(format!(
            "POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        ));
        client.send(&body[..size / 2]);
        let uploads = || one.requests().iter().filter(|r| r.target() == "/u").count();
        let (before, asked) = (uploads(), one.accepted());
        // Another request overtakes it: whatever was to happen with the first half has happened.
        assert_eq!(evenkeel.client().get("/other").status(), 200);
        assert_eq!(uploads(), before);
        assert!(one.accepted() <= asked + 1);
        client.send(&body[size / 2..]);
        assert_eq!(client.response().status(), 200);
        assert!(one.last().body == body, "{size}");
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&body).unwrap();
    let data = format!("@{}", file.path().display());
    let url = format!("http://{address}/chunked");
    // curl asks for permission and waits for it.
    let told = curl(&[
        "-w",
        "%{http_code}",
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "15",
        "--data-binary",
        &data,
        &url,
    ]);
    assert!(told.stdout.ends_with(b"200"));
    assert!(one.last().body == body && one.last().is_chunked());
}

/// Beyond memory and disk a body is refused, and counted.
#[test]
fn what_is_over_the_buffers_is_refused() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&buffering(&one, "buffer_requests = { memory = \"4KiB\" }"));
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n");
    client.send(pattern(9000));
    let refused = client.response();
    assert_eq!((refused.status(), refused.reason()), (413, "body_too_large"));
    let full = Evenkeel::start(&buffering(
        &one,
        "buffer_requests = { memory = \"4KiB\", disk = \"1MiB\", disk_total = \"1KiB\" }",
    ));
    let mut client = full.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n");
    client.send(pattern(90_000));
    let refused = client.response();
    assert_eq!((refused.status(), refused.reason()), (503, "buffer_full"));
    assert_eq!(one.count(), 0);
    for (process, outcome) in [(evenkeel, "refused"), (full, "full")] {
        let outcome = [("outcome", outcome)];
        process.wait_for_metric("evenkeel_buffered_bodies_total", &outcome, 1.0);
    }
}

/// An upload whose first bytes are here and kept; the rest is for later.
fn begin(evenkeel: &Evenkeel, (size, first): (usize, usize)) -> Client {
    let mut client = evenkeel.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
    ));
    client.send(&pattern(size)[..first]);
    client
}

/// Sends a whole body after its head, so that it is read apart from it.
fn upload(evenkeel: &Evenkeel, size: usize) -> Message {
    let mut client = evenkeel.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
    ));
    assert_eq!(client.head().status(), 100);
    client.send(pattern(size));
    client.response()
}

fn wait_for_bytes(evenkeel: &Evenkeel, place: &str, bytes: usize) {
    evenkeel.wait_for_metric("evenkeel_buffered_bytes", &[("place", place)], bytes as f64);
}

/// All bodies of a route share its memory, to the byte; without a disk what is more is refused, and all of it is there
/// again once the others are gone, whether they were sent on or given up.
#[test]
fn the_memory_of_all_bodies_is_bounded_to_the_byte() {
    let one = Backend::named("one");
    let settings = "buffer_requests = { memory = \"16KiB\", memory_total = \"20KiB\" }";
    let evenkeel = Evenkeel::start(&buffering(&one, settings));
    let mut slow = begin(&evenkeel, (16_000, 12_000));
    wait_for_bytes(&evenkeel, "memory", 12_000);
    let left = 20 * 1024 - 12_000;
    let refused = upload(&evenkeel, left + 1);
    assert_eq!((refused.status(), refused.reason()), (503, "buffer_full"));
    wait_for_bytes(&evenkeel, "memory", 12_000);
    assert_eq!(upload(&evenkeel, left).status(), 200);
    assert!(one.last().body == pattern(left));
    wait_for_bytes(&evenkeel, "memory", 12_000);
    let gone = begin(&evenkeel, (8_000, 4_000));
    wait_for_bytes(&evenkeel, "memory", 16_000);
    drop(gone);
    wait_for_bytes(&evenkeel, "memory", 12_000);
    slow.send(&pattern(16_000)[12_000..]);
    assert_eq!(slow.response().status(), 200);
    assert!(one.last().body == pattern(16_000));
    wait_for_bytes(&evenkeel, "memory", 0);
    for (outcome, bodies) in [("memory", 2.0), ("full", 1.0), ("failed", 1.0), ("refused", 0.0)] {
        evenkeel.wait_for_metric("evenkeel_buffered_bodies_total", &[("outcome", outcome)], bodies);
    }
}

/// The bound is that of all threads together, and outlives a change of the config: who holds memory goes on doing so.
#[test]
fn the_memory_of_all_bodies_is_one_over_threads_and_reloads() {
    let one = Backend::named("one");
    let settings = "buffer_requests = { memory = \"8KiB\", memory_total = \"20KiB\" }";
    let config = format!("[node]\nthreads = 4\n{}", buffering(&one, settings));
    let evenkeel = Evenkeel::start(&config);
    let mut slow: Vec<Client> = (1..=5)
        .map(|number| {
            let client = begin(&evenkeel, (5_000, 4_096));
            wait_for_bytes(&evenkeel, "memory", number * 4_096);
            client
        })
        .collect();
    for _ in 0..8 {
        assert_eq!(upload(&evenkeel, 1).reason(), "buffer_full");
    }
    evenkeel.reload(&config.replace("memory = \"8KiB\"", "memory = \"9KiB\""));
    wait_for_bytes(&evenkeel, "memory", 5 * 4_096);
    assert_eq!(upload(&evenkeel, 1).reason(), "buffer_full");
    // The first that goes on asks for more than there is; then there is room for the others.
    let mut first = slow.remove(0);
    first.send(&pattern(5_000)[4_096..]);
    assert_eq!(first.response().reason(), "buffer_full");
    wait_for_bytes(&evenkeel, "memory", 4 * 4_096);
    for mut client in slow {
        client.send(&pattern(5_000)[4_096..]);
        assert_eq!(client.response().status(), 200);
    }
    wait_for_bytes(&evenkeel, "memory", 0);
}

/// While there is no memory, bodies go to disk at once, as great as they may be at all, and arrive whole.
#[test]
fn without_memory_bodies_go_to_disk_at_once() {
    let one = Backend::named("one");
    let settings = "buffer_requests = { memory = \"16KiB\", memory_total = \"12KiB\", disk = \"16KiB\", \
                    disk_total = \"40KiB\" }";
    let evenkeel = Evenkeel::start(&buffering(&one, settings));
    let mut slow = begin(&evenkeel, (16_000, 12_288));
    wait_for_bytes(&evenkeel, "memory", 12_288);
    for size in [1, 10_000, 32 * 1024] {
        assert_eq!(upload(&evenkeel, size).status(), 200);
        assert!(one.last().body == pattern(size), "{size}");
        wait_for_bytes(&evenkeel, "disk", 0);
    }
    let large = begin(&evenkeel, (30_000, 25_000));
    wait_for_bytes(&evenkeel, "disk", 25_000);
    wait_for_bytes(&evenkeel, "memory", 12_288);
    let left = 40 * 1024 - 25_000;
    assert_eq!(upload(&evenkeel, left + 1).reason(), "buffer_full");
    wait_for_bytes(&evenkeel, "disk", 25_000);
    assert_eq!(upload(&evenkeel, left).status(), 200);
    drop(large);
    wait_for_bytes(&evenkeel, "disk", 0);
    // What was in memory stays there, and what follows it goes to disk.
    slow.send(&pattern(16_000)[12_288..]);
    assert_eq!(slow.response().status(), 200);
    assert!(one.last().body == pattern(16_000));
    wait_for_bytes(&evenkeel, "memory", 0);
    for (outcome, bodies) in [("spilled", 5.0), ("full", 1.0), ("failed", 1.0), ("disk", 0.0)] {
        evenkeel.wait_for_metric("evenkeel_buffered_bodies_total", &[("outcome", outcome)], bodies);
    }
}

/// A client that does not read: the backend is free all the same, and the client gets every byte in the end.
#[test]
fn a_client_that_does_not_read_holds_no_backend() {
    let size = 8 << 20;
    let one = Backend::answering(move |_| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.extend(pattern(size));
        answer
    });
    let evenkeel = Evenkeel::start(&buffering(&one, "buffer_responses = { memory = \"16MiB\" }"));
    let mut client = Client::with_small_window(evenkeel.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the backend is free", || {
        one.count() == 1 && evenkeel.metric("evenkeel_backend_in_flight", &[]) == 0.0
    });
    let mut response = client.head();
    client.body(&mut response).unwrap();
    assert!(response.body == pattern(size));
}

/// A response that breaks off while it was held is a failure of the backend, not half an answer.
#[test]
fn half_a_response_that_was_held_is_not_sent() {
    let one = Backend::scripted(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
    });
    let evenkeel = Evenkeel::start(&buffering(&one, "buffer_responses = {}"));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_truncated"));
}

fn mirrored(live: &Backend, shadow: &Backend, settings: &str) -> String {
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n[load_balancers.shop.pools.live]\nbackend_servers = [\"{}\"]\n{QUIET}\
         [load_balancers.shop.pools.shadow]\nbackend_servers = [\"{}\"]\n{QUIET}\
         [[load_balancers.shop.routes]]\npool = \"live\"\nmirror = {{ pool = \"shadow\"{settings} }}\n\
         rewrite = {{ path_prefix = \"/v2\" }}\n",
        free_ip(),
        live.address,
        shadow.address
    )
}

/// The shadow gets what the pool got, bodies included, and its answers go nowhere.
#[test]
fn copies_reach_the_shadow_and_its_answers_nobody() {
    let (live, shadow) = (
        Backend::named("live"),
        Backend::saying("HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nshadow"),
    );
    let evenkeel = Evenkeel::start(&mirrored(&live, &shadow, ""));
    let mut client = evenkeel.client();
    assert_eq!(client.get("/a?b").text(), "live");
    wait_until("a copy", || shadow.count() == 1);
    assert_eq!(shadow.last().target(), "/v2/a?b");
    let chunked = client
        .ask("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(chunked.text(), "live");
    wait_until("a copy", || shadow.count() == 2);
    assert_eq!((shadow.last().text(), shadow.last().method()), ("hello", "POST"));
    let large = pattern(100_000);
    client.send("POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    client.send(&large);
    assert_eq!(client.response().text(), "live");
    let copies = |outcome| evenkeel.metric("evenkeel_mirrored_requests_total", &[("outcome", outcome)]);
    wait_until("counts", || {
        copies("answered") == 2.0 && copies("too_large") == 1.0
    });
    assert_eq!(shadow.count(), 2);
}

/// What is refused because its body turns out to be too large is copied to nobody, although all of it may be there.
#[test]
fn a_refused_body_is_not_copied() {
    let (live, shadow) = (Backend::named("live"), Backend::named("shadow"));
    let config = format!("{}max_body = \"4B\"\n", mirrored(&live, &shadow, ""));
    let evenkeel = Evenkeel::start(&config);
    let chunked = |body: &str| {
        let framing = "Host: a\r\nTransfer-Encoding: chunked";
        let length = body.len();
        let mut client = evenkeel.client();
        client.ask(&format!(
            "POST / HTTP/1.1\r\n{framing}\r\n\r\n{length}\r\n{body}\r\n0\r\n\r\n"
        ))
    };
    assert_eq!(chunked("hello").reason(), "body_too_large");
    assert_eq!(chunked("four").text(), "live");
    wait_until("the copy of the other", || shadow.count() == 1);
    assert_eq!(shadow.last().text(), "four");
    let too_large = [("outcome", "too_large")];
    evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &too_large, 1.0);
}

/// A shadow answers once and hangs then, on the connection that was kept: its copy ends in time all the same.
#[test]
fn a_shadow_that_hangs_later_holds_no_copy_for_ever() {
    let live = Backend::named("live");
    let shadow = Backend::scripted(|conversation| {
        if conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            conversation.hold();
        }
    });
    let evenkeel = Evenkeel::start(&mirrored(&live, &shadow, ", timeout = \"10s\""));
    let outcome = |outcome| [("outcome", outcome)];
    let copies = "evenkeel_mirrored_requests_total";
    let mut client = evenkeel.client();
    assert_eq!(client.get("/").text(), "live");
    evenkeel.wait_for_metric(copies, &outcome("answered"), 1.0);
    assert_eq!(client.get("/").text(), "live");
    evenkeel.wait_for_metric(copies, &outcome("failed"), 1.0);
    assert_eq!(shadow.accepted(), 1, "the second went over the one that was kept");
}

/// A shadow that hangs delays nobody, and holds only so many copies.
#[test]
fn a_shadow_that_hangs_delays_nobody() {
    let live = Backend::named("live");
    let shadow = Backend::scripted(|conversation| {
        conversation.request();
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&mirrored(&live, &shadow, ", max_in_flight = 3, timeout = \"1h\""));
    let mut client = evenkeel.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "live");
    }
    let busy = [("outcome", "busy")];
    evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &busy, 47.0);
    wait_until("three copies", || shadow.count() == 3);
}
