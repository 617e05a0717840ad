//! One attempt at one backend: connect or reuse, send, read the head, relay the body.
//!
//! A request whose body is at hand is a plain sequence. Otherwise body and response move at the same time: a
//! backend may answer early, ask with `100 Continue`, or stream back while it still reads.

mod http2;
mod no_head;
mod switch;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use balance::Outcome;
use http::answer::Answer;
use http::forward;
use http::{FieldList, Framing, Parsed, ResponseHead};
use model::config::Route;
use model::reason::Reason;

use crate::actions;
use crate::call::Limits;
use crate::counters::class_of;
use crate::departure::{Gone, Unasked, unless_gone};
use crate::exchange::{Client, Request, record};
use crate::observe::{self, clock};
use crate::relay::{Broken, Relay};
use crate::reply::Reply;
use crate::request_body::{RequestBody, Sink, UploadError};
use crate::serving::BackendCell;
use crate::slot::InFlight;
use crate::story::Try;
use crate::stream::Stream;
use crate::timers::{Expired, Patience, Timer};
use crate::tries::Tries;
use crate::tunnel::{Backend, BackendStream, Tunnel};
use crate::upstream::{self, Upstream};
use no_head::NoHead;

/// Interim (1xx) responses accepted before the final one.
const MAX_INTERIM: usize = 32;

/// The request's body.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// All of it stands behind the head, this many bytes.
    Whole(usize),
    /// It is still coming.
    Streaming(Box<RequestBody<'a>>),
}

/// What an attempt writes to and parses into, reused from request to request.
#[derive(Debug)]
pub(crate) struct Scratch<'a> {
    /// What goes to the backend.
    pub(crate) to_backend: &'a mut Vec<u8>,
    pub(crate) response: &'a mut ResponseHead,
    /// Fields added to the response.
    pub(crate) response_extra: &'a mut FieldList,
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

impl Body<'_> {
    /// Whether what was sent of it can be sent again; `most` bytes are kept for that.
    pub(crate) fn is_replayable(&self, most: u32, retry: Retry) -> bool {
        match self {
            // All of it is here; the bound is for what was sent.
            Self::Whole(length) => retry == Retry::Always || *length <= most as usize,
            Self::Streaming(body) => body.is_replayable(most),
        }
    }
}

impl Attempt {
    /// Notes how it ended.
    pub(crate) fn note(&self, this: &mut Try, now_us: u64) {
        this.ended_us = now_us;
        match self {
            Self::Answered { .. } => {}
            Self::Broken { reason, .. } | Self::Refused(reason) => this.reason = Some(*reason),
            Self::Failed(failure) => {
                this.reason = Some(failure.reason);
                this.stale = failure.stale;
            }
        }
    }
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

/// Sends the request to the member at `index` of its pool, where it has a slot.
pub(crate) async fn run(
    request: &Request<'_>,
    (index, in_flight): (usize, InFlight),
    tries: &Tries,
    client: &mut Client<'_>,
    scratch: &mut Scratch<'_>,
) -> Attempt {
    let Request { shard, pool, .. } = *request;
    let Some(cell) = pool.backends.get(index) else {
        return failed(Reason::NoBackend, Retry::Never, false);
    };
    let try_began_us = begin_try(request, cell);
    if let Some(settings) = &pool.config.http2 {
        // Boxed: the larger state must not make every connection larger.
        let sent = http2::run(request, (cell, index), (settings, tries), client, scratch);
        let (attempt, switched) = Box::pin(sent).await;
        return close(request, attempt, switched, in_flight, client).await;
    }
    let acquiring = upstream::acquire(shard, cell, pool, client.timer, tries.fresh);
    let upstream = match unless_gone(&client.reply, Unasked::Waits, acquiring).await {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(reason @ Reason::LocalResources)) => return failed(reason, Retry::Never, false),
        Ok(Err(reason)) => return failed(reason, Retry::Always, false),
        Err(Gone) => return failed(Reason::ClientGone, Retry::Never, false),
    };
    request.story.note_try(|this| {
        this.reused = upstream.reused;
        this.connect_us = upstream.connect_us;
    });
    let mut buffer = Vec::new();
    let mut exchange = Exchange {
        request,
        tries,
        cell,
        index,
        timer: client.timer,
        reply: &mut client.reply,
        scratch,
        try_began_us,
        began_us: shard.timers.recent_us(),
        latency_us: 0,
    };
    let (attempt, after) = match &mut client.body {
        Body::Whole(length) => exchange.whole(&upstream, *length, &mut buffer).await,
        // Boxed: the rare and larger state must not make every connection larger.
        Body::Streaming(body) => Box::pin(exchange.streaming(&upstream, body, &mut buffer)).await,
    };
    match after {
        After::Close => shard.buffers.give(buffer),
        After::Keep => {
            shard.buffers.give(buffer);
            let bodiless = scratch.response.framing == Framing::None;
            let learned = (scratch.response.keep_alive_timeout, bodiless);
            shard
                .upstreams
                .keep(shard, cell, upstream.stream, &pool.config.connections, learned);
        }
        After::Tunnel => {
            let early = buffer.split_off(0);
            shard.buffers.give(buffer);
            let backend = Backend::Connection(upstream.stream);
            client.tunnel = Some(Box::new(Tunnel::new(request, backend, in_flight, early)));
            return attempt;
        }
    }
    drop(in_flight);
    settle(attempt, client).await
}

