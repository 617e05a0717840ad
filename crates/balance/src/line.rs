//! Who waits for a slot, and who is served next: the queue of a pool as a plain state machine.
//!
//! Requests that any backend may serve wait in one lane. A session that must meet its own backend waits in a lane
//! of that backend, which holds no more than a fair share of the queue: so a slow backend keeps nobody waiting but
//! those who cannot go elsewhere.
//!
//! A lane is in order of arrival as long as waits stay under the target, or stay over it for less than the
//! timeout: a burst is worked off fairly. A lane whose waits have been over the target for longer is overloaded
//! (this is the rule of CoDel): more comes than can ever be served, and who is oldest is likeliest to have left. So
//! the newest are served first, and who has waited longer than the target is refused, until nobody waits.
//!
//! A slot is an entry in the count of its backend ([`Load`]). It is handed from request to request without being
//! free in between, so nobody can take it on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use crate::load::Load;

/// Weight of the newest in the averages: an eighth.
const AVERAGE_OVER: u64 = 8;
/// In an overloaded lane nobody is refused before this many slots came free in the time that it waited.
const SLOTS_TO_WAIT: u64 = 4;
/// Longest `Retry-After`, in seconds.
const MAX_RETRY_AFTER_S: u64 = 60;

/// Settings of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) size: usize,
    pub(crate) timeout_us: u64,
    pub(crate) target_us: u64,
}

/// A backend as the queue sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) load: Arc<Load>,
    /// What stands for it in [`Wish::tried`] and the like.
    pub(crate) seed: u64,
    pub(crate) cap: u32,
    /// It takes requests that any backend may serve.
    pub(crate) takes: bool,
    /// It takes requests of its old sessions.
    pub(crate) keeps: bool,
    /// Ejections count, and whether the pool fails open.
    pub(crate) ejectable: Option<bool>,
}

/// What a request waits for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Only this backend will do.
    pub(crate) pinned: Option<u64>,
    /// Not these, which it has tried.
    pub(crate) tried: Vec<u64>,
    /// The backends that it knows, in order: it may be older than the last change.
    pub(crate) known: Arc<[u64]>,
    /// After this it is of no use to its client.
    pub(crate) deadline_us: Option<u64>,
}

/// What came of entering the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// There was a slot at this backend after all: it is taken.
    Slot(u64),
    /// It waits under this number, at this place counted from 1.
    Waits(u64, u32),
    /// The queue is full.
    Full,
    /// It could not be answered in its own time.
    TooLate,
    /// None of the backends that it may use takes requests.
    Nobody,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A slot at the backend with this [`crate::Balancer::session_id`] was handed over.
    Slot(u64),
    /// Refused.
    Shed(Shed),
    /// What it waited for is gone: choose again.
    Lost,
}

/// Why a request was refused by the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The queue is full.
    Full,
    /// It has waited for the timeout.
    Timeout,
    /// The pool is overloaded, and it has waited for the target.
    Overload,
    /// It could not be answered in its own time any more.
    Deadline,
}

impl Shed {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Full, Self::Timeout, Self::Overload, Self::Deadline];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Overload => "overload",
            Self::Deadline => "deadline",
        }
    }
}

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    entered_us: u64,
    tried: Vec<u64>,
    known: Arc<[u64]>,
    deadline_us: u64,
    waker: Option<Waker>,
}

