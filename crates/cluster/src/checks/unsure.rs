//! Backends that the orchestrators may not know: members by a name of the DNS, which may say something else where an
//! orchestrator stands. Where none of them says anything about one for a while, this node looks itself, until one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::state::BackendId;
use reconcile::cluster::roster::Wanted;

#[derive(Debug, Default)]
pub(super) struct Unsure {
    all: Arc<Wanted>,
    /// Those of which nobody has said anything, and since when.
    silent: BTreeMap<BackendId, u64>,
    /// Those that are checked here.
    alone: BTreeSet<BackendId>,
    /// Whether others are than were told last.
    changed: bool,
}

impl Unsure {
    /// These they are; gives those that are new.
    pub(super) fn are(&mut self, all: Arc<Wanted>) -> Vec<BackendId> {
        let before = std::mem::replace(&mut self.all, all);
        let all = &self.all;
        self.silent.retain(|backend, _| all.contains_key(backend));
        let count = self.alone.len();
        self.alone.retain(|backend| all.contains_key(backend));
        self.changed |= self.alone.len() != count;
        let new = all.keys().filter(|backend| !before.contains_key(*backend));
        new.cloned().collect()
    }

    /// Notes whether an orchestrator's verdict on this one stands. Says whether it is checked here no more.
    pub(super) fn note(&mut self, backend: &BackendId, stands: bool, now_ms: u64) -> bool {
        if !self.all.contains_key(backend) {
            return false;
        }
        if !stands {
            self.silent.entry(backend.clone()).or_insert(now_ms);
            return false;
        }
        self.silent.remove(backend);
        let was_alone = self.alone.remove(backend);
        self.changed |= was_alone;
        was_alone
    }

    /// Whether others are checked here than when this was asked last.
    pub(super) fn look(&mut self, now_ms: u64, after_ms: u64) -> bool {
        let over = |since: u64| since.saturating_add(after_ms) <= now_ms;
        let due = self.silent.iter().filter(|(_, since)| over(**since));
        for (backend, _) in due {
            self.changed |= self.alone.insert(backend.clone());
        }
        std::mem::take(&mut self.changed)
    }

    /// When to look again; `None`: never.
    pub(super) fn wake_at(&self, after_ms: u64) -> Option<u64> {
        let waiting = self
            .silent
            .iter()
            .filter(|(backend, _)| !self.alone.contains(*backend));
        let first = waiting.map(|(_, since)| *since).min()?;
        Some(first.saturating_add(after_ms))
    }

    /// Those that are checked here.
    pub(super) fn alone(&self) -> &BTreeSet<BackendId> {
        &self.alone
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::config::{HealthCheck, Name};
    use reconcile::cluster::roster::Wish;

    use super::*;

    fn id(port: u16) -> BackendId {
        BackendId {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("default").unwrap(),
            address: ([10, 0, 0, 1], port).into(),
        }
    }

    fn these(ports: &[u16]) -> Arc<Wanted> {
        let wish = Wish::uncounted(Arc::new(HealthCheck::default()));
        Arc::new(ports.iter().map(|port| (id(*port), wish.clone())).collect())
    }

    /// Scenario: of two nobody says anything; one is answered in time, the other is checked here until it is answered,
    /// and again when that verdict is gone.
    #[test]
    fn who_is_not_answered_is_checked_here() {
        let mut unsure = Unsure::default();
        assert_eq!(unsure.are(these(&[1, 2])), [id(1), id(2)]);
        for port in [1, 2, 9] {
            assert!(!unsure.note(&id(port), false, 100));
        }
        assert_eq!(unsure.wake_at(1_000), Some(1_100));
        assert!(!unsure.note(&id(1), true, 500));
        assert!(!unsure.look(1_099, 1_000));
        assert!(unsure.look(1_100, 1_000));
        assert!(unsure.alone().iter().eq([&id(2)]));
        assert!(!unsure.look(1_200, 1_000), "told once");
        assert_eq!(unsure.wake_at(1_000), None);
        assert!(unsure.note(&id(2), true, 2_000));
        assert!(unsure.look(2_000, 1_000));
        assert!(unsure.alone().is_empty());
        assert!(!unsure.note(&id(2), false, 3_000));
        assert!(unsure.look(4_000, 1_000));
        // It is no member any more.
        assert_eq!(unsure.are(these(&[1])), []);
        assert!(unsure.look(4_000, 1_000));
        assert!(unsure.alone().is_empty());
    }
}
