//! Rounds of a leader, one at a time. (Under faults: `cluster`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::plan::{DEAD_PER_ROUND, Planner, WORKERS};
use evenkeel_reconcile::cluster::records::{
    Assignment, Condition, Key, LeaseId, Round, Transaction, Value, WorkerRecord, Write,
};
use evenkeel_reconcile::cluster::view::{Listing, Prefix, View};
use model::config::Name;

const LEASE_MS: u64 = 3000;
const EPOCH: u64 = 5;
/// Operations that etcd takes in a transaction, unless told otherwise.
const OPERATIONS: usize = 128;

fn name(n: usize) -> Name {
    Name::parse(&format!("node-{n:04}")).unwrap()
}

fn slots(slots: impl IntoIterator<Item = u16>) -> BTreeSet<Slot> {
    slots.into_iter().map(Slot).collect()
}

/// What stands in the store, as small as a test wants it. Worker `n` holds lease `n`; assignment `n` is of revision
/// 100 + `n`.
#[derive(Default)]
struct Stored {
    /// With the revision acknowledged.
    workers: Vec<(usize, u64)>,
    /// With what they have and what is leaving.
    assignments: Vec<(usize, BTreeSet<Slot>, BTreeSet<Slot>)>,
    /// Who was there at the last round, and under which lease.
    noted: Vec<(usize, i64)>,
    /// What cannot be read, with its revision, and whether it holds a lease.
    unread: Vec<(Key, u64, bool)>,
}

impl Stored {
    fn view(&self) -> View {
        let mut view = View::default();
        let worker = |(n, acknowledged): &(usize, u64)| {
            let record = WorkerRecord {
                lease: LeaseId(*n as i64),
                acknowledged: *acknowledged,
            };
            (Key::Worker(name(*n)), 200, Value::Worker(record))
        };
        let assignment = |(n, slots, leaving): &(usize, BTreeSet<Slot>, BTreeSet<Slot>)| {
            let given = Assignment {
                epoch: 1,
                slots: slots.clone(),
                leaving: leaving.clone(),
            };
            (
                Key::Assignment(name(*n)),
                100 + *n as u64,
                Value::Assignment(given),
            )
        };
        let mut entries: Vec<_> = self.assignments.iter().map(assignment).collect();
        if !self.noted.is_empty() {
            let workers: BTreeMap<_, _> = self
                .noted
                .iter()
                .map(|(n, lease)| (name(*n), LeaseId(*lease)))
                .collect();
            entries.push((
                Key::Round,
                90,
                Value::Round(Round {
                    by: name(0),
                    epoch: 1,
                    workers,
                }),
            ));
        }
        let unread = |prefix| {
            let of = self
                .unread
                .iter()
                .filter(move |(key, ..)| Prefix::of(key) == Some(prefix));
            of.map(|(key, revision, leased)| (key.clone(), *revision, Value::Foreign { leased: *leased }))
        };
        entries.extend(unread(Prefix::Assignments));
        let revision = 300;
        view.list(Listing {
            prefix: Prefix::Leader,
            another: false,
            revision,
            entries: Vec::new(),
        });
        view.list(Listing {
            prefix: Prefix::Assignments,
            another: false,
            revision,
            entries,
        });
        let entries = self
            .workers
            .iter()
            .map(worker)
            .chain(unread(Prefix::Workers))
            .collect();
        view.list(Listing {
            prefix: Prefix::Workers,
            another: false,
            revision,
            entries,
        });
        view
    }

    fn plan(&self, count: usize, max_moves: usize) -> Option<Transaction> {
        let (mut planner, view, weights) = (Planner::new(LEASE_MS, max_moves), self.view(), vec![1; count]);
        let at_once = planner.plan(&view, &weights, &name(0), EPOCH, 0);
        // Without a round before, it waits.
        at_once.or_else(|| planner.plan(&view, &weights, &name(0), EPOCH, LEASE_MS))
    }
}

