//! A hash ring in the manner of ketama: each member sits at many points of a circle, and a key belongs to the first
//! point at or after its own place.
//!
//! A member's points depend on its address and its own weight only. So a member that leaves gives its keys to the
//! others and moves no other key, one that returns gets exactly its old keys back, and slow start adds points, and
//! with them keys, step by step.

use model::snapshot::{Member, WEIGHT_SCALE};

use crate::hash::{backend_seed, mix};
use crate::schedule::gcd;

/// Points of a member of weight 1, once the declared weights are divided by their greatest common divisor.
pub const POINTS_PER_WEIGHT: u32 = 160;
/// Points on a ring: a pool that would need more has them all halved, as often as needed, each member keeping at
/// least one.
pub const MAX_POINTS: u64 = 32_768;

/// Bits of a point that say whose it is; the others, on top, say where it is.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// The points in order, and an index into them.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Vec<u64>,
    /// For each slice of the circle: the first point at or after its start. A look here spares a binary search.
    slices: Vec<u32>,
    slice_shift: u32,
}

impl Ring {
    /// Places the members that take requests. `declared` are the weights in the config: what the pool could be at
    /// its fullest, so that no change of health or order resizes anybody else's share.
    pub(crate) fn new(members: &[Member], declared: impl Iterator<Item = u32> + Clone) -> Self {
        let unit = u64::from(declared.clone().fold(0, gcd)).max(1);
        let fullest = declared.zip(members).map(|(d, m)| u64::from(d.max(m.weight)));
        let wanted = fullest.sum::<u64>() * u64::from(POINTS_PER_WEIGHT) / unit;
        let mut divisor = unit * u64::from(WEIGHT_SCALE);
        let mut total = wanted;
        while total > MAX_POINTS {
            total /= 2;
            divisor *= 2;
        }
        let mut points = Vec::new();
        for (index, member) in (0u64..=INDEX_MASK).zip(members) {
            let seed = backend_seed(member.id.address);
            for replica in 0..points_of(member.effective_weight, divisor) {
                points.push((mix(seed, replica) & !INDEX_MASK) | index);
            }
        }
        points.sort_unstable();
        Self::index(points)
    }

    fn index(points: Vec<u64>) -> Self {
        let slices = points.len().next_power_of_two().max(2);
        let slice_shift = 64 - slices.trailing_zeros();
        let first_at = |slice: u64| points.partition_point(|p| *p < slice << slice_shift) as u32;
        let slices = (0..slices as u64).map(first_at).collect();
        Self {
            points,
            slices,
            slice_shift,
        }
    }

    /// The first member at or after the key's place, going round once, that `open` accepts.
    pub(crate) fn find(&self, key: u64, open: impl Fn(usize) -> bool) -> Option<usize> {
        let place = mix(key, 0) & !INDEX_MASK;
        let slice = self.slices.get((place >> self.slice_shift) as usize)?;
        let from = self.points.get(*slice as usize..).unwrap_or_default();
        let start = *slice as usize + from.iter().take_while(|p| **p < place).count();
        let (before, after) = self.points.split_at_checked(start)?;
        let members = after.iter().chain(before).map(|p| (p & INDEX_MASK) as usize);
        members.into_iter().find(|member| open(*member))
    }

    /// Points on the ring.
    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// Points of one member.
    pub(crate) fn points_of(&self, index: usize) -> usize {
        self.points
            .iter()
            .filter(|p| (**p & INDEX_MASK) as usize == index)
            .count()
    }
}

fn points_of(effective_weight: u32, divisor: u64) -> u64 {
    if effective_weight == 0 {
        return 0;
    }
    let exact = u64::from(effective_weight) * u64::from(POINTS_PER_WEIGHT);
    ((exact + divisor / 2) / divisor).max(1)
}
