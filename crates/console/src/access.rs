//! Who may ask: token, or local and not from a foreign web page.
//!
//! With a token every request must carry it. Without one the API listens on loopback only, where the danger is
//! the operator's own browser: any web page can make it send requests to `127.0.0.1`. Two checks stop that. The
//! `Host` must be an IP address or `localhost`, so that a foreign name that resolves to loopback (DNS rebinding)
//! is refused; and a request with an `Origin` must come from the API's own origin.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::Console;
use crate::limits::REQUEST_TIMEOUT;
use crate::problem::{Kind, Problem};

/// Paths that anyone may ask, for the probes of whatever supervises the process. They tell one bit.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// Stands before every route: access, time limit, and the fields that every response carries.
pub(crate) async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let open = OPEN_PATHS.contains(&request.uri().path());
    let refused = if open {
        None
    } else {
        refusal(&console, request.headers())
    };
    let mut response = match refused {
        Some(problem) => problem.into_response(),
        None => tokio::time::timeout(REQUEST_TIMEOUT, next.run(request))
            .await
            .unwrap_or_else(|_| {
                let detail = format!("not complete within {REQUEST_TIMEOUT:?}");
                Problem::new(Kind::RequestTimeout, detail).into_response()
            }),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn refusal(console: &Console, headers: &HeaderMap) -> Option<Problem> {
    match &console.token {
        Some(token) => token_refusal(token.expose(), headers),
        None => local_refusal(headers),
    }
}

fn token_refusal(token: &str, headers: &HeaderMap) -> Option<Problem> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()));
    let detail = match given {
        Some(given) if same(given, token.as_bytes()) => return None,
        Some(_) => "the token is wrong",
        None => "send `Authorization: Bearer TOKEN` with the token of `[admin]`",
    };
    Some(Problem::new(Kind::Unauthorized, detail))
}

fn local_refusal(headers: &HeaderMap) -> Option<Problem> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    if host.is_some_and(|host| !is_local(host)) {
        let detail = "without a token use an IP address or `localhost` as the host, or set `admin.token`";
        return Some(Problem::new(Kind::HostNotAllowed, detail));
    }
    let origin = headers.get(header::ORIGIN)?.as_bytes();
    let own = host.is_some_and(|host| origin.strip_prefix(b"http://") == Some(host));
    (!own).then(|| {
        let detail = "the request comes from another web page; set `admin.token` to allow such clients";
        Problem::new(Kind::CrossOrigin, detail)
    })
}

/// The token in an `Authorization` value; the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Whether two secrets are equal, in a time that depends on their lengths only.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len()
        && given
            .iter()
            .zip(expected)
            .fold(0, |differing, (a, b)| black_box(differing | (a ^ b)))
            == 0
}

/// Whether a `Host` value names this machine without asking DNS.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    }
    .unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same(b"hunter2", b"hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2", "hunter3"] {
            assert!(!same(other.as_bytes(), b"hunter2"), "{other}");
        }
    }

    #[test]
    fn the_bearer_scheme_is_found_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc"), Some(&b"abc"[..]));
        for other in ["", "Bearer", "Basic abc", "abc"] {
            assert_eq!(bearer(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn local_names_need_no_resolver() {
        for local in [
            "127.0.0.1:7700",
            "localhost",
            "LOCALHOST:7700",
            "[::1]:7700",
            "10.0.0.1",
        ] {
            assert!(is_local(local.as_bytes()), "{local}");
        }
        for foreign in [
            "evil.example:7700",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "",
            "::1",
        ] {
            assert!(!is_local(foreign.as_bytes()), "{foreign}");
        }
    }
}
