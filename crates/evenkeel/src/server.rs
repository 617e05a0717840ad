//! One running Evenkeel: started in an order in which each step can still fail cleanly, and stopped in one in
//! which no client notices.
//!
//! Start: data directory, listeners, admin listener, privileges, then the tasks. Everything that needs root comes
//! before it is given up, and nothing is served by the admin API before everything is open. Stop: `/readyz` says
//! 503, listeners close, running requests finish, the rest is cut at the deadline.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use cluster::checks::{self, Kept};
use cluster::desired::Ledger;
use cluster::nodes::{Lost, Nodes};
use cluster::{Last, Space, Standing, Sync};
use console::{AuditLog, Console, MemberRequest, OrderRequest, ReloadRequest, WeightsRequest};
use dataplane::{Dataplane, DataplaneEvent};
use model::acme::Managed;
use model::cluster::{ClusterNews, OrchestratorsStatus};
use model::config::{AdminRole, Config, Role, Secret, StoreConfig};
use model::node::{NameTaken, NodeEvent};
use model::plan::{Plan, PlanQuery};
use model::snapshot::Snapshot;
use model::state::Verdict;
use model::status::Status;
use net::privileges::{self, Identity};
use orchestrator::acme::{self, AcmeEvent};
use orchestrator::discovery::Book;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::Doors;
use crate::alerts::{self, Teller};
use crate::beginning::{Begun, Earlier, begin};
use crate::checked_by;
use crate::checking::{self, Checkers, Checking};
use crate::collecting;
use crate::data_dir::{self, DataDir};
use crate::declaring;
use crate::foresight;
use crate::hub::{Hub, Inputs, KnownOrders, OrderNews, Orders, Process, View};
use crate::lookups;
use crate::membership;
use crate::metrics::{ControlMetrics, Figures, Stored};
use crate::now;
use crate::registry::{self, Registration};
use crate::roll::{Asked, Sharing};
use crate::source::{self, Flags, Request, Source};
use crate::text::{counted, duration};
use crate::vital::{self, Fault, Faults, Vital};

/// Threads for all that is not forwarding.
const CONTROL_THREADS: usize = 2;
/// Room in the channels between tasks; whoever sends into a full one waits.
const CHANNEL: usize = 1024;
/// Wait for tasks of the control side at the end.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What to start.
pub(crate) struct Setup {
    /// The config, flags applied.
    pub(crate) config: Config,
    /// Where it came from.
    pub(crate) source: Source,
    /// What was read there.
    pub(crate) text: Vec<u8>,
    /// What stands above it.
    pub(crate) flags: Flags,
}

/// A running process.
pub(crate) struct Server {
    runtime: Runtime,
    shared: Arc<Shared>,
    api: AdminApi,
    signals: Signals,
    reloads: mpsc::Sender<Request>,
    faults: Faults,
    checkers: Checkers,
    registration: Registration,
    space: Space,
    /// Held until the end: it keeps other processes away.
    data: Arc<DataDir>,
}

/// The admin API at work.
struct AdminApi {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

/// What readers of the state share.
struct Shared {
    dataplane: Arc<Dataplane>,
    view: watch::Receiver<View>,
    standing: watch::Receiver<Standing>,
    orchestrators: Option<checks::Seen>,
    alerts: Teller,
    nodes: watch::Receiver<Nodes>,
    taken: watch::Receiver<Option<NameTaken>>,
    process: Process,
    ready: AtomicBool,
    flags: Flags,
    ledger: Ledger,
    space: Space,
    audit: Option<Arc<AuditLog>>,
    book: Book,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reopen: Signal,
}

/// What is seen of the cluster.
struct Seen {
    standing: watch::Receiver<Standing>,
    orchestrators: Option<checks::Seen>,
    nodes: watch::Receiver<Nodes>,
    lost: watch::Receiver<Lost>,
    taken: watch::Receiver<Option<NameTaken>>,
}

impl Seen {
    fn of(sync: &Sync, registration: &Registration, checkers: &Checkers) -> Self {
        Self {
            standing: sync.standing(),
            orchestrators: checkers.seen.clone(),
            nodes: registration.nodes.clone(),
            lost: registration.lost.clone(),
            taken: registration.taken.clone(),
        }
    }
}

impl Shared {
    fn new(
        begun: &Begun,
        view: watch::Receiver<View>,
        (seen, space): (Seen, &Space),
        doors: &Doors,
        flags: Flags,
    ) -> Self {
        Self {
            alerts: alerts::tell(
                &begun.dataplane,
                &view,
                seen.orchestrators.as_ref().map(|seen| seen.status.clone()),
                seen.standing.clone(),
                seen.lost,
            ),
            dataplane: begun.dataplane.clone(),
            view,
            standing: seen.standing,
            orchestrators: seen.orchestrators,
            nodes: seen.nodes,
            taken: seen.taken,
            process: Process { started: now() },
            ready: AtomicBool::new(true),
            flags,
            ledger: Ledger::new(space.clone()),
            space: space.clone(),
            audit: doors.audit.clone(),
            book: Book::default(),
        }
    }

