//! The whole machine under random conditions and a random receiver, against a shadow model that knows what holds,
//! since when, and what the receiver believes.
//!
//! To see that the shadow sees, these rules of the outbox were broken one at a time, and each was noticed: what may
//! have arrived counts as told; a group that is under way is kept until it has landed; the least time between two
//! messages; an end that was told is told no more; a group that is over begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_reconcile::alerts::board::Board;
use evenkeel_reconcile::alerts::conditions::holds_for;
use evenkeel_reconcile::alerts::outbox::{GroupKey, LONGEST_PAUSE_MS, Notification, Outbox, Outcome, Timing};
use evenkeel_reconcile::alerts::{MAX_ALERTS, MAX_TOLD};
use model::alert::AlertId;
use model::config::{Alerts, ReceiverKind};
use sim::{Random, seeds};

use crate::support::{at, backend_down, config_refused, observe, pool_down};

const STEPS: usize = 400;
/// Longest step of the simulated clock.
const LONGEST_STEP_MS: u64 = 3_000;
/// Longest time that a delivery takes.
const LONGEST_DELIVERY_MS: u64 = 8_000;

/// How the receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Well,
    /// Takes everything, and its answers are lost.
    Mute,
    Gone,
    Refuses,
}

/// A delivery on its way.
struct Flight {
    sent: std::sync::Arc<Notification>,
    ends_ms: u64,
    outcome: Outcome,
    arrives: bool,
}

/// What a world of one seed is made of.
struct Setting {
    kind: ReceiverKind,
    rules: Alerts,
    timing: Timing,
    /// Who may tell of what several see changes at random.
    gate_moves: bool,
    /// Answers may be lost.
    doubts: bool,
}

/// A group of which something fires.
struct Began {
    since: u64,
    /// When nothing of it fired any more.
    ended: Option<u64>,
    /// From when on what begins in it is another incident; `None`: the receiver believes that something fires, or may soon.
    over: Option<u64>,
    /// Whether it is one.
    waits: bool,
}

/// What must be true.
#[derive(Default)]
struct Shadow {
    /// Since when each condition has been seen to hold.
    held_since: BTreeMap<AlertId, u64>,
    /// What the receiver believes to fire.
    believed: BTreeSet<AlertId>,
    /// What was ever sent to it.
    sent: BTreeSet<AlertId>,
    /// When it last took a message about a group, which it confirmed.
    confirmed: BTreeMap<GroupKey, u64>,
    /// Groups of which something fires, or has.
    began: BTreeMap<GroupKey, Began>,
    /// Since when what fires, how the receiver is, and who tells are as they are.
    calm_since: u64,
}

impl Shadow {
    fn firing(&self, now: u64, rules: &Alerts, shared: bool) -> BTreeSet<AlertId> {
        let lasted =
            |id: &AlertId, since: u64| Duration::from_millis(now - since) >= holds_for(id.kind, rules);
        let firing = self.held_since.iter().filter(|(id, since)| lasted(id, **since));
        let told = firing.filter(|(id, _)| shared || id.kind.is_of_node());
        told.map(|(id, _)| id.clone()).collect()
    }

    /// What begins again shortly after it was over, or before its end was told, goes on.
    fn note_groups(
        &mut self,
        now: u64,
        firing: BTreeSet<GroupKey>,
        under_way: &BTreeSet<GroupKey>,
        setting: &Setting,
    ) {
        let timing = &setting.timing;
        for (key, began) in self.began.iter_mut().filter(|(key, _)| !firing.contains(key)) {
            let last = self.confirmed.get(key);
            let next = last.map_or(0, |last| last + timing.interval_ms);
            let next = next.max(began.since + timing.wait_ms);
            let ended = *began.ended.get_or_insert(now);
            let is_known = self.believed.iter().any(|id| group_of(setting.kind, id) == *key);
            began.over = (!is_known && !under_way.contains(key)).then_some(ended.max(next) + timing.wait_ms);
        }
        for key in firing {
            let began = self.began.entry(key.clone()).or_insert(Began {
                since: now,
                ended: None,
                over: None,
                waits: true,
            });
            if began.ended.take().is_some() {
                let over = began.over.take().filter(|_| !under_way.contains(&key));
                (began.since, began.waits) = (now, over.is_some_and(|over| over <= now));
            }
        }
    }

    /// What goes down together is told together: the first message of a group waits.
    fn take_off(&self, now: u64, sent: &Notification, setting: &Setting) {
        if setting.doubts || setting.gate_moves {
            return;
        }
        for group in &sent.groups {
            let Some(began) = self.began.get(&group.key).filter(|began| began.ended.is_none()) else {
                continue;
            };
            let last = self.confirmed.get(&group.key);
            if began.waits && last.is_none_or(|last| *last < began.since) {
                let waited = now - began.since;
                assert!(
                    waited >= setting.timing.wait_ms,
                    "{:?} waited {waited} ms",
                    group.key
                );
            }
        }
    }

