//! What is shown of names that are looked up: beside the pools that they give members to, and as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::{Config, Discovery, DnsLookup};
use model::state::{Source, Timestamp};
use model::status::{LookupStatus, SourceStatus, Status};
use orchestrator::discovery::Looked;

/// Adds to the sources of pools what is known of their names.
pub(crate) fn show(mut status: Status, config: &Config, looked: &[Looked], now: Timestamp) -> Status {
    let looked: BTreeMap<&DnsLookup, &Looked> = looked.iter().map(|known| (&known.lookup, known)).collect();
    for lb in &mut status.load_balancers {
        let Some(declared) = config.load_balancers.get(&lb.name) else {
            continue;
        };
        for pool in &mut lb.pools {
            let membership = declared.pools.get(&pool.name).map(|pool| &pool.membership);
            let Some(Discovery::Dns(lookup)) = membership.and_then(|m| m.discovery.as_ref()) else {
                continue;
            };
            let Some(known) = looked.get(&lookup.without_port()) else {
                continue;
            };
            if !pool.sources.iter().any(|source| source.source == Source::Dns) {
                pool.sources.push(unheard());
            }
            for source in &mut pool.sources {
                if source.source == Source::Dns {
                    source.lookup = Some(shown(known, now));
                }
            }
        }
    }
    status
}

/// A name of which nothing was heard yet.
fn unheard() -> SourceStatus {
    SourceStatus {
        source: Source::Dns,
        members: 0,
        left_out: 0,
        stale: None,
        stale_since: None,
        lookup: None,
    }
}

fn shown(known: &Looked, now: Timestamp) -> LookupStatus {
    LookupStatus {
        name: known.lookup.name.clone(),
        kind: known.lookup.type_name().to_owned(),
        resolver: known.seen.server,
        answered: known.age.map(|age| before(now, age)),
        ttl_ms: known.seen.ttl_ms,
        failures: known.seen.failures,
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(
        now.0
            .saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    )
}

/// Figures of one name and type, whoever was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Looks that brought every answer.
    pub(crate) good: u64,
    /// Looks that did not.
    pub(crate) failed: u64,
    /// Messages that were no answers.
    pub(crate) strangers: u64,
    /// When the last look that brought every answer was over, the earliest where several resolvers are asked.
    pub(crate) answered: Option<Timestamp>,
}

/// By name and type.
pub(crate) fn figures(looked: &[Looked], now: Timestamp) -> BTreeMap<(&str, &'static str), Figures> {
    let mut all: BTreeMap<(&str, &'static str), Figures> = BTreeMap::new();
    for known in looked {
        let key = (known.lookup.name.as_str(), known.lookup.type_name());
        let first = !all.contains_key(&key);
        let of = all.entry(key).or_default();
        of.good += known.seen.good;
        of.failed += known.seen.bad;
        of.strangers += known.seen.strangers;
        let answered = known.age.map(|age| before(now, age));
        of.answered = if first {
            answered
        } else {
            of.answered.min(answered)
        };
    }
    all
}
