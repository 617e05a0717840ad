//! The flight recorder: the last failures, the last refusals, and a sample of the successes, in rings of the shard's own.
//!
//! Nobody else touches a ring: whoever asks sends the shard a question, which it answers between two requests. A
//! record is one block of fixed size, its texts cut to fit, so that keeping one is a copy; only the members of the
//! pool and the routes passed over, which a failure keeps too, cost an allocation, and of those a shard makes
//! [`DETAILS_PER_TICK`] at most.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::RequestId;
use http::route::Facts;
use model::config::{Name, Recorder as Config};
use model::explain::{Candidate, RouteStep};
use model::reason::{Fault, Reason};
use model::record::{AttemptRecord, QueueRecord, RecordQuery, RequestRecord, TlsRecord};
use model::state::Timestamp;

use super::Told;
use crate::counters::SESSIONS;
use crate::shard::Shard;
use crate::story::{Queued, Trace, Try};
use crate::tls::TlsFacts;

/// Attempts that a record holds: all that a request may make.
const MAX_TRIES: usize = 8;

/// Members of a pool that a record names.
const MAX_CANDIDATES: usize = 16;
/// Routes that a record names.
const MAX_ROUTES: usize = 32;

/// Failures of one tick that are kept with candidates and routes: a flood of them costs no more than that.
const DETAILS_PER_TICK: u32 = 4;

/// One shard's recorder.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    failures: RefCell<Ring>,
    refusals: RefCell<Ring>,
    successes: RefCell<Ring>,
    /// In percent.
    sample: Cell<u8>,
    details_left: Cell<u32>,
}

/// The last so many.
#[derive(Debug, Default)]
struct Ring {
    records: Vec<Record>,
    most: usize,
    next: usize,
}

/// A request that is remembered.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RequestId,
    pub(super) trace: Option<Trace>,
    pub(super) unix_us: u64,
    pub(super) started_us: u64,
    pub(super) ended_us: u64,
    pub(super) client: IpAddr,
    pub(super) method: Text<24>,
    pub(super) host: Text<128>,
    pub(super) target: Text<296>,
    pub(super) user_agent: Text<80>,
    pub(super) protocol: &'static str,
    /// TLS, where it is spoken.
    pub(super) tls: Option<RecordTls>,
    pub(super) load_balancer: Name,
    pub(super) listener: Name,
    pub(super) route: Option<Name>,
    pub(super) pool: Option<Name>,
    pub(super) status: u16,
    pub(super) reason: Option<Reason>,
    /// What became of its session, as an index into [`SESSIONS`].
    session: Option<u8>,
    pub(super) queued: Option<Queued>,
    tries: [Option<Try>; MAX_TRIES],
    pub(super) received: u64,
    pub(super) sent: u64,
    details: Option<Box<Details>>,
}

/// What is remembered of the client's TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordTls {
    pub(super) version: &'static str,
    pub(super) cipher: &'static str,
    group: Option<&'static str>,
    pub(super) resumed: bool,
    alpn: Option<&'static str>,
    sni: Text<64>,
    client_subject: Text<96>,
}

impl RecordTls {
    fn of(facts: &TlsFacts) -> Self {
        Self {
            version: facts.version,
            cipher: facts.cipher,
            group: facts.group,
            resumed: facts.resumed,
            alpn: facts.alpn,
            sni: Text::cut(facts.sni.as_deref().unwrap_or_default().as_bytes()),
            client_subject: Text::cut(facts.client_subject().unwrap_or_default().as_bytes()),
        }
    }

    fn tell(&self) -> TlsRecord {
        let shown = |text: String| Some(text).filter(|text| !text.is_empty());
        TlsRecord {
            version: self.version.to_owned(),
            cipher: self.cipher.to_owned(),
            group: self.group.map(str::to_owned),
            resumed: self.resumed,
            alpn: self.alpn.map(str::to_owned),
            sni: shown(self.sni.to_text()),
            client_subject: shown(self.client_subject.to_text()),
        }
    }
}

/// The decisions behind a failure.
#[derive(Debug)]
struct Details {
    routes: Vec<RouteStep>,
    candidates: Vec<Candidate>,
    more_candidates: usize,
}

/// A text of at most `N` bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    fn cut(from: &[u8]) -> Self {
        let mut bytes = [0; N];
        let length = from.len().min(N);
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
        }
        Self { bytes, length }
    }

    /// The text, what is not UTF-8 replaced.
    pub(super) fn to_text(self) -> String {
        String::from_utf8_lossy(self.bytes.get(..self.length).unwrap_or_default()).into_owned()
    }
}

