//! What the shards serve from: a snapshot turned into routers and balancers.
//!
//! Built beside the traffic, from the parts of its predecessor where nothing changed, then handed to every
//! shard at once. What must outlive a change (requests in flight, counters, ejections) is kept in *cells* that
//! are found again by name.

#[cfg(test)]
mod sharing;
mod totals;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use balance::{Balancer, Load, PoolLoad, Sessions, derive_seed};
use http::route::Router;
use model::acme::Managed;
use model::config::{Config, Learned, Listener, LoadBalancer, Name, Pool, RateLimit, Route, Secret};
use model::snapshot::{Member, PoolState, Snapshot};
use model::state::{BackendId, Found, RouteOrder};
use tls::ChallengeStore;

use crate::acting::RouteCell;
use crate::actions;
use crate::connection_cap::ConnectionCap;
use crate::counters::{
    BackendCounters, Http2Counters, LoadBalancerCounters, PerShard, PoolCounters, RouteTotals,
};
use crate::limits::LimitCell;
use crate::observe::Observing;
use crate::routing::{self, Target};
use crate::sticky::StickyServing;
use crate::tls::{ListenerTls, ManagedFiles, PoolTls, TlsCounters};
use totals::BackendTotals;

/// A snapshot ready to serve.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) observing: Arc<Observing>,
    pub(crate) load_balancers: BTreeMap<Name, Arc<LbServing>>,
    /// In the order of the load balancers.
    pub(crate) listeners: Vec<Arc<ListenerServing>>,
    /// The same by their address.
    by_address: HashMap<SocketAddr, Arc<ListenerServing>>,
    pub(crate) max_connections: u32,
    /// What cookies are signed with where the pool says nothing.
    secrets: Vec<Secret>,
}

/// A listener with what it leads to.
#[derive(Debug)]
pub(crate) struct ListenerServing {
    pub(crate) observing: Arc<Observing>,
    /// As configured, but for the limit on bodies: what some route allows is read.
    pub(crate) config: Arc<Listener>,
    /// The limit on bodies as configured.
    pub(crate) body_limit: Option<u64>,
    pub(crate) lb: Arc<LbServing>,
    pub(crate) tls: Option<Arc<ListenerTls>>,
    pub(crate) cell: Arc<ListenerCell>,
}

/// A load balancer with its router and pools.
#[derive(Debug)]
pub(crate) struct LbServing {
    pub(crate) config: Arc<LoadBalancer>,
    pub(crate) router: Arc<Router>,
    /// Where each route leads.
    pub(crate) targets: Vec<Target>,
    /// Rate limits of each route.
    pub(crate) route_limits: Vec<Vec<Arc<LimitCell>>>,
    /// What is counted about each route for as long as it exists under its name.
    pub(crate) route_counters: Vec<Arc<RouteTotals>>,
    /// Orders in force for its routes.
    orders: BTreeMap<Name, Arc<RouteOrder>>,
    /// Whether each route does anything besides choosing a pool.
    acting: Vec<bool>,
    /// What the requests of each route share for as long as it exists under its name.
    pub(crate) route_cells: Vec<Arc<RouteCell>>,
    pub(crate) pools: Vec<Arc<PoolServing>>,
    pub(crate) cell: Arc<LbCell>,
}

/// A pool with its balancer.
#[derive(Debug)]
pub(crate) struct PoolServing {
    pub(crate) config: Arc<Pool>,
    pub(crate) balancer: Balancer,
    pub(crate) tls: Option<Arc<PoolTls>>,
    pub(crate) sticky: Option<StickyServing>,
    pub(crate) backends: Vec<Arc<BackendCell>>,
    pub(crate) cell: Arc<PoolCell>,
}

impl ListenerServing {
    /// Whether every request is looked at before its route is.
    pub(crate) fn acts(&self) -> bool {
        self.config.redirect_to_https.is_some() || self.body_limit != self.config.limits.body_bytes
    }
}

impl LbServing {
    /// Names in the registry that are its own, about.
    pub(crate) fn names(&self) -> usize {
        let backends = self.pools.iter().map(|pool| pool.backends.len());
        1 + self.route_counters.len() + backends.sum::<usize>()
    }

    /// The route at this index, when it does anything besides choosing a pool.
    pub(crate) fn acting(&self, route: usize) -> Option<&Route> {
        let acts = self.acting.get(route).is_some_and(|acts| *acts);
        acts.then(|| self.config.routes.get(route)).flatten()
    }
}

