//! TLS in the data plane: listeners that terminate it, pools that speak it to their backends, the files behind
//! both, and what is told about it.
//!
//! A handshake runs on the shard that accepted the connection; certificates, keys of tickets and sessions are
//! shared by all shards. Files are read by whoever changes the config, and by [`watch()`], never by a shard.

mod accept;
mod backend;
mod counters;
mod facts;
mod listener;
mod watch;

pub(crate) use accept::{Accepted, accept};
pub(crate) use backend::PoolTls;
pub(crate) use counters::{TlsCounters, VERSIONS};
pub(crate) use facts::TlsFacts;
pub(crate) use listener::{ListenerTls, ManagedFiles};
pub use watch::{CertificateChange, CertificateNews, watch};

use std::time::{SystemTime, UNIX_EPOCH};

use crate::origin::Origin;
use crate::serving::ListenerServing;

/// Whether a request for this host must not be answered on the TLS connection that it came over. A client that
/// asked for no name was promised none.
pub(crate) fn is_misdirected(serving: &ListenerServing, origin: &Origin, host: &[u8]) -> bool {
    let sni = origin.tls.as_ref().and_then(|facts| facts.sni.as_deref());
    let (Some(tls), Some(sni)) = (&serving.tls, sni) else {
        return false;
    };
    if host.is_empty() || host.eq_ignore_ascii_case(sni.as_bytes()) {
        return false;
    }
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    tls.is_misdirected(sni, &host)
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
