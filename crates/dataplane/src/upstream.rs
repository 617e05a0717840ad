//! Connections to backends: opened with a deadline, kept for reuse, checked before reuse.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::config::Connections;
use model::reason::Reason;
use tokio::net::TcpStream;

use crate::backend_http2;
use crate::connection_cap;
use crate::serving::{BackendCell, PoolServing};
use crate::shard::Shard;
use crate::stream::Stream;
use crate::timers::Timer;

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    /// Whether it has served a request before: then its closing proves nothing about the backend.
    pub(crate) reused: bool,
    /// How long connecting took; `None` on a kept connection.
    pub(crate) connect_us: Option<u64>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since_ms: u64,
    keep_ms: u64,
    /// Its last response had no body.
    bodiless: bool,
}

/// Idle connections of a shard by backend.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    idle: RefCell<BTreeMap<u64, Stack>>,
    /// Connections over HTTP/2.
    pub(crate) http2: backend_http2::Connections,
}

/// Idle connections of one backend, the most recently used last.
#[derive(Debug)]
struct Stack {
    cell: Arc<BackendCell>,
    connections: Vec<Idle>,
}

/// Taken off a learned keep-alive time, so that our next request does not meet the backend's close.
const KEEP_ALIVE_MARGIN_MS: u64 = 1000;

impl Upstreams {
    /// An idle connection that is still open, the most recently used first.
    fn take(&self, shard: &Shard, cell: &BackendCell) -> Option<Stream> {
        let now_ms = shard.timers.now_ms();
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&cell.serial)?;
        let mut taken = None;
        while taken.is_none()
            && let Some(candidate) = stack.connections.pop()
        {
            // A backend that sends a body where there may be none (204, 304, HEAD) sends it close behind the head,
            // before the runtime hears of it: only then the question is worth a system call.
            let silent = !candidate.bodiless || candidate.stream.is_silent();
            taken = (silent && candidate.usable(now_ms)).then_some(candidate.stream);
        }
        stack.count(shard.index);
        taken
    }

    /// Keeps a connection whose last exchange ended cleanly, unless its backend takes no more requests.
    /// `learned_s` is the backend's own `Keep-Alive: timeout`; `bodiless`: its last response had no body.
    pub(crate) fn keep(
        &self,
        shard: &Shard,
        cell: &Arc<BackendCell>,
        stream: Stream,
        limits: &Connections,
        (learned_s, bodiless): (Option<u32>, bool),
    ) {
        let configured = u64::try_from(limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let learned = learned_s.map_or(u64::MAX, |s| {
            (u64::from(s) * 1000).saturating_sub(KEEP_ALIVE_MARGIN_MS)
        });
        let keep_ms = configured.min(learned);
        if keep_ms == 0 || cell.connections.is_wanted() || !cell.takes_requests.load(Relaxed) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let new = || Stack {
            cell: cell.clone(),
            connections: Vec::new(),
        };
        let stack = idle.entry(cell.serial).or_insert_with(new);
        if stack.connections.len() < usize::from(limits.max_idle) {
            stack.connections.push(Idle {
                stream,
                since_ms: shard.timers.now_ms(),
                keep_ms,
                bodiless,
            });
        }
        stack.count(shard.index);
    }

    /// Closes what has been idle too long or was closed by its backend.
    pub(crate) fn reap(&self, shard: usize, now_ms: u64) {
        self.http2.reap(now_ms);
        self.idle.borrow_mut().retain(|_, stack| {
            stack.connections.retain(|idle| idle.usable(now_ms));
            stack.count(shard);
            // The place for a connection that is in use just now is not made anew for it.
            !stack.connections.is_empty() || stack.cell.takes_requests.load(Relaxed)
        });
    }

    /// Closes one idle connection of each backend whose connections other shards want, the longest idle first.
    pub(crate) fn give_up_wanted(&self, shard: usize) {
        for stack in self.idle.borrow_mut().values_mut() {
            if stack.cell.connections.is_wanted() && !stack.connections.is_empty() {
                stack.connections.remove(0);
                stack.count(shard);
            }
        }
    }

    /// Closes the idle connections of a backend that takes no more requests.
    pub(crate) fn close(&self, shard: usize, serial: u64) {
        self.http2.close(serial);
        if let Some(mut stack) = self.idle.borrow_mut().remove(&serial) {
            stack.connections.clear();
            stack.count(shard);
        }
    }
}

