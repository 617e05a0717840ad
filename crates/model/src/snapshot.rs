//! The snapshot: an immutable view from which every request is served.
//!
//! A pure function of the three layers and of the snapshot before it: the previous one is what tells a backend
//! that *returned* (and ramps up) from one that was always there, and it lends its parts where nothing changed.
//!
//! Among a thousand load balancers a verdict is about one. So a snapshot remembers what each load balancer's pools
//! were made of; where the next one is made of the same, and no time of it is over, they are taken as they are
//! without a look at their backends.

#[cfg(test)]
mod incremental;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AllDown, Backend, Config, LoadBalancer, MAX_WEIGHT, Name, Pool};
use crate::parse::MAX_BACKENDS;
use crate::state::{
    BackendId, ByLoadBalancer, Ejection, Found, Health, HealthState, Members, Mode, Observed, Override,
    OverrideKey, Overrides, PoolKey, PoolMembers, RouteKey, RouteOrder, Source, Timestamp,
};

/// Weights in effect are in hundredths of a configured weight, so that slow start has steps to climb.
pub const WEIGHT_SCALE: u32 = 100;

/// Steps of a slow start: a tenth of the weight each.
const RAMP_STEPS: u32 = 10;

/// What is served: config plus the state of every pool.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Revision of the config: grows with each accepted change of it, not with health.
    pub revision: u64,
    /// The desired layer.
    pub config: Arc<Config>,
    /// State of each pool of each load balancer.
    pub pools: BTreeMap<(Name, Name), Arc<PoolState>>,
    /// Orders in force for the weights of splits.
    pub routes: ByLoadBalancer<RouteKey, Arc<RouteOrder>>,
    /// What was found of the members of pools beside those declared.
    pub found: Members,
    /// Of what, by load balancer.
    made_of: BTreeMap<Name, MadeOf>,
    /// The first time at which that alone gives another snapshot.
    next_change: Option<Timestamp>,
}

impl PartialEq for Snapshot {
    /// Whether the same is served; of what it was made is no part of that.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            revision,
            config,
            pools,
            routes,
            found,
            made_of: _,
            next_change: _,
        } = self;
        *revision == other.revision
            && *config == other.config
            && *pools == other.pools
            && *found == other.found
            && *routes == other.routes
    }
}

impl Eq for Snapshot {}

/// What the pools of a load balancer were made of.
#[derive(Clone, Debug)]
struct MadeOf {
    config: Arc<LoadBalancer>,
    orders: Option<Arc<BTreeMap<OverrideKey, Override>>>,
    health: Option<Arc<BTreeMap<BackendId, HealthState>>>,
    ejections: Option<Arc<BTreeMap<BackendId, Ejection>>>,
    silent: Option<Arc<BTreeMap<BackendId, HealthState>>>,
    found: Option<Arc<BTreeMap<PoolKey, Arc<PoolMembers>>>>,
    /// When the same would make something else.
    until: Option<Timestamp>,
}

/// A pool with the state of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Load balancer it belongs to.
    pub load_balancer: Name,
    /// The pool as declared.
    pub config: Arc<Pool>,
    /// One per declared backend, in the order declared; then those that were found, in order of address. At most
    /// [`MAX_BACKENDS`].
    pub members: Vec<Member>,
    /// Found ones that had no room.
    pub left_out: usize,
    /// No member is eligible of itself: [`AllDown`] decides who is used.
    pub all_down: bool,
}

/// One backend in one pool with everything known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub id: BackendId,
    /// What its source says of it; `None`: it is declared.
    pub found: Option<Found>,
    /// Weight as declared, told by its source, or ordered, without slow start.
    pub weight: u32,
    /// Weight in effect in hundredths; 0 takes no new requests.
    pub effective_weight: u32,
    /// Whether it takes new requests, or why not.
    pub eligibility: Eligibility,
    /// Last verdict of the checks.
    pub health: HealthState,
    /// Ejection in force.
    pub ejection: Option<Ejection>,
    /// The operator's order in force.
    pub order: Option<Override>,
    /// Start of the slow start it is in.
    pub ramp_since: Option<Timestamp>,
    /// Ordered to drain, but the requests of the sessions that it has still go there
    /// ([`crate::config::Sticky::drain_timeout`]).
    pub keeps_sessions: bool,
}

