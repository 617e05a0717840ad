//! HTTP/2 (RFC 9113) as values: requests taken into the one message form, responses given out of it, and the
//! meter that watches a connection's frames.
//!
//! Frames, HPACK and flow control are the `h2` crate's work, which the shell drives. What it does not refuse, is
//! refused here: a request that an HTTP/1 parser would read as something else, and a client whose frames cost us
//! more than they cost it.

mod meter;
mod request;
mod response;

pub use meter::{Abuse, FrameMeter, Seen};
pub use request::Refusal;
pub use response::{content_length, response_fields};

/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
