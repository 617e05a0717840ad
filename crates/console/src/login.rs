//! Who sends a request: told by a token, by a client certificate, or by being on this machine.
//!
//! Hashes are compared in constant time and all of them, so that nothing can be learnt from how long an answer takes.
//! A token that is not of the form that `evenkeel token create` makes is never hashed: nobody can guess one of that
//! form, and no password becomes a token by being hashed.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use model::config::{Admin, AdminRole, Name, Secret, TokenHash, is_generated_token};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Names of the certificate that it has shown and that was verified.
    pub(crate) certificate: Option<Arc<[String]>>,
}

/// Who sends a request, and what he may do.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) login: Login,
    pub(crate) role: AdminRole,
}

/// How somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody said anything, and what is asked for is open to all.
    Anybody,
    /// On this machine, where no login is configured.
    Local,
    /// A member, by the token of its pool.
    PoolToken,
    /// The one token of `[admin]`.
    AdminToken,
    /// One of `[[admin.tokens]]`.
    Token(Name),
    /// One of `[[admin.certificates]]`.
    Certificate(String),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was shown.
    NoCredential,
    /// A token that opens nothing.
    WrongToken,
    /// A verified certificate that is not listed.
    UnknownCertificate,
}

/// Longest name of a certificate that orders are signed with, in characters; the rest is cut.
const MAX_SHOWN_NAME: usize = 64;

impl Login {
    /// What orders are signed with.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Anybody => "anybody".to_owned(),
            Self::Local => "local".to_owned(),
            Self::PoolToken => "pool token".to_owned(),
            Self::AdminToken => "admin token".to_owned(),
            Self::Token(name) => name.to_string(),
            Self::Certificate(name) => name.chars().take(MAX_SHOWN_NAME).collect(),
        }
    }
}

impl Login {
    /// The kind, in the audit log.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Anybody => "none",
            Self::Local => "local",
            Self::PoolToken => "pool_token",
            Self::AdminToken => "admin_token",
            Self::Token(_) => "token",
            Self::Certificate(_) => "certificate",
        }
    }
}

impl Caller {
    /// Somebody who is let in for what is open to all.
    pub(crate) fn anybody() -> Self {
        Self {
            login: Login::Anybody,
            role: AdminRole::Viewer,
        }
    }

    /// A member: its token opens its pool's doors, and it has no role.
    pub(crate) fn member() -> Self {
        Self {
            login: Login::PoolToken,
            role: AdminRole::Viewer,
        }
    }

    /// Whoever is on this machine, where that is enough.
    pub(crate) fn local() -> Self {
        Self {
            login: Login::Local,
            role: AdminRole::Admin,
        }
    }
}

/// Who sends a request with these fields. A token goes before a certificate: it was chosen for this request.
pub(crate) fn identify(
    token: Option<&Secret>,
    admin: &Admin,
    headers: &HeaderMap,
    certificate: Option<&[String]>,
) -> Result<Caller, Failure> {
    match (headers.get(header::AUTHORIZATION), certificate) {
        (Some(value), _) => by_token(token, admin, value).ok_or(Failure::WrongToken),
        (None, Some(names)) => by_certificate(admin, names).ok_or(Failure::UnknownCertificate),
        (None, None) => Err(Failure::NoCredential),
    }
}

/// Whether these fields show the token with this hash. Only generated ones are taken, so there is nothing to guess.
pub(crate) fn shows(headers: &HeaderMap, expected: Option<&TokenHash>) -> Result<(), Failure> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Failure::NoCredential)?;
    let given = bearer(value.as_bytes()).filter(|given| is_generated_token(given));
    let right = given
        .zip(expected)
        .is_some_and(|(given, hash)| same(TokenHash::of(given).bytes(), hash.bytes()));
    right.then_some(()).ok_or(Failure::WrongToken)
}

/// Whether these fields show a token that somebody could have thought up.
pub(crate) fn could_be_guessed(headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION);
    given.is_some_and(|value| !bearer(value.as_bytes()).is_some_and(is_generated_token))
}

