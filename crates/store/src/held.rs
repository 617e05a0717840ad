//! A lease that a task keeps alive for as long as it is held.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};

use crate::error::ErrorKind;
use crate::types::{Granted, LeaseId};
use crate::{Store, backoff};

/// It is kept alive this many times in its time.
const BEATS: u32 = 3;

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was last kept alive by a call that was sent then: for its seconds from that moment on it is sure to stand.
    Since(Instant),
    /// The store says that it has ended. Its keys are gone; a new one is needed.
    Gone,
}

/// A lease under care; see [`Store::hold`]. Dropped, it is kept no longer and ends by itself; to end it at once,
/// [`Store::revoke`] it.
#[derive(Debug)]
pub struct Held {
    lease: LeaseId,
    seconds: u32,
    standing: watch::Receiver<Standing>,
    task: AbortHandle,
}

impl Held {
    pub(crate) fn start(store: Store, granted: Granted) -> Self {
        let (tell, standing) = watch::channel(Standing::Since(granted.sent));
        Self {
            lease: granted.lease,
            seconds: granted.seconds,
            standing,
            task: tokio::spawn(keep(store, granted, tell)).abort_handle(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Its time in seconds.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    /// How it stands, and a notice of each change of that. A store that cannot be reached makes no change: the
    /// moment just stays behind.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(store: Store, granted: Granted, tell: watch::Sender<Standing>) {
    let beat = Duration::from_secs(granted.seconds.into()) / BEATS;
    let mut last = granted.sent;
    let mut failures: u32 = 0;
    loop {
        match failures {
            0 => sleep_until((last + beat).into()).await,
            _ => sleep(backoff::pause(failures).min(beat)).await,
        }
        match store.keep_alive(granted.lease).await {
            Ok(kept) => {
                failures = 0;
                last = kept.sent;
                tell.send_replace(Standing::Since(last));
            }
            Err(error) if error.kind() == ErrorKind::LeaseGone => {
                tell.send_replace(Standing::Gone);
                return;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::debug!(%error, lease = granted.lease.0, "a lease could not be kept alive");
            }
        }
    }
}
