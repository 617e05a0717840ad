//! The hub's brain under seeded storms, and the scenarios that matter most, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::orders::OrderKey;
use console::OrderError;
use model::config::Config;
use model::snapshot::{Eligibility, Snapshot};
use model::state::{Ejected, Health, Life, Members, Mode, Order, OrderAction, Overrides, Timestamp, Verdict};
use model::status::{ListenerStatus, MAX_EVENTS};

use super::core::{Core, Effect, Input};
use super::fixture::{address, config, config_with, id, key, name, started};

/// What stands around the core: it carries out the effects as the shell does.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Timestamp,
    published: Arc<Snapshot>,
    pub(super) publishes: usize,
    pub(super) probed: BTreeSet<u16>,
    /// The membership that each check is of.
    pub(super) lives: BTreeMap<u16, u64>,
    pub(super) stored: Overrides,
    pub(super) remembered: Members,
    log: Vec<(String, String)>,
}

impl World {
    pub(super) fn new(config: Arc<Config>, stored: Overrides) -> Self {
        let (core, first) = Core::new(started(), "test.toml".into(), config.into(), stored.clone());
        let published = core.snapshot().clone();
        let mut world = Self {
            core,
            now: started(),
            published,
            publishes: 0,
            probed: BTreeSet::new(),
            lives: BTreeMap::new(),
            stored,
            remembered: Members::default(),
            log: Vec::new(),
        };
        world.apply(first);
        delete_lapsed(&mut world.stored, world.now);
        world
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Publish(snapshot) => {
                    assert!(snapshot.revision >= self.published.revision);
                    self.published = snapshot;
                    self.publishes += 1;
                }
                Effect::Probe(targets) => {
                    let lives = targets
                        .iter()
                        .map(|target| (target.backend.address.port(), target.life.member));
                    self.lives = lives.collect();
                    self.probed = self.lives.keys().copied().collect();
                }
                Effect::Forget(orders) => orders.iter().for_each(|(key, _)| forget(&mut self.stored, key)),
                Effect::Remember(members) => self.remembered = members,
                Effect::Log(event) => self.log.push((event.kind.clone(), event.message.clone())),
            }
        }
    }

    pub(super) fn give(&mut self, input: Input) {
        let effects = self.core.handle(self.now, input);
        self.apply(effects);
    }

    pub(super) fn order(
        &mut self,
        port: u16,
        action: OrderAction,
        lasts: Option<Duration>,
    ) -> Result<(), OrderError> {
        let order = Order {
            key: key(port),
            action,
            lasts,
            by: "alice".into(),
        };
        self.core.check(&order)?;
        let overrides = stored_with(&mut self.stored, &order, self.now);
        self.give(Input::Ordered { order, overrides });
        Ok(())
    }

    pub(super) fn verdict(&mut self, port: u16, health: Health, reason: &str) {
        self.verdict_of(0, port, health, reason);
    }

    pub(super) fn verdict_of(&mut self, life: u64, port: u16, health: Health, reason: &str) {
        self.give(Input::Verdicts(vec![Verdict {
            backend: id(port),
            health,
            reason: reason.into(),
            life: Life::of_member(life),
        }]));
    }

    fn eject(&mut self, port: u16, lasts: Duration) {
        self.eject_of(0, port, lasts);
    }

    pub(super) fn eject_of(&mut self, life: u64, port: u16, lasts: Duration) {
        self.give(Input::Ejected(Ejected {
            backend: id(port),
            life,
            reason: "5 failures in a row".into(),
            lasts,
        }));
    }

    /// Lets time pass as the shell does: from deadline to deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        let mut steps = 0;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            assert!(at > self.now, "a deadline in the past would spin");
            steps += 1;
            assert!(steps < 10_000, "deadlines without end");
            self.now = at;
            self.give(Input::Time);
        }
        self.now = end;
        delete_lapsed(&mut self.stored, end);
    }

    pub(super) fn eligibility(&self) -> BTreeMap<u16, Eligibility> {
        let pool = self.published.pool(&name("shop"), &name("default")).unwrap();
        pool.members
            .iter()
            .map(|m| (m.id.address.port(), m.eligibility))
            .collect()
    }

    pub(super) fn logged(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.log.iter().filter(|(k, _)| k == kind);
        of_kind.map(|(_, message)| message.as_str()).collect()
    }
}

/// As the store does it.
pub(super) fn stored_with(stored: &mut Overrides, order: &Order, now: Timestamp) -> Overrides {
    match order.upon(stored.backends.get(&order.key), now) {
        Some(standing) => _ = stored.backends.insert(order.key.clone(), standing),
        None => _ = stored.backends.remove(&order.key),
    }
    stored.clone()
}

