//! Stores.

use std::path::PathBuf;

use evenkeel_model::config::{EtcdStore, NotifyConfig, StoreConfig};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn file() -> impl Strategy<Value = PathBuf> {
    "/[^\\pC]{0,20}".prop_map(PathBuf::from)
}

pub(crate) fn store() -> impl Strategy<Value = StoreConfig> {
    let etcd = (
        vec(
            "https?://(10\\.0\\.0\\.[1-9]|etcd|\\[::1\\]):[1-9][0-9]{0,3}",
            1..4,
        ),
        "/([a-z0-9._-]{1,8}/){0,2}",
        option::of(("[^\\pC]{1,20}", file())),
        option::of(file()),
        option::of((file(), file())),
    )
        .prop_map(|(endpoints, prefix, login, ca, identity)| {
            let (user, password_file) = login.unzip();
            let (cert, key) = identity.unzip();
            StoreConfig::Etcd(EtcdStore {
                endpoints,
                prefix,
                user,
                password_file,
                ca,
                cert,
                key,
            })
        });
    prop_oneof![Just(StoreConfig::Embedded), etcd]
}

/// Hints, where there is somebody to tell: as many kinds of them as there are of etcd's users.
pub(crate) fn notify(store: &StoreConfig) -> Option<NotifyConfig> {
    let StoreConfig::Etcd(etcd) = store else {
        return None;
    };
    Some(NotifyConfig {
        url: "rediss://[::1]:6379".to_owned(),
        user: etcd.user.clone(),
        password_file: etcd.password_file.clone(),
        ca: etcd.ca.clone(),
    })
}
