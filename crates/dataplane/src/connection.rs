//! A client connection: wait, serve while it is busy, wait again.
//!
//! While idle a connection is a socket and a small task. The large state of a request is made when bytes arrive
//! and kept for a burst of requests, so that a keep-alive connection under load allocates nothing and an idle
//! one holds nothing.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::h2::PREFACE;
use http::{Framing, Parsed, RequestHead};
use model::reason::Reason;
use tokio::net::TcpStream;

use crate::attempt::Body;
use crate::buffers::BUFFER_BYTES;
use crate::exchange::{self, Next, Work};
use crate::http2;
use crate::origin::Origin;
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::serving::ListenerServing;
use crate::shard::{ConnectionGuard, Shard, Slot, now_or_never};
use crate::stream::Stream;
use crate::timers::{Expired, Timer};
use crate::tls::{self, Accepted};
use crate::tunnel::{Side, Tunnel};

/// How long a connection without a request keeps the state it serves requests with; after its first request it keeps
/// none: many connections never send a second, and thousands that come at once would hold thousands of states.
const BUSY_LINGER: Duration = Duration::from_millis(100);

/// After a response or an alert that ends a connection early: how long and how much of the client's bytes we still take, so
/// that a reset does not destroy what we said before it is read (RFC 9112 section 9.6).
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's side of a connection.
#[derive(Debug)]
struct Client {
    stream: Stream,
    timer: Timer,
    origin: Box<Origin>,
    /// It has not sent a request yet.
    first: bool,
    guard: ConnectionGuard,
}

impl Client {
    fn new(stream: Stream, timer: Timer, origin: Origin, guard: ConnectionGuard) -> Self {
        Self {
            stream,
            timer,
            origin: Box::new(origin),
            first: true,
            guard,
        }
    }
}

/// How a busy time ended.
enum After {
    Idle,
    Close,
    Linger,
    /// It is HTTP no longer.
    Tunnel(Box<Tunnel>),
    /// The client speaks HTTP/2; this was read to find out.
    Http2(Vec<u8>),
}

/// A connection that was just accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) guard: ConnectionGuard,
}

/// Serves a connection to its end.
///
/// This is what an idle connection consists of. Everything else is boxed: what only the beginning or only a request
/// needs must not make every connection larger.
#[expect(
    clippy::manual_async_fn,
    reason = "the arguments of an `async fn` are held twice, once as they came and once as used"
)]
pub(crate) fn run(shard: Rc<Shard>, slot: Rc<Slot>, arrival: Box<Arrival>) -> impl Future<Output = ()> {
    async move {
        let Some(mut client) = Box::pin(begin(&shard, &slot, arrival)).await else {
            return;
        };
        let another = loop {
            if !wait_for_bytes(&shard, &slot, &client).await {
                return;
            }
            match Box::pin(busy(&shard, &slot, client)).await {
                Now::Idle(idle) => client = idle,
                Now::Over => return,
                Now::Another(life) => break life,
            }
        };
        another.await;
    }
}

/// What a connection is after a busy time.
enum Now<'a> {
    Idle(Client),
    Over,
    /// No request comes over it any more; what it is now may take long, without the state of requests.
    Another(Pin<Box<dyn Future<Output = ()> + 'a>>),
}

/// Serves a client that has sent something, until it pauses or its connection becomes something else.
async fn busy<'a>(shard: &'a Rc<Shard>, slot: &'a Rc<Slot>, mut client: Client) -> Now<'a> {
    match serve(shard, slot, &mut client).await {
        After::Idle => Now::Idle(client),
        After::Close => Now::Over,
        After::Linger => Now::Another(Box::pin(linger(shard, client))),
        After::Tunnel(tunnel) => Now::Another(Box::pin(serve_tunnel(shard, client, tunnel))),
        After::Http2(ahead) => Now::Another(Box::pin(serve_http2(shard, slot, client, ahead))),
    }
}

async fn serve_tunnel(shard: &Rc<Shard>, client: Client, tunnel: Box<Tunnel>) {
    let side = Side::Connection(&client.stream);
    tunnel.run(shard, side, &client.timer).await;
}

/// Serves a client that speaks HTTP/2, which sent `ahead` already.
async fn serve_http2(shard: &Rc<Shard>, slot: &Rc<Slot>, client: Client, ahead: Vec<u8>) {
    let Client {
        stream,
        timer,
        origin,
        guard,
        ..
    } = client;
    let accepted = http2::Accepted {
        stream,
        timer,
        origin: *origin,
        ahead,
    };
    http2::run(shard.clone(), slot.clone(), accepted, guard).await;
}

