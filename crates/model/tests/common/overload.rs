//! Caps, queues and circuit breakers made at random.

use evenkeel_model::config::{Caps, CircuitBreaker, Overload, Pool, Queue};
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

/// Takes out what a pool may not have that speaks HTTP/2.
pub(super) fn fit(pool: &mut Pool) {
    if pool.http2.is_some() {
        let of_backends = pool.backends.iter_mut().map(|backend| &mut backend.caps);
        let all = of_backends.chain([&mut pool.overload.caps]);
        all.for_each(|caps| caps.max_connections = None);
    }
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
