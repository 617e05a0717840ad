//! The hub's brain: owns the three layers and decides what follows from each thing that happens.
//!
//! Pure: [`Core::handle`] takes the time and an [`Input`] and answers with [`Effect`]s; it reads no clock and
//! does no IO. The order of effects is the order in which the shell must carry them out. Time must not run
//! backwards between calls by more than the wall clock itself does; if it does, orders and ejections only last
//! longer.
//!
//! Two rules it keeps: a config that was refused changes nothing but the record of the refusal, and an order
//! enters the state only when it is already on disk ([`Core::plan`], then [`Input::Ordered`]).

mod circle;
mod members;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::Desired;
use cluster::orders::{InForce, OrderKey};
use console::OrderError;
use dataplane::CertificateNews;
use model::cluster::ClusterNews;
use model::config::{Config, MAX_SPLIT_WEIGHT, MAX_WEIGHT, Name};
use model::node::NodeEvent;
use model::snapshot::{Layers, Snapshot};
use model::state::{
    BackendId, ByLoadBalancer, CircuitMoved, Ejected, Ejection, Health, HealthState, Members, Observed,
    Order, OrderAction, Override, OverrideKey, Overrides, Report, RouteKey, RouteOrder, RouteWeights,
    Silence, Target, Timestamp, Verdict,
};
use model::status::{ConfigStatus, Event, ListenerStatus, MAX_EVENTS, ReloadStatus};
use orchestrator::acme::AcmeEvent;

use self::circle::Circle;
use super::backends::{Known, Probed};
use super::changes::{self, Kind};
use super::declared::Declared;
use super::view::{Counts, Loads, Reloads, View};

/// Lines kept of one reload's result; a file of nonsense must not fill the memory.
const MAX_RELOAD_MESSAGES: usize = 100;
/// Changes named in a reload's event and log line; all are in the reload's result.
const CHANGES_IN_EVENT: usize = 8;

/// How long until a listener that could not be opened is tried again.
const LISTENER_RETRY: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An order for a route was stored.
    RouteOrdered {
        /// The order, for the record.
        order: RouteWeights,
        /// All overrides with it.
        overrides: Overrides,
    },
    /// The database of countries was read, or could not be.
    Geoip {
        /// The file.
        path: PathBuf,
        /// Why it could not be.
        result: Result<(), String>,
    },
    /// Members of an earlier life of this process; given before anything else.
    Remembered(Members),
    /// What sources say of the members of pools.
    Members(Vec<Report>),
    /// Members fell silent, or are heard again.
    Silence(Vec<Silence>),
    /// Active checks reached verdicts.
    Verdicts(Vec<Verdict>),
    /// The data plane ejected a backend; already in force there.
    Ejected(Ejected),
    /// Something about a certificate; in force already.
    Certificate(CertificateNews),
    /// An order for a certificate has ended.
    CertificateOrdered(AcmeEvent),
    /// The circuit breaker of a pool opened or closed.
    CircuitMoved(CircuitMoved),
    /// Something happened among the orchestrators.
    Cluster(ClusterNews),
    /// An order was stored.
    Ordered {
        /// The order, for the record.
        order: Order,
        /// All overrides with it.
        overrides: Overrides,
    },
    /// The orders as they stand now, by whomever.
    OrdersSeen(Overrides),
    /// A new file was read, is valid with what the store has, and its listeners can be opened.
    Loaded(Declared),
    /// The store has something new, likewise.
    Applied(Declared),
    /// What the store has was refused, with every reason.
    ApplyRefused {
        /// Its revision.
        revision: u64,
        /// Why.
        reasons: Vec<String>,
    },
    /// A new config was refused, with every reason.
    Refused(Vec<String>),
    /// The listeners of the data plane after a publish.
    Listeners(Vec<(Name, ListenerStatus)>),
    /// A node of the cluster came or went.
    Node(NodeEvent),
    /// Time has passed: [`Core::deadline`] is over.
    Time,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Serve from this snapshot.
    Publish(Arc<Snapshot>),
    /// Check exactly these backends.
    Probe(Vec<Target>),
    /// These orders are about what is no longer configured.
    Forget(Vec<(OrderKey, InForce)>),
    /// Keep these members for the next start; failing is logged.
    Remember(Members),
    /// Log this event; it is in the view already.
    Log(Arc<Event>),
}

