//! What was served last, on this node's disk: plan C, for a start while the store is away.
//!
//! A file for each load balancer, named by the digest of its content, and `state.json`, which names those that belong
//! together. Files are written before the state that refers to them, and removed after the one that no longer does,
//! so a crash at any moment leaves the old state or the new one. What a file holds is believed only when it has the
//! digest of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::config::Name;
use reconcile::desired::records::{Digest, State};
use serde::{Deserialize, Serialize};

use super::Read;
use super::fetch::parse_all;
use crate::disk;

/// What the name of an object's file ends in.
const OBJECT: &str = ".object";

/// The file that names the others.
const STATE: &str = "state.json";
/// Version of its format.
const VERSION: u32 = 1;

/// The folder of what was served last.
#[derive(Clone, Debug)]
pub struct Last {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    revision: u64,
    load_balancers: BTreeMap<Name, Digest>,
}

impl Last {
    /// Makes the folder (for its owner alone) when it is missing.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// What was served last; none when that is nothing, or damaged, which the log tells.
    pub(super) fn load(&self) -> Option<(State, Read)> {
        let text = match std::fs::read(self.folder.join(STATE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.damaged(&error.to_string()),
        };
        let file: StateFile = match serde_json::from_slice(&text) {
            Ok(file) => file,
            Err(error) => return self.damaged(&error.to_string()),
        };
        if file.version != VERSION {
            return self.damaged(&format!("format {}, this version reads {VERSION}", file.version));
        }
        let state = State {
            revision: file.revision,
            objects: file.load_balancers,
        };
        let mut texts = Vec::new();
        for (name, digest) in &state.objects {
            match std::fs::read(self.object(*digest)) {
                Ok(text) if std::str::from_utf8(&text).is_ok_and(|t| Digest::of(t) == *digest) => {
                    texts.push(Bytes::from(text));
                }
                Ok(_) => return self.damaged(&format!("the content of `{name}` is another one")),
                Err(error) => return self.damaged(&format!("the content of `{name}`: {error}")),
            }
        }
        let wanted = state.objects.iter().map(|(name, digest)| (name.clone(), *digest));
        let parsed = parse_all(wanted.collect(), &texts);
        match parsed.reasons.is_empty() {
            true => Some((state, parsed.read)),
            false => self.damaged(&parsed.reasons.join("; ")),
        }
    }

    fn damaged<T>(&self, why: &str) -> Option<T> {
        tracing::error!(
            "what was served last ({}) cannot be used, and the store is asked: {why}",
            self.folder.display()
        );
        None
    }

    /// Keeps what is served now, and the objects of it that are not on the disk yet; whether it could. That it could
    /// not is told in the log: nothing else depends on it.
    pub(super) async fn save(&self, state: &State, fresh: &BTreeMap<Digest, Bytes>) -> bool {
        let last = self.clone();
        let (state, fresh) = (state.clone(), fresh.clone());
        let saved = tokio::task::spawn_blocking(move || last.write(&state, &fresh)).await;
        if let Err(error) = saved.map_err(io::Error::other).flatten() {
            tracing::error!(
                "what is served could not be kept in {}: a restart while the store is away begins with older load \
                 balancers ({error})",
                self.folder.display()
            );
            return false;
        }
        true
    }

    fn write(&self, state: &State, fresh: &BTreeMap<Digest, Bytes>) -> io::Result<()> {
        for (digest, text) in fresh {
            // Also over what is there: it may be what could not be read at the start.
            disk::replace(&self.object(*digest), text)?;
        }
        let file = StateFile {
            version: VERSION,
            revision: state.revision,
            load_balancers: state.objects.clone(),
        };
        disk::replace(&self.folder.join(STATE), &serde_json::to_vec(&file)?)?;
        disk::sync(&self.folder)?;
        self.clean(state)
    }

    /// Removes the files that nothing refers to.
    fn clean(&self, state: &State) -> io::Result<()> {
        let wanted: BTreeSet<PathBuf> = state
            .objects
            .values()
            .map(|digest| self.object(*digest))
            .collect();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.to_string_lossy();
            // Nobody else writes objects: what is being written was left by a crash.
            let (object, new) = (OBJECT, disk::NEW);
            let is_object =
                name.ends_with(object) || name.strip_suffix(new).is_some_and(|name| name.ends_with(object));
            if is_object && !wanted.contains(&path) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn object(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}{OBJECT}"))
    }
}
