//! gRPC through us: calls of all four kinds between a client and a server of another implementation, over HTTP/2 on
//! both sides, and what callers are told when something fails.

use crate::support::*;

/// A server of `grpcio`: one method of each kind, and the health service.
const SERVER: &str = r#"
import sys, time, grpc
from concurrent import futures
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
ident=lambda b:b
class H(grpc.GenericRpcHandler):
    def service(self, d):
        m=d.method
        if m=='/t.T/Unary': return grpc.unary_unary_rpc_method_handler(self.unary, ident, ident)
        if m=='/t.T/Server': return grpc.unary_stream_rpc_method_handler(self.server, ident, ident)
        if m=='/t.T/Client': return grpc.stream_unary_rpc_method_handler(self.client, ident, ident)
        if m=='/t.T/Bidi': return grpc.stream_stream_rpc_method_handler(self.bidi, ident, ident)
    def unary(self, r, c):
        if r==b'fail': c.abort(grpc.StatusCode.NOT_FOUND, 'nöt here')
        if r==b'slow': time.sleep(60)
        c.set_trailing_metadata((('x-t','1'),))
        return r
    def server(self, r, c):
        for i in range(5): yield r+str(i).encode()
    def client(self, it, c): return b''.join(it)
    def bidi(self, it, c):
        for m in it:
            if m == b'die':
                import os; os._exit(1)
            yield m
s=grpc.server(futures.ThreadPoolExecutor(8)); s.add_generic_rpc_handlers((H(),))
hs=health.HealthServicer(); health_pb2_grpc.add_HealthServicer_to_server(hs,s)
hs.set('', health_pb2.HealthCheckResponse.SERVING); hs.set('t.T', health_pb2.HealthCheckResponse.SERVING); hs.set('t.Down', health_pb2.HealthCheckResponse.NOT_SERVING)
s.add_insecure_port('%s:%s'%(sys.argv[1],sys.argv[2])); s.start(); s.wait_for_termination()
"#;

/// What every client begins with.
const CLIENT: &str = r#"
import queue, sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
same = lambda message: message
unary = channel.unary_unary('/t.T/Unary', same, same)
server = channel.unary_stream('/t.T/Server', same, same)
client = channel.stream_unary('/t.T/Client', same, same)
bidi = channel.stream_stream('/t.T/Bidi', same, same)
def failure(call):
    try:
        call()
        print('no error')
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"#;

fn call(evenkeel: &Evenkeel, more: &str) -> String {
    python(&format!("{CLIENT}{more}"), &[&evenkeel.address().to_string()])
}

fn evenkeel(address: std::net::SocketAddr, more: &str) -> Evenkeel {
    Evenkeel::start(&format!(
        "[load_balancers.calls]\nlisten = \"127.0.0.1:0\"\nbackend_servers = [\"{address}\"]\nprotocol = \"http2\"\n\
         passive = false\nslow_start = 0\n{more}"
    ))
}

/// Messages, large ones too, arrive unchanged and in order; trailers and a status of the server's own pass.
#[test]
fn calls_of_all_four_kinds_pass_unchanged() {
    let peer = PythonPeer::start(SERVER);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    let said = call(
        &evenkeel,
        r#"
print(unary(b'hi', timeout=60))
print(list(server(b'x', timeout=60)))
print(client(iter([b'a', b'b', b'c']), timeout=60))
print(list(bidi(iter([b'1', b'2']), timeout=60)))
big = b'z' * 3000000
print(unary(big, timeout=60) == big)
answer, info = unary.with_call(b'hi', timeout=60)
print([field.value for field in info.trailing_metadata() if field.key == 'x-t'])
failure(lambda: unary(b'fail', timeout=60))
"#,
    );
    let lines: Vec<&str> = said.lines().collect();
    let expected = [
        "b'hi'",
        "[b'x0', b'x1', b'x2', b'x3', b'x4']",
        "b'abc'",
        "[b'1', b'2']",
        "True",
        "['1']",
        "NOT_FOUND n\u{f6}t here",
    ];
    assert_eq!(lines, expected);
    let labels = [("load_balancer", "calls")];
    let opened = evenkeel.metric("evenkeel_backend_connections_opened_total", &labels);
    assert!(opened >= 1.0, "{opened}");
}

/// The same on a route that buffers requests and responses: calls are not held.
#[test]
fn a_conversation_is_not_buffered() {
    let peer = PythonPeer::start(SERVER);
    let routes = "[[load_balancers.calls.routes]]\npool = \"default\"\n\
                  buffer_requests = { memory = \"64KiB\" }\nbuffer_responses = { memory = \"64KiB\" }\n";
    let evenkeel = evenkeel(peer.address(), &format!("health = false\n{routes}"));
    converse(&evenkeel);
}

/// A message of the client is answered before the client sends the next: nothing waits for a whole body.
#[test]
fn a_conversation_goes_back_and_forth() {
    let peer = PythonPeer::start(SERVER);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    converse(&evenkeel);
}

/// Each message is sent only after the one before was answered.
fn converse(evenkeel: &Evenkeel) {
    let said = call(
        evenkeel,
        r#"
sent = queue.Queue()
answers = bidi(iter(sent.get, None), timeout=60)
for turn in range(5):
    sent.put(b'%d' % turn)
    print(next(answers))
sent.put(None)
print(list(answers))
"#,
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["b'0'", "b'1'", "b'2'", "b'3'", "b'4'", "[]"]);
}

