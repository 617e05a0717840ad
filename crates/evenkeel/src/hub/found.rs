//! The hub's brain and members that nobody declared, scenario by scenario.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::snapshot::Eligibility;
use model::state::{Health, Listed, Mode, OrderAction, Overrides, Report, Source};

use super::core::Input;
use super::fixture::{address, config_with, key, name, started};
use super::simulation::World;

const LOOKED_UP: &str = "slow_start = 0\ndiscovery = { file = \"/m\" }\n";

const REGISTERING: &str = "slow_start = 0\nregistration = { token_hash = \"sha256:\
                           9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\", max = 10000 }\n";

/// These are registered.
fn registered(members: BTreeMap<SocketAddr, Listed>) -> Input {
    Input::Members(vec![registrations(members)])
}

fn registrations(members: BTreeMap<SocketAddr, Listed>) -> Report {
    Report {
        load_balancer: name("shop"),
        pool: name("default"),
        source: Source::Registered,
        members: Some(Arc::new(members)),
        stale: None,
        left_out: 0,
    }
}

/// These are registered, each a port with the number of its membership.
fn memberships(members: &[(u16, u64)]) -> Report {
    let listed = |life| Listed {
        life,
        ..Listed::default()
    };
    let members = members.iter().map(|(port, life)| (address(*port), listed(*life)));
    registrations(members.collect())
}

/// The same, told in so many reports that are taken at once.
fn at_once(reports: &[&[(u16, u64)]]) -> Input {
    Input::Members(reports.iter().map(|members| memberships(members)).collect())
}

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

/// Scenario: the source names an address that we listen on, and does not tell again since its list stays the same. The
/// listener moves away: the member comes in, and proves itself; it comes back: the member goes.
#[test]
fn a_member_left_out_for_our_listener_comes_in_when_that_is_gone() {
    let on = |listen: std::net::SocketAddr| {
        let config = config_with(&[1], LOOKED_UP);
        let text = model::effective::to_toml(&config).replace("127.0.0.1:8080", &listen.to_string());
        std::sync::Arc::new(model::parse::parse_toml(&text, "test.toml").unwrap())
    };
    let (ours, elsewhere) = (address(7), address(9));
    let mut world = World::new(on(ours), Overrides::default());
    world.give(report(&[2, 7]));
    let members = |world: &World| world.eligibility().into_keys().collect::<Vec<_>>();
    assert_eq!(members(&world), [1, 2]);
    let left_out = |world: &World| {
        let members = world.remembered.get(&(name("shop"), name("default"))).unwrap();
        members.sources[&Source::File].left_out
    };
    assert_eq!(left_out(&world), 1);
    world.give(Input::Loaded(on(elsewhere).into()));
    world.give(Input::Listeners(Vec::new()));
    assert_eq!(members(&world), [1, 2, 7]);
    assert_eq!(
        (world.eligibility()[&7], left_out(&world)),
        (Eligibility::AwaitsCheck, 0)
    );
    assert!(world.probed.contains(&7));
    world.give(Input::Loaded(on(ours).into()));
    assert_eq!(members(&world), [1, 2]);
    world.give(told(None, Some("cannot read /m")));
    assert_eq!(left_out(&world), 1);
}

/// Ten thousand members say again and again how busy they are, and nothing else: that is shown, and nothing is published.
#[test]
fn how_busy_members_are_costs_the_data_plane_nothing() {
    let mut world = World::new(config_with(&[1], REGISTERING), Overrides::default());
    let addresses: Vec<_> = (0..10_000u32)
        .map(|n| SocketAddr::from(((0x0A01_0000 + n).to_be_bytes(), 80)))
        .collect();
    let busy = |load: Option<u8>| {
        let listed = Listed {
            load,
            ..Listed::default()
        };
        let members = addresses.iter().map(|address| (*address, listed.clone()));
        registered(members.collect())
    };
    let shown = |world: &World| {
        let loads = world.core.view().loads.clone();
        let of_pool = loads.get(&(name("shop"), name("default")))?;
        of_pool.get(&addresses[9_999]).copied()
    };
    world.give(busy(Some(0)));
    assert_eq!((world.publishes, shown(&world)), (1, Some(0)));
    let remembered = world.remembered.clone();
    for load in 1..=20 {
        world.give(busy(Some(load)));
        assert_eq!(shown(&world), Some(load));
    }
    assert_eq!(world.publishes, 1);
    assert_eq!(world.remembered, remembered);
    world.give(busy(None));
    assert_eq!((world.publishes, shown(&world)), (1, None));
    world.give(busy(Some(5)));
    world.give(Input::Loaded(config_with(&[1], "slow_start = 0\n").into()));
    assert!(
        world.core.view().loads.is_empty(),
        "the pool takes no registrations any more"
    );
}

/// A registered member leaves and comes back before anybody has looked: it proves itself anew, its check begins anew,
/// and what the check before it found says nothing.
#[test]
fn a_member_that_came_back_at_once_is_another() {
    let mut world = World::new(config_with(&[1], REGISTERING), Overrides::default());
    let registered = |life| at_once(&[&[(2, life)]]);
    world.give(registered(7));
    world.verdict_of(7, 2, Health::Up, "status 200");
    assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
    world.give(registered(8));
    assert_eq!(world.eligibility()[&2], Eligibility::AwaitsCheck);
    assert_eq!(world.lives[&2], 8);
    world.verdict_of(7, 2, Health::Up, "status 200");
    assert_eq!(
        world.eligibility()[&2],
        Eligibility::AwaitsCheck,
        "of the one before"
    );
    world.verdict_of(8, 2, Health::Up, "status 200");
    assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
}

