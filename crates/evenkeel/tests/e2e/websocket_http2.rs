//! RFC 8441, WebSocket over HTTP/2, by section: clients of both protocols to backends of both, with peers of other
//! implementations (Python's `h2` and `wsproto`, `websockets`).

use crate::support::frames::*;
use crate::support::*;

/// A conversation over a stream of HTTP/2: messages of growing size, and an orderly end.
const TALK: &str = r#"
import os
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage, CloseConnection
link = Http2()
assert link.settings() == 1
chat = link.connect("/chat")
head = link.head(chat)
assert head[":status"] == "200", head
assert not {"connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"} & head.keys(), head
socket = Connection(ConnectionType.CLIENT)
def heard():
    while True:
        for event in socket.events():
            return event
        socket.receive_data(link.wait(h2.events.DataReceived, chat).data)
for size in (1, 100, 5000, 70000, 1000000):
    message = os.urandom(size)
    link.send(chat, socket.send(BytesMessage(message)))
    back = b""
    while True:
        event = heard()
        back += event.data
        if event.message_finished:
            break
    assert back == message, size
link.send(chat, socket.send(TextMessage("close")))
event = heard()
assert isinstance(event, CloseConnection), event
link.send(chat, socket.send(event.response()), end=True)
print(event.code, event.reason, link.ending(chat))
"#;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

const HTTP2: &str = "protocol = \"http2\"\n";

fn chat(backend: std::net::SocketAddr, more: &str) -> Evenkeel {
    Evenkeel::start(&shop_on("127.0.0.1:0", &[backend], &format!("{QUIET}{more}")))
}

fn run(evenkeel: &Evenkeel, scenario: &str) -> String {
    http2_client(scenario, &[&evenkeel.address().to_string()])
}

fn tunnels(evenkeel: &Evenkeel) -> f64 {
    evenkeel.metric("evenkeel_tunnels", &[])
}

/// What a backend of HTTP/1.1 answers when it agrees. Python makes the proof, so that ours is compared with another's.
fn agreement(request: &Message) -> String {
    let key = request.field("sec-websocket-key").expect("a key");
    let proof = python(
        "import base64, hashlib, sys\n\
         key = sys.argv[1]\nassert len(base64.b64decode(key, validate=True)) == 16\n\
         print(base64.b64encode(hashlib.sha1((key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())",
        &[key],
    );
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Seen: yes\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        proof.trim()
    )
}

/// A backend of HTTP/1.1 that agrees, and then does this with its connection.
fn agreeing(then: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Backend {
    Backend::scripted(move |conversation| {
        if let Some(request) = conversation.head() {
            let answer = agreement(&request);
            conversation.send(answer);
            then(conversation);
        }
    })
}

fn echo(conversation: &mut Conversation) {
    loop {
        let bytes = conversation.read_some(65536);
        if bytes.is_empty() || !conversation.send(bytes) {
            return;
        }
    }
}

/// Section 3: it is offered where clients may switch, and nowhere else.
#[test]
fn section_3_it_is_offered_where_clients_may_switch() {
    let backend = Backend::named("one");
    let offered = Evenkeel::start(&shop(&[&backend], QUIET));
    assert_eq!(run(&offered, "print(Http2().settings())"), "1\n");
    let closed = Evenkeel::start(&shop_with_listener(&[&backend], "upgrades = []", QUIET));
    let out = run(
        &closed,
        "link = Http2()\nprint(link.settings())\nprint(link.head(link.connect()))\nprint(link.head(link.request())[':status'])",
    );
    // Section 4: who has not offered it is asked in error, and its stream alone ends.
    assert_eq!(out, "0\n{'reset': 1}\n200\n");
    assert_eq!(backend.count(), 1);
}

/// Section 4: what the listener does not name is refused, as over HTTP/1.1; CONNECT without a protocol always is.
#[test]
fn section_4_only_what_the_listener_names() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let out = run(
        &evenkeel,
        r#"
link = Http2()
for stream in (link.connect(protocol="webdav-push"), link.connect(protocol="h2c")):
    head = link.head(stream)
    print(head[":status"], head["x-evenkeel-reason"], link.ending(stream))
plain = link.conn.get_next_available_stream_id()
link.conn.send_headers(plain, [(":method", "CONNECT"), (":authority", "shop.test:443")])
link.flush()
head = link.head(plain)
print(head[":status"], head["x-evenkeel-reason"])
print(link.head(link.request("GET", "/", [(":protocol", "websocket")])))
print(link.head(link.request())[":status"])
"#,
    );
    assert_eq!(
        out,
        "501 upgrade_unsupported end\n501 upgrade_unsupported end\n405 method_not_allowed\n{'reset': 1}\n200\n"
    );
    assert_eq!(backend.count(), 1);
}

