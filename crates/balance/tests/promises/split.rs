//! Splits: shares are as weighed, a key stays, and a change of weights moves the least.

use balance::{Rng, Split, hash};

const KEYS: u64 = 100_000;

fn split(weights: &[(&'static str, u32)]) -> Split {
    Split::new(weights.iter().copied())
}

fn key(i: u64) -> u64 {
    hash(format!("user-{i}").as_bytes())
}

/// Far beyond what chance allows: six standard deviations of the share.
fn near(count: u64, share: f64) -> bool {
    let deviation = (KEYS as f64 * share * (1.0 - share)).sqrt();
    (count as f64 - KEYS as f64 * share).abs() <= 6.0 * deviation
}

#[test]
fn shares_are_as_weighed_at_random_and_by_key() {
    let split = split(&[("blue", 90), ("green", 9), ("red", 1), ("none", 0)]);
    let mut rng = Rng::new(7);
    let (mut random, mut keyed) = ([0_u64; 4], [0_u64; 4]);
    for i in 0..KEYS {
        random[split.random(&mut rng).unwrap()] += 1;
        keyed[split.of_key(key(i)).unwrap()] += 1;
    }
    for counts in [random, keyed] {
        for (count, share) in counts.into_iter().zip([0.9, 0.09, 0.01, 0.0]) {
            assert!(near(count, share), "{counts:?}");
        }
    }
}

/// From 95/5 to 80/20: exactly those move that must, and all of them to the pool that grew.
#[test]
fn a_change_of_weights_moves_the_least() {
    let before = split(&[("blue", 95), ("green", 5)]);
    let after = split(&[("blue", 80), ("green", 20)]);
    let mut moved = 0;
    for key in (0..KEYS).map(key) {
        let (was, is) = (before.of_key(key), after.of_key(key));
        assert!(was == is || is == Some(1), "a key left the pool that grew");
        moved += u64::from(was != is);
    }
    assert!(near(moved, 0.15), "{moved}");
}

/// Written in another order, or in other units, the same split.
#[test]
fn order_and_units_move_nothing() {
    let one = split(&[("blue", 95), ("green", 5)]);
    let other = split(&[("green", 50), ("blue", 950)]);
    for key in (0..1000).map(key) {
        assert_eq!(one.of_key(key).map(|i| 1 - i), other.of_key(key));
    }
}

#[test]
fn without_weight_there_is_nothing_to_choose() {
    let none = split(&[("blue", 0), ("green", 0)]);
    assert_eq!((none.random(&mut Rng::new(1)), none.of_key(1)), (None, None));
    let all = split(&[("blue", 0), ("green", 1)]);
    assert!((0..1000).all(|i| all.of_key(key(i)) == Some(1) && all.random(&mut Rng::new(i)) == Some(1)));
}
