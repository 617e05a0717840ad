//! What goes to a backend on a stream: the body of a request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason as Code, SendStream};
use http::chunked::Trailers;
use http_types::HeaderMap;
use http_types::header::{HeaderName, HeaderValue};

/// The sending half of a stream.
pub(crate) struct Outgoing(RefCell<SendStream<Bytes>>);

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

/// The backend takes no more: it has reset the stream, or its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Outgoing {
    pub(crate) fn new(stream: SendStream<Bytes>) -> Self {
        Self(RefCell::new(stream))
    }

    /// Sends all of `bytes`, as fast as the backend opens its windows.
    pub(crate) async fn write(&self, mut bytes: Bytes) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let room = poll_fn(|cx| {
                let mut stream = self.0.borrow_mut();
                stream.reserve_capacity(bytes.len());
                match stream.capacity() {
                    0 => stream.poll_capacity(cx),
                    room => Poll::Ready(Some(Ok(room))),
                }
            });
            let room = room.await.and_then(Result::ok).ok_or(Stopped)?;
            let piece = bytes.split_to(room.min(bytes.len()));
            let sent = self.0.borrow_mut().send_data(piece, false);
            sent.map_err(|_| Stopped)?;
        }
        Ok(())
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(&self, code: Code) {
        self.0.borrow_mut().send_reset(code);
    }

    /// Waits for the backend to reset the stream.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_reset(cx).map(|_| ())
    }

    /// Ends the body.
    pub(crate) fn end(&self, trailers: Option<&Trailers>) -> Result<(), Stopped> {
        let trailers = trailers.and_then(header_map);
        let mut stream = self.0.borrow_mut();
        let sent = match trailers {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        sent.map_err(|_| Stopped)
    }
}

/// Trailers as the protocol library takes them; `None` when there are none.
fn header_map(trailers: &Trailers) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in trailers.iter() {
        // What was parsed passes here always; a table that is full (32768 names) takes no more.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            let _ = fields.try_append(name, value);
        }
    }
    (!fields.is_empty()).then_some(fields)
}
