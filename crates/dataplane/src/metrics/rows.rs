//! Whose figures make one series each: a backend's own, or those of a whole pool together.

use std::sync::Arc;

use model::scrape::Scope;

use super::{Labels, pool_labels};
use crate::counters::{BackendCounters, PerShard};
use crate::serving::{BackendCell, PoolServing, Serving};

/// The backend that the sum over a pool is told of, where its backends have no series of their own.
const ALL: &str = "all";

/// Backends that are counted together.
pub(super) struct Row<'s> {
    pub(super) pool: &'s PoolServing,
    pub(super) labels: Labels<'s>,
    /// The first one's place in the pool.
    pub(super) first: usize,
    /// What is now: of them alone.
    pub(super) cells: &'s [Arc<BackendCell>],
    /// What was counted, by them and, in a sum, by those that left the pool and have requests in flight.
    blocks: Vec<PerShard<BackendCounters>>,
    /// What those counted that are gone; it stays in the sum, which would fall without it.
    departed: Option<Box<BackendCounters>>,
}

impl<'s> Row<'s> {
    /// The blocks of counters of all of them.
    pub(super) fn counters(&self) -> impl Iterator<Item = &BackendCounters> {
        let blocks = self.blocks.iter().flat_map(PerShard::all);
        blocks.chain(self.departed.as_deref())
    }

    /// One backend.
    fn alone(pool: &'s PoolServing, place: usize, cells: &'s [Arc<BackendCell>]) -> Option<Self> {
        let cell = cells.first()?;
        Some(Self {
            pool,
            labels: labels(pool, &cell.address_text),
            first: place,
            cells,
            blocks: vec![cell.counters.shared()],
            departed: None,
        })
    }

    /// All backends that the pool ever had.
    fn sum(pool: &'s PoolServing) -> Self {
        let (blocks, departed) = pool.cell.backends.read();
        Self {
            pool,
            labels: labels(pool, ALL),
            first: 0,
            cells: &pool.backends,
            blocks,
            departed: Some(Box::new(departed)),
        }
    }
}

fn labels<'s>(pool: &'s PoolServing, backend: &'s str) -> Labels<'s> {
    let mut labels = pool_labels(pool);
    labels.push(("backend", backend));
    labels
}

/// The rows of all pools, as far as there is room for backends of their own.
pub(super) fn of<'s>(serving: &'s Serving, scope: &Scope) -> Vec<Row<'s>> {
    let mut room = scope.room();
    let mut rows = Vec::new();
    for pool in serving.load_balancers.values().flat_map(|lb| lb.pools.iter()) {
        let backends = &pool.backends;
        if room.takes(backends.len()) {
            let alone = backends.chunks(1).enumerate();
            rows.extend(alone.filter_map(|(place, alone)| Row::alone(pool, place, alone)));
        } else {
            rows.push(Row::sum(pool));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::path::PathBuf;

    use model::config::Secret;
    use model::parse::parse_toml;
    use model::snapshot::{Layers, Snapshot};
    use model::state::{Observed, Overrides, Timestamp};

    use super::*;
    use crate::observe::Observing;
    use crate::serving::Registry;

    struct Pool {
        registry: Registry,
        serving: Serving,
    }

    impl Pool {
        fn new(ports: &[u16]) -> Self {
            let secrets = vec![Secret::new("a secret of a test".into())];
            let registry = Registry::new(2, PathBuf::new(), secrets);
            let serving = serving(ports, None, &registry);
            Self { registry, serving }
        }

        fn change(&mut self, ports: &[u16]) {
            self.serving = serving(ports, Some(&self.serving), &self.registry);
        }

        fn cell(&self, place: usize) -> Arc<BackendCell> {
            self.serving.backends().nth(place).unwrap().2.clone()
        }

        /// What the row of all says, in a few numbers of each kind.
        fn sums(&self) -> [u64; 4] {
            let scope = Scope {
                load_balancer: None,
                backends: 0,
            };
            let rows = of(&self.serving, &scope);
            let [row] = rows.as_slice() else {
                panic!("{} rows", rows.len())
            };
            assert_eq!(row.labels.last(), Some(&("backend", ALL)));
            let sum = BackendCounters::default();
            row.counters().for_each(|block| sum.fold(block));
            let mut total = crate::counters::HistogramTotal::default();
            total.add(&sum.total);
            let tls = sum.tls.completed.as_flattened().iter();
            [
                sum.classes[2].get(),
                total.buckets.iter().sum(),
                total.sum_us,
                tls.map(|counter| counter.get()).sum(),
            ]
        }
    }

    fn serving(ports: &[u16], before: Option<&Serving>, registry: &Registry) -> Serving {
        let backends: Vec<String> = ports.iter().map(|port| format!("\"10.0.0.1:{port}\"")).collect();
        let text = format!(
            "[load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\nhealth_endpoint = \"/\"\nbackend_servers = [{}]\n",
            backends.join(", ")
        );
        let config = Arc::new(parse_toml(&text, "test.toml").unwrap());
        let layers = Layers {
            revision: 1,
            config: &config,
            overrides: &Overrides::default(),
            observed: &Observed::default(),
        };
        let observing = Arc::new(Observing::quiet(&config.observe));
        Serving::build(
            &Snapshot::build(layers, None, Timestamp(1)),
            before,
            registry,
            observing,
        )
    }

    /// Counts a request of 7 µs on one shard.
    fn request(cell: &BackendCell, shard: usize) {
        let block = cell.counters.of(shard);
        block.classes[2].add(1);
        block.total.record(7);
        block.tls.complete(true, false, 7);
    }

    /// Scenario: backends leave a pool that is summed, one of them with a request in flight, which ends later; then one
    /// comes back. Nothing that was counted is lost, and nothing counts twice.
    #[test]
    fn a_sum_keeps_what_those_counted_that_left() {
        let mut pool = Pool::new(&[1, 2, 3]);
        for place in 0..3 {
            (0..10).for_each(|shard| request(&pool.cell(place), shard % 2));
        }
        let sums = |requests: u64| [requests, requests, 7 * requests, requests];
        assert_eq!(pool.sums(), sums(30));
        let in_flight = pool.cell(2);
        pool.change(&[1]);
        assert_eq!(pool.sums(), sums(30), "two of three have left");
        request(&in_flight, 0);
        assert_eq!(pool.sums(), sums(31), "the request of one that left has ended");
        pool.change(&[1, 3]);
        assert_eq!(pool.sums(), sums(31), "it is back before it was forgotten");
        pool.change(&[1]);
        drop(in_flight);
        assert_eq!(pool.sums(), sums(31), "and gone for good");
        pool.change(&[1, 2]);
        request(&pool.cell(1), 1);
        assert_eq!(pool.sums(), sums(32), "one is back that was forgotten");
    }
}
