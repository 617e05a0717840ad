//! Who makes the checks that this node's config wants.
//!
//! - Load balancers of the node's own **file** nobody else knows: this process checks their backends by itself. So it
//!   does with all of them while its store is the embedded one, which no other process can have.
//! - Load balancers of a **shared store** are checked by the orchestrators of the cluster, of which this process may
//!   be one. Their verdicts come by the store; without orchestrators an LB server looks itself.
//!
//! A load balancer that the file has and the store too is the file's here; an orchestrator checks its share of the
//! store's all the same ([`shared`]), because other nodes serve that.

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use cluster::checks::{self, Kept, Own, Part};
use cluster::member::{self, Leave, Orchestrating, Post};
use cluster::upkeep;
use cluster::{Desired, Space, Sync};
use model::cluster::ClusterNews;
use model::config::{Config, Name, Role, StoreConfig};
use model::state::{BackendId, Members, Overrides, PoolKey, PoolMembers, Source, Target, Verdict};
use orchestrator::Gate;
use reconcile::cluster::member::Settings;
use reconcile::cluster::roster::{Wanted, Wish};
use tokio::sync::{mpsc, watch};

use crate::hub::Orders;
use crate::roll::Registered;
use crate::vital::Vital;

/// Room for verdicts on their way; a check waits where there is none.
const FOUND: usize = 1024;

/// Where the hub says which checks it wants.
#[derive(Debug)]
pub(crate) struct Checking {
    /// What was wanted last, of file and store.
    wanted: Vec<Target>,
    file: Arc<Config>,
    /// File and store together.
    config: Arc<Config>,
    /// Who is a member though nobody declared it.
    found: Members,
    /// Whom this process checks for itself.
    here: watch::Sender<Vec<Target>>,
    /// What others check of it, where there are others.
    elsewhere: Option<watch::Sender<Arc<Wanted>>>,
    /// What of that was found by name, which other nodes may not know.
    by_name: watch::Sender<Arc<Wanted>>,
}

/// What is told of a store.
pub(crate) struct Stored {
    desired: watch::Receiver<Option<Arc<Desired>>>,
    orders: Option<watch::Receiver<Overrides>>,
    registered: watch::Receiver<Arc<Registered>>,
    kept: Kept,
    earlier: Vec<Verdict>,
}

impl Stored {
    /// What it says, all orders in it, where other nodes share it, all members that registered themselves in pools of it;
    /// where to keep what is believed of its backends, and what was believed before.
    pub(crate) fn of(
        (sync, orders): (&Sync, &Orders),
        registered: watch::Receiver<Arc<Registered>>,
        (kept, earlier): (Kept, Vec<Verdict>),
    ) -> Self {
        Self {
            desired: sync.stored(),
            orders: orders.standing(),
            registered,
            kept,
            earlier,
        }
    }
}

/// What runs besides the checks of this process alone; nothing with an embedded store.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    /// What is seen of the orchestrators.
    pub(crate) seen: Option<checks::Seen>,
    orchestrating: Option<Orchestrating>,
}

impl Checkers {
    /// What this process is among the orchestrators, where it is one.
    pub(crate) fn post(&self) -> Option<watch::Receiver<Post>> {
        self.orchestrating.as_ref().map(|one| one.post.clone())
    }

    /// Gives back what this process had to check, so that nobody waits for its lease.
    pub(crate) async fn stop(self) {
        if let Some(orchestrating) = self.orchestrating {
            orchestrating.stop().await;
        }
    }
}

