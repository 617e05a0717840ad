//! Any bytes as a request head: no panic, and cut in two at any place the same comes out as in one piece.
#![no_main]

use evenkeel_http::forward::client_address;
use evenkeel_http::{Parsed, RequestHead};
use libfuzzer_sys::fuzz_target;
use model::config::{IpNet, ListenerLimits};

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (cut, small, bytes) = input;
    let limits = if small {
        ListenerLimits {
            header_bytes: 128,
            header_fields: 4,
            target_bytes: 24,
            body_bytes: Some(9),
        }
    } else {
        ListenerLimits::default()
    };
    let mut whole = RequestHead::new();
    let outcome = whole.parse(bytes, &limits);
    let mut cut_head = RequestHead::new();
    let first = &bytes[..usize::from(cut).min(bytes.len())];
    let cut_outcome = match cut_head.parse(first, &limits) {
        Ok(Parsed::Incomplete) => cut_head.parse(bytes, &limits),
        decided => decided,
    };
    assert_eq!(outcome, cut_outcome);
    if outcome != Ok(Parsed::Complete) {
        return;
    }
    assert!(whole.head_len <= bytes.len());
    assert_eq!(whole.target(bytes), cut_head.target(bytes));
    assert_eq!(whole.fields, cut_head.fields);
    let target = whole.target(bytes);
    assert!(target == b"*" || target.first() == Some(&b'/'));
    assert!(target.iter().all(|b| b.is_ascii_graphic()));
    assert!(target.starts_with(whole.path(bytes)));
    let _ = (
        whole.cookie(bytes, "a"),
        whole.query_parameter(bytes, "a"),
        whole.may_repeat(bytes),
    );
    let everyone = IpNet::new([0, 0, 0, 0].into(), 0).into_iter().collect::<Vec<_>>();
    client_address(bytes, &whole, [192, 0, 2, 7].into(), &everyone);
});
