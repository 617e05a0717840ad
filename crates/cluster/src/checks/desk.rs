//! What the task of [`super`] knows, and what follows from each thing that it learns. No IO.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::cluster::{ClusterNews, OrchestratorStatus, OrchestratorsStatus, OwnPart, PlanBStatus};
use model::config::{HealthCheck, Name};
use model::state::{BackendId, Standing, Target, Timestamp, Verdict};
use reconcile::cluster::Slot;
use reconcile::cluster::board::{Board, Taken};
use reconcile::cluster::member::{Event, Finding};
use reconcile::cluster::records::{Key, Revision, Value, VerdictRecord};
use reconcile::cluster::roster::{Heard, Roster, Wanted};
use reconcile::cluster::spread::weights;
use reconcile::cluster::view::View;
use reconcile::plan_b::{Phase, PlanB, Sight, Trouble};
use store::Followed;

use super::read;
use crate::Space;
use crate::member::{Post, Tell, VerdictWrites};

/// What is to be told.
pub(super) enum Told {
    /// To the hub.
    Belief(Verdict),
    /// To the hub.
    News(ClusterNews),
    /// To the orchestrator of this process.
    Part(Tell),
    /// Whom the orchestrator of this process checks.
    Targets(Vec<Target>),
    /// Whom this LB server checks for itself.
    OwnTargets(Vec<Target>),
}

/// The part of an orchestrator in this process.
struct Own {
    post: Post,
    writes: Arc<VerdictWrites>,
    roster: Roster,
}

pub(super) struct Desk {
    space: Space,
    slots: u16,
    wanted: Arc<Wanted>,
    view: View,
    /// Whether leader, workers and assignments are heard.
    hears_view: bool,
    /// Whether verdicts are.
    hears_verdicts: bool,
    board: Board,
    own: Option<Own>,
    plan_b: Option<Watchman>,
    /// The epoch of the last leader told.
    epoch: Revision,
    /// Backends of which something else may be believed.
    changed: BTreeSet<BackendId>,
    told: Vec<Told>,
}

/// Plan B, and what is shown of it.
struct Watchman {
    after_ms: u64,
    machine: PlanB,
    since: Timestamp,
    began: u64,
}

