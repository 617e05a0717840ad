//! This node in the registry of its cluster, and the others there.
//!
//! With the embedded store there is no cluster, and nothing here runs.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::nodes::{self, Lost, Nodes, TELL_EVERY};
use cluster::{Space, Standing};
use dataplane::Dataplane;
use model::config::{Config, Name, Role, StoreConfig};
use model::node::{MAX_DECLARED_TOLD, NameTaken, NodeEvent, NodeLoad, NodeRecord, NodeStatus, TrialShare};
use model::state::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::hub::View;
use crate::process;

/// News of nodes that may wait for the hub.
const NEWS: usize = 256;

/// What a node counts of its own work, in all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Where it takes clients.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Load balancers of its own file, where they are not too many to tell.
    pub(crate) declares: Option<Vec<Name>>,
    /// Client connections now.
    pub(crate) connections: u64,
    /// Requests since start.
    pub(crate) requests: u64,
}

/// This node as a member of its cluster.
#[derive(Debug)]
pub(crate) struct Registration {
    /// All nodes that are there.
    pub(crate) nodes: watch::Receiver<Nodes>,
    /// Nodes that fell silent.
    pub(crate) lost: watch::Receiver<Lost>,
    /// What this node tells the others of a change that awaits its confirmation.
    pub(crate) trial: watch::Sender<Option<TrialShare>>,
    /// Another process has this node's name.
    pub(crate) taken: watch::Receiver<Option<NameTaken>>,
    registered: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Registration {
    /// Registers this node, and follows the others where its roles look after them: news of them come through the channel.
    pub(crate) fn start(
        config: &Config,
        space: &Space,
        started: Timestamp,
        mut standing: watch::Receiver<Standing>,
        work: impl Fn() -> Work + Send + 'static,
    ) -> (Self, mpsc::Receiver<NodeEvent>) {
        let (events, news) = mpsc::channel(NEWS);
        let (nodes_out, nodes) = watch::channel(Nodes::default());
        let (lost_out, lost) = watch::channel(Lost::default());
        let (taken_out, taken) = watch::channel(None);
        let mut registration = Self {
            nodes,
            lost,
            trial: watch::Sender::new(None),
            taken,
            registered: None,
        };
        let name = Name::parse(&config.node.name).ok();
        let Some(name) = name.filter(|_| config.store != StoreConfig::Embedded) else {
            return (registration, news);
        };
        let roles = &config.node.roles;
        if roles.contains(&Role::Orchestrator) || roles.contains(&Role::Console) {
            tokio::spawn(nodes::follow(space.clone(), nodes_out, lost_out, events.clone()));
        }
        let meter = Meter::new(&work());
        let mut record = record(config, started, work());
        apply(&mut record, &standing.borrow_and_update());
        let (tell, told) = watch::channel(record);
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(tell_name(name.clone(), registration.taken.clone(), events));
        let task = tokio::spawn(nodes::register(space.clone(), name, told, taken_out, stopped));
        let trial_told = registration.trial.subscribe();
        tokio::spawn(keep_told(tell, standing, trial_told, meter, work));
        registration.registered = Some((stop, task));
        (registration, news)
    }

    /// Takes this node out of the registry; bounded in time.
    pub(crate) async fn leave(self) {
        if let Some((stop, task)) = self.registered {
            _ = stop.send(());
            _ = task.await;
        }
    }
}

/// Tells the hub when the name is another process's, and when it is free again.
async fn tell_name(
    name: Name,
    mut taken: watch::Receiver<Option<NameTaken>>,
    events: mpsc::Sender<NodeEvent>,
) {
    let mut was_taken = false;
    while taken.changed().await.is_ok() {
        let other = taken.borrow_and_update().clone();
        let is_taken = other.is_some();
        let event = match other {
            Some(other) if !was_taken => NodeEvent::NameTaken(name.to_string(), other),
            None if was_taken => NodeEvent::NameFree(name.to_string()),
            _ => continue,
        };
        was_taken = is_taken;
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Keeps what is told of this node as it is, until nobody takes it.
async fn keep_told(
    tell: watch::Sender<NodeRecord>,
    mut standing: watch::Receiver<Standing>,
    mut trial: watch::Receiver<Option<TrialShare>>,
    mut meter: Meter,
    work: impl Fn() -> Work + Send + 'static,
) {
    let mut ticks = tokio::time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = standing.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = standing.borrow_and_update().clone();
                let work = work();
                tell.send_if_modified(|record| {
                    (record.addresses, record.declares) = (work.addresses, work.declares);
                    apply(record, &now)
                });
            }
            Ok(()) = trial.changed() => {
                let share = trial.borrow_and_update().clone();
                tell.send_modify(|record| record.trial = share);
            }
            _ = ticks.tick() => {
                let work = work();
                let load = meter.read(&work);
                tell.send_modify(|record| {
                    record.load = load;
                    (record.addresses, record.declares) = (work.addresses, work.declares);
                });
            }
            () = tell.closed() => return,
        }
    }
}

