//! The keys of what is told about requests: access log, request ids, traces, recorder.

use super::Default::{Is, Means, Required};
use super::Kind::{Bool, Integer, OneOf, Percent, Size, Text};
use super::keys::{KIB, MIB, key};
use super::{Form, Kind, Table};

/// Whose statements are taken over.
const TRUST: Kind = OneOf(&["trusted_proxies", "all", "nobody"]);

const SHARE: Kind = Percent { min: 0, max: 100 };

pub(crate) static ACCESS_LOG: Table = Table {
    id: "access_log",
    heading: "[access_log]",
    about: "One line for each request. Without this table none is written.",
    keys: &[&[
        key(
            "to",
            Text(Form::LogTarget),
            Is("\"stdout\""),
            "Where lines go: standard output, a file (opened again on SIGUSR1), or a syslog daemon; `syslog` alone is the one on `/dev/log`.",
        ),
        key(
            "format",
            OneOf(&["json", "common"]),
            Is("\"json\""),
            "`json`: one object a line, with everything. `common`: the combined log format of Apache and nginx.",
        ),
        key(
            "sample",
            SHARE,
            Is("\"100%\""),
            "Share of successes that is logged. What failed, or was answered with 5xx, always is.",
        ),
        key(
            "query",
            Bool,
            Is("true"),
            "Whether the query of a target is logged; `false` where queries may hold secrets.",
        ),
        key(
            "queue",
            Size {
                min: 64 * KIB,
                max: 1024 * MIB,
            },
            Is("\"4MiB\""),
            "Lines that may wait for a slow reader; beyond it lines are dropped and counted, and traffic goes on.",
        ),
    ]],
    rules: &[],
};

pub(crate) static REQUEST_ID: Table = Table {
    id: "request_id",
    heading: "[request_id]",
    about: "The name of a request: sent to the backend, returned to the client, and in log, trace and `evenkeel why`.",
    keys: &[&[
        key(
            "header",
            Text(Form::FieldName),
            Is("\"X-Request-Id\""),
            "The header field that carries it.",
        ),
        key(
            "trust",
            TRUST,
            Is("\"trusted_proxies\""),
            "Whose ids are kept: those of `trusted_proxies` of the listener, all, or nobody's. Others are replaced by a new one.",
        ),
    ]],
    rules: &[],
};

pub(crate) static TRACING: Table = Table {
    id: "tracing",
    heading: "[tracing]",
    about: "Traces: W3C `traceparent` is taken over or begun, and sampled spans go to an OpenTelemetry collector over OTLP/HTTP (JSON). Without this table `traceparent` passes untouched.",
    keys: &[&[
        key(
            "endpoint",
            Text(Form::CollectorUrl),
            Required,
            "Base URL of the collector; spans go to `/v1/traces` below it.",
        ),
        key(
            "ca",
            Text(Form::File),
            Means("the system's authorities"),
            "File with certificates (PEM) to verify an `https://` collector with, instead of the system's.",
        ),
        key(
            "sample",
            SHARE,
            Is("\"1%\""),
            "Share of the traces begun here that is sampled. A trace taken over keeps its own decision.",
        ),
        key(
            "trust",
            TRUST,
            Is("\"all\""),
            "Whose `traceparent` is taken over: that of `trusted_proxies` of the listener, everybody's, or nobody's.",
        ),
        key(
            "service_name",
            Text(Form::Words),
            Is("\"evenkeel\""),
            "`service.name` of the spans.",
        ),
        key(
            "headers_file",
            Text(Form::File),
            Means("none"),
            "File with header fields for the collector, such as its token: one `Name: value` a line, read before each export.",
        ),
        key(
            "queue",
            Integer {
                min: 16,
                max: 1_000_000,
            },
            Is("4096"),
            "Sampled requests that may wait for the collector; beyond it their spans are dropped and counted.",
        ),
    ]],
    rules: &[],
};

pub(crate) static RECORDER: Table = Table {
    id: "recorder",
    heading: "[recorder]",
    about: "The requests that `evenkeel why` can tell about, in memory; a record takes up to 2 KiB.",
    keys: &[&[
        key(
            "failures",
            Integer {
                min: 0,
                max: 1_000_000,
            },
            Is("1000"),
            "Last failures kept, over all threads: answered with 5xx, or broken off by a backend; 0 keeps none.",
        ),
        key(
            "refusals",
            Integer {
                min: 0,
                max: 1_000_000,
            },
            Is("500"),
            "Last refusals kept: requests that we answered with 4xx, or whose client went away. Apart from the failures, so that a scanner pushes none of those out; 0 keeps none.",
        ),
        key(
            "successes",
            Integer {
                min: 0,
                max: 1_000_000,
            },
            Is("200"),
            "Last sampled successes kept; 0 keeps none.",
        ),
        key("sample", SHARE, Is("\"1%\""), "Share of successes that is kept."),
    ]],
    rules: &[],
};
