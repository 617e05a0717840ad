//! A request body on its way to a backend: decoded, bounded, re-encoded, and kept for a second try while small.
//!
//! The state outlives one attempt: what was taken from the client is gone from its socket, so a retry sends the
//! kept bytes first and goes on where the first attempt stopped.

use std::cell::Cell;
use std::time::Duration;

use http::Framing;
use http::chunked::{self, ChunkDecoder, ChunkEvent, Trailers};
use model::config::Listener;
use model::reason::Reason;

use crate::backend_http2::{Outgoing, Stopped};
use crate::http2::Incoming;
use crate::share::Share;
use crate::spool::Spool;
use crate::stream::Stream;
use crate::timers::{Expired, Timer, Timers};

/// Waiting time before the minimum rate counts: a client may start slowly.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// Most bytes of what was kept that are sent at once.
const KEPT_PIECE: usize = 64 * 1024;

/// A body being forwarded.
#[derive(Debug)]
pub(crate) struct RequestBody<'a> {
    source: Source<'a>,
    coding: Coding,
    /// The body taken so far, decoded, while it fits.
    replay: Vec<u8>,
    replay_limit: usize,
    replayable: bool,
    /// Chunks are written as such; over HTTP/2 frames do what they are for.
    in_chunks: bool,
    /// Its messages come when they come: no pace is asked for.
    may_pause: Option<Duration>,
    /// Greatest body, where the route has a limit of its own.
    limit: Option<u64>,
    /// It was taken whole before anything was sent: it can be sent as often as needed.
    whole: bool,
    /// What follows `replay` of a body that was taken whole.
    spool: Option<Box<Spool>>,
    /// What `replay` takes of the memory of all, when it is taken whole.
    in_memory: Option<Share>,
    done: bool,
    received: u64,
    waited_ms: u64,
}

/// Where it comes from.
#[derive(Debug)]
enum Source<'a> {
    Http1(Received<'a>),
    Http2(Incoming),
}

/// What comes over a connection of HTTP/1.
#[derive(Debug)]
struct Received<'a> {
    client: &'a Stream,
    decoder: ChunkDecoder,
    /// Bytes from the client not decoded yet; `at` is where they begin.
    pending: Vec<u8>,
    at: usize,
}

#[derive(Debug, Clone, Copy)]
enum Coding {
    Length { left: u64 },
    Chunked,
}

/// Where a body goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sink<'a> {
    /// A connection of HTTP/1.
    Http1(&'a Stream),
    /// A stream of HTTP/2.
    Http2(&'a Outgoing),
}

impl Sink<'_> {
    async fn write(self, bytes: &mut Vec<u8>) -> Result<(), Stopped> {
        match self {
            Self::Http1(stream) => {
                stream.write_all(bytes).await.map_err(|_| Stopped)?;
                bytes.clear();
                Ok(())
            }
            Self::Http2(outgoing) => outgoing.write(std::mem::take(bytes).into()).await,
        }
    }
}

/// Where a body that is taken whole may go.
#[derive(Debug)]
pub(crate) struct Room {
    /// Most bytes of it in memory.
    pub(crate) memory: usize,
    /// Most of it at all, in memory and on disk.
    pub(crate) most: u64,
    /// What it takes of the memory of all.
    pub(crate) in_memory: Share,
    /// What it takes of the disk, where it may.
    pub(crate) on_disk: Option<Share>,
    /// Of its file.
    pub(crate) name: u64,
}

/// Where a body that was taken whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    /// In part on disk: it is over what one may have in memory.
    Disk,
    /// In part on disk: there was no memory left of what all may have.
    DiskForLackOfMemory,
}

/// Who gets a body, and how long each write may take.
struct Backend<'a> {
    sink: Sink<'a>,
    stream_idle: Duration,
    timer: &'a Timer,
}

impl Backend<'_> {
    /// Sends these bytes, if there are any; none are left.
    async fn send(&self, encoded: &mut Vec<u8>) -> Result<(), UploadError> {
        if encoded.is_empty() {
            return Ok(());
        }
        self.timer.arm(self.stream_idle);
        match self.timer.bound(self.sink.write(encoded)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stopped)) => Err(UploadError::Backend),
            Err(Expired) => Err(UploadError::BackendTimeout),
        }
    }
}

