//! A snapshot built from its predecessor is the one that would be built from nothing but its state; and what did
//! not change is not looked at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::parse::parse_toml;
use crate::state::RouteKey;

const T0: u64 = 1_000_000;

/// The three layers of three load balancers with two pools each, and the time.
struct World {
    config: Config,
    overrides: Overrides,
    observed: Observed,
    now: Timestamp,
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// This load balancer has so many backends per pool, with this slow start and this weight of the first.
    Config(u8, u8, u16, u32),
    Gone(u8),
    Verdict(u8, u8, bool),
    /// For so many milliseconds.
    Ejection(u8, u8, u16),
    Order(u8, u8, Mode, Option<u16>),
    Ready(u8, u8),
    Weights(u8, u32, Option<u16>),
    Time(u16),
    /// All layers are copied with nothing shared, as when they are read anew.
    Copied,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn lb_name(lb: u8) -> Name {
    name(&format!("lb{lb}"))
}

fn address(lb: u8, backend: u8) -> SocketAddr {
    ([10, 0, lb, backend], 80).into()
}

fn id(lb: u8, backend: u8) -> BackendId {
    BackendId {
        load_balancer: lb_name(lb),
        pool: name(["blue", "green"][usize::from(backend % 2)]),
        address: address(lb, backend),
    }
}

fn balancer(lb: u8, backends: u8, slow_start: u16, weight: u32) -> Arc<LoadBalancer> {
    let mut text = format!(
        "[load_balancers.lb{lb}]\nlisten = \"127.0.0.{}:80\"\n[[load_balancers.lb{lb}.routes]]\nname = \"all\"\n\
         split = [{{ pool = \"blue\" }}, {{ pool = \"green\" }}]\n",
        lb + 1
    );
    for (index, pool) in ["blue", "green"].into_iter().enumerate() {
        let backends = (0..backends).map(|backend| {
            let address = address(lb, 2 * backend + index as u8);
            match backend {
                0 => format!("{{ address = \"{address}\", weight = {weight} }}"),
                _ => format!("\"{address}\""),
            }
        });
        let backends: Vec<String> = backends.collect();
        text += &format!(
            "[load_balancers.lb{lb}.pools.{pool}]\nslow_start = \"{slow_start}ms\"\nbackend_servers = [{}]\n",
            backends.join(", ")
        );
    }
    let config = parse_toml(&text, "test.toml").unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]));
    config.load_balancers.into_values().next().unwrap()
}

impl World {
    fn new() -> Self {
        let mut config = parse_toml("[load_balancers.x]\nbackend_servers = [\"10.9.9.9:1\"]\n", "t").unwrap();
        config.load_balancers = (0..3)
            .map(|lb| (lb_name(lb), balancer(lb, 2, if lb == 1 { 1000 } else { 0 }, 1)))
            .collect();
        Self {
            config,
            overrides: Overrides::default(),
            observed: Observed::default(),
            now: Timestamp(T0),
        }
    }

    fn take(&mut self, step: Step) {
        let ends = |lasts: Option<u16>| lasts.map(|ms| self.now.plus(Duration::from_millis(ms.into())));
        match step {
            Step::Config(lb, backends, slow_start, weight) => {
                let new = balancer(lb, backends, slow_start, weight);
                self.config.load_balancers.insert(lb_name(lb), new);
            }
            Step::Gone(lb) => {
                self.config.load_balancers.remove(&lb_name(lb));
            }
            Step::Verdict(lb, backend, up) => {
                let state = HealthState {
                    health: if up { Health::Up } else { Health::Down },
                    reason: "as the test says".into(),
                    since: self.now,
                };
                self.observed.health.insert(id(lb, backend), state);
            }
            Step::Ejection(lb, backend, lasts) => {
                let ejection = Ejection {
                    reason: "as the test says".into(),
                    since: self.now,
                    until: ends(Some(lasts)).unwrap(),
                };
                self.observed.ejections.insert(id(lb, backend), ejection);
            }
            Step::Order(lb, backend, mode, lasts) => {
                let (since, expires) = (self.now, ends(lasts));
                let order = Override {
                    mode,
                    weight: None,
                    by: "alice".into(),
                    since,
                    expires,
                };
                self.overrides.backends.insert(order_key(lb, backend), order);
            }
            Step::Ready(lb, backend) => {
                self.overrides.backends.remove(&order_key(lb, backend));
            }
            Step::Weights(lb, weight, lasts) => {
                let (since, expires) = (self.now, ends(lasts));
                let order = RouteOrder {
                    weights: BTreeMap::from([(name("blue"), weight)]),
                    by: "alice".into(),
                    since,
                    expires,
                };
                let key = RouteKey {
                    load_balancer: lb_name(lb),
                    route: name("all"),
                };
                self.overrides.routes.insert(key, order);
            }
            Step::Time(ms) => self.now = self.now.plus(Duration::from_millis(ms.into())),
            Step::Copied => self.copy(),
        }
    }

