//! Passive ejection: when it happens, when not, for how long, and that one caller is told.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use balance::{Balancer, MAX_EJECTION_FACTOR, Outcome};
use model::config::{Algorithm, Passive};
use model::snapshot::Eligibility;
use model::state::Ejected;
use proptest::prelude::*;

use crate::support::{SECOND, address, balancer, balancer_of, state};

const REFUSED: Outcome = Outcome::Failure {
    what: "connection refused",
};
const FINE: Outcome = Outcome::Success { latency_us: 1_000 };

fn fail(balancer: &Balancer, index: usize, times: usize, now: u64) -> Vec<Ejected> {
    (0..times)
        .filter_map(|_| balancer.record(index, REFUSED, now))
        .collect()
}

fn pool(members: usize) -> Balancer {
    balancer(Algorithm::RoundRobin, &vec![100; members])
}

#[test]
fn five_failures_in_a_row_eject_and_say_so() {
    let pool = pool(3);
    assert!(fail(&pool, 1, 4, SECOND).is_empty());
    let ejected = pool.record(1, REFUSED, SECOND).unwrap();
    assert_eq!(ejected.backend.address, address(1));
    assert_eq!(ejected.reason, "5 failures in a row (last: connection refused)");
    assert_eq!(ejected.lasts, Duration::from_secs(10));
    assert!(pool.load(1).ejected(SECOND) && pool.load(1).ejected(11 * SECOND - 10));
    assert!(!pool.load(1).ejected(11 * SECOND + 10));
}

#[test]
fn a_success_in_between_starts_the_row_again() {
    let pool = pool(3);
    for _ in 0..4 {
        assert!(fail(&pool, 0, 4, SECOND).is_empty());
        assert_eq!(pool.record(0, FINE, SECOND), None);
    }
    // 16 of 20 failed, one more makes it enough requests for the ratio.
    let ejected = pool
        .record(0, Outcome::Failure { what: "status 503" }, SECOND)
        .unwrap();
    assert_eq!(
        ejected.reason,
        "80% of 21 requests failed in 10s (last: status 503)"
    );
}

/// Below the minimum volume the ratio says nothing, whatever it is.
#[test]
fn few_requests_do_not_make_a_ratio() {
    let pool = pool(3);
    for i in 0..9 {
        assert!(fail(&pool, 0, 1, SECOND + i).is_empty());
        assert_eq!(pool.record(0, FINE, SECOND + i), None);
    }
    // Eighteen requests, then the window moves on: the old ones no longer count towards the minimum.
    for i in 0..9 {
        assert!(fail(&pool, 0, 1, 12 * SECOND + i).is_empty());
        assert_eq!(pool.record(0, FINE, 12 * SECOND + i), None);
    }
}

