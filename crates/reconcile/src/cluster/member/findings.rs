//! Verdicts on their way into the store.
//!
//! Each is written under three conditions: the worker's assignment is the one it works by, so that what it found
//! before a backend was given to somebody else is refused; its own key is the one that it wrote last, so that nothing
//! from before it lost a lease lands after it has registered again; and the verdict that stands there is the one it
//! knows of, so that a write that was given up and lands late cannot undo a newer one. Refused, or without an answer, it reads
//! what stands there and writes again if that differs, as long as the backend is its own: then nobody else can have
//! looked at it in between. Of one backend only the last verdict counts. What is equal to what stands there already
//! is not written again, unless a write without an answer may still be on its way: only another write keeps that
//! from landing. What stands about another membership of the backend is not equal, whatever it says.

use std::collections::{BTreeMap, BTreeSet};

use model::state::BackendId;

use super::super::Slot;
use super::super::records::{Condition, Key, Revision, Transaction, Value, VerdictRecord, Write};
use super::super::roster::Wanted;
use super::duty::Duty;
use super::{Answer, Call, CallId, Finding, Member, Purpose, RETRY_MS, WRITES_AT_ONCE};

/// One entry per backend that this worker checks and has found something of, until nobody wants it any more.
#[derive(Debug, Default)]
pub(super) struct Findings {
    entries: BTreeMap<BackendId, Pending>,
    /// Those with something to do and no call under way.
    waiting: BTreeSet<BackendId>,
    asking: usize,
    retry_at: u64,
}

#[derive(Debug, Default)]
struct Pending {
    /// What is to be written.
    wanted: Option<Finding>,
    /// What is being written.
    sent: Option<Finding>,
    /// Last change of the verdict in the store; `None`: to be read.
    stored: Option<Option<Revision>>,
    /// A write without an answer may still land.
    doubted: bool,
    asking: Option<CallId>,
}

impl Pending {
    /// Whether something is on its way, or may be.
    fn is_busy(&self) -> bool {
        self.wanted.is_some() || self.asking.is_some() || self.doubted
    }
}

impl Findings {
    pub(super) fn wake_at(&self) -> u64 {
        if self.waiting.is_empty() || self.asking >= WRITES_AT_ONCE {
            u64::MAX
        } else {
            self.retry_at
        }
    }

    /// Forgets those whose slot is not run any more.
    pub(super) fn keep_only(&mut self, slots: &BTreeSet<Slot>, of: u16) {
        let kept = |backend: &BackendId| slots.contains(&Slot::of(backend.address, of));
        self.entries.retain(|backend, _| kept(backend));
        self.waiting.retain(kept);
        self.asking = self
            .entries
            .values()
            .filter(|pending| pending.asking.is_some())
            .count();
    }

    /// Forgets those that nobody wants any more, once nothing is on its way: whoever comes back is read again before it
    /// is written.
    pub(super) fn keep_wanted(&mut self, wanted: &Wanted) {
        self.entries
            .retain(|backend, pending| pending.is_busy() || wanted.contains_key(backend));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn take(&mut self, finding: Finding) {
        let backend = finding.backend.clone();
        let pending = self.entries.entry(backend.clone()).or_default();
        pending.wanted = Some(finding);
        if pending.asking.is_none() {
            self.waiting.insert(backend);
        }
    }

    pub(super) fn read(&mut self, backend: &BackendId, id: CallId, answer: Answer, now: u64) {
        let Some(pending) = self.answered(backend, id) else {
            return;
        };
        let Answer::Read(mut entries) = answer else {
            self.retry_at = now.saturating_add(RETRY_MS);
            return;
        };
        let there = entries.pop().flatten();
        pending.stored = Some(there.as_ref().map(|(revision, _)| *revision));
        if let Some((_, Value::Verdict(there))) = there
            && let Some(wanted) = &pending.wanted
            && (wanted.health, &wanted.reason, wanted.life) == (there.health, &there.reason, there.life)
            && !pending.doubted
        {
            pending.wanted = None;
            self.waiting.remove(backend);
        }
    }

    pub(super) fn written(&mut self, backend: &BackendId, id: CallId, answer: &Answer, now: u64) {
        let Some(pending) = self.answered(backend, id) else {
            return;
        };
        let sent = pending.sent.take();
        if let Answer::Committed(revision) = *answer {
            pending.stored = Some(Some(revision));
            pending.doubted = false;
            return;
        }
        pending.stored = None;
        // A newer one has taken its place, or it is tried again.
        pending.wanted = pending.wanted.take().or(sent);
        pending.doubted |= *answer == Answer::Failed;
        self.waiting.insert(backend.clone());
        self.retry_at = now.saturating_add(RETRY_MS);
    }

    /// The entry whose call this was, if it still is: it waits again if there is something to do.
    fn answered(&mut self, backend: &BackendId, id: CallId) -> Option<&mut Pending> {
        let pending = self
            .entries
            .get_mut(backend)
            .filter(|pending| pending.asking == Some(id))?;
        pending.asking = None;
        self.asking -= 1;
        if pending.wanted.is_some() {
            self.waiting.insert(backend.clone());
        }
        Some(pending)
    }
}

impl Member {
    /// A verdict was reached. One of a check that does not run here any more is dropped: who runs it looks itself.
    pub(super) fn found(&mut self, finding: Finding) {
        if self
            .running
            .contains(&Slot::of(finding.backend.address, self.settings.slots))
        {
            self.findings.take(finding);
        }
    }

