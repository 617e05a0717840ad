//! All members of one node, as far as they speak for themselves: what instances say here, what other nodes have heard,
//! and what stands in the store.
//!
//! Load balancers that only this node knows are [`Roll`]s of its own; those of a shared store are kept alike by every
//! node. Both may be there side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::config::Name;
use model::state::{BackendId, Listed, PoolKey};

use super::book::{Book, Outcome, Write};
use super::{
    Beats, Entered, Full, Heard, Hearing, Last, MemberRecord, Pulse, QUIET_MS, Roll, SLACK_MS, Said,
};

/// Least time between two tellings of whom this node has heard.
pub const BEATS_EVERY_MS: u64 = 1_000;
/// A node that takes beats tells so often even when it has heard nobody: then its silence means something.
pub const TESTIFY_EVERY_MS: u64 = 2_000;
/// A node that has heard nobody for so long takes no beats any more, and tells nothing. The others then take it for one
/// that has died, and give those whom it heard last their time once more: so all of them are out before, also those of
/// the longest time, an hour, which are kept because too many fell silent at once; by clocks that differ by a twentieth.
pub const LET_GO_MS: u64 = 2 * 3_600_000 + 400_000;
/// Longest telling, about, in bytes; who has no room in it is told of in the next one.
pub const MOST_BEATS_BYTES: usize = 512 * 1024;
/// The record of a member that was silent for too long is removed after this time.
pub const REMOVED_AFTER_MS: u64 = 60_000;
/// Whoever looks for silence does so several times a second. When the last look was so long ago, it did not run in
/// between, and what was said meanwhile may not have been taken yet.
pub const PAUSE_MS: u64 = 1_500;
/// And at most so much later: nodes take different times, so that one removes and the others see it.
pub const REMOVED_WITHIN_MS: u64 = 30_000;

/// A registration.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it says of itself, with the life of a new membership.
    pub listed: Listed,
    /// For how long it holds.
    pub ttl_ms: u64,
    /// Most members of the pool.
    pub most: usize,
}

/// Somebody who was heard here and is not told of yet: registered or not, where, who.
type Key = (bool, PoolKey, SocketAddr);

/// What this node tells the others.
#[derive(Debug, Default)]
struct Telling {
    /// When each was heard, and how busy he said he is.
    unsaid: BTreeMap<Key, (u64, Option<u8>)>,
    /// What is being told, until it is known whether it was.
    under_way: Option<BTreeMap<Key, u64>>,
    /// Where the last telling ended for want of room.
    from: Option<Key>,
    tried_ms: Option<u64>,
    heard_ms: Option<u64>,
}

/// The last time in which this node did not hear the store, or was stopped.
#[derive(Clone, Copy, Debug, Default)]
struct Deaf {
    /// What is seen shortly afterwards may be of any time since then.
    since_ms: u64,
    /// Whoever spoke here since then may have come back after he went, though that is seen only now.
    spoke_from_ms: u64,
    /// Since when the store is heard again.
    until_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Presence {
    own: Option<Name>,
    removes_after_ms: u64,
    alone: Hearing,
    cluster: Hearing,
    /// Whether records are heard, and tellings.
    hears: (bool, bool),
    looked_ms: Option<u64>,
    deaf: Deaf,
    local: BTreeMap<PoolKey, Roll>,
    shared: BTreeMap<PoolKey, Roll>,
    /// Shared pools that take no registrations any more, anywhere.
    closed: BTreeSet<PoolKey>,
    pulses: BTreeMap<PoolKey, (bool, Pulse)>,
    book: Book,
    telling: Telling,
}

impl Presence {
    /// Of the process that tells by this name, which no other one has; `stagger` is any number, another one for each.
    pub fn new(own: Option<Name>, stagger: u64) -> Self {
        Self {
            own,
            removes_after_ms: REMOVED_AFTER_MS + stagger % REMOVED_WITHIN_MS,
            alone: Hearing::alone(),
            cluster: Hearing::shared(),
            hears: (false, false),
            looked_ms: None,
            deaf: Deaf::default(),
            local: BTreeMap::new(),
            shared: BTreeMap::new(),
            closed: BTreeSet::new(),
            pulses: BTreeMap::new(),
            book: Book::default(),
            telling: Telling::default(),
        }
    }

