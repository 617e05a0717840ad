//! Every timeout by its name, with its reason code.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::{
    Backend, Broken, Client, Conversation, Evenkeel, Gate, QUIET, free_ip, pattern, shop, shop_on,
    shop_with_listener, wait_until,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn with_timeouts(backends: &[&Backend], timeouts: &str) -> Evenkeel {
    Evenkeel::start(&shop(backends, &format!("{QUIET}timeouts = {{ {timeouts} }}\n")))
}

fn with_client_timeouts(backend: &Backend, timeouts: &str) -> Evenkeel {
    Evenkeel::start(&shop_with_listener(
        &[backend],
        &format!("timeouts = {{ {timeouts} }}"),
        QUIET,
    ))
}

/// Sends a byte at a time with a pause, until the other side ends the connection.
fn wait_until_refused(client: &mut TcpStream, byte: &[u8], pause: Duration) {
    while std::io::Write::write_all(client, byte).is_ok() {
        std::thread::sleep(pause);
    }
}

/// A header that does not end: 408, however busily its bytes drip.
#[test]
fn request_headers() {
    let one = Backend::named("one");
    let evenkeel = with_client_timeouts(&one, "request_headers = \"300ms\"");
    let mut silent = evenkeel.client();
    silent.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let answer = silent.response();
    assert_eq!(
        (answer.status(), answer.reason()),
        (408, "request_header_timeout")
    );
    assert!(answer.closes() && silent.is_ended());

    let mut dripping = TcpStream::connect(evenkeel.address()).unwrap();
    std::io::Write::write_all(&mut dripping, b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    wait_until_refused(&mut dripping, b"x", Duration::from_millis(20));
    evenkeel.wait_for_failures("request_header_timeout", 2);

    // It counts from the first byte of a request, not from the start of the connection.
    let mut kept = evenkeel.client();
    assert_eq!(kept.get("/").status(), 200);
    kept.send("GET / HT");
    assert_eq!(kept.response().reason(), "request_header_timeout");
    assert_eq!(one.count(), 1);
}

#[test]
fn request_body_idle() {
    let one = Backend::named("one");
    let evenkeel = with_client_timeouts(&one, "request_body_idle = \"200ms\"");
    for framing in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = evenkeel.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.reason()), (408, "request_body_timeout"));
        assert!(client.is_ended());
    }
    wait_until("the backend is left alone", || one.open_connections() == 0);
    assert_eq!(one.count(), 0);
}

/// A body that drips: below the least rate it is refused, after a grace of five seconds.
#[test]
fn request_body_min_rate() {
    let one = Backend::named("one");
    let evenkeel = with_client_timeouts(&one, "request_body_min_rate = \"1KiB\"");
    let mut dripping = TcpStream::connect(evenkeel.address()).unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    std::io::Write::write_all(&mut dripping, head).unwrap();
    wait_until_refused(&mut dripping, b"x", Duration::from_millis(100));
    evenkeel.wait_for_failures("request_body_too_slow", 1);
    assert_eq!(one.count(), 0);
}

/// A client that does not read its answer is given up.
#[test]
fn response_write_idle() {
    for framing in ["Content-Length: 33554432", "X: y"] {
        let one = Backend::scripted(move |conversation| {
            conversation.request();
            conversation.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
            conversation.send(pattern(32 * 1024 * 1024));
        });
        let evenkeel = with_client_timeouts(&one, "response_write_idle = \"300ms\"");
        let mut client = Client::with_small_window(evenkeel.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        evenkeel.wait_for_failures("client_write_timeout", 1);
        wait_until("the backend's connection ends", || one.open_connections() == 0);
        let mut answer = client.head();
        assert!(client.body(&mut answer).is_err(), "it was cut");
    }
}

/// A listener whose queue is full: connecting to it hangs.
struct Deaf {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Deaf {
    fn new() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::from((free_ip(), 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        loop {
            let one = socket();
            if one.connect_timeout(&address, Duration::from_millis(200)).is_err() {
                break;
            }
            queued.push(one);
        }
        Self {
            address: address.as_socket().unwrap(),
            _listener: listener,
            _queued: queued,
        }
    }
}

/// A backend that does not accept: 504; beside another one the client notices nothing, whatever the method.
#[test]
fn connect() {
    let deaf = Deaf::new();
    let more = format!("{QUIET}timeouts = {{ connect = \"100ms\" }}\n");
    let alone = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &[deaf.address], &more));
    let answer = alone.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (504, "connect_timeout"));
    let good = Backend::saying(OK);
    let listen = format!("{}:0", free_ip());
    let beside = Evenkeel::start(&shop_on(&listen, &[deaf.address, good.address], &more));
    let mut client = beside.client();
    for _ in 0..4 {
        assert_eq!(
            client
                .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                .status(),
            200
        );
    }
    assert_eq!(good.last().body, b"hi");
}

