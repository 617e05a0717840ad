//! The queue of a pool, shared by all threads.
//!
//! While every request finds a slot nobody touches the lock: a release looks at one word, which says that nobody
//! waits. Two words are written and then read crosswise: who enters says that it waits and then looks for free
//! slots, who releases frees its slot and then looks for those who wait. So one of the two sees the other, and
//! no slot stays free while somebody waits for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::line::{Entered, Line, Rules, Seat, Settled, Wish};
use crate::load::Load;
use crate::pool::PoolLoad;

/// Time between two looks at who has waited too long.
const SWEEP_US: u64 = 40_000;

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    line: Mutex<Line>,
    waiting: AtomicU32,
    /// Those whom any backend may serve.
    waiting_for_any: AtomicU32,
    swept_us: AtomicU64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            line: Mutex::new(Line::new()),
            waiting: AtomicU32::new(0),
            waiting_for_any: AtomicU32::new(0),
            swept_us: AtomicU64::new(0),
        }
    }
}

impl Queue {
    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Whether somebody waits whom any backend may serve: then whoever comes now comes behind.
    pub(crate) fn is_ahead(&self) -> bool {
        self.waiting_for_any.load(SeqCst) > 0
    }

    pub(crate) fn install(&self, seats: Vec<Seat>, rules: Rules, now_us: u64) {
        self.with(|line| line.install(seats, rules, now_us));
    }

    pub(crate) fn enter(&self, wish: Wish, now_us: u64) -> Entered {
        self.with(|line| {
            // Said before slots are looked at.
            self.waiting.fetch_add(1, SeqCst);
            fence(SeqCst);
            line.enter(wish, now_us)
        })
    }

    /// Frees a slot that was held for `held_us`, or hands it on.
    pub(crate) fn release(&self, load: &Arc<Load>, held_us: u64, now_us: u64) {
        if self.waiting.load(SeqCst) > 0 {
            return self.with(|line| line.release(load, held_us, now_us));
        }
        load.end();
        fence(SeqCst);
        // Somebody may have come in between.
        if self.waiting.load(SeqCst) > 0 {
            self.with(|line| line.sweep(now_us));
        }
    }

    /// Refuses who has waited too long. To be called now and then; costs nothing while nobody waits.
    pub(crate) fn sweep(&self, now_us: u64) {
        if self.waiting() == 0 {
            return;
        }
        let last = self.swept_us.load(Relaxed);
        let due = now_us.saturating_sub(last) >= SWEEP_US;
        // Of all threads that look, one does it.
        if due
            && self
                .swept_us
                .compare_exchange(last, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            self.with(|line| line.sweep(now_us));
        }
    }

    /// When to come again, in seconds.
    pub(crate) fn retry_after_s(&self) -> u32 {
        self.with(|line| line.retry_after_s())
    }

    /// Whether the newest are served first.
    pub(crate) fn overloaded(&self) -> bool {
        self.waiting() > 0 && self.with(|line| line.overloaded())
    }

    fn with<R>(&self, work: impl FnOnce(&mut Line) -> R) -> R {
        // A panic within leaves at worst a request that is told to choose again.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut line);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.waiting.store(count(line.waiting()), SeqCst);
        self.waiting_for_any.store(count(line.waiting_for_any()), SeqCst);
        let wakes = line.take_wakes();
        drop(line);
        wakes.into_iter().for_each(Waker::wake);
        result
    }
}

/// A place in the queue. Dropped, it is given up at once, with the slot that it may have been handed meanwhile.
#[derive(Debug)]
pub struct Place {
    pool: Arc<PoolLoad>,
    /// `None`: the wait has ended.
    number: Option<u64>,
    position: u32,
}

impl Place {
    pub(crate) fn new(pool: Arc<PoolLoad>, number: u64, position: u32) -> Self {
        Self {
            pool,
            number: Some(number),
            position,
        }
    }

    /// How many waited on arrival, this one among them.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// How the wait ended; if it has not, `waker` is woken when it does. A slot is the caller's from now on.
    pub fn poll(&mut self, waker: &Waker) -> Poll<Settled> {
        let Some(number) = self.number else {
            return Poll::Ready(Settled::Lost);
        };
        match self.pool.queue.with(|line| line.look(number, waker)) {
            Some(settled) => {
                self.number = None;
                Poll::Ready(settled)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.pool.queue.with(|line| line.leave(number));
        }
    }
}
