//! One request from its parsed head to its account: route, choose, try, try elsewhere when that is safe, answer.

use std::net::IpAddr;
use std::rc::Rc;

use balance::Outcome;
use http::forward::{self, Via};
use http::{Framing, Method, RequestHead, ResponseHead, Version};
use model::config::{HashKey, HealthCheck, Listener};
use model::reason::{Fault, Reason};
use tokio::io::AsyncWriteExt;

use crate::DataplaneEvent;
use crate::attempt::{self, Attempt, Body, Failure, Retry};
use crate::buffers::BUFFER_BYTES;
use crate::connection::Client;
use crate::counters::class_of;
use crate::request_body::RequestBody;
use crate::serving::{LbCell, ListenerServing, PoolServing};
use crate::shard::{Shard, Slot};

/// Attempts one request may make in all, whatever the configuration and the staleness of connections.
const MAX_ATTEMPTS: usize = 8;

/// What a request is served with, borrowed from the shard for as long as it takes.
#[derive(Debug)]
pub(crate) struct Work {
    /// What the client sent: the head, what came with it, and what follows.
    pub(crate) buffer: Vec<u8>,
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) out: Vec<u8>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            buffer: Vec::with_capacity(BUFFER_BYTES),
            request: RequestHead::new(),
            response: ResponseHead::new(),
            out: Vec::with_capacity(4096),
        }
    }
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
    pub(crate) listener: &'a Listener,
    pub(crate) pool: &'a PoolServing,
    pub(crate) head: &'a RequestHead,
    /// What `head` was parsed from.
    pub(crate) bytes: &'a [u8],
    pub(crate) started_us: u64,
    peer: IpAddr,
    peer_text: &'a str,
    trusted: bool,
}

impl Request<'_> {
    /// Whether the client's connection may be kept after this request.
    pub(crate) fn keep(&self) -> bool {
        self.head.keep_alive && !self.slot.closing()
    }

    /// What the backend is told about where this came from.
    pub(crate) fn via<'b>(&'b self, backend: &'b str) -> Via<'b> {
        Via {
            client: self.peer,
            client_text: self.peer_text.as_bytes(),
            trusted: self.trusted,
            scheme: b"http",
            backend: backend.as_bytes(),
        }
    }
}

/// How a request ended, for its account.
struct Ended {
    next: Next,
    status: u16,
    reason: Option<Reason>,
    sent: u64,
}

/// Serves the request whose head is in `work`; leaves in its buffer what follows the request.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    serving: &ListenerServing,
    slot: &Slot,
    client: &mut Client,
    work: &mut Work,
) -> Next {
    let Work {
        buffer,
        request: head,
        response,
        out,
    } = work;
    let started_us = shard.timers.now_us();
    let lb = &serving.lb;
    let (mut body, body_end) = body_of(shard, head, buffer, serving);
    // A body that is already here needs nobody's permission.
    head.expect_continue &= matches!(body, Body::Streaming(_));
    let route = lb.router.find(head.host_name(buffer), head.path(buffer));
    let pool = route
        .and_then(|r| lb.route_pools.get(r))
        .and_then(|p| lb.pools.get(*p));
    let ended = match pool {
        None => {
            let close = !(head.keep_alive && matches!(body, Body::Whole(_))) || slot.closing();
            answer(client, &serving.config, out, head, Reason::NoRoute, None, close).await
        }
        Some(pool) => {
            let peer_text = client.peer_text.clone();
            let request = Request {
                shard,
                slot,
                listener: &serving.config,
                pool,
                head,
                bytes: buffer,
                started_us,
                peer: client.peer.ip(),
                peer_text: &peer_text,
                trusted: is_trusted(&serving.config, client.peer.ip()),
            };
            forward(&request, client, response, out, &mut body).await
        }
    };
    let streamed = match &body {
        Body::Whole(_) => 0,
        Body::Streaming(body) => body.received(),
    };
    account(shard, &lb.cell, &ended, started_us, body_end as u64 + streamed);
    client.timer.limit(std::time::Duration::ZERO);
    match body {
        Body::Whole(_) => {
            buffer.drain(..body_end);
        }
        Body::Streaming(body) => {
            let rest = body.into_rest();
            shard.buffers.give(std::mem::replace(buffer, rest));
        }
    }
    ended.next
}

