//! Who makes the checks that this node's config wants.
//!
//! - Load balancers of the node's own **file** nobody else knows: this process checks their backends by itself. So it
//!   does with all of them while its store is the embedded one, which no other process can have.
//! - Load balancers of a **shared store** are checked by the orchestrators of the cluster, of which this process may
//!   be one. Their verdicts come by the store; without orchestrators an LB server looks itself.
//!
//! A load balancer that the file has and the store too is the file's.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use cluster::Space;
use cluster::checks::{self, Own, Part};
use cluster::member::{self, Leave, Orchestrating};
use cluster::upkeep;
use model::cluster::{ClusterNews, OrchestratorsStatus};
use model::config::{Config, HealthCheck, Name, Role, StoreConfig};
use model::state::{BackendId, Target, Verdict};
use orchestrator::Gate;
use reconcile::cluster::member::Settings;
use reconcile::cluster::roster::Wanted;
use tokio::sync::{mpsc, watch};

/// Room for verdicts on their way; a check waits where there is none.
const FOUND: usize = 1024;

/// Where the hub says which checks it wants.
#[derive(Debug)]
pub(crate) struct Checking {
    /// What was wanted last, of file and store.
    wanted: Vec<(BackendId, Arc<HealthCheck>)>,
    file: Arc<Config>,
    /// File and store together.
    config: Arc<Config>,
    /// Whom this process checks for itself.
    here: watch::Sender<Vec<Target>>,
    /// What the orchestrators check, where there are others.
    shared: Option<watch::Sender<Arc<Wanted>>>,
}

/// What runs besides the checks of this process alone; nothing with an embedded store.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    /// What is seen of the orchestrators.
    pub(crate) status: Option<watch::Receiver<OrchestratorsStatus>>,
    orchestrating: Option<Orchestrating>,
}

impl Checkers {
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
    space: &Space,
    verdicts: mpsc::Sender<Verdict>,
    news: mpsc::Sender<ClusterNews>,
) -> anyhow::Result<(Checking, Checkers)> {
    let (here, list) = watch::channel(Vec::new());
    tokio::spawn(orchestrator::run(list, Gate::open(), verdicts.clone()));
    let mut checking = Checking {
        wanted: Vec::new(),
        file: config.clone(),
        config: config.clone(),
        here,
        shared: None,
    };
    if config.store == StoreConfig::Embedded {
        return Ok((checking, Checkers::default()));
    }
    let (shared, wanted) = watch::channel(Arc::default());
    checking.shared = Some(shared);
    let settings = Settings::default();
    let has = |role| config.node.roles.contains(&role);
    let (orchestrating, part) = match has(Role::Orchestrator) {
        true => {
            let (orchestrating, part) = orchestrate(config, space, settings)?;
            let post = orchestrating.post.clone();
            tokio::spawn(upkeep::run(space.clone(), post, wanted.clone(), upkeep::EVERY));
            (Some(orchestrating), Some(part))
        }
        false => (None, None),
    };
    let status = checks::start(checks::Setup {
        space: space.clone(),
        slots: settings.slots,
        wanted,
        part,
        own: has(Role::Lb).then(|| alone(config)),
        beliefs: verdicts,
        news,
    })?;
    let checkers = Checkers {
        status: Some(status),
        orchestrating,
    };
    Ok((checking, checkers))
}

/// An orchestrator, and its checks.
fn orchestrate(config: &Config, space: &Space, settings: Settings) -> anyhow::Result<(Orchestrating, Part)> {
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
    tokio::spawn(orchestrator::run(list, gate, found_out));
    let part = Part {
        post: orchestrating.post.clone(),
        tell: orchestrating.tell.clone(),
        writes: orchestrating.writes.clone(),
        targets,
        found,
    };
    Ok((orchestrating, part))
}

/// The checks of an LB server without orchestrators.
fn alone(config: &Config) -> Own {
    let (targets, list) = watch::channel(Vec::new());
    let (found_out, found) = mpsc::channel(FOUND);
    tokio::spawn(orchestrator::run(list, Gate::open(), found_out));
    Own {
        after: config.node.plan_b_after,
        targets,
        found,
    }
}