    /// What a config would change now, for somebody with this role.
    fn plan(&self, query: &PlanQuery, role: AdminRole) -> Result<Plan, Vec<String>> {
        let (snapshot, declared) = {
            let view = self.view.borrow();
            (view.snapshot.clone(), view.declared.clone())
        };
        let in_flight = |backend: &_| self.dataplane.live(backend).in_flight;
        let asked = foresight::Asked { query, role };
        foresight::plan(asked, &self.flags, &declared, &snapshot, now(), in_flight)
    }

    /// What a whole config would change now.
    fn foresee(&self, config: Arc<Config>) -> Plan {
        let snapshot = self.view.borrow().snapshot.clone();
        let in_flight = |backend: &_| self.dataplane.live(backend).in_flight;
        foresight::of_config(config, &snapshot, now(), in_flight)
    }

    /// What is known of the store and of those who share it.
    fn stored(&self) -> Stored {
        Stored {
            standing: self.standing.borrow().clone(),
            skipped_keys: self.space.store().skipped_keys(),
            hints: self.space.hints().unwrap_or_default(),
            nodes: self.nodes.borrow().clone(),
            name_taken: self.taken.borrow().is_some(),
        }
    }

    /// What is seen of them, where there may be others.
    fn orchestrators(&self) -> Option<OrchestratorsStatus> {
        self.orchestrators
            .as_ref()
            .map(|seen| seen.status.borrow().clone())
    }

