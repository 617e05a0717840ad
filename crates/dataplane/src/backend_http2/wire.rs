//! The bytes of a connection, as the protocol library uses them.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    /// Bytes received so far: whether they grow tells a silent backend from one that is there.
    pub(super) received: Rc<Received>,
}

/// What has been received of a connection.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: Cell<u64>,
    /// Length of the first frame's payload, as far as it is known.
    first: Cell<u64>,
}

/// Bytes of a frame's header, which begin with three of its length (RFC 9113 section 4.1).
const FRAME_HEADER: u64 = 9;
const LENGTH_BYTES: u64 = 3;

impl Received {
    /// How many bytes there were.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the first frame is here, which holds the backend's settings (RFC 9113 section 3.4).
    pub(super) fn has_settings(&self) -> bool {
        let bytes = self.bytes.get();
        bytes >= LENGTH_BYTES && bytes >= FRAME_HEADER + self.first.get()
    }

    fn note(&self, came: &[u8]) {
        let missing = LENGTH_BYTES.saturating_sub(self.bytes.get());
        for byte in came.iter().take(usize::try_from(missing).unwrap_or(0)) {
            self.first.set(self.first.get() << 8 | u64::from(*byte));
        }
        self.bytes.set(self.bytes.get().wrapping_add(came.len() as u64));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream.poll_read(cx, buffer))?;
        self.received
            .note(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut: the settings are here with their last byte, and not before.
    #[test]
    fn the_first_frame_is_here_with_its_last_byte() {
        let frame = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
        for step in 1..=frame.len() {
            let received = Received::default();
            let mut seen = 0;
            for piece in frame.chunks(step) {
                assert!(!received.has_settings(), "{seen} of {}", frame.len());
                received.note(piece);
                seen += piece.len();
            }
            assert!(received.has_settings());
            assert_eq!(received.bytes(), 15);
        }
    }
}