/// The three layers and what is remembered beside them.
#[derive(Debug)]
pub(crate) struct Core {
    source: String,
    revision: u64,
    declared: Declared,
    config: Arc<Config>,
    config_since: Timestamp,
    last_reload: Option<ReloadStatus>,
    reloads: Reloads,
    overrides: Overrides,
    observed: Observed,
    snapshot: Arc<Snapshot>,
    probed: BTreeMap<(Name, Name), Arc<Probed>>,
    open_listeners: BTreeSet<(Name, Name, SocketAddr)>,
    failed_listeners: BTreeMap<(Name, Name, SocketAddr), String>,
    listener_retry: Option<Timestamp>,
    counts: Arc<ByLoadBalancer<BackendId, Counts>>,
    /// How busy members say that they are.
    loads: Arc<Loads>,
    /// Ordered backends that are not there, since when.
    gone: BTreeMap<OverrideKey, Timestamp>,
    /// All orders that stand, also about what is not configured now: with a change that is taken back it is again.
    standing: Overrides,
    circle: Circle,
    events: VecDeque<Arc<Event>>,
}

impl Core {
    /// Starts with a config and the overrides of the last run. The effects publish the first snapshot again,
    /// which is harmless, and begin the checks.
    pub(crate) fn new(
        now: Timestamp,
        source: String,
        declared: Declared,
        overrides: Overrides,
    ) -> (Self, Vec<Effect>) {
        let config = declared.config.clone();
        let observed = Observed::default();
        let snapshot = Arc::new(Snapshot::build(
            Layers {
                revision: 1,
                config: &config,
                overrides: &overrides,
                observed: &observed,
            },
            None,
            now,
        ));
        let mut core = Self {
            source,
            revision: 1,
            declared,
            config,
            config_since: now,
            last_reload: None,
            reloads: Reloads::default(),
            standing: overrides.clone(),
            overrides,
            observed,
            snapshot,
            probed: BTreeMap::new(),
            open_listeners: BTreeSet::new(),
            failed_listeners: BTreeMap::new(),
            listener_retry: None,
            counts: Arc::default(),
            loads: Arc::default(),
            gone: BTreeMap::new(),
            circle: Circle::default(),
            events: VecDeque::new(),
        };
        let mut effects = Vec::new();
        core.look_at_own_addresses(now, &mut effects);
        core.drop_lapsed_orders(now, &mut effects);
        let all: BTreeSet<Name> = core.overrides.load_balancers().cloned().collect();
        core.forget_unknown_backends(now, &all, &mut effects);
        for change in changes::between(None, &core.snapshot) {
            core.record(now, change, &mut effects);
        }
        core.update_probes(&mut effects);
        (core, effects)
    }

