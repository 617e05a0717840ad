//! Two configs that share what is equal in them, so that whoever compares them later compares pointers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Config, LoadBalancer, Name};

impl Config {
    /// The same config, with every part of it that equals one of `old` taken from there: load balancers as a whole;
    /// of those that changed, the listeners and pools.
    #[must_use]
    pub fn sharing(mut self, old: &Self) -> Self {
        for (name, lb) in &mut self.load_balancers {
            match old.load_balancers.get(name) {
                Some(before) if before == lb => *lb = before.clone(),
                Some(before) => *lb = parts(lb, before),
                None => {}
            }
        }
        self
    }

    /// Load balancers that are new, gone, or not the very same as in `old`.
    pub fn touched(&self, old: &Self) -> BTreeSet<Name> {
        let differ = |these: &BTreeMap<Name, Arc<LoadBalancer>>,
                      those: &BTreeMap<Name, Arc<LoadBalancer>>| {
            let same = |(name, lb): &(&Name, &Arc<LoadBalancer>)| {
                those.get(*name).is_some_and(|other| Arc::ptr_eq(lb, other))
            };
            let touched = these.iter().filter(|entry| !same(entry));
            touched.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
        };
        let mut touched = differ(&self.load_balancers, &old.load_balancers);
        touched.append(&mut differ(&old.load_balancers, &self.load_balancers));
        touched
    }
}

fn parts(lb: &LoadBalancer, before: &LoadBalancer) -> Arc<LoadBalancer> {
    let mut lb = lb.clone();
    for listener in &mut lb.listeners {
        let same = before.listeners.iter().find(|before| *before == listener);
        same.into_iter().for_each(|same| *listener = same.clone());
    }
    for (name, pool) in &mut lb.pools {
        let same = before.pools.get(name).filter(|before| *before == pool);
        same.into_iter().for_each(|same| *pool = same.clone());
    }
    Arc::new(lb)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::parse::parse_toml;

    fn config(blue: &str, more: &str) -> Config {
        let text = format!(
            "[load_balancers.shop]\nlisten = \"127.0.0.1:80\"\n\
             [[load_balancers.shop.routes]]\nname = \"all\"\nsplit = [{{ pool = \"blue\" }}, {{ pool = \"green\" }}]\n\
             [load_balancers.shop.pools.blue]\nbackend_servers = [\"{blue}\"]\n\
             [load_balancers.shop.pools.green]\nbackend_servers = [\"10.0.0.9:1\"]\n\
             [load_balancers.site]\nlisten = \"127.0.0.2:80\"\nbackend_servers = [\"10.0.0.5:1\"]\n{more}"
        );
        parse_toml(&text, "test.toml").unwrap()
    }

    /// One backend of one pool is another: all else is shared with the config before, and only that load balancer
    /// counts as touched.
    #[test]
    fn what_is_equal_is_shared() {
        let old = config("10.0.0.1:1", "");
        let read = config("10.0.0.2:1", "");
        assert_eq!(read.touched(&old).len(), 2, "read anew, nothing is shared");
        let new = read.clone().sharing(&old);
        assert_eq!(new, read);
        let (shop, site) = (Name::parse("shop").unwrap(), Name::parse("site").unwrap());
        assert_eq!(new.touched(&old), BTreeSet::from([shop.clone()]));
        assert!(Arc::ptr_eq(
            &new.load_balancers[&site],
            &old.load_balancers[&site]
        ));
        let (new, old) = (&new.load_balancers[&shop], &old.load_balancers[&shop]);
        let pool = |name| Name::parse(name).unwrap();
        assert!(Arc::ptr_eq(&new.listeners[0], &old.listeners[0]));
        assert!(Arc::ptr_eq(
            &new.pools[&pool("green")],
            &old.pools[&pool("green")]
        ));
        assert!(!Arc::ptr_eq(&new.pools[&pool("blue")], &old.pools[&pool("blue")]));
    }

    #[test]
    fn who_comes_and_who_goes_is_touched() {
        let old = config("10.0.0.1:1", "");
        let more = "[load_balancers.new]\nlisten = \"127.0.0.3:80\"\nbackend_servers = [\"10.0.0.6:1\"]\n";
        let new = config("10.0.0.1:1", more).sharing(&old);
        let names = BTreeSet::from([Name::parse("new").unwrap()]);
        assert_eq!((new.touched(&old), old.touched(&new)), (names.clone(), names));
    }
}
