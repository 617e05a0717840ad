//! The store, as text.

use super::{Writer, list, quoted};
use crate::config::{EtcdStore, NotifyConfig, StoreConfig};

pub(super) fn write(w: &mut Writer, store: &StoreConfig) {
    w.header("[store]");
    let StoreConfig::Etcd(etcd) = store else {
        w.text("kind", "embedded");
        return;
    };
    let EtcdStore {
        endpoints,
        prefix,
        user,
        password_file,
        ca,
        cert,
        key,
    } = etcd;
    w.text("kind", "etcd");
    w.raw("endpoints", list(endpoints.iter().map(|url| quoted(url))));
    w.text("prefix", prefix);
    w.optional("user", user.as_deref(), "none");
    for (name, file, otherwise) in [
        ("password_file", password_file, "none"),
        ("ca", ca, "the system's authorities"),
        ("cert", cert, "none"),
        ("key", key, "none"),
    ] {
        let file = file.as_ref().map(|path| path.display().to_string());
        w.optional(name, file.as_deref(), otherwise);
    }
}

pub(super) fn write_notify(w: &mut Writer, notify: Option<&NotifyConfig>) {
    let Some(NotifyConfig {
        url,
        user,
        password_file,
        ca,
    }) = notify
    else {
        w.comment("notify: none");
        return;
    };
    w.header("[notify]");
    w.text("url", url);
    w.optional("user", user.as_deref(), "Redis's default user");
    for (name, file, otherwise) in [
        ("password_file", password_file, "none"),
        ("ca", ca, "the system's authorities"),
    ] {
        let file = file.as_ref().map(|path| path.display().to_string());
        w.optional(name, file.as_deref(), otherwise);
    }
}
