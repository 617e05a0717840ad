//! What happened to a request: noted along the way, read once at its end by whoever keeps account.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use http::{RequestId, TraceContext};
use model::reason::Reason;

use crate::counters::SESSIONS;

/// The story of one request.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Its name.
    pub(crate) id: Cell<Option<RequestId>>,
    /// Its place in a trace, when traces are on.
    pub(crate) trace: Cell<Option<Trace>>,
    /// Index of the route taken, among the routes of the load balancer.
    pub(crate) route: Cell<Option<usize>>,
    /// Index of the pool that serves it, among the pools of the load balancer.
    pub(crate) pool: Cell<Option<usize>>,
    /// What became of its session, as an index into [`crate::counters::SESSIONS`]; `None` without stickiness.
    pub(crate) session: Cell<Option<u8>>,
    /// Where it had to wait for a backend.
    pub(crate) queued: Cell<Option<Queued>>,
    /// The attempts so far, in order.
    tries: RefCell<Vec<Try>>,
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace, with our span for the whole request.
    pub(crate) context: TraceContext,
    /// The caller's span, when the trace was taken over.
    pub(crate) parent: Option<[u8; 8]>,
}

/// A wait in the queue of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Place in the queue on arrival, from 1.
    pub(crate) position: u32,
    pub(crate) waited_us: u64,
}

/// One attempt at one backend. Times are those of the shard's steady clock, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    pub(crate) backend: SocketAddr,
    /// Its span, as the backend was told.
    pub(crate) span_id: [u8; 8],
    pub(crate) began_us: u64,
    /// How long connecting took; `None` on a kept connection, and where no connection came about.
    pub(crate) connect_us: Option<u64>,
    /// From its beginning to the head of the response.
    pub(crate) first_byte_us: Option<u64>,
    pub(crate) ended_us: u64,
    /// Status of the response; 0 when there was none.
    pub(crate) status: u16,
    /// Why it failed.
    pub(crate) reason: Option<Reason>,
    /// It used a kept connection.
    pub(crate) reused: bool,
    /// The kept connection was closed already: nobody's fault.
    pub(crate) stale: bool,
    /// What followed from its failure.
    pub(crate) then: Option<&'static str>,
}

impl Story {
    /// Forgets the request before.
    pub(crate) fn begin(&mut self) {
        let mut tries = self.tries.take();
        tries.clear();
        *self = Self {
            tries: RefCell::new(tries),
            ..Self::default()
        };
    }

    /// An attempt begins.
    pub(crate) fn begin_try(&self, backend: SocketAddr, span_id: [u8; 8], now_us: u64) {
        self.tries.borrow_mut().push(Try {
            backend,
            span_id,
            began_us: now_us,
            connect_us: None,
            first_byte_us: None,
            ended_us: now_us,
            status: 0,
            reason: None,
            reused: false,
            stale: false,
            then: None,
        });
    }

    /// Notes something about the attempt that runs.
    pub(crate) fn note_try(&self, note: impl FnOnce(&mut Try)) {
        if let Some(last) = self.tries.borrow_mut().last_mut() {
            note(last);
        }
    }

    /// What the backend is told about the trace: the attempt that runs is the caller there.
    pub(crate) fn trace_of_try(&self) -> Option<TraceContext> {
        let trace = self.trace.get()?;
        let span_id = self.tries.borrow().last()?.span_id;
        Some(TraceContext {
            span_id,
            ..trace.context
        })
    }

    /// What became of its session.
    pub(crate) fn session(&self) -> Option<&'static str> {
        SESSIONS.get(usize::from(self.session.get()?)).copied()
    }

    /// The attempts so far, in order.
    pub(crate) fn tries(&self) -> std::cell::Ref<'_, [Try]> {
        std::cell::Ref::map(self.tries.borrow(), Vec::as_slice)
    }

    /// The attempt that runs, or ran last.
    pub(crate) fn last_try(&self) -> Option<Try> {
        self.tries.borrow().last().copied()
    }
}
