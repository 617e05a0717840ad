//! Stands for election, and plans rounds while it leads.
//!
//! The leader's key hangs on the same lease as the worker's, so a leader steps down by its own clock before the
//! store can give the key to another. Its rounds compare the key besides: what it decided before it was stopped
//! and sends after is refused.

use model::config::Name;

use super::super::plan::Planner;
use super::super::records::{Condition, Key, Leadership, LeaseId, Revision, Transaction, Value, Write};
use super::super::view::{Prefix, View};
use super::duty::Duty;
use super::{Answer, Call, Member, Purpose, RETRY_MS, ROUND_MS, Settings};

#[derive(Debug)]
pub(super) struct Office {
    state: State,
    planner: Planner,
    settings: Settings,
    /// When it looks again whether there is something to do; a change of the view comes before.
    look_at: u64,
    /// After a failure it waits until then, whatever changes.
    wait_until: u64,
    /// Revision of the last round that it knows it made: a view without that is too old to plan from.
    last_round: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Following,
    Campaigning,
    Leading {
        epoch: Revision,
    },
    /// Leading, with a round under way.
    Deciding {
        epoch: Revision,
    },
}

impl Office {
    pub(super) fn new(settings: Settings, now: u64) -> Self {
        Self {
            state: State::Following,
            planner: Planner::new(settings.lease_ms, settings.max_moves),
            settings,
            look_at: now,
            wait_until: now,
            last_round: 0,
        }
    }

    pub(super) fn epoch(&self) -> Option<Revision> {
        match self.state {
            State::Leading { epoch } | State::Deciding { epoch } => Some(epoch),
            _ => None,
        }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.epoch().is_some() && self.planner.is_frozen()
    }

    pub(super) fn wake_at(&self) -> u64 {
        match self.state {
            State::Following | State::Leading { .. } => self.look_at.max(self.wait_until),
            _ => u64::MAX,
        }
    }

    /// Something changed.
    pub(super) fn look(&mut self, now: u64) {
        self.look_at = self.look_at.min(now);
    }

    /// Leads no longer, or not yet.
    pub(super) fn leave(&mut self, now: u64) {
        self.state = State::Following;
        self.look_at = now;
        self.wait_until = now;
    }

    fn take(&mut self, epoch: Revision, now: u64) {
        self.state = State::Leading { epoch };
        self.planner = Planner::new(self.settings.lease_ms, self.settings.max_moves);
        self.look_at = now;
    }

    fn wait(&mut self, now: u64) {
        self.wait_until = now.saturating_add(RETRY_MS);
    }

    /// Goes by what the view says of the leader's key, where that is newer than what is known.
    fn follow(&mut self, view: &View, name: &Name, lease: Option<LeaseId>, now: u64) {
        let own = view
            .leader
            .as_ref()
            .filter(|leader| leader.value.name == *name && Some(leader.value.lease) == lease);
        match (self.epoch(), own) {
            // A campaign whose answer was lost was won.
            (None, Some(own)) => self.take(own.revision, now),
            (Some(epoch), None) if view.seen(Prefix::Leader) > epoch => self.leave(now),
            _ => {}
        }
    }

    pub(super) fn round_ended(&mut self, answer: &Answer, now: u64) {
        if let State::Deciding { epoch } = self.state {
            self.state = State::Leading { epoch };
        }
        match *answer {
            Answer::Committed(revision) => {
                self.last_round = revision;
                self.look_at = now;
            }
            // The view is behind; when it changes there is something to plan from.
            Answer::Conflict => self.look_at = now.saturating_add(RETRY_MS),
            _ => self.wait(now),
        }
    }
}

impl Member {
    pub(super) fn hold_office(&mut self, now: u64) {
        if !self.session.may_act(now) || !matches!(self.duty, Duty::In(_)) {
            return;
        }
        self.office
            .follow(&self.view, &self.name, self.session.lease(), now);
        if self.office.look_at > now || self.office.wait_until > now {
            return;
        }
        match self.office.state {
            State::Following if self.view.leader.is_none() && self.view.is_whole() => {
                match self.view.unread.get(&Key::Leader).copied() {
                    None => self.campaign(now),
                    // Of somebody who leads and is of another version: it goes with the lease.
                    Some(there) if there.leased => {}
                    Some(there) => self.clear(there.revision, now),
                }
            }
            State::Leading { epoch } => self.decide(epoch, now),
            _ => {}
        }
        self.office.look_at = now.saturating_add(ROUND_MS);
    }

    fn campaign(&mut self, now: u64) {
        let Some(lease) = self.session.lease() else {
            return;
        };
        self.office.state = State::Campaigning;
        let value = Value::Leader(Leadership {
            name: self.name.clone(),
            lease,
        });
        let put = Write::Put {
            key: Key::Leader,
            value,
            lease: Some(lease),
        };
        let transaction = Transaction {
            conditions: vec![Condition::Absent(Key::Leader)],
            writes: vec![put],
        };
        self.call(Purpose::Campaign, Call::Commit(transaction), now);
    }

    /// Deletes what cannot be read under the leader's key and holds nobody's lease: nobody leads by it. It is not
    /// written over, because the revision that *made* the key is the epoch.
    fn clear(&mut self, revision: Revision, now: u64) {
        self.office.state = State::Campaigning;
        let transaction = Transaction {
            conditions: vec![Condition::Unchanged(Key::Leader, revision)],
            writes: vec![Write::Delete(Key::Leader)],
        };
        self.call(Purpose::Clear, Call::Commit(transaction), now);
    }

    /// Whatever came of that, the view will tell.
    pub(super) fn cleared(&mut self, now: u64) {
        self.office.state = State::Following;
        self.office.wait(now);
    }

    pub(super) fn campaigned(&mut self, answer: &Answer, now: u64) {
        match *answer {
            Answer::Committed(epoch) => self.office.take(epoch, now),
            // The view will tell who won.
            _ => {
                self.office.state = State::Following;
                self.office.wait(now);
            }
        }
    }

    fn decide(&mut self, epoch: Revision, now: u64) {
        // Not by what the view has of the round: somebody may have deleted that.
        let known = self.view.seen(Prefix::Assignments);
        if known < self.office.last_round || !self.view.is_whole() {
            return;
        }
        let round = self
            .office
            .planner
            .plan(&self.view, &self.weights, &self.name, epoch, now);
        if let Some(transaction) = round {
            self.office.state = State::Deciding { epoch };
            self.call(Purpose::Round, Call::Commit(transaction), now);
        }
    }
}
