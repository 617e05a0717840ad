//! The snapshot as a function of the three layers, the snapshot before it and the time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::config::{AllDown, Config, Name};
use evenkeel_model::parse::parse_toml;
use evenkeel_model::snapshot::{Eligibility, Layers, Member, PoolState, Snapshot};
use evenkeel_model::state::{
    BackendId, Ejection, Health, HealthState, Mode, Observed, Override, OverrideKey, Overrides, Timestamp,
};
use proptest::prelude::*;

const A: &str = "10.0.0.1:9001";
const B: &str = "10.0.0.2:9001";
const C: &str = "10.0.0.3:9001";
const T0: Timestamp = Timestamp(1_000_000);

/// The three layers, to be changed as a scenario goes on.
struct World {
    config: Arc<Config>,
    overrides: Overrides,
    observed: Observed,
}

impl World {
    /// One load balancer `shop` with these backends and further lines for its pool.
    fn new(backends: &[&str], more: &str) -> Self {
        Self {
            config: config(backends, more),
            overrides: Overrides::default(),
            observed: Observed::default(),
        }
    }

    fn build(&self, previous: Option<&Snapshot>, now: Timestamp) -> Snapshot {
        let layers = Layers {
            revision: 1,
            config: &self.config,
            overrides: &self.overrides,
            observed: &self.observed,
        };
        Snapshot::build(layers, previous, now)
    }

    fn health(&mut self, address: &str, health: Health) {
        let state = HealthState {
            health,
            reason: "as the test says".into(),
            since: T0,
        };
        self.observed.health.insert(id(address), state);
    }

    fn eject(&mut self, address: &str, until: Timestamp) {
        let ejection = Ejection {
            reason: "as the test says".into(),
            since: T0,
            until,
        };
        self.observed.ejections.insert(id(address), ejection);
    }

    fn order(&mut self, address: &str, mode: Mode, weight: Option<u32>, expires: Option<Timestamp>) {
        let order = Override {
            mode,
            weight,
            by: "alice".into(),
            since: T0,
            expires,
        };
        self.overrides.backends.insert(key(address), order);
    }
}

fn config(backends: &[&str], more: &str) -> Arc<Config> {
    let text = format!("[load_balancers.shop]\nbackend_servers = {backends:?}\n{more}\n");
    Arc::new(parse_toml(&text, "test.toml").unwrap())
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn id(address: &str) -> BackendId {
    BackendId {
        load_balancer: name("shop"),
        pool: name("default"),
        address: address.parse().unwrap(),
    }
}

fn key(address: &str) -> OverrideKey {
    OverrideKey {
        load_balancer: name("shop"),
        address: address.parse().unwrap(),
    }
}

fn after(ms: u64) -> Timestamp {
    T0.plus(Duration::from_millis(ms))
}

fn pool(snapshot: &Snapshot) -> &Arc<PoolState> {
    snapshot.pool(&name("shop"), &name("default")).unwrap()
}

fn member<'s>(snapshot: &'s Snapshot, address: &str) -> &'s Member {
    let members = pool(snapshot).members.iter();
    members.into_iter().find(|m| m.id == id(address)).unwrap()
}

// ---- eligibility ----

/// An order outranks what checks found, a weight of nothing outranks health, health outranks an ejection.
#[test]
fn the_strongest_reason_is_the_one_shown() {
    let mut world = World::new(&[A, B, C], "");
    for address in [A, B] {
        world.health(address, Health::Down);
        world.eject(address, after(5_000));
    }
    let shown = |world: &World| member(&world.build(None, T0), A).eligibility;
    assert_eq!(shown(&world), Eligibility::Down);
    world.health(A, Health::Up);
    assert_eq!(shown(&world), Eligibility::Ejected);
    world.health(A, Health::Down);
    for (mode, weight, expected) in [
        (Mode::Ready, Some(0), Eligibility::ZeroWeight),
        (Mode::Drain, Some(0), Eligibility::Draining),
        (Mode::Maintenance, None, Eligibility::Maintenance),
    ] {
        world.order(A, mode, weight, None);
        assert_eq!(shown(&world), expected);
        assert_eq!(member(&world.build(None, T0), A).effective_weight, 0);
    }
}

/// A backend that no check has seen yet takes traffic: a start needs no waiting.
#[test]
fn an_unchecked_backend_takes_requests() {
    let snapshot = World::new(&[A], "").build(None, T0);
    assert_eq!(member(&snapshot, A).eligibility, Eligibility::Eligible);
    assert_eq!(member(&snapshot, A).health.health, Health::Unchecked);
}

