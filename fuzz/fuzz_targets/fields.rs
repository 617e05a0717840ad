//! Any bytes as the values of fields that are read closely: cookies, codings, trace context, time limits of calls.
#![no_main]

use evenkeel_http::encoding;
use evenkeel_http::trace::TraceContext;
use evenkeel_http::{Parsed, RequestHead};
use libfuzzer_sys::fuzz_target;
use model::config::ListenerLimits;

fuzz_target!(|value: &[u8]| {
    if let Some(trace) = TraceContext::parse(value) {
        // What is passed on is read as the same.
        assert_eq!(TraceContext::parse(&trace.text()), Some(trace));
    }
    let _ = encoding::negotiate([value].into_iter(), &[]);
    let request = [
        b"GET /?a=b HTTP/1.1\r\nHost: a\r\nCookie: ",
        value,
        b"\r\nAccept-Language: ",
        value,
        b"\r\ngrpc-timeout: ",
        value,
        b"\r\n\r\n",
    ]
    .concat();
    let mut head = RequestHead::new();
    if head.parse(&request, &ListenerLimits::default()) != Ok(Parsed::Complete) {
        return;
    }
    if let Some(cookie) = head.cookie(&request, "session") {
        assert!(!cookie.contains(&b';'));
    }
});
