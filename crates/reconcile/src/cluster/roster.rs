//! Whom this orchestrator checks: what is wanted, of the slots that it runs, and from which verdict each check goes
//! on.
//!
//! A slot that comes here is gone on with from the verdict that stands in the store, so that a move is no flap. That
//! verdict may be seen late: the old owner wrote it before it let go, but watches are not in step. So what is heard
//! afterwards of a backend of which nothing was found here yet replaces what its check went on from; and once
//! something was found here, whatever stands in the store and says otherwise is written over: it is older, or the
//! store went back. When nothing stands there any more, because it was tidied away or the store was emptied, what is
//! known here is written again, whether it was found here or only gone on from.
//!
//! A check that is new or was changed while its slot is here, or whose backend was not checked for a while, goes on
//! from nothing: its first result decides. So does that of a backend that registered itself, left, and is back as
//! another one: what was found of the membership before, here or by another owner, is as if it were not there. A
//! membership has checks of its own, even where the same address is a backend of somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::HealthCheck;
use model::state::{BackendId, Life, Standing, Target, Verdict};

use super::Slot;

/// All checks that somebody wants.
pub type Wanted = BTreeMap<BackendId, Wish>;

/// A check that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How.
    pub check: Arc<HealthCheck>,
    /// The number of the backend's membership ([`Life::member`]).
    pub life: u64,
}

impl Wish {
    /// Of a backend whose memberships nobody counts.
    pub fn uncounted(check: Arc<HealthCheck>) -> Self {
        Self { check, life: 0 }
    }
}

/// The slots that run here, each with the number of its stay: one that left and came back has another.
pub type Stays = BTreeMap<Slot, u64>;

/// Whom this orchestrator checks.
#[derive(Debug)]
pub struct Roster {
    slots: u16,
    /// `None`: not known yet.
    wanted: Option<Arc<Wanted>>,
    running: Arc<Stays>,
    checked: BTreeMap<BackendId, Checked>,
    /// Whose check began anew within a stay; at most as many as in `checked`.
    runs: BTreeMap<(SocketAddr, u64), u64>,
    next_run: u64,
}

#[derive(Debug)]
struct Checked {
    wish: Wish,
    stay: u64,
    /// What the check went on from.
    standing: Option<Standing>,
    /// What was found here.
    found: Option<Standing>,
}

impl Checked {
    fn knows(&self) -> Option<&Standing> {
        self.found.as_ref().or(self.standing.as_ref())
    }
}

/// What follows from a verdict that stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: it is not checked here, or this was known.
    Nothing,
    /// Its check begins anew from that verdict: [`Roster::targets`] changed.
    GoOn,
    /// What is known here is to be written again.
    Write(Verdict),
}

impl Roster {
    /// Of a cluster with this many slots. Nothing is wanted and nothing runs.
    pub fn new(slots: u16) -> Self {
        Self {
            slots,
            wanted: None,
            running: Arc::default(),
            checked: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_run: 1,
        }
    }

    /// These checks are wanted; `standing` tells what stands in the store of a backend in the membership with that number.
    pub fn want(&mut self, wanted: Arc<Wanted>, standing: impl Fn(&BackendId, u64) -> Option<Standing>) {
        let first = self.wanted.is_none();
        let before = if first {
            Arc::default()
        } else {
            self.running.clone()
        };
        self.wanted = Some(wanted);
        self.update(&before, standing);
    }

    /// These slots run here.
    pub fn run(&mut self, running: Arc<Stays>, standing: impl Fn(&BackendId, u64) -> Option<Standing>) {
        let before = std::mem::replace(&mut self.running, running);
        self.update(&before, standing);
    }