/// Where a layer is switched off, what it once found has no say.
#[test]
fn a_check_or_ejection_that_is_switched_off_is_forgotten() {
    let mut world = World::new(&[A, B], "health = false\npassive = false");
    world.health(A, Health::Down);
    world.eject(B, after(5_000));
    let snapshot = world.build(None, T0);
    assert_eq!(member(&snapshot, A).eligibility, Eligibility::Eligible);
    assert_eq!(member(&snapshot, B).eligibility, Eligibility::Eligible);
    assert_eq!(snapshot.next_change(), None);
}

/// An ordered weight replaces the configured one, and a weight no config could have is held to the greatest.
#[test]
fn an_ordered_weight_is_in_force_and_bounded() {
    let mut world = World::new(&[A, B], "");
    world.order(A, Mode::Ready, Some(5), None);
    world.order(B, Mode::Ready, Some(u32::MAX), None);
    let snapshot = world.build(None, T0);
    assert_eq!(member(&snapshot, A).effective_weight, 500);
    assert_eq!(member(&snapshot, B).effective_weight, 100_000);
}

// ---- slow start ----

/// A backend that returns beside another climbs from a tenth to the whole weight in ten steps.
#[test]
fn a_backend_that_returns_climbs_in_steps_of_a_tenth() {
    let mut world = World::new(&[A, B], "slow_start = \"10s\"");
    world.health(A, Health::Down);
    let mut snapshot = world.build(None, T0);
    world.health(A, Health::Up);
    for (ms, weight) in [
        (0, 10),
        (999, 10),
        (1_000, 20),
        (4_500, 50),
        (8_999, 90),
        (9_000, 100),
    ] {
        snapshot = world.build(Some(&snapshot), after(ms));
        assert_eq!(member(&snapshot, A).effective_weight, weight, "after {ms} ms");
        assert!(member(&snapshot, A).ramp_since.is_some());
        assert_eq!(member(&snapshot, B).effective_weight, 100);
    }
    snapshot = world.build(Some(&snapshot), after(10_000));
    assert_eq!(member(&snapshot, A).ramp_since, None);
    assert_eq!(member(&snapshot, A).effective_weight, 100);
    assert_eq!(snapshot.next_change(), None);
}

/// Whatever took it out: a drain, an ejection or a weight of nothing, it climbs when it returns.
#[test]
fn a_return_from_an_order_or_an_ejection_climbs_too() {
    for out in 0..3 {
        let mut world = World::new(&[A, B], "slow_start = \"10s\"");
        match out {
            0 => world.order(A, Mode::Drain, None, Some(after(5_000))),
            1 => world.eject(A, after(5_000)),
            _ => world.order(A, Mode::Ready, Some(0), Some(after(5_000))),
        }
        let before = world.build(None, T0);
        assert_eq!(member(&before, A).effective_weight, 0);
        let back = world.build(Some(&before), after(5_000));
        assert_eq!(member(&back, A).effective_weight, 10);
        assert_eq!(member(&back, A).ramp_since, Some(after(5_000)));
    }
}

/// A backend that a reload adds to a pool at work climbs; those that were there do not.
#[test]
fn a_backend_that_is_added_climbs() {
    let mut world = World::new(&[A], "");
    let before = world.build(None, T0);
    world.config = config(&[A, B], "");
    let grown = world.build(Some(&before), after(1));
    assert_eq!(member(&grown, A).effective_weight, 100);
    assert_eq!(member(&grown, B).effective_weight, 10);
}

/// At the start of the process, and for a pool that is new as a whole, nobody climbs: there is nobody to lean on.
#[test]
fn what_was_always_there_has_its_whole_weight() {
    let world = World::new(&[A, B], "");
    let first = world.build(None, T0);
    let second = world.build(Some(&first), after(60_000));
    for snapshot in [first, second] {
        assert_eq!(member(&snapshot, A).effective_weight, 100);
        assert_eq!(member(&snapshot, B).ramp_since, None);
    }
}

/// After a pool was down as a whole, the first to return takes full weight at once, the next one climbs.
#[test]
fn the_first_to_return_to_a_dead_pool_does_not_climb() {
    let mut world = World::new(&[A, B], "all_down = \"fail_closed\"");
    world.health(A, Health::Down);
    world.health(B, Health::Down);
    let dead = world.build(None, T0);
    world.health(A, Health::Up);
    let one = world.build(Some(&dead), after(1_000));
    assert_eq!(member(&one, A).effective_weight, 100);
    world.health(B, Health::Up);
    let both = world.build(Some(&one), after(2_000));
    assert_eq!(member(&both, B).effective_weight, 10);
    assert_eq!(member(&both, A).effective_weight, 100);
}

/// A slow start of nothing switches it off.
#[test]
fn without_slow_start_a_return_is_whole_at_once() {
    let mut world = World::new(&[A, B], "slow_start = 0");
    world.health(A, Health::Down);
    let before = world.build(None, T0);
    world.health(A, Health::Up);
    let back = world.build(Some(&before), after(1));
    assert_eq!(member(&back, A).effective_weight, 100);
    assert_eq!(back.next_change(), None);
}

