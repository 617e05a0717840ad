//! Looks after the files behind TLS: what has changed is read again and used from the next handshake on; what
//! cannot be used leaves what is there, and says why. And tells in time that a certificate ends, and lets the keys of
//! tickets change on listeners that nobody visits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::listener::{ListenerTls, Slot};
use super::{PoolTls, now_s};
use crate::serving::{ListenerServing, protocols};
use crate::{Dataplane, DataplaneEvent};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Days before the end of a certificate that are warned of.
const WARN_DAYS: [i64; 3] = [21, 7, 1];

const DAY_S: i64 = 86_400;

/// Something about certificates that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNews {
    /// What kind.
    pub change: CertificateChange,
    /// About what: `shop/https/shop.pem`.
    pub subject: String,
    /// In words.
    pub message: String,
}

/// Kinds of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateChange {
    /// New files are in use.
    Reloaded,
    /// New files cannot be used; the old ones are, still.
    Refused,
    /// It ends soon, or has ended.
    Expires,
    /// Its OCSP response is out of date.
    Stale,
}

/// Looks after all files until the data plane is gone.
pub async fn watch(dataplane: Arc<Dataplane>) {
    let weak = Arc::downgrade(&dataplane);
    drop(dataplane);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(dataplane) = weak.upgrade() else { return };
        // Files may be slow to read, keys slow to parse.
        let looked = tokio::task::spawn_blocking(move || {
            for news in look(&dataplane) {
                if dataplane
                    .shared
                    .events
                    .try_send(DataplaneEvent::Certificate(news))
                    .is_err()
                {
                    tracing::warn!("event queue full: news of a certificate is in force but not reported");
                }
            }
        });
        if looked.await.is_err() {
            tracing::error!("looking after certificates failed");
        }
    }
}

/// One look at everything.
fn look(dataplane: &Dataplane) -> Vec<CertificateNews> {
    let serving = dataplane.serving();
    let mut news = Vec::new();
    for listener in &serving.listeners {
        if let Some(tls) = &listener.tls {
            look_at_listener(listener, tls, &mut news);
        }
    }
    for lb in serving.load_balancers.values() {
        for pool in &lb.pools {
            if let Some(tls) = &pool.tls {
                let subject = format!("{}/{}", lb.config.name, pool.config.name);
                news.extend(look_at_pool(tls, subject));
            }
        }
    }
    news
}

fn look_at_listener(listener: &ListenerServing, tls: &ListenerTls, news: &mut Vec<CertificateNews>) {
    let place = format!("{}/{}", listener.lb.config.name, listener.config.name);
    let (mut shows, mut serves) = (false, false);
    tls.refresh_tickets();
    let mut state = tls.state();
    for slot in &mut state.certificates {
        let subject = format!("{place}/{}", slot.label);
        let stamp = slot.stamp();
        if slot.files.look(stamp) {
            let replaced = slot.replace();
            shows |= replaced.is_ok();
            slot.error = replaced.as_ref().err().cloned();
            slot.refused += u64::from(replaced.is_err());
            news.push(told(replaced.map(|()| in_use(slot)), subject.clone()));
        }
        news.extend(expiry(slot, subject.clone()));
        if let Some(stale) = staleness(slot, subject) {
            news.push(stale);
            shows = true;
        }
    }
    if let Some(clients) = &mut state.clients {
        let stamp = clients.stamp();
        if clients.files.look(stamp) {
            let replaced = clients.replace();
            serves = replaced.is_ok();
            clients.error = replaced.as_ref().err().cloned();
            clients.refused += u64::from(replaced.is_err());
            let message = replaced.map(|()| "client certificates are verified with new files".to_owned());
            news.push(told(message, format!("{place}/client_certificates")));
        }
    }
    drop(state);
    if shows {
        tls.show();
    }
    if serves {
        tls.end_sessions();
        tls.serve(&protocols(&listener.config));
    }
}

fn look_at_pool(tls: &PoolTls, subject: String) -> Option<CertificateNews> {
    let stamp = tls.stamp();
    if !tls.state().files.look(stamp) {
        return None;
    }
    let replaced = tls.replace();
    let mut state = tls.state();
    state.error = replaced.as_ref().err().cloned();
    state.refused += u64::from(replaced.is_err());
    let message = replaced.map(|()| "TLS to the backends uses new files".to_owned());
    Some(told(message, format!("{subject}/tls")))
}

fn told(replaced: Result<String, String>, subject: String) -> CertificateNews {
    match replaced {
        Ok(message) => CertificateNews {
            change: CertificateChange::Reloaded,
            subject,
            message,
        },
        Err(why) => CertificateNews {
            change: CertificateChange::Refused,
            subject,
            message: format!("{why}; what was in use stays"),
        },
    }
}

fn in_use(slot: &Slot) -> String {
    let Some(loaded) = &slot.loaded else {
        return String::new();
    };
    let days = (loaded.not_after - now_s()) / DAY_S;
    format!("a new certificate is in use, valid for {days} days")
}

/// News when the end of a certificate has come near, or nearer.
fn expiry(slot: &mut Slot, subject: String) -> Option<CertificateNews> {
    let left_s = slot.loaded.as_ref()?.not_after - now_s();
    let stage = match left_s {
        s if s < 0 => Some(0),
        s => WARN_DAYS.iter().rev().copied().find(|days| s < days * DAY_S),
    };
    if stage == slot.warned_days {
        return None;
    }
    slot.warned_days = stage;
    let message = match stage? {
        0 => "it has expired: clients refuse it".to_owned(),
        _ if left_s < 2 * DAY_S => format!("it expires in {} hours", left_s / 3600),
        _ => format!("it expires in {} days", left_s / DAY_S),
    };
    Some(CertificateNews {
        change: CertificateChange::Expires,
        subject,
        message,
    })
}

/// News when the OCSP response has become out of date; it is sent no longer.
fn staleness(slot: &mut Slot, subject: String) -> Option<CertificateNews> {
    let loaded = slot.loaded.as_ref()?;
    let is_stale = loaded.ocsp_until.is_some_and(|end| end < now_s());
    if is_stale && loaded.is_stapled() {
        slot.loaded = Some(Arc::new(loaded.without_ocsp()));
    }
    if std::mem::replace(&mut slot.told_stale, is_stale) || !is_stale {
        return None;
    }
    Some(CertificateNews {
        change: CertificateChange::Stale,
        subject,
        message: "its OCSP response is out of date and not sent any more: clients must ask the authority themselves".to_owned(),
    })
}
