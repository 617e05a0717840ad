//! Parse, write, parse: what was written means the same and is written the same again.

use super::*;
use crate::incremental::{SAMPLES, damaged};
use proptest::prelude::*;

fn check(request: &Request) {
    let written = request.forwarded_bytes(&via("10.0.0.1", true));
    let again = accepted(&written);
    let (one, two) = (&request.head, &again.head);
    assert_eq!(one.method_bytes(&request.buf), two.method_bytes(&again.buf));
    assert_eq!(one.target(&request.buf), two.target(&again.buf));
    assert_eq!(one.framing, two.framing);
    assert_eq!(one.expect_continue, two.expect_continue);
    assert_eq!(one.te_trailers, two.te_trailers);
    if !one.host(&request.buf).is_empty() {
        assert_eq!(one.host(&request.buf), two.host(&again.buf));
    }
    assert_eq!(two.head_len, written.len());
    // The first hop may add a Host; from then on the text is a fixed point.
    let stranger = via("192.0.2.7", false);
    let first = accepted(request.forwarded_bytes(&stranger));
    let second = accepted(first.forwarded_bytes(&stranger));
    assert_eq!(second.buf, second.forwarded_bytes(&stranger));
}

impl Request {
    fn forwarded_bytes(&self, via: &Via<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_request(&mut out, &self.buf, &self.head, via, &FieldList::new());
        out
    }
}

#[test]
fn the_samples_are_stable() {
    for sample in SAMPLES {
        check(&accepted(sample));
    }
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_stable(bytes in damaged()) {
        if let Ok(Some(request)) = parse_with(&bytes, &ListenerLimits::default()) {
            check(&request);
        }
    }
}