/// A backend that fails less than the ratio stays, for hours.
#[test]
fn a_few_failures_are_no_reason() {
    let pool = pool(3);
    for i in 0..20_000u64 {
        let outcome = if i % 5 < 2 { REFUSED } else { FINE };
        assert_eq!(pool.record(2, outcome, i * 10_000), None, "request {i}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]

    /// Everybody fails at once: never more than the allowed share is out, and never the last one.
    #[test]
    fn the_share_and_the_last_one_are_kept(
        members in 1usize..12,
        max_ejected in prop_oneof![Just(100u8), 0u8..=100],
        down in prop::collection::vec(any::<bool>(), 12),
    ) {
        let weights: Vec<u32> = (0..members).map(|i| if down[i] { 0 } else { 100 }).collect();
        let passive = Passive { max_ejected, ..Passive::default() };
        let pool = balancer_of(state(Algorithm::Random, &weights, Some(passive)));
        let mut reported = 0;
        for index in 0..members {
            reported += fail(&pool, index, 20, SECOND).len();
        }
        let usable = weights.iter().filter(|w| **w > 0).count();
        let out = (0..members).filter(|i| pool.load(*i).ejected(SECOND)).count();
        prop_assert_eq!(reported, out);
        prop_assert!(out * 100 <= usable * usize::from(max_ejected));
        prop_assert!(usable == 0 || out < usable);
        // Nor less than allowed: what can be spared is taken out.
        let allowed = (usable * usize::from(max_ejected) / 100).min(usable.saturating_sub(1));
        prop_assert_eq!(out, allowed);
    }
}

/// The snapshot knows of an ejection already (weight 0, eligibility says why): it counts towards the share.
#[test]
fn known_ejections_count_towards_the_share() {
    let passive = Some(Passive::default());
    let before = balancer_of(state(Algorithm::Random, &[100; 4], passive.clone()));
    assert_eq!(fail(&before, 0, 5, SECOND).len(), 1);
    let mut known = state(Algorithm::Random, &[0, 100, 100, 100], passive);
    known.members[0].eligibility = Eligibility::Ejected;
    let loads = (0..4).map(|i| before.load(i).clone()).collect();
    let after = Balancer::new(known.into(), Default::default(), loads);
    assert_eq!(fail(&after, 1, 5, SECOND).len(), 1);
    assert_eq!(fail(&after, 2, 50, SECOND).len(), 0);
}

/// Four threads report failures of two members of a pool that can spare one: one ejection, one report.
#[test]
fn four_threads_do_not_take_out_the_last_two() {
    for round in 0..50 {
        let pool = pool(2);
        let reports: usize = std::thread::scope(|scope| {
            let threads = [0, 1, 0, 1].map(|index| {
                let pool = &pool;
                scope.spawn(move || fail(pool, index, 50, SECOND).len())
            });
            threads.map(|t| t.join().unwrap()).iter().sum()
        });
        let out = (0..2).filter(|i| pool.load(*i).ejected(SECOND)).count();
        assert_eq!((reports, out), (1, 1), "round {round}");
    }
}

/// Two threads meet the failure that ejects at the same moment, a thousand times: one of them is told, though the pool
/// could spare another member.
#[test]
fn one_caller_is_told() {
    const ROUNDS: u64 = 1_000;
    let passive = Passive {
        consecutive_failures: 1,
        ..Passive::default()
    };
    let pool = balancer_of(state(Algorithm::Random, &[100; 4], Some(passive)));
    let arrived = AtomicU64::new(0);
    let told = || {
        let mut told = 0;
        for round in 1..=ROUNDS {
            // They start a round together, as closely as two threads can.
            arrived.fetch_add(1, SeqCst);
            while arrived.load(SeqCst) < 2 * round {
                std::thread::yield_now();
            }
            told += fail(&pool, 0, 1, round * 1_000 * SECOND).len() as u64;
        }
        told
    };
    let both: u64 = std::thread::scope(|scope| {
        let threads = [scope.spawn(told), scope.spawn(told)];
        threads.map(|t| t.join().unwrap()).iter().sum()
    });
    assert_eq!(both, ROUNDS);
}

/// Each time it fails again soon after its return, it stays out longer, up to ten times; after healthy time less.
#[test]
fn repeated_ejections_last_longer_up_to_a_bound() {
    let pool = pool(3);
    let mut now = SECOND;
    let mut lasts = Vec::new();
    for _ in 0..12 {
        let ejected = fail(&pool, 0, 5, now);
        let ejected = ejected.first().unwrap();
        lasts.push(ejected.lasts.as_secs());
        now += ejected.lasts.as_micros() as u64 + SECOND;
    }
    assert_eq!(lasts, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100, 100]);
    assert_eq!(lasts.last(), Some(&(10 * u64::from(MAX_EJECTION_FACTOR))));
    // Back for two minutes: four times thirty seconds, four forgotten.
    now += 120 * SECOND;
    assert_eq!(fail(&pool, 0, 5, now)[0].lasts.as_secs(), 70);
    now += 3_600 * SECOND;
    assert_eq!(fail(&pool, 0, 5, now)[0].lasts.as_secs(), 10);
}

/// What its running requests meet while it is out does not count against it when it is back.
#[test]
fn the_history_starts_anew_after_an_ejection() {
    let pool = pool(3);
    assert_eq!(fail(&pool, 0, 5, SECOND).len(), 1);
    assert!(fail(&pool, 0, 100, 5 * SECOND).is_empty());
    let back = 11 * SECOND + 10;
    assert!(fail(&pool, 0, 4, back).is_empty());
    assert_eq!(fail(&pool, 0, 1, back).len(), 1);
}

/// The same of the ratio: a window longer than the ejection does not hold the old failures against it.
#[test]
fn the_window_starts_anew_after_an_ejection() {
    let passive = Passive {
        ejection_time: Duration::from_secs(1),
        ..Passive::default()
    };
    let pool = balancer_of(state(Algorithm::Random, &[100; 4], Some(passive)));
    for _ in 0..9 {
        assert_eq!(pool.record(0, FINE, SECOND), None);
        assert!(fail(&pool, 0, 1, SECOND).is_empty());
    }
    assert_eq!(fail(&pool, 0, 2, SECOND).len(), 1);
    // Back after a second, within the same ten: 12 of 21 would be too many.
    assert!(fail(&pool, 0, 1, 3 * SECOND).is_empty());
}

/// Switched off: nothing is ejected; switched off meanwhile: an ejection in force counts no more.
#[test]
fn without_passive_nothing_is_ejected() {
    let off = state(Algorithm::RoundRobin, &[100, 100], None);
    let pool = balancer_of(off.clone());
    assert!(fail(&pool, 0, 1_000, SECOND).is_empty());

    let on = self::pool(2);
    assert_eq!(fail(&on, 0, 5, SECOND).len(), 1);
    let loads = (0..2).map(|i| on.load(i).clone()).collect();
    let now_off = Balancer::new(off.into(), Default::default(), loads);
    let mut rng = balance::Rng::new(1);
    assert!((0..2).any(|_| now_off.pick(0, &[], SECOND, &mut rng) == Some(0)));
}

/// A draining member's last requests may fail as they like: it is not "ejected" on top, nor is an unknown index.
#[test]
fn who_takes_no_requests_is_not_ejected() {
    let pool = balancer(Algorithm::RoundRobin, &[0, 100, 100]);
    assert!(fail(&pool, 0, 50, SECOND).is_empty());
    assert_eq!(pool.record(17, REFUSED, SECOND), None);
}
