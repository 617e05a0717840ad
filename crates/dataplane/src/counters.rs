//! Counters that the hot path writes: one block a shard, each written by its shard alone.
//!
//! A plain load and store on a line that no other core writes costs a nanosecond; a shared `fetch_add` under
//! contention costs fifty. Readers (metrics, `status`) add the blocks up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use http::h2::Abuse;
use model::reason::Reason;

use crate::tls::TlsCounters;

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the time histograms in microseconds; beyond the last is `+Inf`.
pub(crate) const BOUNDS_US: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 30_000_000,
];

/// A histogram of times with one writer.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, time_us: u64) {
        let index = BOUNDS_US
            .iter()
            .position(|b| time_us <= *b)
            .unwrap_or(BOUNDS_US.len());
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
        self.sum_us.add(time_us);
    }

    /// Adds what another one has.
    pub(crate) fn fold(&self, other: &Self) {
        fold(&self.buckets, &other.buckets);
        self.sum_us.add(other.sum_us.get());
    }
}

/// Adds what other counters have, one to one.
pub(crate) fn fold(counters: &[Counter], others: &[Counter]) {
    for (counter, other) in counters.iter().zip(others) {
        counter.add(other.get());
    }
}

/// A histogram added up over shards: (counts by bucket, sum in microseconds).
#[derive(Debug, Default, Clone)]
pub(crate) struct HistogramTotal {
    pub(crate) buckets: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum_us: u64,
}

impl HistogramTotal {
    pub(crate) fn add(&mut self, part: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&part.buckets) {
            *total += bucket.get();
        }
        self.sum_us += part.sum_us.get();
    }
}

/// Status classes: index 1 to 5 for 1xx to 5xx; 0 for no response.
pub(crate) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Index into [`CLASSES`].
pub(crate) fn class_of(status: u16) -> usize {
    let class = usize::from(status / 100);
    if class < CLASSES.len() { class } else { 0 }
}

/// What one shard counts about one backend.
#[derive(Debug, Default)]
pub(crate) struct BackendCounters {
    pub(crate) classes: [Counter; 6],
    pub(crate) failures: Counter,
    pub(crate) connections_opened: Counter,
    pub(crate) connections_reused: Counter,
    pub(crate) idle_connections: AtomicU32,
    /// The same for connections of HTTP/2, on which no stream runs.
    pub(crate) idle_http2: AtomicU32,
    pub(crate) connect: Histogram,
    pub(crate) first_byte: Histogram,
    pub(crate) total: Histogram,
    pub(crate) tls: TlsCounters,
}

/// Why a request was tried again.
pub(crate) const RETRY_CAUSES: [&str; 5] = ["stale", "connect", "reset", "timeout", "status"];

/// What became of the session of a request.
pub(crate) const SESSIONS: [&str; 4] = ["kept", "new", "moved", "rejected"];

/// What one shard counts about one pool.
#[derive(Debug, Default)]
pub(crate) struct PoolCounters {
    /// By [`RETRY_CAUSES`].
    pub(crate) retries: [Counter; RETRY_CAUSES.len()],
    pub(crate) retries_over_budget: Counter,
    pub(crate) retries_body_gone: Counter,
    /// By [`SESSIONS`].
    pub(crate) sessions: [Counter; SESSIONS.len()],
    /// Times that requests waited in the queue before they got a slot.
    pub(crate) queue_wait: Histogram,
    /// Requests that the queue refused, by [`SHED`].
    shed: [Counter; SHED],
    pub(crate) circuit_opened: Counter,
}

/// Why a request left the queue without a slot: the places of [`balance::Shed`], then those that left.
pub(crate) const SHED: usize = balance::Shed::ALL.len() + 1;
/// Place of those that left.
pub(crate) const DEPARTED: usize = SHED - 1;

impl BackendCounters {
    /// Idle connections kept, of both protocols.
    pub(crate) fn idle(&self) -> u32 {
        let http2 = self.idle_http2.load(Relaxed);
        self.idle_connections.load(Relaxed).saturating_add(http2)
    }

    /// Adds what another block counted. What is now, and no count, stays as it is.
    pub(crate) fn fold(&self, other: &Self) {
        let Self {
            classes,
            failures,
            connections_opened,
            connections_reused,
            idle_connections: _,
            idle_http2: _,
            connect,
            first_byte,
            total,
            tls,
        } = other;
        fold(&self.classes, classes);
        self.failures.add(failures.get());
        self.connections_opened.add(connections_opened.get());
        self.connections_reused.add(connections_reused.get());
        self.connect.fold(connect);
        self.first_byte.fold(first_byte);
        self.total.fold(total);
        self.tls.fold(tls);
    }
}

