//! `cargo xtask test`: everything a change must pass, in the order in which failures are cheapest to learn.
//!
//! Nothing stops at the first failure: whoever fixes things wants to see all of them. The last line sums up what
//! the runners themselves reported.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::process::{command, succeeds, watched};
use crate::{counts, fuzz, tools};

/// Property cases per test of a long run.
const LONG_PROPERTY_CASES: u32 = 4096;
/// A long run has so many times the seeds of each simulation.
const LONG_SEEDS_TIMES: u32 = 20;
/// Steps of the trouble in a cluster of a long run.
const LONG_CHAOS_STEPS: u32 = 1000;
/// Seconds per fuzz target of a long run.
const LONG_FUZZ_SECONDS: u32 = 300;
/// Seconds per fuzz target of any other run.
const FUZZ_SECONDS: u32 = 15;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Look longer: more property cases, 20 times the seeds, a cluster in trouble for a quarter of an hour, five minutes
    /// of fuzzing per target.
    #[arg(long)]
    long: bool,
    /// Seeds per simulation (each test has its own default).
    #[arg(long, value_name = "N")]
    seeds: Option<u32>,
    /// Seconds per fuzz target; default 15, with --long 300.
    #[arg(long, value_name = "N")]
    fuzz_seconds: Option<u32>,
    /// Leave fuzzing out, for this reason (printed).
    #[arg(long, value_name = "REASON")]
    no_fuzz: Option<String>,
    /// Install nothing; say what is missing instead.
    #[arg(long)]
    no_install: bool,
}

/// What the runners reported.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    /// What failed, in words.
    failures: Vec<String>,
}

impl Tally {
    fn one(&mut self, what: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(what.to_owned());
        }
    }
}

