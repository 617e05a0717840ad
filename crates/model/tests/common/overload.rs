//! Caps, queues and circuit breakers made at random.

use evenkeel_model::config::{Caps, CircuitBreaker, Overload, Queue};
use proptest::option;
use proptest::prelude::*;

use super::ms;

pub(super) fn caps() -> impl Strategy<Value = Caps> {
    (option::of(1..=1_000_000u32), option::of(1..=1_000_000u32)).prop_map(
        |(max_requests, max_connections)| Caps {
            max_requests,
            max_connections,
        },
    )
}

pub(super) fn overload() -> impl Strategy<Value = Overload> {
    let queue = (0..=100_000u32, ms(10..=3_600_000), ms(10..=3_600_000));
    let queue = queue.prop_map(|(size, timeout, target)| Queue {
        size,
        timeout,
        target: target.min(timeout),
    });
    (caps(), queue, option::of(breaker())).prop_map(|(caps, queue, circuit_breaker)| Overload {
        caps,
        queue,
        circuit_breaker,
    })
}

fn breaker() -> impl Strategy<Value = CircuitBreaker> {
    (
        1..=100u8,
        1..=1_000_000u32,
        ms(1000..=3_600_000),
        ms(100..=3_600_000),
        1..=1000u32,
    )
        .prop_map(
            |(failure_ratio, minimum_requests, window, open_time, half_open_requests)| CircuitBreaker {
                failure_ratio,
                minimum_requests,
                window,
                open_time,
                half_open_requests,
            },
        )
}
