//! One side of a tunnel: a connection of its own, or a stream of HTTP/2.
//!
//! On a stream, DATA carries the bytes, END_STREAM ends one direction as the end of a connection does, and
//! RST_STREAM with CANCEL is what a reset is to a connection (RFC 8441 section 5). Flow control is the backpressure:
//! the sender gets room for more only when the other side has taken what came.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream};

use crate::backend_http2::{Lease, Outgoing};
use crate::http2::Responder;
use crate::stream::Stream;

/// A side, as the directions use it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side<'a> {
    Connection(&'a Stream),
    /// A stream: what comes, and where to send.
    Stream(&'a Frames, Outlet<'a>),
}

/// Where the bytes for a stream go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outlet<'a> {
    Client(&'a Responder),
    Backend(&'a Outgoing),
}

/// The backend's side.
#[derive(Debug)]
pub(crate) enum Backend {
    Connection(Stream),
    Stream(Box<BackendStream>),
}

/// A tunnel's stream on a connection to a backend.
#[derive(Debug)]
pub(crate) struct BackendStream {
    /// Its place on the connection, held until the tunnel ends.
    pub(crate) lease: Lease,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Frames,
}

/// What comes on a stream.
pub(crate) struct Frames(RefCell<RecvStream>);

/// A side cannot be reached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It was reset, which the other side is told in its own way.
    Reset,
    /// It ended without saying so.
    Lost,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl Backend {
    pub(crate) fn side(&self) -> Side<'_> {
        match self {
            Self::Connection(stream) => Side::Connection(stream),
            Self::Stream(stream) => Side::Stream(&stream.incoming, Outlet::Backend(&stream.outgoing)),
        }
    }

    /// Tells the connection that carries it that it carries a tunnel.
    pub(crate) fn widen(&self) {
        if let Self::Stream(stream) = self {
            stream.lease.widen();
        }
    }
}

impl Side<'_> {
    /// Sends all of `bytes`, as fast as the other end takes them.
    pub(super) async fn write(self, bytes: &[u8]) -> Result<(), Broken> {
        match self {
            // What the other end has sent before it went may still be on its way to us: no reset follows.
            Self::Connection(stream) => stream.write_all(bytes).await.map_err(|_| Broken::Lost),
            Self::Stream(_, Outlet::Backend(outgoing)) => {
                let sent = outgoing.write(Bytes::copy_from_slice(bytes)).await;
                sent.map_err(|_| Broken::Reset)
            }
            Self::Stream(_, Outlet::Client(responder)) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let room = poll_fn(|cx| responder.poll_room(cx, rest.len())).await;
                    let (piece, behind) = rest.split_at(room.map_err(|_| Broken::Reset)?.min(rest.len()));
                    let sent = responder.data(piece.to_vec(), false);
                    sent.map_err(|_| Broken::Reset)?;
                    rest = behind;
                }
                Ok(())
            }
        }
    }

    /// Says that nothing more comes. A side that is gone already needs no end.
    pub(super) async fn end(self) {
        match self {
            Self::Connection(stream) => {
                let _ = stream.shutdown().await;
            }
            Self::Stream(..) => self.end_stream(),
        }
    }

    /// The same for a stream, which needs no time; a connection ends by being let go of.
    pub(super) fn end_stream(self) {
        match self {
            Self::Connection(_) => {}
            Self::Stream(_, Outlet::Client(responder)) => {
                let _ = responder.data(Vec::new(), true);
            }
            Self::Stream(_, Outlet::Backend(outgoing)) => {
                let _ = outgoing.end(None);
            }
        }
    }

    /// Passes on that the other side was reset.
    pub(super) fn reset(self) {
        match self {
            Self::Connection(stream) => stream.reset_on_close(),
            Self::Stream(_, Outlet::Client(responder)) => responder.reset(Code::CANCEL),
            Self::Stream(_, Outlet::Backend(outgoing)) => outgoing.reset(Code::CANCEL),
        }
    }

    /// Waits for a stream to be reset, which may happen while nobody reads from it.
    pub(super) fn poll_reset(self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Connection(_) => Poll::Pending,
            Self::Stream(_, Outlet::Client(responder)) => responder.poll_gone(cx),
            Self::Stream(_, Outlet::Backend(outgoing)) => outgoing.poll_gone(cx),
        }
    }
}

impl Frames {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self(RefCell::new(stream))
    }

    /// Waits for bytes; `None` is the end. Anything but bytes breaks a tunnel (RFC 9113 section 8.5).
    pub(super) async fn next(&self) -> Result<Option<Bytes>, Broken> {
        poll_fn(|cx| {
            let mut stream = self.0.borrow_mut();
            match ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Some(Err(_)) => return Poll::Ready(Err(Broken::Reset)),
                None => {}
            }
            Poll::Ready(match ready!(stream.poll_trailers(cx)) {
                Ok(None) => Ok(None),
                Ok(Some(_)) | Err(_) => Err(Broken::Reset),
            })
        })
        .await
    }

    /// Lets the sender send as much again.
    pub(super) fn release(&self, count: usize) {
        // Fails for a stream that is over, whose window nobody needs.
        let _ = self.0.borrow_mut().flow_control().release_capacity(count);
    }
}

/// What a failed read means. Over TLS a peer that just closes leaves off the goodbye: that is no reset.
pub(super) fn broken(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Broken::Reset,
        _ => Broken::Lost,
    }
}
