//! `peak_ewma`: the faster server gets more, the slow one is never forgotten.
//!
//! A virtual pool: requests arrive one after another at a fixed rate, each server answers after its own latency.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balance::{Balancer, Outcome, Rng, STALE_US};
use model::config::Algorithm;

use crate::support::{SECOND, assert_drawn_by_weight, balancer, balancer_of, counts, state};

/// Time and member of each pick while requests arrive every `gap_us` from `from_us` to `to_us`.
fn run(
    balancer: &Balancer,
    rng: &mut Rng,
    (from_us, to_us, gap_us): (u64, u64, u64),
    latency_us: impl Fn(usize, u64) -> u64,
) -> Vec<(u64, usize)> {
    let mut running: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut picks = Vec::new();
    let finish = |running: &mut BinaryHeap<Reverse<(u64, usize, u64)>>, until: u64| {
        while let Some(Reverse((at, member, took))) = running.peek().copied() {
            if at > until {
                break;
            }
            running.pop();
            balancer.load(member).end();
            balancer.record(member, Outcome::Success { latency_us: took }, at);
        }
    };
    let mut now = from_us;
    while now < to_us {
        finish(&mut running, now);
        let member = balancer.pick(0, &[], now, rng).unwrap();
        balancer.load(member).begin();
        let took = latency_us(member, now);
        running.push(Reverse((now + took, member, took)));
        picks.push((now, member));
        now += gap_us;
    }
    finish(&mut running, u64::MAX);
    picks
}

fn share(picks: &[(u64, usize)], member: usize) -> f64 {
    picks.iter().filter(|(_, m)| *m == member).count() as f64 / picks.len() as f64
}

/// One of three takes 200 ms, the others 5 ms, at 200 requests a second for five minutes. The slow one gets less
/// than 1 % and yet is tried again at least once in [`STALE_US`] and a second.
#[test]
fn a_slow_server_gets_little_and_is_never_forgotten() {
    let balancer = balancer(Algorithm::PeakEwma, &[100, 100, 100]);
    let mut rng = Rng::new(1);
    let latency = |member, _| if member == 0 { 200_000 } else { 5_000 };
    let picks = run(&balancer, &mut rng, (SECOND, 301 * SECOND, 5_000), latency);
    assert!(share(&picks, 0) < 0.01, "{}", share(&picks, 0));
    let tries: Vec<u64> = picks.iter().filter(|p| p.1 == 0).map(|p| p.0).collect();
    assert!(tries.len() >= 9, "{tries:?}");
    let longest = tries.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(longest <= STALE_US + SECOND, "{longest} µs without a try");
    let last = 301 * SECOND - tries.last().unwrap();
    assert!(last <= STALE_US + SECOND, "{last} µs without a try at the end");
}

/// However slow it was (here a minute for one answer), a server is tried again, and once it is fast it gets its
/// share again: a quarter or more of three's traffic in the second minute after.
#[test]
fn a_server_that_recovers_gets_its_share_again() {
    let balancer = balancer(Algorithm::PeakEwma, &[100, 100, 100]);
    let mut rng = Rng::new(2);
    let latency = |member, now| {
        if member == 0 && now < 60 * SECOND {
            10 * SECOND
        } else {
            5_000
        }
    };
    run(&balancer, &mut rng, (SECOND, 60 * SECOND, 5_000), latency);
    run(&balancer, &mut rng, (70 * SECOND, 130 * SECOND, 5_000), latency);
    let after = run(&balancer, &mut rng, (130 * SECOND, 190 * SECOND, 5_000), latency);
    assert!(share(&after, 0) > 0.25, "{}", share(&after, 0));
}

/// Servers that are equally fast share by weight, also when nobody is busy.
#[test]
fn equally_fast_servers_share_by_weight() {
    let weights = [100, 300, 200];
    let balancer = balancer(Algorithm::PeakEwma, &weights);
    let mut rng = Rng::new(3);
    let latency = |_, _| 5_000;
    // The first seconds measure; requests follow each other without overlap.
    run(&balancer, &mut rng, (SECOND, 2 * SECOND, 6_000), latency);
    let picks = run(&balancer, &mut rng, (2 * SECOND, 302 * SECOND, 6_000), latency);
    let picks: Vec<usize> = picks.iter().map(|p| p.1).collect();
    let shares = counts(&picks, 3);
    for (count, weight) in shares.iter().zip(weights) {
        let share = *count as f64 / picks.len() as f64;
        let ideal = f64::from(weight) / 600.0;
        assert!((share - ideal).abs() < 0.03, "{shares:?}");
    }
}

/// The same when all are busy: what is in flight settles by weight.
#[test]
fn busy_servers_hold_requests_by_weight() {
    let balancer = balancer(Algorithm::PeakEwma, &[100, 300, 200]);
    let mut rng = Rng::new(4);
    for i in 0..3 {
        balancer.record(i, Outcome::Success { latency_us: 5_000 }, SECOND);
    }
    for _ in 0..6_000 {
        let pick = balancer.pick(0, &[], SECOND, &mut rng).unwrap();
        balancer.load(pick).begin();
    }
    let held = [0, 1, 2].map(|i| balancer.load(i).in_flight());
    for (held, ideal) in held.iter().zip([1_000.0, 3_000.0, 2_000.0]) {
        assert!((f64::from(*held) / ideal - 1.0).abs() < 0.15, "{held} of {ideal}");
    }
}

/// A server twice as slow still carries load: when work queues, it gets a fifth of two's traffic or more.
#[test]
fn under_load_a_slower_server_helps() {
    let balancer = balancer(Algorithm::PeakEwma, &[100, 100]);
    let mut rng = Rng::new(5);
    let latency = |member, _| if member == 0 { 20_000 } else { 10_000 };
    let picks = run(&balancer, &mut rng, (SECOND, 61 * SECOND, 1_000), latency);
    let share = share(&picks, 0);
    assert!((0.2..0.4).contains(&share), "{share}");
}

/// A server that fails at once is not taken for a fast one: it gets less than 1 % where the others answer.
#[test]
fn failing_fast_attracts_no_traffic() {
    // Without ejection, which would hide the question.
    let balancer = balancer_of(state(Algorithm::PeakEwma, &[100, 100, 100], None));
    let mut rng = Rng::new(6);
    let mut picks = Vec::new();
    for i in 0..20_000u64 {
        let now = SECOND + i * 5_000;
        let pick = balancer.pick(0, &[], now, &mut rng).unwrap();
        let outcome = if pick == 0 {
            Outcome::Failure { what: "status 503" }
        } else {
            Outcome::Success { latency_us: 5_000 }
        };
        balancer.record(pick, outcome, now);
        picks.push((now, pick));
    }
    assert!(share(&picks, 0) < 0.01, "{}", share(&picks, 0));
}

/// Nothing is known of anybody and no answer comes: the requests spread over all, as if by least connections.
#[test]
fn unknown_servers_share_until_they_answer() {
    let balancer = balancer(Algorithm::PeakEwma, &[100; 4]);
    let mut rng = Rng::new(7);
    let mut picks = Vec::new();
    for _ in 0..400 {
        let pick = balancer.pick(0, &[], SECOND, &mut rng).unwrap();
        balancer.load(pick).begin();
        picks.push(pick);
    }
    assert_drawn_by_weight(&counts(&picks, 4), &[100; 4], "unknown servers");
    for i in 0..4 {
        assert!(balancer.load(i).in_flight() > 80);
    }
}
