//! The active check of a pool: `health`, or its short forms `health_endpoint` and `poll_frequency`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::{Findings, Section, item_text, narrow};
use super::text;
use super::tls::check_tls;
use super::tree::Value;
use crate::config::{BackendTls, CheckKind, GrpcCheck, HealthCheck, HttpCheck};
use crate::diagnostic::Fault;
use crate::schema;

/// Fields that the check writes itself, or that would change how its message is read.
const OWN_FIELDS: [&str; 5] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
];

/// `tls`: how the pool's backends are spoken to; `http2`: they speak HTTP/2, and are asked over it.
pub(super) fn health(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    tls: Option<&BackendTls>,
    http2: bool,
) -> Option<HealthCheck> {
    let mut check = match s.section_or_false(f, "health") {
        Some(section) => in_full(f, &section?, tls)?,
        None => HealthCheck {
            tls: tls.cloned(),
            ..in_short(f, s)
        },
    };
    if let CheckKind::Http(http) = &mut check.kind {
        http.http2 = http2;
    }
    Some(check)
}

/// A load balancer that is told nothing still notices a dead server: by a TCP check.
fn in_short(f: &mut Findings<'_>, s: &Section<'_>) -> HealthCheck {
    let path = s.text(f, "health_endpoint", text::check_path);
    let interval = s.duration(f, "poll_frequency");
    let kind = match path {
        Some(path) => CheckKind::Http(plain_http(path)),
        None => CheckKind::Tcp,
    };
    let check = HealthCheck {
        kind,
        ..HealthCheck::default()
    };
    at_interval(check, interval)
}

fn plain_http(path: String) -> HttpCheck {
    HttpCheck {
        http2: false,
        path,
        method: "GET".to_owned(),
        host: None,
        headers: Vec::new(),
        expected_status: vec![(200, 299)],
        body_contains: None,
    }
}

/// The check at another interval, within which what is not given must fit.
fn at_interval(check: HealthCheck, interval: Option<Duration>) -> HealthCheck {
    let interval = interval.unwrap_or(check.interval);
    HealthCheck {
        interval,
        fast_interval: check.fast_interval.min(interval),
        timeout: check.timeout.min(interval),
        ..check
    }
}

fn in_full(f: &mut Findings<'_>, s: &Section<'_>, tls: Option<&BackendTls>) -> Option<HealthCheck> {
    let http = || schema::HTTP_CHECK_KEYS.iter().any(|key| s.entry(key).is_some());
    let kind = match s.choice(f, "type") {
        Some("none") => return None,
        Some("tcp") => CheckKind::Tcp,
        Some("grpc") => CheckKind::Grpc(GrpcCheck {
            service: s.text(f, "service", text::words).unwrap_or_default(),
        }),
        Some(_) => CheckKind::Http(http_check(f, s)),
        None if http() => CheckKind::Http(http_check(f, s)),
        None => CheckKind::Tcp,
    };
    let defaults = at_interval(HealthCheck::default(), s.duration(f, "interval"));
    let check = HealthCheck {
        kind,
        port: s.integer(f, "port").map(narrow),
        interval: defaults.interval,
        fast_interval: s.duration(f, "fast_interval").unwrap_or(defaults.fast_interval),
        timeout: s.duration(f, "timeout").unwrap_or(defaults.timeout),
        rise: s.integer(f, "rise").map_or(defaults.rise, narrow),
        fall: s.integer(f, "fall").map_or(defaults.fall, narrow),
        jitter: s.percent(f, "jitter").map_or(defaults.jitter, narrow),
        tls: check_tls(f, s, tls),
    };
    report_longer(f, s, ("timeout", check.timeout), check.interval);
    report_longer(f, s, ("fast_interval", check.fast_interval), check.interval);
    Some(check)
}

fn report_longer(f: &mut Findings<'_>, s: &Section<'_>, (key, value): (&str, Duration), interval: Duration) {
    let Some(entry) = s.entry(key).filter(|_| value > interval) else {
        return;
    };
    let fault = Fault::new(format!(
        "`{key}` is {}, longer than `interval`, which is {}",
        crate::units::format_duration(value),
        crate::units::format_duration(interval)
    ));
    let fault = fault.suggest(format!("lower `{key}` or raise `interval`"));
    f.report(entry.node.span.clone(), &s.path_of(key), fault);
}

fn http_check(f: &mut Findings<'_>, s: &Section<'_>) -> HttpCheck {
    HttpCheck {
        http2: false,
        path: s
            .text(f, "path", text::check_path)
            .unwrap_or_else(|| "/".to_owned()),
        method: s.choice(f, "method").unwrap_or("GET").to_owned(),
        host: s.text(f, "host", text::host_field),
        headers: headers(f, s),
        expected_status: expected_status(f, s),
        body_contains: s.text(f, "body_contains", text::words),
    }
}

fn headers(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<(String, String)> {
    let mut lines = BTreeMap::new();
    let mut headers = Vec::new();
    for entry in s.fields(f, "headers").unwrap_or_default() {
        let path = format!("{}.{}", s.path_of("headers"), entry.key);
        let value = item_text(f, (&path, &entry.node), "text", text::field_value);
        let name = text::field_name(&entry.key).and_then(|name| {
            let lower = name.to_ascii_lowercase();
            if OWN_FIELDS.contains(&lower.as_str()) {
                return Err(own_field(&name, &lower));
            }
            match lines.insert(lower, f.line(entry.key_span.start)) {
                Some(first) => Err(Fault::new(format!(
                    "`{name}` is given twice; it is first given in line {first}"
                ))),
                None => Ok(name),
            }
        });
        match name {
            Ok(name) => headers.extend(value.map(|value| (name, value))),
            Err(fault) => f.report(entry.key_span.clone(), &path, fault),
        }
    }
    headers
}

fn own_field(name: &str, lower: &str) -> Fault {
    let fault = Fault::new(format!("`{name}` is written by the check itself"));
    match lower {
        "host" => fault.suggest("set it as `host`"),
        _ => fault.suggest(format!("remove `{name}`")),
    }
}

fn expected_status(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<(u16, u16)> {
    let Some(items) = s.items(f, "expected_status") else {
        return vec![(200, 299)];
    };
    let expected = "a status such as `204`, or a range such as `\"200-299\"`";
    let mut ranges = Vec::with_capacity(items.len());
    for (path, node) in items {
        let range = match &node.value {
            Value::Integer(number) => {
                let status = u16::try_from(*number).ok().filter(|n| (100..=599).contains(n));
                if status.is_none() {
                    let fault = Fault::new(format!("{number} is not a status: they are 100 to 599"));
                    f.report(node.span.clone(), &path, fault);
                }
                status.map(|status| (status, status))
            }
            _ => item_text(f, (&path, node), expected, text::status_range),
        };
        ranges.extend(range);
    }
    ranges
}
