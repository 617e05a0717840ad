//! Short runs of every fuzz target: that they build, and that nothing falls over in the first seconds.
//!
//! A target's seeds stand in `fuzz/seeds/TARGET`; what the fuzzer finds on its own goes to `fuzz/corpus/TARGET`,
//! which is not committed. An input that breaks something is worth a seed.

use anyhow::{Context, Result, bail};

use crate::process::{command, find, output, root, succeeds};
use crate::tools::has_cargo_command;

/// Runs each target for `seconds`; returns (name, whether it passed).
///
/// # Errors
/// When the nightly toolchain or cargo-fuzz is missing, or the targets cannot be built.
pub(crate) fn run(seconds: u32, install: bool) -> Result<Vec<(String, bool)>> {
    provide(install)?;
    let list = output(&mut nightly(&["fuzz", "list"])).context("cannot list the fuzz targets")?;
    let targets: Vec<String> = list
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|t| !t.is_empty())
        .collect();
    if targets.is_empty() {
        bail!("fuzz/ has no targets");
    }
    if !succeeds(&mut nightly(&["fuzz", "build"]))? {
        bail!("the fuzz targets do not build");
    }
    let mut results = Vec::new();
    for target in targets {
        let passed = run_target(&target, seconds)?;
        eprintln!("   {target}: {}", if passed { "ok" } else { "FAILED" });
        results.push((target, passed));
    }
    Ok(results)
}

fn run_target(target: &str, seconds: u32) -> Result<bool> {
    let corpus = format!("fuzz/corpus/{target}");
    let seeds = format!("fuzz/seeds/{target}");
    std::fs::create_dir_all(root().join(&corpus)).with_context(|| format!("cannot make {corpus}"))?;
    let mut args = vec!["fuzz", "run", target, &corpus];
    if root().join(&seeds).is_dir() {
        args.push(&seeds);
    }
    let time = format!("-max_total_time={seconds}");
    // One input may take 10 s before it counts as a hang: a shared machine must not fail a run.
    args.extend([
        "--",
        &time,
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=0",
        "-verbosity=0",
    ]);
    succeeds(&mut nightly(&args))
}

/// Makes sure of the nightly toolchain and of cargo-fuzz.
fn provide(install: bool) -> Result<()> {
    if find("rustup").is_none() {
        bail!("fuzzing needs rustup with a nightly toolchain: https://rustup.rs");
    }
    if !output(&mut command("rustup", &["toolchain", "list"]))?.contains("nightly") {
        bail!("fuzzing needs the nightly toolchain: rustup toolchain install nightly --profile minimal");
    }
    if has_cargo_command("fuzz") {
        return Ok(());
    }
    if !install {
        bail!("fuzzing needs cargo-fuzz: cargo install --locked cargo-fuzz");
    }
    eprintln!("   installing cargo-fuzz");
    if !succeeds(&mut command(
        "cargo",
        &["install", "--quiet", "--locked", "cargo-fuzz"],
    ))? {
        bail!("cargo-fuzz could not be installed: cargo install --locked cargo-fuzz");
    }
    Ok(())
}

fn nightly(args: &[&str]) -> std::process::Command {
    let mut command = command("rustup", &["run", "nightly", "cargo"]);
    command.args(args);
    command
}
