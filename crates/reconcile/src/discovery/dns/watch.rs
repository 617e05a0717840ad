//! What is known of one name over time: when to look again, and who is still there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{DnsLookup, MAX_WEIGHT};
use model::parse::MAX_BACKENDS;

use super::lookup::{Lookup, Outcome};

/// Caches are expected to forget an answer after this, or after `max_ttl` if that is longer, whatever TTL it has.
const MAX_CACHED_MS: u64 = 3_600_000;
/// By so much longer than it says an answer may be kept: a second by each of two resolvers in a row, which count whole
/// ones.
const ROUNDED_MS: u64 = 2_000;
/// Clocks may differ by this part of a time: one second in a hundred.
const CLOCKS_DIFFER: u64 = 100;
/// Longest time until a look is made again that failed, unless answers hold for longer.
const MAX_BACKOFF_MS: u64 = 30_000;

/// Looks after one name.
#[derive(Debug)]
pub struct Watch {
    settings: DnsLookup,
    known: BTreeMap<SocketAddr, Known>,
    due_ms: u64,
    /// Looks in a row that failed.
    failures: u32,
    /// Who answered last, and is asked first.
    server: Option<SocketAddr>,
    seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// As the records have it, or, until they have been seen, as the pool had it before.
    weight: u32,
    is_seen: bool,
    /// From when an answer that does not name it takes it out; `None` while the last one named it.
    leaves_ms: Option<u64>,
    /// The server of a service whose address it is, where that is known.
    server: Option<String>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Addresses with their weights, of which none is greater than [`MAX_WEIGHT`]; the port is 0 where the records have
    /// none. `None` until anybody has answered.
    pub members: Option<Arc<BTreeMap<SocketAddr, u32>>>,
    /// Addresses that are not taken.
    pub left_out: usize,
    /// Why the last look did not bring every answer.
    pub fault: Option<String>,
    /// Looks in a row that did not.
    pub failures: u32,
    /// When the last one that did was over.
    pub answered_ms: Option<u64>,
    /// For how long its answers hold, within the bounds of the config.
    pub ttl_ms: u64,
    /// Looks that brought every answer.
    pub good: u64,
    /// Looks that did not.
    pub bad: u64,
    /// Messages that were no answers to what was asked.
    pub strangers: u64,
    /// Who answered last.
    pub server: Option<SocketAddr>,
}

impl Watch {
    /// Looks after a name from now on; `earlier` are the addresses known from before, with their weights as a pool takes
    /// them; they leave as any others do.
    pub fn new(settings: DnsLookup, earlier: BTreeMap<SocketAddr, u32>, now_ms: u64) -> Self {
        let known = |(address, weight)| {
            let known = Known {
                is_seen: false,
                ..Known::now(weight)
            };
            (address, known)
        };
        let earlier = earlier.into_iter().take(MAX_BACKENDS);
        Self {
            settings,
            known: earlier.map(known).collect(),
            due_ms: now_ms,
            failures: 0,
            server: None,
            seen: Seen::default(),
        }
    }

    /// When the next look is due.
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Begins a look, by asking these servers.
    pub fn look(&self, now_ms: u64, servers: Vec<SocketAddr>) -> Lookup {
        Lookup::new(&self.settings, servers, self.server, now_ms)
    }

    /// Takes what came of a look.
    pub fn take(&mut self, now_ms: u64, outcome: Outcome, rand: u64) {
        let answered = outcome.server.is_some();
        self.server = outcome.server.or(self.server);
        let whole = outcome.fault.is_none();
        if whole {
            self.miss(now_ms, &outcome);
        }
        let mut no_room = 0;
        for (address, weight) in &outcome.found {
            // Who is known is not pushed out, or many answers that are not whole would do what none of them may.
            if self.known.len() >= MAX_BACKENDS && !self.known.contains_key(address) {
                no_room += 1;
                continue;
            }
            let known = Known {
                server: outcome.servers.get(address).cloned(),
                ..Known::now(*weight)
            };
            self.known.insert(*address, known);
        }
        self.seen.strangers += outcome.strangers;
        self.seen.server = self.server;
        if answered {
            self.seen.left_out = outcome.left_out + no_room;
            let members = self.weighed();
            if self.seen.members.as_deref() != Some(&members) {
                self.seen.members = Some(Arc::new(members));
            }
        }
        match whole {
            true => {
                self.failures = 0;
                self.seen.good += 1;
                self.seen.answered_ms = Some(now_ms);
                self.seen.ttl_ms = self.held_ms(outcome.ttl);
                // When the answer has ended: a cache is asked when it has asked again. And, by up to a tenth, later, so
                // that names that began together spread.
                let wait = surely_over(self.seen.ttl_ms);
                self.due_ms = now_ms.saturating_add(spread(wait, rand));
            }
            false => {
                self.failures = self.failures.saturating_add(1);
                self.seen.bad += 1;
                self.due_ms = now_ms.saturating_add(spread(self.backoff_ms(), rand));
            }
        }
        self.seen.failures = self.failures;
        self.seen.fault = outcome.fault;
    }

