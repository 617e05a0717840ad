//! The orders known to a node, from two sides: what it follows of the store, and what it has just given itself.
//!
//! Both come in any order: an own order may be seen in the store before its answer is here, or long after. Revisions
//! say which is newer, and while an own order is on its way, what is seen of the same key waits for its answer, so
//! that the operator who gave it is the one it is told of.
//!
//! What a listing does not name was ended or lost ([`Silence`](super::Silence)). What was lost stays in force here, and
//! is [`lacking`](Book::lacking) in the store until somebody has written it, or a later listing says that it was ended.

use std::collections::{BTreeMap, BTreeSet};

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

    /// Whether it says that an order was ended, by any clock.
    pub(super) fn has_ended(&self) -> bool {
        let (since, expires) = match self {
            Self::Backend(order) => (order.since, order.expires),
            Self::Route(order) => (order.since, order.expires),
        };
        expires.is_some_and(|at| at <= since)
    }

    /// Who gave it.
    pub(super) fn by(&self) -> &str {
        match self {
            Self::Backend(order) => &order.by,
            Self::Route(order) => &order.by,
        }
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
    /// In force here, and lost by the store.
    lacking: BTreeSet<OrderKey>,
}

#[derive(Clone, Debug, Default)]
struct OnTheWay {
    count: usize,
    seen: Option<(u64, Option<InForce>)>,
    /// It set out when the store was another one: which of them takes it nobody knows, nor whose revision is told.
    of_before: bool,
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
        let of_before = self.given.get(key).is_some_and(|given| given.of_before);
        match given {
            Some(Given { order, .. }) if of_before => {
                self.set(key, order);
                if self.has(key) {
                    self.lacking.insert(key.clone());
                }
            }
            Some(Given { revision, order }) if revision > self.known(key) => {
                self.ahead.insert(key.clone(), revision);
                self.set(key, order);
            }
            _ => {}
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
            Seen::All(revision, orders, silence) => {
                if silence.another {
                    self.ahead.clear();
                    for on_the_way in self.given.values_mut() {
                        on_the_way.of_before = true;
                    }
                }
                let newer = self.ahead.iter().filter(|(_, known)| **known > revision);
                let newer: Vec<_> = newer.map(|(key, _)| (key.clone(), self.get(key))).collect();
                if silence.lost {
                    let backends = self.overrides.backends.keys().cloned().map(OrderKey::Backend);
                    let routes = self.overrides.routes.keys().cloned().map(OrderKey::Route);
                    self.lacking = backends.chain(routes).collect();
                } else {
                    self.overrides = Overrides::default();
                    self.lacking.clear();
                }
                for (key, order) in orders.into_iter().chain(newer) {
                    self.set(&key, order);
                }
                for on_the_way in self.given.values_mut() {
                    on_the_way.seen = None;
                }
                self.seen = revision;
            }
            Seen::Still | Seen::CutOff => {}
        }
        let (seen, given) = (self.seen, &self.given);
        self.ahead
            .retain(|key, revision| *revision > seen || given.contains_key(key));
    }

    /// Orders that are in force here, and that the store has lost. Those whose time is over at `now` are forgotten.
    pub fn lacking(&mut self, now: Timestamp) -> Vec<(OrderKey, InForce)> {
        let mut lacking = Vec::new();
        for key in std::mem::take(&mut self.lacking) {
            match self.get(&key) {
                Some(order) if !order.is_over(now) => lacking.push((key, order)),
                _ => self.set(&key, None),
            }
        }
        self.lacking = lacking.iter().map(|(key, _)| key.clone()).collect();
        lacking
    }

    /// About these the store says something again.
    pub fn restored(&mut self, keys: &[OrderKey]) {
        for key in keys {
            self.lacking.remove(key);
        }
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

    /// Orders that stand, those whose time is over included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.overrides.backends.len() + self.overrides.routes.len()
    }

    /// Whether an order stands about this.
    #[must_use]
    pub fn has(&self, key: &OrderKey) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &OrderKey) -> Option<InForce> {
        match key {
            OrderKey::Backend(key) => self.overrides.backends.get(key).cloned().map(InForce::Backend),
            OrderKey::Route(key) => self.overrides.routes.get(key).cloned().map(InForce::Route),
        }
    }

    fn set(&mut self, key: &OrderKey, order: Option<InForce>) {
        self.lacking.remove(key);
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
    use super::super::{Silence, of_route};
    use super::*;

    /// After a short absence, of a store whose revisions go on.
    const SHORT: Silence = Silence {
        another: false,
        lost: true,
    };

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
        let old = vec![(key.clone(), Some(order("old")))];
        book.see(Seen::All(8, old.clone(), Silence::END));
        assert_eq!(who(&book).as_deref(), Some("own"));
        book.see(Seen::All(8, old, SHORT));
        assert_eq!(who(&book).as_deref(), Some("own"));
        book.see(Seen::All(12, Vec::new(), Silence::END));
        assert_eq!(who(&book), None);
        let restored = vec![(key, Some(order("restored")))];
        book.see(Seen::All(3, restored, Silence::LOSS));
        assert_eq!(who(&book).as_deref(), Some("restored"));
        book.see(seen(4, Some("next")));
        assert_eq!(who(&book).as_deref(), Some("next"));
    }

    fn lacking(book: &mut Book, now: u64) -> Vec<String> {
        let lacking = book.lacking(Timestamp(now)).into_iter();
        lacking.map(|(key, _)| key.path()).collect()
    }

    fn lasting(until: u64) -> Option<InForce> {
        match order("alice") {
            InForce::Route(order) => Some(InForce::Route(RouteOrder {
                expires: Some(Timestamp(until)),
                ..order
            })),
            InForce::Backend(_) => unreachable!(),
        }
    }

    /// Scenario: the store is another one. What it says counts, also that an order was ended; of what it says nothing,
    /// the order stands and is to be written, until somebody has, or its time is over.
    #[test]
    fn another_store_ends_no_order_by_its_silence() {
        let [canary, lost, ended, short] =
            ["canary", "lost", "ended", "short"].map(|route| of_route("shop", route));
        let mut book = Book::default();
        let all = [
            (canary.clone(), Some(order("before"))),
            (lost.clone(), Some(order("alice"))),
            (ended.clone(), Some(order("alice"))),
            (short.clone(), lasting(20)),
        ];
        book.see(Seen::All(100, all.into(), Silence::END));
        assert!(lacking(&mut book, 5).is_empty());
        let other = [(canary.clone(), Some(order("restored"))), (ended.clone(), None)];
        book.see(Seen::All(7, other.into(), Silence::LOSS));
        assert_eq!(who(&book).as_deref(), Some("restored"));
        assert!(book.has(&lost) && !book.has(&ended));
        assert_eq!(
            lacking(&mut book, 5),
            ["orders/routes/shop/lost", "orders/routes/shop/short"]
        );
        assert_eq!(lacking(&mut book, 20), ["orders/routes/shop/lost"]);
        assert!(!book.has(&short), "its time is over");

        // Listed anew before it was written: still not ended.
        let listed = vec![(canary.clone(), Some(order("restored")))];
        book.see(Seen::All(8, listed.clone(), SHORT));
        assert!(book.has(&lost) && !lacking(&mut book, 5).is_empty());
        book.restored(std::slice::from_ref(&lost));
        assert!(book.has(&lost) && lacking(&mut book, 5).is_empty());
        book.see(Seen::Some(9, vec![(lost.clone(), None)]));
        assert!(!book.has(&lost), "ended by somebody");
    }

    /// Scenario: an order is lost, and before this node could write it again, it is away for so long that others may have
    /// written and ended it: what is lacking is not for ever.
    #[test]
    fn what_is_lacking_ends_with_a_long_absence() {
        let lost = of_route("shop", "lost");
        let mut book = Book::default();
        let all = vec![(lost.clone(), Some(order("alice")))];
        book.see(Seen::All(100, all, Silence::END));
        book.see(Seen::All(7, Vec::new(), Silence::LOSS));
        book.see(Seen::CutOff);
        book.see(Seen::Still);
        assert_eq!(lacking(&mut book, 5), ["orders/routes/shop/lost"]);
        book.see(Seen::All(900, Vec::new(), Silence::END));
        assert!(!book.has(&lost) && lacking(&mut book, 5).is_empty());
    }

    /// Scenario: the same, and somebody ends or changes a lost order before it is written again.
    #[test]
    fn what_is_ordered_in_another_store_counts() {
        let canary = of_route("shop", "canary");
        for by in [None, Some("bob")] {
            let mut book = Book::default();
            let all = vec![(canary.clone(), Some(order("alice")))];
            book.see(Seen::All(100, all, Silence::END));
            book.see(Seen::All(7, Vec::new(), Silence::LOSS));
            book.see(seen(8, by));
            assert_eq!(who(&book).as_deref(), by);
            assert!(lacking(&mut book, 5).is_empty());
        }
    }

    /// Scenario: an own order is on its way while the store becomes another one, and each of the two may have taken it.
    #[test]
    fn an_own_order_outlives_the_store_that_took_it() {
        let key = of_route("shop", "canary");
        let begun = || {
            let mut book = Book::default();
            book.see(Seen::All(100, Vec::new(), Silence::END));
            book.begin(&key);
            book.see(Seen::All(7, Vec::new(), Silence::LOSS));
            book
        };
        let mut book = begun();
        book.end(&key, given(101, "own"));
        assert_eq!(who(&book).as_deref(), Some("own"));
        assert_eq!(lacking(&mut book, 5).len(), 1, "the former one took it");
        book.see(seen(9, Some("own")));
        book.see(seen(10, Some("bob")));
        assert_eq!(who(&book).as_deref(), Some("bob"), "its revisions are smaller");

        let mut book = begun();
        book.see(seen(8, Some("own")));
        book.end(&key, given(8, "own"));
        assert_eq!(who(&book).as_deref(), Some("own"));
        assert!(lacking(&mut book, 5).is_empty(), "the new one has it");
    }
}
