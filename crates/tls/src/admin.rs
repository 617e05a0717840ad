//! TLS of the admin API: what it serves with, and whether its files have changed.

use std::path::PathBuf;
use std::sync::Arc;

use model::config::{AdminTls, Certificate, ClientCertificates, Pem, PrivateKey};
use rustls::ServerConfig;

use crate::certificate;
use crate::pem::{LoadError, Stamp, files_of_certificate, files_of_clients};
use crate::server::{client_verifier, without_sessions};

/// What the admin API serves with, as its files were at one time.
#[derive(Debug)]
pub struct AdminServer {
    /// The settings of each connection.
    pub settings: Arc<ServerConfig>,
    /// What is odd, or worse: a certificate that is not valid now is served all the same, so that an expired one
    /// does not keep a load balancer from starting.
    pub warnings: Vec<String>,
}

impl AdminServer {
    /// Reads the files. `now_s` is the time in seconds since 1970.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit together.
    pub fn load(tls: &AdminTls, now_s: i64) -> Result<Self, LoadError> {
        let certificate = of_admin(tls);
        let loaded = certificate::load(&certificate, now_s)?;
        let clients = clients_of_admin(tls).map(|clients| client_verifier(&clients));
        let settings = without_sessions(&loaded, clients.transpose()?, &[b"http/1.1"])?;
        let invalid = loaded.invalid_at(now_s);
        let invalid = invalid.map(|why| format!("clients will not take {}: {why}", certificate.label(1)));
        Ok(Self {
            settings,
            warnings: loaded.warnings.into_iter().chain(invalid).collect(),
        })
    }

    /// What tells whether the files have changed.
    pub fn stamp(tls: &AdminTls) -> Stamp {
        let clients = clients_of_admin(tls)
            .iter()
            .flat_map(files_of_clients)
            .collect::<Vec<PathBuf>>();
        let own = files_of_certificate(&of_admin(tls));
        Stamp::of(&own.into_iter().chain(clients).collect::<Vec<_>>())
    }
}

pub(crate) fn of_admin(tls: &AdminTls) -> Certificate {
    Certificate {
        cert: Pem::File(tls.certificate.clone()),
        key: PrivateKey::File(tls.key.clone()),
        ocsp: None,
    }
}

/// A token is another way in, so a certificate is no must.
pub(crate) fn clients_of_admin(tls: &AdminTls) -> Option<ClientCertificates> {
    let ca = tls.client_ca.clone()?;
    Some(ClientCertificates {
        required: false,
        ca: Pem::File(ca),
        crl: None,
    })
}
