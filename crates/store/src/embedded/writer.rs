//! The thread that writes: takes orders together, brings them to the disk, then shows and answers them.
//!
//! A disk that fails leaves the memory as it was. The file is closed and opened anew, because only then it tells
//! whether the failed group is in it: if so, it is shown and answered like any other; if not, it surely did not
//! happen. While the file cannot be opened, reads go on, and each write tries to open it. One that is neither as it was
//! nor has the failed group is not ours: writing goes on in none but the file that has all that was acknowledged.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use super::disk::{Disk, Numbers, damaged};
use super::memory::Staged;
use crate::bounds::MAX_GROUPED_WRITES;
use crate::error::StoreError;
use crate::transaction::Transaction;
use crate::types::{Committed, LeaseId};

/// The thread looks for leases that ended at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While the disk fails, leases that ended are tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why a file is not written to that was opened after the disk failed.
const NOT_OURS: &str = "it is another one than before the disk failed: put back the file that this process wrote, or \
                        start the process again, which then has what is in this one";

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Commit(Transaction, Answer<Committed>),
    Grant(u32, Answer<LeaseId>),
    Revoke(LeaseId, Answer<()>),
}

/// What will be answered once the disk has it.
enum Pending {
    Commit(Answer<Committed>, Result<Committed, StoreError>),
    Grant(Answer<LeaseId>, Result<LeaseId, StoreError>),
    Revoke(Answer<()>),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// None after it failed.
    disk: Option<Disk>,
    numbers: Numbers,
    /// A group of which nobody knows whether it is on disk.
    in_doubt: Option<Staged>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Disk,
        numbers: Numbers,
        commands: Receiver<Command>,
    ) -> Self {
        Self {
            shared,
            commands,
            disk: Some(disk),
            numbers,
            in_doubt: None,
        }
    }

    /// Works until the last handle is gone.
    pub(super) fn run(mut self) {
        let _closes = Closes(Arc::clone(&self.shared));
        loop {
            let group = match self.commands.recv_timeout(self.patience()) {
                Ok(first) => self.gather(first),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.work(group);
        }
    }

    /// How long to wait for an order: until the next lease ends.
    fn patience(&self) -> Duration {
        let memory = self.shared.read();
        let wait = memory
            .next_end()
            .map_or(LOOK_EVERY, |end| end.saturating_duration_since(Instant::now()));
        // A lease that ended stays at the head while its end cannot be written.
        let least = match memory.trouble {
            None => Duration::ZERO,
            Some(_) => TRY_AGAIN,
        };
        wait.clamp(least, LOOK_EVERY)
    }

    fn gather(&self, first: Command) -> Vec<Command> {
        let mut group = vec![first];
        group.extend(self.commands.try_iter().take(MAX_GROUPED_WRITES - 1));
        group
    }

    fn work(&mut self, group: Vec<Command>) {
        if let Err(error) = self.ready() {
            self.trouble(&error);
            return group.into_iter().for_each(|command| command.refuse(&error));
        }
        let ended = self.shared.write().take_ended(Instant::now());
        let mut staged = Staged::new(&self.shared.read(), self.numbers);
        for lease in ended {
            staged.end(&self.shared.read(), lease);
        }
        let pending: Vec<Pending> = group
            .into_iter()
            .map(|command| self.stage(command, &mut staged))
            .collect();
        if staged.is_empty() {
            return pending.into_iter().for_each(|pending| pending.answer(None));
        }
        let result = self.persist(staged);
        let error = result.err();
        pending
            .into_iter()
            .for_each(|pending| pending.answer(error.as_ref()));
    }

    fn stage(&self, command: Command, staged: &mut Staged) -> Pending {
        match command {
            Command::Commit(transaction, answer) => {
                let result = staged.commit(&self.shared.read(), &transaction);
                Pending::Commit(answer, result)
            }
            Command::Grant(seconds, answer) => {
                let result = staged.grant(&self.shared.read(), seconds);
                Pending::Grant(answer, result)
            }
            Command::Revoke(lease, answer) => {
                self.shared.write().set_ending(lease, true);
                staged.end(&self.shared.read(), lease);
                Pending::Revoke(answer)
            }
        }
    }

    /// Brings a group to the disk and shows it.
    fn persist(&mut self, staged: Staged) -> Result<(), StoreError> {
        let path = self.shared.path.clone();
        let written = match &self.disk {
            Some(disk) => disk.write(&staged, &path),
            None => return Err(super::closed()),
        };
        let Err(error) = written else {
            self.publish(staged);
            return Ok(());
        };
        let serial = staged.numbers.serial;
        self.disk = None;
        self.in_doubt = Some(staged);
        self.trouble(&error);
        match self.ready() {
            // The file has it after all.
            Ok(()) if self.numbers.serial == serial => Ok(()),
            Ok(()) => Err(error),
            Err(_) => Err(StoreError::unknown(error.kind(), error.detail())),
        }
    }

    /// Opens the file when it is not open, and finds out what became of the group in doubt.
    fn ready(&mut self) -> Result<(), StoreError> {
        if self.disk.is_some() {
            return Ok(());
        }
        let path = &self.shared.path;
        let disk = Disk::reopen(path)?;
        let numbers = disk.numbers(path)?;
        let has_it = |staged: &Staged| staged.numbers == numbers;
        if numbers != self.numbers && !self.in_doubt.as_ref().is_some_and(has_it) {
            return Err(damaged(path, NOT_OURS));
        }
        self.disk = Some(disk);
        match self.in_doubt.take() {
            Some(staged) if has_it(&staged) => self.publish(staged),
            Some(staged) => {
                let mut memory = self.shared.write();
                for id in staged.leases.keys() {
                    memory.set_ending(*id, false);
                }
            }
            None => {}
        }
        Ok(())
    }

    fn publish(&mut self, staged: Staged) {
        self.numbers = staged.numbers;
        let revision = staged.numbers.revision;
        let mut memory = self.shared.write();
        memory.publish(staged, Instant::now());
        memory.trouble = None;
        drop(memory);
        self.shared
            .revision
            .send_if_modified(|last| std::mem::replace(last, revision) != revision);
    }

    fn trouble(&self, error: &StoreError) {
        let mut memory = self.shared.write();
        if memory.trouble.is_none() {
            tracing::error!(%error, "the store cannot write");
        }
        memory.trouble = Some(error.to_string());
    }
}

