//! Stickiness, rate limits and retries, written out.

use super::{Writer, inline_table, list, quoted};
use crate::config::{
    Learned, RateLimit, Retries, RetryOn, RouteTimeouts, Secure, SessionKey, Sticky, StickyBy, StickyCookie,
};
use crate::units::format_duration;

pub(super) fn write_sticky(w: &mut Writer, sticky: &Sticky) {
    let Sticky { by, drain_timeout } = sticky;
    match by {
        StickyBy::Cookie(cookie) => write_cookie(w, cookie),
        StickyBy::Learned(learned) => write_learned(w, learned),
    }
    w.duration("drain_timeout", *drain_timeout);
}

fn write_cookie(w: &mut Writer, cookie: &StickyCookie) {
    let StickyCookie {
        name,
        ttl,
        secure,
        same_site,
        http_only,
        path,
        domain,
        secrets,
    } = cookie;
    w.text("cookie", name);
    match ttl {
        Some(ttl) => w.duration("ttl", *ttl),
        None => w.comment("ttl: until the browser ends the session"),
    }
    match secure {
        Secure::Auto => w.text("secure", "auto"),
        Secure::Always => w.raw("secure", true),
        Secure::Never => w.raw("secure", false),
    }
    w.text("same_site", same_site.as_str());
    w.raw("http_only", http_only);
    w.text("path", path);
    w.optional("domain", domain.as_deref(), "exactly the host that was asked");
    match secrets.is_empty() {
        true => w.comment("secret: that of the node"),
        false => w.comment("secret: set, and not shown"),
    }
}

fn write_learned(w: &mut Writer, learned: &Learned) {
    let Learned {
        key,
        ttl,
        max_sessions,
    } = learned;
    match key {
        SessionKey::AppCookie(name) => w.text("app_cookie", name),
        SessionKey::Header(name) => w.text("header", name),
        SessionKey::ClientAddress => w.raw("client_address", true),
    }
    w.duration("ttl", *ttl);
    w.raw("max_sessions", max_sessions);
}

pub(super) fn write_retries(w: &mut Writer, retries: &Retries) {
    let Retries {
        attempts,
        on,
        per_try_timeout,
        budget,
        replay_bytes,
    } = retries;
    let RetryOn {
        connect,
        reset,
        timeout,
        statuses,
    } = on;
    let named = [(connect, "connect"), (reset, "reset"), (timeout, "timeout")];
    let named = named
        .into_iter()
        .filter(|(on, _)| **on)
        .map(|(_, name)| quoted(name));
    let statuses = statuses.iter().map(|range| match range {
        (400, 499) => quoted("4xx"),
        (500, 599) => quoted("5xx"),
        (status, _) => status.to_string(),
    });
    w.raw("attempts", attempts);
    w.raw("on", list(named.chain(statuses)));
    w.duration("per_try_timeout", *per_try_timeout);
    w.percent("budget", budget);
    w.size("replay_bytes", u64::from(*replay_bytes));
}

pub(super) fn write_limits(w: &mut Writer, limits: &[RateLimit], timeouts: &RouteTimeouts) {
    let limits: Vec<String> = limits.iter().map(rate_limit).collect();
    if !limits.is_empty() {
        w.raw("rate_limit", format!("[\n{}]", limits.concat()));
    }
    let RouteTimeouts { first_byte, total } = timeouts;
    let named = [("first_byte", first_byte), ("total", total)];
    let given = named
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key} = {}", quoted(&format_duration(value)))));
    w.raw("timeouts", inline_table(given));
}

fn rate_limit(limit: &RateLimit) -> String {
    let RateLimit {
        name,
        requests,
        per,
        burst,
        key,
        max_keys,
        announce,
    } = limit;
    let per = quoted(&format_duration(*per));
    let (name, key) = (quoted(name.as_str()), quoted(&key.to_string()));
    format!(
        "  {{ name = {name}, requests = {requests}, per = {per}, burst = {burst}, key = {key}, max_keys = {max_keys}, announce = {announce} }},\n"
    )
}
