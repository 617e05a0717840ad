//! Rate limits: exact over shards, told in the fields that clients know, bounded.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::{Backend, Client, Evenkeel, Message, QUIET, free_ip, wait_until};

/// A config with this limit on its only route.
fn limited(backend: &Backend, limit: &str, listener: &str, node: &str) -> String {
    format!(
        "{node}\n[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}\
         routes = [{{ name = \"all\", pool = \"default\", rate_limit = {limit} }}]\n\
         [[load_balancers.shop.listeners]]\naddress = \"{}:0\"\n{listener}\n",
        backend.address,
        free_ip()
    )
}

fn ask(client: &mut Client, fields: &str) -> Message {
    client.ask(&format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"))
}

/// A hundred connections on two shards ask at once: exactly as many pass as the bucket holds.
#[test]
fn a_limit_is_exact_over_two_shards() {
    let backend = Backend::named("one");
    let limit = "{ requests = 1, per = \"1h\", burst = 137 }";
    let evenkeel = Evenkeel::start(&limited(&backend, limit, "", "[node]\nthreads = 2"));
    let address = evenkeel.address();
    let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                for _ in 0..6 {
                    match ask(&mut client, "").status() {
                        200 => passed.fetch_add(1, Relaxed),
                        429 => refused.fetch_add(1, Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    assert_eq!((passed.load(Relaxed), refused.load(Relaxed)), (137, 163));
    assert_eq!(backend.count(), 137, "what is refused reaches no backend");
    let metric = |outcome| {
        let labels = [("route", "all"), ("limit", "limit"), ("outcome", outcome)];
        evenkeel.metric("evenkeel_rate_limit_requests_total", &labels)
    };
    evenkeel.wait_for_failures("rate_limited", 163);
    assert_eq!((metric("passed"), metric("refused")), (137.0, 163.0));
}

/// RFC 6585 section 4 and draft-ietf-httpapi-ratelimit-headers: what a refusal says; the connection stays.
#[test]
fn a_refusal_says_when_to_come_again() {
    let backend = Backend::named("one");
    let limit = "{ name = \"hourly\", requests = 60, per = \"1h\", burst = 2 }";
    let evenkeel = Evenkeel::start(&limited(&backend, limit, "", ""));
    let mut client = evenkeel.client();
    let passes = ask(&mut client, "");
    assert_eq!(
        (passes.status(), passes.field("ratelimit")),
        (200, None),
        "told only when asked for"
    );
    assert_eq!(ask(&mut client, "").status(), 200);
    let refused = ask(&mut client, "");
    assert_eq!((refused.status(), refused.reason()), (429, "rate_limited"));
    assert_eq!(refused.line, "HTTP/1.1 429 Too Many Requests");
    assert_eq!(refused.field("ratelimit-policy"), Some("\"hourly\";q=60;w=3600"));
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        refused.field("ratelimit"),
        Some(format!("\"hourly\";r=0;t={wait}").as_str())
    );
    assert!(!refused.closes());
    assert_eq!(ask(&mut client, "").status(), 429, "on the same connection");
}

/// `announce`: responses that pass say what is left.
#[test]
fn what_is_left_is_announced_where_wanted() {
    let backend = Backend::named("one");
    let limit = "{ requests = 10, per = \"1h\", announce = true }";
    let evenkeel = Evenkeel::start(&limited(&backend, limit, "", ""));
    let mut client = evenkeel.client();
    for left in [9, 8, 7] {
        let answer = ask(&mut client, "");
        assert_eq!(answer.field("ratelimit-policy"), Some("\"limit\";q=10;w=3600"));
        let told = answer.field("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"limit\";r={left};t=")), "{told}");
    }
}

/// Tokens come back: whoever waits as long as told passes.
#[test]
fn whoever_waits_passes() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&limited(
        &backend,
        "{ requests = 1, per = \"6s\", burst = 1 }",
        "",
        "",
    ));
    let mut client = evenkeel.client();
    assert_eq!(ask(&mut client, "").status(), 200);
    assert_eq!(ask(&mut client, "").status(), 429);
    wait_until("a token has come", || ask(&mut client, "").status() == 200);
}