/// Waiting requests by number, which is their order of arrival.
#[derive(Debug, Default)]
struct Lane {
    waiters: BTreeMap<u64, Waiter>,
    /// Since when those served have waited longer than the target.
    over_since_us: Option<u64>,
    overloaded: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Line {
    seats: Vec<Seat>,
    rules: Rules,
    any: Lane,
    pinned: BTreeMap<u64, Lane>,
    /// How waits ended whose requests have not looked yet.
    settled: BTreeMap<u64, (Settled, Option<Arc<Load>>)>,
    next: u64,
    now_us: u64,
    /// Last slot handed over while others waited.
    handed_us: Option<u64>,
    /// Average time between two of them.
    gap_us: u64,
    /// Average time that a request holds its slot.
    held_us: u64,
    /// To be woken by the caller, once it holds no lock.
    wakes: Vec<Waker>,
    /// Where the search for a free slot begins.
    first: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            seats: Vec::new(),
            rules: Rules {
                size: 0,
                timeout_us: 0,
                target_us: 0,
            },
            any: Lane::default(),
            pinned: BTreeMap::new(),
            settled: BTreeMap::new(),
            next: 0,
            now_us: 0,
            handed_us: None,
            gap_us: 0,
            held_us: 0,
            wakes: Vec::new(),
            first: 0,
        }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.any.waiters.len() + self.pinned.values().map(|lane| lane.waiters.len()).sum::<usize>()
    }

    /// Those of them that any backend may serve.
    pub(crate) fn waiting_for_any(&self) -> usize {
        self.any.waiters.len()
    }

    /// Whether the newest are served first.
    pub(crate) fn overloaded(&self) -> bool {
        self.any.overloaded || self.pinned.values().any(|lane| lane.overloaded)
    }

    /// Wakers of those whose wait has ended.
    pub(crate) fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    /// Puts new backends and settings in force.
    pub(crate) fn install(&mut self, seats: Vec<Seat>, rules: Rules, now_us: u64) {
        self.seats = seats;
        self.rules = rules;
        self.strand();
        self.sweep(now_us);
    }

    /// A request that found every backend full.
    pub(crate) fn enter(&mut self, wish: Wish, now_us: u64) -> Entered {
        self.see(now_us);
        self.shed_late();
        let deadline_us = wish.deadline_us.unwrap_or(u64::MAX);
        if now_us.saturating_add(self.held_us) > deadline_us {
            return Entered::TooLate;
        }
        if !self.seats.iter().any(|seat| wish.may_use(seat)) {
            return Entered::Nobody;
        }
        self.next += 1;
        let number = self.next;
        let waiter = Waiter {
            entered_us: now_us,
            tried: wish.tried,
            known: wish.known,
            deadline_us,
            waker: None,
        };
        self.lane(wish.pinned).waiters.insert(number, waiter);
        self.fill();
        if let Some((Settled::Slot(seed), _)) = self.settled.get(&number) {
            let seed = *seed;
            self.settled.remove(&number);
            return Entered::Slot(seed);
        }
        if self.over_size(wish.pinned) && !self.make_room(wish.pinned, number) {
            self.lane(wish.pinned).waiters.remove(&number);
            self.tidy();
            return Entered::Full;
        }
        let place = u32::try_from(self.waiting()).unwrap_or(u32::MAX);
        Entered::Waits(number, place)
    }

    /// How the wait of this number ended; if it has not, `waker` is woken when it does.
    pub(crate) fn look(&mut self, number: u64, waker: &Waker) -> Option<Settled> {
        if let Some((settled, _)) = self.settled.remove(&number) {
            return Some(settled);
        }
        let lanes = std::iter::once(&mut self.any).chain(self.pinned.values_mut());
        for lane in lanes {
            if let Some(waiter) = lane.waiters.get_mut(&number) {
                match &mut waiter.waker {
                    Some(held) => held.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                return None;
            }
        }
        // Nobody waits under this number: only a wait that was looked at to its end.
        Some(Settled::Lost)
    }

    /// The request of this number is gone. A slot that it was handed goes on to the next.
    pub(crate) fn leave(&mut self, number: u64) {
        if let Some((_, load)) = self.settled.remove(&number) {
            if let Some(load) = load {
                self.hand_on(&load);
            }
            return;
        }
        self.any.waiters.remove(&number);
        self.pinned.values_mut().for_each(|lane| {
            lane.waiters.remove(&number);
        });
        self.tidy();
    }

    /// A slot of this backend, held for `held_us`, is not needed any more.
    pub(crate) fn release(&mut self, load: &Arc<Load>, held_us: u64, now_us: u64) {
        self.see(now_us);
        self.held_us = average(self.held_us, held_us);
        self.shed_late();
        self.hand_on(load);
    }

    /// Refuses who has waited too long, and gives out what is free: a backend may be back.
    pub(crate) fn sweep(&mut self, now_us: u64) {
        self.see(now_us);
        self.shed_late();
        self.shed_hopeless();
        self.lose();
        self.fill();
    }

    /// When to come again, in seconds: what waits, at the pace at which slots were handed over lately.
    pub(crate) fn retry_after_s(&self) -> u32 {
        let stalled_us = self.handed_us.map_or(0, |at| self.now_us.saturating_sub(at));
        let gap_us = self.gap_us.max(stalled_us);
        let ahead = self.waiting() as u64 + 1;
        let seconds = ahead.saturating_mul(gap_us).div_ceil(1_000_000);
        seconds.clamp(1, MAX_RETRY_AFTER_S) as u32
    }

    /// Clocks of threads differ a little: time does not run backwards here.
    fn see(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    fn lane(&mut self, pinned: Option<u64>) -> &mut Lane {
        match pinned {
            None => &mut self.any,
            Some(seed) => self.pinned.entry(seed).or_default(),
        }
    }

    fn over_size(&self, pinned: Option<u64>) -> bool {
        let share = self.rules.size.div_ceil(self.seats.len().max(1));
        let lane = pinned.and_then(|seed| self.pinned.get(&seed));
        self.waiting() > self.rules.size || lane.is_some_and(|lane| lane.waiters.len() > share)
    }

    /// In an overloaded lane the oldest gives way to the one that has just come.
    fn make_room(&mut self, pinned: Option<u64>, newest: u64) -> bool {
        let lane = self.lane(pinned);
        if !lane.overloaded {
            return false;
        }
        match lane.waiters.first_key_value() {
            Some((oldest, _)) if *oldest != newest => {
                let oldest = lane.waiters.pop_first();
                self.settle(oldest, Settled::Shed(Shed::Full), None);
                true
            }
            _ => false,
        }
    }

    /// Ends a wait.
    fn settle(&mut self, waiter: Option<(u64, Waiter)>, how: Settled, load: Option<Arc<Load>>) {
        if let Some((number, waiter)) = waiter {
            self.settled.insert(number, (how, load));
            self.wakes.extend(waiter.waker);
        }
    }

    /// Refuses those who cannot be served in time.
    fn shed_late(&mut self) {
        let (now, rules) = (self.now_us, self.rules);
        // Enough to choose from must stay, or slots would wait for requests.
        let hurried_us = rules.target_us.max(SLOTS_TO_WAIT * self.gap_us);
        let hurried_us = hurried_us.min(rules.timeout_us);
        let mut late = Vec::new();
        let lanes = std::iter::once(&mut self.any).chain(self.pinned.values_mut());
        for lane in lanes {
            let most = if lane.overloaded {
                hurried_us
            } else {
                rules.timeout_us
            };
            while let Some(first) = lane.waiters.first_entry()
                && now.saturating_sub(first.get().entered_us) >= most
            {
                let waited = now.saturating_sub(first.get().entered_us);
                let why = if waited >= rules.timeout_us {
                    Shed::Timeout
                } else {
                    Shed::Overload
                };
                late.push((first.remove_entry(), why));
            }
        }
        for (entry, why) in late {
            self.settle(Some(entry), Settled::Shed(why), None);
        }
        self.tidy();
    }

    /// Refuses those who could not be answered in their own time any more.
    fn shed_hopeless(&mut self) {
        let answered_us = self.now_us.saturating_add(self.held_us);
        let mut hopeless = Vec::new();
        let lanes = std::iter::once(&mut self.any).chain(self.pinned.values_mut());
        for lane in lanes {
            let late = lane.waiters.iter().filter(|(_, w)| answered_us > w.deadline_us);
            let late: Vec<u64> = late.map(|(number, _)| *number).collect();
            hopeless.extend(late.iter().filter_map(|number| lane.waiters.remove_entry(number)));
        }
        for entry in hopeless {
            self.settle(Some(entry), Settled::Shed(Shed::Deadline), None);
        }
        self.tidy();
    }

    /// Sends those back to choose whose backend takes them no more, and all when none takes any.
    fn lose(&mut self) {
        let (now, all_out) = (self.now_us, self.all_out());
        let mut lost = Vec::new();
        for (seed, lane) in &mut self.pinned {
            let seat = self.seats.iter().find(|seat| seat.seed == *seed);
            if !seat.is_some_and(|seat| (seat.takes || seat.keeps) && !seat.is_out(now)) {
                lost.extend(std::mem::take(&mut lane.waiters));
            }
        }
        if !self
            .seats
            .iter()
            .any(|seat| seat.takes && (all_out || !seat.is_out(now)))
        {
            lost.extend(std::mem::take(&mut self.any.waiters));
        }
        for entry in lost {
            self.settle(Some(entry), Settled::Lost, None);
        }
        self.tidy();
    }

    /// Sends those back to choose who know none of the backends there are.
    fn strand(&mut self) {
        let seats = &self.seats;
        let stranded = |waiter: &Waiter| !seats.iter().any(|seat| seat.takes && waiter.fits(seat.seed));
        let stranded: Vec<u64> = self
            .any
            .waiters
            .iter()
            .filter(|(_, waiter)| stranded(waiter))
            .map(|(number, _)| *number)
            .collect();
        for number in stranded {
            let entry = self.any.waiters.remove_entry(&number);
            self.settle(entry, Settled::Lost, None);
        }
    }

    /// A slot of this backend goes to the next who can use it; if there is none, it is free.
    fn hand_on(&mut self, load: &Arc<Load>) {
        let seat = self.seats.iter().position(|seat| Arc::ptr_eq(&seat.load, load));
        let within = |seat: &Seat| seat.load.in_flight() <= seat.cap;
        let seat = seat.filter(|i| self.seats.get(*i).is_some_and(within));
        if seat.is_none_or(|i| !self.serve(i)) {
            load.end();
        }
    }

    /// Gives free slots to those who wait.
    fn fill(&mut self) {
        self.first = self.first.wrapping_add(1);
        let count = self.seats.len();
        for offset in 0..count {
            let index = self.first.wrapping_add(offset) % count;
            while self.waiting() > 0 {
                let Some(seat) = self.seats.get(index) else { break };
                let load = seat.load.clone();
                if !self.is_wanted(index) || !load.try_begin(seat.cap) {
                    break;
                }
                if !self.serve(index) {
                    load.end();
                    break;
                }
            }
        }
    }

    fn is_wanted(&self, index: usize) -> bool {
        let seat = self.seats.get(index);
        seat.is_some_and(|seat| {
            let pinned = self.pinned.get(&seat.seed);
            !self.any.waiters.is_empty() || pinned.is_some_and(|lane| !lane.waiters.is_empty())
        })
    }

    /// Hands a slot of this backend, counted already, to the next who can use it. False: nobody can.
    fn serve(&mut self, index: usize) -> bool {
        let Some(seat) = self.seats.get(index).cloned() else {
            return false;
        };
        let now = self.now_us;
        while let Some((entry, pinned)) = self.take_next(&seat) {
            if now.saturating_add(self.held_us) > entry.1.deadline_us {
                self.settle(Some(entry), Settled::Shed(Shed::Deadline), None);
                continue;
            }
            let waited_us = now.saturating_sub(entry.1.entered_us);
            let rules = self.rules;
            self.lane(pinned.then_some(seat.seed))
                .note_served(waited_us, now, rules);
            if let Some(before) = self.handed_us {
                self.gap_us = average(self.gap_us, now.saturating_sub(before));
            }
            self.handed_us = Some(now);
            self.settle(Some(entry), Settled::Slot(seat.seed), Some(seat.load));
            self.tidy();
            return true;
        }
        self.tidy();
        false
    }

    /// Takes the next who can use this backend out of its lane; whether it is one who needs this very backend.
    fn take_next(&mut self, seat: &Seat) -> Option<((u64, Waiter), bool)> {
        let out = seat.is_out(self.now_us);
        let takes = seat.takes && (!out || self.all_out());
        let keeps = (seat.takes || seat.keeps) && !out;
        let fits = |waiter: &Waiter| waiter.fits(seat.seed);
        let any = takes.then(|| self.any.next(fits)).flatten();
        let pinned = self.pinned.get(&seat.seed).filter(|_| keeps);
        let pinned = pinned.and_then(|lane| lane.next(fits));
        // Who must meet this backend goes before whoever came later and need not.
        let is_pinned = match (any, pinned) {
            (Some(any), Some(pinned)) => pinned < any,
            (_, pinned) => pinned.is_some(),
        };
        let number = if is_pinned { pinned } else { any }?;
        let lane = self.lane(is_pinned.then_some(seat.seed));
        Some((lane.waiters.remove_entry(&number)?, is_pinned))
    }

    fn all_out(&self) -> bool {
        self.seats
            .iter()
            .all(|seat| !seat.takes || seat.is_out(self.now_us))
    }

    /// A lane in which nobody waits is overloaded no more.
    fn tidy(&mut self) {
        if self.any.waiters.is_empty() {
            self.any = Lane::default();
        }
        self.pinned.retain(|_, lane| !lane.waiters.is_empty());
        if self.waiting() == 0 {
            self.handed_us = None;
        }
    }
}

impl Lane {
    /// The next to be served among those that fit.
    fn next(&self, fits: impl Fn(&Waiter) -> bool) -> Option<u64> {
        let mut waiters = self.waiters.iter();
        let found = if self.overloaded {
            waiters.rfind(|(_, waiter)| fits(waiter))
        } else {
            waiters.find(|(_, waiter)| fits(waiter))
        };
        found.map(|(number, _)| *number)
    }

    fn note_served(&mut self, waited_us: u64, now_us: u64, rules: Rules) {
        if self.overloaded {
            return;
        }
        if waited_us < rules.target_us {
            self.over_since_us = None;
        } else {
            let since = *self.over_since_us.get_or_insert(now_us);
            self.overloaded = now_us.saturating_sub(since) >= rules.timeout_us;
        }
    }
}

impl Waiter {
    fn fits(&self, seed: u64) -> bool {
        self.known.binary_search(&seed).is_ok() && !self.tried.contains(&seed)
    }
}

impl Wish {
    /// Whether a slot of this backend is any use, now or later.
    fn may_use(&self, seat: &Seat) -> bool {
        match self.pinned {
            Some(seed) => seed == seat.seed && (seat.takes || seat.keeps),
            None => {
                let known = self.known.binary_search(&seat.seed).is_ok();
                known && seat.takes && !self.tried.contains(&seat.seed)
            }
        }
    }
}

impl Seat {
    fn is_out(&self, now_us: u64) -> bool {
        self.ejectable
            .is_some_and(|fail_open| self.load.is_out(now_us, fail_open))
    }
}

fn average(before: u64, newest: u64) -> u64 {
    if before == 0 {
        return newest;
    }
    (before * (AVERAGE_OVER - 1)).saturating_add(newest) / AVERAGE_OVER
}