impl Command {
    /// Answers without having done anything. Who asked may be gone: then nobody needs the answer.
    fn refuse(self, error: &StoreError) {
        match self {
            Self::Commit(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::Grant(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::Revoke(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

impl Pending {
    /// Tells how it ended: as it was judged, or by the error of the disk.
    fn answer(self, error: Option<&StoreError>) {
        match (self, error.cloned()) {
            (Self::Commit(answer, _), Some(error)) => drop(answer.send(Err(error))),
            (Self::Grant(answer, _), Some(error)) => drop(answer.send(Err(error))),
            (Self::Revoke(answer), Some(error)) => drop(answer.send(Err(error))),
            (Self::Commit(answer, result), None) => drop(answer.send(result)),
            (Self::Grant(answer, result), None) => drop(answer.send(result)),
            (Self::Revoke(answer), None) => drop(answer.send(Ok(()))),
        }
    }
}

/// Tells readers and watches that the writer has ended, however it did.
struct Closes(Arc<Shared>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.write().closed = true;
        self.0.revision.send_modify(|_| {});
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::RwLock;
    use std::sync::mpsc::sync_channel;

    use tokio::sync::watch;

    use super::super::memory::Memory;
    use super::*;
    use crate::error::{ErrorKind, Happened};

    /// A writer whose disk failed while it wrote one key; `arrived` says whether that came through.
    fn failed_writer(folder: &std::path::Path, arrived: bool) -> Writer {
        let path = folder.join("store.redb");
        let (disk, loaded) = Disk::open(&path).unwrap();
        let numbers = loaded.numbers;
        let mut memory = Memory::new(loaded, Instant::now());
        let mut before = Staged::new(&memory, numbers);
        before
            .commit(&memory, &Transaction::new().put("/old", "v"))
            .unwrap();
        disk.write(&before, &path).unwrap();
        let numbers = before.numbers;
        memory.publish(before, Instant::now());
        let mut staged = Staged::new(&memory, numbers);
        let transaction = Transaction::new().put("/k", "v");
        staged.commit(&memory, &transaction).unwrap();
        if arrived {
            disk.write(&staged, &path).unwrap();
        }
        let shared = Shared {
            path,
            revision: watch::Sender::new(memory.revision),
            memory: RwLock::new(memory),
        };
        let mut writer = Writer::new(Arc::new(shared), disk, numbers, sync_channel(1).1);
        writer.disk = None;
        writer.in_doubt = Some(staged);
        writer
    }

    /// The file tells, when it is opened anew: what is in it is shown, what is not never happened.
    #[test]
    fn a_write_in_doubt_is_what_the_file_says() {
        for arrived in [true, false] {
            let folder = tempfile::TempDir::new().unwrap();
            let mut writer = failed_writer(folder.path(), arrived);
            let (serial, before) = (writer.numbers.serial, writer.shared.read().revision);
            writer.ready().unwrap();
            let memory = writer.shared.read();
            assert_eq!(memory.entries.contains_key("/k"), arrived);
            assert_eq!(memory.changes(before.next(), "/").is_some(), arrived);
            assert_eq!(memory.revision > before, arrived);
            assert_eq!(writer.numbers.serial, serial + u64::from(arrived));
        }
    }

    /// While the file cannot be opened, a write is refused as not done, and the doubt stays.
    #[test]
    fn a_file_that_cannot_be_opened_refuses_writes() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut writer = failed_writer(folder.path(), true);
        let path = folder.path().join("store.redb");
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (answer, mut answered) = oneshot::channel();
        writer.work(vec![Command::Grant(5, answer)]);
        let error = answered.try_recv().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.happened()),
            (ErrorKind::Disk, Happened::No),
            "{error}"
        );
        assert!(!writer.shared.read().entries.contains_key("/k"));

        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        let (answer, mut answered) = oneshot::channel();
        writer.work(vec![Command::Grant(5, answer)]);
        answered.try_recv().unwrap().unwrap();
        assert!(writer.shared.read().entries.contains_key("/k"));
    }

    fn grant(writer: &mut Writer) -> Result<LeaseId, StoreError> {
        let (answer, mut answered) = oneshot::channel();
        writer.work(vec![Command::Grant(5, answer)]);
        answered.try_recv().unwrap()
    }

    /// After the disk failed the file is gone, and then another one lies in its place, as new as can be: nothing is
    /// acknowledged into either, and no file is made. When the one that was written is back, it goes on in that.
    #[test]
    fn what_is_acknowledged_goes_into_no_other_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut writer = failed_writer(folder.path(), false);
        let path = folder.path().join("store.redb");
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let error = grant(&mut writer).unwrap_err();
        assert_eq!(
            (error.kind(), error.happened()),
            (ErrorKind::Disk, Happened::No),
            "{error}"
        );
        assert!(!path.exists());

        drop(Disk::open(&path).unwrap());
        let error = grant(&mut writer).unwrap_err();
        assert_eq!(
            (error.kind(), error.happened()),
            (ErrorKind::Damaged, Happened::No),
            "{error}"
        );
        assert!(writer.shared.read().trouble.is_some());

        std::fs::rename(&aside, &path).unwrap();
        grant(&mut writer).unwrap();
        assert!(writer.shared.read().entries.contains_key("/old"));
    }

    /// A lease has ended, and the disk is full, so that its end cannot be written: it is tried again a second later,
    /// and not at once and over and over.
    #[test]
    fn an_end_that_cannot_be_written_is_tried_again_after_a_while() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut writer = failed_writer(folder.path(), false);
        let lease = grant(&mut writer).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let mut staged = Staged::new(&writer.shared.read(), writer.numbers);
        staged.leases.insert(lease, Some(5));
        writer.shared.write().publish(staged, long_ago);
        assert_eq!(writer.patience(), Duration::ZERO);

        writer.trouble(&StoreError::not_done(ErrorKind::Full, "no space"));
        assert!(writer.disk.is_some());
        assert_eq!(writer.patience(), TRY_AGAIN);
        // With room, its end is written with the next group, and nothing is behind.
        grant(&mut writer).unwrap();
        assert!(writer.patience() > TRY_AGAIN);
    }
}
