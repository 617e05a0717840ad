//! Which check is due when: a machine per check and one queue ordered by due time.
//!
//! Targets that want the same check of the same address share one. A check is either waiting (it is in the queue
//! exactly once) or running (it is not in the queue), so a backend is never probed twice at once. Removal takes it
//! out of both, hence list changes leave nothing behind.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::HealthCheck;
use model::state::{BackendId, Health, Life, Standing, Target, Verdict};
use reconcile::health::{HealthMachine, ProbeResult};

/// Fraction of the golden ratio: its multiples spread evenly over 0..1 however many are taken, so first checks
/// spread over the interval without knowing how many targets will come.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A check for as long as somebody wants it; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckId(u64);

/// What makes two targets one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct What {
    pub(crate) address: SocketAddr,
    pub(crate) check: Arc<HealthCheck>,
    life: Life,
}

impl What {
    fn of(target: &Target) -> Self {
        Self {
            address: target.backend.address,
            check: target.check.clone(),
            life: target.life,
        }
    }
}

struct Check {
    what: What,
    machine: HealthMachine,
    /// Whose verdict it is.
    backends: BTreeSet<BackendId>,
}

#[derive(Default)]
pub(crate) struct Schedule {
    ids: HashMap<What, CheckId>,
    checks: HashMap<CheckId, Check>,
    queue: BTreeSet<(u64, CheckId)>,
    next_id: u64,
    /// A list was there before: of what comes now and is not known, somebody waits to know.
    started: bool,
}

impl Schedule {
    /// Replaces the list: what is in both keeps its state and its due time. Returns the verdicts that stand already
    /// and that a target does not know of.
    pub(crate) fn set_targets(&mut self, targets: &[Target], now_ms: u64) -> Vec<Verdict> {
        let mut wanted: HashMap<What, Vec<&Target>> = HashMap::new();
        for target in targets {
            wanted.entry(What::of(target)).or_default().push(target);
        }
        let gone: Vec<_> = self
            .ids
            .extract_if(|what, _| !wanted.contains_key(what))
            .map(|(_, id)| id)
            .collect();
        for id in gone {
            if let Some(check) = self.checks.remove(&id) {
                self.queue.remove(&(check.machine.next_probe(), id));
            }
        }
        let first_list = !std::mem::replace(&mut self.started, true);
        let mut news = Vec::new();
        // In the order of the list, so that its first checks are due first.
        for target in targets {
            let Some((what, targets)) = wanted.remove_entry(&What::of(target)) else {
                continue;
            };
            match self.ids.get(&what).and_then(|id| self.checks.get_mut(id)) {
                Some(check) => news.extend(check.join(&targets)),
                None => news.extend(self.add(what, &targets, now_ms, first_list)),
            }
        }
        news
    }

    /// One of which nothing is known, among others, is looked at within its faster interval; what is known, and the
    /// first list, are spread over the whole one.
    fn add(&mut self, what: What, targets: &[&Target], now_ms: u64, first_list: bool) -> Vec<Verdict> {
        let id = CheckId(self.next_id);
        let known = targets.iter().any(|target| target.standing.is_some());
        let spread = match first_list || known {
            true => 1.0,
            false => what.check.fast_interval.div_duration_f64(what.check.interval),
        };
        let phase = (self.next_id as f64 * GOLDEN).fract() * spread;
        self.next_id += 1;
        let mut machine = HealthMachine::new(&what.check, now_ms, phase);
        if let Some(Standing { health, reason }) = targets.iter().find_map(|t| t.standing.clone()) {
            machine = machine.going_on_from(health, reason);
        }
        self.queue.insert((machine.next_probe(), id));
        self.ids.insert(what.clone(), id);
        let mut check = Check {
            what,
            machine,
            backends: BTreeSet::new(),
        };
        let news = check.join(targets);
        self.checks.insert(id, check);
        news
    }

    pub(crate) fn contains(&self, id: CheckId) -> bool {
        self.checks.contains_key(&id)
    }

    pub(crate) fn what(&self, id: CheckId) -> Option<&What> {
        self.checks.get(&id).map(|check| &check.what)
    }

    /// When the most urgent waiting check is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes the most overdue check out of the queue; it is running from now on.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<(CheckId, &What)> {
        let due = *self.queue.first().filter(|(due, _)| *due <= now_ms)?;
        self.queue.remove(&due);
        let (_, id) = due;
        self.what(id).map(|what| (id, what))
    }

    /// Puts a check that was taken and not made back into the queue.
    pub(crate) fn put_off(&mut self, id: CheckId, until_ms: u64) {
        if let Some(check) = self.checks.get_mut(&id) {
            check.machine.put_off(until_ms);
            self.queue.insert((until_ms, id));
        }
    }

    /// Puts a check that has run back into the queue; verdicts when its result brought one.
    pub(crate) fn finish(
        &mut self,
        id: CheckId,
        now_ms: u64,
        result: ProbeResult,
        rand: u64,
    ) -> Vec<Verdict> {
        let Some(check) = self.checks.get_mut(&id) else {
            return Vec::new();
        };
        let transition = check.machine.handle(now_ms, result, rand);
        self.queue.insert((check.machine.next_probe(), id));
        match transition {
            Some(_) => check
                .backends
                .iter()
                .map(|backend| check.verdict(backend))
                .collect(),
            None => Vec::new(),
        }
    }
}

impl Check {
    /// Takes exactly these targets; those that come hear what is known, unless they know it.
    fn join(&mut self, targets: &[&Target]) -> Vec<Verdict> {
        let health = self.machine.health();
        let knows = |target: &Target| target.standing.as_ref().map(|s| s.health) == Some(health);
        let news = targets
            .iter()
            .filter(|target| health != Health::Unchecked && !knows(target))
            .filter(|target| !self.backends.contains(&target.backend))
            .map(|target| self.verdict(&target.backend))
            .collect();
        self.backends = targets.iter().map(|target| target.backend.clone()).collect();
        news
    }

    fn verdict(&self, backend: &BackendId) -> Verdict {
        Verdict {
            backend: backend.clone(),
            health: self.machine.health(),
            reason: self.machine.reason().to_owned(),
            life: self.what.life,
        }
    }
}