    fn rolls(&mut self, shared: bool) -> &mut BTreeMap<PoolKey, Roll> {
        match shared {
            true => &mut self.shared,
            false => &mut self.local,
        }
    }

    fn hearing(&self, shared: bool) -> &Hearing {
        match shared {
            true => &self.cluster,
            false => &self.alone,
        }
    }

    /// Keeps what this node alone knows of pools that still take registrations, and of pools that still take
    /// heartbeats. Members of a shared store are kept: they go by their silence. That all of a pool fall silent at once
    /// keeps nobody when the pool is `closed`, which is when it surely takes no registrations at any node.
    pub fn keep(
        &mut self,
        registers: impl Fn(&PoolKey) -> bool,
        beats: impl Fn(&PoolKey) -> bool,
        closed: impl Fn(&PoolKey) -> bool,
    ) {
        self.local.retain(|key, _| registers(key));
        self.pulses.retain(|key, _| beats(key));
        self.closed = self.shared.keys().filter(|key| closed(key)).cloned().collect();
    }

    /// To be called before anything else several times a second. When that was not so, this process or its machine was
    /// stopped: what is known of others is old, and everybody has the whole time once more. Says whether it was so.
    pub fn wake(&mut self, now_ms: u64) -> bool {
        let before = self.looked_ms.replace(now_ms);
        let paused = before.is_some_and(|before| before.saturating_add(PAUSE_MS) <= now_ms);
        if let Some(before) = before.filter(|_| paused) {
            // The store was heard all along: who spoke before that is known to be there by what has been seen since.
            let mut deaf = Deaf {
                since_ms: before.saturating_sub(QUIET_MS),
                spoke_from_ms: now_ms,
                until_ms: now_ms,
            };
            if self.catches_up(before) {
                deaf.since_ms = deaf.since_ms.min(self.deaf.since_ms);
                deaf.spoke_from_ms = self.deaf.spoke_from_ms;
            }
            self.catch_up(now_ms, deaf);
            self.local
                .values_mut()
                .for_each(|roll| roll.spare(now_ms, |_| true));
            let pulses = self.pulses.values_mut();
            pulses.for_each(|(_, pulse)| pulse.spare(now_ms, |_| true));
        }
        paused
    }

    /// Takes a member of an earlier life of this process.
    pub fn remember(
        &mut self,
        now_ms: u64,
        backend: &BackendId,
        (listed, ttl_ms): (Listed, u64),
        shared: bool,
    ) {
        let roll = self.rolls(shared).entry(pool(backend)).or_default();
        roll.remember(now_ms, backend.address, listed, ttl_ms);
    }

    /// Takes a registration that was made here.
    ///
    /// # Errors
    /// [`Full`].
    pub fn register(
        &mut self,
        now_ms: u64,
        backend: &BackendId,
        entry: Entry,
        shared: bool,
    ) -> Result<Entered, Full> {
        let (key, load) = (pool(backend), entry.listed.load);
        let roll = self.rolls(shared).entry(key.clone()).or_default();
        let entered = roll.enter(now_ms, backend.address, entry.listed, (entry.ttl_ms, entry.most))?;
        if shared && let Some((listed, ttl_ms, ..)) = self.shared[&key].get(backend.address) {
            let record = MemberRecord::of(listed, ttl_ms);
            self.book.wish(now_ms, backend, Some(record));
            self.telling.hear(now_ms, (true, key, backend.address), load);
        }
        Ok(entered)
    }

    /// Takes a farewell that was said here; says whether it was a member.
    pub fn leave(&mut self, now_ms: u64, backend: &BackendId, shared: bool) -> bool {
        let roll = self.rolls(shared).get_mut(&pool(backend));
        let was_there = roll.is_some_and(|roll| roll.leave(backend.address));
        // Who is out is no member, and yet has a record.
        if shared && (was_there || self.book.stands(backend)) {
            self.book.wish(now_ms, backend, None);
            self.telling.forget(backend);
        }
        was_there
    }

