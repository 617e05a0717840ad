//! The hub's brain and members that nobody declared, scenario by scenario.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::snapshot::Eligibility;
use model::state::{Health, Listed, Mode, OrderAction, Overrides, Report, Source};

use super::core::Input;
use super::fixture::{address, config_with, key, name, started};
use super::simulation::World;

const LOOKED_UP: &str = "slow_start = 0\ndiscovery = { file = \"/m\" }\n";

fn report(ports: &[u16]) -> Input {
    let members = ports.iter().map(|port| (address(*port), Listed::default()));
    told(Some(members.collect()), None)
}

fn told(members: Option<BTreeMap<std::net::SocketAddr, Listed>>, stale: Option<&str>) -> Input {
    Input::Members(vec![Report {
        load_balancer: name("shop"),
        pool: name("default"),
        source: Source::File,
        members: members.map(Arc::new),
        stale: stale.map(str::to_owned),
        left_out: 0,
    }])
}

/// Found, checked, proven, gone and back: what is known of a member goes with it, and it proves itself anew.
#[test]
fn a_member_that_left_proves_itself_anew() {
    let mut world = World::new(config_with(&[1], LOOKED_UP), Overrides::default());
    world.give(report(&[2]));
    assert!(world.probed.contains(&2));
    assert_eq!(world.eligibility()[&2], Eligibility::AwaitsCheck);
    world.verdict(2, Health::Up, "status 200");
    assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
    world.verdict(2, Health::Down, "timeout");
    assert_eq!(world.eligibility()[&2], Eligibility::Down);
    world.give(report(&[]));
    assert_eq!(world.eligibility().keys().collect::<Vec<_>>(), [&1]);
    assert!(!world.probed.contains(&2));
    world.give(report(&[2]));
    assert_eq!(world.eligibility()[&2], Eligibility::AwaitsCheck);
}

/// A source that fails changes nothing but what is said of it; a restart begins with what was remembered.
#[test]
fn what_is_known_outlives_the_source_and_the_process() {
    let config = config_with(&[1], LOOKED_UP);
    let mut world = World::new(config.clone(), Overrides::default());
    world.give(report(&[2, 3]));
    world.verdict(2, Health::Up, "status 200");
    let before = world.eligibility();
    world.give(told(None, Some("cannot read /m")));
    assert_eq!(world.eligibility(), before);
    assert_eq!(
        world.logged("members_stale"),
        ["file: cannot read /m; 2 known members stay"]
    );
    let mut again = World::new(config, Overrides::default());
    again.give(Input::Remembered(world.remembered.clone()));
    assert_eq!(
        again.eligibility()[&2],
        Eligibility::Eligible,
        "it has proven itself before"
    );
    assert_eq!(again.eligibility()[&3], Eligibility::AwaitsCheck);
    again.give(told(None, Some("cannot read /m")));
    assert_eq!(again.eligibility().len(), 3);
    again.give(report(&[2]));
    assert_eq!(again.eligibility()[&2], Eligibility::Eligible);
    assert_eq!(again.logged("members_fresh").len(), 1);
}

/// An order outlives its member for ten minutes and no longer; while it is away the order can be lifted.
#[test]
fn an_order_waits_for_its_member_for_ten_minutes() {
    let mut world = World::new(config_with(&[1], LOOKED_UP), Overrides::default());
    world.give(report(&[2]));
    world.verdict(2, Health::Up, "status 200");
    world.order(2, OrderAction::Mode(Mode::Drain), None).unwrap();
    world.give(report(&[]));
    world.pass(Duration::from_secs(599));
    world.give(report(&[2]));
    assert_eq!(world.eligibility()[&2], Eligibility::Draining);
    world.give(report(&[]));
    world.pass(Duration::from_secs(601));
    assert!(world.stored.backends.is_empty(), "forgotten, on disk too");
    world.give(report(&[2]));
    assert_eq!(world.eligibility()[&2], Eligibility::AwaitsCheck);
    world.order(2, OrderAction::Mode(Mode::Drain), None).unwrap();
    world.give(report(&[]));
    world.order(2, OrderAction::Mode(Mode::Ready), None).unwrap();
    assert!(world.stored.backends.is_empty());
}

/// A restart reads orders from disk before any source has spoken: they wait for their members too.
#[test]
fn orders_wait_for_members_at_the_start() {
    let config = config_with(&[1], LOOKED_UP);
    let mut world = World::new(config.clone(), Overrides::default());
    world.give(report(&[2]));
    world.order(2, OrderAction::Mode(Mode::Drain), None).unwrap();
    let mut again = World::new(config, world.stored.clone());
    assert!(again.stored.backends.contains_key(&key(2)));
    again.now = started().plus(Duration::from_secs(1));
    again.give(report(&[2]));
    assert_eq!(again.eligibility()[&2], Eligibility::Draining);
}

/// The config stops asking: the members go, declared ones stay, and nothing is remembered of the others.
#[test]
fn a_config_that_does_not_ask_any_more() {
    let mut world = World::new(config_with(&[1], LOOKED_UP), Overrides::default());
    world.give(report(&[1, 2]));
    assert_eq!(world.eligibility().len(), 2);
    world.give(Input::Loaded(config_with(&[1], "slow_start = 0\n").into()));
    assert_eq!(world.eligibility().keys().collect::<Vec<_>>(), [&1]);
    world.give(report(&[1, 2]));
    assert_eq!(world.eligibility().keys().collect::<Vec<_>>(), [&1]);
    world.give(Input::Loaded(config_with(&[1], LOOKED_UP).into()));
    assert_eq!(
        world.eligibility().keys().collect::<Vec<_>>(),
        [&1],
        "nothing was kept"
    );
}
