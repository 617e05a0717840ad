//! Nodes, instances, and what is on its way between them and the store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_reconcile::membership::{Beats, Entry, Outcome, Presence, Write, teller};
use model::config::Name;
use model::state::{BackendId, Listed, PoolKey};
use sim::Random;

use super::scenario::{Fault, Scenario};
use super::shadow::{Belief, Held};
use super::store::{Change, Shared};

pub(crate) const NODES: usize = 3;
/// Instances that register in the pool that is always there; then those of the one that is taken out, then declared
/// backends, which send heartbeats.
const STEADY: u16 = 6;
const OTHERS: u16 = 4;
const DECLARED: u16 = 3;
pub(crate) const STEP: u64 = 50;
/// Longest wait of a node for an answer.
const PATIENCE: u64 = 4_000;
const TELLING_PATIENCE: u64 = 1_500;

/// What a node still has to hear of a watch that was broken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    No,
    /// It goes on where it was.
    GoesOn,
    /// It begins anew, with a list.
    Lists,
}

pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) teller: Name,
    pub(crate) presence: Presence,
    pub(crate) life: u64,
    pub(crate) dead_until: Option<u64>,
    pub(crate) paused_until: Option<u64>,
    pub(crate) cut: Option<(u64, u64)>,
    pub(crate) told_cut: bool,
    /// Watches of records and of tellings.
    pub(crate) broken: [Broken; 2],
    /// What each has read of its log.
    read: [usize; 2],
    /// It lists another store than before.
    another: bool,
    clock: (u64, u64),
    looks_at: u64,
    lease: Option<u64>,
    /// Since when it hears the store without a break.
    pub(crate) hears_since: u64,
    /// Whether it takes registrations of the second pool, and from when on that is otherwise.
    pub(crate) open: bool,
    pub(crate) opens: Option<(u64, bool)>,
    /// What it believes of each instance.
    pub(crate) beliefs: Vec<Belief>,
}

impl Node {
    pub(crate) fn now(&self, now: u64) -> u64 {
        self.clock.0 + now * self.clock.1 / 1000
    }

    pub(crate) fn is_up(&self) -> bool {
        self.dead_until.is_none() && self.paused_until.is_none()
    }

    pub(crate) fn hears(&self) -> bool {
        self.cut.is_none() && self.broken == [Broken::No; 2]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Lives,
    Silent,
    Left,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Steady,
    Other,
    Declared,
}

pub(crate) struct Instance {
    pub(crate) id: BackendId,
    pub(crate) kind: Kind,
    pub(crate) life: Life,
    pub(crate) since: u64,
    pub(crate) weight: u32,
    /// It left at a node that did not hear the store, or had just spoken to another one: then it may be taken for one that
    /// came back elsewhere.
    pub(crate) left_unheard: bool,
    pub(crate) next_beat: u64,
    /// When each node heard it last.
    pub(crate) heard: [u64; NODES],
    /// It speaks to one node for as long as that answers, and not to each in turn.
    sticks: bool,
    turn: usize,
}

enum Way {
    ToStore(Write),
    Answer(BackendId, Outcome),
    BeatsToStore(Name, Beats, Option<u64>),
    /// On which lease it is from now on, and whether it is known to be made.
    BeatsAnswer(Option<u64>, bool),
    /// A write that was given up, and lands all the same.
    Late(Box<Self>),
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) scenario: Scenario,
    pub(crate) store: Shared,
    pub(crate) nodes: Vec<Node>,
    pub(crate) instances: Vec<Instance>,
    /// The pools, and who is expected to send heartbeats.
    pub(crate) pools: [PoolKey; 3],
    expected: BTreeSet<SocketAddr>,
    on_the_way: Vec<(u64, usize, u64, Way)>,
    /// When something last began or ceased to be wrong.
    pub(crate) disturbed: u64,
    replaced: Option<(u64, bool)>,
    /// When a call was last lost though nothing else was wrong.
    pub(crate) lost_at: u64,
    pub(crate) replacements: u64,
    /// What instances said anew.
    pub(crate) said: u64,
    /// How many may still go, but for those that leave or fall silent at once.
    pub(crate) may_go: u64,
    /// How often somebody of the first pool has left or fallen silent.
    pub(crate) departed: u64,
    /// How many were there when all but one fell silent at once.
    pub(crate) hushed: u64,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) steps: Option<Vec<String>>,
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn pool(kind: Kind) -> PoolKey {
    let pool = match kind {
        Kind::Steady => "default",
        Kind::Other => "other",
        Kind::Declared => "declared",
    };
    (name("shop"), name(pool))
}

