//! What the hub shows to others: a consistent copy of its state, replaced after each input, so that no reader
//! (API, metrics, the demo's table) ever makes the hub wait.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use cluster::Standing;
use model::alert::AlertsStatus;
use model::cluster::OrchestratorsStatus;
use model::config::{LoadBalancer, Name, Pool, RouteTarget, SplitPart, StoreConfig};
use model::snapshot::{Member, PoolState, Snapshot, WEIGHT_SCALE};
use model::state::{BackendId, ByLoadBalancer, PoolKey, RouteOrder, Source, Timestamp};
use model::status::{
    BackendLive, BackendStatus, ConfigStatus, Event, ListenerStatus, LoadBalancerStatus, MAX_ROUTES_SHOWN,
    PoolLive, PoolStatus, RefusedRevision, RouteStatus, SourceStatus, SplitPartStatus, SplitStatus, Status,
    StoreStatus,
};

use super::declared::Declared;

/// How busy registered members say that they are, in percent, where they say so. Beside the snapshot, and not in it: it
/// changes all the time, and no request goes elsewhere for it.
pub(crate) type Loads = BTreeMap<PoolKey, Arc<BTreeMap<SocketAddr, u8>>>;

/// State of the hub at one moment; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The snapshot in force.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Config in force and the last try to change it.
    pub(crate) config: ConfigStatus,
    /// Reloads since start.
    pub(crate) reloads: Reloads,
    /// What was counted about each backend.
    pub(crate) counts: Arc<ByLoadBalancer<BackendId, Counts>>,
    /// How busy members say that they are.
    pub(crate) loads: Arc<Loads>,
    /// The last events, oldest first.
    pub(crate) events: VecDeque<Arc<Event>>,
    /// What is declared, where.
    pub(crate) declared: Declared,
}

/// Reloads since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloads {
    /// Brought into force, or found unchanged.
    pub(crate) ok: u64,
    /// Refused.
    pub(crate) refused: u64,
}

/// What the hub counts about one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Verdicts that brought it up.
    pub(crate) to_up: u64,
    /// Verdicts that took it down.
    pub(crate) to_down: u64,
    /// Passive ejections.
    pub(crate) ejections: u64,
}

/// What never changes in the life of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Its start.
    pub(crate) started: Timestamp,
}

impl View {
    /// The whole status, with the figures that only the data plane has; without alerts, which are derived from it.
    pub(crate) fn status(
        &self,
        process: Process,
        now: Timestamp,
        listeners: &[(Name, ListenerStatus)],
        (standing, orchestrators): (&Standing, Option<OrchestratorsStatus>),
        (backend_live, pool_live): (
            impl Fn(&BackendId) -> BackendLive,
            impl Fn(&Name, &Name) -> PoolLive,
        ),
    ) -> Status {
        let load_balancers = self.snapshot.config.load_balancers.values();
        let mut by_lb: BTreeMap<&Name, Vec<&ListenerStatus>> = BTreeMap::new();
        for (lb, listener) in listeners {
            by_lb.entry(lb).or_default().push(listener);
        }
        Status {
            node: self.snapshot.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: process.started,
            now,
            config: self.config.clone(),
            store: self.store(standing),
            orchestrators,
            nodes: Vec::new(),
            load_balancers: load_balancers
                .map(|lb| LoadBalancerStatus {
                    name: lb.name.clone(),
                    listeners: by_lb
                        .remove(&lb.name)
                        .unwrap_or_default()
                        .into_iter()
                        .cloned()
                        .collect(),
                    pools: lb
                        .pools
                        .values()
                        .filter_map(|pool| {
                            let live = pool_live(&lb.name, &pool.name);
                            self.pool_status(&lb.name, pool, live, &backend_live)
                        })
                        .collect(),
                    routes: routes(lb),
                    route_count: lb.routes.len(),
                    splits: self.splits(lb),
                })
                .collect(),
            alerts: AlertsStatus::default(),
            events: self.events.iter().map(|e| Event::clone(e)).collect(),
        }
    }

