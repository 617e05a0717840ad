//! How long a backend may take for what comes next, while its request may still be on its way.
//!
//! As long as it is sent the request, a backend owes nothing. Once it has all of it a limit begins, also for a wait that
//! is under way. The timer of an exchange bounds what is written to the client, too: what runs then is the client's time,
//! and the backend's limit does not take its place.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use crate::timers::{Expired, Timer};

/// What a backend is given; zero is no limit.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    timer: &'a Timer,
    limit: Cell<Duration>,
    /// It is the backend that is waited for, and not the client.
    awaited: Cell<bool>,
}

impl<'a> Patience<'a> {
    /// For a head, which is waited for from now on, without a limit.
    pub(crate) fn for_head(timer: &'a Timer) -> Self {
        Self {
            timer,
            limit: Cell::new(Duration::ZERO),
            awaited: Cell::new(true),
        }
    }

    /// For each part of a body.
    pub(crate) fn for_body(timer: &'a Timer, limit: Duration) -> Self {
        Self {
            timer,
            limit: Cell::new(limit),
            awaited: Cell::new(false),
        }
    }

    /// The limit from now on.
    pub(crate) fn begin(&self, limit: Duration) {
        self.limit.set(limit);
        if self.awaited.get() {
            self.timer.arm(limit);
        }
    }

    /// Waits for the next part within the limit.
    pub(crate) async fn bound<F: Future>(&self, next: F) -> Result<F::Output, Expired> {
        self.await_anew();
        let next = self.timer.bound(next).await;
        self.awaited.set(false);
        next
    }

    /// Does what takes the client's time, in the midst of a wait; the limit begins anew behind it.
    pub(crate) async fn aside<F: Future>(&self, work: F) -> F::Output {
        self.awaited.set(false);
        let done = work.await;
        self.await_anew();
        done
    }

    fn await_anew(&self) {
        self.timer.arm(self.limit.get());
        self.awaited.set(true);
    }
}