impl World {
    pub(crate) fn new(seed: u64, scenario: &Scenario, tell: bool) -> Self {
        let mut random = Random(seed);
        let instances = instances(scenario, &mut random);
        let expected = instances.iter().filter(|one| one.kind == Kind::Declared);
        let expected = expected.map(|one| one.id.address).collect();
        let nodes = (0..NODES).map(|n| {
            let node = if scenario.twins && n == 1 { 0 } else { n };
            node_of(name(&format!("node-{node}")), &mut random, instances.len())
        });
        let nodes = nodes.collect();
        Self {
            nodes,
            now: 0,
            scenario: scenario.clone(),
            store: Shared::default(),
            pools: [Kind::Steady, Kind::Other, Kind::Declared].map(pool),
            expected,
            instances,
            on_the_way: Vec::new(),
            disturbed: 0,
            replaced: None,
            lost_at: 0,
            replacements: 0,
            said: 0,
            may_go: 2,
            departed: 0,
            hushed: 0,
            seen: BTreeMap::new(),
            steps: tell.then(Vec::new),
            random,
        }
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.steps {
            steps.push(format!("{:>6} {}", self.now, what()));
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(crate) fn step(&mut self) -> Held {
        self.now += STEP;
        self.disturb();
        self.change_minds();
        self.heal();
        self.keep_leases();
        self.live();
        self.carry();
        for n in 0..NODES {
            if self.nodes[n].is_up() && self.nodes[n].looks_at <= self.now {
                self.look(n);
                self.judge(n)?;
            }
        }
        Ok(())
    }

    /// Something goes wrong, now and then: but one node at least runs and is not cut off alone.
    fn disturb(&mut self) {
        if self.now.is_multiple_of(5_000) {
            self.store.backup = self.store.records.clone();
        }
        let early = self.now < 5_000 || self.now >= self.scenario.calm;
        if early || self.scenario.faults.is_empty() || !self.random.chance(12) {
            return;
        }
        let n = self.random.below(NODES as u64) as usize;
        let well = |node: &Node| node.is_up() && node.cut.is_none();
        let until = self.now + self.random.within(200, 12_000);
        let faults = &self.scenario.faults;
        let fault = faults[self.random.below(faults.len() as u64) as usize];
        // Who is cut off may be stopped, too.
        let worse = fault == Fault::Pauses && self.nodes[n].is_up() && !well(&self.nodes[n]);
        let last = self.nodes.iter().filter(|node| well(node)).count() < 2;
        if !worse && (last || !well(&self.nodes[n])) {
            return;
        }
        if worse {
            self.count("stopped while cut off");
        }
        self.say(|| format!("node {n}: {fault:?} until {until}"));
        match fault {
            Fault::Dies => {
                self.nodes[n].dead_until = Some(until);
                self.count("deaths");
            }
            Fault::Pauses => {
                self.nodes[n].paused_until = Some(until);
                self.count("pauses");
            }
            Fault::Cut => {
                self.cut(n, until);
                self.count("cuts");
            }
            Fault::StoreAway | Fault::StoreReplaced => {
                if fault == Fault::StoreReplaced {
                    self.replaced = Some((until, self.random.chance(500)));
                }
                for node in 0..NODES {
                    let later = self.random.below(3_000);
                    self.cut(node, until + later);
                }
                self.count("store away");
            }
            Fault::LeasesLost => {
                self.store.expire(self.now, true);
                self.count("leases lost");
            }
        }
        self.disturbed = self.now;
        // Who has just left may not be told of.
        let now = self.now;
        let left = self.instances.iter_mut().filter(|one| one.life == Life::Left);
        left.for_each(|one| one.left_unheard |= one.since + 3_000 > now);
    }

    fn cut(&mut self, node: usize, until: u64) {
        let node = &mut self.nodes[node];
        (node.cut, node.told_cut) = (Some((self.now, until)), false);
    }

    fn heal(&mut self) {
        if let Some((_, old)) = self.replaced.take_if(|(at, _)| *at <= self.now) {
            self.store.replace(old);
            self.say(|| format!("the store is another one, from a backup: {old}"));
            for node in &mut self.nodes {
                (node.another, node.lease, node.read) = (true, None, [0, 0]);
                node.broken = [Broken::Lists; 2];
            }
            self.replacements += 1;
            self.said += self.instances.len() as u64;
            self.disturbed = self.now;
        }
        for n in 0..NODES {
            self.heal_node(n);
        }
    }

    fn heal_node(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if node.dead_until.is_some_and(|until| until <= now) {
            self.start_again(n);
        }
        let node = &mut self.nodes[n];
        if node.paused_until.is_some_and(|until| until <= now) {
            (node.paused_until, node.hears_since) = (None, now);
            self.disturbed = now;
            self.say(|| format!("node {n} goes on"));
        }
        let node = &mut self.nodes[n];
        if let Some((since, until)) = node.cut {
            if until <= now {
                let anew = self.random.chance(500);
                let after = match (anew, node.told_cut) {
                    (true, _) => Broken::Lists,
                    (false, true) => Broken::GoesOn,
                    (false, false) => Broken::No,
                };
                for watch in &mut node.broken {
                    if *watch != Broken::Lists {
                        *watch = after;
                    }
                }
                (node.cut, node.hears_since) = (None, now);
                self.disturbed = now;
                self.say(|| format!("node {n} reaches the store"));
            } else if since + 1_000 <= now && !node.told_cut && node.is_up() {
                node.told_cut = true;
                let at = node.now(now);
                node.presence.wake(at);
                node.presence.hear_records(at, false);
                node.presence.hear_beats(at, false);
            }
        }
        let node = &mut self.nodes[n];
        if let Some((_, open)) = node.opens.take_if(|(at, _)| *at <= now) {
            node.open = open;
            self.say(|| format!("node {n} has the second pool: {open}"));
        }
    }

    /// It is another process, which knows the members that are on its disk, where that was not lost.
    fn start_again(&mut self, n: usize) {
        let (now, remembers) = (self.now, self.random.chance(700));
        let node = &mut self.nodes[n];
        let (name, life, clock, opens) = (node.name.clone(), node.life + 1, node.clock, node.opens);
        let open = self
            .scenario
            .pool
            .is_none_or(|(out, back)| now < out || now >= back);
        let mut again = node_of(name, &mut self.random, self.instances.len());
        again.looks_at += now;
        (again.life, again.clock, again.open, again.opens) = (life, clock, open, opens);
        (again.cut, again.told_cut) = (node.cut, node.cut.is_some());
        let pools = if open { &self.pools[..2] } else { &self.pools[..1] };
        for (load_balancer, pool) in pools.iter().filter(|_| remembers) {
            let members = node
                .presence
                .members(&(load_balancer.clone(), pool.clone()), true);
            for (address, listed) in members {
                let id = BackendId {
                    load_balancer: load_balancer.clone(),
                    pool: pool.clone(),
                    address,
                };
                let said = (listed, self.scenario.ttl);
                again.presence.remember(again.now(now), &id, said, true);
            }
        }
        *node = again;
        self.disturbed = now;
        self.say(|| format!("node {n} starts again, and remembers its members: {remembers}"));
    }

    fn keep_leases(&mut self) {
        for node in &self.nodes {
            if let Some(lease) = node.lease.filter(|_| node.is_up() && node.cut.is_none()) {
                self.store.keep(self.now, lease);
            }
        }
        self.store.expire(self.now, false);
    }

    /// Who lives says so, at the next node; where nobody answers, at the one after it.
    fn live(&mut self) {
        for i in 0..self.instances.len() {
            let one = &mut self.instances[i];
            // Who dies when the second pool is taken out has two seconds.
            let lives = one.life == Life::Lives || one.kind == Kind::Other && one.since > self.now;
            if !lives || one.next_beat > self.now {
                continue;
            }
            let ttl = self.scenario.ttl;
            one.next_beat = self.now + self.random.within(ttl / 5, ttl * 10 / 32);
            one.turn += usize::from(!one.sticks);
            let answers = |node: &Node| node.is_up() && (one.kind != Kind::Other || node.open);
            let order = (0..NODES).map(|n| (one.turn + n) % NODES);
            // Whoever sticks to a node that is cut off alone is not heard, and that is known.
            let best = order
                .clone()
                .find(|n| answers(&self.nodes[*n]) && (self.nodes[*n].cut.is_none() || !one.sticks));
            let Some(n) = best.or_else(|| order.clone().find(|n| answers(&self.nodes[*n]))) else {
                continue;
            };
            if one.sticks {
                one.turn = n;
            }
            if self.random.chance(20) {
                // The request is lost, and made again elsewhere.
                (one.turn, one.next_beat) = (n + 1, self.now + 300);
                continue;
            }
            self.say(|| format!("{i} speaks to node {n}"));
            self.hear(n, i);
        }
    }

    fn hear(&mut self, n: usize, i: usize) {
        let (node, one) = (&mut self.nodes[n], &mut self.instances[i]);
        one.heard[n] = self.now;
        let at = node.now(self.now);
        node.presence.wake(at);
        if one.kind == Kind::Declared {
            if let Some(Some(heard)) = node.presence.beat(at, &one.id) {
                node.beliefs[i].is_heard(heard.silent);
            }
            return;
        }
        let listed = Listed {
            weight: one.weight,
            life: self.random.number(),
            ..Listed::default()
        };
        let entry = Entry {
            listed,
            ttl_ms: self.scenario.ttl,
            most: 100,
        };
        node.presence.register(at, &one.id, entry, true).unwrap();
        node.beliefs[i].comes_here();
    }

    fn send(&mut self, (from, to): (u64, u64), n: usize, life: u64, way: Way) {
        let at = self.now + self.random.within(from, to);
        self.on_the_way.push((at, n, life, way));
    }

    /// What is on its way to the store and back.
    fn carry(&mut self) {
        let mut next = 0;
        while next < self.on_the_way.len() {
            let (at, n, life, way) = &self.on_the_way[next];
            let node = &self.nodes[*n];
            let answers = matches!(way, Way::Answer(..) | Way::BeatsAnswer(..));
            let waits = answers && node.paused_until.is_some() && node.life == *life;
            if *at > self.now || waits {
                next += 1;
                continue;
            }
            let (_, n, life, way) = self.on_the_way.swap_remove(next);
            self.arrive(n, life, way);
        }
    }

    fn arrive(&mut self, n: usize, life: u64, way: Way) {
        // The connection is lost, or now and then a single call.
        let single = self.now >= self.lost_at + 12_000 && self.random.chance(15);
        let lost = self.nodes[n].cut.is_some() || single;
        let fate = self.random.below(3);
        let node = &mut self.nodes[n];
        let reaches = node.is_up() && node.life == life;
        match way {
            Way::ToStore(_) | Way::BeatsToStore(..) if lost => {
                if single {
                    self.lost_at = self.now;
                }
                if let Way::ToStore(Write {
                    backend, put: None, ..
                }) = &way
                {
                    self.farewell_is_lost(backend);
                }
                self.say(|| {
                    format!(
                        "node {n}: a call is lost: {}",
                        ["it is not made", "it is made", "it is late"][fate as usize]
                    )
                });
                let (answer, after) = match &way {
                    Way::ToStore(write) => (Way::Answer(write.backend.clone(), Outcome::Failed), PATIENCE),
                    Way::BeatsToStore(.., lease) => (Way::BeatsAnswer(*lease, false), TELLING_PATIENCE),
                    _ => return,
                };
                self.send((after, after + 1), n, life, answer);
                match fate {
                    0 => {}
                    1 => self.land(n, life, way, true),
                    _ => self.send((100, 3_000), n, life, Way::Late(Box::new(way))),
                }
            }
            Way::Late(way) => self.land(n, life, *way, true),
            Way::Answer(id, outcome) if reaches => node.presence.made(node.now(self.now), &id, outcome),
            Way::BeatsAnswer(lease, told) if reaches => {
                node.lease = lease;
                node.presence.beats_told(told);
            }
            Way::Answer(..) | Way::BeatsAnswer(..) => {}
            way => self.land(n, life, way, false),
        }
    }

    /// It is made in the store; nobody hears of that when the call was given up.
    fn land(&mut self, n: usize, life: u64, way: Way, given_up: bool) {
        let answer = match way {
            Way::ToStore(write) => {
                let (id, said) = (
                    write.backend.clone(),
                    self.steps.as_ref().map(|_| format!("{write:?}")),
                );
                let says_farewell = write.put.is_none();
                let outcome = self.store.make(self.now, write);
                if says_farewell && outcome == Outcome::Lost {
                    self.farewell_is_lost(&id);
                }
                self.say(|| format!("node {n} writes {}: {outcome:?}", said.unwrap_or_default()));
                Way::Answer(id, outcome)
            }
            Way::BeatsToStore(teller, beats, lease) => {
                self.say(|| format!("{teller} tells of {}", beats.len()));
                let lease = self.store.tell(self.now, &teller, beats, lease);
                Way::BeatsAnswer(lease, lease.is_some())
            }
            _ => return,
        };
        if !given_up {
            self.send((10, 300), n, life, answer);
        }
    }

    /// A look of a node: it hears, judges, and says.
    fn look(&mut self, n: usize) {
        let every = self.scenario.look;
        let first = self.random.chance(500);
        let node = &mut self.nodes[n];
        node.looks_at = self.now + every;
        let at = node.now(self.now);
        // Whoever was stopped may look before it has taken what came meanwhile.
        if !(node.presence.wake(at) && first) {
            self.follow_records(n);
            self.follow_beats(n);
        }
        let node = &mut self.nodes[n];
        let open = node.open;
        let [_, other, declared] = &self.pools;
        node.presence
            .keep(|_| true, |_| true, |key| key == other && !open);
        let wanted = (&self.expected, self.scenario.ttl);
        for heard in node.presence.listen(at, declared, wanted, true) {
            let mut declared = self.instances.iter();
            let i = declared.position(|one| one.kind == Kind::Declared && one.id.address == heard.address);
            node.beliefs[i.unwrap()].is_heard(heard.silent);
        }
        node.presence.lapse(at);
        let (life, lease) = (node.life, node.lease);
        let (writes, beats) = (node.presence.writes(at, 8), node.presence.beats(at));
        for write in writes {
            self.send((10, 300), n, life, Way::ToStore(write));
        }
        if let Some(beats) = beats {
            let way = Way::BeatsToStore(self.nodes[n].teller.clone(), beats, lease);
            self.send((10, 300), n, life, way);
        }
    }

    fn follow_records(&mut self, n: usize) {
        let late = self.random.within(20, self.scenario.lag + 1);
        let soon = self.random.chance(700);
        let node = &mut self.nodes[n];
        let at = node.now(self.now);
        if node.cut.is_some() || node.broken[0] != Broken::No && !soon {
            return;
        }
        if node.broken[0] != Broken::No {
            node.hears_since = self.now;
        }
        // Who was told that the store is not heard is told that it is before there is a list, and may look in between.
        if node.broken[0] == Broken::Lists && node.told_cut {
            node.presence.hear_records(at, true);
            if self.random.chance(300) {
                return;
            }
        }
        if std::mem::replace(&mut node.broken[0], Broken::No) == Broken::Lists {
            let records = self.store.records.iter();
            let records = records.map(|(id, (revision, record))| (id.clone(), *revision, record.clone()));
            match std::mem::take(&mut node.another) {
                true => node
                    .presence
                    .list_another(at, self.store.revision, records.collect()),
                false => node
                    .presence
                    .list_records(at, self.store.revision, records.collect()),
            }
            node.read[0] = self.store.record_log.len();
        }
        node.presence.hear_records(at, true);
        while let Some((revision, made, id, record)) = self.store.record_log.get(node.read[0]) {
            if made + late > self.now {
                break;
            }
            node.read[0] += 1;
            match record {
                Change::Put(record) => node.presence.record(at, id, *revision, Some(record.clone())),
                Change::Spoilt => node.presence.unread(id, *revision),
                Change::Removed => node.presence.record(at, id, *revision, None),
            }
        }
    }

    fn follow_beats(&mut self, n: usize) {
        let late = self.random.within(20, self.scenario.lag + 1);
        let soon = self.random.chance(700);
        let node = &mut self.nodes[n];
        let at = node.now(self.now);
        if node.cut.is_some() || node.broken[1] != Broken::No && !soon {
            return;
        }
        let mut news = Vec::new();
        if node.broken[1] != Broken::No {
            node.hears_since = self.now;
        }
        if node.broken[1] == Broken::Lists && node.told_cut {
            node.presence.hear_beats(at, true);
            if self.random.chance(300) {
                return;
            }
        }
        if std::mem::replace(&mut node.broken[1], Broken::No) == Broken::Lists {
            let all = self.store.tellers.iter();
            let all = all.map(|(teller, (beats, _))| (teller.clone(), beats.clone()));
            news = node.presence.list_beats(at, &all.collect());
            node.read[1] = self.store.beat_log.len();
        }
        node.presence.hear_beats(at, true);
        while let Some((made, teller, beats)) = self.store.beat_log.get(node.read[1]) {
            if made + late > self.now {
                break;
            }
            node.read[1] += 1;
            match beats {
                Some(beats) => news.extend(node.presence.told(at, teller, beats)),
                None => node.presence.gone(at, teller),
            }
        }
        for (_, heard) in news {
            let mut declared = self.instances.iter();
            let i = declared.position(|one| one.kind == Kind::Declared && one.id.address == heard.address);
            node.beliefs[i.unwrap()].is_heard(heard.silent);
        }
    }
}

fn instances(scenario: &Scenario, random: &mut Random) -> Vec<Instance> {
    let others = if scenario.pool.is_some() { OTHERS } else { 0 };
    let kinds = [
        (Kind::Steady, STEADY),
        (Kind::Other, others),
        (Kind::Declared, DECLARED),
    ];
    let all = kinds
        .into_iter()
        .flat_map(|(kind, most)| (1..=most).map(move |n| (kind, n)));
    let instance = |(kind, number): (Kind, u16)| {
        let (load_balancer, pool) = pool(kind);
        // One of them comes later.
        let later = kind == Kind::Steady && number == STEADY;
        Instance {
            id: BackendId {
                load_balancer,
                pool,
                address: ([10, 0, 0, 1], number).into(),
            },
            kind,
            life: if later { Life::Left } else { Life::Lives },
            since: 0,
            weight: 1,
            left_unheard: false,
            next_beat: random.below(1_000),
            heard: [0; NODES],
            sticks: random.chance(400),
            turn: random.below(NODES as u64) as usize,
        }
    };
    all.map(instance).collect()
}

fn node_of(name: Name, random: &mut Random, instances: usize) -> Node {
    let teller = teller(&name, random.number());
    Node {
        presence: Presence::new(Some(teller.clone()), random.number()),
        name,
        teller,
        life: 0,
        dead_until: None,
        paused_until: None,
        cut: None,
        told_cut: false,
        broken: [Broken::Lists; 2],
        read: [0, 0],
        another: false,
        clock: (random.below(1_000_000), random.within(950, 1051)),
        looks_at: random.below(250),
        lease: None,
        hears_since: 0,
        open: true,
        opens: None,
        beliefs: vec![Belief::default(); instances],
    }
}
