//! One request from its parsed head to its account: route, choose, try, try elsewhere when that is safe, answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use balance::Outcome;
use http::answer::Answer;
use http::forward::{self, Upgrade, Via};
use http::{FieldList, RequestHead, ResponseHead};
use model::config::{HealthCheck, Listener, Route, RouteTimeouts};
use model::reason::{Fault, Reason};

use crate::DataplaneEvent;
use crate::acting;
use crate::attempt::{self, Attempt, Body, Scratch};
use crate::buffers::BUFFER_BYTES;
use crate::call::{self, Limits};
use crate::circuit::{self, Passage};
use crate::counters::class_of;
use crate::keys::Sender;
use crate::limits;
use crate::observe::{self, Observing, Told};
use crate::origin::Origin;
use crate::reply::Reply;
use crate::routing;
use crate::serving::{LbCell, ListenerServing, PoolServing};
use crate::shard::{Shard, Slot};
use crate::slot;
use crate::sticky::Session;
use crate::story::Story;
use crate::timers::Timer;
use crate::tls;
use crate::tries::Tries;
use crate::tunnel::Tunnel;
use crate::upgrade;

/// Where an authority looks for the answer to its challenge (RFC 8555 section 8.3).
const CHALLENGE_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// What a request is served with, borrowed from the shard for as long as it takes.
#[derive(Debug)]
pub(crate) struct Work {
    /// What the client sent: the head, what came with it, and what follows.
    pub(crate) buffer: Vec<u8>,
    pub(crate) request: RequestHead,
    /// What goes to the client.
    pub(crate) out: Vec<u8>,
    pub(crate) rest: Rest,
}

/// The part of [`Work`] that the exchange alone uses.
#[derive(Debug)]
pub(crate) struct Rest {
    response: ResponseHead,
    to_backend: Vec<u8>,
    /// Fields added to the forwarded request.
    pub(crate) request_extra: FieldList,
    /// Fields added to the response, whoever gives it.
    pub(crate) response_extra: FieldList,
    pub(crate) story: Story,
    /// The head for the backend, where a route makes it another than the client's.
    pub(crate) outgoing: RequestHead,
}

/// Most bytes of a buffer that is kept from request to request: what it takes to relay in pieces.
const KEPT_BYTES: usize = 64 * 1024;

impl Default for Work {
    fn default() -> Self {
        Self::with_buffer(BUFFER_BYTES)
    }
}

impl Work {
    /// A work area whose buffer has this capacity.
    pub(crate) fn with_buffer(capacity: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(capacity),
            request: RequestHead::new(),
            out: Vec::with_capacity(4096),
            rest: Rest {
                response: ResponseHead::new(),
                to_backend: Vec::with_capacity(4096),
                request_extra: FieldList::new(),
                response_extra: FieldList::new(),
                story: Story::default(),
                outgoing: RequestHead::new(),
            },
        }
    }

    /// Lets go of buffers that grew for a message taken whole.
    pub(crate) fn slim(&mut self) {
        for buffer in [&mut self.out, &mut self.rest.to_backend] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::with_capacity(4096);
            }
        }
    }
}

/// The client's side of one request.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) timer: &'a Timer,
    pub(crate) reply: Reply<'a>,
    pub(crate) body: Body<'a>,
    /// What its connection becomes after this request.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may send another request.
    KeepAlive,
    /// It ends now.
    Close,
    /// It ends once the client has had time to read the answer.
    Linger,
}

/// A request with all that decisions about it need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) slot: &'a Slot,
    pub(crate) observing: &'a Observing,
    pub(crate) listener: &'a Listener,
    pub(crate) lb: &'a Arc<LbCell>,
    pub(crate) pool: &'a PoolServing,
    /// Timeouts that the route has otherwise than the pool.
    pub(crate) otherwise: Option<&'a RouteTimeouts>,
    pub(crate) session: &'a Session<'a>,
    pub(crate) head: &'a RequestHead,
    /// What the backend gets in the place of `head`.
    pub(crate) outgoing: &'a RequestHead,
    /// What `head` was parsed from.
    pub(crate) bytes: &'a [u8],
    /// Its route, when that does anything besides choosing a pool.
    pub(crate) route: Option<&'a Route>,
    /// Fields added to the forwarded request.
    pub(crate) extra: &'a FieldList,
    pub(crate) story: &'a Story,
    pub(crate) started_us: u64,
    /// What the connection, or the stream, is to switch to.
    pub(crate) upgrade: Option<Upgrade<'a>>,
    /// By leave of the pool's circuit breaker, where there is one.
    pub(crate) passage: Option<&'a Passage<'a>>,
    origin: &'a Origin,
    trusted: bool,
}

