//! A lease in the store, and until when it may be relied on.
//!
//! A member that is alive and hears nothing is worse than a dead one: it keeps what it has, and nobody else can be
//! given it. So one whose watches have been broken for half a lease gives its lease back, and takes another when
//! it hears again.
//!
//! The time counts from when a grant or a keep-alive was *handed out*, which is before the store can have counted
//! from it. A process that was stopped finds its time over at the first thing that it does.

use super::super::ACTS_FOR_PERCENT;
use super::super::records::LeaseId;
use super::duty::Duty;
use super::{Action, Answer, Call, Member, Purpose, RETRY_MS};

/// A keep-alive is sent this many times per lease.
const KEEP_ALIVES_PER_LEASE: u64 = 4;

#[derive(Debug)]
pub(super) enum Session {
    None {
        retry_at: u64,
    },
    Granting,
    Held {
        lease: LeaseId,
        /// Nothing is done by it from then on.
        until: u64,
        keep_alive_at: u64,
        asking: bool,
    },
}

impl Session {
    pub(super) fn new(now: u64) -> Self {
        Self::None { retry_at: now }
    }

    pub(super) fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Held { lease, .. } => Some(*lease),
            _ => None,
        }
    }

    pub(super) fn may_act(&self, now: u64) -> bool {
        now < self.until()
    }

    /// Nothing is done by it from then on.
    pub(super) fn until(&self) -> u64 {
        match self {
            Self::Held { until, .. } => *until,
            _ => 0,
        }
    }

    pub(super) fn wake_at(&self) -> u64 {
        match self {
            Self::None { retry_at } => *retry_at,
            Self::Granting => u64::MAX,
            Self::Held {
                until, asking: true, ..
            } => *until,
            Self::Held {
                until, keep_alive_at, ..
            } => *keep_alive_at.min(until),
        }
    }

    pub(super) fn granted(&mut self, answer: Answer, sent: u64, now: u64, lease_ms: u64) {
        *self = match answer {
            Answer::Granted(lease) => Self::Held {
                lease,
                until: acts_until(sent, lease_ms),
                keep_alive_at: sent.saturating_add(lease_ms / KEEP_ALIVES_PER_LEASE),
                asking: false,
            },
            _ => Self::None {
                retry_at: now.saturating_add(RETRY_MS),
            },
        };
    }
}

fn acts_until(sent: u64, lease_ms: u64) -> u64 {
    sent.saturating_add(lease_ms.saturating_mul(ACTS_FOR_PERCENT) / 100)
}

impl Member {
    /// Gives up a session whose time is over, or that is of no use to anybody.
    pub(super) fn expire(&mut self, now: u64) {
        if self.deaf_until() <= now
            && let Some(lease) = self.session.lease()
        {
            self.lose(now);
            self.actions.push(Action::Revoke(lease));
        }
        if matches!(self.session, Session::Held { until, .. } if until <= now) {
            self.lose(now);
        }
    }

    /// When it has heard nothing for too long.
    pub(super) fn deaf_until(&self) -> u64 {
        self.deaf_since
            .map_or(u64::MAX, |since| since.saturating_add(self.settings.lease_ms / 2))
    }

    /// Ends the session: nothing is checked, nothing is written, nobody is led any more. Answers that still come
    /// belong to nobody.
    pub(super) fn lose(&mut self, now: u64) {
        self.run(std::sync::Arc::default());
        self.calls.clear();
        self.session = Session::new(now);
        self.duty = Duty::Out { retry_at: now };
        self.office.leave(now);
    }

    pub(super) fn keep_session(&mut self, now: u64) {
        match &mut self.session {
            Session::None { retry_at } if *retry_at <= now && self.deaf_since.is_none() => {
                self.session = Session::Granting;
                self.call(Purpose::Grant, Call::Grant, now);
            }
            Session::Held {
                lease,
                keep_alive_at,
                asking,
                ..
            } if !*asking && *keep_alive_at <= now => {
                *asking = true;
                let lease = *lease;
                self.call(Purpose::KeepAlive, Call::KeepAlive(lease), now);
            }
            _ => {}
        }
    }

    pub(super) fn kept_alive(&mut self, answer: &Answer, sent: u64, now: u64) {
        if *answer == Answer::Gone {
            self.lose(now);
            return;
        }
        let lease_ms = self.settings.lease_ms;
        if let Session::Held {
            until,
            keep_alive_at,
            asking,
            ..
        } = &mut self.session
        {
            *asking = false;
            if *answer == Answer::Alive {
                *until = acts_until(sent, lease_ms).max(*until);
                *keep_alive_at = sent.saturating_add(lease_ms / KEEP_ALIVES_PER_LEASE);
            } else {
                *keep_alive_at = now.saturating_add(RETRY_MS);
            }
        }
    }
}
