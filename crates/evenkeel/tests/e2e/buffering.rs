//! Bodies taken whole before a backend is asked, responses taken from it before the client reads, and copies for
//! another pool.

use std::io::Write;

use crate::support::{Backend, Client, Evenkeel, QUIET, curl, free_ip, pattern, shop, wait_until};

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
    for process in [evenkeel, full] {
        let outcome = [("outcome", "refused")];
        process.wait_for_metric("evenkeel_buffered_bodies_total", &outcome, 1.0);
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
