//! Hints over a real Redis: heard, lost with it, heard again, never in anybody's way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use evenkeel_store::EtcdTls;
use evenkeel_store::notify::{ANSWER_WITHIN, Notifier, NotifierStatus, PING_AFTER, RedisSettings};
use peers::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout};

/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(port: u16) -> RedisSettings {
    RedisSettings {
        host: "127.0.0.1".to_owned(),
        port,
        tls: None,
        user: None,
        password: None,
        channel: "/evenkeel/hints".to_owned(),
    }
}

/// A node that has connected, with the notice of that taken.
async fn node(settings: RedisSettings) -> (Notifier, Receiver<()>) {
    let (notifier, mut notices) = Notifier::start(settings);
    timeout(PATIENCE, notices.recv())
        .await
        .expect("it connects")
        .unwrap();
    (notifier, notices)
}

async fn until(
    notifier: &Notifier,
    what: &str,
    condition: impl Fn(&NotifierStatus) -> bool,
) -> NotifierStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = notifier.status();
        if condition(&status) {
            return status;
        }
        assert!(Instant::now() < end, "in vain: {what}: {status:?}");
        sleep(Duration::from_millis(5)).await; // condition poll
    }
}

async fn noticed(notices: &mut Receiver<()>) {
    timeout(PATIENCE, notices.recv())
        .await
        .expect("a notice")
        .unwrap();
}

/// Scenario: one node tells of a change, another hears it. The same revision told again is no news.
#[tokio::test(flavor = "multi_thread")]
async fn a_hint_reaches_the_others() {
    let redis = Redis::start();
    let (one, _one) = node(settings(redis.port)).await;
    let (two, mut notices) = node(settings(redis.port)).await;
    let begun = Instant::now();
    one.publish(7);
    noticed(&mut notices).await;
    eprintln!("heard after {:?}", begun.elapsed());
    until(&two, "it is counted", |status| status.received == 1).await;
    until(&one, "it is counted", |status| status.sent == 1).await;
    one.publish(6);
    one.publish(7);
    one.publish(8);
    noticed(&mut notices).await;
    let status = until(&two, "both are heard", |status| status.received == 2).await;
    assert!(
        status.connected && status.trouble.is_none() && status.nonsense == 0,
        "{status:?}"
    );
}

/// Scenario: Redis is killed, and something is told meanwhile; then it is back. Both nodes are back by themselves,
/// the listener is told to look, and the newest revision is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_killed_is_found_again() {
    let mut redis = Redis::start();
    let (one, _one) = node(settings(redis.port)).await;
    let (two, mut notices) = node(settings(redis.port)).await;
    one.publish(1);
    noticed(&mut notices).await;
    redis.crash();
    let lost = until(&two, "the loss is noticed", |status| !status.connected).await;
    assert!(lost.trouble.is_some());
    for revision in 2..100 {
        one.publish(revision);
    }
    until(&one, "telling fails", |status| status.trouble.is_some()).await;
    redis.start_again();
    noticed(&mut notices).await;
    until(&two, "it hears again", |status| {
        status.connected && status.trouble.is_none()
    })
    .await;
    let told = until(&one, "the newest is told", |status| status.sent >= 2).await;
    assert!(told.sent <= 3, "of a hundred the newest is told: {told:?}");
}

/// Scenario: Redis freezes: its connections stay open, nothing comes. That is noticed within seconds, and over when
/// it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_is_noticed() {
    let redis = Redis::start();
    let (one, mut notices) = node(settings(redis.port)).await;
    // It has just heard something, so that it does not wait for a sign of life already.
    one.publish(1);
    noticed(&mut notices).await;
    let begun = Instant::now();
    redis.freeze();
    until(&one, "the silence is noticed", |status| !status.connected).await;
    let took = begun.elapsed();
    eprintln!("noticed after {took:?}");
    assert!(took >= ANSWER_WITHIN, "{took:?}");
    assert!(took < (PING_AFTER + ANSWER_WITHIN) * 4, "{took:?}");
    redis.thaw();
    noticed(&mut notices).await;
    until(&one, "it hears again", |status| status.connected).await;
}

