//! An attempt over HTTP/2: a stream on one of the connections to the backend.
//!
//! Request body and response always move at the same time, whatever is at hand: a backend may answer and reset
//! before it has read. When the attempt is given up, its stream is reset with CANCEL by letting go of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{Reason as Code, RecvStream};
use http::chunked::Trailers;
use http::onward::{self, Onward};
use http::{Framing, Parsed};
use http_types::{HeaderMap, HeaderName, HeaderValue, Method, Request as Outward, Uri, Version};
use model::config::BackendHttp2;
use model::reason::Reason;

use super::{
    Attempt, Body, Exchange, Failure, MAX_INTERIM, NoHead, Retry, Scratch, Uploaded, beside, clients_fault,
    ended_by, failed, switch,
};
use crate::backend_http2::{self, Lease, Outgoing};
use crate::call::Limits;
use crate::departure::{Gone, Unasked, unless_gone};
use crate::exchange::{Client, Request};
use crate::relay::Broken;
use crate::request_body::{Sink, UploadError};
use crate::serving::BackendCell;
use crate::timers::{Expired, Patience, Timer};
use crate::tries::Tries;
use crate::tunnel::{BackendStream, Frames};

/// A request that was sent: both halves of its stream.
struct Sent {
    response: ResponseFuture,
    outgoing: Outgoing,
    /// The connection has carried a stream before.
    reused: bool,
}

/// Finds room for a stream to the backend, the member at this index, and serves the request over it.
pub(super) async fn run(
    request: &Request<'_>,
    (cell, index): (&Arc<BackendCell>, usize),
    (settings, tries): (&BackendHttp2, &Tries),
    client: &mut Client<'_>,
    scratch: &mut Scratch<'_>,
) -> (Attempt, Option<Box<BackendStream>>) {
    let (shard, pool) = (request.shard, request.pool);
    let acquiring = backend_http2::acquire(shard, cell, pool, settings, client.timer);
    let lease = match unless_gone(&client.reply, Unasked::Waits, acquiring).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(reason @ Reason::LocalResources)) => return (failed(reason, Retry::Never, false), None),
        Ok(Err(reason)) => return (failed(reason, Retry::Always, false), None),
        Err(Gone) => return (failed(Reason::ClientGone, Retry::Never, false), None),
    };
    request.story.note_try(|this| {
        this.reused = lease.reused;
        this.connect_us = lease.connect_us;
    });
    let proof = match may_switch(request, &lease, client.timer).await {
        Ok(proof) => proof,
        Err(attempt) => return (attempt, None),
    };
    let mut exchange = Exchange {
        request,
        tries,
        cell,
        index,
        timer: client.timer,
        reply: &mut client.reply,
        scratch,
        try_began_us: shard.timers.recent_us(),
        began_us: shard.timers.recent_us(),
        latency_us: 0,
    };
    let body = &mut client.body;
    let ends = matches!(body, Body::Whole(0)) && request.upgrade.is_none();
    let mut sent = match exchange.send_head(&lease, ends) {
        Ok(sent) => sent,
        Err(failure) => return (Attempt::Failed(failure), None),
    };
    let mut buffer = shard.buffers.take();
    let (attempt, incoming) = exchange.converse(&mut sent, body, proof, &mut buffer).await;
    shard.buffers.give(buffer);
    let switched = incoming.map(|incoming| BackendStream {
        lease,
        outgoing: sent.outgoing,
        incoming: Frames::new(incoming),
    });
    (attempt, switched.map(Box::new))
}

/// Whether the backend takes a request to switch, if this is one; with it the proof that the client will want.
async fn may_switch(
    request: &Request<'_>,
    lease: &Lease,
    timer: &Timer,
) -> Result<Option<[u8; 28]>, Attempt> {
    let Some(upgrade) = request.upgrade else {
        return Ok(None);
    };
    let proof = switch::proof(request.head, request.bytes, upgrade.protocol);
    let proof = proof.map_err(|reason| failed(reason, Retry::Never, false))?;
    timer.arm(request.pool.config.timeouts.connect);
    match lease.takes_extended_connect(timer).await {
        Ok(true) => Ok(proof),
        Ok(false) => Err(failed(Reason::ExtendedConnectUnsupported, Retry::Never, false)),
        Err(Expired) if timer.limit_passed() => Err(failed(Reason::TotalTimeout, Retry::Never, false)),
        Err(Expired) => Err(failed(Reason::ConnectTimeout, Retry::Always, false)),
    }
}

