//! Orders for the weights of splits under seeded storms: operators who order at once for routes and backends, reloads
//! that take pools and routes away and bring them back, lapsing time, refusals, and restarts from what was stored.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use console::OrderError;
use model::config::{Config, Name};
use model::state::{Mode, Order, OrderAction, Overrides, RouteKey, RouteWeights, Timestamp};

use super::core::{Core, Effect, Input};
use super::fixture::{key, name, started};
use super::simulation::{delete_lapsed, forget, stored_with};

/// The routes that there may be, and the pools of their splits.
const ROUTES: [&str; 3] = ["canary", "beta", "search"];
const POOLS: [&str; 3] = ["a", "b", "c"];

/// A shop whose routes split over these pools.
fn config(routes: &BTreeMap<&'static str, Vec<&'static str>>) -> Arc<Config> {
    let mut text = String::from("[load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\n");
    for (route, pools) in routes {
        let parts = pools
            .iter()
            .map(|pool| format!("{{ pool = \"{pool}\", weight = 1 }}"));
        let parts = parts.collect::<Vec<_>>().join(", ");
        text += &format!(
            "[[load_balancers.shop.routes]]\nname = \"{route}\"\nmatch = {{ path = \"/{route}\" }}\nsplit = [{parts}]\n"
        );
    }
    // So that every pool is led to, whatever the routes are.
    let all = POOLS.map(|pool| format!("{{ pool = \"{pool}\" }}")).join(", ");
    text += &format!("[[load_balancers.shop.routes]]\nname = \"rest\"\nsplit = [{all}]\n");
    for (index, pool) in POOLS.iter().enumerate() {
        text += &format!(
            "[load_balancers.shop.pools.{pool}]\nhealth = false\nbackend_servers = [\"10.0.0.1:{}\"]\n",
            index + 1
        );
    }
    let parsed = model::parse::parse_toml(&text, "test.toml");
    parsed
        .map(Arc::new)
        .unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]))
}

/// An order as the simplest model keeps it: weights by pool, and its end.
type Expected = BTreeMap<&'static str, (BTreeMap<Name, u32>, Option<Timestamp>)>;

/// The core, what it has stored, and what should hold.
struct World {
    core: Core,
    now: Timestamp,
    config: Arc<Config>,
    routes: BTreeMap<&'static str, Vec<&'static str>>,
    stored: Overrides,
    expected: Expected,
    drained: Option<u16>,
}

impl World {
    fn new() -> Self {
        let routes: BTreeMap<_, _> = ROUTES.into_iter().map(|route| (route, vec!["a", "b"])).collect();
        let config = config(&routes);
        let stored = Overrides::default();
        let (core, _) = Core::new(
            started(),
            "test.toml".into(),
            config.clone().into(),
            stored.clone(),
        );
        Self {
            core,
            now: started(),
            config,
            routes,
            stored,
            expected: Expected::new(),
            drained: None,
        }
    }

    fn give(&mut self, input: Input) {
        for effect in self.core.handle(self.now, input) {
            if let Effect::Forget(orders) = effect {
                orders.iter().for_each(|(key, _)| forget(&mut self.stored, key));
            }
        }
    }

    /// Orders weights; the answer of the plan.
    fn weigh(
        &mut self,
        route: &'static str,
        weights: Option<BTreeMap<Name, u32>>,
        lasts: Option<Duration>,
    ) -> Result<(), OrderError> {
        let order = RouteWeights {
            key: RouteKey {
                load_balancer: name("shop"),
                route: name(route),
            },
            weights,
            lasts,
            by: "alice".into(),
        };
        self.core.check_weights(self.now, &order)?;
        match order.in_force(self.now) {
            Some(standing) => _ = self.stored.routes.insert(order.key.clone(), standing),
            None => _ = self.stored.routes.remove(&order.key),
        }
        let overrides = self.stored.clone();
        self.give(Input::RouteOrdered { order, overrides });
        Ok(())
    }

    /// Another operator drains a backend, or frees the one that is drained.
    fn drain(&mut self, port: u16, mode: Mode) {
        let order = Order {
            key: key(port),
            action: OrderAction::Mode(mode),
            lasts: None,
            by: "bob".into(),
        };
        self.core.check(&order).unwrap();
        let overrides = stored_with(&mut self.stored, &order, self.now);
        self.give(Input::Ordered { order, overrides });
        self.drained = (mode == Mode::Drain).then_some(port);
    }

