//! Sessions: what resumes, and what no longer does. Both sides are here, without a network between them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_tls as tls;
use model::config::{Certificate, ListenerTls, Pem, PrivateKey, Secret, TlsVersion};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use tls::Tickets;

/// A certificate, and who trusts it.
struct House {
    certificate: Certificate,
    pem: String,
}

impl House {
    fn new() -> Self {
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

    fn server(&self, tickets: &Tickets) -> Arc<ServerConfig> {
        let loaded = tls::load(&self.certificate, 1_795_000_000).unwrap();
        let resolver = Arc::new(tls::Resolver::new(Arc::default()));
        resolver.set(&[Arc::new(loaded)]);
        let settings = ListenerTls {
            certificates: vec![self.certificate.clone()],
            acme: None,
            min_version: TlsVersion::V1_3,
            client_certificates: None,
        };
        let config = tls::server_config(&settings, resolver, None, tickets, &[]);
        Arc::new(config.unwrap())
    }

    /// A client with sessions of its own.
    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A handshake with all that follows; whether a session was resumed.
fn resumes(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> bool {
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
    server.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn a_session_resumes_with_the_tickets_it_was_begun_with_and_no_others() {
    let house = House::new();
    let tickets = || Tickets::new(tls::TICKET_KEY_LIFE).unwrap();
    let (one, other) = (house.server(&tickets()), house.server(&tickets()));
    let client = house.client();
    assert!(!resumes(&one, &client));
    for _ in 0..3 {
        assert!(resumes(&one, &client));
    }
    assert!(!resumes(&other, &client));
}

/// Scenario: a key is stolen from memory. It opens the tickets of its time and of no later one, however few visitors
/// there were.
#[test]
fn keys_of_tickets_change_by_themselves() {
    let house = House::new();
    let tickets = Tickets::new(Duration::from_secs(1)).unwrap();
    let server = house.server(&tickets);
    // Each visit brings new tickets: every client comes back once.
    let clients: Vec<_> = (0..100).map(|_| house.client()).collect();
    for client in &clients {
        assert!(!resumes(&server, client));
    }
    let mut back = clients.iter();
    while resumes(
        &server,
        back.next().expect("tickets end while there are clients left"),
    ) {
        tickets.refresh();
        std::thread::sleep(Duration::from_millis(100)); // condition poll
    }
}
