//! Alerts as declared (`[alerts]`): what is worth one, and who is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Name;

/// What is worth an alert, and who is told (`[alerts]`). Hot: all of it follows a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// Who is told, webhooks first; empty: alerts are shown and sent to nobody. At most [`MAX_RECEIVERS`], names
    /// are unique.
    pub receivers: Vec<Receiver>,
    /// Labels that each alert gets besides its own, by name.
    pub labels: BTreeMap<String, String>,
    /// How long the checks must have found a backend down.
    pub backend_down_for: Duration,
    /// How long too few backends of a pool must have been healthy, or none eligible.
    pub pool_unhealthy_for: Duration,
    /// Share of a pool's backends that must be healthy, in percent; 0: any is enough.
    pub healthy_share: u8,
    /// How long before its end a certificate is worth an alert.
    pub certificate_expires_within: Duration,
    /// From the first alert of a group to the first message about the group.
    pub group_wait: Duration,
    /// From one message about a group to the next, when something has changed in it.
    pub group_interval: Duration,
    /// From one message about a group to the next, when nothing has.
    pub repeat_interval: Duration,
    /// Time that one delivery may take.
    pub timeout: Duration,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            receivers: Vec::new(),
            labels: BTreeMap::new(),
            backend_down_for: Duration::from_secs(30),
            pool_unhealthy_for: Duration::from_secs(10),
            healthy_share: 50,
            certificate_expires_within: Duration::from_secs(14 * 24 * 3600),
            group_wait: Duration::from_secs(10),
            group_interval: Duration::from_secs(5 * 60),
            repeat_interval: Duration::from_secs(4 * 3600),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Most receivers of alerts: each may have one delivery under way.
pub const MAX_RECEIVERS: usize = 16;

/// Most labels that are added to alerts.
pub const MAX_ALERT_LABELS: usize = 16;

/// Characters of such a label's value.
pub const MAX_LABEL_CHARS: usize = 128;

/// Somebody who is told of alerts (`[[alerts.webhooks]]`, `[[alerts.alertmanagers]]`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receiver {
    /// Its name in metrics, `status` and the log.
    pub name: Name,
    /// What it understands.
    pub kind: ReceiverKind,
    /// Where it is.
    pub url: ReceiverUrl,
    /// File with a bearer token for it; read before each delivery.
    pub token_file: Option<PathBuf>,
    /// File with the secret that messages are signed with (webhooks); read before each delivery.
    pub secret_file: Option<PathBuf>,
    /// File with the authorities (PEM) that may have issued its certificate; `None`: whoever the system trusts.
    pub ca: Option<PathBuf>,
}

/// What a receiver of alerts understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReceiverKind {
    /// Our own JSON, as `docs/alerts.md` has it.
    Webhook,
    /// Version 2 of the API of Prometheus Alertmanager.
    Alertmanager,
}

impl ReceiverKind {
    /// The name in API and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
        }
    }
}

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReceiverUrl {
    /// Here: `http` or `https`, without user and query.
    Url(String),
    /// At the URL in this file, which may be a secret as a whole; read before each delivery.
    File(PathBuf),
}