impl Desk {
    pub(super) fn new(
        space: Space,
        slots: u16,
        after: Option<Duration>,
        own: Option<(Post, Arc<VerdictWrites>)>,
    ) -> Self {
        Self {
            space,
            slots,
            wanted: Arc::default(),
            view: View::default(),
            hears_view: false,
            hears_verdicts: false,
            board: Board::default(),
            own: own.map(|(post, writes)| Own {
                post,
                writes,
                roster: Roster::new(slots),
            }),
            plan_b: after.map(|after| Watchman {
                after_ms: milliseconds(after),
                machine: PlanB::new(milliseconds(after), 0, 0),
                since: now(),
                began: 0,
            }),
            epoch: 0,
            changed: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    /// What is to be told, in order.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Other checks are wanted.
    pub(super) fn want(&mut self, wanted: Arc<Wanted>) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let new = self
            .wanted
            .iter()
            .filter(|(backend, check)| before.get(*backend) != Some(*check));
        self.changed.extend(new.map(|(backend, _)| backend.clone()));
        let wanted = self.wanted.clone();
        self.board.keep(|backend| wanted.contains_key(backend));
        let board = &self.board;
        if let Some(own) = &mut self.own {
            own.roster
                .want(self.wanted.clone(), |backend| standing(board, backend));
            self.told.push(Told::Targets(own.roster.targets()));
            let checks = self
                .wanted
                .iter()
                .map(|(backend, check)| (backend.address, &**check));
            let weights = weights(checks, self.slots).into();
            self.told.push(Told::Part(Tell::Weights(weights)));
        }
        if let Some(plan_b) = &mut self.plan_b {
            let slowest = self.wanted.values().map(|check| once_made(check)).max();
            plan_b.machine.set_settle(slowest.unwrap_or(0));
        }
        self.check_alone();
    }

    /// Something was seen of leader, workers or assignments.
    pub(super) fn see(&mut self, event: Event) {
        match event {
            Event::Changes(changes) => self.view.apply(changes),
            Event::Listed(listing) => {
                if listing.revision < self.view.seen(listing.prefix) {
                    // The store went back: what was seen of it is of another one.
                    self.view = View::default();
                }
                self.view.list(listing);
            }
            Event::CutOff => self.hears_view = false,
            Event::Hearing => self.hears_view = true,
            _ => {}
        }
    }

    /// Something was seen of the verdicts.
    pub(super) fn follow(&mut self, followed: Followed) {
        match followed {
            Followed::CutOff(_) => self.hears_verdicts = false,
            Followed::Back => self.hears_verdicts = true,
            Followed::Listed(listing) => {
                self.hears_verdicts = true;
                let entries = listing.entries.iter().filter_map(|entry| {
                    let (backend, verdict) = self.read(&entry.key, Some(&entry.value))?;
                    Some((backend, entry.changed.0, verdict?))
                });
                let entries = entries.collect();
                self.changed.extend(self.board.list(listing.revision.0, entries));
                let all: Vec<BackendId> = self.wanted.keys().cloned().collect();
                self.compare(&all);
            }
            Followed::Changed(changes) => {
                let mut foreign = Vec::new();
                for event in changes.events.iter() {
                    let value = match event {
                        store::Event::Put(entry) => Some(&*entry.value),
                        store::Event::Deleted { .. } => None,
                    };
                    let Some((backend, verdict)) = self.read(event.key(), value) else {
                        continue;
                    };
                    let own = verdict.as_ref().is_some_and(|verdict| self.is_own(&verdict.by));
                    match self.board.store(&backend, changes.revision.0, verdict) {
                        Taken::New => {
                            self.changed.insert(backend.clone());
                        }
                        Taken::Old => continue,
                        Taken::EarlierEpoch => {
                            tracing::warn!(%backend, "a verdict of an earlier epoch is passed over");
                            continue;
                        }
                    }
                    if !own {
                        foreign.push(backend);
                    }
                }
                self.compare(&foreign);
            }
        }
    }

    fn read(&self, key: &str, value: Option<&[u8]>) -> Option<(BackendId, Option<VerdictRecord>)> {
        let key = Key::parse(self.space.path(key)?)?;
        let verdict = value.and_then(|value| match read(&key, value) {
            Value::Verdict(verdict) => Some(verdict),
            _ => None,
        });
        match key {
            Key::Verdict(backend) => Some((backend, verdict)),
            _ => None,
        }
    }

    fn is_own(&self, name: &Name) -> bool {
        self.own.as_ref().is_some_and(|own| own.post.name == *name)
    }

    /// Holds what was found here against what stands in the store.
    fn compare(&mut self, backends: &[BackendId]) {
        let Some(own) = &mut self.own else {
            return;
        };
        let mut goes_on = false;
        for backend in backends {
            match own.roster.heard(backend, standing(&self.board, backend)) {
                Heard::Nothing => {}
                Heard::GoOn => goes_on = true,
                Heard::Write(verdict) => self.told.push(Told::Part(Tell::Found(finding(verdict)))),
            }
        }
        if goes_on {
            self.told.push(Told::Targets(own.roster.targets()));
        }
    }

    /// The orchestrator of this process stands otherwise.
    pub(super) fn post(&mut self, post: Post) {
        let board = &self.board;
        if let Some(own) = &mut self.own {
            if own.post.stays != post.stays {
                own.roster
                    .run(post.stays.clone(), |backend| standing(board, backend));
                self.told.push(Told::Targets(own.roster.targets()));
            }
            own.post = post;
        }
    }

    /// A check of the orchestrator of this process brought a verdict.
    pub(super) fn found(&mut self, verdict: Verdict) {
        if let Some(own) = &mut self.own
            && own.roster.found(&verdict)
        {
            self.told.push(Told::Part(Tell::Found(finding(verdict))));
        }
    }

    /// A check that this LB server makes for itself brought a verdict.
    pub(super) fn own(&mut self, verdict: Verdict) {
        let current = self
            .plan_b
            .as_ref()
            .is_some_and(|plan_b| plan_b.began == verdict.life);
        if current && self.checks_alone() && self.wanted.contains_key(&verdict.backend) {
            self.changed.insert(verdict.backend.clone());
            self.board.own(verdict);
        }
    }

    /// Looks at all that is, and says what follows.
    pub(super) fn look(&mut self, now_ms: u64) {
        if let Some(leader) = &self.view.leader
            && leader.revision != self.epoch
        {
            self.epoch = leader.revision;
            self.told.push(Told::News(ClusterNews::Leader {
                name: leader.value.name.clone(),
                epoch: leader.revision,
            }));
        }
        self.look_after_plan_b(now_ms);
        let source = self.source();
        for backend in std::mem::take(&mut self.changed) {
            if !self.wanted.contains_key(&backend) {
                continue;
            }
            if let Some(belief) = self.board.belief(&backend, source) {
                let verdict = Verdict {
                    health: belief.health,
                    reason: belief.reason.to_owned(),
                    backend,
                    life: 0,
                };
                self.told.push(Told::Belief(verdict));
            }
        }
    }

    fn look_after_plan_b(&mut self, now_ms: u64) {
        let sight = Sight {
            connected: self.hears_view && self.hears_verdicts,
            workers: self.view.workers.len(),
            led: self.view.leader.is_some(),
            given_out: self.view.is_given_out(self.slots),
        };
        let Some(plan_b) = &mut self.plan_b else {
            return;
        };
        if self.wanted.is_empty() {
            // Nothing to look after: the time begins when there is.
            let began = plan_b.machine.phase().checks();
            plan_b.machine = PlanB::new(plan_b.after_ms, 0, now_ms);
            plan_b.since = now();
            if began {
                self.hand_back();
            }
            return;
        }
        let before = plan_b.machine.phase();
        let Some(phase) = plan_b.machine.see(sight, now_ms) else {
            return;
        };
        if before.as_str() != phase.as_str() {
            plan_b.since = now();
        }
        match (before.checks(), phase.checks()) {
            (false, true) => {
                plan_b.began += 1;
                let why = trouble(phase).unwrap_or_default();
                self.told.push(Told::News(ClusterNews::PlanBBegan { why }));
                self.check_alone();
            }
            (true, false) => self.hand_back(),
            _ => {}
        }
    }

    fn hand_back(&mut self) {
        self.board.forget_own();
        self.changed.extend(self.wanted.keys().cloned());
        self.told.push(Told::News(ClusterNews::PlanBEnded));
        self.told.push(Told::OwnTargets(Vec::new()));
    }

    /// Says whom this LB server checks for itself, while it does.
    fn check_alone(&mut self) {
        let Some(plan_b) = self
            .plan_b
            .as_ref()
            .filter(|plan_b| plan_b.machine.phase().checks())
        else {
            return;
        };
        let target = |(backend, check): (&BackendId, &Arc<HealthCheck>)| Target {
            backend: backend.clone(),
            check: check.clone(),
            life: plan_b.began,
            standing: standing(&self.board, backend),
        };
        let targets = self.wanted.iter().map(target).collect();
        self.told.push(Told::OwnTargets(targets));
    }

    fn checks_alone(&self) -> bool {
        self.plan_b
            .as_ref()
            .is_some_and(|plan_b| plan_b.machine.phase().checks())
    }

    fn source(&self) -> reconcile::cluster::board::Source {
        self.plan_b
            .as_ref()
            .map_or(Phase::Following, |plan_b| plan_b.machine.phase())
            .source()
    }

    /// When to look again though nothing has happened, in milliseconds; `None`: never.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let plan_b = self.plan_b.as_ref().filter(|_| !self.wanted.is_empty())?;
        Some(plan_b.machine.wake_at()).filter(|at| *at != u64::MAX)
    }

