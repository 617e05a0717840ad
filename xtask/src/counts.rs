//! Instructions per operation of the hot functions, counted under callgrind.
//!
//! Time on a shared machine is noise; the number of instructions is not. `bench/counts` runs one operation N
//! times; two runs with different N give the instructions of one operation, start-up left out. The figures of the
//! last change stand in `bench/instructions.toml`. A figure more than the tolerance *above* its record fails, and
//! so does one that far *below* it: a gain that is not recorded can be lost again unseen.
//!
//! Another compiler gives other figures, so they are judged only under the `rustc` that recorded them, and shown
//! under any other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::{command, output, root, succeeds};
use crate::tools;

/// Repetitions of the shorter and of the longer run.
const FEW: u64 = 200;
const MANY: u64 = 1200;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Record what was counted in bench/instructions.toml.
    #[arg(long)]
    update: bool,
    /// Install nothing; say what is missing instead.
    #[arg(long)]
    no_install: bool,
}

/// The file of recorded figures.
#[derive(Serialize, Deserialize)]
struct Record {
    /// `rustc --version` that the figures were counted under.
    rustc: String,
    /// How far a figure may be from its record, in percent.
    tolerance_percent: f64,
    /// Instructions per operation.
    instructions: BTreeMap<String, u64>,
}

/// `cargo xtask counts`.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::provide(tools::FOR_TESTS, !args.no_install)?;
    if args.update {
        return update();
    }
    let failed = check()?.iter().filter(|(_, passed)| !passed).count();
    if failed > 0 {
        bail!("{failed} counts differ from bench/instructions.toml");
    }
    Ok(())
}

/// Counts every operation and compares; returns (operation, whether it is within the tolerance).
pub(crate) fn check() -> Result<Vec<(String, bool)>> {
    let record = read()?;
    let rustc = rustc()?;
    let judged = record.rustc == rustc;
    if !judged {
        eprintln!(
            "   recorded under {}, this is {rustc}: shown, not judged",
            record.rustc
        );
    }
    let counted = count_all()?;
    let mut results = Vec::new();
    for (operation, instructions) in &counted {
        let (text, fits) = compare(
            *instructions,
            record.instructions.get(operation),
            record.tolerance_percent,
        );
        eprintln!("   {operation:<28} {instructions:>8}  {text}");
        results.push((operation.clone(), fits || !judged));
    }
    for gone in record
        .instructions
        .keys()
        .filter(|name| !counted.contains_key(*name))
    {
        eprintln!("   {gone:<28} recorded, but no longer counted");
        results.push((gone.clone(), false));
    }
    if results.iter().any(|(_, passed)| !passed) {
        eprintln!("   if the change is wanted: cargo xtask counts --update");
    }
    Ok(results)
}

/// How a count stands to its record, in words, and whether that is within the tolerance.
fn compare(counted: u64, recorded: Option<&u64>, tolerance_percent: f64) -> (String, bool) {
    let Some(&recorded) = recorded.filter(|r| **r > 0) else {
        return ("NOT RECORDED".into(), false);
    };
    let change = (counted as f64 / recorded as f64 - 1.0) * 100.0;
    // A handful of instructions is noise of the measurement itself, whatever share of a tiny function it is.
    let fits = change.abs() <= tolerance_percent || counted.abs_diff(recorded) <= 3;
    let verdict = if fits { "ok" } else { "CHANGED" };
    (
        format!("recorded {recorded:>8}  {change:>+6.1} %  {verdict}"),
        fits,
    )
}

fn update() -> Result<()> {
    let tolerance_percent = read().map_or(3.0, |record| record.tolerance_percent);
    let record = Record {
        rustc: rustc()?,
        tolerance_percent,
        instructions: count_all()?,
    };
    let text = format!(
        "# Instructions per operation, counted under callgrind. Written by `cargo xtask counts --update`.\n{}",
        toml::to_string(&record)?
    );
    std::fs::write(path(), text).context("cannot write bench/instructions.toml")?;
    for (operation, instructions) in &record.instructions {
        println!("{operation:<28} {instructions:>8}");
    }
    Ok(())
}

fn count_all() -> Result<BTreeMap<String, u64>> {
    if !succeeds(&mut command(
        "cargo",
        &["build", "--quiet", "--release", "--package", "evenkeel-counts"],
    ))? {
        bail!("bench/counts does not build");
    }
    let program = target_dir()?.join("release").join("evenkeel-counts");
    let list = output(&mut command(&program.to_string_lossy(), &["list"]))?;
    let mut counts = BTreeMap::new();
    for operation in list.lines() {
        let few = collected(&program, operation, FEW)?;
        let many = collected(&program, operation, MANY)?;
        counts.insert(operation.to_owned(), many.saturating_sub(few) / (MANY - FEW));
    }
    Ok(counts)
}

/// All instructions of one run.
fn collected(program: &Path, operation: &str, times: u64) -> Result<u64> {
    let mut valgrind = command(
        "valgrind",
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
    );
    // As long as any other: where the stack begins goes by the length of the arguments, and start-up costs more or less
    // by that.
    valgrind.arg(program).arg(operation).arg(format!("{times:04}"));
    let out = valgrind.output().context("cannot start valgrind")?;
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    count
        .filter(|_| out.status.success())
        .with_context(|| format!("callgrind failed:\n{text}"))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let text = output(&mut command(
        "cargo",
        &["metadata", "--no-deps", "--format-version", "1"],
    ))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(dir))
}

fn rustc() -> Result<String> {
    Ok(output(&mut command("rustc", &["--version"]))?.trim().to_owned())
}

fn path() -> PathBuf {
    root().join("bench/instructions.toml")
}

fn read() -> Result<Record> {
    let text = std::fs::read_to_string(path()).context("cannot read bench/instructions.toml")?;
    toml::from_str(&text).context("bench/instructions.toml is not valid")
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn a_count_must_stay_near_its_record_in_both_directions() {
        assert!(compare(1000, Some(&1000), 3.0).1);
        assert!(compare(1029, Some(&1000), 3.0).1);
        assert!(!compare(1031, Some(&1000), 3.0).1, "a loss");
        assert!(!compare(960, Some(&1000), 3.0).1, "a gain that is not recorded");
        assert!(compare(12, Some(&10), 3.0).1, "noise of a tiny function");
        assert!(!compare(1000, None, 3.0).1, "an operation without a record");
    }
}