impl Recorder {
    /// Follows a change of the config: `shards` share what may be kept.
    pub(super) fn follow(&self, config: Config, shards: usize) {
        let share = |all: u32| (all as usize).div_ceil(shards);
        self.failures.borrow_mut().resize(share(config.failures));
        self.refusals.borrow_mut().resize(share(config.refusals));
        self.successes.borrow_mut().resize(share(config.successes));
        self.sample.set(config.sample);
    }

    pub(super) fn tick(&self) {
        self.details_left.set(DETAILS_PER_TICK);
    }

    /// Keeps a request, when it is one to keep.
    pub(super) fn keep(&self, shard: &Shard, told: &Told<'_>, unix_us: u64, query: bool) {
        let failed = told.failed();
        let ring = match told.reason {
            _ if told.status >= 500 => &self.failures,
            Some(reason) if reason.fault() == Fault::Backend => &self.failures,
            Some(_) => &self.refusals,
            None => &self.successes,
        };
        let sampled = || shard.rng.borrow_mut().below(100) < u64::from(self.sample.get());
        if ring.borrow().most == 0 || !(failed || sampled()) {
            return;
        }
        let Some(mut record) = Record::of(told, unix_us, query) else {
            return;
        };
        if failed && let Some(left) = self.details_left.get().checked_sub(1) {
            self.details_left.set(left);
            record.details = details(shard, told);
        }
        ring.borrow_mut().push(record, &shard.shared.told.overwritten);
    }

    /// Answers a question about what is kept.
    pub(super) fn recall(&self, query: &RecordQuery) -> Vec<RequestRecord> {
        let rings = [&self.failures, &self.refusals, &self.successes].map(|ring| ring.borrow());
        match query {
            RecordQuery::Id(id) => {
                let all = rings.iter().flat_map(|ring| ring.newest());
                all.filter(|record| record.id.as_str() == id)
                    .map(Record::tell)
                    .collect()
            }
            RecordQuery::Last { count, all } => {
                let wanted = if *all { 3 } else { 1 };
                let last = rings.iter().take(wanted);
                last.flat_map(|ring| ring.newest().take(*count))
                    .map(Record::tell)
                    .collect()
            }
        }
    }
}

impl Ring {
    fn resize(&mut self, most: usize) {
        if most != self.most {
            *self = Self {
                // What is not written to yet takes no memory.
                records: Vec::with_capacity(most),
                most,
                next: 0,
            };
        }
    }

    fn push(&mut self, record: Record, overwritten: &AtomicU64) {
        if let Some(oldest) = self.records.get_mut(self.next) {
            *oldest = record;
            overwritten.fetch_add(1, Relaxed);
        } else if self.records.len() < self.most {
            self.records.push(record);
        }
        self.next = (self.next + 1) % self.most.max(1);
    }

    fn newest(&self) -> impl Iterator<Item = &Record> {
        let (later, earlier) = self.records.split_at(self.next.min(self.records.len()));
        later.iter().rev().chain(earlier.iter().rev())
    }
}

impl Record {
    /// What is told, cut to fit.
    pub(super) fn of(told: &Told<'_>, unix_us: u64, query: bool) -> Option<Self> {
        let story = told.story;
        let lb = &told.serving.lb;
        let route = story.route.get().and_then(|r| lb.config.routes.get(r));
        let pool = story.pool.get().and_then(|p| lb.pools.get(p));
        let mut tries = [None; MAX_TRIES];
        for (to, from) in tries.iter_mut().zip(story.tries().iter()) {
            *to = Some(*from);
        }
        let target = told.target();
        let shown = match query {
            true => target,
            false => target.split(|b| *b == b'?').next().unwrap_or_default(),
        };
        Some(Self {
            id: story.id.get()?,
            trace: story.trace.get(),
            unix_us,
            started_us: told.started_us,
            ended_us: told.ended_us,
            client: told.client(),
            method: Text::cut(told.method()),
            host: Text::cut(told.host()),
            target: Text::cut(shown),
            user_agent: Text::cut(told.field("user-agent")),
            protocol: told.protocol,
            tls: told.origin.tls.as_deref().map(RecordTls::of),
            load_balancer: lb.config.name.clone(),
            listener: told.serving.config.name.clone(),
            route: route.map(|route| route.name.clone()),
            pool: pool.map(|pool| pool.config.name.clone()),
            status: told.status,
            reason: told.reason,
            session: story.session.get(),
            queued: story.queued.get(),
            tries,
            received: told.received,
            sent: told.sent,
            details: None,
        })
    }

