//! What was believed last, on this node's disk: for a start while the store is away.
//!
//! One file: a line with the format and the digest of what follows, then a line for each backend. It is replaced,
//! never edited, so a crash at any moment leaves the old one or the new one; one that has another digest is not
//! believed. It is written a second after something changed, and then not more often than every [`EVERY`], whatever
//! happens: what a restart begins with may be that old.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::config::Name;
use model::state::{BackendId, Health, Life, Verdict};
use reconcile::desired::records::Digest;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::disk;

/// The file.
const FILE: &str = "verdicts";
/// Version of its format.
const VERSION: u32 = 1;
/// Least time between two writes.
const EVERY: Duration = Duration::from_secs(10);
/// After a change it is waited so long for others.
const GATHER: Duration = Duration::from_secs(1);
/// Characters kept of why.
const REASON: usize = 200;

/// Where verdicts are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Line {
    load_balancer: Name,
    pool: Name,
    address: std::net::SocketAddr,
    health: Health,
    reason: String,
    /// The number of the membership that it is about; 0 where nobody counts. None in files of before there were numbers.
    #[serde(default)]
    life: Option<u64>,
}

/// Why what was kept is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the last verdicts ({}) are damaged and counted for nothing: {why}", .path.display())]
pub struct Damaged {
    path: PathBuf,
    why: String,
}

impl Kept {
    /// In this folder, which must be there.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// What was kept; nothing where nothing was. Blocks on the file.
    ///
    /// A version that knew no numbers of memberships left them out: then it is about the one that `life` tells.
    ///
    /// # Errors
    /// [`Damaged`]: it is there and cannot be believed.
    pub fn load(&self, life: impl Fn(&BackendId) -> u64) -> Result<Vec<Verdict>, Damaged> {
        let damaged = |why: String| Damaged {
            path: self.folder.join(FILE),
            why,
        };
        let text = match std::fs::read_to_string(self.folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let (head, lines) = text.split_once('\n').unwrap_or((&text, ""));
        let head: Head = serde_json::from_str(head).map_err(|error| damaged(error.to_string()))?;
        if head.version != VERSION {
            let why = format!("format {}, this version reads {VERSION}", head.version);
            return Err(damaged(why));
        }
        if Digest::of(lines) != head.digest {
            return Err(damaged("the content is not what was written".to_owned()));
        }
        let verdict = |line: &str| {
            let line: Line = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
            let backend = BackendId {
                load_balancer: line.load_balancer,
                pool: line.pool,
                address: line.address,
            };
            let life = line.life.unwrap_or_else(|| life(&backend));
            Ok(Verdict {
                backend,
                health: line.health,
                reason: line.reason,
                life: Life::of_member(life),
            })
        };
        lines.lines().map(verdict).collect()
    }

    fn write(&self, believed: &[Verdict]) -> io::Result<()> {
        let mut lines = String::new();
        for verdict in believed {
            let line = Line {
                load_balancer: verdict.backend.load_balancer.clone(),
                pool: verdict.backend.pool.clone(),
                address: verdict.backend.address,
                health: verdict.health,
                reason: verdict.reason.chars().take(REASON).collect(),
                life: Some(verdict.life.member),
            };
            lines.push_str(&serde_json::to_string(&line)?);
            lines.push('\n');
        }
        let head = Head {
            version: VERSION,
            digest: Digest::of(&lines),
        };
        let text = format!("{}\n{lines}", serde_json::to_string(&head)?);
        disk::replace(&self.folder.join(FILE), text.as_bytes())?;
        disk::sync(&self.folder)
    }
}

/// Writes now and then.
#[derive(Debug)]
pub(super) struct Keeper {
    kept: Kept,
    /// When to write; none: nothing has changed.
    due: Option<Instant>,
    /// Not before.
    rests_until: Instant,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Whether it is told already that it does not work.
    told: bool,
}

impl Keeper {
    pub(super) fn new(kept: Kept) -> Self {
        Self {
            kept,
            due: None,
            rests_until: Instant::now(),
            writing: None,
            told: false,
        }
    }

    /// Something else is believed.
    pub(super) fn changed(&mut self) {
        let soon = Instant::now() + GATHER;
        let due = soon.max(self.rests_until);
        self.due = self.due.or(Some(due));
    }

    /// Waits until it is time to write; never, while nothing has changed. May be dropped while it waits.
    pub(super) async fn time(&mut self) {
        if let Some(writing) = &mut self.writing {
            let written = writing.await.map_err(io::Error::other).flatten();
            self.writing = None;
            self.written(written);
        }
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Begins to write.
    pub(super) fn keep(&mut self, believed: Vec<Verdict>) {
        self.due = None;
        self.rests_until = Instant::now() + EVERY;
        let kept = self.kept.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || kept.write(&believed)));
    }

