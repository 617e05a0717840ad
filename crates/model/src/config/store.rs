//! Where load balancers, orders and verdicts are kept beside the config file, and what a node does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process does (`node.roles`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It forwards.
    Lb,
    /// It takes its share of the checks, and may lead those who do.
    Orchestrator,
    /// Its API takes changes of what the store has.
    Console,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lb, Self::Orchestrator, Self::Console];

    /// The name in config and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Orchestrator => "orchestrator",
            Self::Console => "console",
        }
    }

    /// The role of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// The store (`[store]`). Changes need a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreConfig {
    /// A database in the data directory; nothing else is needed. The default.
    #[default]
    Embedded,
    /// etcd, which several nodes share.
    Etcd(EtcdStore),
}

/// etcd as the store of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdStore {
    /// URLs of its members; at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// As whom to speak to it.
    pub user: Option<String>,
    /// File whose first line is the user's password.
    pub password_file: Option<PathBuf>,
    /// File with the authorities (PEM) of `https://` endpoints; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// File with our own certificate (PEM), where etcd asks for one.
    pub cert: Option<PathBuf>,
    /// File with its key (PEM).
    pub key: Option<PathBuf>,
}

/// Hints over Redis that something has changed (`[notify]`). Changes need a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyConfig {
    /// URL of Redis: `redis://HOST:PORT`, or `rediss://HOST:PORT` with TLS.
    pub url: String,
    /// As whom to speak to it; `None`: Redis's default user.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// File with the authorities (PEM) of a `rediss://` URL; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Default of `store.prefix`.
pub const DEFAULT_STORE_PREFIX: &str = "/evenkeel/";
/// Most `store.endpoints`.
pub const MAX_STORE_ENDPOINTS: usize = 32;