    fn store(&self, standing: &Standing) -> StoreStatus {
        let kind = match self.snapshot.config.store {
            StoreConfig::Embedded => "embedded",
            StoreConfig::Etcd(_) => "etcd",
        };
        let refused = standing.refused.as_ref().map(|refused| RefusedRevision {
            revision: refused.revision,
            reasons: refused.reasons.clone(),
        });
        StoreStatus {
            kind: kind.to_owned(),
            connected: standing.connected,
            trouble: standing.trouble.clone(),
            head: standing.head,
            served: standing.served,
            refused,
            name_taken: None,
        }
    }

    fn splits(&self, lb: &LoadBalancer) -> Vec<SplitStatus> {
        let orders = self.snapshot.route_orders(&lb.name);
        let splits = lb.routes.iter().filter_map(|route| match &route.target {
            RouteTarget::Split(split) => Some((route, split)),
            _ => None,
        });
        splits
            .map(|(route, split)| {
                let order = orders.get(&route.name);
                let part = |part: &SplitPart| SplitPartStatus {
                    pool: part.pool.clone(),
                    weight: order.map_or(part.weight, |order| order.weight(&part.pool)),
                    configured: part.weight,
                };
                SplitStatus {
                    route: route.name.clone(),
                    parts: split.parts.iter().map(part).collect(),
                    order: order.map(|order| RouteOrder::clone(order)),
                }
            })
            .collect()
    }

    fn pool_status(
        &self,
        lb: &Name,
        pool: &Pool,
        pool_live: PoolLive,
        live: &impl Fn(&BackendId) -> BackendLive,
    ) -> Option<PoolStatus> {
        let state: &PoolState = self.snapshot.pool(lb, &pool.name)?;
        let loads = self.loads.get(&(lb.clone(), pool.name.clone()));
        let load = |member: &Member| match member.source() {
            Source::Registered => loads?.get(&member.id.address).copied(),
            _ => None,
        };
        Some(PoolStatus {
            name: pool.name.clone(),
            algorithm: pool.algorithm.as_str().to_owned(),
            settings: pool.setting_words(),
            all_down: state.all_down,
            all_down_policy: pool.all_down,
            warnings: super::changes::warnings(pool),
            live: pool_live,
            sources: self.sources(lb, pool),
            left_out: state.left_out,
            backends: state
                .members
                .iter()
                .map(|m| backend_status(m, load(m), live(&m.id)))
                .collect(),
        })
    }
}

impl View {
    fn sources(&self, lb: &Name, pool: &Pool) -> Vec<SourceStatus> {
        let key = (lb.clone(), pool.name.clone());
        let members = self.snapshot.found.get(&key);
        let sources = members.into_iter().flat_map(|members| &members.sources);
        sources
            .map(|(source, state)| SourceStatus {
                source: *source,
                members: state.members.len(),
                left_out: state.left_out,
                stale: state.stale.as_ref().map(|(why, _)| why.clone()),
                stale_since: state.stale.as_ref().map(|(_, since)| *since),
                lookup: None,
            })
            .collect()
    }
}

fn routes(lb: &LoadBalancer) -> Vec<RouteStatus> {
    let shown = lb.routes.iter().take(MAX_ROUTES_SHOWN);
    shown
        .map(|route| RouteStatus {
            route: route.name.clone(),
            matches: route.match_words(),
            leads_to: route.target_words(),
            besides: route.action_words(),
        })
        .collect()
}

fn backend_status(member: &Member, load: Option<u8>, live: BackendLive) -> BackendStatus {
    BackendStatus {
        address: member.id.address,
        source: member.source(),
        zone: member.found.as_ref().and_then(|found| found.zone.clone()),
        load,
        eligibility: member.eligibility.as_str().to_owned(),
        health: member.health.health,
        health_reason: member.health.reason.clone(),
        health_since: member.health.since,
        // Told by who knows the others.
        checked_by: None,
        mode: member.mode(),
        order: member.order.clone(),
        ejection: member.ejection.clone(),
        weight: member.weight,
        effective_weight: f64::from(member.effective_weight) / f64::from(WEIGHT_SCALE),
        live,
    }
}
