//! Backends that the orchestrator of this process does not know, although it has their slots and a verdict stands.
//!
//! A member by a name of the DNS is known to whoever finds it: another orchestrator may have checked it, and have handed
//! the slot over to one where the name says something else, or the name has lost it. Nobody checks it then, and what
//! stands about it would be believed for ever. So who has the slot takes the verdict back: from then on LB servers that
//! still have the member know that nobody speaks for it, and look themselves (`unsure`), from what they believed.
//!
//! It has patience: a process that has just begun, or has just got the slot, may not have looked the name up yet. And it
//! concerns pools with a name only. What is declared, or registers, is known to all or will be in a moment, and LB
//! servers do not look at it themselves, so that nothing would be won.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::state::{BackendId, PoolKey};
use reconcile::cluster::records::Revision;

/// Looks within the time of patience: a verdict goes at most a look later than that.
const LOOKS: u64 = 3;

#[derive(Debug)]
pub(super) struct Strangers {
    patience_ms: u64,
    /// Pools of the store whose members are looked up by a name.
    named: Arc<BTreeSet<PoolKey>>,
    known: BTreeMap<BackendId, Stranger>,
    /// `None`: as soon as somebody asks.
    look_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Stranger {
    /// Of the verdict that stands.
    revision: Revision,
    /// Of its slot here.
    stay: u64,
    since: u64,
}

impl Strangers {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience_ms: super::desk::milliseconds(patience),
            named: Arc::default(),
            known: BTreeMap::new(),
            look_at: None,
        }
    }

    /// Members of these pools are looked up by a name.
    pub(super) fn named(&mut self, pools: Arc<BTreeSet<PoolKey>>) {
        self.named = pools;
        self.look_at = Some(0);
    }

    /// Nothing of before counts: what stands is not heard now, and there is nothing to look at until it is.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.look_at = None;
    }

    /// When to look again; `None`: not before something happens.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.look_at.filter(|_| !self.named.is_empty())
    }

    /// Looks, when it is time: at all verdicts that stand on backends that this orchestrator does not know, each with its
    /// revision. `stay` tells that of a backend's slot, if it is here. Gives those to be taken back.
    pub(super) fn look<'a>(
        &mut self,
        unknown: impl Iterator<Item = (&'a BackendId, Revision)>,
        stay: impl Fn(&BackendId) -> Option<u64>,
        now_ms: u64,
    ) -> Vec<(BackendId, Revision)> {
        if self.named.is_empty() || self.look_at.is_some_and(|at| now_ms < at) {
            return Vec::new();
        }
        self.look_at = Some(now_ms.saturating_add(self.patience_ms / LOOKS));
        let mut before = std::mem::take(&mut self.known);
        let mut over = Vec::new();
        for (backend, revision) in unknown {
            let Some(stay) = stay(backend).filter(|_| self.is_named(backend)) else {
                continue;
            };
            let same = |one: &Stranger| (one.revision, one.stay) == (revision, stay);
            let stranger = before.remove(backend).filter(same).unwrap_or(Stranger {
                revision,
                stay,
                since: now_ms,
            });
            if now_ms.saturating_sub(stranger.since) >= self.patience_ms {
                // Should that fail, its time begins anew.
                over.push((backend.clone(), revision));
            } else {
                self.known.insert(backend.clone(), stranger);
            }
        }
        over
    }

    fn is_named(&self, backend: &BackendId) -> bool {
        let pool = (backend.load_balancer.clone(), backend.pool.clone());
        self.named.contains(&pool)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::config::Name;

    use super::*;

    fn of(pool: &str, port: u16) -> BackendId {
        BackendId {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse(pool).unwrap(),
            address: ([10, 0, 0, 1], port).into(),
        }
    }

    /// Scenario: verdicts stand on four that are not known here. One is in a pool without a name, the slot of another is
    /// elsewhere. Of the others one is looked at by somebody meanwhile, so its time begins anew; the last is taken back
    /// when patience is over, and not before. A slot that was away begins anew, too.
    #[test]
    fn a_verdict_on_nobody_known_is_taken_back_with_patience() {
        let mut strangers = Strangers::new(Duration::from_millis(900));
        let all = [of("web", 1), of("web", 2), of("web", 3), of("static", 4)];
        let here = |stay| move |backend: &BackendId| (backend.address.port() != 2).then_some(stay);
        let look = |strangers: &mut Strangers, revisions: [Revision; 4], stay: u64, now| {
            let standing = all.iter().zip(revisions);
            strangers.look(standing, here(stay), now)
        };
        assert_eq!(
            (look(&mut strangers, [1; 4], 1, 0), strangers.wake_at()),
            (vec![], None)
        );
        strangers.named(Arc::new(
            [(all[0].load_balancer.clone(), all[0].pool.clone())].into(),
        ));
        assert_eq!(look(&mut strangers, [1; 4], 1, 100), []);
        assert_eq!(strangers.wake_at(), Some(400));
        assert_eq!(look(&mut strangers, [1, 1, 2, 1], 1, 400), []);
        assert_eq!(look(&mut strangers, [1, 1, 2, 1], 1, 999), []);
        assert_eq!(look(&mut strangers, [1, 1, 2, 1], 1, 1_000), []);
        assert_eq!(
            look(&mut strangers, [1, 1, 2, 1], 1, 1_299),
            [(all[0].clone(), 1)]
        );
        let mut slot_was_away = look(&mut strangers, [1, 1, 2, 1], 2, 1_600);
        slot_was_away.extend(look(&mut strangers, [1, 1, 2, 1], 2, 2_499));
        assert_eq!(slot_was_away, []);
        strangers.forget();
        assert_eq!(strangers.wake_at(), None, "nobody looks while nothing is heard");
        assert_eq!(
            look(&mut strangers, [1, 1, 2, 1], 2, 2_600),
            [],
            "it was not heard meanwhile"
        );
        assert_eq!(strangers.wake_at(), Some(2_900));
    }
}
