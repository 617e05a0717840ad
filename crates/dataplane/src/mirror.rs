//! Copies of requests for another pool, whose answers are thrown away.
//!
//! A copy is a task of its own with bytes of its own: what becomes of it, its request never learns. Copies are
//! bounded in number, size and time; what is not copied is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::message::Method;
use http::{Framing, Parsed, ResponseHead};

use crate::actions;
use crate::buffers::BUFFER_BYTES;
use crate::serving::{BackendCell, LbCell, PoolServing};
use crate::shard::Shard;
use crate::slot::InFlight;
use crate::timers::Timer;
use crate::upstream::{self, Upstream};

/// Most of an answer that is read so that its connection can serve again.
const MAX_ANSWER: u64 = 1024 * 1024;

/// What became of a request that was to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The copy was answered.
    Answered,
    /// It was not: no backend, no connection, no answer in time.
    Failed,
    /// There were too many copies, or every backend was full.
    Busy,
    /// Its body was too large to copy.
    TooLarge,
}

/// [`Outcome`]s as metrics name them, in their order.
pub(crate) const OUTCOMES: [&str; 4] = ["answered", "failed", "busy", "too_large"];

/// Counts what became of a copy.
pub(crate) fn count(shard: &Shard, lb: &LbCell, outcome: Outcome) {
    let counters = lb.counters.of(shard.index);
    if let Some(counter) = counters.mirrored.get(outcome as usize) {
        counter.add(1);
    }
}

/// A place among the copies on their way.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicU32>);

impl Place {
    /// A place, unless `most` are taken.
    pub(crate) fn take(in_flight: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        if in_flight.fetch_add(1, Relaxed) >= most {
            in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(in_flight.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A copy ready to be sent.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) pool: Arc<PoolServing>,
    /// The member of the pool that gets it.
    pub(crate) backend: Arc<BackendCell>,
    pub(crate) lb: Arc<LbCell>,
    pub(crate) method: Method,
    /// Head and body as they go over the wire.
    pub(crate) message: Vec<u8>,
    pub(crate) timeout: Duration,
    pub(crate) place: Place,
    /// Its slot at the backend: caps hold for copies too.
    pub(crate) in_flight: InFlight,
}

/// Sends a copy on its way.
pub(crate) fn send(shard: &Rc<Shard>, copy: Copy) {
    let shard = shard.clone();
    tokio::task::spawn_local(async move {
        let timer = shard.timers.timer().await;
        timer.limit(copy.timeout);
        // In force at once: a connection that was kept is written to without another deadline.
        timer.disarm();
        let outcome = match exchange(&shard, &copy, &timer).await {
            Some(()) => Outcome::Answered,
            None => Outcome::Failed,
        };
        count(&shard, &copy.lb, outcome);
        drop((copy.in_flight, copy.place));
    });
}

async fn exchange(shard: &Shard, copy: &Copy, timer: &Timer) -> Option<()> {
    let kept = upstream::acquire(shard, &copy.backend, &copy.pool, timer, false).await;
    let Upstream { stream, .. } = kept.ok()?;
    timer.bound(stream.write_all(&copy.message)).await.ok()?.ok()?;
    timer.bound(stream.flush()).await.ok()?.ok()?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut head = ResponseHead::new();
    loop {
        if buffer.len() == buffer.capacity() {
            // Bounded by the parser, which refuses a head over its limit.
            buffer.reserve(BUFFER_BYTES);
        }
        if timer.bound(stream.read_buf(&mut buffer)).await.ok()?.ok()? == 0 {
            return None;
        }
        while let Parsed::Complete = head.parse(&buffer, copy.method).ok()? {
            if head.status >= 200 {
                break;
            }
            buffer.drain(..head.head_len);
            head.reset();
        }
        if head.head_len > 0 && head.status >= 200 {
            break;
        }
    }
    let mut behind = buffer.len().saturating_sub(head.head_len) as u64;
    if let Framing::Length(length) = head.framing {
        while behind < length.min(MAX_ANSWER) {
            buffer.clear();
            let read = timer.bound(stream.read_buf(&mut buffer)).await.ok()?.ok()?;
            if read == 0 {
                return None;
            }
            behind += read as u64;
        }
    }
    let whole = actions::is_whole(&head, behind);
    if whole && head.keep_alive {
        let limits = &copy.pool.config.connections;
        let learned = (head.keep_alive_timeout, head.framing == Framing::None);
        shard
            .upstreams
            .keep(shard, &copy.backend, stream, limits, learned);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies that wait for a slow pool must not pile up: a place is free again only when its copy is gone, and who
    /// got none has taken none.
    #[test]
    fn places_are_bounded_and_come_back() {
        let in_flight = Arc::new(AtomicU32::new(0));
        let first = Place::take(&in_flight, 2);
        let second = Place::take(&in_flight, 2);
        assert!(first.is_some() && second.is_some());
        for _ in 0..5 {
            assert!(Place::take(&in_flight, 2).is_none());
        }
        assert_eq!(in_flight.load(Relaxed), 2);
        drop(first);
        assert!(
            Place::take(&in_flight, 2).is_some(),
            "and it is gone again at once"
        );
        assert_eq!(in_flight.load(Relaxed), 1);
        drop(second);
        assert!(Place::take(&in_flight, 0).is_none());
        assert_eq!(in_flight.load(Relaxed), 0);
    }

    /// The metric's label of an outcome is found by its place.
    #[test]
    fn outcomes_have_their_names() {
        let named = |outcome: Outcome| OUTCOMES.get(outcome as usize).copied();
        assert_eq!(named(Outcome::Answered), Some("answered"));
        assert_eq!(named(Outcome::Failed), Some("failed"));
        assert_eq!(named(Outcome::Busy), Some("busy"));
        assert_eq!(named(Outcome::TooLarge), Some("too_large"));
    }
}
