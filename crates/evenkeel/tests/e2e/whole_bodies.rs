//! Bodies that are sent twice, taken whole, or not taken to their end: each try is a request of its own, and no byte
//! of one is ever taken for another's.

use std::sync::{Arc, Mutex};

use crate::support::{Backend, Evenkeel, Gate, QUIET, pattern, shop, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

fn buffering(backends: &[&Backend], settings: &str) -> String {
    let route = "[[load_balancers.shop.routes]]\npool = \"default\"\n";
    shop(backends, &format!("{QUIET}{settings}\n{route}"))
}

fn put(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "PUT /u HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A backend answers before it has the body, and keeps its connection, which still waits for the rest of it. The
/// answer is dropped and the request tried elsewhere; nothing else may come over that connection.
#[test]
fn a_connection_that_waits_for_the_rest_of_a_body_gets_no_other_request() {
    let behind = Arc::new(Mutex::new(Vec::new()));
    let seen = behind.clone();
    let hasty = Backend::scripted(move |conversation| {
        while let Some(request) = conversation.head() {
            if request.method() != "PUT" {
                conversation.send(OK);
                continue;
            }
            conversation.send(BUSY);
            loop {
                match conversation.read_some(4096) {
                    end if end.is_empty() => return,
                    more => seen.lock().unwrap().extend(more),
                }
            }
        }
    });
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let kept = bodies.clone();
    let good = Backend::scripted(move |conversation| {
        while let Some(mut request) = conversation.head() {
            if conversation.body(&mut request) {
                kept.lock().unwrap().push(request.body);
                conversation.send(OK);
            }
        }
    });
    let settings = format!("{QUIET}retries = {{ on = [503] }}\n");
    let evenkeel = Evenkeel::start(&shop(&[&hasty, &good], &settings));
    for turn in 1..=4 {
        let mut client = evenkeel.client();
        client.send("PUT /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // At first, or because the other one has answered.
        let puts = || good.requests().iter().filter(|r| r.method() == "PUT").count();
        wait_until("the good one is asked", || puts() == turn);
        client.send("0\r\n\r\n");
        assert_eq!(client.response().status(), 200);
        // On the same thread, which would use the same connection.
        assert_eq!(client.get("/g").status(), 200);
    }
    assert!(hasty.requests().iter().any(|r| r.method() == "PUT"));
    drop(evenkeel);
    let behind = String::from_utf8(behind.lock().unwrap().clone()).unwrap();
    assert!(!behind.contains("HTTP/1.1"), "{behind:?}");
    let bodies = bodies.lock().unwrap();
    assert!(bodies.iter().all(|body| body == b"abc" || body.is_empty()));
}

/// What is on disk is sent again from its beginning, whole, when the first backend gave up in the middle of it.
#[test]
fn a_body_on_disk_is_tried_elsewhere_whole() {
    let hasty = Backend::scripted(|conversation| {
        if conversation.head().is_some() && conversation.read_all(100_000) {
            conversation.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let good = Backend::saying(OK);
    let settings = "buffer_requests = { memory = \"4KiB\", disk = \"32MiB\" }\n";
    let config = buffering(&[&hasty, &good], "retries = { on = [503] }");
    let evenkeel = Evenkeel::start(&format!("{config}{settings}"));
    let body = pattern(16 << 20);
    for chunked in [true, false] {
        // One of two in turn meets the hasty one.
        for _ in 0..2 {
            let mut client = evenkeel.client();
            if chunked {
                client.send("PUT /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                client.send(format!("{:x}\r\n", body.len()));
                client.send(&body).send("\r\n0\r\n\r\n");
            } else {
                client.send(put(&body));
            }
            assert_eq!(client.response().status(), 200);
            assert!(good.last().body == body, "chunked: {chunked}");
        }
    }
    assert!(hasty.count() >= 2 && good.count() == 4);
}

/// A body that was taken whole is here, however large: the bound on what is kept of streaming bodies is not for it.
#[test]
fn a_body_taken_whole_is_tried_elsewhere_whatever_its_size() {
    let (dead, good) = (Backend::saying(OK), Backend::saying(OK));
    dead.kill();
    let config = buffering(&[&dead, &good], "");
    let evenkeel = Evenkeel::start(&format!("{config}buffer_requests = {{ memory = \"1MiB\" }}\n"));
    let body = pattern(500_000);
    for _ in 0..4 {
        assert_eq!(evenkeel.client().send(put(&body)).response().status(), 200);
        assert!(good.last().body == body);
    }
}

/// A backend that does not want a large body says so and closes: its answer reaches the client although the rest of
/// the body, which is here, cannot be sent any more.
#[test]
fn an_early_answer_to_a_large_body_is_heard() {
    let answered = Gate::default();
    let end = answered.clone();
    let unwilling = Backend::scripted(move |conversation| {
        conversation.head();
        conversation.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        end.pass();
    });
    let config = buffering(&[&unwilling], "");
    let evenkeel = Evenkeel::start(&format!("{config}buffer_requests = {{ memory = \"16MiB\" }}\n"));
    // More than the kernel takes of it.
    let answer = evenkeel.client().send(put(&pattern(15 << 20))).response();
    assert_eq!((answer.status(), answer.reason()), (413, ""));
    answered.open();
}

/// A response whose body breaks off before anything was sent of it: what its head said of coding and content is not
/// said of the failure.
#[test]
fn a_failure_says_nothing_of_the_response_that_it_stands_for() {
    let broken = Backend::saying(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    );
    let config = buffering(&[&broken], "sticky = { cookie = \"evk\" }");
    let evenkeel = Evenkeel::start(&format!("{config}compression = {{}}\nbuffer_responses = {{}}\n"));
    let answer = evenkeel
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!((answer.status(), answer.reason()), (502, "bad_response"));
    for name in ["Content-Encoding", "ETag", "Vary", "Set-Cookie"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert!(answer.text().starts_with("bad_response: "));
}

/// A client was allowed to send its body, then the response that was held breaks off: the client is told so.
#[test]
fn a_held_response_that_breaks_off_is_told_after_a_continue_too() {
    let broken = Backend::scripted(|conversation| {
        if let Some(mut request) = conversation.head()
            && conversation.send("HTTP/1.1 100 Continue\r\n\r\n")
            && conversation.body(&mut request)
        {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
    });
    let config = buffering(&[&broken], "");
    let evenkeel = Evenkeel::start(&format!("{config}buffer_responses = {{}}\n"));
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    let answer = client.send("body").response();
    assert_eq!((answer.status(), answer.reason()), (502, "backend_truncated"));
}
