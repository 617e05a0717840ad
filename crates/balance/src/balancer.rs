//! The table of one pool, and the pick.

use std::sync::Arc;

use model::config::{Algorithm, HashKey, HashTable};
use model::snapshot::{Eligibility, PoolState, WEIGHT_SCALE};

use crate::alias::Alias;
use crate::hash::{backend_seed, mix, remix};
use crate::load::Load;
use crate::maglev::Maglev;
use crate::pool::PoolLoad;
use crate::ring::Ring;
use crate::rng::{Rng, scale};
use crate::schedule::Schedule;
use crate::window::BUCKETS;

/// Turns of the round robin passed over because their member cannot take the request, before the choice is made
/// among those that can. Bounds a pick where a heavy member has just been ejected.
const MAX_TURNS_PASSED: usize = 16;
/// Random draws of members that cannot take the request, before the choice is made among those that can.
const MAX_DRAWS: usize = 4;
/// `peak_ewma` takes the first of its two draws unless the second is better by more than this factor: equally fast
/// members share by weight, and noise decides nothing.
const CLEARLY_BETTER: f32 = 0.8;
/// `peak_ewma`: cost of a member that is being tried for the first time in a while and has not answered yet, in
/// microseconds. Greater than any real one, so that one request at a time finds out.
const UNKNOWN_COST: f32 = 1e12;

/// Chooses among the members of one pool in one state.
#[derive(Debug)]
pub struct Balancer {
    pub(crate) state: Arc<PoolState>,
    pub(crate) pool: Arc<PoolLoad>,
    pub(crate) members: Vec<Member>,
    pub(crate) method: Method,
    /// No member is eligible of itself and the policy uses them all the same.
    pub(crate) fail_open: bool,
    /// Length of a bucket of the failure window.
    pub(crate) tick_us: u64,
    mean_weight: f32,
    /// All that take requests weigh the same.
    even: bool,
    /// A member has a cap.
    pub(crate) capped: bool,
    /// The seeds of the members in order, for the queue; empty where nothing is capped.
    pub(crate) seeds: Arc<[u64]>,
}

/// What a pick needs of a member, side by side.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) load: Arc<Load>,
    pub(crate) seed: u64,
    /// In effect, in hundredths.
    pub(crate) weight: u32,
    /// Requests in flight at most; the greatest number: any.
    pub(crate) cap: u32,
}

/// The algorithm with its table.
#[derive(Debug)]
pub(crate) enum Method {
    RoundRobin(Schedule),
    LeastConnections,
    Random(Alias),
    PowerOfTwo(Alias),
    PeakEwma(Alias),
    IpHash,
    /// With the bound on load in percent.
    ConsistentHash(Table, Option<u16>),
}

/// The table of `consistent_hash`.
#[derive(Debug)]
pub(crate) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// One question: who may be chosen.
pub(crate) struct Ask<'a> {
    pub(crate) tried: &'a [usize],
    pub(crate) now_us: u64,
    /// Ejected ones too, because there is nobody else.
    pub(crate) ejected_too: bool,
}

