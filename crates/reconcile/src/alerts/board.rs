//! What is wrong, since when, and whether it fires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::alert::{About, Alert, AlertId, AlertKind, MAX_SUMMARY_CHARS};
use model::config::Alerts;

use super::conditions::{Condition, holds_for};
use super::{MAX_ALERTS, Moment};

/// The alerts of a process.
#[derive(Clone, Debug, Default)]
pub struct Board {
    held: BTreeMap<AlertId, Held>,
    left_out: usize,
    generation: u64,
}

#[derive(Clone, Debug)]
struct Held {
    alert: Arc<Alert>,
    /// Since when we have seen it hold.
    seen_ms: u64,
    firing: bool,
}

impl Board {
    /// Takes all that holds now. What was held and does not hold any more is gone; what has held for long enough
    /// fires. With no room left, what comes first of `found` is kept, and an alert about `node` says how many are not.
    pub fn observe<'a>(
        &mut self,
        now: Moment,
        node: &Arc<str>,
        found: impl Iterator<Item = Condition<'a>>,
        rules: &Alerts,
    ) {
        let mut holding = BTreeSet::new();
        let mut fresh = Vec::new();
        let mut left_out = 0;
        for condition in found {
            match self.held.get_mut(&condition.id) {
                Some(held) => {
                    if holding.insert(condition.id.clone()) {
                        self.generation += u64::from(held.renew(&condition));
                    }
                }
                None if fresh.len() < MAX_ALERTS => fresh.push(condition),
                None => left_out += 1,
            }
        }
        let before = self.held.len();
        let note = AlertId {
            kind: AlertKind::TooManyAlerts,
            about: About::Node(node.clone()),
        };
        self.held.retain(|id, _| holding.contains(id) || *id == note);
        self.generation += u64::from(self.held.len() != before);
        for condition in fresh {
            if self.held.len() - usize::from(self.held.contains_key(&note)) < MAX_ALERTS {
                self.hold(now, &condition);
            } else {
                left_out += 1;
            }
        }
        self.left_out = left_out;
        self.note_left_out(now, note);
        self.advance(now, rules);
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
