//! Seeded simulation: random checks and results against a shadow model, thousands of steps per run.
//!
//! The shadow keeps the whole history of results and knows one rule: the verdict changes exactly when the last
//! `rise` (or `fall`) results all contradict it, and the very first result is the verdict. It shares no code and
//! no counters with the machine. A failing run names its seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use evenkeel_reconcile::health::{HealthMachine, ProbeResult, Transition};
use model::config::HealthCheck;
use model::state::Health;
use sim::{Random, seeds};

const STEPS: usize = 500;

struct Shadow {
    history: Vec<bool>,
    verdict: Option<bool>,
    reason: String,
}

impl Shadow {
    /// What must be reported for this result.
    fn step(&mut self, success: bool, reason: &str, check: &HealthCheck) -> Option<(bool, String)> {
        self.history.push(success);
        let news = match self.verdict {
            None => true,
            Some(verdict) if verdict == success => !success && reason != self.reason,
            Some(verdict) => {
                let needed = usize::from(if verdict { check.fall } else { check.rise });
                self.history.len() >= needed
                    && self.history[self.history.len() - needed..]
                        .iter()
                        .all(|result| *result != verdict)
            }
        };
        if !news {
            return None;
        }
        self.verdict = Some(success);
        self.reason = reason.to_owned();
        Some((success, reason.to_owned()))
    }

    /// Whether the latest result contradicts the verdict, or none is there yet.
    fn deciding(&self) -> bool {
        self.verdict.is_none() || self.history.last().copied() != self.verdict
    }
}

fn random_check(random: &mut Random) -> HealthCheck {
    let interval = 10 + random.below(5000);
    HealthCheck {
        interval: Duration::from_millis(interval),
        fast_interval: Duration::from_millis(1 + random.below(interval)),
        rise: 1 + random.below(5) as u16,
        fall: 1 + random.below(5) as u16,
        jitter: random.below(51) as u8,
        ..HealthCheck::default()
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let check = random_check(&mut random);
    let start = random.below(1 << 40);
    let phase = random.below(1000) as f64 / 1000.0;
    let mut machine = HealthMachine::new(&check, start, phase);
    assert!(machine.next_probe() >= start && machine.next_probe() - start <= milliseconds(check.interval));
    let mut shadow = Shadow {
        history: Vec::new(),
        verdict: None,
        reason: String::new(),
    };
    // From nearly always down to nearly always up, so that runs of every length occur.
    let success_percent = 5 + random.below(91);
    let mut results_since_change = 0_u16;
    for step in 0..STEPS {
        let context = format!("seed {seed}, step {step}, {check:?}");
        let ended = machine.next_probe() + random.below(1000);
        let before = machine.health();
        let reason = format!("reason {}", random.below(3));
        let roll = random.below(100);
        let (result, expected) = if roll < 5 {
            (ProbeResult::Inconclusive(reason), None)
        } else {
            let success = random.below(100) < success_percent;
            let expected = shadow.step(success, &reason, &check);
            results_since_change += 1;
            let result = if success {
                ProbeResult::Success(reason)
            } else {
                ProbeResult::Failure(reason)
            };
            (result, expected)
        };
        let reported = machine.handle(ended, result, random.number());
        let told = reported
            .as_ref()
            .map(|Transition { health, reason }| (*health == Health::Up, reason.clone()));
        assert_eq!(told, expected, "{context}");
        assert_eq!(machine.health(), standing(shadow.verdict), "{context}");
        if machine.health() != before {
            let least = match before {
                Health::Unchecked => 1,
                Health::Up => check.fall,
                Health::Down => check.rise,
            };
            assert!(results_since_change >= least, "flapped too soon: {context}");
            results_since_change = 0;
        }
        assert_gap(&check, shadow.deciding(), machine.next_probe() - ended, &context);
    }
}

fn standing(verdict: Option<bool>) -> Health {
    match verdict {
        None => Health::Unchecked,
        Some(true) => Health::Up,
        Some(false) => Health::Down,
    }
}

fn assert_gap(check: &HealthCheck, deciding: bool, gap: u64, context: &str) {
    let interval = milliseconds(if deciding {
        check.fast_interval
    } else {
        check.interval
    });
    let jitter = u64::from(check.jitter);
    // gap in [interval * (1 - j), interval * (1 + j)], in hundredths to stay whole.
    assert!(gap * 100 >= interval * (100 - jitter), "gap {gap}: {context}");
    assert!(gap * 100 <= interval * (100 + jitter), "gap {gap}: {context}");
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// Rise, fall, reasons and gaps hold over random checks and random results.
#[test]
fn random_results_agree_with_the_shadow_model() {
    (0..seeds(200)).for_each(run);
}

/// Jitter uses its whole range: over many draws both the early and the late tenth of it occur.
#[test]
fn jitter_reaches_both_ends() {
    let check = HealthCheck {
        interval: Duration::from_secs(1),
        jitter: 50,
        ..HealthCheck::default()
    };
    let mut random = Random(7);
    let mut machine = HealthMachine::new(&check, 0, 0.0);
    let gaps: Vec<u64> = (0..1000)
        .map(|_| {
            let now = machine.next_probe();
            machine.handle(now, ProbeResult::Success("connected".into()), random.number());
            machine.next_probe() - now
        })
        .collect();
    assert!(gaps.iter().any(|gap| *gap < 600), "never early");
    assert!(gaps.iter().any(|gap| *gap > 1400), "never late");
    let mean = gaps.iter().sum::<u64>() / 1000;
    assert!((950..=1050).contains(&mean), "mean {mean} ms instead of 1000");
}
