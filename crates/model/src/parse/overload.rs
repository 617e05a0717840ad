//! Caps, queue and circuit breaker of a pool.

use super::section::{Findings, Section, narrow};
use crate::config::{Backend, Caps, CircuitBreaker, DEFAULT_QUEUE_TARGET, Overload, Queue};
use crate::diagnostic::Fault;
use crate::units::format_duration;

pub(super) fn overload(f: &mut Findings<'_>, s: &Section<'_>) -> Overload {
    let queue = s.section(f, "queue").map(|s| queue(f, &s));
    let breaker = s.section_or_false(f, "circuit_breaker").flatten();
    Overload {
        caps: caps(f, s),
        queue: queue.unwrap_or_default(),
        circuit_breaker: breaker.map(|s| circuit_breaker(f, &s)),
    }
}

/// `max_requests` and `max_connections`, of a pool or of one backend.
pub(super) fn caps(f: &mut Findings<'_>, s: &Section<'_>) -> Caps {
    Caps {
        max_requests: s.integer(f, "max_requests").map(narrow),
        max_connections: s.integer(f, "max_connections").map(narrow),
    }
}

/// Refuses a cap on connections over HTTP/2, where a request that found none free could not wait for one: others run
/// on each of them for as long as they like.
pub(super) fn refuse_connections(f: &mut Findings<'_>, s: &Section<'_>, http2: bool) {
    let Some(entry) = s.entry("max_connections").filter(|_| http2) else {
        return;
    };
    let fault = Fault::new(
        "`max_connections` counts connections of HTTP/1, and this pool speaks HTTP/2, where many requests share one",
    );
    let fault = fault.suggest("bound the requests in flight with `max_requests`; connections have a bound of their own, for each thread, in `http2.max_connections`");
    f.report(entry.key_span.clone(), &s.path_of("max_connections"), fault);
}

/// Warns of a queue in which nothing ever waits.
pub(super) fn warn_of_idle_queue(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    overload: &Overload,
    backends: &[Backend],
) {
    let Some(entry) = s.entry("queue").filter(|_| overload.queue != Queue::default()) else {
        return;
    };
    let mut caps = backends.iter().map(|backend| backend.caps).chain([overload.caps]);
    if caps.all(|caps| caps == Caps::default()) {
        let fault = Fault::new("nothing ever waits in this `queue`, because no backend has a cap");
        let fault = fault.suggest("add for example `max_requests = 100`: what is beyond it waits");
        f.warn(entry.key_span.clone(), &s.path_of("queue"), fault);
    }
}

fn queue(f: &mut Findings<'_>, s: &Section<'_>) -> Queue {
    let defaults = Queue::default();
    let timeout = s.duration(f, "timeout").unwrap_or(defaults.timeout);
    let target = s.duration(f, "target");
    if let (Some(target), Some(entry)) = (target, s.entry("target"))
        && target > timeout
    {
        let fault = Fault::new(format!(
            "`target` is {}, longer than `timeout`, which is {}: nobody may wait so long",
            format_duration(target),
            format_duration(timeout)
        ));
        let fault = fault.suggest("leave `target` out, or raise `timeout`");
        f.report(entry.node.span.clone(), &s.path_of("target"), fault);
    }
    Queue {
        size: s.integer(f, "size").map_or(defaults.size, narrow),
        timeout,
        target: target.unwrap_or_else(|| DEFAULT_QUEUE_TARGET.min(timeout)),
    }
}

fn circuit_breaker(f: &mut Findings<'_>, s: &Section<'_>) -> CircuitBreaker {
    let defaults = CircuitBreaker::default();
    CircuitBreaker {
        failure_ratio: s
            .percent(f, "failure_ratio")
            .map_or(defaults.failure_ratio, narrow),
        minimum_requests: s
            .integer(f, "minimum_requests")
            .map_or(defaults.minimum_requests, narrow),
        window: s.duration(f, "window").unwrap_or(defaults.window),
        open_time: s.duration(f, "open_time").unwrap_or(defaults.open_time),
        half_open_requests: s
            .integer(f, "half_open_requests")
            .map_or(defaults.half_open_requests, narrow),
    }
}
