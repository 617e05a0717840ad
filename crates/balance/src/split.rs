//! Requests shared out among pools by weight: at random, or by a key that stays with its pool.
//!
//! By key it is weighted rendezvous hashing: each pool draws a number from the key and its own name, scaled by its
//! weight, and the greatest wins. A pool whose weight grows wins keys and loses none, and the others lose in
//! proportion: no change of weights moves more keys than the change of shares itself. The draw depends on names
//! and key alone, so all threads, nodes and restarts agree.

use crate::hash::{hash, mix};
use crate::rng::Rng;

/// Pools with their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    parts: Vec<Part>,
    total: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    seed: u64,
    weight: u32,
}

impl Split {
    /// Takes pools by name with their weights. One of weight 0 gets nothing.
    pub fn new<'n>(parts: impl Iterator<Item = (&'n str, u32)>) -> Self {
        let parts: Vec<Part> = parts
            .map(|(name, weight)| Part {
                seed: hash(name.as_bytes()),
                weight,
            })
            .collect();
        let total = parts.iter().map(|part| u64::from(part.weight)).sum();
        Self { parts, total }
    }

    /// Index of a pool at random; `None` when no weight is above 0.
    pub fn random(&self, rng: &mut Rng) -> Option<usize> {
        let mut left = rng.below(self.total);
        self.parts.iter().position(|part| {
            let weight = u64::from(part.weight);
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        })
    }

    /// Index of the pool that this key belongs to; `None` when no weight is above 0.
    pub fn of_key(&self, key: u64) -> Option<usize> {
        let weighted = self.parts.iter().enumerate().filter(|(_, part)| part.weight > 0);
        let drawn = weighted.map(|(i, part)| (i, draw(part, key)));
        drawn.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i)
    }
}

/// Exponentially distributed with a mean that the weight sets, so that the greatest of several is each one's with
/// a chance of its share.
fn draw(part: &Part, key: u64) -> f64 {
    // 53 bits, none of them all: the logarithm is finite and below 0.
    let fraction = ((mix(key, part.seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    fraction.ln() / f64::from(part.weight)
}
