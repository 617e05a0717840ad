//! TLS towards clients.

use std::sync::Arc;
use std::time::Duration;

use model::config::{ClientCertificates, ListenerTls, TlsVersion};
use rustls::crypto::GetRandomFailed;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::SingleCertAndKey;
use rustls::ticketer::TicketRotator;
use rustls::{CipherSuite, RootCertStore, ServerConfig};

use crate::certificate::Loaded;
use crate::pem::{self, LoadError};
use crate::resolver::Resolver;
use crate::{provider, versions};

/// Sessions of TLS 1.2 clients without tickets that are remembered; beyond, the oldest is forgotten.
const SESSIONS: usize = 1024;

/// How long tickets are made with one key; they are taken for as long again after that.
pub const TICKET_KEY_LIFE: Duration = Duration::from_secs(6 * 60 * 60);

/// What lets a client resume its session: keys for tickets that change by themselves, the same for all shards. A session resumes only with the tickets that it was begun with, so that what was not verified then
/// is not skipped later: other rules for client certificates need other tickets. `rustls` binds each ticket to
/// the name asked for besides.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// New keys, which change when they have made tickets for `life`, in whole seconds.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(life: Duration) -> Result<Self, LoadError> {
        let life_s = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
        let rotating = TicketRotator::new(life_s, Key::fresh)
            .map_err(|error| LoadError(format!("no keys for session tickets: {error}")))?;
        Ok(Self(Arc::new(rotating)))
    }

    /// Changes the keys when it is time. Handshakes do so too; without this, the key of a listener that nobody
    /// visits would stay for as long.
    pub fn refresh(&self) {
        // No ticket at all: what is of interest is that it looks at the time first.
        self.0.decrypt(&[]);
    }
}

/// One key. What `rustls` makes them with would rotate by itself, later than it is ever kept.
#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

impl Key {
    fn fresh() -> Result<Box<dyn ProducesTickets>, GetRandomFailed> {
        match rustls::crypto::aws_lc_rs::Ticketer::new() {
            Ok(key) => Ok(Box::new(Self(key))),
            Err(_) => Err(GetRandomFailed),
        }
    }
}

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// Who may show which client certificates.
///
/// # Errors
/// When a file cannot be read, or holds nothing that can be used.
pub fn client_verifier(clients: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let (authorities, name) = pem::certificates(&clients.ca, "ca")?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority)
            .map_err(|error| LoadError(format!("an authority in {name} cannot be used: {error}")))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(path) = &clients.crl {
        builder = builder
            .with_crls(pem::revocation_lists(path)?)
            .allow_unknown_revocation_status();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        LoadError(format!(
            "client certificates cannot be verified with {name}: {error}"
        ))
    })
}

/// The settings of a listener: the same twice, with who chooses the cipher suite.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    ours: Arc<ServerConfig>,
    clients: Arc<ServerConfig>,
}

impl ServerSettings {
    /// `protocols` are offered by ALPN, the best first.
    ///
    /// # Errors
    /// When `rustls` refuses the combination.
    pub fn new(
        tls: &ListenerTls,
        resolver: Arc<Resolver>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
        tickets: &Tickets,
        protocols: &[&[u8]],
    ) -> Result<Self, LoadError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(tls.min_version))
            .map_err(|error| LoadError::new(error.to_string()))?;
        let builder = match clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        config.ticketer = tickets.0.clone();
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        let clients = Arc::new(config.clone());
        config.ignore_client_order = true;
        let ours = Arc::new(config);
        Ok(Self { ours, clients })
    }

    /// The settings for a client that offers these suites, in its order. Ours counts, except with a client that
    /// wants ChaCha20 most: it says so where it has no instructions for AES, and AES would cost it several times
    /// as much.
    #[must_use]
    pub fn for_offer(&self, suites: &[CipherSuite]) -> &Arc<ServerConfig> {
        let known = |suite: &CipherSuite| {
            self.ours
                .crypto_provider()
                .cipher_suites
                .iter()
                .any(|s| s.suite() == *suite)
        };
        match suites.iter().find(|suite| known(suite)) {
            Some(first) if is_chacha20(*first) => &self.clients,
            _ => &self.ours,
        }
    }
}

/// The settings of a server that shows one certificate and resumes no session: each connection verifies its client
/// anew, by the authorities and on the day of that connection. `protocols` are offered by ALPN.
///
/// # Errors
/// When `rustls` refuses the combination.
pub(crate) fn without_sessions(
    certificate: &Loaded,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, LoadError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(TlsVersion::V1_2))
        .map_err(|error| LoadError::new(error.to_string()))?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let shown = SingleCertAndKey::from(certificate.certified.clone());
    let mut config = builder.with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn is_chacha20(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}
