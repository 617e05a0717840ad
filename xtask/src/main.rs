//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! One program instead of a heap of scripts: it is checked by the compiler, works the same on every machine and
//! explains itself with `--help`. It holds nothing that the product needs.

mod bench;
mod counts;
mod fuzz;
mod process;
mod test;
mod tools;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The project's own commands",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what tests need, then format, lint, test, fuzz and count; the last line is the sum.
    Test(test::Args),
    /// Install what tests need and nothing more.
    Tools,
    /// Measure Evenkeel beside nginx, HAProxy, Envoy and Caddy on this machine.
    Bench(bench::Args),
    /// Count instructions per operation of the hot functions and compare with the recorded figures.
    Counts(counts::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Tools => {
            tools::provide(tools::FOR_TESTS, true)?;
            tools::provide_python(true)
        }
        Command::Bench(args) => bench::run(&args),
        Command::Counts(args) => counts::run(&args),
    }
}
