//! The commands for the load balancers of the store.

use std::path::PathBuf;

use clap::Args;
use model::config::Name;

use super::{ClientArgs, SignedArgs};

/// Terms of a change.
#[derive(Debug, Args)]
pub(crate) struct TermsArgs {
    /// Change nothing, show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take the change back after this time (90s, 10m) unless `evenkeel confirm` comes, or as soon as more requests
    /// fail than before
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    pub(crate) confirm: Option<String>,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Only if this revision is in force: nobody has changed anything since you looked
    #[arg(long, value_name = "REV")]
    pub(crate) expect: Option<u64>,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) signed: SignedArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel apply shop.toml --dry-run
  evenkeel apply shop.toml --message 'two more backends'
  evenkeel apply shop.toml --confirm 2m
  evenkeel export | evenkeel apply - --expect 7

Sets the load balancers that FILE declares, for every node of the store; others stay as they are.
FILE holds load balancers only: TOML, or JSON where its name ends in `.json`. Exit code 1: it has
errors, or somebody else was faster; nothing was changed then.")]
pub(crate) struct ApplyArgs {
    /// File with load balancers; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) terms: TermsArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel get
  evenkeel get shop
  evenkeel get shop --json")]
pub(crate) struct GetArgs {
    /// Load balancer [default: a list of all]
    #[arg(value_parser = Name::parse)]
    pub(crate) name: Option<Name>,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel delete blog
  evenkeel delete blog wiki --dry-run")]
pub(crate) struct DeleteArgs {
    /// Load balancers
    #[arg(required = true, value_name = "NAME", value_parser = Name::parse)]
    pub(crate) names: Vec<Name>,
    #[command(flatten)]
    pub(crate) terms: TermsArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel diff
  evenkeel diff shop.toml
  evenkeel diff 5
  evenkeel diff 5 7

Without an argument: what the last change made different. With a file: what applying it would.
With a revision: what is different now; with two, from the first to the second.")]
pub(crate) struct DiffArgs {
    /// File with load balancers, or a revision
    #[arg(value_name = "FILE|REV")]
    pub(crate) from: Option<String>,
    /// The other revision [default: the one in force]
    #[arg(value_name = "REV", requires = "from")]
    pub(crate) to: Option<u64>,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel history
  evenkeel history 7
  evenkeel history --last 100 --json")]
pub(crate) struct HistoryArgs {
    /// One revision, with what it made different
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<u64>,
    /// How many to list
    #[arg(long, value_name = "COUNT", default_value = "20", conflicts_with = "revision", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) last: u16,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel rollback 5
  evenkeel rollback 5 --dry-run

Makes a new revision in which all is as it was at the old one.")]
pub(crate) struct RollbackArgs {
    /// The revision to go back to
    #[arg(value_name = "REV")]
    pub(crate) revision: u64,
    #[command(flatten)]
    pub(crate) terms: TermsArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel export > all.toml
  evenkeel export --json > all.json
  evenkeel export --revision 5 > then.toml

Secrets are not shown: `<secret>` stands in their places. `apply` keeps, for that mark, the secret
that the store has in the same place; where there is none, it refuses.")]
pub(crate) struct ExportArgs {
    /// An older revision [default: the one in force]
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<u64>,
    /// As JSON instead of TOML
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel apply shop.toml --confirm 2m
  evenkeel confirm")]
pub(crate) struct ConfirmArgs {
    /// The revision [default: whichever awaits it]
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<u64>,
    #[command(flatten)]
    pub(crate) signed: SignedArgs,
}
