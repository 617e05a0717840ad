//! What one check comes to, against real servers: each outcome with the words that an operator reads.

use std::time::Duration;

use crate::support::{Backend, Runner, Script, http, once, target, verdict};
use model::config::{CheckKind, HealthCheck, HttpCheck};
use model::state::Health::{Down, Up};

async fn outcome(script: Script, check: HttpCheck) -> (model::state::Health, String) {
    let backend = Backend::start(script).await;
    let verdict = verdict(&backend, once(CheckKind::Http(check))).await;
    (verdict.health, verdict.reason)
}

fn wants(text: &str) -> HttpCheck {
    HttpCheck {
        body_contains: Some(text.into()),
        ..http()
    }
}

fn chunked(parts: &[&str]) -> Script {
    let mut all = vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
    for part in parts {
        all.push(format!("{:x}\r\n{part}\r\n", part.len()).into_bytes());
    }
    all.push(b"0\r\n\r\n".to_vec());
    Script::Answer(all)
}

/// A port that accepts is up; nobody says a word on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_check_succeeds_by_connecting() {
    let backend = Backend::start(Script::silence()).await;
    let verdict = verdict(&backend, once(CheckKind::Tcp)).await;
    assert_eq!((verdict.health, verdict.reason.as_str()), (Up, "connected"));
    backend.until("the check closed", |seen| seen.left == 1).await;
    assert!(backend.seen.lock().unwrap().requests.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_is_connection_refused() {
    for kind in [CheckKind::Tcp, CheckKind::Http(http())] {
        let backend = Backend::start(Script::silence()).await;
        let address = backend.address;
        backend.stop().await;
        let verdict = Runner::start(vec![target(address, once(kind))]).next().await;
        assert_eq!(
            (verdict.health, verdict.reason.as_str()),
            (Down, "connection refused")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_decides() {
    assert_eq!(
        outcome(Script::status(200), http()).await,
        (Up, "status 200".into())
    );
    assert_eq!(
        outcome(Script::status(299), http()).await,
        (Up, "status 299".into())
    );
    assert_eq!(
        outcome(Script::status(301), http()).await,
        (Down, "status 301".into())
    );
    assert_eq!(
        outcome(Script::status(503), http()).await,
        (Down, "status 503".into())
    );
}

/// Ranges are inclusive at both ends, and there may be several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expected_statuses_are_those_of_the_check() {
    let check = || HttpCheck {
        expected_status: vec![(200, 200), (401, 403)],
        ..http()
    };
    for (status, health) in [
        (200, Up),
        (201, Down),
        (400, Down),
        (401, Up),
        (403, Up),
        (404, Down),
    ] {
        assert_eq!(
            outcome(Script::status(status), check()).await.0,
            health,
            "{status}"
        );
    }
}

/// `100 Continue` and `103 Early Hints` announce a response; they are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_are_passed_over() {
    let script = Script::answer(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    assert_eq!(outcome(script, wants("ok")).await, (Up, "status 200".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_must_contain_the_text() {
    assert_eq!(outcome(Script::body("all is ok."), wants("ok")).await.0, Up);
    assert_eq!(
        outcome(Script::body("all is lost"), wants("ok")).await,
        (Down, "body lacks \"ok\"".into())
    );
    assert_eq!(
        outcome(Script::body(""), wants("say \"hi\"\n")).await,
        (Down, "body lacks \"say \\\"hi\\\"\\n\"".into()),
        "quoted so that it stays one line"
    );
}

/// A match may lie across reads, across chunk borders, or end with the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_found_across_borders() {
    assert_eq!(outcome(chunked(&["rea", "d", "y!"]), wants("ready")).await.0, Up);
    assert_eq!(
        outcome(chunked(&["rea", "dy"]), wants("d\r\n")).await.0,
        Down,
        "the chunk's own lines are not the body"
    );
    let bytes = b"HTTP/1.1 200 OK\r\n\r\n... ready"
        .iter()
        .map(|b| vec![*b])
        .collect();
    assert_eq!(outcome(Script::Answer(bytes), wants("ready")).await.0, Up);
}

/// The first 64 KiB count: a text that ends there is found, one that ends a byte later is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_64_kib_are_looked_at() {
    for framing in ["length", "chunked", "close"] {
        for (padding, health) in [(64 * 1024 - 5, Up), (64 * 1024 - 4, Down)] {
            let body = format!("{}ready{}", "x".repeat(padding), "y".repeat(100_000));
            let script = match framing {
                "length" => Script::body(&body),
                "chunked" => chunked(&[&body[..7000], &body[7000..65_000], &body[65_000..]]),
                _ => Script::answer(&format!("HTTP/1.1 200 OK\r\n\r\n{body}")),
            };
            assert_eq!(
                outcome(script, wants("ready")).await.0,
                health,
                "{framing} {padding}"
            );
        }
    }
}

/// A server that takes the request and never answers, and one that stalls within the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_times_out() {
    let stalls = HttpCheck {
        body_contains: Some("ok".into()),
        ..http()
    };
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot ".to_vec();
    for (script, check) in [(Script::silence(), http()), (Script::Half(half), stalls)] {
        let backend = Backend::start(script).await;
        let check = HealthCheck {
            timeout: Duration::from_millis(50),
            ..once(CheckKind::Http(check))
        };
        let verdict = verdict(&backend, check).await;
        assert_eq!(
            (verdict.health, verdict.reason.as_str()),
            (Down, "timeout after 50ms")
        );
        backend
            .until("the check closed its connection", |seen| seen.left == 1)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_without_a_response_is_told_apart_from_nonsense() {
    let closed = (Down, "closed before a response".to_owned());
    assert_eq!(outcome(Script::Close, http()).await, closed);
    assert_eq!(outcome(Script::answer(""), http()).await, closed);
    assert_eq!(outcome(Script::answer("HTTP/1.1 200 O"), http()).await, closed);

    let malformed = (Down, "malformed response".to_owned());
    assert_eq!(
        outcome(Script::answer("SSH-2.0-OpenSSH_9.6\r\n"), http()).await,
        malformed
    );
    assert_eq!(
        outcome(
            Script::answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            http()
        )
        .await,
        malformed
    );
}

/// A body that ends before its length is a failure even where nobody asks for a text in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_body_is_a_failure() {
    let script = Script::answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    assert_eq!(
        outcome(script, http()).await,
        (Down, "closed within the body".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_header_is_cut_off() {
    let mut text = "HTTP/1.1 200 OK\r\n".to_owned();
    text.push_str(&format!("X: {}\r\n", "x".repeat(200_000)));
    assert_eq!(
        outcome(Script::answer(&text), http()).await,
        (Down, "response header too large".into())
    );
}

/// What goes over the wire by default: Host is the address asked, one connection per check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_is_plain_and_complete() {
    let backend = Backend::start(Script::status(200)).await;
    verdict(&backend, once(CheckKind::Http(http()))).await;
    let expected = format!(
        "GET /health HTTP/1.1\r\nHost: {}\r\nUser-Agent: evenkeel-health/{}\r\nConnection: close\r\n\r\n",
        backend.address,
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(backend.seen.lock().unwrap().requests, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn method_path_host_and_fields_are_those_of_the_check() {
    let backend = Backend::start(Script::status(204)).await;
    let check = HttpCheck {
        path: "/deep/health?full=1".into(),
        method: "POST".into(),
        host: Some("shop.example".into()),
        headers: vec![
            ("X-Check".into(), "1".into()),
            ("User-Agent".into(), "probe".into()),
        ],
        ..http()
    };
    assert_eq!(verdict(&backend, once(CheckKind::Http(check))).await.health, Up);
    let expected = "POST /deep/health?full=1 HTTP/1.1\r\nHost: shop.example\r\nX-Check: 1\r\n\
                    User-Agent: probe\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(backend.seen.lock().unwrap().requests, [expected]);
}

/// A response to HEAD has no body, whatever its Content-Length says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_check_waits_for_no_body() {
    let check = HttpCheck {
        method: "HEAD".into(),
        ..http()
    };
    let script = Script::Half(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_vec());
    assert_eq!(outcome(script, check).await, (Up, "status 200".into()));
}

/// The traffic port is closed, the health port answers: the backend is up, and only the health port is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_may_have_its_own_port() {
    let traffic = Backend::start(Script::silence()).await;
    let health = Backend::start(Script::status(200)).await;
    let check = HealthCheck {
        port: Some(health.address.port()),
        ..once(CheckKind::Http(http()))
    };
    let found = verdict(&traffic, check).await;
    assert_eq!((found.health, found.backend.address), (Up, traffic.address));
    assert_eq!((traffic.count(), health.count()), (0, 1));
}