/// Section 5.1: messages pass unchanged, and an orderly close with its code, on every mix of protocols.
#[test]
fn section_5_a_conversation_passes_unchanged_on_every_mix() {
    let http1 = PythonPeer::start(WEBSOCKETS);
    let http2 = http2_server(&["connect=1"]);
    let to_http1 = chat(http1.address(), "");
    let to_http2 = chat(http2.address(), HTTP2);
    for evenkeel in [&to_http1, &to_http2] {
        assert_eq!(run(evenkeel, TALK), "1000 as you wish end\n");
        let said = python(WEBSOCKETS_TALK, &[&format!("ws://{}/chat", evenkeel.address())]);
        assert_eq!(said, "1000 as you wish\n");
        wait_until("the tunnels are gone", || tunnels(evenkeel) == 0.0);
        assert_eq!(evenkeel.metric("evenkeel_tunnels_opened_total", &[]), 2.0);
        for moved in ["evenkeel_received_bytes_total", "evenkeel_sent_bytes_total"] {
            wait_until(moved, || evenkeel.metric(moved, &[]) > 2_150_000.0);
        }
        let resets = evenkeel.metric("evenkeel_http2_resets_total", &[]);
        assert_eq!(resets, 0.0);
    }
}

/// Section 5: towards a backend of HTTP/1.1 it is the handshake of RFC 6455, with a key of our own; what else the two
/// tell each other passes.
#[test]
fn section_5_a_backend_of_http_1_gets_the_handshake_of_its_protocol() {
    let backend = agreeing(echo);
    let evenkeel = chat(backend.address, "");
    let out = run(
        &evenkeel,
        r#"
link = Http2()
chat = link.connect("/chat?room=1", [("sec-websocket-protocol", "v2, v1"), ("origin", "https://shop.test"),
    ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("cookie", "a=1"), ("cookie", "b=2")])
link.send(chat, b"ahead of the answer")
print(link.head(chat)["x-seen"], link.exactly(chat, 19).decode())
"#,
    );
    assert_eq!(out, "yes ahead of the answer\n");
    let seen = backend.last();
    assert_eq!((seen.method(), seen.target()), ("GET", "/chat?room=1"));
    for (name, value) in [
        ("host", "shop.test"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v2, v1"),
        ("origin", "https://shop.test"),
        ("cookie", "a=1; b=2"),
    ] {
        assert_eq!(seen.field(name), Some(value), "{name}");
    }
    let keys: Vec<&str> = seen.head.matches("ec-WebSocket-Key: ").collect();
    assert_eq!(keys.len(), 1, "{}", seen.head);
    assert_ne!(seen.field("sec-websocket-key"), Some("AAAAAAAAAAAAAAAAAAAAAA=="));
    assert!(
        !seen.head.to_lowercase().contains("content-length"),
        "{}",
        seen.head
    );
}

/// Section 5: towards a backend of HTTP/2 it is an extended CONNECT without the handshake, and a client of HTTP/1.1
/// gets the proof that its protocol wants, from us.
#[test]
fn section_5_a_client_of_http_1_gets_the_proof_of_its_protocol() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    let mut client = evenkeel.client();
    client.send(UPGRADE.replace("/chat", "/echo") + "ahead");
    let head = client.head();
    assert_eq!(head.status(), 101);
    // The example of RFC 6455 section 1.3.
    assert_eq!(
        head.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.field("connection"), Some("Upgrade"));
    assert_eq!(head.field("x-protocol"), Some("websocket"));
    let seen = head.field("x-seen").unwrap().to_owned();
    for part in [
        r#"":method": "CONNECT""#,
        r#"":path": "/echo""#,
        r#"":authority": "shop.test""#,
        r#"":scheme": "http""#,
        r#""sec-websocket-version": "13""#,
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(
        !seen.contains("sec-websocket-key") && !seen.contains("\"upgrade\""),
        "{seen}"
    );
    assert_eq!(client.read_some(5), b"ahead");
}

/// A client of HTTP/1.1 whose key is no key is told, since its backend cannot see it.
#[test]
fn section_5_a_key_that_is_none_is_refused() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    for key in [
        "Sec-WebSocket-Key: dGhlIHNhbXBs\r\n",
        "Sec-WebSocket-Key: ?\r\n",
        "",
    ] {
        let request = UPGRADE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", key);
        let answer = evenkeel.client().ask(&request);
        assert_eq!(
            (answer.status(), answer.reason()),
            (400, "bad_websocket_key"),
            "{key}"
        );
    }
}

