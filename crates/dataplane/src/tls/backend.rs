//! TLS of one pool: settings for each of its backends, and the handshake with one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::config::{BackendTls, Pool, PoolTimeouts};
use model::reason::Reason;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tls::{Failure, FailureKind, Stamp};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::listener::Watched;
use super::now_s;
use crate::serving::BackendCell;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::timers::{Expired, Timer};

/// What is offered by ALPN.
const HTTP1: &[&[u8]] = &[b"http/1.1"];
const HTTP2: &[&[u8]] = &[b"h2"];

/// TLS of a pool, shared by all shards and by successive configs in which it does not change.
#[derive(Debug)]
pub(crate) struct PoolTls {
    settings: BackendTls,
    /// What is offered by ALPN.
    protocols: &'static [&'static [u8]],
    addresses: Vec<SocketAddr>,
    /// By backend, so that each has its own tickets. Empty: it cannot be said whom to trust, so nobody is.
    clients: RwLock<Arc<BTreeMap<SocketAddr, Arc<ClientConfig>>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) error: Option<String>,
    pub(crate) files: Watched,
    pub(crate) refused: u64,
}

impl PoolTls {
    /// Reads what the settings name, unless `previous` has done so for the same ones.
    pub(crate) fn load(settings: &BackendTls, pool: &Pool, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let addresses: Vec<SocketAddr> = pool.backends.iter().map(|b| b.address).collect();
        let protocols = pool.http2.as_ref().map_or(HTTP1, |_| HTTP2);
        let same = previous.filter(|p| p.settings == *settings && p.protocols == protocols);
        if let Some(same) = same.filter(|p| p.addresses == addresses) {
            return same.clone();
        }
        let tls = Self {
            settings: settings.clone(),
            protocols,
            addresses,
            clients: RwLock::default(),
            state: Mutex::new(State {
                error: None,
                files: Watched::default(),
                refused: 0,
            }),
        };
        let stamp = tls.stamp();
        let error = tls.replace().err();
        let mut state = tls.state();
        state.files = Watched::new(stamp);
        // With the same settings, what was good before is better than nothing.
        if error.is_some()
            && let Some(same) = same
        {
            let kept = same.clients.read().unwrap_or_else(PoisonError::into_inner);
            *tls.clients.write().unwrap_or_else(PoisonError::into_inner) = kept.clone();
        }
        state.error = error;
        drop(state);
        Arc::new(tls)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of(&tls::files_of_backend(&self.settings))
    }

    /// What hinders speaking to backends as the settings say.
    pub(crate) fn problem(&self) -> Option<String> {
        let has_none = self.clients().is_empty() && !self.addresses.is_empty();
        self.state().error.clone().filter(|_| has_none)
    }

    /// Reads the files and uses what they say from the next connection on.
    pub(crate) fn replace(&self) -> Result<(), String> {
        let config =
            tls::client_config(&self.settings, self.protocols, now_s()).map_err(|error| error.to_string())?;
        let each = self.addresses.iter();
        let clients = each
            .map(|address| (*address, tls::for_one_backend(&config)))
            .collect();
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(clients);
        Ok(())
    }

    fn clients(&self) -> Arc<BTreeMap<SocketAddr, Arc<ClientConfig>>> {
        self.clients
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes the handshake over a new connection to a backend, within `timeouts.tls`.
    pub(crate) async fn connect(
        &self,
        shard: &Shard,
        cell: &BackendCell,
        timeouts: &PoolTimeouts,
        timer: &Timer,
        tcp: TcpStream,
    ) -> Result<Stream, Reason> {
        let counters = &cell.counters.of(shard.index).tls;
        let failed = |failure: Failure| {
            counters.fail(failure.kind);
            let what = (failure.kind.as_str(), failure.words.as_str());
            if shard.may_warn() {
                tracing::warn!(backend = %cell.id, reason = what.0, "TLS with the backend failed: {}", what.1);
            } else {
                tracing::debug!(backend = %cell.id, reason = what.0, "TLS with the backend failed: {}", what.1);
            }
            Reason::BackendTlsFailed
        };
        let Some(config) = self.clients().get(&cell.id.address).cloned() else {
            let why = self.state().error.clone().unwrap_or_default();
            return Err(failed(Failure::new(FailureKind::Other, why)));
        };
        let name = tls::server_name(&self.settings, cell.id.address);
        let began_us = shard.timers.now_us();
        timer.arm(timeouts.tls);
        let connected = timer.bound(TlsConnector::from(config).connect(name, tcp)).await;
        timer.disarm();
        match connected {
            Ok(Ok(stream)) => {
                let connection = stream.get_ref().1;
                // RFC 9113 section 3.2: over TLS, HTTP/2 is agreed on and never assumed.
                if self.protocols == HTTP2 && connection.alpn_protocol() != Some(b"h2") {
                    let words = "the backend does not agree to `h2` (ALPN)";
                    return Err(failed(Failure::new(FailureKind::Alpn, words)));
                }
                let is_1_3 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
                let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
                counters.complete(is_1_3, resumed, shard.timers.now_us().saturating_sub(began_us));
                Ok(Stream::tls(stream.into()))
            }
            Ok(Err(error)) => Err(failed(Failure::of(&error))),
            Err(Expired) if timer.limit_passed() => Err(Reason::TotalTimeout),
            Err(Expired) => {
                counters.fail(FailureKind::Timeout);
                Err(Reason::BackendTlsTimeout)
            }
        }
    }
}