fn given(transaction: &Transaction, n: usize) -> Option<&Assignment> {
    transaction.writes.iter().find_map(|write| match write {
        Write::Put {
            key: Key::Assignment(of),
            value: Value::Assignment(given),
            ..
        } if *of == name(n) => Some(given),
        _ => None,
    })
}

/// Scenario: the first leader of a new cluster.
#[test]
fn the_first_round_gives_everything_out_at_once() {
    let stored = Stored {
        workers: vec![(0, 0), (1, 0)],
        ..Stored::default()
    };
    let round = stored.plan(16, 1).unwrap();
    let (one, two) = (given(&round, 0).unwrap(), given(&round, 1).unwrap());
    assert_eq!(one.slots.union(&two.slots).count(), 16);
    assert!(one.slots.is_disjoint(&two.slots));
    assert_eq!((one.epoch, two.epoch), (EPOCH, EPOCH));
    assert!(
        round
            .conditions
            .contains(&Condition::Unchanged(Key::Leader, EPOCH))
    );
    assert!(round.conditions.contains(&Condition::Absent(Key::Round)));
}

/// Scenario: one of two has gone. Its assignment is deleted in the round that gives its slots away, on condition
/// that it has no key.
#[test]
fn the_dead_loses_its_assignment_in_the_round_that_gives_it_away() {
    let stored = Stored {
        workers: vec![(0, 100)],
        assignments: vec![(0, slots(0..8), slots([])), (1, slots(8..16), slots([3]))],
        noted: vec![(0, 0), (1, 1)],
        ..Stored::default()
    };
    let round = stored.plan(16, 1).unwrap();
    assert_eq!(given(&round, 0).unwrap().slots, slots(0..16));
    assert!(
        round
            .conditions
            .contains(&Condition::Absent(Key::Worker(name(1))))
    );
    assert!(
        round
            .conditions
            .contains(&Condition::Unchanged(Key::Worker(name(0)), 200))
    );
    assert!(round.conditions.contains(&Condition::Unchanged(Key::Round, 90)));
    assert!(round.writes.contains(&Write::Delete(Key::Assignment(name(1)))));
}

/// Scenario: a second worker comes. Slots are taken first, `max_moves` at a time, and given when that is acknowledged.
#[test]
fn a_live_move_takes_two_rounds() {
    let mut stored = Stored {
        workers: vec![(0, 100), (1, 0)],
        assignments: vec![(0, slots(0..16), slots([]))],
        noted: vec![(0, 0)],
        ..Stored::default()
    };
    let round = stored.plan(16, 3).unwrap();
    let taken = given(&round, 0).unwrap();
    assert_eq!((taken.slots.len(), taken.leaving.len()), (13, 3));
    assert_eq!(
        given(&round, 1).unwrap().slots,
        slots([]),
        "nothing before the other is without it"
    );

    // Not acknowledged: nothing more is taken, nothing is given.
    let leaving = taken.leaving.clone();
    stored.assignments = vec![
        (0, taken.slots.clone(), leaving.clone()),
        (1, slots([]), slots([])),
    ];
    stored.noted = vec![(0, 0), (1, 1)];
    stored.workers = vec![(0, 99), (1, 101)];
    assert_eq!(stored.plan(16, 3), None);

    stored.workers = vec![(0, 100), (1, 101)];
    let round = stored.plan(16, 3).unwrap();
    assert_eq!(given(&round, 1).unwrap().slots, leaving);
}

/// Scenario: an acknowledgement is seen later than the round that relied on it. Who has a slot keeps it.
#[test]
fn who_has_a_slot_counts_for_more_than_who_seems_to_be_leaving_it() {
    for (has, leaves) in [(0, 1), (1, 0)] {
        let acknowledged = |n: usize| if n == leaves { 1 } else { 100 + n as u64 };
        let stored = Stored {
            workers: vec![(0, acknowledged(0)), (1, acknowledged(1))],
            assignments: vec![(has, slots(0..4), slots([])), (leaves, slots([]), slots(0..4))],
            noted: vec![(0, 0), (1, 1)],
            ..Stored::default()
        };
        if let Some(round) = stored.plan(4, 4) {
            let kept = given(&round, leaves)
                .map(|given| given.slots.clone())
                .unwrap_or_default();
            assert_eq!(kept, slots([]));
        }
    }
}

