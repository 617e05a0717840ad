//! The hub: the one task that owns what is desired, ordered and observed, and publishes snapshots.
//!
//! All decisions are in [`core`]; here is only the shell that feeds it and carries out what it says. Inputs come
//! over bounded channels: orders, configs, verdicts, events of the data plane; and the time, when the core has a
//! deadline. Nothing that serves requests ever waits for this task.

mod again;
mod backends;
mod changes;
mod core;
mod declared;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod found;
mod orders;
#[cfg(test)]
mod route_storm;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod simulation;
mod view;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Desired, Offer};
use console::{OrderRequest, WeightsRequest};
use dataplane::{Dataplane, DataplaneEvent};
use model::acme::Managed;
use model::cluster::ClusterNews;
use model::config::Config;
use model::node::NodeEvent;
use model::state::{Report, Silence, Verdict};
use orchestrator::acme::AcmeEvent;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

pub(crate) use self::changes::{describe, name_taken, shares};
pub(crate) use self::core::{Core, Effect, Input};
pub(crate) use self::declared::Declared;
pub(crate) use self::orders::{KnownOrders, OrderNews, Orders};
pub(crate) use self::view::{Process, View};

use self::changes::Kind;
use crate::checking::Checking;
use crate::membership;
use crate::now;
use crate::source::Candidate;

/// Verdicts taken at once: after a start many come together, and each batch builds one snapshot.
const VERDICTS_AT_ONCE: usize = 1024;
/// Reports of members taken at once, likewise.
const REPORTS_AT_ONCE: usize = 256;
/// Longest sleep, so that a wall clock that was set is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// How often the database of countries is looked at.
const GEOIP_POLL: Duration = Duration::from_secs(5);

/// Whether an event of this kind is one that an operator should look at.
pub(crate) fn is_bad(kind: &str) -> bool {
    Kind::is_bad(kind)
}

/// Writes the warnings about a config into the log; about what it shares with the one before nothing is said again.
pub(crate) fn warn_of(config: &Config, before: Option<&Config>) {
    let touched = before.map(|before| config.touched(before));
    for (lb, warning) in changes::all_warnings(config) {
        if touched.as_ref().is_none_or(|touched| touched.contains(lb)) {
            tracing::warn!("{warning}");
        }
    }
}

/// The hub with everything it talks to.
pub(crate) struct Hub {
    /// The brain.
    pub(crate) core: Core,
    /// Serves what the core publishes.
    pub(crate) dataplane: Arc<Dataplane>,
    /// The orders, and the store that they are in.
    pub(crate) orders: Orders,
    /// Whom to check.
    pub(crate) checking: Checking,
    /// Certificates to keep fresh.
    pub(crate) certificates: watch::Sender<Vec<Managed>>,
    /// What is wanted of those who look up members, and keep them.
    pub(crate) members: membership::Wanted,
    /// What others see.
    pub(crate) view: watch::Sender<View>,
    /// Whether this node forwards; if not, it only knows.
    pub(crate) forwards: bool,
    /// A config file that was refused for what the store had.
    pub(crate) refused: Option<again::Refused>,
}

/// What the hub listens to.
pub(crate) struct Inputs {
    /// Operators' orders.
    pub(crate) orders: mpsc::Receiver<OrderRequest>,
    /// Operators' orders for routes.
    pub(crate) weights: mpsc::Receiver<WeightsRequest>,
    /// What became of orders, and what stands in the store.
    pub(crate) order_news: OrderNews,
    /// Configs read.
    pub(crate) candidates: mpsc::Receiver<Candidate>,
    /// What the store has.
    pub(crate) offers: mpsc::Receiver<Offer>,
    /// News of the cluster's nodes.
    pub(crate) nodes: mpsc::Receiver<NodeEvent>,
    /// Verdicts of the checks.
    pub(crate) verdicts: mpsc::Receiver<Verdict>,
    /// What happened among the orchestrators.
    pub(crate) news: mpsc::Receiver<ClusterNews>,
    /// What became of ordered certificates.
    pub(crate) ordered: mpsc::Receiver<AcmeEvent>,
    /// What sources say of the members of pools.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// Who fell silent, and who is heard again.
    pub(crate) silences: mpsc::Receiver<Vec<Silence>>,
    /// Events of the data plane.
    pub(crate) events: mpsc::Receiver<DataplaneEvent>,
}