/// Each header value, each cookie and each client behind a trusted proxy has a bucket; without the field the address
/// counts, so that leaving it out gains nothing.
#[test]
fn keys() {
    let backend = Backend::named("one");
    let start = |key: &str, listener: &str| {
        let limit = format!("{{ requests = 1, per = \"1h\", key = \"{key}\" }}");
        Evenkeel::start(&limited(&backend, &limit, listener, ""))
    };
    let evenkeel = start("header:X-Key", "");
    let mut client = evenkeel.client();
    let statuses = |client: &mut Client, fields: [&str; 5]| fields.map(|f| ask(client, f).status());
    assert_eq!(
        statuses(
            &mut client,
            ["X-Key: a\r\n", "X-Key: a\r\n", "X-Key: b\r\n", "", ""]
        ),
        [200, 429, 200, 200, 429]
    );
    let evenkeel = start("cookie:user", "");
    let fields = [
        "Cookie: user=a\r\n",
        "Cookie: user=a\r\n",
        "Cookie: user=b\r\n",
        "",
        "",
    ];
    assert_eq!(
        statuses(&mut evenkeel.client(), fields),
        [200, 429, 200, 200, 429]
    );
    let evenkeel = start("client_address", "trusted_proxies = [\"127.0.0.0/8\"]");
    let fields = [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X-Forwarded-For: 192.0.2.2\r\n",
        "X-Forwarded-For: 2001:db8:1:2::a\r\n",
        "X-Forwarded-For: 2001:db8:1:2::b\r\n",
    ];
    assert_eq!(
        statuses(&mut evenkeel.client(), fields),
        [200, 429, 200, 200, 429],
        "a /64 is one client"
    );
    let evenkeel = start("route", "");
    assert_eq!(
        statuses(
            &mut evenkeel.client(),
            ["X-Key: a\r\n", "X-Key: b\r\n", "", "", ""]
        ),
        [200, 429, 429, 429, 429]
    );
}

/// Of several limits all must agree; one that refuses costs nothing of the others.
#[test]
fn several_limits() {
    let backend = Backend::named("one");
    let limits = "[{ name = \"each\", requests = 3, per = \"1h\", key = \"header:X-Key\" }, \
                  { name = \"all\", requests = 4, per = \"1h\", key = \"route\" }]";
    let evenkeel = Evenkeel::start(&limited(&backend, limits, "", ""));
    let mut client = evenkeel.client();
    for (key, status, limit) in [
        ("a", 200, ""),
        ("a", 200, ""),
        ("a", 200, ""),
        ("a", 429, "each"),
        ("b", 200, ""),
        ("b", 429, "all"),
    ] {
        let answer = ask(&mut client, &format!("X-Key: {key}\r\n"));
        assert_eq!(answer.status(), status);
        let told = answer.field("ratelimit").unwrap_or_default();
        assert!(told.contains(limit), "{told}");
    }
    let told = evenkeel.cli_ok(&[
        "explain",
        "--listener",
        "shop",
        "--header",
        "X-Key: b",
        "GET",
        "/",
    ]);
    assert!(
        told.contains("limit each by header:x-key: passes, 2 of 3 left"),
        "{told}"
    );
    assert!(told.contains("limit all by route: refused for another"), "{told}");
    assert!(told.contains("refused with 429 rate_limited"), "{told}");
}

/// A reload that does not touch the limit keeps its buckets; a changed limit begins anew.
#[test]
fn buckets_outlive_reloads() {
    let backend = Backend::named("one");
    let text = limited(&backend, "{ requests = 1, per = \"1h\" }", "", "");
    let evenkeel = Evenkeel::start(&text);
    let mut client = evenkeel.client();
    assert_eq!(
        [ask(&mut client, "").status(), ask(&mut client, "").status()],
        [200, 429]
    );
    evenkeel.reload(&format!("{text}max_connections = 50\n"));
    assert_eq!(ask(&mut client, "").status(), 429);
    evenkeel.reload(&text.replace("requests = 1,", "requests = 2,"));
    assert_eq!(ask(&mut client, "").status(), 200);
}

/// A flood of keys: the table stays as large as it is, and that keys gave way is counted.
#[test]
fn a_flood_of_keys_costs_bounded_memory() {
    let backend = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let limit = "{ requests = 1, per = \"1h\", key = \"header:X-Key\", max_keys = 1000 }";
    let evenkeel = Evenkeel::start(&limited(&backend, limit, "", ""));
    let mut client = evenkeel.client();
    let flood = |client: &mut Client, keys: std::ops::Range<u32>| {
        for first in keys.step_by(100) {
            let requests: String = (first..first + 100)
                .map(|key| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n"))
                .collect();
            client.send(requests);
            (0..100).for_each(|_| assert_eq!(client.response().status(), 200));
        }
    };
    flood(&mut client, 0..2_000);
    let before = evenkeel.memory_kib();
    flood(&mut client, 2_000..12_000);
    let grown = evenkeel.memory_kib().saturating_sub(before);
    assert!(grown < 2_048, "{grown} KiB for ten thousand keys");
    assert!(evenkeel.metric("evenkeel_rate_limit_displaced_total", &[]) > 9_000.0);
}
