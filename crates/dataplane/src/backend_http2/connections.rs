//! The connections of a shard to its backends, and room for one more stream on them.
//!
//! The least loaded connection takes the next stream; another connection is opened when all are full, one at a
//! time, up to a bound. A connection leaves the set when it is old, when its backend says that it goes away, or
//! when it breaks; what runs on it runs on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use model::config::BackendHttp2;
use model::reason::Reason;
use tokio::sync::Notify;

use super::wire::{Received, Wire};
use crate::serving::{BackendCell, PoolServing};
use crate::shard::Shard;
use crate::timers::{Expired, Timer, Timers};
use crate::upstream;

/// What a backend may send of a response before the client takes it: on one stream, and on a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
///
/// The connection's grows by a stream's for each tunnel: a tunnel may stand still for long, with its window full, and
/// the other streams must not notice.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Greatest window that there is (RFC 9113 section 6.9.1).
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What is handed to the protocol library of one request before it is on the wire.
const SEND_BUFFER: usize = 64 * 1024;

/// Connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    sets: RefCell<BTreeMap<u64, Set>>,
}

/// Connections to one backend.
#[derive(Debug, Default)]
struct Set {
    connections: Vec<Rc<Connection>>,
    /// One is being opened.
    opening: bool,
    /// A place has become free, or an opening has ended.
    changed: Rc<Notify>,
}

/// A connection.
struct Connection {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    max_streams: u32,
    cell: Arc<BackendCell>,
    shard: usize,
    /// When it takes no more.
    retire_at_ms: u64,
    /// How long it is kept without a stream.
    keep_ms: u64,
    /// When its last stream ended.
    idle_since_ms: Cell<u64>,
    /// Whether it has carried a stream before.
    used: Cell<bool>,
}

/// What a connection and its task tell each other.
#[derive(Debug, Default)]
struct State {
    /// Streams that run on it.
    active: Cell<u32>,
    /// Those that are tunnels.
    tunnels: Cell<u32>,
    /// The backend's settings are here.
    settled: Cell<bool>,
    closed: Cell<bool>,
    /// Wakes its task.
    task: RefCell<Option<Waker>>,
    /// While no stream runs.
    idle: RefCell<Option<Idle>>,
}

/// Counts an idle connection for as long as it is one.
#[derive(Debug)]
struct Idle {
    cell: Arc<BackendCell>,
    shard: usize,
}

impl Idle {
    fn begin(cell: &Arc<BackendCell>, shard: usize) -> Self {
        cell.counters.of(shard).idle_http2.fetch_add(1, Relaxed);
        Self {
            cell: cell.clone(),
            shard,
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let counters = self.cell.counters.of(self.shard);
        counters.idle_http2.fetch_sub(1, Relaxed);
    }
}

impl State {
    fn count_tunnels(&self, count: u32) {
        self.tunnels.set(count);
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Room for one stream, held until it ends.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Rc<Connection>,
    changed: Rc<Notify>,
    timers: Rc<Timers>,
    is_tunnel: Cell<bool>,
    /// The connection has carried a stream before.
    pub(crate) reused: bool,
    /// How long connecting took, if that was for this request.
    pub(crate) connect_us: Option<u64>,
}

impl Connections {
    fn with<R>(&self, cell: &BackendCell, look: impl FnOnce(&mut Set) -> R) -> R {
        look(self.sets.borrow_mut().entry(cell.serial).or_default())
    }

    /// Closes what has been idle or is old.
    pub(crate) fn reap(&self, now_ms: u64) {
        self.sets.borrow_mut().retain(|_, set| {
            set.connections
                .retain(|c| c.takes_streams(now_ms) && !c.is_idle(now_ms));
            // Whoever opens one or waits holds on to the set by its key.
            set.opening || !set.connections.is_empty() || Rc::strong_count(&set.changed) > 1
        });
    }

    /// Lets go of the connections to a backend that takes no more requests.
    pub(crate) fn close(&self, serial: u64) {
        if let Some(set) = self.sets.borrow_mut().get_mut(&serial) {
            set.connections.clear();
        }
    }
}

impl Set {
    /// Room on the least loaded connection that has any.
    fn take(&mut self, timers: &Rc<Timers>) -> Option<Lease> {
        let now_ms = timers.now_ms();
        self.connections.retain(|c| c.takes_streams(now_ms));
        let open = self.connections.iter().filter(|c| c.has_room());
        let connection = open.min_by_key(|c| c.state.active.get())?.clone();
        Some(Lease::begin(connection, self.changed.clone(), timers.clone()))
    }
}

impl Connection {
    fn takes_streams(&self, now_ms: u64) -> bool {
        if self.state.closed.get() || now_ms >= self.retire_at_ms {
            return false;
        }
        // Fails once the backend has said that it goes away. Nobody waits here: a fresh handle is always ready.
        let mut cx = Context::from_waker(Waker::noop());
        let ready = self.sender.clone().poll_ready(&mut cx);
        !matches!(ready, Poll::Ready(Err(_)))
    }

