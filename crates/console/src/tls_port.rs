//! TLS of the API: the handshake within its deadline, and files that change.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use model::config::AdminTls;
use rustls::ServerConfig;
use tls::{AdminServer, LoadError, Stamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::limits::{HANDSHAKE_TIMEOUT, MAX_DRAINED_BYTES, TLS_FILES_POLL};
use crate::problem::{Kind, Problem};

/// What connections are served with, exchanged between two handshakes.
#[derive(Debug)]
pub struct TlsPort {
    source: AdminTls,
    settings: RwLock<Arc<ServerConfig>>,
    read: Stamp,
}

impl TlsPort {
    /// Reads the files that `source` names.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit together.
    pub fn load(source: AdminTls) -> Result<Self, LoadError> {
        // Before reading: what is written meanwhile is a change.
        let read = AdminServer::stamp(&source);
        let server = AdminServer::load(&source, now_s())?;
        warn(&server);
        Ok(Self {
            source,
            settings: RwLock::new(server.settings),
            read,
        })
    }

    fn settings(&self) -> Arc<ServerConfig> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.clone()
    }

    /// Reads the files again whenever they have changed, for as long as it is polled. Open connections stay as they
    /// are.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut taken = self.read.clone();
        let mut ticks = tokio::time::interval(TLS_FILES_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (port, before) = (self.clone(), taken.clone());
            // It reads files; the other tasks of this thread must not wait.
            let looked = tokio::task::spawn_blocking(move || port.look(before)).await;
            if let Ok(stamp) = looked {
                taken = stamp;
            }
        }
    }

    /// One look at the files; the stamp of what was read, or found useless.
    fn look(&self, taken: Stamp) -> Stamp {
        let stamp = AdminServer::stamp(&self.source);
        if stamp == taken {
            return taken;
        }
        match AdminServer::load(&self.source, now_s()) {
            Ok(server) => {
                warn(&server);
                tracing::info!("the admin API serves with the changed files of admin.tls");
                *self.settings.write().unwrap_or_else(PoisonError::into_inner) = server.settings;
            }
            Err(error) => tracing::warn!(
                "the files of admin.tls have changed and cannot be used: {error}; the ones before stay"
            ),
        }
        stamp
    }

    /// Makes the handshake. `None`: it failed, and the client was told what can be told.
    pub(crate) async fn accept(
        &self,
        mut tcp: TcpStream,
    ) -> Option<(TlsStream<TcpStream>, Option<Arc<[String]>>)> {
        let handshake = async {
            let mut first = [0];
            // A method of HTTP; a handshake begins with 22 (RFC 8446 section 5.1).
            if tcp.peek(&mut first).await.ok()? == 0 {
                return None;
            }
            if first[0].is_ascii_uppercase() {
                tell_plain_http(&mut tcp).await;
                return None;
            }
            let acceptor = TlsAcceptor::from(self.settings());
            match acceptor.accept(tcp).await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::debug!(
                        "TLS handshake with the admin API: {}",
                        tls::Failure::of(&error).words
                    );
                    None
                }
            }
        };
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.ok()??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(|certificate| Arc::from(tls::names_of(certificate)));
        Some((stream, names))
    }
}

/// Says to a client in the clear that this is TLS, and waits until it has read that.
async fn tell_plain_http(tcp: &mut TcpStream) {
    let problem = Problem::new(Kind::PlainHttp, "ask `https://` instead");
    let body = problem.to_json();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let told = async {
        tcp.write_all(&[head.as_bytes(), &body].concat()).await?;
        tcp.shutdown().await?;
        let mut rest = tcp.take(MAX_DRAINED_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    if let Err(error) = told.await {
        tracing::debug!(%error, "admin connection");
    }
}

fn warn(server: &AdminServer) {
    for warning in &server.warnings {
        tracing::warn!("admin.tls: {warning}");
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