    pub(super) fn status(&self) -> OrchestratorsStatus {
        let slots_of = |name: &Name| {
            let given = self.view.assignments.get(name);
            given.map_or(0, |given| given.value.slots.range(..Slot(self.slots)).count())
        };
        let orchestrators = self.view.workers.keys().map(|name| OrchestratorStatus {
            name: name.clone(),
            slots: narrow(slots_of(name)),
            settled: self.view.is_settled(name),
        });
        let orchestrators: Vec<_> = orchestrators.collect();
        let checked = orchestrators
            .iter()
            .filter(|one| one.settled)
            .map(|one| one.slots)
            .sum();
        OrchestratorsStatus {
            heard: self.hears_view && self.hears_verdicts,
            leader: self.view.leader.as_ref().map(|leader| leader.value.name.clone()),
            epoch: self.view.leader.as_ref().map(|leader| leader.revision),
            slots: self.slots,
            slots_unchecked: self.slots.saturating_sub(checked),
            orchestrators,
            own: self.own.as_ref().map(Own::status),
            plan_b: self
                .plan_b
                .as_ref()
                .filter(|_| !self.wanted.is_empty())
                .map(Watchman::status),
        }
    }
}

impl Own {
    fn status(&self) -> OwnPart {
        OwnPart {
            name: Some(self.post.name.clone()),
            slots: narrow(self.post.stays.len()),
            leads: self.post.leads.is_some(),
            frozen: self.post.frozen,
            verdicts_written: self.writes.written.load(Relaxed),
            verdicts_refused: self.writes.refused.load(Relaxed),
            verdicts_failed: self.writes.failed.load(Relaxed),
        }
    }
}

impl Watchman {
    fn status(&self) -> PlanBStatus {
        PlanBStatus {
            phase: self.machine.phase().as_str().to_owned(),
            since: self.since,
            why: trouble(self.machine.phase()),
            began: self.began,
        }
    }
}

fn trouble(phase: Phase) -> Option<String> {
    let name = |trouble: Trouble| trouble.as_str().to_owned();
    match phase {
        Phase::Holding(trouble, _) | Phase::OwnChecks(trouble) => Some(name(trouble)),
        Phase::Following | Phase::HandingBack(_) => None,
    }
}

fn standing(board: &Board, backend: &BackendId) -> Option<Standing> {
    board.stored(backend).map(|verdict| Standing {
        health: verdict.health,
        reason: verdict.reason.clone(),
    })
}

fn finding(verdict: Verdict) -> Finding {
    Finding {
        backend: verdict.backend,
        health: verdict.health,
        reason: verdict.reason,
        at: now(),
    }
}

/// How long it may take until a check has been made once.
fn once_made(check: &HealthCheck) -> u64 {
    let interval = milliseconds(check.interval);
    let jitter = interval.saturating_mul(u64::from(check.jitter.min(100))) / 100;
    interval
        .saturating_add(jitter)
        .saturating_add(milliseconds(check.timeout))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn narrow(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(milliseconds(since))
}
