//! TLS of checks: as the pool speaks it, with a whole handshake each time, so that a certificate that has ended
//! or changed is noticed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::config::{BackendTls, CheckKind, HealthCheck};
use rustls::ClientConfig;
use rustls::client::Resumption;
use tls::Failure;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failed;

/// How long files are used before they are read again.
const FRESH: Duration = Duration::from_secs(30);

/// The settings in use, or why there are none, with when they were read.
type Read = (Instant, Result<Arc<ClientConfig>, String>);

/// Settings by what the config says, and whether HTTP/2 is spoken: at most as many as there are targets.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<(BackendTls, bool), Read>>);

impl Clients {
    /// Forgets what none of these checks needs.
    pub(crate) fn keep<'a>(&self, checks: impl Iterator<Item = &'a HealthCheck>) {
        let wanted: Vec<(&BackendTls, bool)> = checks
            .filter_map(|c| Some((c.tls.as_ref()?, speaks_http2(&c.kind))))
            .collect();
        self.lock()
            .retain(|(tls, http2), _| wanted.contains(&(tls, *http2)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(BackendTls, bool), Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, tls: &BackendTls, http2: bool) -> Result<Arc<ClientConfig>, Failed> {
        let key = (tls.clone(), http2);
        let known = self
            .lock()
            .get(&key)
            .filter(|(at, _)| at.elapsed() < FRESH)
            .cloned();
        let result = match known {
            Some((_, result)) => result,
            None => {
                let settings = tls.clone();
                let read = tokio::task::spawn_blocking(move || read(&settings, http2)).await;
                let result = read.unwrap_or_else(|error| Err(error.to_string()));
                self.lock().insert(key, (Instant::now(), result.clone()));
                result
            }
        };
        result.map_err(|why| Failed::Here(format!("cannot speak TLS: {why}")))
    }

    /// Makes the handshake over a connection that was just opened.
    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        check: &HealthCheck,
        tls: &BackendTls,
    ) -> Result<TlsStream<TcpStream>, Failed> {
        let config = self.get(tls, speaks_http2(&check.kind)).await?;
        let connected = TlsConnector::from(config)
            .connect(tls::server_name(tls, address), tcp)
            .await;
        connected.map_err(|error| Failed::Backend(format!("TLS: {}", Failure::of(&error).words)))
    }
}

fn read(settings: &BackendTls, http2: bool) -> Result<Arc<ClientConfig>, String> {
    let protocols: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut config = tls::client_config(settings, protocols, now_s).map_err(|error| error.to_string())?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn speaks_http2(kind: &CheckKind) -> bool {
    match kind {
        CheckKind::Tcp => false,
        CheckKind::Http(check) => check.http2,
        CheckKind::Grpc(_) => true,
    }
}
