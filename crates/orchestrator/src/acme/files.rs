//! The files of accounts and certificates: replaced, never edited, and readable by their owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::acme::Managed;
use reconcile::renewal::Validity;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Longest file read: a chain with its key is a few KiB.
const MAX_BYTES: u64 = 1024 * 1024;

/// From when to when the certificate that is there is valid; `None` when there is none for these names.
pub(super) fn validity(directory: &Path, managed: &Managed) -> Option<Validity> {
    let pem = read(&managed.path(directory)).ok()?;
    let (validity, names) = facts(&pem).ok()?;
    let covered = managed.domains.iter().all(|domain| names.contains(domain));
    covered.then_some(validity)
}

/// Puts a new certificate in the place of the old one.
pub(super) fn store_certificate(directory: &Path, managed: &Managed, pem: &str) -> Result<(), String> {
    replace(&managed.path(directory), pem)
}

/// The account kept for a directory and contact, as JSON.
pub(super) fn load_account(directory: &Path, id: &str) -> Option<String> {
    read(&account_path(directory, id)).ok()
}

/// Keeps an account.
pub(super) fn store_account(directory: &Path, id: &str, json: &str) -> Result<(), String> {
    replace(&account_path(directory, id), json)
}

fn account_path(directory: &Path, id: &str) -> PathBuf {
    directory.join("accounts").join(format!("{id}.json"))
}

/// Validity and DNS names of the first certificate in a PEM text.
pub(super) fn facts(pem: &str) -> Result<(Validity, Vec<String>), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("no certificate in what was issued: {error}"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = Validity {
        not_before_s: seconds(certificate.validity().not_before),
        not_after_s: seconds(certificate.validity().not_after),
    };
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let x509_parser::extensions::GeneralName::DNSName(name) = name {
                names.push((*name).to_owned());
            }
        }
    }
    Ok((validity, names))
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes beside the file, syncs, and renames over it: a crash leaves the old file or the new one.
fn replace(path: &Path, text: &str) -> Result<(), String> {
    let whole = || -> std::io::Result<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let beside = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(directory)?.sync_all()
    };
    whole().map_err(|error| format!("cannot write {}: {error}", path.display()))
}
