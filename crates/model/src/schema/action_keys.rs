//! The keys of what a route does besides choosing a pool: rewriting, header fields, redirects, answers of its own,
//! error pages, mirroring, compression, buffering.

use super::Default::{Is, Means, Required};
use super::Kind::{Bool, Duration, Integer, List, OneOf, OneOrList, Percent, Size, Text};
use super::keys::{HOUR, KIB, MIB, PIB, SHORTEST, key};
use super::{Form, Key, Kind, Rule, Table};

/// Keys of a route.
pub(super) static ROUTE_KEYS: &[Key] = &[
    key(
        "redirect",
        Kind::Table(&REDIRECT),
        Means("see `pool`"),
        "Instead of a pool: an address that clients are sent to.",
    ),
    key(
        "respond",
        Kind::Table(&RESPOND),
        Means("see `pool`"),
        "Instead of a pool: an answer.",
    ),
    key(
        "rewrite",
        Kind::Table(&REWRITE),
        Means("what the client asked for"),
        "What the backend is asked for instead.",
    ),
    key(
        "request_headers",
        Kind::Table(&HEADER_RULES),
        Means("as the client sent them"),
        "Fields of the request, as the backend gets it.",
    ),
    key(
        "response_headers",
        Kind::Table(&HEADER_RULES),
        Means("as the backend sent them"),
        "Fields of the response, whoever gives it.",
    ),
    key(
        "error_pages",
        Kind::Pages,
        Means("a line with the reason"),
        "Files in the place of failures that this route answers with, by status (`\"502\"`) or class (`\"5xx\"`); at most 1 MiB each, read when the config is.",
    ),
    key(
        "intercept_errors",
        Bool,
        Is("false"),
        "Whether `error_pages` stand in the place of what backends answer, too.",
    ),
    key(
        "max_body",
        Size { min: 0, max: PIB },
        Means("`limits.body_bytes` of the listener"),
        "Greatest request body, instead of the listener's limit. Beyond: 413.",
    ),
    key(
        "mirror",
        Kind::Table(&MIRROR),
        Means("none"),
        "Pool that gets copies of requests.",
    ),
    key(
        "compression",
        Kind::Table(&COMPRESSION),
        Means("off"),
        "How responses are compressed; `{}` for the defaults.",
    ),
    key(
        "buffer_requests",
        Kind::Table(&BUFFER_REQUESTS),
        Means("bodies stream"),
        "Takes a request's body whole before a backend is chosen, so that slow clients hold none; `{}` for the defaults.",
    ),
    key(
        "buffer_responses",
        Kind::Table(&BUFFER_RESPONSES),
        Means("bodies stream"),
        "Takes a response from the backend as fast as it comes, so that slow clients do not hold it; `{}` for the defaults.",
    ),
];

/// Rules of a route's [`ROUTE_KEYS`].
pub(super) static ROUTE_RULES: &[Rule] = &[
    Rule::Requires {
        key: "intercept_errors",
        other: "error_pages",
    },
    no_pool("rewrite", "redirect"),
    no_pool("mirror", "redirect"),
    no_pool("request_headers", "redirect"),
    no_pool("compression", "redirect"),
    no_pool("buffer_requests", "redirect"),
    no_pool("buffer_responses", "redirect"),
    no_pool("rewrite", "respond"),
    no_pool("mirror", "respond"),
    no_pool("request_headers", "respond"),
    no_pool("compression", "respond"),
    no_pool("buffer_requests", "respond"),
    no_pool("buffer_responses", "respond"),
];

const fn no_pool(key: &'static str, other: &'static str) -> Rule {
    Rule::NotTogether {
        key,
        other,
        instead: "this route answers by itself: there is no backend that it could be about",
    }
}

pub(crate) static REDIRECT: Table = Table {
    id: "redirect",
    heading: "redirect of a route",
    about: "Sends clients to another address.",
    keys: &[&[
        key(
            "to",
            Text(Form::Location),
            Required,
            "The address, with `{scheme}`, `{host}`, `{path}`, `{query}` (which has its `?`) and `{route}`; behind its host also with the groups of the `path_regex` in `match`, as `{1}`.",
        ),
        key(
            "status",
            Integer { min: 301, max: 308 },
            Is("308"),
            "301, 302, 303, 307 or 308; 307 and 308 keep the method.",
        ),
    ]],
    rules: &[],
};

pub(crate) static RESPOND: Table = Table {
    id: "respond",
    heading: "respond of a route",
    about: "An answer of its own.",
    keys: &[&[
        key("status", Integer { min: 200, max: 599 }, Is("200"), "Status."),
        key(
            "content_type",
            Text(Form::FieldValue),
            Means("`text/plain; charset=utf-8`, or what the end of `body_file` says"),
            "Type of the body.",
        ),
        key(
            "body",
            Text(Form::Body),
            Means("empty"),
            "The body, at most 64 KiB.",
        ),
        key(
            "body_file",
            Text(Form::File),
            Means("none"),
            "File with the body, at most 1 MiB; read when the config is.",
        ),
    ]],
    rules: &[&[Rule::NotTogether {
        key: "body",
        other: "body_file",
        instead: "keep one of them",
    }]],
};

