//! HTTP/2 to backends (RFC 9113): connections over TLS, their age, their silence, room on them, and changes under
//! load, with a server of another implementation (Python's `h2`) and gRPC's own.

use crate::support::frames::*;
use crate::support::frames_server::{FramesServer, STATUS_200, field};
use crate::support::*;

/// A pool of HTTP/2 with one backend, served by one thread, so that there is one set of connections.
fn pool(backend: std::net::SocketAddr, more: &str) -> Evenkeel {
    let shop = shop_on(
        "127.0.0.1:0",
        &[backend],
        &format!("protocol = \"http2\"\n{QUIET}{more}"),
    );
    Evenkeel::start(&format!("[node]\nthreads = 1\n{shop}"))
}

/// A client whose request the backend holds until its stream is reset.
struct Holder(Frames);

impl Holder {
    fn begin(evenkeel: &Evenkeel) -> Self {
        wait_until("nothing is there from before", || {
            evenkeel.metric("evenkeel_backend_in_flight", &[]) == 0.0
        });
        let mut frames = Frames::connect(evenkeel.address(), &[]);
        // GET, `https`, `:path /held`, `:authority a`.
        let block = [&[0x82, 0x87, 0x04, 5][..], b"/held", &[0x01, 1, b'a']].concat();
        assert!(frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &block));
        wait_until("it is at the backend", || {
            evenkeel.metric("evenkeel_backend_in_flight", &[]) == 1.0
        });
        Self(frames)
    }

    fn end(mut self) {
        assert!(self.0.send(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
        assert!(self.0.send(PING, 0, 0, b"got it? "));
        self.0.wait_for(PING).expect("it is seen");
    }
}

/// Which connection of the server it was that this came over.
fn connection(evenkeel: &Evenkeel) -> u64 {
    let answer = evenkeel.client().get("/");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let seen: serde_json::Value = serde_json::from_str(answer.text()).expect("what it saw");
    seen["connection"].as_u64().expect("a number")
}

/// Asks until there is a connection, however long the server takes to get going.
fn until_connected(evenkeel: &Evenkeel) {
    wait_until("there is a connection", || {
        evenkeel.client().get("/").status() == 200
    });
}

/// An authority, and a server of HTTP/2 over TLS that agrees to `alpn`.
fn over_tls(alpn: &str, more: &str) -> (Authority, PythonPeer, Evenkeel) {
    let authority = Authority::new();
    authority.issue("web", &["web.internal"]);
    let server = http2_server(&[
        &format!("cert={}", authority.file("web.pem")),
        &format!("key={}", authority.file("web.key")),
        &format!("alpn={alpn}"),
    ]);
    let tls = format!(
        "tls = {{ ca = \"{}\", server_name = \"web.internal\" }}\n{more}",
        authority.file("ca.pem")
    );
    let evenkeel = pool(server.address(), &tls);
    (authority, server, evenkeel)
}

/// Section 3.2: over TLS, `h2` is agreed on by ALPN.
#[test]
fn over_tls_http_2_is_agreed_on() {
    let (_authority, _server, evenkeel) = over_tls("h2", "");
    let answer = evenkeel.client().get("/a");
    assert_eq!(answer.status(), 200);
    assert!(
        answer.text().contains(r#"[":scheme", "https"]"#),
        "{}",
        answer.text()
    );
    let handshakes = evenkeel.metric("evenkeel_backend_tls_handshakes_total", &[]);
    assert_eq!(handshakes, 1.0);
}

/// A backend that agrees to HTTP/1.1 alone is not spoken to, and the reason is counted.
#[test]
fn a_backend_that_does_not_agree_to_http_2_is_not_spoken_to() {
    let (_authority, _server, evenkeel) = over_tls("http/1.1", "");
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_tls_failed"));
    let failed = evenkeel.metric("evenkeel_backend_tls_failures_total", &[("reason", "alpn")]);
    assert!(failed >= 1.0, "{failed}");
}

/// A connection takes no more streams at its age, and what runs on it is finished.
#[test]
fn a_connection_is_renewed_at_its_age_and_finishes_what_runs() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = pool(server.address(), "http2 = { max_connection_age = \"1s\" }\n");
    let first = connection(&evenkeel);
    let out = http2_client(
        r#"
import time
link = Http2()
tunnel = link.connect()
link.head(tunnel)
number = lambda: json.loads(link.response(link.request())["body"])["connection"]
first = number()
while number() == first:
    time.sleep(0.05)  # condition poll
link.send(tunnel, b"over the old one")
print(link.exactly(tunnel, 16).decode())
"#,
        &[&evenkeel.address().to_string()],
    );
    assert_eq!(out, "over the old one\n");
    assert!(connection(&evenkeel) > first);
    assert_eq!(evenkeel.failures("backend_reset"), 0.0);
}

/// A backend that has fallen silent while something runs is asked, and let go of when it does not answer.
#[test]
fn a_silent_connection_is_given_up_after_an_unanswered_ping() {
    let server = http2_server(&["deaf=1"]);
    let evenkeel = pool(
        server.address(),
        "http2 = { ping_interval = \"10s\", ping_timeout = \"200ms\" }\n",
    );
    let first = connection(&evenkeel);
    // Sent on the connection that nobody reads from any more, and again on a new one.
    assert_eq!(connection(&evenkeel), first + 1);
    let retries = evenkeel.metric("evenkeel_pool_retries_total", &[("cause", "stale")]);
    assert_eq!(retries, 1.0);
}

/// As many streams as there is room for; one more waits for `timeouts.connect`, and is told.
#[test]
fn a_request_for_which_no_connection_has_room_is_told() {
    let server = http2_server(&[]);
    let evenkeel = pool(
        server.address(),
        "http2 = { max_concurrent_streams = 1, max_connections = 1 }\ntimeouts = { connect = \"300ms\" }\n",
    );
    until_connected(&evenkeel);
    let holder = Holder::begin(&evenkeel);
    let mut late = evenkeel.client();
    let answer = late.get("/");
    assert_eq!((answer.status(), answer.reason()), (503, "stream_limit"));
    holder.end();
    wait_until("there is room again", || late.get("/").status() == 200);
}

/// Section 5.1.2: the backend's own limit counts where it is the lower one.
#[test]
fn a_backends_own_limit_of_streams_is_kept() {
    let server = http2_server(&["streams=1"]);
    let evenkeel = pool(
        server.address(),
        "http2 = { max_connections = 1 }\ntimeouts = { connect = \"300ms\" }\n",
    );
    until_connected(&evenkeel);
    let holder = Holder::begin(&evenkeel);
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (503, "stream_limit"));
    holder.end();
}