/// Starts what makes checks, in the tokio runtime that this is called in. Verdicts of both kinds come over the same
/// channel.
///
/// # Errors
/// When the node's name or the store's prefix cannot be parts of keys.
pub(crate) fn start(
    config: &Arc<Config>,
    (space, stored): (&Space, Stored),
    (verdicts, news): (mpsc::Sender<Verdict>, mpsc::Sender<ClusterNews>),
    vital: &Vital,
) -> anyhow::Result<(Checking, Checkers)> {
    let (here, list) = watch::channel(Vec::new());
    vital.spawn("checks", orchestrator::run(list, Gate::open(), verdicts.clone()));
    let mut checking = Checking {
        wanted: Vec::new(),
        file: config.clone(),
        config: config.clone(),
        found: Members::default(),
        here,
        elsewhere: None,
        by_name: watch::channel(Arc::default()).0,
    };
    let Some(orders) = stored.orders.filter(|_| config.store != StoreConfig::Embedded) else {
        return Ok((checking, Checkers::default()));
    };
    vital.spawn("identity", cluster::identity::keep(space.clone()));
    let (elsewhere, wanted) = watch::channel(Arc::default());
    checking.elsewhere = Some(elsewhere);
    let settings = Settings::default();
    let has = |role| config.node.roles.contains(&role);
    let (orchestrating, part) = match has(Role::Orchestrator) {
        true => {
            let (shared_out, shared) = watch::channel(None);
            let (named_out, named) = watch::channel(Arc::default());
            let members = (stored.registered, checking.by_name.subscribe());
            let follow = shared::follow(stored.desired, orders, members, (shared_out, named_out));
            vital.spawn("shared", follow);
            let all = (shared.clone(), named);
            let (orchestrating, part) = orchestrate(config, space, (settings, all), vital)?;
            let post = orchestrating.post.clone();
            vital.spawn("upkeep", upkeep::run(space.clone(), post, shared, upkeep::EVERY));
            (Some(orchestrating), Some(part))
        }
        false => {
            let upkeep = upkeep::run_for_nobody(space.clone(), upkeep::EVERY);
            vital.spawn("upkeep", upkeep);
            (None, None)
        }
    };
    let seen = checks::start(checks::Setup {
        space: space.clone(),
        slots: settings.slots,
        wanted,
        part,
        own: has(Role::Lb).then(|| {
            let unsure = checking.by_name.subscribe();
            alone(config, unsure, (stored.kept, stored.earlier), vital)
        }),
        beliefs: verdicts,
        news,
    })?;
    vital.watch("verdicts", seen.status.clone());
    let checkers = Checkers {
        seen: Some(seen),
        orchestrating,
    };
    Ok((checking, checkers))
}

/// What the orchestrators share out, and of which pools one may not know all members.
type SharedOut = (
    watch::Receiver<Option<Arc<Wanted>>>,
    watch::Receiver<Arc<BTreeSet<PoolKey>>>,
);

/// An orchestrator, and its checks.
fn orchestrate(
    config: &Config,
    space: &Space,
    (settings, (shared, named)): (Settings, SharedOut),
    vital: &Vital,
) -> anyhow::Result<(Orchestrating, Part)> {
    let leave = Arc::new(Leave::new(settings.slots));
    let asked = leave.clone();
    let gate = Gate::new(move |address| asked.may_check(address));
    let cut = gate.clone();
    let orchestrating = Orchestrating::start(member::Setup {
        space: space.clone(),
        node: Name::parse(&config.node.name).context("node.name")?,
        settings,
        leave,
        cut: Box::new(move || cut.cut()),
    })?;
    let (targets, list) = watch::channel(Vec::new());
    let (found_out, found) = mpsc::channel(FOUND);
    vital.watch("orchestrator", orchestrating.post.clone());
    vital.spawn("checks", orchestrator::run(list, gate, found_out));
    let part = Part {
        shared,
        named,
        patience: config.node.plan_b_after,
        post: orchestrating.post.clone(),
        tell: orchestrating.tell.clone(),
        writes: orchestrating.writes.clone(),
        targets,
        found,
    };
    Ok((orchestrating, part))
}

/// The checks of an LB server without orchestrators.
fn alone(
    config: &Config,
    unsure: watch::Receiver<Arc<Wanted>>,
    (kept, earlier): (Kept, Vec<Verdict>),
    vital: &Vital,
) -> Own {
    let (targets, list) = watch::channel(Vec::new());
    let (found_out, found) = mpsc::channel(FOUND);
    vital.spawn("checks", orchestrator::run(list, Gate::open(), found_out));
    Own {
        after: config.node.plan_b_after,
        unsure,
        targets,
        found,
        kept,
        earlier,
    }
}

impl Checking {
    /// These checks are wanted, and no others any more.
    pub(crate) fn want(&mut self, wanted: Vec<Target>, found: &Members) {
        (self.wanted, self.found) = (wanted, found.clone());
        self.tell();
    }

    /// This is the node's own file now, and this it is together with what the store has.
    pub(crate) fn declared_is(&mut self, file: &Arc<Config>, config: &Arc<Config>) {
        if !Arc::ptr_eq(&self.file, file) || !Arc::ptr_eq(&self.config, config) {
            (self.file, self.config) = (file.clone(), config.clone());
            self.tell();
        }
    }

