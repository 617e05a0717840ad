//! What `status` shows, as values: the API serialises them, the command line prints them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::alert::AlertsStatus;
use crate::cluster::OrchestratorsStatus;
use crate::config::{AllDown, Name};
use crate::node::{NameTaken, NodeStatus};
use crate::state::{Ejection, Health, Mode, Override, RouteOrder, Source, Timestamp};

/// State of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Start of the process.
    pub started: Timestamp,
    /// When this was taken.
    pub now: Timestamp,
    /// Config in force and the last try to change it.
    pub config: ConfigStatus,
    /// Where what is not in the file is kept, and how this node stands towards it.
    pub store: StoreStatus,
    /// Who checks the backends of a store that nodes share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestrators: Option<OrchestratorsStatus>,
    /// The nodes of the cluster, where this one looks after them; empty with the embedded store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,
    /// Load balancers in order of name.
    pub load_balancers: Vec<LoadBalancerStatus>,
    /// Alerts, and who is told of them.
    pub alerts: AlertsStatus,
    /// The last events, oldest first; at most [`MAX_EVENTS`].
    pub events: Vec<Event>,
}

/// Events kept for `status`; older ones are in the log.
pub const MAX_EVENTS: usize = 100;

/// Config in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// File, or `command line`.
    pub source: String,
    /// Revision in force.
    pub revision: u64,
    /// When it was taken into force.
    pub since: Timestamp,
    /// Result of the last reload, if there was one.
    pub last_reload: Option<ReloadStatus>,
}

/// How a node stands towards the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `embedded` or `etcd`.
    pub kind: String,
    /// Whether it is heard.
    pub connected: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Revision that it has; 0: nothing was ever declared there.
    pub head: u64,
    /// Revision that is served here.
    pub served: u64,
    /// A revision that is not served, and every reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRevision>,
    /// Another process has this node's name, so that this one is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_taken: Option<NameTaken>,
}

/// A revision of the store that a node does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRevision {
    /// Which.
    pub revision: u64,
    /// Every reason.
    pub reasons: Vec<String>,
}

/// Result of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When.
    pub at: Timestamp,
    /// Whether the new config is in force; else the old one is, untouched.
    pub ok: bool,
    /// What changed, or every error, one a line.
    pub messages: Vec<String>,
}

/// State of a load balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancerStatus {
    /// Name.
    pub name: Name,
    /// Listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Pools in order of name.
    pub pools: Vec<PoolStatus>,
    /// Routes in the order in which they are tried, in words: the first [`MAX_ROUTES_SHOWN`].
    pub routes: Vec<RouteStatus>,
    /// How many routes there are.
    pub route_count: usize,
    /// Routes that share requests out among pools, in the order in which they are tried.
    pub splits: Vec<SplitStatus>,
}

/// Routes of a load balancer that `status` shows; all of them are in the config in force.
pub const MAX_ROUTES_SHOWN: usize = 200;

/// A route, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its name.
    pub route: Name,
    /// What it matches: `host *.shop.example, path /api/…`; `everything`.
    pub matches: String,
    /// Where it leads, as configured: `pool web`.
    pub leads_to: String,
    /// What it does besides, a few words each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub besides: Vec<String>,
}

/// A route that shares requests out among pools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// Its name.
    pub route: Name,
    /// Its pools, in the order declared.
    pub parts: Vec<SplitPartStatus>,
    /// The order behind the weights, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<RouteOrder>,
}

/// One pool of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPartStatus {
    /// Pool.
    pub pool: Name,
    /// Weight in force.
    pub weight: u32,
    /// Weight in the config.
    pub configured: u32,
}

/// State of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Name.
    pub name: Name,
    /// Address bound (the real port where 0 was asked for).
    pub address: SocketAddr,
    /// Whether it is open on every shard.
    pub open: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Client connections now.
    pub connections: u64,
    /// What it shows, when it speaks TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
}

