//! Metrics of TLS, for listeners and pools that have it.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use tls::FailureKind;

use super::{
    BACKEND_TLS, BACKEND_TLS_DURATION, BACKEND_TLS_FAILURES, CERTIFICATE_EXPIRY, CERTIFICATE_REFUSED,
    Description, HANDSHAKE_DURATION, HANDSHAKE_FAILURES, HANDSHAKES, Labels, OCSP_EXPIRY, Row, counter,
    family, gauge, histogram,
};
use crate::counters::HistogramTotal;
use crate::serving::Serving;
use crate::tls::{TlsCounters, VERSIONS};

/// Whose handshakes, and one block of counters for each shard.
type Side<'a> = (Labels<'a>, Vec<&'a TlsCounters>);

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    serving: &Serving,
    rows: &[Row<'_>],
) -> fmt::Result {
    let listeners = serving.listeners.iter().filter(|l| l.tls.is_some()).map(|l| {
        let labels = vec![
            ("load_balancer", l.lb.cell.name.as_str()),
            ("listener", l.config.name.as_str()),
        ];
        (labels, l.cell.tls.all().collect())
    });
    let listeners: Vec<Side<'_>> = listeners.collect();
    handshakes(encoder, HANDSHAKES, &listeners)?;
    failures(encoder, HANDSHAKE_FAILURES, &listeners)?;
    durations(encoder, HANDSHAKE_DURATION, &listeners)?;
    certificates(encoder, serving)?;
    let backends = rows.iter().filter(|row| row.pool.tls.is_some());
    let backends = backends.map(|row| (row.labels.clone(), row.counters().map(|c| &c.tls).collect()));
    let backends: Vec<Side<'_>> = backends.collect();
    handshakes(encoder, BACKEND_TLS, &backends)?;
    failures(encoder, BACKEND_TLS_FAILURES, &backends)?;
    durations(encoder, BACKEND_TLS_DURATION, &backends)
}

fn handshakes(encoder: &mut DescriptorEncoder<'_>, metric: Description, sides: &[Side<'_>]) -> fmt::Result {
    let mut metric = family(encoder, metric)?;
    for (labels, counters) in sides {
        for (version, name) in VERSIONS.iter().enumerate() {
            for (resumed, word) in ["false", "true"].into_iter().enumerate() {
                let parts = counters
                    .iter()
                    .filter_map(|c| c.completed.get(version)?.get(resumed));
                let mut labels = labels.clone();
                labels.extend([("version", *name), ("resumed", word)]);
                counter(&mut metric, &labels, parts.map(|c| c.get()).sum())?;
            }
        }
    }
    Ok(())
}

fn failures(encoder: &mut DescriptorEncoder<'_>, metric: Description, sides: &[Side<'_>]) -> fmt::Result {
    let mut metric = family(encoder, metric)?;
    for (labels, counters) in sides {
        for (index, kind) in FailureKind::ALL.into_iter().enumerate() {
            let parts = counters.iter().filter_map(|c| c.failures.get(index));
            let mut labels = labels.clone();
            labels.push(("reason", kind.as_str()));
            counter(&mut metric, &labels, parts.map(|c| c.get()).sum())?;
        }
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, metric: Description, sides: &[Side<'_>]) -> fmt::Result {
    let mut metric = family(encoder, metric)?;
    for (labels, counters) in sides {
        let mut total = HistogramTotal::default();
        counters.iter().for_each(|c| total.add(&c.duration));
        histogram(&mut metric, labels, &total)?;
    }
    Ok(())
}

fn certificates(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let mut rows = Vec::new();
    for listener in &serving.listeners {
        let Some(tls) = &listener.tls else { continue };
        for slot in &tls.state().certificates {
            let of = (listener.lb.cell.name.as_str(), listener.config.name.as_str());
            let end = slot.loaded.as_ref().map(|loaded| loaded.not_after);
            let stale = slot.loaded.as_ref().and_then(|loaded| loaded.ocsp_until);
            rows.push((of, slot.label.clone(), [end, stale], slot.refused));
        }
    }
    let labels = |(lb, listener), certificate| {
        vec![
            ("load_balancer", lb),
            ("listener", listener),
            ("certificate", certificate),
        ]
    };
    for (which, description) in [CERTIFICATE_EXPIRY, OCSP_EXPIRY].into_iter().enumerate() {
        let mut metric = family(encoder, description)?;
        for (of, certificate, ends, _) in &rows {
            if let Some(end) = ends.get(which).copied().flatten() {
                gauge(&mut metric, &labels(*of, certificate.as_str()), end)?;
            }
        }
    }
    let mut metric = family(encoder, CERTIFICATE_REFUSED)?;
    for (of, certificate, _, refused) in &rows {
        counter(&mut metric, &labels(*of, certificate.as_str()), *refused)?;
    }
    Ok(())
}