/// Enters a request into the counters of its load balancer.
fn account(shard: &Shard, lb: &LbCell, ended: &Ended, started_us: u64, received: u64) {
    let counters = lb.counters.of(shard.index);
    if let Some(class) = counters.classes.get(class_of(ended.status)) {
        class.add(1);
    }
    if let Some(reason) = ended.reason {
        counters.reason(reason);
        tracing::debug!(load_balancer = %lb.name, status = ended.status, reason = reason.code(), "request failed");
    }
    counters
        .total
        .record(shard.timers.recent_us().saturating_sub(started_us));
    counters.received_bytes.add(received);
    counters.sent_bytes.add(ended.sent);
}

/// Answers a request that could not even be parsed; the connection ends.
pub(crate) async fn refuse(
    shard: &Shard,
    serving: &ListenerServing,
    client: &mut Client,
    work: &mut Work,
    reason: Reason,
) -> Next {
    let counters = serving.lb.cell.counters.of(shard.index);
    counters.reason(reason);
    if let Some(class) = counters.classes.get(class_of(reason.status())) {
        class.add(1);
    }
    work.out.clear();
    forward::write_failure(&mut work.out, reason, Method::Other, Version::Http11, true, None);
    send(client, &work.out, &serving.config).await
}

async fn send(client: &mut Client, out: &[u8], listener: &Listener) -> Next {
    client.timer.arm(listener.timeouts.response_write_idle);
    match client.timer.bound(client.stream.write_all(out)).await {
        Ok(Ok(())) => Next::Linger,
        _ => Next::Close,
    }
}

/// The body as it will be forwarded, and where it ends in `buffer` when it is all there.
fn body_of(shard: &Shard, head: &RequestHead, buffer: &[u8], serving: &ListenerServing) -> (Body, usize) {
    let first = buffer.get(head.head_len..).unwrap_or_default();
    match head.framing {
        Framing::None | Framing::UntilClose => (Body::Whole(0), head.head_len),
        Framing::Length(length) if length <= first.len() as u64 => {
            let length = usize::try_from(length).unwrap_or(0);
            (Body::Whole(length), head.head_len + length)
        }
        framing => {
            let most = serving
                .lb
                .pools
                .iter()
                .map(|p| p.config.retries.replay_bytes)
                .max()
                .unwrap_or(0);
            let body = RequestBody::new(framing, first, shard.buffers.take(), most);
            (Body::Streaming(Box::new(body)), head.head_len)
        }
    }
}

fn is_trusted(listener: &Listener, peer: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|net| net.contains(peer))
}

