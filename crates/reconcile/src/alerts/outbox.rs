//! What one receiver is told next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::alert::{Alert, AlertId, AlertKind};
use model::config::{Alerts, Name, ReceiverKind};
use model::state::Timestamp;

use super::board::Board;
use super::{MAX_TOLD, Moment};

/// First pause after a failed delivery, in milliseconds; each further one is twice as long.
pub const FIRST_PAUSE_MS: u64 = 1_000;
/// Longest pause between two tries, and the pause after a refusal, in milliseconds, before jitter.
pub const LONGEST_PAUSE_MS: u64 = 300_000;

/// Least time between two messages to an Alertmanager.
const ALERTMANAGER_INTERVAL_MS: u64 = 1_000;
/// How often an Alertmanager is told again of what fires.
pub const ALERTMANAGER_REPEAT_MS: u64 = 60_000;

/// What is told together: of one kind, in one load balancer. An Alertmanager groups by itself and gets one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKey {
    /// Everything.
    All,
    /// Alerts of this kind, in this load balancer where they are about one.
    Of(AlertKind, Option<Name>),
}

/// Intervals of the groups of a receiver, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the first alert of a group to the first message.
    pub wait_ms: u64,
    /// Least time from one message to the next.
    pub interval_ms: u64,
    /// From one message to the next when nothing has changed.
    pub repeat_ms: u64,
}

impl Timing {
    /// What the config says, for a receiver of this kind.
    pub fn of(kind: ReceiverKind, alerts: &Alerts) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match kind {
            ReceiverKind::Webhook => Self {
                wait_ms: ms(alerts.group_wait),
                interval_ms: ms(alerts.group_interval),
                repeat_ms: ms(alerts.repeat_interval),
            },
            ReceiverKind::Alertmanager => Self {
                wait_ms: 0,
                interval_ms: ALERTMANAGER_INTERVAL_MS,
                repeat_ms: ALERTMANAGER_REPEAT_MS,
            },
        }
    }
}

/// A message: the whole of each group that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// At least one.
    pub groups: Vec<GroupNews>,
}

/// One group in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNews {
    /// Which.
    pub key: GroupKey,
    /// All of it that fires.
    pub firing: Vec<Arc<Alert>>,
    /// What the receiver believes to fire and does not, with when that was noticed.
    pub resolved: Vec<(Arc<Alert>, Timestamp)>,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver took it.
    Delivered,
    /// It did not. `in_doubt`: it may have, and its answer was lost.
    Failed {
        /// Whether the message was on its way.
        in_doubt: bool,
    },
    /// It does not want it, so that trying again soon would not help.
    Refused,
}

