//! The task of one connection: handshake, streams as they come, and an end that loses no request.
//!
//! It ends for one of these: the client leaves; nothing was asked for a while; it is old, or its listener closes
//! (then the client is told with GOAWAY, and what runs is finished); the client passed a limit.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason as Code, RecvStream};
use http::h2::{Abuse, FrameMeter};
use http_types::{HeaderName, HeaderValue, Request};
use model::config::{Http2, Listener};

use super::ledger::{Ledger, Piece};
use super::tasks::{self, Job};
use super::transport::{Transport, Wire};
use crate::counters::{Http2Counters, Refused};
use crate::origin::Origin;
use crate::serving::ListenerCell;
use crate::shard::{ConnectionGuard, Shard, Slot};
use crate::stream::Stream;
use crate::timers::Timer;

/// What a client may send of a body before a backend takes it: of one stream, and of all.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Between the name and the value of a field, and behind it.
const FIELD: usize = ": \r\n".len();

/// Greatest window that there is (RFC 9113 section 6.9.1).
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What is handed to the protocol library of one response before it is on the wire.
const SEND_BUFFER: usize = 64 * 1024;

/// How long streams that ended early are remembered, so that frames that were on their way are no error; and how
/// many.
const REMEMBER_RESET: Duration = Duration::from_secs(5);
const REMEMBERED_RESETS: usize = 100;

/// How long a client that was told to go has, once nothing of its runs any more.
const GOODBYE: Duration = Duration::from_secs(2);

/// After the end: what is still taken from a client that may not have read why.
const LINGER_BYTES: usize = 256 * 1024;

/// A connection that turned out to speak HTTP/2.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    pub(crate) timer: Timer,
    pub(crate) origin: Origin,
    /// What was read to find that out.
    pub(crate) ahead: Vec<u8>,
}

/// What the streams of a connection share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shard: Rc<Shard>,
    pub(super) slot: Rc<Slot>,
    pub(super) origin: Origin,
    pub(super) ledger: Rc<Ledger>,
    cell: Arc<ListenerCell>,
    /// Whether clients may switch to other protocols, as they were told when the connection began.
    pub(super) extended_connect: bool,
    /// Streams whose task runs: those that the client cancelled too, until they have let go of their backend.
    running: Cell<u32>,
    /// Those that are tunnels.
    tunnels: Cell<u32>,
}

impl Link {
    pub(super) fn counters(&self) -> &Http2Counters {
        self.cell.http2.of(self.shard.index)
    }
}

/// Counts a stream for as long as its task runs.
#[derive(Debug)]
pub(super) struct Running(pub(super) Rc<Link>);