    fn is_idle(&self, now_ms: u64) -> bool {
        self.state.active.get() == 0 && now_ms.saturating_sub(self.idle_since_ms.get()) >= self.keep_ms
    }

    fn has_room(&self) -> bool {
        let allowed = u32::try_from(self.sender.current_max_send_streams()).unwrap_or(u32::MAX);
        self.state.active.get() < self.max_streams.min(allowed)
    }
}

impl Lease {
    fn begin(connection: Rc<Connection>, changed: Rc<Notify>, timers: Rc<Timers>) -> Self {
        let state = &connection.state;
        state.active.set(state.active.get() + 1);
        state.idle.take();
        let reused = connection.used.replace(true);
        Self {
            connection,
            changed,
            timers,
            is_tunnel: Cell::new(false),
            reused,
            connect_us: None,
        }
    }

    /// What a request is sent with.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    /// Whether the backend takes an extended CONNECT. It says so in its first frame (RFC 8441 section 3), which may
    /// still be on its way.
    pub(crate) async fn takes_extended_connect(&self, timer: &Timer) -> Result<bool, Expired> {
        let state = &self.connection.state;
        while !(state.settled.get() || state.closed.get()) {
            timer.bound(self.changed.notified()).await?;
        }
        Ok(self.connection.sender.is_extended_connect_protocol_enabled())
    }

