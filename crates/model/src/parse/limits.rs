//! What a route allows: rate limits, and timeouts other than its pool's; and what a pool tries elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use super::section::{Findings, Section, narrow};
use super::text;
use super::tree::Value;
use crate::config::{
    DEFAULT_MAX_KEYS, DEFAULT_PER, LimitKey, Name, RateLimit, Retries, RetryOn, RouteTimeouts,
};
use crate::diagnostic::Fault;
use crate::schema;

/// Most rate limits of one route: each is asked for every request.
const MAX_LIMITS: usize = 8;

pub(super) fn rate_limits(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<RateLimit> {
    let items = s.items(f, "rate_limit").unwrap_or_default();
    if let Some(entry) = s.entry("rate_limit").filter(|_| items.len() > MAX_LIMITS) {
        let fault = Fault::new(format!(
            "a route has at most {MAX_LIMITS} rate limits; here are {}",
            items.len()
        ));
        f.report(entry.key_span.clone(), &s.path_of("rate_limit"), fault);
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut limits = Vec::with_capacity(items.len());
    for (i, (path, node)) in items.into_iter().enumerate() {
        let Some(section) = Section::open(f, node, path, &schema::RATE_LIMIT) else {
            continue;
        };
        let Some(limit) = rate_limit(f, i, &section) else {
            continue;
        };
        if !names.insert(limit.name.clone()) {
            let fault = Fault::new(format!(
                "two rate limits of this route have the name `{}`",
                limit.name
            ))
            .suggest("give each a `name` of its own");
            f.report(section.span.clone(), &section.path_of("name"), fault);
        }
        limits.push(limit);
    }
    limits
}

fn rate_limit(f: &mut Findings<'_>, index: usize, s: &Section<'_>) -> Option<RateLimit> {
    let unnamed = match index {
        0 => "limit".to_owned(),
        _ => format!("limit-{}", index + 1),
    };
    let name = s
        .text(f, "name", text::name)
        .or_else(|| Name::parse(&unnamed).ok());
    let requests = s.integer(f, "requests").map(narrow);
    let per = s.duration(f, "per").unwrap_or(DEFAULT_PER);
    let burst = s.integer(f, "burst").map(narrow);
    let key = s
        .text(f, "key", text::limit_key)
        .unwrap_or(LimitKey::ClientAddress);
    let max_keys = s.integer(f, "max_keys").map_or(DEFAULT_MAX_KEYS, narrow);
    let announce = s.boolean(f, "announce").unwrap_or(false);
    Some(RateLimit {
        name: name?,
        requests: requests?,
        per,
        burst: burst.or(requests)?,
        key,
        max_keys,
        announce,
    })
}

pub(super) fn route_timeouts(f: &mut Findings<'_>, s: &Section<'_>) -> RouteTimeouts {
    RouteTimeouts {
        first_byte: s.duration(f, "first_byte"),
        total: s.duration(f, "total"),
    }
}

pub(super) fn retries(f: &mut Findings<'_>, s: &Section<'_>) -> Retries {
    let defaults = Retries::default();
    let on = retry_on(f, s).unwrap_or(defaults.on);
    let per_try_timeout = s.duration(f, "per_try_timeout").unwrap_or(Duration::ZERO);
    if let Some(entry) = s
        .entry("per_try_timeout")
        .filter(|_| !on.timeout && !per_try_timeout.is_zero())
    {
        let fault = Fault::new(
            "`per_try_timeout` gives an attempt up, but `on` does not say that it is tried elsewhere",
        )
        .suggest("add `\"timeout\"` to `on`, as in `on = [\"connect\", \"reset\", \"timeout\"]`");
        f.report(entry.node.span.clone(), &s.path_of("per_try_timeout"), fault);
    }
    Retries {
        attempts: s.integer(f, "attempts").map_or(defaults.attempts, narrow),
        on,
        per_try_timeout,
        budget: s.percent(f, "budget").map_or(defaults.budget, narrow),
        replay_bytes: s.size(f, "replay_bytes").map_or(defaults.replay_bytes, narrow),
    }
}

fn retry_on(f: &mut Findings<'_>, s: &Section<'_>) -> Option<RetryOn> {
    let mut on = RetryOn {
        connect: false,
        reset: false,
        timeout: false,
        statuses: Vec::new(),
    };
    for (path, node) in s.items(f, "on")? {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            other => {
                let expected = schema::Form::RetryCause.expected();
                let fault = Fault::new(format!("an entry must be {expected}, not {}", other.kind()));
                f.report(node.span.clone(), &path, fault);
                continue;
            }
        };
        match text.as_str() {
            "connect" => on.connect = true,
            "reset" => on.reset = true,
            "timeout" => on.timeout = true,
            _ => match text::failing_status(&text) {
                Ok(range) => on.statuses.push(range),
                Err(fault) => f.report(node.span.clone(), &path, fault),
            },
        }
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    Some(on)
}