/// What follows an attempt over HTTP/2: its stream may have become a tunnel.
async fn close(
    request: &Request<'_>,
    attempt: Attempt,
    switched: Option<Box<BackendStream>>,
    in_flight: InFlight,
    client: &mut Client<'_>,
) -> Attempt {
    if let Some(stream) = switched {
        let backend = Backend::Stream(stream);
        client.tunnel = Some(Box::new(Tunnel::new(request, backend, in_flight, Vec::new())));
        return attempt;
    }
    drop(in_flight);
    settle(attempt, client).await
}

/// Sends what of a response was held back until its backend was free again.
async fn settle(attempt: Attempt, client: &mut Client<'_>) -> Attempt {
    let Attempt::Answered { status, keep, .. } = attempt else {
        return attempt;
    };
    if !client.reply.is_holding() {
        return attempt;
    }
    // Boxed: the rare and larger state must not make every connection larger.
    let released = Box::pin(client.reply.release()).await;
    let sent = client.reply.sent();
    match released {
        Ok(()) => Attempt::Answered { status, keep, sent },
        Err(Broken::Client(reason) | Broken::Backend(reason)) => Attempt::Broken { status, reason, sent },
    }
}

/// Notes that an attempt begins, and when.
fn begin_try(request: &Request<'_>, cell: &BackendCell) -> u64 {
    let span_id = request.shard.rng.borrow_mut().next_u64() | 1;
    let began_us = request.shard.timers.recent_us();
    request
        .story
        .begin_try(cell.id.address, span_id.to_be_bytes(), began_us);
    began_us
}

fn failed(reason: Reason, retry: Retry, stale: bool) -> Attempt {
    Attempt::Failed(Failure { reason, retry, stale })
}

/// What becomes of the backend's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Close,
    /// It can serve another request.
    Keep,
    /// It is the client's now.
    Tunnel,
}

impl After {
    fn keep_if(reusable: bool) -> Self {
        if reusable { Self::Keep } else { Self::Close }
    }
}

/// How an upload ended.
type Uploaded = Result<(), UploadError>;

/// How an attempt ends with its upload, before there is a response.
fn ended_by(uploaded: &Uploaded) -> Option<Attempt> {
    match uploaded {
        Err(UploadError::Client(reason)) => Some(Attempt::Refused(*reason)),
        Err(UploadError::BackendTimeout) => Some(failed(Reason::BackendStreamTimeout, Retry::Never, false)),
        // A backend that stops reading may still have an answer: wait for it.
        Err(UploadError::Backend) | Ok(()) => None,
    }
}