impl Running {
    fn begin(link: &Rc<Link>) -> Self {
        link.running.set(link.running.get() + 1);
        Self(link.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let running = &self.0.running;
        running.set(running.get().saturating_sub(1));
    }
}

/// Counts a tunnel for as long as it runs.
#[derive(Debug)]
pub(super) struct Tunnelling(Rc<Link>);

impl Tunnelling {
    pub(super) fn begin(link: &Rc<Link>) -> Self {
        link.tunnels.set(link.tunnels.get() + 1);
        Self(link.clone())
    }
}

impl Drop for Tunnelling {
    fn drop(&mut self) {
        let tunnels = &self.0.tunnels;
        tunnels.set(tunnels.get().saturating_sub(1));
    }
}

/// Serves a connection to its end.
pub(crate) async fn run(shard: Rc<Shard>, slot: Rc<Slot>, accepted: Accepted, guard: ConnectionGuard) {
    let serving = slot.serving();
    let (config, cell) = (serving.config.clone(), serving.cell.clone());
    drop(serving);
    let Some(limits) = &config.http2 else {
        return;
    };
    let Accepted {
        stream,
        timer,
        origin,
        ahead,
    } = accepted;
    let meter = FrameMeter::new(limits, config.limits.header_bytes);
    let transport = Transport::new(stream, ahead, meter, shard.timers.clone());
    timer.arm(config.timeouts.request_headers);
    let Some(connection) = handshake(&config, limits, &transport, &timer).await else {
        return;
    };
    let age = jittered(&shard, limits.max_connection_age);
    let link = Rc::new(Link {
        ledger: Ledger::new(limits.connection_memory),
        shard,
        slot,
        origin,
        cell,
        extended_connect: !config.upgrades.is_empty(),
        running: Cell::new(0),
        tunnels: Cell::new(0),
    });
    link.counters().connections.add(1);
    timer.limit(age);
    // The time for the handshake is over with it.
    timer.disarm();
    let mut driver = Driver {
        link,
        connection,
        transport: transport.clone(),
        max_streams: limits.max_concurrent_streams,
        config,
        timer,
        waits: Waits::No,
        progress: 0,
        tunnels: 0,
        refused: 0,
        leaving: Leaving::No,
    };
    poll_fn(|cx| driver.poll(cx)).await;
    // The client may have left in the turn in which it passed a limit.
    driver.leaves();
    let Driver {
        connection, timer, ..
    } = driver;
    // What its streams wait for will not come: they hear of it now.
    drop(connection);
    timer.limit(Duration::ZERO);
    timer.arm(GOODBYE);
    let _ = timer.bound(transport.discard(LINGER_BYTES)).await;
    drop(guard);
}

async fn handshake(
    config: &Listener,
    limits: &Http2,
    transport: &Rc<Transport>,
    timer: &Timer,
) -> Option<Connection<Wire, Piece>> {
    let cancelled = usize::try_from(limits.max_cancelled).unwrap_or(usize::MAX);
    // The meter counts what is sent; this bounds what waits to be sent to a client that does not read.
    let unsent_resets = cancelled.saturating_add(REMEMBERED_RESETS).saturating_mul(100);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(config.limits.header_bytes)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBER_RESET)
        .max_pending_accept_reset_streams(cancelled)
        .max_local_error_reset_streams(Some(unsent_resets));
    if !config.upgrades.is_empty() {
        builder.enable_connect_protocol();
    }
    let mut shaking = pin!(builder.handshake(Wire(transport.clone())));
    let shaken = poll_fn(|cx| {
        let shaken = shaking.as_mut().poll(cx);
        // Settings go out before the client's are here.
        match transport.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => shaken.map(Result::ok),
        }
    });
    timer.bound(shaken).await.ok().flatten()
}

/// An age, give or take a tenth: connections that were opened together are not all renewed together.
fn jittered(shard: &Shard, age: Duration) -> Duration {
    let tenth = age / 10;
    let share = u32::try_from(shard.rng.borrow_mut().below(1024)).unwrap_or(0);
    age - tenth + tenth * 2 * share / 1024
}

/// What a connection waits for, so that its timer is armed once for each wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    /// Nothing runs.
    Idle,
    /// The client does not read.
    Stuck,
}

/// Whether the connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told; what runs is finished.
    Gracefully,
    /// It is cut as soon as the client was told.
    AtOnce,
}

