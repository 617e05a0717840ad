//! A response body on its way to the client: streamed with backpressure in one buffer, large ones spliced.

use http::Framing;
use http::chunked::{ChunkDecoder, ChunkEvent};
use model::reason::Reason;
use net::splice::Pipe;

use crate::reply::Reply;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::timers::{Expired, Patience, Timer};

/// Bodies with at least this much to come are spliced; below, copying is no dearer than the pipe's system calls
/// (figures in `docs/performance.md`).
const SPLICE_FROM: u64 = 16 * 1024;

/// Most bytes asked for in one `splice`, after which other connections of the shard have their turn.
const SPLICE_BYTES: u64 = 256 * 1024;

/// Why a response ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The client's connection broke or stalled.
    Client(Reason),
    /// The backend's did.
    Backend(Reason),
}

/// A response body to relay.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) timer: &'a Timer,
    /// Between two reads from the backend: without a limit while it is the backend that waits for the request.
    pub(crate) patience: &'a Patience<'a>,
    pub(crate) backend: &'a Stream,
    /// Framing as the backend sends it.
    pub(crate) framing: Framing,
}

impl Relay<'_> {
    /// Sends what `reply` holds (the head), then the body: what `buffer` holds from `at` on, then what follows
    /// from the backend. True when the backend's connection ended exactly with the body, so that it can serve
    /// another request.
    pub(crate) async fn run(
        &self,
        buffer: &mut Vec<u8>,
        at: usize,
        reply: &mut Reply<'_>,
    ) -> Result<bool, Broken> {
        buffer.drain(..at);
        match self.framing {
            Framing::None => {
                reply.flush().await?;
                Ok(buffer.is_empty())
            }
            Framing::Length(length) => self.length(buffer, reply, length).await,
            Framing::Chunked => self.chunked(buffer, reply).await,
            Framing::UntilClose => self.until_close(buffer, reply).await,
        }
    }

    async fn length(&self, buffer: &mut Vec<u8>, reply: &mut Reply<'_>, length: u64) -> Result<bool, Broken> {
        let mut left = length;
        loop {
            let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            reply.data(buffer.get(..take).unwrap_or_default());
            left -= take as u64;
            if left == 0 {
                reply.end(None);
                reply.flush().await?;
                return Ok(take == buffer.len());
            }
            reply.flush().await?;
            // Without a pipe (no descriptors left) it is copied.
            if left >= SPLICE_FROM
                && self.backend.is_spliceable()
                && reply.is_spliceable()
                && let Ok(pipe) = self.shard.take_pipe()
            {
                return self.splice(pipe, reply, left).await;
            }
            buffer.clear();
            if self.fill(buffer).await? == 0 {
                return Err(Broken::Backend(Reason::BackendTruncated));
            }
        }
    }

    async fn chunked(&self, buffer: &mut Vec<u8>, reply: &mut Reply<'_>) -> Result<bool, Broken> {
        let mut decoder = ChunkDecoder::new();
        loop {
            let mut at = 0;
            let ended = loop {
                let input = buffer.get(at..).unwrap_or_default();
                let (used, event) = decoder
                    .next(input)
                    .map_err(|_| Broken::Backend(Reason::BadResponse))?;
                if let ChunkEvent::Data(range) = &event {
                    reply.data(input.get(range.clone()).unwrap_or_default());
                }
                at += used;
                match event {
                    ChunkEvent::Data(_) => {}
                    ChunkEvent::NeedMore => break false,
                    ChunkEvent::End => break true,
                }
            };
            if ended {
                reply.end(Some(decoder.trailers()));
                reply.flush().await?;
                return Ok(at == buffer.len());
            }
            reply.flush().await?;
            buffer.drain(..at);
            if self.fill(buffer).await? == 0 {
                return Err(Broken::Backend(Reason::BackendTruncated));
            }
        }
    }

    async fn until_close(&self, buffer: &mut Vec<u8>, reply: &mut Reply<'_>) -> Result<bool, Broken> {
        loop {
            reply.data(buffer);
            reply.flush().await?;
            buffer.clear();
            if self.fill(buffer).await? == 0 {
                reply.end(None);
                reply.flush().await?;
                return Ok(false);
            }
        }
    }

    async fn fill(&self, buffer: &mut Vec<u8>) -> Result<usize, Broken> {
        match self.patience.bound(self.backend.read_buf(buffer)).await {
            Ok(Ok(n)) => Ok(n),
            Ok(Err(_)) => Err(Broken::Backend(Reason::BackendTruncated)),
            Err(Expired) => Err(self.expired()),
        }
    }

    /// Moves `left` bytes inside the kernel.
    async fn splice(&self, mut pipe: Pipe, reply: &mut Reply<'_>, mut left: u64) -> Result<bool, Broken> {
        while left > 0 {
            let ask = usize::try_from(left.min(SPLICE_BYTES)).unwrap_or(usize::MAX);
            match self
                .patience
                .bound(self.backend.splice_into(&mut pipe, ask))
                .await
            {
                Ok(Ok(n)) if n > 0 => left -= n as u64,
                Ok(_) => return Err(Broken::Backend(Reason::BackendTruncated)),
                Err(Expired) => return Err(self.expired()),
            }
            reply.splice(&mut pipe).await?;
            tokio::task::yield_now().await;
        }
        self.shard.give_pipe(pipe);
        Ok(true)
    }

    fn expired(&self) -> Broken {
        Broken::Backend(if self.timer.limit_passed() {
            Reason::TotalTimeout
        } else {
            Reason::BackendStreamTimeout
        })
    }
}
