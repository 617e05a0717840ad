//! Slots: a request in a pool whose backends have caps takes one before it is sent, waits for one where all are
//! taken, and gives it back at its end.
//!
//! A cap holds exactly over all threads: the count of a backend is only ever raised by a compare-exchange that
//! sees it below the cap, and a slot that is handed on never leaves the count.

use std::sync::Arc;

use crate::balancer::{Ask, Balancer};
use crate::line::{Entered, Rules, Seat, Shed, Wish};
use crate::load::Load;
use crate::pool::PoolLoad;
use crate::queue::Place;
use crate::rng::Rng;

/// Races for a last slot lost in a row, after which a request waits in the queue like everybody.
const MAX_RACES: usize = 8;

/// What a request may use.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its hash key.
    pub key: u64,
    /// Its session is at this member, and no other will do.
    pub pinned: Option<usize>,
    /// The members that it has tried.
    pub tried: &'a [usize],
    /// After this time, in microseconds, an answer is of no use to its client.
    pub deadline_us: Option<u64>,
}

/// What came of asking for a slot.
#[derive(Debug)]
pub enum Take {
    /// A slot of this member is taken.
    Taken(usize),
    /// All are full: it waits.
    Wait(Place),
    /// It may not even wait.
    Shed(Shed),
    /// No member takes it, full or not.
    Nobody,
}

impl Balancer {
    /// Whether any member has a cap.
    pub fn is_capped(&self) -> bool {
        self.capped
    }

    /// Requests that a member may have in flight now; `None`: any number. In slow start it is a share of its cap.
    pub fn cap(&self, index: usize) -> Option<u32> {
        self.members
            .get(index)
            .map(|m| m.cap)
            .filter(|cap| *cap < u32::MAX)
    }

    /// Takes a slot of the member that takes the next request, or a place in the queue. Who asks while others
    /// wait comes behind them.
    pub fn take(&self, need: Need<'_>, now_us: u64, rng: &mut Rng) -> Take {
        if !self.capped {
            let picked = match need.pinned {
                Some(index) => Some(index).filter(|i| self.keeps_session(*i, need.tried, now_us)),
                None => self.pick(need.key, need.tried, now_us, rng),
            };
            return picked.map_or(Take::Nobody, |index| {
                self.load(index).begin();
                Take::Taken(index)
            });
        }
        if need.pinned.is_some() || !self.pool.queue.is_ahead() {
            for _ in 0..MAX_RACES {
                let picked = match need.pinned {
                    Some(index) => Some(index).filter(|i| self.keeps_session(*i, need.tried, now_us)),
                    None => self.pick(need.key, need.tried, now_us, rng),
                };
                let Some(index) = picked else { break };
                if self.try_begin(index) {
                    return Take::Taken(index);
                }
                if need.pinned.is_some() {
                    break;
                }
            }
        }
        self.wait(need, now_us)
    }

    /// As [`Balancer::take`] for a request that may be left out, such as a copy: it does not wait, and goes before nobody
    /// who does.
    pub fn take_free(&self, key: u64, now_us: u64, rng: &mut Rng) -> Take {
        let picked = (0..MAX_RACES).find_map(|_| {
            let index = self.pick(key, &[], now_us, rng)?;
            if !self.capped {
                self.load(index).begin();
                return Some(index);
            }
            (self.pool.queue.waiting() == 0 && self.try_begin(index)).then_some(index)
        });
        match picked {
            Some(index) => Take::Taken(index),
            None if self.anyone(&[], now_us) => Take::Shed(Shed::Full),
            None => Take::Nobody,
        }
    }

    fn try_begin(&self, index: usize) -> bool {
        self.members
            .get(index)
            .is_some_and(|member| member.load.try_begin(member.cap))
    }

    fn wait(&self, need: Need<'_>, now_us: u64) -> Take {
        let possible = match need.pinned {
            Some(index) => self.keeps_session(index, need.tried, now_us),
            None => self.anyone(need.tried, now_us),
        };
        if !possible {
            return Take::Nobody;
        }
        let seed = |index: &usize| self.session_id(*index);
        let wish = Wish {
            pinned: need.pinned.as_ref().and_then(seed),
            tried: need.tried.iter().filter_map(seed).collect(),
            known: self.seeds.clone(),
            deadline_us: need.deadline_us,
        };
        match self.pool.queue.enter(wish, now_us) {
            Entered::Slot(seed) => match self.session_member(seed) {
                Some(index) => Take::Taken(index),
                None => Take::Nobody,
            },
            Entered::Waits(number, position) => Take::Wait(Place::new(self.pool.clone(), number, position)),
            Entered::Nobody => Take::Nobody,
            Entered::Full => Take::Shed(Shed::Full),
            Entered::TooLate => Take::Shed(Shed::Deadline),
        }
    }

    /// Whether a member is left that takes new requests, be it full.
    pub fn anyone(&self, tried: &[usize], now_us: u64) -> bool {
        let mut ask = Ask {
            tried,
            now_us,
            ejected_too: false,
        };
        let open = |ask: &Ask<'_>| (0..self.members.len()).any(|i| self.open_or_full(i, ask));
        open(&ask) || {
            ask.ejected_too = self.all_out(now_us);
            ask.ejected_too && open(&ask)
        }
    }

    /// Puts its members and settings in force for the queue of the pool. To be called when it comes into force
    /// for requests too.
    pub fn install(&self, now_us: u64) {
        let queue = &self.state.config.overload.queue;
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let rules = Rules {
            size: queue.size as usize,
            timeout_us: micros(queue.timeout),
            target_us: micros(queue.target),
        };
        let ejectable = self.state.config.passive.as_ref().map(|_| self.fail_open);
        let members = self.members.iter().zip(&self.state.members);
        let seats = members.map(|(member, known)| Seat {
            load: member.load.clone(),
            seed: member.seed,
            cap: member.cap,
            takes: member.weight > 0,
            keeps: known.keeps_sessions,
            ejectable,
        });
        self.pool.queue.install(seats.collect(), rules, now_us);
    }
}

impl PoolLoad {
    /// Gives back a slot that was held for `held_us`: to the next who waits, if anyone does.
    pub fn release(&self, load: &Arc<Load>, held_us: u64, now_us: u64) {
        self.queue.release(load, held_us, now_us);
    }

    /// Refuses who has waited too long. To be called a few times in each tenth of a second, by any thread.
    pub fn sweep(&self, now_us: u64) {
        self.queue.sweep(now_us);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.queue.waiting()
    }

    /// Whether the newest of those who wait are served first.
    pub fn overloaded(&self) -> bool {
        self.queue.overloaded()
    }

    /// When to come again, in seconds from 1 to 60: what waits, at the pace of late.
    pub fn retry_after_s(&self) -> u32 {
        self.queue.retry_after_s()
    }
}
