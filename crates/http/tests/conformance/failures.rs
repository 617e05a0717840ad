//! Responses of our own.

use super::*;
use evenkeel_http::forward::write_failure;

fn failure(reason: Reason, request: Method, version: Version, close: bool, retry: Option<u32>) -> String {
    let mut out = Vec::new();
    write_failure(
        &mut out,
        reason,
        request,
        version,
        &FieldList::new(),
        close,
        retry,
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn every_reason_with_a_status_makes_a_whole_response() {
    for &reason in Reason::ALL.iter().filter(|reason| reason.status() != 0) {
        let text = failure(reason, Method::Get, Version::Http11, true, None);
        let response = answer(&text);
        assert_eq!(response.head.status, reason.status());
        assert!(!response.head.phrase(&response.buf).is_empty(), "{text}");
        assert_eq!(
            response.head.field(&response.buf, "x-evenkeel-reason"),
            Some(reason.code().as_bytes())
        );
        let body = &text[response.head.head_len..];
        assert_eq!(response.head.framing, Framing::Length(body.len() as u64));
        assert!(body.starts_with(reason.code()), "{body}");
        assert!(!response.head.keep_alive);
    }
}

#[test]
fn a_reason_without_a_status_writes_nothing() {
    assert_eq!(
        failure(Reason::ClientGone, Method::Get, Version::Http11, true, None),
        ""
    );
}

#[test]
fn head_gets_the_same_head_and_no_body() {
    let get = failure(Reason::NoBackend, Method::Get, Version::Http11, false, Some(5));
    let head = failure(Reason::NoBackend, Method::Head, Version::Http11, false, Some(5));
    let (fields, body) = get.split_once("\r\n\r\n").unwrap();
    assert_eq!(head, format!("{fields}\r\n\r\n"));
    assert!(!body.is_empty());
    assert!(
        get.contains("\r\nRetry-After: 5\r\n") && !get.contains("Connection:"),
        "{get}"
    );
}

#[test]
fn method_not_allowed_names_those_that_are() {
    let text = failure(
        Reason::MethodNotAllowed,
        Method::Other,
        Version::Http11,
        true,
        None,
    );
    assert!(
        text.contains("\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"),
        "{text}"
    );
}

#[test]
fn a_kept_http_1_0_client_is_told_so() {
    let text = failure(Reason::NoRoute, Method::Get, Version::Http10, false, None);
    assert!(text.contains("\r\nConnection: keep-alive\r\n"), "{text}");
}