impl Request<'_> {
    /// Whether the client's connection may be kept after this request.
    pub(crate) fn keep(&self) -> bool {
        self.head.keep_alive && !self.slot.closing()
    }

    /// Whether the client speaks TLS, to us or to a proxy that we trust.
    pub(crate) fn is_secure(&self) -> bool {
        let told = || forward::forwarded_proto(self.bytes, self.head) == Some(b"https");
        self.origin.tls.is_some() || (self.trusted && told())
    }

    /// What the backend is told about where this came from.
    pub(crate) fn via<'b>(&'b self, backend: &'b str) -> Via<'b> {
        Via {
            client: self.origin.peer.ip(),
            client_text: self.origin.peer_text.as_bytes(),
            trusted: self.trusted,
            scheme: self.origin.scheme(),
            backend: backend.as_bytes(),
            upgrade: self.upgrade,
            trace: self.story.trace_of_try(),
        }
    }
}

/// How a request ended, for its account.
pub(crate) struct Ended {
    pub(crate) next: Next,
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) sent: u64,
}

/// Serves the request `head`, parsed from `bytes`.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    serving: &ListenerServing,
    slot: &Slot,
    head: &mut RequestHead,
    bytes: &[u8],
    client: &mut Client<'_>,
    rest: &mut Rest,
) -> Next {
    let started_us = shard.timers.now_us();
    let trusted = is_trusted(&serving.config, client.origin.peer.ip());
    rest.begin();
    let extra = (&mut rest.request_extra, &mut rest.response_extra);
    observe::begin(
        shard,
        &serving.observing,
        head,
        bytes,
        trusted,
        &rest.story,
        extra,
    );
    if let Some(tls) = &client.origin.tls {
        tls.write_identity(head, bytes, &mut rest.request_extra);
    }
    if call::is_call(head, bytes) {
        client.reply.answers_call();
    }
    // A body that is already here needs nobody's permission.
    head.expect_continue &= matches!(client.body, Body::Streaming(_));
    let arrived = Arrived {
        shard,
        serving,
        slot,
        head,
        bytes,
        started_us,
        trusted,
    };
    let ended = route(&arrived, client, rest).await;
    acting::finish(&arrived, client, rest);
    let body = match &client.body {
        Body::Whole(length) => *length as u64,
        Body::Streaming(body) => body.received(),
    };
    let told = Told {
        serving,
        origin: client.origin,
        trusted,
        story: &rest.story,
        head: Some(head),
        bytes,
        protocol: client.reply.protocol(),
        status: ended.status,
        reason: ended.reason,
        started_us,
        ended_us: match rest.story.last_try() {
            Some(_) => shard.timers.recent_us(),
            // Nothing has read the clock since the beginning.
            None => shard.timers.now_us(),
        },
        received: head.head_len as u64 + body,
        sent: ended.sent,
    };
    account(shard, &serving.lb.cell, &told);
    client.timer.limit(std::time::Duration::ZERO);
    ended.next
}

/// A request that has arrived, before it is known where it goes.
pub(crate) struct Arrived<'a> {
    pub(crate) shard: &'a Rc<Shard>,
    pub(crate) serving: &'a ListenerServing,
    slot: &'a Slot,
    pub(crate) head: &'a RequestHead,
    pub(crate) bytes: &'a [u8],
    started_us: u64,
    pub(crate) trusted: bool,
}

impl<'a> Arrived<'a> {
    /// Whether the client's connection may be kept, as far as head and listener go.
    pub(crate) fn keep(&self) -> bool {
        self.head.keep_alive && !self.slot.closing()
    }

    fn sender(&self, origin: &Origin) -> Sender<'a> {
        Sender {
            head: self.head,
            bytes: self.bytes,
            listener: &self.serving.config,
            peer: origin.peer.ip(),
            trusted: self.trusted,
        }
    }
}

