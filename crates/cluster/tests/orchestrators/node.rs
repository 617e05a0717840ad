//! A node: an orchestrator, an LB server, or both, on a thread of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_cluster::checks::{self, Kept, Own, Part};
use evenkeel_cluster::member::{self, Leave, Orchestrating};
use evenkeel_cluster::{Space, Store};
use model::cluster::{ClusterNews, OrchestratorsStatus};
use model::config::Name;
use model::state::{BackendId, Verdict};
use orchestrator::Gate;
use reconcile::cluster::member::Settings;
use reconcile::cluster::roster::{Wanted, Wish};
use store::EtcdSettings;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::{Backend, check};

pub(crate) const PREFIX: &str = "/test/";
/// How long an LB server holds the last verdicts: longer than a slow machine keeps the store from it.
pub(crate) const AFTER: Duration = Duration::from_secs(6);
/// How long an orchestrator lets a verdict stand on a backend that it does not know.
const TAKES_BACK_AFTER: Duration = Duration::from_secs(2);

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Orchestrate,
    Balance,
    Both,
}

pub(crate) struct Node {
    pub(crate) status: watch::Receiver<OrchestratorsStatus>,
    pub(crate) leave: Arc<Leave>,
    /// Their end would be the end of the program.
    told: (watch::Sender<Arc<Wanted>>, watch::Sender<Option<Arc<Wanted>>>),
    unsure: watch::Sender<Arc<Wanted>>,
    /// What the hub would believe.
    beliefs: Arc<Mutex<BTreeMap<BackendId, Verdict>>>,
    news: Arc<Mutex<Vec<ClusterNews>>>,
    frozen: Arc<(Mutex<bool>, Condvar)>,
    runtime: tokio::runtime::Handle,
    /// Sent: stop in order; dropped: crash.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread hands out when its node has begun.
struct Begun {
    status: watch::Receiver<OrchestratorsStatus>,
    beliefs: mpsc::Receiver<Verdict>,
    news: mpsc::Receiver<ClusterNews>,
    runtime: tokio::runtime::Handle,
}

impl Node {
    pub(crate) fn start(endpoints: Vec<String>, name: &str, does: Does, wanted: Arc<Wanted>) -> Self {
        Self::serving(endpoints, name, does, wanted.clone(), Some(wanted))
    }

