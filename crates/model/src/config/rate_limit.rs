//! Rate limits: how many requests of one kind a route takes in a time.

use std::time::Duration;

use super::Name;

/// A rate limit of a route: a bucket of `burst` tokens for each key, refilled with `requests` every `per`; a
/// request takes one, and without one the answer is 429.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Its name in `RateLimit` fields, metrics and `explain`; unique within the route.
    pub name: Name,
    /// Requests in the time of `per`.
    pub requests: u32,
    /// The time.
    pub per: Duration,
    /// Requests at once after a pause.
    pub burst: u32,
    /// What has a bucket of its own.
    pub key: LimitKey,
    /// How many buckets are kept; beyond it the one nearest to full gives way.
    pub max_keys: u32,
    /// Whether responses that pass say how much is left.
    pub announce: bool,
}

/// Default of `rate_limit.per`.
pub const DEFAULT_PER: Duration = Duration::from_secs(1);
/// Default of `rate_limit.max_keys`.
pub const DEFAULT_MAX_KEYS: u32 = 100_000;

/// What has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// The client's IP address (behind trusted proxies: the one they report); of IPv6 the first 64 bits, because
    /// that is what one subscriber has.
    ClientAddress,
    /// The value of this header field (lower case); requests without it count by address.
    Header(String),
    /// The value of this cookie; requests without it count by address.
    Cookie(String),
    /// All requests of the route together.
    Route,
}

impl std::fmt::Display for LimitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Route => f.write_str("route"),
        }
    }
}
