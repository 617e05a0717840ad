//! One connection to Redis: opened, greeted, spoken over.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ANSWER_WITHIN;
use super::resp::{self, Reply};
use crate::error::StoreError;
use crate::etcd::EtcdTls;

/// Bytes of replies that may wait to be understood: the largest list of the largest texts, with room.
const MAX_WAITING: usize = 128 * 1024;

/// Where Redis is and as whom to speak to it. `Debug` shows no secret.
#[derive(Clone)]
pub struct RedisSettings {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Speaks TLS, with these certificates.
    pub tls: Option<EtcdTls>,
    /// Whom Redis knows us as; without, its default user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The channel; all who share a store name the same one.
    pub channel: String,
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .field("user", &self.user)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It cannot be reached, or the link broke.
    Lost(String),
    /// It does not want us: trying again soon would not help.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Refused(why) => write!(f, "it refuses us: {why}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What bytes go over, clear or in TLS.
trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A connection that knows who we are.
pub(super) struct Link {
    stream: Pin<Box<dyn Stream>>,
    /// Bytes read and not yet understood.
    waiting: Vec<u8>,
}

impl Link {
    /// Connects and says who we are, within [`ANSWER_WITHIN`].
    pub(super) async fn open(settings: &RedisSettings) -> Result<Self, Trouble> {
        let opened = timeout(ANSWER_WITHIN, Self::connect(settings)).await;
        opened.unwrap_or_else(|_| Err(Trouble::Lost(format!("no connection within {ANSWER_WITHIN:?}"))))
    }

    async fn connect(settings: &RedisSettings) -> Result<Self, Trouble> {
        let stream = TcpStream::connect((settings.host.as_str(), settings.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Pin<Box<dyn Stream>> = match &settings.tls {
            None => Box::pin(stream),
            Some(tls) => {
                let name = ServerName::try_from(settings.host.clone());
                let name = name.map_err(|error| Trouble::Refused(error.to_string()))?;
                let connector = TlsConnector::from(Arc::new(tls.client_config()?));
                Box::pin(connector.connect(name, stream).await?)
            }
        };
        let mut link = Self {
            stream,
            waiting: Vec::new(),
        };
        if let Some(password) = &settings.password {
            match &settings.user {
                Some(user) => {
                    link.send(&[b"AUTH", user.as_bytes(), password.as_bytes()])
                        .await?
                }
                None => link.send(&[b"AUTH", password.as_bytes()]).await?,
            }
            link.answer(ANSWER_WITHIN).await?;
        }
        Ok(link)
    }

    /// Sends a command.
    pub(super) async fn send(&mut self, words: &[&[u8]]) -> Result<(), Trouble> {
        let bytes = resp::command(words);
        let sent = timeout(ANSWER_WITHIN, async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        });
        match sent.await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Trouble::Lost(format!("it took nothing within {ANSWER_WITHIN:?}"))),
        }
    }

    /// The next thing that it says, within a time. An error that it tells is one.
    pub(super) async fn answer(&mut self, within: Duration) -> Result<Reply, Trouble> {
        match timeout(within, self.next()).await {
            Ok(reply) => reply,
            Err(_) => Err(Trouble::Lost(format!("no sign of life within {within:?}"))),
        }
    }

    /// The next thing that it says. To give up waiting loses nothing.
    pub(super) async fn next(&mut self) -> Result<Reply, Trouble> {
        loop {
            match resp::read(&self.waiting) {
                Ok(Some((reply, used))) => {
                    self.waiting.drain(..used.min(self.waiting.len()));
                    return match reply {
                        Reply::Error(why) => Err(refused(why)),
                        reply => Ok(reply),
                    };
                }
                Ok(None) if self.waiting.len() < MAX_WAITING => {}
                _ => return Err(Trouble::Lost("it does not speak as Redis does".to_owned())),
            }
            if self.stream.read_buf(&mut self.waiting).await? == 0 {
                return Err(Trouble::Lost("it closed the connection".to_owned()));
            }
        }
    }
}

/// An error of Redis: some pass by themselves.
fn refused(why: String) -> Trouble {
    let passes = ["LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "BUSY"];
    match passes.iter().any(|word| why.starts_with(word)) {
        true => Trouble::Lost(why),
        false => Trouble::Refused(why),
    }
}
