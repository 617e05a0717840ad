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

use evenkeel_reconcile::cluster::member::{Action, Answer, Call, CallId, Event, Finding, Member, Settings};
use evenkeel_reconcile::cluster::records::{Key, LeaseId, Revision, Transaction, Value};
use evenkeel_reconcile::cluster::view::{Changes, Listing, Prefix};
use evenkeel_reconcile::cluster::{Slot, incarnation};
use model::config::Name;
use model::state::{BackendId, Health, Timestamp};

use crate::random::Random;
use crate::scenario::{CALM, Fault, Scenario};
use crate::server::Server;
use crate::shadow::{Shadow, assignments};
use crate::store::{Batch, Store, prefix_of};

pub(crate) type Held = Result<(), String>;

/// A call that has not been answered for so long is given up; it may still reach the store.
const GIVE_UP_MS: u64 = 1000;
/// A watch that broke is begun anew after so long.
const RELIST_MS: u64 = 400;
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
    /// What is true of each backend, and since when.
    pub(crate) truth: Vec<(bool, u64)>,
    pub(crate) shadow: Shadow,
    /// What each slot weighs.
    weights: Arc<[u64]>,
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
    /// What it really runs.
    run: Arc<BTreeSet<Slot>>,
    /// Per backend: which run of its check this is, and what that has reported.
    checks: Vec<(u32, Option<bool>)>,
}

pub(crate) enum Mind {
    Orchestrator(Box<Member>),
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
    Wake,
    Stop,
    Request(CallId, Call, u64),
    Answer(CallId, Answer, u64),
    GiveUp(CallId),
    Changes(usize, u32, Revision, Rc<Batch>),
    Hint(Revision, Rc<Batch>),
    LinkBroken,
    Relist,
    ListRequest(usize, u32),
    Listed(usize, u32, Revision, Vec<(Key, Revision, Value)>),
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
        let store_rate = random.rate();
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            store: Store::default(),
            lease_ms: settings.lease_ms * 1000 / store_rate,
            processes: Vec::new(),
            settings,
            truth: vec![(true, 0); backends.len()],
            shadow: Shadow::new(settings.slots, settings.max_moves, backends.len()),
            backends,
            weights: vec![1; usize::from(settings.slots)].into(),
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
        let (rate, offset) = (self.random.rate(), self.random.within(0, 1 << 30));
        self.lives += 1;
        let mind = if server {
            Mind::Server(Box::new(Server::new(
                self.settings.slots,
                offset + self.now * rate / 1000,
            )))
        } else {
            let name = incarnation(&Name::parse("o").unwrap(), self.random.next() << 8 | self.lives);
            Mind::Orchestrator(Box::new(Member::new(
                name,
                self.settings,
                offset + self.now * rate / 1000,
            )))
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
            watches: (0..if server { 4 } else { 3 })
                .map(|_| Watch::default())
                .collect(),
            next_tick: u64::MAX,
            waiting: BTreeSet::new(),
            run: Arc::default(),
            checks: vec![(0, None); self.backends.len()],
        }
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
            Thing::Begin => self.tell(who, Event::CutOff),
            Thing::Relist => {
                self.relist(who);
                Ok(())
            }
            Thing::ListRequest(watch, connection) => {
                self.list_request(who, watch, connection);
                Ok(())
            }
            Thing::Listed(watch, connection, revision, entries) => {
                self.listed(who, watch, connection, revision, entries)
            }
            Thing::Check(backend, run) => self.check(who, backend, run),
            Thing::Checked(backend, run, up, began) => self.checked(who, backend, run, up, began),
            _ => Ok(()),
        }
    }
}