type Step = (&'static str, fn(&Args, &mut Tally) -> Result<()>);

const STEPS: &[Step] = &[
    ("what the tests need", needed_programs),
    ("format", format),
    ("clippy, warnings denied", clippy),
    ("unit, property, scenario, end-to-end and document tests", tests),
    ("examples in the documentation of the code", doc_tests),
    ("documentation of the code, warnings denied", docs),
    ("instruction counts", instruction_counts),
    ("fuzzing", fuzzing),
];

/// Runs every step, then prints the sum as the last line.
///
/// # Errors
/// When anything failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let mut tally = Tally::default();
    for (number, (name, step)) in STEPS.iter().enumerate() {
        eprintln!("\n== {}/{} {name}", number + 1, STEPS.len());
        let (start, failed_before) = (Instant::now(), tally.failed);
        if let Err(error) = step(args, &mut tally) {
            eprintln!("{error:#}");
            tally.one(name, false);
        }
        let verdict = if tally.failed == failed_before {
            "ok"
        } else {
            "FAILED"
        };
        eprintln!(
            "== {}/{} {verdict}, {} s",
            number + 1,
            STEPS.len(),
            start.elapsed().as_secs()
        );
    }
    eprintln!("\nall steps took {} s", begin.elapsed().as_secs());
    for failure in &tally.failures {
        eprintln!("failed: {failure}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    std::process::exit(i32::from(tally.failed > 0));
}

fn needed_programs(args: &Args, _: &mut Tally) -> Result<()> {
    tools::provide(tools::FOR_TESTS, !args.no_install)?;
    tools::provide_python(!args.no_install)
}

fn format(_: &Args, tally: &mut Tally) -> Result<()> {
    tally.one(
        "cargo fmt",
        succeeds(&mut command("cargo", &["fmt", "--all", "--check"]))?,
    );
    Ok(())
}

fn clippy(_: &Args, tally: &mut Tally) -> Result<()> {
    let args = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    tally.one("cargo clippy", succeeds(&mut command("cargo", &args))?);
    Ok(())
}

fn tests(args: &Args, tally: &mut Tally) -> Result<()> {
    let nextest = tools::has_cargo_command("nextest");
    let runner: &[&str] = if nextest {
        &[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--color=never",
            "--status-level=fail",
        ]
    } else {
        &[
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ]
    };
    run_tests(
        with_effort(command("cargo", runner), args),
        if nextest { of_nextest } else { of_libtest },
        tally,
    )
}

fn doc_tests(_: &Args, tally: &mut Tally) -> Result<()> {
    let doc = command(
        "cargo",
        &[
            "test",
            "--quiet",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--doc",
        ],
    );
    run_tests(doc, of_libtest, tally)
}

fn docs(_: &Args, tally: &mut Tally) -> Result<()> {
    // Libraries only: the documentation of a command line is its help.
    let mut doc = command(
        "cargo",
        &[
            "doc",
            "--quiet",
            "--workspace",
            "--locked",
            "--no-deps",
            "--lib",
            "--document-private-items",
        ],
    );
    tally.one("cargo doc", succeeds(doc.env("RUSTDOCFLAGS", "-D warnings"))?);
    Ok(())
}

fn instruction_counts(_: &Args, tally: &mut Tally) -> Result<()> {
    for (operation, passed) in counts::check()? {
        tally.one(&format!("instructions of {operation}"), passed);
    }
    Ok(())
}

fn fuzzing(args: &Args, tally: &mut Tally) -> Result<()> {
    if let Some(reason) = &args.no_fuzz {
        eprintln!("   left out: {reason}");
        return Ok(());
    }
    let usual = if args.long {
        LONG_FUZZ_SECONDS
    } else {
        FUZZ_SECONDS
    };
    for (target, passed) in fuzz::run(args.fuzz_seconds.unwrap_or(usual), !args.no_install)? {
        tally.one(&format!("fuzz target {target}"), passed);
    }
    Ok(())
}

/// Tells the tests how hard to look, by the variables that they read.
fn with_effort(mut command: Command, args: &Args) -> Command {
    if args.long {
        command.env("PROPTEST_CASES", LONG_PROPERTY_CASES.to_string());
        command.env("EVENKEEL_CHAOS_STEPS", LONG_CHAOS_STEPS.to_string());
        command.env("EVENKEEL_SEEDS_TIMES", LONG_SEEDS_TIMES.to_string());
    }
    if let Some(seeds) = args.seeds {
        command.env("EVENKEEL_SEEDS", seeds.to_string());
    }
    if args.long || args.seeds.is_some() {
        command.env("NEXTEST_PROFILE", "long");
    }
    command
}

/// Runs a test runner and adds up what `read` finds in its lines.
fn run_tests(mut command: Command, read: fn(&str) -> Option<(u64, u64)>, tally: &mut Tally) -> Result<()> {
    let (mut passed, mut failed) = (0, 0);
    let good = watched(&mut command, |line| {
        if let Some((more_passed, more_failed)) = read(line) {
            passed += more_passed;
            failed += more_failed;
        }
    })?;
    tally.passed += passed;
    tally.failed += failed;
    if failed > 0 {
        tally.failures.push(format!("{failed} tests, see above"));
    } else if !good {
        tally.one("the tests could not be run", false);
    }
    Ok(())
}

/// Passed and failed of nextest's `Summary [ 1.2s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped`.
fn of_nextest(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once("run: ")?;
    let (mut passed, mut failed) = (0, 0);
    for part in counts.split(", ") {
        // A remark in brackets may follow the word and hold commas of its own: such parts start with no number.
        let mut words = part.split_whitespace();
        let Some(count) = words.next().and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        match words.next() {
            Some("passed") => passed += count,
            Some("failed" | "timed" | "exec") => failed += count,
            _ => {}
        }
    }
    Some((passed, failed))
}

/// Passed and failed of libtest's `test result: ok. 10 passed; 1 failed; 3 ignored; …`.
fn of_libtest(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| -> Option<u64> {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word))?
            .trim()
            .parse()
            .ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::{of_libtest, of_nextest};

    #[test]
    fn the_summary_of_nextest_is_read() {
        let all = "     Summary [   0.512s] 120 tests run: 120 passed, 2 skipped";
        assert_eq!(of_nextest(all), Some((120, 0)));
        let some = "     Summary [  41.0s] 12 tests run: 9 passed (1 slow, 1 leaky), 2 failed, 1 timed out, 0 skipped";
        assert_eq!(of_nextest(some), Some((9, 3)));
        let cut = "     Summary [  41.0s] 7/12 tests run: 6 passed, 1 failed, 0 skipped";
        assert_eq!(of_nextest(cut), Some((6, 1)));
        assert_eq!(
            of_nextest("        PASS [   0.005s] model config::tests::a"),
            None
        );
    }

    #[test]
    fn the_summary_of_libtest_is_read() {
        let line = "test result: FAILED. 10 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.0s";
        assert_eq!(of_libtest(line), Some((10, 1)));
        assert_eq!(of_libtest("running 3 tests"), None);
    }
}
