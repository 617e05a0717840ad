//! The tasks around the members of pools that nobody declared: who looks them up, and who keeps them for the next
//! start.

use std::path::PathBuf;

use model::state::{Members, Report};
use orchestrator::discovery;
use tokio::sync::{mpsc, watch};

use crate::remembered;

/// Room for reports on their way to the hub; whoever looks up waits while it is full.
const REPORTS: usize = 256;

/// What the hub wants.
pub(crate) struct Wanted {
    /// Pools whose members are looked up.
    pub(crate) lookups: watch::Sender<Vec<discovery::Target>>,
    /// Members to keep for the next start.
    pub(crate) remembered: watch::Sender<Members>,
}

/// The hub's ends.
pub(crate) struct Membership {
    /// What it wants.
    pub(crate) wanted: Wanted,
    /// What was found.
    pub(crate) reports: mpsc::Receiver<Report>,
}

/// Starts the tasks; `directory` is where members are kept. Must be called within the runtime.
pub(crate) fn start(directory: PathBuf) -> Membership {
    let (lookups, targets) = watch::channel(Vec::new());
    let (remembered, members) = watch::channel(Members::default());
    let (found, reports) = mpsc::channel(REPORTS);
    tokio::spawn(discovery::run(targets, found));
    tokio::spawn(remembered::keep(directory, members));
    Membership {
        wanted: Wanted { lookups, remembered },
        reports,
    }
}