/// Scenario: while this process is busy a member deregisters, and a new instance registers at its address; both reports
/// are taken at once. The new one is neither up nor down because the old one was, and has proven nothing.
#[test]
fn a_member_that_came_back_within_a_batch_is_another() {
    for health in [Health::Up, Health::Down] {
        let mut world = World::new(config_with(&[1], REGISTERING), Overrides::default());
        world.give(at_once(&[&[(2, 7)]]));
        world.verdict_of(7, 2, Health::Up, "status 200");
        world.verdict_of(7, 2, health, "as it is now");
        world.give(at_once(&[&[], &[(2, 8)]]));
        assert_eq!(world.eligibility()[&2], Eligibility::AwaitsCheck, "{health:?}");
        assert_eq!(world.lives[&2], 8);
        assert!(!is_proven(&world, 2), "{health:?}");
        world.verdict_of(8, 2, Health::Up, "status 200");
        assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
        assert!(is_proven(&world, 2));
    }
}

/// Scenario: a member goes and is back as the same one, and both reports are taken at once. Its check never ended, and
/// would not say again what it has said: that holds.
#[test]
fn a_member_that_never_left_stays_what_it_is() {
    let mut world = World::new(config_with(&[1], REGISTERING), Overrides::default());
    world.give(at_once(&[&[(2, 7)]]));
    world.verdict_of(7, 2, Health::Up, "status 200");
    world.give(at_once(&[&[], &[(2, 7)]]));
    assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
    assert!(is_proven(&world, 2));
}

/// Scenario: a member that was ejected leaves, and a new instance registers at its address, heard of in one report or in
/// two. Its first check is all that it has to pass; that requests to the one before failed is told late, and of that one.
#[test]
fn an_ejection_ends_with_its_membership() {
    let alone: &[(u16, u64)] = &[(2, 8)];
    for reports in [&[alone][..], &[&[], alone]] {
        let mut world = World::new(config_with(&[1], REGISTERING), Overrides::default());
        world.give(at_once(&[&[(2, 7)]]));
        world.verdict_of(7, 2, Health::Up, "status 200");
        world.eject_of(7, 2, Duration::from_secs(60));
        assert_eq!(world.eligibility()[&2], Eligibility::Ejected);
        world.give(at_once(reports));
        world.verdict_of(8, 2, Health::Up, "status 200");
        assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
        world.eject_of(7, 2, Duration::from_secs(60));
        assert_eq!(world.eligibility()[&2], Eligibility::Eligible);
        world.eject_of(8, 2, Duration::from_secs(60));
        assert_eq!(world.eligibility()[&2], Eligibility::Ejected);
    }
}

/// Scenario: a process restarts and goes on with a member that had proven itself, and with the verdict that it had kept;
/// then it hears that another instance has that address now. Neither is about that one.
#[test]
fn what_was_kept_is_of_the_membership_that_was_kept() {
    let config = config_with(&[1], REGISTERING);
    let mut world = World::new(config.clone(), Overrides::default());
    world.give(at_once(&[&[(2, 7)]]));
    world.verdict_of(7, 2, Health::Up, "status 200");
    let restarted = || {
        let mut again = World::new(config.clone(), Overrides::default());
        again.give(Input::Remembered(world.remembered.clone()));
        again.verdict_of(7, 2, Health::Up, "status 200");
        assert_eq!(again.eligibility()[&2], Eligibility::Eligible);
        again
    };
    let mut again = restarted();
    again.give(at_once(&[&[(2, 7)]]));
    assert_eq!(again.eligibility()[&2], Eligibility::Eligible);
    for reports in [&[&[(2, 8)][..]][..], &[&[], &[(2, 8)]]] {
        let mut again = restarted();
        again.give(at_once(reports));
        assert_eq!(again.eligibility()[&2], Eligibility::AwaitsCheck);
        assert!(!is_proven(&again, 2));
    }
}

/// Scenario: nothing checks a pool, so a new instance takes requests at once, also at the address of one that left in
/// the same moment. It is new all the same, and climbs.
#[test]
fn a_new_instance_climbs_where_another_stood() {
    let keys = REGISTERING.replace("slow_start = 0", "slow_start = \"10s\"\nhealth = false");
    let mut world = World::new(config_with(&[1], &keys), Overrides::default());
    let weight = |world: &World| {
        let pool = world
            .core
            .snapshot()
            .pool(&name("shop"), &name("default"))
            .unwrap();
        let member = pool.members.iter().find(|member| member.id.address == address(2));
        member.unwrap().effective_weight
    };
    world.give(at_once(&[&[(2, 7)]]));
    assert_eq!(weight(&world), 10);
    world.pass(Duration::from_secs(11));
    assert_eq!(weight(&world), 100);
    world.give(at_once(&[&[(2, 7)]]));
    assert_eq!(weight(&world), 100);
    world.give(at_once(&[&[(2, 8)]]));
    assert_eq!(weight(&world), 10);
    world.pass(Duration::from_secs(11));
    assert_eq!(weight(&world), 100);
}

fn is_proven(world: &World, port: u16) -> bool {
    let members = world.remembered.get(&(name("shop"), name("default"))).unwrap();
    members.sources[&Source::Registered].members[&address(port)].proven
}
