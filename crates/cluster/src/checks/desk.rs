//! What the task of [`super`] knows, and what follows from each thing that it learns. No IO.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::cluster::{ClusterNews, OrchestratorStatus, OrchestratorsStatus, OwnPart, PlanBStatus};
use model::config::{HealthCheck, Name};
use model::state::{BackendId, Life, PoolKey, Standing, Target, Timestamp, Verdict};
use reconcile::cluster::Slot;
use reconcile::cluster::board::{Board, Source, Taken};
use reconcile::cluster::member::{Event, Finding};
use reconcile::cluster::records::{Key, Revision, Value, VerdictRecord};
use reconcile::cluster::roster::{Heard, Roster, Wanted, Wish};
use reconcile::cluster::spread::weights;
use reconcile::cluster::view::View;
use reconcile::plan_b::{Phase, PlanB, Sight, Trouble};
use store::Followed;

use super::strangers::Strangers;
use super::unsure::Unsure;
use super::{Owners, read};
use crate::Space;
use crate::member::{Post, Tell, VerdictWrites};

/// A verdict that was found is in the store and heard of everywhere after so long.
const WRITTEN_MS: u64 = 2000;

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
    /// What all orchestrators check.
    shared: Arc<Wanted>,
    post: Post,
    writes: Arc<VerdictWrites>,
    roster: Roster,
    strangers: Strangers,
}