/// Whom we serve, after the handshake where there is one; `None`: it is over already.
async fn begin(shard: &Rc<Shard>, slot: &Slot, arrival: Box<Arrival>) -> Option<Client> {
    let Arrival { stream, peer, guard } = *arrival;
    let timer = shard.timers.timer().await;
    let serving = slot.serving();
    let Some(tls) = &serving.tls else {
        return Some(Client::new(
            Stream::plain(stream),
            timer,
            Origin::new(peer, None),
            guard,
        ));
    };
    let (stream, plain) = match tls::accept(shard, &serving, tls, stream, &timer).await {
        Accepted::Tls(_, facts) if facts.is_challenge => return None,
        Accepted::Tls(stream, facts) => {
            let origin = Origin::new(peer, Some(Box::new(facts)));
            return Some(Client::new(stream, timer, origin, guard));
        }
        Accepted::PlainHttp(stream) => (stream, true),
        Accepted::Failed(stream) => (stream?, false),
    };
    let client = Client::new(Stream::plain(stream), timer, Origin::new(peer, None), guard);
    match plain {
        true => refuse_plain(shard, &serving, client).await,
        false => linger(shard, client).await,
    }
    None
}

/// Tells a client that speaks HTTP in the clear where TLS is spoken.
async fn refuse_plain(shard: &Rc<Shard>, serving: &ListenerServing, client: Client) {
    let mut work = shard.take_work();
    let next = refuse(shard, serving, &client, &mut work, Reason::PlainHttpOnTlsPort).await;
    shard.give_work(work);
    if next == Next::Linger {
        linger(shard, client).await;
    }
}

/// Waits, holding nothing, until the client sends something. False: the connection ends.
fn wait_for_bytes<'a>(
    shard: &'a Shard,
    slot: &'a Slot,
    client: &'a Client,
) -> impl Future<Output = bool> + 'a {
    let timeouts = &slot.serving().config.timeouts;
    client.timer.arm(if client.first {
        timeouts.request_headers
    } else {
        timeouts.keep_alive
    });
    poll_fn(|cx| match client.stream.poll_readable(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending if client.timer.expired() => Poll::Ready(false),
        Poll::Pending if slot.closes_idle(shard.timers.now_ms()) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
}

/// Serves requests until the client pauses or the connection must end.
async fn serve(shard: &Rc<Shard>, slot: &Slot, client: &mut Client) -> After {
    // What the client sent ahead stays in the work area; without that there is none while we wait.
    let mut ahead: Option<Box<Work>> = None;
    let newcomer = client.first;
    loop {
        let served_first = newcomer && !client.first;
        if ahead.is_none() && (served_first || !bytes_come_soon(client).await) {
            break if slot.closes_idle(shard.timers.now_ms()) {
                After::Close
            } else {
                After::Idle
            };
        }
        let mut work = ahead.take().unwrap_or_else(|| shard.take_work());
        let (next, tunnel) = match serve_one(shard, slot, client, &mut work).await {
            Served::One(next, tunnel) => (next, tunnel),
            Served::Nothing => {
                shard.give_work(work);
                break After::Idle;
            }
            Served::Http2 => break After::Http2(work.buffer),
        };
        if let Some(mut tunnel) = tunnel {
            tunnel.send_first(work.buffer.split_off(0));
            shard.give_work(work);
            break After::Tunnel(tunnel);
        }
        if next == Next::KeepAlive && !work.buffer.is_empty() {
            ahead = Some(work);
        } else {
            shard.give_work(work);
        }
        match next {
            Next::KeepAlive => {}
            Next::Close => break After::Close,
            Next::Linger => break After::Linger,
        }
    }
}

/// Whether the client sends something within [`BUSY_LINGER`].
async fn bytes_come_soon(client: &Client) -> bool {
    client.timer.arm(BUSY_LINGER);
    let ready = client
        .timer
        .bound(poll_fn(|cx| client.stream.poll_readable(cx)))
        .await;
    matches!(ready, Ok(Ok(())))
}

/// What came of looking for the next request.
enum Served {
    One(Next, Option<Box<Tunnel>>),
    /// There is none yet.
    Nothing,
    /// There will be none: the client speaks HTTP/2.
    Http2,
}

/// Serves the next request.
async fn serve_one(shard: &Rc<Shard>, slot: &Slot, client: &mut Client, work: &mut Work) -> Served {
    let serving = slot.serving();
    match read_request(client, &serving.config, work).await {
        Ok(()) => {}
        Err(Unread::Nothing) => return Served::Nothing,
        Err(Unread::Http2) => return Served::Http2,
        Err(Unread::Closed) => return Served::One(Next::Close, None),
        Err(Unread::Refused(reason)) => {
            return Served::One(refuse(shard, &serving, client, work, reason).await, None);
        }
    }
    client.first = false;
    // Fetched anew: a change may have come while we waited for the rest of the request.
    let serving = slot.serving();
    let (next, tunnel) = serve_request(shard, &serving, slot, client, work).await;
    Served::One(next, tunnel)
}

/// Serves the request whose head is in `work`; leaves in its buffer what follows the request.
async fn serve_request(
    shard: &Rc<Shard>,
    serving: &ListenerServing,
    slot: &Slot,
    client: &Client,
    work: &mut Work,
) -> (Next, Option<Box<Tunnel>>) {
    let Work {
        buffer,
        request: head,
        out,
        rest,
    } = work;
    let write_idle = serving.config.timeouts.response_write_idle;
    let mut exchange = exchange::Client {
        origin: &client.origin,
        timer: &client.timer,
        reply: Reply::new(&client.stream, &client.timer, out, head, write_idle),
        body: body_of(shard, head, buffer, serving, &client.stream),
        tunnel: None,
    };
    let next = exchange::run(shard, serving, slot, head, buffer, &mut exchange, rest).await;
    let tunnel = exchange.tunnel.take();
    match exchange.body {
        Body::Whole(length) => {
            buffer.drain(..head.head_len + length);
        }
        Body::Streaming(body) => {
            let rest = body.into_rest();
            shard.buffers.give(std::mem::replace(buffer, rest));
        }
    }
    (next, tunnel)
}

/// The body as it will be forwarded.
fn body_of<'a>(
    shard: &Shard,
    head: &RequestHead,
    buffer: &[u8],
    serving: &ListenerServing,
    stream: &'a Stream,
) -> Body<'a> {
    let first = buffer.get(head.head_len..).unwrap_or_default();
    match head.framing {
        Framing::None | Framing::UntilClose => Body::Whole(0),
        Framing::Length(length) if length <= first.len() as u64 => {
            Body::Whole(usize::try_from(length).unwrap_or(0))
        }
        framing => {
            let limits = serving.lb.pools.iter().map(|p| p.config.retries.replay_bytes);
            let most = limits.max().unwrap_or(0);
            let body = RequestBody::new(stream, framing, first, shard.buffers.take(), most);
            Body::Streaming(Box::new(body))
        }
    }
}

