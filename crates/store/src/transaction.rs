//! What is to be compared and written at once, and the bounds that it must keep.

use bytes::Bytes;

use crate::bounds::{
    MAX_KEY_BYTES, MAX_LEASE_SECONDS, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES,
};
use crate::error::{ErrorKind, StoreError};
use crate::types::{LeaseId, Revision};

/// Comparisons, then writes and deletions: all or none. Made empty, then filled by its methods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub(crate) compares: Vec<Compare>,
    pub(crate) writes: Vec<Write>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) key: String,
    pub(crate) with: With,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    Absent,
    Changed(Revision),
    Created(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put {
        key: String,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
}

impl Write {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl Transaction {
    /// One that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the key is not there.
    #[must_use]
    pub fn absent(self, key: impl Into<String>) -> Self {
        self.compare(key, With::Absent)
    }

    /// Only if the key was last changed by `revision`.
    #[must_use]
    pub fn unchanged(self, key: impl Into<String>, revision: Revision) -> Self {
        self.compare(key, With::Changed(revision))
    }

    /// Only if the key was made by `revision` and not deleted since, whatever was written to it.
    #[must_use]
    pub fn created(self, key: impl Into<String>, revision: Revision) -> Self {
        self.compare(key, With::Created(revision))
    }

    /// Writes a key. It is then tied to no lease.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.write(Write::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        })
    }

    /// Writes a key and ties it to a lease.
    #[must_use]
    pub fn put_leased(self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.write(Write::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        })
    }

    /// Deletes a key; that it is not there is no failure.
    #[must_use]
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.write(Write::Delete { key: key.into() })
    }

    fn compare(mut self, key: impl Into<String>, with: With) -> Self {
        self.compares.push(Compare {
            key: key.into(),
            with,
        });
        self
    }

    fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Holds it to its bounds.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.compares.len() > MAX_OPERATIONS || self.writes.len() > MAX_OPERATIONS {
            return Err(too_much(format!(
                "{} comparisons and {} writes in a transaction, {MAX_OPERATIONS} of each at most",
                self.compares.len(),
                self.writes.len()
            )));
        }
        let mut bytes = 0;
        for compare in &self.compares {
            check_key(&compare.key)?;
            bytes += compare.key.len();
        }
        for write in &self.writes {
            check_key(write.key())?;
            bytes += write.key().len();
            if let Write::Put { key, value, lease } = write {
                check_value(key, value, *lease)?;
                bytes += value.len();
            }
        }
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(too_much(format!(
                "{bytes} bytes in a transaction, {MAX_TRANSACTION_BYTES} at most"
            )));
        }
        let mut keys: Vec<&str> = self.writes.iter().map(Write::key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(invalid(format!(
                "{} is written twice in one transaction",
                pair[0]
            ))),
            None => Ok(()),
        }
    }
}

fn check_value(key: &str, value: &Bytes, lease: Option<LeaseId>) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES {
        let length = value.len();
        return Err(too_much(format!(
            "a value of {length} bytes for {key}, {MAX_VALUE_BYTES} at most"
        )));
    }
    match lease {
        Some(LeaseId(0)) => Err(invalid(format!("{key} is tied to lease 0, which is none"))),
        _ => Ok(()),
    }
}

/// Holds a key, or a prefix, to its form.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(invalid("an empty key".to_owned()));
    }
    if key.len() > MAX_KEY_BYTES {
        let length = key.len();
        return Err(too_much(format!(
            "a key of {length} bytes, {MAX_KEY_BYTES} at most"
        )));
    }
    match key.contains('\0') {
        true => Err(invalid(format!("a NUL in the key {key:?}"))),
        false => Ok(()),
    }
}

pub(crate) fn check_lease_seconds(seconds: u32) -> Result<(), StoreError> {
    match (1..=MAX_LEASE_SECONDS).contains(&seconds) {
        true => Ok(()),
        false => Err(invalid(format!(
            "a lease of {seconds} seconds; 1 to {MAX_LEASE_SECONDS} can be had"
        ))),
    }
}

fn invalid(detail: String) -> StoreError {
    StoreError::not_done(ErrorKind::Invalid, detail)
}

fn too_much(detail: String) -> StoreError {
    StoreError::not_done(ErrorKind::TooMuch, detail)
}
