//! The management API and the metrics endpoint.
//!
//! The console knows nothing and decides nothing: it asks the closures in [`Console`] for values of `model`, and
//! passes orders on through bounded channels whose owner answers each one. So it can be slow, flooded or dead
//! without any effect on forwarding.
//!
//! Every error is a problem document (RFC 9457) with a stable `reason`; `openapi.json` in this crate is the
//! contract, and a test holds it to the routes and to real responses.
//!
//! Who asks is known by a token, a client certificate, or by being on this machine where no login is configured;
//! each route says the least role that it needs (`routes::table`).
//!
//! Bounds (all in [`limits`]): connections, header bytes and time, body bytes, time of a request, age of a
//! connection.

mod access;
mod alerts;
mod audit;
mod audit_route;
mod bucket;
mod counters;
mod desired;
mod failed_logins;
mod large;
pub mod limits;
mod login;
mod members;
mod order;
mod problem;
mod requests;
mod routes;
mod scrape;
mod server;
mod sources;
mod tls_port;
mod turns;
mod weights;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::config::{AdminRole, Config, MAX_SPLIT_WEIGHT, MAX_WEIGHT, Name, Secret};
use model::desired::{DesiredAnswer, DesiredProblem, DesiredQuery};
use model::explain::{ExplainQuery, Explanation};
use model::plan::{Plan, PlanQuery};
use model::record::{RecordQuery, RequestRecord};
use model::scrape::Scope;
use model::state::{BackendId, MemberAction, Order, Override, RouteKey, RouteOrder, RouteWeights};
use model::status::{ReloadStatus, Status};
use tokio::sync::{mpsc, oneshot};

pub use alerts::Alerting;
pub use audit::{AuditLog, AuditRecord};
pub use counters::Counters;
pub use server::serve;
pub use tls_port::TlsPort;

/// Answers where a request would go, or says in words why the question makes no sense.
pub type Explain = dyn Fn(&ExplainQuery) -> Result<Explanation, String> + Send + Sync;

/// Asks the data plane what it remembers of requests.
pub type Recall =
    dyn Fn(RecordQuery) -> Pin<Box<dyn Future<Output = Vec<RequestRecord>> + Send>> + Send + Sync;

/// Tells somebody with this role what a config would change, or every error in it.
pub type Foresee = dyn Fn(PlanQuery, AdminRole) -> Pin<Box<dyn Future<Output = Result<Plan, Vec<String>>> + Send>>
    + Send
    + Sync;

/// Answers about the load balancers of the store, and changes them.
pub type Desire = dyn Fn(DesiredQuery) -> Pin<Box<dyn Future<Output = Result<DesiredAnswer, DesiredProblem>> + Send>>
    + Send
    + Sync;

/// Writes metrics.
pub type Scrape = dyn Fn(Scope, &mut dyn fmt::Write) -> fmt::Result + Send + Sync;

/// What the API shows and whom it asks. The closures are called on the serving thread: they must not block.
pub struct Console {
    /// The bearer token of `[admin]`, with the role `admin`.
    pub token: Option<Secret>,
    /// The config in force: its `admin` says who else may do what.
    pub config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    /// TLS; `None` in the clear.
    pub tls: Option<Arc<TlsPort>>,
    /// Where is written who did what; `None`: nowhere.
    pub audit: Option<Arc<AuditLog>>,
    /// What is counted about who asks.
    pub counters: Arc<Counters>,
    /// State of the process now.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Whether every listener is open.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Explains a request without sending it.
    pub explain: Arc<Explain>,
    /// What is remembered of requests, newest first.
    pub recall: Arc<Recall>,
    /// What a config would change; nothing changes by asking.
    pub plan: Arc<Foresee>,
    /// The load balancers of the store.
    pub desired: Arc<Desire>,
    /// Where operators' orders go. Each is answered, or its reply dropped, which reads as "shutting down".
    pub orders: mpsc::Sender<OrderRequest>,
    /// Where orders for routes go; answered likewise.
    pub weights: mpsc::Sender<WeightsRequest>,
    /// Where what members ask for goes; answered likewise.
    pub members: mpsc::Sender<MemberRequest>,
    /// Where requests to reload go; answered likewise.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Alerts.
    pub alerts: Alerting,
    /// Writes the metrics that a scrape asks for, as OpenMetrics text. Called on a thread where it may block.
    pub metrics: Arc<Scrape>,
    /// The config in force as TOML in full form, secrets redacted.
    pub effective: Arc<dyn Fn() -> String + Send + Sync>,
}

