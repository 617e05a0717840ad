//! Where the response of a stream goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason as Code, SendStream};
use http::chunked::Trailers;
use http::{FieldList, Framing, ResponseHead};
use http_types::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http_types::{HeaderMap, Response, StatusCode};

use super::ledger::{Ledger, Piece};

/// Bytes of a header frame beside its fields, for the count of bytes sent.
const FRAME_BYTES: u64 = 9;

/// The client's end of a stream. Shared within its task: one part writes the response, another watches for the
/// client's going away.
pub(crate) struct Responder {
    respond: RefCell<SendResponse<Piece>>,
    body: RefCell<Option<SendStream<Piece>>>,
    ledger: Rc<Ledger>,
    held: RefCell<Held>,
    /// The response ended, or the stream was reset by us.
    over: Cell<bool>,
    /// The client did not read in time.
    stalled: Cell<bool>,
}

/// What goes out with the next flush beside data.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) head: Option<Response<()>>,
    pub(crate) trailers: Option<HeaderMap>,
    /// The response ends with what is held.
    pub(crate) ends: bool,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder")
            .field("over", &self.over.get())
            .finish_non_exhaustive()
    }
}

/// The stream is gone: reset by the client, or with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Responder {
    pub(super) fn new(respond: SendResponse<Piece>, ledger: Rc<Ledger>) -> Self {
        Self {
            respond: RefCell::new(respond),
            body: RefCell::new(None),
            ledger,
            held: RefCell::default(),
            over: Cell::new(false),
            stalled: Cell::new(false),
        }
    }

    /// Whether the response went out to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Notes that the client did not read in time.
    pub(crate) fn stall(&self) {
        self.stalled.set(true);
    }

    /// Whether the client did not read in time.
    pub(super) fn has_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(&self, code: Code) {
        if !self.over.replace(true) {
            self.respond.borrow_mut().send_reset(code);
        }
    }

    /// Waits for the client to go away.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let gone = match &mut *self.body.borrow_mut() {
            Some(body) => body.poll_reset(cx).map(|_| ()),
            None if self.over.get() => Poll::Pending,
            None => self.respond.borrow_mut().poll_reset(cx).map(|_| ()),
        };
        // What the end of a response leads to is no concern of the exchange's.
        if self.over.get() { Poll::Pending } else { gone }
    }

    /// Sends an interim response. Returns how many bytes that is, about.
    pub(crate) fn interim(&self, buffer: &[u8], head: &ResponseHead) -> Result<u64, Gone> {
        let response = translate(buffer, head, &FieldList::new());
        let informational = self.respond.borrow_mut().send_informational(response);
        informational.map(|()| FRAME_BYTES).map_err(|_| Gone)
    }

    /// Keeps the head of a response for the next flush.
    pub(crate) fn hold_head(&self, buffer: &[u8], head: &ResponseHead, extra: &FieldList) {
        *self.held.borrow_mut() = Held {
            head: Some(translate(buffer, head, extra)),
            trailers: None,
            ends: matches!(head.framing, Framing::None | Framing::Length(0)),
        };
    }

    /// Keeps the head with which the stream becomes a tunnel for the next flush.
    pub(crate) fn hold_switch(&self, buffer: &[u8], head: &ResponseHead, extra: &FieldList) {
        let mut response = translate(buffer, head, extra);
        *response.status_mut() = StatusCode::OK;
        // What follows is no content (RFC 9110 section 9.3.6).
        response.headers_mut().remove(CONTENT_LENGTH);
        self.held.borrow_mut().head = Some(response);
    }

    /// Keeps the end of the response for the next flush.
    pub(crate) fn hold_end(&self, trailers: Option<&Trailers>) {
        let mut held = self.held.borrow_mut();
        held.ends = true;
        held.trailers = trailers.and_then(trailer_map);
    }

    /// What was kept.
    pub(crate) fn take_held(&self) -> Held {
        self.held.take()
    }

    /// Sends the head of the response. `ends`: no body follows.
    pub(crate) fn head(&self, response: Response<()>, ends: bool) -> Result<u64, Gone> {
        let body = self.respond.borrow_mut().send_response(response, ends);
        *self.body.borrow_mut() = Some(body.map_err(|_| Gone)?);
        if ends {
            self.over.set(true);
        }
        Ok(FRAME_BYTES)
    }

    /// Waits until some of `wanted` bytes may be sent: by the client's windows, and by what the connection holds.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        let mut body = self.body.borrow_mut();
        let Some(body) = body.as_mut() else {
            return Poll::Ready(Err(Gone));
        };
        ready!(self.ledger.poll_room(cx));
        body.reserve_capacity(wanted);
        let mut room = body.capacity();
        if room == 0 {
            room = match ready!(body.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            };
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    /// Sends a piece of the body, for which there is room.
    pub(crate) fn data(&self, bytes: Vec<u8>, ends: bool) -> Result<(), Gone> {
        let mut body = self.body.borrow_mut();
        let body = body.as_mut().ok_or(Gone)?;
        let piece = Piece::new(&self.ledger, bytes);
        body.send_data(piece, ends).map_err(|_| Gone)?;
        if ends {
            self.over.set(true);
        }
        Ok(())
    }

    /// Sends trailers, which end the response.
    pub(crate) fn trailers(&self, fields: HeaderMap) -> Result<(), Gone> {
        let mut body = self.body.borrow_mut();
        let body = body.as_mut().ok_or(Gone)?;
        body.send_trailers(fields).map_err(|_| Gone)?;
        self.over.set(true);
        Ok(())
    }
}

/// The head of a response as the protocol library takes it.
fn translate(buffer: &[u8], head: &ResponseHead, extra: &FieldList) -> Response<()> {
    let mut response = Response::new(());
    // Statuses are checked to be 100 to 599 when they are parsed.
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields = response.headers_mut();
    fields.reserve(http::h2::response_fields(buffer, head, extra).count() + 1);
    for (name, value) in http::h2::response_fields(buffer, head, extra) {
        push(fields, name, value);
    }
    if let Some(length) = http::h2::content_length(head) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Trailers as the protocol library takes them; `None` when there are none.
fn trailer_map(trailers: &Trailers) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in trailers.iter() {
        push(&mut fields, name, value);
    }
    (!fields.is_empty()).then_some(fields)
}

/// Adds a field. What was parsed passes here always; a table that is full (32768 names) takes no more.
fn push(fields: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        let _ = fields.try_append(name, value);
    }
}
