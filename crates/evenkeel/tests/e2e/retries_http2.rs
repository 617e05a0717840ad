//! The same over HTTP/2 to the backends: statuses, attempts with a time of their own, streams that were refused,
//! and calls of gRPC.

use crate::support::frames_server::{
    Asked, CANCEL, FramesServer, REFUSED_STREAM, STATUS_200, STATUS_503, field,
};
use crate::support::*;

/// Both servers behind one shard, so that each has one connection.
fn evenkeel(servers: [&FramesServer; 2], retries: &str) -> Evenkeel {
    let addresses = servers.map(|server| server.address);
    let shop = shop_on("127.0.0.1:0", &addresses, QUIET);
    Evenkeel::start(&format!(
        "[node]\nthreads = 1\n{shop}protocol = \"http2\"\nretries = {{ {retries} }}\n"
    ))
}

fn ok() -> FramesServer {
    FramesServer::start(|asked| asked.answer(STATUS_200, b"ok"))
}

/// Sends a request until the bad server had its turn; the answer to that one.
fn until_it_meets(evenkeel: &Evenkeel, bad: &FramesServer, request: &str) -> Message {
    let mut client = evenkeel.client();
    wait_for("the bad server has its turn", || {
        let before = bad.requests();
        let answer = client.ask(request);
        (bad.requests() > before).then_some(answer)
    })
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nbuy";

fn retries(evenkeel: &Evenkeel, cause: &str) -> f64 {
    evenkeel.metric("evenkeel_pool_retries_total", &[("cause", cause)])
}

/// A status that the pool names is tried on the other server; a POST is not.
#[test]
fn a_status_is_tried_elsewhere() {
    let bad = FramesServer::start(|asked| asked.answer(STATUS_503, b"busy"));
    let good = ok();
    let evenkeel = evenkeel([&bad, &good], "on = [503]");
    let answer = until_it_meets(&evenkeel, &bad, GET);
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    assert_eq!(retries(&evenkeel, "status"), 1.0);
    let answer = until_it_meets(&evenkeel, &bad, POST);
    assert_eq!((answer.status(), answer.text()), (503, "busy"));
    assert_eq!(retries(&evenkeel, "status"), 1.0);
    assert_eq!(
        bad.connections(),
        1,
        "an answer that is dropped costs no connection"
    );
}

/// An attempt that takes its time is cancelled and made elsewhere; the connection serves on.
#[test]
fn an_attempt_has_its_own_time() {
    let bad = FramesServer::start(|asked| {
        if asked.number > 0 {
            asked.answer(STATUS_200, b"late");
        }
    });
    let good = ok();
    let evenkeel = evenkeel([&bad, &good], "on = [\"timeout\"], per_try_timeout = \"3s\"");
    let answer = until_it_meets(&evenkeel, &bad, GET);
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    assert_eq!(retries(&evenkeel, "timeout"), 1.0);
    wait_until("its stream is cancelled", || bad.resets() == [CANCEL]);
    let answer = until_it_meets(&evenkeel, &bad, GET);
    assert_eq!(answer.text(), "late");
    assert_eq!(bad.connections(), 1);
}

/// What a server says it has not looked at is sent again, whatever it is (RFC 9113 section 8.7).
#[test]
fn a_refused_stream_is_tried_elsewhere() {
    let bad = FramesServer::start(|asked| asked.reset(REFUSED_STREAM));
    let good = ok();
    let evenkeel = evenkeel([&bad, &good], "attempts = 1");
    let answer = until_it_meets(&evenkeel, &bad, POST);
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
}

/// Leaves at each request, `looked` at or not, but the first `used`.
fn leaving(used: usize, looked: bool) -> FramesServer {
    FramesServer::start(move |asked| match asked.number < used {
        true => asked.answer(STATUS_200, b"ok"),
        false => asked.leave(looked),
    })
}

/// RFC 9113 section 6.8: a server that goes away names the last stream that it may have acted on. What it took and
/// did not answer may be done: a POST is not sent again, not even where its connection was used before; a GET is.
#[test]
fn what_a_server_took_before_it_left_is_sent_again_where_that_is_safe() {
    for used in [0, 1] {
        let (bad, good) = (leaving(used, true), ok());
        let evenkeel = evenkeel([&bad, &good], "on = [\"connect\", \"reset\"]");
        if used > 0 {
            until_it_meets(&evenkeel, &bad, GET);
        }
        let answer = until_it_meets(&evenkeel, &bad, POST);
        assert_eq!((answer.status(), answer.reason()), (502, "backend_reset"));
        let again = || evenkeel.metric("evenkeel_pool_retries_total", &[]);
        assert_eq!(again(), 0.0);
        let answer = until_it_meets(&evenkeel, &bad, GET);
        assert_eq!((answer.status(), answer.text()), (200, "ok"));
        assert_eq!(again(), 1.0);
    }
}

/// RFC 9113 sections 6.8 and 8.7: what is above the last stream that it names it has not looked at.
#[test]
fn what_a_server_did_not_look_at_before_it_left_is_sent_again() {
    for used in [0, 1] {
        let (bad, good) = (leaving(used, false), ok());
        let evenkeel = evenkeel([&bad, &good], "on = [\"connect\", \"reset\"]");
        if used > 0 {
            until_it_meets(&evenkeel, &bad, GET);
        }
        let answer = until_it_meets(&evenkeel, &bad, POST);
        assert_eq!((answer.status(), answer.text()), (200, "ok"));
        assert_eq!(evenkeel.metric("evenkeel_pool_retries_total", &[]), 1.0);
    }
}

fn unavailable(asked: &Asked) {
    let mut block = STATUS_200.to_vec();
    block.extend(field("content-type", "application/grpc"));
    block.extend(field("grpc-status", "14"));
    asked.head_only(&block);
}

/// A call that its server answers with UNAVAILABLE was answered: its status is 200, the call may have been begun, and
/// whether to call again is the caller's to say.
#[test]
fn a_call_that_is_unavailable_is_not_called_again() {
    let (one, two) = (FramesServer::start(unavailable), FramesServer::start(unavailable));
    let evenkeel = evenkeel(
        [&one, &two],
        "on = [\"connect\", \"reset\", \"timeout\", \"5xx\"]",
    );
    let answer = evenkeel.client().ask(
        "POST /t.T/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         Content-Length: 5\r\n\r\n\0\0\0\0\0",
    );
    assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some("14")));
    assert_eq!(one.requests() + two.requests(), 1);
}