/// Answers a request that could not be parsed.
async fn refuse(
    shard: &Shard,
    serving: &ListenerServing,
    client: &Client,
    work: &mut Work,
    reason: Reason,
) -> Next {
    let write_idle = serving.config.timeouts.response_write_idle;
    let nothing = RequestHead::new();
    let Work { buffer, out, .. } = work;
    let mut reply = Reply::new(&client.stream, &client.timer, out, &nothing, write_idle);
    exchange::refuse(shard, serving, &client.origin, buffer, &mut reply, reason).await
}

/// Why there is no request.
enum Unread {
    /// Nothing has come: a new socket counts as readable until it is read.
    Nothing,
    /// The client is gone.
    Closed,
    /// It must be refused.
    Refused(Reason),
    /// What has come is the preface of HTTP/2.
    Http2,
}

/// Whether a connection that began with these bytes speaks HTTP/2 (RFC 9113 section 3.3); `None`: it may.
fn is_http2(begun: &[u8]) -> Option<bool> {
    let seen = begun.len().min(PREFACE.len());
    match begun.get(..seen) == PREFACE.get(..seen) {
        true if seen < PREFACE.len() => None,
        same => Some(same),
    }
}

async fn read_request(
    client: &mut Client,
    listener: &model::config::Listener,
    work: &mut Work,
) -> Result<(), Unread> {
    let Client {
        stream, timer, first, ..
    } = client;
    let Work { request, buffer, .. } = work;
    request.reset();
    timer.arm(listener.timeouts.request_headers);
    let mut may_be_http2 = *first && listener.http2.is_some();
    loop {
        if may_be_http2 && !buffer.is_empty() {
            match is_http2(buffer) {
                Some(true) => return Err(Unread::Http2),
                other => may_be_http2 = other.is_none(),
            }
        }
        if !buffer.is_empty()
            && !may_be_http2
            && let Parsed::Complete = request.parse(buffer, &listener.limits).map_err(Unread::Refused)?
        {
            return Ok(());
        }
        if buffer.len() == buffer.capacity() {
            // Bounded by the parser, which refuses a header over its limit.
            buffer.reserve(BUFFER_BYTES);
        }
        let read = if buffer.is_empty() {
            let read = now_or_never(stream.read_buf(buffer)).await;
            Ok(read.ok_or(Unread::Nothing)?)
        } else {
            timer.bound(stream.read_buf(buffer)).await
        };
        match read {
            Err(Expired) => return Err(Unread::Refused(Reason::RequestHeaderTimeout)),
            Ok(Ok(0)) | Ok(Err(_)) => return Err(Unread::Closed),
            Ok(Ok(_)) => {}
        }
    }
}

/// Says that we send no more and takes what is still coming, within bounds.
async fn linger(shard: &Shard, client: Client) {
    client.timer.limit(Duration::ZERO);
    client.timer.arm(LINGER_TIME);
    // Over TLS this is written, to somebody who may not read.
    if !matches!(client.timer.bound(client.stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut buffer = shard.buffers.take();
    let mut taken = 0;
    while taken < LINGER_BYTES {
        buffer.clear();
        match client.timer.bound(client.stream.read_buf(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => taken += n,
            _ => break,
        }
    }
    shard.buffers.give(buffer);
}
