//! What is told about requests: ids and trace context on the way; access log, recorder and spans at the end.
//!
//! Everything here follows one rule: it never makes a request wait. What is told is made from the request's
//! [`Story`], once, at its end; what has no room is dropped and counted.

mod access_log;
pub(crate) mod clock;
mod destination;
mod escape;
mod export;
mod line;
mod record;
mod shard;
mod spans;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::forward;
use http::{FieldKind, FieldList, RequestHead, RequestId, ResponseHead, TraceContext};
use model::config::Observe;
use model::reason::Reason;

use crate::origin::Origin;
use crate::serving::ListenerServing;
use crate::shard::Shard;
use crate::story::{Story, Trace};

pub(crate) use access_log::{LogCounters, Sink};
pub use export::check_headers_file;
pub(crate) use export::{Exporter, SpanCounters};
pub(crate) use record::Recall;
pub(crate) use shard::Observer;

/// What is told, and to whom: made when the config changes, used by every shard.
#[derive(Debug)]
pub(crate) struct Observing {
    pub(crate) config: Observe,
    pub(crate) access_log: Option<Arc<Sink>>,
    pub(crate) exporter: Option<Arc<Exporter>>,
}

/// What became of what was told, over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log: Arc<LogCounters>,
    pub(crate) spans: Arc<SpanCounters>,
    /// Remembered requests that newer ones took the place of.
    pub(crate) overwritten: AtomicU64,
}

impl Observing {
    /// Nothing is told to anybody outside yet.
    pub(crate) fn quiet(config: &Observe) -> Self {
        Self {
            config: config.clone(),
            access_log: None,
            exporter: None,
        }
    }

    /// What `config` wants, with what `before` has open already where that is the same.
    pub(crate) fn follow(
        config: &Observe,
        before: &Arc<Self>,
        shards: usize,
        counters: &Counters,
    ) -> (Arc<Self>, Result<(), String>) {
        let open = before.access_log.as_ref();
        let same = open.filter(|sink| Some(&sink.config) == config.access_log.as_ref());
        let (access_log, result) = match (&config.access_log, same) {
            (None, _) => (None, Ok(())),
            (_, Some(same)) => (Some(same.clone()), Ok(())),
            (Some(log), None) => {
                let (sink, result) = Sink::start(log.clone(), shards, &counters.log);
                let explain = |error: io::Error| {
                    let cause = format!("access log: cannot open {}: {error}", log.to);
                    tracing::error!("{cause}; lines are dropped until it can be opened");
                    cause
                };
                (Some(sink), result.map_err(explain))
            }
        };
        let open = before.exporter.as_ref();
        let same = open.filter(|exporter| Some(&exporter.config) == config.tracing.as_ref());
        let exporter = match (&config.tracing, same) {
            (Some(_), Some(same)) => Some(same.clone()),
            (Some(tracing), None) => Some(Arc::new(Exporter::start(tracing.clone(), &counters.spans))),
            (None, _) => None,
        };
        let observing = Self {
            config: config.clone(),
            access_log,
            exporter,
        };
        (Arc::new(observing), result)
    }
}

impl Observing {
    /// Waits until what was handed over is written, up to a deadline.
    pub(crate) fn finish(&self, deadline: Duration) {
        if let Some(sink) = &self.access_log {
            sink.finish(deadline);
        }
        if let Some(exporter) = &self.exporter {
            exporter.finish(deadline);
        }
    }
}

/// The request's names: its id, and its place in a trace. Fields of theirs that are not believed are dropped, and
/// those that we speak for ourselves are added.
pub(crate) fn begin(
    shard: &Shard,
    observing: &Observing,
    head: &mut RequestHead,
    bytes: &[u8],
    trusted: bool,
    story: &Story,
    (to_backend, to_client): (&mut FieldList, &mut FieldList),
) {
    let wanted = &observing.config.request_id;
    let name = wanted.header.as_bytes();
    let given = match wanted.trust.believes(trusted) {
        true => head.field(bytes, &wanted.header).and_then(RequestId::accept),
        false => None,
    };
    let id = given.unwrap_or_else(|| shard.observer.new_id(shard));
    // Written anew even where it was given: once, and not again where it was sent twice.
    drop_fields(head, bytes, name);
    to_backend.push(name, id.as_bytes());
    to_client.push(name, id.as_bytes());
    story.id.set(Some(id));
    if let Some(tracing) = &observing.config.tracing {
        let trace = trace(
            shard,
            head,
            bytes,
            tracing.trust.believes(trusted),
            tracing.sample,
        );
        if trace.parent.is_none() {
            drop_fields(head, bytes, b"tracestate");
        }
        drop_fields(head, bytes, TRACEPARENT);
        story.trace.set(Some(trace));
    }
}

