//! The audit log: who changed what, when, from where, and who was not let in.
//!
//! A line of JSON for each record, appended before the answer is sent. A record that cannot be written does not stop
//! what it tells of: an order to drain is most needed when something is broken, and the disk may be what broke. It goes
//! into the log of the process instead, whole, and is counted (`docs/adr/0024-who-may-use-the-admin-api.md`).
//!
//! Bounded: a file of [`MAX_AUDIT_FILE_BYTES`] is put aside, [`AUDIT_FILES_KEPT`] of those are kept. What strangers can
//! cause (logins that fail, roles that are not enough) has an allowance; beyond it records are counted only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use model::config::AdminRole;
use model::state::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Counters;
use crate::bucket::{Bucket, Rate};
use crate::limits::{AUDIT_FILES_KEPT, MAX_AUDIT_FILE_BYTES, MAX_AUDIT_SHOWN, MAX_AUDIT_TEXT};
use crate::login::{Caller, Login, Peer};
use crate::problem::Reason;

/// Records of what strangers cause: so many at once, then one each `interval`.
const ALLOWANCE: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(2),
};

/// Records of what members say anew: a start of many instances at once, then a few each second.
const OF_MEMBERS: Rate = Rate {
    burst: 1000,
    interval: Duration::from_millis(200),
};

/// Longest line that is looked for in the file, in bytes: every text in a record is bounded.
const LONGEST_LINE: u64 = 12 * MAX_AUDIT_TEXT as u64;

/// One thing that somebody did, or was not let do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When it was over.
    pub at: Timestamp,
    /// The login: the name of a token or certificate, `local`, or `nobody`.
    pub who: String,
    /// How he is known: `token`, `certificate`, `admin_token`, `local`, `pool_token`, `none`.
    pub login: String,
    /// What he may do; absent for who was not let in, and for members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AdminRole>,
    /// His address and port.
    pub from: String,
    /// The request's method.
    pub method: String,
    /// The request's path, without its query.
    pub path: String,
    /// What was wanted, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The answer's status.
    pub status: u16,
    /// Why it was refused: the reason code of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Records of failed logins, denials and members before this one that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The file, and what was left out of it.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    bytes: u64,
    /// What the file ends with is no whole line: a write broke off, of this process or of one before.
    torn: bool,
    allowance: Bucket,
    of_members: Bucket,
    suppressed: u64,
}

impl AuditLog {
    /// Opens the file, making it when missing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: PathBuf, counters: Arc<Counters>) -> io::Result<Self> {
        let log = Self {
            path,
            counters,
            state: Mutex::default(),
        };
        log.state().open(&log.path)?;
        Ok(log)
    }

    /// Opens the file anew, for whoever has moved it away. One that cannot be opened is tried with each record.
    pub fn reopen(&self) {
        let mut state = self.state();
        state.file = None;
        if let Err(error) = state.open(&self.path) {
            tracing::error!("cannot open the audit log {}: {error}", self.path.display());
        }
    }

    /// Writes what was done, through to the disk.
    pub(crate) fn record(&self, mut record: AuditRecord) {
        let mut state = self.state();
        record.suppressed = state.suppressed;
        self.write(&mut state, &record, true);
    }

    /// Writes what was not let be done, within the allowance. `now` counts from any one moment.
    pub(crate) fn record_refusal(&self, mut record: AuditRecord, now: Duration) {
        let mut state = self.state();
        if state.allowance.wait(ALLOWANCE, now).is_some() {
            state.suppressed = state.suppressed.saturating_add(1);
            self.counters.audit_suppressed();
            return;
        }
        state.allowance.take(ALLOWANCE, now);
        record.suppressed = state.suppressed;
        self.write(&mut state, &record, false);
    }

    /// Writes what a member said anew, within its allowance: who has the token of a pool can register and leave without
    /// end. `now` counts from any one moment.
    pub(crate) fn record_member(&self, mut record: AuditRecord, now: Duration) {
        let mut state = self.state();
        if state.of_members.wait(OF_MEMBERS, now).is_some() {
            state.suppressed = state.suppressed.saturating_add(1);
            self.counters.audit_suppressed();
            return;
        }
        state.of_members.take(OF_MEMBERS, now);
        record.suppressed = state.suppressed;
        self.write(&mut state, &record, false);
    }

    fn write(&self, state: &mut State, record: &AuditRecord, through: bool) {
        let Ok(mut line) = serde_json::to_vec(record) else {
            return;
        };
        line.push(b'\n');
        match state.append(&self.path, &line, through) {
            Ok(()) => {
                state.suppressed = 0;
                self.counters.audit_written();
            }
            Err(error) => {
                self.counters.audit_failed();
                tracing::error!(
                    "the audit log {} cannot be written ({error}); the record: {}",
                    self.path.display(),
                    String::from_utf8_lossy(&line).trim_end()
                );
            }
        }
    }

    /// The last `limit` records, newest first; those of the file before are taken in where this one has too few.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn last(&self, limit: usize) -> io::Result<Vec<AuditRecord>> {
        // Not while a line is being written.
        let _state = self.state();
        let limit = limit.min(MAX_AUDIT_SHOWN);
        let mut records = Vec::new();
        for path in [self.path.clone(), aside(&self.path, 1)] {
            let text = match tail(&path, LONGEST_LINE * limit as u64) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let lines = text.split(|b| *b == b'\n').rev();
            let read = lines.filter_map(|line| serde_json::from_slice(line).ok());
            records.extend(read.take(limit - records.len()));
        }
        Ok(records)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, path: &Path) -> io::Result<&mut File> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        self.bytes = file.metadata()?.len();
        self.torn = self.bytes > 0 && last_byte(path, self.bytes) != Some(b'\n');
        Ok(self.file.insert(file))
    }

    fn append(&mut self, path: &Path, line: &[u8], through: bool) -> io::Result<()> {
        if self.bytes.saturating_add(line.len() as u64) > MAX_AUDIT_FILE_BYTES {
            put_aside(path)?;
            self.file = None;
        }
        if self.file.is_none() {
            self.open(path)?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let whole = if std::mem::take(&mut self.torn) {
            [b"\n", line].concat()
        } else {
            line.to_vec()
        };
        if let Err(error) = file.write_all(&whole) {
            // The next record opens it anew, and sees what it ends with: this one may be on a disk that is gone.
            self.file = None;
            return Err(error);
        }
        if through {
            file.sync_data()?;
        }
        self.bytes = self.bytes.saturating_add(whole.len() as u64);
        Ok(())
    }
}

