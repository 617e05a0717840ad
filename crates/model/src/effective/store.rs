//! The store, as text.

use super::{Writer, list, quoted};
use crate::config::{EtcdStore, StoreConfig};

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
