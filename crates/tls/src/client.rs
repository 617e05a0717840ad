//! TLS towards backends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::config::BackendTls;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::pem::{self, LoadError};
use crate::{certificate, provider, versions};

/// Tickets that are kept of one backend.
const TICKETS: usize = 8;

/// The settings for the backends of a pool. `protocols` are offered by ALPN, the best first.
///
/// # Errors
/// When a file cannot be read, or holds nothing that can be used.
pub fn client_config(tls: &BackendTls, protocols: &[&[u8]], now_s: i64) -> Result<ClientConfig, LoadError> {
    if let Some(name) = &tls.server_name {
        parse_name(name)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| LoadError::new(error.to_string()))?;
    let builder = if tls.insecure {
        let anyone = AnyCertificate(provider());
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anyone))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    let mut config = match &tls.client_certificate {
        Some(own) => {
            let loaded = certificate::load(own, now_s)?;
            let resolver = rustls::sign::SingleCertAndKey::from(loaded.certified);
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// The same settings with a memory of their own for sessions: a ticket of one backend means nothing to another.
pub fn for_one_backend(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(TICKETS);
    Arc::new(config)
}

/// The name that the backend at `address` is asked for and must have.
pub fn server_name(tls: &BackendTls, address: SocketAddr) -> ServerName<'static> {
    let named = tls.server_name.as_deref().and_then(|name| parse_name(name).ok());
    named.unwrap_or_else(|| ServerName::IpAddress(address.ip().to_canonical().into()))
}

fn parse_name(name: &str) -> Result<ServerName<'static>, LoadError> {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let parsed = match bare.unwrap_or(name).parse::<IpAddr>() {
        Ok(ip) => return Ok(ServerName::IpAddress(ip.into())),
        Err(_) => ServerName::try_from(name.to_owned()),
    };
    parsed.map_err(|_| LoadError(format!("`{name}` is not a name that a certificate can have")))
}

fn roots(tls: &BackendTls) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = &tls.ca else {
        roots.add_parsable_certificates(system_authorities()?);
        return Ok(roots);
    };
    let (authorities, name) = pem::certificates(ca, "ca")?;
    for authority in authorities {
        roots
            .add(authority)
            .map_err(|error| LoadError(format!("an authority in {name} cannot be used: {error}")))?;
    }
    Ok(roots)
}

/// The certificates of the authorities that this system trusts; at least one.
///
/// # Errors
/// When there are none.
pub fn system_authorities() -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        return Err(LoadError::new(
            "this system trusts no authorities (on Debian they come with the package ca-certificates): name a file as `ca`",
        ));
    }
    Ok(certificates)
}

/// Takes any certificate: `insecure = true`. That the backend holds the key of what it shows is verified still.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
