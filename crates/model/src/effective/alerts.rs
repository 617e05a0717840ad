//! Alerts, written out.

use super::{Writer, inline_table, quoted};
use crate::config::{Alerts, Receiver, ReceiverKind, ReceiverUrl};

pub(super) fn write(w: &mut Writer, alerts: &Alerts) {
    let Alerts {
        receivers,
        labels,
        backend_down_for,
        pool_unhealthy_for,
        healthy_share,
        certificate_expires_within,
        group_wait,
        group_interval,
        repeat_interval,
        timeout,
    } = alerts;
    w.header("[alerts]");
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name} = {}", quoted(value)));
    w.raw("labels", inline_table(labels));
    w.duration("backend_down_for", *backend_down_for);
    w.duration("pool_unhealthy_for", *pool_unhealthy_for);
    w.percent("healthy_share", healthy_share);
    w.duration("certificate_expires_within", *certificate_expires_within);
    w.duration("group_wait", *group_wait);
    w.duration("group_interval", *group_interval);
    w.duration("repeat_interval", *repeat_interval);
    w.duration("timeout", *timeout);
    for receiver in receivers {
        write_receiver(w, receiver);
    }
}

fn write_receiver(w: &mut Writer, receiver: &Receiver) {
    let Receiver {
        name,
        kind,
        url,
        token_file,
        secret_file,
        ca,
    } = receiver;
    w.header(match kind {
        ReceiverKind::Webhook => "[[alerts.webhooks]]",
        ReceiverKind::Alertmanager => "[[alerts.alertmanagers]]",
    });
    w.text("name", name.as_str());
    match url {
        ReceiverUrl::Url(url) => w.text("url", url),
        ReceiverUrl::File(path) => w.text("url_file", &path.display().to_string()),
    }
    let shown = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    w.optional("token_file", shown(token_file).as_deref(), "none");
    if *kind == ReceiverKind::Webhook {
        w.optional(
            "secret_file",
            shown(secret_file).as_deref(),
            "messages are not signed",
        );
    }
    w.optional("ca", shown(ca).as_deref(), "the system's authorities");
}
