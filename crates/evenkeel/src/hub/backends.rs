//! Which backends there are, and which of them are checked: made anew for what a change touched, and for nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{HealthCheck, LoadBalancer, Name, Pool};
use model::snapshot::PoolState;
use model::state::{BackendId, Life, Members, Mode, Target};

/// What of a pool is checked, and the state of the pool from which that follows.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) pool: Arc<PoolState>,
    pub(super) check: Arc<HealthCheck>,
    /// Each with the number of its membership; 0 where nobody counts.
    pub(super) addresses: BTreeMap<SocketAddr, u64>,
}

/// The backends of a load balancer.
pub(super) struct Known {
    /// By pool, with whether it has a check.
    pools: BTreeMap<Name, (bool, BTreeSet<SocketAddr>)>,
}

impl Known {
    /// Those that are declared, and those that were found.
    pub(super) fn of(lb: Option<&LoadBalancer>, found: &Members) -> Self {
        let addresses = |lb: &LoadBalancer, pool: &Pool| {
            let found = found.get(&(lb.name.clone(), pool.name.clone()));
            let found = found.into_iter().flat_map(|found| found.addresses());
            pool.backends.iter().map(|b| b.address).chain(found).collect()
        };
        let of_pool = |lb, pool: &Pool| (pool.name.clone(), (pool.health.is_some(), addresses(lb, pool)));
        let pools = lb
            .into_iter()
            .flat_map(|lb| lb.pools.values().map(move |pool| (lb, pool)));
        Self {
            pools: pools.map(|(lb, pool)| of_pool(lb, pool)).collect(),
        }
    }

    pub(super) fn has(&self, id: &BackendId) -> bool {
        let pool = self.pools.get(&id.pool);
        pool.is_some_and(|(_, addresses)| addresses.contains(&id.address))
    }

    pub(super) fn is_checked(&self, id: &BackendId) -> bool {
        self.has(id) && self.pools.get(&id.pool).is_some_and(|(check, _)| *check)
    }

    pub(super) fn has_anywhere(&self, address: SocketAddr) -> bool {
        self.pools
            .values()
            .any(|(_, addresses)| addresses.contains(&address))
    }
}

impl Probed {
    /// What is checked of a pool; nothing without a check. The same check as before is shared.
    pub(super) fn of(pool: &Arc<PoolState>, before: Option<&Self>) -> Option<Self> {
        let check = pool.config.health.as_ref()?;
        let same = before.filter(|before| *before.check == *check);
        let members = pool.members.iter().filter(|m| m.mode() != Mode::Maintenance);
        Some(Self {
            pool: pool.clone(),
            check: same.map_or_else(|| Arc::new(check.clone()), |before| before.check.clone()),
            addresses: members.map(|m| (m.id.address, m.life())).collect(),
        })
    }

    /// Whether the same is checked.
    pub(super) fn agree(a: Option<&Arc<Self>>, b: Option<&Arc<Self>>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || (a.check == b.check && a.addresses == b.addresses),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// A member that left and came back is checked anew, though it never left the list.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> {
        self.addresses.iter().map(|(address, life)| {
            let id = BackendId {
                load_balancer: self.pool.load_balancer.clone(),
                pool: self.pool.config.name.clone(),
                address: *address,
            };
            Target {
                life: Life::of_member(*life),
                ..Target::new(id, self.check.clone())
            }
        })
    }
}