    fn written(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.told = false,
            Err(error) => {
                self.changed();
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        "the last verdicts could not be kept in {}, and it is tried again: a restart while the store \
                         is away begins with older ones ({error})",
                        self.kept.folder.display()
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn believed(health: Health) -> Vec<Verdict> {
        let backend = |port| BackendId {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("web").unwrap(),
            address: ([10, 0, 0, 1], port).into(),
        };
        let verdict = |port, member| Verdict {
            backend: backend(port),
            health,
            reason: "status 503 \"x\"\nand more".to_owned(),
            life: Life::of_member(member),
        };
        vec![verdict(1, 0), verdict(2, u64::MAX)]
    }

    /// Scenario: nothing, something, something else; what was read is what was written.
    #[test]
    fn what_was_kept_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let kept = Kept::within(folder.path());
        assert_eq!(kept.load(|_| 0), Ok(Vec::new()));
        for health in [Health::Up, Health::Down] {
            kept.write(&believed(health)).unwrap();
            assert_eq!(kept.load(|_| 0), Ok(believed(health)));
        }
    }

    /// Scenario: a file of before memberships had numbers. It is read, and each line is about the membership that is told
    /// of its backend; a number that is there counts, also where it is 0.
    #[test]
    fn a_file_without_numbers_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let kept = Kept::within(folder.path());
        let line = |port: u16, life: &str| {
            format!(
                "{{\"load_balancer\":\"shop\",\"pool\":\"web\",\"address\":\"10.0.0.1:{port}\",\"health\":\"down\",\
                 \"reason\":\"status 503\"{life}}}\n"
            )
        };
        let lines = [line(1, ""), line(2, ""), line(3, ",\"life\":0")].concat();
        let head = Head {
            version: VERSION,
            digest: Digest::of(&lines),
        };
        let text = format!("{}\n{lines}", serde_json::to_string(&head).unwrap());
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let member = |backend: &BackendId| if backend.address.port() == 2 { 0 } else { 7 };
        let read = kept.load(member).unwrap();
        let lives: Vec<u64> = read.iter().map(|verdict| verdict.life.member).collect();
        assert_eq!(lives, [7, 0, 0]);
        assert!(read.iter().all(|verdict| verdict.health == Health::Down));
    }

    /// Scenario: each byte of the file is changed, and the file is cut at each place. Nothing of it is believed then;
    /// what a crash leaves beside it is never looked at.
    #[test]
    fn what_is_damaged_is_not_believed() {
        let folder = tempfile::TempDir::new().unwrap();
        let kept = Kept::within(folder.path());
        kept.write(&believed(Health::Down)).unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut scribbled = whole.clone();
            scribbled[place] ^= 1;
            std::fs::write(&path, scribbled).unwrap();
            assert!(kept.load(|_| 0).is_err(), "a byte at {place}");
            std::fs::write(&path, &whole[..place]).unwrap();
            assert!(kept.load(|_| 0).is_err(), "cut at {place}");
        }
        std::fs::write(&path, whole).unwrap();
        std::fs::write(path.with_extension("new"), "half").unwrap();
        assert_eq!(kept.load(|_| 0), Ok(believed(Health::Down)));
    }

    /// Scenario: verdicts change all the time. It is written a second after the first, then every ten seconds.
    #[tokio::test]
    async fn it_is_written_now_and_then() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut keeper = Keeper::new(Kept::within(folder.path()));
        let began = Instant::now();
        keeper.changed();
        let first = keeper.due.unwrap();
        assert!(first >= began + GATHER && first <= Instant::now() + GATHER);
        keeper.changed();
        assert_eq!(keeper.due, Some(first), "more changes put nothing off");
        keeper.keep(believed(Health::Up));
        assert_eq!(keeper.due, None);
        keeper.changed();
        assert!(keeper.due.unwrap() >= began + EVERY);
    }

    /// Scenario: the disk is full, or the folder is gone. It is tried again, and later it is written.
    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::TempDir::new().unwrap();
        let kept = Kept::within(&folder.path().join("gone"));
        let mut keeper = Keeper::new(kept.clone());
        keeper.keep(believed(Health::Up));
        let writing = keeper.writing.take().unwrap().await.unwrap();
        keeper.written(writing);
        assert!(keeper.due.is_some() && keeper.told);
        std::fs::create_dir(folder.path().join("gone")).unwrap();
        keeper.keep(believed(Health::Up));
        let writing = keeper.writing.take().unwrap().await.unwrap();
        keeper.written(writing);
        assert!(keeper.due.is_none() && !keeper.told);
        assert_eq!(kept.load(|_| 0), Ok(believed(Health::Up)));
    }
}
