//! A map whose parts, one per load balancer, are shared between its copies.
//!
//! Orders and verdicts are kept in it, because of what they are used for: every snapshot is made of all of them, and
//! yet one order or verdict is about one load balancer among a thousand. A copy costs a pointer per load balancer, a
//! change copies the part that it is about, and whether a part has changed is told by comparing two pointers.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::sync::Arc;

use crate::config::Name;

/// A key that is about one load balancer, which is also the first thing that it is ordered by.
pub trait OfLoadBalancer: Ord + Clone {
    /// The load balancer.
    fn load_balancer(&self) -> &Name;
}

/// A map in parts; reads like a [`BTreeMap`] and has the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByLoadBalancer<K, V> {
    /// None of them is empty.
    parts: BTreeMap<Name, Arc<BTreeMap<K, V>>>,
}

impl<K, V> Default for ByLoadBalancer<K, V> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
        }
    }
}

impl<K: OfLoadBalancer, V: Clone> ByLoadBalancer<K, V> {
    /// What is about one load balancer; `None`: nothing.
    pub fn part(&self, load_balancer: &Name) -> Option<&Arc<BTreeMap<K, V>>> {
        self.parts.get(load_balancer)
    }

    /// What is about each load balancer, in order of name; load balancers with nothing are left out.
    pub fn parts(&self) -> Range<'_, Name, Arc<BTreeMap<K, V>>> {
        self.parts.range::<Name, _>(..)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.part(key.load_balancer())?.get(key)
    }

    /// The value of a key, to be changed; copies its part when that is shared.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let part = self.parts.get_mut(key.load_balancer())?;
        if !part.contains_key(key) {
            return None;
        }
        Arc::make_mut(part).get_mut(key)
    }

    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let part = self.parts.entry(key.load_balancer().clone()).or_default();
        Arc::make_mut(part).insert(key, value)
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let part = self.parts.get_mut(key.load_balancer())?;
        if !part.contains_key(key) {
            return None;
        }
        let removed = Arc::make_mut(part).remove(key);
        if part.is_empty() {
            self.parts.remove(key.load_balancer());
        }
        removed
    }

    /// Takes out what `which` names, in order; parts without any stay as they are, shared.
    pub fn take_out(&mut self, mut which: impl FnMut(&K, &V) -> bool) -> BTreeMap<K, V> {
        let mut out = BTreeMap::new();
        self.parts.retain(|_, part| {
            out.append(&mut take_out(part, &mut which));
            !part.is_empty()
        });
        out
    }

    /// The same among what is about one load balancer.
    pub fn take_out_of(
        &mut self,
        load_balancer: &Name,
        mut which: impl FnMut(&K, &V) -> bool,
    ) -> BTreeMap<K, V> {
        let Some(part) = self.parts.get_mut(load_balancer) else {
            return BTreeMap::new();
        };
        let out = take_out(part, &mut which);
        if part.is_empty() {
            self.parts.remove(load_balancer);
        }
        out
    }

    /// Keeps what `which` names; parts that keep all stay as they are, shared.
    pub fn retain(&mut self, mut which: impl FnMut(&K, &V) -> bool) {
        self.take_out(|key, value| !which(key, value));
    }

    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.values().flat_map(|part| part.iter())
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many there are; looks at every part.
    pub fn len(&self) -> usize {
        self.parts.values().map(|part| part.len()).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.parts.clear();
    }
}

fn take_out<K: Ord + Clone, V: Clone>(
    part: &mut Arc<BTreeMap<K, V>>,
    which: &mut impl FnMut(&K, &V) -> bool,
) -> BTreeMap<K, V> {
    let named = part.iter().filter(|(key, value)| which(key, value));
    let named: Vec<K> = named.map(|(key, _)| key.clone()).collect();
    if named.is_empty() {
        return BTreeMap::new();
    }
    let part = Arc::make_mut(part);
    named
        .into_iter()
        .filter_map(|key| part.remove_entry(&key))
        .collect()
}