/// What one receiver has been told, and what it must be told.
#[derive(Clone, Debug)]
pub struct Outbox {
    kind: ReceiverKind,
    timing: Timing,
    groups: BTreeMap<GroupKey, Group>,
    in_flight: Option<Arc<Notification>>,
    failures: u32,
    /// No delivery starts before this.
    not_before_ms: u64,
    /// Whether alerts that several nodes see are told from here.
    sends_shared: bool,
    /// What another node tells of, while it does: at most [`MAX_TOLD`].
    elsewhere: BTreeMap<AlertId, Elsewhere>,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Group {
    firing: BTreeMap<AlertId, Arc<Alert>>,
    told: BTreeMap<AlertId, Told>,
    earliest_ms: u64,
    /// When it is told again though nothing has changed; `None`: it was not told yet.
    repeat_ms: Option<u64>,
    /// Since when nothing of it fires, nor is to be told.
    empty_ms: Option<u64>,
}

/// An alert that a message said to fire.
#[derive(Clone, Debug)]
struct Told {
    alert: Arc<Alert>,
    /// When it was seen to fire no more.
    ended: Option<Timestamp>,
    /// Whether the receiver confirmed that message.
    sure: bool,
}

/// An alert that several nodes see and another one tells of.
#[derive(Clone, Debug)]
struct Elsewhere {
    alert: Arc<Alert>,
    /// Since when it fires here.
    seen_ms: u64,
    /// The receiver is taken to know of it.
    told: bool,
    /// When it was seen to fire no more, by both clocks.
    ended: Option<Moment>,
}

impl Outbox {
    /// For a receiver that has been told nothing.
    pub fn new(kind: ReceiverKind, timing: Timing) -> Self {
        Self {
            kind,
            timing,
            groups: BTreeMap::new(),
            in_flight: None,
            failures: 0,
            not_before_ms: 0,
            sends_shared: false,
            elsewhere: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// Other intervals, from the next message on.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Takes what fires now. `sends_shared`: whether alerts that several nodes see are told from here. Those that are
    /// not are watched: when it is for this node to tell, it tells them anew, and the end of those that ended lately,
    /// since nobody knows whether the other one came to it.
    pub fn sync(&mut self, now: Moment, board: &Board, sends_shared: bool) {
        self.sends_shared = sends_shared;
        match sends_shared {
            true => self.take_over(now),
            false => self.watch(now, board),
        }
        self.forget_groups(now);
        for group in self.groups.values_mut() {
            group.firing.clear();
        }
        for alert in board.firing().filter(|a| sends_shared || a.own) {
            let group = self.group(now, &alert.id);
            group.firing.insert(alert.id.clone(), alert.clone());
        }
        for group in self.groups.values_mut() {
            group.note_ends(now.wall, board);
        }
        self.forget_groups(now);
        self.forget_surplus();
    }

    /// When [`Outbox::take`] has something next; `None` while a delivery is under way, and when nothing is due.
    pub fn next_ms(&self) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = self.groups.values().filter_map(Group::due_ms).min()?;
        Some(due.max(self.not_before_ms))
    }

    /// The message to send now, if there is one; its end is told by [`Outbox::done`].
    pub fn take(&mut self, now: Moment) -> Option<Arc<Notification>> {
        if self.next_ms().is_none_or(|due| due > now.ms) {
            return None;
        }
        let due = |group: &Group| group.due_ms().is_some_and(|due| due <= now.ms);
        let groups = self.groups.iter().filter(|(_, group)| due(group));
        let notification = Arc::new(Notification {
            groups: groups.map(|(key, group)| group.news(key)).collect(),
        });
        self.in_flight = Some(notification.clone());
        Some(notification)
    }

    /// Takes the end of the delivery under way. `rand`: any 64 random bits.
    pub fn done(&mut self, now: Moment, outcome: Outcome, rand: u64) {
        let Some(sent) = self.in_flight.take() else {
            return;
        };
        match outcome {
            Outcome::Delivered => {
                self.failures = 0;
                self.not_before_ms = 0;
                for news in &sent.groups {
                    self.told(now, news);
                }
            }
            Outcome::Failed { in_doubt } => {
                if in_doubt {
                    self.perhaps_told(now, &sent);
                }
                self.pause(now, FIRST_PAUSE_MS << self.failures.min(16), rand);
            }
            Outcome::Refused => self.pause(now, LONGEST_PAUSE_MS, rand),
        }
        self.forget_groups(now);
        self.forget_surplus();
    }

    /// Whether there is something that the receiver ought to know by now and does not.
    pub fn is_late(&self, now: Moment) -> bool {
        let changed = self.groups.values().filter(|group| group.changed());
        self.failures > 0 && changed.into_iter().any(|group| group.earliest_ms <= now.ms)
    }

    /// Ends of alerts that were never told, for lack of room, since this receiver is known.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Alerts that the receiver is believed to know of, or that it must be told: what this outbox holds.
    pub fn held(&self) -> usize {
        self.groups
            .values()
            .map(|group| group.told.len() + group.firing.len())
            .sum::<usize>()
            + self.elsewhere.len()
    }

    /// The group that an alert is in.
    fn group(&mut self, now: Moment, id: &AlertId) -> &mut Group {
        let earliest_ms = now.ms.saturating_add(self.timing.wait_ms);
        self.groups
            .entry(group_of(self.kind, id))
            .or_insert_with(|| Group {
                firing: BTreeMap::new(),
                told: BTreeMap::new(),
                earliest_ms,
                repeat_ms: None,
                empty_ms: None,
            })
    }

    /// Groups of which nothing is left begin anew with their next alert, once their interval is over and for the time of
    /// a wait: an alert that flaps is told at last. What has been empty for hours goes before something new comes in, too:
    /// nobody had a reason to come here in between.
    fn forget_groups(&mut self, now: Moment) {
        let under_way = self.in_flight.as_deref().map_or(&[][..], |sent| &sent.groups);
        let wait_ms = self.timing.wait_ms;
        self.groups.retain(|key, group| {
            if !group.is_empty() {
                group.empty_ms = None;
                return true;
            }
            let since = *group.empty_ms.get_or_insert(now.ms);
            let over = group.earliest_ms.max(since).saturating_add(wait_ms) <= now.ms;
            // What is under way may arrive: then its end must be told.
            !over || under_way.iter().any(|news| news.key == *key)
        });
    }

    /// Another node tells of what several see: what was told from here is its business, and is looked after.
    fn watch(&mut self, now: Moment, board: &Board) {
        for group in self.groups.values_mut() {
            let told = std::mem::take(&mut group.told).into_iter();
            let (own, shared): (Vec<_>, Vec<_>) = told.partition(|(_, told)| told.alert.own);
            group.told = own.into_iter().collect();
            self.elsewhere.extend(shared.into_iter().map(|(id, told)| {
                let ended = told.ended.map(|wall| Moment { wall, ..now });
                (id, Elsewhere::told(told.alert, ended))
            }));
        }
        let mut firing = BTreeSet::new();
        for alert in board.firing().filter(|alert| !alert.own) {
            firing.insert(&alert.id);
            let new = || Elsewhere {
                seen_ms: now.ms,
                told: false,
                ..Elsewhere::told(alert.clone(), None)
            };
            let known = self.elsewhere.entry(alert.id.clone()).or_insert_with(new);
            (known.alert, known.ended) = (alert.clone(), None);
        }
        let (wait_ms, kept_ms) = (self.timing.wait_ms, self.kept_ms());
        self.elsewhere.retain(|id, known| {
            if firing.contains(id) || board.is_pushed_out(id) {
                return true;
            }
            known.told |= now.ms.saturating_sub(known.seen_ms) >= wait_ms;
            let ended = *known.ended.get_or_insert(now);
            known.told && now.ms.saturating_sub(ended.ms) < kept_ms
        });
        while self.elsewhere.len() > MAX_TOLD {
            // What fires has no end yet, and there is less of it.
            let oldest = self.elsewhere.iter();
            let oldest = oldest.min_by_key(|(_, known)| known.ended.map_or(u64::MAX, |at| at.ms));
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.elsewhere.remove(&id);
        }
    }

    /// This node tells of what several see: what the receiver may know of is told anew, or that it has ended.
    fn take_over(&mut self, now: Moment) {
        let kept_ms = self.kept_ms();
        for (id, known) in std::mem::take(&mut self.elsewhere) {
            let waited = now.ms.saturating_sub(known.seen_ms) >= self.timing.wait_ms;
            let is_old = |at: &Moment| now.ms.saturating_sub(at.ms) >= kept_ms;
            if !(known.told || waited) || known.ended.as_ref().is_some_and(is_old) {
                continue;
            }
            let told = Told {
                alert: known.alert,
                ended: known.ended.map(|at| at.wall),
                sure: false,
            };
            self.group(now, &id).told.entry(id).or_insert(told);
        }
    }

    /// How long an end is remembered that another node ought to tell: until that one has surely done so, had it lived.
    fn kept_ms(&self) -> u64 {
        self.timing.interval_ms.saturating_add(2 * LONGEST_PAUSE_MS)
    }

    fn told(&mut self, now: Moment, news: &GroupNews) {
        self.told_for_others(news);
        let Some(group) = self.groups.get_mut(&news.key) else {
            return;
        };
        for alert in news.firing.iter().filter(|a| self.sends_shared || a.own) {
            group.tell(alert, now.wall, true);
        }
        for (alert, _) in &news.resolved {
            group.told.remove(&alert.id);
        }
        group.earliest_ms = now.ms.saturating_add(self.timing.interval_ms);
        group.repeat_ms = Some(now.ms.saturating_add(self.timing.repeat_ms));
    }

    /// What arrived though it is another node's business by now.
    fn told_for_others(&mut self, news: &GroupNews) {
        if self.sends_shared {
            return;
        }
        for alert in news.firing.iter().filter(|alert| !alert.own) {
            let known = self.elsewhere.entry(alert.id.clone());
            known.or_insert_with(|| Elsewhere::told(alert.clone(), None)).told = true;
        }
    }

    /// Nobody knows whether the message arrived: what it said to fire may be believed, and what
    /// it said to have ended too.
    fn perhaps_told(&mut self, now: Moment, sent: &Notification) {
        for news in &sent.groups {
            self.told_for_others(news);
            let Some(group) = self.groups.get_mut(&news.key) else {
                continue;
            };
            for alert in news.firing.iter().filter(|a| self.sends_shared || a.own) {
                if !group.told.contains_key(&alert.id) {
                    group.tell(alert, now.wall, false);
                }
            }
            // Should it fire again before its end is confirmed, it is told again.
            for (alert, _) in &news.resolved {
                if let Some(told) = group.told.get_mut(&alert.id) {
                    told.sure = false;
                }
            }
        }
    }

    /// Nothing is sent for `pause_ms`, a fifth less or more.
    fn pause(&mut self, now: Moment, pause_ms: u64, rand: u64) {
        self.failures = self.failures.saturating_add(1);
        let pause_ms = pause_ms.min(LONGEST_PAUSE_MS);
        let jitter = (u128::from(rand) * u128::from(pause_ms * 2 / 5 + 1)) >> 64;
        let jittered = pause_ms - pause_ms / 5 + u64::try_from(jitter).unwrap_or(0);
        self.not_before_ms = now.ms.saturating_add(jittered);
    }

    fn forget_surplus(&mut self) {
        let told: usize = self.groups.values().map(|group| group.told.len()).sum();
        let Some(surplus) = told.checked_sub(MAX_TOLD).filter(|surplus| *surplus > 0) else {
            return;
        };
        let ended = self.groups.iter().flat_map(|(key, group)| {
            let ended = group.told.iter().filter_map(|(id, told)| Some((told.ended?, id)));
            ended.map(move |(at, id)| (at, key.clone(), id.clone()))
        });
        let mut ended: Vec<_> = ended.collect();
        ended.sort();
        for (_, key, id) in ended.into_iter().take(surplus) {
            if let Some(group) = self.groups.get_mut(&key) {
                group.told.remove(&id);
                self.forgotten += 1;
            }
        }
    }
}

impl Elsewhere {
    fn told(alert: Arc<Alert>, ended: Option<Moment>) -> Self {
        Self {
            alert,
            seen_ms: 0,
            told: true,
            ended,
        }
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.firing.is_empty() && self.told.is_empty()
    }