    /// Takes a heartbeat that was sent here; news when the backend was silent. `None`: nobody expects it.
    pub fn beat(&mut self, now_ms: u64, backend: &BackendId) -> Option<Option<Heard>> {
        let key = pool(backend);
        let (shared, pulse) = self.pulses.get_mut(&key)?;
        if !pulse.expects(backend.address) {
            return None;
        }
        let news = pulse.beat(now_ms, backend.address);
        if *shared {
            self.telling.hear(now_ms, (false, key, backend.address), None);
        }
        Some(news)
    }

    /// These are expected to send heartbeats; says who is silent, or is not any more.
    pub fn listen(
        &mut self,
        now_ms: u64,
        key: &PoolKey,
        (expected, timeout_ms): (&BTreeSet<SocketAddr>, u64),
        shared: bool,
    ) -> Vec<Heard> {
        let (told, pulse) = self.pulses.entry(key.clone()).or_default();
        *told = shared;
        let mut news = pulse.expect(now_ms, expected);
        let hearing = if shared { &self.cluster } else { &self.alone };
        news.extend(pulse.listen(now_ms, timeout_ms, hearing));
        news
    }

    /// Looks at who is silent among the registered; says who is no member any more.
    pub fn lapse(&mut self, now_ms: u64) -> Vec<BackendId> {
        let mut lapsed = Vec::new();
        for (key, roll) in &mut self.local {
            let gone = roll.lapse(now_ms, &self.alone, true);
            roll.forget(&gone);
            lapsed.extend(gone.into_iter().map(|address| backend(key, address)));
        }
        for (key, roll) in &mut self.shared {
            let gone = roll.lapse(now_ms, &self.cluster, !self.closed.contains(key));
            lapsed.extend(gone.into_iter().map(|address| backend(key, address)));
            let long: Vec<SocketAddr> = roll.out_since(now_ms, self.removes_after_ms).collect();
            for address in long {
                let backend = backend(key, address);
                if !self.book.stands(&backend) {
                    roll.forget(&[address]);
                } else if self.cluster.hears() && !self.book.is_leaving(&backend) {
                    self.book.wish(now_ms, &backend, None);
                }
            }
        }
        for backend in &lapsed {
            // What it said before it fell silent is not worth a write any more.
            self.book.unwish(backend);
            self.telling.forget(backend);
        }
        self.shared.retain(|_, roll| !roll.is_empty());
        lapsed
    }

    /// The pools that have members, or had some of which the store has not heard yet that they went.
    pub fn pools(&self, shared: bool) -> impl Iterator<Item = &PoolKey> {
        let rolls = if shared { &self.shared } else { &self.local };
        rolls.keys()
    }

    /// Who is registered in a pool.
    pub fn members(&self, key: &PoolKey, shared: bool) -> BTreeMap<SocketAddr, Listed> {
        let rolls = if shared { &self.shared } else { &self.local };
        rolls.get(key).map(Roll::members).unwrap_or_default()
    }

    /// All members that every node knows, each with the number of its membership.
    pub fn registered(&self) -> BTreeMap<PoolKey, BTreeMap<SocketAddr, u64>> {
        let pools = self.shared.iter();
        let pools = pools.map(|(key, roll)| (key.clone(), roll.lives().collect()));
        pools.collect()
    }

    /// Members of a pool that are silent, and are there because too many fell silent at once.
    pub fn kept(&self, now_ms: u64, key: &PoolKey, shared: bool) -> usize {
        let rolls = if shared { &self.shared } else { &self.local };
        let roll = rolls.get(key);
        roll.map_or(0, |roll| roll.kept(now_ms, self.hearing(shared)))
    }

    /// Whether the other nodes are heard.
    pub fn hears(&self) -> bool {
        self.cluster.hears()
    }

    /// Other nodes that take beats.
    pub fn nodes(&self) -> usize {
        self.cluster.nodes().count()
    }

    /// Records in the store, and writes that wait.
    pub fn records(&self) -> (usize, usize) {
        (self.book.len(), self.book.waiting())
    }
}

/// What is heard of the store.
impl Presence {
    /// Whether the records are heard from now on.
    pub fn hear_records(&mut self, now_ms: u64, hears: bool) {
        self.hear(now_ms, (hears, self.hears.1));
    }

    /// Whether the other nodes' tellings are.
    pub fn hear_beats(&mut self, now_ms: u64, hears: bool) {
        self.hear(now_ms, (self.hears.0, hears));
    }