    /// What is known.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Notes whom a whole answer does not name; whom two in a row do not, leaves, unless the second may be the first,
    /// out of a cache.
    fn miss(&mut self, now_ms: u64, outcome: &Outcome) {
        let most = ms(self.settings.max_ttl).max(MAX_CACHED_MS);
        let forgotten = |seconds: u32| {
            let cached = u64::from(seconds).saturating_mul(1000).min(most);
            now_ms.saturating_add(surely_over(cached))
        };
        self.known.retain(|address, known| {
            if outcome.found.contains_key(address) || !known.was_asked_for(address, outcome) {
                return true;
            }
            if known.leaves_ms.is_some_and(|from| outcome.begun_ms >= from) {
                return false;
            }
            let longest = match address.is_ipv4() {
                true => outcome.longest_v4,
                false => outcome.longest_v6,
            };
            known.leaves_ms.get_or_insert_with(|| forgotten(longest));
            true
        });
    }

    fn held_ms(&self, ttl: Option<u32>) -> u64 {
        let (least, most) = (ms(self.settings.min_ttl), ms(self.settings.max_ttl));
        let told = ttl.map_or(least, |ttl| u64::from(ttl).saturating_mul(1000));
        told.min(most).max(least)
    }

    fn backoff_ms(&self) -> u64 {
        let least = ms(self.settings.min_ttl);
        let doubled = least.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(MAX_BACKOFF_MS.max(least))
    }

    /// Weights as a pool takes them, 0 to [`MAX_WEIGHT`]. None is 0: beside others RFC 2782 gives such a record a very
    /// small chance, and among its like an equal one.
    fn weighed(&self) -> BTreeMap<SocketAddr, u32> {
        let seen = || self.known.values().filter(|known| known.is_seen);
        let weights = || seen().map(|known| known.weight);
        let greatest = weights().max().unwrap_or_default();
        let any_zero = weights().any(|weight| weight == 0);
        let weigh = |weight: u32| -> u32 {
            let (weight, most) = (u64::from(weight), u64::from(MAX_WEIGHT));
            let weighed = match u64::from(greatest) {
                0 => 1,
                greatest if greatest > most => weight * most / greatest,
                // Room for what is very small beside them.
                greatest if any_zero => weight * (most / greatest).min(100),
                _ => weight,
            };
            u32::try_from(weighed.max(1)).unwrap_or(MAX_WEIGHT)
        };
        let known = self.known.iter();
        known
            .map(|(address, known)| match known.is_seen {
                true => (*address, weigh(known.weight)),
                false => (*address, known.weight.clamp(1, MAX_WEIGHT)),
            })
            .collect()
    }
}

impl Known {
    fn now(weight: u32) -> Self {
        Self {
            weight,
            is_seen: true,
            leaves_ms: None,
            server: None,
        }
    }

    /// Whether a look would have found it. Whose it is may be unknown: then it may be anybody's.
    fn was_asked_for(&self, address: &SocketAddr, outcome: &Outcome) -> bool {
        match &self.server {
            Some(server) => !outcome.unasked.contains(&(server.clone(), address.is_ipv4())),
            None => outcome.unasked.is_empty(),
        }
    }
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When an answer that holds for so long is kept by nobody any more.
fn surely_over(held_ms: u64) -> u64 {
    let kept_ms = held_ms.saturating_add(ROUNDED_MS);
    kept_ms.saturating_add(kept_ms / CLOCKS_DIFFER)
}

/// A time, and up to a tenth more.
fn spread(time_ms: u64, rand: u64) -> u64 {
    time_ms.saturating_add(rand % (time_ms / 10).max(1))
}
