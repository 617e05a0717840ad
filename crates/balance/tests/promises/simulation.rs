//! A pool lives through a few virtual minutes: backends break and heal, orders and verdicts rebuild the table, and
//! every step is checked. A failing seed prints itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::{Balancer, Load, MAX_EJECTION_FACTOR, Outcome, PoolLoad, Rng};
use model::config::{
    Admin, Alerts, AllDown, Backend, Config, LoadBalancer, Name, Node, Observe, Passive, Pool, StoreConfig,
};
use model::snapshot::{Eligibility, Layers, Snapshot};
use model::state::{
    BackendId, Ejected, Ejection, Health, HealthState, Mode, Observed, Override, OverrideKey, Overrides,
    Timestamp,
};

use crate::support::{all_algorithms, state};

/// How a simulated backend behaves.
#[derive(Clone, Copy, PartialEq)]
enum Nature {
    Fine,
    Slow,
    Refuses,
    /// Fails this many requests in a hundred.
    Flaky(u64),
}

struct World {
    rng: Rng,
    now_us: u64,
    config: Arc<Config>,
    overrides: Overrides,
    observed: Observed,
    snapshot: Snapshot,
    /// When time alone changes the snapshot.
    due: Option<Timestamp>,
    natures: Vec<Nature>,
    loads: BTreeMap<SocketAddr, Arc<Load>>,
    pool: Arc<PoolLoad>,
    balancer: Balancer,
    /// Requests in flight: end, a number to tell them apart, member, whether it fails, how long it takes.
    running: BTreeSet<(u64, u64, usize, bool, u64)>,
    served: Vec<u64>,
    /// Whether the last ejection of each came while the pool failed open; only then does it bind in such a pool.
    while_failing_open: Vec<bool>,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn config(seed: u64, rng: &mut Rng) -> Config {
    let algorithms = all_algorithms();
    let algorithm = algorithms[seed as usize % algorithms.len()].clone();
    let members = 1 + rng.below(7) as usize;
    let template = state(algorithm, &vec![100; members], None);
    let pool = Pool {
        backends: template
            .config
            .backends
            .iter()
            .map(|b| Backend {
                weight: 1 + rng.below(5) as u32,
                ..b.clone()
            })
            .collect(),
        passive: Some(Passive {
            max_ejected: [10, 34, 50, 100][rng.below(4) as usize],
            ejection_time: Duration::from_secs(1 + rng.below(5)),
            ..Passive::default()
        }),
        slow_start: Duration::from_secs(rng.below(6)),
        all_down: if rng.below(2) == 0 {
            AllDown::FailOpen
        } else {
            AllDown::FailClosed
        },
        ..(*template.config).clone()
    };
    let lb = LoadBalancer {
        name: name("shop"),
        listeners: Vec::new(),
        routes: Vec::new(),
        pools: [(name("default"), Arc::new(pool))].into(),
        access_log: true,
        default_language: None,
    };
    Config {
        node: Node {
            name: "simulated".into(),
            shutdown_timeout: Duration::ZERO,
            max_connections: 1,
            ..Node::default()
        },
        admin: Admin {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Admin::default()
        },
        observe: Observe::default(),
        store: StoreConfig::default(),
        notify: None,
        alerts: Alerts::default(),
        load_balancers: [(name("shop"), Arc::new(lb))].into(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Arc::new(config(seed, &mut rng));
        let (overrides, observed) = (Overrides::default(), Observed::default());
        let layers = Layers {
            revision: 1,
            config: &config,
            overrides: &overrides,
            observed: &observed,
        };
        let snapshot = Snapshot::build(layers, None, Timestamp(1_000));
        let state = snapshot.pool(&name("shop"), &name("default")).unwrap().clone();
        let loads: BTreeMap<_, _> = state
            .members
            .iter()
            .map(|m| (m.id.address, Arc::new(Load::new())))
            .collect();
        let pool = Arc::new(PoolLoad::new());
        let in_order = state
            .members
            .iter()
            .map(|m| loads[&m.id.address].clone())
            .collect();
        let members = state.members.len();
        Self {
            rng,
            now_us: 1_000_000,
            config,
            overrides,
            observed,
            snapshot,
            due: None,
            natures: vec![Nature::Fine; members],
            balancer: Balancer::new(state, pool.clone(), in_order),
            loads,
            pool,
            running: BTreeSet::new(),
            served: vec![0; members],
            while_failing_open: vec![false; members],
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.now_us / 1_000)
    }

    fn id(&self, index: usize) -> BackendId {
        self.balancer.state().members[index].id.clone()
    }

    /// As the hub does after any change and when time alone changes something.
    fn rebuild(&mut self) {
        let now = self.now();
        let layers = Layers {
            revision: 1,
            config: &self.config,
            overrides: &self.overrides,
            observed: &self.observed,
        };
        self.snapshot = Snapshot::build(layers, Some(&self.snapshot), now);
        self.due = self.snapshot.next_change();
        let state = self
            .snapshot
            .pool(&name("shop"), &name("default"))
            .unwrap()
            .clone();
        let loads = state
            .members
            .iter()
            .map(|m| self.loads[&m.id.address].clone())
            .collect();
        self.balancer = Balancer::new(state, self.pool.clone(), loads);
    }

    /// Something happens to one backend now and then.
    fn disturb(&mut self) {
        let index = self.rng.below(self.natures.len() as u64) as usize;
        let id = self.id(index);
        match self.rng.below(10) {
            0..3 => self.natures[index] = Nature::Fine,
            3 => self.natures[index] = Nature::Slow,
            4..6 => self.natures[index] = Nature::Refuses,
            6 => self.natures[index] = Nature::Flaky(20 + self.rng.below(80)),
            7 => {
                let up = self.rng.below(3) > 0;
                let verdict = HealthState {
                    health: if up { Health::Up } else { Health::Down },
                    reason: "simulated".into(),
                    since: self.now(),
                };
                self.observed.health.insert(id, verdict);
            }
            8 => {
                let key = OverrideKey {
                    load_balancer: id.load_balancer,
                    address: id.address,
                };
                let order = Override {
                    mode: if self.rng.below(2) == 0 {
                        Mode::Drain
                    } else {
                        Mode::Ready
                    },
                    weight: Some(self.rng.below(10) as u32),
                    by: "simulated".into(),
                    since: self.now(),
                    expires: Some(self.now().plus(Duration::from_secs(self.rng.below(20)))),
                };
                self.overrides.backends.insert(key, order);
            }
            _ => self.rebuild(),
        }
        if self.rng.below(4) > 0 {
            self.rebuild();
        }
    }

    fn out(&self, index: usize) -> bool {
        let forgiven = self.balancer.state().all_down && !self.while_failing_open[index];
        self.balancer.load(index).ejected(self.now_us) && !forgiven
    }

    fn request(&mut self) {
        let key = self.rng.next_u64();
        let mut tried = Vec::new();
        while tried.len() < 3 {
            let pick = self.balancer.pick(key, &tried, self.now_us, &mut self.rng);
            self.check_pick(pick, &tried);
            let Some(index) = pick else { break };
            self.balancer.load(index).begin();
            self.served[index] += 1;
            let (fails, takes_us) = match self.natures[index] {
                Nature::Fine => (false, 2_000 + self.rng.below(3_000)),
                Nature::Slow => (false, 300_000),
                Nature::Refuses => (true, 100),
                Nature::Flaky(percent) => (self.rng.below(100) < percent, 5_000),
            };
            let tag = self.rng.next_u64();
            self.running
                .insert((self.now_us + takes_us, tag, index, fails, takes_us));
            if !fails {
                break;
            }
            tried.push(index);
        }
    }

    fn check_pick(&self, pick: Option<usize>, tried: &[usize]) {
        let members = &self.balancer.state().members;
        let weighted = || (0..members.len()).filter(|i| members[*i].effective_weight > 0);
        let all_out = weighted().all(|i| self.out(i));
        match pick {
            Some(index) => {
                assert!(
                    members[index].effective_weight > 0,
                    "a member of weight 0 was picked"
                );
                assert!(!tried.contains(&index), "a tried member was picked");
                assert!(!self.out(index) || all_out, "an ejected member was picked");
            }
            None => {
                let left = weighted().any(|i| !tried.contains(&i) && (!self.out(i) || all_out));
                assert!(!left, "nobody was picked though somebody was left");
            }
        }
    }

    fn finish_due(&mut self) {
        while let Some(first) = self.running.first().copied().filter(|r| r.0 <= self.now_us) {
            self.running.remove(&first);
            let (_, _, index, failed, took_us) = first;
            self.balancer.load(index).end();
            let outcome = if failed {
                Outcome::Failure { what: "simulated" }
            } else {
                Outcome::Success { latency_us: took_us }
            };
            let was_out = self.out(index);
            let others = self.eligible_others(index);
            let ejected = self.balancer.record(index, outcome, self.now_us);
            if ejected.is_some() {
                self.while_failing_open[index] = self.balancer.state().all_down;
            }
            assert_eq!(
                ejected.is_some(),
                !was_out && self.out(index),
                "out and reported go together"
            );
            if let Some(ejected) = ejected {
                assert!(failed, "a success ejected");
                assert!(others > 0, "the last eligible member was ejected");
                self.ejected(index, ejected);
            }
        }
    }

    fn eligible_others(&self, index: usize) -> usize {
        let members = &self.balancer.state().members;
        (0..members.len())
            .filter(|i| *i != index && members[*i].effective_weight > 0 && !self.out(*i))
            .count()
    }

    fn ejected(&mut self, index: usize, ejected: Ejected) {
        assert_eq!(ejected.backend, self.id(index));
        let members = &self.balancer.state().members;
        let usable =
            |i: &usize| members[*i].effective_weight > 0 || members[*i].eligibility == Eligibility::Ejected;
        let out = (0..members.len()).filter(usable).filter(|i| self.out(*i)).count();
        let all = (0..members.len()).filter(usable).count();
        let passive = self.balancer.state().config.passive.clone().unwrap();
        assert!(
            out * 100 <= all * usize::from(passive.max_ejected),
            "{out} of {all} out"
        );
        assert!(ejected.lasts >= passive.ejection_time);
        assert!(ejected.lasts <= passive.ejection_time * MAX_EJECTION_FACTOR);
        let ejection = Ejection {
            reason: ejected.reason,
            since: self.now(),
            until: self.now().plus(ejected.lasts),
        };
        self.observed.ejections.insert(ejected.backend, ejection);
        // The report may be on its way for a while.
        if self.rng.below(2) == 0 {
            self.rebuild();
        }
    }

    fn run_until(&mut self, end_us: u64, disturbed: bool) {
        while self.now_us < end_us {
            self.now_us += 1 + self.rng.below(20_000);
            self.finish_due();
            if disturbed && self.rng.below(60) == 0 {
                self.disturb();
            }
            if self.due.is_some_and(|due| due <= self.now()) {
                self.rebuild();
            }
            self.request();
            let in_flight: u64 = self.loads.values().map(|l| u64::from(l.in_flight())).sum();
            assert_eq!(
                in_flight,
                self.running.len() as u64,
                "requests in flight were miscounted"
            );
        }
    }
}

/// Forty pools over all algorithms, thirty virtual seconds of trouble each; then all heals, and after the longest
/// ejection and slow start everybody works again.
#[test]
fn a_pool_in_trouble_keeps_its_promises_and_heals() {
    for seed in 0..sim::seeds(40) {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run_until(30_000_000, true);
            world.natures.fill(Nature::Fine);
            world.overrides.backends.clear();
            world.observed.health.clear();
            world.rebuild();
            // The longest ejection is 50 s, and latency is unknown again after 30 s.
            world.run_until(world.now_us + 90_000_000, false);
            world.served.fill(0);
            world.run_until(world.now_us + 5_000_000, false);
            assert!(
                world.served.iter().all(|s| *s > 0),
                "starved after healing: {:?}",
                world.served
            );
        });
        assert!(run.is_ok(), "seed {seed} fails: World::new({seed}) reproduces it");
    }
}