impl Balancer {
    /// Makes the table for `state`. `loads` has one entry per member, in the same order; a missing one is taken as
    /// a backend of which nothing is known.
    pub fn new(state: Arc<PoolState>, pool: Arc<PoolLoad>, loads: Vec<Arc<Load>>) -> Self {
        let mut loads = loads.into_iter();
        let members: Vec<Member> = state
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| Member {
                load: loads.next().unwrap_or_default(),
                seed: backend_seed(member.id.address),
                weight: member.effective_weight,
                cap: cap_of(&state, index, member),
            })
            .collect();
        let taking = || members.iter().map(|m| m.weight).filter(|w| *w > 0);
        let sum: f32 = taking().map(|w| w as f32).sum();
        let window = state.config.passive.as_ref().map(|p| p.window.as_micros());
        let window = u64::try_from(window.unwrap_or(0)).unwrap_or(u64::MAX);
        let capped = members.iter().any(|m| m.cap < u32::MAX);
        let mut seeds: Vec<u64> = members.iter().filter(|_| capped).map(|m| m.seed).collect();
        seeds.sort_unstable();
        Self {
            capped,
            seeds: seeds.into(),
            method: Method::new(&state),
            fail_open: state
                .members
                .iter()
                .any(|m| m.eligibility == Eligibility::FailOpen),
            tick_us: (window / BUCKETS as u64).max(1),
            even: taking().min() == taking().max(),
            mean_weight: sum / taking().count().max(1) as f32,
            members,
            state,
            pool,
        }
    }

    /// The state it was made for.
    pub fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Live figures of a member.
    ///
    /// # Panics
    /// When there is no member of this index; those that [`Balancer::pick`] gives exist.
    pub fn load(&self, index: usize) -> &Arc<Load> {
        &self.members[index].load
    }

    /// What the members share.
    pub fn pool(&self) -> &Arc<PoolLoad> {
        &self.pool
    }

    /// What the caller must hash (see [`crate::hash()`]) and pass as `key`; `None`: the key is not looked at.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.state.config.algorithm {
            Algorithm::IpHash => Some(&HashKey::ClientAddress),
            Algorithm::ConsistentHash(settings) => Some(&settings.key),
            _ => None,
        }
    }

    /// The member that takes the next request, as an index into the members of the state.
    ///
    /// Passes over weight 0, ejected members, full ones, and those in `tried` (the earlier attempts of the same request).
    /// Where every member with a weight is ejected, ejection counts for nothing. `None` when nobody is left.
    pub fn pick(&self, key: u64, tried: &[usize], now_us: u64, rng: &mut Rng) -> Option<usize> {
        self.pick_by(key, tried, now_us, rng, || self.pool.take_turn())
    }

    /// The same with turns from `turn`, so that an explanation need not take any.
    pub(crate) fn pick_by(
        &self,
        key: u64,
        tried: &[usize],
        now_us: u64,
        rng: &mut Rng,
        mut turn: impl FnMut() -> u64,
    ) -> Option<usize> {
        let mut ask = Ask {
            tried,
            now_us,
            ejected_too: false,
        };
        let chosen = self.choose(key, &ask, rng, &mut turn);
        if chosen.is_none() && self.all_out(now_us) {
            ask.ejected_too = true;
            return self.choose(key, &ask, rng, &mut turn);
        }
        chosen
    }

    /// What stands for a member in a session that was learned; the same wherever it stands in the pool.
    pub fn session_id(&self, index: usize) -> Option<u64> {
        self.members.get(index).map(|member| member.seed)
    }

    /// The member with this [`Balancer::session_id`].
    pub fn session_member(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.seed == id)
    }

    /// Whether a request of a session that is at this member may go there: it takes new requests, or it is drained
    /// and keeps the sessions that it has.
    pub fn keeps_session(&self, index: usize, tried: &[usize], now_us: u64) -> bool {
        let known = self.members.get(index).zip(self.state.members.get(index));
        known.is_some_and(|(member, state)| member.weight > 0 || state.keeps_sessions)
            && !tried.contains(&index)
            && !self.is_out(index, now_us)
    }

    fn choose(
        &self,
        key: u64,
        ask: &Ask<'_>,
        rng: &mut Rng,
        turn: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        match &self.method {
            Method::RoundRobin(schedule) => self.round_robin(schedule, ask, turn),
            Method::LeastConnections => self.least_loaded(ask, rng),
            Method::Random(table) => self.draw(table, ask, None, rng),
            Method::PowerOfTwo(table) => {
                let (first, second) = self.draw_two(table, ask, rng)?;
                Some(second.map_or(first, |second| self.less_loaded(first, second)))
            }
            Method::PeakEwma(table) => {
                let (first, second) = self.draw_two(table, ask, rng)?;
                Some(second.map_or(first, |second| self.faster(first, second, ask.now_us)))
            }
            Method::IpHash => self.rendezvous(key, |i| self.open(i, ask)),
            Method::ConsistentHash(table, bound) => self.consistent(table, *bound, key, ask),
        }
    }

    fn round_robin(
        &self,
        schedule: &Schedule,
        ask: &Ask<'_>,
        turn: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        for _ in 0..MAX_TURNS_PASSED {
            let member = schedule.at(turn())?;
            if self.open(member, ask) {
                return Some(member);
            }
        }
        // Multiples of the golden ratio, taken modulo one, spread evenly: consecutive turns still take turns.
        let fraction = turn().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.at_fraction(fraction, ask, None)
    }

    /// Fewest in flight per weight; among equals by weight at random.
    fn least_loaded(&self, ask: &Ask<'_>, rng: &mut Rng) -> Option<usize> {
        // The best so far: its index, requests in flight, weight; and the weight of all its equals.
        let mut best: Option<(usize, u64, u64, u64)> = None;
        for (index, member) in self.members.iter().enumerate() {
            if !self.open(index, ask) {
                continue;
            }
            let (load, weight) = (u64::from(member.load.in_flight()), u64::from(member.weight));
            let order = best.map(|(_, l, w, _)| (load * w).cmp(&(l * weight)));
            best = match (best, order) {
                (Some(held), Some(std::cmp::Ordering::Greater)) => Some(held),
                (Some((i, l, w, equals)), Some(std::cmp::Ordering::Equal)) => {
                    let equals = equals + weight;
                    let (i, l, w) = if rng.below(equals) < weight {
                        (index, load, weight)
                    } else {
                        (i, l, w)
                    };
                    Some((i, l, w, equals))
                }
                _ => Some((index, load, weight, weight)),
            };
        }
        best.map(|(index, ..)| index)
    }

    /// A member drawn by weight among those that may be chosen, other than `except`.
    fn draw(&self, table: &Alias, ask: &Ask<'_>, except: Option<usize>, rng: &mut Rng) -> Option<usize> {
        for _ in 0..MAX_DRAWS {
            let member = table.draw(rng)?;
            if Some(member) != except && self.open(member, ask) {
                return Some(member);
            }
        }
        self.at_fraction(rng.next_u64(), ask, except)
    }

    /// Two different members drawn by weight; the second is missing where only one may be chosen.
    pub(crate) fn draw_two(
        &self,
        table: &Alias,
        ask: &Ask<'_>,
        rng: &mut Rng,
    ) -> Option<(usize, Option<usize>)> {
        let first = self.draw(table, ask, None, rng)?;
        Some((first, self.draw(table, ask, Some(first), rng)))
    }

    /// The one with fewer requests in flight per weight; the first of equals.
    fn less_loaded(&self, first: usize, second: usize) -> usize {
        let (a, b) = (&self.members[first], &self.members[second]);
        let of_a = u64::from(a.load.in_flight()) * u64::from(b.weight);
        let of_b = u64::from(b.load.in_flight()) * u64::from(a.weight);
        if of_b < of_a { second } else { first }
    }

    /// The one that is expected to answer sooner; the first unless the second is clearly better.
    fn faster(&self, first: usize, second: usize, now_us: u64) -> usize {
        let better = self.cost(second, now_us) < CLEARLY_BETTER * self.cost(first, now_us);
        if better { second } else { first }
    }

    /// Expected latency times the queue: one request, and those in flight by the member's weight relative to the
    /// mean. (Dividing the whole by the weight instead would starve light members whenever nobody is busy.)
    pub(crate) fn cost(&self, index: usize, now_us: u64) -> f32 {
        let member = &self.members[index];
        let in_flight = member.load.in_flight();
        let latency = match member.load.latency.expected_us(now_us) {
            Some(latency) => latency,
            None if in_flight == 0 => return 0.0,
            None => UNKNOWN_COST,
        };
        latency * (1.0 + in_flight as f32 * self.mean_weight / member.weight.max(1) as f32)
    }

    /// Weighted rendezvous hashing: each member gets a score from the key and its own address, the greatest wins.
    /// Changing one member's weight, or its absence, moves keys to or from that member only.
    fn rendezvous(&self, key: u64, open: impl Fn(usize) -> bool) -> Option<usize> {
        let key = mix(key, 0);
        if self.even {
            // The score grows with the number: the same winner without any logarithm.
            let open = (0..self.members.len()).filter(|i| open(*i));
            return open.max_by_key(|i| remix(key, self.members[*i].seed));
        }
        let (mut chosen, mut best) = (None, 0.0);
        for (index, member) in self.members.iter().enumerate() {
            let uniform = uniform(key, member.seed);
            // As -ln(u) ≥ 1 − u, the score is no more than weight / (1 − u): most need no logarithm.
            if f64::from(member.weight) > best * (1.0 - uniform) && open(index) {
                let score = score(uniform, member.weight);
                if score > best {
                    (chosen, best) = (Some(index), score);
                }
            }
        }
        chosen
    }

    pub(crate) fn rendezvous_score(&self, key: u64, index: usize) -> f64 {
        let member = &self.members[index];
        score(uniform(mix(key, 0), member.seed), member.weight)
    }

    /// The key's member, or the next in line that is open and within the bound. Where nobody is within it (only
    /// possible for a retry, which has fewer to choose from), the bound counts for nothing.
    fn consistent(&self, table: &Table, bound: Option<u16>, key: u64, ask: &Ask<'_>) -> Option<usize> {
        let open = |i: usize| self.open(i, ask);
        let Some(percent) = bound else {
            return self.find(table, key, open);
        };
        let room = self.room(percent, ask);
        let within = |i: usize| open(i) && room.fits(self, i);
        self.find(table, key, within)
            .or_else(|| self.find(table, key, open))
    }

    fn find(&self, table: &Table, key: u64, open: impl Fn(usize) -> bool) -> Option<usize> {
        match table {
            Table::Ring(ring) => ring.find(key, open),
            Table::Maglev(maglev) => {
                let owner = maglev.owner(key).filter(|i| open(*i));
                owner.or_else(|| self.rendezvous(key, open))
            }
        }
    }

    /// The bound on a member's load, from what all that are in use have in flight.
    pub(crate) fn room(&self, percent: u16, ask: &Ask<'_>) -> Room {
        let mut room = Room {
            in_flight: 1,
            weight: 0,
            percent: u128::from(percent),
        };
        for (index, member) in self.members.iter().enumerate() {
            if member.weight > 0 && (ask.ejected_too || !self.is_out(index, ask.now_us)) {
                room.in_flight += u128::from(member.load.in_flight());
                room.weight += u128::from(member.weight);
            }
        }
        room
    }

    /// The member at this point of the range of all weights that may be chosen laid end to end.
    fn at_fraction(&self, fraction: u64, ask: &Ask<'_>, except: Option<usize>) -> Option<usize> {
        let open = |i: &usize| Some(*i) != except && self.open(*i, ask);
        let weight = |i: usize| u64::from(self.members[i].weight);
        let total: u64 = (0..self.members.len()).filter(open).map(weight).sum();
        let mut point = scale(fraction, total);
        // An ejection between the two passes can leave the point beyond the end: the last one then.
        let mut last = None;
        for index in (0..self.members.len()).filter(open) {
            last = Some(index);
            match point.checked_sub(weight(index)) {
                Some(rest) => point = rest,
                None => break,
            }
        }
        last
    }

    pub(crate) fn open(&self, index: usize, ask: &Ask<'_>) -> bool {
        self.open_or_full(index, ask) && (!self.capped || !self.is_full(index))
    }

    /// Whether it has as many in flight as it may.
    pub(crate) fn is_full(&self, index: usize) -> bool {
        let member = &self.members[index];
        member.load.in_flight() >= member.cap
    }

    pub(crate) fn open_or_full(&self, index: usize, ask: &Ask<'_>) -> bool {
        self.members[index].weight > 0
            && !ask.tried.contains(&index)
            && (ask.ejected_too || !self.is_out(index, ask.now_us))
    }

    /// Whether an ejection keeps this member from new requests.
    pub(crate) fn is_out(&self, index: usize, now_us: u64) -> bool {
        self.state.config.passive.is_some() && self.members[index].load.is_out(now_us, self.fail_open)
    }

    #[cold]
    pub(crate) fn all_out(&self, now_us: u64) -> bool {
        (0..self.members.len()).all(|i| self.members[i].weight == 0 || self.is_out(i, now_us))
    }
}

