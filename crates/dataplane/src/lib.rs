//! The data plane: shards that accept connections and forward requests.
//!
//! One thread per core, each with its own runtime, listening sockets (`SO_REUSEPORT`), idle backend connections
//! and buffers; see [`shard`](self). What they share is immutable (the serving state made from a
//! [`model::snapshot::Snapshot`]) or a per-backend atomic. A change is built beside the traffic and swapped in
//! each shard between two requests: no connection is touched by a change that is not about it.
//!
//! What it refuses: forwarding raw bytes (every message is parsed and written anew), holding memory for
//! connections that wait, unbounded anything.

mod accept_errors;
mod acting;
mod actions;
mod attempt;
mod backend_http2;
mod buffers;
mod call;
mod circuit;
mod compress;
mod connection;
mod connection_cap;
mod counters;
mod departure;
mod exchange;
mod explain;
mod explain_actions;
mod geo;
mod http2;
mod keys;
mod limits;
mod live;
mod metrics;
mod mirror;
mod observe;
mod origin;
mod relay;
mod reply;
mod request_body;
mod routing;
mod serving;
mod shard;
mod share;
mod slot;
mod spool;
mod sticky;
mod story;
mod stream;
mod timers;
mod tls;
mod tries;
mod tunnel;
mod upgrade;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::acme::Challenges;
use model::config::{Config, Name, Secret};
use model::explain::{ExplainQuery, Explanation};
use model::record::{MAX_RECORDS, RecordQuery, RequestRecord};
use model::scrape::Scope;
use model::snapshot::{Member, Snapshot};
use model::state::{CircuitMoved, Ejected};
use model::status::ListenerStatus;
use tokio::sync::mpsc as async_mpsc;

use crate::accept_errors::AcceptErrors;
use crate::geo::Geo;
use crate::observe::{Observing, Recall};
use crate::serving::{Registry, Serving};
use crate::shard::{Command, Shared};

pub use crate::geo::check as check_geoip;
pub use crate::metrics::{Description, METRICS};
pub use crate::observe::check_headers_file;
pub use crate::tls::{CertificateChange, CertificateNews, watch as watch_certificates};

/// How long a change waits for a shard to take it. Shards answer between two polls of their tasks, within
/// microseconds; one that does not is stuck, and the others must not wait for it.
const PUBLISH_WAIT: Duration = Duration::from_secs(5);

/// How often shutdown looks whether the last connection has ended.
const SHUTDOWN_POLL: Duration = Duration::from_millis(10);

/// How long the end waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What the data plane starts with.
#[derive(Debug)]
pub struct Options {
    /// Number of shards; at least 1.
    pub threads: usize,
    /// What to serve first.
    pub snapshot: Arc<Snapshot>,
    /// Where certificates that are ordered (ACME) are kept.
    pub managed_dir: PathBuf,
    /// What sticky cookies are signed with where the config says nothing: the first signs, the others are accepted
    /// still. The first also seeds the tables of rate limits and sessions, so it should be nobody's guess.
    pub secrets: Vec<Secret>,
    /// Where to tell what happened.
    pub events: async_mpsc::Sender<DataplaneEvent>,
}

/// What the data plane tells the process.
#[derive(Debug, Clone)]
pub enum DataplaneEvent {
    /// A backend was ejected; in force on all shards already.
    Ejected(Ejected),
    /// Something about certificates; in force on all shards already.
    Certificate(CertificateNews),
    /// A database of countries was read, or could not be: then the one before stays in force.
    Geoip {
        /// The file.
        path: PathBuf,
        /// Why it could not be.
        result: Result<(), String>,
    },
    /// The circuit breaker of a pool opened or closed.
    CircuitMoved(CircuitMoved),
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address could not be bound.
    #[error("cannot listen on {address} (load balancer {load_balancer}, listener {listener}): {cause}")]
    Listen {
        /// Load balancer.
        load_balancer: Name,
        /// Listener.
        listener: Name,
        /// Address as configured.
        address: SocketAddr,
        /// What the system said, with what to do about it.
        cause: String,
    },
    /// A certificate, key or authority could not be used.
    #[error("cannot serve TLS ({place}): {cause}")]
    Tls {
        /// Listener or pool.
        place: String,
        /// What is wrong.
        cause: String,
    },
    /// The database of countries cannot be used.
    #[error("{0}")]
    Geoip(String),
    /// A thread could not be started.
    #[error("cannot start a shard thread: {0}")]
    Thread(io::Error),
}

