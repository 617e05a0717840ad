//! What happened and still counts: a change of the leader is told for a while, and ends by itself.

use std::time::Duration;

use model::alert::{About, AlertId, AlertKind, ClusterFacts};
use model::state::Timestamp;

use super::conditions::Condition;

/// How long a change of the leader is told.
pub const LEADER_TOLD: Duration = Duration::from_secs(600);

/// The last change of the leader.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// The term of the leader that is known. The first one that a process hears of is no change.
    epoch: Option<u64>,
    changed: Option<(Timestamp, String)>,
}

impl Recent {
    /// Looks who leads.
    pub fn note(&mut self, now: Timestamp, cluster: Option<&ClusterFacts>) {
        let Some((name, epoch)) = cluster.and_then(|cluster| cluster.leader.as_ref()) else {
            return;
        };
        if self.epoch.is_some_and(|known| known != *epoch) {
            let told = format!("{name} leads the orchestrators (epoch {epoch})");
            self.changed = Some((now, told));
        }
        self.epoch = Some(*epoch);
    }

    /// What of it still counts.
    pub fn conditions(&self, now: Timestamp) -> impl Iterator<Item = Condition<'_>> {
        let changed = self.changed.iter();
        let changed = changed.filter(move |(at, _)| now.since(*at) < LEADER_TOLD);
        changed.map(|(at, why)| Condition {
            id: AlertId {
                kind: AlertKind::LeaderChanged,
                about: About::Cluster,
            },
            why: why.clone().into(),
            since: Some(*at),
            own: false,
        })
    }
}
