//! The keys of caps, queue and circuit breaker: name, type, range, default, meaning.

use super::Default::{Is, Means};
use super::Kind::{self, Duration, Integer, Percent, TableOrFalse};
use super::keys::{HOUR, SECOND, SHORTEST, key, timeout};
use super::{Key, Table};

const CAP: Kind = Integer {
    min: 1,
    max: 1_000_000,
};

/// Caps of one backend.
pub(super) static CAP_KEYS: &[Key] = &[
    key(
        "max_requests",
        CAP,
        Means("that of the pool"),
        "Requests in flight at most, over all threads.",
    ),
    key(
        "max_connections",
        CAP,
        Means("that of the pool"),
        "Connections at most, busy and idle, over all threads.",
    ),
];

/// Keys of a pool.
pub(super) static OVERLOAD_KEYS: &[Key] = &[
    key(
        "max_requests",
        CAP,
        Means("any number"),
        "Requests in flight at each backend at most, exactly, over all threads; a tunnel counts as one. What is beyond waits in `queue`. While a backend is in slow start it has its share of it.",
    ),
    key(
        "max_connections",
        CAP,
        Means("any number"),
        "Connections to each backend at most, busy and idle, exactly, over all threads. That many requests are in flight at most; what is beyond waits in `queue`. Not with `protocol = \"http2\"`, where many requests share a connection: there `max_requests` is the bound.",
    ),
    key(
        "queue",
        Kind::Table(&QUEUE),
        Means("all defaults"),
        "Where requests wait while every backend has as many as it may (`max_requests`, `max_connections`).",
    ),
    key(
        "circuit_breaker",
        TableOrFalse(&CIRCUIT_BREAKER),
        Means("none"),
        "Refuses requests at once while the pool as a whole fails.",
    ),
];

pub(crate) static QUEUE: Table = Table {
    id: "queue",
    heading: "queue of a pool",
    about: "One queue for all threads. Whoever leaves is taken out at once; what is beyond the bounds gets 503 with a computed `Retry-After`.",
    keys: &[&[
        key(
            "size",
            Integer { min: 0, max: 100_000 },
            Is("1000"),
            "Requests that may wait; 0 refuses at once.",
        ),
        key(
            "timeout",
            timeout(HOUR),
            Is("\"1s\""),
            "How long a request may wait; none is sent to a backend after it.",
        ),
        key(
            "target",
            Duration {
                min: SHORTEST,
                max: HOUR,
                or_zero: false,
            },
            Means("`\"100ms\"`, or `timeout` when that is less"),
            "The wait that is fine for good. When waits stay over it for as long as `timeout`, the pool is overloaded: the newest are served first, and who has waited longer than this is refused.",
        ),
    ]],
    rules: &[],
};

pub(crate) static CIRCUIT_BREAKER: Table = Table {
    id: "circuit_breaker",
    heading: "circuit_breaker of a pool",
    about: "Counts how requests end, after their retries. A failure is a connect error, reset, timeout or a 502, 503 or 504 from the backend.",
    keys: &[&[
        key(
            "failure_ratio",
            Percent { min: 1, max: 100 },
            Is("\"50%\""),
            "Share of failures in the window that opens it.",
        ),
        key(
            "minimum_requests",
            Integer {
                min: 1,
                max: 1_000_000,
            },
            Is("20"),
            "Requests in the window below which the ratio says nothing.",
        ),
        key(
            "window",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"10s\""),
            "Length of the sliding window.",
        ),
        key(
            "open_time",
            Duration {
                min: 100,
                max: HOUR,
                or_zero: false,
            },
            Is("\"5s\""),
            "How long it stays open, answering 503, before it lets requests through to try.",
        ),
        key(
            "half_open_requests",
            Integer { min: 1, max: 1000 },
            Is("5"),
            "Requests let through to try. When all succeed it closes, and load comes back over `slow_start`; when one fails it opens again.",
        ),
    ]],
    rules: &[],
};
