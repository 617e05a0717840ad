//! The orchestrator: makes the active checks and reports verdicts.
//!
//! [`run`] is one task that owns a [`reconcile::health::HealthMachine`] per target and one ordered queue of due
//! times; each probe is a short task of its own that ends within the check's timeout. Verdicts go out over a
//! channel; this crate changes no state but its own. Where several processes share the checks, a [`Gate`] says which
//! may be made here and now.
//!
//! Bounds: at most [`PROBES_AT_ONCE`] probes run together. Beyond that, checks wait their turn, the most overdue
//! first; none is dropped. A slow receiver of verdicts slows the checks down, nothing piles up.

pub mod acme;
pub mod alerts;
pub mod discovery;
mod gate;
mod probe;
mod schedule;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

pub use gate::Gate;
pub use model::state::Target;
use model::state::Verdict;
use reconcile::health::ProbeResult;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use schedule::{CheckId, Schedule};

/// Probes that run at the same time, over all targets.
pub const PROBES_AT_ONCE: usize = 256;

/// Least time between two warnings about checks that could not be made.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A check that may not be made is asked for again after this long, in milliseconds.
const ASK_AGAIN_MS: u64 = 50;

/// Checks all `targets` that the gate lets through and sends what comes of it, until either channel closes.
///
/// When the list changes, targets that are in both lists keep their state and their next due time; new ones start
/// unchecked, or go on from the verdict that stands; removed ones stop at once, and the result of a probe still
/// running is dropped. A verdict that was already sent may still be in the channel: the receiver ignores backends
/// that it no longer has.
pub async fn run(
    mut targets: watch::Receiver<Vec<Target>>,
    gate: Arc<Gate>,
    verdicts: mpsc::Sender<Verdict>,
) {
    let mut checks = Checks::new(gate);
    let mut news = checks.set_targets(&targets.borrow_and_update());
    loop {
        for verdict in std::mem::take(&mut news) {
            if verdicts.send(verdict).await.is_err() {
                return;
            }
        }
        let due = checks.next_start();
        tokio::select! {
            biased;
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                news = checks.set_targets(&targets.borrow_and_update());
            }
            () = verdicts.closed() => return,
            Some(ended) = checks.probes.join_next_with_id() => news = checks.finish(ended),
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
    gate: Arc<Gate>,
    warned: Option<Instant>,
    clients: Arc<probe::Clients>,
}

impl Checks {
    fn new(gate: Arc<Gate>) -> Self {
        Self {
            epoch: Instant::now(),
            schedule: Schedule::default(),
            probes: JoinSet::new(),
            gate,
            warned: None,
            clients: Arc::default(),
        }
    }

    fn set_targets(&mut self, targets: &[Target]) -> Vec<Verdict> {
        let news = self.schedule.set_targets(targets, self.now_ms());
        self.clients.keep(targets.iter().map(|target| &*target.check));
        self.gate.keep(|check| self.schedule.contains(check));
        news
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
            && let Some((id, what)) = self.schedule.take_due(now)
        {
            let (what, clients) = (what.clone(), self.clients.clone());
            let address = what.address;
            let probe = async move { probe::probe(address, &what.check, &clients).await };
            if !self.gate.start(id, address, || self.probes.spawn(probe)) {
                self.schedule.put_off(id, now.saturating_add(ASK_AGAIN_MS));
            }
        }
    }

    /// Takes the end of a probe; verdicts when it brought one.
    fn finish(&mut self, ended: Result<(Id, ProbeResult), JoinError>) -> Vec<Verdict> {
        let task = match &ended {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let Some(check) = self.gate.ended(task) else {
            return Vec::new();
        };
        let result = match ended {
            Ok((_, result)) => result,
            Err(error) if error.is_cancelled() => {
                self.schedule.put_off(check, self.now_ms());
                return Vec::new();
            }
            Err(error) => ProbeResult::Inconclusive(format!("the check failed: {error}")),
        };
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
        let backend = self.schedule.what(check).map(|what| what.address.to_string());
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
