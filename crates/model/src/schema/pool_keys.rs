//! The keys of pools and what is in them: name, type, range, default, meaning.

use super::Default::{Is, Means, Required};
use super::Kind::{
    Duration, Either, Fields, Integer, List, OneOf, OneOrList, Percent, Size, TableOrFalse, Text,
};
use super::backend_http2_keys::BACKEND_HTTP2;
use super::keys::{DAY, HOUR, MIB, SECOND, SHORTEST, key, timeout};
use super::membership_keys::MEMBERSHIP_KEYS;
use super::overload_keys::{CAP_KEYS, OVERLOAD_KEYS};
use super::sticky_keys::STICKY;
use super::tls_keys::BACKEND_TLS;
use super::{Form, Key, Kind, Rule, Table, WEIGHT};

pub(super) static POOL_KEYS: &[Key] = &[
    key(
        "algorithm",
        OneOf(&[
            "round_robin",
            "least_connections",
            "random",
            "power_of_two",
            "peak_ewma",
            "ip_hash",
            "consistent_hash",
        ]),
        Is("\"round_robin\""),
        "How one backend is chosen; each is weighted.",
    ),
    key(
        "hash",
        Kind::Table(&HASH),
        Means("all defaults"),
        "Settings of `algorithm = \"consistent_hash\"`, and of no other.",
    ),
    key(
        "backend_servers",
        List {
            of: &Either(&[Text(Form::BackendAddress), Kind::Table(&BACKEND)]),
            min: 0,
        },
        Required,
        "What is balanced against, each once: addresses, or tables with a weight. Needed unless the pool has `discovery` or `registration`; in the short form also unless `pools` is given, or every request is answered by routes and listeners.",
    ),
    key(
        "health",
        TableOrFalse(&HEALTH),
        Means("a TCP check, so that a dead server is noticed"),
        "The active check; `false` switches it off.",
    ),
    key(
        "health_endpoint",
        Text(Form::CheckPath),
        Means("none"),
        "Short for `health = { type = \"http\", path = … }`.",
    ),
    key(
        "poll_frequency",
        Duration {
            min: 100,
            max: HOUR,
            or_zero: false,
        },
        Is("\"2s\""),
        "Short for `health.interval`.",
    ),
    key(
        "passive",
        TableOrFalse(&PASSIVE),
        Means("all defaults"),
        "Ejection by what real requests meet; `false` switches it off.",
    ),
    key(
        "slow_start",
        Duration {
            min: 0,
            max: HOUR,
            or_zero: true,
        },
        Is("\"10s\""),
        "Ramp from a tenth to the whole weight after a backend returns or is added; 0 switches it off.",
    ),
    key(
        "all_down",
        OneOf(&["fail_open", "fail_closed"]),
        Is("\"fail_open\""),
        "When no backend is eligible: `fail_open` uses those that only checks or ejection took out, `fail_closed` answers 503 at once.",
    ),
    key(
        "protocol",
        OneOf(&["http1", "http2"]),
        Is("\"http1\""),
        "What the backends speak. `http2`: over plain TCP without being asked first; gRPC needs it.",
    ),
    key(
        "http2",
        Kind::Table(&BACKEND_HTTP2),
        Means("all defaults"),
        "Settings of `protocol = \"http2\"`, and of no other.",
    ),
    key(
        "connections",
        Kind::Table(&CONNECTIONS),
        Means("all defaults"),
        "Connections to the backends.",
    ),
    key(
        "timeouts",
        Kind::Table(&POOL_TIMEOUTS),
        Means("all defaults"),
        "How long a backend may take.",
    ),
    key(
        "retries",
        Kind::Table(&RETRIES),
        Means("all defaults"),
        "When a failed attempt is tried elsewhere.",
    ),
    key(
        "sticky",
        Kind::Table(&STICKY),
        Means("every request is balanced by itself"),
        "How the requests of one session are kept on one backend.",
    ),
    key(
        "tls",
        Either(&[Kind::Bool, Kind::Table(&BACKEND_TLS)]),
        Is("false"),
        "TLS towards the backends; `true`: with all defaults.",
    ),
];

pub(super) static POOL_RULES: &[Rule] = &[
    Rule::NotTogether {
        key: "health_endpoint",
        other: "health",
        instead: "write it as `path` in `health`",
    },
    Rule::NotTogether {
        key: "poll_frequency",
        other: "health",
        instead: "write it as `interval` in `health`",
    },
    Rule::OnlyWith {
        key: "http2",
        other: "protocol",
        value: "http2",
    },
    Rule::OnlyWith {
        key: "hash",
        other: "algorithm",
        value: "consistent_hash",
    },
];

pub(crate) static POOL: Table = Table {
    id: "pool",
    heading: "[load_balancers.NAME.pools.NAME]",
    about: "Backends that serve the same thing, with how to choose among them. The same keys directly in a load balancer describe its pool `default`.",
    keys: &[POOL_KEYS, MEMBERSHIP_KEYS, OVERLOAD_KEYS],
    rules: &[
        POOL_RULES,
        &[Rule::AnyOf(&["backend_servers", "discovery", "registration"])],
    ],
};

