//! Alerts as values: what can be wrong, what tells one alert from another, and what is shown of them.
//!
//! Two alerts are the same when they are of one kind and about the same thing; their labels follow from that alone.
//! Who found it, and who sends it, is no part of them: so that several senders cannot make several alerts of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Name;
use crate::snapshot::Snapshot;
use crate::state::{BackendId, Timestamp};
use crate::status::{ListenerStatus, ReloadStatus};

/// Labels that alerts have of themselves.
pub const RESERVED_LABELS: &[&str] = &[
    "alertname",
    "severity",
    "source",
    "load_balancer",
    "pool",
    "backend",
    "listener",
    "certificate",
    "node",
];

/// Longest summary of an alert, in characters.
pub const MAX_SUMMARY_CHARS: usize = 300;

/// What can be wrong. The names are part of the API, and of the rules in other people's Alertmanagers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// There are more alerts than are kept apart.
    TooManyAlerts,
    /// The config in its source was refused; the one before is in force.
    ConfigRefused,
    /// The store that nodes share is not heard.
    StoreUnreachable,
    /// No orchestrator looks after the backends: this node checks them for itself.
    PlanB,
    /// A node of the cluster is silent.
    NodeLost,
    /// Another orchestrator leads than before: tells that it happened, and ends by itself.
    LeaderChanged,
    /// A listener is not open.
    ListenerClosed,
    /// A certificate ends soon, or has ended.
    CertificateExpires,
    /// What is in the files of a certificate cannot be used; the one before is shown.
    CertificateRefused,
    /// No backend of a pool is eligible.
    PoolDown,
    /// Too few backends of a pool are healthy.
    PoolUnhealthy,
    /// The circuit breaker of a pool is open: requests are refused.
    CircuitOpen,
    /// The checks say that a backend is down.
    BackendDown,
}

impl AlertKind {
    /// All of them, the most important first.
    pub const ALL: &[Self] = &[
        Self::TooManyAlerts,
        Self::ConfigRefused,
        Self::StoreUnreachable,
        Self::PlanB,
        Self::NodeLost,
        Self::LeaderChanged,
        Self::ListenerClosed,
        Self::CertificateExpires,
        Self::CertificateRefused,
        Self::PoolDown,
        Self::PoolUnhealthy,
        Self::CircuitOpen,
        Self::BackendDown,
    ];

    /// The name in API, metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyAlerts => "too_many_alerts",
            Self::ConfigRefused => "config_refused",
            Self::StoreUnreachable => "store_unreachable",
            Self::PlanB => "plan_b",
            Self::NodeLost => "node_lost",
            Self::LeaderChanged => "leader_changed",
            Self::ListenerClosed => "listener_closed",
            Self::CertificateExpires => "certificate_expires",
            Self::CertificateRefused => "certificate_refused",
            Self::PoolDown => "pool_down",
            Self::PoolUnhealthy => "pool_unhealthy",
            Self::CircuitOpen => "circuit_open",
            Self::BackendDown => "backend_down",
        }
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::ListenerClosed | Self::PoolDown | Self::NodeLost => Severity::Critical,
            _ => Severity::Warning,
        }
    }

    /// Whether it is about the node that found it, and so told by that node itself. All others are about what
    /// several nodes see, and one of them tells.
    pub fn is_of_node(self) -> bool {
        matches!(
            self,
            Self::TooManyAlerts
                | Self::ConfigRefused
                | Self::StoreUnreachable
                | Self::PlanB
                | Self::CircuitOpen
                | Self::ListenerClosed
                | Self::CertificateExpires
                | Self::CertificateRefused
        )
    }
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Requests are refused, or will be soon: somebody should be woken.
    Critical,
    /// Somebody should look, today.
    Warning,
}

impl Severity {
    /// The name in API and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// What an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The cluster.
    Cluster,
    /// A node.
    Node(Arc<str>),
    /// A listener on a node.
    Listener {
        /// The node.
        node: Arc<str>,
        /// Its load balancer.
        load_balancer: Name,
        /// The listener.
        listener: Name,
    },
    /// A certificate that a node shows.
    Certificate {
        /// The node.
        node: Arc<str>,
        /// Its name in `status`.
        certificate: Arc<str>,
    },
    /// A pool as one node has it.
    PoolOn {
        /// The node.
        node: Arc<str>,
        /// Its load balancer.
        load_balancer: Name,
        /// The pool.
        pool: Name,
    },
    /// A pool.
    Pool {
        /// Its load balancer.
        load_balancer: Name,
        /// The pool.
        pool: Name,
    },
    /// A backend in a pool.
    Backend(BackendId),
}

/// What tells one alert from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertId {
    /// What is wrong.
    pub kind: AlertKind,
    /// With what.
    pub about: About,
}

impl AlertId {
    /// The load balancer that it is about, where it is about one.
    pub fn load_balancer(&self) -> Option<&Name> {
        match &self.about {
            About::Cluster | About::Node(_) | About::Certificate { .. } => None,
            About::Listener { load_balancer, .. }
            | About::PoolOn { load_balancer, .. }
            | About::Pool { load_balancer, .. } => Some(load_balancer),
            About::Backend(backend) => Some(&backend.load_balancer),
        }
    }

