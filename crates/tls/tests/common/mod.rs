//! Both sides of a handshake, without a network between them.

use std::io::Read;
use std::sync::Arc;

use evenkeel_tls as tls;
use model::config::{Certificate, ListenerTls, Pem, PrivateKey, Secret, TlsVersion};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};
use tls::{ServerSettings, Tickets};

/// A certificate, and who trusts it.
pub(crate) struct House {
    certificate: Certificate,
    pem: String,
}

impl House {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let certificate = Certificate {
            cert: Pem::Inline(pem.clone()),
            key: PrivateKey::Inline(Secret::new(key.serialize_pem())),
            ocsp: None,
        };
        Self { certificate, pem }
    }

    pub(crate) fn server(&self, tickets: &Tickets) -> ServerSettings {
        let loaded = tls::load(&self.certificate, 1_795_000_000).unwrap();
        let resolver = Arc::new(tls::Resolver::new(Arc::default()));
        resolver.set(&[Arc::new(loaded)]);
        let settings = ListenerTls {
            certificates: vec![self.certificate.clone()],
            acme: None,
            min_version: TlsVersion::V1_2,
            client_certificates: None,
        };
        ServerSettings::new(&settings, resolver, None, tickets, &[]).unwrap()
    }

    /// A client with sessions of its own, which offers these suites in this order.
    pub(crate) fn client(&self, suites: &[SupportedCipherSuite]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = suites.to_vec();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A handshake with all that follows: the server's end of it.
pub(crate) fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> ServerConnection {
    let name = ServerName::try_from("shop.test").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            server.read_tls(bytes.by_ref()).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            client.read_tls(bytes.by_ref()).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!server.is_handshaking());
    server
}
