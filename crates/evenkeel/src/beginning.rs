//! What a process begins to serve: its file, and beside it what is known of the store.
//!
//! The store must never keep a node from starting: what of it cannot be served is left out, told, and tried again
//! while the process runs. What was found of its backends before is believed from the first request on, until the store
//! is heard or this node has looked itself.

use std::sync::Arc;

use cluster::Sync;
use cluster::checks::Kept;
use dataplane::Dataplane;
use model::cluster::ClusterNews;
use model::config::{Config, Role};
use model::snapshot::{Layers, Snapshot};
use model::state::{BackendId, Members, Observed, Overrides, Verdict};

use crate::hub::{Core, Declared, Effect, Input, warn_of};
use crate::source::Source;
use crate::{now, remembered};

/// A hub's brain and the data plane that serves what it says.
pub(crate) struct Begun {
    pub(crate) core: Core,
    pub(crate) effects: Vec<Effect>,
    pub(crate) dataplane: Arc<Dataplane>,
    /// What that serves.
    pub(crate) served: Arc<Snapshot>,
}

/// What the process before knew.
pub(crate) struct Earlier {
    pub(crate) overrides: Overrides,
    pub(crate) members: Members,
    /// Of backends of the store.
    pub(crate) verdicts: Vec<Verdict>,
    /// Why these are not known.
    damaged: Option<String>,
}

impl Earlier {
    /// Reads what is in the data directory. Blocks on files.
    pub(crate) fn load(overrides: Overrides, folder: &std::path::Path, kept: &Kept) -> Self {
        let members = remembered::load(folder);
        let (verdicts, damaged) = match kept.load(|backend| proven_life(&members, backend)) {
            Ok(verdicts) => (verdicts, None),
            Err(damaged) => (Vec::new(), Some(damaged.to_string())),
        };
        Self {
            overrides,
            members,
            verdicts,
            damaged,
        }
    }

    /// As the hub takes it.
    fn inputs(&self, file: &Config) -> Vec<Input> {
        let of_the_store = |verdict: &&Verdict| {
            let lb = &verdict.backend.load_balancer;
            !file.load_balancers.contains_key(lb)
        };
        let verdicts = self.verdicts.iter().filter(of_the_store).cloned().collect();
        let why = self.damaged.clone();
        let damaged = why.map(|why| Input::Cluster(ClusterNews::VerdictsDamaged { why }));
        let all = [Input::Remembered(self.members.clone()), Input::Verdicts(verdicts)];
        all.into_iter().chain(damaged).collect()
    }
}

/// Begins with the file and what is known of the store; with the file alone when that cannot be served. Orders and
/// members are those of the process before.
///
/// # Errors
/// When the file alone cannot be served.
pub(crate) async fn begin(
    source: &Source,
    file: &Arc<Config>,
    sync: &mut Sync,
    earlier: &Earlier,
    start: impl Fn(Arc<Snapshot>) -> anyhow::Result<Dataplane>,
) -> anyhow::Result<Begun> {
    warn_of(file, None);
    let attempt = |declared: Declared| {
        let overrides = earlier.overrides.clone();
        let (mut core, mut effects) = Core::new(now(), source.to_string(), declared, overrides);
        for input in earlier.inputs(file) {
            effects.extend(core.handle(now(), input));
        }
        let forwards = file.node.roles.contains(&Role::Lb);
        let snapshot = if forwards {
            core.snapshot().clone()
        } else {
            idle(file)
        };
        let dataplane = Arc::new(start(snapshot.clone())?);
        anyhow::Ok(Begun {
            core,
            effects,
            dataplane,
            served: snapshot,
        })
    };
    if let Some(stored) = sync
        .first()
        .await
        .filter(|stored| !stored.load_balancers.is_empty())
    {
        let declared = Declared::new(file.clone(), stored);
        let begun =
            declared.and_then(|declared| attempt(declared).map_err(|error| vec![format!("{error:#}")]));
        match begun {
            Ok(begun) => return Ok(begun),
            Err(reasons) => {
                tracing::error!(
                    "what the store has cannot be served, only the file's load balancers are: {}",
                    reasons.join("; ")
                );
                sync.first_was_refused(reasons);
            }
        }
    }
    let alone = Declared::new(file.clone(), Arc::default());
    let mut begun = attempt(alone.map_err(|reasons| anyhow::anyhow!(reasons.join("; ")))?)?;
    // Orders about what the store has, and could not be served just now, are not orders about nobody.
    begun
        .effects
        .retain(|effect| !matches!(effect, Effect::Forget(_)));
    Ok(begun)
}

/// The number of the membership that a verdict without one is about, which an earlier version kept: that of a member
/// which has been seen to work in it. Of another one it may be about whoever was at that address before, and it counts
/// for nothing.
fn proven_life(members: &Members, backend: &BackendId) -> u64 {
    let pool = members.get(&(backend.load_balancer.clone(), backend.pool.clone()));
    let found = pool.and_then(|pool| {
        let mut sources = pool.sources.values();
        sources.find_map(|state| state.members.get(&backend.address))
    });
    found.map_or(0, |found| if found.proven { found.life } else { 0 })
}

/// What a node forwards that does not.
fn idle(file: &Arc<Config>) -> Arc<Snapshot> {
    let mut config = Config::clone(file);
    config.load_balancers.clear();
    let layers = Layers {
        revision: 0,
        config: &Arc::new(config),
        overrides: &Overrides::default(),
        observed: &Observed::default(),
    };
    Arc::new(Snapshot::build(layers, None, now()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::state::Health;
    use reconcile::desired::records::Digest;

    use super::*;

    /// Scenario: the version before knew no numbers of memberships, and this one begins in its data directory. What was
    /// down stays down: a member that has proven itself, and a declared backend. What it believed of a member that has
    /// not may be of the one before at that address.
    #[test]
    fn what_was_down_before_an_upgrade_stays_down() {
        let folder = tempfile::TempDir::new().unwrap();
        let member = |port: u16, proven: bool| {
            format!(
                r#"{{"load_balancer":"shop","pool":"web","address":"10.0.0.1:{port}","source":"registered","weight":1,"since":5,"proven":{proven},"life":7}}"#
            )
        };
        let members = [member(1, true), member(2, false)].join(",");
        let members = format!(r#"{{"version":1,"members":[{members}]}}"#);
        std::fs::write(folder.path().join("members.json"), members).unwrap();
        let line = |port: u16| {
            format!(
                r#"{{"load_balancer":"shop","pool":"web","address":"10.0.0.1:{port}","health":"down","reason":"status 503"}}"#
            ) + "\n"
        };
        let lines = [line(1), line(2), line(3)].concat();
        let head = serde_json::json!({"version": 1, "digest": Digest::of(&lines)});
        std::fs::write(folder.path().join("verdicts"), format!("{head}\n{lines}")).unwrap();
        let earlier = Earlier::load(Overrides::default(), folder.path(), &Kept::within(folder.path()));
        assert_eq!(earlier.damaged, None);
        let lives: Vec<u64> = earlier
            .verdicts
            .iter()
            .map(|verdict| verdict.life.member)
            .collect();
        assert_eq!(lives, [7, 0, 0]);
        assert!(
            earlier
                .verdicts
                .iter()
                .all(|verdict| verdict.health == Health::Down)
        );
    }
}