/// A backend of HTTP/1.1 that does not prove that it has read our key has not agreed, whatever it says.
#[test]
fn section_5_an_agreement_without_proof_is_none() {
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let backend = Backend::saying(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n"
        ));
        let evenkeel = chat(backend.address, "");
        let out = run(
            &evenkeel,
            "link = Http2()\nhead = link.head(link.connect())\nprint(head[':status'], head['x-evenkeel-reason'])",
        );
        assert_eq!(out, "502 bad_response\n");
    }
}

/// Section 4: a success is agreement over HTTP/2. A backend of HTTP/1.1 that answers with one has not agreed, so its
/// client must not see it; any other answer is passed on.
#[test]
fn section_4_a_success_that_is_no_agreement_is_not_passed_on() {
    let backend = Backend::answering(|request| match request.target() {
        "/no" => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
    });
    let evenkeel = chat(backend.address, "");
    let out = run(
        &evenkeel,
        r#"
link = Http2()
for path in ("/no", "/yes"):
    got = link.response(link.connect(path))
    head = dict(got["headers"])
    print(head[":status"], head.get("x-evenkeel-reason"), got["body"][:2].decode())
print(link.response(link.request())["body"].decode())
"#,
    );
    assert_eq!(out, "403 None no\n501 upgrade_declined up\nhello\n");
    assert_eq!(tunnels(&evenkeel), 0.0);
    assert_eq!(evenkeel.metric("evenkeel_backend_failures_total", &[]), 0.0);
}

/// The same from a backend of HTTP/2 that declines.
#[test]
fn section_4_a_backend_of_http_2_may_decline() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    let out = run(
        &evenkeel,
        "link = Http2()\ngot = link.response(link.connect('/declined'))\nprint(dict(got['headers'])[':status'], got['body'])",
    );
    assert_eq!(out, "403 b'no'\n");
    let mut client = evenkeel.client();
    let answer = client.ask(&UPGRADE.replace("/chat", "/declined"));
    assert_eq!((answer.status(), answer.text()), (403, "no"));
    assert_eq!(client.get("/").status(), 200);
}