/// Section 5.2: a backend that never opens its window again is given up after `stream_idle`, and others go on.
#[test]
fn a_backend_that_opens_no_window_is_given_up() {
    let server = http2_server(&["wide=1"]);
    let evenkeel = pool(server.address(), "timeouts = { stream_idle = \"300ms\" }\n");
    let body = "x".repeat(1_000_000);
    let request = format!(
        "POST /stuck HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = evenkeel.client().ask(&request);
    assert_eq!(
        (answer.status(), answer.reason()),
        (504, "backend_stream_timeout")
    );
    assert_eq!(evenkeel.client().get("/").status(), 200);
}

/// Idle connections are counted, whatever protocol they speak.
#[test]
fn idle_connections_are_counted() {
    let server = http2_server(&[]);
    let evenkeel = pool(server.address(), "");
    let idle = || evenkeel.metric("evenkeel_backend_connections_idle", &[]);
    assert_eq!(idle(), 0.0);
    connection(&evenkeel);
    wait_until("it is idle", || idle() == 1.0);
    let holder = Holder::begin(&evenkeel);
    wait_until("it is not idle", || idle() == 0.0);
    holder.end();
    wait_until("it is idle again", || idle() == 1.0);
    // Those to a backend that is gone are not kept.
    let backend = Backend::named("one");
    let listen = evenkeel.address().to_string();
    evenkeel.reload(&shop_on(&listen, &[backend.address], QUIET));
    wait_until("none is kept", || idle() == 0.0);
}

/// A gRPC server that says its name, for a while.
const GRPC: &str = r#"
import sys, time, grpc
from concurrent import futures
same = lambda message: message
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == '/t.T/Unary':
            return grpc.unary_unary_rpc_method_handler(lambda r, c: time.sleep(0.01) or r, same, same)
        return grpc.stream_stream_rpc_method_handler(self.bidi, same, same)
    def bidi(self, messages, context):
        for message in messages:
            yield message
server = grpc.server(futures.ThreadPoolExecutor(32))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port('%s:%s' % (sys.argv[1], sys.argv[2]))
server.start()
server.wait_for_termination()
"#;

/// Calls run all the time while backends come and go and settings change: not one fails, and a stream of messages that
/// was begun before goes on to its end.
#[test]
fn no_call_fails_while_the_pool_changes() {
    let servers = [(); 3].map(|()| PythonPeer::start(GRPC));
    let [one, two, three] = servers.each_ref().map(PythonPeer::address);
    let listen = format!("{}:0", free_ip());
    let config = |backends: &[std::net::SocketAddr], more: &str| {
        shop_on(&listen, backends, &format!("protocol = \"http2\"\n{QUIET}{more}"))
    };
    let evenkeel = Evenkeel::start(&config(&[one, two], ""));
    let place = evenkeel.place().path();
    let (began, stop) = (place.join("began"), place.join("stop"));
    let args = [
        evenkeel.address().to_string(),
        began.display().to_string(),
        stop.display().to_string(),
    ];
    let client = std::thread::spawn(move || {
        let scenario = r#"
import os, queue, sys, threading, grpc
same = lambda message: message
counts = {"ok": 0, "failed": []}
def calls():
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)])
    unary = channel.unary_unary('/t.T/Unary', same, same)
    while not os.path.exists(sys.argv[3]):
        try:
            assert unary(b'hello', timeout=60) == b'hello'
            counts["ok"] += 1
        except grpc.RpcError as error:
            counts["failed"].append(str(error.code()) + " " + str(error.details()))
threads = [threading.Thread(target=calls) for _ in range(4)]
sent = queue.Queue()
stream = grpc.insecure_channel(sys.argv[1]).stream_stream('/t.T/Bidi', same, same)(iter(sent.get, None), timeout=60)
sent.put(b'first')
assert next(stream) == b'first'
for thread in threads:
    thread.start()
open(sys.argv[2], "w").close()
for thread in threads:
    thread.join()
sent.put(b'last')
assert next(stream) == b'last'
sent.put(None)
assert list(stream) == []
print(counts["failed"], counts["ok"] > 100)
"#;
        python(scenario, &args.each_ref().map(String::as_str))
    });
    wait_until("calls run", || began.exists());
    for (i, backends) in [[one, three], [two, three], [one, two]]
        .iter()
        .cycle()
        .take(15)
        .enumerate()
    {
        let more = [
            "",
            "http2 = { max_concurrent_streams = 2 }\n",
            "algorithm = \"random\"\n",
        ][i % 3];
        evenkeel.reload(&config(backends, more));
        let so_far = evenkeel.metric("evenkeel_requests_total", &[]);
        wait_until("calls go on", || {
            evenkeel.metric("evenkeel_requests_total", &[]) > so_far + 9.0
        });
    }
    std::fs::write(&stop, "").unwrap();
    assert_eq!(client.join().expect("the client ends"), "[] True\n");
}

