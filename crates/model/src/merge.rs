//! One config out of a node's own file and what the store has.
//!
//! The load balancers of both stand side by side. A name that is in the file is the file's: it is changed there and
//! nowhere else. What must hold over all of them together (each address is listened on once, a database where
//! somebody asks for countries) is checked here; what must hold within each was checked when it was read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, Listener, LoadBalancer, Name, Role, RouteMatch};
use crate::parse::MAX_LISTENERS;

/// The result of [`merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The whole.
    pub config: Config,
    /// Those of the store that are not served, because the file has one of that name.
    pub shadowed: Vec<Name>,
}

/// Puts the load balancers of the store beside those of `file`. Parts are shared, not copied.
///
/// # Errors
/// Everything that does not go together, a sentence each.
pub fn merge(file: &Config, stored: &BTreeMap<Name, Arc<LoadBalancer>>) -> Result<Merged, Vec<String>> {
    merge_after(file, stored, None)
}

/// What was merged before.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The node's own file.
    pub file: &'a Config,
    /// What the store had.
    pub stored: &'a BTreeMap<Name, Arc<LoadBalancer>>,
    /// What came of it.
    pub whole: &'a Config,
}

/// [`merge`], which takes what it would make of the very same once more from what it made of it before.
///
/// # Errors
/// As [`merge`].
pub fn merge_after(
    file: &Config,
    stored: &BTreeMap<Name, Arc<LoadBalancer>>,
    before: Option<Before<'_>>,
) -> Result<Merged, Vec<String>> {
    let mut config = file.clone();
    let mut shadowed = Vec::new();
    for (name, balancer) in stored {
        match config.load_balancers.contains_key(name) {
            true => shadowed.push(name.clone()),
            false => _ = config.load_balancers.insert(name.clone(), balancer.clone()),
        }
    }
    if let Some(ip) = config.node.bind {
        let before = before.filter(|before| before.whole.node.bind == Some(ip));
        for (name, balancer) in &mut config.load_balancers {
            let known = before.and_then(|before| {
                let was_stored = !before.file.load_balancers.contains_key(name);
                let same = was_stored && Arc::ptr_eq(before.stored.get(name)?, balancer);
                before.whole.load_balancers.get(name).filter(|_| same)
            });
            match known {
                Some(known) => *balancer = known.clone(),
                None => bind(balancer, ip),
            }
        }
    }
    let problems = problems(&config);
    match problems.is_empty() {
        true => Ok(Merged { config, shadowed }),
        false => Err(problems),
    }
}

/// Gives listeners on every address the one of this node.
fn bind(balancer: &mut Arc<LoadBalancer>, ip: IpAddr) {
    let everywhere = |listener: &Arc<Listener>| listener.address.ip().is_unspecified();
    if !balancer.listeners.iter().any(everywhere) {
        return;
    }
    for listener in &mut Arc::make_mut(balancer).listeners {
        if everywhere(listener) {
            Arc::make_mut(listener).address.set_ip(ip);
        }
    }
}

fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    // Who does not forward opens nothing, and must not be in the way of those who do.
    let forwards = config.node.roles.contains(&Role::Lb);
    let admin = config.admin.listen;
    if admin.port() != 0 && forwards {
        taken.insert(admin, "the admin API".to_owned());
    }
    let balancers = || config.load_balancers.values();
    for listener in balancers().flat_map(|lb| lb.listeners.iter().map(move |l| (&lb.name, l))) {
        let (lb, listener) = listener;
        let whose = format!("load balancer `{lb}`");
        match taken.get(&listener.address) {
            None => _ = taken.insert(listener.address, whose),
            Some(first) => problems.push(format!(
                "{} is listened on twice, by {first} and by {whose}: give each listener an address or port of its own",
                listener.address
            )),
        }
    }
    let listeners = balancers().map(|lb| lb.listeners.len()).sum::<usize>();
    if listeners > MAX_LISTENERS {
        problems.push(format!(
            "there are {listeners} listeners in all, {MAX_LISTENERS} at most"
        ));
    }
    if config.node.geoip.is_none() && forwards {
        let by_country =
            balancers().filter(|lb| lb.routes.iter().any(|route| asks_for_country(&route.matches)));
        problems.extend(by_country.map(|lb| {
            format!(
                "load balancer `{}` asks for countries or continents, which this node cannot tell: name a MaxMind \
                 database in its file, `geoip = \"GeoLite2-Country.mmdb\"` in `[node]`",
                lb.name
            )
        }));
    }
    problems
}

