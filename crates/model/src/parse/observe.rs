//! What is told about requests: access log, request ids, traces, recorder.

use std::path::PathBuf;

use super::section::{Findings, Section, cut, narrow};
use super::text;
use crate::config::{
    AccessLog, DEFAULT_REQUEST_ID_HEADER, DEFAULT_SERVICE_NAME, DEFAULT_SYSLOG_SOCKET, DEFAULT_TRACE_QUEUE,
    DEFAULT_TRACE_SAMPLE, LogFormat, LogTarget, Observe, Recorder, RequestId, Tracing, Trust,
};
use crate::diagnostic::Fault;

/// Fields that a message needs for itself, so that an id must not take their place.
const TAKEN_FIELDS: [&str; 16] = [
    "host",
    "forwarded",
    "x-real-ip",
    "keep-alive",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "cookie",
    "traceparent",
    "tracestate",
];

pub(super) fn observe(f: &mut Findings<'_>, root: &Section<'_>) -> Observe {
    Observe {
        access_log: root.section(f, "access_log").map(|s| access_log(f, &s)),
        request_id: root
            .section(f, "request_id")
            .map(|s| request_id(f, &s))
            .unwrap_or_default(),
        tracing: root.section(f, "tracing").and_then(|s| tracing(f, &s)),
        recorder: root
            .section(f, "recorder")
            .map(|s| recorder(f, &s))
            .unwrap_or_default(),
    }
}

fn access_log(f: &mut Findings<'_>, s: &Section<'_>) -> AccessLog {
    let defaults = AccessLog::default();
    AccessLog {
        to: s.text(f, "to", log_target).unwrap_or(defaults.to),
        format: match s.choice(f, "format") {
            Some("common") => LogFormat::Common,
            _ => LogFormat::Json,
        },
        sample: s.percent(f, "sample").map_or(defaults.sample, narrow),
        query: s.boolean(f, "query").unwrap_or(defaults.query),
        queue: s.size(f, "queue").unwrap_or(defaults.queue),
    }
}

fn request_id(f: &mut Findings<'_>, s: &Section<'_>) -> RequestId {
    let header = s.text(f, "header", |text| {
        let name = text::field_name(text)?;
        let lower = name.to_ascii_lowercase();
        if TAKEN_FIELDS.contains(&lower.as_str()) || lower.starts_with("x-forwarded") {
            return Err(Fault::new(format!("`{name}` has a meaning of its own"))
                .suggest(format!("write for example `{DEFAULT_REQUEST_ID_HEADER}`")));
        }
        Ok(name)
    });
    let defaults = RequestId::default();
    RequestId {
        header: header.unwrap_or(defaults.header),
        trust: trust(f, s).unwrap_or(defaults.trust),
    }
}

fn tracing(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Tracing> {
    let endpoint = s.text(f, "endpoint", collector_url);
    let read = Tracing {
        endpoint: String::new(),
        ca: s.text(f, "ca", text::file).map(PathBuf::from),
        sample: s.percent(f, "sample").map_or(DEFAULT_TRACE_SAMPLE, narrow),
        trust: trust(f, s).unwrap_or(Trust::All),
        service_name: s
            .text(f, "service_name", text::words)
            .unwrap_or_else(|| DEFAULT_SERVICE_NAME.to_owned()),
        headers_file: s.text(f, "headers_file", text::file).map(PathBuf::from),
        queue: s.integer(f, "queue").map_or(DEFAULT_TRACE_QUEUE, narrow),
    };
    Some(Tracing {
        endpoint: endpoint?,
        ..read
    })
}

fn recorder(f: &mut Findings<'_>, s: &Section<'_>) -> Recorder {
    let defaults = Recorder::default();
    Recorder {
        failures: s.integer(f, "failures").map_or(defaults.failures, narrow),
        refusals: s.integer(f, "refusals").map_or(defaults.refusals, narrow),
        successes: s.integer(f, "successes").map_or(defaults.successes, narrow),
        sample: s.percent(f, "sample").map_or(defaults.sample, narrow),
    }
}

fn trust(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Trust> {
    Some(match s.choice(f, "trust")? {
        "all" => Trust::All,
        "nobody" => Trust::Nobody,
        _ => Trust::TrustedProxies,
    })
}

/// `stdout`, `file:PATH`, `syslog`, `syslog:PATH` or `syslog:udp://HOST:PORT`.
fn log_target(text: &str) -> Result<LogTarget, Fault> {
    let wrong = || {
        Fault::new(format!("`{}` is no place for an access log", cut(text))).suggest(
            "write `stdout`, `file:/var/log/evenkeel/access.log`, `syslog`, `syslog:/dev/log` or `syslog:udp://127.0.0.1:514`",
        )
    };
    if let Some(path) = text.strip_prefix("file:") {
        return text::file(path).map(|path| LogTarget::File(path.into()));
    }
    match text {
        "stdout" => return Ok(LogTarget::Stdout),
        "syslog" => return Ok(LogTarget::Syslog(DEFAULT_SYSLOG_SOCKET.into())),
        _ => {}
    }
    let rest = text.strip_prefix("syslog:").ok_or_else(wrong)?;
    if let Some(address) = rest.strip_prefix("udp://") {
        return match text::host_and_port(address) {
            true => Ok(LogTarget::SyslogUdp(address.to_owned())),
            false => Err(wrong()),
        };
    }
    match rest.starts_with('/') {
        true => text::file(rest).map(|path| LogTarget::Syslog(path.into())),
        false => Err(wrong()),
    }
}

/// `http://` or `https://`, a host, perhaps a port and a path.
fn collector_url(text: &str) -> Result<String, Fault> {
    let wrong = || {
        Fault::new(format!("`{}` is not the URL of a collector", cut(text)))
            .suggest("write it as `http://127.0.0.1:4318`")
    };
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._~-".contains(&b);
    let fits = text.len() <= 1024 && text::host_field(authority).is_ok() && path.bytes().all(plain);
    if fits { Ok(text.to_owned()) } else { Err(wrong()) }
}