pub(super) struct Desk {
    space: Space,
    slots: u16,
    /// What this node serves.
    wanted: Arc<Wanted>,
    view: View,
    /// It has changed since somebody asked who checks what.
    view_changed: bool,
    /// Whether leader, workers and assignments are heard.
    hears_view: bool,
    /// Whether verdicts are.
    hears_verdicts: bool,
    board: Board,
    own: Option<Own>,
    plan_b: Option<Watchman>,
    unsure: Unsure,
    /// The epoch of the last leader told.
    epoch: Revision,
    /// Backends of which something else may be believed.
    changed: BTreeSet<BackendId>,
    /// What the hub was told last of each backend that is served, in its present membership.
    believed: BTreeMap<BackendId, Verdict>,
    /// Whether that has changed since somebody asked.
    believes_otherwise: bool,
    /// What was believed before this process began, until the store has told of all verdicts.
    earlier: BTreeMap<BackendId, Verdict>,
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
        own: Option<(Post, Arc<VerdictWrites>, Duration)>,
    ) -> Self {
        Self {
            space,
            slots,
            wanted: Arc::default(),
            view: View::default(),
            view_changed: true,
            hears_view: false,
            hears_verdicts: false,
            board: Board::default(),
            own: own.map(|(post, writes, patience)| Own {
                shared: Arc::default(),
                post,
                writes,
                roster: Roster::new(slots),
                strangers: Strangers::new(patience),
            }),
            plan_b: after.map(|after| Watchman {
                after_ms: milliseconds(after),
                machine: PlanB::new(milliseconds(after), 0, 0),
                since: now(),
                began: 0,
            }),
            unsure: Unsure::default(),
            epoch: 0,
            changed: BTreeSet::new(),
            believed: BTreeMap::new(),
            believes_otherwise: false,
            earlier: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// What was believed before this process began.
    pub(super) fn remember(&mut self, earlier: Vec<Verdict>) {
        let each = earlier.into_iter();
        self.earlier = each.map(|verdict| (verdict.backend.clone(), verdict)).collect();
    }

    /// What is believed, to be kept for the next start.
    pub(super) fn believed(&self) -> Vec<Verdict> {
        let mut all = self.earlier.clone();
        all.extend(self.believed.iter().map(|(b, v)| (b.clone(), v.clone())));
        all.into_values().collect()
    }

    /// Whether that has changed since this was asked last.
    pub(super) fn believes_otherwise(&mut self) -> bool {
        std::mem::take(&mut self.believes_otherwise)
    }

    /// What is to be told, in order.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Other backends are served.
    pub(super) fn want(&mut self, wanted: Arc<Wanted>) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let new = self
            .wanted
            .iter()
            .filter(|(backend, wish)| before.get(*backend) != Some(*wish));
        self.changed.extend(new.map(|(backend, _)| backend.clone()));
        let served = &self.wanted;
        self.believed.retain(|backend, told| {
            served
                .get(backend)
                .is_some_and(|wish| wish.life == told.life.member)
        });
        self.keep();
        if let Some(plan_b) = &mut self.plan_b {
            let slowest = self.wanted.values().map(|wish| surely_found(&wish.check)).max();
            plan_b.machine.set_settle(slowest.unwrap_or(0));
        }
        self.check_alone();
    }

    /// Of these the orchestrators may know nothing.
    pub(super) fn doubt(&mut self, unsure: Arc<Wanted>) {
        self.changed.extend(self.unsure.are(unsure));
    }

    /// The orchestrators have other backends to check.
    pub(super) fn share_out(&mut self, shared: Arc<Wanted>) {
        let board = &self.board;
        let Some(own) = &mut self.own else {
            return;
        };
        own.shared = shared.clone();
        let checks = shared
            .iter()
            .map(|(backend, wish)| (backend.address, &*wish.check));
        let weights = weights(checks, self.slots).into();
        own.roster
            .want(shared.clone(), |backend, life| standing(board, backend, life));
        self.told.push(Told::Targets(own.roster.targets()));
        self.told.push(Told::Part(Tell::Wanted(shared, weights)));
        self.keep();
    }

    /// Members of these pools of the store are looked up by a name.
    pub(super) fn named(&mut self, pools: Arc<BTreeSet<PoolKey>>) {
        if let Some(own) = &mut self.own {
            own.strangers.named(pools);
        }
    }

    /// Has verdicts taken back that stand in slots of this process on backends that it does not know.
    fn look_for_strangers(&mut self, now_ms: u64) {
        let Some(own) = &mut self.own else {
            return;
        };
        if !self.hears_verdicts {
            return own.strangers.forget();
        }
        let Own {
            shared,
            post,
            strangers,
            ..
        } = own;
        let unknown = self
            .board
            .standing()
            .filter(|(backend, _)| !shared.contains_key(*backend));
        let stay = |backend: &BackendId| post.stays.get(&Slot::of(backend.address, self.slots)).copied();
        for (backend, revision) in strangers.look(unknown, stay, now_ms) {
            tracing::debug!(%backend, "its slot is here, and it is not known here: its verdict is taken back");
            self.told.push(Told::Part(Tell::Unknown(backend, revision)));
        }
    }

    /// Forgets what is known of backends that are nobody's any more.
    fn keep(&mut self) {
        let (served, own) = (self.wanted.clone(), &self.own);
        let is_shared =
            |backend: &BackendId| own.as_ref().is_some_and(|own| own.shared.contains_key(backend));
        self.board.keep(
            |backend| served.contains_key(backend),
            |backend| served.contains_key(backend) || is_shared(backend),
        );
    }

    /// Something was seen of leader, workers or assignments.
    pub(super) fn see(&mut self, event: Event) {
        self.view_changed = true;
        match event {
            Event::Changes(changes) => self.view.apply(changes),
            Event::Listed(listing) => self.view.list(listing),
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
            Followed::Listed(listing) | Followed::Another(listing) => {
                self.hears_verdicts = true;
                // From here on the store has the word; of what it says nothing about, what was told stands.
                self.earlier.clear();
                let entries = listing.entries.iter().filter_map(|entry| {
                    let (backend, verdict) = self.read(&entry.key, Some(entry))?;
                    Some((backend, entry.changed.0, verdict?))
                });
                let entries = entries.collect();
                self.changed.extend(self.board.list(listing.revision.0, entries));
                let all: Option<Vec<BackendId>> =
                    self.own.as_ref().map(|own| own.shared.keys().cloned().collect());
                self.compare(&all.unwrap_or_default());
            }
            Followed::Changed(changes) => {
                let mut foreign = Vec::new();
                for event in changes.events.iter() {
                    let entry = match event {
                        store::Event::Put(entry) => Some(entry),
                        store::Event::Deleted { .. } => None,
                    };
                    let Some((backend, verdict)) = self.read(event.key(), entry) else {
                        continue;
                    };
                    let of_here = verdict
                        .as_ref()
                        .is_some_and(|verdict| self.is_of_here(&backend, verdict));
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
                    if !of_here {
                        foreign.push(backend);
                    }
                }
                self.compare(&foreign);
            }
        }
    }

    fn read(&self, key: &str, entry: Option<&store::Entry>) -> Option<(BackendId, Option<VerdictRecord>)> {
        let key = Key::parse(self.space.path(key)?)?;
        let verdict = entry.and_then(|entry| match read(&key, entry) {
            Value::Verdict(verdict) => Some(verdict),
            _ => None,
        });
        match key {
            Key::Verdict(backend) => Some((backend, verdict)),
            _ => None,
        }
    }

    /// Whether this process wrote a verdict, and what it has found last of the backend is that one or follows it. One that
    /// it wrote before its slot went away and came back is as anybody's.
    fn is_of_here(&self, backend: &BackendId, verdict: &VerdictRecord) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.post.name == verdict.by && own.roster.has_found(backend))
    }

    /// Holds what was found here against what stands in the store.
    fn compare(&mut self, backends: &[BackendId]) {
        let Some(own) = &mut self.own else {
            return;
        };
        let mut goes_on = false;
        for backend in backends {
            let Some(life) = own.roster.life(backend) else {
                continue;
            };
            match own.roster.heard(backend, standing(&self.board, backend, life)) {
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
                    .run(post.stays.clone(), |backend, life| standing(board, backend, life));
                self.told.push(Told::Targets(own.roster.targets()));
            }
            own.post = post;
        }
    }

    /// A check of the orchestrator of this process brought a verdict.
    pub(super) fn found(&mut self, verdict: Verdict) {
        if let Some(own) = &mut self.own
            && let Some(verdict) = own.roster.found(verdict)
        {
            self.told.push(Told::Part(Tell::Found(finding(verdict))));
        }
    }

    /// A check that this LB server makes for itself brought a verdict.
    pub(super) fn own(&mut self, verdict: Verdict) {
        let plan_b = self.plan_b.as_ref();
        let wanted = self.wanted.get(&verdict.backend);
        let is_current = plan_b
            .zip(wanted)
            .is_some_and(|(plan_b, wish)| plan_b.life(wish) == verdict.life);
        let is_made_here = self.checks_alone() || self.unsure.alone().contains(&verdict.backend);
        if is_current && is_made_here {
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
        self.look_for_strangers(now_ms);
        for backend in std::mem::take(&mut self.changed) {
            let Some(life) = self.wanted.get(&backend).map(|wish| wish.life) else {
                continue;
            };
            let stands = self.board.stored(&backend, life).is_some();
            if self.unsure.note(&backend, stands, now_ms) && !self.checks_alone() {
                self.board.forget_own_of(&backend);
            }
            let source = self.source_of(&backend);
            let Some(Standing { health, reason }) = self.belief(&backend, life, source) else {
                continue;
            };
            let verdict = Verdict {
                backend: backend.clone(),
                health,
                reason,
                life: Life::of_member(life),
            };
            self.told.push(Told::Belief(verdict.clone()));
            let before = self.believed.insert(backend, verdict.clone());
            self.believes_otherwise |= before != Some(verdict);
        }
        let after_ms = self.plan_b.as_ref().map(|plan_b| plan_b.after_ms);
        if after_ms.is_some_and(|after_ms| self.unsure.look(now_ms, after_ms)) {
            self.tell_own_targets();
        }
    }

    /// What is to be believed of a backend in this membership when `preferred` counts first: where nobody says
    /// anything, what was believed before.
    fn belief(&self, backend: &BackendId, life: u64, preferred: Source) -> Option<Standing> {
        let said = self.board.belief(backend, life, preferred);
        let said = said.map(|belief| (belief.health, belief.reason));
        let of_this = |known: &&Verdict| known.life.member == life;
        let before = [&self.believed, &self.earlier];
        let mut before = before
            .into_iter()
            .filter_map(|known| known.get(backend).filter(of_this));
        let before = || before.next().map(|known| (known.health, known.reason.as_str()));
        let (health, reason) = said.or_else(before)?;
        let reason = reason.to_owned();
        Some(Standing { health, reason })
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
        self.tell_own_targets();
    }

    /// Says whom this LB server checks for itself, while it does.
    fn check_alone(&mut self) {
        if self.checks_alone() || !self.unsure.alone().is_empty() {
            self.tell_own_targets();
        }
    }

    fn tell_own_targets(&mut self) {
        let Some(plan_b) = &self.plan_b else {
            return;
        };
        let target = |(backend, wish): (&BackendId, &Wish)| Target {
            backend: backend.clone(),
            check: wish.check.clone(),
            // When plan B is over, those that go on here begin anew: what they found was forgotten with all the rest.
            life: plan_b.life(wish),
            // From what this server believes, which need not be what stands in the store.
            standing: self.belief(backend, wish.life, Source::Own),
        };
        let targets = match plan_b.machine.phase().checks() {
            true => self.wanted.iter().map(target).collect(),
            false => {
                let alone = self.unsure.alone().iter();
                alone
                    .filter_map(|backend| self.wanted.get_key_value(backend))
                    .map(target)
                    .collect()
            }
        };
        self.told.push(Told::OwnTargets(targets));
    }

    fn checks_alone(&self) -> bool {
        self.plan_b
            .as_ref()
            .is_some_and(|plan_b| plan_b.machine.phase().checks())
    }

    fn source_of(&self, backend: &BackendId) -> Source {
        match self.unsure.alone().contains(backend) {
            true => Source::Own,
            false => self.source(),
        }
    }

    fn source(&self) -> Source {
        self.plan_b
            .as_ref()
            .map_or(Phase::Following, |plan_b| plan_b.machine.phase())
            .source()
    }

    /// When to look again though nothing has happened, in milliseconds; `None`: never.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let plan_b = self.plan_b.as_ref().filter(|_| !self.wanted.is_empty());
        let machine = plan_b.map(|plan_b| plan_b.machine.wake_at());
        let unsure = plan_b.and_then(|plan_b| self.unsure.wake_at(plan_b.after_ms));
        let strangers = self.own.as_ref().and_then(|own| own.strangers.wake_at());
        let all = [machine.filter(|at| *at != u64::MAX), unsure, strangers];
        all.into_iter().flatten().min()
    }

    /// Who checks what, when that may have changed since this was asked last.
    pub(super) fn owners(&mut self) -> Option<Owners> {
        std::mem::take(&mut self.view_changed).then(|| Owners::of(&self.view, self.slots))
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
                .map(|plan_b| plan_b.status(self.unsure.alone())),
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
            leases_lost: self.writes.leases_lost.load(Relaxed),
        }
    }
}

