//! The data plane's metrics, read from the per-shard counters when somebody asks.
//!
//! Labels come from config names alone, so that no client can make a series.

mod overload;
mod rows;
mod tls;
mod traffic;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::h2::Abuse;
use model::reason::Reason;
use model::scrape::Scope;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::counters::{
    BOUNDS_US, BUFFERED, BackendCounters, CLASSES, Counter, Histogram, HistogramTotal, Http2Counters,
    LoadBalancerCounters, PoolCounters, REFUSED as REFUSED_STREAMS, RESET_CAUSES,
};
use crate::mirror::OUTCOMES;
use crate::serving::{LbServing, ListenerCell, PoolServing, Serving};
use crate::{Dataplane, observe};
use rows::Row;

/// A metric's description.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Full name, as scraped.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Labels, all from config names but the fixed sets `class` and `reason`.
    pub labels: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:literal $labels:literal $help:literal;)*) => {
        $(const $constant: Description =
            Description { name: $name, kind: $kind, labels: $labels, help: $help };)*

        /// Every metric of the data plane.
        pub const METRICS: &[Description] = &[$($constant,)*];
    };
}

metrics! {
    REQUESTS "evenkeel_requests_total" "counter" "load_balancer, class" "Requests answered, by class of the status sent to the client; class none: no response could be sent";
    ROUTE_REQUESTS "evenkeel_route_requests_total" "counter" "load_balancer, route, class" "Requests that the route took, by class of the status sent to the client; those that no route took are in evenkeel_requests_total alone";
    FAILURES "evenkeel_request_failures_total" "counter" "load_balancer, reason" "Requests refused or failed, by reason code (docs/reasons.md)";
    DURATION "evenkeel_request_duration_seconds" "histogram" "load_balancer" "Time from a request's head to the end of its response";
    RECEIVED "evenkeel_received_bytes_total" "counter" "load_balancer" "Bytes of requests received with their heads";
    SENT "evenkeel_sent_bytes_total" "counter" "load_balancer" "Bytes of responses sent to clients";
    COMPRESSED "evenkeel_compressed_responses_total" "counter" "load_balancer" "Responses compressed";
    COMPRESSION_IN "evenkeel_compression_input_bytes_total" "counter" "load_balancer" "Bytes of bodies compressed, before";
    COMPRESSION_OUT "evenkeel_compression_output_bytes_total" "counter" "load_balancer" "Bytes of bodies compressed, after";
    MIRRORED "evenkeel_mirrored_requests_total" "counter" "load_balancer, outcome" "Requests copied to another pool: answered or failed; or not copied: busy (mirror.max_in_flight, or its backends full), too_large (mirror.max_body)";
    BUFFERED_BODIES "evenkeel_buffered_bodies_total" "counter" "load_balancer, outcome" "Request bodies taken whole first: in memory, in part on disk, spilled to disk because buffer_requests.memory_total was reached; refused: over memory and disk; full: over memory_total or disk_total; failed: they did not come";
    BUFFERED_BYTES "evenkeel_buffered_bytes" "gauge" "load_balancer, route, place" "Bytes of request bodies taken whole that the route keeps now: memory (buffer_requests.memory_total), disk (buffer_requests.disk_total)";
    TUNNELS "evenkeel_tunnels" "gauge" "load_balancer" "Tunnels (WebSocket and others) now";
    TUNNELS_OPENED "evenkeel_tunnels_opened_total" "counter" "load_balancer" "Connections that switched to another protocol";
    CONNECTIONS "evenkeel_listener_connections" "gauge" "load_balancer, listener" "Client connections now";
    ACCEPTED "evenkeel_listener_accepted_total" "counter" "load_balancer, listener" "Client connections accepted";
    REFUSED "evenkeel_listener_refused_total" "counter" "load_balancer, listener" "Client connections closed at once because a connection limit was reached";
    LOG_LINES "evenkeel_access_log_lines_total" "counter" "" "Lines of the access log written";
    LOG_DROPPED "evenkeel_access_log_dropped_total" "counter" "" "Lines of the access log dropped: the queue was full, or they could not be written";
    LOG_ERRORS "evenkeel_access_log_errors_total" "counter" "" "Failures to open or write the access log";
    SPANS "evenkeel_trace_spans_exported_total" "counter" "" "Spans taken by the collector";
    SPANS_DROPPED "evenkeel_trace_spans_dropped_total" "counter" "" "Spans dropped: the queue was full, or the collector did not take them";
    SPAN_ERRORS "evenkeel_trace_export_errors_total" "counter" "" "Failed attempts to send spans to the collector";
    OVERWRITTEN "evenkeel_recorder_overwritten_total" "counter" "" "Remembered requests that newer ones took the place of (recorder.failures, recorder.successes)";
    HTTP2_CONNECTIONS "evenkeel_http2_connections_total" "counter" "load_balancer, listener" "Client connections that spoke HTTP/2";
    HTTP2_STREAMS "evenkeel_http2_streams_total" "counter" "load_balancer, listener" "Streams that clients opened and the protocol library let through";
    HTTP2_RESETS "evenkeel_http2_resets_total" "counter" "load_balancer, listener, cause" "Streams that ended with an error, by cause: client, malformed, backend, stalled";
    HTTP2_REFUSED "evenkeel_http2_refused_total" "counter" "load_balancer, listener, limit" "Streams refused, by limit: concurrent, memory";
    HTTP2_ABUSE "evenkeel_http2_abuse_total" "counter" "load_balancer, listener, limit" "Connections ended because the client passed a limit (docs/http2.md)";
    GEOIP_LOADED "evenkeel_geoip_loaded_total" "counter" "" "Databases of countries read";
    GEOIP_FAILED "evenkeel_geoip_failed_total" "counter" "" "Databases of countries that could not be used; the one before stayed in force";
    GEOIP_BUILT "evenkeel_geoip_built_timestamp_seconds" "gauge" "" "When the database of countries in force was built; 0 without one";
    ACCEPT_ERRORS "evenkeel_accept_errors_total" "counter" "" "Failed accepts: out of file descriptors or memory";
    HANDSHAKES "evenkeel_tls_handshakes_total" "counter" "load_balancer, listener, version, resumed" "TLS handshakes with clients";
    HANDSHAKE_FAILURES "evenkeel_tls_handshake_failures_total" "counter" "load_balancer, listener, reason" "TLS handshakes with clients that failed, by what went wrong";
    HANDSHAKE_DURATION "evenkeel_tls_handshake_seconds" "histogram" "load_balancer, listener" "Time from accepting a connection to the end of its TLS handshake";
    CERTIFICATE_EXPIRY "evenkeel_certificate_expiry_timestamp_seconds" "gauge" "load_balancer, listener, certificate" "When the certificate in use ends, in seconds since 1970";
    OCSP_EXPIRY "evenkeel_certificate_ocsp_expiry_timestamp_seconds" "gauge" "load_balancer, listener, certificate" "When the certificate's OCSP response is out of date and left out, in seconds since 1970";
    CERTIFICATE_REFUSED "evenkeel_certificate_refused_total" "counter" "load_balancer, listener, certificate" "Changed files that could not be used; the certificate before stayed";
    BACKEND_TLS "evenkeel_backend_tls_handshakes_total" "counter" "load_balancer, pool, backend, version, resumed" "TLS handshakes with the backend";
    BACKEND_TLS_FAILURES "evenkeel_backend_tls_failures_total" "counter" "load_balancer, pool, backend, reason" "TLS handshakes with the backend that failed, by what went wrong";
    BACKEND_TLS_DURATION "evenkeel_backend_tls_seconds" "histogram" "load_balancer, pool, backend" "Time of the TLS handshake with the backend";
    RETRIES "evenkeel_pool_retries_total" "counter" "load_balancer, pool, cause" "Attempts beyond the first, by what the one before met; stale: a kept connection was closed already";
    BODY_GONE "evenkeel_pool_retries_body_gone_total" "counter" "load_balancer, pool" "Retries not made because the request's body was over replay_bytes";
    OVER_BUDGET "evenkeel_pool_retries_over_budget_total" "counter" "load_balancer, pool" "Retries not made because the budget was spent";
    BUDGET "evenkeel_pool_retry_budget" "gauge" "load_balancer, pool" "Retries the budget allows now";
    QUEUE_DEPTH "evenkeel_pool_queue_depth" "gauge" "load_balancer, pool" "Requests that wait because every backend is full";
    QUEUE_WAIT "evenkeel_pool_queue_wait_seconds" "histogram" "load_balancer, pool" "Time that requests waited in the queue which then got to a backend";
    QUEUE_SHED "evenkeel_pool_queue_shed_total" "counter" "load_balancer, pool, why" "Requests that left the queue for no backend: full, timeout, overload, deadline (refused), departed (their clients left)";
    CIRCUIT "evenkeel_pool_circuit_state" "gauge" "load_balancer, pool" "Circuit breaker: 0 closed, 1 half open, 2 open";
    CIRCUIT_OPENED "evenkeel_pool_circuit_opened_total" "counter" "load_balancer, pool" "Times that the circuit breaker opened";
    MAX_IN_FLIGHT "evenkeel_backend_max_in_flight" "gauge" "load_balancer, pool, backend" "Requests that may be in flight now (max_requests, max_connections, slow start); absent without a cap";
    SESSION_REQUESTS "evenkeel_pool_session_requests_total" "counter" "load_balancer, pool, outcome" "Requests answered by a sticky pool: kept: by the backend of their session; new: they had none; moved: its backend did not take them; rejected: their cookie was forged, foreign or expired";
    SESSIONS_DISPLACED "evenkeel_pool_sessions_displaced_total" "counter" "load_balancer, pool" "Learned sessions forgotten before their time because the table was full (sticky.max_sessions)";
    LIMIT_REQUESTS "evenkeel_rate_limit_requests_total" "counter" "load_balancer, route, limit, outcome" "Requests that a rate limit passed or refused";
    LIMIT_DISPLACED "evenkeel_rate_limit_displaced_total" "counter" "load_balancer, route, limit" "Keys whose bucket was given up before it was full because the table was full (rate_limit.max_keys)";
    BACKEND_REQUESTS "evenkeel_backend_requests_total" "counter" "load_balancer, pool, backend, class" "Responses of the backend, by class of their status";
    BACKEND_FAILURES "evenkeel_backend_failures_total" "counter" "load_balancer, pool, backend" "Attempts that got no response, or one of class 5xx";
    IN_FLIGHT "evenkeel_backend_in_flight" "gauge" "load_balancer, pool, backend" "Requests in flight over all shards";
    BACKEND_CONNECTIONS "evenkeel_backend_connections" "gauge" "load_balancer, pool, backend" "Connections now, busy and idle, over all shards";
    OPENED "evenkeel_backend_connections_opened_total" "counter" "load_balancer, pool, backend" "Connections opened";
    REUSED "evenkeel_backend_connections_reused_total" "counter" "load_balancer, pool, backend" "Requests sent on a kept connection";
    IDLE "evenkeel_backend_connections_idle" "gauge" "load_balancer, pool, backend" "Idle connections kept";
    CONNECT "evenkeel_backend_connect_seconds" "histogram" "load_balancer, pool, backend" "Time to open a connection";
    FIRST_BYTE "evenkeel_backend_first_byte_seconds" "histogram" "load_balancer, pool, backend" "Time from a request sent to the head of its response";
    BACKEND_DURATION "evenkeel_backend_request_seconds" "histogram" "load_balancer, pool, backend" "Time from a request's head to the end of the response, by the backend that answered";
}

