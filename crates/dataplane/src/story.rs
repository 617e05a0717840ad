//! What happened to a request: noted along the way, read once at its end by whoever keeps account.

use std::cell::Cell;

/// The story of one request.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Index of the route taken, among the routes of the load balancer.
    pub(crate) route: Cell<Option<usize>>,
    /// Index of the backend tried last, among the members of its pool.
    pub(crate) backend: Cell<Option<usize>>,
    /// Attempts made.
    pub(crate) attempts: Cell<u8>,
    /// Whether the last attempt used a kept connection.
    pub(crate) reused: Cell<bool>,
}