/// What is counted about a listener for as long as it exists under its name.
#[derive(Debug)]
pub(crate) struct ListenerCell {
    pub(crate) connections: AtomicU32,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) tls: PerShard<TlsCounters>,
    pub(crate) http2: PerShard<Http2Counters>,
}

/// What is counted about a load balancer.
#[derive(Debug)]
pub(crate) struct LbCell {
    pub(crate) name: Name,
    pub(crate) counters: PerShard<LoadBalancerCounters>,
}

/// What is known about a pool across changes.
#[derive(Debug)]
pub(crate) struct PoolCell {
    pub(crate) load_balancer: Name,
    pub(crate) name: Name,
    pub(crate) load: Arc<PoolLoad>,
    pub(crate) counters: PerShard<PoolCounters>,
    pub(crate) backends: BackendTotals,
}

/// What is known about a backend across changes.
#[derive(Debug)]
pub(crate) struct BackendCell {
    pub(crate) id: BackendId,
    /// How it was found last, if it was: of another instance at its address nothing is held against this one.
    found: Mutex<Option<Found>>,
    /// The address as text, for the `Host` of requests that have none.
    pub(crate) address_text: String,
    /// Key of its idle connections in each shard; never used twice.
    pub(crate) serial: u64,
    /// Whether the snapshot in force sends it requests; if not, no connection to it is kept.
    pub(crate) takes_requests: AtomicBool,
    pub(crate) connections: ConnectionCap,
    pub(crate) load: Arc<Load>,
    pub(crate) counters: PerShard<BackendCounters>,
    /// The pool that it counts for.
    pool: Arc<PoolCell>,
}

impl BackendCell {
    /// What requests meet from now on is of this membership. What is under way to the one before still takes its place:
    /// caps are of the address.
    fn is_now(&self, member: &Member, pool: &PoolCell) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *found, member.found.clone());
        let both = before.as_ref().zip(member.found.as_ref());
        let is_another = both.is_some_and(|(before, after)| before.is_followed_by(after));
        pool.load.set_membership(&self.load, member.life(), is_another);
    }
}

impl Drop for BackendCell {
    fn drop(&mut self) {
        self.pool.backends.leave(self.serial);
    }
}

/// Finds cells again by name for as long as anyone holds them.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: usize,
    /// Where ordered certificates stand.
    managed_dir: PathBuf,
    pub(crate) challenges: Arc<ChallengeStore>,
    /// What is signed with where the config says nothing, and what tables are seeded from.
    secrets: Vec<Secret>,
    next_serial: AtomicU64,
    /// Names that changes may have left behind since they were last looked at.
    left: AtomicUsize,
    backends: Mutex<HashMap<BackendId, Weak<BackendCell>>>,
    pools: Mutex<HashMap<(Name, Name), Weak<PoolCell>>>,
    load_balancers: Mutex<HashMap<Name, Weak<LbCell>>>,
    listeners: Mutex<HashMap<(Name, Name), Weak<ListenerCell>>>,
    limits: Mutex<HashMap<LimitId, Weak<LimitCell>>>,
    routes: Mutex<HashMap<(Name, Name), Weak<RouteTotals>>>,
    route_cells: Mutex<HashMap<(Name, Name), Weak<RouteCell>>>,
    sessions: Mutex<HashMap<(Name, Name, Learned), Weak<Sessions>>>,
}

/// Load balancer, route and the limit itself: one that changes begins anew.
type LimitId = (Name, Name, RateLimit);