impl PoolCounters {
    /// Counts a request that left the queue without a slot.
    pub(crate) fn shed(&self, why: usize) {
        if let Some(counter) = self.shed.get(why) {
            counter.add(1);
        }
    }

    /// Requests that left the queue without a slot.
    pub(crate) fn sheds(&self, why: usize) -> u64 {
        self.shed.get(why).map_or(0, Counter::get)
    }
}

/// What one shard counts about one route.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    /// By [`CLASSES`].
    pub(crate) classes: [Counter; CLASSES.len()],
}

/// What all shards count about one route.
pub(crate) type RouteTotals = PerShard<RouteCounters>;

/// Where a body taken whole is, or why it is not.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffered {
    Memory,
    Disk,
    Spilled,
    Refused,
    Full,
    Failed,
}

/// Names of [`Buffered`].
pub(crate) const BUFFERED: [&str; 6] = ["memory", "disk", "spilled", "refused", "full", "failed"];

/// What one shard counts about one load balancer.
#[derive(Debug)]
pub(crate) struct LoadBalancerCounters {
    pub(crate) classes: [Counter; 6],
    pub(crate) reasons: Vec<Counter>,
    pub(crate) total: Histogram,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) tunnels: AtomicU32,
    pub(crate) tunnels_opened: Counter,
    /// Responses compressed, their bytes before, and after.
    pub(crate) compressed: [Counter; 3],
    /// Copies of requests by what became of them.
    pub(crate) mirrored: [Counter; 4],
    /// Bodies taken whole by [`BUFFERED`].
    pub(crate) buffered: [Counter; BUFFERED.len()],
}

impl Default for LoadBalancerCounters {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            reasons: Reason::ALL.iter().map(|_| Counter::default()).collect(),
            total: Histogram::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            tunnels: AtomicU32::new(0),
            tunnels_opened: Counter::default(),
            compressed: Default::default(),
            mirrored: Default::default(),
            buffered: Default::default(),
        }
    }
}

impl LoadBalancerCounters {
    /// Counts a compressed response by the sizes of its body before and after.
    pub(crate) fn note_compressed(&self, (before, after): (u64, u64)) {
        for (counter, n) in self.compressed.iter().zip([1, before, after]) {
            counter.add(n);
        }
    }

    pub(crate) fn note_buffered(&self, outcome: Buffered) {
        if let Some(counter) = self.buffered.get(outcome as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn reason(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason as usize) {
            counter.add(1);
        }
    }
}

/// Why a stream was not even begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many run as may, cancelled ones among them.
    Concurrent,
    /// The connection holds as much as it may.
    Memory,
}

/// Why a stream ended with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetCause {
    /// The client cancelled it, or its connection broke.
    Client,
    /// Its request was malformed.
    Malformed,
    /// The backend broke off its response.
    Backend,
    /// The client did not read its response in time.
    Stalled,
}

/// Labels of [`Http2Counters::refused`].
pub(crate) const REFUSED: [&str; 2] = ["concurrent", "memory"];
/// Labels of [`Http2Counters::resets`].
pub(crate) const RESET_CAUSES: [&str; 4] = ["client", "malformed", "backend", "stalled"];

/// What one shard counts about HTTP/2 on one listener.
#[derive(Debug, Default)]
pub(crate) struct Http2Counters {
    pub(crate) connections: Counter,
    pub(crate) streams: Counter,
    /// By [`Abuse`].
    pub(crate) abuse: [Counter; Abuse::ALL.len()],
    /// By [`Refused`].
    pub(crate) refused: [Counter; REFUSED.len()],
    /// By [`ResetCause`].
    pub(crate) resets: [Counter; RESET_CAUSES.len()],
}

impl Http2Counters {
    pub(crate) fn abuse(&self, abuse: Abuse) {
        if let Some(counter) = self.abuse.get(abuse as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn refuse(&self, why: Refused) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn reset(&self, cause: ResetCause) {
        if let Some(counter) = self.resets.get(cause as usize) {
            counter.add(1);
        }
    }
}

/// One block per shard, made when the shard first counts something.
#[derive(Debug)]
pub(crate) struct PerShard<T>(Arc<[OnceLock<Box<T>>]>);

impl<T: Default> PerShard<T> {
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| OnceLock::new()).collect())
    }

    /// The same blocks, for somebody else who reads them.
    pub(crate) fn shared(&self) -> Self {
        Self(self.0.clone())
    }

    /// The block of `shard`, which alone may write to it. Shards are numbered from 0 at start, once.
    pub(crate) fn of(&self, shard: usize) -> &T {
        let last = self.0.len().saturating_sub(1);
        self.0[shard.min(last)].get_or_init(Box::default)
    }

    /// The blocks there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|slot| slot.get().map(Box::as_ref))
    }
}
