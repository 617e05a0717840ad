//! A second opinion: what hyper's server makes of the same bytes. Shared with the fuzz target
//! `differential_hyper`.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;

/// A message as hyper saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method.
    pub(crate) method: String,
    /// Target.
    pub(crate) target: String,
    /// Body; `None` when hyper found it malformed or cut short.
    pub(crate) body: Option<Vec<u8>>,
}

/// The messages that hyper's HTTP/1 server finds in these bytes, which end the connection.
pub(crate) fn messages(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let method = request.method().to_string();
            let target = request.uri().to_string();
            let body = request.into_body().collect().await.ok();
            let body = body.map(|body| body.to_bytes().to_vec());
            seen.borrow_mut().push(Seen { method, target, body });
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = Memory { unread: bytes };
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(256)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    // Reading and writing never wait, so a few polls end it; the bound is for a defect, not for slowness.
    for _ in 0..10_000 {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    seen.take()
}

/// A connection that has sent all its bytes and takes every answer.
struct Memory<'a> {
    unread: &'a [u8],
}

impl hyper::rt::Read for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.unread.split_at(self.unread.len().min(into.remaining()));
        into.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Memory<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
