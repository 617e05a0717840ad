//! The keys of members that are not declared, and of those that say that they live.

use super::Default::{Is, Means, Required};
use super::Kind::{Duration, Integer, OneOf, OneOrList, Text};
use super::keys::{HOUR, SECOND, key};
use super::{Form, Key, Kind, Rule, Table};

pub(super) static MEMBERSHIP_KEYS: &[Key] = &[
    key(
        "discovery",
        Kind::Table(&DISCOVERY),
        Means("none"),
        "Where further members are looked up, beside `backend_servers` or instead of them.",
    ),
    key(
        "registration",
        Kind::Table(&REGISTRATION),
        Means("nobody can"),
        "How further members register themselves, beside `backend_servers` or instead of them.",
    ),
    key(
        "heartbeat",
        Kind::Table(&HEARTBEAT),
        Means("none is expected"),
        "How members that did not register say that they live, beside the active check or instead of it.",
    ),
];

pub(crate) static DISCOVERY: Table = Table {
    id: "discovery",
    heading: "discovery of a pool",
    about: "Members that are looked up; a new one takes requests after its first successful check. See [discovery](discovery.md).",
    keys: &[&[
        key(
            "file",
            Text(Form::File),
            Means("none"),
            "A file with one member a line, or a JSON list; looked at each second.",
        ),
        key(
            "dns",
            Kind::Table(&DNS),
            Means("none"),
            "A name of the DNS; looked up again whenever its answer ends.",
        ),
    ]],
    rules: &[&[Rule::ExactlyOne(&["file", "dns"])]],
};

pub(crate) static DNS: Table = Table {
    id: "dns",
    heading: "discovery.dns of a pool",
    about: "Members are what the records of a name say. An address leaves with the second answer in a row that does not have it; while nobody answers all stay. See [discovery](discovery.md#a-name).",
    keys: &[&[
        key(
            "name",
            Text(Form::RecordName),
            Required,
            "The whole name: what `search` in `/etc/resolv.conf` says is not added.",
        ),
        key(
            "type",
            OneOf(&["ip", "a", "aaaa", "srv"]),
            Is("\"ip\""),
            "Its records: `ip` is A and AAAA together. SRV records have ports and weights of their own; those of the first priority are members.",
        ),
        key(
            "port",
            Integer { min: 1, max: 65_535 },
            Means("none; needed unless the records have ports"),
            "Where the members listen; not with SRV.",
        ),
        key(
            "resolvers",
            OneOrList(&Text(Form::BackendAddress)),
            Means("the name servers of `/etc/resolv.conf`"),
            "Whom to ask, at most 8; who answered last is asked first.",
        ),
        key(
            "min_ttl",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"5s\""),
            "Least time between two looks, whatever TTL an answer has.",
        ),
        key(
            "max_ttl",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"5m\""),
            "Longest time between two looks, whatever TTL an answer has.",
        ),
        key(
            "timeout",
            Duration {
                min: 100,
                max: 30 * SECOND,
                or_zero: false,
            },
            Is("\"2s\""),
            "How long one resolver may take to answer.",
        ),
        key(
            "attempts",
            Integer { min: 1, max: 10 },
            Is("3"),
            "How often a question is asked, by turns of all resolvers, before the look has failed.",
        ),
    ]],
    rules: &[&[Rule::NoneWith {
        keys: &["port"],
        other: "type",
        value: "srv",
    }]],
};

pub(crate) static REGISTRATION: Table = Table {
    id: "registration",
    heading: "registration of a pool",
    about: "Members that register themselves over the admin API. See [members](members.md).",
    keys: &[&[
        key(
            "token_hash",
            Text(Form::TokenHash),
            Required,
            "SHA-256 of the token that `evenkeel token create` made: who has that token may register members of this pool, and do nothing else.",
        ),
        key(
            "ttl",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"15s\""),
            "How long a member that says nothing stays, where it does not ask for another time.",
        ),
        key(
            "max",
            Integer { min: 1, max: 10_000 },
            Is("1000"),
            "Members that may be registered; beyond it new ones are answered 429.",
        ),
        key(
            "allow",
            OneOrList(&Text(Form::Network)),
            Means("all but loopback and link-local ones"),
            "Addresses that may be registered.",
        ),
    ]],
    rules: &[],
};

pub(crate) static HEARTBEAT: Table = Table {
    id: "heartbeat",
    heading: "heartbeat of a pool",
    about: "Members say over the admin API that they live; who is silent is down. See [members](members.md#heartbeats).",
    keys: &[&[
        key(
            "token_hash",
            Text(Form::TokenHash),
            Required,
            "SHA-256 of the token that `evenkeel token create` made: who has that token may send heartbeats for members of this pool, and do nothing else.",
        ),
        key(
            "timeout",
            Duration {
                min: SECOND,
                max: HOUR,
                or_zero: false,
            },
            Is("\"15s\""),
            "Who is silent for longer is down, until the next heartbeat.",
        ),
    ]],
    rules: &[],
};
