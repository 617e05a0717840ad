//! Tunnels: requests that have switched to another protocol (RFC 9110 section 7.8), WebSocket above all.
//!
//! Only an answer of the backend that agrees to the protocol asked for makes one (101 over HTTP/1.1, 2xx to an
//! extended CONNECT over HTTP/2); until then HTTP's framing holds and what the client has sent ahead waits. A tunnel
//! is bytes in both directions with each side's end passed on, whether a side is a [connection or a
//! stream](side). It keeps its backend's place in the load until it ends, and what it was made from may change or go
//! meanwhile: no change of the config closes it.
//!
//! While nothing moves it holds its two sides and no buffer.

mod side;

use std::future::poll_fn;
use std::pin::{Pin, pin};
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
use side::broken;
pub(crate) use side::{Backend, BackendStream, Broken, Frames, Outlet, Side};

/// Most bytes moved by one `splice`, after which other connections of the shard have their turn.
const SPLICE_BYTES: usize = 256 * 1024;

/// A tunnel about to run.
#[derive(Debug)]
pub(crate) struct Tunnel {
    backend: Backend,
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

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have said so, or nothing moved for too long.
    Orderly,
    /// The client broke off.
    Client,
    /// The backend broke off.
    Backend,
}

/// One of the two directions.
struct Direction<'a> {
    shard: &'a Shard,
    from: Side<'a>,
    to: Side<'a>,
    bytes: &'a Counter,
}

/// Which side of a direction broke, and how.
enum Failed {
    From(Broken),
    To(Broken),
}

impl Tunnel {
    pub(crate) fn new(request: &Request<'_>, backend: Backend, in_flight: InFlight, early: Vec<u8>) -> Self {
        let timeouts = &request.pool.config.timeouts;
        backend.widen();
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
    pub(crate) async fn run(self: Box<Self>, shard: &Rc<Shard>, client: Side<'_>, timer: &Timer) -> End {
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
        let server = backend.side();
        let up = Direction {
            shard,
            from: client,
            to: server,
            bytes: &counters.received_bytes,
        };
        let down = Direction {
            shard,
            from: server,
            to: client,
            bytes: &counters.sent_bytes,
        };
        let pause = std::cell::Cell::new(idle);
        timer.limit(Duration::ZERO);
        timer.arm(idle);
        let moved = || timer.arm(pause.get());
        let closing = || {
            pause.set(closing_idle);
            timer.arm(closing_idle);
        };
        let (up, down) = (up.run(ahead, &moved), down.run(early, &moved));
        let ended = match timer.bound(both(up, down, (client, server), closing)).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::debug!(load_balancer = %counted.lb.name, "tunnel idle for too long: closed");
                client.end_stream();
                server.end_stream();
                End::Orderly
            }
        };
        drop((in_flight, session));
        ended
    }
}

/// Drives both directions until both have ended or one side breaks, which the other is told. `closing` is called when
/// one has ended.
async fn both(
    up: impl Future<Output = Result<(), Failed>>,
    down: impl Future<Output = Result<(), Failed>>,
    (client, server): (Side<'_>, Side<'_>),
    closing: impl Fn(),
) -> End {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        let up = (up.as_mut() as Pin<&mut dyn Future<Output = _>>, &mut up_done);
        let down = (down.as_mut() as Pin<&mut dyn Future<Output = _>>, &mut down_done);
        for ((direction, done), from_client) in [(up, true), (down, false)] {
            if *done {
                continue;
            }
            match direction.poll(cx) {
                Poll::Ready(Ok(())) => {
                    *done = true;
                    closing();
                }
                Poll::Ready(Err(failed)) => {
                    let (by_client, how) = match failed {
                        Failed::From(how) => (from_client, how),
                        Failed::To(how) => (!from_client, how),
                    };
                    return Poll::Ready(break_off(by_client, how, client, server));
                }
                Poll::Pending => {}
            }
        }
        if up_done && down_done {
            return Poll::Ready(End::Orderly);
        }
        for (side, by_client) in [(client, true), (server, false)] {
            if side.poll_reset(cx).is_ready() {
                return Poll::Ready(break_off(by_client, Broken::Reset, client, server));
            }
        }
        Poll::Pending
    })
    .await
}