/// A call's own deadline holds, whatever the pool's timeouts are.
#[test]
fn a_deadline_of_the_caller_is_kept() {
    let peer = PythonPeer::start(SERVER);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    let said = call(&evenkeel, "failure(lambda: unary(b'slow', timeout=0.3))\n");
    assert!(said.starts_with("DEADLINE_EXCEEDED"), "{said}");
    wait_until("the call is over at the backend too", || {
        evenkeel.metric("evenkeel_backend_in_flight", &[("load_balancer", "calls")]) == 0.0
    });
}

/// What we answer ourselves, callers hear in their own terms, with our reason.
#[test]
fn failures_of_ours_have_a_status_of_grpc() {
    let evenkeel = evenkeel(free_address(), "health = false\n");
    let said = call(&evenkeel, "failure(lambda: unary(b'hi', timeout=60))\n");
    assert!(said.starts_with("UNAVAILABLE connect_refused: "), "{said}");
}

/// A server that dies in the middle of a stream of messages: what came has arrived, and the rest is `UNAVAILABLE`.
#[test]
fn a_server_that_dies_within_a_stream_is_unavailable() {
    let peer = PythonPeer::start(SERVER);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    let more = r#"
sent = queue.Queue()
answers = bidi(iter(sent.get, None), timeout=60)
sent.put(b'one')
print(next(answers))
sent.put(b'die')
failure(lambda: next(answers))
import os
sys.stdout.flush()
os._exit(0)
"#;
    let said = call(&evenkeel, more);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.first(), Some(&"b'one'"), "{said}");
    assert!(lines[1].starts_with("UNAVAILABLE backend_truncated: "), "{said}");
}

/// `grpc.health.v1.Health/Check` decides: by service, and by what the server says of it.
#[test]
fn checks_ask_the_health_service() {
    let peer = PythonPeer::start(SERVER);
    for (service, state, reason) in [
        ("t.T", "up", "SERVING"),
        ("t.Down", "down", "NOT_SERVING"),
        ("t.Nobody", "down", "is not known"),
    ] {
        let more = format!("health = {{ type = \"grpc\", service = \"{service}\" }}\n");
        let evenkeel = evenkeel(peer.address(), &more);
        let labels = [("load_balancer", "calls"), ("state", state)];
        wait_until(state, || {
            evenkeel.metric("evenkeel_backend_health", &labels) == 1.0
        });
        let text = evenkeel.cli_ok(&["status"]);
        assert!(text.contains(reason), "{text}");
    }
}

/// HTTP/1.1 in front, HTTP/2 behind: an ordinary client is served by the same pool, and trailers stand in the chunks.
#[test]
fn a_client_of_http1_is_served_by_a_backend_of_http2() {
    let peer = PythonPeer::start(SERVER);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    let mut client = evenkeel.client();
    client.send(
        "POST /t.T/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         Connection: TE\r\nContent-Length: 7\r\n\r\n\0\0\0\0\u{2}ok",
    );
    let mut got = String::new();
    while !got.contains("\r\n0\r\n") || !got.ends_with("\r\n\r\n") {
        let more = client.read_some(4096);
        assert!(!more.is_empty(), "ended after {got:?}");
        got.push_str(&String::from_utf8_lossy(&more));
    }
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    assert!(got.contains("7\r\n\0\0\0\0\u{2}ok\r\n0\r\n"), "{got:?}");
    assert!(got.contains("grpc-status: 0\r\n"), "{got:?}");
}

/// A server of Python's `h2` that answers with its mode, refuses every stream, or goes away at the second one.
const H2: &str = r#"
import sys, socket, threading
from h2.connection import H2Connection
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamEnded

mode = sys.argv[3]

def serve(sock):
    conn = H2Connection(H2Configuration(client_side=False))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    served = 0
    while True:
        data = sock.recv(65535)
        if not data:
            return
        for event in conn.receive_data(data):
            if isinstance(event, RequestReceived) and mode == 'refuse':
                conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            elif isinstance(event, RequestReceived) and mode == 'away' and served == 1:
                conn.close_connection(last_stream_id=1)
            elif isinstance(event, StreamEnded) and mode != 'refuse' and not (mode == 'away' and served == 1):
                served += 1
                conn.send_headers(event.stream_id, [(':status', '200'), ('content-length', str(len(mode)))])
                conn.send_data(event.stream_id, mode.encode(), end_stream=True)
        sock.sendall(conn.data_to_send())

listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"#;

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// RFC 9113 section 8.7: a refused stream was not looked at, so even a `POST` is tried on another backend.
#[test]
fn a_refused_stream_is_tried_elsewhere() {
    let (refuses, serves) = (
        PythonPeer::start_with(H2, &["refuse"]),
        PythonPeer::start_with(H2, &["ok"]),
    );
    let second = format!("{}\", \"{}", refuses.address(), serves.address());
    let evenkeel = Evenkeel::start(&format!(
        "[load_balancers.calls]\nlisten = \"127.0.0.1:0\"\nbackend_servers = [\"{second}\"]\nprotocol = \"http2\"\n{QUIET}"
    ));
    let mut client = evenkeel.client();
    for _ in 0..4 {
        let answer = client.ask(POST);
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
    }
}

/// RFC 9113 section 6.8: a backend that goes away has not looked at what came after its last stream, which is sent
/// again on a new connection and held against nobody.
#[test]
fn what_a_backend_that_goes_away_did_not_look_at_is_sent_again() {
    let peer = PythonPeer::start_with(H2, &["away"]);
    let evenkeel = evenkeel(peer.address(), "health = false\n");
    let mut client = evenkeel.client();
    for _ in 0..6 {
        let answer = client.ask(POST);
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"away"[..]));
    }
    let failures = evenkeel.metric("evenkeel_backend_failures_total", &[("load_balancer", "calls")]);
    assert!(failures == 0.0, "{failures}");
}