/// Scenario: two of three have lost the lease that they had at the last round; one is back, the other not yet.
#[test]
fn mass_loss_freezes_for_one_lease_and_no_longer() {
    let stored = Stored {
        workers: vec![(0, 100), (1, 101)],
        assignments: vec![
            (0, slots(0..2), slots([])),
            (1, slots(2..4), slots([])),
            (2, slots(4..6), slots([])),
        ],
        noted: vec![(0, 0), (1, 7), (2, 8)],
        ..Stored::default()
    };
    let (view, weights) = (stored.view(), vec![1; 6]);
    let mut planner = Planner::new(LEASE_MS, 2);
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 1000), None);
    assert!(planner.is_frozen());
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 3999), None);
    let round = planner.plan(&view, &weights, &name(0), EPOCH, 4000).unwrap();
    assert!(!planner.is_frozen());
    assert!(round.writes.contains(&Write::Delete(Key::Assignment(name(2)))));
}

/// Scenario: the store has no round, because it is new, or because it was emptied: who had something may still be at
/// work for a lease.
#[test]
fn without_a_round_nothing_is_given_for_one_lease() {
    let stored = Stored {
        workers: vec![(0, 0), (1, 0)],
        ..Stored::default()
    };
    let (view, weights) = (stored.view(), vec![1; 6]);
    let mut planner = Planner::new(LEASE_MS, 2);
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 1000), None);
    assert!(planner.is_frozen());
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 3999), None);
    assert!(planner.plan(&view, &weights, &name(0), EPOCH, 4000).is_some());
}

/// Scenario: all have lost their lease and all are back. Nothing moves; only the new leases are noted.
#[test]
fn when_all_are_back_nothing_has_moved() {
    let mut stored = Stored {
        workers: vec![(0, 0), (1, 0)],
        ..Stored::default()
    };
    let first = stored.plan(6, 2).unwrap();
    let has = |n: usize| (n, given(&first, n).unwrap().slots.clone(), slots([]));
    stored.assignments = vec![has(0), has(1)];
    stored.workers = vec![(0, 100), (1, 101)];
    stored.noted = vec![(0, 7), (1, 8)];
    let round = stored.plan(6, 2).unwrap();
    assert_eq!(round.writes.len(), 1);
    assert!(matches!(&round.writes[0], Write::Put { key: Key::Round, .. }));
}

/// Scenario: a huge cluster of which a part dies.
#[test]
fn a_round_stays_within_what_a_transaction_may_hold() {
    let all = WORKERS + 60;
    let stored = Stored {
        workers: (0..all - 40).map(|n| (n, 100 + n as u64)).collect(),
        assignments: (0..all).map(|n| (n, slots([n as u16]), slots([]))).collect(),
        noted: (0..all).map(|n| (n, n as i64)).collect(),
        ..Stored::default()
    };
    let round = stored.plan(1024, 1024).unwrap();
    let deleted = round
        .writes
        .iter()
        .filter(|write| matches!(write, Write::Delete(_)))
        .count();
    assert_eq!(deleted, DEAD_PER_ROUND);
    assert!(
        round.conditions.len() <= OPERATIONS,
        "{} conditions",
        round.conditions.len()
    );
    assert!(round.writes.len() <= OPERATIONS, "{} writes", round.writes.len());
}

/// Scenario: nobody works.
#[test]
fn without_workers_nothing_is_given() {
    let stored = Stored {
        assignments: vec![(1, slots([0]), slots([]))],
        ..Stored::default()
    };
    assert_eq!(stored.plan(4, 1), None);
}