    fn arrive(&mut self, sent: &Notification, setting: &Setting) {
        let Setting {
            doubts, gate_moves, ..
        } = *setting;
        for group in &sent.groups {
            for (alert, _) in &group.resolved {
                assert!(
                    gate_moves || self.sent.contains(&alert.id),
                    "the end of {} comes first",
                    alert.id
                );
                assert!(
                    doubts || gate_moves || self.believed.contains(&alert.id),
                    "{} ends for a second time",
                    alert.id
                );
                self.believed.remove(&alert.id);
            }
            for alert in &group.firing {
                self.believed.insert(alert.id.clone());
            }
        }
    }

    /// A message that the receiver confirms: neither too early, nor without a reason.
    fn confirm(&mut self, now: u64, sent: &Notification, before: &BTreeSet<AlertId>, setting: &Setting) {
        for group in &sent.groups {
            let last = self.confirmed.insert(group.key.clone(), now);
            let Some(since) = last.map(|last| now - last) else {
                continue;
            };
            assert!(
                since >= setting.timing.interval_ms,
                "{:?} after {since} ms",
                group.key
            );
            let news =
                group.firing.iter().any(|alert| !before.contains(&alert.id)) || !group.resolved.is_empty();
            assert!(
                news || setting.doubts || setting.gate_moves || since >= setting.timing.repeat_ms,
                "{:?} is told again after {since} ms",
                group.key
            );
        }
    }
}

fn setting(random: &mut Random) -> Setting {
    // Where nothing has to last, an alert comes without having been seen before.
    let lasts = u64::from(random.chance(700));
    let rules = Alerts {
        backend_down_for: Duration::from_millis(lasts * random.below(20_000)),
        pool_unhealthy_for: Duration::from_millis(lasts * random.below(5_000)),
        group_wait: Duration::from_millis(random.below(10_000)),
        group_interval: Duration::from_millis(1_000 + random.below(60_000)),
        repeat_interval: Duration::from_millis(60_000 + random.below(600_000)),
        ..Alerts::default()
    };
    let kind = match random.chance(500) {
        true => ReceiverKind::Webhook,
        false => ReceiverKind::Alertmanager,
    };
    Setting {
        kind,
        timing: Timing::of(kind, &rules),
        rules,
        gate_moves: random.chance(300),
        doubts: random.chance(500),
    }
}

/// In which group of a receiver's messages an alert is.
fn group_of(kind: ReceiverKind, id: &AlertId) -> GroupKey {
    match kind {
        ReceiverKind::Webhook => GroupKey::Of(id.kind, id.load_balancer().cloned()),
        ReceiverKind::Alertmanager => GroupKey::All,
    }
}

fn everything() -> Vec<AlertId> {
    let mut ids = vec![config_refused("n")];
    for lb in ["a", "b", "c"] {
        ids.push(pool_down(lb));
        ids.extend((1..6).map(|port| backend_down(lb, port)));
    }
    ids
}