impl Hub {
    /// Carries out the first effects, then serves until every sender of orders is gone.
    pub(crate) async fn run(mut self, first: Vec<Effect>, mut inputs: Inputs) {
        self.apply(first).await;
        self.order_certificates(&self.core.snapshot().config);
        self.members.ask(&self.core.snapshot().config);
        let listeners = Input::Listeners(self.dataplane.listeners());
        self.handle(listeners).await;
        let (mut verdicts, mut reports) = (Vec::new(), Vec::new());
        let mut geoip = tokio::time::interval(GEOIP_POLL);
        geoip.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.core.deadline();
            let nap = deadline.map_or(MAX_SLEEP, |at| at.since(now()).min(MAX_SLEEP));
            tokio::select! {
                order = inputs.orders.recv() => match order {
                    Some(request) => self.order(request),
                    None => return,
                },
                Some(request) = inputs.weights.recv() => self.weigh(request),
                Some(back) = inputs.order_news.back.recv() => self.ordered(back).await,
                Some(seen) = inputs.order_news.seen.recv() => self.saw_orders(seen).await,
                Some(step) = inputs.order_news.restoring.recv() => self.restore_orders(&step),
                Some(candidate) = inputs.candidates.recv() => self.candidate(candidate).await,
                Some(offer) = inputs.offers.recv() => self.offer(offer).await,
                _ = inputs.verdicts.recv_many(&mut verdicts, VERDICTS_AT_ONCE), if !inputs.verdicts.is_closed() => {
                    self.handle(Input::Verdicts(std::mem::take(&mut verdicts))).await;
                }
                _ = inputs.reports.recv_many(&mut reports, REPORTS_AT_ONCE), if !inputs.reports.is_closed() => {
                    self.handle(Input::Members(std::mem::take(&mut reports))).await;
                }
                Some(news) = inputs.news.recv() => self.handle(Input::Cluster(news)).await,
                Some(event) = inputs.nodes.recv() => self.handle(Input::Node(event)).await,
                Some(news) = inputs.silences.recv() => self.handle(Input::Silence(news)).await,
                Some(event) = inputs.ordered.recv() => {
                    self.handle(Input::CertificateOrdered(event)).await;
                }
                Some(event) = inputs.events.recv() => {
                    self.handle(match event {
                        DataplaneEvent::Ejected(ejected) => Input::Ejected(ejected),
                        DataplaneEvent::Certificate(news) => Input::Certificate(news),
                        DataplaneEvent::Geoip { path, result } => Input::Geoip { path, result },
                        DataplaneEvent::CircuitMoved(moved) => Input::CircuitMoved(moved),
                    }).await;
                }
                _ = geoip.tick() => {
                    let config = self.core.snapshot().config.clone();
                    let path = config.node.geoip.as_deref();
                    // It reads a file; the other tasks of this thread must not wait for that.
                    tokio::task::block_in_place(|| self.dataplane.follow_geoip(path));
                }
                () = again::due(self.refused.as_ref()) => self.try_again().await,
                () = tokio::time::sleep(nap) => {
                    if deadline.is_some_and(|at| at <= now()) {
                        self.handle(Input::Time).await;
                    }
                }
            }
        }
    }

    async fn handle(&mut self, input: Input) {
        // All load balancers may be new in it; the store's connection lives on these threads too.
        let effects = match input {
            Input::Loaded(_) | Input::Applied(_) => {
                tokio::task::block_in_place(|| self.core.handle(now(), input))
            }
            input => self.core.handle(now(), input),
        };
        self.apply(effects).await;
    }

    async fn apply(&mut self, effects: Vec<Effect>) {
        let mut listeners_may_change = false;
        for effect in effects {
            match effect {
                Effect::Publish(snapshot) => {
                    // It waits for the shards; the other tasks of this thread must not.
                    if self.forwards {
                        tokio::task::block_in_place(|| self.dataplane.publish(&snapshot));
                    }
                    // A verdict or an order opens no listener.
                    let same = Arc::ptr_eq(&self.view.borrow().snapshot.config, &snapshot.config);
                    if !same {
                        self.order_certificates(&snapshot.config);
                        self.members.ask(&snapshot.config);
                    }
                    listeners_may_change |= !same || self.core.misses_listeners();
                }
                Effect::Probe(wanted) => self.checking.want(wanted, &self.core.snapshot().found),
                Effect::Forget(orders) => self.orders.forget(orders),
                Effect::Remember(members) => {
                    self.members.remembered.send_replace(members);
                }
                Effect::Log(event) if is_bad(&event.kind) => {
                    tracing::warn!(event = event.kind, "{}: {}", event.subject, event.message);
                }
                Effect::Log(event) => {
                    tracing::info!(event = event.kind, "{}: {}", event.subject, event.message);
                }
            }
        }
        self.checking
            .declared_is(&self.core.file(), &self.core.snapshot().config);
        self.view.send_replace(self.core.view());
        if listeners_may_change {
            let listeners = Input::Listeners(self.dataplane.listeners());
            let effects = self.core.handle(now(), listeners);
            // Listeners change nothing that is published, so this ends here.
            Box::pin(self.apply(effects)).await;
        }
    }

    /// Says which certificates are to be ordered and kept fresh, when that has changed.
    fn order_certificates(&self, config: &Config) {
        // Who forwards nothing can answer no authority.
        let wanted = if self.forwards {
            Managed::all(config)
        } else {
            Vec::new()
        };
        self.certificates.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }

    async fn candidate(&mut self, candidate: Candidate) {
        let input = match candidate.result {
            Err(reasons) => {
                self.keep_refused(None);
                Input::Refused(reasons)
            }
            Ok(config) => {
                // So that only what changed is looked at.
                let known = self.core.file();
                let file = Arc::new(config.sharing(&known));
                match self.declared(file.clone(), self.core.stored()) {
                    Ok(declared) => {
                        self.keep_refused(None);
                        warn_of(&declared.file, Some(&known));
                        Input::Loaded(declared)
                    }
                    Err(reasons) => {
                        self.keep_refused(Some(file));
                        Input::Refused(reasons)
                    }
                }
            }
        };
        if let Input::Refused(reasons) = &input {
            for reason in reasons {
                tracing::error!("{reason}");
            }
        }
        self.handle(input).await;
        if self.shares_orders() {
            self.look_at_orders().await;
        }
        let result = self.core.view().config.last_reload;
        if let Some((reply, result)) = candidate.reply.zip(result) {
            let _ = reply.send(result);
        }
    }

    /// Takes a revision of the store, if it goes together with the file and can be served.
    async fn offer(&mut self, offer: Offer) {
        let revision = offer.desired.revision;
        // A start that could not serve what the store has left the orders about it aside.
        let had_nothing = self.core.stored().revision == 0;
        let declared = self.declared(self.core.file(), offer.desired);
        let result = declared.as_ref().map(|_| ()).map_err(Clone::clone);
        self.handle(match declared {
            Ok(declared) => Input::Applied(declared),
            Err(reasons) => Input::ApplyRefused { revision, reasons },
        })
        .await;
        let is_taken = result.is_ok();
        // Who offered may have ended; it is served all the same.
        let _ = offer.reply.send(result);
        if is_taken {
            self.try_anew().await;
        }
        if self.shares_orders() || had_nothing {
            self.look_at_orders().await;
        }
    }

    /// The whole of file and store, when it can be put in force.
    fn declared(&self, file: Arc<Config>, stored: Arc<Desired>) -> Result<Declared, Vec<String>> {
        // It looks at all of them, opens sockets and reads files; the other tasks of this thread must not wait.
        let (declared, reasons) = tokio::task::block_in_place(|| {
            let declared = Declared::after(file, stored, Some(self.core.declared()))?;
            let reasons = match self.forwards {
                true => self.unusable(&declared.config),
                false => Vec::new(),
            };
            Ok::<_, Vec<String>>((declared, reasons))
        })?;
        match reasons.is_empty() {
            true => Ok(declared),
            false => Err(reasons),
        }
    }

    /// What of a new config could not be put in force: a reason to take none of it.
    fn unusable(&self, config: &Config) -> Vec<String> {
        let mut reasons = self.unopenable(config);
        reasons.extend(self.dataplane.tls_problems(config));
        reasons
    }

    /// Listeners of a new config that could not be opened.
    ///
    /// Ports that this process listens on already are left to the data plane, which closes what is in the way.
    fn unopenable(&self, config: &Config) -> Vec<String> {
        let listeners = self.dataplane.listeners();
        let ours: BTreeSet<u16> = listeners
            .iter()
            .filter(|(_, l)| l.open)
            .map(|(_, l)| l.address.port())
            .collect();
        let lbs = config.load_balancers.values();
        let wanted = lbs.flat_map(|lb| lb.listeners.iter().map(move |l| (&lb.name, l)));
        let mut reasons = Vec::new();
        if let Some(path) = &config.node.geoip {
            reasons.extend(dataplane::check_geoip(path).err());
        }
        for (lb, listener) in wanted {
            let address: SocketAddr = listener.address;
            if address.port() == 0 || ours.contains(&address.port()) {
                continue;
            }
            if let Err(error) = net::listen::check(address) {
                let name = &listener.name;
                let help = match error.kind() {
                    ErrorKind::PermissionDenied => {
                        " (below port 1024 it needs CAP_NET_BIND_SERVICE, which giving up root took away)"
                    }
                    ErrorKind::AddrInUse => " (another process listens there)",
                    _ => "",
                };
                reasons.push(format!(
                    "listener {lb}/{name} cannot open {address}: {error}{help}"
                ));
            }
        }
        reasons
    }
}