impl Watchman {
    /// Of the check of a backend. The run tells one time of own checks from the next: odd while plan B makes them, even
    /// before and after.
    fn life(&self, wish: &Wish) -> Life {
        let makes = self.machine.phase().checks();
        Life {
            member: wish.life,
            run: self.began.saturating_mul(2).saturating_sub(u64::from(makes)),
        }
    }

    fn status(&self, alone: &BTreeSet<BackendId>) -> PlanBStatus {
        PlanBStatus {
            alone: alone.len(),
            alone_with: alone.clone(),
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

fn standing(board: &Board, backend: &BackendId, life: u64) -> Option<Standing> {
    board.stored(backend, life).map(|verdict| Standing {
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
        life: verdict.life.member,
    }
}

/// How long it may take until who goes on from an old verdict has overturned it, and everybody has heard of that.
fn surely_found(check: &HealthCheck) -> u64 {
    let until_made = |interval: Duration| {
        let interval = milliseconds(interval);
        let jitter = interval.saturating_mul(u64::from(check.jitter.min(100))) / 100;
        interval
            .saturating_add(jitter)
            .saturating_add(milliseconds(check.timeout))
    };
    // The first result that says otherwise comes within an interval, those that confirm it at the faster one.
    let confirming = u64::from(check.rise.max(check.fall).saturating_sub(1));
    until_made(check.interval)
        .saturating_add(until_made(check.fast_interval).saturating_mul(confirming))
        .saturating_add(WRITTEN_MS)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn narrow(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(milliseconds(since))
}
