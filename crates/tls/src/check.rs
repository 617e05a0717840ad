//! Everything that a config names for TLS, read and verified without serving anything.

use model::config::{AdminTls, BackendTls, Config, ListenerTls, Tracing};

use crate::admin::{clients_of_admin, of_admin};
use crate::{certificate, client, pem, server};

/// Something that is wrong or odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, such as `load_balancers.shop.listeners.https.tls`.
    pub key: String,
    /// What is wrong.
    pub cause: String,
    /// Whether it cannot be served so; else it is a warning.
    pub is_error: bool,
}

/// Reads all certificates, keys and authorities of the config. `now_s` is the time in seconds since 1970.
pub fn check(config: &Config, now_s: i64) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    if let Some(tracing) = &config.observe.tracing {
        problems.collector(tracing);
    }
    if let Some(tls) = &config.admin.tls {
        problems.admin(tls, now_s);
    }
    for (name, lb) in &config.load_balancers {
        for listener in &lb.listeners {
            if let Some(tls) = &listener.tls {
                let key = format!("load_balancers.{name}.listeners.{}.tls", listener.name);
                problems.listener(&key, tls, now_s);
            }
        }
        for pool in lb.pools.values() {
            if let Some(tls) = &pool.tls {
                let key = format!("load_balancers.{name}.pools.{}.tls", pool.name);
                problems.backend(&key, tls, now_s);
            }
        }
    }
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn error(&mut self, key: &str, cause: impl ToString) {
        self.0.push(Problem {
            key: key.to_owned(),
            cause: cause.to_string(),
            is_error: true,
        });
    }

    fn warning(&mut self, key: &str, cause: impl ToString) {
        self.0.push(Problem {
            key: key.to_owned(),
            cause: cause.to_string(),
            is_error: false,
        });
    }

    fn certificate(&mut self, key: &str, own: &model::config::Certificate, place: usize, now_s: i64) {
        match certificate::load(own, now_s) {
            Err(error) => self.error(key, error),
            Ok(loaded) => {
                if let Some(why) = loaded.invalid_at(now_s) {
                    self.error(key, format!("{} cannot be used: {why}", own.label(place)));
                }
                for warning in loaded.warnings {
                    self.warning(key, warning);
                }
            }
        }
    }

    fn collector(&mut self, tracing: &Tracing) {
        let Some(ca) = &tracing.ca else { return };
        if let Err(error) = pem::authorities(ca) {
            self.error("tracing.ca", error);
        }
        if tracing.endpoint.starts_with("http://") {
            let cause = "`ca` does nothing: the collector's `endpoint` begins with `http://`, so spans go there in the clear";
            self.warning("tracing.ca", cause);
        }
    }

    fn admin(&mut self, tls: &AdminTls, now_s: i64) {
        self.certificate("admin.tls", &of_admin(tls), 1, now_s);
        if let Some(clients) = clients_of_admin(tls)
            && let Err(error) = server::client_verifier(&clients)
        {
            self.error("admin.tls.client_ca", error);
        }
    }

    fn listener(&mut self, key: &str, tls: &ListenerTls, now_s: i64) {
        for (index, own) in tls.certificates.iter().enumerate() {
            self.certificate(&format!("{key}.certificates[{index}]"), own, index + 1, now_s);
        }
        let authority = tls.acme.as_ref().and_then(|acme| acme.directory_ca.as_ref());
        if let Some(Err(error)) = authority.map(|ca| pem::authorities(ca)) {
            self.error(&format!("{key}.acme.directory_ca"), error);
        }
        if let Some(clients) = &tls.client_certificates
            && let Err(error) = server::client_verifier(clients)
        {
            self.error(&format!("{key}.client_certificates"), error);
        }
    }

    fn backend(&mut self, key: &str, tls: &BackendTls, now_s: i64) {
        if tls.insecure {
            let cause = "`insecure = true`: any certificate is taken, so whoever is between here and the backends can read and change everything";
            self.warning(key, cause);
        }
        if let Some(own) = &tls.client_certificate {
            let before = self.0.len();
            self.certificate(&format!("{key}.client_certificate"), own, 1, now_s);
            if self.0.iter().skip(before).any(|p| p.is_error) {
                return;
            }
        }
        if let Err(error) = client::client_config(tls, &[], now_s) {
            self.error(key, error);
        }
    }
}
