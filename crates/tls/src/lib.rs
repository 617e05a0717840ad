//! TLS as both sides of the load balancer and its health checks use it: certificates and keys are read from
//! where the config says, verified against each other, and made into settings of `rustls`.
//!
//! What it refuses: settings to choose ciphers or curves (those of `rustls` are safe, and its first choice is
//! the post-quantum X25519MLKEM768), versions before 1.2, a key that does not belong to its certificate, and
//! taking early data (0-RTT), which can be replayed.
//!
//! Everything here reads files at most; nothing opens a connection, and the time is an argument.

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

use rustls::crypto::CryptoProvider;

pub use certificate::{Loaded, load, placeholder};
pub use challenge::{ACME_TLS, ChallengeStore};
pub use check::{Problem, check};
pub use client::{client_config, for_one_backend, server_name};
pub use failure::{Failure, FailureKind};
pub use identity::ClientIdentity;
pub use pem::{LoadError, Stamp, authorities, files_of_backend, files_of_certificate, files_of_clients};
pub use resolver::Resolver;
pub use server::{TICKET_KEY_LIFE, Tickets, client_verifier, server_config};

/// The cryptography in use.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}

static ONLY_1_3: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The versions from `least` on.
fn versions(least: model::config::TlsVersion) -> &'static [&'static rustls::SupportedProtocolVersion] {
    match least {
        model::config::TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        model::config::TlsVersion::V1_3 => ONLY_1_3,
    }
}