    /// Its labels beside name and severity, in order of name.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels: Vec<(&str, String)> = match &self.about {
            About::Cluster => Vec::new(),
            About::Node(node) => vec![("node", node.to_string())],
            About::Listener {
                node,
                load_balancer,
                listener,
            } => vec![
                ("node", node.to_string()),
                ("load_balancer", load_balancer.to_string()),
                ("listener", listener.to_string()),
            ],
            About::Certificate { node, certificate } => vec![
                ("node", node.to_string()),
                ("certificate", certificate.to_string()),
            ],
            About::PoolOn {
                node,
                load_balancer,
                pool,
            } => vec![
                ("node", node.to_string()),
                ("load_balancer", load_balancer.to_string()),
                ("pool", pool.to_string()),
            ],
            About::Pool { load_balancer, pool } => vec![
                ("load_balancer", load_balancer.to_string()),
                ("pool", pool.to_string()),
            ],
            About::Backend(backend) => vec![
                ("load_balancer", backend.load_balancer.to_string()),
                ("pool", backend.pool.to_string()),
                ("backend", backend.address.to_string()),
            ],
        };
        labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// A number that stays the same for the same alert, in every process and version (FNV-1a, 64 bits, over name
    /// and labels with their lengths), in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |text: &str| {
            let length = (text.len() as u64).to_le_bytes();
            for byte in length.iter().chain(text.as_bytes()) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.kind.as_str());
        for (name, value) in &self.labels() {
            add(name);
            add(value);
        }
        format!("{hash:016x}")
    }
}

/// `backend_down shop/default/10.0.0.1:9001`.
impl std::fmt::Display for AlertId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.about {
            About::Cluster => Ok(()),
            About::Node(node) => write!(f, " {node}"),
            About::Listener {
                node,
                load_balancer,
                listener,
            } => write!(f, " {node}: {load_balancer}/{listener}"),
            About::Certificate { node, certificate } => write!(f, " {node}: {certificate}"),
            About::PoolOn {
                node,
                load_balancer,
                pool,
            } => write!(f, " {node}: {load_balancer}/{pool}"),
            About::Pool { load_balancer, pool } => write!(f, " {load_balancer}/{pool}"),
            About::Backend(backend) => write!(f, " {backend}"),
        }
    }
}

/// An alert that fires, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What tells it from others.
    pub id: AlertId,
    /// In words, at most [`MAX_SUMMARY_CHARS`].
    pub summary: String,
    /// Since when it holds.
    pub since: Timestamp,
    /// Whether this node tells of it, whoever tells of what several nodes see.
    pub own: bool,
}

/// What alerts are derived from: the state of a node, all of it as others see it too.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The node's name.
    pub node: Arc<str>,
    /// What it serves, with its config.
    pub snapshot: Arc<Snapshot>,
    /// The last try to change the config.
    pub last_reload: Option<ReloadStatus>,
    /// Its listeners with their load balancers.
    pub listeners: Vec<(Name, ListenerStatus)>,
    /// Pools whose circuit is open, with their load balancers.
    pub open_circuits: Vec<(Name, Name)>,
    /// How it stands towards its cluster; `None`: it is alone.
    pub cluster: Option<ClusterFacts>,
}

/// How a node stands towards its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Load balancers that all nodes have from the store: one of them tells of their backends and pools.
    pub shared: BTreeSet<Name>,
    /// Who leads the orchestrators, and its term.
    pub leader: Option<(Name, u64)>,
    /// Nodes that fell silent and did not come back, with when that was noticed.
    pub lost: Arc<BTreeMap<Name, Timestamp>>,
    /// Why the store is not heard.
    pub store_trouble: Option<String>,
    /// Why the store's newest revision is not served.
    pub refused: Option<String>,
    /// Why this node checks for itself, or is about to: see [`crate::cluster::PlanBStatus`].
    pub plan_b: Option<String>,
}

/// All alerts of a process, and those who are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsStatus {
    /// Whether this process tells of what several see; if not, another does, or nobody is to be told.
    pub sends: bool,
    /// Those that fire and those that are about to, the most important first.
    pub alerts: Vec<AlertStatus>,
    /// Alerts that made room for more important ones, since the start.
    #[serde(default)]
    pub pushed_out: u64,
    /// Alerts that there was no room for.
    pub left_out: usize,
    /// Those who are told.
    pub receivers: Vec<ReceiverStatus>,
}

/// An alert, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// What is wrong: see [`AlertKind::as_str`].
    pub name: String,
    /// Whether it fires, or has not held for long enough.
    pub state: AlertState,
    /// How bad it is.
    pub severity: Severity,
    /// With what.
    pub labels: BTreeMap<String, String>,
    /// In words.
    pub summary: String,
    /// Since when.
    pub since: Timestamp,
    /// The same for the same alert.
    pub fingerprint: String,
}

/// Where in its life an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It holds, but not for long enough.
    Pending,
    /// It is told.
    Firing,
}

impl AlertState {
    /// The name in API and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// A receiver of alerts, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverStatus {
    /// Its name.
    pub name: Name,
    /// `webhook` or `alertmanager`.
    pub kind: String,
    /// Where it is; of a URL in a file, the file.
    pub to: String,
    /// When it last took a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Timestamp>,
    /// Why it did not take the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Messages by what became of them.
    pub deliveries: Deliveries,
    /// Ends of alerts that it was never told, for lack of room.
    pub forgotten: u64,
}

/// Messages to a receiver since start, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// Taken.
    pub delivered: u64,
    /// Not taken: the receiver could not be reached, was too slow, or answered 5xx. Tried again.
    pub failed: u64,
    /// Refused: the receiver answered with another status. Tried again after a long while.
    pub refused: u64,
}

/// What became of a test alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    /// The receiver.
    pub receiver: Name,
    /// Where it is.
    pub to: String,
    /// Why it did not take it; `None`: it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}
