//! The keys of routes: what they match, in which order, and where they lead.

use super::Default::{Is, Means, Required};
use super::Kind::{Conditions, Integer, List, OneOrList, Text};
use super::action_keys::{ROUTE_KEYS, ROUTE_RULES};
use super::keys::key;
use super::limit_keys::{RATE_LIMIT, ROUTE_TIMEOUTS};
use super::{Form, Kind, Rule, Table};
use crate::config::{MAX_PRIORITY, MAX_SPLIT_WEIGHT};

pub(crate) static ROUTE: Table = Table {
    id: "route",
    heading: "[[load_balancers.NAME.routes]]",
    about: "Which requests go where.",
    keys: &[
        &[
            key(
                "name",
                Text(Form::Name),
                Means("`default` when it matches everything, else `route-N`, N being its place in the list"),
                "Shown by `explain`; unique within the load balancer.",
            ),
            key(
                "priority",
                Integer {
                    min: 0,
                    max: MAX_PRIORITY as u64,
                },
                Is("0"),
                "Routes of a greater priority are tried first, whatever they match.",
            ),
            key(
                "match",
                Kind::Table(&MATCH),
                Means("everything"),
                "What it matches; all that is given must hold.",
            ),
            key(
                "pool",
                Text(Form::Name),
                Means("see `split`"),
                "The pool that serves it.",
            ),
            key(
                "split",
                List {
                    of: &Kind::Table(&SPLIT),
                    min: 1,
                },
                Means("see `pool`"),
                "Pools that share its requests by weight.",
            ),
            key(
                "split_key",
                Text(Form::HashKey),
                Means("each request is shared out by itself"),
                "What keeps a user with one pool of `split`: requests with the same value go to the same pool, and a change of weights moves as few as can be.",
            ),
            key(
                "rate_limit",
                OneOrList(&Kind::Table(&RATE_LIMIT)),
                Means("no limit"),
                "How many requests it takes; of several limits all must allow one. Beyond: 429.",
            ),
            key(
                "timeouts",
                Kind::Table(&ROUTE_TIMEOUTS),
                Means("the pool's"),
                "Timeouts that it has otherwise than its pool.",
            ),
        ],
        ROUTE_KEYS,
    ],
    rules: &[
        &[
            Rule::ExactlyOne(&["pool", "split", "redirect", "respond"]),
            Rule::Requires {
                key: "split_key",
                other: "split",
            },
        ],
        ROUTE_RULES,
    ],
};

pub(crate) static SPLIT: Table = Table {
    id: "split",
    heading: "split of a route",
    about: "One pool of a split.",
    keys: &[&[
        key("pool", Text(Form::Name), Required, "The pool."),
        key(
            "weight",
            Integer {
                min: 0,
                max: MAX_SPLIT_WEIGHT as u64,
            },
            Is("1"),
            "Its share relative to the others; 0 takes no requests.",
        ),
    ]],
    rules: &[],
};

pub(crate) static MATCH: Table = Table {
    id: "match",
    heading: "match of a route",
    about: "What a route matches; all that is given must hold, and of a list one entry.",
    keys: &[&[
        key(
            "host",
            Text(Form::RouteHost),
            Means("any"),
            "Host name without port, letters of either case; `*.example.com` takes every name below `example.com`, not `example.com` itself.",
        ),
        key(
            "path",
            Text(Form::RoutePath),
            Means("any"),
            "The whole path, after normalisation.",
        ),
        key(
            "path_prefix",
            Text(Form::RoutePath),
            Means("any"),
            "Start of the path, up to a segment border: `/api` matches `/api` and `/api/x`, not `/apis`.",
        ),
        key(
            "path_regex",
            Text(Form::Pattern),
            Means("any"),
            "Regular expression that the whole path must match.",
        ),
        key(
            "method",
            OneOrList(&Text(Form::Method)),
            Means("any"),
            "Method, or a list of them.",
        ),
        key(
            "headers",
            conditions(Form::FieldName, Form::FieldValue),
            Means("any"),
            "Header fields by name: a value, `true` for one that is there, `false` for one that is not, or `{ regex = \"…\" }` for the whole value. Names of either case; of several fields of one name, one must match.",
        ),
        key(
            "cookies",
            conditions(Form::FieldName, Form::CookieValue),
            Means("any"),
            "Cookies by name, in the same forms.",
        ),
        key(
            "query",
            conditions(Form::QueryName, Form::QueryValue),
            Means("any"),
            "Parameters of the query by name, in the same forms, compared after percent-decoding; `+` is a space.",
        ),
        key(
            "client_address",
            OneOrList(&Text(Form::Network)),
            Means("any"),
            "Network, or a list of them, that the client's address lies in; behind `trusted_proxies`, the address that they report.",
        ),
        key(
            "language",
            OneOrList(&Text(Form::Language)),
            Means("any"),
            "Language tag, or a list of them: of all languages that the routes of the load balancer name, the one that `Accept-Language` prefers.",
        ),
        key(
            "country",
            OneOrList(&Text(Form::Country)),
            Means("any"),
            "Country of the client's address (ISO 3166-1, such as `DE`), or a list of them; needs `node.geoip`.",
        ),
        key(
            "continent",
            OneOrList(&Text(Form::Continent)),
            Means("any"),
            "Continent of the client's address (`AF`, `AN`, `AS`, `EU`, `NA`, `OC`, `SA`), or a list of them; needs `node.geoip`.",
        ),
        key(
            "any",
            List { of: &NESTED, min: 1 },
            Means("nothing"),
            "One of these must hold.",
        ),
        key(
            "all",
            List { of: &NESTED, min: 1 },
            Means("nothing"),
            "Each of these must hold.",
        ),
        key(
            "not",
            Kind::Table(&MATCH),
            Means("nothing"),
            "This must not hold.",
        ),
    ]],
    rules: &[&[
        one_path("path", "path_prefix"),
        one_path("path", "path_regex"),
        one_path("path_prefix", "path_regex"),
    ]],
};

/// What stands within `any` and `all`.
static NESTED: Kind = Kind::Table(&MATCH);

const fn conditions(names: Form, values: Form) -> Kind {
    Conditions { names, values }
}

const fn one_path(key: &'static str, other: &'static str) -> Rule {
    Rule::NotTogether {
        key,
        other,
        instead: "keep one of them, or put both under `all`",
    }
}

pub(crate) static PATTERN: Table = Table {
    id: "pattern",
    heading: "a value that follows a pattern",
    about: "In the place of a value in `headers`, `cookies` and `query`.",
    keys: &[&[key(
        "regex",
        Text(Form::Pattern),
        Required,
        "Regular expression that the whole value must match.",
    )]],
    rules: &[],
};
