//! HTTP/2 of a listener as text.

use super::Writer;
use crate::config::Http2;

pub(super) fn write(w: &mut Writer, path: &str, http2: Option<&Http2>) {
    let Some(http2) = http2 else {
        return;
    };
    let Http2 {
        max_concurrent_streams,
        max_connection_age,
        connection_memory,
        window_idle,
        max_cancelled,
        max_resets,
        max_error_resets,
        max_pings,
        max_settings,
        max_empty_frames,
        max_continuations,
        max_priorities,
        max_window_updates,
    } = http2;
    w.header(&format!("[{path}.http2]"));
    w.raw("max_concurrent_streams", max_concurrent_streams);
    w.duration("max_connection_age", *max_connection_age);
    w.size("connection_memory", u64::from(*connection_memory));
    w.duration("window_idle", *window_idle);
    w.raw("max_cancelled", max_cancelled);
    w.raw("max_resets", max_resets);
    w.raw("max_error_resets", max_error_resets);
    w.raw("max_pings", max_pings);
    w.raw("max_settings", max_settings);
    w.raw("max_empty_frames", max_empty_frames);
    w.raw("max_continuations", max_continuations);
    w.raw("max_priorities", max_priorities);
    w.raw("max_window_updates", max_window_updates);
}
