//! TLS of the commands that ask an admin API: whom they trust, what they show, and what went wrong in words.

use std::path::Path;

use anyhow::{Context, bail};
use model::config::{Certificate as KeyPair, Pem, PrivateKey as KeyFile};
use tls::{Failure, FailureKind};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::cli::ClientArgs;
use crate::now;

/// The settings for an API at `https://`; `None` for one in the clear.
///
/// # Errors
/// When a file cannot be read or used, or is named for an API in the clear.
pub(crate) fn settings(args: &ClientArgs) -> anyhow::Result<Option<TlsConfig>> {
    if !args.admin.starts_with("https://") {
        if args.ca.is_some() || args.client_certificate.is_some() {
            bail!(
                "{} is in the clear, so no certificate is shown or verified: write `https://`",
                args.admin
            );
        }
        return Ok(None);
    }
    let authorities = match &args.ca {
        Some(path) => tls::authorities(path).context("--ca")?,
        None => tls::system_authorities()
            .context("the certificate of the admin API cannot be verified without --ca FILE")?,
    };
    let roots: Vec<_> = authorities
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let own = args.client_certificate.as_deref().zip(args.client_key.as_deref());
    let own = own
        .map(|(certificate, key)| key_pair(certificate, key))
        .transpose()?;
    let settings = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(own)
        .unversioned_rustls_crypto_provider(tls::provider());
    Ok(Some(settings.build()))
}

fn key_pair(certificate: &Path, key: &Path) -> anyhow::Result<ClientCert> {
    let pair = KeyPair {
        cert: Pem::File(certificate.to_owned()),
        key: KeyFile::File(key.to_owned()),
        ocsp: None,
    };
    let now_s = i64::try_from(now().0 / 1000).unwrap_or(i64::MAX);
    // That the two belong together is found out here; the connection would only break.
    let loaded = tls::load(&pair, now_s).context("--client-certificate")?;
    if let Some(why) = loaded.invalid_at(now_s) {
        bail!("{} cannot be used: {why}", certificate.display());
    }
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let text = read(certificate)?;
    let chain: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    let key = PrivateKey::from_pem(&read(key)?).with_context(|| format!("{} holds no key", key.display()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// What broke TLS, and what to do about it; `None` where it was something else.
pub(crate) fn failure(error: &ureq::Error) -> Option<String> {
    let failure = match error {
        ureq::Error::Io(error) => Failure::of(error),
        ureq::Error::Rustls(error) => Failure::of(&std::io::Error::other(error.clone())),
        _ => return None,
    };
    let help = match failure.kind {
        // It never came to TLS.
        FailureKind::Closed => return None,
        FailureKind::UnknownIssuer => {
            "Name the file with its authority: --ca FILE or EVENKEEL_CA. If it should be known, somebody else may be answering there."
        }
        FailureKind::NameMismatch => "Write a name that its certificate has as the host of --admin.",
        FailureKind::Expired | FailureKind::NotYetValid => {
            "Renew the file `admin.tls.certificate` there (it is read again by itself), or set the clock here."
        }
        FailureKind::NotTls => "Does it speak plain HTTP? Then write `http://`.",
        FailureKind::Alert => {
            "It refused what was shown: see --client-certificate, and `admin.tls.client_ca` there."
        }
        _ => "See the log of evenkeel there, at the level debug.",
    };
    Some(format!("{}\n{help}", failure.words))
}