impl Registry {
    pub(crate) fn new(shards: usize, managed_dir: PathBuf, secrets: Vec<Secret>) -> Self {
        Self {
            shards,
            secrets,
            managed_dir,
            challenges: Arc::default(),
            next_serial: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            backends: Mutex::default(),
            pools: Mutex::default(),
            load_balancers: Mutex::default(),
            listeners: Mutex::default(),
            limits: Mutex::default(),
            routes: Mutex::default(),
            route_cells: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    pub(crate) fn backend(&self, id: &BackendId) -> Option<Arc<BackendCell>> {
        self.backends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .and_then(Weak::upgrade)
    }

    fn backend_cell(&self, member: &Member, pool: &Arc<PoolCell>) -> Arc<BackendCell> {
        let cell = find_or(&self.backends, &member.id, || {
            let serial = self.next_serial.fetch_add(1, Relaxed);
            let counters = PerShard::new(self.shards);
            pool.backends.enter(serial, &counters);
            BackendCell {
                id: member.id.clone(),
                found: Mutex::default(),
                address_text: member.id.address.to_string(),
                serial,
                takes_requests: AtomicBool::new(true),
                connections: ConnectionCap::default(),
                load: Arc::new(Load::new()),
                counters,
                pool: pool.clone(),
            }
        });
        cell.is_now(member, pool);
        cell
    }

    fn pool_cell(&self, key: &(Name, Name)) -> Arc<PoolCell> {
        find_or(&self.pools, key, || PoolCell {
            load_balancer: key.0.clone(),
            name: key.1.clone(),
            load: Arc::new(PoolLoad::new()),
            counters: PerShard::new(self.shards),
            backends: BackendTotals::default(),
        })
    }

    fn lb_cell(&self, name: &Name) -> Arc<LbCell> {
        let new = || LbCell {
            name: name.clone(),
            counters: PerShard::new(self.shards),
        };
        find_or(&self.load_balancers, name, new)
    }

    fn listener_cell(&self, key: &(Name, Name)) -> Arc<ListenerCell> {
        find_or(&self.listeners, key, || ListenerCell {
            connections: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tls: PerShard::new(self.shards),
            http2: PerShard::new(self.shards),
        })
    }

    fn managed(&self, load_balancer: &Name, listener: &Listener) -> ManagedFiles {
        let wanted = Managed::of(load_balancer, listener);
        ManagedFiles {
            path: wanted.map(|wanted| wanted.path(&self.managed_dir)),
            challenges: self.challenges.clone(),
        }
    }

    /// Lets the queues of all pools refuse who has waited too long.
    pub(crate) fn sweep_queues(&self, now_us: u64) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |pool: &Arc<PoolCell>| pool.load.waiting() > 0;
        let waiting: Vec<_> = pools.values().filter_map(Weak::upgrade).filter(waiting).collect();
        drop(pools);
        waiting.iter().for_each(|pool| pool.load.sweep(now_us));
    }

    fn limit_cell(&self, id: &LimitId) -> Arc<LimitCell> {
        let (lb, route, limit) = id;
        let new = || {
            let seed = self.seed(&format!("limit {lb} {route} {}", limit.name));
            LimitCell::new(limit, self.shards, seed)
        };
        find_or(&self.limits, id, new)
    }

    fn route_counters(&self, key: &(Name, Name)) -> Arc<RouteTotals> {
        find_or(&self.routes, key, || PerShard::new(self.shards))
    }

    fn route_cell(&self, key: &(Name, Name)) -> Arc<RouteCell> {
        find_or(&self.route_cells, key, RouteCell::default)
    }

    fn sessions(&self, id: &(Name, Name, Learned)) -> Arc<Sessions> {
        let (lb, pool, learned) = id;
        let new = || Sessions::new(learned, self.seed(&format!("sessions {lb} {pool}")));
        find_or(&self.sessions, id, new)
    }

    /// A number that nobody can guess who does not know our secret.
    fn seed(&self, what: &str) -> u64 {
        let secret = self.secrets.first().map_or("", Secret::expose);
        derive_seed(secret.as_bytes(), what.as_bytes())
    }

    /// Forgets the names of cells that nobody holds any more, after a change that may have left so many of them
    /// behind. That is a look at every name, so it waits until there may be as many to forget as there are names.
    pub(crate) fn prune_after(&self, left: usize) {
        let names = count(&self.backends) + count(&self.routes) + count(&self.load_balancers);
        if self.left.fetch_add(left, Relaxed) + left < names {
            return;
        }
        self.left.store(0, Relaxed);
        prune(&self.backends);
        prune(&self.pools);
        prune(&self.load_balancers);
        prune(&self.listeners);
        prune(&self.limits);
        prune(&self.routes);
        prune(&self.route_cells);
        prune(&self.sessions);
    }
}

fn find_or<K: Eq + Hash + Clone, V>(
    map: &Mutex<HashMap<K, Weak<V>>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = map.get(key).and_then(Weak::upgrade) {
        return found;
    }
    let made = Arc::new(make());
    map.insert(key.clone(), Arc::downgrade(&made));
    made
}

fn count<K, V>(map: &Mutex<HashMap<K, Weak<V>>>) -> usize {
    map.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn prune<K: Eq + Hash, V>(map: &Mutex<HashMap<K, Weak<V>>>) {
    map.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|_, cell| cell.strong_count() > 0);
}

impl Serving {
    /// Builds what `snapshot` says, sharing with `previous` what did not change.
    pub(crate) fn build(
        snapshot: &Snapshot,
        previous: Option<&Self>,
        registry: &Registry,
        observing: Arc<Observing>,
    ) -> Self {
        let mut load_balancers = BTreeMap::new();
        let mut listeners = Vec::new();
        let secrets = match snapshot.config.node.secrets.as_slice() {
            [] => registry.secrets.clone(),
            given => given.to_vec(),
        };
        let signing = Signing {
            same: previous.is_some_and(|p| p.secrets == secrets),
            secrets: &secrets,
        };
        let quiet = previous.filter(|p| Arc::ptr_eq(&p.observing, &observing));
        for (name, config) in &snapshot.config.load_balancers {
            let before = previous.and_then(|p| p.load_balancers.get(name));
            let lb = build_lb(snapshot, config, before, registry, &signing);
            if let Some(previous) = quiet
                && before.is_some_and(|before| Arc::ptr_eq(before, &lb))
            {
                let same = config
                    .listeners
                    .iter()
                    .filter_map(|l| previous.listener(l.address));
                listeners.extend(same.cloned());
                load_balancers.insert(name.clone(), lb);
                continue;
            }
            for listener in &config.listeners {
                let tls = previous.and_then(|p| p.named(name, &listener.name));
                let managed = registry.managed(name, listener);
                let tls = listener_tls(listener, &managed, tls);
                let cell = registry.listener_cell(&(name.clone(), listener.name.clone()));
                listeners.push(Arc::new(ListenerServing {
                    observing: observing.clone(),
                    config: actions::raise_body_limit(listener, &config.routes),
                    body_limit: listener.limits.body_bytes,
                    lb: lb.clone(),
                    tls,
                    cell,
                }));
            }
            load_balancers.insert(name.clone(), lb);
        }
        let by_address = listeners.iter().map(|l| (l.config.address, l.clone()));
        Self {
            by_address: by_address.collect(),
            load_balancers,
            observing,
            listeners,
            max_connections: snapshot.config.node.max_connections,
            secrets,
        }
    }