/// Section 3: a backend of HTTP/2 that has not offered it is not asked, and the client told why.
#[test]
fn section_3_a_backend_that_has_not_offered_it_is_not_asked() {
    let server = http2_server(&[]);
    let evenkeel = chat(server.address(), HTTP2);
    let out = run(
        &evenkeel,
        "link = Http2()\nhead = link.head(link.connect())\nprint(head[':status'], head['x-evenkeel-reason'])",
    );
    assert_eq!(out, "501 extended_connect_unsupported\n");
    let answer = evenkeel.client().ask(UPGRADE);
    assert_eq!(
        (answer.status(), answer.reason()),
        (501, "extended_connect_unsupported")
    );
    assert_eq!(evenkeel.client().get("/").status(), 200);
}

/// Section 5: END_STREAM is to a stream what the end is to a connection, each way by itself.
#[test]
fn section_5_each_side_ends_by_itself() {
    // Says something only after the client has ended its half.
    let backend = agreeing(|conversation| {
        while !conversation.read_some(4096).is_empty() {}
        conversation.send("after your end");
    });
    let to_http2 = http2_server(&["connect=1"]);
    let (one, two) = (chat(backend.address, ""), chat(to_http2.address(), HTTP2));
    let out = run(
        &one,
        r#"
link = Http2()
chat = link.connect()
link.head(chat)
link.send(chat, b"said", end=True)
print(link.exactly(chat, 14).decode(), link.ending(chat))
"#,
    );
    assert_eq!(out, "after your end end\n");
    let mut client = two.client();
    client.send(UPGRADE.replace("/chat", "/echo"));
    assert_eq!(client.head().status(), 101);
    client.send("all");
    assert_eq!(client.read_some(3), b"all");
    client.finish_sending();
    client.end();
    for evenkeel in [&one, &two] {
        wait_until("the tunnel is gone", || tunnels(evenkeel) == 0.0);
        assert_eq!(evenkeel.metric("evenkeel_http2_resets_total", &[]), 0.0);
    }
}

/// Section 5: a reset of a connection is RST_STREAM with CANCEL on a stream, and the other way round.
#[test]
fn section_5_a_reset_is_passed_on_as_a_reset() {
    let gone = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = gone.clone();
    let backend = agreeing(move |conversation| {
        let bytes = conversation.read_some(4096);
        if bytes == b"reset!" {
            conversation.reset();
            return;
        }
        let end = conversation.end();
        noted.lock().unwrap().push(end);
    });
    let evenkeel = chat(backend.address, "");
    let out = run(
        &evenkeel,
        r#"
link = Http2()
first, second = link.connect(), link.connect()
print(link.head(first)[":status"], link.head(second)[":status"])
link.send(first, b"reset!")
print(link.ending(first))
link.send(second, b"bytes")
link.reset(second)
link.flush()
print(link.head(link.connect())[":status"])
"#,
    );
    assert_eq!(out, "200 200\n8\n200\n");
    wait_until("the backend has seen the reset", || {
        gone.lock().unwrap().contains(&Broken::Reset)
    });
    let resets = |cause| evenkeel.metric("evenkeel_http2_resets_total", &[("cause", cause)]);
    wait_until("the reset is counted", || resets("backend") == 1.0);
    wait_until("the other one is counted", || resets("client") >= 1.0);
    wait_until("the tunnels are gone", || tunnels(&evenkeel) == 0.0);
}

/// The same from and to a backend of HTTP/2.
#[test]
fn section_5_resets_pass_between_streams() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    let out = run(
        &evenkeel,
        r#"
link = Http2()
first, second = link.connect(), link.connect()
print(link.head(first)[":status"], link.head(second)[":status"])
link.send(first, b"reset!")
print(link.ending(first))
link.send(second, b"said")
print(link.exactly(second, 4).decode())
link.reset(second)
while True:
    seen = json.loads(link.response(link.request())["body"])
    if seen["resets"]:
        print(seen["resets"])
        break
"#,
    );
    assert_eq!(out, "200 200\n8\nsaid\n[8]\n");
    wait_until("the tunnels are gone", || tunnels(&evenkeel) == 0.0);
    let in_flight = || evenkeel.metric("evenkeel_backend_in_flight", &[]);
    wait_until("nothing is in flight", || in_flight() == 0.0);
}

