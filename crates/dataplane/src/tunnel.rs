//! Tunnels: connections that have switched to another protocol (RFC 9110 section 7.8), WebSocket above all.
//!
//! Only a 101 of the backend that names the protocol asked for makes one; until then HTTP's framing holds and what
//! the client has sent ahead waits. A tunnel is bytes in both directions with each side's end passed on. It
//! keeps its backend's place in the load until it ends, and what it was made from may change or go meanwhile: no
//! change of the config closes it.
//!
//! While nothing moves it holds two sockets and no buffer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use crate::counters::Counter;
use crate::exchange::Request;
use crate::serving::LbCell;
use crate::shard::{Shard, now_or_never};
use crate::slot::InFlight;
use crate::sticky::Hold;
use crate::stream::Stream;
use crate::timers::Timer;

/// Most bytes moved by one `splice`, after which other connections of the shard have their turn.
const SPLICE_BYTES: usize = 256 * 1024;

/// A tunnel about to run.
#[derive(Debug)]
pub(crate) struct Tunnel {
    backend: Stream,
    /// The backend's place in the load, held until the tunnel ends.
    in_flight: InFlight,
    /// Keeps the session that it belongs to.
    session: Option<Hold>,
    /// What the backend sent behind its 101.
    early: Vec<u8>,
    /// What the client sent behind its request.
    ahead: Vec<u8>,
    idle: Duration,
    /// The same once one side has ended.
    closing_idle: Duration,
    counted: Counted,
}

/// Counts a tunnel for as long as it lives.
#[derive(Debug)]
struct Counted {
    lb: Arc<LbCell>,
    shard: usize,
}

/// One of the two directions.
struct Direction<'a> {
    shard: &'a Shard,
    from: &'a Stream,
    to: &'a Stream,
    bytes: &'a Counter,
}

/// The other side cannot be reached any more.
struct Broken;

impl Tunnel {
    pub(crate) fn new(request: &Request<'_>, backend: Stream, in_flight: InFlight, early: Vec<u8>) -> Self {
        let timeouts = &request.pool.config.timeouts;
        Self {
            backend,
            in_flight,
            session: request.session.take_hold(),
            early,
            ahead: Vec::new(),
            idle: timeouts.tunnel_idle,
            closing_idle: timeouts.tunnel_idle.min(timeouts.stream_idle),
            counted: Counted::begin(request),
        }
    }

    /// Takes what the client sent behind its request.
    pub(crate) fn send_first(&mut self, ahead: Vec<u8>) {
        self.ahead = ahead;
    }

    /// Moves bytes both ways until both sides have ended, one breaks, or nothing moves for too long.
    pub(crate) async fn run(self: Box<Self>, shard: &Rc<Shard>, client: &Stream, timer: &Timer) {
        let Self {
            backend,
            in_flight,
            session,
            early,
            ahead,
            idle,
            closing_idle,
            counted,
        } = *self;
        let counters = counted.lb.counters.of(shard.index);
        let up = Direction {
            shard,
            from: client,
            to: &backend,
            bytes: &counters.received_bytes,
        };
        let down = Direction {
            shard,
            from: &backend,
            to: client,
            bytes: &counters.sent_bytes,
        };
        let pause = std::cell::Cell::new(idle);
        timer.limit(Duration::ZERO);
        timer.arm(idle);
        let moved = || timer.arm(pause.get());
        let (mut up, mut down) = (pin!(up.run(ahead, &moved)), pin!(down.run(early, &moved)));
        let (mut up_done, mut down_done) = (false, false);
        let both = poll_fn(|cx| {
            for (direction, done) in [
                (
                    up.as_mut() as std::pin::Pin<&mut dyn Future<Output = _>>,
                    &mut up_done,
                ),
                (down.as_mut(), &mut down_done),
            ] {
                if *done {
                    continue;
                }
                match direction.poll(cx) {
                    Poll::Ready(Ok(())) => {
                        *done = true;
                        pause.set(closing_idle);
                        timer.arm(closing_idle);
                    }
                    Poll::Ready(Err(Broken)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if up_done && down_done {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        if timer.bound(both).await.is_err() {
            tracing::debug!(load_balancer = %counted.lb.name, "tunnel idle for too long: closed");
        }
        drop((in_flight, session));
    }
}

impl Counted {
    fn begin(request: &Request<'_>) -> Self {
        let lb = request.lb.clone();
        let shard = request.shard.index;
        let counters = lb.counters.of(shard);
        counters.tunnels_opened.add(1);
        counters.tunnels.fetch_add(1, Relaxed);
        Self { lb, shard }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.lb.counters.of(self.shard).tunnels.fetch_sub(1, Relaxed);
    }
}

impl Direction<'_> {
    /// Moves `first`, then what comes, until the end, which is passed on. `moved` is told of every step.
    async fn run(&self, first: Vec<u8>, moved: &impl Fn()) -> Result<(), Broken> {
        self.write(&first, moved).await?;
        drop(first);
        loop {
            poll_fn(|cx| self.from.poll_readable(cx))
                .await
                .map_err(|_| Broken)?;
            let mut buffer = self.shard.buffers.take();
            // Readiness may have been a rumour: then the buffer goes back before the wait goes on.
            let read = now_or_never(self.from.read_buf(&mut buffer)).await;
            let full = buffer.len() == buffer.capacity();
            let result = match read {
                None => Ok(true),
                Some(Ok(0)) => Ok(false),
                Some(Ok(_)) => self.write(&buffer, moved).await.map(|()| true),
                Some(Err(_)) => Err(Broken),
            };
            self.shard.buffers.give(buffer);
            if !result? {
                // A side that is gone already needs no end.
                let _ = self.to.shutdown().await;
                return Ok(());
            }
            if full {
                self.splice(moved).await?;
            }
        }
    }

    async fn write(&self, bytes: &[u8], moved: &impl Fn()) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        moved();
        self.to.write_all(bytes).await.map_err(|_| Broken)?;
        self.bytes.add(bytes.len() as u64);
        moved();
        Ok(())
    }

    /// Moves what is there inside the kernel, as long as it comes without a wait.
    async fn splice(&self, moved: &impl Fn()) -> Result<(), Broken> {
        if !(self.from.is_spliceable() && self.to.is_spliceable()) {
            return Ok(());
        }
        // Without a pipe (no descriptors left) it is copied.
        let Ok(mut pipe) = self.shard.take_pipe() else {
            return Ok(());
        };
        loop {
            let filled = now_or_never(self.from.splice_into(&mut pipe, SPLICE_BYTES)).await;
            match filled {
                // Nothing now, or the end: the plain way sees which.
                None | Some(Ok(0)) => break,
                Some(Ok(n)) => self.bytes.add(n as u64),
                Some(Err(_)) => return Err(Broken),
            }
            while pipe.held() > 0 {
                moved();
                self.to.splice_from(&mut pipe).await.map_err(|_| Broken)?;
            }
            tokio::task::yield_now().await;
        }
        moved();
        self.shard.give_pipe(pipe);
        Ok(())
    }
}
