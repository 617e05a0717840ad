//! Everything at once: backends that do wrong in every way they can, clients of HTTP/1 and HTTP/2 that leave when they
//! like, in front of routes that keep bodies, copy requests, hold responses, queue and try again. What must hold is
//! little and hard: a response is that of its request or visibly broken, a request arrives as it was sent and no
//! more often than it may, and nothing stays counted once all have left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::{
    Backend, Broken, Client, Conversation, Evenkeel, Message, free_ip, http2_client, wait_until,
};

/// Another number, other faults. They are drawn in an order that depends on the threads, so a run is never quite
/// the same as another.
const SEED: u64 = 0x00e5_6e1e;

const THREADS: u64 = 8;
const CONNECTIONS: u64 = 20;

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// True once in so many.
    fn once_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next() as usize % choices.len()]
    }
}

/// What nobody else's body is like.
fn content(name: &str, size: usize) -> Vec<u8> {
    format!("{name}|")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(size)
        .collect()
}

/// Ways to answer, most of them wrong.
#[derive(Clone, Copy, Debug)]
enum Way {
    Well,
    InChunks,
    UntilClose,
    CloseAtOnce,
    ResetAtOnce,
    Stall,
    BusyEarly,
    DoneEarly,
    Busy,
    NoContentWithBody,
    Garbage,
    Hints(usize),
    Short,
    ShortReset,
    HalfAChunk,
    BadChunk,
    TooMuch,
}

const WAYS: [Way; 24] = {
    use Way::*;
    [
        Well,
        Well,
        Well,
        Well,
        Well,
        Well,
        InChunks,
        InChunks,
        UntilClose,
        CloseAtOnce,
        ResetAtOnce,
        Stall,
        BusyEarly,
        DoneEarly,
        Busy,
        NoContentWithBody,
        Garbage,
        Hints(2),
        Hints(40),
        Short,
        ShortReset,
        HalfAChunk,
        BadChunk,
        TooMuch,
    ]
};

/// Bodies that arrived whole, by the name of their request.
type Arrived = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn faulty(arrived: &Arrived, seed: u64) -> Backend {
    let arrived = arrived.clone();
    Backend::scripted(move |conversation| {
        let mut random = Random(seed ^ conversation.number << 20);
        while let Some(request) = conversation.head() {
            let way = random.of(&WAYS);
            if !answer(conversation, request, way, &arrived) {
                return;
            }
        }
    })
}

