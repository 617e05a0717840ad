//! What alerts are derived from, gathered for the task that tells of them: the hub's view, and what only the data
//! plane knows.

use std::sync::Arc;
use std::time::Duration;

use console::Alerting;
use dataplane::Dataplane;
use model::alert::{AlertsStatus, Facts, TestResult};
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

/// Starts to tell of alerts.
pub(crate) fn tell(dataplane: &Arc<Dataplane>, view: &watch::Receiver<View>) -> Teller {
    let (facts_out, facts) = watch::channel(facts_of(dataplane, &view.borrow()));
    tokio::spawn(gather(dataplane.clone(), view.clone(), facts_out));
    let (status_out, status) = watch::channel(AlertsStatus::default());
    let (tests, asked) = mpsc::channel(1);
    tokio::spawn(orchestrator::alerts::run(Inputs {
        facts,
        // One process, which nobody else tells for.
        sends: watch::channel(true).1,
        tests: asked,
        status: status_out,
    }));
    Teller { status, tests }
}

/// Keeps `facts` as the hub and the data plane have them, until the hub is gone or nobody listens.
async fn gather(dataplane: Arc<Dataplane>, mut view: watch::Receiver<View>, facts: watch::Sender<Facts>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        // Without a change there may be news all the same.
        if let Ok(Err(_)) = tokio::time::timeout(ASK_EVERY - PAUSE, view.changed()).await {
            return;
        }
        let fresh = facts_of(&dataplane, &view.borrow_and_update());
        facts.send_if_modified(|known| {
            let changed = !same(known, &fresh);
            *known = fresh;
            changed
        });
        if facts.is_closed() {
            return;
        }
    }
}

/// What is so now.
fn facts_of(dataplane: &Dataplane, view: &View) -> Facts {
    let pools = view.snapshot.pools.iter();
    let breakers = pools.filter(|(_, pool)| pool.config.overload.circuit_breaker.is_some());
    let open = breakers.filter(|((lb, pool), _)| {
        dataplane
            .pool_live(lb, pool)
            .circuit
            .is_some_and(|state| state == "open")
    });
    Facts {
        node: view.snapshot.config.node.name.as_str().into(),
        open_circuits: open.map(|(key, _)| key.clone()).collect(),
        snapshot: view.snapshot.clone(),
        last_reload: view.config.last_reload.clone(),
        listeners: dataplane.listeners(),
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
        && listeners(a) == listeners(b)
}
