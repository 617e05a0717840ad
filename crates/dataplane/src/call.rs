//! Calls of gRPC: what is different about them on their way to a backend.
//!
//! A call says itself how long it may take, and a stream of messages may be silent for long without being broken.

use std::time::Duration;

use http::{Method, RequestHead, grpc};

use crate::exchange::Request;

/// Whether this request is a call.
pub(crate) fn is_call(head: &RequestHead, bytes: &[u8]) -> bool {
    head.method == Method::Post && head.field(bytes, "content-type").is_some_and(grpc::is_call)
}

/// How long the call may take by its own words.
fn deadline(request: &Request<'_>) -> Option<Duration> {
    let asked = request.head.field(request.bytes, "grpc-timeout")?;
    // Zero would mean no limit.
    grpc::timeout(asked).map(|deadline| deadline.max(Duration::from_millis(1)))
}

/// The limits that hold for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The whole of it; zero: no limit.
    pub(crate) total: Duration,
    /// To the response's head, once the request is sent; zero: no limit of its own.
    pub(crate) first_byte: Duration,
    /// Between two pieces of a response.
    pub(crate) idle: Duration,
}

impl Limits {
    /// Those of its route and pool, shrunk to the deadline of a call.
    pub(crate) fn of(request: &Request<'_>, is_call: bool) -> Self {
        let timeouts = &request.pool.config.timeouts;
        let otherwise = request.otherwise;
        let total = otherwise.and_then(|route| route.total);
        let first_byte = otherwise.and_then(|route| route.first_byte);
        let limits = Self {
            total: total.unwrap_or(timeouts.total),
            first_byte: first_byte.unwrap_or(timeouts.first_byte),
            idle: timeouts.stream_idle,
        };
        if !is_call {
            return limits;
        }
        let idle = timeouts.tunnel_idle;
        match deadline(request) {
            Some(deadline) if limits.total.is_zero() || deadline < limits.total => Self {
                total: deadline,
                first_byte: Duration::ZERO,
                idle,
            },
            _ => Self { idle, ..limits },
        }
    }
}
