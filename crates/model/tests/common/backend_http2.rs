//! HTTP/2 to backends made at random.

use std::time::Duration;

use evenkeel_model::config::BackendHttp2;
use proptest::prelude::*;

use super::ms;

const DAY: u64 = 86_400_000;

pub(super) fn backend_http2() -> impl Strategy<Value = BackendHttp2> {
    let or_zero = |from| prop_oneof![Just(Duration::ZERO), ms(from..=DAY)];
    (
        1..=10_000u32,
        1..=1000u16,
        or_zero(1000),
        or_zero(10_000),
        ms(10..=3_600_000),
    )
        .prop_map(
            |(max_concurrent_streams, max_connections, max_connection_age, ping_interval, ping_timeout)| {
                BackendHttp2 {
                    max_concurrent_streams,
                    max_connections,
                    max_connection_age,
                    ping_interval,
                    ping_timeout,
                }
            },
        )
}
