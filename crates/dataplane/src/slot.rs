//! Slots: a request's place among those that its backend serves at once, and the wait for one.
//!
//! Where nothing is capped a slot is an entry in a count. With caps it is exact over all shards, and a request
//! that finds every backend full waits in the queue of its pool, holding no connection. Whoever leaves while it
//! waits is taken out at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use balance::{Load, Need, Place, PoolLoad, Settled, Shed, Take};
use model::reason::Reason;

use crate::counters::DEPARTED;
use crate::departure::{Gone, Unasked, unless_gone};
use crate::exchange::{Client, Request};
use crate::serving::PoolServing;
use crate::shard::Shard;
use crate::story::Queued;
use crate::timers::Expired;

/// Counts a request in flight for as long as its attempt, or the tunnel that it opened, lives.
#[derive(Debug)]
pub(crate) struct InFlight {
    load: Arc<Load>,
    /// In a pool with caps the slot goes to the next who waits.
    capped: Option<Capped>,
}

#[derive(Debug)]
struct Capped {
    pool: Arc<PoolLoad>,
    epoch: Instant,
    since_us: u64,
}

impl InFlight {
    /// Takes over the slot that the member at `index` of the pool counts already.
    pub(crate) fn hold(shard: &Shard, pool: &PoolServing, index: usize) -> Self {
        let balancer = &pool.balancer;
        let capped = balancer.is_capped().then(|| Capped {
            pool: balancer.pool().clone(),
            epoch: shard.shared.epoch,
            since_us: shard.timers.recent_us(),
        });
        Self {
            load: balancer.load(index).clone(),
            capped,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(capped) = &self.capped else {
            return self.load.end();
        };
        let now_us = u64::try_from(capped.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let held_us = now_us.saturating_sub(capped.since_us);
        capped.pool.release(&self.load, held_us, now_us);
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: u64,
    /// The member that its session is at, and no other.
    pub(crate) pinned: Option<usize>,
    pub(crate) tried: &'a [usize],
}

/// Takes a slot of a backend, after waiting where all are full.
///
/// # Errors
/// The reason why there is none; [`Reason::NoBackend`] when no backend is left, full or not.
pub(crate) async fn take(
    request: &Request<'_>,
    client: &Client<'_>,
    wanted: Wanted<'_>,
) -> Result<(usize, InFlight), Reason> {
    let Request { shard, pool, .. } = *request;
    let need = Need {
        key: wanted.key,
        pinned: wanted.pinned,
        tried: wanted.tried,
        deadline_us: client.timer.limit_us(),
    };
    let ask = || {
        let now_us = shard.timers.recent_us();
        pool.balancer.take(need, now_us, &mut shard.rng.borrow_mut())
    };
    let mut asked_again = false;
    loop {
        let place = match ask() {
            Take::Taken(index) => return Ok((index, InFlight::hold(shard, pool, index))),
            Take::Nobody => return Err(Reason::NoBackend),
            Take::Shed(shed) => return Err(refused(request, shed)),
            Take::Wait(place) => place,
        };
        // Boxed: the wait is rare and must not make every request larger.
        match Box::pin(wait(request, client, place)).await? {
            Settled::Slot(id) => {
                // Always known: the queue hands over slots of those backends alone that the request knew when it
                // came, and it chooses among the same until its end. So none is lost here.
                let index = pool.balancer.session_member(id).ok_or(Reason::NoBackend)?;
                return Ok((index, InFlight::hold(shard, pool, index)));
            }
            Settled::Shed(shed) => return Err(refused(request, shed)),
            Settled::Lost if asked_again => return Err(Reason::NoBackend),
            Settled::Lost => asked_again = true,
        }
    }
}

/// Waits in the queue.
async fn wait(request: &Request<'_>, client: &Client<'_>, mut place: Place) -> Result<Settled, Reason> {
    let Request { shard, pool, .. } = *request;
    let began_us = shard.timers.now_us();
    let counters = pool.cell.counters.of(shard.index);
    let position = place.position();
    // A wait has no end of its own but the queue's.
    client.timer.disarm();
    let settled = client.timer.bound(poll_fn(|cx| place.poll(cx.waker())));
    let waited = match unless_gone(&client.reply, Unasked::Left, settled).await {
        Ok(Ok(settled)) => Ok(settled),
        Ok(Err(Expired)) => Ok(Settled::Shed(Shed::Deadline)),
        Err(Gone) => Err(Reason::QueueAbandoned),
    };
    drop(place);
    let waited_us = shard.timers.now_us().saturating_sub(began_us);
    let before = request.story.queued.get();
    request.story.queued.set(Some(Queued {
        position: before.map_or(position, |before| before.position),
        waited_us: waited_us + before.map_or(0, |before| before.waited_us),
    }));
    match &waited {
        Ok(Settled::Slot(_)) => counters.queue_wait.record(waited_us),
        Err(_) => counters.shed(DEPARTED),
        Ok(_) => {}
    }
    waited
}

/// Counts a refusal.
fn refused(request: &Request<'_>, shed: Shed) -> Reason {
    let counters = request.pool.cell.counters.of(request.shard.index);
    counters.shed(shed as usize);
    match shed {
        Shed::Full => Reason::QueueFull,
        Shed::Timeout => Reason::QueueTimeout,
        Shed::Overload => Reason::QueueOverload,
        Shed::Deadline => Reason::QueueDeadline,
    }
}
