//! Where a response goes: it is written into a buffer in the client's own form, and the buffer is sent.
//!
//! Everything that reaches the client passes through here, whether it comes from a backend or is our own answer.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::answer::Answer;
use http::chunked::{self, Trailers};
use http::{FieldList, Framing, Method, RequestHead, ResponseHead, Version};
use http::{forward, grpc};
use model::config::ErrorPages;
use model::reason::Reason;
use net::splice::Pipe;

use crate::compress::Encoder;
use crate::http2::{Held, Responder};
use crate::observe::clock;
use crate::relay::Broken;
use crate::stream::{Left, Stream};
use crate::timers::{Expired, Timer};

/// The interim response that means nothing to a client which did not ask for it.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The client's end of one exchange.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    wire: Wire<'a>,
    timer: &'a Timer,
    /// What is not sent yet: over HTTP/1 as it goes over the wire, over HTTP/2 data of the body.
    out: &'a mut Vec<u8>,
    method: Method,
    version: Version,
    /// Whether the client takes trailers (`TE: trailers`).
    trailers: bool,
    /// Between two writes.
    write_idle: Duration,
    framing: Framing,
    /// The request is a call of gRPC: failures are told in its terms.
    call: bool,
    /// Own pages for failures.
    pages: Option<Arc<ErrorPages>>,
    /// What encodes the body.
    encoder: Option<Box<Encoder>>,
    /// Bytes sent so far.
    sent: u64,
    /// Those of interim responses among them.
    sent_interim: u64,
    /// The client was asked whether it is there.
    asked: Cell<bool>,
    /// The encoder failed: the body cannot be finished.
    failed: bool,
    /// Nothing is sent before there is this much, or [`Reply::release`] says so.
    hold: usize,
}

