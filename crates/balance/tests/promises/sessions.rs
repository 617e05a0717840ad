//! What stickiness promises of the balancer: a session stays with any algorithm, and leaves when it must.

use std::time::Duration;

use balance::{Balancer, Outcome};
use model::config::{DEFAULT_DRAIN_TIMEOUT, Learned, Passive, SessionKey, Sticky, StickyBy};
use model::snapshot::{Eligibility, PoolState};

use super::support::{all_algorithms, balancer_of, state};

fn sticky(mut state: PoolState, drained: &[usize]) -> Balancer {
    let mut config = (*state.config).clone();
    config.sticky = Some(Sticky {
        by: StickyBy::Learned(Learned {
            key: SessionKey::ClientAddress,
            ttl: Duration::from_secs(60),
            max_sessions: 1000,
        }),
        drain_timeout: DEFAULT_DRAIN_TIMEOUT,
    });
    state.config = config.into();
    for index in drained {
        state.members[*index].eligibility = Eligibility::Draining;
        state.members[*index].keeps_sessions = true;
    }
    balancer_of(state)
}

/// Drained: old sessions stay, and no algorithm ever sends a new one there.
#[test]
fn a_drained_member_keeps_its_sessions_and_gets_no_new_ones() {
    for algorithm in all_algorithms() {
        let balancer = sticky(state(algorithm.clone(), &[100, 0, 100], None), &[1]);
        assert!(balancer.keeps_session(1, &[], 0));
        assert!(
            !balancer.keeps_session(1, &[1], 0),
            "not after it failed this very request"
        );
        let picks = super::support::owners(&balancer, 300);
        assert!(!picks.contains(&1), "{algorithm:?}");
    }
}

/// Down, in maintenance, ejected or not there: the session is placed anew.
#[test]
fn a_session_leaves_a_member_that_does_not_work() {
    let passive = Passive {
        consecutive_failures: 1,
        ..Passive::default()
    };
    let balancer = sticky(
        state(all_algorithms()[0].clone(), &[100, 0, 100], Some(passive)),
        &[],
    );
    assert!(balancer.keeps_session(0, &[], 0) && balancer.keeps_session(2, &[], 0));
    assert!(!balancer.keeps_session(1, &[], 0), "weight 0");
    assert!(!balancer.keeps_session(3, &[], 0), "there is no such member");
    let ejected = balancer.record(
        2,
        Outcome::Failure {
            what: "as the test says",
        },
        0,
    );
    assert!(ejected.is_some());
    assert!(!balancer.keeps_session(2, &[], 1));
}

/// Sessions name their backend, not its place: a config in another order moves none.
#[test]
fn a_session_finds_its_backend_wherever_it_stands() {
    let balancer = sticky(state(all_algorithms()[0].clone(), &[100, 100, 100], None), &[]);
    let ids: Vec<u64> = (0..3).filter_map(|i| balancer.session_id(i)).collect();
    let mut turned = state(all_algorithms()[0].clone(), &[100, 100, 100], None);
    turned.members.reverse();
    let turned = sticky(turned, &[]);
    let found: Vec<_> = ids.iter().map(|id| turned.session_member(*id)).collect();
    assert_eq!(found, [Some(2), Some(1), Some(0)]);
    assert_eq!(turned.session_member(12345), None);
    assert_eq!(turned.session_id(3), None);
}
