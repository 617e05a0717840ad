//! Caps, queue and circuit breaker, written out.

use super::Writer;
use crate::config::{Backend, Caps, CircuitBreaker, Overload, Queue};

/// The keys that stand in the pool's own table.
pub(super) fn write_keys(w: &mut Writer, overload: &Overload) {
    let Overload {
        caps,
        queue: _,
        circuit_breaker,
    } = overload;
    let Caps {
        max_requests,
        max_connections,
    } = caps;
    for (key, cap) in [
        ("max_requests", max_requests),
        ("max_connections", max_connections),
    ] {
        match cap {
            Some(cap) => w.raw(key, cap),
            None => w.comment(&format!("{key}: any number")),
        }
    }
    if circuit_breaker.is_none() {
        w.raw("circuit_breaker", false);
    }
}

/// The tables below the pool's.
pub(super) fn write_tables(w: &mut Writer, path: &str, overload: &Overload) {
    let Queue {
        size,
        timeout,
        target,
    } = overload.queue;
    w.header(&format!("[{path}.queue]"));
    w.raw("size", size);
    w.duration("timeout", timeout);
    w.duration("target", target);
    let Some(breaker) = overload.circuit_breaker else {
        return;
    };
    let CircuitBreaker {
        failure_ratio,
        minimum_requests,
        window,
        open_time,
        half_open_requests,
    } = breaker;
    w.header(&format!("[{path}.circuit_breaker]"));
    w.percent("failure_ratio", failure_ratio);
    w.raw("minimum_requests", minimum_requests);
    w.duration("window", window);
    w.duration("open_time", open_time);
    w.raw("half_open_requests", half_open_requests);
}

/// A backend as an entry of the list.
pub(super) fn backend(backend: &Backend) -> String {
    let Backend {
        address,
        weight,
        caps,
    } = backend;
    let Caps {
        max_requests,
        max_connections,
    } = caps;
    let named = [
        ("max_requests", max_requests),
        ("max_connections", max_connections),
    ];
    let caps: String = named
        .into_iter()
        .filter_map(|(key, cap)| cap.map(|cap| format!(", {key} = {cap}")))
        .collect();
    format!("  {{ address = \"{address}\", weight = {weight}{caps} }},\n")
}