struct Exchange<'a, 'r, 'c, 's> {
    request: &'a Request<'r>,
    /// The attempts before this one.
    tries: &'a Tries,
    cell: &'a BackendCell,
    index: usize,
    timer: &'a Timer,
    reply: &'a mut Reply<'c>,
    scratch: &'a mut Scratch<'s>,
    try_began_us: u64,
    /// When there was a connection.
    began_us: u64,
    /// From then to the response's head.
    latency_us: u64,
}

impl<'a> Exchange<'a, '_, '_, '_> {
    /// Head and body go out in one write.
    async fn whole(&mut self, upstream: &Upstream, length: usize, buffer: &mut Vec<u8>) -> (Attempt, After) {
        let Request {
            head, bytes, pool, ..
        } = *self.request;
        let (timer, timeouts, stale) = (self.timer, &pool.config.timeouts, upstream.reused);
        self.write_head();
        let body = bytes.get(head.head_len..head.head_len + length);
        self.scratch
            .to_backend
            .extend_from_slice(body.unwrap_or_default());
        timer.arm(timeouts.stream_idle);
        if let Err(failure) = send(&upstream.stream, self.scratch.to_backend, timer, stale).await {
            return (Attempt::Failed(failure), After::Close);
        }
        let patience = Patience::for_head(timer);
        patience.begin(self.head_timeout(self.try_began_us));
        if let Err(no_head) = self.read_head(&upstream.stream, &patience, buffer).await {
            return (Attempt::Failed(no_head.failure(stale)), After::Close);
        }
        self.note_head();
        if self.scratch.response.status == 101 {
            return self.switch(buffer).await;
        }
        if self.misleads() {
            return self.refuse_to_mislead(buffer);
        }
        if self.declines(length <= pool.config.retries.replay_bytes as usize) {
            return self.decline(buffer);
        }
        if let Some(answered) = self.intercept(true, buffer).await {
            return answered;
        }
        let close = self.write_response(true, buffer);
        let patience = Patience::for_body(timer, timeouts.stream_idle);
        let relay = self.relay(&upstream.stream, &patience);
        let at = self.scratch.response.head_len;
        let relayed = relay.run(buffer, at, self.reply).await;
        self.finish(relayed, close)
    }

    /// Body and response move at the same time.
    async fn streaming(
        &mut self,
        upstream: &Upstream,
        body: &mut RequestBody<'_>,
        buffer: &mut Vec<u8>,
    ) -> (Attempt, After) {
        let Request {
            pool,
            shard,
            listener,
            ..
        } = *self.request;
        let (timer, timeouts, stale) = (self.timer, &pool.config.timeouts, upstream.reused);
        self.write_head();
        timer.arm(timeouts.stream_idle);
        if let Err(failure) = send(&upstream.stream, self.scratch.to_backend, timer, stale).await {
            return (Attempt::Failed(failure), After::Close);
        }
        timer.disarm();
        let upload_timer = shard.timers.timer().await;
        upload_timer.limit(Limits::of(self.request, self.reply.is_call()).total);
        let replay_bytes = pool.config.retries.replay_bytes;
        let replayable = Cell::new(body.is_replayable(replay_bytes));
        let upload = body.upload(
            Sink::Http1(&upstream.stream),
            listener,
            timeouts.stream_idle,
            (&upload_timer, &shard.timers),
            (replay_bytes, &replayable),
        );
        let mut upload = pin!(upload);
        let mut uploaded = None;
        // As long as it is sent the request, the backend owes no response.
        let patience = Patience::for_head(timer);
        let first_byte = self.head_timeout(shard.timers.recent_us());
        let ends = |result: &Uploaded| {
            patience.begin(first_byte);
            ended_by(result)
        };
        let reading = self.read_head(&upstream.stream, &patience, buffer);
        match beside(upload.as_mut(), &mut uploaded, ends, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(no_head)) => return (Attempt::Failed(no_head.failure(stale)), After::Close),
            Err(attempt) => return (attempt, After::Close),
        }
        self.note_head();
        if self.declines(replayable.get()) {
            let (attempt, after) = self.decline(buffer);
            // A backend that was sent half a request would take the next one for the other half.
            let sent_whole = matches!(uploaded, Some(Ok(())));
            return (attempt, if sent_whole { after } else { After::Close });
        }
        self.relay_beside(upstream, upload, uploaded, buffer).await
    }

    /// Relays the response while what is left of the body goes on its way.
    async fn relay_beside(
        &mut self,
        upstream: &Upstream,
        upload: Pin<&mut impl Future<Output = Uploaded>>,
        mut uploaded: Option<Uploaded>,
        buffer: &mut Vec<u8>,
    ) -> (Attempt, After) {
        let limit = self.request.pool.config.timeouts.stream_idle;
        let sent_whole = matches!(uploaded, Some(Ok(())));
        if let Some((attempt, after)) = self.intercept(sent_whole, buffer).await {
            return (attempt, if sent_whole { after } else { After::Close });
        }
        let mut close = self.write_response(sent_whole, buffer);
        let owed = if uploaded.is_some() { limit } else { Duration::ZERO };
        let patience = Patience::for_body(self.timer, owed);
        let relay = self.relay(&upstream.stream, &patience);
        let at = self.scratch.response.head_len;
        let relaying = relay.run(buffer, at, self.reply);
        let ends = |result: &Uploaded| {
            patience.begin(limit);
            clients_fault(result)
        };
        let relayed = beside(upload, &mut uploaded, ends, relaying).await;
        let relayed = relayed.unwrap_or_else(Err);
        let complete = matches!(uploaded, Some(Ok(())));
        close |= !complete;
        let (attempt, after) = self.finish(relayed, close);
        (attempt, if complete { after } else { After::Close })
    }

    fn write_head(&mut self) {
        let Request { outgoing, bytes, .. } = *self.request;
        let out = &mut *self.scratch.to_backend;
        out.clear();
        let via = self.request.via(&self.cell.address_text);
        forward::write_request(out, bytes, outgoing, &via, self.request.extra);
    }

    /// Reads up to the final response's head; interim ones go to the client at once.
    async fn read_head(
        &mut self,
        backend: &Stream,
        patience: &Patience<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), NoHead> {
        let timer = self.timer;
        let method = self.request.head.method;
        let mut interim = 0;
        self.scratch.response.reset();
        loop {
            let begun = interim > 0 || !buffer.is_empty();
            let no_head = |reason| NoHead {
                reason,
                begun,
                refused: false,
            };
            if !buffer.is_empty() {
                let response = &mut *self.scratch.response;
                match response.parse(buffer, method) {
                    Err(reason) => return Err(no_head(reason)),
                    Ok(Parsed::Complete) if response.status >= 200 => return Ok(()),
                    Ok(Parsed::Complete) if switch::agrees(self.request, response, buffer) => return Ok(()),
                    Ok(Parsed::Complete) => {
                        interim += 1;
                        if response.status == 101 || interim > MAX_INTERIM {
                            return Err(no_head(Reason::BadResponse));
                        }
                        patience.aside(self.pass_interim(buffer)).await?;
                        continue;
                    }
                    Ok(Parsed::Incomplete) => {}
                }
            }
            if buffer.capacity() == 0 {
                // The buffer comes with the bytes: a backend that thinks for long holds none.
                let readable = timer.bound(poll_fn(|cx| backend.poll_readable(cx)));
                let _ = unless_gone(self.reply, Unasked::Waits, readable).await?;
                *buffer = self.request.shard.buffers.take();
            } else if buffer.len() == buffer.capacity() {
                // Bounded by the parser, which refuses a header over its limit.
                buffer.reserve(crate::buffers::BUFFER_BYTES);
            }
            let read = timer.bound(backend.read_buf(buffer));
            match unless_gone(self.reply, Unasked::Waits, read).await? {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Err(no_head(Reason::BackendReset)),
                Err(Expired) => {
                    let total = timer.limit_passed();
                    let reason = match total {
                        true => Reason::TotalTimeout,
                        false => self.late(),
                    };
                    return Err(no_head(reason));
                }
            }
        }
    }

    async fn pass_interim(&mut self, buffer: &mut Vec<u8>) -> Result<(), NoHead> {
        let response = &*self.scratch.response;
        let wanted = response.status != 100 || self.request.head.expect_continue;
        if wanted && self.reply.interim(buffer, response).await.is_err() {
            return Err(Gone.into());
        }
        buffer.drain(..response.head_len);
        Ok(())
    }

    /// The head is here: count it, and tell the balancer how the backend does.
    fn note_head(&mut self) {
        let shard = self.request.shard;
        let counters = self.cell.counters.of(shard.index);
        let latency_us = shard.timers.now_us().saturating_sub(self.began_us);
        let status = self.scratch.response.status;
        counters.first_byte.record(latency_us);
        if let Some(class) = counters.classes.get(class_of(status)) {
            class.add(1);
        }
        if status >= 500 {
            counters.failures.add(1);
        }
        self.latency_us = latency_us;
        if let Some(passage) = self.request.passage {
            passage.answered(status);
        }
        self.request.story.note_try(|this| {
            this.status = status;
            this.first_byte_us = Some(shard.timers.recent_us().saturating_sub(this.began_us));
        });
        let failure = match status {
            502 => "status 502",
            503 => "status 503",
            504 => "status 504",
            _ => return,
        };
        record(self.request, self.index, Outcome::Failure { what: failure });
    }

    /// How long the response's head may take from now, in an attempt that began then.
    fn head_timeout(&self, began_us: u64) -> Duration {
        let first_byte = Limits::of(self.request, self.reply.is_call()).first_byte;
        let per_try = self.request.pool.config.retries.per_try_timeout;
        if per_try.is_zero() {
            return first_byte;
        }
        let spent_us = self.request.shard.timers.recent_us().saturating_sub(began_us);
        // At least something: nothing would mean no limit.
        let left = per_try.saturating_sub(Duration::from_micros(spent_us));
        let left = left.max(Duration::from_millis(1));
        if first_byte.is_zero() {
            left
        } else {
            first_byte.min(left)
        }
    }

    /// Which of the two limits on the response's head has passed.
    fn late(&self) -> Reason {
        let per_try = self.request.pool.config.retries.per_try_timeout;
        let first_byte = Limits::of(self.request, self.reply.is_call()).first_byte;
        match !per_try.is_zero() && (first_byte.is_zero() || per_try < first_byte) {
            true => Reason::TryTimeout,
            false => Reason::FirstByteTimeout,
        }
    }

    /// Whether this response is dropped and the request tried elsewhere.
    fn declines(&self, replayable: bool) -> bool {
        let (request, status) = (self.request, self.scratch.response.status);
        let now_us = request.shard.timers.recent_us();
        self.tries
            .declines(request, self.index, status, replayable, now_us)
    }

    /// Drops the response; the connection is kept where all of it is here.
    fn decline(&self, buffer: &[u8]) -> (Attempt, After) {
        let response = &*self.scratch.response;
        let body = buffer.len().saturating_sub(response.head_len) as u64;
        let whole = actions::is_whole(response, body);
        if !matches!(response.status, 502..=504) {
            let latency_us = self.latency_us;
            record(self.request, self.index, Outcome::Success { latency_us });
        }
        let attempt = failed(Reason::BackendStatus, Retry::Never, false);
        (attempt, After::keep_if(whole && response.keep_alive))
    }

    /// Tells the client where its session is, or learns it.
    fn tell_session(&mut self, buffer: &[u8]) {
        let (request, scratch) = (self.request, &mut *self.scratch);
        let extra = &mut *scratch.response_extra;
        request
            .session
            .answered(self.index, buffer, scratch.response, extra, request.is_secure());
    }

    /// Writes the response's head for the client. `uploaded`: nothing of the request is left to take. Says
    /// whether the client's connection ends after this.
    fn write_response(&mut self, uploaded: bool, buffer: &[u8]) -> bool {
        let close = !(uploaded && self.request.keep());
        observe::drop_echo(self.request.observing, self.scratch.response, buffer);
        self.tell_session(buffer);
        if let Some(route) = self.request.route {
            return self.write_edited(route, close, buffer);
        }
        let Scratch {
            response,
            response_extra,
            ..
        } = &mut *self.scratch;
        clock::add_date(response, buffer, response_extra);
        self.reply.head(buffer, response, response_extra, close)
    }

    /// Writes it as the route wants it.
    fn write_edited(&mut self, route: &Route, close: bool, buffer: &[u8]) -> bool {
        let Scratch {
            response,
            response_extra,
            ..
        } = &mut *self.scratch;
        let Request {
            head, bytes, shard, ..
        } = *self.request;
        let asked = (head, bytes);
        if let Some(buffering) = &route.actions.buffer_responses
            && actions::may_hold(response, buffer)
            && !self.reply.is_call()
        {
            self.reply
                .hold(usize::try_from(buffering.memory).unwrap_or(usize::MAX));
        }
        let encoder =
            actions::edit_response(route, asked, (response, buffer), response_extra, &shard.encoders);
        clock::add_date(response, buffer, response_extra);
        let Some(encoder) = encoder else {
            return self.reply.head(buffer, response, response_extra, close);
        };
        // What comes of it has another length, which nobody knows yet.
        let framing = std::mem::replace(&mut response.framing, Framing::UntilClose);
        response.content_length = None;
        let close = self
            .reply
            .encoded_head(buffer, response, response_extra, close, encoder);
        response.framing = framing;
        close
    }

    /// Answers with an own page in the place of a failure that the backend answered; `None` when it is to be
    /// passed on.
    async fn intercept(&mut self, uploaded: bool, buffer: &[u8]) -> Option<(Attempt, After)> {
        // A call is answered in its own terms: by its backend here.
        let route = self.request.route.filter(|_| !self.reply.is_call())?;
        let scratch = &mut *self.scratch;
        if !actions::intercept(route, scratch.response, buffer, scratch.response_extra) {
            return None;
        }
        // The backend answered: where the session is holds as it does beside its own page.
        self.tell_session(buffer);
        let Scratch {
            response,
            response_extra,
            ..
        } = &mut *self.scratch;
        let whole = actions::is_whole(response, buffer.len().saturating_sub(response.head_len) as u64);
        let close = !(uploaded && self.request.keep());
        let page = route.actions.error_pages.page(response.status)?;
        let answer = Answer {
            status: response.status,
            content_type: Some(page.content_type().as_bytes()),
            body: &page.bytes,
            ..Answer::default()
        };
        let sent = self.reply.answer(&answer, response_extra, close).await;
        let (attempt, after) = self.finish(sent.map(|()| whole), close);
        Some((attempt, after))
    }

    /// What relays the response's body. `stream_idle` bounds the pauses of the backend.
    fn relay<'t>(&self, backend: &'t Stream, patience: &'t Patience<'t>) -> Relay<'t>
    where
        'a: 't,
    {
        Relay {
            shard: self.request.shard,
            timer: self.timer,
            patience,
            backend,
            framing: self.scratch.response.framing,
        }
    }

    /// What the attempt came to, and whether the backend's connection can be used again.
    fn finish(&mut self, relayed: Result<bool, Broken>, close: bool) -> (Attempt, After) {
        let shard = self.request.shard;
        let status = self.scratch.response.status;
        let sent = self.reply.sent();
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
                let reusable = exact && self.scratch.response.keep_alive;
                let keep = !close;
                (Attempt::Answered { status, keep, sent }, After::keep_if(reusable))
            }
            Err(Broken::Client(reason) | Broken::Backend(reason)) => {
                (Attempt::Broken { status, reason, sent }, After::Close)
            }
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
async fn send(backend: &Stream, out: &[u8], timer: &Timer, stale: bool) -> Result<(), Failure> {
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
    match timer.bound(backend.flush()).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Failure {
            reason: Reason::BackendReset,
            retry: Retry::IfIdempotent,
            stale,
        }),
    }
}
