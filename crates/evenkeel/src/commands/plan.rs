//! `evenkeel plan`: what a config file would change in a running process.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use model::plan::{Format, Plan, PlanQuery};

use crate::cli::PlanArgs;
use crate::client::Client;
use crate::source;
use crate::table::{Cell, Paint, Table};
use crate::text::counted;

pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let text = source::read(&args.file).map_err(anyhow::Error::msg)?;
    let text = String::from_utf8(text)
        .map_err(|error| anyhow::anyhow!("{name}: byte {} is not UTF-8", error.utf8_error().valid_up_to()))?;
    let format = match args.file.extension().is_some_and(|e| e == "json") {
        true => Format::Json,
        false => Format::Toml,
    };
    let query = PlanQuery {
        text,
        format,
        name: Some(name),
    };
    let answer = Client::new(&args.client)?.post("/api/v1/plan", &serde_json::to_value(&query)?)?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan: Plan = serde_json::from_str(&answer)
        .context("the admin API's answer is not understood: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&told(&plan, paint))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn told(plan: &Plan, paint: Paint) -> String {
    if plan.changes.is_empty() {
        return format!("nothing would change: revision {} says the same\n", plan.revision);
    }
    let mut out = format!("against revision {}, this would change:\n", plan.revision);
    for change in &plan.changes {
        let _ = writeln!(out, "  {change}");
    }
    if !plan.restart.is_empty() {
        let _ = writeln!(out, "\nonly after a restart: {}", plan.restart.join(", "));
    }
    if !plan.drains.is_empty() {
        let backends = counted(plan.drains.len(), "backend");
        let _ = writeln!(
            out,
            "\n{backends} would drain: no new requests, running ones finish"
        );
        let mut table = Table::new(&["BACKEND", "IN FLIGHT>"]);
        for draining in &plan.drains {
            table.row(vec![
                Cell::text(draining.backend.to_string()),
                Cell::number(draining.in_flight),
            ]);
        }
        out.push_str(&table.render(2, paint));
    }
    if !plan.moved.is_empty() {
        let _ = writeln!(out, "\nkeys that would get another backend");
        for moved in &plan.moved {
            let (lb, pool) = (&moved.load_balancer, &moved.pool);
            let _ = writeln!(out, "  {lb}/{pool}: {:.1} %", moved.share * 100.0);
        }
    }
    out
}
