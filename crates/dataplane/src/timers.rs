//! Coarse deadlines: one table a shard, scanned by its ticker, instead of a timer entry for each wait.
//!
//! A request passes through half a dozen waits and almost none of them expires. Arming one is therefore a store
//! into a dense table; the ticker walks the table (8 bytes a connection) and wakes what is overdue. The price
//! is accuracy: the time is read once a tick, so a deadline fires up to two [`TICK`]s late, never early.

mod patience;

pub(crate) use patience::Patience;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);

const NEVER: u64 = u64::MAX;

/// The table of a shard.
#[derive(Debug)]
pub(crate) struct Timers {
    epoch: Instant,
    /// Milliseconds since `epoch`, as of the last tick or [`Timers::now_us`].
    now_ms: Cell<u64>,
    /// The last reading of the clock.
    recent_us: Cell<u64>,
    deadlines: RefCell<Vec<u64>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Timers {
    pub(crate) fn new(epoch: Instant) -> Rc<Self> {
        Rc::new(Self {
            epoch,
            now_ms: Cell::new(0),
            recent_us: Cell::new(0),
            deadlines: RefCell::default(),
            wakers: RefCell::default(),
            free: RefCell::default(),
        })
    }

    /// Reads the clock: microseconds since the epoch that all shards share.
    pub(crate) fn now_us(&self) -> u64 {
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.now_ms.set(now / 1000);
        self.recent_us.set(now);
        now
    }

    /// The last reading of [`Timers::now_us`]: for steps that follow one another without a wait, where reading
    /// the clock again would cost more than it tells.
    pub(crate) fn recent_us(&self) -> u64 {
        self.recent_us.get()
    }

    /// Milliseconds since the epoch, at most a tick old.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// When `after` from now is surely over; zero is never. The time known may be a tick old.
    fn deadline(&self, after: Duration) -> u64 {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        let tick_ms = u64::try_from(TICK.as_millis()).unwrap_or(NEVER);
        if after_ms == 0 {
            NEVER
        } else {
            self.now_ms().saturating_add(after_ms).saturating_add(tick_ms)
        }
    }

    /// Wakes every task with an overdue deadline.
    pub(crate) fn tick(&self) {
        self.now_us();
        let now = self.now_ms();
        let wakers = self.wakers.borrow();
        for (deadline, waker) in self.deadlines.borrow().iter().zip(wakers.iter()) {
            if *deadline <= now
                && let Some(waker) = waker
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes every task that waits here, so that it looks around.
    pub(crate) fn wake_all(&self) {
        self.wakers.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// A timer of the calling task. It must only be awaited from that task.
    pub(crate) async fn timer(self: &Rc<Self>) -> Timer {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let mut deadlines = self.deadlines.borrow_mut();
        let mut wakers = self.wakers.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            deadlines.push(NEVER);
            wakers.push(None);
            deadlines.len() - 1
        });
        if let (Some(deadline), Some(slot)) = (deadlines.get_mut(index), wakers.get_mut(index)) {
            *deadline = NEVER;
            *slot = Some(waker);
        }
        Timer {
            timers: self.clone(),
            index,
            limit_ms: Cell::new(NEVER),
        }
    }
}

/// One deadline of one task.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    index: usize,
    /// A deadline that no later `arm` may pass: the request's total time.
    limit_ms: Cell<u64>,
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired;

impl Timer {
    /// Another timer of the calling task, which bounds something beside what this one does.
    pub(crate) async fn another(&self) -> Self {
        self.timers.timer().await
    }

    /// Sets the deadline `after` from now; zero disarms.
    pub(crate) fn arm(&self, after: Duration) {
        self.set(self.timers.deadline(after).min(self.limit_ms.get()));
    }

    /// No deadline but the limit.
    pub(crate) fn disarm(&self) {
        self.set(self.limit_ms.get());
    }

    /// Sets the deadline that no phase may pass; zero removes it.
    pub(crate) fn limit(&self, after: Duration) {
        self.limit_ms.set(self.timers.deadline(after));
    }

    /// The deadline that no phase may pass, in microseconds.
    pub(crate) fn limit_us(&self) -> Option<u64> {
        let limit_ms = self.limit_ms.get();
        (limit_ms < NEVER).then(|| limit_ms.saturating_mul(1000))
    }

    /// Whether what expired is the limit rather than the phase.
    pub(crate) fn limit_passed(&self) -> bool {
        self.timers.now_ms() >= self.limit_ms.get()
    }

    /// Whether the deadline has passed.
    pub(crate) fn expired(&self) -> bool {
        self.timers
            .deadlines
            .borrow()
            .get(self.index)
            .is_some_and(|d| *d <= self.timers.now_ms())
    }

    /// Waits for `work` until the deadline.
    pub(crate) async fn bound<F: Future>(&self, work: F) -> Result<F::Output, Expired> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.expired() => Poll::Ready(Err(Expired)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn set(&self, deadline: u64) {
        if let Some(slot) = self.timers.deadlines.borrow_mut().get_mut(self.index) {
            *slot = deadline;
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(NEVER);
        if let Some(slot) = self.timers.wakers.borrow_mut().get_mut(self.index) {
            *slot = None;
        }
        self.timers.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn on_runtime<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build_local(Default::default())
            .unwrap()
            .block_on(test)
    }

    /// A table whose clock stands at `now_ms`.
    fn at(now_ms: u64) -> Rc<Timers> {
        let timers = Timers::new(Instant::now());
        timers.now_ms.set(now_ms);
        timers
    }

    #[test]
    fn a_deadline_passes_after_its_time_and_one_tick_and_not_before() {
        on_runtime(async {
            let timers = at(1000);
            let timer = timers.timer().await;
            timer.arm(Duration::from_millis(200));
            timers.now_ms.set(1249);
            assert!(!timer.expired());
            timers.now_ms.set(1250);
            assert!(timer.expired());
            timer.disarm();
            assert!(!timer.expired());
        });
    }

    #[test]
    fn no_phase_passes_the_limit_and_the_limit_is_told_apart() {
        on_runtime(async {
            let timers = at(0);
            let timer = timers.timer().await;
            timer.limit(Duration::from_millis(100));
            timer.arm(Duration::from_secs(60));
            timers.now_ms.set(150);
            assert!(timer.expired() && timer.limit_passed());
            timer.limit(Duration::ZERO);
            timer.arm(Duration::from_millis(10));
            timers.now_ms.set(1000);
            assert!(timer.expired() && !timer.limit_passed());
        });
    }

    #[test]
    fn a_dropped_timer_gives_its_place_to_the_next() {
        on_runtime(async {
            let timers = at(0);
            for _ in 0..10 {
                let timer = timers.timer().await;
                timer.arm(Duration::from_millis(1));
            }
            assert_eq!(timers.deadlines.borrow().len(), 1);
            assert_eq!(timers.deadlines.borrow()[0], NEVER);
        });
    }

    #[test]
    fn work_that_is_ready_wins_over_an_expired_deadline() {
        on_runtime(async {
            let timers = at(0);
            let timer = timers.timer().await;
            timer.arm(Duration::from_millis(1));
            timers.now_ms.set(1000);
            assert_eq!(timer.bound(std::future::ready(7)).await, Ok(7));
            assert_eq!(timer.bound(std::future::pending::<()>()).await, Err(Expired));
        });
    }
}
