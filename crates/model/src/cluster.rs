//! What a node sees of the cluster that it is part of: for `status`, metrics and events.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::Name;
use crate::state::{BackendId, Timestamp};

/// Who checks what, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratorsStatus {
    /// Whether the store is heard; otherwise all of this is as it was last seen.
    pub heard: bool,
    /// Who leads.
    pub leader: Option<Name>,
    /// The revision that made it leader: grows with each change of the leader.
    pub epoch: Option<u64>,
    /// Those that work, in order of name.
    pub orchestrators: Vec<OrchestratorStatus>,
    /// Shares of the checks that there are.
    pub slots: u16,
    /// Shares that nobody checks at this moment.
    pub slots_unchecked: u16,
    /// This process's own part, where it has the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnPart>,
    /// What this node does when no orchestrator looks after its backends, where it balances any that they would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_b: Option<PlanBStatus>,
}

/// An orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratorStatus {
    /// Its name: the node's and a number that is new with each start.
    pub name: Name,
    /// Shares of the checks that it has.
    pub slots: u16,
    /// Whether it has said that it runs these and no others.
    pub settled: bool,
}

/// The part of an orchestrator in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnPart {
    /// Its name.
    pub name: Option<Name>,
    /// Shares of the checks that it runs.
    pub slots: u16,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it leads and gives nothing anew for now, because more than half of the orchestrators vanished at once,
    /// or the store does not know who was there.
    pub frozen: bool,
    /// Verdicts that it wrote into the store.
    pub verdicts_written: u64,
    /// Those that the store refused, because something had changed.
    pub verdicts_refused: u64,
    /// Those without an answer.
    pub verdicts_failed: u64,
    /// Leases that were over while it was at work: it hung, or the store did not hear it, or gave them up.
    #[serde(default)]
    pub leases_lost: u64,
}

/// Whose verdicts an LB server believes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanBStatus {
    /// `following`, `holding`, `own_checks` or `handing_back`.
    pub phase: String,
    /// Since when.
    pub since: Timestamp,
    /// Why it does not follow: `store_unreachable`, `no_orchestrator` or `unchecked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Own checks since the start of the process: how many times they began.
    pub began: u64,
    /// Members that were looked up and on which no orchestrator gives a verdict: this node checks them whatever the phase.
    #[serde(default)]
    pub alone: usize,
    /// Which those are. The status has it with each of them.
    #[serde(skip)]
    pub alone_with: BTreeSet<BackendId>,
}

impl PlanBStatus {
    /// The phases, in the order in which they follow one another.
    pub const PHASES: [&'static str; 4] = ["following", "holding", "own_checks", "handing_back"];
}

/// Something that happened among the orchestrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterNews {
    /// A change of the store that awaited confirmation was taken back by this node.
    Reverted {
        /// The change.
        revision: u64,
        /// The revision that took it back; none when there was nothing to take back.
        made: Option<u64>,
        /// Why.
        why: String,
    },
    /// Somebody leads who did not before.
    Leader {
        /// Who.
        name: Name,
        /// Its epoch.
        epoch: u64,
    },
    /// No orchestrator looks after our backends: this node checks for itself.
    PlanBBegan {
        /// `store_unreachable`, `no_orchestrator` or `unchecked`.
        why: String,
    },
    /// What was found last is not known, although it was kept on the disk: that is damaged.
    VerdictsDamaged {
        /// What is wrong with it.
        why: String,
    },
    /// The orchestrators are back: their verdicts count again, and this node's own checks have ended.
    PlanBEnded,
    /// The store is another one than before, and lacks orders that are in force: they stay.
    OrdersKept {
        /// How many.
        count: usize,
    },
}
