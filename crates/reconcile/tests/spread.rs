//! What the spreading of slots promises, over many sizes: the bound, that what is spread stays, that little moves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_reconcile::cluster::spread::{BOUND_PERCENT, spread, weights};
use evenkeel_reconcile::cluster::{SLOTS, Slot, incarnation};
use model::config::{HealthCheck, Name};
use proptest::prelude::*;

fn names(random: u64, count: usize) -> Vec<Name> {
    let node = Name::parse("node").unwrap();
    let mut names: Vec<Name> = (0..count as u64)
        .map(|n| incarnation(&node, random.wrapping_add(n)))
        .collect();
    names.sort();
    names
}

fn anew(workers: &[Name], weights: &[u64], current: &[Option<usize>]) -> Vec<usize> {
    spread(&workers.iter().collect::<Vec<_>>(), weights, current)
}

fn loads(owners: &[usize], weights: &[u64], workers: usize) -> Vec<u64> {
    let mut loads = vec![0; workers];
    owners
        .iter()
        .zip(weights)
        .for_each(|(owner, weight)| loads[*owner] += weight);
    loads
}

/// Each slot's owner by name.
fn by_name<'a>(owners: &[usize], workers: &'a [Name]) -> Vec<&'a Name> {
    owners.iter().map(|owner| &workers[*owner]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the weights and whoever had what: every slot has an owner, and nobody has more than the bound.
    #[test]
    fn nobody_carries_more_than_the_bound(
        random: u64,
        count in 1..20_usize,
        weights in prop::collection::vec(1..2000_u64, 1..300),
        had in prop::collection::vec(prop::option::of(0..25_usize), 0..300),
    ) {
        let workers = names(random, count);
        let owners = anew(&workers, &weights, &had);
        prop_assert_eq!(owners.len(), weights.len());
        let mean = weights.iter().sum::<u64>().div_ceil(count as u64);
        let bound = (mean * BOUND_PERCENT / 100).max(mean + weights.iter().max().unwrap());
        let loads = loads(&owners, &weights, count);
        prop_assert!(loads.iter().all(|load| *load <= bound), "{loads:?} over {bound}");
    }

    /// Spreading what is spread changes nothing.
    #[test]
    fn what_is_spread_stays(
        random: u64,
        count in 1..20_usize,
        weights in prop::collection::vec(1..2000_u64, 1..300),
        had in prop::collection::vec(prop::option::of(0..20_usize), 0..300),
    ) {
        let workers = names(random, count);
        let owners = anew(&workers, &weights, &had);
        let current: Vec<_> = owners.iter().copied().map(Some).collect();
        prop_assert_eq!(anew(&workers, &weights, &current), owners);
    }

    /// One more worker takes its share; of all slots at most one in twenty moves between the others.
    #[test]
    fn a_worker_that_comes_takes_its_share_and_one_that_goes_leaves_it(random: u64, count in 2..25_usize) {
        let weights = vec![1; usize::from(SLOTS)];
        let many = names(random, count);
        let gone = many[random as usize % count].clone();
        let few: Vec<Name> = many.iter().filter(|name| **name != gone).cloned().collect();
        let place = |name: &Name, of: &[Name]| of.iter().position(|other| other == name);

        let before = anew(&few, &weights, &[]);
        let current: Vec<_> = by_name(&before, &few).into_iter().map(|name| place(name, &many)).collect();
        let with = anew(&many, &weights, &current);
        let pairs = || by_name(&before, &few).into_iter().zip(by_name(&with, &many));
        let others = pairs().filter(|(from, to)| from != to && **to != gone).count();
        prop_assert!(others * 20 <= weights.len(), "{others} moved between those that were there");
        let taken = pairs().filter(|(_, to)| **to == gone).count();
        let most = weights.len().div_ceil(count) * BOUND_PERCENT as usize / 100;
        prop_assert!(taken <= most, "the new one took {taken}");
        prop_assert!(taken * count * 4 >= weights.len(), "the new one took {taken}");

        let current: Vec<_> = by_name(&with, &many).into_iter().map(|name| place(name, &few)).collect();
        let without = anew(&few, &weights, &current);
        let moved = by_name(&with, &many)
            .into_iter()
            .zip(by_name(&without, &few))
            .filter(|(from, to)| from != to && **from != gone)
            .count();
        prop_assert!(moved * 20 <= weights.len(), "{moved} moved though their owner stayed");
    }

    /// Addresses fall into all slots alike.
    #[test]
    fn addresses_fall_into_slots_evenly(net: u16) {
        let [a, b] = net.to_be_bytes();
        let mut counts = [0_u32; 16];
        for n in 0..4096_u16 {
            let [c, d] = n.to_be_bytes();
            let slot = Slot::of(SocketAddr::from(([a, b, c, d], 80)), 16);
            counts[usize::from(slot.0)] += 1;
        }
        // 256 each; five standard deviations are 78.
        prop_assert!(counts.iter().all(|count| (178..=334).contains(count)), "{counts:?}");
    }
}

/// Scenario: nobody is there.
#[test]
fn without_workers_nobody_has_anything() {
    assert!(anew(&[], &[1, 2, 3], &[Some(0)]).is_empty());
}

/// A slot is a part of what stands in the store: this value may never change.
#[test]
fn the_slot_of_an_address_is_the_same_in_every_version() {
    let slot = |address: &str| Slot::of(address.parse().unwrap(), SLOTS).0;
    assert_eq!(
        [
            slot("10.0.0.1:80"),
            slot("10.0.0.1:81"),
            slot("[2001:db8::1]:443")
        ],
        [754, 600, 522]
    );
}

/// Scenario: two load balancers want the same check of the same address, a third another one, twice as often.
#[test]
fn a_slot_weighs_what_is_asked_in_an_hour_and_equal_checks_are_one() {
    let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let check = HealthCheck {
        interval: Duration::from_secs(2),
        ..HealthCheck::default()
    };
    let faster = HealthCheck {
        interval: Duration::from_secs(1),
        ..check.clone()
    };
    let weights = weights([(address, &check), (address, &check), (address, &faster)], 8);
    let slot = usize::from(Slot::of(address, 8).0);
    assert_eq!(weights[slot], 1 + 1800 + 3600);
    assert_eq!(weights.iter().sum::<u64>(), 1 + 1800 + 3600 + 7);
}

/// Names keep within what a name may be, and each life has its own.
#[test]
fn a_life_has_a_name_of_its_own() {
    let node = Name::parse(&"n".repeat(63)).unwrap();
    let (one, two) = (incarnation(&node, 1), incarnation(&node, 2));
    assert_ne!(one, two);
    assert_eq!(one.as_str().len(), 63);
    assert!(one.as_str().ends_with("n-00000001"));
}
