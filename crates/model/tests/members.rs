//! Members that nobody declared, in the snapshot: who is in, whose word counts, and when they take requests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_model::config::{Config, Name};
use evenkeel_model::parse::{MAX_BACKENDS, parse_toml};
use evenkeel_model::plan::foresee;
use evenkeel_model::snapshot::{Eligibility, Layers, PoolState, Snapshot};
use evenkeel_model::state::{
    BackendId, Found, Health, HealthState, Members, Observed, Overrides, PoolMembers, Source, SourceState,
    Timestamp,
};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn address(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], number).into()
}

fn config(declared: &[u16], more: &str) -> Arc<Config> {
    let declared: Vec<String> = declared.iter().map(|n| address(*n).to_string()).collect();
    let text = format!(
        "[load_balancers.shop]\nbackend_servers = {declared:?}\ndiscovery = {{ file = \"/m\" }}\nslow_start = 0\n{more}\n"
    );
    Arc::new(parse_toml(&text, "test.toml").unwrap())
}

fn found(source: Source, weight: u32) -> Found {
    Found {
        source,
        weight,
        zone: None,
        draining: None,
        since: NOW,
        proven: false,
        life: 0,
    }
}

fn members(of: &[(u16, Found)]) -> Members {
    let mut pool = PoolMembers::default();
    for (number, found) in of {
        let state: &mut SourceState = pool.sources.entry(found.source).or_default();
        Arc::make_mut(&mut state.members).insert(address(*number), found.clone());
    }
    Members::from_iter([((name("shop"), name("default")), Arc::new(pool))])
}

fn build(config: &Arc<Config>, observed: &Observed) -> Snapshot {
    let layers = Layers {
        revision: 1,
        config,
        overrides: &Overrides::default(),
        observed,
    };
    Snapshot::build(layers, None, NOW)
}

fn pool(snapshot: &Snapshot) -> &PoolState {
    snapshot.pool(&name("shop"), &name("default")).unwrap()
}

fn with(members: Members) -> Observed {
    Observed {
        members,
        ..Observed::default()
    }
}

/// With a check a found member waits until it has been seen to work, and keeps what it has earned; without one it takes
/// requests at once. A declared one never waits.
#[test]
fn a_found_member_proves_itself_first() {
    let checked = config(&[1], "");
    let mut observed = with(members(&[(2, found(Source::File, 1))]));
    let states = |config: &Arc<Config>, observed: &Observed| -> Vec<Eligibility> {
        let snapshot = build(config, observed);
        pool(&snapshot).members.iter().map(|m| m.eligibility).collect()
    };
    let (eligible, awaits) = (Eligibility::Eligible, Eligibility::AwaitsCheck);
    assert_eq!(states(&checked, &observed), [eligible, awaits]);
    assert_eq!(
        states(&config(&[1], "health = false"), &observed),
        [eligible, eligible]
    );
    let id = BackendId {
        load_balancer: name("shop"),
        pool: name("default"),
        address: address(2),
    };
    for (health, proven, state) in [
        (Health::Down, false, awaits),
        (Health::Up, false, eligible),
        (Health::Down, true, Eligibility::Down),
        (Health::Unchecked, true, eligible),
    ] {
        let verdict = HealthState {
            health,
            reason: "as the test says".into(),
            since: NOW,
        };
        observed.health.insert(id.clone(), verdict);
        let member = Found {
            proven,
            ..found(Source::File, 1)
        };
        observed.members = members(&[(2, member)]);
        assert_eq!(
            states(&checked, &observed),
            [eligible, state],
            "{health:?} {proven}"
        );
    }
}

/// A pool that fails open does so with members that have been seen to work, not with those that have not.
#[test]
fn who_has_proven_nothing_is_nobodys_last_resort() {
    let observed = with(members(&[(2, found(Source::File, 1))]));
    let snapshot = build(&config(&[], ""), &observed);
    let pool = pool(&snapshot);
    assert!(pool.all_down);
    assert_eq!(pool.members[0].eligibility, Eligibility::AwaitsCheck);
    assert_eq!(pool.members[0].effective_weight, 0);
}

