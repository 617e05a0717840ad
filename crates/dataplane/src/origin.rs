//! Where requests come from: the facts of a client connection that all its requests share.

use std::net::SocketAddr;

use crate::tls::TlsFacts;

/// A client connection as its requests see it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    /// The peer's address as text, for the forwarding fields.
    pub(crate) peer_text: Box<str>,
    /// Facts of TLS, when it is spoken.
    pub(crate) tls: Option<Box<TlsFacts>>,
}

impl Origin {
    pub(crate) fn new(peer: SocketAddr, tls: Option<Box<TlsFacts>>) -> Self {
        Self {
            peer,
            peer_text: peer.ip().to_canonical().to_string().into(),
            tls,
        }
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static [u8] {
        match self.tls {
            Some(_) => b"https",
            None => b"http",
        }
    }
}