/// The collector.
#[derive(Debug)]
pub(crate) struct Metrics {
    dataplane: Arc<Dataplane>,
    scope: Scope,
}

impl Metrics {
    pub(crate) fn new(dataplane: Arc<Dataplane>, scope: Scope) -> Self {
        Self { dataplane, scope }
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One of the counters of a block.
type Part<Block, Value> = fn(&Block) -> &Value;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let serving = self.dataplane.serving();
        let serving = match &self.scope.load_balancer {
            Some(name) => Arc::new(serving.part(name)),
            None => serving,
        };
        load_balancers(&mut encoder, &serving)?;
        listeners(&mut encoder, &serving)?;
        let errors = self.dataplane.shared.accept_errors.total();
        family(&mut encoder, ACCEPT_ERRORS)?.encode_counter::<NoLabelSet, _, f64>(&errors, None)?;
        let observe::Counters {
            log,
            spans,
            overwritten,
        } = &self.dataplane.shared.told;
        for (metric, value) in [
            (LOG_LINES, &log.written),
            (LOG_DROPPED, &log.dropped),
            (LOG_ERRORS, &log.errors),
            (SPANS, &spans.exported),
            (SPANS_DROPPED, &spans.dropped),
            (SPAN_ERRORS, &spans.errors),
            (OVERWRITTEN, overwritten),
            (GEOIP_LOADED, &self.dataplane.shared.geo.loaded),
            (GEOIP_FAILED, &self.dataplane.shared.geo.failed),
        ] {
            family(&mut encoder, metric)?.encode_counter::<NoLabelSet, _, f64>(&value.load(Relaxed), None)?;
        }
        let built = i64::try_from(self.dataplane.shared.geo.built().unwrap_or(0)).unwrap_or(i64::MAX);
        family(&mut encoder, GEOIP_BUILT)?.encode_gauge(&built)?;
        let now_us = u64::try_from(self.dataplane.shared.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        pools(&mut encoder, &serving, now_us)?;
        traffic::encode(&mut encoder, &serving)?;
        let rows = rows::of(&serving, &self.scope);
        backends(&mut encoder, &rows)?;
        tls::encode(&mut encoder, &serving, &rows)
    }
}

/// Opens a metric family. The encoder adds `_total` to the names of counters itself.
fn family<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    metric: Description,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    let (name, kind) = match metric.kind {
        "counter" => (metric.name.trim_end_matches("_total"), MetricType::Counter),
        "gauge" => (metric.name, MetricType::Gauge),
        _ => (metric.name, MetricType::Histogram),
    };
    encoder.encode_descriptor(name, metric.help, None, kind)
}