    /// One that serves something else than the orchestrators share out, as far as it knows.
    pub(crate) fn serving(
        endpoints: Vec<String>,
        name: &str,
        does: Does,
        served: Arc<Wanted>,
        shared: Option<Arc<Wanted>>,
    ) -> Self {
        let (wanted, wanted_in) = watch::channel(served);
        let (shared, shared_in) = watch::channel(shared);
        let (unsure, unsure_in) = watch::channel(Arc::default());
        let hears = Hears {
            wanted: wanted_in,
            shared: shared_in,
            unsure: unsure_in,
        };
        let leave = Arc::new(Leave::new(Settings::default().slots));
        let (given, name) = (leave.clone(), Name::parse(name).unwrap());
        let (end, ended) = oneshot::channel();
        let (begun_out, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let space = Space::new(Store::etcd(EtcdSettings::new(endpoints)).unwrap(), PREFIX);
                let folder = tempfile::TempDir::new().unwrap();
                let (begun, orchestrating) = begin(space, name, does, (&given, folder.path()), hears);
                begun_out.send(begun).unwrap();
                if ended.await.is_ok()
                    && let Some(orchestrating) = orchestrating
                {
                    orchestrating.stop().await;
                }
            });
        });
        let Begun {
            status,
            beliefs,
            news,
            runtime,
        } = begun.recv().unwrap();
        Self {
            status,
            leave,
            told: (wanted, shared),
            unsure,
            beliefs: keep_all(beliefs, |known: &mut BTreeMap<_, _>, verdict: Verdict| {
                known.insert(verdict.backend.clone(), verdict);
            }),
            news: keep_all(news, Vec::push),
            frozen: Arc::default(),
            runtime,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// What it believes of a backend.
    pub(crate) fn belief(&self, backend: &BackendId) -> Option<Verdict> {
        self.beliefs.lock().unwrap().get(backend).cloned()
    }

    pub(crate) fn news(&self) -> Vec<ClusterNews> {
        self.news.lock().unwrap().clone()
    }

    /// It comes to know what the orchestrators share out.
    pub(crate) fn learns(&self, shared: Arc<Wanted>) {
        self.told.1.send_replace(Some(shared));
    }

    /// Of these it does not know whether the orchestrators know them.
    pub(crate) fn doubts(&self, these: Arc<Wanted>) {
        self.unsure.send_replace(these);
    }

    pub(crate) fn leads(&self) -> bool {
        self.status.borrow().own.as_ref().is_some_and(|own| own.leads)
    }

    /// Its leases that were over while it was at work. Who begins anew makes its checks at other times.
    pub(crate) fn leases_lost(&self) -> u64 {
        self.status.borrow().own.as_ref().map_or(0, |own| own.leases_lost)
    }

    /// Its name in the store.
    pub(crate) fn name(&self) -> Name {
        self.status.borrow().own.as_ref().unwrap().name.clone().unwrap()
    }

    pub(crate) fn phase(&self) -> Option<String> {
        self.status
            .borrow()
            .plan_b
            .as_ref()
            .map(|plan_b| plan_b.phase.clone())
    }

    /// Stops all of it dead, until it is thawed: none of its tasks gets any time.
    pub(crate) fn freeze(&self) {
        *self.frozen.0.lock().unwrap() = true;
        let frozen = self.frozen.clone();
        let (done_out, done) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            done_out.send(()).unwrap();
            let held = frozen.0.lock().unwrap();
            drop(frozen.1.wait_while(held, |frozen| *frozen).unwrap());
        });
        done.recv().unwrap();
    }

    pub(crate) fn thaw(&self) {
        *self.frozen.0.lock().unwrap() = false;
        self.frozen.1.notify_all();
    }

    /// Ends it as a crash would: nothing is given back.
    pub(crate) fn crash(mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) {
        self.end.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.thaw();
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What a node is told of backends.
struct Hears {
    wanted: watch::Receiver<Arc<Wanted>>,
    shared: watch::Receiver<Option<Arc<Wanted>>>,
    unsure: watch::Receiver<Arc<Wanted>>,
}

/// As the program wires it.
fn begin(
    space: Space,
    node: Name,
    does: Does,
    (leave, folder): (&Arc<Leave>, &std::path::Path),
    Hears {
        wanted,
        shared,
        unsure,
    }: Hears,
) -> (Begun, Option<Orchestrating>) {
    let settings = Settings::default();
    let orchestrating = (does != Does::Balance).then(|| {
        let asked = leave.clone();
        let gate = Gate::new(move |address| asked.may_check(address));
        let cut = gate.clone();
        let setup = member::Setup {
            space: space.clone(),
            node,
            settings,
            leave: leave.clone(),
            cut: Box::new(move || cut.cut()),
        };
        let orchestrating = Orchestrating::start(setup).unwrap();
        let (targets, list) = watch::channel(Vec::new());
        let (found_out, found) = mpsc::channel(64);
        tokio::spawn(orchestrator::run(list, gate, found_out));
        let pool = |lb: &str| (Name::parse(lb).unwrap(), Name::parse("web").unwrap());
        let named = watch::channel(Arc::new([pool("shop")].into())).1;
        let part = Part {
            shared,
            named,
            patience: TAKES_BACK_AFTER,
            post: orchestrating.post.clone(),
            tell: orchestrating.tell.clone(),
            writes: orchestrating.writes.clone(),
            targets,
            found,
        };
        (orchestrating, part)
    });
    let (orchestrating, part) = orchestrating.unzip();
    let own = (does != Does::Orchestrate).then(|| {
        let (targets, list) = watch::channel(Vec::new());
        let (found_out, found) = mpsc::channel(64);
        tokio::spawn(orchestrator::run(list, Gate::open(), found_out));
        Own {
            after: AFTER,
            unsure,
            targets,
            found,
            kept: Kept::within(folder),
            earlier: Vec::new(),
        }
    });
    let (beliefs_out, beliefs) = mpsc::channel(64);
    let (news_out, news) = mpsc::channel(64);
    let status = checks::start(checks::Setup {
        space,
        slots: settings.slots,
        wanted,
        part,
        own,
        beliefs: beliefs_out,
        news: news_out,
    });
    let begun = Begun {
        status: status.unwrap().status,
        beliefs,
        news,
        runtime: tokio::runtime::Handle::current(),
    };
    (begun, orchestrating)
}

/// Takes what comes on a thread of its own, which ends with the sender.
fn keep_all<T: Send + 'static, K: Default + Send + 'static>(
    mut from: mpsc::Receiver<T>,
    keep: impl Fn(&mut K, T) + Send + 'static,
) -> Arc<Mutex<K>> {
    let kept = Arc::new(Mutex::new(K::default()));
    let keeper = kept.clone();
    std::thread::spawn(move || {
        while let Some(one) = from.blocking_recv() {
            keep(&mut keeper.lock().unwrap(), one);
        }
    });
    kept
}

/// The same check of each backend for each of these load balancers.
pub(crate) fn wanted(lbs: &[&str], backends: &[Backend]) -> Arc<Wanted> {
    let wish = Wish::uncounted(Arc::new(check()));
    let ids = lbs
        .iter()
        .flat_map(|lb| backends.iter().map(|backend| backend.id(lb)));
    Arc::new(ids.map(|id| (id, wish.clone())).collect())
}

/// Whether all these nodes see this many orchestrators that share all slots, with nothing on the way.
pub(crate) fn is_shared_out(nodes: &[Node], orchestrators: usize) -> bool {
    nodes.iter().all(|node| {
        let status = node.status.borrow();
        status.orchestrators.len() == orchestrators
            && status.slots_unchecked == 0
            && status.orchestrators.iter().all(|one| one.slots > 0)
    })
}

pub(crate) fn may_check(node: &Node, address: SocketAddr) -> bool {
    node.leave.may_check(address)
}