    pub(super) fn write_findings(&mut self, now: u64) {
        if !self.session.may_act(now) || self.findings.retry_at > now {
            return;
        }
        let Duty::In(work) = &self.duty else {
            return;
        };
        let Some(own) = work.own else {
            self.findings.retry_at = now.saturating_add(RETRY_MS);
            return;
        };
        let (epoch, assignment) = (work.given.epoch, work.given.revision);
        while self.findings.asking < WRITES_AT_ONCE
            && let Some(backend) = self.findings.waiting.pop_first()
        {
            let Some(pending) = self.findings.entries.get_mut(&backend) else {
                continue;
            };
            let key = Key::Verdict(backend.clone());
            let id = match pending.stored {
                None => self.call(Purpose::ReadVerdict(backend.clone()), Call::Read(vec![key]), now),
                Some(stored) => {
                    let Some(finding) = pending.wanted.take() else {
                        continue;
                    };
                    pending.sent = Some(finding.clone());
                    let conditions = vec![
                        Condition::Unchanged(Key::Assignment(self.name.clone()), assignment),
                        Condition::Unchanged(Key::Worker(self.name.clone()), own),
                        Condition::still(key.clone(), stored),
                    ];
                    let writes = vec![self.verdict(key, finding, epoch)];
                    let call = Call::Commit(Transaction { conditions, writes });
                    self.call(Purpose::WriteVerdict(backend.clone()), call, now)
                }
            };
            if let Some(pending) = self.findings.entries.get_mut(&backend) {
                pending.asking = Some(id);
                self.findings.asking += 1;
            }
        }
    }

    /// Deletes a verdict under the conditions of one that is written; of a slot that runs elsewhere it does not. It is
    /// tried once: who asks for it asks again.
    pub(super) fn take_back(&mut self, backend: &BackendId, revision: Revision, now: u64) {
        let slot = Slot::of(backend.address, self.settings.slots);
        let Duty::In(work) = &self.duty else {
            return;
        };
        let Some(own) = work.own.filter(|_| self.may_check(slot, now)) else {
            return;
        };
        let key = Key::Verdict(backend.clone());
        let conditions = vec![
            Condition::Unchanged(Key::Assignment(self.name.clone()), work.given.revision),
            Condition::Unchanged(Key::Worker(self.name.clone()), own),
            Condition::Unchanged(key.clone(), revision),
        ];
        let writes = vec![Write::Delete(key)];
        let call = Call::Commit(Transaction { conditions, writes });
        self.call(Purpose::TakeBack, call, now);
    }

    fn verdict(&self, key: Key, finding: Finding, epoch: Revision) -> Write {
        let value = VerdictRecord {
            health: finding.health,
            reason: finding.reason,
            at: finding.at,
            by: self.name.clone(),
            epoch,
            life: finding.life,
        };
        Write::Put {
            key,
            value: Value::Verdict(value),
            lease: None,
        }
    }
}
