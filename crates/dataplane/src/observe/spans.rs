//! A remembered request as spans of OpenTelemetry, in the JSON form of OTLP (opentelemetry-proto 1.x): one server
//! span for the request and one client span for each attempt, named by the semantic conventions for HTTP.
//!
//! Written here rather than by the OpenTelemetry SDK; see `docs/adr/0011-own-otlp-export.md`.

use serde_json::{Value, json};

use super::record::Record;
use crate::story::{Trace, Try};

const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

/// What `POST /v1/traces` takes: the spans of these requests.
pub(super) fn request(service_name: &str, records: &[Record]) -> Value {
    let spans: Vec<Value> = records.iter().flat_map(spans).collect();
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        text("service.name", service_name),
        text("telemetry.sdk.name", "evenkeel"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", version),
    ];
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "evenkeel", "version": version }, "spans": spans }],
    }] })
}

/// How many spans a request has.
pub(super) fn count(record: &Record) -> u64 {
    1 + record.tries().count() as u64
}

fn spans(record: &Record) -> Vec<Value> {
    let Some(trace) = record.trace else {
        return Vec::new();
    };
    let mut all = vec![server_span(record, &trace)];
    let tries = record.tries().enumerate();
    all.extend(tries.map(|(n, this)| client_span(record, &trace, n, this)));
    all
}

fn server_span(record: &Record, trace: &Trace) -> Value {
    let method = record.method.to_text();
    let route = record.route.as_ref().map(|route| route.as_str());
    let name = match route {
        Some(route) => format!("{} {}/{route}", known(&method), record.load_balancer),
        None => known(&method).to_owned(),
    };
    let mut attributes = of_request(&method);
    let target = record.target.to_text();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    attributes.push(text("url.path", path));
    let scheme = record.tls.map_or("http", |_| "https");
    let host = record.host.to_text();
    let (address, port) = host_and_port(&host);
    for (key, value) in [
        ("url.query", query),
        ("server.address", address),
        ("user_agent.original", &record.user_agent.to_text()),
        (
            "evenkeel.pool",
            record.pool.as_ref().map_or("", |pool| pool.as_str()),
        ),
        ("evenkeel.route", route.unwrap_or("")),
        (
            "evenkeel.reason",
            record.reason.map_or("", |reason| reason.code()),
        ),
    ] {
        if !value.is_empty() {
            attributes.push(text(key, value));
        }
    }
    attributes.extend(port.map(|port| number("server.port", port.into())));
    if let Some(tls) = &record.tls {
        let version = tls.version.trim_start_matches("TLSv");
        attributes.push(text("tls.protocol.version", version));
        attributes.push(text("tls.cipher", tls.cipher));
        attributes.push(flag("tls.resumed", tls.resumed));
    }
    attributes.extend([
        text("url.scheme", scheme),
        text("client.address", &record.client.to_string()),
        text("network.protocol.version", version(record.protocol)),
        text("evenkeel.request_id", record.id.as_str()),
        text("evenkeel.load_balancer", record.load_balancer.as_str()),
        text("evenkeel.listener", record.listener.as_str()),
    ]);
    let failed = record.status >= 500 || record.status == 0;
    let what = record.reason.map(|reason| (reason.code(), reason.text()));
    let mut span = json!({
        "traceId": hex(&trace.context.trace_id),
        "spanId": hex(&trace.context.span_id),
        "flags": 1,
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": nanoseconds(record.unix_us),
        "endTimeUnixNano": nanoseconds(at(record, record.ended_us)),
    });
    if let Some(parent) = trace.parent {
        span["parentSpanId"] = hex(&parent).into();
    }
    outcome(&mut span, &mut attributes, record.status, failed, what);
    span["attributes"] = attributes.into();
    span
}

fn client_span(record: &Record, trace: &Trace, n: usize, this: &Try) -> Value {
    let method = record.method.to_text();
    let mut attributes = of_request(&method);
    attributes.extend([
        text("server.address", &this.backend.ip().to_string()),
        number("server.port", this.backend.port().into()),
        flag("evenkeel.connection_reused", this.reused),
    ]);
    if n > 0 {
        attributes.push(number("http.request.resend_count", n as u64));
    }
    let failed = this.reason.is_some() || this.status >= 400;
    let what = this.reason.map(|reason| (reason.code(), reason.text()));
    let mut span = json!({
        "traceId": hex(&trace.context.trace_id),
        "spanId": hex(&this.span_id),
        "parentSpanId": hex(&trace.context.span_id),
        "flags": 1,
        "name": known(&method),
        "kind": CLIENT,
        "startTimeUnixNano": nanoseconds(at(record, this.began_us)),
        "endTimeUnixNano": nanoseconds(at(record, this.ended_us)),
    });
    outcome(&mut span, &mut attributes, this.status, failed, what);
    span["attributes"] = attributes.into();
    span
}

/// What client and server spans say alike.
fn of_request(method: &str) -> Vec<Value> {
    let mut attributes = vec![text("http.request.method", known(method))];
    if known(method) != method {
        attributes.push(text("http.request.method_original", method));
    }
    attributes
}

/// The version as the conventions write it: `1.1`, `2`.
fn version(protocol: &str) -> &str {
    match protocol.trim_start_matches("HTTP/") {
        "2.0" => "2",
        version => version,
    }
}

/// Status and failure of a span.
fn outcome(
    span: &mut Value,
    attributes: &mut Vec<Value>,
    status: u16,
    failed: bool,
    what: Option<(&str, &str)>,
) {
    if status > 0 {
        attributes.push(number("http.response.status_code", status.into()));
    }
    if !failed {
        return;
    }
    let kind = what.map_or_else(|| status.to_string(), |(code, _)| code.to_owned());
    attributes.push(text("error.type", &kind));
    let message = what.map_or("", |(_, words)| words);
    span["status"] = json!({ "code": ERROR, "message": message });
}

/// The method as the conventions know it: a client must not be able to make up names of spans.
fn known(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE" => method,
        _ => "_OTHER",
    }
}

fn host_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

/// Unix time in microseconds of a time of the steady clock.
fn at(record: &Record, steady_us: u64) -> u64 {
    record.unix_us + steady_us.saturating_sub(record.started_us)
}

/// 64-bit numbers are strings in OTLP's JSON.
fn nanoseconds(unix_us: u64) -> String {
    unix_us.saturating_mul(1000).to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn flag(key: &str, value: bool) -> Value {
    json!({ "key": key, "value": { "boolValue": value } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
