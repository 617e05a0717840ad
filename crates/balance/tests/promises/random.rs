//! `random`: a fair draw by weight.

use balance::Rng;
use model::config::Algorithm;

use crate::support::{assert_drawn_by_weight, balancer, counts};

/// Pools of many shapes, a hundred thousand draws each: chi-square against the weights.
#[test]
fn draws_are_by_weight() {
    let pools: [&[u32]; 7] = [
        &[100],
        &[100, 100, 100],
        &[100, 200, 300, 400],
        &[1_000, 100, 100],
        &[0, 100, 0, 300],
        &[10, 100_000, 5_000],
        &[70; 40],
    ];
    for (seed, weights) in pools.into_iter().enumerate() {
        let balancer = balancer(Algorithm::Random, weights);
        let mut rng = Rng::new(seed as u64);
        let picks: Vec<usize> = (0..100_000)
            .map(|_| balancer.pick(0, &[], 0, &mut rng).unwrap())
            .collect();
        assert_drawn_by_weight(&counts(&picks, weights.len()), weights, "random");
    }
}

/// With the heaviest out of the question, the rest is still drawn by weight.
#[test]
fn what_cannot_be_taken_leaves_the_rest_by_weight() {
    let weights = [100_000, 100, 200, 300];
    let balancer = balancer(Algorithm::Random, &weights);
    let mut rng = Rng::new(7);
    let picks: Vec<usize> = (0..100_000)
        .map(|_| balancer.pick(0, &[0], 0, &mut rng).unwrap())
        .collect();
    assert_drawn_by_weight(
        &counts(&picks, 4),
        &[0, 100, 200, 300],
        "random without the heaviest",
    );
}
