//! The world: one queue of things to happen, processes with clocks of their own, a network that may be bad.
//!
//! Real time is in milliseconds and belongs to nobody. A process's clock runs at 90 to 110 % of it, the store's too.
//! A paused process does nothing, and what reaches it waits; it may also be paused between a decision and carrying
//! it out. A process that dies forgets everything; the one that comes after it has another name.

mod faults;
mod network;
mod processes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use evenkeel_reconcile::cluster::member::{Action, Answer, Call, CallId, Event, Member, Settings};
use evenkeel_reconcile::cluster::records::{Key, LeaseId, Revision, Transaction, Value};
use evenkeel_reconcile::cluster::roster::{Wanted, Wish};
use evenkeel_reconcile::cluster::view::{Changes, Listing, Prefix};
use evenkeel_reconcile::cluster::{Slot, incarnation};
use model::config::{HealthCheck, Name};
use model::state::{BackendId, Health, Life, Verdict};
use sim::Random;

use crate::orchestrator::Orchestrator;
use crate::scenario::{CALM, Fault, Scenario};
use crate::server::Server;
use crate::shadow::{Shadow, assignments};
use crate::store::{Batch, Store, prefix_of};

pub(crate) type Held = Result<(), String>;

/// A call that has not been answered for so long is given up; it may still reach the store.
const GIVE_UP_MS: u64 = 1000;
/// A watch that broke is begun anew after so long.
const RELIST_MS: u64 = 400;
/// So long after a backend is back as another one all who hear the store know it.
pub(crate) const LEARN_MS: u64 = 700;
/// From one check of a backend to the next.
pub(crate) const INTERVAL_MS: u64 = 500;

const WATCHES: [Option<Prefix>; 4] = [
    Some(Prefix::Leader),
    Some(Prefix::Workers),
    Some(Prefix::Assignments),
    None,
];

pub(crate) struct World {
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), (usize, u32, Thing)>,
    order: u64,
    pub(crate) random: Random,
    pub(crate) store: Store,
    /// Real length of a lease, by the store's clock.
    lease_ms: u64,
    pub(crate) processes: Vec<Process>,
    pub(crate) settings: Settings,
    pub(crate) backends: Vec<BackendId>,
    /// What is true of each backend, and since when all may know whom that is about.
    pub(crate) truth: Vec<(bool, u64)>,
    pub(crate) shadow: Shadow,
    /// What each slot weighs.
    weights: Arc<[u64]>,
    check: Arc<HealthCheck>,
    /// Whether the network and the processes misbehave at random, beside the scenario's faults.
    pub(crate) rough: bool,
    /// How long after a change of a backend the store must know; 0: it is not asked.
    pub(crate) told_within: u64,
    /// What happened, if somebody wants to read it.
    pub(crate) steps: Option<Vec<String>>,
    lives: u64,
}

pub(crate) struct Process {
    pub(crate) mind: Mind,
    life: u32,
    pub(crate) alive: bool,
    paused_until: u64,
    /// What has come meanwhile.
    inbox: VecDeque<Thing>,
    /// Decided on before the pause, carried out after it.
    undone: Vec<Action>,
    pub(crate) cut: bool,
    /// Calls are answered, watches bring nothing.
    deaf: bool,
    /// Answers take nearly as long as they may.
    slow: bool,
    /// Clock: how much faster than real time, in thousandths, and what it showed at the beginning.
    rate: u64,
    offset: u64,
    watches: Vec<Watch>,
    next_tick: u64,
    waiting: BTreeSet<CallId>,
    /// Which store it has seen: how often that had been emptied.
    store: Option<u32>,
    /// What it really runs.
    run: Arc<BTreeSet<Slot>>,
    /// Of each backend.
    checks: Vec<Check>,
    /// Which membership each backend is in, as far as it knows.
    pub(crate) members: Vec<u64>,
}

/// The check of a backend at a process.
#[derive(Clone, Default)]
struct Check {
    /// Grows each time that it begins or ends.
    run: u32,
    /// None: it is not made.
    life: Option<Life>,
    /// What it has reported.
    reported: Option<bool>,
}

pub(crate) enum Mind {
    Orchestrator(Box<Orchestrator>),
    Server(Box<Server>),
}

