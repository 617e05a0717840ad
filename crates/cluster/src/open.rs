//! Opening the store that a config names.

use std::path::{Path, PathBuf};

use model::config::{DEFAULT_STORE_PREFIX, EtcdStore, NotifyConfig, StoreConfig};
use store::notify::{Notifier, RedisSettings};
use store::{EtcdSettings, EtcdTls, Store, StoreError};

use tokio::sync::mpsc;

use crate::Space;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file that `[store]` names cannot be read.
    #[error("{key}: cannot read {}: {cause}", .path.display())]
    File {
        /// The key of `[store]` or `[notify]` that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The first line of the password file is empty.
    #[error("password_file: {} holds no password on its first line", .0.display())]
    NoPassword(PathBuf),
    /// The store says no.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
}

/// Opens the store: the embedded one in `folder`, or etcd, which is connected to later. Blocks while files are read.
/// Call it within a tokio runtime.
///
/// # Errors
/// [`OpenError`]. That etcd cannot be reached is none.
pub fn open(config: &StoreConfig, folder: &Path) -> Result<Space, OpenError> {
    match config {
        StoreConfig::Embedded => Ok(Space::new(Store::embedded(folder)?, DEFAULT_STORE_PREFIX)),
        StoreConfig::Etcd(etcd) => Ok(Space::new(Store::etcd(settings(etcd)?)?, &etcd.prefix)),
    }
}

/// Begins to tell and to hear hints; the space that comes back tells, the channel hears. Call it within a tokio runtime.
///
/// # Errors
/// [`OpenError::File`] and [`OpenError::NoPassword`]. That Redis cannot be reached is none.
pub fn notifying(space: Space, config: &NotifyConfig) -> Result<(Space, mpsc::Receiver<()>), OpenError> {
    let (tls, authority) = match config.url.strip_prefix("rediss://") {
        Some(authority) => (true, authority),
        None => (false, config.url.trim_start_matches("redis://")),
    };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let authorities = config.ca.as_ref().map(|path| read("ca", path)).transpose()?;
    let password = config
        .password_file
        .as_ref()
        .map(|path| password(path))
        .transpose()?;
    let (notifier, hints) = Notifier::start(RedisSettings {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().unwrap_or(DEFAULT_REDIS_PORT),
        tls: tls.then_some(EtcdTls {
            authorities,
            identity: None,
        }),
        user: config.user.clone(),
        password,
        channel: space.key("hints"),
    });
    Ok((space.telling(notifier), hints))
}

/// Where Redis listens unless told otherwise.
const DEFAULT_REDIS_PORT: u16 = 6379;

fn settings(config: &EtcdStore) -> Result<EtcdSettings, OpenError> {
    let mut settings = EtcdSettings::new(config.endpoints.clone());
    if let Some((user, path)) = config.user.as_ref().zip(config.password_file.as_ref()) {
        settings.user = Some((user.clone(), password(path)?));
    }
    settings.tls = EtcdTls {
        authorities: config.ca.as_ref().map(|path| read("ca", path)).transpose()?,
        identity: match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some((read("cert", cert)?, read("key", key)?)),
            _ => None,
        },
    };
    Ok(settings)
}

/// The first line of a file.
fn password(path: &Path) -> Result<String, OpenError> {
    let text = read("password_file", path)?;
    let text = String::from_utf8_lossy(&text);
    match text.lines().next().unwrap_or_default().trim() {
        "" => Err(OpenError::NoPassword(path.to_owned())),
        password => Ok(password.to_owned()),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|cause| OpenError::File {
        key,
        path: path.to_owned(),
        cause,
    })
}
