//! TLS as declared, towards clients and towards backends. Files are named here and read by whoever serves.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use crate::acme::Challenge;

/// Default of `timeouts.tls_handshake` of a listener.
pub const DEFAULT_TLS_HANDSHAKE: Duration = Duration::from_secs(3);

/// Default of `timeouts.tls` of a pool.
pub const DEFAULT_BACKEND_TLS: Duration = Duration::from_secs(3);

/// TLS of a listener (`tls` with `protocol = "https"`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// What it can show; at least one, unless `acme` brings it. Which is shown, the name that the client asks for decides; the first is
    /// shown where no name fits.
    pub certificates: Vec<Certificate>,
    /// A certificate that is ordered and kept fresh.
    pub acme: Option<Acme>,
    /// Least version.
    pub min_version: TlsVersion,
    /// Whether clients must show certificates of their own.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate from an authority that speaks ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acme {
    /// Its DNS names, lower case; at least one.
    pub domains: Vec<String>,
    /// Whom the authority writes to.
    pub email: Option<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// File with certificates (PEM) to verify the directory with, instead of the system's.
    pub directory_ca: Option<PathBuf>,
    /// How control of the names is shown.
    pub challenge: Challenge,
}

/// Default of `directory` of `acme`.
pub const DEFAULT_ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// The certificate, then those that lead to its root.
    pub cert: Pem,
    /// Its private key.
    pub key: PrivateKey,
    /// File with an OCSP response in DER, sent along with the certificate.
    pub ocsp: Option<PathBuf>,
}

impl Certificate {
    /// How it is called in metrics, events and `status`: its file, or its place in the list, from 1.
    pub fn label(&self, place: usize) -> String {
        match &self.cert {
            Pem::File(path) => path.display().to_string(),
            Pem::Inline(_) => format!("certificate {place}"),
        }
    }
}

/// Certificates in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pem {
    /// In this file.
    File(PathBuf),
    /// In the config itself.
    Inline(String),
}

/// A private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrivateKey {
    /// In this file.
    File(PathBuf),
    /// In the config itself.
    Inline(Secret),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl TlsVersion {
    /// The name in config and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// Certificates that clients show (mutual TLS).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificates {
    /// Whether every client must have one. A wrong one ends the handshake in either case.
    pub required: bool,
    /// Who may have issued them.
    pub ca: Pem,
    /// File with certificates that are revoked; PEM, one list for each issuer.
    pub crl: Option<PathBuf>,
}

/// TLS towards the backends of a pool (`tls`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// Who may have issued their certificates; `None`: whoever the system trusts.
    pub ca: Option<Pem>,
    /// The name asked for (SNI) and looked for in the certificate, in lower case; `None`: the backend's IP
    /// address.
    pub server_name: Option<String>,
    /// What we show them; without `ocsp`.
    pub client_certificate: Option<Certificate>,
    /// Least version.
    pub min_version: TlsVersion,
    /// Take any certificate, whoever issued it for whatever name.
    pub insecure: bool,
}
