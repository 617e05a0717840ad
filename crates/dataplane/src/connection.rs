//! A client connection: wait, serve while it is busy, wait again.
//!
//! While idle a connection is a socket and a small task. The large state of a request is made when bytes arrive
//! and kept for a burst of requests, so that a keep-alive connection under load allocates nothing and an idle
//! one holds nothing.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Parsed;
use model::reason::Reason;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::buffers::BUFFER_BYTES;
use crate::exchange::{self, Next, Work};
use crate::shard::{ConnectionGuard, Shard, Slot, now_or_never};
use crate::timers::{Expired, Timer};

/// How long a connection without a request keeps the state it serves requests with.
const BUSY_LINGER: Duration = Duration::from_millis(100);

/// After a response that ends a connection early: how long and how much of the client's bytes we still take, so
/// that a reset does not destroy the response before it is read (RFC 9112 section 9.6).
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's side of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) timer: Timer,
    pub(crate) peer: SocketAddr,
    /// The peer's address as text, for the forwarding fields.
    pub(crate) peer_text: Rc<str>,
    /// It has not sent a request yet.
    first: bool,
}

/// How a busy time ended.
enum After {
    Idle,
    Close,
    Linger,
}

/// Serves a connection to its end.
pub(crate) async fn run(
    shard: Rc<Shard>,
    slot: Rc<Slot>,
    stream: TcpStream,
    peer: SocketAddr,
    guard: ConnectionGuard,
) {
    let timer = shard.timers.timer().await;
    let peer_text = Rc::from(peer.ip().to_canonical().to_string());
    let mut client = Client {
        stream,
        timer,
        peer,
        peer_text,
        first: true,
    };
    while wait_for_bytes(&shard, &slot, &client).await {
        match Box::pin(serve(&shard, &slot, &mut client)).await {
            After::Idle => {}
            After::Close => break,
            After::Linger => {
                Box::pin(linger(&shard, &mut client)).await;
                break;
            }
        }
    }
    drop(guard);
}

/// Waits, holding nothing, until the client sends something. False: the connection ends.
async fn wait_for_bytes(shard: &Shard, slot: &Slot, client: &Client) -> bool {
    let serving = slot.serving();
    let timeouts = &serving.config.timeouts;
    client.timer.arm(if client.first {
        timeouts.request_headers
    } else {
        timeouts.keep_alive
    });
    drop(serving);
    poll_fn(|cx| match client.stream.poll_read_ready(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending if client.timer.expired() => Poll::Ready(false),
        Poll::Pending if slot.closes_idle(shard.timers.now_ms()) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Serves requests until the client pauses or the connection must end.
async fn serve(shard: &Rc<Shard>, slot: &Slot, client: &mut Client) -> After {
    // What the client sent ahead stays in the work area; without that there is none while we wait.
    let mut ahead: Option<Box<Work>> = None;
    loop {
        if ahead.is_none() && !bytes_come_soon(client).await {
            break if slot.closes_idle(shard.timers.now_ms()) {
                After::Close
            } else {
                After::Idle
            };
        }
        let mut work = ahead.take().unwrap_or_else(|| shard.take_work());
        let Some(next) = serve_one(shard, slot, client, &mut work).await else {
            shard.give_work(work);
            break After::Idle;
        };
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
        .bound(poll_fn(|cx| client.stream.poll_read_ready(cx)))
        .await;
    matches!(ready, Ok(Ok(())))
}

/// Serves the next request; `None` when there is none yet.
async fn serve_one(shard: &Rc<Shard>, slot: &Slot, client: &mut Client, work: &mut Work) -> Option<Next> {
    let serving = slot.serving();
    match read_request(client, &serving.config, work).await {
        Ok(()) => {}
        Err(Unread::Nothing) => return None,
        Err(Unread::Closed) => return Some(Next::Close),
        Err(Unread::Refused(reason)) => {
            return Some(exchange::refuse(shard, &serving, client, work, reason).await);
        }
    }
    client.first = false;
    // Fetched anew: a change may have come while we waited for the rest of the request.
    let serving = slot.serving();
    Some(exchange::run(shard, &serving, slot, client, work).await)
}

/// Why there is no request.
enum Unread {
    /// Nothing has come: a new socket counts as readable until it is read.
    Nothing,
    /// The client is gone.
    Closed,
    /// It must be refused.
    Refused(Reason),
}

async fn read_request(
    client: &mut Client,
    listener: &model::config::Listener,
    work: &mut Work,
) -> Result<(), Unread> {
    let Client { stream, timer, .. } = client;
    let Work { request, buffer, .. } = work;
    request.reset();
    timer.arm(listener.timeouts.request_headers);
    loop {
        if !buffer.is_empty()
            && let Parsed::Complete = request.parse(buffer, &listener.limits).map_err(Unread::Refused)?
        {
            return Ok(());
        }
        if buffer.len() == buffer.capacity() {
            // Bounded by the parser, which refuses a header over its limit.
            buffer.reserve(BUFFER_BYTES);
        }
        let read = if buffer.is_empty() {
            Ok(now_or_never(stream.read_buf(buffer))
                .await
                .ok_or(Unread::Nothing)?)
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
async fn linger(shard: &Shard, client: &mut Client) {
    use tokio::io::AsyncWriteExt;
    if client.stream.shutdown().await.is_err() {
        return;
    }
    client.timer.limit(Duration::ZERO);
    client.timer.arm(LINGER_TIME);
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
