//! How long a backend may take for what comes next, while its request may still be on its way.
//!
//! As long as it is sent the request, a backend owes nothing. Once it has all of it a limit begins, also for a wait that
//! is under way. The timer of an exchange bounds what is written to the client, too: what runs then is the client's time,
//! and the backend's limit does not take its place.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use super::{Expired, Timer};

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

    /// Does what takes the client's time, in the midst of a wait; the limit begins anew behind it. Where it fails
    /// nothing is waited for any more.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn aside<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.awaited.set(false);
        let done = work.await?;
        self.await_anew();
        Ok(done)
    }

    fn await_anew(&self) {
        self.timer.arm(self.limit.get());
        self.awaited.set(true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::timers::Timers;
    use std::future::pending;
    use std::rc::Rc;
    use std::time::Instant;

    const CLIENT: Duration = Duration::from_secs(1);
    const BACKEND: Duration = Duration::from_secs(10);

    fn with_timer(test: impl AsyncFn(Rc<Timers>, Timer)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let timers = Timers::new(Instant::now());
            let timer = timers.timer().await;
            test(timers, timer).await;
        });
    }

    #[test]
    fn a_head_has_no_limit_before_it_is_owed_and_one_from_then_on() {
        with_timer(async |timers, timer| {
            let patience = Patience::for_head(&timer);
            timers.now_ms.set(1_000_000);
            assert!(!timer.expired());
            patience.begin(BACKEND);
            timers.now_ms.set(1_010_049);
            assert!(!timer.expired());
            timers.now_ms.set(1_010_050);
            assert!(timer.expired());
        });
    }

    #[test]
    fn a_limit_that_begins_while_the_client_is_written_to_leaves_the_clients_time() {
        with_timer(async |timers, timer| {
            let patience = Patience::for_body(&timer, Duration::ZERO);
            timer.arm(CLIENT);
            patience.begin(BACKEND);
            timers.now_ms.set(1050);
            assert!(timer.expired(), "the client's");
            assert!(!is_over(&patience, &timers, 11_099));
            assert!(!is_over(&patience, &timers, 21_148), "each has its own");
            assert!(is_over(&patience, &timers, 31_198));
        });
    }

    #[test]
    fn behind_what_was_written_aside_the_limit_begins_anew_unless_that_failed() {
        with_timer(async |timers, timer| {
            let patience = Patience::for_head(&timer);
            patience.begin(BACKEND);
            let written = patience.aside(async {
                timer.arm(CLIENT);
                timers.now_ms.set(5000);
                Ok::<(), ()>(())
            });
            written.await.unwrap();
            timers.now_ms.set(15_049);
            assert!(!timer.expired());
            timers.now_ms.set(15_050);
            assert!(timer.expired());
            let failed = patience.aside(async { Err::<(), ()>(()) }).await;
            assert!(failed.is_err() && timer.expired());
        });
    }

    /// Whether a wait that goes on until then was too long.
    fn is_over(patience: &Patience<'_>, timers: &Timers, now_ms: u64) -> bool {
        let wait = patience.bound(async {
            timers.now_ms.set(now_ms);
            pending::<()>().await;
        });
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(wait).poll(&mut cx).is_ready()
    }
}
