//! What an LB server believes of its backends: the orchestrators' verdicts, and its own where it had to look itself.
//!
//! Verdicts come by a watch and by hints that overtake one another. The store's revision says which is newer; one
//! that is older than what is known, or of an earlier epoch, is refused. Both kinds are kept side by side, and
//! [`PlanB`](crate::plan_b::PlanB) says which counts.
//!
//! A backend that registered itself may leave and come back as another one, and its verdicts say of which membership
//! they are. Who asks names the one that is meant, and is told nothing of others: whoever wrote a verdict may not
//! have heard yet that the backend is another one by now, or may have heard it before we did.
//!
//! At most one entry of each kind per backend; [`Board::keep`] forgets what is neither wanted nor in the store.

use std::collections::BTreeMap;

use model::state::{BackendId, Health, Verdict};

use super::records::{Revision, VerdictRecord};

/// Whose verdict is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An orchestrator's, from the store.
    Orchestrator,
    /// Of this LB server's own checks.
    Own,
}

impl Source {
    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Own => "own",
        }
    }
}

/// What came of a verdict that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is what the store says now.
    New,
    /// This or a newer one is known.
    Old,
    /// It is newer by revision and of an earlier epoch than what is known: the store refuses such writes, so it is
    /// not of this store's making.
    EarlierEpoch,
}

/// What is believed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief<'a> {
    /// Up, down, or not known.
    pub health: Health,
    /// Why, in words.
    pub reason: &'a str,
    /// Who says so.
    pub source: Source,
}

/// All verdicts known here.
#[derive(Clone, Debug, Default)]
pub struct Board {
    stored: BTreeMap<BackendId, (Revision, Option<VerdictRecord>)>,
    own: BTreeMap<BackendId, Verdict>,
    /// Highest epoch seen of each backend; outlives a deleted verdict.
    epochs: BTreeMap<BackendId, Revision>,
}

impl Board {
    /// Takes what stands in the store under a backend since `revision`; `None`: nothing any more.
    pub fn store(
        &mut self,
        backend: &BackendId,
        revision: Revision,
        verdict: Option<VerdictRecord>,
    ) -> Taken {
        if self
            .stored
            .get(backend)
            .is_some_and(|(known, _)| *known >= revision)
        {
            return Taken::Old;
        }
        if let Some(verdict) = &verdict {
            let epoch = self.epochs.entry(backend.clone()).or_default();
            if verdict.epoch < *epoch {
                return Taken::EarlierEpoch;
            }
            *epoch = verdict.epoch;
        }
        self.stored.insert(backend.clone(), (revision, verdict));
        Taken::New
    }

    /// Takes a verdict of this server's own checks.
    pub fn own(&mut self, verdict: Verdict) {
        self.own.insert(verdict.backend.clone(), verdict);
    }

    /// Forgets all own verdicts: those checks have ended, and another time they begin anew.
    pub fn forget_own(&mut self) {
        self.own.clear();
    }

    /// Forgets the own verdict on one: its check here has ended.
    pub fn forget_own_of(&mut self, backend: &BackendId) {
        self.own.remove(backend);
    }

    /// Takes all that stands in the store at `revision` in place of what was known, also when the store went back;
    /// the backends of which something else stands now.
    pub fn list(
        &mut self,
        revision: Revision,
        entries: Vec<(BackendId, Revision, VerdictRecord)>,
    ) -> Vec<BackendId> {
        let before = std::mem::take(&mut self.stored);
        self.epochs.clear();
        let gone = before.keys().map(|backend| (backend.clone(), (revision, None)));
        self.stored = gone.collect();
        for (backend, changed, verdict) in entries {
            self.epochs.insert(backend.clone(), verdict.epoch);
            self.stored.insert(backend, (changed, Some(verdict)));
        }
        let differs = |backend: &&BackendId| verdict(&before, backend) != verdict(&self.stored, backend);
        self.stored.keys().filter(differs).cloned().collect()
    }

    /// What stands in the store of the membership with this number.
    pub fn stored(&self, backend: &BackendId, life: u64) -> Option<&VerdictRecord> {
        verdict(&self.stored, backend).filter(|verdict| verdict.life == life)
    }

    /// All that stands in the store, each with the revision of its last change.
    pub fn standing(&self) -> impl Iterator<Item = (&BackendId, Revision)> {
        let stored = self.stored.iter();
        stored.filter_map(|(backend, (revision, verdict))| verdict.is_some().then_some((backend, *revision)))
    }

    /// Forgets own verdicts on others than the `served`, and what is known of others than the `wanted`, but for what
    /// stands in the store: that may be of backends that are wanted soon.
    pub fn keep(&mut self, served: impl Fn(&BackendId) -> bool, wanted: impl Fn(&BackendId) -> bool) {
        self.own.retain(|backend, _| served(backend));
        self.stored
            .retain(|backend, (_, verdict)| verdict.is_some() || wanted(backend));
        let stored = &self.stored;
        self.epochs.retain(|backend, _| stored.contains_key(backend));
    }

    /// What is believed of a backend in the membership with this number, when `preferred` counts first. Until an own
    /// check has had its first result the last verdict of the store stands: silence is no news.
    pub fn belief(&self, backend: &BackendId, life: u64, preferred: Source) -> Option<Belief<'_>> {
        let own = self
            .own
            .get(backend)
            .filter(|verdict| preferred == Source::Own && verdict.life.member == life)
            .map(|verdict| Belief {
                health: verdict.health,
                reason: &verdict.reason,
                source: Source::Own,
            });
        own.or_else(|| {
            self.stored(backend, life).map(|verdict| Belief {
                health: verdict.health,
                reason: &verdict.reason,
                source: Source::Orchestrator,
            })
        })
    }
}

fn verdict<'a>(
    known: &'a BTreeMap<BackendId, (Revision, Option<VerdictRecord>)>,
    backend: &BackendId,
) -> Option<&'a VerdictRecord> {
    known.get(backend)?.1.as_ref()
}
