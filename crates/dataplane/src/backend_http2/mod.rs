//! HTTP/2 to backends (RFC 9113): a few connections of each shard to each backend, requests as streams on them.
//!
//! The balancer picks a backend for each request, as over HTTP/1; [`connections`] finds room for a stream there.
//! The head goes through the one form that HTTP/1 has too ([`http::onward`]), so that nothing that holds for
//! the one can fail to hold for the other. Flow control is passed through: what the client has not read, the
//! backend may not send, and the other way round.

mod connections;
mod outgoing;
mod wire;

pub(crate) use connections::{Connections, Lease, acquire};
pub(crate) use outgoing::{Outgoing, Stopped};
