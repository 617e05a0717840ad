//! The cluster of orchestrators under everything that may go wrong: seeded, and judged by a shadow model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;
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

/// Longest time between two checks of a backend, when one orchestrator at a time is in trouble: the lease by the
/// slowest store's clock (3.3 s) and its lateness (0.5 s), a few messages, the interval.
const BOUND_ONE_MS: u64 = 5000;
/// The same when all leases are lost and all orchestrators are well.
const BOUND_MASS_LOSS_MS: u64 = 3000;
/// The same from the moment on when everything is well after chaos.
const BOUND_CALM_MS: u64 = 10_000;
/// From there on.
const BOUND_PEACE_MS: u64 = 2 * INTERVAL_MS;

#[derive(Default)]
struct Seen {
    worst: [u64; 4],
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
        Kind::Chaos | Kind::AllGone => BOUND_CALM_MS,
    };
    if scenario.kind == Kind::OneAtATime {
        world.told_within = BOUND_ONE_MS + 2 * INTERVAL_MS;
    }
    if scenario.kind == Kind::AllGone {
        servers_look_themselves(world, seen)?;
    }
    let peace = scenario.ends - 4000;
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
    servers_believe_the_truth(world, "following")
}

fn servers_believe_the_truth(world: &World, phase: &str) -> Held {
    for process in &world.processes {
        let Mind::Server(server) = &process.mind else {
            continue;
        };
        if server.phase().as_str() != phase {
            return Err(format!("a server is {:?} and not {phase}", server.phase()));
        }
        for (backend, (up, since)) in world.backends.iter().zip(&world.truth) {
            let believed = server.belief(backend).map(|health| health.as_str());
            let recent = world.now - since < 2 * INTERVAL_MS;
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
    servers_believe_the_truth(world, "following")?;
    // Leases end late by the slowest store's clock; servers' clocks are slow, too.
    world.run(GONE.0 + 500 + 3900 + AFTER_MS * 10 / 9 + 2 * INTERVAL_MS)?;
    servers_believe_the_truth(world, "own_checks")?;
    world.run(GONE.1)?;
    for process in &world.processes {
        if let Mind::Server(server) = &process.mind {
            seen.took_over += u64::from(server.took_over);
        }
    }
    servers_believe_the_truth(world, "own_checks")
}

fn seeds() -> u64 {
    let asked = std::env::var("EVENKEEL_SEEDS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(0).max(SEEDS)
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
        "longest without a check (chaos, one at a time, mass loss, all gone): {:?} ms, in peace {} ms; \
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
