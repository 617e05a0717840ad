//! The bytes of an HTTP/2 connection: metered both ways, and sent once per turn.
//!
//! The protocol library flushes after each frame of data. Written through, that would be a system call and a TLS
//! record for each; so what it writes is gathered here, and the connection's task sends it at the end of its turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::h2::{Abuse, FrameMeter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;
use crate::timers::Timers;

/// Bytes gathered before the protocol library must wait for the socket.
const GATHERED: usize = 64 * 1024;

/// Bytes taken in one turn. Then what they lead to is sent, and metered, and others have their turn: a client cannot
/// have thousands of its streams reset before the first reset counts.
const TURN: usize = 64 * 1024;

/// The transport, as the connection's task sees it.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Stream,
    timers: Rc<Timers>,
    meter: RefCell<FrameMeter>,
    abuse: Cell<Option<Abuse>>,
    /// Bytes that were read before it was known that this is HTTP/2.
    ahead: RefCell<Vec<u8>>,
    out: RefCell<Gathered>,
    /// TLS may hold something of what it was given.
    unflushed: Cell<bool>,
    progress: Cell<u64>,
    /// Bytes taken in this turn.
    taken: Cell<usize>,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    at: usize,
}

impl Transport {
    pub(super) fn new(stream: Stream, ahead: Vec<u8>, meter: FrameMeter, timers: Rc<Timers>) -> Rc<Self> {
        Rc::new(Self {
            stream,
            timers,
            meter: RefCell::new(meter),
            abuse: Cell::new(None),
            ahead: RefCell::new(ahead),
            out: RefCell::default(),
            unflushed: Cell::new(false),
            progress: Cell::new(0),
            taken: Cell::new(0),
        })
    }

    /// The limit that the client passed. Nothing is read from it since.
    pub(super) fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }

    /// Begins a turn of the connection's task.
    pub(super) fn begin_turn(&self) {
        self.taken.set(0);
    }

    /// Streams that were refused, by us or by the protocol library, as far as the client was told.
    pub(super) fn refusals(&self) -> u32 {
        self.meter.borrow().seen().refusals
    }

    /// Bytes that went to the client so far.
    pub(super) fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// Whether something waits to be sent.
    pub(super) fn is_stuck(&self) -> bool {
        self.unflushed.get()
    }

    /// Sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.borrow_mut();
        while let Some(rest) = out.bytes.get(out.at..).filter(|rest| !rest.is_empty()) {
            match ready!(self.stream.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    out.at += n;
                    self.progress.set(self.progress.get() + n as u64);
                }
            }
        }
        out.bytes.clear();
        out.at = 0;
        if out.bytes.capacity() > GATHERED {
            out.bytes = Vec::new();
        }
        if self.unflushed.get() {
            ready!(self.stream.poll_flush(cx))?;
            self.unflushed.set(false);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what still comes and forgets it, up to `most` bytes, after the end: closing with bytes unread would
    /// take back what the client was told.
    pub(super) async fn discard(&self, most: usize) {
        let mut buffer = vec![0; 4096];
        let mut taken = 0;
        while taken < most {
            let read = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut buffer);
                ready!(self.stream.poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            });
            match read.await {
                Ok(n) if n > 0 => taken += n,
                _ => return,
            }
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.abuse.get().is_some() {
            // The connection's task looks for this after each turn, and ends the connection.
            return Poll::Pending;
        }
        if self.taken.get() >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let mut ahead = self.ahead.borrow_mut();
        if ahead.is_empty() {
            ready!(self.stream.poll_read(cx, buf))?;
        } else {
            let count = ahead.len().min(buf.remaining());
            buf.put_slice(ahead.get(..count).unwrap_or_default());
            ahead.drain(..count);
        }
        let came = buf.filled().get(before..).unwrap_or_default();
        self.taken.set(self.taken.get().saturating_add(came.len()));
        let metered = self.meter.borrow_mut().received(came, self.timers.now_ms());
        if let Err(abuse) = metered {
            self.abuse.set(Some(abuse));
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.borrow().bytes.len() >= GATHERED {
            ready!(self.poll_send(cx))?;
        }
        if let Err(abuse) = self.meter.borrow_mut().sent(bytes) {
            self.abuse.set(Some(abuse));
        }
        self.unflushed.set(true);
        self.out.borrow_mut().bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

/// The transport, as the protocol library uses it.
#[derive(Debug)]
pub(super) struct Wire(pub(super) Rc<Transport>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_receive(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_gather(cx, bytes)
    }

    /// Done at the end of the turn, by [`Transport::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_send(cx))?;
        self.0.stream.poll_shutdown(cx)
    }
}
