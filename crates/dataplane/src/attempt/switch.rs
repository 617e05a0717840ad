//! Requests to switch to another protocol: what is agreement, and how the client is told in its own terms.
//!
//! Over HTTP/1.1 a backend agrees with 101 (RFC 9110 section 7.8) and over HTTP/2 with any success (RFC 8441 section
//! 4). WebSocket's handshake is checked and made by whoever asked, so where only one side has it, that is us.

use http::websocket::{ACCEPT_FIELD, KEY_FIELD, Key, PROTOCOL};
use http::{RequestHead, ResponseHead, Version};
use model::reason::Reason;

use super::{After, Attempt, Exchange, Retry, failed};
use crate::actions;
use crate::backend_http2::Outgoing;
use crate::exchange::Request;
use crate::observe;

/// Whether this 101 agrees to what was asked for.
pub(super) fn agrees(request: &Request<'_>, response: &ResponseHead, buffer: &[u8]) -> bool {
    let Some(upgrade) = request.upgrade.filter(|_| response.status == 101) else {
        return false;
    };
    let proven = match upgrade.key {
        Some(key) => response.field(buffer, ACCEPT_FIELD) == Some(&key.accept()),
        None => true,
    };
    proven && response.switches_to(buffer, upgrade.protocol)
}

/// The answer to the key of a WebSocket client of HTTP/1.1, which a backend of HTTP/2 will not give; `None` where the
/// client expects none.
///
/// # Errors
/// [`Reason::BadWebsocketKey`] when the client has sent no usable key.
pub(super) fn proof(head: &RequestHead, bytes: &[u8], protocol: &[u8]) -> Result<Option<[u8; 28]>, Reason> {
    if head.version == Version::Http2 || !protocol.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
        return Ok(None);
    }
    let key = head.field(bytes, KEY_FIELD).and_then(Key::read);
    Ok(Some(key.ok_or(Reason::BadWebsocketKey)?.accept()))
}

impl Exchange<'_, '_, '_, '_> {
    /// Passes the backend's 101 on; what follows it stays in `buffer`.
    pub(super) async fn switch(&mut self, buffer: &mut Vec<u8>) -> (Attempt, After) {
        let attempt = self.tell_switch(buffer, None).await;
        buffer.drain(..self.scratch.response.head_len);
        let after = match attempt {
            Attempt::Answered { .. } => After::Tunnel,
            _ => After::Close,
        };
        (attempt, after)
    }

    /// The same for a stream; `None` when the backend has declined, or there was nothing to agree to.
    pub(super) async fn switch_http2(
        &mut self,
        outgoing: &Outgoing,
        proof: Option<[u8; 28]>,
        buffer: &[u8],
    ) -> Option<Attempt> {
        self.request.upgrade?;
        if (200..300).contains(&self.scratch.response.status) {
            return Some(self.tell_switch(buffer, proof).await);
        }
        // The backend need not wait for what will not come.
        let _ = outgoing.end(None);
        None
    }

    /// Tells the client that the backend agrees, with the proof that its protocol wants.
    async fn tell_switch(&mut self, buffer: &[u8], proof: Option<[u8; 28]>) -> Attempt {
        self.tell_session(buffer);
        let protocol = self.request.upgrade.map_or(&b""[..], |upgrade| upgrade.protocol);
        let response = &mut *self.scratch.response;
        observe::drop_echo(self.request.observing, response, buffer);
        if let Some(route) = self.request.route {
            actions::drop_ruled(route, response, buffer);
        }
        if proof.is_some() || self.request.head.extended_connect {
            response.drop_fields(buffer, ACCEPT_FIELD);
        }
        let extra = &mut *self.scratch.response_extra;
        if let Some(proof) = proof {
            extra.push(ACCEPT_FIELD.as_bytes(), &proof);
        }
        response.status = self.reply.switch(buffer, response, extra, protocol);
        let sent = self.reply.flush().await;
        self.finish(sent.map(|()| false), false).0
    }

    /// Whether the client would take this response for agreement, though the backend has not switched: over HTTP/2 any
    /// success is.
    pub(super) fn misleads(&self) -> bool {
        self.request.head.extended_connect && (200..300).contains(&self.scratch.response.status)
    }

    /// Drops such a response.
    pub(super) fn refuse_to_mislead(&self, buffer: &[u8]) -> (Attempt, After) {
        let (_, after) = self.decline(buffer);
        (failed(Reason::UpgradeDeclined, Retry::Never, false), after)
    }
}
