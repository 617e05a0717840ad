//! What the nodes of a cluster tell of themselves, for those who look after them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Name, Role};
use crate::desired::Traffic;
use crate::state::Timestamp;

/// Parts of a change that a node tells of: beyond it those that fail least are not told.
pub const MAX_TRIAL_PARTS: usize = 100;
/// Load balancers of its own file that a node tells of: of more, none.
pub const MAX_DECLARED_TOLD: usize = 200;

/// A node, as it tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Version of the program.
    pub version: String,
    /// Start of the process, by its own clock; with `life` it tells two processes of one name apart.
    pub started: Timestamp,
    /// A random number of the process.
    pub life: u64,
    /// What it does.
    pub roles: Vec<Role>,
    /// Where it stands, as its config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where it takes clients.
    pub addresses: Vec<SocketAddr>,
    /// Revision of the store that it serves.
    pub served: u64,
    /// A revision that it refused, with the first reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(u64, String)>,
    /// How much it has to do.
    pub load: NodeLoad,
    /// What it has seen of a change that awaits its confirmation; for the other nodes, not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialShare>,
    /// Load balancers of its own file; `None`: it does not say, or they are more than [`MAX_DECLARED_TOLD`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declares: Option<Vec<Name>>,
    /// It is about to go, in order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Processor time used, in cores: 1.5 is one core and a half, since the last time it was told.
    pub cpu: f64,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Client connections.
    pub connections: u64,
    /// Requests a second, since the last time it was told.
    pub requests_per_second: f64,
}

/// What a node has seen of a change that awaits its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialShare {
    /// The change.
    pub revision: u64,
    /// What it touched and was asked for since; at most [`MAX_TRIAL_PARTS`].
    pub parts: Vec<TrialPart>,
}

/// What a route answered, or all touched routes of a load balancer together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialPart {
    /// The load balancer.
    pub load_balancer: Name,
    /// The route; `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// In the minute before.
    pub before: Traffic,
    /// Since.
    pub after: Traffic,
}

/// Another process that lives has this node's name: this one is not registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTaken {
    /// Since when, as this process saw it.
    pub since: Timestamp,
    /// Start of the other one, by its own clock.
    pub started: Timestamp,
    /// Where the other one stands, as its config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where the other one takes clients.
    pub addresses: Vec<SocketAddr>,
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent {
    /// It is there, for the first time or again.
    Joined(String),
    /// It has gone in order.
    Left(String),
    /// It is silent: died, hangs, or is cut off.
    Lost(String),
    /// This process itself: another one has its name.
    NameTaken(String, NameTaken),
    /// This process itself: it has its name for itself again.
    NameFree(String),
}

/// A node of the cluster, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it tells of itself.
    #[serde(flatten)]
    pub record: NodeRecord,
}
