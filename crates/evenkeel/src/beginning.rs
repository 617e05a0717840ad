//! What a process begins to serve: its file, and beside it what is known of the store.
//!
//! The store must never keep a node from starting: what of it cannot be served is left out, told, and tried again
//! while the process runs.

use std::sync::Arc;

use cluster::Sync;
use dataplane::Dataplane;
use model::config::{Config, Role};
use model::snapshot::{Layers, Snapshot};
use model::state::{Members, Observed, Overrides};

use crate::hub::{Core, Declared, Effect, Input};
use crate::now;

/// A hub's brain and the data plane that serves what it says.
pub(crate) struct Begun {
    pub(crate) core: Core,
    pub(crate) effects: Vec<Effect>,
    pub(crate) dataplane: Arc<Dataplane>,
    /// What that serves.
    pub(crate) served: Arc<Snapshot>,
}

/// Begins with the file and what is known of the store; with the file alone when that cannot be served. Orders and
/// members are those of the process before.
///
/// # Errors
/// When the file alone cannot be served.
pub(crate) async fn begin(
    source: String,
    file: &Arc<Config>,
    sync: &mut Sync,
    (overrides, members): &(Overrides, Members),
    start: impl Fn(Arc<Snapshot>) -> anyhow::Result<Dataplane>,
) -> anyhow::Result<Begun> {
    let attempt = |declared: Declared| {
        let (mut core, mut effects) = Core::new(now(), source.clone(), declared, overrides.clone());
        effects.extend(core.handle(now(), Input::Remembered(members.clone())));
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