/// Asks the rate limits of the route; how the request ended, when one refused it.
async fn admit(
    arrived: &Arrived<'_>,
    route: Option<usize>,
    client: &mut Client<'_>,
    rest: &mut Rest,
) -> Option<Ended> {
    let limits = arrived.serving.lb.route_limits.get(route?)?;
    if limits.is_empty() {
        return None;
    }
    let sender = arrived.sender(client.origin);
    let extra = &mut rest.response_extra;
    let wait_s = limits::admit(limits, &sender, arrived.shard, arrived.started_us, extra).err()?;
    let whole = matches!(client.body, Body::Whole(_));
    let close = !(whole && arrived.keep());
    Some(answer(client, Reason::RateLimited, Some(wait_s), extra, close).await)
}

/// Asks the limits of the route and does what it does before a pool is asked; how the request ended, when it did.
async fn before_pool(
    arrived: &Arrived<'_>,
    (route, acting): (Option<usize>, Option<&Route>),
    client: &mut Client<'_>,
    rest: &mut Rest,
) -> Option<Ended> {
    if let Some(ended) = admit(arrived, route, client, rest).await {
        return Some(ended);
    }
    if acting.is_none() && !arrived.serving.acts() {
        return None;
    }
    acting::act(arrived, acting, client, rest).await
}

/// What is decided without any route.
async fn before_route(arrived: &Arrived<'_>, client: &mut Client<'_>, rest: &Rest) -> Option<Ended> {
    let host = arrived.head.host_name(arrived.bytes);
    if tls::is_misdirected(arrived.serving, client.origin, host) {
        let extra = &rest.response_extra;
        return Some(refuse_read(arrived, client, Reason::MisdirectedRequest, extra).await);
    }
    answer_challenge(arrived, client, rest).await
}

/// Finds where the request goes, and serves it from there.
async fn route(arrived: &Arrived<'_>, client: &mut Client<'_>, rest: &mut Rest) -> Ended {
    let Arrived {
        shard,
        serving,
        slot,
        head,
        bytes,
        started_us,
        trusted,
    } = *arrived;
    if let Some(ended) = before_route(arrived, client, rest).await {
        return ended;
    }
    let lb = &serving.lb;
    let (route, pool) = routing::route(shard, serving, head, bytes, client.origin.peer.ip());
    rest.story.route.set(route);
    let acting = route.and_then(|r| lb.acting(r));
    if let Some(ended) = before_pool(arrived, (route, acting), client, rest).await {
        return ended;
    }
    rest.story.pool.set(pool);
    let Rest {
        response,
        to_backend,
        request_extra,
        response_extra,
        story,
        outgoing,
    } = rest;
    let Some(pool) = pool.and_then(|p| lb.pools.get(p)) else {
        return refuse_read(arrived, client, Reason::NoRoute, response_extra).await;
    };
    let upgrade = upgrade::of(shard, head, bytes);
    if upgrade.is_some_and(|upgrade| !upgrade::is_allowed(&serving.config, head, upgrade.protocol)) {
        // Its client may have gone on in the other protocol already.
        return answer(client, Reason::UpgradeUnsupported, None, response_extra, true).await;
    }
    let session = Session::find(shard, pool, &arrived.sender(client.origin));
    let request = Request {
        shard,
        slot,
        observing: &serving.observing,
        listener: &serving.config,
        lb: &lb.cell,
        pool,
        otherwise: route.and_then(|r| lb.config.routes.get(r)).map(|r| &r.timeouts),
        session: &session,
        head,
        outgoing: acting.map_or(head, |_| outgoing),
        bytes,
        route: acting,
        extra: request_extra,
        story,
        started_us,
        upgrade,
        passage: None,
        origin: client.origin,
        trusted,
    };
    let scratch = &mut Scratch {
        to_backend,
        response,
        response_extra,
    };
    guarded(&request, client, scratch).await
}

/// Answers a request that goes nowhere; the connection is kept when all of the request has come.
pub(crate) async fn refuse_read(
    arrived: &Arrived<'_>,
    client: &mut Client<'_>,
    reason: Reason,
    extra: &FieldList,
) -> Ended {
    let keep = arrived.keep() && matches!(client.body, Body::Whole(_));
    answer(client, reason, None, extra, !keep).await
}