// ---- a pool that is all down ----

/// `fail_open` uses those that only checks or ejection took out, never those that an operator took out.
#[test]
fn fail_open_uses_what_checks_took_out_and_respects_orders() {
    let mut world = World::new(&[A, B, C], "all_down = \"fail_open\"");
    world.health(A, Health::Down);
    world.eject(B, after(5_000));
    world.order(C, Mode::Drain, None, None);
    let snapshot = world.build(None, T0);
    assert!(pool(&snapshot).all_down);
    let shown = [A, B, C].map(|address| member(&snapshot, address).eligibility);
    assert_eq!(
        shown,
        [
            Eligibility::FailOpen,
            Eligibility::FailOpen,
            Eligibility::Draining
        ]
    );
    let weights = [A, B, C].map(|address| member(&snapshot, address).effective_weight);
    assert_eq!(weights, [100, 100, 0]);
}

/// `fail_closed` leaves nobody.
#[test]
fn fail_closed_uses_nobody() {
    let mut world = World::new(&[A, B], "all_down = \"fail_closed\"");
    world.health(A, Health::Down);
    world.health(B, Health::Down);
    let snapshot = world.build(None, T0);
    assert_eq!(pool(&snapshot).config.all_down, AllDown::FailClosed);
    assert!(pool(&snapshot).all_down);
    assert!(pool(&snapshot).members.iter().all(|m| m.effective_weight == 0));
}

/// One eligible backend is enough for the policy to have no say; an empty pool is down.
#[test]
fn the_policy_speaks_only_when_nobody_is_eligible() {
    let mut world = World::new(&[A, B], "");
    world.health(A, Health::Down);
    let snapshot = world.build(None, T0);
    assert!(!pool(&snapshot).all_down);
    assert_eq!(member(&snapshot, A).effective_weight, 0);
    assert!(pool(&World::new(&[], "").build(None, T0)).all_down);
}

// ---- time ----

/// An order lapses at its end, not before, and the snapshot knows when.
#[test]
fn an_order_ends_when_it_says() {
    let mut world = World::new(&[A, B], "");
    world.order(A, Mode::Drain, None, Some(after(600_000)));
    let drained = world.build(None, T0);
    assert_eq!(drained.next_change(), Some(after(600_000)));
    let still = world.build(Some(&drained), after(599_999));
    assert_eq!(member(&still, A).eligibility, Eligibility::Draining);
    let over = world.build(Some(&still), after(600_000));
    assert_eq!(member(&over, A).eligibility, Eligibility::Eligible);
    assert_eq!(member(&over, A).order, None);
}

/// The nearest of several ends counts.
#[test]
fn the_next_change_is_the_nearest() {
    let mut world = World::new(&[A, B, C], "");
    world.order(A, Mode::Drain, None, Some(after(9_000)));
    world.eject(B, after(4_000));
    assert_eq!(world.build(None, T0).next_change(), Some(after(4_000)));
}

/// A drained backend keeps the sessions that it has up to the pool's deadline after the order, and the snapshot
/// knows when that is.
#[test]
fn a_drained_backend_keeps_its_sessions_up_to_a_deadline() {
    let mut world = World::new(&[A, B], "sticky = { cookie = \"evk\", drain_timeout = \"5m\" }");
    world.order(A, Mode::Drain, None, None);
    let drained = world.build(None, T0);
    assert!(member(&drained, A).keeps_sessions && member(&drained, A).is_used());
    assert_eq!(member(&drained, A).effective_weight, 0);
    assert!(!member(&drained, B).keeps_sessions);
    assert_eq!(drained.next_change(), Some(after(300_000)));
    let over = world.build(Some(&drained), after(300_000));
    assert!(!member(&over, A).is_used());
    assert_eq!(over.next_change(), None);
}

/// One that is down, ejected or in maintenance keeps none; nor does one whose pool has no sessions, or no time for
/// them.
#[test]
fn sessions_leave_a_backend_that_does_not_work() {
    let sticky = "sticky = { header = \"X-Session\" }";
    let mut down = World::new(&[A, B], sticky);
    down.order(A, Mode::Drain, None, None);
    down.health(A, Health::Down);
    let mut ejected = World::new(&[A, B], sticky);
    ejected.order(A, Mode::Drain, None, None);
    ejected.eject(A, after(1_000));
    let mut maintained = World::new(&[A, B], sticky);
    maintained.order(A, Mode::Maintenance, None, None);
    let mut plain = World::new(&[A, B], "");
    plain.order(A, Mode::Drain, None, None);
    let mut none = World::new(&[A, B], "sticky = { header = \"X-Session\", drain_timeout = 0 }");
    none.order(A, Mode::Drain, None, None);
    for world in [down, ejected, maintained, plain, none] {
        assert!(!member(&world.build(None, T0), A).keeps_sessions);
    }
}