/// Beyond the bound the first ones by address are taken, the rest is counted, and what is declared is always in.
#[test]
fn the_bound_holds() {
    let many: Vec<(u16, Found)> = (1..=MAX_BACKENDS as u16 + 5)
        .map(|n| (n, found(Source::File, 1)))
        .collect();
    let last = MAX_BACKENDS as u16 + 9;
    let snapshot = build(&config(&[last, 3], ""), &with(members(&many)));
    let pool = pool(&snapshot);
    assert_eq!((pool.members.len(), pool.left_out), (MAX_BACKENDS, 6));
    assert_eq!(pool.members[0].id.address, address(last));
    assert_eq!(
        pool.members.last().unwrap().id.address,
        address(MAX_BACKENDS as u16 - 1)
    );
}

/// What a source said is not used once the config does not ask that source any more.
#[test]
fn only_sources_that_are_asked_count() {
    let observed = with(members(&[
        (2, found(Source::File, 1)),
        (3, found(Source::Registered, 1)),
    ]));
    let snapshot = build(&config(&[1], ""), &observed);
    let addresses: Vec<u16> = pool(&snapshot)
        .members
        .iter()
        .map(|m| m.id.address.port())
        .collect();
    assert_eq!(addresses, [1, 2]);
    let text = "[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:1\"]\nslow_start = 0\n";
    let without = Arc::new(parse_toml(text, "test.toml").unwrap());
    assert_eq!(pool(&foresee(&snapshot, &without, NOW)).members.len(), 1);
    assert_eq!(foresee(&snapshot, &snapshot.config, NOW), snapshot);
}

fn source() -> impl Strategy<Value = Source> {
    prop::sample::select(vec![Source::Registered, Source::File])
}

proptest! {
    /// Whatever is declared and found: each address is there once, declared ones first and in their order, the rest in
    /// order of address; the word of the stronger source counts; and building again changes nothing.
    #[test]
    fn a_pool_is_the_union_of_what_is_declared_and_found(
        declared in prop::collection::btree_set(1..20u16, 0..6),
        told in prop::collection::vec((1..20u16, source(), 0..5u32), 0..20),
    ) {
        let declared: Vec<u16> = declared.into_iter().rev().collect();
        let config = config(&declared, "health = false");
        let told: Vec<(u16, Found)> = told.into_iter().map(|(n, s, w)| (n, found(s, w))).collect();
        let observed = with(members(&told));
        let snapshot = build(&config, &observed);
        let pool = pool(&snapshot);
        let shown: Vec<u16> = pool.members.iter().map(|m| m.id.address.port()).collect();
        // Only the file is asked in this config; a later word of the same source takes the place of an earlier one.
        let asked: BTreeMap<u16, u32> = told
            .iter()
            .filter(|(_, found)| found.source == Source::File)
            .map(|(n, found)| (*n, found.weight))
            .collect();
        let rest: BTreeSet<u16> = asked.keys().copied().filter(|n| !declared.contains(n)).collect();
        let expected: Vec<u16> = declared.iter().copied().chain(rest).collect();
        prop_assert_eq!(&shown, &expected);
        for (index, member) in pool.members.iter().enumerate() {
            let number = member.id.address.port();
            let weight = match declared.contains(&number) {
                true => 1,
                false => asked[&number],
            };
            prop_assert_eq!(member.weight, weight);
            prop_assert_eq!(pool.told_weight(index), Some(weight));
            prop_assert_eq!(member.source() == Source::Declared, declared.contains(&number));
        }
        let layers = Layers { revision: 1, config: &config, overrides: &Overrides::default(), observed: &observed };
        let again = Snapshot::build(layers, Some(&snapshot), NOW);
        prop_assert_eq!(&again, &snapshot);
        let key = (name("shop"), name("default"));
        prop_assert!(Arc::ptr_eq(&again.pools[&key], &snapshot.pools[&key]));
    }
}