impl Exchange<'_, '_, '_, '_> {
    fn send_head(&mut self, lease: &Lease, ends: bool) -> Result<Sent, Failure> {
        self.write_head();
        let never = |reason| Failure {
            reason,
            retry: Retry::Never,
            stale: false,
        };
        let scheme = self.request.pool.tls.as_ref().map_or("http", |_| "https");
        let head = Onward::read(self.scratch.to_backend).and_then(|head| outward(&head, scheme));
        let head = head.ok_or_else(|| never(Reason::BadTarget))?;
        let (response, stream) = lease
            .sender()
            .send_request(head, ends)
            .map_err(|error| lost(&error, false).failure(lease.reused))?;
        Ok(Sent {
            response,
            outgoing: Outgoing::new(stream),
            reused: lease.reused,
        })
    }

    /// Body and response move at the same time. Gives what comes on the stream when it has become a tunnel.
    async fn converse(
        &mut self,
        sent: &mut Sent,
        body: &mut Body<'_>,
        proof: Option<[u8; 28]>,
        buffer: &mut Vec<u8>,
    ) -> (Attempt, Option<RecvStream>) {
        let Sent {
            response,
            outgoing,
            reused,
        } = sent;
        let request = self.request;
        let limits = Limits::of(request, self.reply.is_call());
        let (timer, shard) = (self.timer, request.shard);
        timer.disarm();
        let upload_timer = shard.timers.timer().await;
        upload_timer.limit(limits.total);
        let replayable =
            Cell::new(body.is_replayable(request.pool.config.retries.replay_bytes, Retry::IfIdempotent));
        let mut upload = pin!(upload(request, body, outgoing, &upload_timer, &replayable));
        let mut uploaded = None;
        let patience = Patience::for_head(timer);
        let first_byte = self.head_timeout(shard.timers.recent_us());
        let ends = |result: &Uploaded| {
            patience.begin(first_byte);
            ended_by(result)
        };
        let reading = self.read_head_http2(response, &patience, buffer);
        let mut incoming = match beside(upload.as_mut(), &mut uploaded, ends, reading).await {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(no_head)) => return (Attempt::Failed(no_head.failure(*reused)), None),
            Err(attempt) => return (attempt, None),
        };
        self.note_head();
        if let Some(attempt) = self.switch_http2(outgoing, proof, buffer).await {
            let switched = matches!(attempt, Attempt::Answered { .. });
            return (attempt, switched.then_some(incoming));
        }
        if self.declines(replayable.get()) {
            return (self.decline(buffer).0, None);
        }
        let limit = limits.idle;
        let sent_whole = matches!(uploaded, Some(Ok(())));
        if let Some((attempt, _)) = self.intercept(sent_whole, buffer).await {
            return (attempt, None);
        }
        let mut close = self.write_response(sent_whole, buffer);
        let owed = if uploaded.is_some() { limit } else { Duration::ZERO };
        let patience = Patience::for_body(timer, owed);
        let relaying = self.relay_http2(&mut incoming, &patience);
        let ends = |result: &Uploaded| {
            patience.begin(limit);
            clients_fault(result)
        };
        let relayed = beside(upload, &mut uploaded, ends, relaying).await;
        let relayed = relayed.unwrap_or_else(Err);
        close |= !matches!(uploaded, Some(Ok(())));
        self.tell_call(&relayed).await;
        (self.finish(relayed.map(|()| false), close).0, None)
    }
}

