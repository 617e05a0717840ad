//! The command line of Evenkeel, and the wiring of the rooms: everything that is shared between them is made
//! here, and they meet only over channels.

mod admin;
mod alerts;
mod beginning;
mod checked_by;
mod checking;
mod cli;
mod client;
mod client_tls;
mod collecting;
mod commands;
mod data_dir;
mod declaring;
mod demo;
mod foresight;
mod hub;
mod logging;
mod lookups;
mod membership;
mod metrics;
mod process;
mod registry;
mod remembered;
mod roll;
mod run;
mod server;
mod source;
mod table;
mod text;
mod token;
mod vital;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use model::state::Timestamp;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => commands::check::run(&args),
        Command::Schema => commands::schema::run(),
        Command::Apply(args) => commands::store::apply(args),
        Command::Get(args) => commands::store::get(&args),
        Command::Delete(args) => commands::store::delete(args),
        Command::Diff(args) => commands::store::diff(&args),
        Command::History(args) => commands::store::history(&args),
        Command::Rollback(args) => commands::store::rollback(args),
        Command::Export(args) => commands::store::export(&args),
        Command::Confirm(args) => commands::store::confirm(args),
        Command::Status(args) => commands::status::run(&args),
        Command::Backend(command) => commands::backend::run(command),
        Command::Route(command) => commands::route::run(command),
        Command::Explain(args) => commands::explain::run(args),
        Command::Alerts(args) => commands::alerts::run(&args),
        Command::Why(args) => commands::why::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Audit(args) => commands::audit::run(&args),
        Command::Token(command) => commands::token::run(&command),
        Command::Reload(args) => commands::reload::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::DemoBackend(args) => demo::backend::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("evenkeel: {error:#}");
        ExitCode::FAILURE
    })
}

/// The wall clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