/// A tunnel in which nothing moves is ended on both sides, and its connection lives on.
#[test]
fn an_idle_tunnel_is_ended_and_its_connection_is_not() {
    let (backend, server) = (agreeing(echo), http2_server(&["connect=1"]));
    let idle = "timeouts.tunnel_idle = \"300ms\"\n";
    for evenkeel in [
        chat(backend.address, idle),
        chat(server.address(), &format!("{HTTP2}{idle}")),
    ] {
        let out = run(
            &evenkeel,
            r#"
link = Http2()
chat = link.connect()
print(link.head(chat)[":status"], link.ending(chat))
print(link.head(link.connect())[":status"])
"#,
        );
        assert_eq!(out, "200 end\n200\n");
    }
    wait_until("the backend is left alone", || backend.open_connections() == 0);
}

/// `:method CONNECT`, `:protocol websocket`, `https`, `/`, `:authority a`, without the dynamic table.
fn extended_connect() -> Vec<u8> {
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    block.extend([0x00, 9]);
    block.extend(b":protocol");
    block.push(9);
    block.extend(b"websocket");
    block.extend([0x87, 0x84, 0x01, 1, b'a']);
    block
}

/// The next frame of this kind. Pings on the way are answered: a server that says goodbye asks whether it was heard.
fn answering_pings(client: &mut Frames, kind: u8) -> Option<Frame> {
    while let Some(frame) = client.next() {
        if frame.kind == kind {
            return Some(frame);
        }
        if frame.kind == PING {
            client.send(PING, 1, 0, &frame.payload);
        }
    }
    None
}

/// A change of the config, even one that takes the backend away: the tunnel goes on. When its listener closes, the
/// client is told to ask for nothing more, and the connection ends with the tunnel.
#[test]
fn no_change_closes_a_tunnel() {
    let (old, new) = (agreeing(echo), Backend::named("new"));
    let server = http2_server(&["connect=1"]);
    for (address, protocol) in [(old.address, ""), (server.address(), HTTP2)] {
        let listen = format!("{}:0", free_ip());
        let config =
            |listen: &str, address, more: &str| shop_on(listen, &[address], &format!("{QUIET}{more}"));
        let evenkeel = Evenkeel::start(&config(&listen, address, protocol));
        let mut client = Frames::connect(evenkeel.address(), &[]);
        assert!(client.send(HEADERS, END_HEADERS, 1, &extended_connect()));
        assert_eq!(client.wait_for(HEADERS).expect("agreement").payload[0], 0x88);
        let talk = |client: &mut Frames, words: &[u8]| {
            assert!(client.send(DATA, 0, 1, words));
            assert_eq!(answering_pings(client, DATA).expect("an echo").payload, words);
        };
        talk(&mut client, b"before");
        evenkeel.reload(&config(&listen, new.address, "algorithm = \"random\"\n"));
        assert_eq!(evenkeel.client().get("/").text(), "new");
        talk(&mut client, b"after a change");
        evenkeel.reload(&config(&format!("{}:0", free_ip()), new.address, ""));
        assert_eq!(client.wait_for(GOAWAY).expect("the client is told").code(), 0);
        talk(&mut client, b"after the end of the listener");
        assert_eq!(tunnels(&evenkeel), 1.0);
        assert!(client.send(DATA, END_STREAM, 1, b""));
        let end = answering_pings(&mut client, DATA).expect("its end");
        assert!(end.payload.is_empty());
        assert!(answering_pings(&mut client, DATA).is_none());
        wait_until("the tunnel is gone", || tunnels(&evenkeel) == 0.0);
    }
}