/// An order on its way to the task that owns the overrides.
#[derive(Debug)]
pub struct OrderRequest {
    /// What is wanted. Its weight, where it has one, is within [`MAX_WEIGHT`].
    pub order: Order,
    /// The standing override afterwards; `None` when nothing stands any more.
    pub reply: oneshot::Sender<Result<Option<Override>, OrderError>>,
}

/// An order for a route on its way to the task that owns the overrides.
#[derive(Debug)]
pub struct WeightsRequest {
    /// What is wanted.
    pub order: RouteWeights,
    /// The standing order afterwards; `None` when the config's weights hold.
    pub reply: oneshot::Sender<Result<Option<RouteOrder>, OrderError>>,
}

/// What a member asks for, on its way to the task that owns the registrations. Whoever asks has shown the pool's
/// token.
#[derive(Debug)]
pub struct MemberRequest {
    /// Which member of which pool.
    pub backend: BackendId,
    /// What it asks for. Its weight is within [`MAX_WEIGHT`].
    pub action: MemberAction,
    /// What came of it.
    pub reply: oneshot::Sender<Result<MemberAnswer, MemberError>>,
}

/// What holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberAnswer {
    /// For how long a registration holds; `None` where that makes no sense.
    pub ttl: Option<Duration>,
    /// What is new by it; `None` for a sign of life.
    pub news: Option<MemberNews>,
}

/// What a member said anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberNews {
    /// It is there.
    Registered,
    /// It says something else of itself.
    Changed,
    /// It has gone.
    Left,
}

/// Why a member does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The pool, or what it has to do with members, is not configured any more.
    #[error("the pool takes no such request any more: its config has changed")]
    NotAsked,
    /// There is no such member.
    #[error("`{0}` is no member of the pool")]
    UnknownMember(SocketAddr),
    /// Requests may not be sent there.
    #[error("`{0}` may not be a member: {1}")]
    NotAllowed(SocketAddr, String),
    /// There are as many as may be.
    #[error("the pool has as many registered members as it may have, {0}")]
    TooMany(u32),
}

/// A request to load the config again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What came of it.
    pub reply: oneshot::Sender<ReloadStatus>,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No load balancer has this name.
    #[error("there is no load balancer `{name}`; {}", known_ones(.known))]
    UnknownLoadBalancer {
        /// The name asked for.
        name: Name,
        /// Those that exist.
        known: Vec<Name>,
    },
    /// The load balancer has no such backend.
    #[error("load balancer `{load_balancer}` has no backend `{address}`; {}", known_ones(.known))]
    UnknownBackend {
        /// The load balancer.
        load_balancer: Name,
        /// The address asked for.
        address: SocketAddr,
        /// Those that it has.
        known: Vec<SocketAddr>,
    },
    /// The weight is over [`MAX_WEIGHT`].
    #[error("weight {0} is over the greatest, {MAX_WEIGHT}")]
    BadWeight(u32),
    /// The load balancer has no such route.
    #[error("load balancer `{load_balancer}` has no route `{route}`; {}", known_ones(.known))]
    UnknownRoute {
        /// The load balancer.
        load_balancer: Name,
        /// The route asked for.
        route: Name,
        /// Those that it has.
        known: Vec<Name>,
    },
    /// The route does not share requests out.
    #[error("route `{0}` leads to one place: give it a `split` in the config to weigh its pools")]
    NoSplit(RouteKey),
    /// The weights name a pool that is not in the split, or leave nobody to take requests.
    #[error("route `{key}`: name pools of its split, at least one with a weight above 0; {}", known_ones(.known))]
    BadWeights {
        /// The route.
        key: RouteKey,
        /// The pools of its split.
        known: Vec<Name>,
    },
    /// A weight is over [`MAX_SPLIT_WEIGHT`].
    #[error("weight {0} is over the greatest, {MAX_SPLIT_WEIGHT}")]
    BadSplitWeight(u32),
    /// The order could not be made to last, so it is not in force.
    #[error("the order could not be stored and is not in force: {0}")]
    StoreFailed(String),
    /// The store does not answer, so the order is not in force; trying again may help.
    #[error("the order is not in force, try again later: {0}")]
    StoreUnavailable(String),
}

/// `known` in words, at most [`limits::KNOWN_SHOWN`] of them.
fn known_ones<T: std::fmt::Display>(known: &[T]) -> String {
    if known.is_empty() {
        return "there are none".to_owned();
    }
    let names: Vec<String> = known
        .iter()
        .take(limits::KNOWN_SHOWN)
        .map(|k| format!("`{k}`"))
        .collect();
    let more = match known.len().saturating_sub(limits::KNOWN_SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("known: {}{more}", names.join(", "))
}