    fn hear(&mut self, now_ms: u64, hears: (bool, bool)) {
        self.hears = hears;
        let both = hears.0 && hears.1;
        if !both && self.cluster.hears() {
            let since_ms = now_ms.saturating_sub(QUIET_MS);
            let since_ms = match self.catches_up(now_ms) {
                true => since_ms.min(self.deaf.since_ms),
                false => since_ms,
            };
            (self.deaf.since_ms, self.deaf.spoke_from_ms) = (since_ms, since_ms);
        }
        if both && !self.cluster.hears() {
            let until_ms = now_ms;
            self.catch_up(
                now_ms,
                Deaf {
                    until_ms,
                    ..self.deaf
                },
            );
        }
        self.cluster.set(both);
    }

    /// What is heard from now on may be old, for a while.
    fn catch_up(&mut self, now_ms: u64, deaf: Deaf) {
        self.deaf = deaf;
        self.spare(now_ms, |_| true);
        // Who has gone here may have come back elsewhere: the others tell within that time, and his own.
        self.book.put_off(now_ms.saturating_add(SLACK_MS));
    }

    fn catches_up(&self, now_ms: u64) -> bool {
        !self.cluster.hears() || now_ms < self.deaf.until_ms.saturating_add(SLACK_MS)
    }

    fn spare(&mut self, now_ms: u64, only: impl Fn(&Last) -> bool) {
        for roll in self.shared.values_mut() {
            roll.spare(now_ms, &only);
        }
        for (shared, pulse) in self.pulses.values_mut() {
            if *shared {
                pulse.spare(now_ms, &only);
            }
        }
    }

    /// A record changed in the store; `None`: it is not there any more, because its member has left.
    pub fn record(&mut self, now_ms: u64, backend: &BackendId, revision: u64, record: Option<MemberRecord>) {
        if !self.book.see(backend, revision, record.clone()) {
            return;
        }
        match record {
            Some(record) => self.enter(now_ms, backend, &record, true),
            None => {
                let stays = self.spoke_in_between(now_ms, backend);
                if let Some(roll) = self.shared.get_mut(&pool(backend)) {
                    match stays {
                        true => roll.miss(|address| address == backend.address),
                        false => _ = roll.leave(backend.address),
                    }
                }
            }
        }
    }

    /// Something stands in the store at this revision that this version cannot read. That says nothing of the member; it
    /// is written over with the member's next word, and removed like its record when that is silent for long.
    pub fn unread(&mut self, backend: &BackendId, revision: u64) {
        self.book.unread(backend, revision);
    }

    /// A record went when the store was emptied. That says nothing of the member: it is written again with its next word,
    /// and goes by its silence.
    pub fn lose(&mut self, backend: &BackendId, revision: u64) {
        self.book.see(backend, revision, None);
    }

    /// Whether a member spoke here while the store was not heard, or since this process goes on after it was stopped,
    /// and what is seen of the store may be of before that: it may have gone and come back. Then it has its time, and is
    /// written again with its next word.
    fn spoke_in_between(&self, now_ms: u64, backend: &BackendId) -> bool {
        let roll = self.shared.get(&pool(backend));
        let last = roll
            .and_then(|roll| roll.get(backend.address))
            .map(|known| known.2);
        let here = last.and_then(Last::here_ms);
        self.catches_up(now_ms) && here.is_some_and(|at| at >= self.deaf.spoke_from_ms)
    }

    fn enter(&mut self, now_ms: u64, backend: &BackendId, record: &MemberRecord, spoke: bool) {
        if !self.book.is_leaving(backend) {
            let roll = self.shared.entry(pool(backend)).or_default();
            roll.record(now_ms, backend.address, record, spoke);
        }
    }

