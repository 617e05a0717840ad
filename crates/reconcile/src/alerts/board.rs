//! What is wrong, since when, and whether it fires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::alert::{About, Alert, AlertId, AlertKind, MAX_SUMMARY_CHARS, Severity};
use model::config::Alerts;

use super::conditions::{Condition, holds_for};
use super::{MAX_ALERTS, Moment};

/// The alerts of a process.
#[derive(Clone, Debug, Default)]
pub struct Board {
    held: BTreeMap<AlertId, Held>,
    /// Those that fire and had to make room: at most [`MAX_ALERTS`].
    pushed: BTreeMap<AlertId, Held>,
    left_out: usize,
    pushed_out: u64,
    generation: u64,
}

#[derive(Clone, Debug)]
struct Held {
    alert: Arc<Alert>,
    /// Since when we have seen it hold.
    seen_ms: u64,
    firing: bool,
}

/// How important an alert is, the least number first: what wakes people before what waits.
type Rank = (Severity, AlertId);

/// What is new, the most important [`MAX_ALERTS`] of it.
#[derive(Default)]
struct Fresh<'a> {
    kept: BTreeMap<Rank, Condition<'a>>,
    left_out: usize,
}

impl Board {
    /// Takes all that holds now. What was held and does not hold any more is gone; what has held for long enough
    /// fires. With no room left, what is more important takes the place of what is less, and an alert about `node` says
    /// how many are not told. One that fires and is pushed out has not ended: see [`Board::is_pushed_out`].
    pub fn observe<'a>(
        &mut self,
        now: Moment,
        node: &Arc<str>,
        found: impl Iterator<Item = Condition<'a>>,
        rules: &Alerts,
    ) {
        let mut holding = BTreeSet::new();
        let mut fresh = Fresh::default();
        for condition in found {
            if let Some(held) = self.held.get_mut(&condition.id) {
                if holding.insert(condition.id.clone()) {
                    self.generation += u64::from(held.renew(&condition));
                }
                continue;
            }
            if self.pushed.contains_key(&condition.id) {
                holding.insert(condition.id.clone());
            }
            fresh.offer(condition);
        }
        let note = AlertId {
            kind: AlertKind::TooManyAlerts,
            about: About::Node(node.clone()),
        };
        let before = self.held.len() + self.pushed.len();
        self.held.retain(|id, _| holding.contains(id) || *id == note);
        self.pushed.retain(|id, _| holding.contains(id));
        self.generation += u64::from(self.held.len() + self.pushed.len() != before);
        self.left_out = fresh.left_out + self.make_room(now, fresh.kept, &note);
        self.note_left_out(now, note);
        self.advance(now, rules);
    }

    /// Holds what is new, if need be in the place of what is less important; how many are left out.
    fn make_room(&mut self, now: Moment, fresh: BTreeMap<Rank, Condition<'_>>, note: &AlertId) -> usize {
        let mut room = MAX_ALERTS.saturating_sub(self.held.keys().filter(|id| *id != note).count());
        let mut least: Vec<Rank> = Vec::new();
        if fresh.len() > room {
            least = self.held.keys().filter(|id| *id != note).map(rank).collect();
            least.sort();
        }
        let mut left_out = 0;
        for ((severity, id), condition) in fresh {
            if room == 0 {
                left_out += 1;
                let other = least.pop_if(|(least, other)| (*least, other.kind) > (severity, id.kind));
                let Some((_, other)) = other else { continue };
                self.push_out(other);
                room += 1;
            }
            room -= 1;
            self.hold(now, &condition);
        }
        left_out
    }

    fn push_out(&mut self, id: AlertId) {
        let Some(held) = self.held.remove(&id) else { return };
        self.pushed_out += 1;
        self.generation += 1;
        if held.firing && self.pushed.len() < MAX_ALERTS {
            self.pushed.insert(id, held);
        }
    }

    /// Lets fire what has held for long enough.
    pub fn advance(&mut self, now: Moment, rules: &Alerts) {
        for (id, held) in self.held.iter_mut().filter(|(_, held)| !held.firing) {
            if held.fires_ms(id.kind, rules) <= now.ms {
                held.firing = true;
                self.generation += 1;
            }
        }
    }

    /// When [`Board::advance`] must be called next.
    pub fn next_ms(&self, rules: &Alerts) -> Option<u64> {
        let pending = self.held.iter().filter(|(_, held)| !held.firing);
        pending.map(|(id, held)| held.fires_ms(id.kind, rules)).min()
    }

    /// Those that fire, in order of importance.
    pub fn firing(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.held
            .values()
            .filter(|held| held.firing)
            .map(|held| &held.alert)
    }

    /// All with whether they fire, in order of importance.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Alert>, bool)> {
        self.held.values().map(|held| (&held.alert, held.firing))
    }

    /// Alerts that there was no room for, at the last look.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether an alert fires without being told of, because more important ones took its place.
    pub fn is_pushed_out(&self, id: &AlertId) -> bool {
        self.pushed.contains_key(id)
    }

    /// Alerts that made room for more important ones, in all.
    pub fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    /// Another number whenever other alerts fire than before, or the same in other words.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn note_left_out(&mut self, now: Moment, id: AlertId) {
        if self.left_out == 0 {
            self.generation += u64::from(self.held.remove(&id).is_some());
            return;
        }
        let condition = Condition {
            why: format!(
                "more than {MAX_ALERTS} alerts: {} are not told one by one",
                self.left_out
            )
            .into(),
            id,
            since: None,
            own: true,
        };
        match self.held.get_mut(&condition.id) {
            Some(held) => self.generation += u64::from(held.renew(&condition)),
            None => self.hold(now, &condition),
        }
    }

    fn hold(&mut self, now: Moment, condition: &Condition<'_>) {
        if let Some(mut held) = self.pushed.remove(&condition.id) {
            held.renew(condition);
            self.generation += 1;
            self.held.insert(condition.id.clone(), held);
            return;
        }
        let held = Held {
            alert: Arc::new(Alert {
                id: condition.id.clone(),
                summary: shortened(&condition.why),
                since: condition.since.unwrap_or(now.wall),
                own: condition.own,
            }),
            seen_ms: now.ms,
            firing: false,
        };
        self.held.entry(condition.id.clone()).or_insert(held);
    }
}

