//! Nothing that is accepted is seen by hyper's server as another message, or as more messages.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/http/tests/conformance/differential.rs"]
mod differential;
#[path = "../../crates/http/tests/conformance/hyper_view.rs"]
mod hyper_view;

fuzz_target!(|bytes: &[u8]| {
    differential::compare(bytes);
});