/// A listener that could not be opened by a change; the rest of the change is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenFailure {
    /// Load balancer.
    pub load_balancer: Name,
    /// Listener.
    pub listener: Name,
    /// What the system said, with what to do about it.
    pub cause: String,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Every connection ended by itself.
    pub finished: bool,
    /// Connections cut at the deadline.
    pub cut_connections: u32,
}

/// The running data plane.
#[derive(Debug)]
pub struct Dataplane {
    shared: Arc<Shared>,
    shards: Vec<Orders>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    state: Mutex<State>,
}

/// What is in force, for those who change or look.
#[derive(Debug)]
struct State {
    serving: Arc<Serving>,
    /// Bound address of each configured one, or why it is not bound.
    bound: BTreeMap<SocketAddr, Result<SocketAddr, String>>,
    /// Whether files and sockets to tell of requests may be opened: not before root is given up.
    telling: bool,
}

impl Dataplane {
    /// Binds every listener, starts the shards and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let threads = options.threads.max(1);
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            registry: Registry::new(threads, options.managed_dir, options.secrets),
            events: options.events,
            connections: 0.into(),
            max_connections: options.snapshot.config.node.max_connections.into(),
            refused_connections: 0.into(),
            accept_errors: AcceptErrors::default(),
            geo: Geo::default(),
            shards: threads,
            told: observe::Counters::default(),
        });
        let geoip = options.snapshot.config.node.geoip.as_deref();
        shared.geo.follow(geoip).map_err(StartError::Geoip)?;
        let observing = Arc::new(Observing::quiet(&options.snapshot.config.observe));
        let serving = Arc::new(Serving::build(
            &options.snapshot,
            None,
            &shared.registry,
            observing,
        ));
        if let Some((place, cause)) = serving.tls_problems().into_iter().next() {
            return Err(StartError::Tls { place, cause });
        }
        let mut sockets = Vec::new();
        let mut bound = BTreeMap::new();
        for listener in &serving.listeners {
            let address = listener.config.address;
            let opened =
                net::listen::bind_shared(address, threads, false).map_err(|error| StartError::Listen {
                    load_balancer: listener.lb.config.name.clone(),
                    listener: listener.config.name.clone(),
                    address,
                    cause: explain_bind(&error),
                })?;
            bound.insert(address, Ok(local_address(&opened, address)));
            sockets.push((address, opened));
        }
        let (shards, handles) = start_shards(threads, &shared).map_err(StartError::Thread)?;
        let dataplane = Self {
            shared,
            shards,
            threads: Mutex::new(handles),
            state: Mutex::new(State {
                serving: serving.clone(),
                bound,
                telling: false,
            }),
        };
        if !dataplane.send(&serving, None, sockets, &Arc::from([])) {
            return Err(StartError::Thread(io::Error::other(
                "a shard did not begin to serve",
            )));
        }
        Ok(dataplane)
    }

    /// Puts `snapshot` in force on every shard before it returns; listeners are opened and closed as it says.
    /// Returns those that could not be opened.
    pub fn publish(&self, snapshot: &Snapshot) -> Vec<ListenFailure> {
        self.follow_geoip(snapshot.config.node.geoip.as_deref());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let observing = self.follow(&state, snapshot).0;
        let serving = Arc::new(Serving::build(
            snapshot,
            Some(&state.serving),
            &self.shared.registry,
            observing,
        ));
        self.shared
            .max_connections
            .store(serving.max_connections, Relaxed);
        let mut failures = Vec::new();
        let mut sockets = Vec::new();
        let ports = state.bound.values().filter_map(|b| b.as_ref().ok());
        let held: BTreeSet<u16> = ports.map(SocketAddr::port).collect();
        state
            .bound
            .retain(|address, result| result.is_ok() && serving.listener(*address).is_some());
        for listener in &serving.listeners {
            let address = listener.config.address;
            if state.bound.contains_key(&address) {
                continue;
            }
            let beside_own = held.contains(&address.port());
            match net::listen::bind_shared(address, self.shards.len(), beside_own) {
                Ok(opened) => {
                    state.bound.insert(address, Ok(local_address(&opened, address)));
                    sockets.push((address, opened));
                }
                Err(error) => {
                    let cause = explain_bind(&error);
                    state.bound.insert(address, Err(cause.clone()));
                    failures.push(ListenFailure {
                        load_balancer: listener.lb.config.name.clone(),
                        listener: listener.config.name.clone(),
                        cause,
                    });
                }
            }
        }
        let retired = retired(&state.serving, &serving);
        self.send(&serving, Some(&state.serving), sockets, &retired);
        let left = state.serving.touched(Some(&serving)).map(|lb| lb.names()).sum();
        state.serving = serving;
        drop(state);
        self.shared.registry.prune_after(left);
        failures
    }

    /// Reads the database of countries again when the file has changed; what came of it is told as
    /// [`DataplaneEvent::Geoip`]. Reads a file: not for a thread that serves.
    pub fn follow_geoip(&self, path: Option<&Path>) {
        let result = match self.shared.geo.follow(path) {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(path) = path.map(Path::to_owned) {
            // A full channel loses the event; the metrics have it.
            let _ = self
                .shared
                .events
                .try_send(DataplaneEvent::Geoip { path, result });
        }
    }

    /// Begins to tell of requests: opens the access log. Called once, after root was given up, so that what is
    /// opened now can be opened again later.
    ///
    /// # Errors
    /// What hinders, with what to do about it.
    pub fn tell(&self, snapshot: &Snapshot) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.telling = true;
        let (observing, opened) = self.follow(&state, snapshot);
        opened?;
        let serving = Serving::build(snapshot, Some(&state.serving), &self.shared.registry, observing);
        let before = std::mem::replace(&mut state.serving, Arc::new(serving));
        self.send(&state.serving, Some(&before), Vec::new(), &Arc::from([]));
        Ok(())
    }

    fn follow(&self, state: &State, snapshot: &Snapshot) -> (Arc<Observing>, Result<(), String>) {
        let config = &snapshot.config.observe;
        if !state.telling {
            return (Arc::new(Observing::quiet(config)), Ok(()));
        }
        let before = &state.serving.observing;
        Observing::follow(config, before, self.shards.len(), &self.shared.told)
    }

    /// What is remembered of requests, newest first.
    pub async fn recall(&self, query: RecordQuery) -> Vec<RequestRecord> {
        let most = match query {
            RecordQuery::Id(_) => MAX_RECORDS,
            RecordQuery::Last { count, .. } => count.min(MAX_RECORDS),
        };
        let (reply, mut answers) = async_mpsc::channel(self.shards.len());
        let query = Arc::new(query);
        for shard in &self.shards {
            let (query, reply) = (query.clone(), reply.clone());
            // A shard that is gone remembers nothing.
            let _ = shard.send(Command::Recall(Recall { query, reply }));
        }
        drop(reply);
        let mut all = Vec::new();
        while let Some(some) = answers.recv().await {
            all.extend(some);
        }
        all.sort_by_key(|record| std::cmp::Reverse(record.time));
        all.truncate(most);
        all
    }

    /// Opens the access log's file again, before its next line: it was moved away.
    pub fn reopen_access_log(&self) {
        if let Some(sink) = &self.serving().observing.access_log {
            sink.reopen();
        }
    }

    /// What would hinder TLS from working as `config` says, each with its place. Files are read.
    pub fn tls_problems(&self, config: &Config) -> Vec<String> {
        self.serving().tls_problems_of(config, &self.shared.registry)
    }

    /// Puts these answers to an authority's challenges in force, on all shards, and withdraws all others.
    ///
    /// # Errors
    /// A sentence, when a key cannot be used; then nothing changes.
    pub fn set_challenges(&self, challenges: &Challenges) -> Result<(), String> {
        let set = self.shared.registry.challenges.set(challenges);
        set.map_err(|error| error.to_string())
    }

    /// Listeners with their load balancer, in the order configured.
    pub fn listeners(&self) -> Vec<(Name, ListenerStatus)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |listener: &Arc<serving::ListenerServing>| {
            let address = listener.config.address;
            let bound = state.bound.get(&address).cloned();
            let bound = bound.unwrap_or_else(|| Err("not opened".to_owned()));
            ListenerStatus {
                name: listener.config.name.clone(),
                address: *bound.as_ref().unwrap_or(&address),
                open: bound.is_ok(),
                error: bound.err(),
                connections: u64::from(listener.cell.connections.load(Relaxed)),
                certificates: listener.tls.as_ref().map_or_else(Vec::new, |tls| tls.status()),
            }
        };
        state
            .serving
            .listeners
            .iter()
            .map(|l| (l.lb.config.name.clone(), status(l)))
            .collect()
    }

    /// Client connections now.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Relaxed)
    }

    /// Where a request would go, and why, without sending it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the query.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, String> {
        let (serving, bound) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.serving.clone(), state.bound.clone())
        };
        let bound = |configured: &SocketAddr| match bound.get(configured) {
            Some(Ok(real)) => *real,
            _ => *configured,
        };
        explain::explain(&serving, &self.shared.geo, bound, query, self.now_us())
    }

    /// Microseconds since the epoch that all shards share.
    fn now_us(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The metrics of the data plane that a scrape asks for.
    pub fn metrics(self: &Arc<Self>, scope: Scope) -> Box<dyn prometheus_client::collector::Collector> {
        Box::new(metrics::Metrics::new(self.clone(), scope))
    }

    /// Stops accepting, lets running requests finish until `deadline` has passed, cuts the rest, ends the
    /// threads.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        for shard in &self.shards {
            // A shard that is gone has nothing to drain.
            let _ = shard.send(Command::Drain);
        }
        let begun = Instant::now();
        while self.connections() > 0 && begun.elapsed() < deadline {
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
        let cut_connections = self.connections();
        for shard in &self.shards {
            let _ = shard.send(Command::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().filter_map(|t| t.join().err()).count());
        if joined.await.unwrap_or(1) > 0 {
            tracing::error!("a shard thread had panicked");
        }
        let observing = self.serving().observing.clone();
        // What is written last is worth a short wait, and no more: a stuck reader does not keep us alive.
        let _ = tokio::task::spawn_blocking(move || observing.finish(LAST_LINES)).await;
        ShutdownReport {
            finished: cut_connections == 0,
            cut_connections,
        }
    }

    fn serving(&self) -> Arc<Serving> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .serving
            .clone()
    }

    /// Hands the state to every shard and waits until each has it. False when one did not take it.
    fn send(
        &self,
        serving: &Arc<Serving>,
        before: Option<&Serving>,
        mut sockets: Vec<(SocketAddr, Vec<std::net::TcpListener>)>,
        retired: &Arc<[u64]>,
    ) -> bool {
        let now_us = u64::try_from(self.shared.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        serving.install_queues(before, now_us);
        let (done, taken) = mpsc::sync_channel(self.shards.len());
        for shard in &self.shards {
            let open = sockets
                .iter_mut()
                .filter_map(|(address, s)| s.pop().map(|s| (*address, s)))
                .collect();
            let command = Command::Publish {
                serving: serving.clone(),
                open,
                retired: retired.clone(),
                done: done.clone(),
            };
            if shard.send(command).is_err() {
                tracing::error!("a shard is gone; its share of connections is not served");
            }
        }
        drop(done);
        for _ in &self.shards {
            if taken.recv_timeout(PUBLISH_WAIT).is_err() {
                tracing::error!("a shard did not take the change in time");
                return false;
            }
        }
        true
    }
}

