//! What an LB server does when no orchestrator looks after its backends: keep, then look itself, then hand back.
//!
//! - **Following**: the orchestrators' verdicts count.
//! - **Holding**: no orchestrator is there, or the store cannot be heard. The last verdicts stand.
//! - **Own checks**: that has lasted for `after`. This server checks for itself, and its own verdicts count.
//! - **Handing back**: a leader is there and every slot is with a worker that has said so. For `settle` both check:
//!   what stands in the store may be of before the trouble, and whoever checks goes on from that, so that it is as good
//!   as new only when each check could have been overturned. Its own verdicts count until then, or what is known here
//!   would flap back to what is old. Should slots change hands meanwhile, the time begins anew.
//!
//! Slots that nobody checks are a trouble, too, when they last: somebody is there, and yet nobody takes them. Given out
//! anew they are within [`TAKEN_OVER_MS`], whoever died; so only what lasts for that and `after` counts.
//!
//! A leader alone that is missing is no trouble: workers go on with what they have. An orchestrator that comes back
//! while holding ends that at once; one that goes away again while being handed back to costs nothing, because the
//! own checks have not stopped.

use crate::cluster::board::Source;

/// Orchestrators that work as they should have given out everything anew by then, in milliseconds.
pub const TAKEN_OVER_MS: u64 = 10_000;

/// What an LB server sees of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Whether the store is heard: its watches are connected.
    pub connected: bool,
    /// Workers whose lease holds.
    pub workers: usize,
    /// Whether somebody leads.
    pub led: bool,
    /// Whether every slot is checked: [`View::is_given_out`](crate::cluster::view::View::is_given_out).
    pub given_out: bool,
}

/// Why the orchestrators are not relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The store is not heard, so whoever checks cannot tell.
    StoreUnreachable,
    /// No orchestrator holds a lease.
    NoOrchestrator,
    /// Orchestrators are there, and some backends are checked by nobody, for longer than a change of hands takes.
    Unchecked,
}

impl Trouble {
    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoreUnreachable => "store_unreachable",
            Self::NoOrchestrator => "no_orchestrator",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The orchestrators' verdicts count.
    Following,
    /// The last verdicts stand, since this time.
    Holding(Trouble, u64),
    /// Own checks run and count.
    OwnChecks(Trouble),
    /// Own checks run and count, the orchestrators are back, and have had all slots since this time.
    HandingBack(u64),
}

impl Phase {
    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Holding(..) => "holding",
            Self::OwnChecks(_) => "own_checks",
            Self::HandingBack(_) => "handing_back",
        }
    }

    /// Whether this server's own checks run.
    pub fn checks(self) -> bool {
        matches!(self, Self::OwnChecks(_) | Self::HandingBack(_))
    }

    /// Whose verdicts count.
    pub fn source(self) -> Source {
        if self.checks() {
            Source::Own
        } else {
            Source::Orchestrator
        }
    }
}

/// The machine. Times are milliseconds of the server's own clock.
#[derive(Clone, Copy, Debug)]
pub struct PlanB {
    after_ms: u64,
    settle_ms: u64,
    phase: Phase,
    /// Since when slots have been checked by nobody.
    unchecked_since: Option<u64>,
}

impl PlanB {
    /// `after_ms`: how long the last verdicts stand; `settle_ms`: how long the slowest check may take to overturn an old
    /// verdict: all the results in a row that this needs, with jitter and timeouts, and the writing. A server that starts has heard of nobody and holds what it may
    /// have from its disk.
    pub fn new(after_ms: u64, settle_ms: u64, now: u64) -> Self {
        Self {
            after_ms,
            settle_ms,
            phase: Phase::Holding(Trouble::StoreUnreachable, now),
            unchecked_since: None,
        }
    }

    /// Another time for the slowest check: the config has changed.
    pub fn set_settle(&mut self, settle_ms: u64) {
        self.settle_ms = settle_ms;
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes what is seen at `now`; the new phase when it changes. Repeat it at [`wake_at`](Self::wake_at).
    pub fn see(&mut self, sight: Sight, now: u64) -> Option<Phase> {
        // Whoever has taken a slot anew goes on from what is stored, and needs the whole time for that.
        let changed_hands = self.unchecked_since.is_some() || !sight.given_out;
        match sight.given_out {
            true => self.unchecked_since = None,
            false => _ = self.unchecked_since.get_or_insert(now),
        }
        // From the first moment on: what has lasted so long is held no longer.
        let lasts = self.unchecked_until().is_some_and(|until| until <= now);
        let next = match (self.phase, trouble(sight)) {
            (Phase::Following, None) if lasts => Phase::OwnChecks(Trouble::Unchecked),
            (Phase::Following, Some(trouble)) => Phase::Holding(trouble, now),
            (Phase::Holding(_, since), Some(trouble)) if now.saturating_sub(since) >= self.after_ms => {
                Phase::OwnChecks(trouble)
            }
            (Phase::Holding(_, since), Some(trouble)) => Phase::Holding(trouble, since),
            (Phase::Holding(..), None) => Phase::Following,
            (Phase::OwnChecks(_) | Phase::HandingBack(_), Some(trouble)) => Phase::OwnChecks(trouble),
            (Phase::OwnChecks(_), None) if sight.led && sight.given_out => Phase::HandingBack(now),
            (Phase::HandingBack(_), None) if changed_hands => Phase::HandingBack(now),
            (Phase::HandingBack(since), None) if now.saturating_sub(since) >= self.settle_ms => {
                Phase::Following
            }
            (same, None) => same,
        };
        (std::mem::replace(&mut self.phase, next) != next).then_some(next)
    }

    /// When the phase may change though nothing else does.
    pub fn wake_at(&self) -> u64 {
        match self.phase {
            Phase::Holding(_, since) => since.saturating_add(self.after_ms),
            Phase::HandingBack(since) => since.saturating_add(self.settle_ms),
            Phase::Following => self.unchecked_until().unwrap_or(u64::MAX),
            Phase::OwnChecks(_) => u64::MAX,
        }
    }

    /// Slots that nobody checks are put up with until then.
    fn unchecked_until(&self) -> Option<u64> {
        let patience = self.after_ms.saturating_add(TAKEN_OVER_MS);
        Some(self.unchecked_since?.saturating_add(patience))
    }
}

fn trouble(sight: Sight) -> Option<Trouble> {
    if !sight.connected {
        Some(Trouble::StoreUnreachable)
    } else if sight.workers == 0 {
        Some(Trouble::NoOrchestrator)
    } else {
        None
    }
}