/// Scenario: a wrong password, none, and the right one. The error says what is wrong and not the password, and Redis
/// is not stormed.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_tried_in_a_loop() {
    let redis = Redis::with_password("right");
    for (password, words) in [(Some("wr0ng"), "WRONGPASS"), (None, "NOAUTH")] {
        let wrong = RedisSettings {
            password: password.map(str::to_owned),
            ..settings(redis.port)
        };
        assert!(!format!("{wrong:?}").contains("wr0ng"));
        let (node, _notices) = Notifier::start(wrong);
        node.publish(1);
        let refused = until(&node, "it is refused", |status| {
            // Who tells may be refused before who listens.
            status.trouble.is_some() && status.reconnects > 0
        })
        .await;
        let trouble = refused.trouble.unwrap();
        assert!(trouble.contains(words) && !trouble.contains("wr0ng"), "{trouble}");
        // How long it waits then, `notify` itself holds: see `who_is_refused_waits_for_long`.
        assert_eq!(refused.reconnects, 1);
    }
    let right = RedisSettings {
        password: Some("right".to_owned()),
        ..settings(redis.port)
    };
    let named = RedisSettings {
        user: Some("default".to_owned()),
        ..right.clone()
    };
    let (one, _one) = node(right).await;
    let (_two, mut notices) = node(named).await;
    one.publish(1);
    noticed(&mut notices).await;
}

/// Scenario: Redis speaks TLS. With its authority it is heard; with another one it is not, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = file("cert.pem", &made.cert.pem());
    let key = file("key.pem", &made.signing_key.serialize_pem());
    let redis = Redis::with_tls(&certificate, &key, &certificate);
    let speaking = |authority: &str| RedisSettings {
        tls: Some(EtcdTls {
            authorities: Some(authority.as_bytes().to_vec()),
            identity: None,
        }),
        ..settings(redis.port)
    };
    let (one, mut notices) = node(speaking(&made.cert.pem())).await;
    one.publish(3);
    noticed(&mut notices).await;
    let (wrong, _notices) = Notifier::start(speaking(&other.cert.pem()));
    until(&wrong, "it is not believed", |status| {
        let trouble = status.trouble.as_deref();
        trouble.is_some_and(|trouble| trouble.contains("certificate"))
    })
    .await;
}

/// Scenario: somebody writes rubbish and a flood of revisions into the channel. Rubbish is counted; the flood makes
/// few notices.
#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_costs_little() {
    let redis = Redis::start();
    let (node, mut notices) = node(settings(redis.port)).await;
    for rubbish in ["", "-1", "now", "99999999999999999999999"] {
        let _ = redis.cli(&["PUBLISH", "/evenkeel/hints", rubbish]);
    }
    until(&node, "it is counted", |status| status.nonsense == 4).await;
    assert!(notices.try_recv().is_err(), "rubbish is no news");
    let begun = Instant::now();
    let flood = "for i = 1, 20000 do redis.call('PUBLISH', '/evenkeel/hints', tostring(i)) end";
    let _ = redis.cli(&["EVAL", flood, "0"]);
    let mut count = 0_u128;
    while node.status().received < 20_000 {
        count += u128::from(timeout(Duration::from_millis(50), notices.recv()).await.is_ok());
    }
    let most = begun.elapsed().as_millis() / 20 + 2;
    assert!(count <= most, "{count} notices, {most} expected at most");
}

/// Scenario: what listens there is no Redis: it closes at once, it says nothing, it speaks HTTP, it never ends a line.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_redis_is_given_up() {
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[b'+'; 200_000]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 64];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let (node, _notices) = Notifier::start(settings(port));
        let status = until(&node, "it is given up", |status| status.trouble.is_some()).await;
        assert!(!status.connected);
        server.abort();
    }
}

/// Scenario: nobody needs hints any more. The connections end.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_handle_the_connections_end() {
    let redis = Redis::start();
    let (one, notices) = node(settings(redis.port)).await;
    one.publish(1);
    until(&one, "it is told", |status| status.sent == 1).await;
    drop((one, notices));
    let end = Instant::now() + PATIENCE;
    // The one that asks is a client too.
    while redis
        .cli(&["CLIENT", "LIST"])
        .lines()
        .filter(|line| !line.is_empty())
        .count()
        > 1
    {
        assert!(Instant::now() < end, "a connection stays open");
        sleep(Duration::from_millis(20)).await; // condition poll
    }
}
