//! Who a client is, by its certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a verified client certificate says, in the forms that backends are told in. All are visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Its distinguished name, such as `CN=alice, O=Example`; other than visible ASCII characters as `\C3`.
    pub subject: String,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
    /// The certificate itself as a byte sequence of structured fields (RFC 9440 section 2.2).
    pub certificate: String,
}

/// Longest subject that is passed on; what is beyond is cut.
const MAX_SUBJECT: usize = 1024;

impl ClientIdentity {
    /// Reads a certificate that was verified.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let subject = X509Certificate::from_der(certificate)
            .map(|(_, parsed)| parsed.subject().to_string())
            .unwrap_or_default();
        let digest = Sha256::digest(certificate);
        Self {
            subject: visible(&subject),
            fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            certificate: format!(":{}:", STANDARD.encode(certificate)),
        }
    }
}

/// Most names that are read from one certificate.
const MAX_NAMES: usize = 32;

/// By which names a verified certificate can be known: its common name, then its alternative names (DNS in lower
/// case, URIs), at most 32 of them.
pub fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = parsed.subject().iter_common_name();
    let mut names: Vec<String> = common
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        names.extend(
            alternative
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }),
        );
    }
    names.truncate(MAX_NAMES);
    names
}

fn visible(text: &str) -> String {
    let mut shown = String::new();
    for byte in text.bytes() {
        if shown.len() >= MAX_SUBJECT {
            break;
        }
        match byte {
            b'\\' => shown.push_str("\\5C"),
            b' '..=b'~' => shown.push(char::from(byte)),
            _ => shown.push_str(&format!("\\{byte:02X}")),
        }
    }
    shown.trim().to_owned()
}
