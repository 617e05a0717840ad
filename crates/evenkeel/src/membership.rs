//! The tasks around the members of pools that nobody declared: who looks them up, who takes their registrations, and
//! who keeps them for the next start.

use std::path::PathBuf;

use console::MemberRequest;
use model::state::{Members, Report, Silence};
use orchestrator::discovery;
use tokio::sync::{mpsc, watch};

use crate::hub::View;
use crate::remembered;
use crate::roll::{self, Asked, Registry};

/// Room for reports on their way to the hub, and for requests of members; whoever sends waits while it is full.
const ROOM: usize = 256;

/// What the hub wants.
pub(crate) struct Wanted {
    /// Pools whose members are looked up.
    pub(crate) lookups: watch::Sender<Vec<discovery::Target>>,
    /// Members to keep for the next start.
    pub(crate) remembered: watch::Sender<Members>,
}

/// Everyone's ends.
pub(crate) struct Membership {
    /// What the hub wants.
    pub(crate) wanted: Wanted,
    /// What it is told of members.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// What it is told of silence.
    pub(crate) silences: mpsc::Receiver<Vec<Silence>>,
    /// Where members ask.
    pub(crate) requests: mpsc::Sender<MemberRequest>,
    /// What they asked.
    pub(crate) asked: Asked,
}

/// Starts the tasks; `directory` is where members are kept, `earlier` those of the process before. Must be called
/// within the runtime.
pub(crate) fn start(directory: PathBuf, earlier: Members, view: watch::Receiver<View>) -> Membership {
    let (lookups, targets) = watch::channel(Vec::new());
    let (remembered, members) = watch::channel(Members::default());
    let (found, reports) = mpsc::channel(ROOM);
    let (fell_silent, silences) = mpsc::channel(ROOM);
    let (requests, asks) = mpsc::channel(ROOM);
    let asked = Asked::default();
    let registry = Registry {
        view,
        reports: found.clone(),
        silences: fell_silent,
        asked: asked.clone(),
    };
    tokio::spawn(discovery::run(targets, found));
    tokio::spawn(roll::run(registry, earlier, asks));
    tokio::spawn(remembered::keep(directory, members));
    Membership {
        wanted: Wanted { lookups, remembered },
        reports,
        silences,
        requests,
        asked,
    }
}
