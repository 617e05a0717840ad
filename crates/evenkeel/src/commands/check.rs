//! `evenkeel check`: is this file a valid config, and what does it mean in full?

use std::collections::BTreeSet;
use std::process::ExitCode;

use model::config::Config;
use model::diagnostic::Diagnostic;
use serde_json::json;

use crate::cli::CheckArgs;
use crate::source::{self, Source};
use crate::text::counted;

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let file = args.file.display();
    let text = source::read(&args.file).map_err(anyhow::Error::msg)?;
    let text = String::from_utf8(text)
        .map_err(|error| anyhow::anyhow!("{file}: byte {} is not UTF-8", error.utf8_error().valid_up_to()))?;
    let name = Source::File(args.file.clone());
    let result = source::diagnose(&text, &name);
    let (result, warnings) = with_files(result, &name.to_string());
    if args.json {
        super::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&as_json(&result, &warnings))?
        ))?;
        return Ok(exit_code(&result));
    }
    for warning in &warnings {
        eprintln!("warning: {warning}\n");
    }
    match &result {
        Ok(config) if args.effective => super::print(&model::effective::to_toml(config))?,
        Ok(config) => super::print(&format!("{file}: ok ({})\n", summary(config)))?,
        Err(errors) => {
            for error in errors {
                eprintln!("{error}\n");
            }
            eprintln!("{file}: {}", counted(errors.len(), "error"));
        }
    }
    Ok(exit_code(&result))
}

fn exit_code(result: &Result<Config, Vec<Diagnostic>>) -> ExitCode {
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A valid config and what the files say that it names for TLS: errors make it invalid, the rest are warnings.
fn with_files(
    result: Result<Config, Vec<Diagnostic>>,
    file: &str,
) -> (Result<Config, Vec<Diagnostic>>, Vec<Diagnostic>) {
    let Ok(config) = result else {
        return (result, Vec::new());
    };
    let now_s = i64::try_from(crate::now().0 / 1000).unwrap_or(i64::MAX);
    let (errors, warnings): (Vec<_>, Vec<_>) = tls::check(&config, now_s)
        .into_iter()
        .partition(|problem| problem.is_error);
    let told = |problems: Vec<tls::Problem>| {
        let each = problems.into_iter();
        each.map(|p| Diagnostic::about_key(file, &p.key, p.cause))
            .collect::<Vec<_>>()
    };
    let result = match errors.is_empty() {
        true => Ok(config),
        false => Err(told(errors)),
    };
    (result, told(warnings))
}

fn as_json(result: &Result<Config, Vec<Diagnostic>>, warnings: &[Diagnostic]) -> serde_json::Value {
    match result {
        Ok(_) => json!({ "valid": true, "errors": [], "warnings": warnings }),
        Err(errors) => json!({ "valid": false, "errors": errors, "warnings": warnings }),
    }
}

/// `2 load balancers, 5 backends`; a backend in two pools is one backend.
fn summary(config: &Config) -> String {
    let pools = config.load_balancers.values().flat_map(|lb| lb.pools.values());
    let backends: BTreeSet<_> = pools.flat_map(|p| p.backends.iter().map(|b| b.address)).collect();
    format!(
        "{}, {}",
        counted(config.load_balancers.len(), "load balancer"),
        counted(backends.len(), "backend")
    )
}
