//! HTTP/2 of a listener made at random.

use evenkeel_model::config::Http2;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::ms;

pub(super) fn http2() -> impl Strategy<Value = Option<Http2>> {
    let age = prop_oneof![Just(std::time::Duration::ZERO), ms(60_000..=86_400_000)];
    let idle = ms(10..=3_600_000);
    let made = (
        1..=10_000u32,
        age,
        64 * 1024..=1u32 << 26,
        idle,
        vec(1..=1000u32, 9),
    )
        .prop_map(
            |(max_concurrent_streams, max_connection_age, connection_memory, window_idle, counts)| Http2 {
                max_concurrent_streams,
                max_connection_age,
                connection_memory,
                window_idle,
                max_cancelled: counts[0],
                max_resets: counts[1],
                max_error_resets: counts[2],
                max_pings: counts[3],
                max_settings: counts[4],
                max_empty_frames: counts[5],
                max_continuations: counts[6] - 1,
                max_priorities: counts[7],
                max_window_updates: counts[8],
            },
        );
    option::of(made)
}
