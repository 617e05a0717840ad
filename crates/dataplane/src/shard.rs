//! A shard: one thread, one single-threaded runtime, its own listening sockets, idle backend connections,
//! buffers and timers. Shards share only the snapshot and per-backend atomics.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use balance::Rng;
use model::reason::Reason;
use net::splice::Pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc as async_mpsc};

use crate::DataplaneEvent;
use crate::accept_errors::AcceptErrors;
use crate::buffers::{BUFFER_BYTES, Buffers};
use crate::compress::Encoders;
use crate::connection::{self, Arrival};
use crate::exchange::Work;
use crate::geo::Geo;
use crate::http2::StreamTasks;
use crate::observe::{self, Observer, Recall};
use crate::serving::{ListenerCell, ListenerServing, Registry, Serving};
use crate::timers::{TICK, Timers};
use crate::upstream::Upstreams;

/// Pipes and work areas kept for reuse.
const MAX_KEPT: usize = 256;

/// Work areas of streams kept for reuse: what a few busy connections have at once.
const MAX_KEPT_STREAMS: usize = 1024;

/// A buffer for the head of a stream's request: most are smaller.
const STREAM_BUFFER_BYTES: usize = 2048;

/// How long idle client connections of a closing listener stay open: a request already on its way is answered.
const CLOSE_IDLE_AFTER: Duration = Duration::from_millis(500);

/// Pause after `accept` fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often idle backend connections are looked through, in ticks.
const REAP_TICKS: u32 = 20;

/// What all shards see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) epoch: Instant,
    pub(crate) registry: Registry,
    pub(crate) events: async_mpsc::Sender<DataplaneEvent>,
    pub(crate) connections: AtomicU32,
    pub(crate) max_connections: AtomicU32,
    pub(crate) refused_connections: AtomicU64,
    pub(crate) accept_errors: AcceptErrors,
    pub(crate) geo: Geo,
    /// Number of shards.
    pub(crate) shards: usize,
    pub(crate) told: observe::Counters,
}

/// An order to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve from this; open these sockets; listeners not in it close.
    Publish {
        serving: Arc<Serving>,
        open: Vec<(SocketAddr, std::net::TcpListener)>,
        /// Backends that take no more requests: their idle connections close.
        retired: Arc<[u64]>,
        done: mpsc::SyncSender<()>,
    },
    /// Tell what is remembered of requests.
    Recall(Recall),
    /// Close all listeners; connections end when their request does.
    Drain,
    /// End the thread, cutting what is left.
    Stop,
}

/// State of a shard, for its own thread only.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) buffers: Buffers,
    pub(crate) upstreams: Upstreams,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) observer: Observer,
    pub(crate) encoders: Encoders,
    pipes: RefCell<Vec<Pipe>>,
    #[expect(
        clippy::vec_box,
        reason = "moved with every request: a pointer is cheaper than the struct"
    )]
    works: RefCell<Vec<Box<Work>>>,
    /// Work areas without the large buffer: a stream's head comes translated.
    #[expect(
        clippy::vec_box,
        reason = "moved with every request: a pointer is cheaper than the struct"
    )]
    stream_works: RefCell<Vec<Box<Work>>>,
    pub(crate) stream_tasks: StreamTasks,
    listeners: RefCell<BTreeMap<SocketAddr, Rc<Slot>>>,
    /// The second in which something was last warned of.
    warned_s: Cell<u64>,
    /// When to wake everybody so that idle connections of closing listeners end.
    close_idle_at_ms: Cell<Option<u64>>,
}

/// A listener as its connections see it; its content changes under them.
#[derive(Debug)]
pub(crate) struct Slot {
    serving: RefCell<Rc<View>>,
    closing: Cell<bool>,
    close_idle_at_ms: Cell<u64>,
    stop: Notify,
}

/// A listener as one shard holds it. Requests clone the `Rc` around it, so that shards do not fight over the
/// reference count of what they share.
#[derive(Debug)]
pub(crate) struct View(Arc<ListenerServing>);

impl std::ops::Deref for View {
    type Target = ListenerServing;

    fn deref(&self) -> &ListenerServing {
        &self.0
    }
}

impl Slot {
    /// What requests are served from now.
    pub(crate) fn serving(&self) -> Rc<View> {
        self.serving.borrow().clone()
    }

    /// Whether responses should ask the client to go elsewhere.
    pub(crate) fn closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether an idle connection should end.
    pub(crate) fn closes_idle(&self, now_ms: u64) -> bool {
        self.closing.get() && now_ms >= self.close_idle_at_ms.get()
    }
}

