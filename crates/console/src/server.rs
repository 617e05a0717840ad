//! Serving: accept, bound, close.
//!
//! Own loop over hyper rather than `axum::serve`, which has no limit on connections and no time limit on headers.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::limits::{
    ACCEPT_PAUSE, CLOSE_GRACE, HEADER_TIMEOUT, MAX_CONNECTION_AGE, MAX_CONNECTIONS, MAX_HEADER_BYTES,
    MAX_HEADER_FIELDS,
};
use crate::{Console, routes};

/// Serves the API until `shutdown` is ready; then stops accepting, lets running requests finish within
/// [`CLOSE_GRACE`] and returns.
pub async fn serve(listener: TcpListener, console: Console, shutdown: impl Future<Output = ()>) {
    let router = routes::router(Arc::new(console));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), stopping.clone()));
                }
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

async fn connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // Only costs latency when it fails.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADER_FIELDS)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        _ = stopping.wait_for(|stopping| *stopping) => {}
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
