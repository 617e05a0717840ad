//! The task of one stream: its request translated, the exchange that serves it, and how the stream ends.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use h2::ext::Protocol;
use h2::{Reason as Code, RecvStream};
use http::h2::Refusal;
use http::{Framing, RequestHead};
use http_types::request::Parts;
use model::config::Listener;
use tokio::task::spawn_local;

use super::connection::{Link, Running, Tunnelling};
use super::incoming::Incoming;
use super::responder::Responder;
use super::tasks::Job;
use crate::attempt::Body;
use crate::counters::ResetCause;
use crate::exchange::{self, Client, Work};
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::serving::ListenerServing;
use crate::tunnel::{End, Frames, Outlet, Side, Tunnel};

/// Serves a stream to its end.
pub(super) async fn serve(job: Job) {
    let Job {
        running,
        header,
        request,
        respond,
    } = job;
    let link = running.0.clone();
    let responder = Responder::new(respond, link.ledger.clone());
    let (parts, body) = request.into_parts();
    let serving = link.slot.serving();
    let mut work = link.shard.take_stream_work();
    let Work { buffer, request, .. } = &mut *work;
    let connect = link.extended_connect;
    let translated = translate(
        &parts,
        body.is_end_stream(),
        connect,
        &serving.config,
        request,
        buffer,
    );
    drop(parts);
    let switched = match translated {
        Ok(()) => exchange(&link, &serving, &responder, &mut work, body).await,
        Err(refusal) => {
            refuse(&link, &serving, &responder, &mut work, refusal).await;
            None
        }
    };
    drop(header);
    link.shard.give_stream_work(work);
    if let Some((tunnel, incoming)) = switched {
        // A task of its own: this one is as large as an exchange needs, and a tunnel may live for long.
        spawn_local(relay(running, responder, incoming, tunnel));
    }
}

/// Serves a stream that has become a tunnel (RFC 8441 section 5) to its end.
async fn relay(running: Running, responder: Responder, incoming: RecvStream, tunnel: Box<Tunnel>) {
    let link = running.0.clone();
    let tunnelling = Tunnelling::begin(&link);
    let timer = link.shard.timers.timer().await;
    let incoming = Frames::new(incoming);
    let side = Side::Stream(&incoming, Outlet::Client(&responder));
    match tunnel.run(&link.shard, side, &timer).await {
        End::Orderly => {}
        End::Client => link.counters().reset(ResetCause::Client),
        End::Backend => link.counters().reset(ResetCause::Backend),
    }
    drop((tunnelling, running));
}

/// The request in the one message form, in `buffer`.
fn translate(
    parts: &Parts,
    end_stream: bool,
    extended_connect: bool,
    config: &Listener,
    head: &mut RequestHead,
    buffer: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let uri = &parts.uri;
    let authority = uri.authority().map(|authority| authority.as_str());
    let path = uri.path_and_query().map(|path| path.as_str());
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let pseudo = [
        (":method", Some(parts.method.as_str())),
        // The library drops the scheme of a request without `:authority`; it has seen that there is one.
        (":scheme", Some(uri.scheme_str().unwrap_or("http"))),
        (":authority", authority),
        (":path", path),
        (":protocol", protocol),
    ];
    let pseudo = pseudo
        .iter()
        .filter_map(|(name, value)| value.map(|value| (name.as_bytes(), value.as_bytes())));
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    head.from_http2(
        pseudo.chain(fields),
        end_stream,
        extended_connect,
        &config.limits,
        buffer,
    )
}

async fn exchange(
    link: &Rc<Link>,
    serving: &ListenerServing,
    responder: &Responder,
    work: &mut Work,
    body: RecvStream,
) -> Option<(Box<Tunnel>, RecvStream)> {
    let shard = &link.shard;
    let Work {
        buffer,
        request: head,
        out,
        rest,
    } = work;
    let timer = shard.timers.timer().await;
    let write_idle = window_idle(&serving.config);
    let began_us = shard.timers.now_us();
    // What comes behind an extended CONNECT waits for the tunnel.
    let (body, ahead) = match head.extended_connect {
        true => (Body::Whole(0), Some(body)),
        false => (body_of(head, serving, body), None),
    };
    let mut client = Client {
        origin: &link.origin,
        timer: &timer,
        reply: Reply::http2(responder, &timer, out, head, write_idle),
        body,
        tunnel: None,
    };
    let finished = {
        let exchange = exchange::run(shard, serving, &link.slot, head, buffer, &mut client, rest);
        let mut exchange = pin!(exchange);
        poll_fn(|cx| {
            if responder.poll_gone(cx).is_ready() {
                return Poll::Ready(false);
            }
            exchange.as_mut().poll(cx).map(|_| true)
        })
        .await
    };
    if !finished {
        // Whatever ran for it is dropped already: its backend's connection, its place in a queue.
        link.counters().reset(ResetCause::Client);
        exchange::abandoned(shard, serving, head, buffer, &client, rest, began_us);
        return None;
    }
    if let Some(tunnel) = client.tunnel.take() {
        return Some(tunnel).zip(ahead);
    }
    if !responder.is_over() {
        let (code, cause) = if responder.has_stalled() {
            (Code::CANCEL, ResetCause::Stalled)
        } else {
            (Code::INTERNAL_ERROR, ResetCause::Backend)
        };
        link.counters().reset(cause);
        responder.reset(code);
    }
    None
}

/// How long the client may leave the window of a stream closed.
fn window_idle(config: &Listener) -> Duration {
    let http2 = config.http2.as_ref();
    http2.map_or(config.timeouts.response_write_idle, |http2| http2.window_idle)
}

/// The body as it will be forwarded.
fn body_of<'a>(head: &RequestHead, serving: &ListenerServing, stream: RecvStream) -> Body<'a> {
    match head.framing {
        Framing::None | Framing::UntilClose | Framing::Length(0) => Body::Whole(0),
        framing => {
            let limits = serving.lb.pools.iter().map(|p| p.config.retries.replay_bytes);
            let most = limits.max().unwrap_or(0);
            let incoming = Incoming::new(stream);
            Body::Streaming(Box::new(RequestBody::http2(incoming, framing, most)))
        }
    }
}

/// Ends a stream whose request is not served.
async fn refuse(
    link: &Rc<Link>,
    serving: &ListenerServing,
    responder: &Responder,
    work: &mut Work,
    refusal: Refusal,
) {
    let shard = &link.shard;
    let reason = match refusal {
        Refusal::Answer(reason) => reason,
        Refusal::Malformed(reason) => {
            link.counters().reset(ResetCause::Malformed);
            responder.reset(Code::PROTOCOL_ERROR);
            exchange::malformed(shard, serving, &link.origin, &work.buffer, reason);
            return;
        }
    };
    let timer = shard.timers.timer().await;
    let write_idle = window_idle(&serving.config);
    let mut reply = Reply::http2(responder, &timer, &mut work.out, &work.request, write_idle);
    exchange::refuse(shard, serving, &link.origin, &work.buffer, &mut reply, reason).await;
    if !responder.is_over() {
        link.counters().reset(ResetCause::Stalled);
        responder.reset(Code::CANCEL);
    }
}