    fn note_ends(&mut self, wall: Timestamp, board: &Board) {
        for (id, told) in &mut self.told {
            told.ended = match self.firing.contains_key(id) || board.is_pushed_out(id) {
                true => None,
                false => told.ended.or(Some(wall)),
            };
        }
    }

    fn tell(&mut self, alert: &Arc<Alert>, wall: Timestamp, sure: bool) {
        let ended = (!self.firing.contains_key(&alert.id)).then_some(wall);
        let told = Told {
            alert: alert.clone(),
            ended,
            sure,
        };
        self.told.insert(alert.id.clone(), told);
    }

    /// Whether the receiver believes something else than what is so.
    fn changed(&self) -> bool {
        let unknown = |id: &AlertId| self.told.get(id).is_none_or(|told| !told.sure);
        self.firing.keys().any(unknown) || self.told.values().any(|told| told.ended.is_some())
    }

    fn due_ms(&self) -> Option<u64> {
        if self.changed() {
            return Some(self.earliest_ms);
        }
        let repeat = self.repeat_ms.filter(|_| !self.firing.is_empty())?;
        Some(repeat.max(self.earliest_ms))
    }

    fn news(&self, key: &GroupKey) -> GroupNews {
        let ended = self
            .told
            .values()
            .filter_map(|told| Some((told.alert.clone(), told.ended?)));
        GroupNews {
            key: key.clone(),
            firing: self.firing.values().cloned().collect(),
            resolved: ended.collect(),
        }
    }
}

/// In which group of a receiver an alert is.
fn group_of(kind: ReceiverKind, id: &AlertId) -> GroupKey {
    match kind {
        ReceiverKind::Webhook => GroupKey::Of(id.kind, id.load_balancer().cloned()),
        ReceiverKind::Alertmanager => GroupKey::All,
    }
}
