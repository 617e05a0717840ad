//! RFC 9110 section 10.1.1 (Expect) and section 15.2 (interim responses), upgrades.

use crate::support::{Backend, Evenkeel, QUIET, curl, shop, wait_until};

const EXPECTING: &str = "POST /big HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// The backend decides: its 100 reaches the client, which then sends its body.
#[test]
fn a_backends_100_reaches_the_client() {
    let one = Backend::scripted(|conversation| {
        while let Some(mut request) = conversation.head() {
            if request.field("expect").is_some() {
                conversation.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if !conversation.body(&mut request) {
                return;
            }
            let got = String::from_utf8(request.body).unwrap();
            conversation.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{got}",
                got.len()
            ));
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        client.send(EXPECTING);
        assert_eq!(client.head().line, "HTTP/1.1 100 Continue");
        let answer = client.send("hello").response();
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert!(!answer.closes());
    }
    assert_eq!(one.accepted(), 1, "the connection is kept");
    let output = curl(&[
        "-H",
        "Expect: 100-continue",
        "-d",
        "hello",
        "-w",
        " %{http_code}",
        &format!("http://{}/", evenkeel.address()),
    ]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello 200");
}

/// The backend refuses without wanting the body: the client gets that, and nobody waits for the body.
#[test]
fn a_backend_that_refuses_at_once() {
    let one = Backend::scripted(|conversation| {
        if conversation.head().is_some() {
            conversation.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    let answer = client.ask(EXPECTING);
    assert_eq!(
        (answer.status(), answer.text(), answer.interim.len()),
        (413, "big", 0)
    );
    assert!(
        answer.closes() && client.is_ended(),
        "the body's place on the wire is unclear"
    );
}

/// A client that asks but does not wait: the body is there already, so nobody needs to be asked.
#[test]
fn a_body_that_is_here_already_needs_no_permission() {
    let one = Backend::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().ask(&format!("{EXPECTING}hello"));
    assert_eq!((answer.status(), answer.interim.len()), (200, 0));
    assert_eq!(one.last().body, b"hello");
}

/// A backend that knows nothing of 100: the client sends after its own patience, and all is well.
#[test]
fn a_backend_without_100_gets_the_body_all_the_same() {
    let one = Backend::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let mut client = evenkeel.client();
    client.send(EXPECTING);
    wait_until("the backend is asked", || one.accepted() == 1);
    assert_eq!(client.send("hello").response().status(), 200);
}

/// Interim responses pass to an HTTP/1.1 client and not to an older one; a 100 that nobody asked for is dropped.
#[test]
fn interim_responses() {
    let one = Backend::saying(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\n\r\n\
         HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let evenkeel = Evenkeel::start(&format!("[node]\nthreads = 1\n{}", shop(&[&one], QUIET)));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.text(), "ok");
        assert_eq!(
            answer.interim,
            [
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>",
                "HTTP/1.1 102 Processing"
            ]
        );
    }
    let answer = evenkeel.client().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.text(), answer.interim.len()), ("ok", 0));
    assert_eq!(one.accepted(), 1);
}

/// A backend that answers with interim responses only, without end.
#[test]
fn endless_interim_responses_are_cut() {
    let one = Backend::scripted(|conversation| {
        conversation.request();
        while conversation.send("HTTP/1.1 102 Processing\r\n\r\n") {}
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "bad_response"));
    assert!(answer.interim.len() <= 64, "{}", answer.interim.len());
}

/// A backend that switches protocols although nobody asked.
#[test]
fn an_unasked_switch_is_refused() {
    let one =
        Backend::saying("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "bad_response"));
    wait_until("its connection ends", || one.open_connections() == 0);
}

/// An upgrade that the listener does not allow is refused with a reason that a person understands.
#[test]
fn an_upgrade_that_is_not_allowed_is_refused_clearly() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let answer = evenkeel.client().ask(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: telepathy\r\n\r\n",
    );
    assert_eq!((answer.status(), answer.reason()), (501, "upgrade_unsupported"));
    assert!(answer.text().contains("upgrade_unsupported"), "{}", answer.text());
    assert_eq!(one.accepted(), 0);
}

/// The first backend dies over a request that waits for its 100: the other one is asked, and the body goes there.
#[test]
fn an_expecting_request_is_tried_elsewhere() {
    let dead = Backend::named("dead");
    dead.kill();
    let good = Backend::scripted(|conversation| {
        while let Some(mut request) = conversation.head() {
            conversation.send("HTTP/1.1 100 Continue\r\n\r\n");
            if !conversation.body(&mut request) {
                return;
            }
            let got = String::from_utf8(request.body).unwrap();
            conversation.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{got}",
                got.len()
            ));
        }
    });
    let evenkeel = Evenkeel::start(&shop(&[&dead, &good], QUIET));
    let mut client = evenkeel.client();
    for _ in 0..2 {
        client.send(EXPECTING);
        assert_eq!(client.head().status(), 100);
        assert_eq!(client.send("hello").response().text(), "hello");
    }
}
