//! What simulations in tests share: seeds and randomness.
//!
//! Only tests use this room. The numbers are the same on every machine, so that a seed that fails can be typed in.

#![forbid(unsafe_code)]

/// Seeds to run: `usual`, unless `cargo xtask test --seeds N` says how many, or `--long` how many times that.
#[must_use]
pub fn seeds(usual: u64) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    number("EVENKEEL_SEEDS").unwrap_or_else(|| usual * number("EVENKEEL_SEEDS_TIMES").unwrap_or(1))
}

/// SplitMix64, beginning at a seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number up to and without `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// A number from `from` up to and without `to`, which is greater.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    /// True so often in a thousand times.
    pub fn chance(&mut self, per_thousand: u64) -> bool {
        self.below(1000) < per_thousand
    }
}
