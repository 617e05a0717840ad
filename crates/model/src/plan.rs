//! What a change would do, told before it is made.
//!
//! [`foresee`] is the snapshot that another config would give with all else as it is: the same orders, verdicts and
//! ejections. Who compares the two (the diff of the configs, the keys of hashing that move) fills a [`Plan`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Name};
use crate::snapshot::{Layers, Snapshot};
use crate::state::{BackendId, Health, Observed, OverrideKey, Overrides, Timestamp};

/// Pools whose moving keys are looked for; a change of more names the first.
pub const MAX_POOLS_COMPARED: usize = 256;

/// A config to compare with the one in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanQuery {
    /// Its text.
    pub text: String,
    /// How the text is written.
    #[serde(default)]
    pub format: Format,
    /// What errors call it, e.g. the name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How a config is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// TOML.
    #[default]
    Toml,
    /// JSON.
    Json,
}

/// What a config would change. All lists empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Revision of the config that it was compared with.
    pub revision: u64,
    /// What changes, a line each: settings, listeners, routes, pools, backends.
    pub changes: Vec<String>,
    /// Settings among them that need a restart.
    pub restart: Vec<String>,
    /// Backends that leave a pool: they get no new requests, running ones finish.
    pub drains: Vec<Draining>,
    /// Pools that are hashed before and after, with the keys that get another backend; at most
    /// [`MAX_POOLS_COMPARED`], those first in order of name.
    pub moved: Vec<Moved>,
}

/// A backend that leaves a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Which.
    #[serde(flatten)]
    pub backend: BackendId,
    /// Requests that it has now.
    pub in_flight: u32,
}

/// Keys that get another backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Load balancer.
    pub load_balancer: Name,
    /// Pool.
    pub pool: Name,
    /// Their share of all keys, 0 to 1, from a sample.
    pub share: f64,
}

/// The snapshot that `config` would give, with the orders, verdicts and ejections that `current` shows.
pub fn foresee(current: &Snapshot, config: &Arc<Config>, now: Timestamp) -> Snapshot {
    let mut overrides = Overrides::default();
    let mut observed = Observed {
        members: current.found.clone(),
        ..Observed::default()
    };
    let members = current
        .pools
        .values()
        .flat_map(|pool| pool.members.iter().map(move |m| (pool, m)));
    for (pool, member) in members {
        let key = || OverrideKey {
            load_balancer: member.id.load_balancer.clone(),
            address: member.id.address,
        };
        overrides
            .backends
            .extend(member.order.clone().map(|order| (key(), order)));
        if pool.config.membership.heartbeat.is_some() && member.health.health == Health::Down {
            observed.silent.insert(member.id.clone(), member.health.clone());
        }
        observed.health.insert(member.id.clone(), member.health.clone());
        let ejection = member.ejection.clone();
        observed
            .ejections
            .extend(ejection.map(|e| (member.id.clone(), e)));
    }
    for (key, order) in current.routes.iter() {
        overrides.routes.insert(key.clone(), (**order).clone());
    }
    let layers = Layers {
        revision: current.revision,
        config,
        overrides: &overrides,
        observed: &observed,
    };
    Snapshot::build(layers, Some(current), now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::parse::check_toml;
    use crate::snapshot::Eligibility;
    use crate::state::{Ejection, HealthState, Mode, Override};

    fn config(backends: &str) -> Arc<Config> {
        let text =
            format!("[load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\nbackend_servers = [{backends}]\n");
        Arc::new(check_toml(&text, "test").unwrap().config)
    }

    fn eligibilities(snapshot: &Snapshot) -> Vec<(u16, Eligibility)> {
        let members = snapshot.pools.values().flat_map(|pool| &pool.members);
        members.map(|m| (m.id.address.port(), m.eligibility)).collect()
    }

    /// Scenario: of three backends one is drained, one down, one ejected; a fourth is to come. What is known of the
    /// three stays known.
    #[test]
    fn orders_verdicts_and_ejections_stay() {
        let now = Timestamp(1_000_000);
        let old = config(r#""10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3""#);
        let id = |port| BackendId {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("default").unwrap(),
            address: ([10, 0, 0, 1], port).into(),
        };
        let mut layers = (Overrides::default(), Observed::default());
        let drain = Override {
            mode: Mode::Drain,
            weight: None,
            by: "alice".into(),
            since: now,
            expires: None,
        };
        let key = OverrideKey {
            load_balancer: id(1).load_balancer,
            address: id(1).address,
        };
        layers.0.backends.insert(key, drain);
        let down = HealthState {
            health: Health::Down,
            reason: "connection refused".into(),
            since: now,
        };
        layers.1.health.insert(id(2), down);
        let ejection = Ejection {
            reason: "5 failures in a row".into(),
            since: now,
            until: Timestamp(2_000_000),
        };
        layers.1.ejections.insert(id(3), ejection);
        let current = Snapshot::build(
            Layers {
                revision: 7,
                config: &old,
                overrides: &layers.0,
                observed: &layers.1,
            },
            None,
            now,
        );
        let same = foresee(&current, &old, now);
        assert_eq!(same, current);
        let new = config(r#""10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:4""#);
        let then = foresee(&current, &new, now);
        assert_eq!(
            eligibilities(&then),
            [
                (1, Eligibility::Draining),
                (2, Eligibility::Down),
                (3, Eligibility::Ejected),
                (4, Eligibility::Eligible)
            ]
        );
    }
}