/// Tells an authority what it asks to see (RFC 8555 section 8.3), whatever the routes say.
async fn answer_challenge(arrived: &Arrived<'_>, client: &mut Client<'_>, rest: &Rest) -> Option<Ended> {
    let token = arrived.head.path(arrived.bytes).strip_prefix(CHALLENGE_PATH)?;
    let challenges = &arrived.shard.shared.registry.challenges;
    let body = challenges.http(std::str::from_utf8(token).ok()?)?;
    let own = Answer {
        status: 200,
        content_type: Some(b"application/octet-stream"),
        body: body.as_bytes(),
        ..Answer::default()
    };
    Some(answer_with(arrived, client, &own, &rest.response_extra).await)
}

/// Answers with a response of our own; the connection is kept when all of the request has come.
pub(crate) async fn answer_with(
    arrived: &Arrived<'_>,
    client: &mut Client<'_>,
    own: &Answer<'_>,
    extra: &FieldList,
) -> Ended {
    let close = !(arrived.keep() && matches!(client.body, Body::Whole(_)));
    let sent = client.reply.answer(own, extra, close).await;
    Ended {
        next: match sent {
            Ok(()) if close => Next::Linger,
            Ok(()) => Next::KeepAlive,
            Err(_) => Next::Close,
        },
        status: own.status,
        reason: None,
        sent: client.reply.sent(),
    }
}

impl Rest {
    /// Forgets the request before.
    fn begin(&mut self) {
        self.request_extra.clear();
        self.response_extra.clear();
        self.story.begin();
    }
}

/// Enters a request into the counters of its load balancer.
fn account(shard: &Shard, lb: &LbCell, ended: &Told<'_>) {
    let counters = lb.counters.of(shard.index);
    let class = class_of(ended.status);
    if let Some(class) = counters.classes.get(class) {
        class.add(1);
    }
    let route = ended.story.route.get();
    let of_route = route.and_then(|r| ended.serving.lb.route_counters.get(r));
    if let Some(class) = of_route.and_then(|c| c.of(shard.index).classes.get(class)) {
        class.add(1);
    }
    if let Some(reason) = ended.reason {
        counters.reason(reason);
        tracing::debug!(load_balancer = %lb.name, status = ended.status, reason = reason.code(), "request failed");
    }
    counters
        .total
        .record(ended.ended_us.saturating_sub(ended.started_us));
    counters.received_bytes.add(ended.received);
    counters.sent_bytes.add(ended.sent);
    shard.observer.tell(shard, ended);
}

/// Answers a request that could not even be parsed; the connection ends.
pub(crate) async fn refuse(
    shard: &Shard,
    serving: &ListenerServing,
    origin: &Origin,
    bytes: &[u8],
    reply: &mut Reply<'_>,
    reason: Reason,
) -> Next {
    let started_us = shard.timers.now_us();
    let (story, mut extra) = (Story::default(), FieldList::new());
    observe::begin_unread(shard, &serving.observing, &story, &mut extra);
    let answered = reply.failure(reason, None, &extra, true).await;
    let told = Told {
        serving,
        origin,
        trusted: false,
        story: &story,
        head: None,
        bytes,
        protocol: reply.protocol(),
        status: reason.status(),
        reason: Some(reason),
        started_us,
        ended_us: shard.timers.now_us(),
        received: bytes.len() as u64,
        sent: reply.sent(),
    };
    account(shard, &serving.lb.cell, &told);
    match answered {
        Ok(()) => Next::Linger,
        Err(_) => Next::Close,
    }
}

/// Enters a request that the client abandoned while it was served. What ran for it has been dropped.
pub(crate) fn abandoned(
    shard: &Shard,
    serving: &ListenerServing,
    head: &RequestHead,
    bytes: &[u8],
    client: &Client<'_>,
    rest: &Rest,
    started_us: u64,
) {
    let body = match &client.body {
        Body::Whole(length) => *length as u64,
        Body::Streaming(body) => body.received(),
    };
    let told = Told {
        serving,
        origin: client.origin,
        trusted: is_trusted(&serving.config, client.origin.peer.ip()),
        story: &rest.story,
        head: Some(head),
        bytes,
        protocol: client.reply.protocol(),
        status: Reason::ClientGone.status(),
        reason: Some(Reason::ClientGone),
        started_us,
        ended_us: shard.timers.now_us(),
        received: head.head_len as u64 + body,
        sent: client.reply.sent(),
    };
    account(shard, &serving.lb.cell, &told);
}

