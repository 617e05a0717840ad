//! Who of the waiting gets the next free slot, and who is sent away.
//!
//! A pool whose backends are all at their cap has a queue. It serves the living: in the order of arrival while it
//! drains, and the newest first once it has not been empty for [`OVERLOADED_AFTER_US`] (adaptive LIFO): under
//! lasting overload somebody is sent away in any case, and whoever has waited long is likely to be gone already.
//! In that state nobody waits longer than `overload_timeout` (the idea of CoDel, RFC 8289: a standing queue helps
//! no one, so it is kept short; a burst may use all of it). A request whose own deadline has passed is never
//! served, and one that leaves is gone at once.
//!
//! Pure: it holds places, not requests; whoever drives it keeps what belongs to a place. Times are microseconds.

use std::collections::BTreeMap;

/// How long a queue may stand before it counts as overloaded, in microseconds.
pub const OVERLOADED_AFTER_US: u64 = 100_000;
/// The drain rate is measured over this long, in microseconds.
const RATE_WINDOW_US: u64 = 1_000_000;
/// Longest advice in seconds.
const MAX_RETRY_AFTER_S: u32 = 60;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub size: usize,
    /// Longest wait in microseconds.
    pub timeout_us: u64,
    /// Longest wait while overloaded, in microseconds.
    pub overload_timeout_us: u64,
}

/// A place in the queue; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Why somebody does not wait (any longer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// There is no room.
    Full,
    /// It has waited long enough.
    TimedOut,
    /// Its own deadline has passed, or would before it is served.
    Deadline,
}

/// What a waiting request is told when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Ask again at this time.
    Until(u64),
    /// Go away.
    Shed(Shed),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    since_us: u64,
    deadline_us: u64,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// By place, which is the order of arrival.
    waiting: BTreeMap<Place, Entry>,
    next: u64,
    /// Since when it has not been empty.
    standing_since_us: u64,
    /// Requests served in the current and in the last window of the rate.
    served: [u32; 2],
    window_start_us: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            standing_since_us: 0,
            served: [0; 2],
            window_start_us: 0,
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the queue has stood for too long.
    pub fn is_overloaded(&self, now_us: u64) -> bool {
        !self.is_empty() && now_us.saturating_sub(self.standing_since_us) >= OVERLOADED_AFTER_US
    }

    /// Takes a place. `deadline_us`: when the request is of no use any more (`u64::MAX`: never).
    ///
    /// # Errors
    /// [`Shed::Full`] or [`Shed::Deadline`].
    pub fn enter(&mut self, now_us: u64, deadline_us: u64, limits: &QueueLimits) -> Result<Place, Shed> {
        if deadline_us <= now_us {
            return Err(Shed::Deadline);
        }
        if self.waiting.len() >= limits.size {
            self.shed_hopeless(now_us, limits);
        }
        if self.waiting.len() >= limits.size {
            return Err(Shed::Full);
        }
        if self.waiting.is_empty() {
            self.standing_since_us = now_us;
        }
        let place = Place(self.next);
        self.next += 1;
        let entry = Entry {
            since_us: now_us,
            deadline_us,
        };
        self.waiting.insert(place, entry);
        Ok(place)
    }

    /// How many stand before this one, as the order is now; `None` when it does not wait.
    pub fn position(&self, place: Place, now_us: u64) -> Option<usize> {
        self.waiting.get(&place)?;
        Some(if self.is_overloaded(now_us) {
            self.waiting.range(place..).count() - 1
        } else {
            self.waiting.range(..place).count()
        })
    }

    /// Gives a place up. False when it was given up or served before.
    pub fn leave(&mut self, place: Place) -> bool {
        self.waiting.remove(&place).is_some()
    }

    /// Whether a waiting request goes on waiting, and until when before it must ask again.
    pub fn check(&mut self, place: Place, now_us: u64, limits: &QueueLimits) -> Waiting {
        let Some(entry) = self.waiting.get(&place).copied() else {
            return Waiting::Shed(Shed::TimedOut);
        };
        match self.verdict(entry, now_us, limits) {
            Some(shed) => {
                self.waiting.remove(&place);
                Waiting::Shed(shed)
            }
            // The bound of overload may begin to count at any time after this.
            None if now_us < entry.since_us.saturating_add(limits.overload_timeout_us) => {
                let early = entry.since_us.saturating_add(limits.overload_timeout_us);
                Waiting::Until(early.min(entry.deadline_us))
            }
            None => {
                let late = entry.since_us.saturating_add(limits.timeout_us);
                let soon = now_us.saturating_add(OVERLOADED_AFTER_US);
                Waiting::Until(late.min(soon).min(entry.deadline_us))
            }
        }
    }

    /// Whom a free slot goes to. Those that are no longer worth serving are passed over and removed; they learn
    /// of it when they ask.
    pub fn next(&mut self, now_us: u64, limits: &QueueLimits) -> Option<Place> {
        loop {
            let newest_first = self.is_overloaded(now_us);
            let (place, entry) = if newest_first {
                self.waiting.pop_last()?
            } else {
                self.waiting.pop_first()?
            };
            if self.verdict(entry, now_us, limits).is_none() {
                self.note_served(now_us);
                return Some(place);
            }
        }
    }

    /// When it is worth coming back, in whole seconds: the time to serve all that wait now, by the rate of the
    /// last seconds.
    pub fn retry_after_s(&self, now_us: u64) -> u32 {
        let current = now_us.saturating_sub(self.window_start_us).min(RATE_WINDOW_US);
        let span_us = (current + RATE_WINDOW_US).max(1);
        let served = u64::from(self.served[0]) + u64::from(self.served[1]);
        if served == 0 || now_us.saturating_sub(self.window_start_us) > 2 * RATE_WINDOW_US {
            return 1.max(u32::from(!self.is_empty()));
        }
        let us = (self.waiting.len() as u64).saturating_mul(span_us) / served;
        u32::try_from(us.div_ceil(1_000_000))
            .unwrap_or(MAX_RETRY_AFTER_S)
            .clamp(1, MAX_RETRY_AFTER_S)
    }

    fn verdict(&self, entry: Entry, now_us: u64, limits: &QueueLimits) -> Option<Shed> {
        let bound = if now_us.saturating_sub(self.standing_since_us) >= OVERLOADED_AFTER_US {
            limits.overload_timeout_us.min(limits.timeout_us)
        } else {
            limits.timeout_us
        };
        if now_us >= entry.deadline_us {
            Some(Shed::Deadline)
        } else if now_us.saturating_sub(entry.since_us) >= bound {
            Some(Shed::TimedOut)
        } else {
            None
        }
    }

    /// Makes room by removing those that will not be served.
    fn shed_hopeless(&mut self, now_us: u64, limits: &QueueLimits) {
        let hopeless: Vec<Place> = self
            .waiting
            .iter()
            .take_while(|(_, entry)| self.verdict(**entry, now_us, limits).is_some())
            .map(|(place, _)| *place)
            .collect();
        for place in hopeless {
            self.waiting.remove(&place);
        }
    }

    fn note_served(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.window_start_us);
        if passed >= RATE_WINDOW_US {
            let last = if passed < 2 * RATE_WINDOW_US {
                self.served[0]
            } else {
                0
            };
            self.served = [0, last];
            self.window_start_us = now_us;
        }
        self.served[0] = self.served[0].saturating_add(1);
    }
}
