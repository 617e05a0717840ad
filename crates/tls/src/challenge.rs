//! Answers to an authority that asks whether a name is ours (ACME): in force for as long as an order runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use model::acme::Challenges;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::pem::LoadError;
use crate::provider;

/// The protocol by which an authority asks over TLS (RFC 8737 section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The answers in force, shared by all listeners of a process: whichever is reached answers.
#[derive(Debug, Default)]
pub struct ChallengeStore(RwLock<Arc<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    http: BTreeMap<String, String>,
    tls: HashMap<String, Arc<CertifiedKey>>,
}

impl ChallengeStore {
    /// Puts these in force and withdraws all others.
    ///
    /// # Errors
    /// When a key cannot be used; then nothing changes.
    pub fn set(&self, challenges: &Challenges) -> Result<(), LoadError> {
        let mut tls = HashMap::new();
        for (domain, made) in &challenges.tls_alpn {
            let certificate = CertificateDer::from(made.certificate.clone());
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key.clone()));
            let key = provider().key_provider.load_private_key(key).map_err(|error| {
                LoadError(format!(
                    "the key of the challenge for {domain} cannot be used: {error}"
                ))
            })?;
            tls.insert(
                domain.clone(),
                Arc::new(CertifiedKey::new(vec![certificate], key)),
            );
        }
        let http = challenges.http.clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Answers { http, tls });
        Ok(())
    }

    /// What to answer to `/.well-known/acme-challenge/TOKEN` (RFC 8555 section 8.3).
    pub fn http(&self, token: &str) -> Option<String> {
        self.answers().http.get(token).cloned()
    }

    /// What to show to an authority that asks for this name over TLS.
    pub(crate) fn tls(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.answers().tls.get(domain).cloned()
    }

    fn answers(&self) -> Arc<Answers> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
