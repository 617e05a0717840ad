//! The two engines.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use evenkeel_store::{EtcdSettings, Store, StoreError};
use peers::Etcd;
pub(crate) use peers::PATIENCE;
use tempfile::TempDir;

/// Makes a test for each engine out of each scenario.
macro_rules! both_engines {
    ($($scenario:ident),* $(,)?) => {
        mod with_embedded {
            $(#[test]
            fn $scenario() {
                crate::engines::embedded(super::$scenario);
            })*
        }
        mod with_etcd {
            $(#[test]
            fn $scenario() {
                crate::engines::etcd(super::$scenario);
            })*
        }
    };
}

/// Runs a scenario on a new embedded store.
pub(crate) fn embedded<F: Future<Output = ()>>(scenario: impl FnOnce(Store) -> F) {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    run(scenario(store));
}

/// Runs a scenario on a new etcd of one member.
pub(crate) fn etcd<F: Future<Output = ()>>(scenario: impl FnOnce(Store) -> F) {
    run(async {
        let cluster = Cluster::start(1).await;
        scenario(cluster.store()).await;
    });
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a call works that may fail while a store comes back.
pub(crate) async fn until_works<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    until(what, async || call().await.ok()).await
}

/// A cluster of etcd; what it can do besides, [`Etcd`] says.
pub(crate) struct Cluster(Etcd);

impl Cluster {
    /// Starts `count` members that form a cluster, and waits until it works.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// With further arguments for each member.
    pub(crate) async fn start_with(count: usize, arguments: &[String]) -> Self {
        Self(tokio::task::block_in_place(|| Etcd::start_with(count, arguments)))
    }

    pub(crate) fn settings(&self) -> EtcdSettings {
        EtcdSettings::new(self.endpoints())
    }

    /// A handle that knows all members.
    pub(crate) fn store(&self) -> Store {
        Store::etcd(self.settings()).unwrap()
    }
}

impl Deref for Cluster {
    type Target = Etcd;
    fn deref(&self) -> &Etcd {
        &self.0
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Etcd {
        &mut self.0
    }
}
