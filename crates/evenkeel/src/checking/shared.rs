//! What the orchestrators share out: the checks of all that stands in the store.
//!
//! It is taken from what the store *says*, not from what this node serves: each orchestrator is relied on for its
//! share, also for load balancers that its own file hides from it, and in revisions that it cannot serve. Members that
//! registered themselves are in it: all nodes know them. So are those that
//! this node found by a name of the DNS, because the others ask for the same name. Those that stand in a file of one
//! node are not, because the others need not know them; nor are those in maintenance.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::Desired;
use model::config::{HealthCheck, LoadBalancer, Name, Pool};
use model::state::{BackendId, Mode, Override, OverrideKey, Overrides, PoolKey, Source};
use reconcile::cluster::roster::{Wanted, Wish};
use tokio::sync::watch;

use crate::roll::Registered;

/// Longest sleep until an order ends, so that a wall clock that was set is noticed.
const MAX_NAP: Duration = Duration::from_secs(10);

/// Where is told what the orchestrators share out, and of which pools one may not know all members.
type Told = (
    watch::Sender<Option<Arc<Wanted>>>,
    watch::Sender<Arc<BTreeSet<PoolKey>>>,
);

/// Keeps `shared` up to date, and in `named` the pools whose members are looked up by a name, until nobody tells of the store, of the orders or of members any more.
pub(super) async fn follow(
    mut stored: watch::Receiver<Option<Arc<Desired>>>,
    mut orders: watch::Receiver<Overrides>,
    (mut registered, mut by_name): (watch::Receiver<Arc<Registered>>, watch::Receiver<Arc<Wanted>>),
    (shared, named): Told,
) {
    let mut known = Known::default();
    loop {
        let desired = stored.borrow_and_update().clone();
        let mut overrides = orders.borrow_and_update().clone();
        // An order whose time is over stays in the store for a while.
        let now = crate::now();
        let in_force = |order: &Override| order.expires.is_none_or(|at| at > now);
        overrides.backends.retain(|_, order| in_force(order));
        let next = overrides.backends.iter().filter_map(|(_, order)| order.expires);
        let next = next.min().map(|at| at.since(now).min(MAX_NAP));
        let members = registered.borrow_and_update().clone();
        let by_name_now = by_name.borrow_and_update().clone();
        if let Some(desired) = desired {
            known.are(&desired);
            let mut all = known.checks(&overrides, &members);
            for (backend, wish) in by_name_now.iter() {
                all.entry(backend.clone()).or_insert_with(|| wish.clone());
            }
            super::replace(&named, Arc::new(known.named()));
            super::replace(&shared, Some(Arc::new(all)));
        }
        let changed = tokio::select! {
            changed = stored.changed() => changed,
            changed = orders.changed() => changed,
            changed = registered.changed() => changed,
            changed = by_name.changed() => changed,
            () = tokio::time::sleep(next.unwrap_or(MAX_NAP)), if next.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The checks of each load balancer, made anew only for those that changed.
#[derive(Debug, Default)]
struct Known(BTreeMap<Name, OfOne>);

#[derive(Debug)]
struct OfOne {
    balancer: Arc<LoadBalancer>,
    checks: Vec<(BackendId, Arc<HealthCheck>)>,
    /// Pools whose members register themselves.
    registering: Vec<(PoolKey, Arc<HealthCheck>)>,
}

impl Known {
    fn are(&mut self, desired: &Desired) {
        let mut before = std::mem::take(&mut self.0);
        let of_one = |(name, balancer): (&Name, &Arc<LoadBalancer>)| {
            let same = before
                .remove(name)
                .filter(|one| Arc::ptr_eq(&one.balancer, balancer));
            (name.clone(), same.unwrap_or_else(|| OfOne::of(name, balancer)))
        };
        self.0 = desired.load_balancers.iter().map(of_one).collect();
    }

    fn named(&self) -> BTreeSet<PoolKey> {
        let pools = self.0.iter().flat_map(|(name, one)| {
            let named = |pool: &&Arc<Pool>| pool.membership.asks(Source::Dns);
            let pools = one.balancer.pools.values().filter(named);
            pools.map(|pool| (name.clone(), pool.name.clone()))
        });
        pools.collect()
    }

    fn checks(&self, overrides: &Overrides, members: &Registered) -> Wanted {
        let in_maintenance = |backend: &BackendId| {
            let key = OverrideKey {
                load_balancer: backend.load_balancer.clone(),
                address: backend.address,
            };
            let order = overrides.backends.get(&key);
            order.is_some_and(|order| order.mode == Mode::Maintenance)
        };
        let declared = self.0.values().flat_map(|one| &one.checks);
        let declared = declared.map(|(backend, check)| (backend.clone(), Wish::uncounted(check.clone())));
        let pools = self.0.values().flat_map(|one| &one.registering);
        let registered = pools.flat_map(|(key, check)| {
            let members = members.get(key).into_iter().flatten();
            members.map(|(address, life)| {
                let (check, life) = (check.clone(), *life);
                (backend(key, *address), Wish { check, life })
            })
        });
        // Who is declared and registers as well is declared.
        registered
            .chain(declared)
            .filter(|(backend, _)| !in_maintenance(backend))
            .collect()
    }
}

impl OfOne {
    fn of(name: &Name, balancer: &Arc<LoadBalancer>) -> Self {
        let (mut checks, mut registering) = (Vec::new(), Vec::new());
        for pool in balancer.pools.values() {
            let Some(check) = &pool.health else {
                continue;
            };
            let check = Arc::new(check.clone());
            let key = (name.clone(), pool.name.clone());
            let declared = pool.backends.iter();
            checks.extend(declared.map(|one| (backend(&key, one.address), check.clone())));
            if pool.membership.registration.is_some() {
                registering.push((key, check));
            }
        }
        Self {
            balancer: balancer.clone(),
            checks,
            registering,
        }
    }
}

fn backend((load_balancer, pool): &PoolKey, address: SocketAddr) -> BackendId {
    BackendId {
        load_balancer: load_balancer.clone(),
        pool: pool.clone(),
        address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::hub::fixture::{config, id, key};
    use model::state::Timestamp;

    fn desired(ports: &[u16]) -> Desired {
        Desired {
            revision: 1,
            load_balancers: config(ports).load_balancers.clone(),
        }
    }

    fn ports(wanted: &Wanted) -> Vec<u16> {
        wanted.keys().map(|backend| backend.address.port()).collect()
    }

    /// Scenario: a backend of the store goes into maintenance and comes back, another is declared. What did not change
    /// keeps its check.
    #[test]
    fn what_stands_in_the_store_is_shared_out_but_for_maintenance() {
        let mut known = Known::default();
        let mut overrides = Overrides::default();
        let two = desired(&[1, 2]);
        known.are(&two);
        let before = known.checks(&overrides, &Registered::default());
        assert_eq!(ports(&before), [1, 2]);
        let order = Override {
            mode: Mode::Maintenance,
            weight: None,
            by: "eva".into(),
            since: Timestamp(0),
            expires: None,
        };
        overrides.backends.insert(key(2), order.clone());
        assert_eq!(ports(&known.checks(&overrides, &Registered::default())), [1]);
        overrides.backends.insert(
            key(2),
            Override {
                mode: Mode::Drain,
                ..order
            },
        );
        known.are(&two);
        let after = known.checks(&overrides, &Registered::default());
        assert_eq!(ports(&after), [1, 2]);
        assert!(Arc::ptr_eq(&before[&id(1)].check, &after[&id(1)].check));
        known.are(&desired(&[1, 2, 3]));
        assert_eq!(
            ports(&known.checks(&overrides, &Registered::default())),
            [1, 2, 3]
        );
        known.are(&Desired::default());
        assert!(known.checks(&overrides, &Registered::default()).is_empty());
    }

    /// Scenario: an instance registers in a pool of the store that takes registrations, and another where none are
    /// taken: the first is checked by whoever has its slot.
    #[test]
    fn who_registers_is_shared_out_where_the_pool_takes_it() {
        let text = "[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:1\"]\n\
                    registration = { token_hash = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }\n";
        let config = model::parse::parse_toml(text, "test.toml").unwrap();
        let mut known = Known::default();
        known.are(&Desired {
            revision: 1,
            load_balancers: config.load_balancers.clone(),
        });
        let here = (id(1).load_balancer, id(1).pool);
        let elsewhere = (here.0.clone(), Name::parse("other").unwrap());
        let registered = Registered::from([
            (here, [(id(1).address, 1), (id(2).address, 2)].into()),
            (elsewhere, [(id(3).address, 3)].into()),
        ]);
        let checks = known.checks(&Overrides::default(), &registered);
        assert_eq!(ports(&checks), [1, 2]);
        assert!(Arc::ptr_eq(&checks[&id(1)].check, &checks[&id(2)].check));
        let lives: Vec<u64> = checks.values().map(|wish| wish.life).collect();
        assert_eq!(lives, [0, 2], "who is declared and registers is declared");
    }

    /// Scenario: two load balancers of the store, and one of them has a name of the DNS.
    #[test]
    fn pools_with_a_name_are_told() {
        let text = "[load_balancers.shop]\nlisten = \"127.0.0.1:8081\"\nbackend_servers = [\"10.0.0.1:1\"]\n\
                    [load_balancers.blog]\nlisten = \"127.0.0.1:8082\"\ndiscovery = { dns = { name = \"blog.test\", port = 2 } }\n";
        let config = model::parse::parse_toml(text, "test.toml").unwrap();
        let mut known = Known::default();
        known.are(&Desired {
            revision: 1,
            load_balancers: config.load_balancers.clone(),
        });
        let blog = (Name::parse("blog").unwrap(), Name::parse("default").unwrap());
        assert_eq!(known.named(), [blog].into());
    }

    /// Scenario: a backend is in maintenance for a moment. When that is over it is checked again, though its order still
    /// stands in the store and nobody tells anything new.
    #[tokio::test]
    async fn maintenance_ends_with_its_time_and_not_with_its_key() {
        let mut overrides = Overrides::default();
        let order = Override {
            mode: Mode::Maintenance,
            weight: None,
            by: "eva".into(),
            since: Timestamp(0),
            expires: Some(crate::now().plus(Duration::from_millis(200))),
        };
        overrides.backends.insert(key(2), order);
        let (_stored, stored) = watch::channel(Some(Arc::new(desired(&[1, 2]))));
        let (_orders, orders) = watch::channel(overrides);
        let (_registered, registered) = watch::channel(Arc::<Registered>::default());
        let (shared, mut wanted) = watch::channel(None);
        let (named, _) = watch::channel(Arc::default());
        let (_by_name, by_name) = watch::channel(Arc::default());
        let work = tokio::spawn(follow(stored, orders, (registered, by_name), (shared, named)));
        let both = wanted.wait_for(|wanted| wanted.as_ref().is_some_and(|wanted| ports(wanted) == [1, 2]));
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap()
            .unwrap();
        work.abort();
    }
}