/// What a file of this length ends with, where that can be read.
fn last_byte(path: &Path, bytes: u64) -> Option<u8> {
    let mut last = [0];
    let file = File::open(path).ok()?;
    file.read_exact_at(&mut last, bytes - 1).ok()?;
    Some(last[0])
}

/// The name of a file that was put aside; 1 is the newest.
fn aside(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// Makes room: each file that was put aside moves on by one, and the oldest is overwritten.
fn put_aside(path: &Path) -> io::Result<()> {
    for n in (1..AUDIT_FILES_KEPT).rev() {
        match std::fs::rename(aside(path, n), aside(path, n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match std::fs::rename(path, aside(path, 1)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last `most` bytes of a file.
fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A record of a request that is not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    caller: Option<Caller>,
    from: Option<SocketAddr>,
    method: String,
    path: String,
}

impl Draft {
    /// What is known before it is answered.
    pub(crate) fn of(request: &Request, caller: Option<&Caller>) -> Self {
        let peer = request.extensions().get::<Peer>();
        Self {
            caller: caller.cloned(),
            from: peer.map(|peer| peer.address),
            method: cut(request.method().as_str(), MAX_AUDIT_TEXT / 8),
            path: cut(request.uri().path(), MAX_AUDIT_TEXT),
        }
    }

    /// The record, now that there is an answer.
    pub(crate) fn finish(self, what: Option<String>, response: &Response) -> AuditRecord {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let login = self.caller.as_ref().map(|caller| &caller.login);
        let reason = response.extensions().get::<Reason>();
        AuditRecord {
            at: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            who: login.map_or_else(|| "nobody".to_owned(), Login::name),
            login: login.map_or("none", Login::kind).to_owned(),
            role: self
                .caller
                .as_ref()
                .filter(|caller| caller.login != Login::PoolToken)
                .map(|caller| caller.role),
            from: self
                .from
                .map_or_else(|| "unknown".to_owned(), |from| from.to_string()),
            method: self.method,
            path: self.path,
            what,
            status: response.status().as_u16(),
            reason: reason.map(|reason| reason.0.to_owned()),
            suppressed: 0,
        }
    }
}

/// What a route says of what is wanted, for the record. It says nothing that could be a secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    text: Arc<Mutex<String>>,
    dry: Arc<AtomicBool>,
}

impl Note {
    /// Adds to what was said before, of which as much stays as there is room for.
    pub(crate) fn say(&self, what: &str) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let what = cut(what, MAX_AUDIT_TEXT);
        *text = match text.is_empty() {
            true => what,
            false => {
                let room = MAX_AUDIT_TEXT.saturating_sub(what.len() + 2);
                format!("{}; {what}", cut(&text, room))
            }
        };
    }

    /// Says that nothing is to be changed, so that there is nothing to record.
    pub(crate) fn dry_run(&self) {
        self.dry.store(true, Relaxed);
    }

    pub(crate) fn is_of_dry_run(&self) -> bool {
        self.dry.load(Relaxed)
    }

    pub(crate) fn text(&self) -> Option<String> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        Some(text.clone()).filter(|text| !text.is_empty())
    }
}

/// A text of a record, `most` bytes of it; a mark at the end says that there was more.
fn cut(text: &str, most: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(MORE.len());
    let end = (0..=room).rev().find(|end| text.is_char_boundary(*end));
    format!("{}{MORE}", text.get(..end.unwrap_or(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn record(n: u64) -> AuditRecord {
        AuditRecord {
            at: Timestamp(n),
            who: "ci".to_owned(),
            login: "token".to_owned(),
            role: Some(AdminRole::Operator),
            from: "192.0.2.7:51234".to_owned(),
            method: "POST".to_owned(),
            path: "/api/v1/reload".to_owned(),
            what: None,
            status: 200,
            reason: None,
            suppressed: 0,
        }
    }

    fn times(log: &AuditLog, limit: usize) -> Vec<u64> {
        log.last(limit)
            .unwrap()
            .iter()
            .map(|record| record.at.0)
            .collect()
    }

    fn open(dir: &tempfile::TempDir) -> AuditLog {
        AuditLog::open(dir.path().join("audit.log"), Arc::default()).unwrap()
    }

    #[test]
    fn records_are_there_after_a_restart_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir);
        assert_eq!(times(&log, 10), [] as [u64; 0]);
        (1..=3).for_each(|n| log.record(record(n)));
        drop(log);
        let log = open(&dir);
        log.record(record(4));
        assert_eq!(times(&log, 10), [4, 3, 2, 1]);
        assert_eq!(times(&log, 2), [4, 3]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("audit.log"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    /// A full file is put aside, the oldest goes, and the last records are told across the two.
    #[test]
    fn files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir);
        let kept = u64::from(AUDIT_FILES_KEPT);
        for n in 1..=kept + 2 {
            log.record(record(2 * n));
            log.state().bytes = MAX_AUDIT_FILE_BYTES;
            log.record(record(2 * n + 1));
        }
        assert_eq!(times(&log, 3), [2 * kept + 5, 2 * kept + 4, 2 * kept + 3]);
        let files = std::fs::read_dir(dir.path()).unwrap().count() as u64;
        assert_eq!(files, kept + 1);
    }

    /// What strangers cause has an allowance; what was left out is told by the next record, and counted.
    #[test]
    fn refusals_are_bounded_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir);
        let now = Duration::from_secs(100);
        for n in 1..=u64::from(ALLOWANCE.burst) + 5 {
            log.record_refusal(record(n), now);
        }
        log.record(record(1000));
        let last = log.last(1000).unwrap();
        assert_eq!(last.len() as u32, ALLOWANCE.burst + 1);
        assert_eq!((last[0].suppressed, last[1].suppressed), (5, 0));
        log.record_refusal(record(1001), now + ALLOWANCE.interval);
        assert_eq!(times(&log, 1), [1001]);
        let counts = log.counters.audit_records();
        let sum = u64::from(ALLOWANCE.burst) + 2;
        assert_eq!(counts, [("written", sum), ("failed", 0), ("suppressed", 5)]);
    }

    /// Scenario: the disk is full, then it is not. Nothing is stopped, the loss is counted, and a line that was torn is
    /// ended before the next.
    #[test]
    fn a_file_that_cannot_be_written_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir);
        log.state().file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        log.record(record(1));
        assert_eq!(log.counters.audit_records()[1], ("failed", 1));
        std::fs::write(dir.path().join("audit.log"), "{\"at\":1,\"who").unwrap();
        log.record(record(2));
        assert_eq!(times(&log, 10), [2]);
    }

    /// Scenario: a write broke off within a line. The file cannot be opened for a while, and then the process is
    /// started anew, or not: the next record is a line of its own all the same.
    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        for restarted in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (path, away) = (dir.path().join("audit.log"), dir.path().join("away"));
            let mut log = open(&dir);
            log.state().file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
            log.record(record(1));
            std::fs::write(&path, "{\"at\":1,\"who").unwrap();
            std::fs::rename(&path, &away).unwrap();
            std::fs::create_dir(&path).unwrap();
            log.record(record(2));
            assert_eq!(log.counters.audit_records()[1], ("failed", 2));
            std::fs::remove_dir(&path).unwrap();
            std::fs::rename(&away, &path).unwrap();
            if restarted {
                log = open(&dir);
            }
            log.record(record(3));
            log.record(record(4));
            assert_eq!(times(&log, 10), [4, 3]);
        }
    }

    /// Whoever keeps old logs moves the file away and says so.
    #[test]
    fn a_file_that_was_moved_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir);
        log.record(record(1));
        std::fs::rename(dir.path().join("audit.log"), dir.path().join("kept")).unwrap();
        log.record(record(2));
        log.reopen();
        log.record(record(3));
        assert_eq!(times(&log, 10), [3]);
        let kept = std::fs::read_to_string(dir.path().join("kept")).unwrap();
        assert_eq!(kept.lines().count(), 2);
    }
}