impl Method {
    fn new(state: &PoolState) -> Self {
        let weights: Vec<u32> = state.members.iter().map(|m| m.effective_weight).collect();
        match &state.config.algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(Schedule::new(&weights)),
            Algorithm::LeastConnections => Self::LeastConnections,
            Algorithm::Random => Self::Random(Alias::new(&weights)),
            Algorithm::PowerOfTwo => Self::PowerOfTwo(Alias::new(&weights)),
            Algorithm::PeakEwma => Self::PeakEwma(Alias::new(&weights)),
            Algorithm::IpHash => Self::IpHash,
            Algorithm::ConsistentHash(settings) => {
                let declared = (0..state.members.len()).filter_map(|i| state.told_weight(i));
                let table = match settings.table {
                    HashTable::Ring => Table::Ring(Ring::new(&state.members, declared)),
                    HashTable::Maglev => Table::Maglev(Maglev::new(&state.members)),
                };
                Self::ConsistentHash(table, settings.bounded_load)
            }
        }
    }
}

/// The cap in effect: that of the backend or else the pool's. While it is in slow start, a share of it: under
/// overload a queue fills whatever is free, and weights would hold nothing back.
fn cap_of(state: &PoolState, index: usize, member: &model::snapshot::Member) -> u32 {
    let Some(cap) = state.config.max_in_flight(index) else {
        return u32::MAX;
    };
    let whole = u64::from(member.weight) * u64::from(WEIGHT_SCALE);
    if member.ramp_since.is_none() || whole == 0 {
        return cap;
    }
    let share = (u64::from(cap) * u64::from(member.effective_weight)).div_ceil(whole);
    u32::try_from(share).unwrap_or(cap).clamp(1, cap)
}

/// The number of a member for a key, between 0 and 1, both excluded.
fn uniform(key: u64, seed: u64) -> f64 {
    // 52 bits: half a step more than the greatest is still less than 1.
    ((remix(key, seed) >> 12) as i64 as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0)
}

/// With this score the greatest of many is each member's with a chance by its weight.
fn score(uniform: f64, weight: u32) -> f64 {
    -f64::from(weight) / uniform.ln()
}

/// How much a member may have in flight under bounded load, counting the request to be placed:
/// its share by weight of all in flight, times the bound, rounded up.
pub(crate) struct Room {
    in_flight: u128,
    weight: u128,
    percent: u128,
}

impl Room {
    fn fits(&self, balancer: &Balancer, index: usize) -> bool {
        u64::from(balancer.members[index].load.in_flight()) < self.greatest(balancer, index)
    }

    /// Greatest number of requests in flight.
    pub(crate) fn greatest(&self, balancer: &Balancer, index: usize) -> u64 {
        let weight = u128::from(balancer.members[index].weight);
        let exact = self.percent * self.in_flight * weight;
        u64::try_from(exact.div_ceil((100 * self.weight).max(1))).unwrap_or(u64::MAX)
    }
}
