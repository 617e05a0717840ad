//! What went wrong: whose fault it is, whether it happened all the same, and whether trying again helps.

use std::fmt;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}{}", match happened { Happened::No => "", Happened::Unknown => " (it may have been done all the same)" })]
pub struct StoreError {
    kind: ErrorKind,
    happened: Happened,
    detail: String,
}

/// Whether a call that failed had an effect. Calls that only read never have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It surely did not happen.
    No,
    /// The answer was lost: it may have happened, or may yet.
    Unknown,
}

/// Whose it is to put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller's: the same call fails again.
    Caller,
    /// The operator's: settings, credentials, room on a disk.
    Operator,
    /// The store's, or that of the way there: it may pass.
    Store,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call or the settings make no sense.
    Invalid,
    /// Beyond a bound of [`crate::bounds`].
    TooMuch,
    /// The lease has ended.
    LeaseGone,
    /// The changes asked for are no longer kept.
    Compacted,
    /// Name, password or token are wrong, or may not do this.
    Credentials,
    /// A certificate, ours or the other side's, is missing or not trusted.
    Tls,
    /// Another process has the file.
    InUse,
    /// There is no room: the disk, or etcd's quota.
    Full,
    /// The disk fails.
    Disk,
    /// What is stored cannot be read.
    Damaged,
    /// The server is none that we know, or answers what it must not.
    Protocol,
    /// There is more to do than can be done.
    Busy,
    /// No endpoint can be reached, or none of them has a leader.
    Unreachable,
    /// The connection was lost on the way.
    Lost,
    /// The time for the call is over.
    TimedOut,
    /// The store was closed.
    Closed,
}

impl StoreError {
    /// A failure that surely left everything as it was.
    pub(crate) fn not_done(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            happened: Happened::No,
            detail: detail.into(),
        }
    }

    /// A failure whose effect is not known.
    pub(crate) fn unknown(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            happened: Happened::Unknown,
            detail: detail.into(),
        }
    }

    /// What failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it may have happened all the same.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.happened
    }

    /// The details, for people; never a password.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self.kind {
            ErrorKind::Invalid | ErrorKind::TooMuch | ErrorKind::LeaseGone | ErrorKind::Compacted => {
                Fault::Caller
            }
            ErrorKind::Credentials
            | ErrorKind::Tls
            | ErrorKind::InUse
            | ErrorKind::Full
            | ErrorKind::Disk
            | ErrorKind::Damaged
            | ErrorKind::Protocol => Fault::Operator,
            ErrorKind::Busy
            | ErrorKind::Unreachable
            | ErrorKind::Lost
            | ErrorKind::TimedOut
            | ErrorKind::Closed => Fault::Store,
        }
    }

    /// Whether the same call may work later without anybody's help. After [`Happened::Unknown`] look first, or
    /// guard the call by a comparison.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        self.fault() == Fault::Store && self.kind != ErrorKind::Closed
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the store was asked for something that makes no sense",
            Self::TooMuch => "beyond what the store takes",
            Self::LeaseGone => "the lease has ended",
            Self::Compacted => "these changes are no longer kept",
            Self::Credentials => "the store refuses us",
            Self::Tls => "the certificates for the store do not do",
            Self::InUse => "another process has the store",
            Self::Full => "the store has no room left",
            Self::Disk => "the disk of the store fails",
            Self::Damaged => "the store holds what cannot be read",
            Self::Protocol => "the store does not speak as it should",
            Self::Busy => "the store has too much to do",
            Self::Unreachable => "the store cannot be reached",
            Self::Lost => "the connection to the store was lost",
            Self::TimedOut => "the store did not answer in time",
            Self::Closed => "the store was closed",
        })
    }
}