pub(crate) static BACKEND: Table = Table {
    id: "backend",
    heading: "an entry of backend_servers",
    about: "One backend server. A bare address is short for a table with that address.",
    keys: &[
        &[
            key(
                "address",
                Text(Form::BackendAddress),
                Required,
                "IP address and port; unique within the pool.",
            ),
            key(
                "weight",
                Integer { min: 0, max: WEIGHT },
                Is("1"),
                "Share relative to the others; 0 takes no traffic.",
            ),
        ],
        CAP_KEYS,
    ],
    rules: &[],
};

pub(crate) static HASH: Table = Table {
    id: "hash",
    heading: "hash of a pool",
    about: "Settings of `consistent_hash`: requests with the same key meet the same backend, and few keys move when backends come and go.",
    keys: &[&[
        key(
            "key",
            Text(Form::HashKey),
            Is("\"client_address\""),
            "What is hashed. A request without the named header field, cookie or query parameter falls back to the client's address.",
        ),
        key(
            "table",
            OneOf(&["ring", "maglev"]),
            Is("\"ring\""),
            "`ring` moves the fewest keys, `maglev` spreads most evenly and takes constant time.",
        ),
        key(
            "bounded_load",
            Percent {
                min: 101,
                max: 10_000,
            },
            Means("unbounded"),
            "Greatest load of a backend, in percent of the average; what is beyond goes to the next one.",
        ),
    ]],
    rules: &[],
};

pub(crate) static HEALTH: Table = Table {
    id: "health",
    heading: "health of a pool",
    about: "The active check of each backend.",
    keys: &[&[
        key(
            "type",
            OneOf(&["http", "grpc", "tcp", "none"]),
            Means("`http` when one of the keys of an HTTP check is given, else `tcp`"),
            "`tcp`: a connection that opens is a success. `http`: a request, over what `protocol` says, judged by its answer. `grpc`: a call of `grpc.health.v1.Health/Check`, which must answer `SERVING`. `none`: no check, the same as `health = false`.",
        ),
        key(
            "path",
            Text(Form::CheckPath),
            Is("\"/\""),
            "HTTP: what is asked for; may have a query.",
        ),
        key(
            "method",
            OneOf(&["GET", "HEAD", "OPTIONS", "POST"]),
            Is("\"GET\""),
            "HTTP: the method; `POST` has no body.",
        ),
        key(
            "host",
            Text(Form::HostField),
            Means("the backend's address"),
            "HTTP: the `Host` that is sent.",
        ),
        key("headers", Fields, Is("{}"), "HTTP: further fields to send."),
        key(
            "expected_status",
            OneOrList(&Either(&[
                Integer { min: 100, max: 599 },
                Text(Form::StatusRange),
            ])),
            Is("\"200-299\""),
            "HTTP: statuses that count as success: a status, a range, or a list of both.",
        ),
        key(
            "body_contains",
            Text(Form::Words),
            Means("any body"),
            "HTTP: text that the first 64 KiB of the body must contain.",
        ),
        key(
            "service",
            Text(Form::Words),
            Means("the server as a whole"),
            "gRPC: the service that is asked about.",
        ),
        key(
            "port",
            Integer { min: 1, max: 65_535 },
            Means("the backend's"),
            "Another port to check.",
        ),
        key(
            "interval",
            Duration {
                min: 100,
                max: HOUR,
                or_zero: false,
            },
            Is("\"2s\""),
            "Time from one check to the next, give or take `jitter`.",
        ),
        key(
            "fast_interval",
            Duration {
                min: 50,
                max: HOUR,
                or_zero: false,
            },
            Means("`\"500ms\"`, or `interval` when that is less"),
            "The same while the state is about to change; at most `interval`.",
        ),
        key(
            "timeout",
            timeout(HOUR),
            Means("`\"1s\"`, or `interval` when that is less"),
            "From connecting to the last byte needed; at most `interval`.",
        ),
        key(
            "rise",
            Integer { min: 1, max: 100 },
            Is("2"),
            "Successes in a row that bring a backend up. The first check decides at once.",
        ),
        key(
            "fall",
            Integer { min: 1, max: 100 },
            Is("3"),
            "Failures in a row that take it down.",
        ),
        key(
            "jitter",
            Percent { min: 0, max: 50 },
            Is("\"10%\""),
            "Share of the interval by which each check is moved at random.",
        ),
        key(
            "tls",
            Kind::Bool,
            Means("as the pool"),
            "`false`: the check is in the clear, although the pool has `tls`. A TCP check over TLS succeeds with the handshake.",
        ),
    ]],
    rules: &[&[
        Rule::NoneWith {
            keys: HTTP_CHECK_KEYS,
            other: "type",
            value: "tcp",
        },
        Rule::NoneWith {
            keys: HTTP_CHECK_KEYS,
            other: "type",
            value: "grpc",
        },
        Rule::OnlyWith {
            key: "service",
            other: "type",
            value: "grpc",
        },
        Rule::NoneWith {
            keys: HTTP_CHECK_KEYS,
            other: "type",
            value: "none",
        },
        Rule::NoneWith {
            keys: &[
                "port",
                "interval",
                "fast_interval",
                "timeout",
                "rise",
                "fall",
                "jitter",
                "tls",
            ],
            other: "type",
            value: "none",
        },
        Rule::NoneWith {
            keys: &["body_contains"],
            other: "method",
            value: "HEAD",
        },
    ]],
};