    fn tell(&self) {
        let is_here = |backend: &BackendId| {
            self.elsewhere.is_none()
                || self.file.load_balancers.contains_key(&backend.load_balancer)
                || self.is_found(backend) && !self.is_by_name(backend)
        };
        let (mut here, elsewhere): (Vec<_>, Vec<_>) = self
            .wanted
            .iter()
            .cloned()
            .partition(|target| is_here(&target.backend));
        if !self.file.node.roles.contains(&Role::Lb) {
            here.retain(|target| !self.is_found(&target.backend));
        }
        replace(&self.here, here);
        if let Some(wanted) = &self.elsewhere {
            let wish = |target: &Target| Wish {
                check: target.check.clone(),
                life: target.life.member,
            };
            let elsewhere = elsewhere.into_iter();
            let elsewhere: BTreeMap<_, _> = elsewhere
                .map(|target| (target.backend.clone(), wish(&target)))
                .collect();
            let by_name = elsewhere.iter().filter(|(backend, _)| self.is_by_name(backend));
            let by_name = by_name.map(|(backend, wish)| (backend.clone(), wish.clone()));
            let by_name: BTreeMap<_, _> = by_name.collect();
            replace(wanted, Arc::new(elsewhere));
            replace(&self.by_name, Arc::new(by_name));
        }
    }
}

impl Checking {
    /// Whether a backend of the store was found by a name of the DNS. Others look it up too: whoever has its slot checks
    /// it, if it knows it. If nobody does, because the name says something else there, each LB server checks its own.
    fn is_by_name(&self, backend: &BackendId) -> bool {
        let lb = self.config.load_balancers.get(&backend.load_balancer);
        let pool = lb.and_then(|lb| lb.pools.get(&backend.pool));
        pool.is_some_and(|pool| pool.membership.asks(Source::Dns)) && self.is_found(backend)
    }

    /// Whether nobody declared a backend of the store, nor did it register: it stands in a file of this node. The other
    /// nodes need not know it, so whoever has its slot might not; each LB server checks its own. Who registers is known
    /// to all nodes.
    fn is_found(&self, backend: &BackendId) -> bool {
        let lb = self.config.load_balancers.get(&backend.load_balancer);
        let Some(pool) = lb.and_then(|lb| lb.pools.get(&backend.pool)) else {
            return false;
        };
        let key = (backend.load_balancer.clone(), backend.pool.clone());
        let registered = |members: &Arc<PoolMembers>| {
            let of_source = members.sources.get(&Source::Registered);
            of_source.is_some_and(|state| state.members.contains_key(&backend.address))
        };
        pool.membership.is_dynamic()
            && !pool.backends.iter().any(|b| b.address == backend.address)
            && !(pool.membership.asks(Source::Registered) && self.found.get(&key).is_some_and(registered))
    }
}

