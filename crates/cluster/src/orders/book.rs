//! The orders known to a node, from two sides: what it follows of the store, and what it has just given itself.
//!
//! Both come in any order: an own order may be seen in the store before its answer is here, or long after. Revisions
//! say which is newer, and while an own order is on its way, what is seen of the same key waits for its answer, so
//! that the operator who gave it is the one it is told of.

use std::collections::BTreeMap;

use model::state::{Override, Overrides, RouteOrder, Timestamp};

use super::{Given, OrderKey, Seen};

/// An order that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InForce {
    /// Of a backend.
    Backend(Override),
    /// Of a route.
    Route(RouteOrder),
}

impl InForce {
    /// Whether its time is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let expires = match self {
            Self::Backend(order) => order.expires,
            Self::Route(order) => order.expires,
        };
        expires.is_some_and(|at| at <= now)
    }

    pub(super) fn json(&self) -> Vec<u8> {
        let json = match self {
            Self::Backend(order) => serde_json::to_vec(order),
            Self::Route(order) => serde_json::to_vec(order),
        };
        // Words and numbers: it cannot fail.
        json.unwrap_or_default()
    }
}

/// The orders known to a node.
#[derive(Clone, Debug, Default)]
pub struct Book {
    overrides: Overrides,
    /// Seen up to here.
    seen: u64,
    /// Own orders that are further than what was seen.
    ahead: BTreeMap<OrderKey, u64>,
    /// Own orders on their way, and what was seen of the same keys since.
    given: BTreeMap<OrderKey, OnTheWay>,
}

#[derive(Clone, Debug, Default)]
struct OnTheWay {
    count: usize,
    seen: Option<(u64, Option<InForce>)>,
}

impl Book {
    /// With what was known before anything was seen: from a disk.
    #[must_use]
    pub fn of(overrides: Overrides) -> Self {
        Self {
            overrides,
            ..Self::default()
        }
    }

    /// What stands at `now`.
    #[must_use]
    pub fn overrides(&self, now: Timestamp) -> Overrides {
        let mut overrides = self.overrides.clone();
        let over = |expires: Option<Timestamp>| expires.is_some_and(|at| at <= now);
        overrides.backends.take_out(|_, order| over(order.expires));
        overrides.routes.take_out(|_, order| over(order.expires));
        overrides
    }

    /// An own order sets out.
    pub fn begin(&mut self, key: &OrderKey) {
        self.given.entry(key.clone()).or_default().count += 1;
    }

    /// What came of an own order; `None`: it was not taken, or nobody knows.
    pub fn end(&mut self, key: &OrderKey, given: Option<Given>) {
        if let Some(Given { revision, order }) = given
            && revision > self.known(key)
        {
            self.ahead.insert(key.clone(), revision);
            self.set(key, order);
        }
        let Some(on_the_way) = self.given.get_mut(key) else {
            return;
        };
        on_the_way.count -= 1;
        if on_the_way.count > 0 {
            return;
        }
        let waited = self.given.remove(key).and_then(|on_the_way| on_the_way.seen);
        if let Some((revision, order)) = waited
            && self.ahead.get(key).is_none_or(|known| *known < revision)
        {
            self.set(key, order);
        }
        let seen = self.seen;
        self.ahead.retain(|_, revision| *revision > seen);
    }

