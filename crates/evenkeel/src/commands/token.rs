//! `evenkeel token create`: a token for the admin API or for the members of a pool, and the lines that make it known.
//!
//! A token is never chosen by a person: it is 256 bits from the system, so that one round of SHA-256 is enough to
//! keep it. It is shown once and stored nowhere.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use model::config::{Secret, TOKEN_RANDOM_BYTES, TokenHash, token_from};

use crate::cli::{TokenCommand, TokenCreateArgs};

pub(crate) fn run(command: &TokenCommand) -> anyhow::Result<ExitCode> {
    let TokenCommand::Create(args) = command;
    let mut random = [0; TOKEN_RANDOM_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("the system gives no random numbers")?;
    let token = token_from(&random);
    match &args.write {
        Some(path) => write(path, &token)?,
        // Beside standard output, which may go into the config.
        None => eprintln!(
            "The token{}, shown this once; keep it in a file that only its user can read:\n\n{}\n",
            args.name
                .as_ref()
                .map(|name| format!(" of `{name}`"))
                .unwrap_or_default(),
            token.expose()
        ),
    }
    super::print(&entry(args, &token))?;
    Ok(ExitCode::SUCCESS)
}

/// What goes into the config: of the API, or of a pool's `registration` or `heartbeat`.
fn entry(args: &TokenCreateArgs, token: &Secret) -> String {
    let hash = TokenHash::of(token.expose().as_bytes());
    match (&args.name, args.role) {
        (Some(name), Some(role)) => format!(
            "\n[[admin.tokens]]\nname = \"{name}\"\nrole = \"{}\"\nhash = \"{hash}\"\n",
            role.as_str()
        ),
        _ => format!("token_hash = \"{hash}\"\n"),
    }
}

/// A file that was there is somebody's: it is left.
fn write(path: &Path, token: &Secret) -> anyhow::Result<()> {
    File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(format!("{}\n", token.expose()).as_bytes())?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write the token to {}", path.display()))
}
