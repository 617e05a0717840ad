//! The bytes of a connection, to a client or to a backend.
//!
//! A request and its response move at the same time over the same connection, in one task. Therefore everything
//! here takes a shared reference; the cell inside is borrowed within one poll and never across a wait.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use net::splice::Pipe;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream(RefCell<TcpStream>);

impl Stream {
    /// A connection over plain TCP.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self(RefCell::new(tcp))
    }

    /// Waits, holding no buffer, until there is something to read: bytes, the end, or an error.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().poll_read_ready(cx)
    }

    /// Appends what has come to `buffer`, within its capacity; 0 is the end.
    pub(crate) async fn read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut tcp = self.0.borrow_mut();
            pin!(tcp.read_buf(buffer)).poll(cx)
        })
        .await
    }

    /// Writes what fits; returns how much that was.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)).await
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = bytes.get(n..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Whether the bytes on the wire are those of the message, so that the kernel can move them.
    pub(crate) fn is_spliceable(&self) -> bool {
        true
    }

    /// Moves up to `limit` bytes into the pipe inside the kernel; 0 is the end.
    pub(crate) async fn splice_into(&self, pipe: &mut Pipe, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let tcp = self.0.borrow();
            loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_io(Interest::READABLE, || pipe.fill(&*tcp, limit)) {
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
            let tcp = self.0.borrow();
            loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_io(Interest::WRITABLE, || pipe.drain(&*tcp)) {
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
        let read = self.0.borrow().try_read(&mut byte);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