/// Tries backends until one answers or no further try is allowed.
async fn forward(
    request: &Request<'_>,
    client: &mut Client,
    response: &mut ResponseHead,
    out: &mut Vec<u8>,
    body: &mut Body,
) -> Ended {
    let Request { shard, pool, .. } = *request;
    let key = key_of(request);
    client.timer.limit(pool.config.timeouts.total);
    let budget = pool.config.retries.budget;
    pool.balancer.pool().note_request(request.started_us, budget);
    let mut tries = Tries::default();
    let mut now_us = request.started_us;
    loop {
        let Some(index) = pick(request, key, &tries, now_us) else {
            let reason = tries.last.map_or(Reason::NoBackend, |f| f.reason);
            return give_up(request, client, out, body, reason).await;
        };
        if tries.count > 0 {
            pool.cell.counters.of(shard.index).retries.add(1);
        }
        let failure = match attempt::run(request, index, tries.fresh, client, response, out, body).await {
            Attempt::Failed(failure) => failure,
            Attempt::Refused(reason) => return give_up(request, client, out, body, reason).await,
            Attempt::Answered { status, keep, sent } => {
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
                if sent == 0 && reason.fault() == Fault::Backend {
                    return give_up(request, client, out, body, reason).await;
                }
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
        now_us = shard.timers.now_us();
        if client.timer.limit_passed() || !tries.again(request, body, index, failure, now_us) {
            return give_up(request, client, out, body, failure.reason).await;
        }
    }
}

/// The attempts of one request.
#[derive(Debug, Default)]
struct Tries {
    members: [usize; MAX_ATTEMPTS],
    count: usize,
    /// A kept connection was found closed: from now on only new ones.
    fresh: bool,
    last: Option<Failure>,
}

impl Tries {
    /// Members tried so far.
    fn members(&self) -> &[usize] {
        self.members.get(..self.count).unwrap_or_default()
    }

    /// Notes a failed attempt and says whether there may be another. The first stale connection is free: it is
    /// no failure of a backend, so it takes nothing from the budget.
    fn again(
        &mut self,
        request: &Request<'_>,
        body: &Body,
        index: usize,
        failure: Failure,
        now_us: u64,
    ) -> bool {
        if let Some(slot) = self.members.get_mut(self.count) {
            *slot = index;
        }
        self.count += 1;
        let free = failure.stale && !self.fresh;
        self.fresh |= failure.stale;
        self.last = Some(failure);
        let pool = request.pool;
        let retries = &pool.config.retries;
        let within = free || self.count <= usize::from(retries.attempts) + usize::from(self.fresh);
        if self.count >= MAX_ATTEMPTS || !within || !is_safe(request, body, failure) {
            return false;
        }
        let allowed = free || pool.balancer.pool().try_retry(now_us, retries.budget);
        if !allowed {
            pool.cell
                .counters
                .of(request.shard.index)
                .retries_over_budget
                .add(1);
        }
        allowed
    }
}

/// The backend for this try. A stale connection says nothing against its backend, so where there is no other,
/// the same one is tried again on a fresh connection.
fn pick(request: &Request<'_>, key: u64, tries: &Tries, now_us: u64) -> Option<usize> {
    let balancer = &request.pool.balancer;
    let rng = &mut *request.shard.rng.borrow_mut();
    balancer.pick(key, tries.members(), now_us, rng).or_else(|| {
        let again = tries.fresh && tries.count == 1;
        again.then(|| balancer.pick(key, &[], now_us, rng)).flatten()
    })
}

fn is_safe(request: &Request<'_>, body: &Body, failure: Failure) -> bool {
    let whole = match body {
        Body::Whole(_) => true,
        Body::Streaming(body) => body.replay().is_some(),
    };
    whole
        && match failure.retry {
            Retry::Always => true,
            Retry::IfIdempotent => request.head.may_repeat(request.bytes),
            Retry::Never => false,
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
    client: &mut Client,
    out: &mut Vec<u8>,
    body: &Body,
    reason: Reason,
) -> Ended {
    let whole = match body {
        Body::Whole(_) => true,
        Body::Streaming(body) => body.done(),
    };
    let retry_after = (reason == Reason::NoBackend).then(|| retry_after_s(request.pool));
    request.shard.timers.now_us();
    client.timer.limit(std::time::Duration::ZERO);
    answer(
        client,
        request.listener,
        out,
        request.head,
        reason,
        retry_after,
        !(whole && request.keep()),
    )
    .await
}

/// When a backend may be back: the next check decides.
fn retry_after_s(pool: &PoolServing) -> u32 {
    let default = HealthCheck::default();
    let check = pool.config.health.as_ref().unwrap_or(&default);
    u32::try_from(check.interval.as_millis().div_ceil(1000))
        .unwrap_or(60)
        .max(1)
}

async fn answer(
    client: &mut Client,
    listener: &Listener,
    out: &mut Vec<u8>,
    head: &RequestHead,
    reason: Reason,
    retry_after_s: Option<u32>,
    close: bool,
) -> Ended {
    let ended = |next, sent| Ended {
        next,
        status: reason.status(),
        reason: Some(reason),
        sent,
    };
    if reason.status() == 0 {
        return ended(Next::Close, 0);
    }
    out.clear();
    forward::write_failure(out, reason, head.method, head.version, close, retry_after_s);
    client.timer.arm(listener.timeouts.response_write_idle);
    match client.timer.bound(client.stream.write_all(out)).await {
        Ok(Ok(())) if close => ended(Next::Linger, out.len() as u64),
        Ok(Ok(())) => ended(Next::KeepAlive, out.len() as u64),
        _ => ended(Next::Close, 0),
    }
}

fn key_of(request: &Request<'_>) -> u64 {
    let Some(key) = request.pool.balancer.hash_key() else {
        return 0;
    };
    let (head, bytes) = (request.head, request.bytes);
    let named = match key {
        HashKey::ClientAddress => None,
        HashKey::Header(name) => head.field(bytes, name),
        HashKey::Cookie(name) => head.cookie(bytes, name),
        HashKey::Path => Some(head.path(bytes)),
        HashKey::Query(name) => head.query_parameter(bytes, name),
    };
    named.map_or_else(|| address_key(request), balance::hash)
}

fn address_key(request: &Request<'_>) -> u64 {
    let trusted = &request.listener.trusted_proxies;
    let address = if request.trusted {
        forward::client_address(request.bytes, request.head, request.peer, trusted)
    } else {
        request.peer
    };
    hash_address(address)
}

/// The hash by which an address is spread; IPv4-mapped addresses count as IPv4.
pub(crate) fn hash_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(a) => balance::hash(&a.octets()),
        IpAddr::V6(a) => balance::hash(&a.octets()),
    }
}