pub(super) fn forget(stored: &mut Overrides, key: &OrderKey) {
    match key {
        OrderKey::Backend(key) => _ = stored.backends.remove(key),
        OrderKey::Route(key) => _ = stored.routes.remove(key),
    }
}

/// As whoever follows the orders does it.
pub(super) fn delete_lapsed(stored: &mut Overrides, now: Timestamp) {
    let over = |expires: Option<Timestamp>| expires.is_some_and(|at| at <= now);
    stored.backends.take_out(|_, order| over(order.expires));
    stored.routes.take_out(|_, order| over(order.expires));
}

const MINUTE: Duration = Duration::from_secs(60);

/// Drain for ten minutes: it holds for ten minutes, is on disk, and then ends by itself, on disk too.
#[test]
fn an_order_with_a_time_ends_by_itself() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world
        .order(1, OrderAction::Mode(Mode::Drain), Some(10 * MINUTE))
        .unwrap();
    assert_eq!(world.eligibility()[&1], Eligibility::Draining);
    assert_eq!(world.stored.backends.len(), 1);
    world.pass(9 * MINUTE);
    assert_eq!(world.eligibility()[&1], Eligibility::Draining);
    world.pass(MINUTE);
    assert_eq!(world.eligibility()[&1], Eligibility::Eligible);
    assert!(world.stored.backends.is_empty());
    assert_eq!(
        world.logged("order"),
        [
            "drain by alice for 10m",
            "drain by alice has ended; as configured again"
        ]
    );
}

/// The process restarts: what is stored holds, what has lapsed meanwhile or is about nobody does not.
#[test]
fn orders_come_back_after_a_restart() {
    let mut world = World::new(config(&[1, 2, 3]), Overrides::default());
    world.order(1, OrderAction::Mode(Mode::Drain), None).unwrap();
    world
        .order(2, OrderAction::Mode(Mode::Drain), Some(Duration::from_millis(1)))
        .unwrap();
    world.order(3, OrderAction::Mode(Mode::Drain), None).unwrap();
    let mut stored = world.stored.clone();
    stored.backends.get_mut(&key(2)).unwrap().expires = Some(started());
    let world = World::new(config(&[1, 2]), stored);
    assert_eq!(
        world.eligibility(),
        BTreeMap::from([(1, Eligibility::Draining), (2, Eligibility::Eligible)])
    );
    // That of a backend that is not there waits.
    assert_eq!(
        world.stored.backends.keys().collect::<Vec<_>>(),
        [&key(1), &key(3)]
    );
}

#[test]
fn a_backend_in_maintenance_is_not_checked_and_late_verdicts_do_not_count() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world
        .order(1, OrderAction::Mode(Mode::Maintenance), None)
        .unwrap();
    assert_eq!(world.probed, BTreeSet::from([2]));
    world.verdict(1, Health::Down, "connection refused");
    assert_eq!(world.logged("backend_down"), Vec::<&str>::new());
    world.order(1, OrderAction::Mode(Mode::Ready), None).unwrap();
    assert_eq!(world.probed, BTreeSet::from([1, 2]));
    assert_eq!(world.eligibility()[&1], Eligibility::Eligible);
}

/// Mode and weight are kept apart: each order replaces its own part, `ready` ends both.
#[test]
fn a_weight_keeps_the_mode_and_ready_forgets_both() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.order(1, OrderAction::Mode(Mode::Drain), None).unwrap();
    world.order(1, OrderAction::Weight(7), None).unwrap();
    let order = world.core.order(&key(1)).unwrap();
    assert_eq!((order.mode, order.weight), (Mode::Drain, Some(7)));
    world.order(1, OrderAction::Mode(Mode::Ready), None).unwrap();
    assert_eq!(world.core.order(&key(1)), None);
    assert!(world.stored.backends.is_empty());
}

#[test]
fn an_order_about_nobody_is_refused_with_the_names_there_are() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    let error = world.order(9, OrderAction::Mode(Mode::Drain), None).unwrap_err();
    assert_eq!(
        error,
        OrderError::UnknownBackend {
            load_balancer: name("shop"),
            address: address(9),
            known: vec![address(1), address(2)],
        }
    );
    let mut order = Order {
        key: key(1),
        action: OrderAction::Weight(1001),
        lasts: None,
        by: "alice".into(),
    };
    assert_eq!(world.core.check(&order), Err(OrderError::BadWeight(1001)));
    order.key.load_balancer = name("nobody");
    assert!(matches!(
        world.core.check(&order),
        Err(OrderError::UnknownLoadBalancer { .. })
    ));
    assert_eq!(world.publishes, 0);
}