/// Scenario: somebody wrote under `assign/head` what cannot be read. That is no round: for a lease nothing is given; then
/// it is written over, under the condition that it is still that.
#[test]
fn a_round_that_cannot_be_read_is_written_over() {
    let stored = Stored {
        workers: vec![(0, 100)],
        assignments: vec![(0, slots(0..4), slots([])), (1, slots(4..6), slots([]))],
        unread: vec![(Key::Round, 250, false)],
        ..Stored::default()
    };
    let (view, weights) = (stored.view(), vec![1; 6]);
    let mut planner = Planner::new(LEASE_MS, 2);
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 1000), None);
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 3999), None);
    let round = planner.plan(&view, &weights, &name(0), EPOCH, 4000).unwrap();
    assert!(round.conditions.contains(&Condition::Unchanged(Key::Round, 250)));
    assert!(!round.conditions.contains(&Condition::Absent(Key::Round)));
    assert_eq!(given(&round, 0).unwrap().slots, slots(0..6));
}

/// Scenario: a worker's assignment cannot be read: it may still be at what that said. Nothing is given for a lease, then
/// it is given another; one of nobody is deleted. What is written meanwhile takes its time anew.
#[test]
fn an_assignment_that_cannot_be_read_is_waited_for_and_written_over() {
    let mut stored = Stored {
        workers: vec![(0, 100), (1, 101)],
        assignments: vec![(0, slots(0..3), slots([]))],
        noted: vec![(0, 0), (1, 1)],
        unread: vec![
            (Key::Assignment(name(1)), 250, false),
            (Key::Assignment(name(9)), 251, false),
        ],
    };
    let weights = vec![1; 6];
    let mut planner = Planner::new(LEASE_MS, 2);
    assert_eq!(
        planner.plan(&stored.view(), &weights, &name(0), EPOCH, 1000),
        None
    );
    assert!(planner.is_frozen());
    stored.unread[0].1 = 260;
    let view = stored.view();
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 2000), None);
    assert_eq!(planner.plan(&view, &weights, &name(0), EPOCH, 4999), None);
    let round = planner.plan(&view, &weights, &name(0), EPOCH, 5000).unwrap();
    assert!(!planner.is_frozen());
    let (own, others) = (
        given(&round, 0).map(|given| &given.slots),
        &given(&round, 1).unwrap().slots,
    );
    let before = slots(0..3);
    let all = own.unwrap_or(&before).union(others).copied().collect();
    assert_eq!((all, others.contains(&Slot(0))), (slots(0..6), false));
    assert!(round.writes.contains(&Write::Delete(Key::Assignment(name(9)))));
}

/// Scenario: the key of a worker cannot be read. It is neither dead, nor given anything; others are. Where the key holds
/// no lease and is still the same after one, it is nobody's: what it had is given away, unless the key has changed.
#[test]
fn a_worker_that_cannot_be_read_is_not_dead_before_a_lease() {
    let mut stored = Stored {
        workers: vec![(0, 100)],
        assignments: vec![(0, slots(0..3), slots([])), (1, slots(3..5), slots([5]))],
        noted: vec![(0, 0), (1, 1)],
        unread: vec![(Key::Worker(name(1)), 250, true)],
    };
    let weights = vec![1; 7];
    let mut planner = Planner::new(LEASE_MS, 2);
    let mut plan = |stored: &Stored, now| planner.plan(&stored.view(), &weights, &name(0), EPOCH, now);
    for now in [1000, 9000] {
        let round = plan(&stored, now).unwrap();
        assert_eq!(given(&round, 0).unwrap().slots, slots([0, 1, 2, 6]));
        assert_eq!(given(&round, 1), None);
        assert!(!round.writes.contains(&Write::Delete(Key::Assignment(name(1)))));
    }
    stored.unread = vec![(Key::Worker(name(1)), 260, false)];
    for now in [10_000, 12_999] {
        assert_eq!(
            given(&plan(&stored, now).unwrap(), 0).unwrap().slots,
            slots([0, 1, 2, 6])
        );
    }
    let round = plan(&stored, 13_000).unwrap();
    assert_eq!(given(&round, 0).unwrap().slots, slots(0..7));
    assert!(round.writes.contains(&Write::Delete(Key::Assignment(name(1)))));
    let still = Condition::Unchanged(Key::Worker(name(1)), 260);
    assert!(round.conditions.contains(&still));
}
