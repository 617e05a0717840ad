//! What happened and still counts.

use evenkeel_reconcile::alerts::recent::{LEADER_TOLD, Recent};
use model::alert::ClusterFacts;
use model::state::Timestamp;

use crate::support::{START, name};

fn led(leader: &str, epoch: u64) -> ClusterFacts {
    ClusterFacts {
        leader: Some((name(leader), epoch)),
        ..ClusterFacts::default()
    }
}

/// Scenario: the leader that a process finds is no change; nobody leads for a while; the next one is a change, told for
/// ten minutes, and so is the first one when it leads again.
#[test]
fn a_change_of_the_leader_is_told_for_a_while() {
    let mut recent = Recent::default();
    let at = |ms| Timestamp(START + ms);
    let told = |recent: &Recent, ms| -> Vec<String> {
        let each = recent.conditions(at(ms));
        each.map(|condition| format!("{}: {}", condition.id, condition.why))
            .collect()
    };
    recent.note(at(1), None);
    recent.note(at(1), Some(&led("a", 5)));
    recent.note(at(2), Some(&led("a", 5)));
    recent.note(at(3), Some(&ClusterFacts::default()));
    assert_eq!(told(&recent, 3), [""; 0]);
    recent.note(at(4), Some(&led("b", 9)));
    assert_eq!(
        told(&recent, 5),
        ["leader_changed: b leads the orchestrators (epoch 9)"]
    );
    recent.note(at(5), Some(&led("a", 11)));
    assert_eq!(
        told(&recent, 6),
        ["leader_changed: a leads the orchestrators (epoch 11)"]
    );
    let later = 5 + u64::try_from(LEADER_TOLD.as_millis()).unwrap();
    assert_eq!(told(&recent, later), [""; 0]);
}
