//! Whom this orchestrator checks: what is wanted, of the slots that it runs, and from which verdict each check goes
//! on.
//!
//! A slot that comes here is gone on with from the verdict that stands in the store, so that a move is no flap. That
//! verdict may be seen late: the old owner wrote it before it let go, but watches are not in step. So what is heard
//! afterwards of a backend of which nothing was found here yet replaces what its check went on from; and once
//! something was found here, whatever stands in the store and says otherwise is written over: it is older, or the
//! store went back.
//!
//! A check that is new or was changed while its slot is here, or whose backend was not checked for a while, goes on
//! from nothing: its first result decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::HealthCheck;
use model::state::{BackendId, Standing, Target, Verdict};

use super::Slot;

/// All checks that somebody wants.
pub type Wanted = BTreeMap<BackendId, Arc<HealthCheck>>;

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
    /// Whose check began anew within a stay; as many as there are addresses in `checked`.
    lives: BTreeMap<SocketAddr, u64>,
    next_life: u64,
}

#[derive(Debug)]
struct Checked {
    check: Arc<HealthCheck>,
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
    /// What was found here is to be written again.
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
            lives: BTreeMap::new(),
            next_life: 1,
        }
    }

    /// These checks are wanted; `standing` tells what stands in the store.
    pub fn want(&mut self, wanted: Arc<Wanted>, standing: impl Fn(&BackendId) -> Option<Standing>) {
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
    pub fn run(&mut self, running: Arc<Stays>, standing: impl Fn(&BackendId) -> Option<Standing>) {
        let before = std::mem::replace(&mut self.running, running);
        self.update(&before, standing);
    }

    /// `before`: the stays under which everything wanted was looked at already.
    fn update(&mut self, before: &Stays, standing: impl Fn(&BackendId) -> Option<Standing>) {
        let Some(wanted) = self.wanted.clone() else {
            return;
        };
        let mut old = std::mem::take(&mut self.checked);
        for (backend, check) in wanted.iter() {
            let slot = Slot::of(backend.address, self.slots);
            let Some(stay) = self.running.get(&slot).copied() else {
                continue;
            };
            let known = old.remove(backend).filter(|known| known.stay == stay);
            let checked = match known {
                Some(known) if known.check == *check => known,
                known => Checked {
                    check: check.clone(),
                    stay,
                    standing: match known.is_none() && before.get(&slot) != Some(&stay) {
                        true => standing(backend),
                        false => None,
                    },
                    found: None,
                },
            };
            self.checked.insert(backend.clone(), checked);
        }
        let addresses: BTreeSet<SocketAddr> = self.checked.keys().map(|backend| backend.address).collect();
        self.lives.retain(|address, _| addresses.contains(address));
    }

    /// Whom to check.
    pub fn targets(&self) -> Vec<Target> {
        let target = |(backend, checked): (&BackendId, &Checked)| Target {
            backend: backend.clone(),
            check: checked.check.clone(),
            life: life(&self.lives, backend.address, checked.stay),
            standing: checked.knows().cloned(),
        };
        self.checked.iter().map(target).collect()
    }

    /// A check brought a verdict; whether it is one of these, in its present life.
    pub fn found(&mut self, verdict: &Verdict) -> bool {
        let lives = &self.lives;
        let of_this_life =
            |checked: &&mut Checked| verdict.life == life(lives, verdict.backend.address, checked.stay);
        let Some(checked) = self.checked.get_mut(&verdict.backend).filter(of_this_life) else {
            return false;
        };
        checked.found = Some(Standing {
            health: verdict.health,
            reason: verdict.reason.clone(),
        });
        true
    }

    /// This stands in the store now, and is not of what this process wrote last; `None`: nothing does.
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
        match (&checked.found, stored) {
            (Some(Standing { health, reason }), _) => Heard::Write(Verdict {
                backend: backend.clone(),
                health: *health,
                reason: reason.clone(),
                life: life(&self.lives, backend.address, checked.stay),
            }),
            (None, None) => Heard::Nothing,
            (None, Some(stored)) => {
                checked.standing = Some(stored);
                self.lives.insert(backend.address, self.next_life);
                self.next_life += 1;
                Heard::GoOn
            }
        }
    }
}

/// Stays count in the upper half, what began anew within one in the lower: none ever comes twice.
fn life(lives: &BTreeMap<SocketAddr, u64>, address: SocketAddr, stay: u64) -> u64 {
    (stay << 32) | (lives.get(&address).copied().unwrap_or(0) & 0xFFFF_FFFF)
}
