//! HTTP as values: message heads, the HTTP/1 codec with its hygiene, what is forwarded, and which route it takes.
//!
//! The one principle: parse once into a canonical form, decide on that form, write that form. Raw bytes of a
//! head are never forwarded, so what routing saw is what the backend sees, and a message that two parsers could
//! read in two ways is refused rather than repaired. What is refused, and with which reason code, stands in
//! `docs/http.md`.
//!
//! A head is a flat list of [`message::Field`]s whose names and values are [`message::Span`]s into the caller's
//! buffer: nothing is copied, and a reused [`request::RequestHead`] allocates nothing on the steady path.
//!
//! This crate does no IO, reads no clock and holds no connection state; the shells own sockets and buffers.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod answer;
pub mod chunked;
pub mod encoding;
mod field_list;
mod fields;
pub mod forward;
pub mod grpc;
pub mod h2;
pub mod message;
pub mod onward;
pub mod request;
pub mod request_id;
pub mod response;
pub mod route;
mod scan;
mod syntax;
mod target;
pub mod template;
pub mod trace;
pub mod websocket;

pub use field_list::FieldList;
pub use message::{Field, FieldKind, Framing, Method, Parsed, Span, Version};
pub use request::RequestHead;
pub use request_id::RequestId;
pub use response::ResponseHead;
pub use trace::TraceContext;
