//! What is told about requests, as text.

use super::Writer;
use crate::config::{AccessLog, Observe, Recorder, RequestId, Tracing};

pub(super) fn write(w: &mut Writer, observe: &Observe) {
    let Observe {
        access_log,
        request_id,
        tracing,
        recorder,
    } = observe;
    match access_log {
        Some(log) => write_access_log(w, log),
        None => w.comment("access_log: none"),
    }
    let RequestId { header, trust } = request_id;
    w.header("[request_id]");
    w.text("header", header);
    w.text("trust", trust.as_str());
    match tracing {
        Some(tracing) => write_tracing(w, tracing),
        None => w.comment("tracing: none"),
    }
    let Recorder {
        failures,
        refusals,
        successes,
        sample,
    } = recorder;
    w.header("[recorder]");
    w.raw("failures", failures);
    w.raw("refusals", refusals);
    w.raw("successes", successes);
    w.percent("sample", sample);
}

fn write_access_log(w: &mut Writer, log: &AccessLog) {
    let AccessLog {
        to,
        format,
        sample,
        query,
        queue,
    } = log;
    w.header("[access_log]");
    w.text("to", &to.to_string());
    w.text("format", format.as_str());
    w.percent("sample", sample);
    w.raw("query", query);
    w.size("queue", *queue);
}

fn write_tracing(w: &mut Writer, tracing: &Tracing) {
    let Tracing {
        endpoint,
        ca,
        sample,
        trust,
        service_name,
        headers_file,
        queue,
    } = tracing;
    w.header("[tracing]");
    w.text("endpoint", endpoint);
    let file = ca.as_ref().map(|path| path.display().to_string());
    w.optional("ca", file.as_deref(), "the system's authorities");
    w.percent("sample", sample);
    w.text("trust", trust.as_str());
    w.text("service_name", service_name);
    let file = headers_file.as_ref().map(|path| path.display().to_string());
    w.optional("headers_file", file.as_deref(), "none");
    w.raw("queue", queue);
}
