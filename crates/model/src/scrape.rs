//! Which series a scrape of the metrics has: labels of a hundred thousand backends are more than anybody can store.

use crate::config::Name;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Of this load balancer, and of what belongs to none; without it, of all.
    pub load_balancer: Option<Name>,
    /// Backends that have series of their own, over all pools.
    pub backends: usize,
}

impl Scope {
    /// Whether series of this load balancer are asked for.
    #[must_use]
    pub fn has(&self, load_balancer: &Name) -> bool {
        self.load_balancer
            .as_ref()
            .is_none_or(|wanted| wanted == load_balancer)
    }

    /// The room for backends, to be dealt out to the pools in the order of their names.
    #[must_use]
    pub fn room(&self) -> Room {
        Room(self.backends)
    }
}

/// How many backends may still have series of their own.
#[derive(Clone, Copy, Debug)]
pub struct Room(usize);

impl Room {
    /// Whether the backends of a pool have series of their own: all of them or none, so that sums over a pool are
    /// right. A pool that finds no room takes none.
    pub fn takes(&mut self, backends: usize) -> bool {
        let left = self.0.checked_sub(backends);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Scenario: room for five; pools of three, three, two and one.
    #[test]
    fn a_pool_has_room_for_all_of_its_backends_or_for_none() {
        let scope = Scope {
            load_balancer: None,
            backends: 5,
        };
        let mut room = scope.room();
        assert_eq!(
            [3, 3, 2, 1, 0].map(|pool| room.takes(pool)),
            [true, false, true, false, true]
        );
    }

    #[test]
    fn a_scope_is_of_all_load_balancers_or_of_one() {
        let name = |text| Name::parse(text).unwrap();
        let of = |load_balancer| Scope {
            load_balancer,
            backends: 1,
        };
        assert!(of(None).has(&name("shop")));
        assert!(of(Some(name("shop"))).has(&name("shop")));
        assert!(!of(Some(name("shop"))).has(&name("blog")));
    }
}
