//! The file: three tables of redb, changed by one transaction of its own at a time.
//!
//! An entry is stored under its key as created, changed and lease, eight bytes each (little-endian), then the
//! value. Each group of writes has a serial number, by which a file that failed while it was written tells whether
//! it holds the group.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bytes::Bytes;
use redb::{Builder, Database, DatabaseError, Error, ReadableDatabase, ReadableTable, TableDefinition};

use super::memory::Staged;
use crate::error::{ErrorKind, StoreError};
use crate::types::{Entry, LeaseId, Revision};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, i64, u32> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The form of what is stored. Another number is another program's file.
const FORMAT: u64 = 1;
/// Bytes before the value.
const HEAD: usize = 24;
/// What the database may keep of the file in memory, in bytes: everything is in memory anyway.
const CACHE: usize = 4 * 1024 * 1024;

/// The open file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

/// What the file held.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) numbers: Numbers,
    pub(super) entries: Vec<Entry>,
    pub(super) leases: Vec<(LeaseId, u32)>,
}

/// How far the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) revision: Revision,
    /// Grows with each group of writes.
    pub(super) serial: u64,
    pub(super) last_lease: i64,
}

/// Makes the folder, for its owner alone, and makes sure that it is on disk.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(&Error::Io(error), folder))
}

impl Disk {
    /// Opens the file, or makes it, and reads all of it.
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        // Checked: a file that was damaged is refused in place of being trusted.
        let opened = builder(true).create(path);
        let database = opened.map_err(|error| not_opened(error, path))?;
        let disk = Self { database };
        disk.begin(path).map_err(|error| failed(&error, path))?;
        let loaded = disk.load().map_err(|error| failed(&error, path))?;
        Ok((disk, loaded.map_err(|what| damaged(path, what))?))
    }

    /// Opens the file after it failed. Makes none: where it is gone, so is what was acknowledged.
    pub(super) fn reopen(path: &Path) -> Result<Self, StoreError> {
        // Not checked: that writes to it, for which there may be no room while a disk fails.
        let opened = builder(false).open(path);
        let database = opened.map_err(|error| not_opened(error, path))?;
        Ok(Self { database })
    }

    /// Makes the tables where they are missing.
    fn begin(&self, path: &Path) -> Result<(), Error> {
        let reading = self.database.begin_read()?;
        if reading.list_tables()?.next().is_some() {
            return Ok(());
        }
        let writing = self.database.begin_write()?;
        {
            writing.open_table(ENTRIES)?;
            writing.open_table(LEASES)?;
            let mut numbers = writing.open_table(NUMBERS)?;
            for (name, number) in [
                ("format", FORMAT),
                ("revision", 1),
                ("serial", 0),
                ("last_lease", 0),
            ] {
                numbers.insert(name, number)?;
            }
        }
        writing.commit()?;
        // The file's name must be on disk too.
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// How far the file is.
    pub(super) fn numbers(&self, path: &Path) -> Result<Numbers, StoreError> {
        let read = self.read_numbers().map_err(|error| failed(&error, path))?;
        read.map_err(|what| damaged(path, what))
    }

    fn read_numbers(&self) -> Result<Result<Numbers, &'static str>, Error> {
        let reading = self.database.begin_read()?;
        let table = reading.open_table(NUMBERS)?;
        let number = |name: &str| -> Result<Option<u64>, Error> { Ok(table.get(name)?.map(|n| n.value())) };
        if number("format")? != Some(FORMAT) {
            return Ok(Err("it is of a form that this program does not know"));
        }
        let all = (number("revision")?, number("serial")?, number("last_lease")?);
        let (Some(revision), Some(serial), Some(last_lease)) = all else {
            return Ok(Err("a number is missing"));
        };
        Ok(Ok(Numbers {
            revision: Revision(revision),
            serial,
            last_lease: last_lease.cast_signed(),
        }))
    }

    fn load(&self) -> Result<Result<Loaded, &'static str>, Error> {
        let numbers = match self.read_numbers()? {
            Ok(numbers) => numbers,
            Err(what) => return Ok(Err(what)),
        };
        let reading = self.database.begin_read()?;
        let mut entries = Vec::new();
        for row in reading.open_table(ENTRIES)?.iter()? {
            let (key, row) = row?;
            let Some(entry) = decode(key.value(), row.value()) else {
                return Ok(Err("an entry is too short"));
            };
            entries.push(entry);
        }
        let mut leases = Vec::new();
        for row in reading.open_table(LEASES)?.iter()? {
            let (id, seconds) = row?;
            leases.push((LeaseId(id.value()), seconds.value()));
        }
        Ok(Ok(Loaded {
            numbers,
            entries,
            leases,
        }))
    }

    /// Writes a group, all or none. When it returns, the group survives a crash. After an error nothing is known,
    /// and the file must be opened anew.
    pub(super) fn write(&self, staged: &Staged, path: &Path) -> Result<(), StoreError> {
        self.try_write(staged).map_err(|error| failed(&error, path))
    }

    fn try_write(&self, staged: &Staged) -> Result<(), Error> {
        let writing = self.database.begin_write()?;
        {
            let mut entries = writing.open_table(ENTRIES)?;
            for (key, state) in &staged.entries {
                match state {
                    Some(entry) => drop(entries.insert(key.as_str(), encode(entry).as_slice())?),
                    None => drop(entries.remove(key.as_str())?),
                }
            }
            let mut leases = writing.open_table(LEASES)?;
            for (id, state) in &staged.leases {
                match state {
                    Some(seconds) => drop(leases.insert(id.0, seconds)?),
                    None => drop(leases.remove(id.0)?),
                }
            }
            let mut numbers = writing.open_table(NUMBERS)?;
            numbers.insert("revision", staged.numbers.revision.0)?;
            numbers.insert("serial", staged.numbers.serial)?;
            numbers.insert("last_lease", staged.numbers.last_lease.cast_unsigned())?;
        }
        writing.commit()?;
        Ok(())
    }
}

