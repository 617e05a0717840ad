//! Where requests come from: the facts of a client connection that all its requests share.

use std::net::SocketAddr;

/// A client connection as its requests see it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    /// The peer's address as text, for the forwarding fields.
    pub(crate) peer_text: Box<str>,
}

impl Origin {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            peer_text: peer.ip().to_canonical().to_string().into(),
        }
    }
}