struct World {
    random: Random,
    setting: Setting,
    board: Board,
    outbox: Outbox,
    shadow: Shadow,
    mode: Mode,
    shared: bool,
    /// The board's generation and who tells, when the outbox last took them.
    synced: Option<(u64, bool)>,
    flight: Option<Flight>,
    now: u64,
    /// Nothing changes any more, and the receiver is well.
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let setting = setting(&mut random);
        Self {
            board: Board::default(),
            outbox: Outbox::new(setting.kind, setting.timing),
            shadow: Shadow::default(),
            mode: Mode::Well,
            shared: true,
            synced: None,
            flight: None,
            now: random.below(1 << 40),
            calm: false,
            random,
            setting,
        }
    }

    fn step(&mut self, ids: &[AlertId]) {
        self.now += 1 + self.random.below(LONGEST_STEP_MS);
        if !self.calm {
            self.disturb(ids);
        }
        let before = self.shadow.firing(self.now, &self.setting.rules, self.shared);
        let holding: Vec<AlertId> = self.shadow.held_since.keys().cloned().collect();
        observe(&mut self.board, self.now, &holding, &self.setting.rules);
        self.sync();
        let told = self.board.firing().filter(|a| self.shared || a.own);
        let told: BTreeSet<AlertId> = told.map(|alert| alert.id.clone()).collect();
        assert_eq!(told, before, "what fires");
        let groups = told.iter().map(|id| group_of(self.setting.kind, id)).collect();
        let sent = self.flight.iter().flat_map(|flight| &flight.sent.groups);
        let under_way = sent.map(|group| group.key.clone()).collect();
        self.shadow
            .note_groups(self.now, groups, &under_way, &self.setting);
        self.land();
        self.take_off();
        assert!(self.outbox.held() <= MAX_TOLD + MAX_ALERTS);
        self.check_arrived(&told);
    }

    /// Only when there is something to take, as whoever keeps an outbox does.
    fn sync(&mut self) {
        let state = (self.board.generation(), self.shared);
        if self.synced.replace(state) != Some(state) {
            self.outbox.sync(at(self.now), &self.board, self.shared);
        }
    }

    /// Something comes, something goes, the receiver changes its mind.
    fn disturb(&mut self, ids: &[AlertId]) {
        let quiet = self.random.chance(700);
        for id in ids.iter().filter(|_| !quiet) {
            if self.random.chance(200) {
                self.shadow.calm_since = self.now;
                if self.shadow.held_since.remove(id).is_none() {
                    self.shadow.held_since.insert(id.clone(), self.now);
                }
            }
        }
        if self.random.chance(40) {
            self.shadow.calm_since = self.now;
            self.mode = match self.random.below(4) {
                0 if self.setting.doubts => Mode::Mute,
                1 => Mode::Gone,
                2 => Mode::Refuses,
                _ => Mode::Well,
            };
        }
        if self.setting.gate_moves && self.random.chance(30) {
            self.shadow.calm_since = self.now;
            self.shared = !self.shared;
        }
    }

    fn land(&mut self) {
        if self
            .flight
            .as_ref()
            .is_none_or(|flight| flight.ends_ms > self.now)
        {
            return;
        }
        let flight = self.flight.take().unwrap();
        let before = self.shadow.believed.clone();
        if flight.arrives {
            self.shadow.arrive(&flight.sent, &self.setting);
        }
        if flight.outcome == Outcome::Delivered {
            self.shadow
                .confirm(self.now, &flight.sent, &before, &self.setting);
        }
        self.outbox
            .done(at(self.now), flight.outcome, self.random.number());
    }

    fn take_off(&mut self) {
        let Some(sent) = self.outbox.take(at(self.now)) else {
            return;
        };
        assert!(self.flight.is_none(), "two deliveries at once");
        assert!(!sent.groups.is_empty());
        self.shadow.take_off(self.now, &sent, &self.setting);
        for group in &sent.groups {
            assert!(
                !group.firing.is_empty() || !group.resolved.is_empty(),
                "an empty group"
            );
            self.shadow
                .sent
                .extend(group.firing.iter().map(|alert| alert.id.clone()));
        }
        let (outcome, arrives) = match self.mode {
            Mode::Well => (Outcome::Delivered, true),
            Mode::Mute => (Outcome::Failed { in_doubt: true }, self.random.chance(500)),
            Mode::Gone => (Outcome::Failed { in_doubt: false }, false),
            Mode::Refuses => (Outcome::Refused, false),
        };
        let ends_ms = self.now + self.random.below(LONGEST_DELIVERY_MS);
        self.flight = Some(Flight {
            sent,
            ends_ms,
            outcome,
            arrives,
        });
    }

    /// When all has been as it is for long enough, the receiver knows what is so.
    fn check_arrived(&self, told: &BTreeSet<AlertId>) {
        let timing = &self.setting.timing;
        let holds = self
            .setting
            .rules
            .backend_down_for
            .max(self.setting.rules.pool_unhealthy_for);
        let bound = u64::try_from(holds.as_millis()).unwrap()
            + timing.wait_ms
            + timing.interval_ms
            + LONGEST_PAUSE_MS * 6 / 5
            + 2 * (LONGEST_DELIVERY_MS + 2 * LONGEST_STEP_MS);
        if self.mode != Mode::Well || self.now - self.shadow.calm_since.min(self.now) < bound {
            return;
        }
        let unknown: Vec<&AlertId> = told.difference(&self.shadow.believed).collect();
        assert!(unknown.is_empty(), "not told: {unknown:?}");
        // What another node tells of, it knows from there; what one told of before, from whoever tells now.
        if self.shared {
            let stale: Vec<&AlertId> = self.shadow.believed.difference(told).collect();
            assert!(stale.is_empty(), "believed still: {stale:?}");
        }
    }
}

/// Scenario: conditions come and go, the receiver fails, refuses, loses its answers, is slow and comes back, and who
/// tells changes. Nothing ends that did not begin, nothing is told too often or without a reason, nothing grows, and
/// whenever all was calm for as long as it takes, the receiver knows exactly what is so.
#[test]
fn every_alert_arrives_and_ends() {
    let ids = everything();
    for seed in 0..seeds(1000) {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.shadow.calm_since = world.now;
            for _ in 0..STEPS {
                world.step(&ids);
            }
            world.calm = true;
            world.mode = Mode::Well;
            world.shadow.calm_since = world.now;
            for _ in 0..STEPS {
                world.step(&ids);
            }
        });
        if let Err(panic) = run {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