impl Member {
    /// Where it was learnt of.
    pub fn source(&self) -> Source {
        self.found.as_ref().map_or(Source::Declared, |found| found.source)
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.order.as_ref().map_or(Mode::Ready, |o| o.mode)
    }

    /// The number of its membership ([`Found::life`]); 0 where nobody counts.
    pub fn life(&self) -> u64 {
        self.found.as_ref().map_or(0, |found| found.life)
    }

    /// Whether `after`, at the same address of the same pool, is another member.
    pub fn is_followed_by(&self, after: &Self) -> bool {
        let both = self.found.as_ref().zip(after.found.as_ref());
        both.is_some_and(|(before, after)| before.is_followed_by(after))
    }

    /// Whether any request goes there: new ones, or those of old sessions.
    pub fn is_used(&self) -> bool {
        self.eligibility.takes_requests() || self.keeps_sessions
    }
}

/// Whether a member takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It does.
    Eligible,
    /// It would not, but the pool is all down and fails open.
    FailOpen,
    /// Ordered to drain.
    Draining,
    /// Ordered into maintenance.
    Maintenance,
    /// Checks say down.
    Down,
    /// Ejected by what requests met.
    Ejected,
    /// Weight 0.
    ZeroWeight,
    /// Found, and not seen to work yet: takes requests after its first successful check.
    AwaitsCheck,
}

impl Eligibility {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Eligible,
        Self::FailOpen,
        Self::Draining,
        Self::Maintenance,
        Self::Down,
        Self::Ejected,
        Self::ZeroWeight,
        Self::AwaitsCheck,
    ];

    /// Whether new requests may go there.
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Eligible | Self::FailOpen)
    }

    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::FailOpen => "fail_open",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::ZeroWeight => "zero_weight",
            Self::AwaitsCheck => "awaits_check",
        }
    }
}

/// The layers a snapshot is made of.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Revision of `config`.
    pub revision: u64,
    /// Desired.
    pub config: &'a Arc<Config>,
    /// Orders.
    pub overrides: &'a Overrides,
    /// Found.
    pub observed: &'a Observed,
}

impl PoolState {
    /// The weight of the member at this place as declared, or as its source tells it: without orders and slow start.
    pub fn told_weight(&self, index: usize) -> Option<u32> {
        let found = || Some(self.members.get(index)?.found.as_ref()?.weight);
        self.config.backends.get(index).map(|b| b.weight).or_else(found)
    }
}

impl Snapshot {
    /// Builds the snapshot in force at `now`. Parts that equal those of `previous` are shared with it; `now` is not
    /// before the time of `previous`.
    pub fn build(layers: Layers<'_>, previous: Option<&Self>, now: Timestamp) -> Self {
        let mut pools = BTreeMap::new();
        let mut made_of = BTreeMap::new();
        for (name, lb) in &layers.config.load_balancers {
            let mut of = MadeOf::new(layers, lb);
            let before = previous.and_then(|p| Some((p, p.made_of.get(name)?)));
            let same = before.filter(|(_, before)| of.is(before) && before.until.is_none_or(|at| at > now));
            let known = |pool: &Name| previous.and_then(|p| p.pool(name, pool));
            for (pool_name, pool) in &lb.pools {
                let state = match known(pool_name) {
                    Some(known) if same.is_some() => known.clone(),
                    known => of.pool(name, pool, known, now),
                };
                pools.insert((name.clone(), pool_name.clone()), state);
            }
            if let Some((_, before)) = same {
                of.until = before.until;
            }
            made_of.insert(name.clone(), of);
        }
        let routes = build_routes(layers, previous, now);
        let ends = routes.values().filter_map(|order| order.expires);
        let next_change = made_of.values().filter_map(|of| of.until).chain(ends).min();
        Self {
            revision: layers.revision,
            config: layers.config.clone(),
            pools,
            routes,
            found: layers.observed.members.clone(),
            made_of,
            next_change,
        }
    }