impl<K: OfLoadBalancer, V: Clone> Extend<(K, V)> for ByLoadBalancer<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: OfLoadBalancer, V: Clone> FromIterator<(K, V)> for ByLoadBalancer<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut all = Self::default();
        all.extend(entries);
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;
    use crate::state::RouteKey;

    fn key(lb: u8, route: u8) -> RouteKey {
        let name = |letter: u8| Name::parse(&char::from(b'a' + letter).to_string()).unwrap();
        RouteKey {
            load_balancer: name(lb),
            route: name(route),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u8, u8),
        Remove(u8, u8),
        Change(u8, u8, u8),
        TakeOut(u8),
        TakeOutOf(u8, u8),
        Retain(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4u8, 0..4u8, 0..9u8).prop_map(|(lb, r, v)| Step::Insert(lb, r, v)),
            2 => (0..4u8, 0..4u8).prop_map(|(lb, r)| Step::Remove(lb, r)),
            2 => (0..4u8, 0..4u8, 0..9u8).prop_map(|(lb, r, v)| Step::Change(lb, r, v)),
            1 => (0..9u8).prop_map(Step::TakeOut),
            1 => (0..4u8, 0..9u8).prop_map(|(lb, v)| Step::TakeOutOf(lb, v)),
            1 => (0..9u8).prop_map(Step::Retain),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is done to it, it is what a plain map would be; and a copy made before stays as it was.
        #[test]
        fn it_is_a_map_whose_copies_stay_as_they_were(steps in prop::collection::vec(step(), 0..40)) {
            let (mut map, mut model) = (ByLoadBalancer::default(), BTreeMap::new());
            for step in steps {
                let (copy, then) = (map.clone(), model.clone());
                match step {
                    Step::Insert(lb, r, v) => prop_assert_eq!(map.insert(key(lb, r), v), model.insert(key(lb, r), v)),
                    Step::Remove(lb, r) => prop_assert_eq!(map.remove(&key(lb, r)), model.remove(&key(lb, r))),
                    Step::Change(lb, r, v) => {
                        map.get_mut(&key(lb, r)).into_iter().for_each(|old| *old = v);
                        model.get_mut(&key(lb, r)).into_iter().for_each(|old| *old = v);
                    }
                    Step::TakeOut(v) => {
                        let (out, kept) = model.into_iter().partition(|(_, old)| *old == v);
                        model = kept;
                        prop_assert_eq!(map.take_out(|_, old| *old == v), out);
                    }
                    Step::TakeOutOf(lb, v) => {
                        let lb = key(lb, 0).load_balancer;
                        let (out, kept) = model.into_iter().partition(|(k, old)| k.load_balancer == lb && *old == v);
                        model = kept;
                        prop_assert_eq!(map.take_out_of(&lb, |_, old| *old == v), out);
                    }
                    Step::Retain(v) => {
                        map.retain(|_, old| *old != v);
                        model.retain(|_, old| *old != v);
                    }
                }
                let all: Vec<_> = map.iter().map(|(k, v)| (k.clone(), *v)).collect();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(copy.iter().eq(then.iter()));
                prop_assert!(map == model.iter().map(|(k, v)| (k.clone(), *v)).collect());
            }
        }
    }

    /// What is not about a load balancer leaves its part shared with the copy.
    #[test]
    fn a_change_copies_one_part() {
        let mut map: ByLoadBalancer<_, _> = (0..4).map(|lb| (key(lb, 0), 0)).collect();
        let copy = map.clone();
        map.insert(key(2, 1), 7);
        map.retain(|_, value| *value < 100);
        map.remove(&key(3, 3));
        let same = map
            .parts()
            .zip(copy.parts())
            .map(|((_, a), (_, b))| Arc::ptr_eq(a, b));
        assert_eq!(same.collect::<Vec<_>>(), [true, true, false, true]);
    }
}
