//! What alerts are derived from, gathered for the task that tells of them: the hub's view, and what only the data
//! plane knows.

use std::sync::Arc;
use std::time::Duration;

use cluster::Standing;
use cluster::nodes::Lost;
use console::Alerting;
use dataplane::Dataplane;
use model::alert::{AlertsStatus, ClusterFacts, Facts, TestResult};
use model::cluster::OrchestratorsStatus;
use orchestrator::alerts::Inputs;
use tokio::sync::{mpsc, oneshot, watch};

use crate::hub::View;

/// How often the data plane is asked: it tells nobody when a circuit opens or a certificate changes.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Least time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The task that tells of alerts, as others see it.
pub(crate) struct Teller {
    /// The alerts, and those who are told.
    pub(crate) status: watch::Receiver<AlertsStatus>,
    /// Where to ask for a test.
    tests: mpsc::Sender<oneshot::Sender<Vec<TestResult>>>,
}

impl Teller {
    /// For the API.
    pub(crate) fn for_console(&self) -> Alerting {
        let status = self.status.clone();
        Alerting {
            status: Arc::new(move || status.borrow().clone()),
            tests: self.tests.clone(),
        }
    }
}

/// What is asked about the state.
#[derive(Clone)]
struct Asked {
    dataplane: Arc<Dataplane>,
    view: watch::Receiver<View>,
    /// What is seen of the orchestrators; `None`: this process is alone.
    orchestrators: Option<watch::Receiver<OrchestratorsStatus>>,
    standing: watch::Receiver<Standing>,
    /// Nodes that fell silent.
    lost: watch::Receiver<Lost>,
}

/// Starts to tell of alerts.
pub(crate) fn tell(
    dataplane: &Arc<Dataplane>,
    view: &watch::Receiver<View>,
    orchestrators: Option<watch::Receiver<OrchestratorsStatus>>,
    standing: watch::Receiver<Standing>,
    lost: watch::Receiver<Lost>,
) -> Teller {
    let asked = Asked {
        dataplane: dataplane.clone(),
        view: view.clone(),
        orchestrators,
        standing,
        lost,
    };
    let (facts_out, facts) = watch::channel(asked.facts());
    let (sends_out, sends) = watch::channel(asked.sends());
    tokio::spawn(gather(asked, facts_out, sends_out));
    let (status_out, status) = watch::channel(AlertsStatus::default());
    let (tests, tests_in) = mpsc::channel(1);
    tokio::spawn(orchestrator::alerts::run(Inputs {
        facts,
        sends,
        tests: tests_in,
        status: status_out,
    }));
    Teller { status, tests }
}

/// Keeps facts, and whether to tell, as they are now, until the hub is gone or nobody listens.
async fn gather(mut asked: Asked, facts: watch::Sender<Facts>, sends: watch::Sender<bool>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        // Without a change there may be news all the same.
        if let Ok(Err(_)) = tokio::time::timeout(ASK_EVERY - PAUSE, asked.view.changed()).await {
            return;
        }
        asked.view.mark_unchanged();
        let fresh = asked.facts();
        facts.send_if_modified(|known| {
            let changed = !same(known, &fresh);
            *known = fresh;
            changed
        });
        let now = asked.sends();
        sends.send_if_modified(|known| std::mem::replace(known, now) != now);
        if facts.is_closed() {
            return;
        }
    }
}

impl Asked {
    /// What is so now.
    fn facts(&self) -> Facts {
        let view = self.view.borrow().clone();
        let pools = view.snapshot.pools.iter();
        let breakers = pools.filter(|(_, pool)| pool.config.overload.circuit_breaker.is_some());
        let open = breakers.filter(|((lb, pool), _)| {
            let live = self.dataplane.pool_live(lb, pool);
            live.circuit.is_some_and(|state| state == "open")
        });
        Facts {
            node: view.snapshot.config.node.name.as_str().into(),
            open_circuits: open.map(|(key, _)| key.clone()).collect(),
            snapshot: view.snapshot.clone(),
            last_reload: view.config.last_reload.clone(),
            listeners: self.dataplane.listeners(),
            cluster: self
                .orchestrators
                .as_ref()
                .map(|seen| self.cluster(&view, &seen.borrow())),
        }
    }

    fn cluster(&self, view: &View, seen: &OrchestratorsStatus) -> ClusterFacts {
        let standing = self.standing.borrow();
        let stored = view.declared.stored.load_balancers.keys();
        let shared = stored.filter(|name| !view.declared.shadowed.contains(name));
        let refused = standing.refused.as_ref().map(|refused| {
            let first = refused.reasons.first().and_then(|reason| reason.lines().next());
            let why = first.unwrap_or("no reason given");
            format!("revision {} of the store is not served: {why}", refused.revision)
        });
        let alone = seen.plan_b.as_ref().filter(|plan| plan.phase == "own_checks");
        ClusterFacts {
            shared: shared.cloned().collect(),
            leader: seen.leader.clone().zip(seen.epoch),
            lost: self.lost.borrow().clone(),
            store_trouble: standing.trouble.clone().filter(|_| !standing.connected),
            refused,
            plan_b: alone.map(|plan| {
                let why = plan.why.as_deref().unwrap_or("no_orchestrator").replace('_', " ");
                format!("{why}: this node checks the store's backends for itself")
            }),
        }
    }

    /// Whether this process tells of what several nodes see: it leads, or it sees nobody who does.
    fn sends(&self) -> bool {
        let Some(seen) = self.orchestrators.as_ref().map(|seen| seen.borrow()) else {
            return true;
        };
        let leads = seen.own.as_ref().is_some_and(|own| own.leads);
        leads || !seen.heard || seen.leader.is_none()
    }
}

/// Whether nothing that alerts are derived from differs. Connections come and go all the time and do not count.
fn same(a: &Facts, b: &Facts) -> bool {
    let listeners = |facts: &Facts| -> Vec<_> {
        let listeners = facts.listeners.iter();
        listeners
            .map(|(lb, l)| {
                (
                    lb.clone(),
                    l.name.clone(),
                    l.open,
                    l.error.clone(),
                    l.certificates.clone(),
                )
            })
            .collect()
    };
    Arc::ptr_eq(&a.snapshot, &b.snapshot)
        && a.last_reload == b.last_reload
        && a.open_circuits == b.open_circuits
        && a.cluster == b.cluster
        && listeners(a) == listeners(b)
}
