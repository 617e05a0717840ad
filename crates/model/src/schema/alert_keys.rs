//! The keys of alerts and of those who are told of them.

use super::Default::{Is, Means};
use super::Kind::{Duration, Labels, List, Percent, Text};
use super::keys::{DAY, HOUR, MINUTE, SECOND, key};
use super::{Form, Key, Kind, Rule, Table};

/// How long something must hold.
const HOLDS: Kind = Duration {
    min: 0,
    max: 24 * HOUR,
    or_zero: true,
};

pub(crate) static ALERTS: Table = Table {
    id: "alerts",
    heading: "[alerts]",
    about: "What is worth an alert, and who is told ([alerts.md](alerts.md)). Without receivers alerts are shown by `evenkeel alerts` and sent to nobody. All of it follows a reload.",
    keys: &[&[
        key(
            "webhooks",
            List {
                of: &Kind::Table(&WEBHOOK),
                min: 1,
            },
            Means("none"),
            "Who gets messages in JSON; at most 16 receivers together.",
        ),
        key(
            "alertmanagers",
            List {
                of: &Kind::Table(&ALERTMANAGER),
                min: 1,
            },
            Means("none"),
            "Alertmanagers that get every alert; each groups and repeats as its own config says.",
        ),
        key(
            "labels",
            Labels,
            Means("none"),
            "Labels for every alert besides its own, at most 16.",
        ),
        key(
            "backend_down_for",
            HOLDS,
            Is("\"30s\""),
            "How long the checks must have found a backend down.",
        ),
        key(
            "pool_unhealthy_for",
            HOLDS,
            Is("\"10s\""),
            "How long too few backends of a pool must have been healthy, or none eligible.",
        ),
        key(
            "healthy_share",
            Percent { min: 0, max: 100 },
            Is("\"50%\""),
            "Least share of a pool's backends that must be healthy; those that an operator took out do not count. `\"0%\"`: any is enough.",
        ),
        key(
            "certificate_expires_within",
            Duration {
                min: HOUR,
                max: 365 * DAY,
                or_zero: true,
            },
            Is("\"336h\""),
            "How long before its end a certificate is worth an alert; 0: only when it has ended.",
        ),
        key(
            "group_wait",
            Duration {
                min: 0,
                max: HOUR,
                or_zero: true,
            },
            Is("\"10s\""),
            "Webhooks: from the first alert of a group to the first message about the group.",
        ),
        key(
            "group_interval",
            Duration {
                min: SECOND,
                max: 24 * HOUR,
                or_zero: false,
            },
            Is("\"5m\""),
            "Webhooks: least time from one message about a group to the next; it tells what has changed.",
        ),
        key(
            "repeat_interval",
            Duration {
                min: MINUTE,
                max: 30 * DAY,
                or_zero: false,
            },
            Is("\"4h\""),
            "Webhooks: when a group in which nothing has changed is told again.",
        ),
        key(
            "timeout",
            Duration {
                min: 100,
                max: 8 * SECOND,
                or_zero: false,
            },
            Is("\"5s\""),
            "Time that one delivery may take, from the first look-up to the last byte of the answer.",
        ),
    ]],
    rules: &[],
};

const fn name(means: &'static str) -> Key {
    key(
        "name",
        Text(Form::Name),
        Means(means),
        "Its name in metrics, `status` and the log.",
    )
}

const URL_FILE: Key = key(
    "url_file",
    Text(Form::File),
    Means("none"),
    "File with the URL instead, where that is a secret; read before each delivery.",
);

const TOKEN_FILE: Key = key(
    "token_file",
    Text(Form::File),
    Means("none"),
    "File with a token, sent as `Authorization: Bearer`; read before each delivery.",
);

const CA: Key = key(
    "ca",
    Text(Form::File),
    Means("the system's authorities"),
    "File with certificates (PEM) to verify an `https://` receiver with, instead of the system's.",
);

static PLACE: &[Rule] = &[Rule::ExactlyOne(&["url", "url_file"])];

pub(crate) static WEBHOOK: Table = Table {
    id: "webhook",
    heading: "[[alerts.webhooks]]",
    about: "Who gets messages in JSON by `POST`.",
    keys: &[&[
        name("`webhook-1`, `webhook-2`, …"),
        key(
            "url",
            Text(Form::ReceiverUrl),
            Means("that of `url_file`"),
            "Where messages are posted to; without user and query, which may be secrets.",
        ),
        URL_FILE,
        TOKEN_FILE,
        key(
            "secret_file",
            Text(Form::File),
            Means("messages are not signed"),
            "File with the secret that messages are signed with (HMAC-SHA256, `Evenkeel-Signature`); read before each delivery.",
        ),
        CA,
    ]],
    rules: &[PLACE],
};

pub(crate) static ALERTMANAGER: Table = Table {
    id: "alertmanager",
    heading: "[[alerts.alertmanagers]]",
    about: "An Alertmanager; name each one of its cluster.",
    keys: &[&[
        name("`alertmanager-1`, `alertmanager-2`, …"),
        key(
            "url",
            Text(Form::ReceiverUrl),
            Means("that of `url_file`"),
            "Its base URL; alerts go to `/api/v2/alerts` below it.",
        ),
        URL_FILE,
        TOKEN_FILE,
        CA,
    ]],
    rules: &[PLACE],
};
