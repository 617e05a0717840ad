//! `evenkeel reload`: makes a running process read its config file again, and says what came of it.

use std::process::ExitCode;

use anyhow::Context;
use model::status::ReloadStatus;
use serde_json::json;

use crate::cli::ClientArgs;
use crate::client::Client;

pub(crate) fn run(args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(args)?.post("/api/v1/reload", &json!({}))?;
    let result: ReloadStatus = serde_json::from_str(&answer)
        .context("the admin API's answer is not understood: are both sides of one version?")?;
    super::print(&told(&result))?;
    Ok(ExitCode::SUCCESS)
}

fn told(result: &ReloadStatus) -> String {
    let mut text = String::from("reloaded\n");
    for message in &result.messages {
        text.push_str(&format!("  {message}\n"));
    }
    text
}