// ---- sharing ----

/// What did not change is the same part, also when the config was read anew; the neighbour's change costs the
/// neighbour alone.
#[test]
fn parts_that_did_not_change_are_shared() {
    let two = |weight: u32| {
        let text = format!(
            "[load_balancers.shop]\nlisten = \"0.0.0.0:80\"\nbackend_servers = [\"{A}\"]\n\
             [load_balancers.blog]\nlisten = \"0.0.0.0:81\"\n\
             backend_servers = [{{ address = \"{B}\", weight = {weight} }}]\n"
        );
        Arc::new(parse_toml(&text, "test.toml").unwrap())
    };
    let mut world = World {
        config: two(1),
        overrides: Overrides::default(),
        observed: Observed::default(),
    };
    let first = world.build(None, T0);
    world.config = two(2);
    let second = world.build(Some(&first), after(1));
    assert!(Arc::ptr_eq(pool(&first), pool(&second)));
    let blog = |snapshot: &Snapshot| snapshot.pool(&name("blog"), &name("default")).unwrap().clone();
    assert!(!Arc::ptr_eq(&blog(&first), &blog(&second)));
}

// ---- as a property ----

#[derive(Clone, Debug)]
struct Found {
    health: Option<Health>,
    ejected_for: Option<u64>,
    order: Option<(Mode, Option<u32>, Option<u64>)>,
}

fn found() -> impl Strategy<Value = Found> {
    let health = prop_oneof![Just(Health::Unchecked), Just(Health::Up), Just(Health::Down)];
    let mode = prop_oneof![Just(Mode::Ready), Just(Mode::Drain), Just(Mode::Maintenance)];
    let order = (mode, prop::option::of(0..4u32), prop::option::of(1..3_000u64));
    (
        prop::option::of(health),
        prop::option::of(1..3_000u64),
        prop::option::weighted(0.3, order),
    )
        .prop_map(|(health, ejected_for, order)| Found {
            health,
            ejected_for,
            order,
        })
}

fn found_world(slow_start: u64, found: &[Found]) -> World {
    let more = format!("slow_start = {slow_start}\nsticky = {{ cookie = \"a\", drain_timeout = \"2s\" }}");
    let mut world = World::new(&[A, B, C], &more);
    for (address, found) in [A, B, C].into_iter().zip(found) {
        if let Some(health) = found.health {
            world.health(address, health);
        }
        if let Some(ms) = found.ejected_for {
            world.eject(address, after(ms));
        }
        if let Some((mode, weight, expires)) = found.order {
            world.order(address, mode, weight, expires.map(after));
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// While the layers stay, `next_change` names the very millisecond at which another snapshot is built: at
    /// every moment before it the parts are shared, at that moment they are not, and where there is none, no
    /// time changes anything.
    #[test]
    fn next_change_is_exactly_when_the_snapshot_changes(
        slow_start in 0..2_000u64,
        before in prop::collection::vec(found(), 3),
        found in prop::collection::vec(found(), 3),
        start in 0..2_000u64,
        share in 0.0..1.0f64,
    ) {
        let earlier = found_world(slow_start, &before).build(None, T0);
        let world = found_world(slow_start, &found);
        let mut snapshot = world.build(Some(&earlier), after(start));
        let mut now = after(start);
        for _ in 0..12 {
            let Some(next) = snapshot.next_change() else {
                let far = world.build(Some(&snapshot), now.plus(Duration::from_secs(86_400)));
                prop_assert!(Arc::ptr_eq(pool(&snapshot), pool(&far)));
                break;
            };
            prop_assert!(next > now);
            let length = next.0 - now.0;
            for moment in [now, Timestamp(now.0 + (length as f64 * share) as u64), Timestamp(next.0 - 1)] {
                let same = world.build(Some(&snapshot), moment);
                prop_assert!(Arc::ptr_eq(pool(&snapshot), pool(&same)), "changed before {next:?}, at {moment:?}");
            }
            let changed = world.build(Some(&snapshot), next);
            prop_assert!(!Arc::ptr_eq(pool(&snapshot), pool(&changed)), "nothing changed at {next:?}");
            (snapshot, now) = (changed, next);
        }
    }

    /// Building on a snapshot at the same moment with the same layers gives the same snapshot.
    #[test]
    fn building_twice_changes_nothing(found in prop::collection::vec(found(), 3)) {
        let world = found_world(1_000, &found);
        let first = world.build(None, T0);
        prop_assert_eq!(&world.build(Some(&first), T0), &first);
    }
}
