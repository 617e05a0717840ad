//! Spans at a collector that reads them with OpenTelemetry's own definitions.

use serde_json::Value;

use crate::support::{
    Authority, Backend, Client, Evenkeel, PythonPeer, QUIET, free_address, shop, shop_on, wait_for,
    wait_until,
};

const COLLECTOR: &str = include_str!("collector.py");

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracing(collector: &PythonPeer, more: &str) -> String {
    format!(
        "[tracing]\nendpoint = \"http://{}\"\n{more}\n",
        collector.address()
    )
}

/// What the collector has got so far; nothing of it was wrong.
fn told(collector: &PythonPeer) -> Value {
    let answer = Client::connect(collector.address()).get("/");
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told["wrong"], Value::Array(vec![]), "{told}");
    told
}

/// Its spans, once there are so many.
fn spans(collector: &PythonPeer, count: usize) -> Vec<Value> {
    wait_for("the spans are there", || {
        let spans = told(collector)["spans"].as_array().unwrap().clone();
        (spans.len() >= count).then_some(spans)
    })
}

fn get(evenkeel: &Evenkeel, fields: &str) -> u16 {
    let request = format!("GET /cart?id=7 HTTP/1.1\r\nHost: shop.test:8080\r\nUser-Agent: t\r\n{fields}\r\n");
    evenkeel.client().ask(&request).status()
}

/// A caller's span, ours for the request below it, one for each attempt below that, and the backend is told the
/// attempt's: the parents are right all the way.
#[test]
fn spans_hang_together() {
    let collector = PythonPeer::start(COLLECTOR);
    let dead = free_address();
    let one = Backend::named("one");
    let base = shop_on("127.0.0.1:0", &[dead, one.address], QUIET);
    let evenkeel = Evenkeel::start(&format!(
        "{}{base}",
        tracing(&collector, "service_name = \"edge\"\nsample = \"0%\"")
    ));
    for _ in 0..4 {
        assert_eq!(get(&evenkeel, &format!("traceparent: {PARENT}\r\n")), 200);
    }
    // Round robin: some of them met the dead backend first.
    let retries = evenkeel.metric("evenkeel_pool_retries_total", &[]) as usize;
    assert!(retries > 0);
    let spans = spans(&collector, 8 + retries);
    assert_eq!(spans.len(), 8 + retries, "{spans:#?}");
    assert!(
        spans.iter().all(|span| span["trace"] == PARENT[3..35]),
        "{spans:#?}"
    );
    assert!(spans.iter().all(|span| span["service"] == "edge"));
    let servers: Vec<&Value> = spans.iter().filter(|span| span["kind"] == 2).collect();
    assert_eq!(servers.len(), 4);
    for server in servers {
        assert_eq!(
            (&server["parent"], &server["error"]),
            (&PARENT[36..52].into(), &false.into())
        );
        let attributes = &server["attributes"];
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/cart"),
            ("url.query", "id=7"),
            ("url.scheme", "http"),
            ("server.address", "shop.test"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "t"),
            ("evenkeel.load_balancer", "shop"),
        ] {
            assert_eq!(attributes[key], value, "{key}");
        }
        assert_eq!(attributes["http.response.status_code"], 200);
        assert_eq!(attributes["server.port"], 8080);
        let below: Vec<&Value> = spans.iter().filter(|s| s["parent"] == server["span"]).collect();
        assert!((1..=2).contains(&below.len()), "{below:#?}");
        let last = below.last().unwrap();
        assert_eq!(last["attributes"]["server.port"], one.address.port());
        let named: Vec<String> = one
            .requests()
            .iter()
            .map(|got| got.field("traceparent").unwrap()[36..52].to_owned())
            .collect();
        assert!(
            named.contains(&last["span"].as_str().unwrap().to_owned()),
            "the backend knows its caller"
        );
        if let [first, second] = below.as_slice() {
            assert_eq!(first["attributes"]["error.type"], "connect_refused");
            assert_eq!(second["attributes"]["http.request.resend_count"], 1);
        }
        for span in below {
            assert!(span["start"].as_u64() >= server["start"].as_u64(), "{span:#?}");
            assert!(span["end"].as_u64() <= server["end"].as_u64(), "{span:#?}");
        }
    }
    assert_eq!(evenkeel.metric("evenkeel_trace_spans_dropped_total", &[]), 0.0);
}

/// Only what is sampled is sent: here by ourselves, all or none; a caller's decision is kept either way.
#[test]
fn what_is_not_sampled_is_not_sent() {
    let collector = PythonPeer::start(COLLECTOR);
    let one = Backend::named("one");
    let base = shop(&[&one], QUIET);
    let evenkeel = Evenkeel::start(&format!("{}{base}", tracing(&collector, "sample = \"0%\"")));
    get(&evenkeel, "");
    let not_sampled = format!("traceparent: {}00\r\n", &PARENT[..53]);
    get(&evenkeel, &not_sampled);
    evenkeel.reload(&format!("{}{base}", tracing(&collector, "sample = \"100%\"")));
    get(&evenkeel, &not_sampled);
    get(&evenkeel, "");
    let spans = spans(&collector, 2);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let (trace, last) = (spans[0]["trace"].as_str().unwrap(), one.last());
    assert_eq!(&last.field("traceparent").unwrap()[3..35], trace);
    assert_eq!((&spans[0]["parent"], &spans[0]["kind"]), (&"".into(), &2.into()));
}

