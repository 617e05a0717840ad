//! Scenarios of one backend's checks, each told as results in and verdicts out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use evenkeel_reconcile::health::{HealthMachine, ProbeResult, Transition};
use model::config::HealthCheck;
use model::state::Health::{self, Down, Up};

/// rise 2, fall 3, every 2 s, every 500 ms while deciding, no jitter: exact times.
fn check() -> HealthCheck {
    HealthCheck {
        jitter: 0,
        ..HealthCheck::default()
    }
}

fn ok() -> ProbeResult {
    ProbeResult::Success("status 200".into())
}

fn bad(reason: &str) -> ProbeResult {
    ProbeResult::Failure(reason.into())
}

fn verdict(health: Health, reason: &str) -> Option<Transition> {
    Some(Transition {
        health,
        reason: reason.into(),
    })
}

/// Runs each probe when it is due and answers at once.
fn feed(machine: &mut HealthMachine, result: ProbeResult) -> Option<Transition> {
    let due = machine.next_probe();
    machine.handle(due, result, 0)
}

/// Nothing is known before the first result; one is enough either way, whatever rise and fall say.
#[test]
fn the_first_check_decides_at_once() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    assert_eq!(machine.health(), Health::Unchecked);
    assert_eq!(feed(&mut machine, ok()), verdict(Up, "status 200"));

    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    assert_eq!(feed(&mut machine, bad("status 503")), verdict(Down, "status 503"));
}

/// Scenario: a check moves to another process, which goes on from the verdict that it finds.
#[test]
fn a_check_that_moves_does_not_flap() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0).going_on_from(Up, "status 200".into());
    assert_eq!(feed(&mut machine, bad("timeout")), None);
    assert_eq!(feed(&mut machine, bad("timeout")), None);
    assert_eq!(feed(&mut machine, bad("timeout")), verdict(Down, "timeout"));

    let mut machine = HealthMachine::new(&check(), 0, 0.0).going_on_from(Down, "timeout".into());
    assert_eq!(feed(&mut machine, bad("timeout")), None, "known already");
    assert_eq!(feed(&mut machine, ok()), None);
    assert_eq!(feed(&mut machine, ok()), verdict(Up, "status 200"));
}

/// Two failures and a success are not three failures in a row.
#[test]
fn a_success_between_failures_starts_the_count_again() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    feed(&mut machine, ok());
    for _ in 0..10 {
        assert_eq!(feed(&mut machine, bad("a")), None);
        assert_eq!(feed(&mut machine, bad("b")), None);
        assert_eq!(feed(&mut machine, ok()), None);
    }
    assert_eq!(machine.health(), Up);
}

/// The verdict carries the words of the failure that completed it, not of the first.
#[test]
fn falling_takes_fall_failures_and_tells_the_last_reason() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    feed(&mut machine, ok());
    assert_eq!(feed(&mut machine, bad("status 503")), None);
    assert_eq!(feed(&mut machine, bad("timeout after 1s")), None);
    assert_eq!(
        feed(&mut machine, bad("connection refused")),
        verdict(Down, "connection refused")
    );
}

#[test]
fn rising_takes_rise_successes() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    feed(&mut machine, bad("connection refused"));
    assert_eq!(feed(&mut machine, ok()), None);
    assert_eq!(feed(&mut machine, ok()), verdict(Up, "status 200"));
}

/// A backend that is down for a new reason stays down, but the reason shown is today's.
#[test]
fn a_new_cause_of_being_down_is_reported_once() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    assert_eq!(
        feed(&mut machine, bad("connection refused")),
        verdict(Down, "connection refused")
    );
    assert_eq!(feed(&mut machine, bad("connection refused")), None);
    assert_eq!(feed(&mut machine, bad("status 500")), verdict(Down, "status 500"));
    assert_eq!(feed(&mut machine, bad("status 500")), None);
}

/// An up backend that answers 200 and 204 in turn makes no noise.
#[test]
fn a_new_wording_of_success_is_no_news() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    feed(&mut machine, ok());
    assert_eq!(
        feed(&mut machine, ProbeResult::Success("status 204".into())),
        None
    );
}

/// 2 s while settled; 500 ms from the first contrary result until the verdict; then 2 s again.
#[test]
fn probes_come_faster_while_the_state_is_about_to_change() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    let mut gap = |result| {
        let due = machine.next_probe();
        machine.handle(due, result, 0);
        machine.next_probe() - due
    };
    assert_eq!(gap(ok()), 2000);
    assert_eq!(gap(bad("x")), 500);
    assert_eq!(gap(bad("x")), 500);
    assert_eq!(gap(bad("x")), 2000, "down: decided");
    assert_eq!(gap(ok()), 500);
    assert_eq!(gap(bad("x")), 2000, "still down: nothing in the air");
    assert_eq!(gap(ok()), 500);
    assert_eq!(gap(ok()), 2000, "up: decided");
}

/// Out of file descriptors here: no verdict from that, no count from that, and the count before it stands.
#[test]
fn what_we_could_not_check_counts_neither_way() {
    let none = || ProbeResult::Inconclusive("too many open files".into());
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    assert_eq!(feed(&mut machine, none()), None);
    assert_eq!(machine.health(), Health::Unchecked);
    assert_eq!(machine.next_probe(), 500, "nothing known yet: soon again");
    feed(&mut machine, ok());
    feed(&mut machine, bad("x"));
    feed(&mut machine, bad("x"));
    for _ in 0..5 {
        assert_eq!(feed(&mut machine, none()), None);
    }
    assert_eq!(feed(&mut machine, bad("x")), verdict(Down, "x"));
}

/// The interval counts from the end of a check, so a check of 5 s in a 2 s interval never overlaps the next.
#[test]
fn the_interval_runs_from_the_end_of_a_check() {
    let mut machine = HealthMachine::new(&check(), 0, 0.0);
    machine.handle(5000, ok(), 0);
    assert_eq!(machine.next_probe(), 7000);
}

#[test]
fn the_first_probe_is_due_at_its_phase() {
    let due = |phase| HealthMachine::new(&check(), 1000, phase).next_probe();
    assert_eq!(due(0.0), 1000);
    assert_eq!(due(0.25), 1500);
    assert_eq!(due(1.0), 3000);
    assert_eq!(due(-7.0), 1000);
    assert_eq!(due(7.0), 3000);
    assert_eq!(due(f64::NAN), 1000);
}

/// Extreme settings neither overflow nor divide by zero nor stop the clock.
#[test]
fn extreme_settings_stay_sane() {
    let check = HealthCheck {
        interval: Duration::MAX,
        fast_interval: Duration::ZERO,
        rise: 0,
        fall: 0,
        jitter: 255,
        ..HealthCheck::default()
    };
    let mut machine = HealthMachine::new(&check, u64::MAX, 1.0);
    assert_eq!(
        machine.handle(u64::MAX, ok(), u64::MAX),
        verdict(Up, "status 200")
    );
    assert_eq!(machine.handle(u64::MAX, bad("x"), u64::MAX), verdict(Down, "x"));
    assert_eq!(machine.next_probe(), u64::MAX);

    let zero = HealthCheck {
        interval: Duration::ZERO,
        ..check
    };
    let mut machine = HealthMachine::new(&HealthCheck { jitter: 0, ..zero }, 0, 0.0);
    machine.handle(0, ok(), 0);
    assert_eq!(machine.next_probe(), 1, "time moves on");
}