    fn status(&self) -> Status {
        let view = self.view.borrow().clone();
        let listeners = self.dataplane.listeners();
        let live = (
            |id: &_| self.dataplane.live(id),
            |lb: &_, pool: &_| self.dataplane.pool_live(lb, pool),
        );
        let standing = self.standing.borrow().clone();
        let stored = (&standing, self.orchestrators());
        let status = view.status(self.process, now(), &listeners, stored, live);
        let mut status = lookups::show(status, &view.snapshot.config, &self.book.all(), now());
        let owners = self
            .orchestrators
            .as_ref()
            .map(|seen| seen.owners.borrow().clone());
        checked_by::tell(&mut status, &view.declared, owners.as_ref());
        let alerts = self.alerts.status.borrow().clone();
        let nodes = registry::shown(&self.nodes.borrow());
        status.store.name_taken = self.taken.borrow().clone();
        Status {
            alerts,
            nodes,
            ..status
        }
    }
}

impl Server {
    /// Starts everything; when this returns, every listener is open.
    ///
    /// # Errors
    /// Whatever hinders the start, with what to do about it; nothing is left running.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let runtime = control_runtime()?;
        // Before anything listens: whoever is asked to stop after that stops in order.
        let inside = runtime.enter();
        let signals = Signals::new()?;
        let identity = identity(&setup.config)?;
        let (data, secrets, space, last) = open_data_dir(&setup.config, identity.as_ref())?;
        let data = Arc::new(data);
        let config = Arc::new(setup.config);
        let (space, hints) = hinting(space, &config)?;
        let mut doors = Doors::open(&config.admin)?;
        let known = runtime.block_on(KnownOrders::load(&data, &space, &config))?;
        let mut sync = Sync::new(space.clone(), last);
        let (events, plane_events) = mpsc::channel(CHANNEL);
        let start = |snapshot| start_plane(&config, &data, &secrets, &events, snapshot);
        let kept = Kept::within(&data.last());
        let earlier = Earlier::load(known.all.clone(), data.path(), &kept);
        let begun = runtime.block_on(begin(&setup.source, &config, &mut sync, &earlier, start))?;
        let admin = bind_admin(config.admin.listen)?;
        give_up_root(identity.as_ref())?;
        doors.keep_records(&config.admin.audit_log, data.audit_log())?;
        begun.dataplane.tell(&begun.served).map_err(anyhow::Error::msg)?;
        let (view, view_in) = watch::channel(begun.core.view());
        let ((verdicts, verdicts_in), (news, news_in)) = (mpsc::channel(CHANNEL), mpsc::channel(CHANNEL));
        let (vital, faults) = vital::tasks();
        let orders = Orders::start(space.clone(), &data, known, &vital);
        let (sharing, registered) = membership::share(&config, &space, sync.standing(), &vital)?;
        let stored = checking::Stored::of((&sync, &orders.0), registered, (kept, earlier.verdicts));
        let heard = (verdicts, news.clone());
        let (checking, checkers) = checking::start(&config, (&space, stored), heard, &vital)?;
        let work = registry::counting(begun.dataplane.clone(), view_in.clone());
        let (registration, nodes_in) = Registration::start(&config, &space, now(), sync.standing(), work);
        let seen = (Seen::of(&sync, &registration, &checkers), &space);
        let shared = Arc::new(Shared::new(&begun, view_in, seen, &doors, setup.flags.clone()));
        look_after_the_store(&shared, &config, (&checkers, &registration), (&sync, news));
        let tasks = Tasks {
            forwards: config.node.roles.contains(&Role::Lb),
            begun,
            data: data.clone(),
            orders,
            view,
            plane_events,
            nodes_in,
            sync,
            hints,
            checking,
            sharing,
            verdicts: verdicts_in,
            news: news_in,
            book: shared.book.clone(),
            vital,
        };
        let senders = tasks.spawn(setup.source, setup.flags, setup.text);
        let (reloads, console) = (senders.reloads.clone(), console(&shared, doors, senders));
        let api = AdminApi::start(admin, console)?;
        drop(inside);
        Ok(Self {
            runtime,
            shared,
            api,
            signals,
            reloads,
            faults,
            checkers,
            registration,
            space,
            data,
        })
    }

    /// Where the admin API listens.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.api.address
    }

    /// Asks for the state at any time, from any thread.
    pub(crate) fn status(&self) -> impl Fn() -> Status + Send + use<> {
        let shared = self.shared.clone();
        move || shared.status()
    }

    /// Serves until SIGTERM or SIGINT, then stops: running requests finish until `node.shutdown_timeout`. A second
    /// signal ends at once.
    ///
    /// # Errors
    /// When it stopped, as after a signal, because a task had failed without which it cannot go on.
    pub(crate) fn run(self) -> Result<(), Fault> {
        let Self {
            runtime,
            shared,
            api,
            mut signals,
            reloads,
            mut faults,
            checkers,
            registration,
            space,
            data,
        } = self;
        let result = runtime.block_on(async {
            let result = tokio::select! {
                () = signals.until_stop(&shared, &reloads) => Ok(()),
                fault = faults.first() => {
                    tracing::error!("{fault}");
                    Err(fault)
                }
            };
            shared.ready.store(false, Ordering::Release);
            let left = tokio::spawn(registration.leave());
            let given_back = tokio::spawn(checkers.stop());
            tokio::select! {
                () = drain(&shared) => {}
                () = signals.until_stop(&shared, &reloads) => {
                    tracing::warn!("a second signal: ending at once");
                }
            }
            let _ = api.stop.send(());
            // The answer being written gets its chance; the end does not depend on it.
            let _ = tokio::time::timeout(LAST_WAIT, api.done).await;
            // Leases end by themselves if this does not.
            let _ = tokio::time::timeout(LAST_WAIT, given_back).await;
            let _ = tokio::time::timeout(LAST_WAIT, left).await;
            result
        });
        runtime.shutdown_timeout(LAST_WAIT);
        // The last handle: what is being written reaches the disk.
        drop((space, data));
        tracing::info!("stopped");
        result
    }
}