fn by_token(token: Option<&Secret>, admin: &Admin, value: &HeaderValue) -> Option<Caller> {
    let given = bearer(value.as_bytes())?;
    if token.is_some_and(|token| same(given, token.expose().as_bytes())) {
        return Some(Caller {
            login: Login::AdminToken,
            role: AdminRole::Admin,
        });
    }
    if !is_generated_token(given) {
        return None;
    }
    let hash = TokenHash::of(given);
    let mut found = None;
    for token in &admin.tokens {
        // No early end: which of them it is, is nobody's business either.
        if same(token.hash.bytes(), hash.bytes()) {
            found = Some(token);
        }
    }
    found.map(|token| Caller {
        login: Login::Token(token.name.clone()),
        role: token.role,
    })
}

fn by_certificate(admin: &Admin, names: &[String]) -> Option<Caller> {
    let mut listed = admin.certificates.iter();
    let entry = listed.find(|entry| names.contains(&entry.name))?;
    Some(Caller {
        login: Login::Certificate(entry.name.clone()),
        role: entry.role,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::config::{AdminCertificate, AdminToken, TOKEN_RANDOM_BYTES, token_from};

    use super::*;

    fn token(n: u8) -> String {
        token_from(&[n; TOKEN_RANDOM_BYTES]).expose().to_owned()
    }

    fn admin() -> Admin {
        let entry = |name: &str, role, text: &str| AdminToken {
            name: Name::parse(name).unwrap(),
            role,
            hash: TokenHash::of(text.as_bytes()),
        };
        Admin {
            tokens: vec![
                entry("ci", AdminRole::Operator, &token(1)),
                entry("grafana", AdminRole::Viewer, &token(2)),
                entry("careless", AdminRole::Admin, "password"),
            ],
            certificates: vec![
                AdminCertificate {
                    name: "alice".to_owned(),
                    role: AdminRole::Admin,
                },
                AdminCertificate {
                    name: "spiffe://example/deploy".to_owned(),
                    role: AdminRole::Operator,
                },
            ],
            ..Admin::default()
        }
    }

    fn with_token(text: &str) -> Result<(Login, AdminRole), Failure> {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {text}");
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        let old = Secret::new("s3cret".to_owned());
        identify(Some(&old), &admin(), &headers, None).map(|caller| (caller.login, caller.role))
    }

    #[test]
    fn a_token_is_who_it_was_made_for() {
        let ci = Login::Token(Name::parse("ci").unwrap());
        assert_eq!(with_token(&token(1)), Ok((ci, AdminRole::Operator)));
        let grafana = Login::Token(Name::parse("grafana").unwrap());
        assert_eq!(with_token(&token(2)), Ok((grafana, AdminRole::Viewer)));
        assert_eq!(with_token("s3cret"), Ok((Login::AdminToken, AdminRole::Admin)));
        assert_eq!(with_token(&token(3)), Err(Failure::WrongToken));
        assert_eq!(with_token(""), Err(Failure::WrongToken));
    }

    /// Somebody wrote the hash of a password into the config: the password opens nothing.
    #[test]
    fn a_password_is_no_token() {
        assert_eq!(with_token("password"), Err(Failure::WrongToken));
    }

    #[test]
    fn a_certificate_is_known_by_any_of_its_names() {
        let by = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            identify(None, &admin(), &HeaderMap::new(), Some(&names)).map(|caller| caller.role)
        };
        assert_eq!(by(&["alice"]), Ok(AdminRole::Admin));
        assert_eq!(by(&["x", "spiffe://example/deploy"]), Ok(AdminRole::Operator));
        for unknown in [&["Alice"][..], &["bob"], &[]] {
            assert_eq!(by(unknown), Err(Failure::UnknownCertificate), "{unknown:?}");
        }
        assert!(identify(None, &admin(), &HeaderMap::new(), None).is_err());
    }

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
}
