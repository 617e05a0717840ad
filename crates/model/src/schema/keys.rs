//! The keys of the document, of the process, of load balancers and their listeners and routes: name, type, range,
//! default, meaning.

use super::Default::{Is, Means, Required};
use super::Kind::{Duration, Integer, List, Named, OneOf, OneOrList, Size, TableOrFalse, Text};
use super::admin_keys::ADMIN;
use super::alert_keys::ALERTS;
use super::http2_keys::HTTP2;
use super::membership_keys::MEMBERSHIP_KEYS;
use super::observe_keys::{ACCESS_LOG, RECORDER, REQUEST_ID, TRACING};
use super::overload_keys::OVERLOAD_KEYS;
use super::pool_keys::{POOL, POOL_KEYS, POOL_RULES};
use super::route_keys::ROUTE;
use super::store_keys::{NOTIFY, STORE};
use super::tls_keys::LISTENER_TLS;
use super::{Form, Key, Kind, Rule, Table};

pub(super) const fn key(name: &'static str, kind: Kind, default: super::Default, about: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        about,
    }
}

/// Durations are declared in milliseconds.
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 3_600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;
/// Shortest timeout: below it a busy machine's scheduling decides, not the peer.
pub(super) const SHORTEST: u64 = 10;
pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
/// Greatest size of a body limit: a pebibyte.
pub(super) const PIB: u64 = 1024 * 1024 * 1024 * MIB;

pub(super) const fn timeout(max: u64) -> Kind {
    Duration {
        min: SHORTEST,
        max,
        or_zero: false,
    }
}

pub(crate) static ROOT: Table = Table {
    id: "config",
    heading: "The document",
    about: "A file may have settings of the process, and load balancers.",
    keys: &[&[
        key(
            "node",
            Kind::Table(&NODE),
            Means("all defaults"),
            "Settings of this process.",
        ),
        key(
            "admin",
            Kind::Table(&ADMIN),
            Means("all defaults"),
            "The admin API.",
        ),
        key(
            "access_log",
            Kind::Table(&ACCESS_LOG),
            Means("no access log"),
            "One line for each request.",
        ),
        key(
            "request_id",
            Kind::Table(&REQUEST_ID),
            Means("all defaults"),
            "The name of a request.",
        ),
        key(
            "tracing",
            Kind::Table(&TRACING),
            Means("no traces"),
            "Traces for an OpenTelemetry collector.",
        ),
        key(
            "recorder",
            Kind::Table(&RECORDER),
            Means("all defaults"),
            "The requests that `evenkeel why` can tell about.",
        ),
        key(
            "store",
            Kind::Table(&STORE),
            Means("the embedded store"),
            "Where what is not in this file is kept.",
        ),
        key(
            "alerts",
            Kind::Table(&ALERTS),
            Means("all defaults, and nobody is told"),
            "What is worth an alert, and who is told.",
        ),
        key(
            "notify",
            Kind::Table(&NOTIFY),
            Means("no hints; the store's own watch tells"),
            "Hints that the store has something new.",
        ),
        key(
            "load_balancers",
            Named(&LOAD_BALANCER),
            Required,
            "Load balancers by name, at least one; a file that has `[store]` may leave them out. Those that `apply` put into the store come on top.",
        ),
    ]],
    rules: &[&[Rule::OneOf("load_balancers", "store")]],
};

