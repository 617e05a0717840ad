//! What every algorithm promises: who is passed over, and that weights in effect are obeyed.

use std::sync::Arc;

use balance::{Balancer, Outcome, Rng};
use model::config::Passive;
use model::snapshot::Eligibility;

use crate::support::{SECOND, all_algorithms, balancer, balancer_of, counts, state};

fn eject(balancer: &Balancer, index: usize, now: u64) -> bool {
    let failure = Outcome::Failure {
        what: "connection refused",
    };
    (0..5).any(|_| balancer.record(index, failure, now).is_some())
}

/// Requests begin and end around each pick; keys vary.
fn picks(balancer: &Balancer, tried: &[usize], now: u64, count: u64) -> Vec<usize> {
    let mut rng = Rng::new(42);
    (0..count)
        .filter_map(|i| balancer.pick(balance::hash(&i.to_le_bytes()), tried, now, &mut rng))
        .collect()
}

#[test]
fn weight_zero_and_tried_ones_are_passed_over() {
    for algorithm in all_algorithms() {
        let balancer = balancer(algorithm.clone(), &[100, 0, 200, 100]);
        let counts = counts(&picks(&balancer, &[2], 0, 2_000), 4);
        assert_eq!((counts[1], counts[2]), (0, 0), "{algorithm:?}");
        assert!(counts[0] > 600 && counts[3] > 600, "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn nobody_left_is_none() {
    for algorithm in all_algorithms() {
        let some = balancer(algorithm.clone(), &[100, 100]);
        assert!(picks(&some, &[0, 1], 0, 10).is_empty(), "{algorithm:?}");
        let down = balancer(algorithm.clone(), &[0, 0]);
        assert!(picks(&down, &[], 0, 10).is_empty(), "{algorithm:?}");
        let empty = balancer(algorithm.clone(), &[]);
        assert!(picks(&empty, &[], 0, 10).is_empty(), "{algorithm:?}");
    }
}

/// The table was made before the ejection: it counts all the same, from the very next pick, and until it ends.
#[test]
fn an_ejected_member_is_passed_over_at_once_and_until_it_ends() {
    for algorithm in all_algorithms() {
        let balancer = balancer(algorithm.clone(), &[100, 100, 100]);
        assert!(eject(&balancer, 1, SECOND));
        let during = counts(&picks(&balancer, &[], SECOND, 3_000), 3);
        assert_eq!(during[1], 0, "{algorithm:?}");
        assert!(during[0] > 600 && during[2] > 600, "{algorithm:?}: {during:?}");
        let after = counts(&picks(&balancer, &[], 45 * SECOND, 3_000), 3);
        assert!(after[1] > 600, "{algorithm:?}: {after:?}");
    }
}

/// All that have a weight are ejected (the last one lost its company to a health check): they are taken anyhow.
#[test]
fn where_all_are_ejected_they_are_taken_anyhow() {
    for algorithm in all_algorithms() {
        let before = balancer(algorithm.clone(), &[100, 100, 100]);
        assert!(eject(&before, 0, SECOND));
        let down = state(algorithm.clone(), &[100, 0, 0], Some(Passive::default()));
        let loads = (0..3).map(|i| before.load(i).clone()).collect();
        let after = Balancer::new(Arc::new(down), Arc::default(), loads);
        assert_eq!(
            counts(&picks(&after, &[], SECOND, 100), 3),
            [100, 0, 0],
            "{algorithm:?}"
        );
        assert!(picks(&after, &[0], SECOND, 100).is_empty(), "{algorithm:?}");
    }
}

/// A pool that fails open uses those that were ejected before, and still learns: one ejected meanwhile is out.
#[test]
fn failing_open_forgives_old_ejections_only() {
    for algorithm in all_algorithms() {
        let before = balancer(algorithm.clone(), &[100; 4]);
        assert!(eject(&before, 0, SECOND));
        assert!(picks(&before, &[1, 2, 3], SECOND, 10).is_empty(), "{algorithm:?}");

        let mut open = state(algorithm.clone(), &[100; 4], Some(Passive::default()));
        open.all_down = true;
        for member in &mut open.members {
            member.eligibility = Eligibility::FailOpen;
        }
        let loads = (0..4).map(|i| before.load(i).clone()).collect();
        let after = Balancer::new(Arc::new(open), Arc::default(), loads);
        assert_eq!(picks(&after, &[1, 2, 3], SECOND, 10), [0; 10], "{algorithm:?}");
        assert!(eject(&after, 2, SECOND));
        assert!(picks(&after, &[0, 1, 3], SECOND, 10).is_empty(), "{algorithm:?}");
    }
}

/// A member in its slow start at a fifth of its weight, beside three at their full one, on a quiet pool: whatever the
/// algorithm, it gets 4.5 % to 8.5 % of the requests (its share by weight is 1 of 16, 6.25 %).
#[test]
fn slow_start_is_obeyed() {
    for algorithm in all_algorithms() {
        let balancer = balancer_of(state(algorithm.clone(), &[500, 500, 500, 100], None));
        let counts = counts(&picks(&balancer, &[], 0, 20_000), 4);
        let share = counts[3] as f64 / 20_000.0;
        assert!((0.045..0.085).contains(&share), "{algorithm:?}: {share}");
    }
}

/// The balancer is shared between threads as it is.
#[test]
fn it_is_send_and_sync() {
    fn shared<T: Send + Sync>() {}
    shared::<Balancer>();
}
