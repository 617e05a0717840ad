//! Files and PEM: what the config names, read within bounds, and whether a file has changed since.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::config::{BackendTls, Certificate, ClientCertificates, Pem, PrivateKey};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Greatest file read: the bundle of all public authorities has a quarter of a mebibyte.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why something cannot be used, in a sentence that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

impl LoadError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError(format!("cannot read {}: {error}", path.display()));
    // A pipe may wait for ever to be opened, and so would everything that waits for this.
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(LoadError(format!("{} is not a regular file", path.display())));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError(format!(
            "{} is greater than {} MiB",
            path.display(),
            MAX_BYTES / 1024 / 1024
        )));
    }
    Ok(bytes)
}

/// The certificates, at least one, and how their source is called.
pub(crate) fn certificates(
    pem: &Pem,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, String), LoadError> {
    let (bytes, name) = match pem {
        Pem::File(path) => (read(path)?, path.display().to_string()),
        Pem::Inline(text) => (text.clone().into_bytes(), format!("{key}_pem")),
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| LoadError(format!("{name} is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(LoadError(format!("{name} holds no certificate")));
    }
    Ok((found, name))
}

/// The certificates of authorities in a file, at least one.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    Ok(certificates(&Pem::File(path.to_owned()), "ca")?.0)
}

/// The private key, and how its source is called.
pub(crate) fn private_key(key: &PrivateKey) -> Result<(PrivateKeyDer<'static>, String), LoadError> {
    let (bytes, name) = match key {
        PrivateKey::File(path) => (read(path)?, path.display().to_string()),
        PrivateKey::Inline(secret) => (secret.expose().as_bytes().to_vec(), "key_pem".to_owned()),
    };
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok((key, name)),
        Err(_) if is_encrypted(&bytes) => Err(LoadError(format!(
            "{name} is encrypted: write it out once with `openssl pkey -in {name} -out plain.key` and keep that file readable for this process alone"
        ))),
        // What the parser found in its way may be part of the key: it is not repeated.
        Err(_) => Err(LoadError(format!(
            "{name} holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1)"
        ))),
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The lists of revoked certificates in a file, at least one.
pub(crate) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    let bytes = read(path)?;
    let name = path.display();
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| LoadError(format!("{name} is not PEM: {error}")))?;
    if found.is_empty() {
        let kind = SectionKind::Crl;
        return Err(LoadError(format!(
            "{name} holds no list of revoked certificates ({kind:?})"
        )));
    }
    Ok(found)
}

/// What tells one content of a file from the next, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(i64, i64, u64, u64)>>);

impl Stamp {
    /// Looks at these files. One that is missing has a stamp too.
    pub fn of(files: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
        };
        Self(files.iter().map(look).collect())
    }
}

/// The files behind a certificate.
pub fn files_of_certificate(certificate: &Certificate) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Pem::File(path) = &certificate.cert {
        files.push(path.clone());
    }
    if let PrivateKey::File(path) = &certificate.key {
        files.push(path.clone());
    }
    files.extend(certificate.ocsp.clone());
    files
}

/// The files behind the verification of clients.
pub fn files_of_clients(clients: &ClientCertificates) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Pem::File(path) = &clients.ca {
        files.push(path.clone());
    }
    files.extend(clients.crl.clone());
    files
}

/// The files behind TLS to backends.
pub fn files_of_backend(tls: &BackendTls) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = tls
        .client_certificate
        .iter()
        .flat_map(files_of_certificate)
        .collect();
    if let Some(Pem::File(path)) = &tls.ca {
        files.push(path.clone());
    }
    files
}