/// A backend of HTTP/2 that goes away: its tunnels go on, and what is new comes to it over another connection.
#[test]
fn a_tunnel_outlives_the_goaway_of_its_backend() {
    let server = http2_server(&["connect=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    let out = run(
        &evenkeel,
        r#"
link = Http2()
chat = link.connect()
link.head(chat)
def connection():
    return json.loads(link.response(link.request())["body"])["connection"]
before = connection()
link.send(chat, b"goaway!")
print(link.exactly(chat, 7).decode(), connection() - before)
link.send(chat, b"still here")
print(link.exactly(chat, 10).decode())
"#,
    );
    assert_eq!(out, "goaway! 1\nstill here\n");
}

/// Tunnels that stand still because their backend does not read, with more on the way than the connection's window
/// would hold: what else the client asks for on the same connection notices nothing.
#[test]
fn a_tunnel_that_stands_still_stops_no_other_stream() {
    let server = http2_server(&["connect=1", "wide=1"]);
    let evenkeel = chat(server.address(), HTTP2);
    let before = evenkeel.memory_kib();
    let out = run(
        &evenkeel,
        r#"
link = Http2()
stalled = [link.connect("/unread") for _ in range(8)]
for stream in stalled:
    assert link.head(stream)[":status"] == "200"
for stream in stalled:
    # 64 KiB of it stay at the backend, the rest with us.
    link.send(stream, b"x" * 160000)
upload = link.request("POST", more=[("content-length", "2000000")], end=False)
link.send(upload, b"y" * 2000000, end=True)
print(len(json.loads(link.response(upload)["body"])["body"]))
"#,
    );
    assert_eq!(out, "2000000\n");
    let grown = evenkeel.memory_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
    wait_until("the tunnels are gone", || tunnels(&evenkeel) == 0.0);
}

/// The same in the other direction: more stands still on one connection to a backend than its window would hold.
#[test]
fn clients_that_do_not_read_their_tunnels_stop_no_other_stream() {
    let server = http2_server(&["connect=1"]);
    let more = format!("{HTTP2}http2 = {{ max_connections = 1 }}\n");
    let evenkeel = chat(server.address(), &more);
    let before = evenkeel.memory_kib();
    let out = run(
        &evenkeel,
        r#"
link = Http2()
link.conn.increment_flow_control_window(1 << 24)
link.flush()
stalled = [link.connect("/flood") for _ in range(40)]
link.unread.update(stalled)
for stream in stalled:
    assert link.head(stream)[":status"] == "200"
got = link.response(link.request(path="/large"))
print(len(got["body"]))
while any(link.conn.remote_flow_control_window(stream) for stream in stalled):
    link.kept.append(next(link.events))
print({link.conn.remote_flow_control_window(stream) for stream in stalled})
"#,
    );
    assert_eq!(out, "3000000\n{0}\n");
    let grown = evenkeel.memory_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB more");
}

/// Over TLS, where HTTP/2 is agreed on by ALPN.
#[test]
fn it_works_over_tls() {
    let server = PythonPeer::start(WEBSOCKETS);
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let evenkeel = Evenkeel::start(&format!(
        "[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}\n[[load_balancers.shop.listeners]]\n\
         address = \"127.0.0.1:0\"\n{}",
        server.address(),
        authority.listener(&["shop"], "")
    ));
    let args = [evenkeel.address().to_string(), authority.file("ca.pem")];
    assert_eq!(
        http2_client(TALK, &args.each_ref().map(String::as_str)),
        "1000 as you wish end\n"
    );
}

/// The access log, `why` and the metrics tell of a tunnel as of one over HTTP/1.1.
#[test]
fn it_is_told_like_any_other_request() {
    let server = http2_server(&["connect=1"]);
    let backend = agreeing(echo);
    for (address, protocol) in [(backend.address, ""), (server.address(), HTTP2)] {
        let place = Place::new("");
        let log = place.path().join("access.log");
        place.write(&format!(
            "[access_log]\nto = \"file:{}\"\n[recorder]\nsample = \"100%\"\n{}",
            log.display(),
            shop_on("127.0.0.1:0", &[address], &format!("{QUIET}{protocol}"))
        ));
        let evenkeel = place.start();
        let out = run(
            &evenkeel,
            r#"
link = Http2()
chat = link.connect("/room")
head = link.head(chat)
link.send(chat, b"said", end=True)
print(link.exactly(chat, 4).decode(), link.ending(chat), head["x-request-id"])
"#,
        );
        let id = out.split_whitespace().nth(2).expect("an id").to_owned();
        assert!(out.starts_with("said end "), "{out}");
        let line = wait_for("a line is written", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.split_once('\n').map(|(line, _)| line.to_owned())
        });
        for part in [r#""protocol":"HTTP/2.0""#, r#""status":200"#, r#""path":"/room""#] {
            assert!(line.contains(part), "{part}: {line}");
        }
        evenkeel.until_known(&id);
        let why = evenkeel.cli_ok(&["why", &id]);
        assert!(
            why.contains("/room") && why.contains(&address.to_string()),
            "{why}"
        );
    }
}

