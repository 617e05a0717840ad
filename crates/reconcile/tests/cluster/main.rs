//! The cluster of orchestrators under everything that may go wrong: seeded, and judged by a shadow model.
//!
//! The world (`world`) has one store that is always right (`store`), orchestrators and LB servers with clocks of
//! their own, and a network. A scenario (`scenario`) says what goes wrong, the shadow (`shadow`) what must be true:
//!
//! - never two processes whose hands are on one slot and whose clocks let them check it;
//! - no backend unchecked for longer than the bounds below;
//! - a round takes effect only if it is the leader's, of an epoch that does not go back; no slot is given to two;
//!   no more slots are on the way than allowed; none moves when leases were lost and nobody died;
//! - a verdict takes effect only if its author has the slot, and never in place of a later one; in the end, and
//!   while one orchestrator at a time is in trouble, the store says what is true;
//! - LB servers believe what is true, also while they look themselves and while they hand back;
//! - of a member that left and is back as another one nothing is written, or believed, that was found of the one before.
//!
//! A seed that fails prints itself and its steps. To see that the shadow sees, these rules were broken one at a
//! time, and each was noticed within the ten thousand seeds that are always run:
//!
//! | Broken rule | What was noticed |
//! |---|---|
//! | slots are given before who had them has acknowledged; who acknowledges stops only after | two check a slot |
//! | no deadline; all of the lease and not 80 %; counted from the answer and not from the sending | two check a slot |
//! | a worker registers without comparing its assignment; takes old news of it for new | two check a slot |
//! | a worker's key is written without comparing the write before | two check a slot; a verdict is lost |
//! | rounds do not compare the round before; the living; that the dead are dead | two check a slot |
//! | rounds do not compare the leader's key | a round of somebody who does not lead |
//! | the dead keep their assignment | a slot is given to two |
//! | no freeze; a freeze that counts only who is missing, not who came back with another lease | assignments change when only leases were lost |
//! | no freeze while there is no round | two check a slot |
//! | a worker whose key was deleted does not notice | not all slots are given |
//! | a leader takes its view for too old until that has the last round that it made | a backend is not checked |
//! | what cannot be read is taken for absent: under the leader's key; the round's | not all slots are given; a backend is not checked |
//! | no limit of moves | too many slots on the way |
//! | a deaf orchestrator keeps its lease | a backend is not checked |
//! | verdicts do not compare the assignment; those of slots that were taken are kept | a verdict of somebody who does not own the backend |
//! | verdicts do not compare the verdict before | an old verdict in place of a new one |
//! | verdicts do not compare the worker's own key; a write without an answer is forgotten; a refused verdict is dropped | the store does not say what is true |
//! | an LB server hands back at once; takes verdicts that are older than what it knows | it believes what is not true |
//! | an LB server never looks itself | it is not looking |
//! | what stands in the store, or own checks found, is believed whatever the membership | a server believes what was never true of that membership |
//! | a check goes on over a change of the membership; the same of another membership is not written | the store does not say what is true |
//! | one's own verdict of before a slot was away is no news | the store does not say what is true |
//!
//! One rule was broken and nothing was noticed: a worker that stops in order deletes its assignment. Without that its
//! slots are given away a lease later when it was one of few; nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod orchestrator;
mod scenario;
mod server;
mod shadow;
mod store;
mod world;

use scenario::{GONE, Kind, Scenario};
use server::AFTER_MS;
use world::{Held, INTERVAL_MS, Mind, World};

/// Seeds that are always run; more with `cargo xtask test --seeds N`.
const SEEDS: u64 = 10_000;

/// Steps shown of a run that failed.
const STEPS_SHOWN: usize = 400;

/// Longest time between two checks of a backend, when one orchestrator at a time is in trouble: from the last check
/// an interval, the lease by the slowest store's clock (3.3 s) and the store's lateness (0.5 s), an interval until
/// the next, and a few messages.
const BOUND_ONE_MS: u64 = 5500;
/// The same when all leases are lost and all orchestrators are well.
const BOUND_MASS_LOSS_MS: u64 = 3000;
/// The same from the moment on when everything is well after chaos.
const BOUND_CALM_MS: u64 = 10_000;
/// From there on.
const BOUND_PEACE_MS: u64 = 2 * INTERVAL_MS;

#[derive(Default)]
struct Seen {
    worst: [u64; 7],
    peace: u64,
    verdicts: u64,
    rounds: u64,
    refused: u64,
    took_over: u64,
}

fn run(seed: u64, tell: bool, seen: &mut Seen) -> Result<(), (String, Vec<String>)> {
    let scenario = Scenario::of(seed);
    let mut world = World::new(seed, &scenario, tell);
    let held = play(&mut world, &scenario, seen);
    seen.verdicts += world.shadow.written;
    seen.rounds += world.shadow.rounds;
    seen.refused += world.shadow.refused;
    held.map_err(|what| {
        (
            format!("at {}: {what}", world.now),
            world.steps.unwrap_or_default(),
        )
    })
}