    /// The attempts, in order.
    pub(super) fn tries(&self) -> impl Iterator<Item = &Try> {
        self.tries.iter().flatten()
    }

    fn tell(&self) -> RequestRecord {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        RequestRecord {
            id: self.id.as_str().to_owned(),
            trace_id: self.trace.map(|trace| hex(&trace.context.trace_id)),
            time: Timestamp(self.unix_us / 1000),
            client: self.client,
            method: self.method.to_text(),
            host: self.host.to_text(),
            target: self.target.to_text(),
            protocol: self.protocol.to_owned(),
            tls: self.tls.as_ref().map(RecordTls::tell),
            load_balancer: self.load_balancer.clone(),
            listener: self.listener.clone(),
            route: self.route.clone(),
            pool: self.pool.clone(),
            status: self.status,
            reason: self.reason.map(|reason| reason.code().to_owned()),
            detail: self.reason.map(|reason| reason.text().to_owned()),
            session: self
                .session
                .and_then(|index| SESSIONS.get(usize::from(index)))
                .map(|name| (*name).to_owned()),
            queued: self.queued.map(|queued| QueueRecord {
                position: queued.position,
                waited_us: queued.waited_us,
            }),
            attempts: self.tries().map(|this| attempt(this, self.started_us)).collect(),
            total_us: self.ended_us.saturating_sub(self.started_us),
            received_bytes: self.received,
            sent_bytes: self.sent,
            routes: self
                .details
                .as_ref()
                .map(|d| d.routes.clone())
                .unwrap_or_default(),
            candidates: self
                .details
                .as_ref()
                .map(|d| d.candidates.clone())
                .unwrap_or_default(),
            more_candidates: self.details.as_ref().map_or(0, |d| d.more_candidates),
        }
    }
}

fn attempt(this: &Try, started_us: u64) -> AttemptRecord {
    AttemptRecord {
        backend: this.backend,
        began_us: this.began_us.saturating_sub(started_us),
        reused: this.reused,
        connect_us: this.connect_us,
        first_byte_us: this.first_byte_us,
        ended_us: this.ended_us.saturating_sub(started_us),
        status: (this.status > 0).then_some(this.status),
        reason: this.reason.map(|reason| reason.code().to_owned()),
        then: this.then.map(str::to_owned),
    }
}

/// The routes tried and the members of the pool, as they stand now.
fn details(shard: &Shard, told: &Told<'_>) -> Option<Box<Details>> {
    let head = told.head?;
    let lb = &told.serving.lb;
    let look_up = |address| shard.shared.geo.look_up(address);
    let facts = Facts::new(
        head,
        told.bytes,
        told.origin.peer.ip(),
        &told.serving.config.trusted_proxies,
        &look_up,
    );
    let mut routes = lb.router.explain(&facts);
    routes.truncate(MAX_ROUTES);
    let pool = told.story.pool.get().and_then(|p| lb.pools.get(p));
    let mut candidates = match pool {
        Some(pool) => pool.balancer.candidates(shard.timers.recent_us(), MAX_CANDIDATES),
        None => Vec::new(),
    };
    candidates.shrink_to_fit();
    let members = pool.map_or(0, |pool| pool.backends.len());
    Some(Box::new(Details {
        routes,
        more_candidates: members.saturating_sub(candidates.len()),
        candidates,
    }))
}

/// A question to a shard, with where its answer goes.
#[derive(Debug)]
pub(crate) struct Recall {
    pub(crate) query: Arc<RecordQuery>,
    pub(crate) reply: tokio::sync::mpsc::Sender<Vec<RequestRecord>>,
}

impl Recall {
    pub(super) fn answer(&self, recorder: &Recorder) {
        // Whoever asked may have given up.
        let _ = self.reply.try_send(recorder.recall(&self.query));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size that the documentation names.
    #[test]
    fn a_record_takes_at_most_two_kib() {
        let size = size_of::<Record>();
        assert!(size <= 2048, "{size}");
    }

    #[test]
    fn a_text_is_cut_to_fit() {
        assert_eq!(Text::<4>::cut(b"abcdef").to_text(), "abcd");
        assert_eq!(Text::<4>::cut(b"\xffa").to_text(), "\u{fffd}a");
    }
}
