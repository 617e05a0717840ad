//! `members.json` in the data directory: the members of pools that nobody declared, as last known.
//!
//! A restart goes on with them, whether the sources that named them can be asked or not. The file is a memory, not a
//! record: writing it may fail or lag behind, and one that cannot be understood is passed over with a warning.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::config::Name;
use model::state::{Found, Members, PoolMembers};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const FILE: &str = "members.json";
/// Version of the format.
const VERSION: u32 = 1;
/// Least time between two writes, however often members change.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct MembersFile {
    version: u32,
    members: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    load_balancer: Name,
    pool: Name,
    address: SocketAddr,
    #[serde(flatten)]
    found: Found,
}

/// The members of the last run that were kept in this directory.
pub(crate) fn load(directory: &Path) -> Members {
    let path = directory.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Members::default(),
        Err(error) => {
            tracing::warn!(
                "cannot read {}: {error}; starting without the members it held",
                path.display()
            );
            return Members::default();
        }
    };
    match serde_json::from_slice::<MembersFile>(&text) {
        Ok(file) if file.version == VERSION => by_pool(file.members),
        Ok(file) => {
            tracing::warn!(
                "{} is of format {}, this evenkeel reads format {VERSION}; starting without the members it held",
                path.display(),
                file.version
            );
            Members::default()
        }
        Err(error) => {
            tracing::warn!(
                "{} is damaged ({error}); starting without the members it held",
                path.display()
            );
            Members::default()
        }
    }
}

fn by_pool(entries: Vec<Entry>) -> Members {
    let mut pools: BTreeMap<(Name, Name), PoolMembers> = BTreeMap::new();
    for entry in entries {
        let key = (entry.load_balancer, entry.pool);
        let sources = &mut pools.entry(key).or_default().sources;
        let source = sources.entry(entry.found.source).or_default();
        Arc::make_mut(&mut source.members).insert(entry.address, entry.found);
    }
    let pools = pools.into_iter();
    pools.map(|(key, pool)| (key, Arc::new(pool))).collect()
}

/// Keeps on disk what is told, until the sender is gone.
pub(crate) async fn keep(directory: PathBuf, mut members: watch::Receiver<Members>) {
    let mut kept = Arc::<[u8]>::default();
    while members.changed().await.is_ok() {
        let latest = members.borrow_and_update().clone();
        let (path, before) = (directory.clone(), kept.clone());
        let written = tokio::task::spawn_blocking(move || store_changes(&path, &latest, &before)).await;
        let failed = match written {
            Ok(Ok(text)) => {
                kept = text.unwrap_or(kept);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            tracing::warn!("the members of pools could not be kept for the next start: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is on the disk now; none where that is as before.
fn store_changes(directory: &Path, members: &Members, before: &[u8]) -> std::io::Result<Option<Arc<[u8]>>> {
    let text = text(members)?;
    if text == before {
        return Ok(None);
    }
    store(directory, &text)?;
    Ok(Some(text.into()))
}

fn text(members: &Members) -> std::io::Result<Vec<u8>> {
    let pools = members.iter();
    let sources = pools.flat_map(|(key, pool)| pool.sources.values().map(move |state| (key, state)));
    let entries = sources.flat_map(|((load_balancer, pool), state)| {
        state.members.iter().map(move |(address, found)| Entry {
            load_balancer: load_balancer.clone(),
            pool: pool.clone(),
            address: *address,
            found: found.clone(),
        })
    });
    let file = MembersFile {
        version: VERSION,
        members: entries.collect(),
    };
    Ok(serde_json::to_vec(&file)?)
}

fn store(directory: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = directory.join("members.json.new");
    let mut out = std::fs::File::create(&beside)?;
    out.write_all(text)?;
    out.sync_all()?;
    std::fs::rename(&beside, directory.join(FILE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::state::{Source, Timestamp};

    use super::*;

    fn found(source: Source, weight: u32) -> Found {
        Found {
            source,
            weight,
            zone: Some(Name::parse("eu-1").unwrap()),
            draining: Some(Timestamp(5)),
            since: Timestamp(3),
            proven: true,
            life: 7,
        }
    }

    /// What is kept is what is found again, source by source.
    #[test]
    fn what_was_kept_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()), Members::default());
        let name = |text| Name::parse(text).unwrap();
        let mut members = Members::default();
        let mut pool = PoolMembers::default();
        for (source, port) in [
            (Source::File, 1),
            (Source::Registered, 1),
            (Source::Registered, 2),
        ] {
            let state = pool.sources.entry(source).or_default();
            let address = ([10, 0, 0, 1], port).into();
            Arc::make_mut(&mut state.members).insert(address, found(source, port.into()));
        }
        members.insert((name("shop"), name("default")), Arc::new(pool));
        let kept = store_changes(directory.path(), &members, b"").unwrap().unwrap();
        assert_eq!(load(directory.path()), members);
        assert_eq!(store_changes(directory.path(), &members, &kept).unwrap(), None);
    }

    #[test]
    fn a_file_of_nonsense_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"version": 2, "members": []}"#] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(load(directory.path()), Members::default());
        }
    }
}
