//! A shard's part in telling: its clock, its end of the access log.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use http::RequestId;

use super::access_log::ShardLog;
use super::clock::WallClock;
use super::line::{Line, TlsLine};
use super::record::{Recall, Record, Recorder};
use super::{Observing, Told};
use crate::shard::Shard;

/// What one shard tells with.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    clock: WallClock,
    log: RefCell<Option<ShardLog>>,
    recorder: Recorder,
    /// Whether queries may be shown: not where the access log leaves them out.
    query: Cell<bool>,
}

impl Observer {
    /// Follows a change of the config.
    pub(crate) fn follow(&self, observing: &Observing, shards: usize) {
        self.recorder.follow(observing.config.recorder, shards);
        let log = observing.config.access_log.as_ref();
        self.query.set(log.is_none_or(|log| log.query));
        let mut log = self.log.borrow_mut();
        let same = match (&*log, &observing.access_log) {
            (Some(log), Some(sink)) => Arc::ptr_eq(&log.sink, sink),
            (None, None) => true,
            _ => false,
        };
        if !same {
            *log = observing.access_log.clone().map(ShardLog::new);
        }
    }

    /// Reads the clock and hands over what has gathered.
    pub(crate) fn tick(&self, now_us: u64) {
        self.clock.set(now_us);
        self.recorder.tick();
        self.flush();
    }

    /// Hands over what has gathered.
    pub(crate) fn flush(&self) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.flush();
        }
    }

    /// A new id for a request that begins now.
    pub(crate) fn new_id(&self, shard: &Shard) -> RequestId {
        let rng = &mut *shard.rng.borrow_mut();
        let now_ms = self.clock.unix_us(shard.timers.recent_us()) / 1000;
        RequestId::new(now_ms, [rng.next_u64(), rng.next_u64()])
    }

    /// Tells of a request that has ended.
    pub(crate) fn tell(&self, shard: &Shard, told: &Told<'_>) {
        self.log(shard, told);
        let unix_us = self.clock.unix_us(told.started_us);
        self.recorder.keep(shard, told, unix_us, self.query.get());
        let sampled = told.story.trace.get().is_some_and(|trace| trace.context.sampled);
        if let Some(exporter) = told.serving.observing.exporter.as_ref().filter(|_| sampled)
            && let Some(record) = Record::of(told, unix_us, self.query.get())
        {
            exporter.queue(record);
        }
    }

    /// Answers a question about what was recorded.
    pub(crate) fn recall(&self, recall: &Recall) {
        recall.answer(&self.recorder);
    }

    fn log(&self, shard: &Shard, told: &Told<'_>) {
        let log = &mut *self.log.borrow_mut();
        let Some(log) = log.as_mut().filter(|_| told.serving.lb.config.access_log) else {
            return;
        };
        let config = log.config.clone();
        let sampled = || shard.rng.borrow_mut().below(100) < u64::from(config.sample);
        if config.sample < 100 && !told.failed() && !sampled() {
            return;
        }
        let Some(id) = told.story.id.get() else { return };
        let unix_us = self.clock.unix_us(told.started_us);
        let line = line_of(told, &id, unix_us, config.query);
        log.add(|out| line.write(out, config.format, &self.clock));
    }
}

/// Everything that a line tells.
fn line_of<'a>(told: &Told<'a>, id: &'a RequestId, unix_us: u64, query: bool) -> Line<'a> {
    let lb = &told.serving.lb;
    let story = told.story;
    let last = story.last_try();
    let route = story.route.get().and_then(|r| lb.config.routes.get(r));
    let pool = story.pool.get().and_then(|p| lb.pools.get(p));
    let queued = story.queued.get();
    let attempts = u8::try_from(story.tries().len()).unwrap_or(u8::MAX);
    Line {
        unix_us,
        id,
        trace: story.trace.get().map(|trace| trace.context),
        client: told.client(),
        method: told.method(),
        host: told.host(),
        target: match query {
            true => told.target(),
            false => told.target().split(|b| *b == b'?').next().unwrap_or_default(),
        },
        protocol: told.protocol,
        user_agent: told.field("user-agent"),
        referer: told.field("referer"),
        status: told.status,
        reason: told.reason,
        load_balancer: lb.config.name.as_str(),
        listener: told.serving.config.name.as_str(),
        route: route.map(|route| route.name.as_str()),
        pool: pool.map(|pool| pool.config.name.as_str()),
        backend: last.map(|last| last.backend),
        attempts,
        reused: last.is_some_and(|last| last.reused),
        session: story.session(),
        queue_position: queued.map(|queued| queued.position),
        wait_us: queued.map(|queued| queued.waited_us),
        connect_us: last.and_then(|last| last.connect_us),
        first_byte_us: last.and_then(|last| last.first_byte_us),
        total_us: told.ended_us.saturating_sub(told.started_us),
        received: told.received,
        sent: told.sent,
        tls: told.origin.tls.as_deref().map(TlsLine::of),
    }
}