/// Keys that only an HTTP check has.
pub(crate) const HTTP_CHECK_KEYS: &[&str] = &[
    "path",
    "method",
    "host",
    "headers",
    "expected_status",
    "body_contains",
];

pub(crate) static PASSIVE: Table = Table {
    id: "passive",
    heading: "passive of a pool",
    about: "What real requests meet takes a backend out for a while. A failure is a connect error, reset, timeout or a 502, 503 or 504 from the backend.",
    keys: &[&[
        key(
            "consecutive_failures",
            Integer { min: 1, max: 1000 },
            Is("5"),
            "Failures in a row that eject.",
        ),
        key(
            "window",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"10s\""),
            "Length of the sliding window for `failure_ratio`.",
        ),
        key(
            "failure_ratio",
            Percent { min: 1, max: 100 },
            Is("\"50%\""),
            "Share of failures in the window that ejects.",
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
            "ejection_time",
            Duration {
                min: 100,
                max: HOUR,
                or_zero: false,
            },
            Is("\"10s\""),
            "First time out; grows by the same with each further ejection, up to ten times.",
        ),
        key(
            "max_ejected",
            Percent { min: 0, max: 100 },
            Is("\"50%\""),
            "Greatest share of a pool that may be ejected at once. The last eligible backend never is.",
        ),
    ]],
    rules: &[],
};

pub(crate) static CONNECTIONS: Table = Table {
    id: "connections",
    heading: "connections of a pool",
    about: "Connections to backends, per thread and backend.",
    keys: &[&[
        key(
            "max_idle",
            Integer { min: 0, max: 65_535 },
            Is("1024"),
            "Idle ones kept for reuse; never more than were busy at once within `idle_timeout`.",
        ),
        key(
            "idle_timeout",
            timeout(DAY),
            Is("\"55s\""),
            "How long an idle one is kept; a shorter `Keep-Alive: timeout=` of the backend wins.",
        ),
    ]],
    rules: &[],
};

pub(crate) static POOL_TIMEOUTS: Table = Table {
    id: "pool_timeouts",
    heading: "timeouts of a pool",
    about: "How long a backend may take.",
    keys: &[&[
        key(
            "connect",
            timeout(HOUR),
            Is("\"1s\""),
            "Opening a connection. Then another backend, or 504.",
        ),
        key(
            "tls",
            timeout(HOUR),
            Is("\"3s\""),
            "The TLS handshake after that. Then another backend, or 504.",
        ),
        key(
            "first_byte",
            timeout(DAY),
            Is("\"30s\""),
            "From the end of the request to the response's header. Then 504.",
        ),
        key(
            "stream_idle",
            timeout(DAY),
            Is("\"60s\""),
            "Between two reads or writes of a body.",
        ),
        key(
            "tunnel_idle",
            timeout(7 * DAY),
            Is("\"1h\""),
            "A tunnel (WebSocket) in which nothing moves; then it is closed. Once one side has ended, `stream_idle` counts if it is shorter.",
        ),
        key(
            "total",
            Duration {
                min: SHORTEST,
                max: DAY,
                or_zero: true,
            },
            Is("0"),
            "The whole request; 0 means no limit.",
        ),
    ]],
    rules: &[],
};

pub(crate) static RETRIES: Table = Table {
    id: "retries",
    heading: "retries of a pool",
    about: "When a failed attempt is tried on another backend.",
    keys: &[&[
        key(
            "attempts",
            Integer { min: 0, max: 5 },
            Is("1"),
            "Further attempts per request; 0 switches retries off.",
        ),
        key(
            "on",
            List {
                of: &Either(&[Integer { min: 400, max: 599 }, Text(Form::RetryCause)]),
                min: 1,
            },
            Is("[\"connect\", \"reset\"]"),
            "What is tried elsewhere: `connect` (no connection), `reset` (closed before a byte of a response), `timeout` (no response header in time), and statuses such as `503` or `\"5xx\"`.",
        ),
        key(
            "per_try_timeout",
            Duration {
                min: SHORTEST,
                max: DAY,
                or_zero: true,
            },
            Is("0"),
            "From the beginning of an attempt to the response's header; the time that the client takes to send does not count. 0 leaves it to `timeouts`. Needs `timeout` in `on`.",
        ),
        key(
            "budget",
            Percent { min: 0, max: 100 },
            Is("\"20%\""),
            "Retries allowed, in percent of the requests of the last ten seconds (beside a small reserve).",
        ),
        key(
            "replay_bytes",
            Size {
                min: 0,
                max: 16 * MIB,
            },
            Is("\"64KiB\""),
            "Greatest request body kept for sending again.",
        ),
    ]],
    rules: &[],
};