/// `grpc-timeout` bounds the wait for a backend too: the caller is told in time that its own time is over.
#[test]
fn a_deadline_of_a_call_counts_in_the_queue() {
    let server = http2_server(&[]);
    let evenkeel = pool(server.address(), "max_requests = 1\nqueue.timeout = \"60s\"\n");
    let holder = Holder::begin(&evenkeel);
    let out = python(
        r#"
import sys, grpc
same = lambda message: message
unary = grpc.insecure_channel(sys.argv[1]).unary_unary('/t.T/Unary', same, same)
try:
    # The deadline goes as a field alone, so that it is ours that is told and not the caller's own.
    unary(b'', metadata=(("grpc-timeout", "300m"),))
except grpc.RpcError as error:
    print(error.code().name, error.details().split(":")[0])
"#,
        &[&evenkeel.address().to_string()],
    );
    assert_eq!(out, "DEADLINE_EXCEEDED queue_deadline\n");
    evenkeel.wait_for_failures("queue_deadline", 1);
    holder.end();
}

/// RFC 9110 section 8.6: a response is whole when what its length announced is here, although its stream then ends with
/// an error or not at all. A client of HTTP/1 knows that it is, and its connection goes on; one of another length is
/// cut.
#[test]
fn a_response_of_known_length_is_whole_whatever_ends_its_stream() {
    let server = FramesServer::start(|asked| {
        let length = if asked.number < 3 { "2" } else { "3" };
        asked.send(
            HEADERS,
            END_HEADERS,
            &[STATUS_200, &field("content-length", length)].concat(),
        );
        asked.send(DATA, 0, b"ok");
        if asked.number != 1 {
            asked.reset(2);
        }
    });
    let evenkeel = pool(
        server.address,
        "retries.attempts = 0\ntimeouts.stream_idle = \"3s\"\n",
    );
    let mut client = evenkeel.client();
    for _ in 0..3 {
        let whole = client.get("/");
        assert_eq!((whole.status(), whole.text(), whole.closes()), (200, "ok", false));
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let cut = client.try_response();
    assert!(!matches!(&cut, Ok(answer) if answer.status() == 200), "{cut:?}");
    assert_eq!(server.requests(), 4);
}

/// A call ends with its trailers: one whose stream breaks before them is broken, whatever its length says.
#[test]
fn a_call_of_known_length_without_its_trailers_is_not_whole() {
    let server = FramesServer::start(|asked| {
        asked.send(
            HEADERS,
            END_HEADERS,
            &[STATUS_200, &field("content-length", "5")].concat(),
        );
        asked.send(DATA, 0, &[0; 5]);
        asked.reset(2);
    });
    let evenkeel = pool(server.address, "retries.attempts = 0\n");
    let mut client = Frames::connect(evenkeel.address(), &[]);
    let block = [
        POST,
        &field("content-type", "application/grpc"),
        &field("te", "trailers"),
    ];
    assert!(client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block.concat()));
    client.wait_for(RST_STREAM).expect("the stream is broken off");
    evenkeel.wait_for_failures("backend_truncated", 1);
}
