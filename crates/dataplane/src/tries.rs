//! The attempts of one request: which backend is next, and whether there may be another attempt.
//!
//! What is tried again, and when not, is argued in `docs/adr/0005-when-a-request-is-tried-again.md` and told to
//! users in `docs/retries.md`.

use model::config::Retries;
use model::reason::Reason;

use crate::attempt::{Body, Failure, Retry};
use crate::counters::PoolCounters;
use crate::exchange::Request;
use crate::slot::Wanted;
use crate::story::Story;

/// Attempts one request may make in all, whatever the configuration and the staleness of connections.
const MAX_ATTEMPTS: usize = 8;

/// What follows from a failure that another attempt may make good.
const TRIED_AGAIN: &str = "tried again";

/// The attempts of one request.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    members: [usize; MAX_ATTEMPTS],
    count: usize,
    /// A kept connection was found closed: from now on only new ones.
    pub(crate) fresh: bool,
    last: Option<Failure>,
}

impl Tries {
    /// Members tried so far.
    fn members(&self) -> &[usize] {
        self.members.get(..self.count).unwrap_or_default()
    }

    /// Why the request fails where there is no slot for it: where no other backend is left, because of the last
    /// attempt.
    pub(crate) fn instead_of(&self, reason: Reason, story: &Story) -> Reason {
        if reason != Reason::NoBackend {
            return reason;
        }
        story.note_try(|last| last.then = Some("no other backend takes requests"));
        self.last.map_or(reason, |failure| failure.reason)
    }

    /// What the next attempt needs: the backend of its session while that takes it. A stale connection says nothing
    /// against its backend, so where there is no other, the same one is tried again on a fresh connection.
    pub(crate) fn wanted<'t>(&'t self, request: &Request<'_>, key: u64, now_us: u64) -> Wanted<'t> {
        let tried = self.members();
        let stale = self.fresh && self.count == 1;
        let again = if stale { &[] } else { tried };
        if let Some(member) = request.session.member(again, now_us) {
            return Wanted {
                key,
                pinned: Some(member),
                tried: again,
            };
        }
        let alone = stale && !request.pool.balancer.anyone(tried, now_us);
        Wanted {
            key,
            pinned: None,
            tried: if alone { again } else { tried },
        }
    }

    /// Notes a failed attempt and says whether there may be another. The first stale connection is free: it is
    /// no failure of a backend, so it takes nothing from the budget.
    pub(crate) fn again(
        &mut self,
        request: &Request<'_>,
        body: &Body<'_>,
        index: usize,
        failure: Failure,
        now_us: u64,
    ) -> bool {
        if let Some(slot) = self.members.get_mut(self.count) {
            *slot = index;
        }
        self.count += 1;
        let free = failure.stale && !self.fresh;
        self.fresh |= failure.stale;
        self.last = Some(failure);
        let then = self.verdict(request, body, failure, free, now_us);
        request.story.note_try(|this| this.then = Some(then));
        if then != TRIED_AGAIN {
            return false;
        }
        if let Some(counter) = counters(request).retries.get(cause(failure)) {
            counter.add(1);
        }
        true
    }

    /// Whether there is another attempt, or why not, in words.
    fn verdict(
        &self,
        request: &Request<'_>,
        body: &Body<'_>,
        failure: Failure,
        free: bool,
        now_us: u64,
    ) -> &'static str {
        let retries = &request.pool.config.retries;
        if failure.reason == Reason::ClientGone {
            return "its client is gone";
        }
        let left = self.count <= usize::from(retries.attempts) + usize::from(self.fresh);
        if !(free || left) || self.count >= MAX_ATTEMPTS {
            return "no further attempt is allowed";
        }
        // A response that is tried elsewhere was judged and paid for before it was dropped.
        if failure.reason == Reason::BackendStatus {
            return TRIED_AGAIN;
        }
        if !free && !is_wanted(retries, failure) {
            return "`retries.on` does not name this failure";
        }
        if !is_safe(request, failure.retry) {
            return "it is not safe to send the request again";
        }
        if !body.is_replayable(retries.replay_bytes, failure.retry) {
            note_body_gone(request, failure.reason);
            return "the request's body is over `retries.replay_bytes`";
        }
        if !free && !request.pool.balancer.anyone(self.members(), now_us) {
            return "no other backend takes requests";
        }
        match free || pay(request, now_us) {
            true => TRIED_AGAIN,
            false => "the budget of retries is spent",
        }
    }

    /// Whether a response with this status is dropped and the request tried elsewhere; then the budget has paid for
    /// it. `replayable`: the body can be sent again.
    pub(crate) fn declines(
        &self,
        request: &Request<'_>,
        index: usize,
        status: u16,
        replayable: bool,
        now_us: u64,
    ) -> bool {
        let retries = &request.pool.config.retries;
        if !retries.on.status(status) || !request.head.may_repeat(request.bytes) {
            return false;
        }
        let mut tried = self.members;
        if let Some(slot) = tried.get_mut(self.count) {
            *slot = index;
        }
        let tried = tried.get(..=self.count).unwrap_or_default();
        let within = self.count < usize::from(retries.attempts) + usize::from(self.fresh);
        if !within || self.count + 1 >= MAX_ATTEMPTS || !request.pool.balancer.anyone(tried, now_us) {
            return false;
        }
        if !replayable {
            note_body_gone(request, Reason::BackendStatus);
            return false;
        }
        pay(request, now_us)
    }
}

/// Takes one retry out of the budget.
fn pay(request: &Request<'_>, now_us: u64) -> bool {
    let budget = request.pool.config.retries.budget;
    let allowed = request.pool.balancer.pool().try_retry(now_us, budget);
    if !allowed {
        counters(request).retries_over_budget.add(1);
    }
    allowed
}

fn counters<'a>(request: &Request<'a>) -> &'a PoolCounters {
    request.pool.cell.counters.of(request.shard.index)
}

/// Whether the pool wants failures of this kind tried elsewhere.
fn is_wanted(retries: &Retries, failure: Failure) -> bool {
    match failure.reason {
        Reason::BackendReset => retries.on.reset,
        Reason::FirstByteTimeout | Reason::TryTimeout | Reason::BackendStreamTimeout => retries.on.timeout,
        Reason::BackendStatus => true,
        // What else may be tried again failed before anything was sent.
        _ => retries.on.connect,
    }
}

fn is_safe(request: &Request<'_>, retry: Retry) -> bool {
    match retry {
        Retry::Always => true,
        Retry::IfIdempotent => request.head.may_repeat(request.bytes),
        Retry::Never => false,
    }
}

/// An attempt would be made again, but the body that was sent is no longer all here.
fn note_body_gone(request: &Request<'_>, reason: Reason) {
    counters(request).retries_body_gone.add(1);
    tracing::debug!(
        load_balancer = %request.pool.cell.load_balancer,
        pool = %request.pool.cell.name,
        reason = reason.code(),
        "not tried again: the request's body is over `retries.replay_bytes`"
    );
}

/// Index into [`crate::counters::RETRY_CAUSES`].
fn cause(failure: Failure) -> usize {
    match failure.reason {
        _ if failure.stale => 0,
        Reason::BackendReset => 2,
        Reason::FirstByteTimeout | Reason::TryTimeout | Reason::BackendStreamTimeout => 3,
        Reason::BackendStatus => 4,
        _ => 1,
    }
}
