//! The desired layer under everything that may go wrong: seeded, and judged by a shadow of the whole history.
//!
//! Writers apply, delete, roll back, confirm and take back at the same time, each in steps between which the others
//! take theirs; they die in the middle; answers to commits get lost, and what they were about happened, or did not,
//! or happens much later. Two collect garbage all the while. The shadow (`world`) sees every write, and holds:
//!
//! - each change of the head is the next revision, made of the one before by its record alone;
//! - who was told that it is made finds it made, once; who was told that it lost, not at all, ever;
//! - a rollback gives exactly the old state, a revert the one before the change, and only while that is in force;
//! - who was told that a change is confirmed never sees it taken back;
//! - every revision that is kept can be told from the log, and every object that it needs is there, however few bytes
//!   there are for the history; what a change on trial goes back to is kept.
//!
//! A seed that fails prints itself and its last steps. To see that the shadow sees, these rules were broken one at
//! a time, and each was noticed: a commit that does not compare the head, or not the garbage, or not what awaits
//! confirmation; a confirmation that does not compare that; a collector that does not compare the head, does not spare
//! what a trial goes back to, or takes only what is in force to be needed; an answer that was lost taken for a change
//! that was not made; the log read before the head when an answer was lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod trial;
mod world;

use world::World;

/// Seeds that are always run; more with `cargo xtask test --seeds N`.
const SEEDS: u64 = 10_000;
/// Of so many, one begins with a long history, so that blocks are collected.
const LONG_EACH: u64 = 1000;

#[test]
fn no_update_is_lost_none_is_half_made_and_nothing_needed_is_collected() {
    let mut seen = world::Seen::default();
    for seed in 0..sim::seeds(SEEDS) {
        let long = seed % LONG_EACH == 0;
        let mut world = World::new(seed, if long { 1080 } else { 0 });
        let held = world.run(if long { 600 } else { 50 });
        if let Err(broken) = held {
            let steps = world.steps.iter().rev().take(60).rev();
            let steps: Vec<&String> = steps.collect();
            panic!("seed {seed}: {broken}\n{steps:#?}");
        }
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    // Everything that is spoken of above has happened, often.
    let world::Seen {
        made,
        lost,
        again,
        late,
        rolled_back,
        reverted,
        objects_collected,
        blocks_collected,
        cut,
        confirmed,
    } = seen;
    for often in [
        made,
        lost,
        again,
        late,
        rolled_back,
        reverted,
        objects_collected,
        blocks_collected,
        cut,
        confirmed,
    ] {
        assert!(often > 5, "{seen:?}");
    }
}