/// For `status`.
pub(crate) fn shown(nodes: &Nodes) -> Vec<NodeStatus> {
    let each = nodes.iter().map(|(name, record)| NodeStatus {
        name: name.to_string(),
        record: NodeRecord {
            trial: None,
            declares: None,
            ..record.clone()
        },
    });
    each.collect()
}

/// Brings what is served into the record; whether that changed it.
fn apply(record: &mut NodeRecord, standing: &Standing) -> bool {
    let refused = standing.refused.as_ref().map(|refused| {
        let reason = refused.reasons.first().and_then(|reason| reason.lines().next());
        (refused.revision, reason.unwrap_or_default().to_owned())
    });
    let changed = record.served != standing.served || record.refused != refused;
    record.served = standing.served;
    record.refused = refused;
    changed
}

/// Figures per second out of figures in all.
struct Meter {
    at: Instant,
    cpu: Duration,
    requests: u64,
}

impl Meter {
    fn new(work: &Work) -> Self {
        Self {
            at: Instant::now(),
            cpu: process::cpu_time().unwrap_or_default(),
            requests: work.requests,
        }
    }

    fn read(&mut self, work: &Work) -> NodeLoad {
        let now = Self::new(work);
        let passed = now.at.duration_since(self.at).as_secs_f64().max(0.001);
        let load = NodeLoad {
            cpu: now.cpu.saturating_sub(self.cpu).as_secs_f64() / passed,
            memory: process::resident_bytes().unwrap_or(0),
            connections: work.connections,
            requests_per_second: now.requests.saturating_sub(self.requests) as f64 / passed,
        };
        *self = now;
        load
    }
}

/// This process, as it begins.
fn record(config: &Config, started: Timestamp, work: Work) -> NodeRecord {
    NodeRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        life: RandomState::new().hash_one(()),
        roles: config.node.roles.iter().copied().collect(),
        zone: config.node.zone.clone(),
        addresses: work.addresses,
        served: 0,
        refused: None,
        load: NodeLoad::default(),
        trial: None,
        declares: work.declares,
        leaving: false,
    }
}

/// Tells what the data plane has done.
pub(crate) fn counting(
    dataplane: Arc<Dataplane>,
    view: watch::Receiver<View>,
) -> impl Fn() -> Work + Send + 'static {
    move || {
        let file = view.borrow().declared.file.clone();
        let own = &file.load_balancers;
        let declares = (own.len() <= MAX_DECLARED_TOLD).then(|| own.keys().cloned().collect());
        let listeners = dataplane
            .listeners()
            .into_iter()
            .filter(|(_, listener)| listener.open);
        Work {
            addresses: listeners.map(|(_, listener)| listener.address).collect(),
            declares,
            connections: dataplane.connections().into(),
            requests: dataplane.requests(),
        }
    }
}
