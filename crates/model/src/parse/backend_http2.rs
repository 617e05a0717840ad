//! How backends are spoken to: `protocol` and `http2` of a pool.

use super::section::{Findings, Section, narrow};
use crate::config::BackendHttp2;

/// `None`: HTTP/1.1.
pub(super) fn backend_http2(f: &mut Findings<'_>, s: &Section<'_>) -> Option<BackendHttp2> {
    let chosen = s.choice(f, "protocol") == Some("http2");
    let settings = s.section(f, "http2").map(|s| settings(f, &s));
    chosen.then(|| settings.unwrap_or_default())
}

fn settings(f: &mut Findings<'_>, s: &Section<'_>) -> BackendHttp2 {
    let defaults = BackendHttp2::default();
    BackendHttp2 {
        max_concurrent_streams: s
            .integer(f, "max_concurrent_streams")
            .map_or(defaults.max_concurrent_streams, narrow),
        max_connections: s
            .integer(f, "max_connections")
            .map_or(defaults.max_connections, narrow),
        max_connection_age: s
            .duration(f, "max_connection_age")
            .unwrap_or(defaults.max_connection_age),
        ping_interval: s.duration(f, "ping_interval").unwrap_or(defaults.ping_interval),
        ping_timeout: s.duration(f, "ping_timeout").unwrap_or(defaults.ping_timeout),
    }
}
