//! `round_robin`: exact shares, never far from them at any moment, over all threads together.

use std::sync::Arc;

use balance::{PoolLoad, Rng};
use model::config::Algorithm;
use proptest::prelude::*;

use crate::support::{balancer, counts, rebuilt, state};

fn picks(weights: &[u32], count: usize) -> Vec<usize> {
    let balancer = balancer(Algorithm::RoundRobin, weights);
    let mut rng = Rng::new(1);
    (0..count)
        .map(|_| balancer.pick(0, &[], 0, &mut rng).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    /// Any window as long as the sum of the weights, wherever it starts, holds each member exactly as often as
    /// its weight says.
    #[test]
    fn every_window_of_a_round_is_exact(weights in prop::collection::vec(1u32..=20, 1..10)) {
        let hundredths: Vec<u32> = weights.iter().map(|w| w * 100).collect();
        let round: usize = weights.iter().sum::<u32>() as usize;
        let picks = picks(&hundredths, 3 * round);
        for window in picks.windows(round) {
            let expected: Vec<u64> = weights.iter().map(|w| u64::from(*w)).collect();
            prop_assert_eq!(counts(window, weights.len()), expected);
        }
    }

    /// At every moment since the start of a round each member has had its share to within one turn.
    #[test]
    fn nobody_is_ever_a_whole_turn_from_its_share(weights in prop::collection::vec(1u32..=60, 2..30)) {
        let hundredths: Vec<u32> = weights.iter().map(|w| w * 100).collect();
        let round: u32 = weights.iter().sum();
        let mut had = vec![0.0; weights.len()];
        for (turn, pick) in picks(&hundredths, 2 * round as usize).into_iter().enumerate() {
            had[pick] += 1.0;
            for (had, weight) in had.iter().zip(&weights) {
                let ideal = (turn + 1) as f64 * f64::from(*weight) / f64::from(round);
                prop_assert!((had - ideal).abs() < 1.0, "turn {}: {} of {}", turn, had, ideal);
            }
        }
    }
}

/// The picture of it: a heavy member's turns are spread, not in a row.
#[test]
fn turns_are_interleaved() {
    assert_eq!(picks(&[500, 100, 100], 7), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(picks(&[100, 100, 100], 6), [0, 1, 2, 0, 1, 2]);
}

/// Four threads pick at once, each its own number: together they are exact to a request.
#[test]
fn four_threads_together_are_exact() {
    let weights = [300, 200, 100];
    let balancer = balancer(Algorithm::RoundRobin, &weights);
    let one = |seed| {
        let mut rng = Rng::new(seed);
        let picks: Vec<usize> = (0..3_000)
            .map(|_| balancer.pick(0, &[], 0, &mut rng).unwrap())
            .collect();
        counts(&picks, 3)
    };
    let totals = std::thread::scope(|scope| {
        let threads = [1, 2, 3, 4].map(|seed| scope.spawn(move || one(seed)));
        let each = threads.map(|thread| thread.join().unwrap());
        each.iter().fold(vec![0; 3], |sum, c| {
            sum.iter().zip(c).map(|(a, b)| a + b).collect::<Vec<u64>>()
        })
    });
    assert_eq!(totals, [6_000, 4_000, 2_000]);
}

/// The pool is rebuilt after every pick, as it may be while a health check flaps elsewhere: the first member does
/// not get every request.
#[test]
fn the_turn_survives_a_rebuild() {
    let pool = Arc::new(PoolLoad::new());
    let mut rng = Rng::new(1);
    let mut balancer = balancer(Algorithm::RoundRobin, &[100, 100, 100]);
    let mut picks = Vec::new();
    for _ in 0..300 {
        let state = state(Algorithm::RoundRobin, &[100, 100, 100], None);
        balancer = rebuilt(&balancer, &pool, state);
        picks.push(balancer.pick(0, &[], 0, &mut rng).unwrap());
    }
    assert_eq!(counts(&picks, 3), [100, 100, 100]);
}

/// A member that every request has tried already (or that has just been ejected) leaves its turns to the others by
/// weight, not all to its neighbour: to 2 % of their share, and to 10 % where it held nearly all turns, so that the
/// pick gives up on turns.
#[test]
fn turns_of_an_absent_member_go_to_the_others_by_weight() {
    for (heavy, off) in [(200, 20), (100_000, 100)] {
        let balancer = balancer(Algorithm::RoundRobin, &[heavy, 100, 300]);
        let mut rng = Rng::new(1);
        let picks: Vec<usize> = (0..4_000)
            .map(|_| balancer.pick(0, &[0], 0, &mut rng).unwrap())
            .collect();
        let counts = counts(&picks, 3);
        assert_eq!(counts[0], 0);
        assert!(counts[1].abs_diff(1_000) <= off, "{heavy}: {counts:?}");
    }
}
