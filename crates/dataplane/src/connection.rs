//! A client connection: wait, serve while it is busy, wait again.
//!
//! While idle a connection is a socket and a small task. The large state of a request is made when bytes arrive
//! and kept for a burst of requests, so that a keep-alive connection under load allocates nothing and an idle
//! one holds nothing.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Parsed;
use model::reason::Reason;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::exchange::{self, Next, Work};
use crate::shard::{ConnectionGuard, Shard, Slot};
use crate::timers::{Expired, Timer};

/// How long a connection without a request keeps its working memory.
const BUSY_LINGER: Duration = Duration::from_secs(1);

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
    first: Cell<bool>,
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
        first: Cell::new(true),
    };
    while wait_for_bytes(&shard, &slot, &client).await {
        match Box::pin(serve(&shard, &slot, &mut client)).await {
            After::Idle => {}
            After::Close => break,
            After::Linger => {
                linger(&shard, &mut client).await;
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
    client.timer.arm(if client.first.get() {
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
    let mut work = shard.take_work();
    let mut buffer = shard.buffers.take();
    let after = loop {
        let serving = slot.serving();
        match read_request(client, &serving.config, &mut work, &mut buffer).await {
            Ok(()) => {}
            Err(Unread::Idle) if slot.closes_idle(shard.timers.now_ms()) => break After::Close,
            Err(Unread::Idle) => break After::Idle,
            Err(Unread::Closed) => break After::Close,
            Err(Unread::Refused(reason)) => {
                break match exchange::refuse(shard, &serving, client, &mut work, reason).await {
                    Next::Close => After::Close,
                    Next::KeepAlive | Next::Linger => After::Linger,
                };
            }
        }
        client.first.set(false);
        // Fetched anew: a change may have come while we waited for the request.
        let serving = slot.serving();
        match exchange::run(shard, &serving, slot, client, &mut work, &mut buffer).await {
            Next::KeepAlive => {}
            Next::Close => break After::Close,
            Next::Linger => break After::Linger,
        }
    };
    shard.buffers.give(buffer);
    shard.give_work(work);
    after
}

/// Why there is no request.
enum Unread {
    /// Nothing came for a while; nothing is buffered.
    Idle,
    /// The client is gone.
    Closed,
    /// It must be refused.
    Refused(Reason),
}

async fn read_request(
    client: &mut Client,
    listener: &model::config::Listener,
    work: &mut Work,
    buffer: &mut Vec<u8>,
) -> Result<(), Unread> {
    let Client { stream, timer, .. } = client;
    let mut started = !buffer.is_empty();
    work.request.reset();
    timer.arm(if started {
        listener.timeouts.request_headers
    } else {
        BUSY_LINGER
    });
    loop {
        if started
            && let Parsed::Complete = work
                .request
                .parse(buffer, &listener.limits)
                .map_err(Unread::Refused)?
        {
            return Ok(());
        }
        if buffer.len() == buffer.capacity() {
            // Bounded by the parser, which refuses a header over its limit.
            buffer.reserve(crate::buffers::BUFFER_BYTES);
        }
        match timer.bound(stream.read_buf(buffer)).await {
            Err(Expired) if started => return Err(Unread::Refused(Reason::RequestHeaderTimeout)),
            Err(Expired) => return Err(Unread::Idle),
            Ok(Ok(0)) | Ok(Err(_)) => return Err(Unread::Closed),
            Ok(Ok(_)) if !started => {
                started = true;
                timer.arm(listener.timeouts.request_headers);
            }
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
