//! `evenkeel check`: is this file a valid config, and what does it mean in full?

use std::collections::BTreeSet;
use std::process::ExitCode;

use model::config::Config;
use model::diagnostic::Diagnostic;
use model::parse::Checked;
use net::privileges::{Identity, PrivilegeError};
use serde_json::json;

use crate::cli::CheckArgs;
use crate::source::{self, Source};
use crate::text::counted;
use crate::token;

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let file = args.file.display();
    let text = source::read(&args.file).map_err(anyhow::Error::msg)?;
    let text = String::from_utf8(text)
        .map_err(|error| anyhow::anyhow!("{file}: byte {} is not UTF-8", error.utf8_error().valid_up_to()))?;
    let name = Source::File(args.file.clone());
    let result = with_files(&text, &name);
    if args.json {
        super::print(&format!("{}\n", serde_json::to_string_pretty(&as_json(&result))?))?;
        return Ok(exit_code(&result));
    }
    for warning in result.iter().flat_map(|checked| &checked.warnings) {
        eprintln!("warning: {warning}\n");
    }
    match &result {
        Ok(checked) if args.effective => super::print(&model::effective::to_toml(&checked.config))?,
        Ok(checked) => super::print(&format!("{file}: ok ({})\n", summary(checked)))?,
        Err(errors) => {
            for error in errors {
                eprintln!("{error}\n");
            }
            eprintln!("{file}: {}", counted(errors.len(), "error"));
        }
    }
    Ok(exit_code(&result))
}

fn exit_code(result: &Result<Checked, Vec<Diagnostic>>) -> ExitCode {
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The config and what the files say that it names: errors make it invalid, the rest are warnings.
fn with_files(text: &str, source: &Source) -> Result<Checked, Vec<Diagnostic>> {
    let (mut checked, mut errors) = source::with_pages(text, source, source::read_page)?;
    let now_s = i64::try_from(crate::now().0 / 1000).unwrap_or(i64::MAX);
    let mut warnings = source::Problems::new();
    for problem in tls::check(&checked.config, now_s) {
        let told = match problem.is_error {
            true => &mut errors,
            false => &mut warnings,
        };
        told.push((problem.key, problem.cause));
    }
    errors.extend(missing(&checked.config));
    if !errors.is_empty() {
        return Err(source.placed(text, errors));
    }
    checked.warnings.extend(source.placed(text, warnings));
    Ok(checked)
}

/// What the rest of the config names on this machine that cannot be used.
fn missing(config: &Config) -> source::Problems {
    let geoip = config.node.geoip.as_deref();
    let geoip = geoip.and_then(|path| dataplane::check_geoip(path).err());
    let token = config.admin.token_file.as_deref();
    let token = token.and_then(|path| token::read(path).err());
    let tracing = config.observe.tracing.as_ref();
    let fields = tracing.and_then(|tracing| tracing.headers_file.as_deref());
    let fields = fields.and_then(|path| dataplane::check_headers_file(path).err());
    let user = config.node.user.as_deref();
    let user = user.and_then(|user| Identity::find(user, config.node.group.as_deref()).err());
    let account = |error: &PrivilegeError| match error {
        PrivilegeError::UnknownGroup(_) => "node.group",
        _ => "node.user",
    };
    let alerts = orchestrator::alerts::check_files(&config.alerts).err();
    let found = [
        geoip.map(|cause| ("node.geoip", cause)),
        token.map(|error| ("admin.token_file", format!("{error:#}"))),
        fields.map(|cause| ("tracing.headers_file", cause)),
        user.map(|error| (account(&error), error.to_string())),
    ];
    let found = found.into_iter().flatten();
    let found = found.map(|(key, cause)| (key.to_owned(), cause));
    found.chain(alerts.into_iter().flatten()).collect()
}

fn as_json(result: &Result<Checked, Vec<Diagnostic>>) -> serde_json::Value {
    match result {
        Ok(checked) => json!({ "valid": true, "errors": [], "warnings": checked.warnings }),
        Err(errors) => json!({ "valid": false, "errors": errors, "warnings": [] }),
    }
}

/// `2 load balancers, 5 backends, 1 warning`; a backend in two pools is one backend.
fn summary(checked: &Checked) -> String {
    let config = &checked.config;
    let pools = config.load_balancers.values().flat_map(|lb| lb.pools.values());
    let backends: BTreeSet<_> = pools.flat_map(|p| p.backends.iter().map(|b| b.address)).collect();
    let mut summary = format!(
        "{}, {}",
        counted(config.load_balancers.len(), "load balancer"),
        counted(backends.len(), "backend")
    );
    if !checked.warnings.is_empty() {
        summary.push_str(&format!(", {}", counted(checked.warnings.len(), "warning")));
    }
    summary
}
