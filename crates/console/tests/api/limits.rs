//! What is bounded, and what happens at the bound.
//!
//! Long waits run on the runtime's paused clock, which jumps when all wait. It is paused only once every byte has
//! been exchanged: it would jump over a byte that the kernel is still carrying.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use evenkeel_console::limits::{
    CLOSE_GRACE, HEADER_TIMEOUT, LAST_CONNECTIONS, LAST_PER_SOURCE, MAX_BODY_BYTES, MAX_CONFIGS_AT_ONCE,
    MAX_CONNECTION_AGE, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE, MAX_HEADER_BYTES, REQUEST_TIMEOUT,
};
use model::config::AdminRole;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{Api, ENDLESS, ORDER, Response, TURNS, config_with_roles, token_of};

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end like another here.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Reads one response, given that its body ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{bytes:?}");
    }
    bytes
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let api = Api::start(None).await;
    let padded = |length: usize| {
        let order = r#"{"action": "drain"}"#;
        format!("{order}{}", " ".repeat(length - order.len()))
    };
    assert_eq!(api.order(&padded(MAX_BODY_BYTES)).await.status, 200);
    assert_eq!(
        api.order(&padded(MAX_BODY_BYTES + 1)).await.problem(),
        (413, "body_too_large".into())
    );
}

/// The same for a body that does not announce its length.
#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let api = Api::start(None).await;
    let mut stream = api.connect().await;
    let head = format!(
        "POST {ORDER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!(
        "{MAX_BODY_BYTES:x}\r\n{}\r\n1\r\n \r\n",
        " ".repeat(MAX_BODY_BYTES)
    );
    stream.write_all(chunk.as_bytes()).await.unwrap();
    let response = Response::parse(&read_until(&mut stream, "}").await);
    assert_eq!(response.problem(), (413, "body_too_large".into()));
}

/// Scenario: more send whole configs than may at once. Who is over it is not asked for the body (RFC 9110 section
/// 10.1.1) before another is done, and everything else is answered meanwhile.
#[tokio::test]
async fn few_configs_are_taken_in_at_once() {
    const BODY: &str = r#"{"text": ""}"#;
    let api = Api::start(None).await;
    let head = format!(
        "POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        BODY.len()
    );
    let mut asked = Vec::new();
    for _ in 0..MAX_CONFIGS_AT_ONCE {
        let mut stream = api.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, "100 Continue\r\n\r\n").await;
        asked.push(stream);
    }
    let mut over = api.connect().await;
    over.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(api.get("/livez").await.status, 200);
    assert!(over.try_read(&mut [0]).is_err(), "it is asked for its body");
    let mut first = asked.remove(0);
    first.write_all(BODY.as_bytes()).await.unwrap();
    assert_eq!(Response::parse(&rest(&mut first).await).status, 200);
    read_until(&mut over, "100 Continue\r\n\r\n").await;
    over.write_all(BODY.as_bytes()).await.unwrap();
    assert_eq!(Response::parse(&rest(&mut over).await).status, 200);
}

/// The head of a request with a whole config, by somebody with this role, whose body waits to be asked for.
fn head_of(path: &str, role: AdminRole, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        token_of(role),
        body.len()
    )
}

const CONTINUE: &str = "100 Continue\r\n\r\n";

/// Scenario: viewers have all turns, and send nothing. An administrator applies all the same; another viewer waits.
#[tokio::test]
async fn viewers_keep_no_administrator_waiting() {
    const PLAN: &str = r#"{"text": ""}"#;
    const CHANGE: &str = r#"{"change": {"apply": {"text": ""}}}"#;
    let api = Api::start_as(None, config_with_roles()).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONFIGS_AT_ONCE {
        let mut stream = api.connect().await;
        let head = head_of("/api/v1/plan", AdminRole::Viewer, PLAN);
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, CONTINUE).await;
        held.push(stream);
    }
    for (path, body) in [("/api/v1/desired/changes", CHANGE), ("/api/v1/plan", PLAN)] {
        let mut stream = api.connect().await;
        let head = head_of(path, AdminRole::Admin, body);
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, CONTINUE).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        assert_eq!(Response::parse(&rest(&mut stream).await).status, 200, "{path}");
    }
    let mut over = api.connect().await;
    let head = head_of("/api/v1/desired/changes", AdminRole::Viewer, CHANGE);
    over.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(api.get("/livez").await.status, 200);
    assert!(over.try_read(&mut [0]).is_err(), "it is asked for its body");
}

