//! What a change is not about is the very same afterwards, and what is gone is forgotten.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use balance::Outcome;
use model::parse::parse_toml;
use model::snapshot::Layers;
use model::state::{
    Found, Health, HealthState, Observed, Overrides, PoolMembers, Source, SourceState, Timestamp,
};

use super::*;

struct World {
    registry: Registry,
    observing: Arc<Observing>,
    config: Arc<Config>,
    observed: Observed,
    snapshot: Snapshot,
    serving: Serving,
}

fn config(load_balancers: u16, first_port: u16) -> Config {
    let balancer = |index: u16| {
        format!(
            "[load_balancers.lb{index}]\nlisten = \"127.0.0.1:{}\"\nhealth_endpoint = \"/\"\n\
             backend_servers = [\"10.0.0.1:{first_port}\", \"10.0.0.2:80\"]\n",
            20_000 + index
        )
    };
    let text: String = (0..load_balancers).map(balancer).collect();
    parse_toml(&text, "test.toml").unwrap()
}

impl World {
    fn new(config: Config) -> Self {
        let registry = Registry::new(2, PathBuf::new(), vec![Secret::new("a secret of a test".into())]);
        let observing = Arc::new(Observing::quiet(&config.observe));
        let (config, observed) = (Arc::new(config), Observed::default());
        let snapshot = snapshot(&config, &observed, None);
        let serving = Serving::build(&snapshot, None, &registry, observing.clone());
        Self {
            registry,
            observing,
            config,
            observed,
            snapshot,
            serving,
        }
    }

    /// Serves what the layers say now; which load balancers and listeners are others than before.
    fn serve(&mut self) -> (Vec<String>, Vec<String>) {
        self.snapshot = snapshot(&self.config, &self.observed, Some(&self.snapshot));
        let before = &self.serving;
        let serving = Serving::build(
            &self.snapshot,
            Some(before),
            &self.registry,
            self.observing.clone(),
        );
        let lbs = serving.touched(Some(before)).map(|lb| lb.config.name.to_string());
        let lbs = lbs.collect();
        let same = |l: &&Arc<ListenerServing>| before.listeners.iter().any(|b| Arc::ptr_eq(b, l));
        let listeners = serving.listeners.iter().filter(|l| !same(l));
        let listeners = listeners.map(|l| l.lb.config.name.to_string()).collect();
        let left = before.touched(Some(&serving)).map(|lb| lb.names()).sum();
        self.serving = serving;
        self.registry.prune_after(left);
        (lbs, listeners)
    }
}

impl World {
    /// One member has registered itself, in the membership of this number.
    fn register(&mut self, life: u64) {
        let found = Found {
            source: Source::Registered,
            weight: 1,
            zone: None,
            draining: None,
            since: Timestamp(1),
            proven: true,
            life,
        };
        let state = SourceState {
            members: Arc::new([(([10, 0, 0, 1], 80).into(), found)].into()),
            ..SourceState::default()
        };
        let members = PoolMembers {
            sources: [(Source::Registered, state)].into(),
        };
        let key = self.snapshot.pools.keys().next().unwrap().clone();
        self.observed.members.insert(key, Arc::new(members));
        self.serve();
    }
}

fn snapshot(config: &Arc<Config>, observed: &Observed, previous: Option<&Snapshot>) -> Snapshot {
    let layers = Layers {
        revision: 1,
        config,
        overrides: &Overrides::default(),
        observed,
    };
    Snapshot::build(layers, previous, Timestamp(1))
}

/// A verdict on one of twenty load balancers, then another backend in another: one load balancer and its listener
/// are made anew each time; found by name and by address they are what they were.
#[test]
fn what_a_change_is_not_about_is_the_very_same() {
    let mut world = World::new(config(20, 80));
    let verdict = HealthState {
        health: Health::Down,
        reason: "status 503".into(),
        since: Timestamp(1),
    };
    let backend = world.snapshot.pools.values().nth(7).unwrap().members[0]
        .id
        .clone();
    let touched = vec![backend.load_balancer.to_string()];
    world.observed.health.insert(backend, verdict);
    assert_eq!(world.serve(), (touched.clone(), touched));
    let mut other = config(20, 80);
    let third = Name::parse("lb3").unwrap();
    let changed = config(20, 81).load_balancers.remove(&third).unwrap();
    other.load_balancers.insert(third.clone(), changed);
    world.config = Arc::new(other.sharing(&world.config));
    assert_eq!(world.serve(), (vec!["lb3".into()], vec!["lb3".into()]));
    assert_eq!(world.serve(), (vec![], vec![]));
    for listener in &world.config.load_balancers[&third].listeners {
        let named = world.serving.named(&third, &listener.name).unwrap();
        let found = world.serving.listener(listener.address).unwrap();
        assert!(Arc::ptr_eq(named, found) && named.lb.config.name == third);
    }
}

/// A hundred reloads, each with other backends: what is remembered of those before stays below what there is.
#[test]
fn names_of_what_is_gone_are_forgotten() {
    let mut world = World::new(config(5, 1));
    for port in 2..=100 {
        let mut next = config(5, port);
        // Only two of the five change.
        next.load_balancers
            .retain(|name, _| ["lb1", "lb4"].contains(&name.as_str()));
        let mut all = Config::clone(&world.config);
        all.load_balancers.append(&mut next.load_balancers);
        world.config = Arc::new(all);
        world.serve();
        assert!(count(&world.registry.backends) <= 2 * 10, "{port}");
    }
    let mut none = Config::clone(&world.config);
    none.load_balancers.clear();
    world.config = Arc::new(none);
    world.serve();
    assert_eq!(count(&world.registry.backends), 0);
    assert_eq!(count(&world.registry.load_balancers), 0);
}

/// Scenario: a member is ejected while a request is under way there; it leaves, and a new instance registers at its
/// address. No request has met that one yet, so it is not ejected; what the request to the one before meets counts for
/// nothing, but it takes its place among those that the address may have. Told anew it is the same.
#[test]
fn nothing_is_held_against_a_new_instance_at_an_old_address() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let text = format!(
        "[load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\nhealth = false\nslow_start = 0\nbackend_servers = [\"10.0.0.9:80\"]\n\
         registration = {{ token_hash = \"sha256:{hash}\" }}\npassive = {{ consecutive_failures = 2 }}\n"
    );
    let mut world = World::new(parse_toml(&text, "test.toml").unwrap());
    let pool = |world: &World| world.serving.load_balancers.values().next().unwrap().pools[0].clone();
    let failed = Outcome::Failure { what: "status 503" };
    world.register(1);
    let before = pool(&world);
    assert_eq!(before.balancer.record(1, failed, 1), None);
    let ejected = before.balancer.record(1, failed, 2).unwrap();
    assert_eq!(ejected.life, 1);
    let load = &before.backends[1].load;
    assert!(load.ejected(3));
    load.begin();
    world.register(2);
    let after = pool(&world);
    assert!(Arc::ptr_eq(&after.backends[1], &before.backends[1]));
    assert!(!load.ejected(3));
    assert_eq!(load.in_flight(), 1);
    for at in 4..8 {
        assert_eq!(before.balancer.record(1, failed, at), None);
    }
    assert_eq!(after.balancer.record(1, failed, 8), None, "its first failure");
    world.register(2);
    let ejected = pool(&world).balancer.record(1, failed, 9).unwrap();
    assert_eq!(ejected.life, 2);
    load.end();
    assert_eq!(load.in_flight(), 0);
}