    /// All that stands in the store; `None`: it cannot be read ([`Self::unread`]). Of whom nothing is there left while
    /// nobody here could see it, and is forgotten once his time is over, whoever else is; but when the store has none at
    /// all, it has more likely been emptied.
    pub fn list_records(
        &mut self,
        now_ms: u64,
        revision: u64,
        listed: Vec<(BackendId, u64, Option<MemberRecord>)>,
    ) {
        let was_emptied = listed.is_empty();
        let gone = self.take_list(now_ms, revision, listed);
        if was_emptied {
            return;
        }
        for backend in gone {
            // What was to be written of it is of before it went.
            self.book.unwish(&backend);
            if let Some(roll) = self.shared.get_mut(&pool(&backend))
                && !is_in_time(roll, now_ms, backend.address)
            {
                roll.leave(backend.address);
            }
        }
        let book = &self.book;
        for (key, roll) in &mut self.shared {
            roll.miss(|address| book.has_nothing(&backend(key, address)));
        }
    }

    /// All records that stand in another store than before: that one was emptied, or put back from a backup. What it
    /// does not name says nothing of the members; they are written again with their next word, and go by their silence.
    pub fn list_another(
        &mut self,
        now_ms: u64,
        revision: u64,
        listed: Vec<(BackendId, u64, Option<MemberRecord>)>,
    ) {
        self.book.begin_anew();
        self.take_list(now_ms, revision, listed);
        self.spare(now_ms, |_| true);
    }

    /// Says whose records are gone.
    fn take_list(
        &mut self,
        now_ms: u64,
        revision: u64,
        listed: Vec<(BackendId, u64, Option<MemberRecord>)>,
    ) -> Vec<BackendId> {
        let there: BTreeSet<BackendId> = listed.iter().map(|(backend, ..)| backend.clone()).collect();
        let gone = self
            .book
            .list(now_ms, revision, |backend| there.contains(backend));
        for (backend, changed, record) in listed {
            let Some(record) = record else {
                self.book.unread(&backend, changed);
                continue;
            };
            if self.book.see(&backend, changed, Some(record.clone())) {
                self.enter(now_ms, &backend, &record, false);
            }
        }
        gone
    }

    /// A node told whom it has heard; says who is not silent any more.
    pub fn told(&mut self, now_ms: u64, node: &Name, beats: &Beats) -> Vec<(PoolKey, Heard)> {
        if self.own.as_ref() == Some(node) {
            return Vec::new();
        }
        if self.cluster.told(now_ms, node) {
            self.spare(now_ms, |last| last.by() == Some(node));
        }
        for (key, address, Said(age, load)) in beats.of(true) {
            let backend = backend(&key, address);
            // That he came back after he has gone here is believed only of what was surely told after it.
            let heard_ms = if self.catches_up(now_ms) {
                self.deaf.since_ms
            } else {
                now_ms
            };
            if let Some(record) = self.book.heard(&backend, heard_ms.saturating_sub(age)) {
                let roll = self.shared.entry(key.clone()).or_default();
                roll.record(now_ms, address, record, false);
            }
            if let Some(roll) = self.shared.get_mut(&key) {
                let heard = (now_ms.saturating_sub(age), load);
                roll.vouch(now_ms, address, heard, (node, &self.cluster));
            }
        }
        let mut news = Vec::new();
        for (key, address, Said(age, _)) in beats.of(false) {
            if let Some((true, pulse)) = self.pulses.get_mut(&key) {
                let heard = (address, now_ms.saturating_sub(age));
                let heard = pulse.vouch(now_ms, heard, (node, &self.cluster));
                news.extend(heard.map(|heard| (key, heard)));
            }
        }
        news
    }

    /// A node takes no beats any more, or is dead: whom it heard last has the whole time once more.
    pub fn gone(&mut self, now_ms: u64, node: &Name) {
        if !self.cluster.gone(node) {
            return;
        }
        for roll in self.shared.values_mut() {
            roll.orphan(now_ms, node);
        }
        for (_, pulse) in self.pulses.values_mut() {
            pulse.orphan(now_ms, node);
        }
    }

    /// All nodes that tell, and what they told last. What they told in between is lost: everybody has the whole time
    /// once more.
    pub fn list_beats(&mut self, now_ms: u64, told: &BTreeMap<Name, Beats>) -> Vec<(PoolKey, Heard)> {
        self.spare(now_ms, |_| true);
        let gone: Vec<Name> = self
            .cluster
            .nodes()
            .filter(|node| !told.contains_key(*node))
            .cloned()
            .collect();
        for node in gone {
            self.gone(now_ms, &node);
        }
        let each = told.iter();
        each.flat_map(|(node, beats)| self.told(now_ms, node, beats))
            .collect()
    }
}

/// What is said to the store.
impl Presence {
    /// Records to be written now, at most so many with those that are under way; none while the store is not heard.
    pub fn writes(&mut self, now_ms: u64, most: usize) -> Vec<Write> {
        match self.cluster.hears() {
            true => self.book.take(now_ms, most),
            false => Vec::new(),
        }
    }