/// Tells one side what the other did.
fn break_off(by_client: bool, how: Broken, client: Side<'_>, server: Side<'_>) -> End {
    let (other, end) = match by_client {
        true => (server, End::Client),
        false => (client, End::Backend),
    };
    match how {
        Broken::Reset => other.reset(),
        Broken::Lost => other.end_stream(),
    }
    end
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
    async fn run(&self, first: Vec<u8>, moved: &impl Fn()) -> Result<(), Failed> {
        self.write(&first, moved).await?;
        drop(first);
        loop {
            let more = match self.from {
                Side::Connection(from) => self.step(from, moved).await?,
                Side::Stream(from, _) => self.step_of_stream(from, moved).await?,
            };
            if !more {
                self.to.end().await;
                return Ok(());
            }
        }
    }

    /// Moves what comes on a stream next; false at its end.
    async fn step_of_stream(&self, from: &Frames, moved: &impl Fn()) -> Result<bool, Failed> {
        let Some(bytes) = from.next().await.map_err(Failed::From)? else {
            return Ok(false);
        };
        self.write(&bytes, moved).await?;
        from.release(bytes.len());
        Ok(true)
    }

    /// Moves what comes on a connection next; false at its end.
    async fn step(&self, from: &Stream, moved: &impl Fn()) -> Result<bool, Failed> {
        let failed = |error| Failed::From(broken(&error));
        poll_fn(|cx| from.poll_readable(cx)).await.map_err(failed)?;
        let mut buffer = self.shard.buffers.take();
        // Readiness may have been a rumour: then the buffer goes back before the wait goes on.
        let read = now_or_never(from.read_buf(&mut buffer)).await;
        let full = buffer.len() == buffer.capacity();
        let result = match read {
            None => Ok(true),
            Some(Ok(0)) => Ok(false),
            Some(Ok(_)) => self.write(&buffer, moved).await.map(|()| true),
            Some(Err(error)) => Err(failed(error)),
        };
        self.shard.buffers.give(buffer);
        if full
            && let Ok(true) = result
            && let Side::Connection(to) = self.to
        {
            self.splice(from, to, moved).await?;
        }
        result
    }

    async fn write(&self, bytes: &[u8], moved: &impl Fn()) -> Result<(), Failed> {
        if bytes.is_empty() {
            return Ok(());
        }
        moved();
        self.to.write(bytes).await.map_err(Failed::To)?;
        self.bytes.add(bytes.len() as u64);
        moved();
        Ok(())
    }

    /// Moves what is there inside the kernel, as long as it comes without a wait.
    async fn splice(&self, from: &Stream, to: &Stream, moved: &impl Fn()) -> Result<(), Failed> {
        if !(from.is_spliceable() && to.is_spliceable()) {
            return Ok(());
        }
        // Without a pipe (no descriptors left) it is copied.
        let Ok(mut pipe) = self.shard.take_pipe() else {
            return Ok(());
        };
        loop {
            let filled = now_or_never(from.splice_into(&mut pipe, SPLICE_BYTES)).await;
            match filled {
                // Nothing now, or the end: the plain way sees which.
                None | Some(Ok(0)) => break,
                Some(Ok(n)) => self.bytes.add(n as u64),
                Some(Err(error)) => return Err(Failed::From(broken(&error))),
            }
            while pipe.held() > 0 {
                moved();
                let sent = to.splice_from(&mut pipe).await;
                sent.map_err(|_| Failed::To(Broken::Lost))?;
            }
            tokio::task::yield_now().await;
        }
        moved();
        self.shard.give_pipe(pipe);
        Ok(())
    }
}