    /// The listener configured for `address`.
    pub(crate) fn listener(&self, address: SocketAddr) -> Option<&Arc<ListenerServing>> {
        self.by_address.get(&address)
    }

    /// The listener of this name.
    fn named(&self, lb: &Name, name: &Name) -> Option<&Arc<ListenerServing>> {
        self.listeners_of(lb).iter().find(|l| l.config.name == *name)
    }

    fn listeners_of(&self, lb: &Name) -> &[Arc<ListenerServing>] {
        let begin = self.listeners.partition_point(|l| l.lb.config.name < *lb);
        let end = self.listeners.partition_point(|l| l.lb.config.name <= *lb);
        self.listeners.get(begin..end).unwrap_or_default()
    }

    /// Load balancers of which this and `other` do not have the very same.
    pub(crate) fn touched<'s>(&'s self, other: Option<&'s Self>) -> impl Iterator<Item = &'s Arc<LbServing>> {
        let other = move |lb: &LbServing| other.and_then(|o| o.load_balancers.get(&lb.config.name));
        let lbs = self.load_balancers.values();
        lbs.filter(move |lb| other(lb).is_none_or(|other| !Arc::ptr_eq(other, lb)))
    }

    /// What hinders TLS from working as configured: its place, and why.
    pub(crate) fn tls_problems(&self) -> Vec<(String, String)> {
        let listeners = self.listeners.iter().flat_map(|l| {
            let place = format!("listener {}/{}", l.lb.config.name, l.config.name);
            let problems = l.tls.iter().flat_map(|tls| tls.problems());
            problems.map(move |why| (place.clone(), why)).collect::<Vec<_>>()
        });
        let lbs = self.load_balancers.values();
        let pools = lbs.flat_map(|lb| {
            lb.pools.iter().filter_map(|pool| {
                let why = pool.tls.as_ref()?.problem()?;
                Some((format!("pool {}/{}", lb.config.name, pool.config.name), why))
            })
        });
        listeners.chain(pools).collect()
    }

