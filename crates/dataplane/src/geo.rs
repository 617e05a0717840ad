//! Countries and continents of addresses, from a MaxMind database.
//!
//! The file is read into memory as a whole and replaced as a whole: a lookup sees the old one or the new one. A file
//! that cannot be used changes nothing; the one before stays in force, and it is said.

use std::fs::Metadata;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};

use maxminddb::{Reader, path};
use model::geography::{Code, Geography};

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// A database in memory.
#[derive(Debug)]
struct Database {
    reader: Reader<Vec<u8>>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

/// The database in force, for all shards.
#[derive(Debug, Default)]
pub(crate) struct Geo {
    current: RwLock<Option<Database>>,
    /// The file last looked at, whether it could be used or not.
    seen: Mutex<Option<Version>>,
    pub(crate) loaded: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Geo {
    /// Where this address is; nothing is known without a database.
    pub(crate) fn look_up(&self, address: IpAddr) -> Geography {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .map_or_else(Geography::default, |database| look_up(&database.reader, address))
    }

    /// When the database in force was built, in seconds since the Unix epoch.
    pub(crate) fn built(&self) -> Option<u64> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .map(|database| database.reader.metadata().build_epoch)
    }

    /// Follows the file: reads it when it is another than the last time. `Ok(true)` when a new one is in force.
    ///
    /// # Errors
    /// Why the file cannot be used; said once for each state of it.
    pub(crate) fn follow(&self, wanted: Option<&Path>) -> Result<bool, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = wanted else {
            *seen = None;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(false);
        };
        let version = std::fs::metadata(path)
            .ok()
            .map(|found| Version::of(path, &found));
        if version.is_some() && *seen == version {
            return Ok(false);
        }
        // A file that is away is missed once; coming back, it is read.
        let missed = version.is_none() && seen.is_none() && self.failed.load(Relaxed) > 0;
        *seen = version;
        match read(path) {
            Ok(database) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
                self.loaded.fetch_add(1, Relaxed);
                Ok(true)
            }
            Err(_) if missed => Ok(false),
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }
}

/// Whether this file can be used.
///
/// # Errors
/// Why not, with what to do about it.
pub fn check(path: &Path) -> Result<(), String> {
    read(path).map(|_| ())
}

fn read(path: &Path) -> Result<Database, String> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .map_err(|error| format!("cannot read the database of countries {shown}: {error}"))?
        .len();
    if size > MAX_BYTES {
        return Err(format!(
            "the database of countries {shown} has {size} bytes; at most {MAX_BYTES} are read"
        ));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| format!("cannot read the database of countries {shown}: {error}"))?;
    let reader = Reader::from_source(bytes).map_err(|error| {
        format!("{shown} is not a MaxMind database: {error}; put a whole `.mmdb` file there")
    })?;
    Ok(Database { reader })
}

fn look_up(reader: &Reader<Vec<u8>>, address: IpAddr) -> Geography {
    // An address that the database does not know, and a record that cannot be read, say nothing.
    let Ok(found) = reader.lookup(address.to_canonical()) else {
        return Geography::default();
    };
    let code = |steps: &[maxminddb::PathElement<'_>]| {
        let text: Option<&str> = found.decode_path(steps).ok().flatten();
        text.and_then(Code::parse)
    };
    Geography {
        country: code(&path!["country", "iso_code"]),
        continent: code(&path!["continent", "code"]),
    }
}

impl Version {
    fn of(path: &Path, found: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            modified: (found.mtime(), found.mtime_nsec()),
            size: found.len(),
            inode: found.ino(),
        }
    }
}
