//! RFC 9110 section 6.5: trailer fields are announced by neither side and taken only where they are wanted.

use super::*;

#[test]
fn a_client_that_takes_trailers_says_so() {
    for (fields, taken) in [
        ("TE: trailers\r\n", true),
        ("TE: gzip, Trailers\r\n", true),
        ("TE: gzip\r\nTE: trailers\r\n", true),
        ("TE: trailers\r\nConnection: TE\r\n", true),
        ("TE: gzip\r\n", false),
        ("TE:\r\n", false),
        ("", false),
    ] {
        let request = accepted(with_fields("GET", fields));
        assert_eq!(request.head.te_trailers, taken, "{fields:?}");
        let sent = request.forwarded();
        assert_eq!(
            sent.contains("\r\nTE: trailers\r\nConnection: TE\r\n"),
            taken,
            "{sent}"
        );
        assert_eq!(sent.matches("\r\nTE:").count(), usize::from(taken), "{sent}");
    }
    assert!(
        !accepted("GET / HTTP/1.0\r\nTE: trailers\r\n\r\n")
            .head
            .te_trailers
    );
}

#[test]
fn the_trailer_field_is_not_passed_on() {
    assert!(
        !accepted(with_fields("GET", "Trailer: X\r\n"))
            .forwarded()
            .contains("Trailer")
    );
    let response = answer("HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(
        !response
            .forwarded(Version::Http11, Framing::Chunked, false)
            .contains("Trailer")
    );
}
