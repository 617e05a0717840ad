//! `/metrics`: written as it is sent, a chunk at a time, on a thread of its own.
//!
//! All series of a large node are hundreds of megabytes: they are never in memory together, and a scraper that reads
//! slowly holds up its own scrape and nothing else: it gives its turn to others while it is waited for. As many scrapes
//! as [`MAX_SCRAPES_AT_ONCE`] are written at a time.

use std::convert::Infallible;
use std::fmt::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use model::config::Name;
use model::scrape::Scope;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::Console;
use crate::limits::{MAX_SCRAPES_AT_ONCE, SCRAPE_CHUNK_BYTES, SCRAPE_CHUNKS};
use crate::problem::{Kind, Problem};

/// What `prometheus-client` writes is OpenMetrics 1.0 text.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static SCRAPES: Semaphore = Semaphore::const_new(MAX_SCRAPES_AT_ONCE);

pub(crate) async fn metrics(State(console): State<Arc<Console>>, uri: Uri) -> Result<Response, Problem> {
    let scope = scope(&console, uri.query().unwrap_or_default())?;
    let fault = |error| Problem::new(Kind::Internal, format!("{error}"));
    let turn = SCRAPES.acquire().await.map_err(fault)?;
    let (chunks, written) = mpsc::channel(SCRAPE_CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut out = Chunks {
            chunk: String::with_capacity(SCRAPE_CHUNK_BYTES),
            chunks,
            turn: Some(turn),
        };
        // What is missing at the end, `# EOF` above all, tells the scraper that it has not all of it.
        if (console.metrics)(scope, &mut out).is_ok() {
            _ = out.send();
        }
    });
    Ok(([(header::CONTENT_TYPE, TYPE)], Body::new(Written(written))).into_response())
}

/// What stands behind `?`: `load_balancer=NAME`.
fn scope(console: &Console, query: &str) -> Result<Scope, Problem> {
    let config = (console.config)();
    let mut scope = Scope {
        load_balancer: None,
        backends: usize::try_from(config.admin.metrics_backends).unwrap_or(usize::MAX),
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some(name) = parameter.strip_prefix("load_balancer=") else {
            let detail = "the only parameter is `load_balancer`";
            return Err(Problem::new(Kind::BadQuery, detail));
        };
        let known = Name::parse(name)
            .ok()
            .filter(|name| config.load_balancers.contains_key(name));
        let unknown = || Problem::new(Kind::UnknownLoadBalancer, format!("there is no `{name}`"));
        scope.load_balancer = Some(known.ok_or_else(unknown)?);
    }
    Ok(scope)
}

/// Takes text and hands it on in chunks; an error when nobody reads any more.
struct Chunks {
    chunk: String,
    chunks: mpsc::Sender<Bytes>,
    turn: Option<SemaphorePermit<'static>>,
}

impl Chunks {
    fn send(&mut self) -> fmt::Result {
        let chunk = std::mem::replace(&mut self.chunk, String::with_capacity(SCRAPE_CHUNK_BYTES));
        let chunk = match self.chunks.try_send(chunk.into()) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(fmt::Error),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        self.turn = None;
        self.chunks.blocking_send(chunk).map_err(|_| fmt::Error)?;
        self.turn = Handle::current().block_on(SCRAPES.acquire()).ok();
        Ok(())
    }
}

impl Write for Chunks {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.chunk.len() + text.len() > SCRAPE_CHUNK_BYTES {
            self.send()?;
        }
        self.chunk.push_str(text);
        Ok(())
    }
}

/// The body: what was written, in its order.
struct Written(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// A scrape of a mebibyte, and what is to be read of it.
    async fn scrape() -> (JoinHandle<fmt::Result>, mpsc::Receiver<Bytes>) {
        let turn = timeout(Duration::from_secs(60), SCRAPES.acquire()).await;
        let turn = Some(turn.unwrap().unwrap());
        let (chunks, written) = mpsc::channel(SCRAPE_CHUNKS);
        let mut out = Chunks {
            chunk: String::new(),
            chunks,
            turn,
        };
        let writing = tokio::task::spawn_blocking(move || {
            (0..1024).try_for_each(|_| out.write_str(&"x".repeat(1024)))?;
            out.send()
        });
        (writing, written)
    }

    /// Scenario: more scrapers than may at once, none of which reads. All of them are begun, and each gets all of it once
    /// it reads.
    #[tokio::test]
    async fn who_reads_slowly_keeps_nobody_waiting() {
        let mut begun = Vec::new();
        for _ in 0..3 * MAX_SCRAPES_AT_ONCE {
            begun.push(scrape().await);
        }
        for (writing, mut written) in begun {
            let mut bytes = 0;
            while let Some(chunk) = written.recv().await {
                bytes += chunk.len();
            }
            assert_eq!(bytes, 1024 * 1024);
            writing.await.unwrap().unwrap();
        }
    }
}