    /// What belongs to this load balancer, to be looked at and not to be served from.
    pub(crate) fn part(&self, name: &Name) -> Self {
        let own = self.load_balancers.get_key_value(name).into_iter();
        let listeners = self
            .listeners
            .iter()
            .filter(|listener| listener.lb.config.name == *name);
        Self {
            observing: self.observing.clone(),
            load_balancers: own.map(|(name, lb)| (name.clone(), lb.clone())).collect(),
            listeners: listeners.cloned().collect(),
            by_address: HashMap::new(),
            max_connections: self.max_connections,
            secrets: Vec::new(),
        }
    }

    /// What would hinder TLS from working as `config` says, beside what is loaded already.
    pub(crate) fn tls_problems_of(&self, config: &Config, registry: &Registry) -> Vec<String> {
        let mut problems = Vec::new();
        let known = |name| self.load_balancers.get(name).map(|lb| &lb.config);
        let lbs = config.load_balancers.iter();
        for (name, lb) in lbs.filter(|(name, lb)| known(name).is_none_or(|known| !Arc::ptr_eq(known, lb))) {
            for listener in &lb.listeners {
                let known = self.named(name, &listener.name);
                let managed = registry.managed(name, listener);
                let loaded = listener_tls(listener, &managed, known);
                let found = loaded.iter().flat_map(|tls| tls.problems());
                problems.extend(found.map(|why| format!("listener {name}/{}: {why}", listener.name)));
            }
            let known = self.load_balancers.get(name);
            for pool in lb.pools.values() {
                let known = known.and_then(|lb| lb.pools.iter().find(|p| p.config.name == pool.name));
                let known = known.and_then(|p| p.tls.as_ref());
                let settings = pool.tls.as_ref();
                let loaded = settings.map(|settings| PoolTls::load(settings, pool, known));
                let why = loaded.and_then(|tls| tls.problem());
                problems.extend(why.map(|why| format!("pool {name}/{}: {why}", pool.name)));
            }
        }
        problems
    }

    /// Puts the caps and queues in force of all pools that are not in force already.
    pub(crate) fn install_queues(&self, previous: Option<&Self>, now_us: u64) {
        let pools = self.touched(previous).flat_map(|lb| lb.pools.iter());
        let queues = pools.filter(|p| p.balancer.is_capped() || p.cell.load.waiting() > 0);
        queues.for_each(|pool| pool.balancer.install(now_us));
    }

    /// Every backend of every pool.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&PoolServing, usize, &Arc<BackendCell>)> {
        backends(self.load_balancers.values())
    }
}

/// Every backend of these load balancers, with its pool and its place in it.
pub(crate) fn backends<'s>(
    load_balancers: impl Iterator<Item = &'s Arc<LbServing>>,
) -> impl Iterator<Item = (&'s PoolServing, usize, &'s Arc<BackendCell>)> {
    load_balancers.flat_map(|lb| lb.pools.iter()).flat_map(|pool| {
        let backends = pool.backends.iter().enumerate();
        backends.map(move |(i, b)| (pool.as_ref(), i, b))
    })
}

/// What a listener offers by ALPN, the best first.
pub(crate) fn protocols(listener: &Listener) -> Vec<&'static [u8]> {
    let mut protocols: Vec<&'static [u8]> = match listener.http2 {
        Some(_) => vec![b"h2", b"http/1.1"],
        None => vec![b"http/1.1"],
    };
    if listener.tls.as_ref().is_some_and(|tls| tls.acme.is_some()) {
        protocols.push(tls::ACME_TLS);
    }
    protocols
}

/// What was loaded before is taken over, if the same is offered by ALPN.
fn listener_tls(
    listener: &Listener,
    managed: &ManagedFiles,
    previous: Option<&Arc<ListenerServing>>,
) -> Option<Arc<ListenerTls>> {
    let settings = listener.tls.as_ref()?;
    let previous = previous.filter(|p| p.config.http2.is_some() == listener.http2.is_some());
    let previous = previous.and_then(|p| p.tls.as_ref());
    if let Some(same) = previous.filter(|p| p.settings == *settings) {
        return Some(same.clone());
    }
    let previous = previous.map(Arc::as_ref);
    Some(Arc::new(ListenerTls::load(
        settings,
        managed,
        previous,
        &protocols(listener),
    )))
}

