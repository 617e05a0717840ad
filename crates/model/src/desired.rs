//! What is asked about the load balancers in the store, and answered: the words between the API, its clients and
//! who carries it out.
//!
//! Load balancers go around here as they were declared, with the mark
//! [`REDACTED`](crate::parse::REDACTED) in the place of each secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Name;
use crate::plan::{Format, Plan};
use crate::state::Timestamp;

/// Most revisions of one answer.
pub const MAX_HISTORY: usize = 1000;

/// A question or an order.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredQuery {
    /// What is declared at a revision; `None`: now.
    State(Option<u64>),
    /// The last changes, newest first.
    History {
        /// How many, at most [`MAX_HISTORY`].
        last: usize,
    },
    /// One change.
    Revision(u64),
    /// What is different between two revisions.
    Diff {
        /// The one.
        from: u64,
        /// The other; `None`: now.
        to: Option<u64>,
    },
    /// Changes something, or only tells what that would do.
    Change(ChangeQuery),
    /// What was changed holds.
    Confirm(ConfirmQuery),
}

/// A change that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeQuery {
    /// What.
    pub change: Change,
    /// Only tell what it would do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The revision that the author has seen: when another is in force, nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u64>,
    /// Take it back after this time unless it is confirmed: a duration as in the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The load balancers of a text are set; others stay.
    Apply(Text),
    /// These are removed.
    Delete(Vec<Name>),
    /// All is as it was at this revision.
    Rollback(u64),
}

/// A text with load balancers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text.
    pub text: String,
    /// How it is written.
    #[serde(default)]
    pub format: Format,
    /// What errors call it, e.g. the name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmQuery {
    /// The revision; `None`: whichever awaits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What came of a [`DesiredQuery`], in its order.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DesiredAnswer {
    /// Of [`DesiredQuery::State`].
    State(DesiredState),
    /// Of [`DesiredQuery::History`].
    History(History),
    /// Of [`DesiredQuery::Revision`] and [`DesiredQuery::Diff`].
    Diff(Difference),
    /// Of [`DesiredQuery::Change`].
    Changed(Changed),
    /// Of [`DesiredQuery::Confirm`].
    Confirmed(Confirmed),
}

/// What is declared in the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// The revision; 0 before the first.
    pub revision: u64,
    /// Load balancers by name, secrets redacted.
    pub load_balancers: BTreeMap<Name, Value>,
    /// What awaits confirmation, when this is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<Awaiting>,
}

/// A change that awaits confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaiting {
    /// What it made.
    pub revision: u64,
    /// The revision that comes back without it.
    pub back_to: u64,
    /// About until when.
    pub until: Timestamp,
}

/// Changes, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The changes.
    pub revisions: Vec<RevisionNote>,
}

/// A change of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionNote {
    /// What it made.
    pub revision: u64,
    /// Who.
    pub author: String,
    /// When, by the clock of the node that took it.
    pub at: Timestamp,
    /// What was done: `apply`, `delete`, `rollback to 7`, `revert of 8`.
    pub what: String,
    /// Why; may be empty.
    pub message: String,
    /// What became of which load balancers.
    pub changed: BTreeMap<Name, Fate>,
}

/// What became of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is new, or another.
    Set,
    /// It is gone.
    Deleted,
}

/// What is different between two revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The one.
    pub from: u64,
    /// The other.
    pub to: u64,
    /// A line for each thing that is different.
    pub changes: Vec<String>,
    /// The change that made `to`, when it follows `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<RevisionNote>,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The revision in force afterwards; of a dry run, the one in force.
    pub revision: u64,
    /// Whether there is a new one.
    pub changed: bool,
    /// A line for each thing that is (or would be) different in the store.
    pub changes: Vec<String>,
    /// What is probably not meant in the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What awaits confirmation now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<Awaiting>,
    /// A revision that awaited confirmation and was confirmed by this change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<u64>,
    /// Of a dry run: what the node that was asked would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// What was answered in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Those of them that were answered with a status of 500 and above.
    pub failures: u64,
}

/// What was confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The revision, which holds.
    pub revision: u64,
}

/// Why a [`DesiredQuery`] has no answer. Unless `fault` says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredProblem {
    /// What kind of reason.
    pub fault: DesiredFault,
    /// The reason, in words.
    pub detail: String,
    /// The single errors of which it consists.
    pub errors: Vec<String>,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesiredFault {
    /// Another revision is in force than was expected: somebody else was faster.
    Conflict,
    /// There is no such load balancer.
    UnknownLoadBalancer,
    /// There is no such revision, or not any more.
    UnknownRevision,
    /// The node's own file declares it.
    DeclaredInFile,
    /// What was sent, or what would come of it, is not valid.
    BadConfig,
    /// Nothing awaits confirmation.
    NothingPending,
    /// The question makes no sense.
    BadQuery,
    /// The store cannot be asked; it may pass.
    StoreUnavailable,
    /// The answer of the store was lost: the change may have been made.
    OutcomeUnknown,
    /// What stands in the store cannot be read.
    StoreDamaged,
}

impl DesiredProblem {
    /// A reason in words.
    pub fn new(fault: DesiredFault, detail: impl Into<String>) -> Self {
        Self {
            fault,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }
}