/// What carries the response.
#[derive(Debug)]
enum Wire<'a> {
    Http1(&'a Stream),
    Http2(&'a Responder),
}

impl<'a> Reply<'a> {
    /// The answer to `request` over an HTTP/1 connection.
    pub(crate) fn new(
        stream: &'a Stream,
        timer: &'a Timer,
        out: &'a mut Vec<u8>,
        request: &RequestHead,
        write_idle: Duration,
    ) -> Self {
        Self::over(Wire::Http1(stream), timer, out, request, write_idle)
    }

    /// The answer to `request` over a stream of HTTP/2.
    pub(crate) fn http2(
        responder: &'a Responder,
        timer: &'a Timer,
        out: &'a mut Vec<u8>,
        request: &RequestHead,
        write_idle: Duration,
    ) -> Self {
        Self::over(Wire::Http2(responder), timer, out, request, write_idle)
    }

    fn over(
        wire: Wire<'a>,
        timer: &'a Timer,
        out: &'a mut Vec<u8>,
        request: &RequestHead,
        write_idle: Duration,
    ) -> Self {
        out.clear();
        Self {
            wire,
            timer,
            out,
            method: request.method,
            version: request.version,
            trailers: request.te_trailers,
            write_idle,
            framing: Framing::None,
            call: false,
            pages: None,
            encoder: None,
            sent: 0,
            sent_interim: 0,
            asked: Cell::new(false),
            failed: false,
            hold: 0,
        }
    }

    /// From now on failures are told as gRPC tells them.
    pub(crate) fn answers_call(&mut self) {
        self.call = true;
    }

    /// Whether the request is a call of gRPC, whose client takes trailers.
    pub(crate) fn is_call(&self) -> bool {
        self.call && self.version != Version::Http10
    }

    /// What the client speaks, as logs name it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }

    /// Whether something has come from the client of HTTP/1: bytes, the end, or a reset. If not, the task is woken
    /// when it does. Over HTTP/2 the whole exchange ends with its stream.
    pub(crate) fn client_stirs(&self, cx: &mut Context<'_>) -> bool {
        match self.wire {
            Wire::Http1(stream) => stream.poll_stirs(cx),
            Wire::Http2(_) => false,
        }
    }

    /// Whether the client has left or says that it sends no more.
    pub(crate) fn client_left(&self, cx: &mut Context<'_>) -> Left {
        match self.wire {
            Wire::Http1(stream) => stream.poll_left(cx),
            Wire::Http2(_) => Left::default(),
        }
    }

    /// Whether a client that sends no more can be asked whether it is there.
    pub(crate) fn may_ask(&self) -> bool {
        self.version != Version::Http10
    }

    /// Asks a client that sends no more whether it is there, once: if it is not, its connection is reset.
    pub(crate) async fn ask(&self) -> io::Result<()> {
        let Wire::Http1(stream) = self.wire else {
            return Ok(());
        };
        if self.asked.replace(true) {
            return Ok(());
        }
        let timer = self.timer.another().await;
        timer.arm(self.write_idle);
        match timer.bound(stream.write_all(CONTINUE)).await {
            Ok(written) => written,
            Err(Expired) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A timer beside the one that bounds the exchange.
    pub(crate) async fn another_timer(&self) -> Timer {
        self.timer.another().await
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        let asked = if self.asked.get() {
            CONTINUE.len() as u64
        } else {
            0
        };
        self.sent + asked
    }

    /// Whether something of the final response was sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.sent > self.sent_interim
    }

    /// Writes an interim response (1xx) of a backend and sends it; a client that does not know them gets none.
    pub(crate) async fn interim(&mut self, buffer: &[u8], response: &ResponseHead) -> Result<(), Broken> {
        if self.version == Version::Http10 {
            return Ok(());
        }
        if let Wire::Http2(responder) = &self.wire {
            let sent = responder.interim(buffer, response);
            self.sent += sent.map_err(|_| Broken::Client(Reason::ClientGone))?;
        } else {
            forward::write_interim(self.out, buffer, response);
            self.flush().await?;
        }
        self.sent_interim = self.sent;
        Ok(())
    }

    /// Writes the answer with which the connection, or the stream, becomes a tunnel. Returns its status.
    pub(crate) fn switch(
        &mut self,
        buffer: &[u8],
        response: &ResponseHead,
        extra: &FieldList,
        protocol: &[u8],
    ) -> u16 {
        if let Wire::Http2(responder) = &self.wire {
            responder.hold_switch(buffer, response, extra);
            return 200;
        }
        forward::write_switch(self.out, buffer, response, extra, protocol);
        101
    }

    /// Writes the head of a backend's response with `extra` fields. `close`: the connection should end after it.
    /// Says whether it will; a stream of HTTP/2 ends always, and its connection for its own reasons.
    pub(crate) fn head(
        &mut self,
        buffer: &[u8],
        response: &ResponseHead,
        extra: &FieldList,
        close: bool,
    ) -> bool {
        if let Wire::Http2(responder) = &self.wire {
            responder.hold_head(buffer, response, extra);
            self.framing = response.framing;
            return close;
        }
        self.framing = forward::response_framing(response, self.version);
        let close = close || self.framing == Framing::UntilClose;
        forward::write_response(
            self.out,
            buffer,
            response,
            self.version,
            self.framing,
            extra,
            close,
        );
        close
    }

    /// The body that was begun stays incomplete. Where nothing but the end of the connection ends it, that end is made
    /// one that no client takes for the whole (RFC 9112 section 8).
    pub(crate) fn break_off(&self) {
        if let Wire::Http1(stream) = &self.wire
            && self.framing == Framing::UntilClose
        {
            stream.reset_at_close();
        }
    }

    /// As [`Reply::head`], for a body that goes through `encoder`.
    pub(crate) fn encoded_head(
        &mut self,
        buffer: &[u8],
        response: &ResponseHead,
        extra: &FieldList,
        close: bool,
        encoder: Encoder,
    ) -> bool {
        self.encoder = Some(Box::new(encoder));
        self.head(buffer, response, extra, close)
    }

    /// Tells a client that waits for it that its body is welcome.
    pub(crate) async fn allow_body(&mut self) -> Result<(), Broken> {
        let mut head = ResponseHead::new();
        match head.parse(CONTINUE, self.method) {
            Ok(_) => self.interim(CONTINUE, &head).await,
            Err(reason) => Err(Broken::Client(reason)),
        }
    }

    /// Holds back what is written until there is this much.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.hold = bytes;
    }

    /// Whether something may be held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.hold > 0
    }

    /// Sends what is held back.
    pub(crate) async fn release(&mut self) -> Result<(), Broken> {
        self.hold = 0;
        self.flush().await
    }

    /// Uses own pages for failures from now on.
    pub(crate) fn use_pages(&mut self, pages: &Arc<ErrorPages>) {
        self.pages = Some(pages.clone());
    }

    /// Bytes that the encoder took and gave; `None` where there was none.
    pub(crate) fn encoded(&self) -> Option<(u64, u64)> {
        self.encoder.as_ref().map(|encoder| encoder.sizes())
    }

    /// Writes a part of the body.
    pub(crate) fn data(&mut self, data: &[u8]) {
        match self.encoder.is_some() {
            true => self.encode(|encoder, out| encoder.take(data, out)),
            false => self.plain_data(data),
        }
    }

    /// Has the encoder do something, and writes what comes of it.
    fn encode(&mut self, act: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> io::Result<()>) {
        let Some(encoder) = &mut self.encoder else {
            return;
        };
        let mut encoded = Vec::new();
        self.failed |= act(encoder, &mut encoded).is_err();
        self.plain_data(&encoded);
    }

    fn plain_data(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.framing == Framing::Chunked && matches!(self.wire, Wire::Http1(_)) {
            chunked::write_chunk_head(self.out, data.len());
            self.out.extend_from_slice(data);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.out.extend_from_slice(data);
        }
    }

    /// Writes the end of the body.
    pub(crate) fn end(&mut self, trailers: Option<&Trailers>) {
        self.encode(Encoder::finish);
        match &self.wire {
            Wire::Http2(responder) => responder.hold_end(trailers),
            Wire::Http1(_) if self.framing == Framing::Chunked => {
                chunked::write_last_chunk(self.out, trailers.filter(|_| self.trailers));
            }
            Wire::Http1(_) => {}
        }
    }

    /// Sends what was written.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        self.encode(Encoder::pause);
        if self.failed {
            return Err(Broken::Client(Reason::LocalResources));
        }
        if self.out.len() < self.hold {
            return Ok(());
        }
        self.hold = 0;
        let stream = match self.wire {
            Wire::Http1(stream) => stream,
            Wire::Http2(responder) => return self.flush_http2(responder).await,
        };
        let mut at = 0;
        while let Some(rest) = self.out.get(at..).filter(|r| !r.is_empty()) {
            // Armed for each write: a slow reader is fine as long as it reads.
            self.timer.arm(self.write_idle);
            match self.timer.bound(stream.write(rest)).await {
                Ok(Ok(n)) if n > 0 => {
                    at += n;
                    self.sent += n as u64;
                }
                Ok(_) => return Err(Broken::Client(Reason::ClientGone)),
                Err(Expired) => return Err(self.expired()),
            }
        }
        self.out.clear();
        // What TLS holds back is a part of the last write, which may have been an earlier one.
        if at == 0 {
            self.timer.arm(self.write_idle);
        }
        match self.timer.bound(stream.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Broken::Client(Reason::ClientGone)),
            Err(Expired) => Err(self.expired()),
        }
    }

    async fn flush_http2(&mut self, responder: &Responder) -> Result<(), Broken> {
        let gone = |_| Broken::Client(Reason::ClientGone);
        let Held { head, trailers, ends } = responder.take_held();
        if let Some(head) = head {
            let bare = ends && trailers.is_none() && self.out.is_empty();
            self.sent += responder.head(head, bare).map_err(gone)?;
        }
        let last = ends && trailers.is_none();
        let mut at = 0;
        while at < self.out.len() {
            let wanted = self.out.len() - at;
            self.timer.arm(self.write_idle);
            let room = poll_fn(|cx| responder.poll_room(cx, wanted));
            let room = match self.timer.bound(room).await {
                Ok(room) => room.map_err(gone)?,
                Err(Expired) => return Err(self.expired()),
            };
            let piece = if room == self.out.len() {
                std::mem::take(self.out)
            } else {
                self.out.get(at..at + room).unwrap_or_default().to_vec()
            };
            at += room;
            self.sent += room as u64;
            responder.data(piece, last && room == wanted).map_err(gone)?;
            if self.out.is_empty() {
                break;
            }
        }
        self.out.clear();
        if let Some(trailers) = trailers {
            responder.trailers(trailers).map_err(gone)?;
        } else if ends && !responder.is_over() {
            responder.data(Vec::new(), true).map_err(gone)?;
        }
        Ok(())
    }

    /// Whether a body of known length can be moved to the client inside the kernel.
    pub(crate) fn is_spliceable(&self) -> bool {
        if self.is_holding() {
            return false;
        }
        match self.wire {
            Wire::Http1(stream) => stream.is_spliceable() && matches!(self.framing, Framing::Length(_)),
            Wire::Http2(_) => false,
        }
    }

    /// Sends what the pipe holds.
    pub(crate) async fn splice(&mut self, pipe: &mut Pipe) -> Result<(), Broken> {
        let Wire::Http1(stream) = self.wire else {
            return Err(Broken::Client(Reason::ClientGone));
        };
        while pipe.held() > 0 {
            self.timer.arm(self.write_idle);
            match self.timer.bound(stream.splice_from(pipe)).await {
                Ok(Ok(n)) => self.sent += n as u64,
                Ok(Err(_)) => return Err(Broken::Client(Reason::ClientGone)),
                Err(Expired) => return Err(self.expired()),
            }
        }
        Ok(())
    }

    /// Sends an answer of our own.
    pub(crate) async fn answer(
        &mut self,
        answer: &Answer<'_>,
        extra: &FieldList,
        close: bool,
    ) -> Result<(), Broken> {
        self.out.clear();
        let extra = &dated(extra);
        http::answer::write(self.out, answer, (self.method, self.version), extra, close);
        self.whole().await
    }

    /// Answers with the reason why nothing better could be answered, and sends it. Nothing for reasons that no
    /// response can tell of.
    pub(crate) async fn failure(
        &mut self,
        reason: Reason,
        retry_after_s: Option<u32>,
        extra: &FieldList,
        close: bool,
    ) -> Result<(), Broken> {
        // What was held back of a response that broke off is not sent.
        self.hold = 0;
        self.encoder = None;
        let page = self.pages.clone().filter(|_| !self.call);
        if let Some(page) = page.as_ref().and_then(|pages| pages.page(reason.status())) {
            let answer = Answer {
                status: reason.status(),
                content_type: Some(page.content_type().as_bytes()),
                reason: Some(reason),
                retry_after_s,
                body: &page.bytes,
                ..Answer::default()
            };
            return self.answer(&answer, extra, close).await;
        }
        self.out.clear();
        let extra = &dated(extra);
        if self.call {
            grpc::write_failure(self.out, reason, self.version, extra, close, retry_after_s);
            return self.whole().await;
        }
        forward::write_failure(
            self.out,
            reason,
            self.method,
            self.version,
            extra,
            close,
            retry_after_s,
        );
        self.whole().await
    }

    /// Sends an answer of our own, which stands in the buffer as a whole message of HTTP/1.
    async fn whole(&mut self) -> Result<(), Broken> {
        if let Wire::Http1(_) = self.wire {
            return self.flush().await;
        }
        let message = std::mem::take(self.out);
        let mut head = ResponseHead::new();
        if head.parse(&message, self.method).is_ok() {
            self.head(&message, &head, &FieldList::new(), false);
            self.data(message.get(head.head_len..).unwrap_or_default());
            self.end(None);
        }
        self.flush().await
    }

    fn expired(&self) -> Broken {
        if self.timer.limit_passed() {
            Broken::Backend(Reason::TotalTimeout)
        } else {
            if let Wire::Http2(responder) = &self.wire {
                responder.stall();
            }
            Broken::Client(Reason::ClientWriteTimeout)
        }
    }
}

/// The fields of an answer of our own, with the time at which it was made (RFC 9110 section 6.6.1).
fn dated(extra: &FieldList) -> FieldList {
    let mut dated = extra.clone();
    if !dated.has(b"Date") {
        dated.push(b"Date", &clock::http_date_now());
    }
    dated
}
