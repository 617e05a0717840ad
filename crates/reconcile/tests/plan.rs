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
        let revision = 300;
        view.list(Listing {
            prefix: Prefix::Leader,
            revision,
            entries: Vec::new(),
        });
        view.list(Listing {
            prefix: Prefix::Assignments,
            revision,
            entries,
        });
        let entries = self.workers.iter().map(worker).collect();
        view.list(Listing {
            prefix: Prefix::Workers,
            revision,
            entries,
        });
        view
    }

    fn plan(&self, count: usize, max_moves: usize) -> Option<Transaction> {
        Planner::new(LEASE_MS, max_moves).plan(&self.view(), &vec![1; count], &name(0), EPOCH, 0)
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