/// Wakes nobody for what is as it was.
pub(crate) fn replace<T: PartialEq>(told: &watch::Sender<T>, new: T) {
    told.send_if_modified(|known| {
        let changed = *known != new;
        *known = new;
        changed
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::config::HealthCheck;
    use model::state::{Found, Timestamp};

    use super::*;
    use crate::hub::fixture::{config, id};

    fn checking(
        shared: bool,
    ) -> (
        Checking,
        watch::Receiver<Vec<Target>>,
        watch::Receiver<Arc<Wanted>>,
    ) {
        let (here, list) = watch::channel(Vec::new());
        let (wanted, all) = watch::channel(Arc::default());
        let checking = Checking {
            wanted: Vec::new(),
            file: config(&[1]),
            config: config(&[1]),
            found: Members::default(),
            here,
            elsewhere: shared.then_some(wanted),
            by_name: watch::channel(Arc::default()).0,
        };
        (checking, list, all)
    }

    fn of_the_store(port: u16) -> BackendId {
        BackendId {
            load_balancer: Name::parse("stored").unwrap(),
            ..id(port)
        }
    }

    /// Scenario: with a shared store the file's backends are checked here, the store's by the orchestrators; and when
    /// the file takes a load balancer up, it is its own.
    #[test]
    fn what_the_file_declares_is_checked_here() {
        let (mut checking, mut here, all) = checking(true);
        let check = Arc::new(HealthCheck::default());
        checking.want(
            vec![
                Target::new(id(1), check.clone()),
                Target::new(of_the_store(2), check.clone()),
            ],
            &Members::default(),
        );
        assert_eq!(*here.borrow_and_update(), [Target::new(id(1), check.clone())]);
        assert!(all.borrow().keys().eq([&of_the_store(2)]));
        let mut file = Config::clone(&config(&[1]));
        let stored = file.load_balancers.values().next().unwrap().clone();
        file.load_balancers.insert(Name::parse("stored").unwrap(), stored);
        let file = Arc::new(file);
        checking.declared_is(&file, &file);
        assert_eq!(here.borrow_and_update().len(), 2);
        assert!(all.borrow().is_empty());
        checking.want(
            vec![
                Target::new(id(1), check.clone()),
                Target::new(of_the_store(2), check),
            ],
            &Members::default(),
        );
        assert!(!here.has_changed().unwrap(), "nobody is woken for nothing");
    }

    /// Scenario: a pool of the store takes members that register. The declared backend is the orchestrators', the member
    /// is this LB server's own; a node that does not forward checks neither for itself.
    #[test]
    fn members_that_were_found_are_checked_by_who_has_them() {
        let text = "[load_balancers.stored]\nbackend_servers = [\"10.0.0.1:1\"]\ndiscovery = { file = \"members\" }\n";
        let merged = Arc::new(model::parse::parse_toml(text, "test.toml").unwrap());
        let check = Arc::new(HealthCheck::default());
        let wanted = vec![
            Target::new(of_the_store(1), check.clone()),
            Target::new(of_the_store(2), check.clone()),
        ];
        for forwards in [true, false] {
            let (mut checking, here, all) = checking(true);
            let mut file = Config::clone(&checking.file);
            if !forwards {
                file.node.roles.remove(&Role::Lb);
            }
            checking.declared_is(&Arc::new(file), &merged);
            checking.want(wanted.clone(), &Members::default());
            assert!(all.borrow().keys().eq([&of_the_store(1)]));
            let own: Vec<Target> = [Target::new(of_the_store(2), check.clone())].into();
            assert_eq!(*here.borrow(), if forwards { own } else { Vec::new() });
        }
    }

    /// Scenario: a member registered at some node: every node knows it, so it is the orchestrators', as declared ones are.
    #[test]
    fn members_that_registered_are_checked_by_the_orchestrators() {
        let text = "[load_balancers.stored]\ndiscovery = { file = \"members\" }\n\
                    registration = { token_hash = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }\n";
        let merged = Arc::new(model::parse::parse_toml(text, "test.toml").unwrap());
        let check = Arc::new(HealthCheck::default());
        let mut pool = PoolMembers::default();
        for (source, port) in [(Source::Registered, 1), (Source::File, 1), (Source::File, 2)] {
            let found = Found {
                source,
                weight: 1,
                zone: None,
                draining: None,
                since: Timestamp(0),
                proven: false,
                life: 0,
            };
            let state = pool.sources.entry(source).or_default();
            Arc::make_mut(&mut state.members).insert(of_the_store(port).address, found);
        }
        let mut found = Members::default();
        let backend = of_the_store(1);
        found.insert((backend.load_balancer, backend.pool), Arc::new(pool));
        let (mut checking, here, all) = checking(true);
        let file = checking.file.clone();
        checking.declared_is(&file, &merged);
        checking.want(
            vec![
                Target::new(of_the_store(1), check.clone()),
                Target::new(of_the_store(2), check.clone()),
            ],
            &found,
        );
        assert!(all.borrow().keys().eq([&of_the_store(1)]));
        assert_eq!(*here.borrow(), [Target::new(of_the_store(2), check)]);
    }

    /// Scenario: a pool of the store has a name of the DNS. What is found there is the orchestrators' to check, and known
    /// to be something that they may not know; in the node's own file it is this node's.
    #[test]
    fn members_found_by_name_are_checked_by_the_orchestrators() {
        let text = "[load_balancers.stored]\nbackend_servers = [\"10.0.0.1:1\"]\ndiscovery = { dns = { name = \"shop.test\", port = 2 } }\n";
        let merged = Arc::new(model::parse::parse_toml(text, "test.toml").unwrap());
        let check = Arc::new(HealthCheck::default());
        let (mut checking, here, all) = checking(true);
        let file = checking.file.clone();
        checking.declared_is(&file, &merged);
        checking.want(
            vec![
                Target::new(of_the_store(1), check.clone()),
                Target::new(of_the_store(2), check),
            ],
            &Members::default(),
        );
        assert!(here.borrow().is_empty());
        assert!(all.borrow().keys().eq([&of_the_store(1), &of_the_store(2)]));
        assert!(checking.by_name.borrow().keys().eq([&of_the_store(2)]));
        checking.declared_is(&merged, &merged);
        assert_eq!(here.borrow().len(), 2);
        assert!(checking.by_name.borrow().is_empty());
    }

    /// Scenario: the embedded store is nobody else's, so all of it is checked here.
    #[test]
    fn with_an_embedded_store_all_is_checked_here() {
        let (mut checking, here, _) = checking(false);
        let check = Arc::new(HealthCheck::default());
        checking.want(
            vec![
                Target::new(id(1), check.clone()),
                Target::new(of_the_store(2), check),
            ],
            &Members::default(),
        );
        assert_eq!(here.borrow().len(), 2);
    }
}
