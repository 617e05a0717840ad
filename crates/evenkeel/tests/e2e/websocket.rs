//! WebSocket (RFC 6455) over HTTP/1.1: tunnels between a client and a server of another implementation.

use crate::support::*;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\n"
    )
}

/// The next bytes behind the 101.
fn exactly(client: &mut Client, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < count {
        let more = client.read_some(count - got.len());
        assert!(!more.is_empty(), "ended after {got:?}");
        got.extend(more);
    }
    got
}

fn evenkeel(address: std::net::SocketAddr, more: &str) -> Evenkeel {
    Evenkeel::start(&format!(
        "[load_balancers.chat]\nlisten = \"127.0.0.1:0\"\nbackend_servers = [\"{address}\"]\n{QUIET}{more}"
    ))
}

fn tunnels(evenkeel: &Evenkeel) -> f64 {
    evenkeel.metric("evenkeel_tunnels", &[("load_balancer", "chat")])
}

/// Client and server of another implementation talk through us: small and large messages both ways, then an orderly
/// close whose code and reason arrive.
#[test]
fn a_conversation_passes_unchanged_and_closes_in_order() {
    let server = PythonPeer::start(WEBSOCKETS);
    let evenkeel = evenkeel(server.address(), "");
    let said = python(WEBSOCKETS_TALK, &[&format!("ws://{}/chat", evenkeel.address())]);
    assert_eq!(said.trim(), "1000 as you wish");
    wait_until("the tunnel is gone", || tunnels(&evenkeel) == 0.0);
}

/// A backend that answers 101 and then speaks bytes of its own.
fn switching(echo: bool) -> Backend {
    Backend::scripted(move |conversation| {
        if conversation.head().is_none() {
            return;
        }
        conversation.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst",
        );
        if !echo {
            return;
        }
        loop {
            let bytes = conversation.read_some(4096);
            if bytes.is_empty() || !conversation.send(bytes) {
                return;
            }
        }
    })
}

/// What the client sends ahead waits for the 101 and then arrives; what the backend sends with its 101 arrives too.
#[test]
fn bytes_sent_early_arrive_after_the_switch() {
    let backend = switching(true);
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = evenkeel.client();
    client.send(upgrade("/") + "ahead");
    assert_eq!(client.head().status(), 101);
    assert_eq!(exactly(&mut client, 10), b"firstahead");
    client.send("more");
    assert_eq!(exactly(&mut client, 4), b"more");
}

/// RFC 9110 section 7.8: the protocol is named on both sides; what the backend gets is an upgrade of our own writing.
#[test]
fn both_sides_name_the_protocol() {
    let backend = switching(true);
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = evenkeel.client();
    client.send(upgrade("/chat?room=1"));
    let head = client.head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("connection"), Some("Upgrade"));
    assert_eq!(head.field("upgrade"), Some("websocket"));
    let seen = backend.last().head;
    assert!(seen.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{seen}");
    assert_eq!(
        seen.matches("Connection: Upgrade\r\nUpgrade: websocket").count(),
        1,
        "{seen}"
    );
}

/// A backend that declines: its answer is an ordinary response, and the connection goes on as HTTP.
#[test]
fn a_backend_may_decline() {
    let backend = Backend::saying("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = evenkeel.client();
    let answer = client.ask(&upgrade("/"));
    assert_eq!((answer.status(), answer.text()), (403, "no"));
    assert_eq!(client.get("/").status(), 403);
}

/// A backend that switches to something else than was asked for is refused.
#[test]
fn another_protocol_than_asked_for_is_refused() {
    let backend =
        Backend::saying("HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n");
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let answer = evenkeel.client().ask(&upgrade("/"));
    assert_eq!((answer.status(), answer.reason()), (502, "bad_response"));
}

/// CVE-2026-2833: a request with a body cannot open a tunnel, so nothing can hide behind it.
#[test]
fn an_upgrade_with_a_body_is_refused() {
    let backend = switching(true);
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}Content-Length: 3\r\n\r\nabc"
    );
    let answer = evenkeel.client().ask(&request);
    assert_eq!((answer.status(), answer.reason()), (501, "upgrade_unsupported"));
    assert_eq!(backend.accepted(), 0);
}

/// A tunnel in which nothing moves is closed on both sides.
#[test]
fn an_idle_tunnel_is_closed() {
    let backend = switching(true);
    let evenkeel = Evenkeel::start(&shop(
        &[&backend],
        &format!("{QUIET}timeouts.tunnel_idle = \"200ms\"\n"),
    ));
    let mut client = evenkeel.client();
    client.send(upgrade("/"));
    assert_eq!(client.head().status(), 101);
    assert_eq!(exactly(&mut client, 5), b"first");
    client.end();
    wait_until("the backend's side is closed", || backend.open_connections() == 0);
}

/// The backend's end reaches the client.
#[test]
fn the_end_of_one_side_reaches_the_other() {
    let backend = switching(false);
    let evenkeel = Evenkeel::start(&shop(&[&backend], QUIET));
    let mut client = evenkeel.client();
    client.send(upgrade("/"));
    assert_eq!(client.head().status(), 101);
    assert_eq!(exactly(&mut client, 5), b"first");
    client.end();
}

/// Reloads that change everything about the load balancer, even take its backend away: the tunnel goes on.
#[test]
fn no_reload_closes_a_tunnel() {
    let (old, new) = (switching(true), Backend::named("new"));
    let evenkeel = Evenkeel::start(&shop(&[&old], QUIET));
    let mut client = evenkeel.client();
    client.send(upgrade("/"));
    assert_eq!(client.head().status(), 101);
    assert_eq!(exactly(&mut client, 5), b"first");
    evenkeel.reload(&shop(&[&new], "algorithm = \"random\"\nhealth = false\n"));
    assert_eq!(evenkeel.client().get("/").text(), "new");
    client.send("still here");
    assert_eq!(exactly(&mut client, 10), b"still here");
}
