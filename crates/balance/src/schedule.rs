//! The turns of a smooth weighted round robin, laid out in advance.
//!
//! With weights 5, 1, 1 the turns are `a a b a c a a`, not `a a a a a b c`. Laid out once per change of the pool,
//! a pick is one addition to a shared counter and one look into a table: no lock, and exact over all threads,
//! because the counter hands out each turn once.
//!
//! The layout is Tijdeman's solution of the chairman assignment problem: at every point each member has had its
//! share of the turns so far to within 1 − 1/(2n − 2) of a turn, the best bound there is. (Choosing whoever is
//! furthest behind, as is common, gives the same turns for small pools and drifts further apart in large ones.)

/// Turns in a table. Weights are first divided by their greatest common divisor; where their sum is still greater,
/// they are scaled to this sum and rounded, each to at least one turn. A pool larger than this has a turn for each.
pub const MAX_TURNS: usize = 4096;

/// Whose turn it is, for each turn of one round.
#[derive(Debug)]
pub(crate) struct Schedule {
    turns: Vec<u32>,
}

struct Share {
    index: u32,
    weight: i64,
    /// Turns it is behind its share, times the length of the round.
    behind: i64,
}

impl Schedule {
    /// Lays out a round. Weight 0 gets no turn.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let mut shares = reduce(weights);
        let round: i64 = shares.iter().map(|s| s.weight).sum();
        if shares.len() < 2 || shares.iter().all(|s| s.weight == 1) {
            let turns = shares.iter().map(|s| s.index).collect();
            return Self { turns };
        }
        let turns = (0..round).filter_map(|_| next(&mut shares, round)).collect();
        Self { turns }
    }

    /// Who has this turn; `None` when nobody has any.
    pub(crate) fn at(&self, turn: u64) -> Option<usize> {
        let position = turn.checked_rem(self.turns.len() as u64)?;
        self.turns.get(position as usize).map(|index| *index as usize)
    }

    /// Turns in a round.
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Turns of one member in a round.
    pub(crate) fn turns_of(&self, index: usize) -> usize {
        self.turns.iter().filter(|i| **i as usize == index).count()
    }
}

fn reduce(weights: &[u32]) -> Vec<Share> {
    let divisor = u64::from(weights.iter().copied().fold(0, gcd)).max(1);
    let sum = weights.iter().map(|w| u64::from(*w)).sum::<u64>() / divisor;
    let limit = MAX_TURNS as u64;
    let mut shares = Vec::new();
    for (index, weight) in (0u32..).zip(weights) {
        let reduced = u64::from(*weight) / divisor;
        let weight = match reduced {
            0 => continue,
            _ if sum <= limit => reduced,
            _ => ((reduced * limit + sum / 2) / sum).max(1),
        };
        shares.push(Share {
            index,
            weight: weight as i64,
            behind: 0,
        });
    }
    shares
}

/// Greatest common divisor; of 0 and a number: that number.
pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Of those who are due, the one who would be too late first. Someone is always due: together they are behind by
/// one turn, and not all of `n` can be behind by less than 1/(2n − 2).
fn next(shares: &mut [Share], round: i64) -> Option<u32> {
    let grain = 2 * shares.len() as i64 - 2;
    let slack = |s: &Share| round * (grain - 1) - grain * s.behind;
    let mut best: Option<usize> = None;
    for i in 0..shares.len() {
        let share = shares.get_mut(i)?;
        share.behind += share.weight;
        if grain * share.behind < round {
            continue;
        }
        let share = shares.get(i)?;
        let sooner = match best.and_then(|b| shares.get(b)) {
            None => true,
            // slack / weight, compared without dividing; the same: whoever is further behind.
            Some(held) => {
                let (mine, theirs) = (slack(share) * held.weight, slack(held) * share.weight);
                mine < theirs || (mine == theirs && share.behind > held.behind)
            }
        };
        if sooner {
            best = Some(i);
        }
    }
    let chosen = shares.get_mut(best?)?;
    chosen.behind -= round;
    Some(chosen.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(weights: &[u32]) -> String {
        let schedule = Schedule::new(weights);
        let letter = |turn| char::from(b'a' + schedule.at(turn).unwrap() as u8);
        (0..schedule.len() as u64).map(letter).collect()
    }

    #[test]
    fn turns_are_interleaved() {
        assert_eq!(letters(&[5, 1, 1]), "aabacaa");
        assert_eq!(letters(&[100, 100, 100]), "abc");
        assert_eq!(letters(&[200, 100]), "aba");
        assert_eq!(letters(&[300, 0, 300]), "ac");
        assert_eq!(letters(&[0, 7]), "b");
    }

    #[test]
    fn nobody_has_a_turn_where_all_weights_are_zero() {
        assert_eq!(Schedule::new(&[]).at(3), None);
        assert_eq!(Schedule::new(&[0, 0]).at(3), None);
    }

    /// Weights without a common divisor whose sum is beyond the limit: the table stays bounded, the lightest keeps
    /// a turn, and shares are off by at most half a turn.
    #[test]
    fn a_long_round_is_rounded() {
        let weights = [100_000, 99_999, 77_777, 1];
        let schedule = Schedule::new(&weights);
        let sum: u32 = weights.iter().sum();
        assert!(schedule.len() <= MAX_TURNS + weights.len());
        assert_eq!(schedule.turns_of(3), 1);
        for (index, weight) in weights.iter().enumerate().take(3) {
            let ideal = f64::from(*weight) / f64::from(sum) * MAX_TURNS as f64;
            let got = schedule.turns_of(index) as f64;
            assert!((got - ideal).abs() <= 0.5, "{index}: {got} of {ideal}");
        }
    }
}
