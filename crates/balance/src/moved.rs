//! How many keys of hashing a change moves.

use std::sync::Arc;

use model::snapshot::PoolState;

use crate::balancer::Balancer;
use crate::hash::hash;
use crate::pool::PoolLoad;
use crate::rng::Rng;

/// Keys looked at: the share is right to about a hundredth.
const KEYS: u64 = 10_000;

/// The share of keys, 0 to 1, that go to another backend after a change of the pool, with nobody busy. `None`: one of the
/// two does not hash, or they hash different things, so that no key is the same key before and after.
#[must_use]
pub fn moved_share(before: &Arc<PoolState>, after: &Arc<PoolState>) -> Option<f64> {
    let table = |state: &Arc<PoolState>| Balancer::new(state.clone(), Arc::new(PoolLoad::new()), Vec::new());
    let (before, after) = (table(before), table(after));
    before.hash_key()?;
    if before.hash_key() != after.hash_key() {
        return None;
    }
    let owner = |balancer: &Balancer, key: u64| {
        let chosen = balancer.pick(key, &[], 0, &mut Rng::new(key))?;
        balancer
            .state()
            .members
            .get(chosen)
            .map(|member| member.id.address)
    };
    let keys = (0..KEYS).map(|n| hash(&n.to_le_bytes()));
    let moved = keys
        .filter(|key| owner(&before, *key) != owner(&after, *key))
        .count();
    Some(moved as f64 / KEYS as f64)
}
