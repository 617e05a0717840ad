//! `evenkeel schema`: the JSON Schema of the config file, for editors and other tools.

use std::process::ExitCode;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    super::print(&format!(
        "{}\n",
        serde_json::to_string_pretty(&model::schema::json_schema())?
    ))?;
    Ok(ExitCode::SUCCESS)
}
