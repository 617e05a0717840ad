//! What goes wrong in a run: a few things of one kind, or of all kinds.

use sim::Random;

use super::shadow::{gone, soon};
use super::world::STEP;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node dies, and starts again as another process, with nothing.
    Dies,
    /// A node is cut off from the store.
    Cut,
    /// A node stops for a while, and goes on with what it knew.
    Pauses,
    /// The store is away for everybody.
    StoreAway,
    /// The same, and another one comes back: an empty one, or an old copy.
    StoreReplaced,
    /// The store loses all leases, and everybody is well.
    LeasesLost,
}

const ALL: [Fault; 6] = [
    Fault::Dies,
    Fault::Cut,
    Fault::Pauses,
    Fault::StoreAway,
    Fault::StoreReplaced,
    Fault::LeasesLost,
];

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) faults: Vec<Fault>,
    /// Nodes 0 and 1 have one name.
    pub(crate) twins: bool,
    /// A second pool is taken out of the config and put back, and some of its members die meanwhile.
    pub(crate) pool: Option<(u64, u64)>,
    /// Most of the first pool leave at once.
    pub(crate) exodus: Option<u64>,
    /// All but one of the first pool fall silent at once, when everything has been well for long.
    pub(crate) hush: Option<u64>,
    /// Somebody puts what cannot be read under the keys of members.
    pub(crate) spoils: bool,
    /// How long a member may be silent.
    pub(crate) ttl: u64,
    /// Time between two looks of a node.
    pub(crate) look: u64,
    /// Greatest lateness of a watch.
    pub(crate) lag: u64,
    /// Nothing begins to go wrong from then on.
    pub(crate) calm: u64,
    pub(crate) ends: u64,
    /// It runs for so long that records of silent members are removed, too.
    pub(crate) long: bool,
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x5eed);
        let long = seed % 40 == 7;
        let faults = match seed % 9 {
            0 => vec![Fault::Dies],
            1 => vec![Fault::Cut],
            2 if seed.is_multiple_of(2) => vec![Fault::Pauses],
            2 => vec![Fault::Pauses, Fault::Cut],
            3 => vec![Fault::StoreAway, Fault::StoreReplaced],
            4 => vec![Fault::LeasesLost, Fault::Pauses],
            5 => vec![Fault::Dies, Fault::Cut],
            6 => Vec::new(),
            _ => ALL.to_vec(),
        };
        let ttl = if random.chance(500) { 3_000 } else { 6_000 };
        let calm = random.within(14_000, 34_000);
        let gone = gone(ttl);
        let settled = calm + 12_000 + gone;
        let pool = random.chance(120).then(|| (calm - 3_000, settled));
        let exodus = random
            .chance(250)
            .then(|| random.within(9_500, calm) / STEP * STEP);
        let hush = (!long && pool.is_none() && random.chance(60)).then_some(settled / STEP * STEP);
        let ends = match (long, pool, hush) {
            (true, ..) => settled + 110_000,
            (false, Some((_, back)), _) => back + 12_000,
            (false, None, Some(at)) => at + soon(ttl) + 10_000,
            (false, None, None) => settled,
        };
        Self {
            faults,
            twins: random.chance(300),
            pool,
            exodus,
            hush,
            spoils: random.chance(250),
            ttl,
            look: [100, 250, 250, 250][random.below(4) as usize],
            lag: [100, 400, 800][random.below(3) as usize],
            calm,
            ends,
            long,
        }
    }
}