/// A bad file: the record says so, and nothing else changes.
#[test]
fn a_refused_config_changes_nothing_but_the_record() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.verdict(1, Health::Down, "status 503");
    let before = world.published.clone();
    let publishes = world.publishes;
    world.give(Input::Refused(vec![
        "test.toml:1:1: no\n 1 | x".into(),
        "b".into(),
    ]));
    assert_eq!(world.published, before);
    assert_eq!(world.publishes, publishes);
    let view = world.core.view();
    let reload = view.config.last_reload.unwrap();
    assert!(!reload.ok && reload.messages.len() == 2);
    assert_eq!((view.config.revision, view.reloads.refused), (1, 1));
    assert_eq!(
        world.logged("reload_refused"),
        ["revision 1 stays in force: test.toml:1:1: no (and 1 more error)"]
    );
}

/// Health survives a reload for who stays; health of who goes is forgotten, an order for him waits.
#[test]
fn a_reload_keeps_what_it_does_not_concern() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.verdict(1, Health::Down, "status 503");
    world.order(2, OrderAction::Mode(Mode::Drain), None).unwrap();
    world.give(Input::Loaded(config(&[1, 3]).into()));
    assert_eq!(
        world.eligibility(),
        BTreeMap::from([(1, Eligibility::Down), (3, Eligibility::Eligible)])
    );
    assert_eq!(world.core.order(&key(2)), None);
    assert_eq!(world.probed, BTreeSet::from([1, 3]));
    assert_eq!(world.core.view().config.revision, 2);
    assert!(
        world
            .logged("order")
            .contains(&"drain by alice waits: the backend is no longer configured; should it be within a day, it holds again")
    );
}

/// Scenario: a backend is in maintenance, another one drains for a minute. A change leaves both out, other orders are
/// given, the process starts again, the change is taken back. The first is in maintenance in all that is published and is
/// never checked; the time of the other is over.
#[test]
fn who_comes_back_with_a_change_taken_back_has_his_order() {
    let mut world = World::new(config(&[1, 2, 3]), Overrides::default());
    let maintenance = OrderAction::Mode(Mode::Maintenance);
    world.order(2, maintenance, None).unwrap();
    world
        .order(3, OrderAction::Mode(Mode::Drain), Some(MINUTE))
        .unwrap();
    world.give(Input::Loaded(config(&[1]).into()));
    world.order(1, OrderAction::Weight(7), None).unwrap();
    world.pass(2 * MINUTE);
    let mut world = World::new(config(&[1]), world.stored);
    let publishes = world.publishes;
    world.give(Input::Loaded(config(&[1, 2, 3]).into()));
    assert_eq!(world.publishes, publishes + 1);
    assert_eq!(world.eligibility()[&2], Eligibility::Maintenance);
    assert_eq!(world.eligibility()[&3], Eligibility::Eligible);
    assert_eq!(world.probed, BTreeSet::from([1, 3]));
    world.order(2, OrderAction::Mode(Mode::Ready), None).unwrap();
    assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
}

#[test]
fn an_unchanged_config_is_no_new_revision() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.give(Input::Loaded(config(&[1, 2]).into()));
    let view = world.core.view();
    assert_eq!((view.config.revision, view.reloads.ok), (1, 1));
    assert_eq!(world.publishes, 0);
    assert_eq!(view.config.last_reload.unwrap().messages, ["nothing changed"]);
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let mut world = World::new(config(&[1]), Overrides::default());
    let mut changed = Config::clone(&config(&[1]));
    changed.node.threads = Some(7);
    changed.admin.listen = "127.0.0.1:7799".parse().unwrap();
    world.give(Input::Loaded(Arc::new(changed).into()));
    let messages = world.core.view().config.last_reload.unwrap().messages;
    for key in ["node.threads", "admin.listen"] {
        let line = format!("{key} changed; it takes effect after a restart");
        assert!(messages.contains(&line), "{messages:?}");
    }
}