/// What the tasks of the control side are made of.
struct Tasks {
    forwards: bool,
    begun: Begun,
    data: Arc<DataDir>,
    orders: (Orders, OrderNews),
    view: watch::Sender<View>,
    plane_events: mpsc::Receiver<DataplaneEvent>,
    nodes_in: mpsc::Receiver<NodeEvent>,
    sync: Sync,
    hints: mpsc::Receiver<()>,
    checking: Checking,
    sharing: Option<Sharing>,
    verdicts: mpsc::Receiver<Verdict>,
    news: mpsc::Receiver<ClusterNews>,
    book: Book,
    vital: Vital,
}

/// Where to tell the tasks what is wanted.
struct Senders {
    orders: mpsc::Sender<OrderRequest>,
    weights: mpsc::Sender<WeightsRequest>,
    reloads: mpsc::Sender<Request>,
    members: mpsc::Sender<MemberRequest>,
    asked: Asked,
}

impl Tasks {
    /// Starts them all.
    fn spawn(self, source: Source, flags: Flags, text: Vec<u8>) -> Senders {
        let Begun {
            core,
            effects,
            dataplane,
            ..
        } = self.begun;
        let (certificates, certificates_in) = watch::channel(Vec::new());
        let (orders, orders_in) = mpsc::channel(CHANNEL);
        let (weights, weights_in) = mpsc::channel(CHANNEL);
        let (reloads, reloads_in) = mpsc::channel(CHANNEL);
        let (candidates_out, candidates) = mpsc::channel(1);
        let (offers_out, offers) = mpsc::channel(1);
        let earlier = core.snapshot().found.clone();
        let (view, directory) = (self.view.subscribe(), self.data.path().to_owned());
        let membership =
            membership::start(directory, (earlier, self.book), (view, self.sharing), &self.vital);
        let (hub_orders, order_news) = self.orders;
        let inputs = Inputs {
            orders: orders_in,
            order_news,
            weights: weights_in,
            candidates,
            offers,
            verdicts: self.verdicts,
            news: self.news,
            nodes: self.nodes_in,
            ordered: keep_certificates(&dataplane, (self.data.managed(), certificates_in), &self.vital),
            reports: membership.reports,
            silences: membership.silences,
            events: self.plane_events,
        };
        let hub = Hub {
            core,
            dataplane,
            orders: hub_orders,
            checking: self.checking,
            certificates,
            members: membership.wanted,
            view: self.view,
            forwards: self.forwards,
            refused: None,
        };
        let vital = self.vital;
        vital.spawn("hub", hub.run(effects, inputs));
        vital.spawn("sync", self.sync.run(offers_out, self.hints));
        let watched = source::watch(source, flags, text, reloads_in, candidates_out);
        vital.spawn("config", watched);
        Senders {
            orders,
            weights,
            reloads,
            members: membership.requests,
            asked: membership.asked,
        }
    }
}

/// Starts what takes back changes that are not confirmed, and what deletes old orders.
fn look_after_the_store(
    shared: &Shared,
    config: &Config,
    (checkers, registration): (&Checkers, &Registration),
    (sync, news): (&Sync, mpsc::Sender<ClusterNews>),
) {
    declaring::guard(&shared.ledger, &shared.dataplane, config, registration, news);
    let declared = (shared.view.clone(), collecting::Known::of(sync));
    collecting::start(config, &shared.space, checkers, registration, declared);
}

fn start_plane(
    config: &Config,
    data: &DataDir,
    secrets: &[Secret],
    events: &mpsc::Sender<DataplaneEvent>,
    snapshot: Arc<Snapshot>,
) -> anyhow::Result<Dataplane> {
    Ok(Dataplane::start(dataplane::Options {
        threads: threads(config),
        snapshot,
        managed_dir: data.managed(),
        secrets: secrets.to_vec(),
        events: events.clone(),
    })?)
}

/// The store with hints over Redis, where the config has them; else nobody hints, and the watch tells.
fn hinting(space: Space, config: &Config) -> anyhow::Result<(Space, mpsc::Receiver<()>)> {
    match &config.notify {
        Some(notify) => cluster::notifying(space, notify).context("[notify]"),
        None => Ok((space, mpsc::channel(1).1)),
    }
}

/// The runtime of the control side, of a process that may have as many files open as it is allowed to ask for.
fn control_runtime() -> anyhow::Result<Runtime> {
    raise_open_files();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")
}

