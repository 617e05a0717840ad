//! `least_connections` and `power_of_two`: load by weight in flight.

use balance::{Balancer, Rng};
use model::config::Algorithm;
use proptest::prelude::*;

use crate::support::{assert_drawn_by_weight, balancer, counts};

fn load_up(balancer: &Balancer, in_flight: &[u32]) {
    for (index, count) in in_flight.iter().enumerate() {
        (0..*count).for_each(|_| balancer.load(index).begin());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]

    /// Whoever is picked: nobody else has fewer in flight per weight.
    #[test]
    fn least_connections_never_picks_a_more_loaded_one(
        members in prop::collection::vec((1u32..=1000, 0u32..200), 1..12),
        seed in any::<u64>(),
    ) {
        let weights: Vec<u32> = members.iter().map(|m| m.0).collect();
        let in_flight: Vec<u32> = members.iter().map(|m| m.1).collect();
        let balancer = balancer(Algorithm::LeastConnections, &weights);
        load_up(&balancer, &in_flight);
        let pick = balancer.pick(0, &[], 0, &mut Rng::new(seed)).unwrap();
        for (weight, load) in &members {
            prop_assert!(in_flight[pick] * weight <= load * weights[pick]);
        }
    }

    /// The same of the pair that was drawn: with two members the pair is the pool.
    #[test]
    fn power_of_two_takes_the_less_loaded_of_a_pair(
        weights in prop::array::uniform2(1u32..=1000),
        in_flight in prop::array::uniform2(0u32..200),
        seed in any::<u64>(),
    ) {
        let balancer = balancer(Algorithm::PowerOfTwo, &weights);
        load_up(&balancer, &in_flight);
        let pick = balancer.pick(0, &[], 0, &mut Rng::new(seed)).unwrap();
        prop_assert!(in_flight[pick] * weights[1 - pick] <= in_flight[1 - pick] * weights[pick]);
    }
}

/// Nobody is busy: a quiet pool is shared by weight, and the first of the list is not the favourite.
#[test]
fn equals_share_by_weight() {
    let weights = [100, 300, 200, 100];
    for algorithm in [Algorithm::LeastConnections, Algorithm::PowerOfTwo] {
        let name = algorithm.as_str();
        let balancer = balancer(algorithm, &weights);
        let mut rng = Rng::new(3);
        let picks: Vec<usize> = (0..50_000)
            .map(|_| balancer.pick(0, &[], 0, &mut rng).unwrap())
            .collect();
        let counts = counts(&picks, 4);
        assert_drawn_by_weight(&counts, &weights, name);
    }
}

/// Requests that never end pile up exactly by weight.
#[test]
fn least_connections_fills_by_weight_exactly() {
    let balancer = balancer(Algorithm::LeastConnections, &[100, 200, 300]);
    let mut rng = Rng::new(5);
    for _ in 0..600 {
        let pick = balancer.pick(0, &[], 0, &mut rng).unwrap();
        balancer.load(pick).begin();
    }
    let held = [0, 1, 2].map(|i| balancer.load(i).in_flight());
    assert_eq!(held, [100, 200, 300]);
}

/// A hundred members, ten thousand requests that never end (mean 100 each): the fullest member of `power_of_two`
/// is at most 3 above the mean, that of `random` at least 15 above.
#[test]
fn power_of_two_is_far_more_even_than_random() {
    let greatest = |algorithm| {
        let balancer = balancer(algorithm, &[100; 100]);
        let mut rng = Rng::new(11);
        for _ in 0..10_000 {
            let pick = balancer.pick(0, &[], 0, &mut rng).unwrap();
            balancer.load(pick).begin();
        }
        (0..100).map(|i| balancer.load(i).in_flight()).max().unwrap()
    };
    let (two, random) = (greatest(Algorithm::PowerOfTwo), greatest(Algorithm::Random));
    assert!(two <= 103, "power_of_two: {two}");
    assert!(random >= 115, "random: {random}");
}

/// Four threads begin and end requests at once: counts come back to zero, whatever the interleaving.
#[test]
fn counts_are_exact_over_threads() {
    let balancer = balancer(Algorithm::LeastConnections, &[100, 100]);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let balancer = &balancer;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                for _ in 0..5_000 {
                    let pick = balancer.pick(0, &[], 0, &mut rng).unwrap();
                    balancer.load(pick).begin();
                    balancer.load(pick).end();
                }
            });
        }
    });
    assert_eq!(
        [balancer.load(0).in_flight(), balancer.load(1).in_flight()],
        [0, 0]
    );
}
