//! What comes on a stream: the body of its request, and trailers.
//!
//! Flow control is what bounds it: the client gets room for more only when the backend has taken what came.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use http::chunked::Trailers;
use model::reason::Reason;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    /// What has come and was not taken yet.
    pending: Bytes,
    trailers: Trailers,
    ended: bool,
    /// Taken, and not given back to the client's window yet.
    owed: usize,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            pending: Bytes::new(),
            trailers: Trailers::default(),
            ended: false,
            owed: 0,
        }
    }

    /// Whether all of it has come and was taken.
    pub(crate) fn ended(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// Trailers; complete when it has ended.
    pub(crate) fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Bytes that have come and were not taken.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self) -> Bytes {
        self.owed += self.pending.len();
        std::mem::take(&mut self.pending)
    }

    /// Lets the client send as much as was taken.
    pub(crate) fn release(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            // Fails for a stream that is over, whose window nobody needs.
            let _ = self.stream.flow_control().release_capacity(owed);
        }
    }

    /// Waits for more, or for the end.
    pub(crate) async fn fill(&mut self) -> Result<(), Reason> {
        match self.stream.data().await {
            Some(Ok(data)) => self.pending = data,
            Some(Err(error)) => return Err(reason(&error)),
            None => {
                let came = poll_fn(|cx| self.stream.poll_trailers(cx)).await;
                let came = came.map_err(|error| reason(&error))?;
                for (name, value) in came.iter().flatten() {
                    let pushed = self.trailers.push(name.as_str().as_bytes(), value.as_bytes());
                    pushed.map_err(http::chunked::ChunkError::reason)?;
                }
                self.ended = true;
            }
        }
        Ok(())
    }
}

/// A body that is shorter or longer than it was said to be, is ended by the protocol library.
fn reason(error: &h2::Error) -> Reason {
    if error.is_library() {
        Reason::TruncatedRequest
    } else {
        Reason::ClientGone
    }
}