fn builder(check: bool) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(check);
    builder
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEAD + entry.value.len());
    row.extend_from_slice(&entry.created.0.to_le_bytes());
    row.extend_from_slice(&entry.changed.0.to_le_bytes());
    row.extend_from_slice(&entry.lease.map_or(0, |lease| lease.0).to_le_bytes());
    row.extend_from_slice(&entry.value);
    row
}

fn decode(key: &str, row: &[u8]) -> Option<Entry> {
    let (created, rest) = row.split_first_chunk()?;
    let (changed, rest) = rest.split_first_chunk()?;
    let (lease, value) = rest.split_first_chunk()?;
    let lease = i64::from_le_bytes(*lease);
    Some(Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        created: Revision(u64::from_le_bytes(*created)),
        changed: Revision(u64::from_le_bytes(*changed)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

fn not_opened(error: DatabaseError, path: &Path) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::not_done(ErrorKind::InUse, path.display().to_string())
        }
        other => failed(&other.into(), path),
    }
}

/// What is there is not what was written.
pub(super) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::not_done(ErrorKind::Damaged, format!("{}: {what}", path.display()))
}

fn failed(error: &Error, path: &Path) -> StoreError {
    let kind = match error {
        Error::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ErrorKind::Full
            }
            // What the database says of a file that is none.
            io::ErrorKind::InvalidData => ErrorKind::Damaged,
            _ => ErrorKind::Disk,
        },
        Error::PreviousIo => ErrorKind::Disk,
        _ => ErrorKind::Damaged,
    };
    let help = match kind {
        ErrorKind::Full => "; what it has stays in force: free space on this disk, then do it again",
        _ => "",
    };
    StoreError::not_done(kind, format!("{}: {error}{help}", path.display()))
}
