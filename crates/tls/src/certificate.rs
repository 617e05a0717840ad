//! A certificate with its key, read and found to fit.

use std::sync::Arc;

use model::config::Certificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::pem::{self, LoadError};
use crate::{ocsp, provider};

/// End of a placeholder, in seconds since 1970: the year 4096.
const PLACEHOLDER_END: i64 = 67_090_118_400;

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) certified: Arc<CertifiedKey>,
    /// Names that it is for, in lower case; a wildcard as `*.example.com`.
    pub names: Vec<String>,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// When the OCSP response in its file is out of date, in seconds since 1970, if there is one that says so.
    pub ocsp_until: Option<i64>,
    /// What is odd about it, though it can be used.
    pub warnings: Vec<String>,
}

impl Loaded {
    pub(crate) fn is_rsa(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Whether an OCSP response is sent along with it.
    pub fn is_stapled(&self) -> bool {
        self.certified.ocsp.is_some()
    }

    /// The same without its OCSP response, which is out of date.
    #[must_use]
    pub fn without_ocsp(&self) -> Self {
        let mut certified = CertifiedKey::clone(&self.certified);
        certified.ocsp = None;
        Self {
            certified: Arc::new(certified),
            names: self.names.clone(),
            warnings: self.warnings.clone(),
            ..*self
        }
    }

    /// Whether it is not valid at this time, and why.
    pub fn invalid_at(&self, now_s: i64) -> Option<String> {
        if now_s > self.not_after {
            let days = (now_s - self.not_after) / 86_400;
            return Some(format!("it expired {days} days ago"));
        }
        (now_s < self.not_before).then(|| "it is not valid yet".to_owned())
    }
}

/// Reads a certificate, its key and its OCSP response, and holds them against each other. `now_s` is the time, in
/// seconds since 1970.
///
/// A certificate that is not valid now is read all the same: see [`Loaded::invalid_at`].
///
/// # Errors
/// When a file cannot be read or parsed, or when the key does not belong to the certificate.
pub fn load(certificate: &Certificate, now_s: i64) -> Result<Loaded, LoadError> {
    let (chain, cert_name) = pem::certificates(&certificate.cert, "cert")?;
    let (key, key_name) = pem::private_key(&certificate.key)?;
    let parsed = parse_chain(&chain, &cert_name)?;
    let leaf = parsed
        .first()
        .ok_or_else(|| LoadError(format!("{cert_name} holds no certificate")))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| LoadError(format!("the key in {key_name} cannot be used: {error}")))?;
    let mut certified = CertifiedKey::new(chain.clone(), key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            return Err(LoadError(format!(
                "the key in {key_name} does not belong to the certificate in {cert_name}"
            )));
        }
    }
    let mut warnings = chain_warnings(&parsed, &cert_name);
    let names = names(leaf);
    if names.is_empty() {
        warnings.push(format!(
            "{cert_name} names no host (subject alternative name), so no client will accept it for one"
        ));
    }
    if leaf.is_ca() {
        warnings.push(format!(
            "{cert_name} is a certificate of an authority (CA:TRUE), which many clients do not take from a server: make \
             one without, for example with `-addext basicConstraints=critical,CA:FALSE` of `openssl req -x509`"
        ));
    }
    let mut ocsp_until = None;
    if let Some(path) = &certificate.ocsp {
        let response = ocsp::read(path)?;
        ocsp_until = response.until;
        if ocsp_until.is_some_and(|end| end < now_s) {
            warnings.push(format!(
                "the OCSP response in {} is out of date and not sent",
                path.display()
            ));
        } else {
            certified.ocsp = Some(response.bytes);
        }
    }
    let validity = leaf.validity();
    Ok(Loaded {
        names,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        ocsp_until,
        warnings,
        certified: Arc::new(certified),
    })
}

/// A certificate of our own making for these names, for as long as there is no other: it lets a listener open, and
/// no client trusts it. It names no end.
///
/// # Errors
/// When no key could be made.
pub fn placeholder(names: &[String]) -> Result<Loaded, LoadError> {
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| LoadError(format!("no placeholder could be made: {error}")))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| LoadError(format!("the placeholder cannot be used: {error}")))?;
    Ok(Loaded {
        certified: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)),
        names: names.to_vec(),
        not_before: 0,
        not_after: PLACEHOLDER_END,
        ocsp_until: None,
        warnings: Vec::new(),
    })
}

fn parse_chain<'a>(
    chain: &'a [CertificateDer<'static>],
    name: &str,
) -> Result<Vec<X509Certificate<'a>>, LoadError> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(error) => {
                let place = index + 1;
                return Err(LoadError(format!(
                    "certificate {place} in {name} cannot be parsed: {error}"
                )));
            }
        }
    }
    Ok(parsed)
}

/// Each must be issued by the next, or clients that know only the root cannot follow.
fn chain_warnings(chain: &[X509Certificate<'_>], name: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, pair) in chain.windows(2).enumerate() {
        if let [certificate, issuer] = pair
            && certificate.issuer() != issuer.subject()
        {
            warnings.push(format!(
                "{name}: certificate {} is not the issuer of the one before it, so some clients will not find the way to the root",
                index + 2
            ));
        }
    }
    warnings
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                if let Ok(bytes) = <[u8; 4]>::try_from(*bytes) {
                    names.push(std::net::IpAddr::from(bytes).to_string());
                } else if let Ok(bytes) = <[u8; 16]>::try_from(*bytes) {
                    names.push(std::net::IpAddr::from(bytes).to_string());
                }
            }
            _ => {}
        }
    }
    names
}