struct Driver {
    link: Rc<Link>,
    connection: Connection<Wire, Piece>,
    transport: Rc<Transport>,
    config: Arc<Listener>,
    max_streams: u32,
    timer: Timer,
    waits: Waits,
    /// Bytes sent when the timer was armed last.
    progress: u64,
    /// Tunnels for which the connection's window has room.
    tunnels: u32,
    /// Streams refused that were counted.
    refused: u32,
    leaving: Leaving,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.transport.begin_turn();
        loop {
            self.fit_window();
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begin(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.note(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            self.count_refusals();
            if let Poll::Ready(Err(_)) = self.transport.poll_send(cx) {
                return Poll::Ready(());
            }
            if self.leaves() {
                continue;
            }
            return match self.overdue() {
                Due::No => Poll::Pending,
                Due::Leave => {
                    self.leave();
                    continue;
                }
                Due::Cut => Poll::Ready(()),
            };
        }
    }

    /// A tunnel may stand still for long with its window full: the connection's grows by as much, so that the other
    /// streams do not notice.
    fn fit_window(&mut self) {
        let tunnels = self.link.tunnels.get();
        if tunnels != self.tunnels {
            self.tunnels = tunnels;
            let window = u64::from(CONNECTION_WINDOW) + u64::from(STREAM_WINDOW) * u64::from(tunnels);
            let window = u32::try_from(window).unwrap_or(MAX_WINDOW);
            self.connection.set_target_window_size(window.min(MAX_WINDOW));
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Piece>) {
        let counters = self.link.counters();
        counters.streams.add(1);
        let refused = if self.link.running.get() >= self.max_streams {
            Some(Refused::Concurrent)
        } else if self.link.ledger.is_full() {
            Some(Refused::Memory)
        } else {
            None
        };
        if let Some(why) = refused {
            counters.refuse(why);
            self.refused += 1;
            respond.send_reset(Code::REFUSED_STREAM);
            return;
        }
        let running = Running::begin(&self.link);
        let header = self.link.ledger.enter(header_bytes(&request));
        tasks::begin(Job {
            running,
            header,
            request,
            respond,
        });
    }

    /// Counts the streams beyond the limit that the protocol library has refused without a word to us.
    fn count_refusals(&mut self) {
        let told = self.transport.refusals();
        for _ in self.refused..told {
            self.link.counters().refuse(Refused::Concurrent);
        }
        self.refused = self.refused.max(told);
    }

    /// The protocol library gave up on the client.
    fn note(&self, error: &h2::Error) {
        if error.is_library() && error.reason() == Some(Code::ENHANCE_YOUR_CALM) {
            self.link.counters().abuse(Abuse::Library);
        }
        tracing::debug!(peer = %self.link.origin.peer, %error, "HTTP/2 connection failed");
    }

    /// Whether the connection began to end in this turn, because the client passed a limit or the listener closes.
    fn leaves(&mut self) -> bool {
        if let Some(abuse) = self.transport.abuse().filter(|_| self.leaving != Leaving::AtOnce) {
            self.link.counters().abuse(abuse);
            tracing::debug!(peer = %self.link.origin.peer, limit = abuse.name(), "HTTP/2 client over a limit");
            self.leaving = Leaving::AtOnce;
            self.timer.limit(GOODBYE);
            self.timer.arm(GOODBYE);
            self.connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
            return true;
        }
        if self.leaving == Leaving::No && self.link.slot.closing() {
            self.leave();
            return true;
        }
        false
    }

    /// Tells the client to go elsewhere with what it has not asked yet.
    fn leave(&mut self) {
        self.leaving = Leaving::Gracefully;
        self.waits = Waits::No;
        self.timer.limit(Duration::ZERO);
        // What runs has its own timers.
        self.timer.disarm();
        self.connection.graceful_shutdown();
    }

    /// Looks at the clock, and sets it for what is waited for now.
    fn overdue(&mut self) -> Due {
        let progress = self.transport.progress();
        let waits = if self.transport.is_stuck() {
            Waits::Stuck
        } else if self.link.running.get() == 0 {
            Waits::Idle
        } else {
            Waits::No
        };
        if waits != self.waits || (waits == Waits::Stuck && progress != self.progress) {
            self.waits = waits;
            self.progress = progress;
            let timeouts = &self.config.timeouts;
            match waits {
                Waits::No => self.timer.disarm(),
                Waits::Stuck => self.timer.arm(timeouts.response_write_idle),
                Waits::Idle if self.leaving == Leaving::No => self.timer.arm(timeouts.keep_alive),
                Waits::Idle => self.timer.arm(GOODBYE),
            }
            return Due::No;
        }
        if !self.timer.expired() {
            return Due::No;
        }
        match self.leaving {
            Leaving::No if waits != Waits::Stuck || self.timer.limit_passed() => Due::Leave,
            _ => Due::Cut,
        }
    }
}

/// What the clock says.
enum Due {
    No,
    Leave,
    Cut,
}

/// Bytes of a request's header as HTTP/1 would write it, without the method and the version.
fn header_bytes(request: &Request<RecvStream>) -> usize {
    let uri = request.uri();
    let query = uri.query().map_or(0, str::len);
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + FIELD;
    uri.path().len() + query + authority + request.headers().iter().map(field).sum::<usize>()
}
