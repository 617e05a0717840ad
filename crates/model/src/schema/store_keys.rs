//! The keys of the store.

use super::Default::{Is, Means, Required};
use super::Kind::{List, OneOf, Text};
use super::keys::key;
use super::{Form, Rule, Table};

pub(crate) static NOTIFY: Table = Table {
    id: "notify",
    heading: "[notify]",
    about: "Hints over Redis that the store has something new, beside etcd's own watch. With Redis away everything works. Changes need a restart.",
    keys: &[&[
        key(
            "url",
            Text(Form::RedisUrl),
            Required,
            "Where Redis is: `redis://HOST:PORT`, or `rediss://HOST:PORT` with TLS.",
        ),
        key(
            "user",
            Text(Form::Words),
            Means("Redis's default user"),
            "As whom to speak to Redis.",
        ),
        key(
            "password_file",
            Text(Form::File),
            Means("none"),
            "File whose first line is the password; read at start.",
        ),
        key(
            "ca",
            Text(Form::File),
            Means("the system's authorities"),
            "File with the authorities (PEM) that the certificate of a `rediss://` URL comes from.",
        ),
    ]],
    rules: &[&[Rule::Requires {
        key: "user",
        other: "password_file",
    }]],
};

pub(crate) static STORE: Table = Table {
    id: "store",
    heading: "[store]",
    about: "Where load balancers that `apply` declares are kept, and operators' orders. Changes need a restart.",
    keys: &[&[
        key(
            "kind",
            OneOf(&["embedded", "etcd"]),
            Is("\"embedded\""),
            "`embedded`: a database in the data directory, for one process. `etcd`: shared by the nodes of a cluster; give each node a `node.name` of its own.",
        ),
        key(
            "endpoints",
            List {
                of: &Text(Form::EndpointUrl),
                min: 1,
            },
            Means("none; etcd needs them"),
            "URLs of etcd's members.",
        ),
        key(
            "prefix",
            Text(Form::StorePrefix),
            Is("\"/evenkeel/\""),
            "What all keys in etcd begin with; another one is another cluster.",
        ),
        key(
            "user",
            Text(Form::Words),
            Means("none"),
            "As whom to speak to etcd.",
        ),
        key(
            "password_file",
            Text(Form::File),
            Means("none"),
            "File whose first line is the user's password; read at start.",
        ),
        key(
            "ca",
            Text(Form::File),
            Means("the system's authorities"),
            "File with the authorities (PEM) that the certificates of `https://` endpoints come from.",
        ),
        key(
            "cert",
            Text(Form::File),
            Means("none"),
            "File with our own certificate (PEM), where etcd asks for one.",
        ),
        key(
            "key",
            Text(Form::File),
            Means("none"),
            "File with the key (PEM) of `cert`.",
        ),
    ]],
    rules: &[&[
        Rule::NeededWith {
            key: "endpoints",
            other: "kind",
            value: "etcd",
        },
        Rule::OnlyWith {
            key: "endpoints",
            other: "kind",
            value: "etcd",
        },
        Rule::OnlyWith {
            key: "prefix",
            other: "kind",
            value: "etcd",
        },
        Rule::OnlyWith {
            key: "user",
            other: "kind",
            value: "etcd",
        },
        Rule::OnlyWith {
            key: "ca",
            other: "kind",
            value: "etcd",
        },
        Rule::OnlyWith {
            key: "cert",
            other: "kind",
            value: "etcd",
        },
        Rule::Requires {
            key: "user",
            other: "password_file",
        },
        Rule::Requires {
            key: "password_file",
            other: "user",
        },
        Rule::Requires {
            key: "cert",
            other: "key",
        },
        Rule::Requires {
            key: "key",
            other: "cert",
        },
    ]],
};