/// A check that goes away takes its verdict with it; coming back it starts unchecked.
#[test]
fn a_verdict_lives_as_long_as_its_check() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.verdict(1, Health::Down, "status 503");
    let without = config_with(&[1, 2], "slow_start = \"0s\"\nhealth = false\n");
    world.give(Input::Loaded(without.into()));
    assert_eq!(world.eligibility()[&1], Eligibility::Eligible);
    assert!(world.probed.is_empty());
    world.give(Input::Loaded(config(&[1, 2]).into()));
    assert_eq!(world.eligibility()[&1], Eligibility::Eligible);
    assert_eq!(world.probed, BTreeSet::from([1, 2]));
}

#[test]
fn an_ejected_backend_returns_when_its_time_is_over() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    world.eject(1, Duration::from_secs(10));
    assert_eq!(world.eligibility()[&1], Eligibility::Ejected);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.eligibility()[&1], Eligibility::Eligible);
    assert_eq!(world.core.view().counts.get(&id(1)).unwrap().ejections, 1);
    assert_eq!(
        world.logged("backend_ejected"),
        ["5 failures in a row; out for 10s"]
    );
    assert_eq!(
        world.logged("backend_returned"),
        ["ejection is over (was: 5 failures in a row)"]
    );
}

#[test]
fn a_pool_that_is_all_down_and_recovers_says_so_once_each() {
    let mut world = World::new(config(&[1, 2]), Overrides::default());
    for port in [1, 2] {
        world.verdict(port, Health::Down, "connection refused");
        world.verdict(port, Health::Down, "timeout after 1s");
    }
    world.pass(Duration::from_secs(5));
    world.verdict(2, Health::Up, "status 200");
    assert_eq!(world.logged("pool_all_down").len(), 1);
    assert_eq!(world.logged("pool_recovered").len(), 1);
    assert_eq!(
        world.logged("backend_down"),
        ["connection refused (first check)"; 2]
    );
    assert_eq!(world.logged("backend_up"), ["status 200 (was down for 5s)"]);
}

/// A listener that does not open is reported once, tried again each second, and its opening is reported.
#[test]
fn a_listener_that_fails_is_tried_again_until_it_opens() {
    let listener = |error: Option<&str>| {
        let status = ListenerStatus {
            name: name("http"),
            address: address(80),
            open: error.is_none(),
            error: error.map(Into::into),
            connections: 0,
            certificates: Vec::new(),
        };
        Input::Listeners(vec![(name("shop"), status)])
    };
    let mut world = World::new(config(&[1]), Overrides::default());
    world.give(listener(Some("address in use")));
    for _ in 0..3 {
        let publishes = world.publishes;
        world.pass(Duration::from_secs(1));
        assert_eq!(world.publishes, publishes + 1);
        world.give(listener(Some("address in use")));
    }
    world.give(listener(None));
    assert_eq!(world.logged("listener_failed").len(), 1);
    assert_eq!(world.logged("listener_open").len(), 1);
    assert_eq!(world.core.deadline(), None);
    world.give(Input::Listeners(Vec::new()));
    assert_eq!(world.logged("listener_closed").len(), 1);
}

#[test]
fn events_are_bounded_and_the_newest_stay() {
    let mut world = World::new(config(&[1]), Overrides::default());
    for n in 0..MAX_EVENTS * 2 {
        let health = if n % 2 == 0 { Health::Down } else { Health::Up };
        world.verdict(1, health, &format!("check {n}"));
    }
    let view = world.core.view();
    assert_eq!(view.events.len(), MAX_EVENTS);
    let newest = view.events.iter().rev().take(4).map(|e| &e.message);
    let last = format!("check {}", MAX_EVENTS * 2 - 1);
    assert!(newest.into_iter().any(|m| m.starts_with(&last)));
}

/// A small generator, so that a failing seed is a number one can type in.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What the storm expects of one backend, kept in the simplest way.
#[derive(Clone, Debug, Default)]
struct Shadow {
    mode: Mode,
    weight: Option<u32>,
    order_ends: Option<Timestamp>,
    down: bool,
    ejected_until: Option<Timestamp>,
}

impl Shadow {
    fn settle(&mut self, now: Timestamp) {
        if self.order_ends.is_some_and(|at| at <= now) {
            (self.mode, self.weight, self.order_ends) = (Mode::Ready, None, None);
        }
        if self.ejected_until.is_some_and(|at| at <= now) {
            self.ejected_until = None;
        }
    }

    fn expected(&self) -> Eligibility {
        match self.mode {
            Mode::Maintenance => Eligibility::Maintenance,
            Mode::Drain => Eligibility::Draining,
            Mode::Ready if self.weight == Some(0) => Eligibility::ZeroWeight,
            Mode::Ready if self.down => Eligibility::Down,
            Mode::Ready if self.ejected_until.is_some() => Eligibility::Ejected,
            Mode::Ready => Eligibility::Eligible,
        }
    }
}