    /// The stream has become a tunnel: what waits in it, however long, is nothing that other streams lack.
    pub(crate) fn widen(&self) {
        if !self.is_tunnel.replace(true) {
            let state = &self.connection.state;
            state.count_tunnels(state.tunnels.get() + 1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        let state = &connection.state;
        state.active.set(state.active.get().saturating_sub(1));
        if self.is_tunnel.get() {
            state.count_tunnels(state.tunnels.get().saturating_sub(1));
        }
        if state.active.get() == 0 && !state.closed.get() {
            let idle = Idle::begin(&connection.cell, connection.shard);
            *state.idle.borrow_mut() = Some(idle);
        }
        connection.idle_since_ms.set(self.timers.now_ms());
        self.changed.notify_waiters();
    }
}

/// Says that a connection is being opened for as long as it lives: its request may be given up meanwhile.
struct Opening<'a> {
    shard: &'a Shard,
    cell: &'a BackendCell,
}

impl<'a> Opening<'a> {
    fn begin(shard: &'a Shard, cell: &'a BackendCell) -> Self {
        shard.upstreams.http2.with(cell, |set| set.opening = true);
        Self { shard, cell }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.shard.upstreams.http2.with(self.cell, |set| {
            set.opening = false;
            set.changed.notify_waiters();
        });
    }
}

/// Room for a stream to the backend, on a new connection if need be.
pub(crate) async fn acquire(
    shard: &Shard,
    cell: &Arc<BackendCell>,
    pool: &PoolServing,
    settings: &BackendHttp2,
    timer: &Timer,
) -> Result<Lease, Reason> {
    let connections = &shard.upstreams.http2;
    // Once, however often another one is faster.
    timer.arm(pool.config.timeouts.connect);
    loop {
        let most = usize::from(settings.max_connections);
        let (taken, may_open, changed) = connections.with(cell, |set| {
            let taken = set.take(&shard.timers);
            let may_open = !set.opening && set.connections.len() < most;
            (taken, may_open, set.changed.clone())
        });
        if let Some(lease) = taken {
            cell.counters
                .of(shard.index)
                .connections_reused
                .add(u64::from(lease.reused));
            return Ok(lease);
        }
        if may_open {
            return open(shard, cell, pool, settings, timer).await;
        }
        match timer.bound(changed.notified()).await {
            Ok(()) => {}
            Err(Expired) if timer.limit_passed() => return Err(Reason::TotalTimeout),
            // What was waited for is the first connection, or room on one.
            Err(Expired) if connections.with(cell, |set| set.connections.is_empty()) => {
                return Err(Reason::ConnectTimeout);
            }
            Err(Expired) => return Err(Reason::StreamLimit),
        }
    }
}

async fn open(
    shard: &Shard,
    cell: &Arc<BackendCell>,
    pool: &PoolServing,
    settings: &BackendHttp2,
    timer: &Timer,
) -> Result<Lease, Reason> {
    let opening = Opening::begin(shard, cell);
    let (stream, connect_us) = upstream::connect(shard, cell, pool, timer).await?;
    let received = Rc::new(Received::default());
    let wire = Wire {
        stream,
        received: received.clone(),
    };
    timer.arm(pool.config.timeouts.connect);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(http::response::MAX_HEAD_BYTES).unwrap_or(u32::MAX));
    let shaken = timer.bound(builder.handshake::<_, Bytes>(wire)).await;
    timer.disarm();
    let (sender, h2) = match shaken {
        Ok(Ok(both)) => both,
        Ok(Err(_)) => return Err(Reason::ConnectFailed),
        Err(Expired) if timer.limit_passed() => return Err(Reason::TotalTimeout),
        Err(Expired) => return Err(Reason::ConnectTimeout),
    };
    let state = Rc::new(State::default());
    let driver = Driver {
        connection: h2,
        received,
        state: state.clone(),
        changed: shard.upstreams.http2.with(cell, |set| set.changed.clone()),
        interval: settings.ping_interval,
        patience: settings.ping_timeout,
    };
    tokio::task::spawn_local(driver.run(shard.timers.clone()));
    let now_ms = shard.timers.now_ms();
    let connection = Rc::new(Connection {
        sender,
        state,
        max_streams: settings.max_concurrent_streams,
        cell: cell.clone(),
        shard: shard.index,
        retire_at_ms: now_ms.saturating_add(age_ms(
            settings.max_connection_age,
            shard.rng.borrow_mut().next_u64(),
        )),
        keep_ms: u64::try_from(pool.config.connections.idle_timeout.as_millis()).unwrap_or(u64::MAX),
        idle_since_ms: Cell::new(now_ms),
        used: Cell::new(false),
    });
    let mut lease = shard.upstreams.http2.with(cell, |set| {
        set.connections.push(connection.clone());
        Lease::begin(connection, set.changed.clone(), shard.timers.clone())
    });
    drop(opening);
    lease.connect_us = Some(connect_us);
    Ok(lease)
}

/// An age, give or take a tenth: connections that were opened together are not all renewed together.
fn age_ms(age: Duration, random: u64) -> u64 {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    if age == 0 {
        return u64::MAX;
    }
    let tenth = age / 10;
    let share = random % 1024;
    let more = tenth.saturating_mul(2).saturating_mul(share) / 1024;
    age.saturating_sub(tenth).saturating_add(more)
}

/// The task of a connection: moves its frames, and asks a silent backend for a sign of life.
struct Driver {
    connection: h2::client::Connection<Wire, Bytes>,
    received: Rc<Received>,
    state: Rc<State>,
    changed: Rc<Notify>,
    interval: Duration,
    patience: Duration,
}

impl Driver {
    /// Until the connection ends, or is found dead.
    async fn run(mut self, timers: Rc<Timers>) {
        let timer = timers.timer().await;
        let mut pings = self.connection.ping_pong();
        let (mut asked, mut tunnels) = (false, 0);
        let mut seen = self.received.bytes();
        timer.arm(self.interval);
        poll_fn(|cx| {
            self.state
                .task
                .borrow_mut()
                .get_or_insert_with(|| cx.waker().clone());
            if self.poll_frames(cx, &mut tunnels).is_ready() {
                return Poll::Ready(());
            }
            let Some(pings) = pings.as_mut().filter(|_| !self.interval.is_zero()) else {
                return Poll::Pending;
            };
            if self.received.bytes() != seen {
                seen = self.received.bytes();
                asked = false;
                timer.arm(self.interval);
            }
            // Taken, so that another can be asked for; that bytes came says it all.
            let _ = pings.poll_pong(cx);
            if !timer.expired() {
                return Poll::Pending;
            }
            if asked {
                tracing::debug!("HTTP/2 connection to a backend is silent: closed");
                return Poll::Ready(());
            }
            asked = self.state.active.get() > 0 && pings.send_ping(h2::Ping::opaque()).is_ok();
            timer.arm(if asked { self.patience } else { self.interval });
            // What was asked is sent in the next turn.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.state.closed.set(true);
        self.state.idle.take();
        self.changed.notify_waiters();
    }

    /// Moves what there is to move; ready when the connection has ended.
    fn poll_frames(&mut self, cx: &mut Context<'_>, tunnels: &mut u32) -> Poll<()> {
        if self.state.tunnels.get() != *tunnels {
            *tunnels = self.state.tunnels.get();
            let window = u64::from(CONNECTION_WINDOW) + u64::from(STREAM_WINDOW) * u64::from(*tunnels);
            let window = u32::try_from(window).unwrap_or(u32::MAX);
            self.connection.set_target_window_size(window.min(MAX_WINDOW));
        }
        let ended = match Pin::new(&mut self.connection).poll(cx) {
            Poll::Ready(ended) => ended,
            Poll::Pending => {
                if self.received.has_settings() && !self.state.settled.replace(true) {
                    self.changed.notify_waiters();
                }
                return Poll::Pending;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "HTTP/2 connection to a backend failed");
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections opened together are renewed one after the other, over a fifth of their age.
    #[test]
    fn ages_are_spread_over_a_tenth_to_each_side() {
        let age = Duration::from_secs(10);
        let ages: Vec<u64> = (0..1024).map(|random| age_ms(age, random)).collect();
        assert_eq!(ages.first(), Some(&9000));
        assert_eq!(ages.last(), Some(&10_998));
        assert!(ages.is_sorted());
        assert_eq!(age_ms(Duration::ZERO, 7), u64::MAX, "no end");
    }
}
