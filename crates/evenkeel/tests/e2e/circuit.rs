//! The circuit breaker beside responses that take long.

use crate::support::{Backend, Evenkeel, shop, wait_for, wait_until};

/// The request that tries whether the pool is back gets a stream that does not end: the pool is back all the same.
#[test]
fn a_stream_that_tries_keeps_nobody_out() {
    let backend = Backend::scripted(|conversation| {
        while let Some(request) = conversation.request() {
            match request.target() {
                "/fail" => conversation.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
                "/events" => {
                    conversation.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                    return conversation.hold();
                }
                _ => conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            };
        }
    });
    let evenkeel = Evenkeel::start(&shop(
        &[&backend],
        "passive = false\nslow_start = 0\nretries.attempts = 0\n\
         circuit_breaker = { minimum_requests = 5, open_time = \"100ms\", half_open_requests = 1 }\n",
    ));
    let mut client = evenkeel.client();
    for _ in 0..5 {
        client.get("/fail");
    }
    // It is open for a tenth of a second, over and over: what is let through to try fails too.
    wait_until("it is open", || client.get("/fail").reason() == "circuit_open");
    let _stream = wait_for("it is let through to try", || {
        let mut client = evenkeel.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        (client.head().status() == 200).then_some(client)
    });
    wait_until("all is as before", || client.get("/").text() == "ok");
}