/// Runs a shard until [`Command::Stop`].
///
/// # Errors
/// When the runtime cannot be made (out of file descriptors).
pub(crate) fn run(
    index: usize,
    shared: Arc<Shared>,
    mut commands: async_mpsc::UnboundedReceiver<Command>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    let shard = Rc::new(Shard {
        index,
        timers: Timers::new(shared.epoch),
        buffers: Buffers::default(),
        upstreams: Upstreams::default(),
        rng: RefCell::new(Rng::new(
            0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1) ^ seed(&shared),
        )),
        observer: Observer::default(),
        encoders: Encoders::default(),
        pipes: RefCell::default(),
        works: RefCell::default(),
        stream_works: RefCell::default(),
        stream_tasks: StreamTasks::default(),
        listeners: RefCell::default(),
        warned_s: Cell::new(u64::MAX),
        close_idle_at_ms: Cell::new(None),
        shared,
    });
    runtime.block_on(async {
        tokio::task::spawn_local(tick(shard.clone()));
        while let Some(command) = commands.recv().await {
            match command {
                Command::Publish {
                    serving,
                    open,
                    retired,
                    done,
                } => {
                    shard.publish(&serving, open);
                    retired
                        .iter()
                        .for_each(|serial| shard.upstreams.close(index, *serial));
                    // The publisher may have given up waiting; the change is in force all the same.
                    let _ = done.try_send(());
                }
                Command::Recall(recall) => shard.observer.recall(&recall),
                Command::Drain => shard.close_listeners(|_| true),
                Command::Stop => break,
            }
        }
        shard.observer.flush();
    });
    Ok(())
}

/// Two processes with the same shards should not choose alike.
fn seed(shared: &Shared) -> u64 {
    let since_boot = shared.epoch.elapsed().as_nanos();
    u64::from(std::process::id()).rotate_left(32) ^ u64::try_from(since_boot).unwrap_or(1)
}

async fn tick(shard: Rc<Shard>) {
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks: u32 = 0;
    loop {
        ticker.tick().await;
        ticks = ticks.wrapping_add(1);
        shard.timers.tick();
        shard.observer.tick(shard.timers.recent_us());
        shard.upstreams.give_up_wanted(shard.index);
        shard.shared.registry.sweep_queues(shard.timers.recent_us());
        if shard
            .close_idle_at_ms
            .get()
            .is_some_and(|at| shard.timers.now_ms() >= at)
        {
            shard.close_idle_at_ms.set(None);
            shard.timers.wake_all();
        }
        if ticks.is_multiple_of(REAP_TICKS) {
            shard.upstreams.reap(shard.index, shard.timers.now_ms());
        }
    }
}

impl Shard {
    fn publish(self: &Rc<Self>, serving: &Arc<Serving>, open: Vec<(SocketAddr, std::net::TcpListener)>) {
        self.observer.follow(&serving.observing, self.shared.shards);
        self.close_listeners(|address| serving.listener(*address).is_none());
        for (address, slot) in self.listeners.borrow().iter() {
            let now = serving.listener(*address);
            if let Some(listener) = now.filter(|now| !Arc::ptr_eq(now, &slot.serving.borrow().0)) {
                slot.serving.replace(Rc::new(View(listener.clone())));
            }
        }
        for (address, socket) in open {
            let Some(listener) = serving.listener(address) else {
                continue;
            };
            match TcpListener::from_std(socket) {
                Ok(socket) => self.open(address, listener, socket),
                Err(error) => tracing::error!(%address, %error, "shard cannot poll a listening socket"),
            }
        }
    }

    fn open(self: &Rc<Self>, address: SocketAddr, listener: &Arc<ListenerServing>, socket: TcpListener) {
        let slot = Rc::new(Slot {
            serving: RefCell::new(Rc::new(View(listener.clone()))),
            closing: Cell::new(false),
            close_idle_at_ms: Cell::new(0),
            stop: Notify::new(),
        });
        self.listeners.borrow_mut().insert(address, slot.clone());
        tokio::task::spawn_local(accept(self.clone(), slot, socket));
    }

    fn close_listeners(&self, closes: impl Fn(&SocketAddr) -> bool) {
        self.timers.now_us();
        let after = u64::try_from(CLOSE_IDLE_AFTER.as_millis()).unwrap_or(u64::MAX);
        let at = self.timers.now_ms().saturating_add(after);
        self.listeners.borrow_mut().retain(|address, slot| {
            if !closes(address) {
                return true;
            }
            slot.closing.set(true);
            slot.close_idle_at_ms.set(at);
            slot.stop.notify_one();
            self.close_idle_at_ms.set(Some(at));
            false
        });
    }

    /// Whether a warning may be written now: one a second, so that a flood of trouble is none of lines.
    pub(crate) fn may_warn(&self) -> bool {
        let now_s = self.timers.now_ms() / 1000;
        self.warned_s.replace(now_s) != now_s
    }