/// Enters a request of HTTP/2 that was malformed: its stream was reset, and nothing answered.
pub(crate) fn malformed(
    shard: &Shard,
    serving: &ListenerServing,
    origin: &Origin,
    bytes: &[u8],
    reason: Reason,
) {
    let now_us = shard.timers.now_us();
    let (story, mut extra) = (Story::default(), FieldList::new());
    observe::begin_unread(shard, &serving.observing, &story, &mut extra);
    let told = Told {
        serving,
        origin,
        trusted: false,
        story: &story,
        head: None,
        bytes,
        protocol: "HTTP/2.0",
        status: 0,
        reason: Some(reason),
        started_us: now_us,
        ended_us: now_us,
        received: bytes.len() as u64,
        sent: 0,
    };
    account(shard, &serving.lb.cell, &told);
}

fn is_trusted(listener: &Listener, peer: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|net| net.contains(peer))
}

/// Forwards the request unless the circuit breaker of its pool is open, and tells it how that went.
async fn guarded(request: &Request<'_>, client: &mut Client<'_>, scratch: &mut Scratch<'_>) -> Ended {
    let passage = match circuit::enter(request) {
        Ok(passage) => passage,
        Err(after_s) => {
            let close = !(matches!(client.body, Body::Whole(_)) && request.keep());
            let extra = &*scratch.response_extra;
            return answer(client, Reason::CircuitOpen, Some(after_s), extra, close).await;
        }
    };
    let permitted = Request {
        passage: passage.as_ref(),
        ..*request
    };
    let ended = forward(&permitted, client, scratch).await;
    if let Some(passage) = passage {
        passage.end(ended.status, ended.reason);
    }
    ended
}

/// Tries backends until one answers or no further try is allowed.
async fn forward(request: &Request<'_>, client: &mut Client<'_>, scratch: &mut Scratch<'_>) -> Ended {
    let Request {
        shard, pool, story, ..
    } = *request;
    let key = key_of(request);
    set_limits(request, client);
    let budget = pool.config.retries.budget;
    pool.balancer.pool().note_request(request.started_us, budget);
    let mut tries = Tries::default();
    let fields = scratch.response_extra.len();
    loop {
        let wanted = tries.wanted(request, key, shard.timers.recent_us());
        let (index, in_flight) = match slot::take(request, client, wanted).await {
            Ok(slot) => slot,
            Err(reason) => {
                let reason = tries.instead_of(reason, story);
                return give_up(request, client, scratch, reason).await;
            }
        };
        request.session.begin(index);
        story.session.set(request.session.outcome(index));
        let attempt = attempt::run(request, (index, in_flight), &tries, client, scratch).await;
        story.note_try(|last| attempt.note(last, shard.timers.recent_us()));
        let failure = match attempt {
            Attempt::Failed(failure) => failure,
            Attempt::Refused(reason) => return give_up(request, client, scratch, reason).await,
            Attempt::Answered { status, keep, sent } => {
                note_session(request, index);
                let next = if keep { Next::KeepAlive } else { Next::Linger };
                return Ended {
                    next,
                    status,
                    reason: None,
                    sent,
                };
            }
            Attempt::Broken { status, reason, sent } => {
                // A response that was begun in time may be slow because its client is.
                if reason != Reason::TotalTimeout {
                    record_failure(request, index, reason);
                }
                if !client.reply.has_begun() && reason.fault() == Fault::Backend {
                    // What was to be said of its response is not true of ours.
                    scratch.response_extra.truncate(fields);
                    return give_up(request, client, scratch, reason).await;
                }
                client.reply.break_off();
                return Ended {
                    next: Next::Close,
                    status,
                    reason: Some(reason),
                    sent,
                };
            }
        };
        if !failure.stale {
            record_failure(request, index, failure.reason);
        }
        let now_us = shard.timers.now_us();
        let over = client.timer.limit_passed();
        if over {
            story.note_try(|last| last.then = Some("the request's total time is over"));
        }
        if over || !tries.again(request, &client.body, index, failure, now_us) {
            return give_up(request, client, scratch, failure.reason).await;
        }
    }
}

