//! A name over time: who leaves when, and when it is looked up again.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use evenkeel_reconcile::discovery::dns::{Outcome, Watch};
use model::config::{AddressFamily, DnsRecords};

use super::{address, addresses, settings};

fn good(found: &[(&str, u32)], ttl: u32) -> Outcome {
    Outcome {
        found: found
            .iter()
            .map(|(text, weight)| (address(text), *weight))
            .collect(),
        ttl: Some(ttl),
        longest_v4: ttl,
        longest_v6: ttl,
        server: Some(address("10.0.0.1:53")),
        ..Outcome::default()
    }
}

fn take(watch: &mut Watch, now_ms: u64, outcome: Outcome, rand: u64) {
    let begun_ms = now_ms;
    watch.take(now_ms, Outcome { begun_ms, ..outcome }, rand);
}

fn members(watch: &Watch) -> Vec<(String, u32)> {
    let members = watch.seen().members.iter().flat_map(|members| members.iter());
    members
        .map(|(address, weight)| (address.to_string(), *weight))
        .collect()
}

fn names(watch: &Watch) -> Vec<String> {
    members(watch).into_iter().map(|(address, _)| address).collect()
}

/// Missing once is nothing, twice in a row is gone; an answer between that has it begins anew.
#[test]
fn two_misses() {
    let mut watch = Watch::new(addresses(AddressFamily::Both), BTreeMap::new(), 0);
    let both = [("10.1.0.1:0", 1), ("10.1.0.2:0", 1)];
    let steps: [(&[(&str, u32)], usize); 7] = [
        (&both, 2),
        (&both[..1], 2),
        (&both, 2),
        (&both[..1], 2),
        (&both[..1], 1),
        (&[], 1),
        (&[], 0),
    ];
    for (found, left) in steps {
        let due = watch.due_ms();
        take(&mut watch, due, good(found, 10), 0);
        assert_eq!(members(&watch).len(), left);
    }
    assert_eq!(watch.seen().good, 7);
}

/// An answer is kept by each of two resolvers for a second longer than it says, and by clocks that are a hundredth slow:
/// what is asked for before that is over is the same answer again.
#[test]
fn the_second_miss_is_another_answer() {
    let mut watch = Watch::new(addresses(AddressFamily::Both), BTreeMap::new(), 0);
    take(&mut watch, 0, good(&[("10.1.0.1:0", 1)], 10), 0);
    take(&mut watch, 20_000, good(&[], 100), 0);
    for (after, left) in [(50_000, 1), (103_019, 1), (103_020, 0)] {
        take(&mut watch, 20_000 + after, good(&[], 100), 0);
        assert_eq!(members(&watch).len(), left, "{after}");
    }
}

/// A failure takes nobody out and counts no miss, however many there are; what it did find is taken.
#[test]
fn failures_take_nobody_out() {
    let mut watch = Watch::new(addresses(AddressFamily::Both), BTreeMap::new(), 0);
    take(&mut watch, 0, Outcome::failed("nobody".into()), 0);
    assert_eq!(
        (watch.seen().members.clone(), watch.seen().answered_ms),
        (None, None)
    );
    take(&mut watch, 10, good(&[("10.1.0.1:0", 1)], 10), 0);
    take(&mut watch, 20, good(&[], 10), 0);
    for at in 3..100 {
        let partly = Outcome {
            fault: Some("AAAA: SERVFAIL".into()),
            ..good(&[("10.1.0.2:0", 1)], 10)
        };
        take(
            &mut watch,
            at * 10,
            if at % 2 == 0 {
                partly
            } else {
                Outcome::failed("nobody".into())
            },
            0,
        );
    }
    assert_eq!(names(&watch), ["10.1.0.1:0", "10.1.0.2:0"]);
    assert_eq!(
        (watch.seen().failures, watch.seen().bad, watch.seen().answered_ms),
        (97, 98, Some(20))
    );
    // Only whole answers are counted: this is the second in a row without the first address.
    take(&mut watch, 13_000, good(&[("10.1.0.2:0", 1)], 10), 0);
    assert_eq!(names(&watch), ["10.1.0.2:0"]);
    assert_eq!((watch.seen().failures, watch.seen().fault.clone()), (0, None));
}

/// Members of an earlier life leave as any others do.
#[test]
fn earlier_members_leave_with_the_second_answer() {
    let earlier: BTreeMap<SocketAddr, u32> = [(address("10.1.0.9:0"), 1)].into();
    let mut watch = Watch::new(addresses(AddressFamily::Both), earlier, 0);
    assert_eq!(
        watch.seen().members,
        None,
        "nothing is said before anybody has answered"
    );
    take(&mut watch, 0, good(&[("10.1.0.1:0", 1)], 10), 0);
    assert_eq!(members(&watch).len(), 2);
    take(&mut watch, 13_000, good(&[("10.1.0.1:0", 1)], 10), 0);
    assert_eq!(names(&watch), ["10.1.0.1:0"]);
}

