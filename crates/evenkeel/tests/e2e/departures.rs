//! Clients that leave while their request waits for its backend, and those that only look like it: RFC 9112
//! section 9.6 lets a client say that it sends no more and wait for its answer.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::frames_server::{CANCEL, STATUS_200};
use crate::support::*;

/// One slot, which a client that is forgotten would hold for good.
const ONE_SLOT: &str = "max_requests = 1\npassive = { consecutive_failures = 1 }\nslow_start = 0\n\
                        queue.timeout = \"60s\"\ntimeouts = { first_byte = \"60s\", stream_idle = \"60s\" }\n";

/// A backend that answers `/quick` and for anything else waits until it is left alone, which it counts.
struct Slow {
    backend: Backend,
    left: Arc<AtomicUsize>,
}

impl Slow {
    fn new() -> Self {
        let left = Arc::new(AtomicUsize::new(0));
        let count = left.clone();
        let backend = Backend::scripted(move |conversation| {
            while let Some(request) = conversation.request() {
                if request.target() != "/quick" {
                    conversation.hold();
                    count.fetch_add(1, SeqCst);
                    return;
                }
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        Self { backend, left }
    }

    /// Somebody asked, and left: the backend is let go at once, it is not blamed, and its slot is free.
    fn is_left(&self, evenkeel: &Evenkeel, times: usize) {
        wait_until("the backend is left alone", || self.left.load(SeqCst) == times);
        evenkeel.wait_for_failures("client_gone", u32::try_from(times).unwrap());
        assert_eq!(evenkeel.client().get("/quick").text(), "ok");
        assert_eq!(evenkeel.metric("evenkeel_backend_failures_total", &[]), 0.0);
        assert_eq!(evenkeel.metric("evenkeel_pool_retries_total", &[]), 0.0);
        assert_eq!(evenkeel.backend(self.backend.address)["eligibility"], "eligible");
    }
}

/// A request that its backend has when this returns.
fn ask(evenkeel: &Evenkeel, backend: &Backend, request: &str) -> Client {
    let before = backend.count();
    let mut client = evenkeel.client();
    client.send(request);
    wait_until("the backend has it", || backend.count() == before + 1);
    client
}

const GET: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

/// It resets, or it closes: the backend can stop working, and the slot is the next one's.
#[test]
fn a_client_that_leaves_while_the_backend_works_ends_its_request() {
    let slow = Slow::new();
    let evenkeel = Evenkeel::start(&shop(&[&slow.backend], ONE_SLOT));
    ask(&evenkeel, &slow.backend, GET).reset();
    slow.is_left(&evenkeel, 1);
    drop(ask(&evenkeel, &slow.backend, GET));
    slow.is_left(&evenkeel, 2);
    // Bytes that wait to be read do not hide it.
    let mut pipelining = ask(&evenkeel, &slow.backend, GET);
    pipelining.send("GET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(pipelining);
    slow.is_left(&evenkeel, 3);
    // Nor does a body that was streamed to the backend before.
    let chunked = "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut uploading = evenkeel.client();
    uploading.send(chunked).send("3\r\nabc\r\n");
    wait_until("it is on its way", || {
        evenkeel.metric("evenkeel_backend_in_flight", &[]) == 1.0
    });
    let before = slow.backend.count();
    uploading.send("0\r\n\r\n");
    wait_until("the backend has it", || slow.backend.count() == before + 1);
    drop(uploading);
    slow.is_left(&evenkeel, 4);
}

/// Another request behind the client's own waits for the slot: it has it as soon as the client is gone.
#[test]
fn the_next_in_the_queue_gets_the_slot_of_who_left() {
    let slow = Slow::new();
    let evenkeel = Evenkeel::start(&shop(&[&slow.backend], ONE_SLOT));
    let first = ask(&evenkeel, &slow.backend, GET);
    let mut next = evenkeel.client();
    next.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
    evenkeel.wait_for_metric("evenkeel_pool_queue_depth", &[], 1.0);
    drop(first);
    assert_eq!(next.response().text(), "ok");
}

/// A client that says it sends no more is asked whether it is there, and then served: at its backend, and in the
/// queue.
#[test]
fn a_half_closed_client_is_asked_and_served() {
    let gate = Gate::default();
    let at = gate.clone();
    let backend = Backend::answering(move |request| {
        at.pass();
        let body = request.target().to_owned();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], ONE_SLOT));
    let mut served = evenkeel.client();
    served.send("GET /served HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is served", || gate.came() == 1);
    let mut waiting = evenkeel.client();
    waiting.send("GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n");
    evenkeel.wait_for_metric("evenkeel_pool_queue_depth", &[], 1.0);
    for client in [&mut served, &mut waiting] {
        client.finish_sending();
        assert_eq!(client.head().status(), 100, "it is asked");
    }
    gate.open();
    for (client, target) in [(&mut served, "/served"), (&mut waiting, "/waiting")] {
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (200, target));
        assert!(answer.interim.is_empty(), "it is asked once");
        assert!(client.is_ended());
    }
    assert_eq!(
        evenkeel.failures("client_gone") + evenkeel.failures("queue_abandoned"),
        0.0
    );
}

/// A client of HTTP/1.0 cannot be asked. At its backend it is served; in the queue its place goes to one that is
/// there for certain, and it is told.
#[test]
fn a_half_closed_client_of_http_1_0_is_served_but_does_not_queue() {
    let gate = Gate::default();
    let at = gate.clone();
    let backend = Backend::answering(move |_| {
        at.pass();
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], ONE_SLOT));
    let mut served = evenkeel.client();
    served.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").finish_sending();
    wait_until("it is served", || gate.came() == 1);
    let mut waiting = evenkeel.client();
    waiting.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").finish_sending();
    let answer = waiting.response();
    assert_eq!((answer.status(), answer.reason()), (503, "queue_abandoned"));
    gate.open();
    let answer = served.response();
    assert_eq!((answer.text(), answer.interim.len()), ("ok", 0));
}

/// Over HTTP/2 to the backend the client's stream is reset, and the connection goes on.
#[test]
fn over_http2_the_backends_stream_is_cancelled() {
    let server = FramesServer::start(|request| match request.number {
        0 => {}
        _ => request.answer(STATUS_200, b"ok"),
    });
    let evenkeel = Evenkeel::start(&format!(
        "[node]\nthreads = 1\n{}protocol = \"http2\"\n{ONE_SLOT}",
        shop_on("127.0.0.1:0", &[server.address], "")
    ));
    let mut client = evenkeel.client();
    client.send(GET);
    wait_until("the backend has it", || server.requests() == 1);
    drop(client);
    wait_until("its stream is cancelled", || server.resets() == [CANCEL]);
    assert_eq!(evenkeel.client().get("/").text(), "ok");
    assert_eq!(server.connections(), 1);
    evenkeel.wait_for_failures("client_gone", 1);
    assert_eq!(evenkeel.metric("evenkeel_backend_failures_total", &[]), 0.0);
}

/// curl over TLS, killed while it waits.
#[test]
fn a_client_of_tls_that_is_killed_ends_its_request() {
    let slow = Slow::new();
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let tls = authority.listener(&["shop"], "");
    let evenkeel = Evenkeel::start(&shop_with_listener(
        &[&slow.backend],
        &tls,
        "passive = false\nslow_start = 0\ntimeouts = { first_byte = \"60s\" }\n",
    ));
    let mut curl = Command::new("curl")
        .args(["--silent", "--insecure", "--http1.1", "--noproxy", "*"])
        .arg(format!("https://{}/slow", evenkeel.address()))
        .stdout(Stdio::null())
        .spawn()
        .expect("curl runs");
    wait_until("the backend has it", || slow.backend.count() == 1);
    curl.kill().expect("curl ends");
    curl.wait().expect("curl ends");
    wait_until("the backend is left alone", || slow.left.load(SeqCst) == 1);
    evenkeel.wait_for_failures("client_gone", 1);
}