#[derive(Default)]
struct Watch {
    /// Which connection; what comes by an older one is not heard.
    connection: u32,
    connected: bool,
    /// Nothing overtakes on one watch.
    last: u64,
}

/// Things that happen, most to one life of a process.
enum Thing {
    Fault(Fault),
    LeaseEnds(LeaseId),
    Settled(usize),
    Begin,
    Tick,
    Weights,
    Member(usize, u64),
    Wake,
    Stop,
    Request(CallId, Call, u64),
    Answer(CallId, Answer, u64),
    GiveUp(CallId),
    Changes(usize, u32, Revision, Rc<Batch>),
    Hint(Revision, Rc<Batch>),
    LinkBroken,
    Torn,
    Relist,
    ListRequest(usize, u32),
    Listed(usize, u32, u32, Revision, Vec<(Key, Revision, Value)>),
    Check(usize, u32),
    Checked(usize, u32, bool, u64),
}

const NOBODY: usize = usize::MAX;

impl World {
    pub(crate) fn new(seed: u64, scenario: &Scenario, tell: bool) -> Self {
        let mut random = Random(seed);
        let settings = Settings {
            lease_ms: 3000,
            max_moves: 3,
            slots: 12,
        };
        let address = |n: usize| SocketAddr::from(([10, 0, 0, n as u8 + 1], 80));
        let name = |text: &str| Name::parse(text).unwrap();
        let backends: Vec<BackendId> = (0..scenario.backends)
            .map(|n| BackendId {
                load_balancer: name("shop"),
                pool: name("web"),
                address: address(n),
            })
            .collect();
        let store_rate = rate(&mut random);
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            store: Store::default(),
            lease_ms: settings.lease_ms * 1000 / store_rate,
            processes: Vec::new(),
            settings,
            truth: vec![(true, 0); backends.len()],
            shadow: Shadow::new(settings.slots, settings.max_moves, backends.clone()),
            backends,
            weights: vec![1; usize::from(settings.slots)].into(),
            check: Arc::default(),
            rough: false,
            told_within: 0,
            steps: tell.then(Vec::new),
            lives: 0,
            random,
        };
        for n in 0..scenario.orchestrators + scenario.servers {
            let process = world.process(n >= scenario.orchestrators);
            world.processes.push(process);
            world.begin(n);
        }
        for (at, fault) in &scenario.faults {
            world.later(*at, NOBODY, Thing::Fault(*fault));
        }
        world
    }

    fn process(&mut self, server: bool) -> Process {
        let (rate, offset) = (rate(&mut self.random), self.random.within(0, 1 << 30));
        self.lives += 1;
        let members: Vec<u64> = (0..self.backends.len())
            .map(|backend| self.shadow.member(backend))
            .collect();
        let mind = if server {
            Mind::Server(Box::new(Server::new(
                self.settings.slots,
                offset + self.now * rate / 1000,
            )))
        } else {
            let name = incarnation(&Name::parse("o").unwrap(), self.random.number() << 8 | self.lives);
            let member = Member::new(name, self.settings, offset + self.now * rate / 1000);
            let (slots, wanted) = (self.settings.slots, self.wanted(&members));
            Mind::Orchestrator(Box::new(Orchestrator::new(member, slots, wanted)))
        };
        Process {
            mind,
            life: 0,
            alive: true,
            paused_until: 0,
            inbox: VecDeque::new(),
            undone: Vec::new(),
            cut: false,
            deaf: false,
            slow: false,
            rate,
            offset,
            watches: WATCHES.iter().map(|_| Watch::default()).collect(),
            next_tick: u64::MAX,
            waiting: BTreeSet::new(),
            store: None,
            run: Arc::default(),
            checks: vec![Check::default(); self.backends.len()],
            members,
        }
    }

    /// All checks, when the backends are in these memberships.
    fn wanted(&self, members: &[u64]) -> Arc<Wanted> {
        let wish = |life: &u64| Wish {
            check: self.check.clone(),
            life: *life,
        };
        let wishes = members.iter().map(wish);
        Arc::new(self.backends.iter().cloned().zip(wishes).collect())
    }

    fn begin(&mut self, who: usize) {
        self.later(self.now, who, Thing::Begin);
        self.later(self.now, who, Thing::Weights);
        self.later(self.now, who, Thing::Relist);
        self.later(self.now, who, Thing::Tick);
    }

    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if let Some(mut steps) = self.steps.take() {
            steps.push(format!("{:>6} {}", self.now, what(self)));
            self.steps = Some(steps);
        }
    }

    fn later(&mut self, at: u64, who: usize, what: Thing) {
        let life = self.processes.get(who).map_or(0, |process| process.life);
        self.order += 1;
        self.queue
            .insert((at.max(self.now), self.order), (who, life, what));
    }

    /// Lets things happen until `end`.
    pub(crate) fn run(&mut self, end: u64) -> Held {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 >= end {
                break;
            }
            let ((now, _), (who, life, what)) = entry.remove_entry();
            self.now = now;
            self.happen(who, life, what)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, who: usize, life: u32, what: Thing) -> Held {
        match what {
            Thing::Fault(fault) => return self.fault(fault),
            Thing::LeaseEnds(lease) => {
                self.lease_ends(lease);
                return Ok(());
            }
            Thing::Settled(backend) => return self.told(backend),
            // What is on its way to the store gets there even if its sender is gone.
            Thing::Request(id, call, back) => return self.request(who, life, id, call, back),
            _ => {}
        }
        let process = &self.processes[who];
        if !process.alive || process.life != life {
            return Ok(());
        }
        self.processes[who].inbox.push_back(what);
        while self.processes[who].paused_until <= self.now {
            self.do_undone(who)?;
            let Some(what) = self.processes[who].inbox.pop_front() else {
                break;
            };
            self.reach(who, what)?;
            self.believes_what_is_about_them(who)?;
        }
        Ok(())
    }

    /// Something reaches a process that is not paused.
    fn reach(&mut self, who: usize, what: Thing) -> Held {
        match what {
            Thing::Answer(id, answer, sent) => self.answer(who, id, answer, sent),
            Thing::GiveUp(id) => {
                if self.processes[who].waiting.remove(&id) {
                    return self.tell(who, Event::Answer(id, Answer::Failed));
                }
                Ok(())
            }
            Thing::Tick => {
                self.processes[who].next_tick = u64::MAX;
                self.tell(who, Event::Tick)
            }
            Thing::Stop => self.tell(who, Event::Stop),
            Thing::Weights => self.tell(who, Event::Weights(self.weights.clone())),
            Thing::Member(backend, life) => self.learn(who, backend, life),
            Thing::Changes(watch, connection, revision, batch) => {
                self.changes(who, watch, connection, revision, &batch)
            }
            Thing::Hint(revision, batch) => {
                if let Mind::Server(server) = &mut self.processes[who].mind {
                    server.verdicts(revision, &batch);
                }
                Ok(())
            }
            Thing::LinkBroken => {
                if self.processes[who].cut || self.processes[who].deaf {
                    self.processes[who]
                        .watches
                        .iter_mut()
                        .for_each(|watch| watch.connected = false);
                    return self.tell(who, Event::CutOff);
                }
                Ok(())
            }
            Thing::Torn => self.tell(who, Event::CutOff),
            Thing::Begin => self.tell(who, Event::CutOff),
            Thing::Relist => {
                self.relist(who);
                Ok(())
            }
            Thing::ListRequest(watch, connection) => {
                self.list_request(who, watch, connection);
                Ok(())
            }
            Thing::Listed(watch, connection, store, revision, entries) => {
                if *self.processes[who].store.get_or_insert(store) != store {
                    // The store is another one than before: it begins anew, as somebody else.
                    self.processes[who].alive = false;
                    self.processes[who].life += 1;
                    self.restart(who);
                    return Ok(());
                }
                self.listed(who, watch, connection, revision, entries)
            }
            Thing::Check(backend, run) => self.check(who, backend, run),
            Thing::Checked(backend, run, up, began) => self.checked(who, backend, run, up, began),
            _ => Ok(()),
        }
    }
}

/// How fast a clock runs, in thousandths: often as fast or as slow as it may.
fn rate(random: &mut Random) -> u64 {
    match random.within(0, 4) {
        0 => 900,
        1 => 1100,
        _ => random.within(900, 1101),
    }
}