/// Orders, verdicts, ejections, reloads and time in any order: after each step what is published is what the
/// simple model expects, what is stored is what is in force, and who is checked is who should be.
#[test]
fn storms_never_make_the_layers_disagree() {
    for seed in 1..=sim::seeds(60) {
        let storm = std::panic::catch_unwind(|| storm(seed));
        assert!(storm.is_ok(), "failing seed: {seed}");
    }
}

fn storm(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut ports: Vec<u16> = vec![1, 2, 3];
    let closed = |ports: &[u16]| {
        config_with(
            ports,
            "slow_start = \"0s\"\nhealth_endpoint = \"/\"\nall_down = \"fail_closed\"\n",
        )
    };
    let mut world = World::new(closed(&ports), Overrides::default());
    let mut shadows: BTreeMap<u16, Shadow> = ports.iter().map(|p| (*p, Shadow::default())).collect();
    let mut away: BTreeMap<u16, Shadow> = BTreeMap::new();
    for _ in 0..200 {
        let port = ports[dice.below(ports.len() as u64) as usize];
        let shadow = shadows.get_mut(&port).unwrap();
        match dice.below(8) {
            0 | 1 => {
                let down = dice.below(2) == 0;
                let health = if down { Health::Down } else { Health::Up };
                world.verdict(port, health, "seen");
                if shadow.mode != Mode::Maintenance {
                    shadow.down = down;
                }
            }
            2 => {
                let lasts = Duration::from_millis(1 + dice.below(20_000));
                world.eject(port, lasts);
                shadow.ejected_until = Some(world.now.plus(lasts));
            }
            3 | 4 => {
                let lasts = (dice.below(2) == 0).then(|| Duration::from_millis(1 + dice.below(20_000)));
                let mode = [Mode::Ready, Mode::Drain, Mode::Maintenance][dice.below(3) as usize];
                world.order(port, OrderAction::Mode(mode), lasts).unwrap();
                shadow.mode = mode;
                shadow.order_ends = lasts.map(|l| world.now.plus(l));
                if mode == Mode::Ready {
                    (shadow.weight, shadow.order_ends) = (None, None);
                }
            }
            5 => {
                let weight = dice.below(3) as u32;
                world.order(port, OrderAction::Weight(weight), None).unwrap();
                (shadow.weight, shadow.order_ends) = (Some(weight), None);
            }
            6 => {
                ports = (1..=4).filter(|_| dice.below(4) > 0).collect();
                if ports.is_empty() {
                    ports.push(1);
                }
                world.give(Input::Loaded(closed(&ports).into()));
                for (p, shadow) in std::mem::take(&mut shadows) {
                    // Its order waits; what was found of it is forgotten.
                    let order = Shadow {
                        down: false,
                        ejected_until: None,
                        ..shadow.clone()
                    };
                    match ports.contains(&p) {
                        true => shadows.insert(p, shadow),
                        false => away.insert(p, order),
                    };
                }
                for p in &ports {
                    let waits = away.remove(p).unwrap_or_default();
                    shadows.entry(*p).or_insert(waits);
                }
            }
            _ => world.pass(Duration::from_millis(dice.below(15_000))),
        }
        agree(&mut world, &mut shadows, &mut away);
    }
}

fn agree(world: &mut World, shadows: &mut BTreeMap<u16, Shadow>, away: &mut BTreeMap<u16, Shadow>) {
    let now = world.now;
    let all = shadows.values_mut().chain(away.values_mut());
    all.for_each(|s| s.settle(now));
    let expected: BTreeMap<u16, Eligibility> = shadows.iter().map(|(p, s)| (*p, s.expected())).collect();
    assert_eq!(world.eligibility(), expected);
    let ordered: BTreeSet<u16> = shadows
        .iter()
        .chain(away.iter())
        .filter(|(_, s)| s.mode != Mode::Ready || s.weight.is_some())
        .map(|(p, _)| *p)
        .collect();
    let stored: BTreeSet<u16> = world.stored.backends.keys().map(|k| k.address.port()).collect();
    assert_eq!(stored, ordered);
    let checked: BTreeSet<u16> = shadows
        .iter()
        .filter(|(_, s)| s.mode != Mode::Maintenance)
        .map(|(p, _)| *p)
        .collect();
    assert_eq!(world.probed, checked);
    assert_eq!(*world.core.snapshot(), world.published);
    assert!(world.core.deadline().is_none_or(|at| at > now));
}