impl<'a> Fresh<'a> {
    fn offer(&mut self, condition: Condition<'a>) {
        let rank = rank(&condition.id);
        if self.kept.contains_key(&rank) {
            return;
        }
        if self.kept.len() == MAX_ALERTS {
            self.left_out += 1;
            if self.kept.last_key_value().is_none_or(|(last, _)| *last < rank) {
                return;
            }
            self.kept.pop_last();
        }
        self.kept.insert(rank, condition);
    }
}

fn rank(id: &AlertId) -> Rank {
    (id.kind.severity(), id.clone())
}

impl Held {
    /// Takes over how the condition is told now, and by whom; whether that is another way than before.
    fn renew(&mut self, condition: &Condition<'_>) -> bool {
        if self.alert.summary == condition.why && self.alert.own == condition.own {
            return false;
        }
        let summary = shortened(&condition.why);
        let other = self.alert.summary != summary || self.alert.own != condition.own;
        if other {
            let alert = Arc::make_mut(&mut self.alert);
            alert.summary = summary;
            alert.own = condition.own;
        }
        other
    }

    fn fires_ms(&self, kind: AlertKind, rules: &Alerts) -> u64 {
        let wait = holds_for(kind, rules).as_millis();
        self.seen_ms
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SUMMARY_CHARS - 1) {
        Some((end, last)) if end + last.len_utf8() < text.len() => {
            format!("{}…", text.get(..end).unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}
