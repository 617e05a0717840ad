//! `evenkeel audit`: who changed what, and who was not let in.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use console::AuditRecord;
use serde::Deserialize;

use crate::cli::AuditArgs;
use crate::client::Client;
use crate::table::{Cell, Paint, Table, Tone};
use crate::text::utc;

/// What the API answers.
#[derive(Deserialize)]
struct Records {
    records: Vec<AuditRecord>,
}

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(&args.client)?.get(&format!("/api/v1/audit?limit={}", args.last))?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let records: Records = serde_json::from_str(&answer)
        .context("the admin API's answer is not understood: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&told(&records.records, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn told(records: &[AuditRecord], paint: Paint) -> String {
    if records.is_empty() {
        return "nothing is recorded yet\n".to_owned();
    }
    let mut table = Table::new(&[
        "TIME", "WHO", "ROLE", "FROM", "STATUS>", "REASON", "REQUEST", "WHAT",
    ]);
    for record in records {
        let tone = if record.status < 400 {
            Tone::Plain
        } else {
            Tone::Bad
        };
        let role = record.role.map_or("–", |role| role.as_str());
        let mut what = record.what.clone().unwrap_or_default();
        if record.suppressed > 0 {
            what.push_str(&format!(" (after {} that are not told)", record.suppressed));
        }
        table.row(vec![
            Cell::text(utc(record.at)),
            Cell::text(&record.who),
            Cell::text(role),
            Cell::text(&record.from),
            Cell::number(record.status),
            Cell::tone(record.reason.clone().unwrap_or_default(), tone),
            Cell::text(format!("{} {}", record.method, record.path)),
            Cell::text(what.trim()),
        ]);
    }
    table.render(0, paint)
}
