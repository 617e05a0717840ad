//! What an operator says about etcd, and what is made of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_types::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::bounds::{CALL_TIMEOUT, MAX_ENDPOINTS};
use crate::error::{ErrorKind, StoreError};

/// Where etcd is and as whom to speak to it. `Debug` shows no secret.
#[derive(Clone)]
pub struct EtcdSettings {
    /// The members, as `http://HOST:PORT` or `https://HOST:PORT`; one to [`MAX_ENDPOINTS`].
    pub endpoints: Vec<String>,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// Certificates; used for `https` endpoints.
    pub tls: EtcdTls,
    /// Time for a call, with all that it takes.
    pub call_timeout: Duration,
}

/// Certificates and keys, in PEM.
#[derive(Clone, Default)]
pub struct EtcdTls {
    /// The authorities that a member's certificate may come from; without, those that the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// Our own certificate chain and its key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdSettings {
    /// Endpoints, and nothing else out of the ordinary.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            user: None,
            tls: EtcdTls::default(),
            call_timeout: CALL_TIMEOUT,
        }
    }

    pub(super) fn parse_endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        if self.endpoints.is_empty() || self.endpoints.len() > MAX_ENDPOINTS {
            let count = self.endpoints.len();
            return Err(invalid(format!(
                "{count} endpoints; 1 to {MAX_ENDPOINTS} can be used"
            )));
        }
        self.endpoints.iter().map(|text| Endpoint::parse(text)).collect()
    }

    /// What TLS needs, unless no endpoint speaks it.
    pub(super) fn client_config(
        &self,
        endpoints: &[Endpoint],
    ) -> Result<Option<Arc<ClientConfig>>, StoreError> {
        if !endpoints.iter().any(|endpoint| endpoint.tls) {
            return Ok(None);
        }
        let mut config = self.tls.client_config()?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdSettings")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

impl EtcdTls {
    /// Settings for a connection.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, StoreError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .with_root_certificates(self.roots()?);
        let Some((chain, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(chain, "our own certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| invalid(format!("our own key: {error}")))?;
        let built = builder.with_client_auth_cert(chain, key);
        built.map_err(|error| invalid(format!("our own certificate: {error}")))
    }

    fn roots(&self) -> Result<RootCertStore, StoreError> {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &self.authorities else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return match roots.is_empty() {
                true => Err(invalid("the system trusts no authority: name one".to_owned())),
                false => Ok(roots),
            };
        };
        for certificate in certificates(pem, "the authorities")? {
            let added = roots.add(certificate);
            added.map_err(|error| invalid(format!("the authorities: {error}")))?;
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| invalid(format!("{what}: {error}")))?;
    match read.is_empty() {
        true => Err(invalid(format!("{what}: no certificate in it"))),
        false => Ok(read),
    }
}

/// A member's address.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Host and port as they stand in a URL.
    pub(super) authority: String,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = || {
            invalid(format!(
                "endpoint {text:?}: write it as http://HOST:PORT or https://HOST:PORT"
            ))
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().ok_or_else(wrong)?,
            tls,
            authority: authority.to_string(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

fn invalid(detail: String) -> StoreError {
    StoreError::not_done(ErrorKind::Invalid, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn endpoints_are_urls_of_a_host_and_a_port() {
        let good = Endpoint::parse("https://[::1]:2379").unwrap();
        assert_eq!((good.host.as_str(), good.port, good.tls), ("::1", 2379, true));
        assert_eq!(good.to_string(), "https://[::1]:2379");
        for wrong in [
            "",
            "127.0.0.1:2379",
            "http://a",
            "ftp://a:1",
            "http://u:p@a:1",
            "http://a:1/x",
            "http://a:99999",
        ] {
            let error = Endpoint::parse(wrong).expect_err(wrong);
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert!(EtcdSettings::new(Vec::new()).parse_endpoints().is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        let mut settings = EtcdSettings::new(vec!["http://a:1".to_owned()]);
        settings.user = Some(("root".to_owned(), "s3cret".to_owned()));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn certificates_that_are_none_are_refused_at_once() {
        let mut settings = EtcdSettings::new(vec!["https://a:1".to_owned()]);
        settings.tls.authorities = Some(b"nothing".to_vec());
        let endpoints = settings.parse_endpoints().unwrap();
        let error = settings.client_config(&endpoints).unwrap_err();
        assert!(error.detail().contains("no certificate in it"), "{error}");
    }
}
