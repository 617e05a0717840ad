//! HTTP/2 from clients: how much one connection may ask for.

use std::time::Duration;

/// HTTP/2 of a listener. Every bound has a metric that counts what it stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http2 {
    /// Requests at once on one connection. Beyond: the stream is refused.
    pub max_concurrent_streams: u32,
    /// How old a connection gets, give or take a tenth, before its client is asked to open another; zero: no end.
    pub max_connection_age: Duration,
    /// Bytes that one connection may make us hold. Beyond it streams are refused, and responses wait.
    pub connection_memory: u32,
    /// How long a response waits for its client to open the stream's window; then the stream is reset.
    pub window_idle: Duration,
    /// Streams that the client cancelled before they were answered (CVE-2023-44487). One is forgiven for each
    /// twenty that were answered.
    pub max_cancelled: u32,
    /// Streams that the client cancelled in 10 s, answered or not.
    pub max_resets: u32,
    /// Streams that had to be reset because of what the client sent (CVE-2025-8671). One is forgiven for each
    /// twenty that were answered.
    pub max_error_resets: u32,
    /// PING frames in a second (CVE-2019-9512), but for those that answer to data of ours.
    pub max_pings: u32,
    /// SETTINGS frames in 10 s (CVE-2019-9515).
    pub max_settings: u32,
    /// Frames without a payload that end nothing, in a connection's life (CVE-2019-9518).
    pub max_empty_frames: u32,
    /// CONTINUATION frames of one header (CVE-2024-27316).
    pub max_continuations: u32,
    /// PRIORITY and unknown frames, beyond two for each stream (CVE-2019-9513).
    pub max_priorities: u32,
    /// WINDOW_UPDATE frames, beyond two for each stream and ten for each frame of data of ours.
    pub max_window_updates: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            max_connection_age: Duration::from_secs(3600),
            connection_memory: 256 * 1024,
            window_idle: Duration::from_secs(30),
            max_cancelled: 50,
            max_resets: 100,
            max_error_resets: 200,
            max_pings: 20,
            max_settings: 10,
            max_empty_frames: 100,
            max_continuations: 4,
            max_priorities: 100,
            max_window_updates: 1000,
        }
    }
}
