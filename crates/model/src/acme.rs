//! What the keeper of certificates (ACME, RFC 8555) and those who serve them tell one another.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Listener, Name};

/// A certificate to be ordered and kept fresh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Managed {
    /// Name of its file, without an ending: load balancer and listener.
    pub name: String,
    /// Its DNS names, lower case; at least one.
    pub domains: Vec<String>,
    /// Whom the authority writes to.
    pub email: Option<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// Certificates (PEM) to verify the directory with, instead of the system's.
    pub directory_ca: Option<PathBuf>,
    /// How control of the names is shown.
    pub challenge: Challenge,
}

impl Managed {
    /// The certificate that a listener wants.
    pub fn of(load_balancer: &Name, listener: &Listener) -> Option<Self> {
        let acme = listener.tls.as_ref()?.acme.as_ref()?;
        Some(Self {
            // No name holds this sign, so no two listeners share a file.
            name: format!("{load_balancer}@{}", listener.name),
            domains: acme.domains.clone(),
            email: acme.email.clone(),
            directory: acme.directory.clone(),
            directory_ca: acme.directory_ca.clone(),
            challenge: acme.challenge,
        })
    }

    /// All that a config wants.
    pub fn all(config: &Config) -> Vec<Self> {
        let lbs = config.load_balancers.values();
        let listeners = lbs.flat_map(|lb| lb.listeners.iter().map(move |l| (&lb.name, l)));
        listeners
            .filter_map(|(lb, listener)| Self::of(lb, listener))
            .collect()
    }

    /// Where its file stands below the directory of managed certificates: key and chain in one.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join("certificates").join(format!("{}.pem", self.name))
    }
}

/// A way to show control of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Challenge {
    /// Over plain HTTP on port 80 (RFC 8555 section 8.3).
    Http01,
    /// Over TLS on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Challenge {
    /// The name in the config, which is the registered one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// Answers that an authority may ask for just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    /// Key authorizations by token, for `/.well-known/acme-challenge/TOKEN`.
    pub http: BTreeMap<String, String>,
    /// Certificates by domain, for connections with the ALPN protocol `acme-tls/1`.
    pub tls_alpn: BTreeMap<String, ChallengeCertificate>,
}

impl Challenges {
    /// Whether nothing may be asked.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls_alpn.is_empty()
    }
}

/// A self-signed certificate that answers a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct ChallengeCertificate {
    /// DER.
    pub certificate: Vec<u8>,
    /// Private key, PKCS #8 DER.
    pub key: Vec<u8>,
}

impl fmt::Debug for ChallengeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<certificate and key>")
    }
}
