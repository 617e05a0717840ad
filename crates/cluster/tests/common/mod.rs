//! What several of these tests begin with.

use std::future::Future;

use evenkeel_cluster::{Space, Store};
use model::desired::{Change, ChangeQuery};

/// Runs a scenario on a new embedded store.
pub(crate) fn embedded<F: Future<Output = ()>>(scenario: impl FnOnce(Space) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    run(scenario(Space::new(store, "/evenkeel/")));
}

pub(crate) fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

pub(crate) fn query(change: Change) -> ChangeQuery {
    ChangeQuery {
        change,
        dry_run: false,
        expect: None,
        confirm: None,
        message: None,
        by: Some("alice".to_owned()),
    }
}
