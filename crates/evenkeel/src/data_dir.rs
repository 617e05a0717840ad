//! The data directory: what must survive a restart, and the lock that keeps two processes apart.
//!
//! The operators' orders are in the store. `orders.json` holds those last known of a store that is elsewhere, for a
//! start without it; `overrides.json` is of an earlier version, and read until the store has its orders. The first is
//! replaced, never edited: a temporary file is written, synced, renamed over the old one, and the directory is
//! synced; a crash at any moment leaves the old orders or the new ones. A file that cannot be *understood* is moved
//! aside (`orders.json.corrupt-N`) with a warning
//! and the start goes on, because serving without the orders is better than not serving. A file that cannot be
//! *read*, or that a newer version wrote, refuses the start: there the orders are intact and someone can help.
//!
//! `secret` holds what sticky cookies are signed with, one secret a line: the first signs, the others are accepted
//! still. It is made at random on the first start, so that sessions stay put over the ones after.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cluster::orders::Place;
use model::config::{Name, Secret};
use model::state::{Override, OverrideKey, Overrides, RouteKey, RouteOrder};
use net::privileges::Identity;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

const OVERRIDES: &str = "overrides.json";
/// What [`OVERRIDES`] is called once its orders are in the store.
const IMPORTED: &str = "overrides.json.imported";
/// The orders as they were last known of a store elsewhere.
const ORDERS: &str = "orders.json";
const TEMPORARY: &str = "orders.json.new";
const LOCK: &str = "lock";
/// What sticky cookies are signed with where the config says nothing.
const SECRET: &str = "secret";
/// Who changed what; full ones are put aside under further names.
const AUDIT: &str = "audit.log";
const MANAGED: &str = "acme";
/// The folder of the embedded store.
const STORE: &str = "store";
/// The folder of what was served last from a store elsewhere.
const LAST: &str = "last";
/// Version of the format of [`OVERRIDES`] and [`ORDERS`].
const VERSION: u32 = 1;
/// Corrupt files kept; beyond it the last one is overwritten.
const MAX_CORRUPT: u32 = 100;
/// Shortest secret that is taken.
const MIN_SECRET: usize = 16;

/// An open data directory; no other process has it while this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

#[derive(Serialize, Deserialize)]
struct OverridesFile {
    version: u32,
    overrides: Vec<Entry>,
    /// Absent before there were such orders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteEntry>,
    /// Where they were seen, where that may be another store at the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen_in: Option<Place>,
}

#[derive(Serialize, Deserialize)]
struct RouteEntry {
    #[serde(flatten)]
    key: RouteKey,
    #[serde(flatten)]
    order: RouteOrder,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    load_balancer: Name,
    address: SocketAddr,
    #[serde(flatten)]
    order: Override,
}

/// Read first and alone, so that a newer format is recognised whatever else it holds.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Where data is kept when nothing says otherwise: `/var/lib/evenkeel` for root, else below the user's state
/// directory (XDG).
pub(crate) fn default_path(
    root: bool,
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/evenkeel"));
    }
    let absolute = |path: PathBuf| Some(path).filter(|p| p.is_absolute());
    let state = state_home
        .and_then(absolute)
        .or_else(|| Some(home.and_then(absolute)?.join(".local/state")));
    Some(state?.join("evenkeel"))
}

