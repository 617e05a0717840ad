//! Live figures of pools and backends, for `status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use balance::Circuit;
use model::config::{Name, Route};
use model::desired::Traffic;
use model::state::BackendId;
use model::status::{BackendLive, PoolLive, QueueStatus};

use crate::Dataplane;
use crate::counters::{Counter, RouteTotals, class_of};
use crate::serving::PoolServing;

impl Dataplane {
    /// Live figures of a backend; zeros for one that is not known.
    pub fn live(&self, id: &BackendId) -> BackendLive {
        let Some(cell) = self.shared.registry.backend(id) else {
            return BackendLive::default();
        };
        let mut live = BackendLive {
            in_flight: cell.load.in_flight(),
            max_in_flight: self
                .with_pool(&id.load_balancer, &id.pool, |pool| {
                    // Looked for only where there may be one: a pool may have many backends.
                    let mut members = pool.backends.iter().filter(|_| pool.balancer.is_capped());
                    let index = members.position(|member| member.id.address == id.address)?;
                    pool.balancer.cap(index)
                })
                .flatten(),
            connections: cell.connections.open(),
            max_connections: cell.connections.most(),
            ..BackendLive::default()
        };
        for counters in cell.counters.all() {
            live.requests += counters.classes.iter().map(Counter::get).sum::<u64>();
            live.failures += counters.failures.get();
            live.idle_connections += counters.idle();
        }
        live
    }

    /// What each route of each load balancer has answered for as long as it exists under its name.
    pub fn traffic(&self) -> BTreeMap<Name, BTreeMap<Name, Traffic>> {
        let serving = self.serving();
        let of_route = |(route, totals): (&Route, &Arc<RouteTotals>)| {
            let mut traffic = Traffic::default();
            for counters in totals.all() {
                traffic.requests += counters.classes.iter().map(Counter::get).sum::<u64>();
                traffic.failures += counters.classes.get(class_of(500)).map_or(0, Counter::get);
            }
            (route.name.clone(), traffic)
        };
        let each = serving.load_balancers.values().map(|lb| {
            let routes = lb.config.routes.iter().zip(&lb.route_counters);
            (lb.cell.name.clone(), routes.map(of_route).collect())
        });
        each.collect()
    }

    /// Requests answered since the start, by all load balancers that are there now. Looks at no backend: it is asked
    /// again and again.
    pub fn requests(&self) -> u64 {
        let serving = self.serving();
        let blocks = serving
            .load_balancers
            .values()
            .flat_map(|lb| lb.cell.counters.all());
        blocks
            .map(|counters| counters.classes.iter().map(Counter::get).sum::<u64>())
            .sum()
    }

    /// Connections to the backends of all pools: in use, and idle.
    pub fn backend_connections(&self) -> u64 {
        let serving = self.serving();
        let each = serving.backends().map(|(_, _, cell)| {
            let idle: u32 = cell.counters.all().map(|counters| counters.idle()).sum();
            u64::from(cell.load.in_flight()) + u64::from(idle)
        });
        each.sum()
    }

    /// Live figures of a pool; nothing for one that is not known.
    pub fn pool_live(&self, load_balancer: &Name, pool: &Name) -> PoolLive {
        let now_us = self.now_us();
        let live = self.with_pool(load_balancer, pool, |pool| {
            let load = pool.balancer.pool();
            let rules = &pool.config.overload;
            PoolLive {
                queue: pool.balancer.is_capped().then(|| QueueStatus {
                    waiting: load.waiting(),
                    size: rules.queue.size,
                    timeout_ms: u64::try_from(rules.queue.timeout.as_millis()).unwrap_or(u64::MAX),
                    overloaded: load.overloaded(),
                }),
                circuit: rules.circuit_breaker.as_ref().map(|_| {
                    let circuit = match load.circuit(now_us) {
                        Circuit::Closed => "closed",
                        Circuit::HalfOpen => "half_open",
                        Circuit::Open => "open",
                    };
                    circuit.to_owned()
                }),
            }
        });
        live.unwrap_or_default()
    }

    fn with_pool<R>(
        &self,
        load_balancer: &Name,
        pool: &Name,
        look: impl FnOnce(&PoolServing) -> R,
    ) -> Option<R> {
        let serving = self.serving();
        let lb = serving.load_balancers.get(load_balancer)?;
        lb.pools.iter().find(|p| p.config.name == *pool).map(|p| look(p))
    }
}
