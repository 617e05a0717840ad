//! The keys of stickiness.

use super::Default::{Is, Means};
use super::Kind::{Bool, Duration, Either, Integer, OneOf, OneOrList, Text};
use super::keys::{DAY, SECOND, key};
use super::{Form, Rule, Table};

/// Browsers keep no cookie longer (RFC 6265bis section 5.5).
const LONGEST: u64 = 400 * DAY;

pub(crate) static STICKY: Table = Table {
    id: "sticky",
    heading: "sticky of a pool",
    about: "How the requests of one session are kept on one backend, with any algorithm. Exactly one of `cookie`, `app_cookie`, `header` and `client_address` says what a session is.",
    keys: &[&[
        key(
            "cookie",
            Text(Form::CookieName),
            Means("none"),
            "Name of a cookie that is set to say where the session is. It is signed and names no address.",
        ),
        key(
            "app_cookie",
            Text(Form::CookieName),
            Means("none"),
            "Name of a cookie that the application sets: where each of its values is, is learned from what passes.",
        ),
        key(
            "header",
            Text(Form::FieldName),
            Means("none"),
            "Name of a header field: where each of its values is, is learned.",
        ),
        key(
            "client_address",
            Bool,
            Means("`false`"),
            "`true`: where each client address is, is learned.",
        ),
        key(
            "ttl",
            Duration {
                min: SECOND,
                max: LONGEST,
                or_zero: false,
            },
            Means(
                "a cookie's ends with the browser; learned ones are forgotten 30 minutes after their last request",
            ),
            "How long a session lasts without a request.",
        ),
        key(
            "drain_timeout",
            Duration {
                min: 0,
                max: 7 * DAY,
                or_zero: true,
            },
            Is("\"30m\""),
            "How long after the order a drained backend still gets the requests of its old sessions; 0: not at all.",
        ),
        key(
            "max_sessions",
            Integer {
                min: 1000,
                max: 10_000_000,
            },
            Is("100000"),
            "Learned sessions that are remembered; beyond it the one longest unused is forgotten. 24 bytes each.",
        ),
        key(
            "secure",
            Either(&[Bool, OneOf(&["auto"])]),
            Is("\"auto\""),
            "`cookie`: whether it is for TLS only; `auto`: when its request came over TLS.",
        ),
        key(
            "same_site",
            OneOf(&["lax", "strict", "none"]),
            Is("\"lax\""),
            "`cookie`: whether other sites' pages may send it. Browsers drop a cookie with `none` that is not `Secure`: `secure = false` is refused with it, and `auto` warned of where a listener takes clear HTTP.",
        ),
        key("http_only", Bool, Is("true"), "`cookie`: keeps scripts from it."),
        key(
            "path",
            Text(Form::RoutePath),
            Is("\"/\""),
            "`cookie`: the paths that it is sent to.",
        ),
        key(
            "domain",
            Text(Form::Host),
            Means("exactly the host that was asked"),
            "`cookie`: a domain whose every host it is sent to.",
        ),
        key(
            "secret",
            OneOrList(&Text(Form::Secret)),
            Means("`node.secret`, or a random one kept in the data directory"),
            "`cookie`: what it is signed with. Of a list the first signs and the others are accepted still, so that a secret can be changed without moving a session.",
        ),
    ]],
    rules: &[&[
        only("cookie", "app_cookie"),
        only("cookie", "header"),
        only("cookie", "client_address"),
        only("app_cookie", "header"),
        only("app_cookie", "client_address"),
        only("header", "client_address"),
        without_cookie("max_sessions"),
        of_cookie("secure"),
        of_cookie("same_site"),
        of_cookie("http_only"),
        of_cookie("path"),
        of_cookie("domain"),
        of_cookie("secret"),
    ]],
};

const fn only(key: &'static str, other: &'static str) -> Rule {
    Rule::NotTogether {
        key,
        other,
        instead: "keep one of them: it says what a session is",
    }
}

const fn without_cookie(key: &'static str) -> Rule {
    Rule::NotTogether {
        key,
        other: "cookie",
        instead: "nothing is remembered about sessions that a cookie of our own tells of",
    }
}

const fn of_cookie(key: &'static str) -> Rule {
    Rule::Requires { key, other: "cookie" }
}