fn counter(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: i64) -> fmt::Result {
    metric.encode_family(labels)?.encode_gauge(&value)
}

fn histogram(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, total: &HistogramTotal) -> fmt::Result {
    let seconds = |us: u64| us as f64 / 1e6;
    let bounds = BOUNDS_US.iter().map(|b| seconds(*b)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(total.buckets).collect();
    let count = total.buckets.iter().sum();
    metric
        .encode_family(labels)?
        .encode_histogram::<NoLabelSet>(seconds(total.sum_us), count, &buckets, None)
}

fn load_balancers(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let all = || serving.load_balancers.values();
    let sum = |lb: &LbServing, part: Part<LoadBalancerCounters, Counter>| {
        lb.cell.counters.all().map(|c| part(c).get()).sum::<u64>()
    };
    let mut metric = family(encoder, REQUESTS)?;
    for lb in all() {
        for (index, class) in CLASSES.iter().enumerate() {
            let value = lb
                .cell
                .counters
                .all()
                .filter_map(|c| c.classes.get(index))
                .map(Counter::get)
                .sum();
            counter(
                &mut metric,
                &vec![("load_balancer", lb.cell.name.as_str()), ("class", class)],
                value,
            )?;
        }
    }
    let mut metric = family(encoder, FAILURES)?;
    for lb in all() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let value = lb
                .cell
                .counters
                .all()
                .filter_map(|c| c.reasons.get(index))
                .map(Counter::get)
                .sum();
            let labels = vec![
                ("load_balancer", lb.cell.name.as_str()),
                ("reason", reason.code()),
            ];
            counter(&mut metric, &labels, value)?;
        }
    }
    let mut metric = family(encoder, DURATION)?;
    for lb in all() {
        let mut total = HistogramTotal::default();
        lb.cell.counters.all().for_each(|c| total.add(&c.total));
        histogram(
            &mut metric,
            &vec![("load_balancer", lb.cell.name.as_str())],
            &total,
        )?;
    }
    let mut metric = family(encoder, RECEIVED)?;
    for lb in all() {
        let value = sum(lb, |c| &c.received_bytes);
        counter(
            &mut metric,
            &vec![("load_balancer", lb.cell.name.as_str())],
            value,
        )?;
    }
    let mut metric = family(encoder, SENT)?;
    for lb in all() {
        let value = sum(lb, |c| &c.sent_bytes);
        counter(
            &mut metric,
            &vec![("load_balancer", lb.cell.name.as_str())],
            value,
        )?;
    }
    tunnels(encoder, serving)?;
    actions(encoder, serving)
}

