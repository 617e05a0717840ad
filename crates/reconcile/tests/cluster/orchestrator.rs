//! An orchestrator of the simulation: its mind, the verdicts that it has seen, and the roster that its checks follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::board::{Board, Taken};
use evenkeel_reconcile::cluster::member::{Finding, Member};
use evenkeel_reconcile::cluster::records::{Key, Revision, Value, VerdictRecord};
use evenkeel_reconcile::cluster::roster::{Heard, Roster, Stays, Wanted};
use model::state::{BackendId, Standing, Target, Timestamp, Verdict};

use crate::store::Batch;

pub(crate) struct Orchestrator {
    pub(crate) member: Member,
    roster: Roster,
    board: Board,
    stays: Stays,
    next_stay: u64,
    /// When the check began by which something was found, of each membership; also by whoever it was gone on from.
    began: BTreeMap<(BackendId, u64), u64>,
    /// The same of what stood last in the store, as far as was heard: that may be written over, and be written again.
    stood: BTreeMap<(BackendId, u64), u64>,
}

impl Orchestrator {
    pub(crate) fn new(member: Member, slots: u16, wanted: Arc<Wanted>) -> Self {
        let mut roster = Roster::new(slots);
        roster.want(wanted, |_, _| None);
        Self {
            member,
            roster,
            board: Board::default(),
            stays: Stays::new(),
            next_stay: 1,
            began: BTreeMap::new(),
            stood: BTreeMap::new(),
        }
    }

    pub(crate) fn want(&mut self, wanted: Arc<Wanted>) {
        let board = &self.board;
        self.roster
            .want(wanted, |backend, life| standing(board, backend, life));
    }

    /// These slots run from now on.
    pub(crate) fn run(&mut self, slots: &BTreeSet<Slot>) {
        let stay = |slot: &Slot| (*slot, self.stays.get(slot).copied().unwrap_or(self.next_stay));
        self.stays = slots.iter().map(stay).collect();
        self.next_stay += 1;
        let board = &self.board;
        self.roster.run(Arc::new(self.stays.clone()), |backend, life| {
            standing(board, backend, life)
        });
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        self.roster.targets()
    }

    /// A check that began then brought this; what is to be written.
    pub(crate) fn found(&mut self, verdict: Verdict, began: u64) -> Option<Finding> {
        let verdict = self.roster.found(verdict)?;
        self.began
            .insert((verdict.backend.clone(), verdict.life.member), began);
        Some(self.finding(verdict))
    }

    /// Verdicts changed in the store; what is to be written.
    pub(crate) fn verdicts(&mut self, revision: Revision, batch: &Batch) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, value) in batch {
            let Key::Verdict(backend) = key else {
                continue;
            };
            let record = record(value.as_ref());
            self.note(backend, record.as_ref());
            let own = record.as_ref().is_some_and(|one| one.by == *self.member.name());
            let of_here = own && self.roster.has_found(backend);
            if self.board.store(backend, revision, record) == Taken::New && !of_here {
                findings.extend(self.compare(backend));
            }
        }
        findings
    }

    /// All verdicts of the store were listed; what is to be written.
    pub(crate) fn all_verdicts(
        &mut self,
        revision: Revision,
        entries: Vec<(Key, Revision, Value)>,
        wanted: &Wanted,
    ) -> Vec<Finding> {
        let entries = entries.into_iter().filter_map(|(key, changed, value)| match key {
            Key::Verdict(backend) => Some((backend, changed, record(Some(&value))?)),
            _ => None,
        });
        let entries: Vec<_> = entries.collect();
        for (backend, _, record) in &entries {
            self.note(backend, Some(record));
        }
        self.board.list(revision, entries);
        wanted
            .keys()
            .filter_map(|backend| self.compare(backend))
            .collect()
    }

    fn note(&mut self, backend: &BackendId, record: Option<&VerdictRecord>) {
        if let Some(record) = record {
            self.stood.insert((backend.clone(), record.life), record.at.0);
        }
    }

    /// As the task that keeps the roster does.
    fn compare(&mut self, backend: &BackendId) -> Option<Finding> {
        let life = self.roster.life(backend)?;
        match self.roster.heard(backend, standing(&self.board, backend, life)) {
            Heard::Write(verdict) => Some(self.finding(verdict)),
            Heard::GoOn | Heard::Nothing => None,
        }
    }

    fn finding(&self, verdict: Verdict) -> Finding {
        let life = verdict.life.member;
        let of = (verdict.backend.clone(), life);
        let began = match self.roster.has_found(&verdict.backend) {
            true => self.began.get(&of),
            false => self.stood.get(&of),
        };
        Finding {
            at: Timestamp(began.copied().unwrap_or(0)),
            backend: verdict.backend,
            health: verdict.health,
            reason: verdict.reason,
            life,
        }
    }
}

fn record(value: Option<&Value>) -> Option<VerdictRecord> {
    match value {
        Some(Value::Verdict(record)) => Some(record.clone()),
        _ => None,
    }
}

fn standing(board: &Board, backend: &BackendId, life: u64) -> Option<Standing> {
    board.stored(backend, life).map(|record| Standing {
        health: record.health,
        reason: record.reason.clone(),
    })
}