impl Exchange<'_, '_, '_, '_> {
    /// Waits for the final response's head, which is left in `buffer` in its written form; interim ones go to the
    /// client at once.
    async fn read_head_http2(
        &mut self,
        response: &mut ResponseFuture,
        patience: &Patience<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<RecvStream, NoHead> {
        let method = self.request.head.method;
        let mut interim = 0;
        loop {
            let begun = interim > 0;
            let next = poll_fn(|cx| match response.poll_informational(cx) {
                Poll::Ready(Some(Ok(head))) => Poll::Ready(Ok(Next::Interim(head))),
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                _ => std::pin::Pin::new(&mut *response).poll(cx).map_ok(Next::Final),
            });
            let next = self.timer.bound(next);
            let next = match unless_gone(self.reply, Unasked::Waits, next).await? {
                Ok(next) => next.map_err(|error| lost(&error, begun))?,
                Err(Expired) => {
                    let reason = match self.timer.limit_passed() {
                        true => Reason::TotalTimeout,
                        false => self.late(),
                    };
                    return Err(NoHead {
                        reason,
                        begun,
                        refused: false,
                    });
                }
            };
            buffer.clear();
            match next {
                Next::Final(head) => {
                    let (parts, incoming) = head.into_parts();
                    let ends = incoming.is_end_stream();
                    write(buffer, parts.status.as_u16(), &parts.headers, method, ends);
                    self.parse_http2(buffer, begun)?;
                    return Ok(incoming);
                }
                Next::Interim(head) => {
                    interim += 1;
                    write(buffer, head.status().as_u16(), head.headers(), method, true);
                    self.parse_http2(buffer, begun)?;
                    if self.scratch.response.status == 101 || interim > MAX_INTERIM {
                        return Err(NoHead {
                            reason: Reason::BadResponse,
                            begun: true,
                            refused: false,
                        });
                    }
                    patience.aside(self.pass_interim(buffer)).await?;
                }
            }
        }
    }

    fn parse_http2(&mut self, buffer: &[u8], begun: bool) -> Result<(), NoHead> {
        let response = &mut *self.scratch.response;
        response.reset();
        match response.parse(buffer, self.request.head.method) {
            Ok(Parsed::Complete) => Ok(()),
            Ok(Parsed::Incomplete) => Err(NoHead {
                reason: Reason::BadResponse,
                begun,
                refused: false,
            }),
            Err(reason) => Err(NoHead {
                reason,
                begun,
                refused: false,
            }),
        }
    }

    /// Sends the head that was written, then the body as it comes, and trailers.
    async fn relay_http2(
        &mut self,
        incoming: &mut RecvStream,
        patience: &Patience<'_>,
    ) -> Result<(), Broken> {
        if self.scratch.response.framing == Framing::None {
            return self.reply.flush().await;
        }
        // The head goes out at once: data may be long in coming.
        if !incoming.is_end_stream() {
            self.reply.flush().await?;
        }
        let mut left = match self.scratch.response.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        loop {
            match patience.bound(incoming.data()).await {
                Ok(Some(Ok(data))) => {
                    left = left.map(|left| left.saturating_sub(data.len() as u64));
                    self.reply.data(&data);
                    self.reply.flush().await?;
                    // Fails for a stream that is over, whose window nobody needs.
                    let _ = incoming.flow_control().release_capacity(data.len());
                }
                // All that was announced is here, and a client of HTTP/1 knows it: its connection goes on. A call
                // is whole with its trailers only.
                Ok(Some(Err(_))) | Err(Expired) if left == Some(0) && !self.reply.is_call() => {
                    self.reply.end(None);
                    return self.reply.flush().await;
                }
                Ok(Some(Err(_))) => return Err(Broken::Backend(Reason::BackendTruncated)),
                Ok(None) => break,
                Err(Expired) => return Err(self.stream_expired()),
            }
        }
        let trailers = match patience.bound(incoming.trailers()).await {
            Ok(Ok(trailers)) => trailers,
            Ok(Err(_)) => return Err(Broken::Backend(Reason::BackendTruncated)),
            Err(Expired) => return Err(self.stream_expired()),
        };
        let mut came = Trailers::default();
        for (name, value) in trailers.iter().flatten() {
            let pushed = came.push(name.as_str().as_bytes(), value.as_bytes());
            pushed.map_err(|_| Broken::Backend(Reason::BadResponse))?;
        }
        self.reply.end(Some(&came));
        self.reply.flush().await
    }

    fn stream_expired(&self) -> Broken {
        Broken::Backend(match self.timer.limit_passed() {
            true => Reason::TotalTimeout,
            false => Reason::BackendStreamTimeout,
        })
    }

    /// Ends a call whose response has begun and will not go on with a status of its own.
    async fn tell_call(&mut self, relayed: &Result<(), Broken>) {
        let Err(Broken::Backend(reason)) = *relayed else {
            return;
        };
        if self.reply.is_call() && self.scratch.response.framing == Framing::Chunked {
            self.timer.limit(Duration::ZERO);
            self.reply.end(Some(&http::grpc::failure_trailers(reason)));
            // A client that is gone needs no status.
            let _ = self.reply.flush().await;
        }
    }
}

/// What came before or as the final head.
enum Next {
    Interim(http_types::Response<()>),
    Final(http_types::Response<RecvStream>),
}

fn write(buffer: &mut Vec<u8>, status: u16, fields: &HeaderMap, method: http::Method, ends: bool) {
    let list = fields.iter();
    let list = list.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    onward::write_response(buffer, status, list, method, ends);
}

/// The head as the protocol library takes it; `None` where it finds the target or host malformed.
fn outward(head: &Onward<'_>, scheme: &str) -> Option<Outward<()>> {
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(head.authority)
        .path_and_query(head.path)
        .build();
    let mut request = Outward::new(());
    *request.method_mut() = Method::from_bytes(head.method).ok()?;
    *request.uri_mut() = uri.ok()?;
    *request.version_mut() = Version::HTTP_2;
    if let Some(protocol) = head.protocol {
        let protocol = Protocol::from(std::str::from_utf8(protocol).ok()?);
        request.extensions_mut().insert(protocol);
    }
    let fields = request.headers_mut();
    for (name, value) in head.fields() {
        let (name, value) = (
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value).ok()?,
        );
        fields.try_append(name, value).ok()?;
    }
    Some(request)
}