/// A backend that accepts and never answers: 504, and not a second try, for it may be at work.
#[test]
fn first_byte() {
    let (mute, good) = (Backend::scripted(|c| c.hold()), Backend::saying(OK));
    let alone = with_timeouts(&[&mute], "first_byte = \"150ms\"");
    let mut client = alone.client();
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.reason()), (504, "first_byte_timeout"));
    assert!(!answer.closes(), "the client may ask on");
    wait_until("the backend's connection ends", || mute.open_connections() == 0);
    let beside = with_timeouts(&[&mute, &good], "first_byte = \"4s\"");
    let mut client = beside.client();
    let statuses = [client.get("/").status(), client.get("/").status()];
    assert!(statuses.contains(&504) && statuses.contains(&200), "{statuses:?}");
    assert_eq!(beside.metric("evenkeel_pool_retries_total", &[]), 0.0);
}

/// Half a header does not count as an answer.
#[test]
fn first_byte_means_the_whole_header() {
    let half = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nX: ");
        conversation.hold();
    });
    let evenkeel = with_timeouts(&[&half], "first_byte = \"150ms\"");
    assert_eq!(evenkeel.client().get("/").reason(), "first_byte_timeout");
}

/// A backend that pauses within its body: the client's connection is cut, with the reason in the metrics.
#[test]
fn stream_idle() {
    for framing in [
        "Content-Length: 10",
        "Content-Length: 10000000",
        "Transfer-Encoding: chunked",
    ] {
        let one = Backend::scripted(move |conversation| {
            conversation.request();
            conversation.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nok"));
            conversation.hold();
        });
        let evenkeel = with_timeouts(&[&one], "stream_idle = \"150ms\"");
        let end = evenkeel
            .client()
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .try_response();
        assert!(matches!(end, Err(Broken::Truncated(_))), "{framing}: {end:?}");
        evenkeel.wait_for_failures("backend_stream_timeout", 1);
    }
}

/// A backend that does not read its request's body.
#[test]
fn stream_idle_of_an_upload() {
    let gate = Gate::default();
    let end = gate.clone();
    let one = Backend::scripted(move |conversation| {
        conversation.head();
        end.pass();
    });
    let evenkeel = with_timeouts(&[&one], "stream_idle = \"300ms\"");
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    // Ends with an error when the connection is cut.
    let _ = client.try_send(pattern(40 * 1024 * 1024));
    evenkeel.wait_for_failures("backend_stream_timeout", 1);
    gate.open();
}

/// A backend that sends its header early and then waits for the body is not idle: it is the client that is slow,
/// and the client's own limit that ends it.
#[test]
fn stream_idle_does_not_run_while_the_request_is_still_coming() {
    let one = Backend::scripted(|conversation| {
        conversation.head();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop_with_listener(
        &[&one],
        "timeouts = { request_body_idle = \"4s\" }",
        &format!("{QUIET}timeouts = {{ stream_idle = \"100ms\" }}\n"),
    ));
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    evenkeel.wait_for_failures("request_body_timeout", 1);
    assert_eq!(evenkeel.failures("backend_stream_timeout"), 0.0);
}

/// The whole request, however busy: before the header 504, within the body a cut.
#[test]
fn total() {
    let mute = Backend::scripted(Conversation::hold);
    let evenkeel = with_timeouts(&[&mute], "total = \"200ms\"");
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (504, "total_timeout"));

    let dribbling = Backend::scripted(|conversation| {
        conversation.request();
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        wait_until("the proxy gives up", || !conversation.send("x"));
    });
    let evenkeel = with_timeouts(&[&dribbling], "total = \"6s\", stream_idle = \"4s\"");
    let end = evenkeel
        .client()
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .try_response();
    assert!(matches!(end, Err(Broken::Truncated(_))), "{end:?}");
    evenkeel.wait_for_failures("total_timeout", 1);
    assert_eq!(
        evenkeel.failures("backend_stream_timeout"),
        0.0,
        "it was busy all the time"
    );
}

/// An upload that takes too long in all.
#[test]
fn total_of_an_upload() {
    let one = Backend::named("one");
    let evenkeel = with_timeouts(&[&one], "total = \"300ms\"");
    let mut client = evenkeel.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let answer = client.response();
    assert_eq!((answer.status(), answer.reason()), (504, "total_timeout"));
    assert_eq!(one.count(), 0);
}