pub(crate) static NODE: Table = Table {
    id: "node",
    heading: "[node]",
    about: "Settings of this process. `name`, `shutdown_timeout`, `max_connections`, `secret` and `geoip` change with a reload, the others need a restart.",
    keys: &[&[
        key(
            "name",
            Text(Form::Words),
            Is("\"evenkeel\""),
            "Shown in `status`, metrics and logs.",
        ),
        key(
            "roles",
            List {
                of: &OneOf(&["lb", "orchestrator", "console"]),
                min: 1,
            },
            Is("[\"lb\", \"orchestrator\", \"console\"]"),
            "What this process does: `lb` forwards, `orchestrator` takes its share of the checks, `console` takes changes of what the store has.",
        ),
        key(
            "zone",
            Text(Form::Words),
            Means("none"),
            "Where it stands, such as `eu-1a`; the other nodes of a cluster show it.",
        ),
        key(
            "bind",
            Text(Form::Ip),
            Means("as the listeners say"),
            "IP address that listeners on every address (`0.0.0.0`, `[::]`) listen on instead: for a machine with several, or several nodes on one machine.",
        ),
        key(
            "threads",
            Integer { min: 1, max: 1024 },
            Means("one per core"),
            "Threads that forward, each with its own listening sockets and connections.",
        ),
        key(
            "data_dir",
            Text(Form::File),
            Means("chosen by the command line"),
            "Where operators' orders are kept over a restart.",
        ),
        key(
            "user",
            Text(Form::Account),
            Means("the user that started it"),
            "User to become after binding, when started as root.",
        ),
        key(
            "group",
            Text(Form::Account),
            Means("the user's own"),
            "Group to become after binding; needs `user`.",
        ),
        key(
            "shutdown_timeout",
            Duration {
                min: 0,
                max: HOUR,
                or_zero: true,
            },
            Is("\"30s\""),
            "How long SIGTERM waits for running requests.",
        ),
        key(
            "plan_b_after",
            Duration {
                min: 1000,
                max: HOUR,
                or_zero: false,
            },
            Is("\"15s\""),
            "With a store that nodes share: how long the last verdicts of the orchestrators stand when none of them is heard; then this node checks for itself.",
        ),
        key(
            "max_connections",
            Integer {
                min: 1,
                max: 10_000_000,
            },
            Is("100000"),
            "Client connections over all listeners; beyond it new ones are closed at once and counted.",
        ),
        key(
            "secret",
            OneOrList(&Text(Form::Secret)),
            Means("a random one kept in the data directory"),
            "What sticky cookies are signed with; give all nodes behind one address the same. Of a list the first signs and the others are accepted still.",
        ),
        key(
            "geoip",
            Text(Form::File),
            Means("none"),
            "MaxMind database (`.mmdb`) with countries, for `country` and `continent` of routes; read again when the file changes.",
        ),
    ]],
    rules: &[&[Rule::Requires {
        key: "group",
        other: "user",
    }]],
};

pub(crate) static LOAD_BALANCER: Table = Table {
    id: "load_balancer",
    heading: "[load_balancers.NAME]",
    about: "One load balancer. In the short form, `listen` is its listener and the keys of a pool describe its one pool, named `default`; in the full form, listeners, routes and pools are tables.",
    keys: &[
        &[
            key(
                "listen",
                OneOrList(&Text(Form::ListenAddress)),
                Is("\"0.0.0.0:8080\""),
                "Address and port to listen on, or a list of them. Port 0 takes a free one, which `status` shows.",
            ),
            key(
                "listeners",
                List {
                    of: &Kind::Table(&LISTENER),
                    min: 1,
                },
                Means("what `listen` says"),
                "Listeners in full.",
            ),
            key(
                "routes",
                List {
                    of: &Kind::Table(&ROUTE),
                    min: 1,
                },
                Means("everything goes to the one pool"),
                "Which requests go where. The most specific one that matches wins: exact host, longer wildcard, any host; then exact path, longer prefix, pattern, any path; then more conditions; then the order written. `priority` goes before all that.",
            ),
            key(
                "pools",
                Named(&POOL),
                Means("the pool `default`, described by the pool's keys right here"),
                "Pools by name.",
            ),
            key(
                "access_log",
                Kind::Bool,
                Is("true"),
                "Whether its requests are in the access log, when there is an `[access_log]`.",
            ),
            key(
                "default_language",
                Text(Form::Language),
                Means("none takes part for them"),
                "The language of what routes without `language` serve. It takes part in the negotiation, so that who prefers it is not sent to a route of a language liked less.",
            ),
        ],
        POOL_KEYS,
        MEMBERSHIP_KEYS,
        OVERLOAD_KEYS,
    ],
    rules: &[
        &[
            Rule::NotTogether {
                key: "listen",
                other: "listeners",
                instead: "move it into `listeners` as the `address` of one",
            },
            Rule::AnyOf(&[
                "backend_servers",
                "pools",
                "routes",
                "listeners",
                "discovery",
                "registration",
            ]),
            in_pool("algorithm"),
            in_pool("hash"),
            in_pool("backend_servers"),
            in_pool("discovery"),
            in_pool("registration"),
            in_pool("heartbeat"),
            in_pool("health"),
            in_pool("health_endpoint"),
            in_pool("poll_frequency"),
            in_pool("passive"),
            in_pool("max_requests"),
            in_pool("max_connections"),
            in_pool("queue"),
            in_pool("circuit_breaker"),
            in_pool("slow_start"),
            in_pool("all_down"),
            in_pool("connections"),
            in_pool("timeouts"),
            in_pool("retries"),
            in_pool("sticky"),
            in_pool("tls"),
        ],
        POOL_RULES,
    ],
};

const fn in_pool(key: &'static str) -> Rule {
    Rule::NotTogether {
        key,
        other: "pools",
        instead: "here it describes the pool `default` of the short form: move it into a table under `pools`",
    }
}

