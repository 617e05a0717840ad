//! TLS as both sides of the load balancer, its health checks and its admin API use it: certificates and keys are read from
//! where the config says, verified against each other, and made into settings of `rustls`.
//!
//! What it refuses: settings to choose ciphers or curves (those of `rustls` are safe; its first choice is the
//! post-quantum X25519MLKEM768, and of its ciphers the one that costs least is taken), versions before 1.2, a key
//! that does not belong to its certificate, and taking early data (0-RTT), which can be replayed.
//!
//! Everything here reads files at most; nothing opens a connection, and the time is an argument.

mod admin;
mod certificate;
mod challenge;
mod check;
mod client;
mod failure;
mod identity;
mod ocsp;
mod pem;
mod resolver;
mod server;

use std::sync::{Arc, OnceLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub use admin::AdminServer;
pub use certificate::{Loaded, load, placeholder};
pub use challenge::{ACME_TLS, ChallengeStore};
pub use check::{Problem, check};
pub use client::{client_config, for_one_backend, server_name, system_authorities};
pub use failure::{Failure, FailureKind};
pub use identity::{ClientIdentity, names_of};
pub use pem::{LoadError, Stamp, authorities, files_of_backend, files_of_certificate, files_of_clients};
pub use resolver::Resolver;
pub use server::{ServerSettings, TICKET_KEY_LIFE, Tickets, client_verifier};

/// The cryptography in use: what `rustls` takes to be safe, with AES-128 before AES-256. Nobody can break either;
/// the suites of the second come with SHA-384, for which processors have no instructions, and with it each handshake
/// costs a tenth more.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
            Arc::new(provider)
        })
        .clone()
}

/// Where a suite stands in our order; what `rustls` adds one day comes last.
fn place(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => 3,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => 4,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => 5,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 6,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 7,
        _ => 8,
    }
}

static ONLY_1_3: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The versions from `least` on.
fn versions(least: model::config::TlsVersion) -> &'static [&'static rustls::SupportedProtocolVersion] {
    match least {
        model::config::TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        model::config::TlsVersion::V1_3 => ONLY_1_3,
    }
}
