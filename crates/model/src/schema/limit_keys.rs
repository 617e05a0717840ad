//! The keys of rate limits, and of the timeouts of a route.

use super::Default::{Is, Means, Required};
use super::Kind::{Bool, Duration, Integer, Text};
use super::keys::{DAY, SHORTEST, key, timeout};
use super::{Form, Table};

pub(crate) static RATE_LIMIT: Table = Table {
    id: "rate_limit",
    heading: "rate_limit of a route",
    about: "How many requests of one kind a route takes in a time: a bucket of `burst` tokens for each key, refilled with `requests` every `per`. A request takes one; without one the answer is 429.",
    keys: &[&[
        key(
            "name",
            Text(Form::Name),
            Means("`limit` for the first, `limit-2` for the second and so on"),
            "Shown in the `RateLimit` fields, in metrics and by `explain`; unique within the route.",
        ),
        key(
            "requests",
            Integer {
                min: 1,
                max: 1_000_000,
            },
            Required,
            "Requests in the time of `per`.",
        ),
        key(
            "per",
            Duration {
                min: 100,
                max: DAY,
                or_zero: false,
            },
            Is("\"1s\""),
            "The time.",
        ),
        key(
            "burst",
            Integer {
                min: 1,
                max: 10_000_000,
            },
            Means("as many as `requests`"),
            "Requests at once after a pause.",
        ),
        key(
            "key",
            Text(Form::LimitKey),
            Is("\"client_address\""),
            "What has a bucket of its own. Of an IPv6 address the first 64 bits count. Requests without the named header field or cookie count by address; `route` counts all together.",
        ),
        key(
            "max_keys",
            Integer {
                min: 1000,
                max: 10_000_000,
            },
            Is("100000"),
            "Buckets that are kept; beyond it the one nearest to full gives way. 16 bytes each.",
        ),
        key(
            "announce",
            Bool,
            Is("false"),
            "Whether responses that pass say how much is left, too.",
        ),
    ]],
    rules: &[],
};

pub(crate) static ROUTE_TIMEOUTS: Table = Table {
    id: "route_timeouts",
    heading: "timeouts of a route",
    about: "Timeouts that this route has otherwise than its pool.",
    keys: &[&[
        key(
            "first_byte",
            timeout(DAY),
            Means("the pool's"),
            "From the end of the request to the response's header. Then 504.",
        ),
        key(
            "total",
            Duration {
                min: SHORTEST,
                max: DAY,
                or_zero: true,
            },
            Means("the pool's"),
            "The whole request; 0 means no limit.",
        ),
    ]],
    rules: &[],
};