    /// When the same layers would next give another snapshot: an order or ejection that ends, a slow start that
    /// climbs. `None` when time alone changes nothing.
    pub fn next_change(&self) -> Option<Timestamp> {
        self.next_change
    }

    /// Orders in force for the splits of a load balancer, by route.
    pub fn route_orders(&self, load_balancer: &Name) -> BTreeMap<Name, Arc<RouteOrder>> {
        let own = self.routes.part(load_balancer);
        let own = own.into_iter().flat_map(|own| own.iter());
        own.map(|(key, order)| (key.route.clone(), order.clone()))
            .collect()
    }

    /// State of one pool.
    pub fn pool(&self, load_balancer: &Name, pool: &Name) -> Option<&Arc<PoolState>> {
        self.pools.get(&(load_balancer.clone(), pool.clone()))
    }
}

fn build_routes(
    layers: Layers<'_>,
    previous: Option<&Snapshot>,
    now: Timestamp,
) -> ByLoadBalancer<RouteKey, Arc<RouteOrder>> {
    let in_force = |key: &RouteKey, order: &RouteOrder| {
        order.expires.is_none_or(|expires| expires > now)
            && key.split(layers.config).is_some_and(|split| order.fits(split))
    };
    let orders = layers
        .overrides
        .routes
        .iter()
        .filter(|(key, order)| in_force(key, order));
    orders
        .map(|(key, order)| {
            let before = previous.and_then(|previous| previous.routes.get(key));
            let same = before.filter(|before| ***before == *order).cloned();
            (key.clone(), same.unwrap_or_else(|| Arc::new(order.clone())))
        })
        .collect()
}

impl MadeOf {
    fn new(layers: Layers<'_>, lb: &Arc<LoadBalancer>) -> Self {
        Self {
            config: lb.clone(),
            orders: layers.overrides.backends.part(&lb.name).cloned(),
            health: layers.observed.health.part(&lb.name).cloned(),
            ejections: layers.observed.ejections.part(&lb.name).cloned(),
            silent: layers.observed.silent.part(&lb.name).cloned(),
            found: layers.observed.members.part(&lb.name).cloned(),
            until: None,
        }
    }

    /// Whether both are made of the same. What is shared is not looked into.
    fn is(&self, other: &Self) -> bool {
        self.config == other.config
            && self.orders == other.orders
            && self.health == other.health
            && self.ejections == other.ejections
            && self.silent == other.silent
            && self.found == other.found
    }

    /// Members of a pool that are not declared, in order of address.
    fn found_in(&self, load_balancer: &Name, pool: &Pool) -> BTreeMap<SocketAddr, &Found> {
        if !pool.membership.is_dynamic() {
            return BTreeMap::new();
        }
        let key = (load_balancer.clone(), pool.name.clone());
        let members = self.found.as_ref().and_then(|found| found.get(&key));
        let mut found = members
            .map(|members| members.merged(&pool.membership))
            .unwrap_or_default();
        if !found.is_empty() {
            for backend in &pool.backends {
                found.remove(&backend.address);
            }
        }
        found
    }

    /// Builds a pool; the state `before` when it is the same again.
    fn pool(
        &mut self,
        load_balancer: &Name,
        pool: &Arc<Pool>,
        before: Option<&Arc<PoolState>>,
        now: Timestamp,
    ) -> Arc<PoolState> {
        let built = build_pool(self, load_balancer, pool, before.map(Arc::as_ref), now);
        let changes = built
            .members
            .iter()
            .filter_map(|m| next_member_change(&built, m, now));
        self.until = changes.chain(self.until).min();
        let same = before.filter(|before| ***before == built).cloned();
        same.unwrap_or_else(|| Arc::new(built))
    }
}