impl AdminApi {
    fn start(listener: TcpListener, console: Console) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let scheme = match console.tls {
            Some(_) => "https",
            None => "http",
        };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(console::serve(listener, console, async {
            // Dropped unsent means the same.
            let _ = stopped.await;
        }));
        tracing::info!("the admin API listens on {scheme}://{address}");
        Ok(Self { address, stop, done })
    }
}

async fn drain(shared: &Shared) {
    let deadline = shared.view.borrow().snapshot.config.node.shutdown_timeout;
    let open = usize::try_from(shared.dataplane.connections()).unwrap_or(usize::MAX);
    tracing::info!(
        "stopping: accepting no more; {} open, deadline {}",
        counted(open, "client connection"),
        duration(deadline)
    );
    let report = shared.dataplane.shutdown(deadline).await;
    if !report.finished {
        tracing::warn!(
            "the deadline is over: {} client connections were cut",
            report.cut_connections
        );
    }
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            reopen: listen(SignalKind::user_defined1())?,
        })
    }

    /// Waits for a signal to stop; one to reload, or to open the access log again, is passed on.
    async fn until_stop(&mut self, shared: &Shared, reloads: &mpsc::Sender<Request>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reopen.recv() => {
                    tracing::info!("SIGUSR1: opening the access log and the audit log again");
                    shared.dataplane.reopen_access_log();
                    if let Some(audit) = &shared.audit {
                        audit.reopen();
                    }
                }
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the config again");
                    // A full channel means that reloads are waiting already.
                    let _ = reloads.try_send(Request { reply: None });
                }
            }
        }
    }
}

/// Becomes the user that the config names, now that everything that needs root is done.
fn give_up_root(identity: Option<&Identity>) -> anyhow::Result<()> {
    if let Some(identity) = identity {
        identity.assume()?;
        tracing::info!("gave up root: running as {}", identity.name);
    }
    Ok(())
}

/// Looks after the files of certificates, and orders those that are `wanted` from their authorities. Tells what
/// became of the orders.
fn keep_certificates(
    dataplane: &Arc<Dataplane>,
    (directory, wanted): (PathBuf, watch::Receiver<Vec<Managed>>),
    vital: &Vital,
) -> mpsc::Receiver<AcmeEvent> {
    vital.spawn("certificates", dataplane::watch_certificates(dataplane.clone()));
    let (ordered, events) = mpsc::channel(CHANNEL);
    let dataplane = dataplane.clone();
    let publish: acme::Publish = Arc::new(move |challenges| {
        if let Err(error) = dataplane.set_challenges(&challenges) {
            tracing::error!("challenges of an authority cannot be answered: {error}");
        }
    });
    vital.spawn("acme", acme::run(directory, wanted, publish, ordered));
    events
}

fn console(shared: &Arc<Shared>, doors: Doors, senders: Senders) -> Console {
    let metrics = ControlMetrics {
        view: shared.view.clone(),
        figures: {
            let shared = shared.clone();
            Arc::new(move || figures(&shared.dataplane))
        },
        orchestrators: {
            let shared = shared.clone();
            Arc::new(move || shared.orchestrators())
        },
        stored: {
            let shared = shared.clone();
            Arc::new(move || shared.stored())
        },
        started: shared.process.started,
        alerts: shared.alerts.status.clone(),
        admin: doors.counters.clone(),
        asked: senders.asked,
        book: shared.book.clone(),
    };
    let scraped = shared.dataplane.clone();
    let (status, ready, explain, effective) =
        (shared.clone(), shared.clone(), shared.clone(), shared.clone());
    let (plan, config, foresee) = (shared.clone(), shared.clone(), shared.clone());
    let foresee = Arc::new(move |config| foresee.foresee(config));
    let recall = shared.dataplane.clone();
    Console {
        token: doors.token,
        config: Arc::new(move || config.view.borrow().snapshot.config.clone()),
        tls: doors.tls,
        counters: doors.counters,
        audit: doors.audit,
        status: Arc::new(move || status.status()),
        ready: Arc::new(move || ready.ready.load(Ordering::Acquire)),
        explain: Arc::new(move |query| explain.dataplane.explain(query)),
        recall: Arc::new(move |query| {
            let dataplane = recall.clone();
            Box::pin(async move { dataplane.recall(query).await })
        }),
        plan: Arc::new(move |query, role| {
            let shared = plan.clone();
            Box::pin(async move {
                // It reads files and may take a while.
                let planned = tokio::task::spawn_blocking(move || shared.plan(&query, role)).await;
                planned.unwrap_or_else(|error| Err(vec![format!("a fault of Evenkeel: {error}")]))
            })
        }),
        desired: declaring::desire(shared.ledger.clone(), shared.view.clone(), foresee),
        orders: senders.orders,
        weights: senders.weights,
        members: senders.members,
        reloads: translate_reloads(senders.reloads),
        alerts: shared.alerts.for_console(),
        metrics: Arc::new(move |scope, out| metrics.write(&scraped, scope, out)),
        effective: Arc::new(move || {
            // Not while the view is borrowed: the hub would wait for the whole text.
            let config = effective.view.borrow().snapshot.config.clone();
            model::effective::to_toml(&config)
        }),
    }
}

