//! The orchestrator: makes the active checks and reports verdicts.
//!
//! [`run`] is one task that owns a [`reconcile::health::HealthMachine`] per target and one ordered queue of due
//! times; each probe is a short task of its own that ends within the check's timeout. Verdicts go out over a
//! channel; this crate changes no state but its own.
//!
//! Bounds: at most [`PROBES_AT_ONCE`] probes run together. Beyond that, checks wait their turn, the most overdue
//! first; none is dropped. A slow receiver of verdicts slows the checks down, nothing piles up.

pub mod acme;
mod probe;
mod schedule;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use model::config::HealthCheck;
use model::state::{BackendId, Verdict};
use reconcile::health::ProbeResult;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use schedule::{CheckId, Schedule};

/// Probes that run at the same time, over all targets.
pub const PROBES_AT_ONCE: usize = 256;

/// Least time between two warnings about checks that could not be made.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// One backend under one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whom to check, and whose verdict it is.
    pub backend: BackendId,
    /// How.
    pub check: HealthCheck,
}

/// Checks all `targets` and sends what comes of it, until either channel closes.
///
/// When the list changes, targets that are in both lists keep their state and their next due time; new ones start
/// unchecked; removed ones stop at once, and the result of a probe still running is dropped. A verdict that
/// was already sent may still be in the channel: the receiver ignores backends that it no longer has.
pub async fn run(mut targets: watch::Receiver<Vec<Target>>, verdicts: mpsc::Sender<Verdict>) {
    let mut checks = Checks::new();
    checks.set_targets(&targets.borrow_and_update());
    loop {
        let due = checks.next_start();
        tokio::select! {
            biased;
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                checks.set_targets(&targets.borrow_and_update());
            }
            () = verdicts.closed() => return,
            Some(ended) = checks.probes.join_next_with_id() => {
                if let Some(verdict) = checks.finish(ended)
                    && verdicts.send(verdict).await.is_err()
                {
                    return;
                }
            }
            () = sleep_until(due) => checks.start_due(),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Checks {
    /// Zero of the schedule's milliseconds.
    epoch: Instant,
    schedule: Schedule,
    probes: JoinSet<ProbeResult>,
    /// The probes whose result is still wanted.
    running: Vec<(CheckId, AbortHandle)>,
    warned: Option<Instant>,
    clients: Arc<probe::Clients>,
}

impl Checks {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            schedule: Schedule::default(),
            probes: JoinSet::new(),
            running: Vec::new(),
            warned: None,
            clients: Arc::default(),
        }
    }

    fn set_targets(&mut self, targets: &[Target]) {
        self.schedule.set_targets(targets, self.now_ms());
        self.clients.keep(targets.iter().map(|target| &target.check));
        let schedule = &self.schedule;
        self.running.retain(|(check, handle)| {
            let wanted = schedule.contains(*check);
            if !wanted {
                handle.abort();
            }
            wanted
        });
    }

    /// When the next probe may start: when it is due, and not while too many run.
    fn next_start(&self) -> Option<Instant> {
        let due = self
            .schedule
            .next_due()
            .filter(|_| self.probes.len() < PROBES_AT_ONCE)?;
        self.epoch.checked_add(Duration::from_millis(due))
    }

    fn start_due(&mut self) {
        let now = self.now_ms();
        while self.probes.len() < PROBES_AT_ONCE
            && let Some((check, target)) = self.schedule.take_due(now)
        {
            let (target, clients) = (target.clone(), self.clients.clone());
            let handle = self
                .probes
                .spawn(async move { probe::probe(target.backend.address, &target.check, &clients).await });
            self.running.push((check, handle));
        }
    }

    /// Takes the end of a probe; a verdict when it brought one.
    fn finish(&mut self, ended: Result<(Id, ProbeResult), JoinError>) -> Option<Verdict> {
        let (task, result) = match ended {
            Ok(ended) => ended,
            Err(error) => (
                error.id(),
                ProbeResult::Inconclusive(format!("the check failed: {error}")),
            ),
        };
        let place = self.running.iter().position(|(_, handle)| handle.id() == task)?;
        let (check, _) = self.running.swap_remove(place);
        if let ProbeResult::Inconclusive(reason) = &result {
            self.warn(check, reason);
        }
        let rand = RandomState::new().hash_one(());
        self.schedule.finish(check, self.now_ms(), result, rand)
    }

    fn warn(&mut self, check: CheckId, reason: &str) {
        if self.warned.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned = Some(Instant::now());
        let backend = self.schedule.target(check).map(|t| t.backend.to_string());
        tracing::warn!(
            backend,
            reason,
            "a health check could not be made; it counts neither way"
        );
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