fn asks_for_country(matches: &RouteMatch) -> bool {
    let nested = matches
        .any
        .iter()
        .chain(&matches.all)
        .chain(matches.not.as_deref());
    !matches.countries.is_empty()
        || !matches.continents.is_empty()
        || nested.into_iter().any(asks_for_country)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::parse::{parse_balancer, parse_toml};

    fn stored(balancers: &[(&str, &str)]) -> BTreeMap<Name, Arc<LoadBalancer>> {
        let each = balancers.iter().map(|(name, json)| {
            let name = Name::parse(name).unwrap();
            let balancer = parse_balancer(&name, json, "the store").unwrap();
            (name, Arc::new(balancer))
        });
        each.collect()
    }

    const FILE: &str = "[admin]\nlisten = \"127.0.0.1:7700\"\n\
                        [load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\nbackend_servers = []\n";

    /// Scenario: the file has `shop`, the store has `blog` and another `shop`: the file's stands, the other is told.
    #[test]
    fn the_files_own_stand_above_those_of_the_store() {
        let file = parse_toml(FILE, "a.toml").unwrap();
        let stored = stored(&[
            (
                "blog",
                r#"{"listen": "127.0.0.1:8081", "backend_servers": ["10.0.0.1:1"]}"#,
            ),
            ("shop", r#"{"listen": "127.0.0.1:8082", "backend_servers": []}"#),
        ]);
        let merged = merge(&file, &stored).unwrap();
        let names: Vec<&str> = merged.config.load_balancers.keys().map(Name::as_str).collect();
        assert_eq!(names, ["blog", "shop"]);
        let blog = &merged.config.load_balancers[&Name::parse("blog").unwrap()];
        assert!(Arc::ptr_eq(blog, stored.values().next().unwrap()));
        assert_eq!(merged.shadowed, [Name::parse("shop").unwrap()]);
    }

    /// Scenario: two load balancers are each valid and cannot both be served.
    #[test]
    fn what_does_not_go_together_is_told_at_once() {
        let file = parse_toml(FILE, "a.toml").unwrap();
        let stored = stored(&[
            ("blog", r#"{"listen": "127.0.0.1:8080", "backend_servers": []}"#),
            ("chat", r#"{"listen": "127.0.0.1:7700", "backend_servers": []}"#),
            (
                "news",
                r#"{"listen": "127.0.0.1:9000", "backend_servers": [], "routes": [{"match": {"not": {"country": "DE"}}, "pool": "default"}]}"#,
            ),
        ]);
        let problems = merge(&file, &stored).unwrap_err();
        let told = problems.join("\n");
        for words in [
            "127.0.0.1:8080",
            "by load balancer `blog` and by load balancer `shop`",
            "the admin API",
            "`news`",
            "geoip",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert_eq!(problems.len(), 3, "{told}");
    }

    /// Scenario: two nodes on one machine serve the same load balancers, each on an address of its own.
    #[test]
    fn a_node_may_bind_to_one_address() {
        let file = parse_toml("[node]\nbind = \"127.0.0.2\"\n[store]\n", "a.toml").unwrap();
        let stored = stored(&[(
            "shop",
            r#"{"listen": ["0.0.0.0:80", "127.0.0.1:81"], "backend_servers": []}"#,
        )]);
        let merged = merge(&file, &stored).unwrap().config;
        let listeners = merged.load_balancers.values().flat_map(|lb| &lb.listeners);
        let addresses: Vec<String> = listeners.map(|listener| listener.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.2:80", "127.0.0.1:81"]);
    }

    /// Scenario: one of two load balancers is changed, on a node that binds to one address: the other one's part of the
    /// whole is the very same as before, so that nobody looks at it again. With another address it is not.
    #[test]
    fn what_is_the_very_same_is_bound_once() {
        let file = parse_toml("[node]\nbind = \"127.0.0.2\"\n[store]\n", "a.toml").unwrap();
        let on = |port: u16| format!(r#"{{"listen": "0.0.0.0:{port}", "backend_servers": []}}"#);
        let first = stored(&[("blog", &on(80)), ("shop", &on(81))]);
        let before = |file, stored, whole| Some(Before { file, stored, whole });
        let whole = merge(&file, &first).unwrap().config;
        let mut second = first.clone();
        second.extend(stored(&[("shop", &on(82))]));
        let after = merge_after(&file, &second, before(&file, &first, &whole));
        let after = after.unwrap().config;
        let of = |config: &Config, name: &str| config.load_balancers[&Name::parse(name).unwrap()].clone();
        assert!(Arc::ptr_eq(&of(&whole, "blog"), &of(&after, "blog")));
        assert_eq!(after, merge(&file, &second).unwrap().config);

        let other = parse_toml("[node]\nbind = \"127.0.0.3\"\n[store]\n", "a.toml").unwrap();
        let moved = merge_after(&other, &second, before(&file, &second, &after));
        assert_eq!(moved.unwrap().config, merge(&other, &second).unwrap().config);

        // The file had a `shop` of its own, and has it no more.
        let own = "[load_balancers.shop]\nlisten = \"0.0.0.0:90\"\nbackend_servers = []\n";
        let had = parse_toml(&format!("[node]\nbind = \"127.0.0.2\"\n[store]\n{own}"), "a.toml").unwrap();
        let whole = merge(&had, &second).unwrap().config;
        let without = merge_after(&file, &second, before(&had, &second, &whole));
        assert_eq!(without.unwrap().config, merge(&file, &second).unwrap().config);
    }

    /// Port 0 is a free one, whatever others take.
    #[test]
    fn port_0_is_never_taken() {
        let file = parse_toml("[admin]\nlisten = \"127.0.0.1:0\"\n[store]\n", "a.toml").unwrap();
        let balancer = r#"{"listen": "127.0.0.1:7700", "backend_servers": []}"#;
        assert!(merge(&file, &stored(&[("chat", balancer)])).is_ok());
    }
}
