//! A config file that was refused for what the store had, tried again when the store has something else.
//!
//! The file did not change, so nobody would read it again; and what stood in its way may be gone. The ports that a load
//! balancer of the store had are free a moment after it is gone, so it is tried more than once.

use std::sync::Arc;
use std::time::Duration;

use cluster::Desired;
use model::config::Config;
use model::merge::merge;
use tokio::time::Instant;

use super::core::Input;
use super::{Hub, warn_of};

/// Times that it is tried after a change of the store with which it goes together, and the pause between two.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// A file that was refused for what the store had.
pub(crate) struct Refused {
    file: Arc<Config>,
    /// Times that it is still tried, and when next; none: not before the store has something else.
    attempts: u32,
    at: Option<Instant>,
}

/// Waits until the file is to be tried again; for ever, where there is none.
pub(super) async fn due(refused: Option<&Refused>) {
    match refused.and_then(|refused| refused.at) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Hub {
    /// Remembers a file that was refused, if it was for what the store has; of a newer one the older is forgotten.
    pub(super) fn keep_refused(&mut self, file: Option<Arc<Config>>) {
        let stored = self.core.stored();
        let file = file.filter(|file| merge(file, &stored.load_balancers).is_err());
        self.refused = file.map(|file| Refused {
            file,
            attempts: 0,
            at: None,
        });
    }

    /// The store has something else: tries the file that was refused.
    pub(super) async fn try_anew(&mut self) {
        if let Some(refused) = &mut self.refused {
            refused.attempts = ATTEMPTS;
            self.try_again().await;
        }
    }

    /// Tries the file that was refused with what the store has now. Refused once more, nothing is said of it again.
    pub(super) async fn try_again(&mut self) {
        let stored: Arc<Desired> = self.core.stored();
        let Some(file) = self.refused.as_ref().map(|refused| refused.file.clone()) else {
            return;
        };
        let goes_together = merge(&file, &stored.load_balancers).is_ok();
        let Ok(declared) = self.declared(file, stored) else {
            if let Some(refused) = &mut self.refused {
                refused.attempts = refused.attempts.saturating_sub(1);
                let more = goes_together && refused.attempts > 0;
                refused.at = more.then(|| Instant::now() + PAUSE);
            }
            return;
        };
        self.refused = None;
        warn_of(&declared.file, Some(&self.core.file()));
        self.handle(Input::Loaded(declared)).await;
    }
}