pub(crate) static LISTENER: Table = Table {
    id: "listener",
    heading: "[[load_balancers.NAME.listeners]]",
    about: "An address that clients connect to, with what it allows them.",
    keys: &[&[
        key(
            "name",
            Text(Form::Name),
            Means("its protocol for the first, `http-2` or `https-2` for the second and so on"),
            "Shown in `status` and metrics; unique within the load balancer.",
        ),
        key(
            "address",
            Text(Form::ListenAddress),
            Required,
            "Address and port; unique within the config. Port 0 takes a free one.",
        ),
        key(
            "protocol",
            OneOf(&["http", "https"]),
            Is("\"http\""),
            "What clients speak: HTTP/1.0, HTTP/1.1 and, with `http2`, HTTP/2, in the clear or over TLS.",
        ),
        key(
            "tls",
            Kind::Table(&LISTENER_TLS),
            Means("none; needed with `protocol = \"https\"`"),
            "TLS towards clients.",
        ),
        key(
            "trusted_proxies",
            List {
                of: &Text(Form::Network),
                min: 0,
            },
            Is("[]"),
            "Sources whose `X-Forwarded-*` and `Forwarded` fields are believed and kept.",
        ),
        key(
            "upgrades",
            List {
                of: &Text(Form::Protocol),
                min: 0,
            },
            Is("[\"websocket\"]"),
            "Protocols that clients may switch to, by `Upgrade` and over HTTP/2 by extended CONNECT, which is offered unless the list is empty; a request for another one is refused (501).",
        ),
        key(
            "redirect_to_https",
            Kind::Either(&[Kind::Bool, Integer { min: 1, max: 65_535 }]),
            Is("false"),
            "Sends every request to the same address over HTTPS (308): `true`, or the port where that is not 443.",
        ),
        key(
            "max_connections",
            Integer {
                min: 1,
                max: 10_000_000,
            },
            Is("100000"),
            "Client connections on this listener; beyond it new ones are closed at once and counted.",
        ),
        key(
            "limits",
            Kind::Table(&LIMITS),
            Means("all defaults"),
            "Bounds on what a client may send.",
        ),
        key(
            "timeouts",
            Kind::Table(&LISTENER_TIMEOUTS),
            Means("all defaults"),
            "Bounds on how long a client may take.",
        ),
        key(
            "http2",
            TableOrFalse(&HTTP2),
            Means("all defaults"),
            "HTTP/2 beside HTTP/1; `false` switches it off.",
        ),
    ]],
    rules: &[&[Rule::OnlyWith {
        key: "tls",
        other: "protocol",
        value: "https",
    }]],
};

pub(crate) static LIMITS: Table = Table {
    id: "limits",
    heading: "limits of a listener",
    about: "Bounds on a request.",
    keys: &[&[
        key(
            "header_bytes",
            Size { min: KIB, max: MIB },
            Is("\"32KiB\""),
            "Request line and header fields together. Beyond: 431.",
        ),
        key(
            "header_fields",
            Integer { min: 1, max: 1000 },
            Is("100"),
            "Number of header fields. Beyond: 431.",
        ),
        key(
            "target_bytes",
            Size { min: 64, max: MIB },
            Means("`\"8KiB\"`, or `header_bytes` when that is less"),
            "The request target; at most `header_bytes`. Beyond: 414.",
        ),
        key(
            "body_bytes",
            Size { min: 0, max: PIB },
            Means("no limit"),
            "A request body. Beyond: 413.",
        ),
    ]],
    rules: &[],
};

pub(crate) static LISTENER_TIMEOUTS: Table = Table {
    id: "listener_timeouts",
    heading: "timeouts of a listener",
    about: "How long a client may take.",
    keys: &[&[
        key(
            "request_headers",
            timeout(HOUR),
            Is("\"10s\""),
            "From the first byte of a request to the end of its header. Then 408.",
        ),
        key(
            "request_body_idle",
            timeout(DAY),
            Is("\"30s\""),
            "Between two reads of a request body. Then 408.",
        ),
        key(
            "request_body_min_rate",
            Size {
                min: 0,
                max: 1024 * MIB,
            },
            Is("\"500B\""),
            "Least average rate of a request body per second, measured after 5 s; 0 switches it off. Below: 408.",
        ),
        key(
            "keep_alive",
            timeout(DAY),
            Is("\"75s\""),
            "An idle connection between two requests.",
        ),
        key(
            "response_write_idle",
            timeout(DAY),
            Is("\"60s\""),
            "A client that does not read its response; then the connection is closed.",
        ),
        key(
            "tls_handshake",
            timeout(HOUR),
            Is("\"3s\""),
            "From accepting a connection to the end of its TLS handshake; then it is closed.",
        ),
    ]],
    rules: &[],
};