/// Sends the body.
async fn upload(
    request: &Request<'_>,
    body: &mut Body<'_>,
    outgoing: &Outgoing,
    timer: &Timer,
    replayable: &Cell<bool>,
) -> Uploaded {
    let stream_idle = request.pool.config.timeouts.stream_idle;
    let length = match body {
        Body::Whole(length) => *length,
        Body::Streaming(body) => {
            let sink = Sink::Http2(outgoing);
            let (listener, timers) = (request.listener, &request.shard.timers);
            let replay = (request.pool.config.retries.replay_bytes, replayable);
            return body
                .upload(sink, listener, stream_idle, (timer, timers), replay)
                .await;
        }
    };
    if length == 0 {
        return Ok(());
    }
    let start = request.head.head_len;
    let bytes = request.bytes.get(start..start + length).unwrap_or_default();
    timer.arm(stream_idle);
    match timer.bound(outgoing.write(Bytes::copy_from_slice(bytes))).await {
        Ok(Ok(())) => outgoing.end(None).map_err(|_| UploadError::Backend),
        Ok(Err(_)) => Err(UploadError::Backend),
        Err(Expired) => Err(UploadError::BackendTimeout),
    }
}

/// Why no response came. What the backend has not looked at may always be sent again (RFC 9113 section 8.7).
fn lost(error: &h2::Error, begun: bool) -> NoHead {
    let away = error.is_remote() && error.is_go_away();
    let refused = error.is_remote() && error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
    let reason = match error {
        // On a connection that was in use this is a goodbye, and nobody's failure.
        _ if away => Reason::BackendReset,
        _ if refused => Reason::StreamRefused,
        error if error.is_library() => Reason::BadResponse,
        _ => Reason::BackendReset,
    };
    NoHead {
        reason,
        begun,
        refused: away || refused,
    }
}
