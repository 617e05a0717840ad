//! What a rate limit promises: exactly so many, for each key, over all threads, whatever else comes.

use std::time::Duration;

use balance::{RateLimiter, Rng, Verdict};
use model::config::{LimitKey, Name, RateLimit};
use proptest::prelude::*;

use super::support::SECOND;

fn limit(requests: u32, per_ms: u64, burst: u32) -> RateLimit {
    RateLimit {
        name: Name::parse("limit").unwrap(),
        requests,
        per: Duration::from_millis(per_ms),
        burst,
        key: LimitKey::ClientAddress,
        max_keys: 1000,
        announce: false,
    }
}

fn passes(limiter: &RateLimiter, key: u64, now_us: u64) -> bool {
    matches!(limiter.take(key, now_us), Verdict::Pass { .. })
}

/// 100 a second with a burst of 200: 200 at once, then one every ten milliseconds, and after a pause 200 again.
#[test]
fn the_burst_and_then_the_rate() {
    let limiter = RateLimiter::new(&limit(100, 1000, 200), 1);
    let start = 5 * SECOND;
    assert_eq!((0..500).filter(|_| passes(&limiter, 1, start)).count(), 200);
    assert_eq!(
        limiter.take(1, start),
        Verdict::Refuse {
            wait: Duration::from_millis(10)
        }
    );
    assert!(!passes(&limiter, 1, start + 9_999));
    assert!(passes(&limiter, 1, start + 10_000));
    assert!(!passes(&limiter, 1, start + 19_999));
    assert_eq!(
        (0..500)
            .filter(|_| passes(&limiter, 1, start + 60 * SECOND))
            .count(),
        200
    );
    assert!(passes(&limiter, 2, start), "another key has a bucket of its own");
}

/// What is told is true: after the time to wait it passes, a microsecond before it does not; what is left is what
/// passes; and looking takes nothing.
#[test]
fn what_it_says_is_what_happens() {
    let limiter = RateLimiter::new(&limit(3, 1000, 5), 1);
    let mut rng = Rng::new(9);
    let mut now = SECOND;
    for _ in 0..2_000 {
        now += rng.below(400_000);
        let look = limiter.look(7, now);
        assert_eq!(look, limiter.look(7, now));
        assert_eq!(look, limiter.take(7, now));
        match look {
            Verdict::Pass { left, .. } => {
                let more = (0..10).take_while(|_| passes(&limiter, 7, now)).count();
                assert_eq!(more as u64, left);
            }
            Verdict::Refuse { wait } => {
                let wait_us = wait.as_nanos().div_ceil(1000) as u64;
                assert!(!passes(&limiter, 7, now + wait_us - 1));
                assert!(passes(&limiter, 7, now + wait_us));
                now += wait_us;
            }
        }
    }
}

/// Two shards ask at the same time: together they get what one would.
#[test]
fn threads_share_one_bucket() {
    let limiter = RateLimiter::new(&limit(1000, 1000, 1000), 1);
    let passed: usize = std::thread::scope(|scope| {
        let ask = || (0..5_000).filter(|_| passes(&limiter, 1, SECOND)).count();
        let threads = [
            scope.spawn(ask),
            scope.spawn(ask),
            scope.spawn(ask),
            scope.spawn(ask),
        ];
        threads.map(|t| t.join().unwrap()).iter().sum()
    });
    assert_eq!(passed, 1000);
}

/// A token that is given back is there again.
#[test]
fn a_token_is_given_back() {
    let limiter = RateLimiter::new(&limit(1, 1000, 2), 1);
    assert!(passes(&limiter, 1, SECOND) && passes(&limiter, 1, SECOND));
    limiter.give_back(1);
    assert!(passes(&limiter, 1, SECOND));
    assert!(!passes(&limiter, 1, SECOND));
    limiter.give_back(99);
    assert!(passes(&limiter, 99, SECOND));
}

/// An attack with two million keys on a table for a thousand: memory stays, the abuser who is being held back stays
/// held back, and everybody else passes.
#[test]
fn a_flood_of_keys_frees_nobody_who_is_held_back() {
    let limiter = RateLimiter::new(&limit(10, 1000, 10), 42);
    let mut passed = 0;
    for i in 0..2_000_000u64 {
        // Ten thousand new keys for every request of the abuser, who sends two hundred over twenty seconds.
        let now = SECOND + i * 10;
        assert!(passes(&limiter, 1_000 + i, now));
        if i % 10_000 == 0 {
            passed += u32::from(passes(&limiter, 1, now));
        }
    }
    assert!(
        (200..=210).contains(&passed),
        "ten a second over twenty seconds: {passed}"
    );
    assert!(limiter.displaced() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// In no stretch of time do more pass than the burst and what the rate gives in that time; and nobody who asks
    /// more slowly than the rate is ever refused.
    #[test]
    fn never_more_than_burst_and_rate(
        requests in 1..1000u32,
        per_ms in 100..5_000u64,
        burst in 1..200u32,
        gaps in prop::collection::vec(0..50_000u64, 1..300),
    ) {
        let limiter = RateLimiter::new(&limit(requests, per_ms, burst), 1);
        let mut now = SECOND;
        let mut passed = Vec::new();
        for gap in gaps {
            now += gap;
            if passes(&limiter, 1, now) {
                passed.push(now);
            }
        }
        for (i, from) in passed.iter().enumerate() {
            for (j, to) in passed.iter().enumerate().skip(i) {
                let earned = (to - from) as f64 * f64::from(requests) / (per_ms as f64 * 1000.0);
                // Tokens come a part of a nanosecond early.
                prop_assert!((j - i + 1) as f64 <= f64::from(burst) + earned + 0.01);
            }
        }
        let slow = RateLimiter::new(&limit(requests, per_ms, 1), 1);
        let gap = (per_ms * 1000).div_ceil(u64::from(requests));
        for i in 0..50 {
            prop_assert!(passes(&slow, 1, SECOND + i * gap));
        }
    }
}