/// Failures show as errors with their reason, odd methods under one name.
#[test]
fn failures_are_errors() {
    let collector = PythonPeer::start(COLLECTOR);
    let base = shop_on("127.0.0.1:0", &[free_address()], QUIET);
    let evenkeel = Evenkeel::start(&format!("{}{base}", tracing(&collector, "sample = \"100%\"")));
    let answer = evenkeel.client().ask("BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status(), 502);
    let spans = spans(&collector, 2);
    for span in &spans {
        assert_eq!(span["error"], true, "{span:#?}");
        assert_eq!(span["attributes"]["error.type"], "connect_refused");
        assert_eq!(span["attributes"]["http.request.method"], "_OTHER");
        assert_eq!(span["attributes"]["http.request.method_original"], "BREW");
    }
    let server = spans.iter().find(|span| span["kind"] == 2).unwrap();
    assert_eq!(
        server["attributes"]["evenkeel.request_id"],
        answer.field("x-request-id").unwrap()
    );
}

/// A collector that is busy is asked again; it gets the header fields of the file; what it refuses for good is
/// dropped and counted.
#[test]
fn a_busy_collector_is_asked_again() {
    let collector = PythonPeer::start_with(COLLECTOR, &["503,400"]);
    let one = Backend::named("one");
    let secrets = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secrets.path(), "Authorization: Bearer hunter2\n").unwrap();
    let keys = format!(
        "sample = \"100%\"\nheaders_file = \"{}\"",
        secrets.path().display()
    );
    let evenkeel = Evenkeel::start(&format!("{}{}", tracing(&collector, &keys), shop(&[&one], QUIET)));
    get(&evenkeel, "");
    wait_until("the refused spans are counted", || {
        evenkeel.metric("evenkeel_trace_spans_dropped_total", &[]) == 2.0
    });
    get(&evenkeel, "");
    spans(&collector, 2);
    let told = told(&collector);
    assert_eq!(told["authorization"].as_array().unwrap().len(), 3);
    assert!(
        told["authorization"]
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a == "Bearer hunter2")
    );
    wait_until("both are counted", || {
        evenkeel.metric("evenkeel_trace_spans_exported_total", &[]) == 2.0
    });
    evenkeel.wait_for_metric("evenkeel_trace_export_errors_total", &[], 2.0);
    assert!(!evenkeel.log().contains("hunter2"));
}

/// The last spans are sent when the process stops; a collector that is gone keeps nobody waiting, neither requests
/// nor the end.
#[test]
fn the_end_sends_what_there_is() {
    let collector = PythonPeer::start(COLLECTOR);
    let one = Backend::named("one");
    let base = shop(&[&one], QUIET);
    let mut evenkeel = Evenkeel::start(&format!("{}{base}", tracing(&collector, "sample = \"100%\"")));
    assert_eq!(get(&evenkeel, ""), 200);
    evenkeel.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(evenkeel.wait_for_end().success());
    assert_eq!(spans(&collector, 2).len(), 2);
    let gone = format!(
        "[tracing]\nendpoint = \"http://{}\"\nsample = \"100%\"\nqueue = 16\n",
        free_address()
    );
    let mut evenkeel = Evenkeel::start(&format!("{gone}{base}"));
    let mut client = evenkeel.client();
    wait_until("spans are dropped", || {
        for _ in 0..20 {
            assert_eq!(client.get("/").status(), 200);
        }
        evenkeel.metric("evenkeel_trace_spans_dropped_total", &[]) > 0.0
    });
    drop(client);
    evenkeel.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(evenkeel.wait_for_end().success());
}

/// A collector over TLS with a certificate of the house: spans get there with the `ca` that issued it, and not without.
#[test]
fn a_collector_over_tls_must_be_one_that_is_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let one = Backend::named("one");
    let address = free_address();
    authority.issue("collector", &[&address.ip().to_string()]);
    let (cert, key) = (authority.file("collector.pem"), authority.file("collector.key"));
    let collector = PythonPeer::start_at(address, COLLECTOR, &["", &cert, &key]);
    let trusting = |ca: &str| {
        let tracing =
            format!("[tracing]\nendpoint = \"https://{address}\"\nca = \"{ca}\"\nsample = \"100%\"\n");
        Evenkeel::start(&format!("{tracing}{}", shop(&[&one], QUIET)))
    };
    let exported = |evenkeel: &Evenkeel| evenkeel.metric("evenkeel_trace_spans_exported_total", &[]);
    let evenkeel = trusting(&authority.file("ca.pem"));
    assert_eq!(get(&evenkeel, ""), 200);
    wait_until("the spans are taken", || exported(&evenkeel) == 2.0);
    let evenkeel = trusting(&stranger.file("ca.pem"));
    assert_eq!(get(&evenkeel, ""), 200);
    wait_until("the spans are dropped", || {
        evenkeel.metric("evenkeel_trace_spans_dropped_total", &[]) == 2.0
    });
    assert_eq!(exported(&evenkeel), 0.0);
    wait_until("the log tells", || {
        let log = evenkeel.log();
        log.contains("traces: cannot send to https://") && log.contains("UnknownIssuer")
    });
    drop(collector);
}
