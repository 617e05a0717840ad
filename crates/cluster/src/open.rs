//! Opening the store that a config names.

use std::path::{Path, PathBuf};

use model::config::{DEFAULT_STORE_PREFIX, EtcdStore, StoreConfig};
use store::{EtcdSettings, EtcdTls, Store, StoreError};

use crate::Space;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file that `[store]` names cannot be read.
    #[error("store.{key}: cannot read {}: {cause}", .path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The first line of the password file is empty.
    #[error("store.password_file: {} holds no password on its first line", .0.display())]
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

fn settings(config: &EtcdStore) -> Result<EtcdSettings, OpenError> {
    let mut settings = EtcdSettings::new(config.endpoints.clone());
    if let Some((user, path)) = config.user.as_ref().zip(config.password_file.as_ref()) {
        let text = read("password_file", path)?;
        let text = String::from_utf8_lossy(&text);
        let password = text.lines().next().unwrap_or_default().trim();
        if password.is_empty() {
            return Err(OpenError::NoPassword(path.clone()));
        }
        settings.user = Some((user.clone(), password.to_owned()));
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

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|cause| OpenError::File {
        key,
        path: path.to_owned(),
        cause,
    })
}
