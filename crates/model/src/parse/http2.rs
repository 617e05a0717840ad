//! HTTP/2 of a listener: a table of bounds, or `false`.

use super::section::{Findings, Section, narrow};
use crate::config::Http2;

pub(super) fn http2(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Http2> {
    match s.section_or_false(f, "http2") {
        None => Some(Http2::default()),
        Some(None) => None,
        Some(Some(section)) => Some(in_full(f, &section)),
    }
}

fn in_full(f: &mut Findings<'_>, s: &Section<'_>) -> Http2 {
    let defaults = Http2::default();
    let age = s.duration(f, "max_connection_age");
    let memory = s.size(f, "connection_memory");
    let window_idle = s.duration(f, "window_idle");
    let mut count = |key, default| s.integer(f, key).map_or(default, narrow);
    Http2 {
        max_concurrent_streams: count("max_concurrent_streams", defaults.max_concurrent_streams),
        max_connection_age: age.unwrap_or(defaults.max_connection_age),
        connection_memory: memory.map_or(defaults.connection_memory, narrow),
        window_idle: window_idle.unwrap_or(defaults.window_idle),
        max_cancelled: count("max_cancelled", defaults.max_cancelled),
        max_resets: count("max_resets", defaults.max_resets),
        max_error_resets: count("max_error_resets", defaults.max_error_resets),
        max_pings: count("max_pings", defaults.max_pings),
        max_settings: count("max_settings", defaults.max_settings),
        max_empty_frames: count("max_empty_frames", defaults.max_empty_frames),
        max_continuations: count("max_continuations", defaults.max_continuations),
        max_priorities: count("max_priorities", defaults.max_priorities),
        max_window_updates: count("max_window_updates", defaults.max_window_updates),
    }
}