    fn copy(&mut self) {
        self.observed.health = self
            .observed
            .health
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.overrides.backends = self
            .overrides
            .backends
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for lb in self.config.load_balancers.values_mut() {
            *lb = Arc::new(LoadBalancer::clone(lb));
        }
    }

    fn build(&self, previous: Option<&Snapshot>) -> Snapshot {
        let layers = Layers {
            revision: 1,
            config: &Arc::new(self.config.clone()),
            overrides: &self.overrides,
            observed: &self.observed,
        };
        Snapshot::build(layers, previous, self.now)
    }
}

fn order_key(lb: u8, backend: u8) -> OverrideKey {
    OverrideKey {
        load_balancer: lb_name(lb),
        address: address(lb, backend),
    }
}

/// The same state with no memory of what it was made of: the next build looks at everything.
fn forgetful(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        made_of: BTreeMap::new(),
        ..snapshot.clone()
    }
}

/// Pools that the next build does not look at: what no build would make of them stays.
fn not_looked_at(world: &World, before: &Snapshot) -> BTreeSet<String> {
    let mut marked = before.clone();
    for pool in marked.pools.values_mut() {
        let mut state = PoolState::clone(pool);
        state
            .members
            .iter_mut()
            .for_each(|m| m.health.reason = "marked".into());
        *pool = Arc::new(state);
    }
    let built = world.build(Some(&marked));
    let is_marked = |pool: &PoolState| pool.members.iter().any(|m| m.health.reason == "marked");
    let kept = built.pools.iter().filter(|(_, pool)| is_marked(pool));
    kept.map(|((lb, pool), _)| format!("{lb}/{pool}")).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let lasts = || prop::option::of(1..3000u16);
    let modes = prop::sample::select(vec![Mode::Ready, Mode::Drain, Mode::Maintenance]);
    prop_oneof![
        2 => (0..3u8, 1..4u8, prop::sample::select(vec![0, 1000]), 0..3u32)
            .prop_map(|(lb, backends, slow, weight)| Step::Config(lb, backends, slow, weight)),
        1 => (0..3u8).prop_map(Step::Gone),
        4 => (0..3u8, 0..6u8, any::<bool>()).prop_map(|(lb, b, up)| Step::Verdict(lb, b, up)),
        2 => (0..3u8, 0..6u8, 1..3000u16).prop_map(|(lb, b, lasts)| Step::Ejection(lb, b, lasts)),
        2 => (0..3u8, 0..6u8, modes, lasts()).prop_map(|(lb, b, mode, lasts)| Step::Order(lb, b, mode, lasts)),
        1 => (0..3u8, 0..6u8).prop_map(|(lb, b)| Step::Ready(lb, b)),
        1 => (0..3u8, 1..3u32, lasts()).prop_map(|(lb, weight, lasts)| Step::Weights(lb, weight, lasts)),
        5 => (1..1500u16).prop_map(Step::Time),
        1 => Just(Step::Copied),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, and however many things happen between two builds.
    #[test]
    fn it_is_what_a_look_at_everything_gives(steps in prop::collection::vec(prop::collection::vec(step(), 1..3), 1..25)) {
        let mut world = World::new();
        let mut snapshot = world.build(None);
        for some in steps {
            some.into_iter().for_each(|step| world.take(step));
            let whole = world.build(Some(&forgetful(&snapshot)));
            snapshot = world.build(Some(&snapshot));
            prop_assert_eq!(&snapshot, &whole);
            prop_assert_eq!(snapshot.next_change(), whole.next_change());
        }
    }
}

/// Of three load balancers with two pools each, what happens to one is looked for in that one alone; and when
/// nothing happens, or everything is read anew and is the same, nowhere.
#[test]
fn only_what_may_have_changed_is_looked_at() {
    let but = |touched: &str| -> BTreeSet<String> {
        let untouched = ["lb0", "lb1", "lb2"].into_iter().filter(|lb| *lb != touched);
        untouched
            .flat_map(|lb| [format!("{lb}/blue"), format!("{lb}/green")])
            .collect()
    };
    let mut world = World::new();
    world.take(Step::Order(0, 1, Mode::Drain, Some(500)));
    let mut snapshot = world.build(None);
    assert_eq!(not_looked_at(&world, &snapshot), but("none"));
    for (step, touched) in [
        (Step::Verdict(1, 0, false), "lb1"),
        (Step::Order(2, 1, Mode::Maintenance, None), "lb2"),
        (Step::Copied, "none"),
        (Step::Config(2, 3, 0, 1), "lb2"),
        (Step::Time(499), "none"),
        (Step::Time(1), "lb0"),
        (Step::Verdict(1, 0, true), "lb1"),
        // The backend that returned climbs for a second.
        (Step::Time(100), "lb1"),
        (Step::Time(1), "none"),
    ] {
        let words = format!("{step:?}");
        world.take(step);
        let seen = not_looked_at(&world, &snapshot);
        snapshot = world.build(Some(&snapshot));
        assert_eq!(seen, but(touched), "{words}");
    }
}
