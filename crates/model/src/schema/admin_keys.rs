//! The keys of the admin API.

use super::Default::{Is, Means, Required};
use super::Kind::{Bool, Integer, List, OneOf, Text};
use super::keys::key;
use super::{Form, Kind, Rule, Table};

pub(crate) static ADMIN: Table = Table {
    id: "admin",
    heading: "[admin]",
    about: "The admin API: status, metrics, orders. Off loopback it needs `tls`, and a token or client certificates. `tokens`, `certificates`, `open_metrics` and `metrics_backends` change with a reload, the others need a restart.",
    keys: &[&[
        key(
            "listen",
            Text(Form::ListenAddress),
            Is("\"127.0.0.1:7700\""),
            "Where it listens.",
        ),
        key(
            "tls",
            Kind::Table(&ADMIN_TLS),
            Means("none; only loopback may then be listened on"),
            "TLS of the admin API.",
        ),
        key(
            "tokens",
            List {
                of: &Kind::Table(&ADMIN_TOKEN),
                min: 1,
            },
            Means("none"),
            "Tokens with names and roles, as `evenkeel token create` makes them.",
        ),
        key(
            "certificates",
            List {
                of: &Kind::Table(&ADMIN_CERTIFICATE),
                min: 1,
            },
            Means("none"),
            "Client certificates that open it; `tls.client_ca` says who issues them.",
        ),
        key(
            "token",
            Text(Form::Token),
            Means("none"),
            "One bearer token of the role `admin`. Better kept in a file of its own: `token_file`; better still as one of `tokens`.",
        ),
        key(
            "token_file",
            Text(Form::File),
            Means("none"),
            "File whose first line is that token; read at start.",
        ),
        key(
            "open_metrics",
            Bool,
            Is("false"),
            "Whether `/metrics` is open to everyone who can reach the address. Otherwise it wants a login like everything else.",
        ),
        key(
            "metrics_backends",
            Integer {
                min: 0,
                max: 1_000_000,
            },
            Is("2000"),
            "Backends that have series of their own in `/metrics`, about 9 kB each. Pools that find no room have one series for all of their backends, labelled `backend=\"all\"`.",
        ),
        key(
            "audit_log",
            Kind::Either(&[Bool, Text(Form::File)]),
            Is("true"),
            "Where is written who changed what, and who was not let in: `audit.log` in the data directory, or this file (opened again on SIGUSR1). `false`: nowhere.",
        ),
    ]],
    rules: &[&[Rule::NotTogether {
        key: "token",
        other: "token_file",
        instead: "keep one of them; `token_file` keeps the secret out of this file",
    }]],
};

pub(crate) static ADMIN_TLS: Table = Table {
    id: "admin_tls",
    heading: "tls of [admin]",
    about: "TLS of the admin API, version 1.2 or later. Files that change are read again within seconds; what cannot be used is left, and the one before stays.",
    keys: &[&[
        key(
            "certificate",
            Text(Form::File),
            Required,
            "File with the certificate, then those that lead to its root; PEM.",
        ),
        key(
            "key",
            Text(Form::File),
            Required,
            "File with its private key, not encrypted; PEM.",
        ),
        key(
            "client_ca",
            Text(Form::File),
            Means("no client certificates are asked for"),
            "File with the authorities of client certificates; PEM. Whoever shows none may still use a token.",
        ),
    ]],
    rules: &[],
};

const ROLES: &[&str] = &["viewer", "operator", "admin"];

pub(crate) static ADMIN_TOKEN: Table = Table {
    id: "admin_token",
    heading: "[[admin.tokens]]",
    about: "A token of the admin API, kept as its hash.",
    keys: &[&[
        key(
            "name",
            Text(Form::Name),
            Required,
            "Who or what has it; orders and the audit log are signed with it.",
        ),
        key("role", OneOf(ROLES), Required, "What it opens."),
        key(
            "hash",
            Text(Form::TokenHash),
            Required,
            "SHA-256 of the token. Only generated tokens are taken, whatever is hashed here.",
        ),
    ]],
    rules: &[],
};

pub(crate) static ADMIN_CERTIFICATE: Table = Table {
    id: "admin_certificate",
    heading: "[[admin.certificates]]",
    about: "A client certificate that opens the admin API.",
    keys: &[&[
        key(
            "name",
            Text(Form::Words),
            Required,
            "Its common name, or one of its alternative names: DNS (in lower case) or URI. The first entry that fits counts.",
        ),
        key("role", OneOf(ROLES), Required, "What it opens."),
    ]],
    rules: &[],
};
