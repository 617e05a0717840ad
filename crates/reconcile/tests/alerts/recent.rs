//! What happened and still counts.

use std::sync::Arc;

use evenkeel_reconcile::alerts::recent::{LEADER_TOLD, MAX_LOST, NODE_TOLD, Recent};
use model::state::Timestamp;
use model::status::Event;

use crate::support::START;

fn event(ms: u64, kind: &str, subject: &str) -> Arc<Event> {
    Arc::new(Event {
        at: Timestamp(START + ms),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        message: format!("{kind} of {subject}"),
    })
}

fn told(recent: &Recent, ms: u64) -> Vec<String> {
    recent
        .conditions(Timestamp(START + ms))
        .map(|condition| condition.id.to_string())
        .collect()
}

/// Scenario: a node is lost; hundreds of other events push that one out of the list; the node comes back.
#[test]
fn a_lost_node_is_told_until_it_is_back() {
    let mut recent = Recent::default();
    recent.note(&[
        event(1, "node_joined", "a"),
        event(2, "node_lost", "a"),
        event(3, "node_lost", "b"),
    ]);
    recent.note(&[event(4, "backend_down", "x")]);
    assert_eq!(told(&recent, 10), ["node_lost a", "node_lost b"]);
    // The list still has what was noted already.
    recent.note(&[
        event(3, "node_lost", "b"),
        event(5, "node_joined", "b"),
        event(6, "node_left", "a"),
    ]);
    assert_eq!(told(&recent, 10), [""; 0]);
    recent.note(&[event(7, "node_lost", "c")]);
    assert_eq!(
        told(&recent, 7 + u64::try_from(NODE_TOLD.as_millis()).unwrap()),
        [""; 0]
    );
}

/// Scenario: the leader that a process finds is no change; the next one is, for ten minutes.
#[test]
fn a_change_of_the_leader_is_told_for_a_while() {
    let mut recent = Recent::default();
    recent.note(&[event(1, "leader_changed", "orchestrators")]);
    assert_eq!(told(&recent, 1), [""; 0]);
    recent.note(&[event(2, "leader_changed", "orchestrators")]);
    assert_eq!(told(&recent, 3), ["leader_changed"]);
    assert_eq!(
        told(&recent, 2 + u64::try_from(LEADER_TOLD.as_millis()).unwrap()),
        [""; 0]
    );
}

/// Scenario: more nodes are lost than are remembered. The last ones are.
#[test]
fn only_so_many_lost_nodes_are_remembered() {
    let mut recent = Recent::default();
    for n in 0..500 {
        recent.note(&[event(n + 1, "node_lost", &format!("node-{n}"))]);
    }
    let told = told(&recent, 1000);
    assert_eq!(told.len(), MAX_LOST);
    assert!(told.contains(&"node_lost node-499".to_owned()));
}
