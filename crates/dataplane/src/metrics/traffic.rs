//! Routes, retries, sessions and rate limits.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    BODY_GONE, BUFFERED_BYTES, LIMIT_DISPLACED, LIMIT_REQUESTS, Labels, RETRIES, ROUTE_REQUESTS,
    SESSION_REQUESTS, SESSIONS_DISPLACED, counter, family, gauge, pool_labels,
};
use crate::counters::{CLASSES, Counter, RETRY_CAUSES, SESSIONS};
use crate::limits::LimitCell;
use crate::serving::{LbServing, Serving};
use crate::sticky::StickyServing;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    routes(encoder, serving)?;
    retries(encoder, serving)?;
    sessions(encoder, serving)?;
    limits(encoder, serving)
}

fn routes(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let mut metric = family(encoder, ROUTE_REQUESTS)?;
    for lb in serving.load_balancers.values() {
        for (route, counters) in lb.config.routes.iter().zip(&lb.route_counters) {
            for (index, class) in CLASSES.iter().enumerate() {
                let parts = counters.all().filter_map(|c| c.classes.get(index));
                let labels = vec![
                    ("load_balancer", lb.cell.name.as_str()),
                    ("route", route.name.as_str()),
                    ("class", *class),
                ];
                counter(&mut metric, &labels, parts.map(Counter::get).sum())?;
            }
        }
    }
    Ok(())
}

pub(super) fn buffered(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let mut metric = family(encoder, BUFFERED_BYTES)?;
    for lb in serving.load_balancers.values() {
        let routes = lb.config.routes.iter().zip(&lb.route_cells);
        for (route, cell) in routes.filter(|(route, _)| route.actions.buffer_requests.is_some()) {
            for (place, total) in [("memory", &cell.in_memory), ("disk", &cell.on_disk)] {
                let labels = vec![
                    ("load_balancer", lb.cell.name.as_str()),
                    ("route", route.name.as_str()),
                    ("place", place),
                ];
                let bytes = i64::try_from(total.bytes()).unwrap_or(i64::MAX);
                gauge(&mut metric, &labels, bytes)?;
            }
        }
    }
    Ok(())
}

fn retries(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let all = || serving.load_balancers.values().flat_map(|lb| lb.pools.iter());
    let mut metric = family(encoder, RETRIES)?;
    for pool in all() {
        for (index, cause) in RETRY_CAUSES.iter().enumerate() {
            let counters = pool.cell.counters.all().filter_map(|c| c.retries.get(index));
            let mut labels = pool_labels(pool);
            labels.push(("cause", cause));
            counter(&mut metric, &labels, counters.map(Counter::get).sum())?;
        }
    }
    let mut metric = family(encoder, BODY_GONE)?;
    for pool in all() {
        let counters = pool.cell.counters.all();
        let value = counters.map(|c| c.retries_body_gone.get()).sum();
        counter(&mut metric, &pool_labels(pool), value)?;
    }
    Ok(())
}

/// Of pools with stickiness only.
fn sessions(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let all = || serving.load_balancers.values().flat_map(|lb| lb.pools.iter());
    let mut metric = family(encoder, SESSION_REQUESTS)?;
    for pool in all().filter(|pool| pool.sticky.is_some()) {
        for (index, outcome) in SESSIONS.iter().enumerate() {
            let counters = pool.cell.counters.all().filter_map(|c| c.sessions.get(index));
            let mut labels = pool_labels(pool);
            labels.push(("outcome", outcome));
            counter(&mut metric, &labels, counters.map(Counter::get).sum())?;
        }
    }
    let mut metric = family(encoder, SESSIONS_DISPLACED)?;
    for pool in all() {
        if let Some(sessions) = pool.sticky.as_ref().and_then(StickyServing::sessions) {
            counter(&mut metric, &pool_labels(pool), sessions.displaced())?;
        }
    }
    Ok(())
}

fn limits(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let mut metric = family(encoder, LIMIT_REQUESTS)?;
    for (labels, cell) in all_limits(serving) {
        let passed = cell.counters.all().map(|c| c.passed.get()).sum();
        let refused = cell.counters.all().map(|c| c.refused.get()).sum();
        for (outcome, value) in [("passed", passed), ("refused", refused)] {
            let mut labels = labels.clone();
            labels.push(("outcome", outcome));
            counter(&mut metric, &labels, value)?;
        }
    }
    let mut metric = family(encoder, LIMIT_DISPLACED)?;
    for (labels, cell) in all_limits(serving) {
        counter(&mut metric, &labels, cell.limiter.displaced())?;
    }
    Ok(())
}

/// Every rate limit with its labels.
fn all_limits(serving: &Serving) -> impl Iterator<Item = (Labels<'_>, &LimitCell)> {
    serving
        .load_balancers
        .values()
        .flat_map(|lb: &std::sync::Arc<LbServing>| {
            let routes = lb.config.routes.iter().zip(&lb.route_limits);
            routes.flat_map(move |(route, limits)| {
                limits.iter().map(move |cell| {
                    let labels = vec![
                        ("load_balancer", lb.cell.name.as_str()),
                        ("route", route.name.as_str()),
                        ("limit", cell.config.name.as_str()),
                    ];
                    (labels, cell.as_ref())
                })
            })
        })
}
