//! The keys of HTTP/2 from clients.

use super::Default::Is;
use super::Kind::{Duration, Integer, Size};
use super::keys::{DAY, HOUR, MIB, MINUTE, key, timeout};
use super::{Kind, Table};

/// A bound on what one connection may do.
const COUNT: Kind = Integer {
    min: 1,
    max: 1_000_000,
};

pub(crate) static HTTP2: Table = Table {
    id: "http2",
    heading: "http2 of a listener",
    about: "HTTP/2 from clients: over TLS when the client offers it, otherwise when its first bytes say so. The bounds are per connection; a client over one is told so with GOAWAY ENHANCE_YOUR_CALM, and counted in `evenkeel_http2_abuse_total`.",
    keys: &[&[
        key(
            "max_concurrent_streams",
            Integer { min: 1, max: 10_000 },
            Is("100"),
            "Requests at once on one connection. Beyond: the stream is refused.",
        ),
        key(
            "max_connection_age",
            Duration {
                min: MINUTE,
                max: 30 * DAY,
                or_zero: true,
            },
            Is("\"1h\""),
            "How old a connection gets, give or take a tenth, before its client is asked to open another; 0 means no end.",
        ),
        key(
            "connection_memory",
            Size {
                min: 64 * 1024,
                max: 64 * MIB,
            },
            Is("\"256KiB\""),
            "What one connection may make us hold: headers of requests that run, and responses that are not sent yet. Beyond it streams are refused, and responses wait.",
        ),
        key(
            "window_idle",
            timeout(HOUR),
            Is("\"30s\""),
            "How long a response waits for its client to open the stream's window, or for room in `connection_memory`; then the stream is reset. Tunnels have `tunnel_idle` instead.",
        ),
        key(
            "max_cancelled",
            COUNT,
            Is("50"),
            "Streams that the client cancels before they are answered (CVE-2023-44487). One is forgiven for each twenty that are answered.",
        ),
        key(
            "max_resets",
            COUNT,
            Is("100"),
            "Streams that the client cancels in 10 s, answered or not.",
        ),
        key(
            "max_error_resets",
            COUNT,
            Is("200"),
            "Streams that must be reset because of what the client sends (CVE-2025-8671). One is forgiven for each twenty that are answered.",
        ),
        key(
            "max_pings",
            COUNT,
            Is("20"),
            "PING frames in a second (CVE-2019-9512); those that answer to data of ours are not counted.",
        ),
        key(
            "max_settings",
            COUNT,
            Is("10"),
            "SETTINGS frames in 10 s (CVE-2019-9515).",
        ),
        key(
            "max_empty_frames",
            COUNT,
            Is("100"),
            "Frames without a payload that end nothing (CVE-2019-9518).",
        ),
        key(
            "max_continuations",
            Integer { min: 0, max: 1000 },
            Is("4"),
            "CONTINUATION frames of one header (CVE-2024-27316); together with HEADERS they hold at most `limits.header_bytes`. More than 5, and than a quarter more than `limits.header_bytes` needs, are refused in any case.",
        ),
        key(
            "max_priorities",
            COUNT,
            Is("100"),
            "PRIORITY and unknown frames, beyond two for each stream (CVE-2019-9513).",
        ),
        key(
            "max_window_updates",
            COUNT,
            Is("1000"),
            "WINDOW_UPDATE frames, beyond two for each stream and ten for each frame of data of ours.",
        ),
    ]],
    rules: &[],
};
