//! Streams of events and long polls: each part reaches the client before its backend sends the next, whatever the
//! route does with responses. Causally: the backend sends on only once the client has told that it got the last.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use crate::support::{Backend, Client, DEADLINE, Evenkeel, Gate, QUIET, shop, wait_until};

/// A backend whose stream of events goes on each time that it is told to.
fn events() -> (Backend, Sender<()>) {
    let (go_on, next) = channel();
    let next = Mutex::new(next);
    let backend = Backend::scripted(move |conversation| {
        while conversation.request().is_some() {
            conversation.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            for number in 0..3 {
                let event = format!("data: {number}\n\n");
                conversation.send(format!("{:x}\r\n{event}\r\n", event.len()));
                if next.lock().unwrap().recv_timeout(DEADLINE).is_err() {
                    return;
                }
            }
            conversation.send("0\r\n\r\n");
        }
    });
    (backend, go_on)
}

/// curl, printing what it gets as it comes.
fn curl(evenkeel: &Evenkeel, options: &[&str]) -> Child {
    Command::new("curl")
        .args(["--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60"])
        .args(options)
        .arg(format!("http://{}/events", evenkeel.address()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl runs")
}

/// Over HTTP/1.1 and HTTP/2; plain, compressed with each coding, and on a route that buffers responses.
#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (backend, go_on) = events();
    let routes = "[[load_balancers.shop.routes]]\npool = \"default\"\nbuffer_responses = { memory = \"1MiB\" }\n\
                  compression = { types = [\"text/event-stream\"], minimum_size = 0 }\n";
    let evenkeel = Evenkeel::start(&shop(&[&backend], &format!("{QUIET}{routes}")));
    let codings = ["identity", "gzip", "br", "zstd"];
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        for coding in codings {
            let header = format!("Accept-Encoding: {coding}");
            let mut curl = curl(&evenkeel, &[protocol, "--compressed", "-H", &header]);
            let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
            for number in 0..3 {
                let line = lines.next().and_then(Result::ok);
                assert_eq!(line, Some(format!("data: {number}")), "{protocol} {coding}");
                assert_eq!(lines.next().and_then(Result::ok), Some(String::new()));
                go_on.send(()).unwrap();
            }
            assert!(lines.next().is_none());
            assert!(curl.wait().unwrap().success());
        }
    }
    evenkeel.wait_for_metric("evenkeel_compressed_responses_total", &[], 6.0);
}

/// A long poll is answered when there is something to tell, and its connection polls again; its head alone arrives
/// before there is a body.
#[test]
fn a_long_poll_waits_for_its_answer() {
    let gate = Gate::default();
    let at = gate.clone();
    let backend = Backend::scripted(move |conversation| {
        while conversation.request().is_some() {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
            at.pass();
            conversation.send("news");
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = Client::connect(evenkeel.address());
    client.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = client.head();
    assert_eq!(head.status(), 200);
    wait_until("it polls", || gate.came() == 1);
    gate.open();
    client.body(&mut head).unwrap();
    assert_eq!(head.text(), "news");
    assert_eq!(client.get("/poll").text(), "news");
}
