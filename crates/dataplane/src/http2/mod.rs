//! HTTP/2 from clients (RFC 9113): one task drives the connection, one task serves each stream.
//!
//! The `h2` crate knows frames, HPACK and flow control. Around it stand a [`transport`] that meters every frame
//! both ways and sends once per turn instead of once per frame, and a [`ledger`] that bounds what one connection
//! makes us hold. A stream's task runs the same exchange as a request of HTTP/1: only where bodies come from and
//! where responses go to has a second form.

mod connection;
mod incoming;
mod ledger;
mod responder;
mod stream;
mod tasks;
mod transport;

pub(crate) use connection::{Accepted, run};
pub(crate) use incoming::Incoming;
pub(crate) use responder::{Held, Responder};
pub(crate) use tasks::StreamTasks;
