//! What a change moves is told before it is made.

use std::sync::Arc;

use balance::moved_share;
use model::config::{Algorithm, HashKey, HashTable};
use model::snapshot::PoolState;

use crate::support::{consistent, state};

fn share(before: &PoolState, after: &PoolState) -> Option<f64> {
    moved_share(&Arc::new(before.clone()), &Arc::new(after.clone()))
}

fn without_the_last(state: &PoolState) -> PoolState {
    let mut fewer = state.clone();
    fewer.members.pop();
    let mut config = (*fewer.config).clone();
    config.backends.pop();
    fewer.config = config.into();
    fewer
}

/// Scenario: one of ten equal backends goes. Its tenth of the keys moves and hardly any other; nothing changes: none.
#[test]
fn a_tenth_moves_with_one_of_ten() {
    for algorithm in [
        Algorithm::IpHash,
        consistent(HashTable::Ring, None),
        consistent(HashTable::Maglev, Some(125)),
    ] {
        let ten = state(algorithm, &[100; 10], None);
        let moved = share(&ten, &without_the_last(&ten)).unwrap();
        assert!((0.07..0.15).contains(&moved), "{moved}");
        assert_eq!(share(&ten, &ten), Some(0.0));
    }
}

#[test]
fn without_hashing_on_both_sides_there_is_no_key() {
    let hashed = state(consistent(HashTable::Ring, None), &[100; 3], None);
    let plain = state(Algorithm::RoundRobin, &[100; 3], None);
    assert_eq!(share(&hashed, &plain), None);
    assert_eq!(share(&plain, &hashed), None);
    assert_eq!(share(&plain, &plain), None);
}

/// Scenario: hashed by path before, by a header after: no key stays what it was.
#[test]
fn another_key_is_not_compared() {
    let by_path = state(consistent(HashTable::Ring, None), &[100; 3], None);
    let mut by_header = by_path.clone();
    let mut config = (*by_header.config).clone();
    let Algorithm::ConsistentHash(settings) = &mut config.algorithm else {
        panic!("it is hashed");
    };
    settings.key = HashKey::Header("x-user".into());
    by_header.config = config.into();
    assert_eq!(share(&by_path, &by_header), None);
}
