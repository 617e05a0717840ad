//! Connections to backends: opened with a deadline, kept for reuse, checked before reuse.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use model::config::{Connections, PoolTimeouts};
use model::reason::Reason;
use tokio::net::TcpStream;

use crate::serving::BackendCell;
use crate::shard::Shard;
use crate::timers::Timer;

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    /// Whether it has served a request before: then its closing proves nothing about the backend.
    pub(crate) reused: bool,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since_ms: u64,
    keep_ms: u64,
}

/// Idle connections of a shard by backend.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    idle: RefCell<BTreeMap<u64, Vec<Idle>>>,
}

/// Taken off a learned keep-alive time, so that our next request does not meet the backend's close.
const KEEP_ALIVE_MARGIN_MS: u64 = 1000;

impl Upstreams {
    /// An idle connection that is still open, the most recently used first.
    fn take(&self, cell: &BackendCell, now_ms: u64) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&cell.serial)?;
        while let Some(candidate) = stack.pop() {
            if now_ms.saturating_sub(candidate.since_ms) < candidate.keep_ms && is_quiet(&candidate.stream) {
                return Some(candidate.stream);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange ended cleanly. `learned_s` is the backend's own
    /// `Keep-Alive: timeout`.
    pub(crate) fn keep(
        &self,
        shard: &Shard,
        cell: &BackendCell,
        stream: TcpStream,
        limits: &Connections,
        learned_s: Option<u32>,
    ) {
        let configured = u64::try_from(limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let learned = learned_s.map_or(u64::MAX, |s| {
            (u64::from(s) * 1000).saturating_sub(KEEP_ALIVE_MARGIN_MS)
        });
        let keep_ms = configured.min(learned);
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(cell.serial).or_default();
        if keep_ms > 0 && stack.len() < usize::from(limits.max_idle) {
            stack.push(Idle {
                stream,
                since_ms: shard.timers.now_ms(),
                keep_ms,
            });
        }
        let count = u32::try_from(stack.len()).unwrap_or(u32::MAX);
        cell.counters
            .of(shard.index)
            .idle_connections
            .store(count, Relaxed);
    }

    /// Closes what has been idle too long or was closed by its backend.
    pub(crate) fn reap(&self, now_ms: u64) {
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|i| now_ms.saturating_sub(i.since_ms) < i.keep_ms && is_quiet(&i.stream));
            !stack.is_empty()
        });
    }

    /// Closes the idle connections of a backend that takes no more requests.
    pub(crate) fn close(&self, serial: u64) {
        self.idle.borrow_mut().remove(&serial);
    }
}

/// An idle connection must be silent: an end means closed, bytes nobody asked for mean trouble
/// (response splitting; RFC 9112 section 9.2). Costs no system call unless the kernel reported something.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A connection to the backend: an idle one unless `fresh` is asked for, else a new one.
pub(crate) async fn acquire(
    shard: &Shard,
    cell: &BackendCell,
    timeouts: &PoolTimeouts,
    timer: &Timer,
    fresh: bool,
) -> Result<Upstream, Reason> {
    let counters = cell.counters.of(shard.index);
    if !fresh && let Some(stream) = shard.upstreams.take(cell, shard.timers.now_ms()) {
        counters.connections_reused.add(1);
        return Ok(Upstream { stream, reused: true });
    }
    let started = shard.timers.now_us();
    timer.arm(timeouts.connect);
    let connected = timer.bound(TcpStream::connect(cell.id.address)).await;
    timer.disarm();
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Reason::ConnectRefused);
        }
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
    counters
        .connect
        .record(shard.timers.now_us().saturating_sub(started));
    Ok(Upstream {
        stream,
        reused: false,
    })
}