    /// A pipe for splicing, empty.
    pub(crate) fn take_pipe(&self) -> io::Result<Pipe> {
        self.pipes.borrow_mut().pop().map_or_else(Pipe::new, Ok)
    }

    /// Takes a pipe back; one that still holds bytes is closed.
    pub(crate) fn give_pipe(&self, pipe: Pipe) {
        let mut pipes = self.pipes.borrow_mut();
        if pipe.held() == 0 && pipes.len() < MAX_KEPT {
            pipes.push(pipe);
        }
    }

    /// A work area for a request.
    pub(crate) fn take_work(&self) -> Box<Work> {
        self.works.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a work area back. One whose buffer grew (an unusual header) is dropped instead.
    pub(crate) fn give_work(&self, mut work: Box<Work>) {
        let mut works = self.works.borrow_mut();
        if works.len() < MAX_KEPT && work.buffer.capacity() == BUFFER_BYTES {
            work.buffer.clear();
            work.slim();
            works.push(work);
        }
    }

    /// A work area for a stream of HTTP/2.
    pub(crate) fn take_stream_work(&self) -> Box<Work> {
        let kept = self.stream_works.borrow_mut().pop();
        kept.unwrap_or_else(|| Box::new(Work::with_buffer(STREAM_BUFFER_BYTES)))
    }

    /// Takes a work area of a stream back. One whose buffer grew (an unusual header) is dropped instead.
    pub(crate) fn give_stream_work(&self, mut work: Box<Work>) {
        let mut works = self.stream_works.borrow_mut();
        if works.len() < MAX_KEPT_STREAMS && work.buffer.capacity() <= STREAM_BUFFER_BYTES {
            work.buffer.clear();
            work.slim();
            works.push(work);
        }
    }

    /// Tells the process, without ever waiting: what is lost is a line in a log, the effect is already in force.
    pub(crate) fn event(&self, event: DataplaneEvent) {
        if self.shared.events.try_send(event).is_err() {
            tracing::warn!("event queue full: an ejection is in force but not reported");
        }
    }
}

async fn accept(shard: Rc<Shard>, slot: Rc<Slot>, socket: TcpListener) {
    loop {
        tokio::select! {
            biased;
            () = slot.stop.notified() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => begin(&shard, &slot, stream, peer),
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    if let Some(failures) = shard.shared.accept_errors.note(shard.timers.now_ms()) {
                        tracing::warn!(%error, failures, "accept failed: new connections wait");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // Whoever the kernel has already connected is served; only then the socket closes.
    // Outside the runtime's budget, which would end the loop with connections left.
    while let Some(accepted) = tokio::task::unconstrained(now_or_never(socket.accept())).await {
        match accepted {
            Ok((stream, peer)) => begin(&shard, &slot, stream, peer),
            Err(error) if is_clients_fault(&error) => {}
            Err(_) => break,
        }
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// What `work` gives without waiting.
pub(crate) async fn now_or_never<F: Future>(work: F) -> Option<F::Output> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match work.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn begin(shard: &Rc<Shard>, slot: &Rc<Slot>, stream: TcpStream, peer: SocketAddr) {
    let serving = slot.serving();
    let Some(guard) = ConnectionGuard::enter(&shard.shared, &serving) else {
        // Closing at once tells the client more, sooner, than a queue nobody empties.
        if shard.may_warn() {
            let (load_balancer, listener) = (&serving.lb.cell.name, &serving.config.name);
            let reason = Reason::ConnectionLimit.code();
            tracing::warn!(%load_balancer, %listener, %peer, reason, "a new connection is closed");
        }
        return;
    };
    // Only a socket that is already dead refuses this; the first write will say so.
    let _ = stream.set_nodelay(true);
    let arrival = Box::new(Arrival { stream, peer, guard });
    tokio::task::spawn_local(connection::run(shard.clone(), slot.clone(), arrival));
}

/// Counts a client connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    shared: Arc<Shared>,
    /// Not the listener itself: a connection must not keep an old config alive.
    cell: Arc<ListenerCell>,
}

impl ConnectionGuard {
    fn enter(shared: &Arc<Shared>, listener: &ListenerServing) -> Option<Self> {
        let guard = Self {
            shared: shared.clone(),
            cell: listener.cell.clone(),
        };
        let all = shared.connections.fetch_add(1, Relaxed);
        let here = listener.cell.connections.fetch_add(1, Relaxed);
        if all >= shared.max_connections.load(Relaxed) || here >= listener.config.max_connections {
            listener.cell.refused.fetch_add(1, Relaxed);
            shared.refused_connections.fetch_add(1, Relaxed);
            return None;
        }
        listener.cell.accepted.fetch_add(1, Relaxed);
        Some(guard)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Relaxed);
        self.cell.connections.fetch_sub(1, Relaxed);
    }
}
