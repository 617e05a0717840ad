//! What a config would change in the running process, without changing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use balance::moved_share;
use cluster::Desired;
use model::config::{AdminRole, Config};
use model::diff::{Change, diff};
use model::parse::check_declared;
use model::plan::{Draining, Format, MAX_POOLS_COMPARED, Moved, Plan, PlanQuery, foresee};
use model::snapshot::Snapshot;
use model::state::{BackendId, Timestamp};

use crate::hub::Declared;
use crate::source::{self, Flags, Source};

/// What is asked, and by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) query: &'a PlanQuery,
    pub(crate) role: AdminRole,
}

/// What the text that is asked for would change: as the node's own file, beside what the store has; or, when it holds load
/// balancers only and none of the file's, as if it were applied to the store. `in_flight` knows the requests that
/// a backend has now.
///
/// # Errors
/// Every error of the config, each in full.
pub(crate) fn plan(
    Asked { query, role }: Asked,
    flags: &Flags,
    declared: &Declared,
    current: &Snapshot,
    now: Timestamp,
    in_flight: impl Fn(&BackendId) -> u32,
) -> Result<Plan, Vec<String>> {
    let config = match applied(query, declared) {
        Some(stored) => Declared::new(declared.file.clone(), Arc::new(stored))?.config,
        None => {
            let named_now = declared.config.files();
            let read = |path: &Path| read_for(role, &named_now, path);
            let (file, _) = source::understand(&query.text, &named(query), flags, read)?;
            Declared::new(Arc::new(file), declared.stored.clone())?.config
        }
    };
    Ok(of_config(config, current, now, in_flight))
}

/// A file that the text names. Who may not change the config is not told of files that it does not name already, not even
/// whether there are any: they are not opened, and count as empty ones.
fn read_for(role: AdminRole, named_now: &BTreeSet<PathBuf>, path: &Path) -> Result<Vec<u8>, String> {
    match role == AdminRole::Admin || named_now.contains(path) {
        true => source::read_page(path),
        false => Ok(Vec::new()),
    }
}

/// What a whole config would change.
pub(crate) fn of_config(
    config: Arc<Config>,
    current: &Snapshot,
    now: Timestamp,
    in_flight: impl Fn(&BackendId) -> u32,
) -> Plan {
    let changes = diff(&current.config, &config);
    let then = foresee(current, &config, now);
    Plan {
        revision: current.revision,
        restart: changes.iter().filter_map(needs_restart).collect(),
        changes: changes.iter().map(ToString::to_string).collect(),
        drains: leaving(current, &then)
            .map(|backend| Draining {
                in_flight: in_flight(&backend),
                backend,
            })
            .collect(),
        moved: moved(current, &then),
    }
}

/// What the store would have, when the text is one for it: load balancers only, and none of the node's own file.
fn applied(query: &PlanQuery, declared: &Declared) -> Option<Desired> {
    let read = check_declared(&query.text, query.format, "", |_| None).ok()?;
    let own = &declared.file.load_balancers;
    // Who has never used the store means his file.
    let uses_store = declared.stored.revision > 0 || own.is_empty();
    if !uses_store || read.load_balancers.keys().any(|name| own.contains_key(name)) {
        return None;
    }
    let mut stored = Desired::clone(&declared.stored);
    let texts = read.load_balancers.into_iter();
    stored
        .load_balancers
        .extend(texts.map(|(name, text)| (name, text.balancer)));
    Some(stored)
}

/// The text's place: what it is called decides how it is read, as with a file.
fn named(query: &PlanQuery) -> Source {
    let name = query.name.clone().unwrap_or_else(|| "config".to_owned());
    let path = PathBuf::from(name);
    Source::File(match query.format {
        Format::Toml if path.extension().is_some_and(|e| e == "json") => path.with_extension("json.toml"),
        Format::Json if path.extension().is_none_or(|e| e != "json") => path.with_extension("json"),
        _ => path,
    })
}

fn needs_restart(change: &Change) -> Option<String> {
    match change {
        Change::Setting { key, restart: true } => Some((*key).to_owned()),
        _ => None,
    }
}

/// Backends that are in a pool now and would not be.
fn leaving<'a>(current: &'a Snapshot, then: &'a Snapshot) -> impl Iterator<Item = BackendId> + 'a {
    let members = current.pools.values().flat_map(|pool| &pool.members);
    let stays = |id: &BackendId| {
        let pool = then.pool(&id.load_balancer, &id.pool);
        pool.is_some_and(|pool| pool.members.iter().any(|member| member.id == *id))
    };
    members
        .map(|member| member.id.clone())
        .filter(move |id| !stays(id))
}

/// The keys that move in pools that change; those in which none does are left out.
fn moved(current: &Snapshot, then: &Snapshot) -> Vec<Moved> {
    let pairs = then.pools.iter().filter_map(|(key, after)| {
        let before = current
            .pools
            .get(key)
            .filter(|before| !Arc::ptr_eq(before, after))?;
        Some((key, before, after))
    });
    let shares = pairs
        .take(MAX_POOLS_COMPARED)
        .filter_map(|((load_balancer, pool), before, after)| {
            Some(Moved {
                load_balancer: load_balancer.clone(),
                pool: pool.clone(),
                share: moved_share(before, after).filter(|share| *share > 0.0)?,
            })
        });
    shares.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Who is no admin learns of files that are named already, and nothing of others: not even that they are not there.
    #[test]
    fn files_are_opened_for_those_who_may_know_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let [there, missing, named] = ["there", "missing", "named"].map(|name| folder.path().join(name));
        std::fs::write(&there, "x").unwrap();
        let named_now = BTreeSet::from([named.clone()]);
        for role in [AdminRole::Viewer, AdminRole::Operator] {
            for path in [&there, &missing] {
                assert_eq!(read_for(role, &named_now, path), Ok(Vec::new()));
            }
            assert!(read_for(role, &named_now, &named).is_err());
        }
        assert_eq!(read_for(AdminRole::Admin, &named_now, &there).unwrap(), b"x");
        assert!(read_for(AdminRole::Admin, &named_now, &missing).is_err());
    }
}