/// Idle tunnels hold no buffers: many of them together take less than one buffer (16 KiB) each.
#[test]
fn an_idle_tunnel_holds_no_buffer() {
    const COUNT: u64 = 900;
    let server = http2_server(&["connect=1", "streams=1000"]);
    let listener = "http2 = { max_concurrent_streams = 1000 }\n";
    let evenkeel = Evenkeel::start(&format!(
        "[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}{HTTP2}http2 = {{ max_concurrent_streams = 1000 }}\n\
         [[load_balancers.shop.listeners]]\naddress = \"127.0.0.1:0\"\n{listener}",
        server.address()
    ));
    let place = evenkeel.place().path();
    let (warm, open) = (place.join("warm"), place.join("open"));
    let (address, marks) = (evenkeel.address().to_string(), [warm.clone(), open.clone()]);
    let client = std::thread::spawn(move || {
        let scenario = r#"
import os, time
link = Http2()
def settle(count, mark):
    # One by one, so that what an exchange needs for a moment is not counted.
    for _ in range(count):
        tunnel = link.connect()
        link.head(tunnel)
        link.send(tunnel, b"said")
        link.exactly(tunnel, 4)
    open(mark, "w").close()
    while os.path.exists(mark):
        time.sleep(0.01)
settle(20, sys.argv[3])
settle(int(sys.argv[5]), sys.argv[4])
"#;
        let [warm, open] = marks.map(|mark| mark.display().to_string());
        http2_client(scenario, &[&address, "", &warm, &open, &COUNT.to_string()])
    });
    wait_until("a few are open", || warm.exists());
    let before = evenkeel.memory_kib();
    std::fs::remove_file(&warm).unwrap();
    wait_until("many are open", || open.exists());
    assert_eq!(tunnels(&evenkeel), 920.0);
    let each = evenkeel.memory_kib().saturating_sub(before) * 1024 / COUNT;
    assert!(each < 16 * 1024, "{each} bytes for each");
    std::fs::remove_file(&open).unwrap();
    client.join().expect("the client ends");
}

/// On shutdown a tunnel goes on until the deadline and is then cut.
#[test]
fn a_shutdown_leaves_tunnels_until_its_deadline() {
    let backend = agreeing(echo);
    let listen = format!("{}:0", free_ip());
    let config = format!(
        "[node]\nshutdown_timeout = \"6s\"\n{}",
        shop_on(&listen, &[backend.address], QUIET)
    );
    let mut evenkeel = Evenkeel::start(&config);
    let mut client = Frames::connect(evenkeel.address(), &[]);
    assert!(client.send(HEADERS, END_HEADERS, 1, &extended_connect()));
    client.wait_for(HEADERS).expect("agreement");
    evenkeel.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(client.wait_for(GOAWAY).expect("the client is told").code(), 0);
    assert!(client.send(DATA, 0, 1, b"goodbye"));
    assert_eq!(client.wait_for(DATA).expect("an echo").payload, b"goodbye");
    while client.next().is_some() {}
    evenkeel.wait_for_end();
}
