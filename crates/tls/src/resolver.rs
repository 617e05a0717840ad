//! Which certificate a client is shown: by the name it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::Loaded;
use crate::challenge::{ACME_TLS, ChallengeStore};

/// The certificates of a listener by name. They are exchanged as a whole, between two handshakes.
#[derive(Debug)]
pub struct Resolver {
    table: RwLock<Arc<Table>>,
    challenges: Arc<ChallengeStore>,
}

/// Certificates by name; for each name ECDSA and the like before RSA, then as configured.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Vec<Arc<Loaded>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<Loaded>>>,
    /// Where no name fits: the first, and those for the same names.
    default: Vec<Arc<Loaded>>,
}

impl Resolver {
    /// Shows nothing yet but the answers to challenges.
    pub fn new(challenges: Arc<ChallengeStore>) -> Self {
        Self {
            table: RwLock::default(),
            challenges,
        }
    }

    /// Shows these from the next handshake on; the first is the default.
    pub fn set(&self, certificates: &[Arc<Loaded>]) {
        let table = Arc::new(Table::new(certificates));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a client that asked for one name would have been shown the same certificates for the other.
    /// Names are in lower case.
    pub fn are_alike(&self, one: &str, other: &str) -> bool {
        let table = self.table();
        let (one, other) = (table.find(Some(one)), table.find(Some(other)));
        let same = |(a, b): (&Arc<Loaded>, &Arc<Loaded>)| Arc::ptr_eq(a, b);
        one.len() == other.len() && one.iter().zip(other).all(same)
    }

    fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let table = self.table();
        let candidates = table.find(name);
        let fits = |loaded: &&Arc<Loaded>| loaded.certified.key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(fits).or_else(|| candidates.first())?;
        Some(chosen.certified.clone())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if hello
            .alpn()
            .is_some_and(|mut offers| offers.any(|offer| offer == ACME_TLS))
        {
            return self.challenges.tls(name.as_deref()?);
        }
        self.pick(name.as_deref(), hello.signature_schemes())
    }
}

impl Table {
    fn new(certificates: &[Arc<Loaded>]) -> Self {
        let mut table = Self::default();
        let mut ordered: Vec<&Arc<Loaded>> = certificates.iter().collect();
        ordered.sort_by_key(|loaded| loaded.is_rsa());
        for loaded in ordered {
            for name in &loaded.names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut table.wildcard, suffix),
                    None => (&mut table.exact, name.as_str()),
                };
                map.entry(key.to_owned()).or_default().push(loaded.clone());
            }
        }
        if let Some(first) = certificates.first() {
            let of_name = first.names.first().map(|name| match name.strip_prefix("*.") {
                Some(suffix) => table.wildcard.get(suffix),
                None => table.exact.get(name),
            });
            table.default = of_name.flatten().cloned().unwrap_or_else(|| vec![first.clone()]);
        }
        table
    }

    /// A wildcard stands for one label (RFC 9525 section 6.3).
    fn find(&self, name: Option<&str>) -> &[Arc<Loaded>] {
        let by_name = name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let (_, suffix) = name.split_once('.')?;
                self.wildcard.get(suffix)
            })
        });
        by_name.unwrap_or(&self.default)
    }
}
