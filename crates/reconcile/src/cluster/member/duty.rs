//! The worker: registers, takes its assignment, stops what was taken, acknowledges.
//!
//! To register it reads its assignment and its own key, and writes the key under the condition that both are as
//! read. With that it has acknowledged exactly the assignment that it begins with, and anything that a leader did
//! about it in the meantime, or a former call of its own that lands late, makes it look again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Slot;
use super::super::records::{Assignment, Condition, Key, Revision, Transaction, Value, WorkerRecord, Write};
use super::super::view::Prefix;
use super::{Answer, Call, Member, Purpose, RETRY_MS};

#[derive(Debug)]
pub(super) enum Duty {
    /// Not registered.
    Out { retry_at: u64 },
    /// Reading what stands there.
    Looking,
    /// Writing its key.
    Registering { given: Given },
    /// At work.
    In(Work),
}

/// An assignment as it was read; at revision 0 there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) revision: Revision,
    pub(super) epoch: Revision,
    slots: Arc<BTreeSet<Slot>>,
}

impl Given {
    fn of(revision: Revision, assignment: &Assignment) -> Self {
        Self {
            revision,
            epoch: assignment.epoch,
            slots: Arc::new(assignment.slots.clone()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) given: Given,
    /// What is in force is known up to here: older news of it, seen late, are no news.
    as_of: Revision,
    /// Last change of its own key; `None`: to be read.
    pub(super) own: Option<Revision>,
    acknowledged: Revision,
    /// A call about its own key is under way.
    asking: bool,
    retry_at: u64,
}

impl Duty {
    pub(super) fn wake_at(&self) -> u64 {
        match self {
            Self::Out { retry_at } => *retry_at,
            Self::In(work) if work.is_behind() => work.retry_at,
            _ => u64::MAX,
        }
    }
}

impl Work {
    /// Whether it has to write or read its own key, and is not at it.
    fn is_behind(&self) -> bool {
        !self.asking && (self.own.is_none() || self.acknowledged != self.given.revision)
    }
}

impl Member {
    pub(super) fn do_duty(&mut self, now: u64) {
        if !self.session.may_act(now) {
            return;
        }
        match &self.duty {
            Duty::Out { retry_at } if *retry_at <= now => {
                self.duty = Duty::Looking;
                let keys = vec![Key::Worker(self.name.clone()), Key::Assignment(self.name.clone())];
                self.call(Purpose::Look, Call::Read(keys), now);
            }
            Duty::In(_) => {
                self.take_assignment(now);
                self.acknowledge(now);
            }
            _ => {}
        }
    }

    /// What stands there was read: registers with it.
    pub(super) fn looked(&mut self, answer: Answer, now: u64) {
        let Answer::Read(mut entries) = answer else {
            return self.look_later(now);
        };
        let assignment = entries.pop().flatten();
        let own = entries.pop().flatten().map(|(revision, _)| revision);
        let given = match &assignment {
            None => Given::default(),
            Some((revision, Value::Assignment(assignment))) => Given::of(*revision, assignment),
            // It cannot be read, so nothing of it is carried out. Who is there is given another.
            Some(_) => Given::default(),
        };
        let conditions = vec![
            Condition::still(Key::Worker(self.name.clone()), own),
            Condition::still(
                Key::Assignment(self.name.clone()),
                assignment.map(|(revision, _)| revision),
            ),
        ];
        self.write_own(Purpose::Register, conditions, given.revision, now);
        self.duty = Duty::Registering { given };
    }

    pub(super) fn registered(&mut self, answer: &Answer, now: u64) {
        let Duty::Registering { given } = &self.duty else {
            return;
        };
        let Answer::Committed(revision) = *answer else {
            return self.look_later(now);
        };
        let given = given.clone();
        let slots = given.slots.clone();
        self.duty = Duty::In(Work {
            as_of: revision,
            own: Some(revision),
            acknowledged: given.revision,
            asking: false,
            retry_at: now,
            given,
        });
        self.run(slots);
    }

    fn look_later(&mut self, now: u64) {
        self.duty = Duty::Out {
            retry_at: now.saturating_add(RETRY_MS),
        };
    }

    /// Carries out what the view has of its assignment, if that is newer than what is in force.
    fn take_assignment(&mut self, now: u64) {
        let seen = self.view.seen(Prefix::Assignments);
        let Duty::In(work) = &mut self.duty else {
            return;
        };
        let gone = |own| self.view.seen(Prefix::Workers) > own && !self.view.workers.contains_key(&self.name);
        match self.view.assignments.get(&self.name) {
            // Its own key has been taken away, by nobody who works as agreed: nobody knows of it any more.
            _ if work.own.is_some_and(gone) => self.lose(now),
            Some(entry) if entry.revision > work.as_of => {
                work.given = Given::of(entry.revision, &entry.value);
                work.as_of = entry.revision;
                work.retry_at = now;
                let slots = work.given.slots.clone();
                self.run(slots);
            }
            // Only the dead have theirs deleted: the lease is over, whatever the clock says.
            None if work.given.revision > 0 && seen > work.as_of => self.lose(now),
            _ => {}
        }
    }

    fn acknowledge(&mut self, now: u64) {
        let Duty::In(work) = &mut self.duty else {
            return;
        };
        if !work.is_behind() || work.retry_at > now {
            return;
        }
        work.asking = true;
        let (own, carried_out) = (work.own, work.given.revision);
        let key = Key::Worker(self.name.clone());
        match own {
            None => {
                self.call(Purpose::ReadOwn, Call::Read(vec![key]), now);
            }
            Some(own) => {
                let conditions = vec![Condition::Unchanged(key, own)];
                self.write_own(Purpose::Acknowledge(carried_out), conditions, carried_out, now);
            }
        }
    }

    pub(super) fn acknowledged(&mut self, answer: &Answer, carried_out: Revision, now: u64) {
        let Duty::In(work) = &mut self.duty else {
            return;
        };
        work.asking = false;
        if let Answer::Committed(revision) = *answer {
            work.own = Some(revision);
            work.acknowledged = carried_out;
        } else {
            work.own = None;
            work.retry_at = now.saturating_add(RETRY_MS);
        }
    }

    pub(super) fn read_own(&mut self, answer: Answer, now: u64) {
        let Duty::In(work) = &mut self.duty else {
            return;
        };
        work.asking = false;
        let Answer::Read(mut entries) = answer else {
            work.retry_at = now.saturating_add(RETRY_MS);
            return;
        };
        match entries.pop().flatten() {
            Some((revision, Value::Worker(own))) => {
                work.own = Some(revision);
                work.acknowledged = own.acknowledged;
            }
            Some((revision, _)) => work.own = Some(revision),
            // The key went with the lease.
            None => self.lose(now),
        }
    }

    /// Takes itself out of its assignment, with nothing running any more; `None` when it has none.
    pub(super) fn farewell(&self) -> Option<Transaction> {
        let Duty::In(work) = &self.duty else {
            return None;
        };
        let key = Key::Assignment(self.name.clone());
        (work.given.revision > 0).then(|| Transaction {
            conditions: vec![Condition::Unchanged(key.clone(), work.given.revision)],
            writes: vec![Write::Delete(key), Write::Delete(Key::Worker(self.name.clone()))],
        })
    }

    fn write_own(&mut self, why: Purpose, conditions: Vec<Condition>, acknowledged: Revision, now: u64) {
        let Some(lease) = self.session.lease() else {
            return;
        };
        let put = Write::Put {
            key: Key::Worker(self.name.clone()),
            value: Value::Worker(WorkerRecord { lease, acknowledged }),
            lease: Some(lease),
        };
        let writes = vec![put];
        self.call(why, Call::Commit(Transaction { conditions, writes }), now);
    }
}