/// Reloads asked for over the API become requests to the source like any other.
fn translate_reloads(reloads: mpsc::Sender<Request>) -> mpsc::Sender<ReloadRequest> {
    let (out, mut asked) = mpsc::channel::<ReloadRequest>(1);
    tokio::spawn(async move {
        while let Some(ReloadRequest { reply }) = asked.recv().await {
            if reloads.send(Request { reply: Some(reply) }).await.is_err() {
                return;
            }
        }
    });
    out
}

fn figures(dataplane: &Dataplane) -> Figures {
    Figures {
        listeners: dataplane.listeners(),
        client_connections: dataplane.connections().into(),
        backend_connections: dataplane.backend_connections(),
    }
}

fn threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    config.node.threads.map_or_else(cores, usize::from)
}

fn raise_open_files() {
    match privileges::raise_open_files() {
        Ok(limit) => tracing::info!("limit of open files: {limit}"),
        Err(error) => tracing::warn!("cannot raise the limit of open files: {error}"),
    }
}

/// Whom to become, when there is root to give up.
fn identity(config: &Config) -> anyhow::Result<Option<Identity>> {
    let Some(user) = &config.node.user else {
        if privileges::is_root() {
            tracing::warn!("running as root and staying so: set node.user to give it up after binding");
        }
        return Ok(None);
    };
    let identity = Identity::find(user, config.node.group.as_deref())?;
    if privileges::is_root() {
        return Ok(Some(identity));
    }
    if !identity.is_current() {
        tracing::warn!(
            "node.user is {user}, but only root can become another user: staying {}",
            privileges::current_user()
        );
    }
    Ok(None)
}

/// The data directory, what to sign with where the config says nothing, and the store.
fn open_data_dir(
    config: &Config,
    identity: Option<&Identity>,
) -> anyhow::Result<(DataDir, Vec<Secret>, Space, Option<Last>)> {
    let path = match &config.node.data_dir {
        Some(path) => path.clone(),
        None => {
            let variable = |name| std::env::var_os(name).map(PathBuf::from);
            data_dir::default_path(
                privileges::is_root(),
                variable("XDG_STATE_HOME"),
                variable("HOME"),
            )
            .ok_or_else(|| {
                anyhow!("no place for data: HOME is not set; name one with --data-dir or node.data_dir")
            })?
        }
    };
    let data = DataDir::open(&path)?;
    // Before the directory is given away, so that what is made here is given away too.
    let secrets = data.secrets()?;
    let space = cluster::open(&config.store, &data.store()).context("[store]")?;
    // There may be a thousand LB servers. The few others are back at once: they hold leases, and lead.
    let space = match config.node.roles.iter().all(|role| *role == Role::Lb) {
        true => space.one_of_many(),
        false => space,
    };
    let last = match config.store {
        StoreConfig::Embedded => None,
        StoreConfig::Etcd(_) => Some(Last::open(&data.last())?),
    };
    if let Some(identity) = identity {
        data.give_to(identity).with_context(|| {
            format!(
                "cannot give the data directory {} to {}",
                data.path().display(),
                identity.name
            )
        })?;
    }
    Ok((data, secrets, space, last))
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "cannot listen on {address} for the admin API: {error}; \
             is another evenkeel running? Choose another address with --admin or admin.listen"
        ),
        Err(error) => bail!("cannot listen on {address} for the admin API: {error}"),
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
