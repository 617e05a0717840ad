//! Serving: accept, bound, close.
//!
//! Own loop over hyper rather than `axum::serve`, which has no limit on connections and no time limit on headers.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::limits::{
    ACCEPT_PAUSE, CLOSE_GRACE, HEADER_TIMEOUT, MAX_CONNECTION_AGE, MAX_CONNECTIONS, MAX_HEADER_BYTES,
    MAX_HEADER_FIELDS,
};
use crate::login::Peer;
use crate::sources::{Entrance, Place};
use crate::{Console, Counters, TlsPort, routes};

/// What each connection is served with.
#[derive(Clone)]
struct Serving {
    router: Router,
    tls: Option<Arc<TlsPort>>,
    counters: Arc<Counters>,
    stopping: watch::Receiver<bool>,
}

/// Serves the API until `shutdown` is ready; then stops accepting, lets running requests finish within
/// [`CLOSE_GRACE`] and returns.
pub async fn serve(listener: TcpListener, console: Console, shutdown: impl Future<Output = ()>) {
    // An address that cannot be told is not taken for a harmless one.
    let on_loopback = listener
        .local_addr()
        .is_ok_and(|at| at.ip().to_canonical().is_loopback());
    let (stop, stopping) = watch::channel(false);
    let mut following = JoinSet::new();
    if let Some(tls) = &console.tls {
        following.spawn(tls.clone().follow());
    }
    let serving = Serving {
        tls: console.tls.clone(),
        counters: console.counters.clone(),
        router: routes::router(Arc::new(console), on_loopback),
        stopping,
    };
    let mut entrance = Entrance::default();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {
                if let Some((come, place)) = entrance.next() {
                    connections.spawn(served(come, place, serving.clone()));
                }
            }
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(come) => match entrance.enter(come.1.ip(), come) {
                    Ok(Some((come, place))) => _ = connections.spawn(served(come, place, serving.clone())),
                    Ok(None) => {}
                    Err(_) => serving.counters.refuse_connection(),
                },
                Err(error) => {
                    tracing::warn!(%error, "the admin API could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Serves a connection, and frees its place.
async fn served((stream, from): (TcpStream, SocketAddr), place: Place, serving: Serving) {
    connection(stream, from, serving).await;
    drop(place);
}

async fn connection(stream: TcpStream, address: SocketAddr, mut serving: Serving) {
    // Only costs latency when it fails.
    let _ = stream.set_nodelay(true);
    let Some(tls) = serving.tls.take() else {
        let certificate = None;
        return exchange(stream, Peer { address, certificate }, serving).await;
    };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        _ = serving.stopping.wait_for(|stopping| *stopping) => return,
    };
    match accepted {
        Some((stream, certificate)) => exchange(stream, Peer { address, certificate }, serving).await,
        None => serving.counters.fail_handshake(),
    }
}

async fn exchange(io: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, mut serving: Serving) {
    let router = TowerToHyperService::new(serving.router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADER_FIELDS)
            .serve_connection(TokioIo::new(io), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        _ = serving.stopping.wait_for(|stopping| *stopping) => {}
        () = tokio::time::sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = tokio::time::timeout(CLOSE_GRACE, connection).await {
        log(ended);
    }
}

/// How a connection ended is the client's affair; worth a line only to who looks for it.
fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection");
    }
}