/// Why a body was not forwarded whole.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client's doing, or its connection's.
    Client(Reason),
    /// The backend's connection broke.
    Backend,
    /// The backend did not read.
    BackendTimeout,
}

impl<'a> RequestBody<'a> {
    /// A body framed as the head says, whose first bytes were read with the head.
    pub(crate) fn new(
        client: &'a Stream,
        framing: Framing,
        first: &[u8],
        mut pending: Vec<u8>,
        replay_limit: u32,
    ) -> Self {
        pending.extend_from_slice(first);
        let received = Received {
            client,
            decoder: ChunkDecoder::new(),
            pending,
            at: 0,
        };
        Self::from_source(Source::Http1(received), framing, replay_limit)
    }

    /// A body that comes on a stream of HTTP/2.
    pub(crate) fn http2(incoming: Incoming, framing: Framing, replay_limit: u32) -> Self {
        Self::from_source(Source::Http2(incoming), framing, replay_limit)
    }

    fn from_source(source: Source<'a>, framing: Framing, replay_limit: u32) -> Self {
        let coding = match framing {
            Framing::Chunked => Coding::Chunked,
            Framing::Length(left) => Coding::Length { left },
            Framing::None | Framing::UntilClose => Coding::Length { left: 0 },
        };
        Self {
            source,
            coding,
            replay: Vec::new(),
            replay_limit: replay_limit as usize,
            replayable: true,
            in_chunks: true,
            may_pause: None,
            limit: None,
            whole: false,
            spool: None,
            in_memory: None,
            done: false,
            received: 0,
            waited_ms: 0,
        }
    }

    /// Takes it at whatever pace it comes, as long as no pause is longer than this: the messages of a call.
    pub(crate) fn may_pause(&mut self, idle: Duration) {
        self.may_pause = Some(idle);
    }

    /// Takes a limit in the place of the listener's.
    pub(crate) fn limit_to(&mut self, bytes: Option<u64>) {
        self.limit = bytes;
    }

    /// Whether all of it was taken from the client and encoded.
    pub(crate) fn done(&self) -> bool {
        self.done
    }

    /// Bytes of the body taken from the client so far, without their framing.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether all that was taken so far can be sent again. `most` bytes are kept for that, unless it was taken
    /// whole.
    pub(crate) fn is_replayable(&self, most: u32) -> bool {
        self.replayable && (self.whole || self.replay.len() <= most as usize)
    }