fn play(world: &mut World, scenario: &Scenario, seen: &mut Seen) -> Held {
    let bound = match scenario.kind {
        Kind::OneAtATime => BOUND_ONE_MS,
        Kind::MassLoss => BOUND_MASS_LOSS_MS,
        Kind::Chaos | Kind::AllGone | Kind::Forgets | Kind::Emptied | Kind::Scribbled => BOUND_CALM_MS,
    };
    if scenario.kind == Kind::OneAtATime {
        world.told_within = BOUND_ONE_MS + 2 * INTERVAL_MS;
    }
    if scenario.kind == Kind::AllGone {
        servers_look_themselves(world, seen)?;
    }
    let peace = scenario.ends - 4000;
    if scenario.kind == Kind::AllGone {
        // While they hand back, too: what stands in the store is old then.
        for moment in (GONE.1..peace).step_by(200) {
            world.run(moment)?;
            servers_believe_the_truth(world, None)?;
        }
    }
    world.run(peace)?;
    let worst = worst(world);
    let of = &mut seen.worst[scenario.kind as usize];
    *of = worst.max(*of);
    if worst > bound {
        return Err(format!("a backend was not checked for {worst} ms"));
    }
    world.shadow.measured_from = Some(peace);
    world.shadow.worst = 0;
    world.run(scenario.ends)?;
    seen.peace = seen.peace.max(self::worst(world));
    if self::worst(world) > BOUND_PEACE_MS {
        return Err("all is well, and a backend is not checked".to_owned());
    }
    at_the_end(world)
}

fn worst(world: &mut World) -> u64 {
    for backend in 0..world.backends.len() {
        world.shadow.measure(backend, world.now);
    }
    world.shadow.worst
}

/// Everything has been well for a while: all is given out, the store tells the truth, servers believe it.
fn at_the_end(world: &World) -> Held {
    if !world.all_is_given() {
        return Err("not all slots are given to workers that live".to_owned());
    }
    for (backend, (up, since)) in world.truth.iter().enumerate() {
        assert!(since + 4000 < world.now, "the scenario ends too early");
        world.is_true(backend, *up)?;
    }
    servers_believe_the_truth(world, Some("following"))
}

/// In this phase, if one is named.
fn servers_believe_the_truth(world: &World, phase: Option<&str>) -> Held {
    for process in &world.processes {
        let Mind::Server(server) = &process.mind else {
            continue;
        };
        if phase.is_some_and(|phase| server.phase().as_str() != phase) {
            return Err(format!("a server is {:?} and not {phase:?}", server.phase()));
        }
        let backends = world.backends.iter().zip(&process.members);
        for ((backend, life), (up, since)) in backends.zip(&world.truth) {
            let believed = server.belief(backend, *life).map(|health| health.as_str());
            let recent = world.now.saturating_sub(*since) < 3 * INTERVAL_MS;
            if !recent && believed != Some(if *up { "up" } else { "down" }) {
                return Err(format!("a server believes {believed:?} of {backend}, up is {up}"));
            }
        }
    }
    Ok(())
}

/// All orchestrators are gone: servers keep what they know, then look themselves.
fn servers_look_themselves(world: &mut World, seen: &mut Seen) -> Held {
    world.run(GONE.0)?;
    servers_believe_the_truth(world, Some("following"))?;
    // Leases end late by the slowest store's clock; servers' clocks are slow, too.
    world.run(GONE.0 + 500 + 3900 + AFTER_MS * 10 / 9 + 2 * INTERVAL_MS)?;
    servers_believe_the_truth(world, Some("own_checks"))?;
    world.run(GONE.1)?;
    for process in &world.processes {
        if let Mind::Server(server) = &process.mind {
            seen.took_over += u64::from(server.took_over);
        }
    }
    servers_believe_the_truth(world, Some("own_checks"))
}

fn seeds() -> u64 {
    sim::seeds(SEEDS)
}

/// Runs every `step`th seed from `first` on.
fn run_seeds(first: u64, step: usize) {
    let mut seen = Seen::default();
    for seed in (first..seeds()).step_by(step) {
        if let Err((what, _)) = run(seed, false, &mut seen) {
            let steps = run(seed, true, &mut Seen::default()).unwrap_err().1;
            let shown = steps.len().saturating_sub(STEPS_SHOWN);
            println!("{}", steps[shown..].join("\n"));
            panic!("seed {seed}, {:?}: {what}", Scenario::of(seed).kind);
        }
    }
    println!(
        "longest without a check (chaos, one at a time, mass loss, all gone, forgets, emptied, scribbled): {:?} ms, in peace {} ms; \
         {} rounds, {} verdicts, {} refused, {} times a server looked itself",
        seen.worst, seen.peace, seen.rounds, seen.verdicts, seen.refused, seen.took_over
    );
    assert!(seen.verdicts > 0 && seen.rounds > 0 && seen.refused > 0);
}

#[test]
fn no_backend_is_checked_by_two_and_none_by_nobody_even_seeds() {
    run_seeds(0, 2);
}

#[test]
fn no_backend_is_checked_by_two_and_none_by_nobody_odd_seeds() {
    run_seeds(1, 2);
}