/// Puts the time that the request has in force.
fn set_limits(request: &Request<'_>, client: &mut Client<'_>) {
    let limits = Limits::of(request, client.reply.is_call());
    client.timer.limit(limits.total);
    if let Body::Streaming(body) = &mut client.body
        && client.reply.is_call()
    {
        body.may_pause(limits.idle);
    }
}

/// Counts what became of the request's session.
fn note_session(request: &Request<'_>, index: usize) {
    let Some(outcome) = request.session.outcome(index) else {
        return;
    };
    let counters = request.pool.cell.counters.of(request.shard.index);
    if let Some(counter) = counters.sessions.get(usize::from(outcome)) {
        counter.add(1);
    }
}

/// Counts a failure of the member at `index`; what the client did is nobody else's failure.
fn record_failure(request: &Request<'_>, index: usize, reason: Reason) {
    let Request { shard, pool, .. } = *request;
    if reason.fault() != Fault::Backend {
        return;
    }
    if let Some(cell) = pool.backends.get(index) {
        cell.counters.of(shard.index).failures.add(1);
    }
    record(request, index, Outcome::Failure { what: reason.words() });
}

/// Tells the balancer what an attempt met, and the process when that ejects the backend.
pub(crate) fn record(request: &Request<'_>, index: usize, outcome: Outcome) {
    let Request { shard, pool, .. } = *request;
    if let Some(ejected) = pool.balancer.record(index, outcome, shard.timers.recent_us()) {
        shard.event(DataplaneEvent::Ejected(ejected));
    }
}

/// Answers with the reason why nothing better could be answered.
async fn give_up(
    request: &Request<'_>,
    client: &mut Client<'_>,
    scratch: &Scratch<'_>,
    reason: Reason,
) -> Ended {
    let whole = match &client.body {
        Body::Whole(_) => true,
        Body::Streaming(body) => body.done(),
    };
    let retry_after = match reason {
        Reason::NoBackend => Some(retry_after_s(request.pool)),
        reason if reason.is_of_queue() => Some(request.pool.balancer.pool().retry_after_s()),
        _ => None,
    };
    request.shard.timers.now_us();
    client.timer.limit(std::time::Duration::ZERO);
    // Who sends no more needs no connection.
    let close = !(whole && request.keep()) || reason == Reason::QueueAbandoned;
    answer(client, reason, retry_after, scratch.response_extra, close).await
}

/// When a backend may be back: the next check decides.
fn retry_after_s(pool: &PoolServing) -> u32 {
    let default = HealthCheck::default();
    let check = pool.config.health.as_ref().unwrap_or(&default);
    u32::try_from(check.interval.as_millis().div_ceil(1000))
        .unwrap_or(60)
        .max(1)
}

pub(crate) async fn answer(
    client: &mut Client<'_>,
    reason: Reason,
    retry_after_s: Option<u32>,
    extra: &FieldList,
    close: bool,
) -> Ended {
    let sent = client.reply.failure(reason, retry_after_s, extra, close).await;
    let next = match sent {
        Ok(()) if reason.status() == 0 => Next::Close,
        Ok(()) if close => Next::Linger,
        Ok(()) => Next::KeepAlive,
        Err(_) => Next::Close,
    };
    Ended {
        next,
        status: reason.status(),
        reason: Some(reason),
        sent: client.reply.sent(),
    }
}

fn key_of(request: &Request<'_>) -> u64 {
    let Some(key) = request.pool.balancer.hash_key() else {
        return 0;
    };
    routing::hash_of(key, request.head, request.bytes, || client_address(request))
}

fn client_address(request: &Request<'_>) -> IpAddr {
    let trusted = &request.listener.trusted_proxies;
    match request.trusted {
        true => forward::client_address(request.bytes, request.head, request.origin.peer.ip(), trusted),
        false => request.origin.peer.ip(),
    }
}
