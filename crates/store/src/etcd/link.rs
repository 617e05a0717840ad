//! One connection to one endpoint: opened, asked whether it lives, ended.
//!
//! A dead link is noticed by a question and not by pings of HTTP/2: etcd cuts off who pings more often than every
//! five seconds, or while no call is open. Two questions are asked instead, at any time and together. `Status` is
//! answered at once by whoever lives. A read of one key that must agree with all members tells whether anything is
//! carried out there: a member whose disk stalls goes on answering `Status`, with the leader of old, and keeping
//! leases alive, all out of memory. That one may take as long as choosing a leader does, or the loss of a leader would
//! send everybody away from members that are well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_types::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::grpc::{Caller, Failure, broken, frame, is_tls};
use super::messages::{Nothing, RangeRequest, RangeResponse, StatusResponse, method};
use super::settings::Endpoint;
use crate::bounds::{CONNECT_TIMEOUT, PROBE_AFTER, PROBE_TIMEOUT, READ_TIMEOUT};
use crate::error::{ErrorKind, StoreError};

/// What a stream may send before it is read: what a watch that nobody reads holds back.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all streams together may: [`crate::bounds::MAX_WATCHES`] that nobody reads, and room for calls.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 64 * 1024;

/// A connection that works, or did.
#[derive(Debug)]
pub(super) struct Link {
    caller: Caller,
    heard: Arc<Heard>,
    /// Carries the connection; when it ends, so does all that runs over it.
    driver: AbortHandle,
    probe: AbortHandle,
}

/// When the other side last carried something out.
#[derive(Debug)]
pub(super) struct Heard {
    since: Instant,
    millis: AtomicU64,
}

impl Heard {
    /// Notes that it did so now.
    pub(super) fn now(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn ago(&self) -> Duration {
        let at = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(at)
    }
}

impl Link {
    /// Connects to a member that carries out what it is asked.
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, StoreError> {
        let (kind, detail) = match timeout(CONNECT_TIMEOUT, Self::connect(endpoint, tls)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(Failure::Broken {
                tls: true, detail, ..
            })) => (ErrorKind::Tls, detail),
            Ok(Err(failure)) => (ErrorKind::Unreachable, failure.to_string()),
            Err(_) => (
                ErrorKind::Unreachable,
                format!("no connection within {CONNECT_TIMEOUT:?}"),
            ),
        };
        Err(StoreError::not_done(kind, format!("{endpoint}: {detail}")))
    }

    async fn connect(endpoint: &Endpoint, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Failure> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = stream.await.map_err(|error| not_sent(&error))?;
        stream.set_nodelay(true).map_err(|error| not_sent(&error))?;
        let link = match tls.filter(|_| endpoint.tls) {
            None => Self::over(stream, endpoint).await?,
            Some(config) => {
                let name = ServerName::try_from(endpoint.host.clone());
                let name = name.map_err(|error| Failure::Malformed(error.to_string()))?;
                let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
                Self::over(connecting.await.map_err(|error| not_sent(&error))?, endpoint).await?
            }
        };
        examine(&link.caller).await?;
        Ok(link)
    }

    /// Over a connection that stands.
    pub(super) async fn over<S>(stream: S, endpoint: &Endpoint) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(MAX_HEADERS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let handshake = builder.handshake::<_, Bytes>(stream).await;
        let (sender, connection) = handshake.map_err(|error| broken(false, &error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to etcd ended");
            }
        });
        let caller = Caller {
            sender,
            scheme: if endpoint.tls { "https" } else { "http" },
            authority: endpoint.authority.clone(),
            token: None,
        };
        let heard = Arc::new(Heard {
            since: Instant::now(),
            millis: AtomicU64::new(0),
        });
        let probe = tokio::spawn(probe(caller.clone(), Arc::clone(&heard), driver.abort_handle()));
        Ok(Self::from(caller, heard, &driver, &probe))
    }

    fn from(caller: Caller, heard: Arc<Heard>, driver: &JoinHandle<()>, probe: &JoinHandle<()>) -> Self {
        Self {
            caller,
            heard,
            driver: driver.abort_handle(),
            probe: probe.abort_handle(),
        }
    }

    /// Whether nothing is known against it.
    pub(super) fn lives(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Ends it, and all that runs over it.
    pub(super) fn end(&self) {
        self.driver.abort();
        self.probe.abort();
    }

    /// To note that it carried something out.
    pub(super) fn heard(&self) -> Arc<Heard> {
        Arc::clone(&self.heard)
    }

    /// Calls over this link, as the owner of `token`.
    pub(super) fn caller(&self, token: Option<HeaderValue>) -> Caller {
        Caller {
            token,
            ..self.caller.clone()
        }
    }

    /// How the member is.
    pub(super) async fn status(
        &self,
        token: Option<HeaderValue>,
        within: Duration,
    ) -> Result<StatusResponse, Failure> {
        status(&self.caller(token), within).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

async fn status(caller: &Caller, within: Duration) -> Result<StatusResponse, Failure> {
    caller.ask(method::STATUS, frame(&Nothing {}), within).await
}

/// Whether the member is of any use: it lives, has a leader, and what it reads agrees with the others.
async fn examine(caller: &Caller) -> Result<(), Failure> {
    let lives = async {
        match within(PROBE_TIMEOUT, status(caller, PROBE_TIMEOUT)).await {
            Ok(status) if status.leader == 0 => Err(Failure::Status {
                code: 14,
                message: "it has no leader".to_owned(),
            }),
            answer => answered(answer.map(drop)),
        }
    };
    let works = async { answered(within(READ_TIMEOUT, read(caller)).await.map(drop)) };
    tokio::try_join!(lives, works).map(drop)
}

/// Reads whether there is a key, as all members see it. Which one is of no matter, nor that we may not read it: etcd
/// looks at that when it knows the answer.
async fn read(caller: &Caller) -> Result<RangeResponse, Failure> {
    let question = RangeRequest {
        key: Bytes::from_static(b"/"),
        count_only: true,
        ..RangeRequest::default()
    };
    caller.ask(method::RANGE, frame(&question), READ_TIMEOUT).await
}

async fn within<A>(time: Duration, asked: impl Future<Output = Result<A, Failure>>) -> Result<A, Failure> {
    timeout(time, asked).await.unwrap_or_else(|_| {
        Err(Failure::Broken {
            sent: true,
            tls: false,
            detail: format!("no answer within {time:?}"),
        })
    })
}

/// Some refusals are good answers: for want of a token, which this asks without, and because there is another leader
/// now.
fn answered(answer: Result<(), Failure>) -> Result<(), Failure> {
    match answer {
        Err(Failure::Status { code: 3 | 7 | 16, .. }) => Ok(()),
        Err(Failure::Status { code: 14, message }) if message.contains("leader changed") => Ok(()),
        answer => answer,
    }
}

fn not_sent(error: &io::Error) -> Failure {
    Failure::Broken {
        sent: false,
        tls: is_tls(error),
        detail: error.to_string(),
    }
}

/// Asks whenever nothing was carried out for a while, and ends the link when there is no good answer.
async fn probe(caller: Caller, heard: Arc<Heard>, driver: AbortHandle) {
    loop {
        let silent = heard.ago();
        if silent < PROBE_AFTER {
            sleep(PROBE_AFTER - silent).await;
            continue;
        }
        if let Err(trouble) = examine(&caller).await {
            tracing::debug!(
                endpoint = caller.authority,
                %trouble,
                "a connection to etcd is given up"
            );
            driver.abort();
            return;
        }
        heard.now();
    }
}
