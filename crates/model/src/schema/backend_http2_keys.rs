//! The keys of HTTP/2 to backends.

use super::Default::Is;
use super::Kind::{Duration, Integer};
use super::Table;
use super::keys::{DAY, HOUR, SECOND, key, timeout};

pub(crate) static BACKEND_HTTP2: Table = Table {
    id: "backend_http2",
    heading: "http2 of a pool",
    about: "HTTP/2 to backends: requests are streams, spread over a few connections. Only with `protocol = \"http2\"`.",
    keys: &[&[
        key(
            "max_concurrent_streams",
            Integer { min: 1, max: 10_000 },
            Is("100"),
            "Requests at once on one connection; less where the backend allows less.",
        ),
        key(
            "max_connections",
            Integer { min: 1, max: 1000 },
            Is("8"),
            "Connections of one thread to one backend. Another is opened when all are full; beyond it requests wait for up to `timeouts.connect`.",
        ),
        key(
            "max_connection_age",
            Duration {
                min: SECOND,
                max: 30 * DAY,
                or_zero: true,
            },
            Is("\"1h\""),
            "Age at which a connection takes no more requests, give or take a tenth; 0 means no end.",
        ),
        key(
            "ping_interval",
            Duration {
                min: 10 * SECOND,
                max: DAY,
                or_zero: true,
            },
            Is("\"5m10s\""),
            "Silence of a connection that carries requests, after which the backend is asked for a sign of life; 0 means never.",
        ),
        key(
            "ping_timeout",
            timeout(HOUR),
            Is("\"20s\""),
            "How long the backend may take to give it; then the connection is closed.",
        ),
    ]],
    rules: &[],
};
