//! The management API and the metrics endpoint.
//!
//! The console knows nothing and decides nothing: it asks the closures in [`Console`] for values of `model`, and
//! passes orders on through bounded channels whose owner answers each one. So it can be slow, flooded or dead
//! without any effect on forwarding.
//!
//! Every error is a problem document (RFC 9457) with a stable `reason`; `openapi.json` in this crate is the
//! contract, and a test holds it to the routes and to real responses.
//!
//! Bounds (all in [`limits`]): connections, header bytes and time, body bytes, time of a request, age of a
//! connection.

mod access;
pub mod limits;
mod order;
mod problem;
mod requests;
mod routes;
mod server;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use model::config::{MAX_WEIGHT, Name, Secret};
use model::explain::{ExplainQuery, Explanation};
use model::record::{RecordQuery, RequestRecord};
use model::state::{Order, Override};
use model::status::{ReloadStatus, Status};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

pub use server::serve;

/// Answers where a request would go, or says in words why the question makes no sense.
pub type Explain = dyn Fn(&ExplainQuery) -> Result<Explanation, String> + Send + Sync;

/// Asks the data plane what it remembers of requests.
pub type Recall =
    dyn Fn(RecordQuery) -> Pin<Box<dyn Future<Output = Vec<RequestRecord>> + Send>> + Send + Sync;

/// What the API shows and whom it asks. The closures are called on the serving thread: they must not block.
pub struct Console {
    /// Bearer token that every request but `/livez` and `/readyz` must carry, when set.
    pub token: Option<Secret>,
    /// State of the process now.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Whether every listener is open.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Explains a request without sending it.
    pub explain: Arc<Explain>,
    /// What is remembered of requests, newest first.
    pub recall: Arc<Recall>,
    /// Where operators' orders go. Each is answered, or its reply dropped, which reads as "shutting down".
    pub orders: mpsc::Sender<OrderRequest>,
    /// Where requests to reload go; answered likewise.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// The metrics.
    pub registry: Arc<Registry>,
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
    /// The order could not be made to last, so it is not in force.
    #[error("the order could not be stored and is not in force: {0}")]
    StoreFailed(String),
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
