//! One attempt at one backend: connect or reuse, send, read the head, relay the body.
//!
//! A request whose body is at hand is a plain sequence. Otherwise body and response move at the same time: a
//! backend may answer early, ask with `100 Continue`, or stream back while it still reads.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use balance::{Load, Outcome};
use http::forward;
use http::{Framing, Parsed, ResponseHead, Version};
use model::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::connection::Client;
use crate::counters::class_of;
use crate::exchange::{Request, record};
use crate::relay::{Broken, Relay};
use crate::request_body::{RequestBody, UploadError};
use crate::serving::BackendCell;
use crate::timers::{Expired, Timer};
use crate::upstream::{self, Upstream};

/// Interim (1xx) responses accepted before the final one.
const MAX_INTERIM: usize = 32;

/// The request's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it stands behind the head, this many bytes.
    Whole(usize),
    /// It is still coming.
    Streaming(Box<RequestBody>),
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The client has the whole response.
    Answered { status: u16, keep: bool, sent: u64 },
    /// The client has a part of it; its connection must end.
    Broken { status: u16, reason: Reason, sent: u64 },
    /// The client has nothing of it.
    Failed(Failure),
    /// The client's own body is at fault; it has nothing of a response.
    Refused(Reason),
}

/// An attempt that failed without the client noticing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) retry: Retry,
    /// A kept connection turned out to be closed: nobody's fault.
    pub(crate) stale: bool,
}

/// When the request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The backend has not seen a byte of it.
    Always,
    /// It may have seen and done it.
    IfIdempotent,
    /// It has begun to answer, or took its time: another try would not be better.
    Never,
}

/// Sends the request to the member at `index` of its pool.
pub(crate) async fn run(
    request: &Request<'_>,
    index: usize,
    fresh: bool,
    client: &mut Client,
    response: &mut ResponseHead,
    out: &mut Vec<u8>,
    body: &mut Body,
) -> Attempt {
    let Request { shard, pool, .. } = *request;
    let Some(cell) = pool.backends.get(index) else {
        return failed(Reason::NoBackend, Retry::Never, false);
    };
    let _in_flight = InFlight::begin(&cell.load);
    let timeouts = &pool.config.timeouts;
    let mut upstream = match upstream::acquire(shard, cell, timeouts, &client.timer, fresh).await {
        Ok(upstream) => upstream,
        Err(reason @ Reason::LocalResources) => return failed(reason, Retry::Never, false),
        Err(reason) => return failed(reason, Retry::Always, false),
    };
    let mut buffer = Vec::new();
    let mut exchange = Exchange {
        request,
        cell,
        index,
        response,
        out,
        began_us: shard.timers.recent_us(),
        latency_us: 0,
    };
    let (attempt, reusable) = match body {
        Body::Whole(length) => exchange.whole(*length, client, &mut upstream, &mut buffer).await,
        // Boxed: the rare and larger state must not make every connection larger.
        Body::Streaming(body) => Box::pin(exchange.streaming(body, client, &mut upstream, &mut buffer)).await,
    };
    shard.buffers.give(buffer);
    if reusable {
        let learned = exchange.response.keep_alive_timeout;
        shard
            .upstreams
            .keep(shard, cell, upstream.stream, &pool.config.connections, learned);
    }
    attempt
}

fn failed(reason: Reason, retry: Retry, stale: bool) -> Attempt {
    Attempt::Failed(Failure { reason, retry, stale })
}

/// Counts a request in flight for as long as its attempt lives.
#[derive(Debug)]
struct InFlight(Arc<Load>);

