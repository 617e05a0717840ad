//! Who should have which slot: rendezvous hashing with a bound on the load.
//!
//! Each pair of worker and slot has a score, the same everywhere; a slot's *home* is the worker that scores highest.
//! Slots go home while there is room, and else stay where they are, and else go to the next best with room. So
//!
//! - a worker that comes takes its share from all others, one that goes leaves its share to all others, and little
//!   else moves;
//! - nobody carries more than [`BOUND_PERCENT`] of the mean, or the mean and the heaviest slot where that is more;
//! - what was spread stays: spreading again changes nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::config::{HealthCheck, Name};
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::hash::DefaultHasher;
use std::net::SocketAddr;

use super::{Slot, mixed};

/// Most that one worker carries, in percent of the mean.
pub const BOUND_PERCENT: u64 = 125;

/// What a slot weighs besides its checks, so that empty ones are spread too.
const WEIGHT_OF_A_SLOT: u64 = 1;

/// Weight of each of `slots` slots: checks per hour of all different checks in it, and 1.
///
/// A check that several load balancers want of the same address, in the same way, is one check.
pub fn weights<'a>(checks: impl IntoIterator<Item = (SocketAddr, &'a HealthCheck)>, slots: u16) -> Vec<u64> {
    const HOUR_MS: u128 = 3_600_000;
    let mut weights = vec![WEIGHT_OF_A_SLOT; usize::from(slots.max(1))];
    let mut known: HashSet<_, BuildHasherDefault<DefaultHasher>> = HashSet::default();
    for check in checks {
        if !known.insert(check) {
            continue;
        }
        let (address, HealthCheck { interval, .. }) = check;
        let an_hour = HOUR_MS / interval.as_millis().max(1);
        if let Some(weight) = weights.get_mut(usize::from(Slot::of(address, slots).0)) {
            *weight = weight.saturating_add(u64::try_from(an_hour.max(1)).unwrap_or(u64::MAX));
        }
    }
    weights
}

/// The worker of each slot, as an index into `workers`; nothing without workers.
///
/// `current` says who has each slot now (`None`: nobody); it must be as long as `weights`, and what is beyond counts
/// as nobody's.
pub fn spread(workers: &[&Name], weights: &[u64], current: &[Option<usize>]) -> Vec<usize> {
    if workers.is_empty() {
        return Vec::new();
    }
    let mut room = Room::new(workers, weights);
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|slot| Reverse(weights.get(*slot).copied()));
    let has = |slot: usize| current.get(slot).copied().flatten();
    let homes: Vec<usize> = (0..weights.len()).map(|slot| room.home(slot)).collect();
    // Who is at home already comes first, so that a newcomer never pushes it out.
    for at_home in [true, false] {
        for slot in order.iter().copied() {
            let home = homes[slot];
            if (has(slot) == Some(home)) == at_home {
                room.put(slot, home);
            }
        }
    }
    for slot in order.iter().copied() {
        if let Some(owner) = has(slot).filter(|owner| *owner < workers.len()) {
            room.put(slot, owner);
        }
    }
    for slot in order {
        room.put_anywhere(slot);
    }
    room.placed.into_values().collect()
}

/// Who carries how much already.
struct Room<'a> {
    weights: &'a [u64],
    hashes: Vec<u64>,
    loads: Vec<u64>,
    bound: u64,
    placed: BTreeMap<usize, usize>,
}

impl<'a> Room<'a> {
    fn new(workers: &[&Name], weights: &'a [u64]) -> Self {
        let total: u64 = weights.iter().fold(0, |sum, weight| sum.saturating_add(*weight));
        let heaviest = weights.iter().max().copied().unwrap_or(0);
        let mean = total.div_ceil(workers.len() as u64);
        let stretched = (u128::from(mean) * u128::from(BOUND_PERCENT) / 100) as u64;
        Self {
            weights,
            hashes: workers.iter().map(|worker| hash(worker.as_str())).collect(),
            loads: vec![0; workers.len()],
            // With the mean and the heaviest there is always one who has room: the least loaded.
            bound: stretched.max(mean.saturating_add(heaviest)),
            placed: BTreeMap::new(),
        }
    }

    fn home(&self, slot: usize) -> usize {
        let score = |worker: usize| self.hashes.get(worker).map(|hash| mixed(hash ^ slot as u64));
        (0..self.hashes.len())
            .max_by_key(|worker| score(*worker))
            .unwrap_or(0)
    }

    /// Places a slot that has no place yet, if there is room.
    fn put(&mut self, slot: usize, worker: usize) -> bool {
        let weight = self.weights[slot];
        if self.placed.contains_key(&slot) || self.loads[worker].saturating_add(weight) > self.bound {
            return false;
        }
        self.loads[worker] += weight;
        self.placed.insert(slot, worker);
        true
    }

    fn put_anywhere(&mut self, slot: usize) {
        if self.placed.contains_key(&slot) {
            return;
        }
        let mut workers: Vec<usize> = (0..self.hashes.len()).collect();
        workers.sort_by_key(|worker| Reverse(mixed(self.hashes[*worker] ^ slot as u64)));
        if !workers.iter().any(|worker| self.put(slot, *worker)) {
            // Only weights near the end of the numbers come here.
            self.placed.insert(slot, workers[0]);
        }
    }
}

/// FNV-1a, mixed: the same in every process and version.
fn hash(text: &str) -> u64 {
    let folded = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(folded)
}
