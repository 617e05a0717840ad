//! Stickiness, rate limits and retries made at random.

use std::time::Duration;

use evenkeel_model::config::{
    Learned, LimitKey, Name, RateLimit, Retries, RetryOn, RouteTimeouts, SameSite, Secure, SessionKey,
    Sticky, StickyBy, StickyCookie,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::ms;

const DAY: u64 = 86_400_000;

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,10}"
}

pub(super) fn sticky() -> impl Strategy<Value = Sticky> {
    let secure = prop_oneof![Just(Secure::Auto), Just(Secure::Always), Just(Secure::Never)];
    let same_site = prop_oneof![Just(SameSite::Lax), Just(SameSite::Strict), Just(SameSite::None)];
    let cookie = (
        token(),
        option::of(ms(1000..=400 * DAY)),
        secure,
        same_site,
        any::<bool>(),
        "/[a-z0-9/\"'\\\\%_~-]{0,10}",
        option::of("[a-z0-9.-]{1,12}"),
    )
        .prop_map(
            |(name, ttl, secure, same_site, http_only, path, domain)| StickyCookie {
                name,
                ttl,
                secure,
                same_site,
                http_only,
                path,
                domain,
                secrets: Vec::new(),
            },
        )
        .prop_filter("one that browsers take", |c| {
            c.same_site != SameSite::None || c.secure != Secure::Never
        });
    let key = prop_oneof![
        token().prop_map(SessionKey::AppCookie),
        token().prop_map(|name| SessionKey::Header(name.to_ascii_lowercase())),
        Just(SessionKey::ClientAddress),
    ];
    let learned =
        (key, ms(1000..=400 * DAY), 1000..=10_000_000u32).prop_map(|(key, ttl, max_sessions)| Learned {
            key,
            ttl,
            max_sessions,
        });
    let by = prop_oneof![
        cookie.prop_map(StickyBy::Cookie),
        learned.prop_map(StickyBy::Learned)
    ];
    (by, ms(0..=7 * DAY)).prop_map(|(by, drain_timeout)| Sticky { by, drain_timeout })
}

pub(super) fn rate_limits() -> impl Strategy<Value = Vec<RateLimit>> {
    let key = prop_oneof![
        Just(LimitKey::ClientAddress),
        Just(LimitKey::Route),
        token().prop_map(|name| LimitKey::Header(name.to_ascii_lowercase())),
        token().prop_map(LimitKey::Cookie),
    ];
    let limit = (
        1..=1_000_000u32,
        ms(100..=DAY),
        1..=10_000_000u32,
        key,
        1000..=10_000_000u32,
        any::<bool>(),
    );
    (vec(limit, 0..4), btree_set("[a-z]{1,6}", 4)).prop_map(|(limits, names)| {
        let named = limits.into_iter().zip(names);
        named
            .map(
                |((requests, per, burst, key, max_keys, announce), name)| RateLimit {
                    name: Name::parse(&name).unwrap(),
                    requests,
                    per,
                    burst,
                    key,
                    max_keys,
                    announce,
                },
            )
            .collect()
    })
}

pub(super) fn route_timeouts() -> impl Strategy<Value = RouteTimeouts> {
    let total = prop_oneof![Just(Duration::ZERO), ms(10..=DAY)];
    (option::of(ms(10..=DAY)), option::of(total))
        .prop_map(|(first_byte, total)| RouteTimeouts { first_byte, total })
}

pub(super) fn retries() -> impl Strategy<Value = Retries> {
    let status = prop_oneof![
        Just((400, 499)),
        Just((500, 599)),
        (400..=599u16).prop_map(|status| (status, status)),
    ];
    let on = (any::<[bool; 3]>(), btree_set(status, 0..4))
        .prop_map(|([connect, reset, timeout], statuses)| RetryOn {
            connect,
            reset,
            timeout,
            statuses: statuses.into_iter().collect(),
        })
        .prop_filter("something", |on| {
            on.connect || on.reset || on.timeout || !on.statuses.is_empty()
        });
    (0..=5u8, on, ms(10..=DAY), 0..=100u8, 0..=16 * 1024 * 1024u32).prop_map(
        |(attempts, on, per_try, budget, replay_bytes)| Retries {
            attempts,
            per_try_timeout: if on.timeout { per_try } else { Duration::ZERO },
            on,
            budget,
            replay_bytes,
        },
    )
}