    /// Takes what was seen.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Some(revision, changes) => {
                for (key, order) in changes {
                    match self.given.get_mut(&key) {
                        Some(on_the_way) => on_the_way.seen = Some((revision, order)),
                        None if self.ahead.get(&key).is_none_or(|known| *known < revision) => {
                            self.set(&key, order);
                        }
                        None => {}
                    }
                }
                self.seen = revision;
            }
            Seen::All(revision, orders) => {
                if revision < self.seen {
                    // The store went back.
                    self.ahead.clear();
                }
                let kept = self.ahead.iter().filter(|(_, known)| **known > revision);
                let kept: Vec<_> = kept.map(|(key, _)| (key.clone(), self.get(key))).collect();
                self.overrides = Overrides::default();
                for (key, order) in orders {
                    self.set(&key, Some(order));
                }
                for (key, order) in kept {
                    self.set(&key, order);
                }
                for on_the_way in self.given.values_mut() {
                    on_the_way.seen = None;
                }
                self.seen = revision;
            }
        }
        let (seen, given) = (self.seen, &self.given);
        self.ahead
            .retain(|key, revision| *revision > seen || given.contains_key(key));
    }

    /// The revision up to which a key is known.
    fn known(&self, key: &OrderKey) -> u64 {
        let ahead = self.ahead.get(key).copied().unwrap_or(0);
        // What was seen of it waits, so it is not known yet.
        match self.given.contains_key(key) {
            true => ahead,
            false => ahead.max(self.seen),
        }
    }

    fn get(&self, key: &OrderKey) -> Option<InForce> {
        match key {
            OrderKey::Backend(key) => self.overrides.backends.get(key).cloned().map(InForce::Backend),
            OrderKey::Route(key) => self.overrides.routes.get(key).cloned().map(InForce::Route),
        }
    }

    fn set(&mut self, key: &OrderKey, order: Option<InForce>) {
        match (key, order) {
            (OrderKey::Backend(key), Some(InForce::Backend(order))) => {
                self.overrides.backends.insert(key.clone(), order);
            }
            (OrderKey::Route(key), Some(InForce::Route(order))) => {
                self.overrides.routes.insert(key.clone(), order);
            }
            (OrderKey::Backend(key), _) => _ = self.overrides.backends.remove(key),
            (OrderKey::Route(key), _) => _ = self.overrides.routes.remove(key),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::of_route;
    use super::*;

    fn order(by: &str) -> InForce {
        InForce::Route(RouteOrder {
            weights: BTreeMap::new(),
            by: by.into(),
            since: Timestamp(1),
            expires: None,
        })
    }

    fn given(revision: u64, by: &str) -> Option<Given> {
        let order = Some(order(by));
        Some(Given { revision, order })
    }

    fn who(book: &Book) -> Option<String> {
        let OrderKey::Route(key) = of_route("shop", "canary") else {
            unreachable!();
        };
        let overrides = book.overrides(Timestamp(5));
        overrides.routes.get(&key).map(|order| order.by.clone())
    }

    fn seen(revision: u64, by: Option<&str>) -> Seen {
        Seen::Some(revision, vec![(of_route("shop", "canary"), by.map(order))])
    }

    /// Scenario: the answer to an own order comes before it is seen, and after; and somebody else's, older and newer.
    #[test]
    fn what_is_newer_stands_in_whatever_order_it_is_heard() {
        let key = of_route("shop", "canary");
        let mut book = Book::default();
        book.begin(&key);
        book.end(&key, given(10, "own"));
        book.see(seen(9, Some("older")));
        assert_eq!(who(&book).as_deref(), Some("own"));
        book.see(seen(10, Some("own")));
        book.see(seen(11, Some("newer")));
        assert_eq!(who(&book).as_deref(), Some("newer"));

        book.begin(&key);
        book.see(seen(12, Some("mine")));
        assert_eq!(who(&book).as_deref(), Some("newer"), "it waits for the answer");
        book.see(seen(13, None));
        book.end(&key, given(12, "mine"));
        assert_eq!(who(&book), None, "ended by somebody else right after");

        book.begin(&key);
        book.see(seen(14, Some("other")));
        book.end(&key, None);
        assert_eq!(
            who(&book).as_deref(),
            Some("other"),
            "what was refused hides nothing"
        );
        book.end(&key, given(12, "late"));
        assert_eq!(who(&book).as_deref(), Some("other"));
    }

    /// Scenario: two own orders of the same key are on their way at once.
    #[test]
    fn two_own_orders_on_their_way_end_in_the_newer() {
        let key = of_route("shop", "canary");
        let mut book = Book::default();
        book.begin(&key);
        book.begin(&key);
        book.see(seen(5, Some("first")));
        book.see(seen(6, Some("second")));
        book.end(&key, given(6, "second"));
        book.end(&key, given(5, "first"));
        assert_eq!(who(&book).as_deref(), Some("second"));
    }

    /// Scenario: everything is listed anew, before and after what was just given; and the store went back.
    #[test]
    fn a_list_takes_the_place_of_all_that_is_not_newer() {
        let key = of_route("shop", "canary");
        let mut book = Book::default();
        book.begin(&key);
        book.end(&key, given(10, "own"));
        book.see(Seen::All(8, vec![(key.clone(), order("old"))]));
        assert_eq!(who(&book).as_deref(), Some("own"));
        book.see(Seen::All(12, Vec::new()));
        assert_eq!(who(&book), None);
        book.see(Seen::All(3, vec![(key, order("restored"))]));
        assert_eq!(who(&book).as_deref(), Some("restored"));
        book.see(seen(4, Some("next")));
        assert_eq!(who(&book).as_deref(), Some("next"));
    }
}
