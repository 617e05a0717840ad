//! Who makes the active check of each backend, as `status` and the API show it.

use cluster::checks::Owners;
use model::config::{Role, StoreConfig};
use model::state::{BackendId, Mode, Source};
use model::status::{CheckedBy, Status};

use crate::hub::Declared;

/// Tells it of every backend. `owners`: which orchestrator checks what, where there may be others.
pub(crate) fn tell(status: &mut Status, declared: &Declared, owners: Option<&Owners>) {
    let file = &declared.file;
    let forwards = file.node.roles.contains(&Role::Lb);
    let plan_b = status
        .orchestrators
        .as_ref()
        .and_then(|seen| seen.plan_b.as_ref());
    let alone_with = plan_b.map(|plan_b| plan_b.alone_with.clone()).unwrap_or_default();
    let looks_itself = plan_b.is_some_and(|plan_b| ["own_checks", "handing_back"].contains(&&*plan_b.phase));
    for lb in &mut status.load_balancers {
        let alone = file.store == StoreConfig::Embedded || file.load_balancers.contains_key(&lb.name);
        let known = declared.config.load_balancers.get(&lb.name);
        for pool in &mut lb.pools {
            let checked = known.and_then(|known| known.pools.get(&pool.name));
            if checked.is_none_or(|pool| pool.health.is_none()) {
                continue;
            }
            let is_alone_with = |address| {
                let id = BackendId {
                    load_balancer: lb.name.clone(),
                    pool: pool.name.clone(),
                    address,
                };
                alone_with.contains(&id)
            };
            for backend in &mut pool.backends {
                backend.checked_by = match (backend.mode, backend.source) {
                    (Mode::Maintenance, _) => None,
                    _ if alone => Some(CheckedBy::ThisNode),
                    (_, Source::Declared | Source::Registered | Source::Dns) if looks_itself => {
                        Some(CheckedBy::ThisNode)
                    }
                    // Its name says something else where the orchestrators stand.
                    (_, Source::Dns) if is_alone_with(backend.address) => Some(CheckedBy::ThisNode),
                    (_, Source::Declared | Source::Registered | Source::Dns) => {
                        let owner = owners.and_then(|owners| owners.checks(backend.address));
                        let owner = owner.cloned().map(CheckedBy::Orchestrator);
                        Some(owner.unwrap_or(CheckedBy::Nobody))
                    }
                    // The other nodes need not know it.
                    _ if forwards => Some(CheckedBy::ThisNode),
                    _ => Some(CheckedBy::LbServers),
                };
            }
        }
    }
}