const TRACEPARENT: &[u8] = b"traceparent";

/// The id of a request that could not be read, with the field that tells it to the client.
pub(crate) fn begin_unread(shard: &Shard, observing: &Observing, story: &Story, to_client: &mut FieldList) {
    let id = shard.observer.new_id(shard);
    to_client.push(observing.config.request_id.header.as_bytes(), id.as_bytes());
    story.id.set(Some(id));
}

/// The trace that the request belongs to: that of its `traceparent`, when it has exactly one that is well-formed
/// and believed, else a new one.
fn trace(shard: &Shard, head: &RequestHead, bytes: &[u8], believed: bool, sample: u8) -> Trace {
    let rng = &mut *shard.rng.borrow_mut();
    let mut given = named(head, bytes, TRACEPARENT);
    let only = given.next().filter(|_| given.next().is_none());
    if let Some(parent) = only.filter(|_| believed).and_then(TraceContext::parse) {
        return Trace {
            context: parent.child(rng.next_u64()),
            parent: Some(parent.span_id),
        };
    }
    let sampled = rng.below(100) < u64::from(sample);
    let random = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
    Trace {
        context: TraceContext::begin(random, sampled),
        parent: None,
    }
}

fn named<'a>(head: &'a RequestHead, bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let fields = head
        .fields
        .iter()
        .filter(|field| field.kind != FieldKind::Dropped);
    fields
        .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name))
        .map(|field| field.value.of(bytes))
}

fn drop_fields(head: &mut RequestHead, bytes: &[u8], name: &[u8]) {
    for field in &mut head.fields {
        if field.kind == FieldKind::Other && field.name.of(bytes).eq_ignore_ascii_case(name) {
            field.kind = FieldKind::Dropped;
        }
    }
}

/// The id in a response is ours: one that the backend echoes is left out.
pub(crate) fn drop_echo(observing: &Observing, response: &mut ResponseHead, bytes: &[u8]) {
    let name = observing.config.request_id.header.as_bytes();
    for field in &mut response.fields {
        if field.kind == FieldKind::Other && field.name.of(bytes).eq_ignore_ascii_case(name) {
            field.kind = FieldKind::Dropped;
        }
    }
}

/// A request at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) serving: &'a ListenerServing,
    pub(crate) origin: &'a Origin,
    /// Whether the peer is a trusted proxy.
    pub(crate) trusted: bool,
    pub(crate) story: &'a Story,
    /// `None` for one that could not be read.
    pub(crate) head: Option<&'a RequestHead>,
    /// What the head was read from.
    pub(crate) bytes: &'a [u8],
    pub(crate) protocol: &'static str,
    /// 0: no response could be sent.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) started_us: u64,
    pub(crate) ended_us: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl<'a> Told<'a> {
    /// Whether it is one that must not be missed.
    fn failed(&self) -> bool {
        self.reason.is_some() || self.status >= 500
    }

    /// The client's address: behind trusted proxies the one they report.
    fn client(&self) -> IpAddr {
        let peer = self.origin.peer.ip();
        match self.head.filter(|_| self.trusted) {
            Some(head) => {
                forward::client_address(self.bytes, head, peer, &self.serving.config.trusted_proxies)
            }
            None => peer.to_canonical(),
        }
    }

    fn method(&self) -> &'a [u8] {
        self.head
            .map(|head| head.method_bytes(self.bytes))
            .unwrap_or_default()
    }

    fn host(&self) -> &'a [u8] {
        self.head.map(|head| head.host(self.bytes)).unwrap_or_default()
    }

    /// Path and query; of a request that could not be read, its first line.
    fn target(&self) -> &'a [u8] {
        let first_line = || {
            let line = self.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            line.strip_suffix(b"\r").unwrap_or(line)
        };
        self.head.map_or_else(first_line, |head| head.target(self.bytes))
    }

    fn field(&self, name: &str) -> &'a [u8] {
        self.head
            .and_then(|head| head.field(self.bytes, name))
            .unwrap_or_default()
    }
}
