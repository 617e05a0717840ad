//! Whose silence counts: a node hears some members itself, and of others what their nodes tell.

use std::collections::BTreeMap;

use model::config::Name;

/// What others heard comes later than what is heard here: so much longer may a member of a cluster be silent. It is
/// the time between two tellings, and room for the store.
pub const SLACK_MS: u64 = 3_000;
/// A node that takes beats and has told nothing for so long may be dead or cut off: that it has not told of a member
/// says nothing any more. Above [`TESTIFY_EVERY_MS`](super::TESTIFY_EVERY_MS) and the store's lateness.
pub const QUIET_MS: u64 = 5_000;

/// When somebody was heard last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// His time counts from here: when he was heard, or was let off.
    counts_from_ms: u64,
    /// When he was really heard; `None`: not in the life of this process.
    spoke_ms: Option<u64>,
    /// Which node heard him; `None`: this one, or nobody that can be asked.
    by: Option<Name>,
    /// When he said something to this process itself.
    here_ms: Option<u64>,
}

impl Last {
    /// Not heard yet; the time begins now.
    pub fn awaited(now_ms: u64) -> Self {
        Self {
            counts_from_ms: now_ms,
            spoke_ms: None,
            by: None,
            here_ms: None,
        }
    }

    /// Heard here, now.
    pub fn here(now_ms: u64) -> Self {
        Self {
            counts_from_ms: now_ms,
            spoke_ms: Some(now_ms),
            by: None,
            here_ms: Some(now_ms),
        }
    }

    /// Of another life of the same, not heard yet.
    pub(super) fn of_another_life(&self, now_ms: u64) -> Self {
        Self {
            here_ms: self.here_ms,
            ..Self::awaited(now_ms)
        }
    }

    /// Heard, then and there. What was heard later stands.
    pub fn hear(&mut self, at_ms: u64, by: Option<&Name>) {
        if at_ms >= self.spoke_ms.unwrap_or(0) {
            self.spoke_ms = Some(at_ms);
            self.by = by.cloned();
        }
        self.counts_from_ms = self.counts_from_ms.max(at_ms);
    }

    /// The whole time once more, whatever he has said.
    pub fn spare(&mut self, now_ms: u64) {
        self.counts_from_ms = self.counts_from_ms.max(now_ms);
    }

    /// The node that heard him is gone: nobody can be asked.
    pub fn orphan(&mut self, now_ms: u64, node: &Name) {
        if self.by.as_ref() == Some(node) {
            self.by = None;
            self.spare(now_ms);
        }
    }

    /// Who heard him, where that was another node.
    pub fn by(&self) -> Option<&Name> {
        self.by.as_ref()
    }

    /// Whether his time is not over, or was given him once more.
    pub fn is_in_time(&self, now_ms: u64, time_ms: u64) -> bool {
        self.counts_from_ms.saturating_add(time_ms) > now_ms
    }

    /// When he said something to this process itself.
    pub(super) fn here_ms(&self) -> Option<u64> {
        self.here_ms
    }
}

/// Who can be heard.
#[derive(Clone, Debug)]
pub struct Hearing {
    shared: bool,
    hears: bool,
    /// The other nodes that take beats, and when each was heard last.
    nodes: BTreeMap<Name, u64>,
}

impl Hearing {
    /// Of what is said to this process and to no other.
    pub fn alone() -> Self {
        Self {
            shared: false,
            hears: true,
            nodes: BTreeMap::new(),
        }
    }

    /// Of a cluster, of which nothing is heard yet.
    pub fn shared() -> Self {
        Self {
            shared: true,
            hears: false,
            nodes: BTreeMap::new(),
        }
    }

    /// Whether the others are heard.
    pub fn hears(&self) -> bool {
        self.hears
    }

    /// The others are heard from now on, or not any more.
    pub(super) fn set(&mut self, hears: bool) {
        self.hears = hears;
    }

    /// A node told something; whether it had been quiet for too long.
    pub(super) fn told(&mut self, now_ms: u64, node: &Name) -> bool {
        let before = self.nodes.insert(node.clone(), now_ms);
        before.is_some_and(|before| before.saturating_add(QUIET_MS) <= now_ms)
    }

    /// A node is gone; whether it was known.
    pub(super) fn gone(&mut self, node: &Name) -> bool {
        self.nodes.remove(node).is_some()
    }

    /// The nodes that take beats.
    pub fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.keys()
    }

    /// Whether one who was heard at that time is in time by this, whatever he was given besides.
    pub fn is_recent(&self, now_ms: u64, at_ms: u64, time_ms: u64) -> bool {
        let slack = if self.shared { SLACK_MS } else { 0 };
        at_ms.saturating_add(time_ms).saturating_add(slack) > now_ms
    }

    /// Whether somebody was silent for so long, as far as that can be known: whom another node heard, that node must
    /// have told since his time was over, and lately.
    pub fn is_over(&self, now_ms: u64, last: &Last, time_ms: u64) -> bool {
        let slack = if self.shared { SLACK_MS } else { 0 };
        let over = last.counts_from_ms.saturating_add(time_ms);
        let told = last.by.as_ref().and_then(|by| self.nodes.get(by));
        let could_tell = |told: &u64| *told >= over && told.saturating_add(QUIET_MS) > now_ms;
        self.hears && over.saturating_add(slack) <= now_ms && told.is_none_or(could_tell)
    }
}
