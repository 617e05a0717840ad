//! Who is to be checked, and what is known already.

use std::sync::Arc;

use super::{BackendId, Health};
use crate::config::HealthCheck;

/// One backend under one check.
///
/// Targets of the same address under an equal check in the same life are one check: it is made once, and each of
/// them is told what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whom to check, and whose verdict it is.
    pub backend: BackendId,
    /// How.
    pub check: Arc<HealthCheck>,
    /// A check of another life begins anew: what was known of it is forgotten.
    pub life: Life,
    /// The verdict that stands when the check begins; it goes on from that. `None`: the first result decides.
    pub standing: Option<Standing>,
}

impl Target {
    /// One of which nothing is known yet.
    pub fn new(backend: BackendId, check: Arc<HealthCheck>) -> Self {
        Self {
            backend,
            check,
            life: Life::default(),
            standing: None,
        }
    }
}

/// Which life of a check it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Life {
    /// The number of the backend's membership ([`super::Listed::life`]): what was found of another membership says
    /// nothing of this one. 0 where nobody counts.
    pub member: u64,
    /// Which beginning of the check, as counted by who has it made.
    pub run: u64,
}

impl Life {
    /// Of this membership, in the only run.
    pub fn of_member(member: u64) -> Self {
        Self { member, run: 0 }
    }
}

/// A verdict that was reached before, by whomever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Up or down.
    pub health: Health,
    /// Why, in words.
    pub reason: String,
}