    /// What became of one of them.
    pub fn made(&mut self, now_ms: u64, backend: &BackendId, outcome: Outcome) {
        // What stood there and was not seen yet is about to be: it may be that the record is gone.
        if self.book.made(now_ms, backend, outcome)
            && let Some(record) = self.book.record(backend).cloned()
        {
            self.enter(now_ms, backend, &record, false);
        }
    }

    /// What this node tells the others now.
    pub fn beats(&mut self, now_ms: u64) -> Option<Beats> {
        self.telling.take(now_ms)
    }

    /// Whether that was told.
    pub fn beats_told(&mut self, told: bool) {
        self.telling.told(told);
    }

    /// Whether this node takes beats no more, because nobody has sent it any for long; says so once.
    pub fn lets_go(&mut self, now_ms: u64) -> bool {
        let idle = self.telling.tried_ms.is_some() && !self.telling.is_at_work(now_ms);
        if idle {
            self.telling = Telling::default();
        }
        idle
    }
}

impl Telling {
    fn hear(&mut self, now_ms: u64, who: Key, load: Option<u8>) {
        self.heard_ms = Some(now_ms);
        self.unsaid.insert(who, (now_ms, load));
    }

    /// Who is gone is not told of: what is kept is bounded by the members.
    fn forget(&mut self, gone: &BackendId) {
        self.unsaid.remove(&(true, pool(gone), gone.address));
    }

    fn is_at_work(&self, now_ms: u64) -> bool {
        self.heard_ms
            .is_some_and(|at| at.saturating_add(LET_GO_MS) > now_ms)
    }

    fn take(&mut self, now_ms: u64) -> Option<Beats> {
        let since = |time: u64| self.tried_ms.is_none_or(|at| at.saturating_add(time) <= now_ms);
        let due = match self.unsaid.is_empty() {
            true => since(TESTIFY_EVERY_MS) && self.is_at_work(now_ms),
            false => since(BEATS_EVERY_MS),
        };
        if !due || self.under_way.is_some() {
            return None;
        }
        self.tried_ms = Some(now_ms);
        let (mut beats, mut said, mut bytes) = (Beats::default(), BTreeMap::new(), 0);
        let first = self.from.take();
        let after = self
            .unsaid
            .iter()
            .filter(|(key, _)| first.as_ref().is_none_or(|first| *key >= first));
        let before = self
            .unsaid
            .iter()
            .filter(|(key, _)| first.as_ref().is_some_and(|first| *key < first));
        for (key, (at, load)) in after.chain(before) {
            let (registered, pool, address) = key;
            bytes += pool.0.as_str().len() + pool.1.as_str().len() + 80;
            if bytes > MOST_BEATS_BYTES {
                self.from = Some(key.clone());
                break;
            }
            beats.say(
                *registered,
                pool,
                *address,
                Said(now_ms.saturating_sub(*at), *load),
            );
            said.insert(key.clone(), *at);
        }
        self.under_way = Some(said);
        Some(beats)
    }

    fn told(&mut self, told: bool) {
        let said = self.under_way.take().unwrap_or_default();
        if told {
            self.unsaid.retain(|key, (at, _)| said.get(key) != Some(at));
        }
    }
}

fn pool(backend: &BackendId) -> PoolKey {
    (backend.load_balancer.clone(), backend.pool.clone())
}

fn backend((load_balancer, pool): &PoolKey, address: SocketAddr) -> BackendId {
    BackendId {
        load_balancer: load_balancer.clone(),
        pool: pool.clone(),
        address,
    }
}

/// Whether a member's time is not over.
fn is_in_time(roll: &Roll, now_ms: u64, address: SocketAddr) -> bool {
    let member = roll.get(address);
    member.is_some_and(|(_, ttl_ms, last, _)| last.is_in_time(now_ms, ttl_ms))
}
