//! A Maglev table (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), weighted.
//!
//! Each member prefers the slots of the table in an order of its own and they claim them in turn, a heavier one more
//! often: shares are even to a slot, and a look-up is one read. The price is that when a member leaves, a few keys
//! move that were not its own. The order of claims depends on the addresses, not on the order in the config.

use model::snapshot::Member;

use crate::hash::{backend_seed, mix};
use crate::rng::scale;

/// Slots of a table, a prime: for pools of up to 655 members, a hundred slots for each or more.
pub const SMALL_TABLE: u32 = 65_537;
/// Slots of the table of a larger pool, a prime.
pub const LARGE_TABLE: u32 = 655_373;
/// Declared members up to which the small table is taken.
const SMALL_POOL: usize = 655;

const FREE: u32 = u32::MAX;

/// Whose each slot is.
#[derive(Debug)]
pub(crate) struct Maglev {
    slots: Vec<u32>,
}

struct Claimant {
    seed: u64,
    index: u32,
    weight: u64,
    /// Its claims are due when this reaches the greatest weight.
    due: u64,
    next: u32,
    skip: u32,
}

impl Maglev {
    /// Fills a table with the members that take requests, each getting a slot at least (while there are any).
    pub(crate) fn new(members: &[Member]) -> Self {
        let size = if members.len() <= SMALL_POOL {
            SMALL_TABLE
        } else {
            LARGE_TABLE
        };
        let mut claimants = claimants(members, size);
        let Some(greatest) = claimants.iter().map(|c| c.weight).max() else {
            return Self { slots: Vec::new() };
        };
        let mut slots = vec![FREE; size as usize];
        let mut free = size;
        while free > 0 {
            for claimant in &mut claimants {
                claimant.due += claimant.weight;
                if claimant.due >= greatest && free > 0 {
                    claimant.due -= greatest;
                    claimant.claim(&mut slots);
                    free -= 1;
                }
            }
        }
        Self { slots }
    }

    /// Whose the key is.
    pub(crate) fn owner(&self, key: u64) -> Option<usize> {
        let slot = scale(mix(key, 0), self.slots.len() as u64);
        self.slots.get(slot as usize).map(|index| *index as usize)
    }

    /// Slots of the table.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots of one member.
    pub(crate) fn slots_of(&self, index: usize) -> usize {
        self.slots.iter().filter(|i| **i as usize == index).count()
    }
}

fn claimants(members: &[Member], size: u32) -> Vec<Claimant> {
    let taking = (0u32..FREE)
        .zip(members)
        .filter(|(_, member)| member.effective_weight > 0);
    let greatest = taking.clone().map(|(_, m)| m.effective_weight).max().unwrap_or(0);
    let mut claimants: Vec<Claimant> = taking
        .map(|(index, member)| {
            let seed = backend_seed(member.id.address);
            Claimant {
                seed,
                index,
                weight: u64::from(member.effective_weight),
                // The first claim of each is due in the first round: nobody is too light for a slot.
                due: u64::from(greatest - member.effective_weight),
                next: scale(mix(seed, 1), u64::from(size)) as u32,
                skip: scale(mix(seed, 2), u64::from(size - 1)) as u32 + 1,
            }
        })
        .collect();
    claimants.sort_unstable_by_key(|c| c.seed);
    claimants
}

impl Claimant {
    /// Takes the first free slot in its order of preference. As the table's size is prime, that order visits every
    /// slot; the caller sees to it that one is free.
    fn claim(&mut self, slots: &mut [u32]) {
        let size = slots.len() as u32;
        for _ in 0..size {
            let here = self.next;
            self.next = (self.next + self.skip) % size;
            if let Some(slot) = slots.get_mut(here as usize).filter(|slot| **slot == FREE) {
                *slot = self.index;
                return;
            }
        }
    }
}
