//! Members of a cluster under everything that may go wrong: seeded, and judged by a shadow that shares nothing with the
//! machine.
//!
//! The world (`world`) has a store that is always right (`store`), three nodes with clocks of their own, and instances
//! that say at one node after the other, or always at the same, that they are there. A scenario (`scenario`) says what
//! goes wrong: nodes die and start again as other processes, are stopped, are cut off; calls are lost, made without an
//! answer, or made late; watches lag, go on or begin anew; leases are lost; the store is away, and comes back empty or as
//! it was a while ago; two nodes have one name; a pool is taken out of the config and put back; clocks differ by a tenth.
//! Instances come, change their minds, leave, and fall silent, one by one or most of them at once; and somebody puts what
//! cannot be read in the place of their records. A node that starts again remembers its members. The shadow (`shadow`) says what must be true:
//!
//! - who lives and speaks to a node that is reachable stays a member at every node, whatever happens, and is one at every
//!   node that hears the store after [`shadow::LATE`];
//! - who is silent or has left is none after the promised time, and is none again until it comes back itself;
//! - of those who fall silent at once half stay; who has left where that was heard is kept by nothing;
//! - nobody goes at a node that does not hear the store;
//! - nobody of the pool that was out is a member for having been one;
//! - the same for heartbeats of declared backends;
//! - writes are bounded, and in the end the store has who lives, with what it said last.
//!
//! Two things it lets pass, because they are promised otherwise: who leaves at a node that does not reach the store may
//! be taken for one that came back elsewhere, for its time; and so may anybody after the store was put back from a backup.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod minds;
mod scenario;
mod shadow;
mod store;
mod world;

use std::collections::BTreeMap;

use scenario::Scenario;
use world::World;

/// Seeds that are always run; more with `cargo xtask test --seeds N`.
const SEEDS: u64 = 10_000;

/// Steps shown of a run that failed.
const STEPS_SHOWN: usize = 2_000;

/// A run that failed.
struct Failed {
    what: String,
    steps: Vec<String>,
}

/// Names the seed when the machine itself panics.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

fn run(seed: u64, tell: bool, seen: &mut BTreeMap<&'static str, u64>) -> Result<(), Failed> {
    let running = Running(seed);
    let scenario = Scenario::of(seed);
    let mut world = World::new(seed, &scenario, tell);
    let mut held = Ok(());
    while held.is_ok() && world.now < scenario.ends {
        held = world.step();
    }
    let held = held.and_then(|()| world.judge_the_end());
    for (what, count) in &world.seen {
        *seen.entry(what).or_default() += count;
    }
    *seen.entry("replaced").or_default() += world.replacements;
    *seen.entry("record writes").or_default() += world.store.record_writes;
    *seen.entry("record tries").or_default() += world.store.record_tries;
    drop(running);
    held.map_err(|what| Failed {
        what: format!("at {}: {what}", world.now),
        steps: world.steps.unwrap_or_default(),
    })
}

/// Runs every second seed from `first` on.
fn run_seeds(first: u64) {
    let mut seen = BTreeMap::new();
    for seed in (first..sim::seeds(SEEDS).max(SEEDS)).step_by(2) {
        if run(seed, false, &mut seen).is_err() {
            let failed = run(seed, true, &mut BTreeMap::new()).err().unwrap();
            let shown = failed.steps.len().saturating_sub(STEPS_SHOWN);
            println!("{}", failed.steps[shown..].join("\n"));
            panic!("seed {seed}: {}, {:?}", failed.what, Scenario::of(seed));
        }
    }
    println!("{seen:?}");
    assert!(
        [
            "deaths",
            "cuts",
            "pauses",
            "stopped while cut off",
            "store away",
            "leases lost",
            "left at once",
            "fell silent at once",
            "spoilt",
            "replaced"
        ]
        .iter()
        .all(|what| seen[what] > 0)
    );
}

#[test]
fn who_lives_stays_and_who_does_not_goes_even_seeds() {
    run_seeds(0);
}

#[test]
fn who_lives_stays_and_who_does_not_goes_odd_seeds() {
    run_seeds(1);
}
