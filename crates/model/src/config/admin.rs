//! The admin API as declared: where it listens, how it is protected, and who may do what.
//!
//! A token that `evenkeel token create` makes is 256 random bits, so one round of SHA-256 keeps it: a slow hash is
//! for what people think up, and would only make each request dear. A text of any other form is never compared
//! with the hashes, so nobody can put the hash of a password there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Name, Secret};

/// The admin API (`[admin]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens. Off loopback only with TLS, and a token or client certificates.
    pub listen: SocketAddr,
    /// Bearer token of the role `admin`, when set.
    pub token: Option<Secret>,
    /// File that holds the token instead; whoever starts the API reads it.
    pub token_file: Option<PathBuf>,
    /// TLS; `None` in the clear.
    pub tls: Option<AdminTls>,
    /// Tokens with names and roles. Names are unique, also among `certificates`.
    pub tokens: Vec<AdminToken>,
    /// Client certificates that open it. Only with `client_ca` in `tls`.
    pub certificates: Vec<AdminCertificate>,
    /// Whether `/metrics` is open to everyone who can reach the address.
    pub open_metrics: bool,
    /// Backends that have series of their own in `/metrics`.
    pub metrics_backends: u32,
    /// Where is written who did what.
    pub audit_log: AuditTo,
}

/// Where the audit log is (`admin.audit_log`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditTo {
    /// `audit.log` in the data directory.
    #[default]
    DataDir,
    /// This file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT)),
            token: None,
            token_file: None,
            tls: None,
            tokens: Vec::new(),
            certificates: Vec::new(),
            open_metrics: false,
            metrics_backends: DEFAULT_METRICS_BACKENDS,
            audit_log: AuditTo::default(),
        }
    }
}

impl Admin {
    /// Whether a request must say who sends it.
    pub fn wants_credentials(&self) -> bool {
        self.token.is_some()
            || self.token_file.is_some()
            || !self.tokens.is_empty()
            || !self.certificates.is_empty()
    }

    /// What is missing for listening on `address`, in words that follow "without"; `None` when nothing is.
    pub fn lacks_on(&self, address: SocketAddr) -> Option<&'static str> {
        if address.ip().to_canonical().is_loopback() {
            return None;
        }
        match (self.tls.is_some(), self.wants_credentials()) {
            (true, true) => None,
            (false, false) => Some("TLS and a token"),
            (false, true) => Some("TLS"),
            (true, false) => Some("a token or client certificates"),
        }
    }
}

/// Default of the port of `admin.listen`, on 127.0.0.1.
const DEFAULT_ADMIN_PORT: u16 = 7700;
/// Some 20 MB a scrape.
const DEFAULT_METRICS_BACKENDS: u32 = 2000;
/// Default of `admin.listen`.
pub const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:7700";
/// Most entries of `tokens`, and of `certificates`: each request is compared with all of them.
pub const MAX_ADMIN_LOGINS: usize = 256;

/// TLS of the admin API (`admin.tls`), version 1.2 or later. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// File with the certificate, then those that lead to its root; PEM.
    pub certificate: PathBuf,
    /// File with its private key; PEM.
    pub key: PathBuf,
    /// File with the authorities of client certificates; PEM. `None`: none are asked for.
    pub client_ca: Option<PathBuf>,
}

/// What somebody may do with the admin API. Each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    /// See everything that is no secret, and change nothing.
    Viewer,
    /// Give orders as well: drain, maintain, weigh, reload.
    Operator,
    /// Change the config as well, and read the audit log.
    Admin,
}

impl AdminRole {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name in config and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A token of the admin API (`[[admin.tokens]]`), as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Who or what has it; shown in orders and in the audit log.
    pub name: Name,
    /// What it opens.
    pub role: AdminRole,
    /// What it is recognised by.
    pub hash: TokenHash,
}

/// A client certificate that opens the admin API (`[[admin.certificates]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminCertificate {
    /// Its common name, or one of its alternative names (DNS or URI).
    pub name: String,
    /// What it opens.
    pub role: AdminRole,
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// What every generated token begins with, so that programs that look for leaked secrets find it.
pub const TOKEN_PREFIX: &str = "ek_";
/// Random bytes of a generated token, written as hexadecimal digits.
pub const TOKEN_RANDOM_BYTES: usize = 32;
/// What the text of a hash begins with.
pub(crate) const HASH_PREFIX: &str = "sha256:";

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads `sha256:` with 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?;
        if digits.len() != 64 || !is_lower_hex(digits.as_bytes()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Its bytes, for comparing.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hash>")
    }
}

/// The token with these random bytes.
pub fn token_from(random: &[u8; TOKEN_RANDOM_BYTES]) -> Secret {
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("{TOKEN_PREFIX}{digits}"))
}

/// Whether a text has the form of a generated token. Nobody can guess one of those.
pub fn is_generated_token(text: &[u8]) -> bool {
    let digits = text.strip_prefix(TOKEN_PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 2 * TOKEN_RANDOM_BYTES && is_lower_hex(digits))
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// `printf %s TOKEN | sha256sum` tells the same.
    #[test]
    fn a_hash_is_written_as_it_is_read() {
        let token = token_from(&[7; TOKEN_RANDOM_BYTES]);
        let hash = TokenHash::of(token.expose().as_bytes());
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        let known = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(TokenHash::of(b"test").to_string(), known);
        for wrong in ["", "sha256:", &known.to_uppercase(), &known[..70], &known[7..]] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{hash:?}"), "<hash>");
    }

    #[test]
    fn only_a_generated_token_has_its_form() {
        let token = token_from(&[0xab; TOKEN_RANDOM_BYTES]);
        let text = token.expose();
        assert!(is_generated_token(text.as_bytes()));
        for other in [
            "",
            "ek_",
            "hunter2",
            &text[1..],
            &text[..66],
            &text.to_uppercase(),
        ] {
            assert!(!is_generated_token(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn off_loopback_both_are_needed() {
        let mut admin = Admin::default();
        let lacks = |admin: &Admin, at: &str| admin.lacks_on(at.parse().unwrap());
        for loopback in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(lacks(&admin, loopback), None);
        }
        assert_eq!(lacks(&admin, "0.0.0.0:1"), Some("TLS and a token"));
        admin.token_file = Some("t".into());
        assert_eq!(lacks(&admin, "[::]:1"), Some("TLS"));
        admin.tls = Some(AdminTls {
            certificate: "c".into(),
            key: "k".into(),
            client_ca: None,
        });
        assert_eq!(lacks(&admin, "10.0.0.1:1"), None);
        admin.token_file = None;
        assert_eq!(
            lacks(&admin, "10.0.0.1:1"),
            Some("a token or client certificates")
        );
    }

    #[test]
    fn roles_are_in_order_and_read_as_written() {
        assert!(AdminRole::ALL.is_sorted());
        for role in AdminRole::ALL {
            assert_eq!(AdminRole::parse(role.as_str()), Some(role));
        }
        assert_eq!(AdminRole::parse("root"), None);
    }
}
