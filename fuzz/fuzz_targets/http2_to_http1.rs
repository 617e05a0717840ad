//! A request of HTTP/2, written for a backend of HTTP/1, is one request to our own parser and to hyper's server:
//! the same one, with the same body, and nothing behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/http/tests/conformance/hyper_view.rs"]
mod hyper_view;
#[path = "../../crates/http/tests/conformance/translation.rs"]
mod translation;

fuzz_target!(|input: (bool, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>)| {
    let (end_stream, list, body) = input;
    translation::compare(end_stream, &list, &body);
});
