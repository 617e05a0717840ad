//! HTTP/2 to the backends of a pool.

use std::time::Duration;

/// How backends are spoken to over HTTP/2 (RFC 9113). Requests are streams; each shard has a few connections to
/// each backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendHttp2 {
    /// Requests at once on one connection; less where the backend allows less.
    pub max_concurrent_streams: u32,
    /// Connections of a shard to one backend. Another is opened when all are full; beyond, requests wait for
    /// up to `timeouts.connect`.
    pub max_connections: u16,
    /// Age at which a connection takes no more requests, give or take a tenth; zero: no end.
    pub max_connection_age: Duration,
    /// Silence of a connection that carries requests after which the backend is asked whether it is there; zero:
    /// never.
    pub ping_interval: Duration,
    /// How long it may take to answer that.
    pub ping_timeout: Duration,
}

impl Default for BackendHttp2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            max_connections: 8,
            max_connection_age: Duration::from_secs(3600),
            // Servers of gRPC take offence at more than one in five minutes.
            ping_interval: Duration::from_secs(310),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// A health check of gRPC (`grpc.health.v1.Health/Check`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrpcCheck {
    /// The service asked about; empty: the server as a whole.
    pub service: String,
}