impl Stack {
    fn count(&self, shard: usize) {
        let count = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        self.cell
            .counters
            .of(shard)
            .idle_connections
            .store(count, Relaxed);
    }
}

impl Idle {
    /// An idle connection must be silent: an end means closed, bytes nobody asked for mean trouble (response
    /// splitting; RFC 9112 section 9.2).
    fn usable(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) < self.keep_ms && self.stream.is_quiet()
    }
}

/// A connection to the backend: an idle one unless `fresh` is asked for, else a new one.
pub(crate) async fn acquire(
    shard: &Shard,
    cell: &Arc<BackendCell>,
    pool: &PoolServing,
    timer: &Timer,
    fresh: bool,
) -> Result<Upstream, Reason> {
    let counters = cell.counters.of(shard.index);
    if !fresh && let Some(stream) = shard.upstreams.take(shard, cell) {
        counters.connections_reused.add(1);
        return Ok(Upstream {
            stream,
            reused: true,
            connect_us: None,
        });
    }
    let (stream, connect_us) = connect(shard, cell, pool, timer).await?;
    Ok(Upstream {
        stream,
        reused: false,
        connect_us: Some(connect_us),
    })
}

/// A new connection to the backend, and how long that took.
pub(crate) async fn connect(
    shard: &Shard,
    cell: &Arc<BackendCell>,
    pool: &PoolServing,
    timer: &Timer,
) -> Result<(Stream, u64), Reason> {
    let counters = cell.counters.of(shard.index);
    let timeouts = &pool.config.timeouts;
    let started = shard.timers.now_us();
    let per_try = pool.config.retries.per_try_timeout;
    timer.arm(match per_try.is_zero() {
        true => timeouts.connect,
        false => timeouts.connect.min(per_try),
    });
    let counted = connection_cap::count(cell, timer).await?;
    let connected = timer.bound(TcpStream::connect(cell.id.address)).await;
    timer.disarm();
    let stream = match connected {
        // Connecting to a free local port can meet itself (TCP simultaneous open, RFC 9293 section 3.5).
        Ok(Ok(stream)) if stream.local_addr().is_ok_and(|own| own == cell.id.address) => {
            return Err(Reason::ConnectRefused);
        }
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Reason::ConnectRefused);
        }
        Ok(Err(error)) if is_local(&error) => return Err(Reason::LocalResources),
        Ok(Err(error)) => {
            tracing::debug!(backend = %cell.id, %error, "connecting failed");
            return Err(Reason::ConnectFailed);
        }
        Err(_) if timer.limit_passed() => return Err(Reason::TotalTimeout),
        Err(_) => return Err(Reason::ConnectTimeout),
    };
    // Only a socket that is already dead refuses this; the first write will say so.
    let _ = stream.set_nodelay(true);
    counters.connections_opened.add(1);
    let connect_us = shard.timers.now_us().saturating_sub(started);
    counters.connect.record(connect_us);
    let stream = match &pool.tls {
        None => Stream::plain(stream),
        // Boxed: rare and large beside an exchange on a kept connection.
        Some(tls) => Box::pin(tls.connect(shard, cell, timeouts, timer, stream)).await?,
    };
    Ok((stream.counted(counted), connect_us))
}

/// Whether this process or machine is short of something: nothing that another backend would change, and nothing
/// that speaks against this one.
fn is_local(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, OutOfMemory};
    matches!(error.kind(), OutOfMemory | AddrInUse | AddrNotAvailable) || net::is_out_of_descriptors(error)
}
