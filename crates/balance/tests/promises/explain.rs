//! `explain`: the same choice as the pick's, in words, and nothing changed by asking.

use std::sync::Arc;

use balance::{Balancer, Outcome, Rng};
use model::config::{Algorithm, HashTable, Passive};
use model::snapshot::Eligibility;
use model::state::{Mode, Override, Timestamp};

use crate::support::{SECOND, address, all_algorithms, balancer, consistent, state};

/// Asking any number of times takes no turn; the answer is what the next pick gives with the same randomness.
#[test]
fn it_tells_the_next_pick_and_takes_nothing() {
    for algorithm in all_algorithms() {
        let balancer = balancer(algorithm.clone(), &[300, 100, 200]);
        let mut rng = Rng::new(8);
        for key in 0..200 {
            let key = balance::hash(&[key]);
            let (_, chosen) = balancer.explain(key, SECOND, &mut rng.clone());
            let (_, again) = balancer.explain(key, SECOND, &mut rng.clone());
            assert_eq!(chosen, again);
            let pick = balancer.pick(key, &[], SECOND, &mut rng).unwrap();
            assert_eq!(chosen.unwrap().address, address(pick), "{algorithm:?}");
            balancer.load(pick).begin();
        }
    }
}

#[test]
fn it_says_why_each_member_could_be_taken_or_not() {
    let mut pool = state(
        Algorithm::RoundRobin,
        &[100, 0, 0, 0, 250],
        Some(Passive::default()),
    );
    let order = |mode, weight| Override {
        mode,
        weight,
        by: "alice".into(),
        since: Timestamp(0),
        expires: None,
    };
    pool.members[2].order = Some(order(Mode::Drain, None));
    pool.members[2].eligibility = Eligibility::Draining;
    pool.members[3].order = Some(order(Mode::Ready, Some(0)));
    pool.members[3].eligibility = Eligibility::ZeroWeight;
    pool.members[4].ramp_since = Some(Timestamp(5));
    let loads = (0..5).map(|_| Arc::default()).collect();
    let balancer = Balancer::new(pool.into(), Arc::default(), loads);
    let (candidates, chosen) = balancer.explain(0, SECOND, &mut Rng::new(1));
    let whys: Vec<&str> = candidates.iter().map(|c| c.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "up: status 200",
            "down: connection refused",
            "drain by alice",
            "weight 0 by alice",
            "up: status 200, in slow start",
        ]
    );
    let eligible: Vec<bool> = candidates.iter().map(|c| c.eligible).collect();
    assert_eq!(eligible, [true, false, false, false, true]);
    assert_eq!(candidates[4].weight, 2.5);
    assert_eq!(candidates[4].score, "5 of 7 turns");
    assert_eq!(chosen.unwrap().why, "the next turn is its");
}

#[test]
fn it_tells_of_an_ejection_that_the_snapshot_does_not_know_yet() {
    let balancer = balancer(consistent(HashTable::Ring, None), &[100, 100, 100]);
    let key = (0..)
        .find(|k| balancer.pick(*k, &[], SECOND, &mut Rng::new(1)) == Some(1))
        .unwrap();
    for _ in 0..5 {
        let _ = balancer.record(1, Outcome::Failure { what: "reset" }, SECOND);
    }
    let (candidates, chosen) = balancer.explain(key, 4 * SECOND, &mut Rng::new(1));
    assert!(!candidates[1].eligible);
    assert_eq!(candidates[1].why, "ejected for another 7s: just now");
    let why = chosen.unwrap().why;
    assert!(
        why.starts_with("the ring gives this path to 10.0.0.2:9000, which cannot take it"),
        "{why}"
    );
}

#[test]
fn it_says_where_chance_decides() {
    for (algorithm, words) in [
        (
            Algorithm::Random,
            "drawn at random by weight; the next draw may differ",
        ),
        (
            Algorithm::PowerOfTwo,
            "fewer in flight per weight of two drawn at random",
        ),
        (Algorithm::PeakEwma, "the lower cost of two drawn at random"),
        (
            Algorithm::LeastConnections,
            "drawn by weight among 2 with the fewest in flight per weight (0.00)",
        ),
        (Algorithm::IpHash, "the greatest hash score for this address"),
    ] {
        let (_, chosen) = balancer(algorithm, &[100, 100]).explain(1, SECOND, &mut Rng::new(1));
        let why = chosen.unwrap().why;
        assert!(why.starts_with(words), "{why}");
    }
}

#[test]
fn a_pool_with_nobody_left_explains_that_too() {
    let (candidates, chosen) = balancer(Algorithm::Random, &[0, 0]).explain(1, 0, &mut Rng::new(1));
    assert_eq!(candidates.len(), 2);
    assert_eq!(chosen, None);
}