fn build_pool(
    of: &MadeOf,
    load_balancer: &Name,
    pool: &Arc<Pool>,
    before: Option<&PoolState>,
    now: Timestamp,
) -> PoolState {
    let id = |address| BackendId {
        load_balancer: load_balancer.clone(),
        pool: pool.name.clone(),
        address,
    };
    let mut members: Vec<Member> = pool
        .backends
        .iter()
        .map(|backend| build_member(of, id(backend.address), Told::Declared(backend), pool, now))
        .collect();
    let found = of.found_in(load_balancer, pool);
    let room = MAX_BACKENDS.saturating_sub(members.len());
    let left_out = found.len().saturating_sub(room);
    let found = found.into_iter().take(room);
    members
        .extend(found.map(|(address, found)| build_member(of, id(address), Told::Found(found), pool, now)));
    let all_down = !members.iter().any(|m| m.eligibility == Eligibility::Eligible);
    if all_down && pool.all_down == AllDown::FailOpen {
        for member in &mut members {
            if matches!(member.eligibility, Eligibility::Down | Eligibility::Ejected) {
                member.eligibility = Eligibility::FailOpen;
            }
        }
    }
    let before = before.filter(|before| !before.all_down && !pool.slow_start.is_zero());
    let known: Option<BTreeMap<SocketAddr, &Member>> =
        before.map(|before| before.members.iter().map(|m| (m.id.address, m)).collect());
    for member in &mut members {
        member.ramp_since = known.as_ref().and_then(|known| ramp_start(member, known, now));
        member.effective_weight = effective_weight(member, pool.slow_start, now);
        if member.ramp_since.is_some_and(|s| now.since(s) >= pool.slow_start) {
            member.ramp_since = None;
        }
    }
    PoolState {
        load_balancer: load_balancer.clone(),
        config: pool.clone(),
        members,
        left_out,
        all_down,
    }
}

/// Who says that there is such a member.
#[derive(Clone, Copy)]
enum Told<'a> {
    Declared(&'a Backend),
    Found(&'a Found),
}

impl<'a> Told<'a> {
    fn weight(self) -> u32 {
        match self {
            Self::Declared(backend) => backend.weight,
            Self::Found(found) => found.weight,
        }
    }

    fn found(self) -> Option<&'a Found> {
        match self {
            Self::Declared(_) => None,
            Self::Found(found) => Some(found),
        }
    }
}

fn build_member(of: &MadeOf, id: BackendId, told: Told<'_>, pool: &Pool, now: Timestamp) -> Member {
    let key = OverrideKey {
        load_balancer: id.load_balancer.clone(),
        address: id.address,
    };
    let orders = of.orders.as_ref();
    let order = orders
        .and_then(|orders| orders.get(&key))
        .filter(|o| o.expires.is_none_or(|e| e > now))
        .cloned();
    let health = health_of(of, &id, told, pool);
    let ejections = of.ejections.as_ref();
    let ejection = ejections
        .and_then(|ejections| ejections.get(&id))
        .filter(|e| e.until > now && pool.passive.is_some())
        .cloned();
    let ordered = order.as_ref().and_then(|o| o.weight);
    let weight = ordered.unwrap_or_else(|| told.weight()).min(MAX_WEIGHT);
    let mode = order.as_ref().map_or(Mode::Ready, |o| o.mode);
    let leaves = told.found().and_then(|found| found.draining);
    let awaits_check = pool.health.is_some()
        && health.health != Health::Up
        && told.found().is_some_and(|found| !found.proven);
    let eligibility = match mode {
        Mode::Maintenance => Eligibility::Maintenance,
        Mode::Drain => Eligibility::Draining,
        Mode::Ready if leaves.is_some() => Eligibility::Draining,
        Mode::Ready if weight == 0 => Eligibility::ZeroWeight,
        Mode::Ready if awaits_check => Eligibility::AwaitsCheck,
        Mode::Ready if health.health == Health::Down => Eligibility::Down,
        Mode::Ready if ejection.is_some() => Eligibility::Ejected,
        Mode::Ready => Eligibility::Eligible,
    };
    let keeps_sessions = eligibility == Eligibility::Draining
        && health.health != Health::Down
        && ejection.is_none()
        && sessions_until(pool, order.as_ref(), leaves).is_some_and(|until| now < until);
    Member {
        id,
        found: told.found().cloned(),
        weight,
        effective_weight: 0,
        eligibility,
        health,
        ejection,
        order,
        ramp_since: None,
        keeps_sessions,
    }
}

