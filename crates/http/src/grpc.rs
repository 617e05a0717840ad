//! gRPC over HTTP/2 as far as a proxy is concerned: which requests are calls, how long they may take, and how a
//! failure of ours is told in gRPC's own terms.
//!
//! A call that fails before its response has begun is answered with a response that has no body and its status in
//! the header ("Trailers-Only"): HTTP 200 with `grpc-status` and `grpc-message`. Any other answer would leave the
//! client with a guess from an HTTP status.

use std::time::Duration;

use model::reason::Reason;

use crate::chunked::Trailers;
use crate::field_list::FieldList;
use crate::message::Version;
use crate::syntax::push_decimal;

/// Status codes of gRPC that a proxy has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Something for which there is no better code.
    Unknown = 2,
    /// The call took longer than it may.
    DeadlineExceeded = 4,
    /// A limit is reached: of size, or of rate.
    ResourceExhausted = 8,
    /// Nobody here serves this.
    Unimplemented = 12,
    /// A message was malformed.
    Internal = 13,
    /// It may work later, or elsewhere.
    Unavailable = 14,
}

/// Whether this `Content-Type` is that of a call: `application/grpc`, alone or with a message format behind it.
/// gRPC-Web is another protocol.
pub fn is_call(content_type: &[u8]) -> bool {
    let Some((start, rest)) = content_type.split_at_checked(16) else {
        return false;
    };
    start.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The value of `grpc-timeout`: up to eight digits and a unit. `None` when it is anything else.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// How a call is told of this failure.
pub fn status(reason: Reason) -> Status {
    match reason {
        // Whatever the backend made of it, the caller no longer waits.
        Reason::TotalTimeout
        | Reason::FirstByteTimeout
        | Reason::BackendStreamTimeout
        | Reason::QueueDeadline => Status::DeadlineExceeded,
        Reason::BadResponse | Reason::ResponseHeaderTooLarge => Status::Internal,
        _ => match reason.status() {
            400 => Status::Internal,
            404 | 405 | 501 => Status::Unimplemented,
            413 | 414 | 429 | 431 => Status::ResourceExhausted,
            408 | 502..=504 => Status::Unavailable,
            _ => Status::Unknown,
        },
    }
}

/// Writes a whole response of our own that names the reason to a call; nothing for reasons without a status.
pub fn write_failure(
    out: &mut Vec<u8>,
    reason: Reason,
    version: Version,
    extra: &FieldList,
    close: bool,
    retry_after_s: Option<u32>,
) {
    if reason.status() == 0 {
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: ");
    push_decimal(out, status(reason) as u64);
    out.extend_from_slice(b"\r\ngrpc-message: ");
    push_message(out, reason);
    out.extend_from_slice(b"\r\nX-Evenkeel-Reason: ");
    out.extend_from_slice(reason.code().as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(seconds) = retry_after_s {
        out.extend_from_slice(b"grpc-retry-pushback-ms: ");
        push_decimal(out, u64::from(seconds) * 1000);
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in extra.iter() {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n");
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of a call whose response had begun when this happened.
pub fn failure_trailers(reason: Reason) -> Trailers {
    let mut trailers = Trailers::default();
    let (mut code, mut message) = (Vec::new(), Vec::new());
    push_decimal(&mut code, status(reason) as u64);
    push_message(&mut message, reason);
    // Digits and percent-encoded text are always allowed.
    let _ = trailers.push(b"grpc-status", &code);
    let _ = trailers.push(b"grpc-message", &message);
    trailers
}

/// Reason code and sentence, percent-encoded.
fn push_message(out: &mut Vec<u8>, reason: Reason) {
    for part in [reason.code(), ": ", reason.text()] {
        for &byte in part.as_bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => out.push(byte),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    out.push(b'%');
                    out.extend(HEX.get(usize::from(byte >> 4)));
                    out.extend(HEX.get(usize::from(byte & 15)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Framing, Method, Parsed, ResponseHead};

    #[test]
    fn calls_are_known_by_their_content_type() {
        for yes in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC; a=b",
        ] {
            assert!(is_call(yes.as_bytes()), "{yes}");
        }
        for no in [
            "application/grpc-web",
            "application/grpcx",
            "application/json",
            "",
        ] {
            assert!(!is_call(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        assert_eq!(timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(
            timeout(b"99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"0n"), Some(Duration::ZERO));
        for bad in ["", "m", "5", "5s", "-5S", "123456789S", "1 S", "1.5S"] {
            assert_eq!(timeout(bad.as_bytes()), None, "{bad}");
        }
    }

    /// A failure is a response without a body whose header says what happened.
    #[test]
    fn a_failure_is_a_trailers_only_response() {
        for reason in Reason::ALL.iter().filter(|reason| reason.status() != 0) {
            let mut out = Vec::new();
            write_failure(
                &mut out,
                *reason,
                Version::Http11,
                &FieldList::new(),
                false,
                Some(2),
            );
            let mut head = ResponseHead::new();
            assert_eq!(head.parse(&out, Method::Post), Ok(Parsed::Complete));
            assert_eq!((head.status, head.framing), (200, Framing::Length(0)));
            let code = head.field(&out, "grpc-status").unwrap_or_default();
            let code = std::str::from_utf8(code).ok().and_then(|c| c.parse::<u8>().ok());
            assert_eq!(code, Some(status(*reason) as u8));
            let message = head.field(&out, "grpc-message").unwrap_or_default();
            assert!(message.starts_with(reason.code().as_bytes()));
        }
    }

    #[test]
    fn deadlines_backends_and_limits_have_codes_of_their_own() {
        assert_eq!(status(Reason::TotalTimeout), Status::DeadlineExceeded);
        assert_eq!(status(Reason::ConnectRefused), Status::Unavailable);
        assert_eq!(status(Reason::NoBackend), Status::Unavailable);
        assert_eq!(status(Reason::NoRoute), Status::Unimplemented);
        assert_eq!(status(Reason::BodyTooLarge), Status::ResourceExhausted);
        assert_eq!(status(Reason::BadResponse), Status::Internal);
    }
}
