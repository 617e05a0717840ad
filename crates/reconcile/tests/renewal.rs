//! Renewal of certificates: fixed scenarios, and a seeded simulation of years with an unreliable authority.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_reconcile::renewal::{
    FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_WITHOUT_S, Ordered, Renewal, Validity,
};

const DAY: u64 = 86_400;

fn lasting(from: u64, days: u64) -> Validity {
    Validity {
        not_before_s: from,
        not_after_s: from + days * DAY,
    }
}

/// Scenario: no certificate yet. It is ordered at once.
#[test]
fn a_missing_certificate_is_ordered_at_once() {
    assert_eq!(Renewal::new(1000, None, 7).due_s(), 1000);
}

/// Scenario: certificates of 90 and of 6 days. Each is renewed between 57 % and 67 % of its lifetime, and not all
/// at the same moment.
#[test]
fn a_certificate_is_renewed_early_and_spread() {
    for days in [90, 6] {
        let dues: Vec<u64> = (0..100_u64)
            .map(|i| Renewal::new(0, Some(lasting(0, days)), (u64::MAX / 100) * i).due_s())
            .collect();
        let (first, last) = (dues.iter().min().unwrap(), dues.iter().max().unwrap());
        assert!(
            *first >= days * DAY * 56 / 100 && *last <= days * DAY * 67 / 100,
            "{first} {last}"
        );
        assert!(last - first > days * DAY / 12);
    }
}

/// Scenario: an authority that is down. The waits grow to their bound and no further, and what it asks for is
/// respected.
#[test]
fn failures_wait_longer_each_time_within_bounds() {
    let mut now = 0;
    let mut renewal = Renewal::new(now, None, 0);
    let mut waits = Vec::new();
    for _ in 0..40 {
        renewal.handle(now, Ordered::Failed { wait_s: None }, u64::MAX / 2);
        waits.push(renewal.due_s() - now);
        now = renewal.due_s();
    }
    assert_eq!(waits[0], FIRST_WAIT_S);
    assert!(waits.windows(2).all(|w| w[0] <= w[1]), "{waits:?}");
    assert_eq!(*waits.last().unwrap(), LONGEST_WAIT_WITHOUT_S);
    assert_eq!(renewal.failures(), 40);
    renewal.handle(now, Ordered::Failed { wait_s: Some(7200) }, 0);
    assert_eq!(renewal.due_s(), now + 7200);
}

/// Scenario: years of an authority that fails three orders in four, over many seeds. There is never a second
/// without a valid certificate, and never more orders than its limits allow.
#[test]
fn an_unreliable_authority_never_leaves_us_without_a_certificate() {
    for seed in 1..=200_u64 {
        let mut state = seed;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut now = 0;
        let mut valid_until = 90 * DAY;
        let mut renewal = Renewal::new(now, Some(lasting(0, 90)), random());
        let mut orders = 0_u64;
        while now < 3 * 365 * DAY {
            let due = renewal.due_s();
            assert!(due > now || orders == 0, "seed {seed}: no progress at {now}");
            assert!(
                due < valid_until,
                "seed {seed}: expired at {valid_until}, next try at {due}"
            );
            assert!(due - now <= 61 * DAY + LONGEST_WAIT_S, "seed {seed}");
            now = due;
            orders += 1;
            let ordered = if random() % 4 == 0 {
                valid_until = now + 90 * DAY;
                Ordered::Issued(lasting(now, 90))
            } else {
                Ordered::Failed { wait_s: None }
            };
            renewal.handle(now, ordered, random());
        }
        assert!(orders < 19 * 60, "seed {seed}: {orders} orders");
    }
}