/// What routes do besides choosing a pool.
fn actions(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    compression(encoder, serving)?;
    by_outcome(encoder, serving, MIRRORED, &OUTCOMES, |block| &block.mirrored)?;
    by_outcome(encoder, serving, BUFFERED_BODIES, &BUFFERED, |block| {
        &block.buffered
    })?;
    traffic::buffered(encoder, serving)
}

fn by_outcome(
    encoder: &mut DescriptorEncoder<'_>,
    serving: &Serving,
    description: Description,
    outcomes: &[&'static str],
    part: Part<LoadBalancerCounters, [Counter]>,
) -> fmt::Result {
    let mut metric = family(encoder, description)?;
    for lb in serving.load_balancers.values() {
        for (i, outcome) in outcomes.iter().enumerate() {
            let blocks = lb.cell.counters.all();
            let parts = blocks.filter_map(|block| part(block).get(i).map(Counter::get));
            let labels = vec![("load_balancer", lb.cell.name.as_str()), ("outcome", *outcome)];
            counter(&mut metric, &labels, parts.sum())?;
        }
    }
    Ok(())
}

fn compression(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let metrics = [COMPRESSED, COMPRESSION_IN, COMPRESSION_OUT];
    for (index, description) in metrics.into_iter().enumerate() {
        let mut metric = family(encoder, description)?;
        for lb in serving.load_balancers.values() {
            let blocks = lb.cell.counters.all();
            let parts = blocks.filter_map(|block| block.compressed.get(index).map(Counter::get));
            let labels = vec![("load_balancer", lb.cell.name.as_str())];
            counter(&mut metric, &labels, parts.sum())?;
        }
    }
    Ok(())
}

fn tunnels(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let mut metric = family(encoder, TUNNELS)?;
    for lb in serving.load_balancers.values() {
        let open = lb.cell.counters.all().map(|c| i64::from(c.tunnels.load(Relaxed)));
        let labels = vec![("load_balancer", lb.cell.name.as_str())];
        gauge(&mut metric, &labels, open.sum())?;
    }
    let mut metric = family(encoder, TUNNELS_OPENED)?;
    for lb in serving.load_balancers.values() {
        let opened = lb.cell.counters.all().map(|c| c.tunnels_opened.get());
        let labels = vec![("load_balancer", lb.cell.name.as_str())];
        counter(&mut metric, &labels, opened.sum())?;
    }
    Ok(())
}

fn listeners(encoder: &mut DescriptorEncoder<'_>, serving: &Serving) -> fmt::Result {
    let all = || {
        serving.listeners.iter().map(|l| {
            let labels = vec![
                ("load_balancer", l.lb.cell.name.as_str()),
                ("listener", l.config.name.as_str()),
            ];
            (labels, &l.cell)
        })
    };
    let mut metric = family(encoder, CONNECTIONS)?;
    for (labels, cell) in all() {
        gauge(&mut metric, &labels, i64::from(cell.connections.load(Relaxed)))?;
    }
    let mut metric = family(encoder, ACCEPTED)?;
    for (labels, cell) in all() {
        counter(&mut metric, &labels, cell.accepted.load(Relaxed))?;
    }
    let mut metric = family(encoder, REFUSED)?;
    for (labels, cell) in all() {
        counter(&mut metric, &labels, cell.refused.load(Relaxed))?;
    }
    http2(encoder, all)
}

/// What is counted about HTTP/2, by listener.
fn http2<'a, I>(encoder: &mut DescriptorEncoder<'_>, all: impl Fn() -> I) -> fmt::Result
where
    I: Iterator<Item = (Labels<'a>, &'a Arc<ListenerCell>)>,
{
    let plain: [(Description, Part<Http2Counters, Counter>); 2] = [
        (HTTP2_CONNECTIONS, |c| &c.connections),
        (HTTP2_STREAMS, |c| &c.streams),
    ];
    for (description, part) in plain {
        let mut metric = family(encoder, description)?;
        for (labels, cell) in all() {
            let value = cell.http2.all().map(|c| part(c).get()).sum();
            counter(&mut metric, &labels, value)?;
        }
    }
    let limits: Vec<_> = Abuse::ALL.iter().map(|abuse| abuse.name()).collect();
    let parts: [Part<Http2Counters, [Counter]>; 3] = [|c| &c.resets, |c| &c.refused, |c| &c.abuse];
    let labelled = [
        (HTTP2_RESETS, "cause", &RESET_CAUSES[..]),
        (HTTP2_REFUSED, "limit", &REFUSED_STREAMS[..]),
        (HTTP2_ABUSE, "limit", &limits[..]),
    ];
    for ((description, label, values), part) in labelled.into_iter().zip(parts) {
        let mut metric = family(encoder, description)?;
        for (labels, cell) in all() {
            for (index, value) in values.iter().copied().enumerate() {
                let counts = cell.http2.all().filter_map(|c| part(c).get(index));
                let mut labels = labels.clone();
                labels.push((label, value));
                counter(&mut metric, &labels, counts.map(Counter::get).sum())?;
            }
        }
    }
    Ok(())
}

