//! Which check is due when: a machine per target and one queue ordered by due time.
//!
//! A check is either waiting (it is in the queue exactly once) or running (it is not in the queue), so a backend
//! is never probed twice at once. Removal takes it out of both, hence list changes leave nothing behind.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use model::state::Verdict;
use reconcile::health::{HealthMachine, ProbeResult};

use crate::Target;

/// Fraction of the golden ratio: its multiples spread evenly over 0..1 however many are taken, so first checks
/// spread over the interval without knowing how many targets will come.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A target for as long as it stays in the list; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckId(u64);

#[derive(Default)]
pub(crate) struct Schedule {
    ids: HashMap<Arc<Target>, CheckId>,
    checks: HashMap<CheckId, (Arc<Target>, HealthMachine)>,
    queue: BTreeSet<(u64, CheckId)>,
    next_id: u64,
}

impl Schedule {
    /// Replaces the list: what is in both keeps its state and its due time.
    pub(crate) fn set_targets(&mut self, targets: &[Target], now_ms: u64) {
        let wanted: HashSet<&Target> = targets.iter().collect();
        let gone: Vec<_> = self
            .ids
            .extract_if(|target, _| !wanted.contains(target.as_ref()))
            .map(|(_, id)| id)
            .collect();
        for id in gone {
            if let Some((_, machine)) = self.checks.remove(&id) {
                self.queue.remove(&(machine.next_probe(), id));
            }
        }
        for target in targets {
            if !self.ids.contains_key(target) {
                self.add(Arc::new(target.clone()), now_ms);
            }
        }
    }

    fn add(&mut self, target: Arc<Target>, now_ms: u64) {
        let id = CheckId(self.next_id);
        let phase = (self.next_id as f64 * GOLDEN).fract();
        self.next_id += 1;
        let machine = HealthMachine::new(&target.check, now_ms, phase);
        self.queue.insert((machine.next_probe(), id));
        self.ids.insert(target.clone(), id);
        self.checks.insert(id, (target, machine));
    }

    pub(crate) fn contains(&self, id: CheckId) -> bool {
        self.checks.contains_key(&id)
    }

    pub(crate) fn target(&self, id: CheckId) -> Option<&Arc<Target>> {
        self.checks.get(&id).map(|(target, _)| target)
    }

    /// When the most urgent waiting check is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes the most overdue check out of the queue; it is running from now on.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<(CheckId, &Arc<Target>)> {
        let due = *self.queue.first().filter(|(due, _)| *due <= now_ms)?;
        self.queue.remove(&due);
        let (_, id) = due;
        self.target(id).map(|target| (id, target))
    }

    /// Puts a check that has run back into the queue; a verdict when its result brought one.
    pub(crate) fn finish(
        &mut self,
        id: CheckId,
        now_ms: u64,
        result: ProbeResult,
        rand: u64,
    ) -> Option<Verdict> {
        let (target, machine) = self.checks.get_mut(&id)?;
        let transition = machine.handle(now_ms, result, rand);
        self.queue.insert((machine.next_probe(), id));
        transition.map(|transition| Verdict {
            backend: target.backend.clone(),
            health: transition.health,
            reason: transition.reason,
        })
    }
}
