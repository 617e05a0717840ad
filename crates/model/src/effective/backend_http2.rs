//! HTTP/2 to backends as text.

use super::Writer;
use crate::config::BackendHttp2;

/// The table of a pool that has one.
pub(super) fn write(w: &mut Writer, path: &str, http2: Option<&BackendHttp2>) {
    let Some(http2) = http2 else {
        return;
    };
    let BackendHttp2 {
        max_concurrent_streams,
        max_connections,
        max_connection_age,
        ping_interval,
        ping_timeout,
    } = http2;
    w.header(&format!("[{path}.http2]"));
    w.raw("max_concurrent_streams", max_concurrent_streams);
    w.raw("max_connections", max_connections);
    w.duration("max_connection_age", *max_connection_age);
    w.duration("ping_interval", *ping_interval);
    w.duration("ping_timeout", *ping_timeout);
}