/// Answers in this way; false when the connection ends.
fn answer(conversation: &mut Conversation, mut request: Message, way: Way, arrived: &Arrived) -> bool {
    let name = request.field("x-name").unwrap_or_default().to_owned();
    let size = request.field("x-size").and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = content(&name, size);
    let head = |first: &str, more: &str| format!("HTTP/1.1 {first}\r\nX-Name: {name}\r\n{more}\r\n\r\n");
    let with = |head: String, body: &[u8]| [head.as_bytes(), body].concat();
    match way {
        Way::CloseAtOnce => return false,
        Way::ResetAtOnce => {
            conversation.reset();
            return false;
        }
        Way::Stall => {
            conversation.hold();
            return false;
        }
        Way::BusyEarly => {
            conversation.send(head("503 Busy", "Content-Length: 0"));
        }
        Way::DoneEarly => {
            let told = head("200 OK", &format!("Connection: close\r\nContent-Length: {size}"));
            conversation.send(with(told, &body));
            return false;
        }
        _ => {}
    }
    if !conversation.body(&mut request) {
        return false;
    }
    arrived.lock().unwrap().push((name.clone(), request.body));
    let length = |more: usize| format!("Content-Length: {}", size + more);
    let chunk = [format!("{size:x}\r\n").as_bytes(), &body, b"\r\n"].concat();
    let chunked = || head("200 OK", "Transfer-Encoding: chunked");
    match way {
        Way::Well => conversation.send(with(head("200 OK", &length(0)), &body)),
        Way::InChunks if size > 0 => conversation.send(with(chunked(), &[&chunk[..], b"0\r\n\r\n"].concat())),
        Way::InChunks => conversation.send(with(chunked(), b"0\r\n\r\n")),
        Way::UntilClose => {
            conversation.send(with(head("200 OK", "X-A: b"), &body));
            false
        }
        Way::Busy => conversation.send(head("503 Busy", "Content-Length: 0")),
        Way::NoContentWithBody => {
            let told = head("204 No Content", "X-A: b");
            conversation.send(with(told, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnot"))
        }
        Way::Garbage => {
            conversation.send("\0\u{1}nonsense\r\n\r\n");
            false
        }
        Way::Hints(many) => {
            (0..many).all(|_| conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
                && conversation.send(with(head("200 OK", &length(0)), &body))
        }
        Way::Short | Way::ShortReset => {
            conversation.send(with(head("200 OK", &length(9)), &body));
            if matches!(way, Way::ShortReset) {
                conversation.reset();
            }
            false
        }
        Way::HalfAChunk => {
            conversation.send(with(chunked(), &chunk[..chunk.len() / 2]));
            false
        }
        Way::BadChunk => {
            conversation.send(with(chunked(), b"zz\r\n"));
            false
        }
        Way::TooMuch => {
            // In one segment: what comes later than the response cannot be told from the next one.
            let small = size <= 500;
            let more: &[u8] = if small {
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnot"
            } else {
                b""
            };
            conversation.send(with(head("200 OK", &length(0)), &[&body, more].concat()))
        }
        Way::CloseAtOnce | Way::ResetAtOnce | Way::Stall | Way::BusyEarly | Way::DoneEarly => true,
    }
}

fn config(backends: &[Backend], shadow: &Backend) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.address)).collect();
    let route = |prefix: &str, actions: &str| {
        format!(
            "[[load_balancers.shop.routes]]\nmatch = {{ path_prefix = \"/{prefix}\" }}\npool = \"main\"\n{actions}\n"
        )
    };
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n[load_balancers.shop.pools.main]\nbackend_servers = [{}]\n\
         health = false\npassive = false\nslow_start = 0\nmax_requests = 4\nqueue = {{ size = 20 }}\n\
         sticky = {{ header = \"X-Session\" }}\ncircuit_breaker = {{ failure_ratio = \"99%\", open_time = \"100ms\" }}\n\
         retries = {{ attempts = 2, on = [\"connect\", \"reset\", \"timeout\", 503], per_try_timeout = \"300ms\" }}\n\
         [load_balancers.shop.pools.shadow]\nbackend_servers = [\"{}\"]\nhealth = false\npassive = false\n\
         {}{}{}[[load_balancers.shop.routes]]\npool = \"main\"\n",
        free_ip(),
        backends.join(", "),
        shadow.address,
        route("disk", "buffer_requests = { memory = \"8KiB\", disk = \"4MiB\" }"),
        route("held", "buffer_responses = { memory = \"64KiB\" }"),
        route(
            "all",
            "buffer_requests = { memory = \"64KiB\" }\nbuffer_responses = { memory = \"64KiB\" }\n\
             mirror = { pool = \"shadow\", share = \"50%\", max_in_flight = 4, timeout = \"1s\" }"
        ),
    )
}

/// A request that a client has sent.
#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    body: Vec<u8>,
    /// Whether it may be sent again once it was seen.
    repeats: bool,
}

type AllSent = Arc<Mutex<BTreeMap<String, Sent>>>;

/// One connection of HTTP/1: requests one after the other until something ends it, or its client leaves.
fn converse(mut client: Client, random: &mut Random, prefix: &str, all: &AllSent) {
    for number in 0..1 + random.next() % 6 {
        let name = format!("{prefix}-{number}");
        let method = random.of(&["GET", "GET", "POST", "POST", "PUT", "DELETE"]);
        let size = random.of(&[0, 1, 500, 17_000, 90_000]);
        let has_body = matches!(method, "POST" | "PUT");
        let length = if has_body {
            random.of(&[0, 1, 300, 20_000, 60_000])
        } else {
            0
        };
        let key = random.once_in(3);
        let sent = Sent {
            method,
            body: content(&format!("to {name}"), length),
            repeats: method != "POST" || key,
        };
        all.lock().unwrap().insert(name.clone(), sent.clone());
        let path = random.of(&["/", "/disk", "/held", "/all"]);
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nX-Name: {name}\r\nX-Size: {size}\r\nX-Session: {}\r\n",
            random.next() % 50
        )
        .into_bytes();
        if key {
            bytes.extend(format!("Idempotency-Key: {name}\r\n").into_bytes());
        }
        match has_body {
            true if random.once_in(2) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in sent.body.chunks(7000) {
                    bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                    bytes.extend([piece, b"\r\n"].concat());
                }
                bytes.extend(b"0\r\n\r\n");
            }
            true => {
                bytes.extend(format!("Content-Length: {length}\r\n\r\n").into_bytes());
                bytes.extend(&sent.body);
            }
            false => bytes.extend(b"\r\n"),
        }
        if random.once_in(12) {
            bytes.truncate(random.next() as usize % bytes.len());
            let _ = client.try_send(&bytes);
            return if random.once_in(2) {
                client.reset()
            };
        }
        if client.try_send(&bytes).is_err() || random.once_in(12) {
            return;
        }
        match client.try_response() {
            Ok(response) => {
                expect(&response, &name, size);
                if response.closes() {
                    return;
                }
            }
            Err(Broken::Truncated(part)) => {
                assert!(
                    content(&name, size).starts_with(&part),
                    "{name}: a part of something else"
                );
                return;
            }
            // An answer to half a large body may be lost with the rest of the body.
            Err(Broken::Closed | Broken::Reset) if length > 16_000 => return,
            Err(broken) => panic!("{name} {sent:?}: {broken:?}"),
        }
    }
}