/// What checks and heartbeats say of a member.
fn health_of(of: &MadeOf, id: &BackendId, told: Told<'_>, pool: &Pool) -> HealthState {
    // Who should be heard and is not is down, whatever the check says.
    let heard = pool.membership.heartbeat.is_some()
        && told
            .found()
            .is_none_or(|found| found.source != Source::Registered);
    let silent = of.silent.as_ref().filter(|_| heard);
    if let Some(silent) = silent.and_then(|silent| silent.get(id)) {
        return silent.clone();
    }
    let unchecked = |reason: &str| HealthState {
        health: Health::Unchecked,
        reason: reason.into(),
        since: Timestamp(0),
    };
    match &pool.health {
        Some(_) => of
            .health
            .as_ref()
            .and_then(|health| health.get(id).cloned())
            .unwrap_or_else(|| unchecked("not checked yet")),
        None => unchecked("no active check"),
    }
}

/// Until when a drained member keeps the sessions that it has.
fn sessions_until(pool: &Pool, order: Option<&Override>, leaves: Option<Timestamp>) -> Option<Timestamp> {
    let drain = order.filter(|o| o.mode == Mode::Drain).map(|o| o.since);
    let since = drain.or(leaves)?;
    let sticky = pool.sticky.as_ref().filter(|s| !s.drain_timeout.is_zero())?;
    Some(since.plus(sticky.drain_timeout))
}

/// A ramp starts when a member becomes eligible beside others that already were, or takes the place of one that was;
/// a pool that starts or returns as a whole has nobody to lean on and takes full weight at once. `known` are the members
/// of a pool that was not all down.
fn ramp_start(member: &Member, known: &BTreeMap<SocketAddr, &Member>, now: Timestamp) -> Option<Timestamp> {
    if member.eligibility != Eligibility::Eligible {
        return None;
    }
    match known.get(&member.id.address) {
        Some(known) if known.eligibility == Eligibility::Eligible && !known.is_followed_by(member) => {
            known.ramp_since
        }
        _ => Some(now),
    }
}

fn effective_weight(member: &Member, slow_start: Duration, now: Timestamp) -> u32 {
    if !member.eligibility.takes_requests() {
        return 0;
    }
    let full = member.weight * WEIGHT_SCALE;
    let Some(since) = member.ramp_since else {
        return full;
    };
    let climbed = ramp_step(now.since(since), slow_start)
        .saturating_add(1)
        .min(RAMP_STEPS);
    (full / RAMP_STEPS * climbed).max(1)
}

/// Whole steps of a slow start that have passed; [`RAMP_STEPS`] when it is over.
fn ramp_step(elapsed: Duration, slow_start: Duration) -> u32 {
    let passed = elapsed.as_millis().saturating_mul(u128::from(RAMP_STEPS)) / slow_start.as_millis().max(1);
    u32::try_from(passed).unwrap_or(RAMP_STEPS).min(RAMP_STEPS)
}

fn next_member_change(pool: &PoolState, member: &Member, now: Timestamp) -> Option<Timestamp> {
    let expiry = member.order.as_ref().and_then(|o| o.expires);
    let ejection = member.ejection.as_ref().map(|e| e.until);
    let ramp = member.ramp_since.map(|since| {
        let slow_start = pool.config.slow_start;
        let next = u128::from(ramp_step(now.since(since), slow_start)) + 1;
        let elapsed = (slow_start.as_millis() * next).div_ceil(u128::from(RAMP_STEPS));
        Timestamp(since.0.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX)))
    });
    let leaves = member.found.as_ref().and_then(|found| found.draining);
    let sessions =
        sessions_until(&pool.config, member.order.as_ref(), leaves).filter(|_| member.keeps_sessions);
    [expiry, ejection, ramp, sessions].into_iter().flatten().min()
}
