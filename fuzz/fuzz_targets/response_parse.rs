//! Any bytes as a response head: no panic, the same in pieces, and what is forwarded reads back as it was meant.
#![no_main]

use evenkeel_http::forward::{response_framing, write_response};
use evenkeel_http::{FieldList, Framing, Method, Parsed, ResponseHead, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (cut, to_head, bytes) = input;
    let request = if to_head { Method::Head } else { Method::Get };
    let mut head = ResponseHead::new();
    let outcome = head.parse(bytes, request);
    let mut cut_head = ResponseHead::new();
    let first = &bytes[..usize::from(cut).min(bytes.len())];
    let cut_outcome = match cut_head.parse(first, request) {
        Ok(Parsed::Incomplete) => cut_head.parse(bytes, request),
        decided => decided,
    };
    assert_eq!(outcome, cut_outcome);
    if outcome != Ok(Parsed::Complete) {
        return;
    }
    assert!(head.head_len <= bytes.len());
    assert_eq!(head.fields, cut_head.fields);
    for client in [Version::Http10, Version::Http11] {
        let framing = response_framing(&head, client);
        let mut written = Vec::new();
        write_response(&mut written, bytes, &head, client, framing, &FieldList::new(), false);
        let mut again = ResponseHead::new();
        assert_eq!(again.parse(&written, request), Ok(Parsed::Complete));
        assert_eq!(again.head_len, written.len());
        assert_eq!((again.status, again.framing), (head.status, framing));
        assert_eq!(again.content_length, head.content_length);
        assert_eq!(again.keep_alive, framing != Framing::UntilClose);
    }
});
