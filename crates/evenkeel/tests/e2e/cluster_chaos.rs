//! Anything of a cluster but its LB servers dies or hangs at any time, several at once, while changes are applied and a
//! load runs through both LB servers: drawn from a seed, so that a history that fails can be run again.
//!
//! `EVENKEEL_CHAOS_STEPS` says how many steps (usually 20, some 0.5 s each; 1,000 with `cargo xtask test --long`),
//! `EVENKEEL_CHAOS_SEED` from which seed (usually drawn, and printed). What the processes make of it is not the seed's
//! to say: a seed repeats what is done to them, not what they do.

use nix::sys::signal::Signal;
use serde_json::Value;
use sim::Random;

use crate::cluster::{Cluster, assert_nothing_failed, served, up};

/// Requests through each LB server from one step to the next.
const STEP: u64 = 50;
/// Steps for which something is away, at most: some 6 s, beyond each lease.
const AWAY: u64 = 12;

/// What can be done something to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Etcd(usize),
    Redis,
    Orchestrator(usize),
}

const PARTS: [Part; 7] = [
    Part::Etcd(0),
    Part::Etcd(1),
    Part::Etcd(2),
    Part::Redis,
    Part::Orchestrator(0),
    Part::Orchestrator(1),
    Part::Orchestrator(2),
];

/// A part that is away, whether it died or hangs, and when it is back.
type Away = (Part, bool, u64);

struct Chaos {
    cluster: Cluster,
    random: Random,
    away: Vec<Away>,
    /// The revisions that were acknowledged.
    applied: Vec<u64>,
}

/// Scenario: orchestrators, members of etcd and Redis die and hang, one or several at once, and come back, while
/// changes are applied through whoever lives. No request fails, and when all are back nothing that was acknowledged is
/// lost, everybody serves the newest revision and every backend is checked.
#[test]
fn whatever_dies_no_request_fails_and_nothing_acknowledged_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("EVENKEEL_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let steps = number("EVENKEEL_CHAOS_STEPS").unwrap_or(20);
    println!("EVENKEEL_CHAOS_SEED={seed} EVENKEEL_CHAOS_STEPS={steps}");
    let mut chaos = Chaos {
        cluster: Cluster::start(),
        random: Random(seed),
        away: Vec::new(),
        applied: Vec::new(),
    };
    let loads = chaos.cluster.load();
    for step in 0..steps {
        chaos.bring_back(|back| back <= step);
        chaos.something_happens(step);
        loads.iter().for_each(|load| load.wait_for_more(STEP));
    }
    chaos.bring_back(|_| true);
    chaos.assert_all_is_well();
    assert_nothing_failed(loads);
}

impl Chaos {
    fn something_happens(&mut self, step: u64) {
        if self.random.chance(400) {
            return self.apply(step);
        }
        let part = PARTS[self.random.below(PARTS.len() as u64) as usize];
        if self.away.len() > 4 || self.away.iter().any(|(away, ..)| *away == part) {
            return;
        }
        let dies = self.random.chance(600);
        let back = step + 1 + self.random.below(AWAY);
        println!(
            "step {step}: {part:?} {} until {back}",
            if dies { "dies" } else { "hangs" }
        );
        let cluster = &mut self.cluster;
        match (part, dies) {
            (Part::Etcd(n), true) => cluster.etcd.members[n].crash(),
            (Part::Etcd(n), false) => cluster.etcd.members[n].freeze(),
            (Part::Redis, true) => cluster.redis.crash(),
            (Part::Redis, false) => cluster.redis.freeze(),
            (Part::Orchestrator(n), true) => cluster.orchestrators[n].crash(),
            (Part::Orchestrator(n), false) => cluster.orchestrators[n].signal(Signal::SIGSTOP),
        }
        self.away.push((part, dies, back));
    }

    fn bring_back(&mut self, due: impl Fn(u64) -> bool) {
        let (back, away) = self.away.drain(..).partition(|(_, _, back)| due(*back));
        self.away = away;
        let back: Vec<Away> = back;
        // What hangs first: who starts waits for what it asks.
        for (part, ..) in back.iter().filter(|(_, died, _)| !died) {
            match part {
                Part::Etcd(n) => self.cluster.etcd.members[*n].thaw(),
                Part::Redis => self.cluster.redis.thaw(),
                Part::Orchestrator(n) => self.cluster.orchestrators[*n].signal(Signal::SIGCONT),
            }
        }
        for (part, ..) in back.iter().filter(|(_, died, _)| *died) {
            match part {
                Part::Etcd(n) => self.cluster.etcd.members[*n].start_again(),
                Part::Redis => self.cluster.redis.start_again(),
                Part::Orchestrator(n) => self.cluster.orchestrators[*n].run(),
            }
        }
    }

    /// A change through an orchestrator that lives; whether the store takes it depends on who else does.
    fn apply(&mut self, step: u64) {
        let alive = |n: &usize| !self.away.iter().any(|(part, ..)| *part == Part::Orchestrator(*n));
        let alive: Vec<usize> = (0..3).filter(alive).collect();
        if alive.is_empty() {
            return;
        }
        let through = alive[self.random.below(alive.len() as u64) as usize];
        let text = self.cluster.balancer(1 + self.random.below(3) as usize);
        let answer = self.cluster.try_apply(through, &text);
        println!("step {step}: apply through {through}: {answer:?}");
        self.applied.extend(answer.ok());
    }

    fn assert_all_is_well(&mut self) {
        let (cluster, text) = (&self.cluster, self.cluster.balancer(3));
        cluster.until("all of etcd is back, and takes a change", |cluster| {
            cluster.try_apply(0, &text).is_ok()
        });
        let history: Value = peers::wait_until("the history is told", || {
            let node = cluster.orchestrators[1].evenkeel();
            let history = node.cli(&["history", "--json", "--last", "1000"]);
            let told = history.status.success();
            told.then(|| serde_json::from_slice(&history.stdout).unwrap())
        });
        let known: Vec<u64> = history["revisions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["revision"].as_u64())
            .collect();
        assert!(self.applied.is_sorted(), "{:?}", self.applied);
        let lost: Vec<&u64> = self
            .applied
            .iter()
            .filter(|revision| !known.contains(revision))
            .collect();
        assert!(
            lost.is_empty(),
            "lost: {lost:?} of {:?}, known: {known:?}",
            self.applied
        );
        let newest = known.iter().copied().max().unwrap();
        cluster.until("everybody serves the newest revision", |cluster| {
            let mut nodes = cluster.orchestrators.iter().chain(&cluster.lbs);
            nodes.all(|node| served(&node.status()) == newest)
        });
        cluster.until_settled();
        cluster.until("all backends are up", |cluster| {
            cluster.lbs.iter().all(|lb| up(&lb.status()) == 3)
        });
        println!("{} changes were taken", self.applied.len());
    }
}