fn pools(encoder: &mut DescriptorEncoder<'_>, serving: &Serving, now_us: u64) -> fmt::Result {
    let all = || serving.load_balancers.values().flat_map(|lb| lb.pools.iter());
    let sum = |pool: &PoolServing, part: Part<PoolCounters, Counter>| {
        pool.cell.counters.all().map(|c| part(c).get()).sum::<u64>()
    };
    let counters: [(Description, Part<PoolCounters, Counter>); 2] = [
        (CIRCUIT_OPENED, |c| &c.circuit_opened),
        (OVER_BUDGET, |c| &c.retries_over_budget),
    ];
    for (description, part) in counters {
        let mut metric = family(encoder, description)?;
        for pool in all() {
            counter(&mut metric, &pool_labels(pool), sum(pool, part))?;
        }
    }
    let mut metric = family(encoder, BUDGET)?;
    for pool in all() {
        let left = pool
            .cell
            .load
            .retry_budget_left(now_us, pool.config.retries.budget);
        gauge(&mut metric, &pool_labels(pool), i64::from(left))?;
    }
    overload::pools(encoder, serving, now_us)
}

fn pool_labels(pool: &PoolServing) -> Labels<'_> {
    vec![
        ("load_balancer", pool.cell.load_balancer.as_str()),
        ("pool", pool.cell.name.as_str()),
    ]
}

