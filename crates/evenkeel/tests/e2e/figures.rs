//! Metrics that tell how much of something there was: each grows with what it counts, by as much.

use std::time::SystemTime;

use crate::support::{Backend, Evenkeel, QUIET, curl, shop, wait_until};

/// A few requests over both protocols, and a reload.
#[test]
fn figures_grow_with_what_they_count() {
    let one = Backend::named("one");
    let config = shop(&[&one], QUIET);
    let evenkeel = Evenkeel::start(&config);
    let figure = |name: &str| evenkeel.metric(&format!("evenkeel_{name}"), &[]);
    assert_eq!(
        (figure("listener_open"), figure("pool_retry_budget")),
        (1.0, 100.0)
    );
    let mut client = evenkeel.client();
    for _ in 0..3 {
        client.get("/");
    }
    let url = format!("http://{}/", evenkeel.address());
    let told = curl(&["--http2-prior-knowledge", "-w", "%{http_version}", &url]);
    assert!(told.stdout.ends_with(b"2"), "{told:?}");
    wait_until("four are counted", || {
        figure("request_duration_seconds_count") == 4.0
    });
    assert_eq!(
        (figure("http2_connections_total"), figure("http2_streams_total")),
        (1.0, 1.0)
    );
    let opened = figure("backend_connections_opened_total");
    assert!(opened >= 1.0);
    assert_eq!(figure("backend_connect_seconds_count"), opened);
    assert_eq!(figure("backend_first_byte_seconds_count"), 4.0);
    assert!(figure("request_duration_seconds_sum") > 0.0);
    // Three heads of 38 bytes, and more.
    let (received, sent) = (figure("received_bytes_total"), figure("sent_bytes_total"));
    assert!(
        (115.0..2000.0).contains(&received) && sent > 3.0 * 60.0,
        "{received} {sent}"
    );
    let before = figure("config_last_reload_timestamp_seconds");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((now - 60.0..=now + 1.0).contains(&before), "{before}");
    evenkeel.reload(&config);
    assert!(figure("config_last_reload_timestamp_seconds") >= before);
    let used = evenkeel.metric("process_cpu_seconds_total", &[]);
    let began = evenkeel.metric("process_start_time_seconds", &[]);
    assert!(
        used > 0.0 && (now - 60.0..=now + 1.0).contains(&began),
        "{used} {began}"
    );
}

/// A retry takes one from the budget.
#[test]
fn a_retry_is_taken_from_the_budget() {
    let (dead, good) = (Backend::named("dead"), Backend::named("good"));
    dead.kill();
    let evenkeel = Evenkeel::start(&shop(&[&dead, &good], QUIET));
    let mut client = evenkeel.client();
    client.get("/");
    client.get("/");
    let retries = evenkeel.metric("evenkeel_pool_retries_total", &[]);
    assert!(retries >= 1.0);
    assert_eq!(
        evenkeel.metric("evenkeel_pool_retry_budget", &[]),
        100.0 - retries
    );
}

/// More sessions than there is room for: those that gave way are counted.
#[test]
fn sessions_that_gave_way_are_counted() {
    let one = Backend::named("one");
    let sticky = "sticky = { header = \"X-Session\", max_sessions = 1000 }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{QUIET}{sticky}")));
    let mut client = evenkeel.client();
    for session in 0..1500 {
        client.ask(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Session: {session}\r\n\r\n"
        ));
    }
    let displaced = evenkeel.metric("evenkeel_pool_sessions_displaced_total", &[]);
    assert!((450.0..=1500.0).contains(&displaced), "{displaced}");
}