    /// The process ends without a word and starts again from what was stored.
    fn restart(&mut self) {
        let (core, effects) = Core::new(
            self.now,
            "test.toml".into(),
            self.config.clone().into(),
            self.stored.clone(),
        );
        self.core = core;
        for effect in effects {
            if let Effect::Forget(orders) = effect {
                orders.iter().for_each(|(key, _)| forget(&mut self.stored, key));
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.now = at;
            self.give(Input::Time);
        }
        self.now = end;
        delete_lapsed(&mut self.stored, end);
    }

    /// What is published, what is stored and what should hold are one.
    fn agree(&mut self) {
        let now = self.now;
        self.expected
            .retain(|_, (_, ends)| ends.is_none_or(|at| at > now));
        let published = self.core.snapshot().route_orders(&name("shop"));
        let shown: BTreeMap<String, _> = published
            .iter()
            .map(|(route, order)| (route.to_string(), (order.weights.clone(), order.expires)))
            .collect();
        // The others wait for their routes and pools to come back.
        let fits = |route: &str, weights: &BTreeMap<Name, u32>| {
            let pools = self.routes.get(route);
            pools.is_some_and(|pools| weights.keys().all(|pool| pools.contains(&pool.as_str())))
        };
        let expected = |all: bool| -> BTreeMap<String, _> {
            let orders = self.expected.iter();
            let orders = orders.filter(|(route, (weights, _))| all || fits(route, weights));
            orders
                .map(|(route, order)| ((*route).to_owned(), order.clone()))
                .collect()
        };
        assert_eq!(shown, expected(false), "published");
        let stored: BTreeMap<String, _> = self
            .stored
            .routes
            .iter()
            .map(|(key, order)| (key.route.to_string(), (order.weights.clone(), order.expires)))
            .collect();
        assert_eq!(stored, expected(true), "stored");
        let drained: Vec<u16> = self
            .stored
            .backends
            .keys()
            .map(|key| key.address.port())
            .collect();
        assert_eq!(
            drained,
            self.drained.into_iter().collect::<Vec<_>>(),
            "the other's order"
        );
    }
}

/// A small generator, so that a failing seed is a number one can type in.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n).unwrap()
    }
}

#[test]
fn storms_leave_exactly_the_orders_that_stand() {
    for seed in 1..=sim::seeds(60) {
        let storm = std::panic::catch_unwind(|| storm(seed));
        assert!(storm.is_ok(), "failing seed: {seed}");
    }
}

fn storm(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut world = World::new();
    for _ in 0..150 {
        let route = ROUTES[dice.below(3)];
        match dice.below(8) {
            0..=2 => order(&mut world, &mut dice, route),
            3 => {
                let known = world.routes.contains_key(route);
                assert_eq!(world.weigh(route, None, None).is_ok(), known);
                if known {
                    world.expected.remove(route);
                }
            }
            4 => match world.drained {
                Some(port) => world.drain(port, Mode::Ready),
                None => world.drain(1 + dice.below(3) as u16, Mode::Drain),
            },
            5 => {
                world.routes.clear();
                for route in ROUTES {
                    if dice.below(5) > 0 {
                        world.routes.insert(route, POOLS[..2 + dice.below(2)].to_vec());
                    }
                }
                world.config = config(&world.routes);
                world.give(Input::Loaded(world.config.clone().into()));
            }
            6 => world.restart(),
            _ => world.pass(Duration::from_millis(dice.below(15_000) as u64)),
        }
        world.agree();
    }
}

/// An order for some pools, some of which the split may not have, some weights of which may be none.
fn order(world: &mut World, dice: &mut Dice, route: &'static str) {
    let mut weights = BTreeMap::new();
    for pool in POOLS {
        if dice.below(2) == 0 {
            weights.insert(name(pool), [0, 5, 95, 10_001][dice.below(20) % 4] as u32);
        }
    }
    let lasts = (dice.below(2) == 0).then(|| Duration::from_millis(1 + dice.below(20_000) as u64));
    let pools = world.routes.get(route).cloned().unwrap_or_default();
    let fits = weights.keys().all(|pool| pools.contains(&pool.as_str()));
    let some = weights.values().any(|weight| *weight > 0);
    let bounded = weights.values().all(|weight| *weight <= 10_000);
    let taken = world.weigh(route, Some(weights.clone()), lasts);
    assert_eq!(
        taken.is_ok(),
        fits && some && bounded,
        "{taken:?} {weights:?} {pools:?}"
    );
    if taken.is_ok() {
        let ends = lasts.map(|lasts| world.now.plus(lasts));
        world.expected.insert(route, (weights, ends));
    }
}