impl Checking {
    /// These checks are wanted, and no others any more.
    pub(crate) fn want(&mut self, wanted: Vec<(BackendId, Arc<HealthCheck>)>) {
        self.wanted = wanted;
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
            self.shared.is_none()
                || self.file.load_balancers.contains_key(&backend.load_balancer)
                || self.is_found(backend)
        };
        let (mut here, shared): (Vec<_>, Vec<_>) = self
            .wanted
            .iter()
            .cloned()
            .partition(|(backend, _)| is_here(backend));
        if !self.file.node.roles.contains(&Role::Lb) {
            here.retain(|(backend, _)| !self.is_found(backend));
        }
        let target = |(backend, check)| Target::new(backend, check);
        replace(&self.here, here.into_iter().map(target).collect());
        if let Some(wanted) = &self.shared {
            let shared: BTreeMap<_, _> = shared.into_iter().collect();
            replace(wanted, Arc::new(shared));
        }
    }
}

impl Checking {
    /// Whether nobody declared a backend of the store: it registered here, or stands in a file of this node. The other
    /// nodes need not know it, so whoever has its slot might not; each LB server checks its own.
    fn is_found(&self, backend: &BackendId) -> bool {
        let lb = self.config.load_balancers.get(&backend.load_balancer);
        let pool = lb.and_then(|lb| lb.pools.get(&backend.pool));
        pool.is_some_and(|pool| {
            pool.membership.is_dynamic() && !pool.backends.iter().any(|b| b.address == backend.address)
        })
    }
}

/// Wakes nobody for what is as it was.
fn replace<T: PartialEq>(told: &watch::Sender<T>, new: T) {
    told.send_if_modified(|known| {
        let changed = *known != new;
        *known = new;
        changed
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
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
            here,
            shared: shared.then_some(wanted),
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
        checking.want(vec![(id(1), check.clone()), (of_the_store(2), check.clone())]);
        assert_eq!(*here.borrow_and_update(), [Target::new(id(1), check.clone())]);
        assert!(all.borrow().keys().eq([&of_the_store(2)]));
        let mut file = Config::clone(&config(&[1]));
        let stored = file.load_balancers.values().next().unwrap().clone();
        file.load_balancers.insert(Name::parse("stored").unwrap(), stored);
        let file = Arc::new(file);
        checking.declared_is(&file, &file);
        assert_eq!(here.borrow_and_update().len(), 2);
        assert!(all.borrow().is_empty());
        checking.want(vec![(id(1), check.clone()), (of_the_store(2), check)]);
        assert!(!here.has_changed().unwrap(), "nobody is woken for nothing");
    }

    /// Scenario: a pool of the store takes members that register. The declared backend is the orchestrators', the member
    /// is this LB server's own; a node that does not forward checks neither for itself.
    #[test]
    fn members_that_were_found_are_checked_by_who_has_them() {
        let text = "[load_balancers.stored]\nbackend_servers = [\"10.0.0.1:1\"]\ndiscovery = { file = \"members\" }\n";
        let merged = Arc::new(model::parse::parse_toml(text, "test.toml").unwrap());
        let check = Arc::new(HealthCheck::default());
        let wanted = vec![(of_the_store(1), check.clone()), (of_the_store(2), check.clone())];
        for forwards in [true, false] {
            let (mut checking, here, all) = checking(true);
            let mut file = Config::clone(&checking.file);
            if !forwards {
                file.node.roles.remove(&Role::Lb);
            }
            checking.declared_is(&Arc::new(file), &merged);
            checking.want(wanted.clone());
            assert!(all.borrow().keys().eq([&of_the_store(1)]));
            let own: Vec<Target> = [Target::new(of_the_store(2), check.clone())].into();
            assert_eq!(*here.borrow(), if forwards { own } else { Vec::new() });
        }
    }

    /// Scenario: the embedded store is nobody else's, so all of it is checked here.
    #[test]
    fn with_an_embedded_store_all_is_checked_here() {
        let (mut checking, here, _) = checking(false);
        let check = Arc::new(HealthCheck::default());
        checking.want(vec![(id(1), check.clone()), (of_the_store(2), check)]);
        assert_eq!(here.borrow().len(), 2);
    }
}
