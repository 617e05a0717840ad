//! The bytes of a connection, to a client or to a backend.
//!
//! A request and its response move at the same time over the same connection, in one task. Therefore everything
//! here takes a shared reference; the cell inside is borrowed within one poll and never across a wait.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use net::splice::Pipe;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::connection_cap::Counted;

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream(
    RefCell<Kind>,
    #[expect(
        dead_code,
        reason = "its end counts: it is kept for as long as the connection"
    )]
    Option<Counted>,
);

/// What the other side has left off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// The connection is reset: nothing can be sent any more.
    pub(crate) reset: bool,
    /// Nothing more comes.
    pub(crate) ended: bool,
}

/// Boxed where it is large: most connections of most users are of one kind, and none should pay for the other.
#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection over plain TCP.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self(RefCell::new(Kind::Plain(tcp)), None)
    }

    /// A connection over TLS, its handshake done.
    pub(crate) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self(RefCell::new(Kind::Tls(Box::new(tls))), None)
    }

    /// The same, counted among the connections of its backend for as long as it lives.
    pub(crate) fn counted(self, counted: Counted) -> Self {
        Self(self.0, Some(counted))
    }

    /// Waits, holding no buffer, until there is something to read: bytes, the end, or an error. Over TLS this may
    /// turn out to be nothing for us, such as a session ticket.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => tcp.poll_read_ready(cx),
            Kind::Tls(tls) => match holds_plaintext(tls) {
                true => Poll::Ready(Ok(())),
                false => tls.get_ref().0.poll_read_ready(cx),
            },
        }
    }

    /// Whether anything has come that was not read: bytes, the end, or a reset. If not, the task is woken when it
    /// does. Asks what the runtime knows, not the kernel.
    pub(crate) fn poll_stirs(&self, cx: &mut Context<'_>) -> bool {
        let kind = &*self.0.borrow();
        tcp_of(kind).poll_read_ready(cx).is_ready()
    }

    /// Whether the peer has reset the connection, or sends no more. The task is woken when that changes, except
    /// while bytes wait to be read.
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>) -> Left {
        let kind = &*self.0.borrow();
        let tcp = tcp_of(kind);
        let _ = tcp.poll_read_ready(cx);
        // Of these only the end and the error are ever seen, whatever waits to be read.
        let ready = pin!(tcp.ready(Interest::PRIORITY | Interest::ERROR));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => Left {
                reset: ready.is_error(),
                ended: ready.is_read_closed(),
            },
            Poll::Ready(Err(_)) => Left {
                reset: true,
                ended: true,
            },
            Poll::Pending => Left::default(),
        }
    }

    /// Appends what has come to `buffer`, within its capacity; 0 is the end.
    pub(crate) async fn read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => pin!(tcp.read_buf(buffer)).poll(cx),
            Kind::Tls(tls) => pin!(tls.read_buf(buffer)).poll(cx),
        })
        .await
    }

    /// Reads what has come; nothing read is the end.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Kind::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
        }
    }

    /// Writes what fits; returns how much that was.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, bytes)).await
    }

    /// Like [`Stream::write`], as a poll.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Kind::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    /// Sends what TLS still holds of what was written; over plain TCP nothing is held.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Like [`Stream::flush`], as a poll.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(_) => Poll::Ready(Ok(())),
            Kind::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    /// Writes all of it, and sends it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = bytes.get(n..).unwrap_or_default(),
            }
        }
        self.flush().await
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Like [`Stream::shutdown`], as a poll.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Kind::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }

    /// When it is closed, the peer will see a reset instead of an end.
    pub(crate) fn reset_on_close(&self) {
        let kind = self.0.borrow();
        let tcp = match &*kind {
            Kind::Plain(tcp) => tcp,
            Kind::Tls(tls) => tls.get_ref().0,
        };
        // Fails for a socket that is gone, which needs nothing.
        let _ = tcp.set_zero_linger();
    }

    /// Whether the bytes on the wire are those of the message, so that the kernel can move them.
    pub(crate) fn is_spliceable(&self) -> bool {
        matches!(&*self.0.borrow(), Kind::Plain(_))
    }

    /// Moves up to `limit` bytes into the pipe inside the kernel; 0 is the end.
    pub(crate) async fn splice_into(&self, pipe: &mut Pipe, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let Kind::Plain(tcp) = &*self.0.borrow() else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_io(Interest::READABLE, || pipe.fill(tcp, limit)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    moved => return Poll::Ready(moved),
                }
            }
        })
        .await
    }

    /// Moves what the pipe holds to the connection inside the kernel; returns how much went.
    pub(crate) async fn splice_from(&self, pipe: &mut Pipe) -> io::Result<usize> {
        poll_fn(|cx| {
            let Kind::Plain(tcp) = &*self.0.borrow() else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_io(Interest::WRITABLE, || pipe.drain(tcp)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    moved => return Poll::Ready(moved),
                }
            }
        })
        .await
    }

    /// Whether nothing has come: neither bytes nor the end. Costs no system call unless the kernel reported
    /// something.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => {
                let read = tcp.try_read(&mut byte);
                matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Read through TLS: a session ticket is no message to us. Nobody waits for an idle connection, so
            // nobody's waker is lost.
            Kind::Tls(tls) => {
                let mut buffer = ReadBuf::new(&mut byte);
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(&mut **tls).poll_read(&mut cx, &mut buffer).is_pending()
            }
        }
    }
}

impl Stream {
    /// The same, asking the kernel of what it has not reported yet. What stands in a record of TLS may be no message
    /// to us, so over TLS this is [`Stream::is_quiet`].
    pub(crate) fn is_silent(&self) -> bool {
        if let Kind::Plain(tcp) = &*self.0.borrow() {
            return net::is_silent(tcp);
        }
        self.is_quiet()
    }
}

impl Stream {
    /// Lets the end of the connection be a reset.
    pub(crate) fn reset_at_close(&self) {
        match &*self.0.borrow() {
            Kind::Plain(tcp) => net::reset_at_close(tcp),
            Kind::Tls(tls) => net::reset_at_close(tls.get_ref().0),
        }
    }
}

fn tcp_of(kind: &Kind) -> &TcpStream {
    match kind {
        Kind::Plain(tcp) => tcp,
        Kind::Tls(tls) => tls.get_ref().0,
    }
}

fn holds_plaintext(tls: &mut TlsStream<TcpStream>) -> bool {
    // Without new packets this only reports; an error shows when it is read.
    let state = match tls {
        TlsStream::Client(client) => client.get_mut().1.process_new_packets(),
        TlsStream::Server(server) => server.get_mut().1.process_new_packets(),
    };
    state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    /// Bytes that have come since the runtime last looked: it does not know of them, the kernel does. So a response
    /// where there may be none would be taken for the next request's.
    #[test]
    fn the_kernel_knows_of_bytes_that_the_runtime_has_not_heard_of() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let stream = Stream::plain(tcp);
            // What the runtime believed before it ever looked is settled.
            assert!(stream.is_quiet() && stream.is_silent());
            peer.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            // Without the runtime: it must not look.
            let end = Instant::now() + Duration::from_secs(60);
            while stream.is_silent() {
                assert!(Instant::now() < end, "the kernel has them");
                std::thread::sleep(Duration::from_millis(1)); // condition poll
            }
            assert!(stream.is_quiet(), "the runtime has not looked since");
        });
    }
}