pub(crate) static REWRITE: Table = Table {
    id: "rewrite",
    heading: "rewrite of a route",
    about: "What the backend is asked for instead of what the client asked for. Matching, logs and keys see what the client sent.",
    keys: &[&[
        key(
            "host",
            Text(Form::HostField),
            Means("as the client sent it"),
            "`Host` for the backend; the client's is in `X-Forwarded-Host`.",
        ),
        key(
            "path_prefix",
            Text(Form::RoutePath),
            Means("none"),
            "What stands in the place of the route's `match.path_prefix`; without one, before the path.",
        ),
        key(
            "path_regex",
            Text(Form::Pattern),
            Means("none"),
            "Regular expression; a path that it matches as a whole becomes `path_to`.",
        ),
        key(
            "path_to",
            Text(Form::PathTemplate),
            Means("none"),
            "The new path, with the groups of `path_regex` as `{1}` to `{99}`; what follows a `?` goes before the client's query.",
        ),
    ]],
    rules: &[&[
        Rule::NotTogether {
            key: "path_prefix",
            other: "path_regex",
            instead: "keep one of them",
        },
        Rule::Requires {
            key: "path_regex",
            other: "path_to",
        },
        Rule::Requires {
            key: "path_to",
            other: "path_regex",
        },
    ]],
};

pub(crate) static HEADER_RULES: Table = Table {
    id: "header_rules",
    heading: "request_headers and response_headers of a route",
    about: "Header fields that are set, added and removed, in this order: `remove`, `set`, `add`. Values may hold `{client_address}`, `{host}`, `{method}`, `{path}`, `{query}`, `{request_id}`, `{route}` and `{scheme}`; a brace is written twice to stand for itself.",
    keys: &[&[
        key(
            "set",
            Kind::Fields,
            Means("none"),
            "Fields in the place of all of their name.",
        ),
        key(
            "add",
            Kind::Fields,
            Means("none"),
            "Fields beside those that are there.",
        ),
        key(
            "remove",
            List {
                of: &Text(Form::FieldName),
                min: 1,
            },
            Means("none"),
            "Names of fields that are taken away.",
        ),
    ]],
    rules: &[],
};

pub(crate) static MIRROR: Table = Table {
    id: "mirror",
    heading: "mirror of a route",
    about: "Sends copies of requests to another pool and throws its answers away. No request waits for its copy.",
    keys: &[&[
        key("pool", Text(Form::Name), Required, "The pool."),
        key(
            "share",
            Percent { min: 0, max: 100 },
            Is("\"100%\""),
            "Share of the requests that is copied, chosen at random.",
        ),
        key(
            "max_body",
            Size {
                min: 0,
                max: 16 * MIB,
            },
            Is("\"64KiB\""),
            "Greatest body that is copied; requests with a greater one are not.",
        ),
        key(
            "max_in_flight",
            Integer { min: 1, max: 100_000 },
            Is("100"),
            "Copies on their way; beyond it none is made.",
        ),
        key(
            "timeout",
            Duration {
                min: SHORTEST,
                max: HOUR,
                or_zero: false,
            },
            Is("\"10s\""),
            "The longest that a copy may take, connecting included.",
        ),
    ]],
    rules: &[],
};

pub(crate) static COMPRESSION: Table = Table {
    id: "compression",
    heading: "compression of a route",
    about: "Compresses responses for clients that accept it. Never compressed: answers to HEAD, parts (206), what is encoded already, `Cache-Control: no-transform`.",
    keys: &[&[
        key(
            "encodings",
            OneOrList(&OneOf(&["zstd", "br", "gzip"])),
            Is("[\"zstd\", \"br\", \"gzip\"]"),
            "Codings offered, most wanted first: of those that a client likes equally, the first is taken.",
        ),
        key(
            "types",
            List {
                of: &Text(Form::MediaType),
                min: 1,
            },
            Means(
                "`text/html`, `text/css`, `text/plain`, `text/xml`, `text/csv`, `text/javascript`, `application/javascript`, `application/json`, `application/manifest+json`, `application/xml`, `application/wasm`, `image/svg+xml`",
            ),
            "Content types compressed; `text/*` stands for all that begin with `text/`.",
        ),
        key(
            "minimum_size",
            Size {
                min: 0,
                max: 1024 * MIB,
            },
            Is("\"1KiB\""),
            "Responses known to be smaller are left alone.",
        ),
        key(
            "with_credentials",
            Bool,
            Is("false"),
            "Whether to compress responses with `Set-Cookie`, and to requests with `Cookie` or `Authorization`, too. What mixes secrets with what an attacker can choose tells the secrets by its length (BREACH).",
        ),
    ]],
    rules: &[],
};

pub(crate) static BUFFER_REQUESTS: Table = Table {
    id: "buffer_requests",
    heading: "buffer_requests of a route",
    about: "Takes the body of a request whole, in memory and then on disk, before a backend is chosen.",
    keys: &[&[
        key(
            "memory",
            Size {
                min: 4 * KIB,
                max: 64 * MIB,
            },
            Is("\"64KiB\""),
            "Bytes of a body kept in memory.",
        ),
        key(
            "memory_total",
            Size { min: 0, max: PIB },
            Is("\"256MiB\""),
            "Bytes in memory over all requests of the route. What is beyond goes to disk at once, whatever `memory` allows; with `disk = 0`: 503.",
        ),
        key(
            "disk",
            Size { min: 0, max: PIB },
            Is("0"),
            "Further bytes of a body kept in a file without a name in the directory of temporary files. A body beyond both: 413.",
        ),
        key(
            "disk_total",
            Size { min: 0, max: PIB },
            Is("\"1GiB\""),
            "Bytes on disk over all requests of the route. Beyond: 503.",
        ),
    ]],
    rules: &[],
};

pub(crate) static BUFFER_RESPONSES: Table = Table {
    id: "buffer_responses",
    heading: "buffer_responses of a route",
    about: "Takes a response from the backend as fast as it comes and lets the backend go before the client has read it. Streams of events are never held.",
    keys: &[&[key(
        "memory",
        Size {
            min: 4 * KIB,
            max: 64 * MIB,
        },
        Is("\"64KiB\""),
        "Bytes of a response kept in memory; a greater one streams.",
    )]],
    rules: &[],
};