/// What cookies are signed with, and whether it was so before.
struct Signing<'a> {
    secrets: &'a [Secret],
    same: bool,
}

fn build_lb(
    snapshot: &Snapshot,
    config: &Arc<LoadBalancer>,
    before: Option<&Arc<LbServing>>,
    registry: &Registry,
    signing: &Signing<'_>,
) -> Arc<LbServing> {
    let mut pools = Vec::new();
    for name in config.pools.keys() {
        let Some(state) = snapshot.pool(&config.name, name) else {
            continue;
        };
        let known = before.and_then(|b| b.pools.iter().find(|p| Arc::ptr_eq(p.balancer.state(), state)));
        let known = known.filter(|pool| pool.sticky.is_none() || signing.same);
        pools.push(known.cloned().unwrap_or_else(|| {
            let named = before.and_then(|b| b.pools.iter().find(|p| p.config.name == *name));
            let tls = named.and_then(|p| p.tls.as_ref());
            Arc::new(build_pool(state, tls, registry, signing))
        }));
    }
    let orders = snapshot.route_orders(&config.name);
    let same_config = before.filter(|before| Arc::ptr_eq(&before.config, config));
    if let Some(before) = same_config
        && before.orders == orders
        && before.pools.len() == pools.len()
        && before.pools.iter().zip(&pools).all(|(a, b)| Arc::ptr_eq(a, b))
    {
        return before.clone();
    }
    let index_of = |name: &Name| pools.iter().position(|p| p.config.name == *name);
    let targets = routing::targets(config, |route| orders.get(route).cloned(), index_of);
    Arc::new(LbServing {
        router: same_config.map_or_else(|| Arc::new(Router::new(config)), |before| before.router.clone()),
        targets,
        route_limits: route_limits(config, registry),
        route_counters: route_counters(config, registry),
        orders,
        acting: config.routes.iter().map(actions::acts).collect(),
        route_cells: route_cells(config, registry),
        pools,
        cell: registry.lb_cell(&config.name),
        config: config.clone(),
    })
}

fn route_limits(config: &LoadBalancer, registry: &Registry) -> Vec<Vec<Arc<LimitCell>>> {
    let of_route = |route: &Route| {
        let limits = route.rate_limits.iter();
        limits
            .map(|limit| registry.limit_cell(&(config.name.clone(), route.name.clone(), limit.clone())))
            .collect()
    };
    config.routes.iter().map(of_route).collect()
}

fn route_counters(config: &LoadBalancer, registry: &Registry) -> Vec<Arc<RouteTotals>> {
    let routes = config.routes.iter();
    routes
        .map(|route| registry.route_counters(&(config.name.clone(), route.name.clone())))
        .collect()
}

fn route_cells(config: &LoadBalancer, registry: &Registry) -> Vec<Arc<RouteCell>> {
    let routes = config.routes.iter();
    routes
        .map(|route| registry.route_cell(&(config.name.clone(), route.name.clone())))
        .collect()
}

fn build_pool(
    state: &Arc<PoolState>,
    tls: Option<&Arc<PoolTls>>,
    registry: &Registry,
    signing: &Signing<'_>,
) -> PoolServing {
    let cell = registry.pool_cell(&(state.load_balancer.clone(), state.config.name.clone()));
    let backends: Vec<_> = state
        .members
        .iter()
        .map(|member| registry.backend_cell(member, &cell))
        .collect();
    let loads = backends.iter().map(|b| b.load.clone()).collect();
    for (index, (member, backend)) in state.members.iter().zip(&backends).enumerate() {
        backend.takes_requests.store(member.is_used(), Relaxed);
        backend.connections.set(state.config.max_connections(index));
    }
    let balancer = Balancer::new(state.clone(), cell.load.clone(), loads);
    let settings = state.config.tls.as_ref();
    let secrets: Vec<&[u8]> = signing.secrets.iter().map(|s| s.expose().as_bytes()).collect();
    let sessions = |learned: &Learned| {
        let (lb, pool) = (state.load_balancer.clone(), state.config.name.clone());
        registry.sessions(&(lb, pool, learned.clone()))
    };
    PoolServing {
        sticky: StickyServing::new(state, &secrets, sessions),
        tls: settings.map(|settings| PoolTls::load(settings, &state.config, tls)),
        config: state.config.clone(),
        balancer,
        backends,
        cell,
    }
}