    /// The buffer with the bytes that follow the body: the next request's.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        match self.source {
            Source::Http1(mut received) => {
                received.pending.drain(..received.at);
                received.pending
            }
            Source::Http2(_) => Vec::new(),
        }
    }

    /// Forwards the body to `sink`: what was taken before, then what comes. Whether what was taken can be sent again is
    /// told all along. May be given up at any time and begun anew with another sink.
    pub(crate) async fn upload(
        &mut self,
        sink: Sink<'_>,
        listener: &Listener,
        stream_idle: Duration,
        (timer, timers): (&Timer, &Timers),
        (replay_bytes, replayable): (u32, &Cell<bool>),
    ) -> Result<(), UploadError> {
        let mut encoded = Vec::new();
        self.in_chunks = matches!(sink, Sink::Http1(_));
        let backend = Backend {
            sink,
            stream_idle,
            timer,
        };
        self.upload_kept(&backend, &mut encoded).await?;
        loop {
            // Once done, an earlier attempt took all of it; what was kept is sent.
            if !self.done {
                self.take(&mut encoded, listener).map_err(UploadError::Client)?;
                replayable.set(self.is_replayable(replay_bytes));
            }
            backend.send(&mut encoded).await?;
            if let Source::Http2(incoming) = &mut self.source {
                incoming.release();
            }
            if self.done {
                timer.disarm();
                return match sink {
                    Sink::Http1(_) => Ok(()),
                    Sink::Http2(outgoing) => outgoing
                        .end(Some(self.source.trailers()))
                        .map_err(|Stopped| UploadError::Backend),
                };
            }
            self.fill(listener, timer, timers)
                .await
                .map_err(UploadError::Client)?;
        }
    }

    /// Sends what was kept in memory and on disk, in pieces, each in its own time; where that is all, the end is left
    /// in `encoded`.
    async fn upload_kept(&self, backend: &Backend<'_>, encoded: &mut Vec<u8>) -> Result<(), UploadError> {
        for piece in self.replay.chunks(KEPT_PIECE) {
            self.encode(encoded, piece);
            backend.send(encoded).await?;
        }
        let mut at = 0;
        while let Some(spool) = &self.spool {
            let piece = spool.read(at).await.map_err(UploadError::Client)?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            self.encode(encoded, &piece);
            backend.send(encoded).await?;
        }
        if self.done {
            self.encode_end(encoded);
        }
        Ok(())
    }

    /// Takes the body whole, in memory and on disk as far as there is room. It can be sent as often as needed then.
    ///
    /// # Errors
    /// The client's fault, a body over the bounds, or no room left.
    pub(crate) async fn take_whole(
        &mut self,
        room: Room,
        listener: &Listener,
        (timer, timers): (&Timer, &Timers),
    ) -> Result<Place, Reason> {
        // What is over the memory it may have goes to disk at once.
        self.replay_limit = usize::MAX;
        let Room {
            memory,
            most,
            in_memory,
            mut on_disk,
            name,
        } = room;
        self.in_memory = Some(in_memory);
        let (mut memory, mut place) = (memory, Place::Memory);
        let mut encoded = Vec::new();
        loop {
            self.take(&mut encoded, listener)?;
            encoded.clear();
            if self.received > most {
                return Err(Reason::BodyTooLarge);
            }
            // What follows the first byte on disk goes there too, whether there is memory again or not.
            if place == Place::Memory && !self.hold_in_memory(memory) {
                memory = self.held_in_memory();
                place = Place::DiskForLackOfMemory;
            }
            if self.replay.len() > memory {
                if place == Place::Memory {
                    place = Place::Disk;
                }
                let mut spool = match (self.spool.take(), on_disk.take()) {
                    (Some(spool), _) => spool,
                    (None, Some(share)) => Box::new(Spool::create(share, name).await?),
                    (None, None) => return Err(Reason::BufferFull),
                };
                spool.append(self.replay.split_off(memory)).await?;
                self.spool = Some(spool);
            }
            if let Source::Http2(incoming) = &mut self.source {
                incoming.release();
            }
            if self.done {
                timer.disarm();
                self.whole = true;
                // It may wait for a backend now, and shall take no more than is counted.
                self.replay.shrink_to_fit();
                return Ok(place);
            }
            self.fill(listener, timer, timers).await?;
        }
    }

    /// Takes as much of the memory of all as is needed for what is here, up to `most` bytes; whether there was so
    /// much.
    fn hold_in_memory(&mut self, most: usize) -> bool {
        let wanted = self.replay.len().min(most);
        let more = wanted.saturating_sub(self.held_in_memory());
        let share = self.in_memory.as_mut();
        share.is_some_and(|share| share.take(more as u64))
    }

    fn held_in_memory(&self) -> usize {
        let share = self.in_memory.as_ref();
        share.map_or(0, |share| usize::try_from(share.bytes()).unwrap_or(usize::MAX))
    }

    /// Keeps at least this much of it, so that it can be copied.
    pub(crate) fn keep_at_least(&mut self, bytes: usize) {
        self.replay_limit = self.replay_limit.max(bytes);
    }

    /// The whole body, when it has come and was small enough to be kept in memory.
    pub(crate) fn kept(&self) -> Option<&[u8]> {
        let whole = self.done && self.replayable && self.spool.is_none();
        whole.then_some(self.replay.as_slice())
    }

    async fn fill(&mut self, listener: &Listener, timer: &Timer, timers: &Timers) -> Result<(), Reason> {
        timer.arm(self.may_pause.unwrap_or(listener.timeouts.request_body_idle));
        let before = timers.now_ms();
        match timer.bound(self.source.fill()).await {
            Err(Expired) if timer.limit_passed() => return Err(Reason::TotalTimeout),
            Err(Expired) => return Err(Reason::RequestBodyTimeout),
            Ok(filled) => filled?,
        }
        // Only time spent waiting for the client counts: a slow backend is not its fault.
        self.waited_ms += timers.now_ms().saturating_sub(before);
        let rate = u64::from(listener.timeouts.request_body_min_rate);
        let grace = u64::try_from(RATE_GRACE.as_millis()).unwrap_or(u64::MAX);
        let got = self.received + self.source.pending() as u64;
        if self.may_pause.is_none()
            && self.waited_ms > grace
            && got.saturating_mul(1000) < rate.saturating_mul(self.waited_ms)
        {
            return Err(Reason::RequestBodyTooSlow);
        }
        Ok(())
    }

    /// Moves what is pending into `out`, in the coding of the forwarded request.
    fn take(&mut self, out: &mut Vec<u8>, listener: &Listener) -> Result<(), Reason> {
        match &mut self.source {
            Source::Http1(received) => {
                let pending = std::mem::take(&mut received.pending);
                let taken = self.take_received(&pending, out);
                if let Source::Http1(received) = &mut self.source {
                    received.pending = pending;
                }
                taken?;
            }
            Source::Http2(incoming) => {
                let data = incoming.take();
                let ended = incoming.ended();
                self.take_incoming(&data, ended, out);
            }
        }
        let limit = self.limit.or(listener.limits.body_bytes);
        if limit.is_some_and(|limit| self.received > limit) {
            // What is refused is for nobody, although its end may be here already.
            self.replayable = false;
            self.replay = Vec::new();
            return Err(Reason::BodyTooLarge);
        }
        Ok(())
    }

    fn take_received(&mut self, pending: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
        let Source::Http1(received) = &mut self.source else {
            return Ok(());
        };
        if let Coding::Length { left } = &mut self.coding {
            let input = pending.get(received.at..).unwrap_or_default();
            let take = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= take as u64;
            self.done = *left == 0;
            received.at += take;
            self.pass(out, input.get(..take).unwrap_or_default());
            return Ok(());
        }
        loop {
            let Source::Http1(received) = &mut self.source else {
                return Ok(());
            };
            let input = pending.get(received.at..).unwrap_or_default();
            let (used, event) = received.decoder.next(input).map_err(|e| e.reason())?;
            received.at += used;
            match event {
                ChunkEvent::Data(range) => self.pass(out, input.get(range).unwrap_or_default()),
                ChunkEvent::NeedMore => return Ok(()),
                ChunkEvent::End => {
                    self.done = true;
                    self.encode_end(out);
                    return Ok(());
                }
            }
        }
    }

    fn take_incoming(&mut self, data: &[u8], ended: bool, out: &mut Vec<u8>) {
        let mut data = data;
        match &mut self.coding {
            // The protocol library sees to it that data and length agree.
            Coding::Length { left } => {
                let take = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                self.done = *left == 0;
                data = data.get(..take).unwrap_or_default();
            }
            Coding::Chunked => self.done = ended,
        }
        self.pass(out, data);
        if self.done {
            self.encode_end(out);
        }
    }

    fn pass(&mut self, out: &mut Vec<u8>, data: &[u8]) {
        self.received += data.len() as u64;
        if self.replayable && self.replay.len() + data.len() <= self.replay_limit {
            self.replay.extend_from_slice(data);
        } else {
            self.replayable = false;
            self.replay = Vec::new();
        }
        self.encode(out, data);
    }

    fn encode(&self, out: &mut Vec<u8>, data: &[u8]) {
        match self.coding {
            Coding::Chunked if self.in_chunks && !data.is_empty() => {
                chunked::write_chunk_head(out, data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(data),
        }
    }

    fn encode_end(&self, out: &mut Vec<u8>) {
        if self.in_chunks && matches!(self.coding, Coding::Chunked) {
            chunked::write_last_chunk(out, Some(self.source.trailers()));
        }
    }
}

impl Source<'_> {
    /// Bytes that have come and were not decoded.
    fn pending(&self) -> usize {
        match self {
            Self::Http1(received) => received.pending.len(),
            Self::Http2(incoming) => incoming.pending(),
        }
    }

    fn trailers(&self) -> &Trailers {
        match self {
            Self::Http1(received) => received.decoder.trailers(),
            Self::Http2(incoming) => incoming.trailers(),
        }
    }

    /// Waits for more.
    async fn fill(&mut self) -> Result<(), Reason> {
        let received = match self {
            Self::Http1(received) => received,
            Self::Http2(incoming) => return incoming.fill().await,
        };
        received.pending.drain(..received.at);
        received.at = 0;
        match received.client.read_buf(&mut received.pending).await {
            Ok(0) => Err(Reason::TruncatedRequest),
            Err(_) => Err(Reason::ClientGone),
            Ok(_) => Ok(()),
        }
    }
}