fn backends(encoder: &mut DescriptorEncoder<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut metric = family(encoder, BACKEND_REQUESTS)?;
    for row in rows {
        for (index, class) in CLASSES.iter().enumerate() {
            let parts = row.counters().filter_map(|c| c.classes.get(index));
            let mut labels = row.labels.clone();
            labels.push(("class", class));
            counter(&mut metric, &labels, parts.map(Counter::get).sum())?;
        }
    }
    let counters: [(Description, Part<BackendCounters, Counter>); 3] = [
        (BACKEND_FAILURES, |c| &c.failures),
        (OPENED, |c| &c.connections_opened),
        (REUSED, |c| &c.connections_reused),
    ];
    for (description, part) in counters {
        let mut metric = family(encoder, description)?;
        for row in rows {
            let value = row.counters().map(|c| part(c).get()).sum();
            counter(&mut metric, &row.labels, value)?;
        }
    }
    let mut metric = family(encoder, IN_FLIGHT)?;
    for row in rows {
        let in_flight = row.cells.iter().map(|cell| i64::from(cell.load.in_flight()));
        gauge(&mut metric, &row.labels, in_flight.sum())?;
    }
    overload::backends(encoder, rows)?;
    let mut metric = family(encoder, IDLE)?;
    for row in rows {
        let blocks = row.cells.iter().flat_map(|cell| cell.counters.all());
        let idle = blocks.map(|c| i64::from(c.idle())).sum();
        gauge(&mut metric, &row.labels, idle)?;
    }
    let histograms: [(Description, Part<BackendCounters, Histogram>); 3] = [
        (CONNECT, |c| &c.connect),
        (FIRST_BYTE, |c| &c.first_byte),
        (BACKEND_DURATION, |c| &c.total),
    ];
    for (description, part) in histograms {
        let mut metric = family(encoder, description)?;
        for row in rows {
            let mut total = HistogramTotal::default();
            row.counters().for_each(|c| total.add(part(c)));
            histogram(&mut metric, &row.labels, &total)?;
        }
    }
    Ok(())
}