/// A certificate of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its file, or its place in the config.
    pub name: String,
    /// Names that it is for.
    pub hosts: Vec<String>,
    /// When it ends; `None` when there is none to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Why what is in its files now is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name.
    pub name: Name,
    /// Algorithm.
    pub algorithm: String,
    /// How it speaks to its backends and keeps sessions, a few words each: `TLS`, `sticky by cookie evk`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// No member is eligible of itself.
    pub all_down: bool,
    /// What happens then.
    pub all_down_policy: AllDown,
    /// What an operator should know about its settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Live figures.
    #[serde(flatten)]
    pub live: PoolLive,
    /// Where its members come from beside the config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// Found members that have no room in the pool.
    #[serde(default)]
    pub left_out: usize,
    /// Members in the order declared, then those that were found.
    pub backends: Vec<BackendStatus>,
}

/// What a source says of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Which.
    pub source: Source,
    /// Members that it names.
    pub members: usize,
    /// Members that it names beyond what it may, or that cannot be.
    pub left_out: usize,
    /// Why its members are those of an earlier time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Timestamp>,
    /// The name that is looked up, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupStatus>,
}

/// What is known of a name that is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupStatus {
    /// The name.
    pub name: String,
    /// Its records: `ip`, `a`, `aaaa` or `srv`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddr>,
    /// When the last look that brought every answer was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
    /// For how long its answers hold, within the bounds of the config, in milliseconds.
    pub ttl_ms: u64,
    /// Looks since then that failed.
    pub failures: u32,
}

/// Live figures of a pool over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLive {
    /// Its queue, where a backend has a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// State of its circuit breaker, where it has one: `closed`, `open` or `half_open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<String>,
}

/// State of a pool's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Requests that wait now.
    pub waiting: u32,
    /// Most that may.
    pub size: u32,
    /// Longest that one may, in milliseconds.
    pub timeout_ms: u64,
    /// More comes than can be served: the newest are served first.
    pub overloaded: bool,
}

/// State of a backend in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Address.
    pub address: SocketAddr,
    /// Where it was learnt of.
    #[serde(default)]
    pub source: Source,
    /// Where it stands, as its source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// How busy it says it is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<u8>,
    /// Whether it takes new requests, or why not: see [`crate::snapshot::Eligibility::as_str`].
    pub eligibility: String,
    /// Verdict of the checks.
    pub health: Health,
    /// Why.
    pub health_reason: String,
    /// Since when.
    pub health_since: Timestamp,
    /// Who makes the active check now; absent where none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_by: Option<CheckedBy>,
    /// Mode in force.
    pub mode: Mode,
    /// The order behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Override>,
    /// Ejection in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Declared (or ordered) weight.
    pub weight: u32,
    /// Weight in effect, in the same units (slow start makes it less).
    pub effective_weight: f64,
    /// Live figures.
    #[serde(flatten)]
    pub live: BackendLive,
}

/// Who makes the active check of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckedBy {
    /// This node, for itself.
    ThisNode,
    /// Each LB server for itself: only they know of it, or nobody else looks.
    LbServers,
    /// The orchestrator of this name, for all.
    Orchestrator(Name),
    /// Nobody at this moment: it is on its way from one orchestrator to another, or there is none.
    Nobody,
}

/// Live figures of a backend over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendLive {
    /// Requests in flight now.
    pub in_flight: u32,
    /// Most that may be now, where there is a cap; slow start makes it less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Connections now, busy and idle.
    #[serde(default)]
    pub connections: u32,
    /// Most that may be, where there is a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests answered since start.
    pub requests: u64,
    /// Of these: failures of the backend (no response, or 5xx).
    pub failures: u64,
    /// Idle connections kept now.
    pub idle_connections: u32,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What kind: `backend_up`, `backend_down`, `backend_ejected`, `backend_returned`, `order`, `reload`, `reload_refused`, `listener_open`, `listener_closed`, `listener_failed`, `pool_all_down`, `pool_recovered`, `circuit_opened`, `circuit_closed`, `certificate_reloaded`, `certificate_refused`, `certificate_expires`, `ocsp_stale`, `geoip_loaded`, `geoip_failed`, `applied`, `apply_refused`, `reverted`, `shadowed`, `members_changed`, `members_stale`, `members_fresh`, `members_left_out`, `node_joined`, `node_left`, `node_lost`, `node_name_taken`, `node_name_free`.
    pub kind: String,
    /// About what: `shop/default/10.0.0.1:9001`.
    pub subject: String,
    /// In words, with the reason.
    pub message: String,
}
