//! `evenkeel run`: from a file or from flags to a running process.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::bail;

use crate::cli::RunArgs;
use crate::logging;
use crate::server::{Server, Setup};
use crate::source::{self, Flags, Source};

pub(crate) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    logging::init(&args.log)?;
    let (source, text) = match &args.config {
        Some(path) => {
            let text = source::read(path).map_err(anyhow::Error::msg)?;
            (Source::File(path.clone()), text)
        }
        None => (Source::CommandLine, from_flags(&args).into_bytes()),
    };
    let flags = Flags {
        admin: args.admin,
        data_dir: args.data_dir,
    };
    let config = match source::parse(&text, &source, &flags) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}\n");
            }
            bail!("{source} is not valid: not started");
        }
    };
    Server::start(Setup {
        config,
        source,
        text,
        flags,
    })?
    .run()?;
    Ok(ExitCode::SUCCESS)
}

/// The config that the flags mean, as the file that would say the same: so both go through one parser.
fn from_flags(args: &RunArgs) -> String {
    let mut text = String::from("[load_balancers.default]\n");
    // Writing into a String cannot fail.
    let _ = writeln!(text, "listen = {}", quoted(&args.listen));
    let _ = writeln!(text, "backend_servers = {}", quoted(&args.backend));
    if let Some(algorithm) = &args.algorithm {
        let _ = writeln!(text, "algorithm = {}", quote(algorithm));
    }
    if let Some(path) = &args.health_endpoint {
        let _ = writeln!(text, "health_endpoint = {}", quote(path));
    }
    text
}

fn quoted(values: &[impl std::fmt::Display]) -> String {
    let each: Vec<String> = values.iter().map(|v| quote(&v.to_string())).collect();
    format!("[{}]", each.join(", "))
}

/// A basic string of TOML: the escapes of JSON are among its own.
fn quote(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}
