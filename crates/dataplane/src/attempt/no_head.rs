//! An attempt without a response: why, and whether the request may be sent again.

use model::reason::Reason;

use super::{Failure, Retry};
use crate::departure::Gone;

/// Why no final head arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoHead {
    pub(super) reason: Reason,
    /// The backend or the client saw bytes of a response: no retry.
    pub(super) begun: bool,
    /// The backend has said that it did not look at the request.
    pub(super) refused: bool,
}

impl From<Gone> for NoHead {
    fn from(Gone: Gone) -> Self {
        Self {
            reason: Reason::ClientGone,
            begun: true,
            refused: false,
        }
    }
}

impl NoHead {
    pub(super) fn failure(self, stale: bool) -> Failure {
        let lost = self.reason == Reason::BackendReset && !self.begun;
        let late = matches!(self.reason, Reason::FirstByteTimeout | Reason::TryTimeout) && !self.begun;
        let retry = match lost || late {
            _ if self.refused => Retry::Always,
            true => Retry::IfIdempotent,
            false => Retry::Never,
        };
        Failure {
            reason: self.reason,
            retry,
            stale: stale && lost,
        }
    }
}
