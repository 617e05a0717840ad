//! What the nodes of a cluster tell of themselves, for those who look after them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::Role;
use crate::state::Timestamp;

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

/// What became of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent {
    /// It is there, for the first time or again.
    Joined(String),
    /// It has gone in order.
    Left(String),
    /// It is silent: died, hangs, or is cut off.
    Lost(String),
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