fn expect(response: &Message, name: &str, size: usize) {
    if !response.reason().is_empty() {
        assert!(response.text().starts_with(response.reason()), "{response:?}");
        return;
    }
    assert_eq!(
        response.field("x-name"),
        Some(name),
        "the response to another request"
    );
    let empty = response.status() != 200;
    let wanted = content(name, if empty { 0 } else { size });
    assert!(
        response.body == wanted,
        "{name}: another body, {}",
        response.status()
    );
}

/// The same over HTTP/2: several streams at once, some of them reset.
const STREAMS: &str = r#"
import random
dice = random.Random(int(sys.argv[3]))
content = lambda name, size: ((name + "|").encode() * (size // len(name) + 1))[:size]
for turn in range(25):
    client, streams = Http2(), {}
    try:
        for number in range(dice.randrange(1, 7)):
            name, size = f"h2-{turn}-{number}", dice.choice([0, 1, 500, 17000, 90000])
            more = [("x-name", name), ("x-size", str(size)), ("x-session", str(dice.randrange(50)))]
            upload = dice.random() < 0.3
            path = dice.choice(["/", "/disk", "/held", "/all"])
            stream = client.request("PUT" if upload else "GET", path, more, end=not upload)
            if upload:
                try:
                    client.send(stream, content("to " + name, 5000), end=True)
                except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
                    pass
            streams[stream] = (name, size)
        for stream, (name, size) in streams.items():
            if dice.random() < 0.1:
                try:
                    client.conn.reset_stream(stream, 8)
                except h2.exceptions.StreamClosedError:
                    pass
                client.flush()
                continue
            got = client.response(stream)
            head = dict(got["headers"] or [])
            if "x-evenkeel-reason" in head:
                continue
            whole = content(name, size if head.get(":status") == "200" else 0)
            if got["reset"] is None:
                assert head["x-name"] == name, (name, head)
                assert got["body"] == whole, (name, head, len(got["body"]))
            elif head:
                assert head["x-name"] == name and whole.startswith(got["body"]), (name, head)
    except h2.exceptions.ProtocolError as error:
        # The library takes no interim response to a stream that it has reset.
        assert "INFORMATIONAL" in str(error), error
    client.sock.close()
print("done")
"#;

#[test]
fn whatever_backends_and_clients_do() {
    let arrived = Arrived::default();
    let backends: Vec<Backend> = (0..3).map(|i| faulty(&arrived, SEED + i)).collect();
    let shadow = Backend::named("shadow");
    let mut evenkeel = Evenkeel::start(&config(&backends, &shadow));
    let address = evenkeel.address();
    let sent = AllSent::default();
    thread::scope(|scope| {
        let streams = scope.spawn(|| {
            let told = http2_client(STREAMS, &[&address.to_string(), "", &SEED.to_string()]);
            assert!(told.contains("done"), "{told}");
        });
        for thread in 0..THREADS {
            let sent = &sent;
            scope.spawn(move || {
                let mut random = Random(SEED + thread);
                for connection in 0..CONNECTIONS {
                    let prefix = format!("h1-{thread}-{connection}");
                    converse(Client::connect(address), &mut random, &prefix, sent);
                }
            });
        }
        streams.join().unwrap();
    });
    for gauge in [
        "evenkeel_backend_in_flight",
        "evenkeel_pool_queue_depth",
        "evenkeel_listener_connections",
    ] {
        wait_until(gauge, || evenkeel.metric(gauge, &[]) == 0.0);
    }
    wait_until("connections are idle or gone", || {
        let connections = evenkeel.metric("evenkeel_backend_connections", &[]);
        connections == evenkeel.metric("evenkeel_backend_connections_idle", &[])
    });
    let sent = sent.lock().unwrap();
    for (name, body) in arrived.lock().unwrap().iter() {
        let wanted = sent.get(name).map(|sent| sent.body.clone());
        assert!(
            wanted.is_none_or(|wanted| wanted == *body),
            "{name}: another body arrived"
        );
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for request in backends.iter().flat_map(Backend::requests) {
        let name = request.field("x-name").expect("a request of ours").to_owned();
        *seen.entry(name).or_default() += 1;
    }
    for (name, request) in sent.iter().filter(|(_, request)| !request.repeats) {
        let times = seen.get(name).copied().unwrap_or(0);
        assert!(times <= 1, "{name}: {} was sent {times} times", request.method);
    }
    assert!(
        sent.len() > 200 && seen.len() > 150,
        "{} {}",
        sent.len(),
        seen.len()
    );
    assert!(!evenkeel.log().contains("panicked"));
    evenkeel.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(evenkeel.wait_for_end().success());
}