/// Scenario: somebody sends configs and hangs up, again and again. What is being looked at keeps its turn, so that
/// there is never more of it than may be.
#[tokio::test]
async fn who_hangs_up_gives_no_turn_back() {
    const BODY: &str = r#"{"text": "endless"}"#;
    let api = Api::start_as(None, config_with_roles()).await;
    let head = head_of("/api/v1/plan", AdminRole::Viewer, BODY);
    for begun in 1..=MAX_CONFIGS_AT_ONCE {
        let mut stream = api.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, CONTINUE).await;
        stream.write_all(BODY.as_bytes()).await.unwrap();
        while ENDLESS.load(Relaxed) < begun {
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
    }
    let mut over = api.connect().await;
    over.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(api.get("/livez").await.status, 200);
    assert!(over.try_read(&mut [0]).is_err(), "it is asked for its body");
}

#[tokio::test]
async fn a_header_over_the_limits_ends_the_connection() {
    let api = Api::start(None).await;
    let long = format!("X: {}\r\n", "x".repeat(MAX_HEADER_BYTES));
    for fields in [long, "X: y\r\n".repeat(100)] {
        let mut stream = api.connect().await;
        let text = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let _ = stream.write_all(text.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
            "{answer:?}"
        );
    }
    assert_eq!(api.get("/livez").await.status, 200);
}

/// Slowloris: a header that never ends, a connection that never asks, and one that asked once.
#[tokio::test]
async fn a_client_that_sends_no_header_is_closed() {
    let api = Api::start(None).await;
    for (sent, end) in [
        ("GET /livez HT", ""),
        ("", ""),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "alive\n"),
    ] {
        let started = Instant::now();
        let mut stream = api.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        read_until(&mut stream, end).await;
        tokio::time::pause();
        // Until now the time was the machine's, which may be slow.
        let paused = Instant::now();
        rest(&mut stream).await;
        let (lasted, waited) = (started.elapsed(), paused.elapsed());
        tokio::time::resume();
        assert!(lasted >= HEADER_TIMEOUT, "{sent:?} {lasted:?}");
        assert!(
            waited < HEADER_TIMEOUT + Duration::from_secs(1),
            "{sent:?} {waited:?}"
        );
    }
}

/// A request that has sent its header, and whose body the server waits for.
async fn without_its_body(api: &Api) -> TcpStream {
    let mut stream = api.connect().await;
    let head = format!(
        "POST {ORDER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "100 Continue\r\n\r\n").await;
    stream
}

/// A body that never comes.
#[tokio::test]
async fn a_client_that_sends_no_body_is_told_so() {
    let api = Api::start(None).await;
    let started = Instant::now();
    let mut stream = without_its_body(&api).await;
    tokio::time::pause();
    let response = Response::parse(&rest(&mut stream).await);
    assert_eq!(response.problem(), (408, "request_timeout".into()));
    assert!(started.elapsed() >= REQUEST_TIMEOUT);
}

/// A connection that comes from another address of this machine.
async fn from_elsewhere(api: &Api) -> TcpStream {
    from_address(api, 2).await
}

async fn from_address(api: &Api, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(api.address).await.unwrap()
}

/// Idle connections up to the bound; the next one waits its turn and is then served.
#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let api = Api::start(None).await;
    let started = Instant::now();
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS_PER_SOURCE {
        held.push(api.connect().await);
    }
    // Each address has few of those that are left, but for the first, which comes while there are more.
    let first = MAX_CONNECTIONS - MAX_CONNECTIONS_PER_SOURCE - LAST_CONNECTIONS;
    for _ in 0..first {
        held.push(from_address(&api, 3).await);
    }
    for n in 0..LAST_CONNECTIONS {
        let last = 4 + u8::try_from(n / LAST_PER_SOURCE).unwrap();
        held.push(from_address(&api, last).await);
    }
    assert_eq!(held.len(), MAX_CONNECTIONS);
    let mut waits = from_elsewhere(&api).await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    waits.write_all(request.as_bytes()).await.unwrap();
    tokio::time::pause();
    read_until(&mut waits, "alive\n").await;
    assert!(
        started.elapsed() >= HEADER_TIMEOUT,
        "it was served before another one left"
    );
}