/// Where commands to a shard go.
type Orders = async_mpsc::UnboundedSender<Command>;

fn start_shards(threads: usize, shared: &Arc<Shared>) -> io::Result<(Vec<Orders>, Vec<JoinHandle<()>>)> {
    let mut shards = Vec::new();
    let mut handles = Vec::new();
    for index in 0..threads {
        let (sender, receiver) = async_mpsc::unbounded_channel();
        let shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                if let Err(error) = shard::run(index, shared, receiver) {
                    tracing::error!(shard = index, %error, "shard ended");
                }
            });
        handles.push(thread?);
        shards.push(sender);
    }
    Ok((shards, handles))
}

/// Backends that took requests before and do not now.
fn retired(before: &Serving, after: &Serving) -> Arc<[u64]> {
    let changed = |pool: &serving::PoolServing| {
        let known = after.load_balancers.get(&pool.cell.load_balancer);
        let same = known.and_then(|lb| lb.pools.iter().find(|p| p.config.name == pool.config.name));
        same.is_none_or(|same| !Arc::ptr_eq(same.balancer.state(), pool.balancer.state()))
    };
    let takes = |pool: &serving::PoolServing, index: usize| {
        let members = &pool.balancer.state().members;
        members.get(index).is_some_and(Member::is_used)
    };
    let now: BTreeSet<u64> = serving::backends(after.touched(Some(before)))
        .filter(|(p, i, _)| takes(p, *i))
        .map(|(_, _, b)| b.serial)
        .collect();
    let gone = serving::backends(before.touched(Some(after)))
        .filter(|(pool, _, b)| changed(pool) && !now.contains(&b.serial));
    gone.map(|(_, _, backend)| {
        backend.takes_requests.store(false, Relaxed);
        backend.serial
    })
    .collect()
}

fn local_address(listeners: &[std::net::TcpListener], configured: SocketAddr) -> SocketAddr {
    listeners
        .first()
        .and_then(|l| l.local_addr().ok())
        .unwrap_or(configured)
}

fn explain_bind(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; after privileges are dropped none can be added"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        _ => return error.to_string(),
    };
    format!("{error}: {help}")
}
