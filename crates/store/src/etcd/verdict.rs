//! What a failure means: whose fault it is, whether the call may have happened, and what to do next.
//!
//! etcd tells the same things by codes of gRPC and by words; the words are from `rpctypes/error.go`. Whatever is
//! not surely known to come before the proposal may have happened.

use std::fmt;

use super::grpc::Failure;
use crate::error::{ErrorKind, StoreError};

/// What to do about a failure.
#[derive(Debug)]
pub(super) enum Next {
    /// Tell the caller.
    Tell(StoreError),
    /// The token has lapsed: fetch another, and ask again.
    Renew(StoreError),
    /// This member is of no use now: try the next one.
    Move(StoreError),
}

/// Judges a failure.
pub(super) fn judge(failure: &Failure) -> Next {
    let words = failure.to_string();
    let no = |kind| StoreError::not_done(kind, words.clone());
    let perhaps = |kind| StoreError::unknown(kind, words.clone());
    match failure {
        Failure::Broken { sent: false, .. } => Next::Move(no(ErrorKind::Unreachable)),
        Failure::Broken { sent: true, .. } => Next::Move(perhaps(ErrorKind::Lost)),
        Failure::Malformed(_) => Next::Tell(perhaps(ErrorKind::Protocol)),
        Failure::Status { code, message } => {
            let says = |part: &str| message.contains(part);
            match code {
                16 => Next::Renew(no(ErrorKind::Credentials)),
                // The last is told to who has no token, once users are switched on.
                3 if says("revision in header is old") || says("user name is empty") => {
                    Next::Renew(no(ErrorKind::Credentials))
                }
                3 if says("authentication failed") => Next::Tell(no(ErrorKind::Credentials)),
                3 | 9 => Next::Tell(no(ErrorKind::Invalid)),
                7 => Next::Tell(no(ErrorKind::Credentials)),
                5 if says("lease") => Next::Tell(no(ErrorKind::LeaseGone)),
                8 if says("space exceeded") => Next::Tell(no(ErrorKind::Full)),
                8 if says("too many requests") => Next::Tell(no(ErrorKind::Busy)),
                8 => Next::Tell(perhaps(ErrorKind::TooMuch)),
                11 if says("compacted") => Next::Tell(no(ErrorKind::Compacted)),
                11 => Next::Tell(no(ErrorKind::Invalid)),
                12 => Next::Tell(no(ErrorKind::Protocol)),
                14 if says("no leader") => Next::Move(no(ErrorKind::Unreachable)),
                14 => Next::Move(perhaps(ErrorKind::Lost)),
                1 | 4 => Next::Tell(perhaps(ErrorKind::TimedOut)),
                _ => Next::Tell(perhaps(ErrorKind::Protocol)),
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, message } => write!(f, "{message} (gRPC status {code})"),
            Self::Broken { detail, .. } => f.write_str(detail),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}
