//! What is counted about handshakes, on either side.

use tls::FailureKind;

use crate::counters::{Counter, Histogram, fold};

/// Versions as labels, in the order of [`TlsCounters::completed`].
pub(crate) const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// What one shard counts about the handshakes of one listener or backend.
#[derive(Debug, Default)]
pub(crate) struct TlsCounters {
    /// By version, and whether a session was resumed.
    pub(crate) completed: [[Counter; 2]; VERSIONS.len()],
    /// By [`FailureKind::ALL`].
    pub(crate) failures: [Counter; FailureKind::ALL.len()],
    pub(crate) duration: Histogram,
}

impl TlsCounters {
    pub(crate) fn complete(&self, is_1_3: bool, resumed: bool, time_us: u64) {
        let by_version = self.completed.get(usize::from(is_1_3));
        if let Some(counter) = by_version.and_then(|c| c.get(usize::from(resumed))) {
            counter.add(1);
        }
        self.duration.record(time_us);
    }

    pub(crate) fn fail(&self, kind: FailureKind) {
        if let Some(counter) = self.failures.get(kind as usize) {
            counter.add(1);
        }
    }

    /// Adds what another block counted.
    pub(crate) fn fold(&self, other: &Self) {
        let Self {
            completed,
            failures,
            duration,
        } = other;
        fold(self.completed.as_flattened(), completed.as_flattened());
        fold(&self.failures, failures);
        self.duration.fold(duration);
    }
}
