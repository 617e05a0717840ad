//! A response body on its way to the client: streamed with backpressure in one buffer, large ones spliced.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use http::Framing;
use http::chunked::{self, ChunkDecoder, ChunkEvent};
use model::reason::Reason;
use net::splice::Pipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::shard::Shard;
use crate::timers::{Expired, Timer};

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
    /// Between two reads from the backend; zero, no limit, while it is the backend that waits for the request.
    pub(crate) stream_idle: &'a Cell<Duration>,
    /// Between two writes to the client.
    pub(crate) write_idle: Duration,
    /// Framing as the backend sends it.
    pub(crate) from: Framing,
    /// Framing as the client gets it.
    pub(crate) to: Framing,
    /// Bytes sent to the client so far.
    pub(crate) sent: u64,
    /// Whether the client's `TE` asks for trailers.
    pub(crate) trailers: bool,
}

impl Relay<'_> {
    /// Sends `out` (the head), then the body: what `buffer` holds from `at` on, then what follows on `backend`.
    /// True when the backend's connection ended exactly with the body, so that it can serve another request.
    pub(crate) async fn run(
        &mut self,
        backend: &mut ReadHalf<'_>,
        buffer: &mut Vec<u8>,
        at: usize,
        client: &mut WriteHalf<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        buffer.drain(..at);
        match self.from {
            Framing::None => {
                self.send(client, out).await?;
                Ok(buffer.is_empty())
            }
            Framing::Length(length) => self.length(backend, buffer, client, out, length).await,
            Framing::Chunked => self.chunked(backend, buffer, client, out).await,
            Framing::UntilClose => self.until_close(backend, buffer, client, out).await,
        }
    }

    async fn length(
        &mut self,
        backend: &mut ReadHalf<'_>,
        buffer: &mut Vec<u8>,
        client: &mut WriteHalf<'_>,
        out: &mut Vec<u8>,
        length: u64,
    ) -> Result<bool, Broken> {
        let mut left = length;
        loop {
            let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            out.extend_from_slice(buffer.get(..take).unwrap_or_default());
            left -= take as u64;
            self.send(client, out).await?;
            if left == 0 {
                return Ok(take == buffer.len());
            }
            // Without a pipe (no descriptors left) it is copied.
            if left >= SPLICE_FROM
                && let Ok(pipe) = self.shard.take_pipe()
            {
                return self.splice(pipe, backend, client, left).await;
            }
            buffer.clear();
            if self.fill(backend, buffer).await? == 0 {
                return Err(Broken::Backend(Reason::BackendTruncated));
            }
        }
    }

    async fn chunked(
        &mut self,
        backend: &mut ReadHalf<'_>,
        buffer: &mut Vec<u8>,
        client: &mut WriteHalf<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        let mut decoder = ChunkDecoder::new();
        loop {
            let mut at = 0;
            let ended = loop {
                let input = buffer.get(at..).unwrap_or_default();
                let (used, event) = decoder
                    .next(input)
                    .map_err(|_| Broken::Backend(Reason::BadResponse))?;
                if let ChunkEvent::Data(range) = &event {
                    self.encode(out, input.get(range.clone()).unwrap_or_default());
                }
                at += used;
                match event {
                    ChunkEvent::Data(_) => {}
                    ChunkEvent::NeedMore => break false,
                    ChunkEvent::End => break true,
                }
            };
            if ended {
                if matches!(self.to, Framing::Chunked) {
                    chunked::write_last_chunk(out, self.trailers.then(|| decoder.trailers()));
                }
                self.send(client, out).await?;
                return Ok(at == buffer.len());
            }
            self.send(client, out).await?;
            buffer.drain(..at);
            if self.fill(backend, buffer).await? == 0 {
                return Err(Broken::Backend(Reason::BackendTruncated));
            }
        }
    }

    async fn until_close(
        &mut self,
        backend: &mut ReadHalf<'_>,
        buffer: &mut Vec<u8>,
        client: &mut WriteHalf<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        loop {
            self.encode(out, buffer);
            self.send(client, out).await?;
            buffer.clear();
            if self.fill(backend, buffer).await? == 0 {
                if matches!(self.to, Framing::Chunked) {
                    chunked::write_last_chunk(out, None);
                    self.send(client, out).await?;
                }
                return Ok(false);
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if matches!(self.to, Framing::Chunked) {
            chunked::write_chunk_head(out, data.len());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(data);
        }
    }

    async fn fill(&self, backend: &mut ReadHalf<'_>, buffer: &mut Vec<u8>) -> Result<usize, Broken> {
        self.timer.arm(self.stream_idle.get());
        match self.timer.bound(backend.read_buf(buffer)).await {
            Ok(Ok(n)) => Ok(n),
            Ok(Err(_)) => Err(Broken::Backend(Reason::BackendTruncated)),
            Err(Expired) => Err(self.expired(Broken::Backend(Reason::BackendStreamTimeout))),
        }
    }

    async fn send(&mut self, client: &mut WriteHalf<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let mut at = 0;
        while let Some(rest) = out.get(at..).filter(|r| !r.is_empty()) {
            // Armed for each write: a slow reader is fine as long as it reads.
            self.timer.arm(self.write_idle);
            match self.timer.bound(client.write(rest)).await {
                Ok(Ok(n)) => {
                    at += n;
                    self.sent += n as u64;
                }
                Ok(Err(_)) => return Err(Broken::Client(Reason::ClientGone)),
                Err(Expired) => return Err(self.expired(Broken::Client(Reason::ClientWriteTimeout))),
            }
        }
        out.clear();
        Ok(())
    }

    /// Moves `left` bytes inside the kernel.
    async fn splice(
        &mut self,
        mut pipe: Pipe,
        backend: &mut ReadHalf<'_>,
        client: &mut WriteHalf<'_>,
        mut left: u64,
    ) -> Result<bool, Broken> {
        let (source, sink) = (backend.as_ref(), client.as_ref());
        while left > 0 {
            let ask = usize::try_from(left.min(SPLICE_BYTES)).unwrap_or(usize::MAX);
            self.timer.arm(self.stream_idle.get());
            let filled = source.async_io(Interest::READABLE, || pipe.fill(source, ask));
            match self.timer.bound(filled).await {
                Ok(Ok(n)) if n > 0 => left -= n as u64,
                Ok(_) => return Err(Broken::Backend(Reason::BackendTruncated)),
                Err(Expired) => return Err(self.expired(Broken::Backend(Reason::BackendStreamTimeout))),
            }
            while pipe.held() > 0 {
                self.timer.arm(self.write_idle);
                let drained = sink.async_io(Interest::WRITABLE, || non_zero(pipe.drain(sink)));
                match self.timer.bound(drained).await {
                    Ok(Ok(n)) => self.sent += n as u64,
                    Ok(Err(_)) => return Err(Broken::Client(Reason::ClientGone)),
                    Err(Expired) => return Err(self.expired(Broken::Client(Reason::ClientWriteTimeout))),
                }
            }
            tokio::task::yield_now().await;
        }
        self.shard.give_pipe(pipe);
        Ok(true)
    }

    fn expired(&self, phase: Broken) -> Broken {
        if self.timer.limit_passed() {
            Broken::Backend(Reason::TotalTimeout)
        } else {
            phase
        }
    }
}

fn non_zero(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}