    /// `before`: the stays under which everything wanted was looked at already.
    fn update(&mut self, before: &Stays, standing: impl Fn(&BackendId, u64) -> Option<Standing>) {
        let Some(wanted) = self.wanted.clone() else {
            return;
        };
        let mut old = std::mem::take(&mut self.checked);
        for (backend, wish) in wanted.iter() {
            let slot = Slot::of(backend.address, self.slots);
            let Some(stay) = self.running.get(&slot).copied() else {
                continue;
            };
            let known = old.remove(backend).filter(|known| known.stay == stay);
            let checked = match known {
                Some(known) if known.wish == *wish => known,
                known => Checked {
                    wish: wish.clone(),
                    stay,
                    standing: match known.is_none() && before.get(&slot) != Some(&stay) {
                        true => standing(backend, wish.life),
                        false => None,
                    },
                    found: None,
                },
            };
            self.checked.insert(backend.clone(), checked);
        }
        let checked = self.checked.iter();
        let here: BTreeSet<_> = checked
            .map(|(backend, checked)| (backend.address, checked.wish.life))
            .collect();
        self.runs.retain(|run, _| here.contains(run));
    }

    /// Whom to check.
    pub fn targets(&self) -> Vec<Target> {
        let target = |(backend, checked): (&BackendId, &Checked)| Target {
            backend: backend.clone(),
            check: checked.wish.check.clone(),
            life: life(&self.runs, backend.address, checked),
            standing: checked.knows().cloned(),
        };
        self.checked.iter().map(target).collect()
    }

    /// A check brought a verdict; what is to be written, if it is one of these in its present life.
    pub fn found(&mut self, verdict: Verdict) -> Option<Verdict> {
        let runs = &self.runs;
        let of_this_life =
            |checked: &&mut Checked| verdict.life == life(runs, verdict.backend.address, checked);
        let checked = self.checked.get_mut(&verdict.backend).filter(of_this_life)?;
        checked.found = Some(Standing {
            health: verdict.health,
            reason: verdict.reason.clone(),
        });
        Some(verdict)
    }

    /// In which membership a backend is checked here; `None`: it is not.
    pub fn life(&self, backend: &BackendId) -> Option<u64> {
        Some(self.checked.get(backend)?.wish.life)
    }

    /// Whether something was found of a backend since its slot is here. Then what this process wrote itself is no news,
    /// however late it is heard: what it found last is that, or follows it into the store.
    pub fn has_found(&self, backend: &BackendId) -> bool {
        self.checked
            .get(backend)
            .is_some_and(|checked| checked.found.is_some())
    }

    /// This stands in the store now of the membership that is checked here, and is news; `None`: nothing does.
    pub fn heard(&mut self, backend: &BackendId, stored: Option<Standing>) -> Heard {
        let Some(checked) = self.checked.get_mut(backend) else {
            return Heard::Nothing;
        };
        let same = match (checked.knows(), &stored) {
            (None, _) => true,
            (Some(known), Some(stored)) => known.health == stored.health,
            (Some(_), None) => false,
        };
        if same {
            return Heard::Nothing;
        }
        match stored {
            Some(stored) if checked.found.is_none() => {
                checked.standing = Some(stored);
                self.runs
                    .insert((backend.address, checked.wish.life), self.next_run);
                self.next_run += 1;
                Heard::GoOn
            }
            _ => {
                let life = life(&self.runs, backend.address, checked);
                let known = checked.knows().cloned();
                known.map_or(Heard::Nothing, |Standing { health, reason }| {
                    Heard::Write(Verdict {
                        backend: backend.clone(),
                        health,
                        reason,
                        life,
                    })
                })
            }
        }
    }
}

/// Stays count in the upper half, what began anew within one in the lower: none ever comes twice.
fn life(runs: &BTreeMap<(SocketAddr, u64), u64>, address: SocketAddr, checked: &Checked) -> Life {
    let member = checked.wish.life;
    let run = runs.get(&(address, member)).copied().unwrap_or(0);
    Life {
        member,
        run: (checked.stay << 32) | (run & 0xFFFF_FFFF),
    }
}
