//! What happened and still counts: events are forgotten by those who keep them, alerts last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::alert::{About, AlertId, AlertKind};
use model::state::Timestamp;
use model::status::Event;

use super::conditions::Condition;

/// How long a change of the leader is told.
pub const LEADER_TOLD: Duration = Duration::from_secs(600);
/// How long a node that does not come back is told.
pub const NODE_TOLD: Duration = Duration::from_secs(24 * 3600);
/// Lost nodes that are remembered; beyond it the one that was lost first is forgotten.
pub const MAX_LOST: usize = 100;

/// Nodes that were lost, and the last change of the leader.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// The newest event that was noted.
    noted: Timestamp,
    lost: BTreeMap<String, (Timestamp, String)>,
    leader: Option<(Timestamp, String)>,
    /// The first leader that a process hears of is no change.
    knows_leader: bool,
}

impl Recent {
    /// Takes the events that are new, of the last ones in their order.
    pub fn note(&mut self, events: &[Arc<Event>]) {
        let noted = self.noted;
        for event in events.iter().filter(|event| event.at > noted) {
            self.noted = self.noted.max(event.at);
            match event.kind.as_str() {
                "node_lost" => self.lose(event),
                "node_joined" | "node_left" => {
                    self.lost.remove(&event.subject);
                }
                "leader_changed" if self.knows_leader => {
                    self.leader = Some((event.at, event.message.clone()));
                }
                "leader_changed" => self.knows_leader = true,
                _ => {}
            }
        }
    }

    /// What of it still counts.
    pub fn conditions(&self, now: Timestamp) -> impl Iterator<Item = Condition<'_>> {
        let condition = |kind, about, (at, why): &(Timestamp, String)| Condition {
            id: AlertId { kind, about },
            why: why.clone().into(),
            since: Some(*at),
            own: false,
        };
        let lost = self
            .lost
            .iter()
            .filter(move |(_, (at, _))| now.since(*at) < NODE_TOLD);
        let lost = lost
            .map(move |(name, told)| condition(AlertKind::NodeLost, About::Node(name.as_str().into()), told));
        let leader = self
            .leader
            .iter()
            .filter(move |(at, _)| now.since(*at) < LEADER_TOLD);
        leader
            .map(move |told| condition(AlertKind::LeaderChanged, About::Cluster, told))
            .chain(lost)
    }

    fn lose(&mut self, event: &Event) {
        let told = (event.at, event.message.clone());
        self.lost.insert(event.subject.clone(), told);
        if self.lost.len() > MAX_LOST {
            let first = self.lost.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(name) = first.map(|(name, _)| name.clone()) {
                self.lost.remove(&name);
            }
        }
    }
}
