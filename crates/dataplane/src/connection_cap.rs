//! How many connections a backend has, exactly, over all shards, and the cap on them.
//!
//! Idle connections belong to shards. Where a shard may open none because others keep theirs idle, it says that it
//! wants one: whoever would keep one closes it instead, and every shard closes one that it has kept, at its next
//! tick. As a backend has no more requests than connections in flight, there is always one to be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use model::reason::Reason;
use tokio::sync::Notify;

use crate::serving::BackendCell;
use crate::timers::Timer;

/// The count of a backend.
#[derive(Debug)]
pub(crate) struct ConnectionCap {
    open: AtomicU32,
    /// The greatest number: any.
    most: AtomicU32,
    /// Requests that wait for one.
    wanted: AtomicU32,
    freed: Notify,
}

impl Default for ConnectionCap {
    fn default() -> Self {
        Self {
            open: AtomicU32::new(0),
            most: AtomicU32::new(u32::MAX),
            wanted: AtomicU32::new(0),
            freed: Notify::new(),
        }
    }
}

/// A connection in the count, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<BackendCell>);

/// A request that wants a connection.
struct Wanting<'a>(&'a ConnectionCap);

impl ConnectionCap {
    /// Puts a cap in force; `None`: any number.
    pub(crate) fn set(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// The cap in force.
    pub(crate) fn most(&self) -> Option<u32> {
        Some(self.most.load(Relaxed)).filter(|most| *most < u32::MAX)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Whether an idle connection should close.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst) > 0
    }

    fn try_open(&self) -> bool {
        let most = self.most.load(Relaxed);
        let more = |now: u32| (now < most).then(|| now.saturating_add(1));
        self.open.fetch_update(SeqCst, SeqCst, more).is_ok()
    }
}

/// Counts a connection about to be opened, once there is room for it. `timer` bounds the wait.
///
/// # Errors
/// [`Reason::ConnectTimeout`] when there was none in time.
pub(crate) async fn count(cell: &Arc<BackendCell>, timer: &Timer) -> Result<Counted, Reason> {
    let cap = &cell.connections;
    if !cap.try_open() {
        let _wanting = Wanting::begin(cap);
        let room = async {
            loop {
                // In line before looking: what is freed in between is not missed.
                let mut freed = std::pin::pin!(cap.freed.notified());
                freed.as_mut().enable();
                if cap.try_open() {
                    break;
                }
                freed.await;
            }
        };
        if timer.bound(Box::pin(room)).await.is_err() {
            let total = timer.limit_passed();
            return Err(if total {
                Reason::TotalTimeout
            } else {
                Reason::ConnectTimeout
            });
        }
    }
    Ok(Counted(cell.clone()))
}

impl<'a> Wanting<'a> {
    fn begin(cap: &'a ConnectionCap) -> Self {
        cap.wanted.fetch_add(1, SeqCst);
        Self(cap)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, SeqCst);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let cap = &self.0.connections;
        cap.open.fetch_sub(1, SeqCst);
        if cap.is_wanted() {
            cap.freed.notify_one();
        }
    }
}