impl DataDir {
    /// Opens the directory, making it when missing, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or written, or another process has it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| {
            format!(
                "cannot make the data directory {} (choose another with --data-dir or node.data_dir)",
                path.display()
            )
        })?;
        let lock_path = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            // Root must not be led elsewhere by a link in a directory that another user owns.
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&lock_path)
            .with_context(|| {
                format!(
                    "cannot write in the data directory {} (choose another with --data-dir or node.data_dir)",
                    path.display()
                )
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another evenkeel process uses the data directory {}: stop it, or give each its own with --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory and its files to the user that the process is about to become.
    ///
    /// # Errors
    /// Whatever `chown` says.
    pub(crate) fn give_to(&self, user: &Identity) -> io::Result<()> {
        user.own(&self.path)?;
        let folders = [self.store(), self.last()];
        let within = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let within: Vec<PathBuf> = within
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        let own = [LOCK, OVERRIDES, ORDERS, TEMPORARY, SECRET].map(|name| self.path.join(name));
        let beside = std::fs::read_dir(&self.path).into_iter().flatten();
        let beside = beside.filter_map(|entry| Some(entry.ok()?.path()));
        let is_audit = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(AUDIT))
        };
        let of_audit = beside.filter(is_audit);
        for path in own.into_iter().chain(folders).chain(within).chain(of_audit) {
            match user.own(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the embedded store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where is kept what was served last from a store elsewhere.
    pub(crate) fn last(&self) -> PathBuf {
        self.path.join(LAST)
    }

    /// Where the audit log is kept unless the config says otherwise.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path.join(AUDIT)
    }

    /// Where ordered certificates and the accounts for them are kept.
    pub(crate) fn managed(&self) -> PathBuf {
        self.path.join(MANAGED)
    }

    /// Orders of before they were in the store; none once they are there.
    ///
    /// # Errors
    /// When the file is there but cannot be read, or is of a newer format.
    pub(crate) fn load_overrides(&self) -> anyhow::Result<Overrides> {
        Ok(self.load_orders(OVERRIDES)?.0)
    }

    /// The store has the orders of [`Self::load_overrides`] now.
    pub(crate) fn overrides_are_imported(&self) {
        let (from, to) = (self.path.join(OVERRIDES), self.path.join(IMPORTED));
        match std::fs::rename(&from, &to) {
            Ok(()) => tracing::info!(
                "the orders of {} are in the store now: it is {}",
                from.display(),
                to.display()
            ),
            Err(error) => tracing::warn!(
                "{} cannot be renamed, and is read again at the next start: {error}",
                from.display()
            ),
        }
    }

    /// The orders as they were last known of a store elsewhere, and where they were seen.
    ///
    /// # Errors
    /// As [`Self::load_overrides`].
    pub(crate) fn last_orders(&self) -> anyhow::Result<(Overrides, Option<Place>)> {
        self.load_orders(ORDERS)
    }

    fn load_orders(&self, name: &str) -> anyhow::Result<(Overrides, Option<Place>)> {
        let path = self.path.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if let Ok(VersionOnly { version }) = serde_json::from_slice(&text)
            && version > VERSION
        {
            bail!(
                "{} is of format {version}, written by a newer evenkeel; this one reads format {VERSION}",
                path.display()
            );
        }
        match serde_json::from_slice::<OverridesFile>(&text) {
            Ok(file) => {
                let backends = file.overrides.into_iter();
                let routes = file.routes.into_iter();
                let overrides = Overrides {
                    backends: backends.map(|entry| (entry.key(), entry.order)).collect(),
                    routes: routes.map(|entry| (entry.key, entry.order)).collect(),
                };
                Ok((overrides, file.seen_in))
            }
            Err(error) => {
                let aside = self.move_aside(name, &path)?;
                tracing::error!(
                    "{} is damaged ({error}): moved to {}; starting WITHOUT the operators' orders it held: \
                     look into it and order again what still holds",
                    path.display(),
                    aside.display()
                );
                Ok(Default::default())
            }
        }
    }

    /// Keeps all orders for a start without the store; when this returns, they survive a crash of the machine.
    ///
    /// # Errors
    /// Whatever the file system says; the orders stored before are then still there.
    pub(crate) fn keep_orders(&self, overrides: &Overrides, seen_in: Option<Place>) -> io::Result<()> {
        let file = OverridesFile {
            version: VERSION,
            seen_in,
            overrides: overrides.backends.iter().map(Entry::new).collect(),
            routes: overrides
                .routes
                .iter()
                .map(|(key, order)| RouteEntry {
                    key: key.clone(),
                    order: order.clone(),
                })
                .collect(),
        };
        let mut text = serde_json::to_vec_pretty(&file)?;
        text.push(b'\n');
        let temporary = self.path.join(TEMPORARY);
        let mut out = File::create(&temporary)?;
        out.write_all(&text)?;
        out.sync_all()?;
        std::fs::rename(&temporary, self.path.join(ORDERS))?;
        File::open(&self.path)?.sync_all()
    }

    /// What is signed with: what the last run made, or now something random.
    ///
    /// # Errors
    /// When it cannot be read or written, or holds something else than secrets.
    pub(crate) fn secrets(&self) -> anyhow::Result<Vec<Secret>> {
        let path = self.path.join(SECRET);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self
                .make_secret(&path)
                .with_context(|| format!("cannot write {}", path.display()))?,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<Secret> = lines.map(|line| Secret::new(line.to_owned())).collect();
        if secrets.is_empty() || secrets.iter().any(|s| s.expose().len() < MIN_SECRET) {
            bail!(
                "{} must hold secrets of at least {MIN_SECRET} characters, one a line: mend it, or remove it to have a \
                 new one made (users with a sticky cookie are then placed anew)",
                path.display()
            );
        }
        Ok(secrets)
    }

    fn make_secret(&self, path: &Path) -> io::Result<String> {
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        let beside = path.with_extension("new");
        let mut out = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(text)
    }

    fn move_aside(&self, name: &str, path: &Path) -> anyhow::Result<PathBuf> {
        let candidate = |n: u32| self.path.join(format!("{name}.corrupt-{n}"));
        let free = (1..MAX_CORRUPT).map(candidate).find(|p| !p.exists());
        let aside = free.unwrap_or_else(|| candidate(MAX_CORRUPT));
        std::fs::rename(path, &aside)
            .with_context(|| format!("{} is damaged and cannot be moved aside", path.display()))?;
        Ok(aside)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing would release it as well, but later if a child process inherited the file.
        let _ = self.lock.unlock();
    }
}

impl Entry {
    fn new((key, order): (&OverrideKey, &Override)) -> Self {
        Self {
            load_balancer: key.load_balancer.clone(),
            address: key.address,
            order: order.clone(),
        }
    }

    fn key(&self) -> OverrideKey {
        OverrideKey {
            load_balancer: self.load_balancer.clone(),
            address: self.address,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::state::{Mode, Timestamp};

    fn orders() -> Overrides {
        let key = |port| OverrideKey {
            load_balancer: Name::parse("shop").unwrap(),
            address: SocketAddr::from(([10, 0, 0, 1], port)),
        };
        let drain = Override {
            mode: Mode::Drain,
            weight: None,
            by: "alice".into(),
            since: Timestamp(1_000),
            expires: Some(Timestamp(601_000)),
        };
        let weight = Override {
            mode: Mode::Ready,
            weight: Some(0),
            by: "bob \"the builder\"".into(),
            since: Timestamp(2_000),
            expires: None,
        };
        let name = |text: &str| Name::parse(text).unwrap();
        let route = RouteKey {
            load_balancer: name("shop"),
            route: name("all"),
        };
        let weights = RouteOrder {
            weights: [(name("blue"), 0), (name("green"), 100)].into(),
            by: "bob".into(),
            since: Timestamp(3),
            expires: Some(Timestamp(9)),
        };
        Overrides {
            backends: [(key(9001), drain), (key(9002), weight)].into_iter().collect(),
            routes: [(route, weights)].into_iter().collect(),
        }
    }

    #[test]
    fn orders_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/yet/there");
        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.last_orders().unwrap().0, Overrides::default());
        let place = Some(Place {
            identity: Some("0123-4".into()),
            revision: 5,
            heard: Timestamp(6),
        });
        data.keep_orders(&orders(), place.clone()).unwrap();
        drop(data);
        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.last_orders().unwrap(), (orders(), place));
        data.keep_orders(&Overrides::default(), None).unwrap();
        assert_eq!(data.last_orders().unwrap().0, Overrides::default());
    }

    #[test]
    fn two_processes_never_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("another evenkeel process uses the data directory"),
            "{error}"
        );
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    /// The same secret on every start, for nobody else's eyes; one that was added by hand is taken too.
    #[test]
    fn a_secret_is_made_once() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let first = data.secrets().unwrap();
        assert_eq!((first.len(), first[0].expose().len()), (1, 64));
        assert_eq!(data.secrets().unwrap(), first);
        let path = dir.path().join(SECRET);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("a new one, longer than sixteen\n{text}")).unwrap();
        let both = data.secrets().unwrap();
        assert_eq!((both.len(), &both[1]), (2, &first[0]));
        std::fs::write(&path, "short\n").unwrap();
        assert!(data.secrets().unwrap_err().to_string().contains("one a line"));
    }

    /// A power cut of an old kernel, or a disk that lies: the file is cut. The start goes on, nothing is lost.
    #[test]
    fn a_damaged_file_is_moved_aside_and_the_start_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.keep_orders(&orders(), None).unwrap();
        let path = dir.path().join(ORDERS);
        let text = std::fs::read(&path).unwrap();
        for n in 1..=2 {
            let cut = &text[..text.len() / 2];
            std::fs::write(&path, cut).unwrap();
            assert_eq!(data.last_orders().unwrap().0, Overrides::default());
            let aside = dir.path().join(format!("{ORDERS}.corrupt-{n}"));
            assert_eq!(std::fs::read(aside).unwrap(), cut);
            assert!(!path.exists());
        }
    }

    /// A downgrade: the orders are fine, but this version cannot read them; it must not move them away.
    #[test]
    fn a_file_of_a_newer_format_refuses_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let newer = br#"{"version": 2, "orders": {}}"#;
        std::fs::write(dir.path().join(ORDERS), newer).unwrap();
        let error = data.last_orders().unwrap_err().to_string();
        assert!(error.contains("format 2, written by a newer evenkeel"), "{error}");
        assert_eq!(std::fs::read(dir.path().join(ORDERS)).unwrap(), newer);
    }

    #[test]
    fn a_file_that_cannot_be_read_refuses_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join(ORDERS)).unwrap();
        assert!(
            data.last_orders()
                .unwrap_err()
                .to_string()
                .starts_with("cannot read")
        );
    }

    #[test]
    fn the_default_follows_the_platforms_conventions() {
        let path = |p: &str| Some(PathBuf::from(p));
        assert_eq!(default_path(true, None, path("/root")), path("/var/lib/evenkeel"));
        assert_eq!(
            default_path(false, path("/x"), path("/home/a")),
            path("/x/evenkeel")
        );
        let in_home = path("/home/a/.local/state/evenkeel");
        assert_eq!(default_path(false, None, path("/home/a")), in_home);
        assert_eq!(default_path(false, path("relative"), path("/home/a")), in_home);
        assert_eq!(default_path(false, None, None), None);
    }
}