/// Scenario: one address opens all the connections that it can, and says nothing. Others are served at once, and it is
/// counted what was closed.
#[tokio::test]
async fn one_address_leaves_room_for_others() {
    let api = Api::start(None).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS_PER_SOURCE {
        held.push(api.connect().await);
    }
    for _ in held.len()..MAX_CONNECTIONS {
        rest(&mut api.connect().await).await;
    }
    let mut other = from_elsewhere(&api).await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    other.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Response::parse(&rest(&mut other).await).status, 200);
    let over = MAX_CONNECTIONS - MAX_CONNECTIONS_PER_SOURCE;
    assert_eq!(api.counters.refused_connections(), over as u64);
    held.pop();
    let mut again = Vec::new();
    while !again.starts_with(b"HTTP/1.1 200") {
        let mut stream = api.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        again = rest(&mut stream).await;
    }
}

/// Scenario: two addresses open all the connections that they can, and say nothing. A third is served at once.
#[tokio::test]
async fn two_addresses_leave_room_for_a_third() {
    let api = Api::start(None).await;
    let mut held = Vec::new();
    for last in [1, 2] {
        for _ in 0..MAX_CONNECTIONS_PER_SOURCE {
            held.push(from_address(&api, last).await);
        }
    }
    let mut third = from_address(&api, 3).await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    third.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Response::parse(&rest(&mut third).await).status, 200);
    let had = MAX_CONNECTIONS - LAST_CONNECTIONS;
    assert_eq!(api.counters.refused_connections(), (held.len() - had) as u64);
}

/// Scenario: on a runtime with one thread somebody asks for a plan of which the answer has megabytes; beside it runs a
/// task that wants the thread again and again. Between the plan and the head of the answer it has it: written on that
/// thread, the answer would leave no turn in between.
#[tokio::test]
async fn a_long_plan_is_written_elsewhere() {
    let api = Api::start(None).await;
    let spinning = tokio::spawn(async {
        loop {
            TURNS.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let body = r#"{"text": "long"}"#;
    let mut stream = api.connect().await;
    let head = format!(
        "POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    let had = TURNS.load(Relaxed);
    spinning.abort();
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(rest(&mut stream).await.len() > 10_000_000);
    assert!(had > 200, "{had} turns while it was written");
}

/// A client that asks again and again holds its place for a bounded time, and no request of it is cut.
#[tokio::test]
async fn an_old_connection_is_closed_between_two_requests() {
    let api = Api::start(None).await;
    let started = Instant::now();
    let mut stream = api.connect().await;
    let mut answered = 0;
    loop {
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut answer = Vec::new();
        if stream.write_all(request).await.is_ok() {
            while !answer.ends_with(b"alive\n") && stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
        }
        if answer.is_empty() {
            break;
        }
        assert_eq!(Response::parse(&answer).body, "alive\n");
        answered += 1;
        tokio::time::pause();
        tokio::time::advance(HEADER_TIMEOUT / 2).await;
        tokio::time::resume();
    }
    assert!(started.elapsed() >= MAX_CONNECTION_AGE, "{:?}", started.elapsed());
    assert!(answered >= MAX_CONNECTION_AGE.as_secs() / (HEADER_TIMEOUT.as_secs() / 2) - 1);
}

/// A running request gets its answer, idle connections close at once, new ones are refused, and serving ends.
#[tokio::test]
async fn shutdown_lets_running_requests_finish() {
    let (orders, mut requests) = mpsc::channel(1);
    let mut api = Api::start_with(None, orders, mpsc::channel(1).0).await;
    let mut idle = api.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut idle, "alive\n").await;
    let mut running = api.connect().await;
    let body = r#"{"action": "ready"}"#;
    let text = format!(
        "POST {ORDER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    running.write_all(text.as_bytes()).await.unwrap();
    let request = requests.recv().await.unwrap();

    api.stop.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut idle).await, b"");
    assert!(TcpStream::connect(api.address).await.is_err());
    request.reply.send(Ok(None)).unwrap();
    assert_eq!(Response::parse(&rest(&mut running).await).status, 200);
    api.task.await.unwrap();
}

/// A request that does not end by itself is cut at the end of the grace.
#[tokio::test]
async fn shutdown_has_an_end() {
    let mut api = Api::start(None).await;
    let _stream = without_its_body(&api).await;
    tokio::time::pause();
    let started = Instant::now();
    api.stop.take().unwrap().send(()).unwrap();
    api.task.await.unwrap();
    assert!(started.elapsed() >= CLOSE_GRACE);
    assert!(started.elapsed() < CLOSE_GRACE + Duration::from_secs(1));
}
