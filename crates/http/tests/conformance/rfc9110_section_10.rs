//! RFC 9110 section 10.1.1: Expect.

use super::*;

#[test]
fn a_client_that_waits_before_its_body_is_noticed_and_passed_on() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut request = accepted(with_fields(
            "POST",
            &format!("{framing}\r\nExpect: 100-Continue\r\n"),
        ));
        assert!(request.head.expect_continue);
        assert_eq!(request.forwarded().matches("Expect: 100-continue\r\n").count(), 1);
        // Once it was answered here, the backend is not asked again.
        request.head.expect_continue = false;
        assert!(!request.forwarded().contains("Expect"));
    }
}

#[test]
fn without_a_body_or_on_1_0_there_is_nothing_to_wait_for() {
    for bytes in [
        with_fields("POST", "Expect: 100-continue\r\n"),
        with_fields("POST", "Content-Length: 0\r\nExpect: 100-continue\r\n"),
        "POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".to_owned(),
    ] {
        let request = accepted(bytes);
        assert!(!request.head.expect_continue);
        assert!(!request.forwarded().contains("Expect"));
    }
}

#[test]
fn any_other_expectation_fails() {
    for value in [
        "",
        "x",
        "100-continue, x",
        "100-continue, 100-continue",
        "100",
        "100-continue=1",
    ] {
        let bytes = with_fields("POST", &format!("Content-Length: 5\r\nExpect: {value}\r\n"));
        assert_eq!(refused(bytes), Reason::ExpectationFailed, "{value:?}");
    }
}