impl InFlight {
    fn begin(load: &Arc<Load>) -> Self {
        load.begin();
        Self(load.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Why no final head arrived.
#[derive(Debug, Clone, Copy)]
struct NoHead {
    reason: Reason,
    /// The backend or the client saw bytes of a response: no retry.
    begun: bool,
}

/// How an upload ended.
type Uploaded = Result<(), UploadError>;

struct Exchange<'a, 'r> {
    request: &'a Request<'r>,
    cell: &'a BackendCell,
    index: usize,
    response: &'a mut ResponseHead,
    out: &'a mut Vec<u8>,
    began_us: u64,
    /// From the beginning to the response's head.
    latency_us: u64,
}

impl<'r> Exchange<'_, 'r> {
    /// Head and body go out in one write.
    async fn whole(
        &mut self,
        length: usize,
        client: &mut Client,
        upstream: &mut Upstream,
        buffer: &mut Vec<u8>,
    ) -> (Attempt, bool) {
        let Request {
            head, bytes, pool, ..
        } = *self.request;
        let stale = upstream.reused;
        let Client { stream, timer, .. } = client;
        let (_, mut to_client) = stream.split();
        let (mut from_backend, mut to_backend) = upstream.stream.split();
        self.write_head();
        self.out.extend_from_slice(
            bytes
                .get(head.head_len..head.head_len + length)
                .unwrap_or_default(),
        );
        timer.arm(pool.config.timeouts.stream_idle);
        if let Err(failure) = send(&mut to_backend, self.out, timer, stale).await {
            return (Attempt::Failed(failure), false);
        }
        timer.arm(pool.config.timeouts.first_byte);
        if let Err(no_head) = self
            .read_head(&mut from_backend, &mut to_client, timer, buffer)
            .await
        {
            return (Attempt::Failed(no_head.failure(stale)), false);
        }
        self.note_head();
        let stream_idle = Cell::new(pool.config.timeouts.stream_idle);
        let (mut relay, close) = self.relay(timer, &stream_idle, true, buffer);
        let at = self.response.head_len;
        let relayed = relay
            .run(&mut from_backend, buffer, at, &mut to_client, self.out)
            .await;
        let sent = relay.sent;
        self.finish(relayed, sent, close)
    }

    /// Body and response move at the same time.
    async fn streaming(
        &mut self,
        body: &mut RequestBody,
        client: &mut Client,
        upstream: &mut Upstream,
        buffer: &mut Vec<u8>,
    ) -> (Attempt, bool) {
        let Request {
            pool,
            shard,
            listener,
            ..
        } = *self.request;
        let timeouts = &pool.config.timeouts;
        let stale = upstream.reused;
        let Client { stream, timer, .. } = client;
        let (mut from_client, mut to_client) = stream.split();
        let (mut from_backend, mut to_backend) = upstream.stream.split();
        let replay = body.replay().unwrap_or_default();
        self.write_head();
        self.out.extend_from_slice(replay);
        timer.arm(timeouts.stream_idle);
        if let Err(failure) = send(&mut to_backend, self.out, timer, stale).await {
            return (Attempt::Failed(failure), false);
        }
        timer.disarm();
        let upload_timer = shard.timers.timer().await;
        upload_timer.limit(timeouts.total);
        let upload = body.upload(
            &mut from_client,
            &mut to_backend,
            listener,
            timeouts.stream_idle,
            &upload_timer,
            &shard.timers,
        );
        let mut upload = pin!(upload);
        let mut uploaded = None;
        let ends = |result: &Uploaded| {
            timer.arm(timeouts.first_byte);
            match result {
                Err(UploadError::Client(reason)) => Some(Attempt::Refused(*reason)),
                Err(UploadError::BackendTimeout) => {
                    Some(failed(Reason::BackendStreamTimeout, Retry::Never, false))
                }
                // A backend that stops reading may still have an answer: wait for it.
                Err(UploadError::Backend) | Ok(()) => None,
            }
        };
        let reading = self.read_head(&mut from_backend, &mut to_client, timer, buffer);
        match beside(upload.as_mut(), &mut uploaded, ends, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(no_head)) => return (Attempt::Failed(no_head.failure(stale)), false),
            Err(attempt) => return (attempt, false),
        }
        self.note_head();
        let from = (&mut from_backend, buffer);
        self.relay_beside(upload, uploaded, timer, from, &mut to_client)
            .await
    }

    /// Relays the response while what is left of the body goes on its way.
    async fn relay_beside(
        &mut self,
        upload: Pin<&mut impl Future<Output = Uploaded>>,
        mut uploaded: Option<Uploaded>,
        timer: &Timer,
        (backend, buffer): (&mut ReadHalf<'_>, &mut Vec<u8>),
        client: &mut WriteHalf<'_>,
    ) -> (Attempt, bool) {
        let limit = self.request.pool.config.timeouts.stream_idle;
        let sent_whole = matches!(uploaded, Some(Ok(())));
        let stream_idle = Cell::new(if sent_whole { limit } else { Duration::ZERO });
        let (mut relay, mut close) = self.relay(timer, &stream_idle, sent_whole, buffer);
        let at = self.response.head_len;
        let relaying = relay.run(backend, buffer, at, client, self.out);
        let ends = |result: &Uploaded| {
            stream_idle.set(limit);
            timer.arm(limit);
            clients_fault(result)
        };
        let relayed = beside(upload, &mut uploaded, ends, relaying).await;
        let relayed = relayed.unwrap_or_else(Err);
        let complete = matches!(uploaded, Some(Ok(())));
        close |= !complete;
        let sent = relay.sent;
        let (attempt, reusable) = self.finish(relayed, sent, close);
        (attempt, reusable && complete)
    }

    fn write_head(&mut self) {
        let Request { head, bytes, .. } = *self.request;
        self.out.clear();
        forward::write_request(self.out, bytes, head, &self.request.via(&self.cell.address_text));
    }

    /// Reads up to the final response's head; interim ones go to the client at once.
    async fn read_head(
        &mut self,
        backend: &mut ReadHalf<'_>,
        client: &mut WriteHalf<'_>,
        timer: &Timer,
        buffer: &mut Vec<u8>,
    ) -> Result<(), NoHead> {
        let method = self.request.head.method;
        let mut interim = 0;
        self.response.reset();
        loop {
            let begun = interim > 0 || !buffer.is_empty();
            let no_head = |reason| NoHead { reason, begun };
            if !buffer.is_empty() {
                match self.response.parse(buffer, method) {
                    Err(reason) => return Err(no_head(reason)),
                    Ok(Parsed::Complete) if self.response.status >= 200 => return Ok(()),
                    Ok(Parsed::Complete) => {
                        interim += 1;
                        if self.response.status == 101 || interim > MAX_INTERIM {
                            return Err(no_head(Reason::BadResponse));
                        }
                        self.pass_interim(client, timer, buffer).await?;
                        continue;
                    }
                    Ok(Parsed::Incomplete) => {}
                }
            }
            if buffer.capacity() == 0 {
                // The buffer comes with the bytes: a backend that thinks for long holds none.
                let stream = backend.as_ref();
                let _ = timer.bound(poll_fn(|cx| stream.poll_read_ready(cx))).await;
                *buffer = self.request.shard.buffers.take();
            } else if buffer.len() == buffer.capacity() {
                // Bounded by the parser, which refuses a header over its limit.
                buffer.reserve(crate::buffers::BUFFER_BYTES);
            }
            match timer.bound(backend.read_buf(buffer)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Err(no_head(Reason::BackendReset)),
                Err(Expired) if timer.limit_passed() => {
                    return Err(NoHead {
                        reason: Reason::TotalTimeout,
                        begun: true,
                    });
                }
                Err(Expired) => {
                    return Err(NoHead {
                        reason: Reason::FirstByteTimeout,
                        begun: true,
                    });
                }
            }
        }
    }

    async fn pass_interim(
        &mut self,
        client: &mut WriteHalf<'_>,
        timer: &Timer,
        buffer: &mut Vec<u8>,
    ) -> Result<(), NoHead> {
        let head = self.request.head;
        let wanted = self.response.status != 100 || head.expect_continue;
        if wanted && head.version == Version::Http11 {
            self.out.clear();
            forward::write_interim(self.out, buffer, self.response);
            if !matches!(timer.bound(client.write_all(self.out)).await, Ok(Ok(()))) {
                return Err(NoHead {
                    reason: Reason::ClientGone,
                    begun: true,
                });
            }
        }
        buffer.drain(..self.response.head_len);
        Ok(())
    }

    /// The head is here: count it, and tell the balancer how the backend does.
    fn note_head(&mut self) {
        let shard = self.request.shard;
        let counters = self.cell.counters.of(shard.index);
        let latency_us = shard.timers.now_us().saturating_sub(self.began_us);
        let status = self.response.status;
        counters.first_byte.record(latency_us);
        if let Some(class) = counters.classes.get(class_of(status)) {
            class.add(1);
        }
        if status >= 500 {
            counters.failures.add(1);
        }
        self.latency_us = latency_us;
        let failure = match status {
            502 => "status 502",
            503 => "status 503",
            504 => "status 504",
            _ => return,
        };
        record(self.request, self.index, Outcome::Failure { what: failure });
    }

    /// Writes the response's head to `out` and makes ready to relay its body. `uploaded`: nothing of the request
    /// is left to take. Also says whether the client's connection ends after this.
    fn relay<'t>(
        &mut self,
        timer: &'t Timer,
        stream_idle: &'t Cell<Duration>,
        uploaded: bool,
        buffer: &[u8],
    ) -> (Relay<'t>, bool)
    where
        'r: 't,
    {
        let Request {
            shard,
            listener,
            head,
            ..
        } = *self.request;
        let to = forward::response_framing(self.response, head.version);
        let close = !(uploaded && self.request.keep()) || matches!(to, Framing::UntilClose);
        self.out.clear();
        forward::write_response(self.out, buffer, self.response, head.version, to, close);
        let relay = Relay {
            shard,
            timer,
            stream_idle,
            write_idle: listener.timeouts.response_write_idle,
            from: self.response.framing,
            to,
            sent: 0,
            trailers: head.te_trailers,
        };
        (relay, close)
    }

    /// What the attempt came to, and whether the backend's connection can be used again.
    fn finish(&mut self, relayed: Result<bool, Broken>, sent: u64, close: bool) -> (Attempt, bool) {
        let shard = self.request.shard;
        let status = self.response.status;
        let total_us = shard.timers.now_us().saturating_sub(self.request.started_us);
        self.cell.counters.of(shard.index).total.record(total_us);
        // Only now: a backend that begins well and breaks off has not succeeded.
        let broke = matches!(relayed, Err(Broken::Backend(_)));
        if !broke && !matches!(status, 502..=504) {
            let latency_us = self.latency_us;
            record(self.request, self.index, Outcome::Success { latency_us });
        }
        match relayed {
            Ok(exact) => {
                let reusable = exact && self.response.keep_alive;
                (
                    Attempt::Answered {
                        status,
                        keep: !close,
                        sent,
                    },
                    reusable,
                )
            }
            Err(Broken::Client(reason) | Broken::Backend(reason)) => {
                (Attempt::Broken { status, reason, sent }, false)
            }
        }
    }
}

impl NoHead {
    fn failure(self, stale: bool) -> Failure {
        let lost = self.reason == Reason::BackendReset && !self.begun;
        let retry = if lost { Retry::IfIdempotent } else { Retry::Never };
        Failure {
            reason: self.reason,
            retry,
            stale: stale && lost,
        }
    }
}

/// What a backend answers to half a body is no answer to the request, and the rest that it waits for is not coming.
fn clients_fault(uploaded: &Uploaded) -> Option<Broken> {
    match uploaded {
        Err(UploadError::Client(reason)) => Some(Broken::Client(*reason)),
        _ => None,
    }
}

/// Drives `upload` beside `work` until `work` is done, keeping the upload's result. `ends` may end both early.
async fn beside<W: Future, E>(
    mut upload: Pin<&mut impl Future<Output = Uploaded>>,
    uploaded: &mut Option<Uploaded>,
    ends: impl Fn(&Uploaded) -> Option<E>,
    work: W,
) -> Result<W::Output, E> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(cx)
        {
            let end = ends(&result);
            *uploaded = Some(result);
            if let Some(end) = end {
                return Poll::Ready(Err(end));
            }
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Sends head and first bytes. A connection that refuses the very first byte has seen nothing of the request.
async fn send(backend: &mut WriteHalf<'_>, out: &[u8], timer: &Timer, stale: bool) -> Result<(), Failure> {
    let mut at = 0;
    while let Some(rest) = out.get(at..).filter(|r| !r.is_empty()) {
        match timer.bound(backend.write(rest)).await {
            Ok(Ok(n)) if n > 0 => at += n,
            Ok(_) => {
                let retry = if at == 0 {
                    Retry::Always
                } else {
                    Retry::IfIdempotent
                };
                return Err(Failure {
                    reason: Reason::BackendReset,
                    retry,
                    stale,
                });
            }
            Err(Expired) => {
                let total = timer.limit_passed();
                let reason = if total {
                    Reason::TotalTimeout
                } else {
                    Reason::BackendStreamTimeout
                };
                return Err(Failure {
                    reason,
                    retry: Retry::Never,
                    stale: false,
                });
            }
        }
    }
    Ok(())
}