    /// Takes one input and says what follows.
    pub(crate) fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut targets_may_change = !matches!(
            input,
            Input::Verdicts(_)
                | Input::Ejected(_)
                | Input::Certificate(_)
                | Input::CertificateOrdered(_)
                | Input::CircuitMoved(_)
                | Input::Cluster(_)
        );
        match input {
            Input::Remembered(members) => self.remember(now, members),
            Input::Members(reports) => self.take_reports(now, reports, &mut effects),
            Input::Silence(news) => self.take_silence(now, news, &mut effects),
            Input::Verdicts(verdicts) => self.take_verdicts(now, verdicts, &mut effects),
            Input::Ejected(ejected) => self.take_ejection(now, ejected, &mut effects),
            Input::CertificateOrdered(event) => {
                self.record(now, changes::certificate_ordered(event, now), &mut effects);
            }
            Input::Certificate(news) => self.record(now, changes::certificate(news), &mut effects),
            Input::Cluster(news) => self.record(now, changes::cluster(news), &mut effects),
            Input::CircuitMoved(moved) => self.record(now, changes::circuit_moved(&moved), &mut effects),
            Input::Ordered { order, overrides } => {
                self.standing = overrides;
                self.overrides = self.of_this_config();
                self.record(now, changes::ordered(&order), &mut effects);
            }
            Input::RouteOrdered { order, overrides } => {
                self.standing = overrides;
                self.overrides = self.of_this_config();
                self.record(now, changes::weighed(&order), &mut effects);
            }
            Input::OrdersSeen(overrides) => {
                self.standing = overrides;
                self.look_at_orders(now, &mut effects);
            }
            Input::Geoip { path, result } => {
                self.record(now, changes::geoip(&path, result), &mut effects);
            }
            Input::Loaded(declared) => self.take_config(now, declared, &mut effects),
            Input::Applied(declared) => self.apply_stored(now, declared, &mut effects),
            Input::ApplyRefused { revision, reasons } => {
                let refused = changes::apply_refused(revision, &reasons);
                // Tried again and again; told once.
                let last = self.events.iter().rev().find(|event| {
                    [Kind::Applied, Kind::ApplyRefused]
                        .iter()
                        .any(|kind| kind.as_str() == event.kind)
                });
                if last.is_none_or(|last| last.message != refused.2) {
                    self.record(now, refused, &mut effects);
                }
            }
            Input::Refused(reasons) => self.refuse_config(now, reasons, &mut effects),
            Input::Listeners(listeners) => self.take_listeners(now, listeners, &mut effects),
            Input::Node(event) => self.record(now, changes::node(&event), &mut effects),
            Input::Time => {}
        }
        self.forget_orphans(now, &mut effects);
        targets_may_change |= self.drop_lapsed_orders(now, &mut effects);
        self.rebuild(now, &mut effects);
        self.retry_listeners(now, &mut effects);
        if targets_may_change {
            self.update_probes(&mut effects);
        }
        self.check_invariants();
        effects
    }

    /// When [`Input::Time`] must be given next.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.snapshot
            .next_change()
            .into_iter()
            .chain(self.listener_retry)
            .chain(self.next_orphan())
            .min()
    }

    /// Whether this order makes sense; nothing changes.
    pub(crate) fn check(&self, order: &Order) -> Result<(), OrderError> {
        let Some(lb) = self.config.load_balancers.get(&order.key.load_balancer) else {
            let known = self.config.load_balancers.keys().cloned().collect();
            let name = order.key.load_balancer.clone();
            return Err(OrderError::UnknownLoadBalancer { name, known });
        };
        let pools = lb
            .pools
            .keys()
            .filter_map(|pool| self.snapshot.pool(&lb.name, pool));
        let known: BTreeSet<SocketAddr> = pools
            .flat_map(|pool| pool.members.iter().map(|member| member.id.address))
            .collect();
        // An order may outlive a member that was found, and must not be past changing.
        if !known.contains(&order.key.address) && !self.overrides.backends.contains_key(&order.key) {
            return Err(OrderError::UnknownBackend {
                load_balancer: lb.name.clone(),
                address: order.key.address,
                known: known.into_iter().collect(),
            });
        }
        match order.action {
            OrderAction::Weight(weight) if weight > MAX_WEIGHT => Err(OrderError::BadWeight(weight)),
            _ => Ok(()),
        }
    }

    /// Whether this order for a route makes sense; nothing changes.
    pub(crate) fn check_weights(&self, now: Timestamp, order: &RouteWeights) -> Result<(), OrderError> {
        let key = &order.key;
        let Some(lb) = self.config.load_balancers.get(&key.load_balancer) else {
            let known = self.config.load_balancers.keys().cloned().collect();
            let name = key.load_balancer.clone();
            return Err(OrderError::UnknownLoadBalancer { name, known });
        };
        if !lb.routes.iter().any(|route| route.name == key.route) {
            return Err(OrderError::UnknownRoute {
                load_balancer: lb.name.clone(),
                route: key.route.clone(),
                known: lb.routes.iter().map(|route| route.name.clone()).collect(),
            });
        }
        let Some(split) = key.split(&self.config) else {
            return Err(OrderError::NoSplit(key.clone()));
        };
        let Some(in_force) = order.in_force(now) else {
            return Ok(());
        };
        let weights = &in_force.weights;
        if let Some(weight) = weights.values().find(|weight| **weight > MAX_SPLIT_WEIGHT) {
            return Err(OrderError::BadSplitWeight(*weight));
        }
        if !in_force.fits(split) {
            let known = split.parts.iter().map(|part| part.pool.clone()).collect();
            return Err(OrderError::BadWeights {
                key: key.clone(),
                known,
            });
        }
        Ok(())
    }

    /// The order in force for a route.
    pub(crate) fn route_order(&self, key: &RouteKey) -> Option<&RouteOrder> {
        self.overrides.routes.get(key)
    }

    /// The order in force for a backend.
    pub(crate) fn order(&self, key: &OverrideKey) -> Option<&Override> {
        self.overrides.backends.get(key)
    }

    /// Whether some listener could not be opened: each publish tries again.
    pub(crate) fn misses_listeners(&self) -> bool {
        !self.failed_listeners.is_empty()
    }

    /// The snapshot in force.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The file and the store, as they are served.
    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    /// What the store has, as far as it is served.
    pub(crate) fn stored(&self) -> Arc<Desired> {
        self.declared.stored.clone()
    }

    /// The node's own file.
    pub(crate) fn file(&self) -> Arc<Config> {
        self.declared.file.clone()
    }

    /// What readers (status, metrics) see.
    pub(crate) fn view(&self) -> View {
        View {
            snapshot: self.snapshot.clone(),
            config: ConfigStatus {
                source: self.source.clone(),
                revision: self.revision,
                since: self.config_since,
                last_reload: self.last_reload.clone(),
            },
            reloads: self.reloads,
            counts: self.counts.clone(),
            loads: self.loads.clone(),
            events: self.events.clone(),
            declared: self.declared.clone(),
        }
    }

    fn take_verdicts(&mut self, now: Timestamp, verdicts: Vec<Verdict>, effects: &mut Vec<Effect>) {
        let mut up = Vec::new();
        for verdict in verdicts {
            // A verdict may cross a reload that removed the backend or its check, or be about a former member.
            if !self.is_probed(&verdict.backend, verdict.life.member) {
                continue;
            }
            let old = self.observed.health.get(&verdict.backend);
            let changed = old.map_or(Health::Unchecked, |o| o.health) != verdict.health;
            let since = old.filter(|_| !changed).map_or(now, |o| o.since);
            if changed {
                self.count(&verdict.backend, |counts| match verdict.health {
                    Health::Up => counts.to_up += 1,
                    Health::Down => counts.to_down += 1,
                    Health::Unchecked => {}
                });
                let old = self.observed.health.get(&verdict.backend);
                self.record(now, changes::verdict(&verdict, old.cloned(), now), effects);
            }
            let state = HealthState {
                health: verdict.health,
                reason: verdict.reason,
                since,
            };
            if state.health == Health::Up {
                up.push(verdict.backend.clone());
            }
            self.observed.health.insert(verdict.backend, state);
        }
        self.note_proven(&up, effects);
    }

    fn take_ejection(&mut self, now: Timestamp, ejected: Ejected, effects: &mut Vec<Effect>) {
        if !self.is_served(&ejected.backend, ejected.life) {
            return;
        }
        self.count(&ejected.backend, |counts| counts.ejections += 1);
        self.record(now, changes::ejected(&ejected), effects);
        let ejection = Ejection {
            reason: ejected.reason,
            since: now,
            until: now.plus(ejected.lasts),
        };
        self.observed.ejections.insert(ejected.backend, ejection);
    }

    /// Takes what is declared; says what that changes, a line each, and which load balancers it touches.
    fn declare(&mut self, now: Timestamp, declared: Declared) -> (Vec<String>, BTreeSet<Name>) {
        // What is equal is the same from here on, so that nobody has to look into it again.
        let config = Arc::new(Config::clone(&declared.config).sharing(&self.config));
        self.declared = Declared {
            config: config.clone(),
            ..declared
        };
        let touched = config.touched(&self.config);
        if *config == *self.config {
            return (vec!["nothing changed".to_owned()], touched);
        }
        let messages = changes::of_config(&self.config, &config);
        self.revision += 1;
        self.config = config;
        self.config_since = now;
        (messages, touched)
    }

    fn apply_stored(&mut self, now: Timestamp, declared: Declared, effects: &mut Vec<Effect>) {
        let (revision, shadowed) = (declared.stored.revision, declared.shadowed.clone());
        let (messages, touched) = self.declare(now, declared);
        // That the store has never had anything is no news.
        if revision > 0 {
            let applied = changes::applied(revision, &messages, CHANGES_IN_EVENT);
            self.record(now, applied, effects);
        }
        if !shadowed.is_empty() {
            self.record(now, changes::shadowed(revision, &shadowed), effects);
        }
        self.forget_unknown_backends(now, &touched, effects);
        self.look_at_orders(now, effects);
        self.look_at_own_addresses(now, effects);
    }

    fn take_config(&mut self, now: Timestamp, declared: Declared, effects: &mut Vec<Effect>) {
        self.reloads.ok += 1;
        let (mut messages, touched) = self.declare(now, declared);
        let summary = changes::reload(self.revision, &messages, CHANGES_IN_EVENT);
        self.record(now, (Kind::Reload, self.source.clone(), summary), effects);
        messages.truncate(MAX_RELOAD_MESSAGES);
        self.last_reload = Some(ReloadStatus {
            at: now,
            ok: true,
            messages,
        });
        self.forget_unknown_backends(now, &touched, effects);
        self.look_at_orders(now, effects);
        self.look_at_own_addresses(now, effects);
    }

    fn refuse_config(&mut self, now: Timestamp, mut reasons: Vec<String>, effects: &mut Vec<Effect>) {
        self.reloads.refused += 1;
        let summary = changes::refused(self.revision, &reasons);
        self.record(now, (Kind::ReloadRefused, self.source.clone(), summary), effects);
        reasons.truncate(MAX_RELOAD_MESSAGES);
        self.last_reload = Some(ReloadStatus {
            at: now,
            ok: false,
            messages: reasons,
        });
    }

    fn take_listeners(
        &mut self,
        now: Timestamp,
        listeners: Vec<(Name, ListenerStatus)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut open = BTreeSet::new();
        let mut failed = BTreeMap::new();
        for (lb, listener) in listeners {
            let key = (lb, listener.name, listener.address);
            match listener.error {
                None if listener.open => {
                    open.insert(key);
                }
                error => {
                    failed.insert(key, error.unwrap_or_else(|| "not open".to_owned()));
                }
            }
        }
        let was_open = std::mem::replace(&mut self.open_listeners, open.clone());
        let was_failed = std::mem::replace(&mut self.failed_listeners, failed.clone());
        for (lb, name, address) in was_open.difference(&open) {
            let what = (
                Kind::ListenerClosed,
                format!("{lb}/{name}"),
                format!("no longer listens on {address}"),
            );
            self.record(now, what, effects);
        }
        for (lb, name, address) in open.difference(&was_open) {
            let what = (
                Kind::ListenerOpen,
                format!("{lb}/{name}"),
                format!("listens on {address}"),
            );
            self.record(now, what, effects);
        }
        for (key, error) in failed.iter().filter(|(key, _)| !was_failed.contains_key(*key)) {
            let (lb, name, address) = key;
            let message = format!("{address} could not be opened and is tried again: {error}");
            self.record(
                now,
                (Kind::ListenerFailed, format!("{lb}/{name}"), message),
                effects,
            );
        }
        self.listener_retry = (!failed.is_empty()).then(|| now.plus(LISTENER_RETRY));
        self.look_at_own_addresses(now, effects);
    }

    /// Removes orders whose time is over; says whether there were any.
    fn drop_lapsed_orders(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        let over = |expires: Option<Timestamp>| expires.is_some_and(|at| at <= now);
        self.standing.backends.take_out(|_, o| over(o.expires));
        self.standing.routes.take_out(|_, o| over(o.expires));
        let lapsed = self.overrides.backends.take_out(|_, o| over(o.expires));
        for (key, order) in &lapsed {
            self.record(now, changes::lapsed(key, order), effects);
        }
        let of_routes = self.overrides.routes.take_out(|_, o| over(o.expires));
        for (key, order) in &of_routes {
            self.record(now, changes::weights_lapsed(key, order), effects);
        }
        !(lapsed.is_empty() && of_routes.is_empty())
    }

    /// Forgets what concerns backends that the config of these load balancers no longer has.
    fn forget_unknown_backends(
        &mut self,
        now: Timestamp,
        load_balancers: &BTreeSet<Name>,
        effects: &mut Vec<Effect>,
    ) {
        self.forget_unasked_members(load_balancers);
        let config = self.config.clone();
        let mut orders: Vec<(OrderKey, InForce)> = Vec::new();
        for name in load_balancers {
            let known = Known::of(
                config.load_balancers.get(name).map(Arc::as_ref),
                &self.observed.members,
            );
            let health = &mut self.observed.health;
            health.take_out_of(name, |id, _| !known.is_checked(id));
            let silent = &mut self.observed.silent;
            silent.take_out_of(name, |id, _| !known.has(id));
            let ejections = &mut self.observed.ejections;
            ejections.take_out_of(name, |id, _| !known.has(id));
            if self.counts.part(name).is_some() {
                Arc::make_mut(&mut self.counts).take_out_of(name, |id, _| !known.has(id));
            }
            let of_backends = &mut self.overrides.backends;
            let gone = of_backends.take_out_of(name, |key, _| {
                !known.has_anywhere(key.address) && !members::may_come_back(&mut self.gone, &config, now, key)
            });
            self.gone.retain(|key, _| {
                key.load_balancer != *name || !(gone.contains_key(key) || known.has_anywhere(key.address))
            });
            let is_forgotten = members::come_and_go(&config, name);
            for (key, order) in &gone {
                self.record(now, changes::orphaned(key, order, is_forgotten), effects);
            }
            let fits = |key: &RouteKey, order: &RouteOrder| key.split(&config).is_some_and(|s| order.fits(s));
            let of_routes = &mut self.overrides.routes;
            let of_routes = of_routes.take_out_of(name, |key, order| !fits(key, order));
            for (key, order) in &of_routes {
                self.record(now, changes::weights_orphaned(key, order), effects);
            }
            // What is declared again has its order again: whoever collects old orders keeps this one for a day.
            let gone = gone.into_iter().filter(|_| is_forgotten);
            orders.extend(gone.map(|(key, order)| (OrderKey::Backend(key), InForce::Backend(order))));
        }
        for (key, _) in &orders {
            if let OrderKey::Backend(key) = key {
                self.standing.backends.remove(key);
            }
        }
        if !orders.is_empty() {
            effects.push(Effect::Forget(orders));
        }
    }

    /// Takes of all orders those that are about what is configured now.
    fn look_at_orders(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let overrides = self.of_this_config();
        for change in changes::of_orders(&self.overrides, &overrides) {
            self.record(now, change, effects);
        }
        self.overrides = overrides;
    }

    /// Of all orders those about what is configured here. The others may be about what another node knows.
    fn of_this_config(&self) -> Overrides {
        let config = &self.config;
        let mut overrides = self.standing.clone();
        let names: BTreeSet<Name> = overrides.load_balancers().cloned().collect();
        for name in &names {
            let lb = config.load_balancers.get(name).map(Arc::as_ref);
            let known = Known::of(lb, &self.observed.members);
            // Where members come and go, those that are not there may come.
            if !lb.is_some_and(|lb| lb.pools.values().any(|pool| pool.membership.is_dynamic())) {
                let of_backends = &mut overrides.backends;
                of_backends.take_out_of(name, |key, _| !known.has_anywhere(key.address));
            }
            let fits = |key: &RouteKey, order: &RouteOrder| key.split(config).is_some_and(|s| order.fits(s));
            overrides.routes.take_out_of(name, |key, order| !fits(key, order));
        }
        overrides
    }

    fn rebuild(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.observed.ejections.retain(|_, e| e.until > now);
        let layers = Layers {
            revision: self.revision,
            config: &self.config,
            overrides: &self.overrides,
            observed: &self.observed,
        };
        let built = Snapshot::build(layers, Some(&self.snapshot), now);
        if built == *self.snapshot {
            return;
        }
        let before = std::mem::replace(&mut self.snapshot, Arc::new(built));
        for change in changes::between(Some(&before), &self.snapshot) {
            self.record(now, change, effects);
        }
        // First what is served, then what is said about it.
        effects.insert(0, Effect::Publish(self.snapshot.clone()));
    }

    /// Publishing makes the data plane try again what it could not open.
    fn retry_listeners(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.listener_retry.is_none_or(|at| at > now) {
            return;
        }
        self.listener_retry = None;
        if !matches!(effects.first(), Some(Effect::Publish(_))) {
            effects.insert(0, Effect::Publish(self.snapshot.clone()));
        }
    }

    /// Backends in maintenance are not checked, nor those of pools without a check.
    fn update_probes(&mut self, effects: &mut Vec<Effect>) {
        let before = std::mem::take(&mut self.probed);
        let mut changed = false;
        let mut met = 0;
        for (key, pool) in &self.snapshot.pools {
            let known = before.get(key);
            let probed = match known.filter(|known| Arc::ptr_eq(&known.pool, pool)) {
                Some(same) => Some(same.clone()),
                None => Probed::of(pool, known.map(Arc::as_ref)).map(Arc::new),
            };
            changed |= !Probed::agree(known, probed.as_ref());
            met += usize::from(known.is_some());
            self.probed.extend(probed.map(|probed| (key.clone(), probed)));
        }
        // Those that were not met are of pools that are gone.
        changed |= met < before.len();
        if changed {
            let targets = self.probed.values().flat_map(|probed| probed.targets());
            effects.push(Effect::Probe(targets.collect()));
        }
    }

    /// Whether this backend is checked, in the membership of this number.
    fn is_probed(&self, id: &BackendId, life: u64) -> bool {
        let key = (id.load_balancer.clone(), id.pool.clone());
        let probed = self.probed.get(&key);
        let lives = probed.and_then(|probed| probed.addresses.get(&id.address));
        lives == Some(&life)
    }

    fn count(&mut self, id: &BackendId, count: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get(id).copied().unwrap_or_default();
        count(&mut counts);
        Arc::make_mut(&mut self.counts).insert(id.clone(), counts);
    }

    fn has_backend(&self, id: &BackendId) -> bool {
        let key = (id.load_balancer.clone(), id.pool.clone());
        let found = self.observed.members.get(&key);
        pool_has(&self.config, &id.load_balancer, &id.pool, id.address)
            || found.is_some_and(|found| found.has(id.address))
    }

    fn record(
        &mut self,
        now: Timestamp,
        (kind, subject, message): changes::Change,
        effects: &mut Vec<Effect>,
    ) {
        let event = Arc::new(Event {
            at: now,
            kind: kind.as_str().to_owned(),
            subject,
            message,
        });
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        effects.push(Effect::Log(event));
    }

    fn check_invariants(&self) {
        debug_assert!(self.events.len() <= MAX_EVENTS);
        debug_assert_eq!(self.snapshot.revision, self.revision);
        debug_assert!(
            Arc::ptr_eq(&self.snapshot.config, &self.config) || *self.snapshot.config == *self.config
        );
        debug_assert!(self.observed.health.keys().all(|id| self.has_backend(id)));
        debug_assert!(self.observed.ejections.keys().all(|id| self.has_backend(id)));
    }
}

fn pool_has(config: &Config, lb: &Name, pool: &Name, address: SocketAddr) -> bool {
    let pool = config.load_balancers.get(lb).and_then(|lb| lb.pools.get(pool));
    pool.is_some_and(|pool| pool.backends.iter().any(|b| b.address == address))
}