/// Servers for which there was no room in a look: who belongs to them stays, and so does who may. Others leave.
#[test]
fn who_was_not_asked_for_is_not_missed() {
    let earlier: BTreeMap<SocketAddr, u32> = [(address("10.1.0.9:80"), 1)].into();
    let mut watch = Watch::new(settings(DnsRecords::Srv), earlier, 0);
    let servers = ["10.1.0.1:80", "10.1.0.2:80", "[2001:db8::2]:80"];
    let named = ["a.internal", "b.internal", "b.internal"];
    let first = Outcome {
        servers: servers
            .map(address)
            .into_iter()
            .zip(named.map(str::to_owned))
            .collect(),
        ..good(&servers.map(|server| (server, 1)), 10)
    };
    take(&mut watch, 0, first, 0);
    for at in [20_000, 40_000, 60_000] {
        let outcome = Outcome {
            unasked: [("b.internal".to_owned(), true)].into(),
            ..good(&[], 10)
        };
        take(&mut watch, at, outcome, 0);
    }
    assert_eq!(names(&watch), ["10.1.0.2:80", "10.1.0.9:80"]);
    for at in [80_000, 100_000] {
        take(&mut watch, at, good(&[], 10), 0);
    }
    assert_eq!(names(&watch), Vec::<String>::new());
}

/// The next look is due when nobody keeps the answer any more: two seconds and a hundredth after it ends, within the
/// bounds of the config, and spread over a tenth. After failures it is put off further each time, up to half a minute.
#[test]
fn looks_are_due_when_answers_end() {
    let due = |ttl, rand| {
        let mut watch = Watch::new(addresses(AddressFamily::Both), BTreeMap::new(), 0);
        take(&mut watch, 1_000, good(&[], ttl), rand);
        watch.due_ms() - 1_000
    };
    assert_eq!(
        (due(60, 0), due(0, 0), due(1_000_000, 0)),
        (62_620, 7_070, 305_020)
    );
    for rand in 0..10_000 {
        assert!((62_620..68_882).contains(&due(60, rand)));
    }
    let mut watch = Watch::new(addresses(AddressFamily::Both), BTreeMap::new(), 0);
    let mut waits = Vec::new();
    for _ in 0..40 {
        take(&mut watch, 0, Outcome::failed("nobody".into()), 0);
        waits.push(watch.due_ms());
    }
    assert_eq!(waits[..5], [5_000, 10_000, 20_000, 30_000, 30_000]);
    assert_eq!(waits[39], 30_000);
}

/// Answers that are not whole name other addresses each time: nobody leaves, so there is room for a number only. Who
/// is known stays.
#[test]
fn what_is_known_is_bounded() {
    let mut watch = Watch::new(addresses(AddressFamily::V4), BTreeMap::new(), 0);
    let mut first = None;
    for thousand in 0..12_u8 {
        let found = (0..1_000_u16).map(|n| {
            let [high, low] = n.to_be_bytes();
            (SocketAddr::from(([10, 250 - thousand, high, low], 0)), 1)
        });
        let outcome = Outcome {
            found: found.collect(),
            fault: Some("AAAA: SERVFAIL".into()),
            ..good(&[], 10)
        };
        first.get_or_insert_with(|| outcome.found.clone());
        take(&mut watch, u64::from(thousand) * 10_000, outcome, 0);
    }
    let members = watch.seen().members.clone().unwrap();
    assert_eq!((members.len(), watch.seen().left_out), (10_000, 1_000));
    assert!(first.unwrap().keys().all(|address| members.contains_key(address)));
}

/// Who is known from before, and is in no answer, keeps the weight that it had in the pool: that is not the records'.
#[test]
fn earlier_members_keep_their_weight() {
    let mut watch = Watch::new(settings(DnsRecords::Srv), BTreeMap::new(), 0);
    let zone = [("10.1.0.1:80", 0), ("10.1.0.2:80", 1), ("10.1.0.3:80", 1)];
    take(&mut watch, 0, good(&zone, 10), 0);
    let before = watch.seen().members.as_deref().cloned().unwrap();
    let mut watch = Watch::new(settings(DnsRecords::Srv), before.clone(), 0);
    take(&mut watch, 0, good(&zone[..2], 10), 0);
    assert_eq!(watch.seen().members.as_deref(), Some(&before));
}

/// Weights fit a pool: as they are where they fit, scaled where they do not, and never none.
#[test]
fn weights_fit_a_pool() {
    for (told, expected) in [
        ([1, 2, 3], [1, 2, 3]),
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 3], [1, 100, 300]),
        ([0, 20, 40], [1, 500, 1000]),
        ([65_535, 13_107, 1], [1000, 200, 1]),
        ([0, 65_535, 65_535], [1, 1000, 1000]),
    ] {
        let mut watch = Watch::new(settings(DnsRecords::Srv), BTreeMap::new(), 0);
        let found: Vec<(&str, u32)> = ["10.1.0.1:1", "10.1.0.1:2", "10.1.0.1:3"]
            .into_iter()
            .zip(told)
            .collect();
        take(&mut watch, 0, good(&found, 10), 0);
        let weights: Vec<u32> = members(&watch).into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(weights, expected, "{told:?}");
    }
}
