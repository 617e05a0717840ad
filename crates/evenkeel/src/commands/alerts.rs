//! `evenkeel alerts`: what is wrong, who is told of it, and a test of whether they can be told.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use model::alert::{AlertState, AlertStatus, AlertsStatus, ReceiverStatus, Severity, TestResult};
use model::state::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::cli::{AlertsArgs, AlertsCommand, ClientArgs};
use crate::client::Client;
use crate::now;
use crate::table::{Cell, Paint, Table, Tone};
use crate::text::{ago, counted};

/// Alerts shown to a person; all of them are in `--json`.
const SHOWN: usize = 50;

pub(crate) fn run(args: &AlertsArgs) -> anyhow::Result<ExitCode> {
    if let Some(AlertsCommand::Test(client)) = &args.command {
        return test(client);
    }
    let answer = Client::new(&args.client)?.get("/api/v1/alerts")?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let status: AlertsStatus = serde_json::from_str(&answer)
        .context("the admin API's answer is no list of alerts: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&render(&status, now(), paint))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
struct Tested {
    results: Vec<TestResult>,
}

fn test(client: &ClientArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(client)?.post("/api/v1/alerts/test", &json!({}))?;
    let Tested { results } = serde_json::from_str(&answer)
        .context("the admin API's answer is not understood: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&tested(&results, paint))?;
    let all = !results.is_empty() && results.iter().all(|result| result.error.is_none());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tested(results: &[TestResult], paint: Paint) -> String {
    if results.is_empty() {
        return "nobody is told: the config has no receivers under [alerts]\n".to_owned();
    }
    let mut table = Table::new(&["RECEIVER", "TEST", "MS>", "WHERE"]);
    for result in results {
        table.row(vec![
            Cell::text(result.receiver.to_string()),
            match &result.error {
                None => Cell::tone("taken", Tone::Good),
                Some(error) => Cell::tone(error.clone(), Tone::Bad),
            },
            Cell::number(result.took_ms),
            Cell::text(result.to.clone()),
        ]);
    }
    table.render(0, paint)
}

/// The section of `status`: nothing where nothing is wrong.
pub(crate) fn section(status: &AlertsStatus, now: Timestamp, paint: Paint) -> String {
    let firing: Vec<&AlertStatus> = status
        .alerts
        .iter()
        .filter(|a| a.state == AlertState::Firing)
        .collect();
    let failing: Vec<&ReceiverStatus> = status.receivers.iter().filter(|r| r.error.is_some()).collect();
    if firing.is_empty() && failing.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", paint.text(Tone::Title, "alerts"));
    if !firing.is_empty() {
        out.push_str(&list(&firing, status.left_out, now, paint));
    }
    for receiver in failing {
        let error = receiver.error.as_deref().unwrap_or_default();
        let line = format!("{} takes no messages: {error}", receiver.name);
        let _ = writeln!(out, "  {}", paint.text(Tone::Bad, &line));
    }
    out
}

fn render(status: &AlertsStatus, now: Timestamp, paint: Paint) -> String {
    let mut out = String::new();
    let alerts: Vec<&AlertStatus> = status.alerts.iter().collect();
    match alerts.is_empty() {
        true => out.push_str("nothing is wrong\n"),
        false => out.push_str(&list(&alerts, status.left_out, now, paint)),
    }
    out.push('\n');
    if status.receivers.is_empty() {
        out.push_str("nobody is told: the config has no receivers under [alerts]\n");
        return out;
    }
    if !status.sends {
        out.push_str("another node tells of backends and pools; this one tells of itself\n");
    }
    let mut table = Table::new(&[
        "RECEIVER",
        "KIND",
        "LAST TAKEN",
        "TAKEN>",
        "FAILED>",
        "REFUSED>",
        "WHERE",
        "TROUBLE",
    ]);
    for receiver in &status.receivers {
        let last = receiver.last_delivered.map(|at| format!("{} ago", ago(now, at)));
        table.row(vec![
            Cell::text(receiver.name.to_string()),
            Cell::text(receiver.kind.clone()),
            Cell::text(last.unwrap_or_else(|| "never".to_owned())),
            Cell::number(receiver.deliveries.delivered),
            Cell::number(receiver.deliveries.failed),
            Cell::number(receiver.deliveries.refused),
            Cell::text(receiver.to.clone()),
            Cell::tone(receiver.error.clone().unwrap_or_default(), Tone::Bad),
        ]);
    }
    out.push_str(&table.render(2, paint));
    out
}

fn list(alerts: &[&AlertStatus], left_out: usize, now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["ALERT", "STATE", "SEVERITY", "SINCE", "ABOUT", "WHAT"]);
    for alert in alerts.iter().take(SHOWN) {
        let tone = match (alert.state, alert.severity) {
            (AlertState::Pending, _) => Tone::Faint,
            (_, Severity::Critical) => Tone::Bad,
            (_, Severity::Warning) => Tone::Warning,
        };
        let about: Vec<String> = alert
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        table.row(vec![
            Cell::tone(alert.name.clone(), tone),
            Cell::tone(alert.state.as_str(), tone),
            Cell::tone(alert.severity.as_str(), tone),
            Cell::text(format!("{} ago", ago(now, alert.since))),
            Cell::text(about.join(" ")),
            Cell::text(alert.summary.clone()),
        ]);
    }
    let mut out = table.render(2, paint);
    let more = alerts.len().saturating_sub(SHOWN) + left_out;
    if more > 0 {
        let _ = writeln!(out, "  and {}", counted(more, "other"));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use model::alert::Deliveries;
    use model::config::Name;

    use super::*;

    const NOW: Timestamp = Timestamp(1_772_368_496_000);

    fn alert(name: &str, state: AlertState, severity: Severity) -> AlertStatus {
        AlertStatus {
            name: name.to_owned(),
            state,
            severity,
            labels: [
                ("load_balancer".to_owned(), "shop".to_owned()),
                ("pool".to_owned(), "web".to_owned()),
            ]
            .into(),
            summary: "no backend is eligible".to_owned(),
            since: Timestamp(NOW.0 - 65_000),
            fingerprint: "0".repeat(16),
        }
    }

    fn status() -> AlertsStatus {
        let receiver = |name: &str, error: Option<&str>| ReceiverStatus {
            name: Name::parse(name).unwrap(),
            kind: "webhook".to_owned(),
            to: "https://pager.example/".to_owned(),
            last_delivered: error.is_none().then_some(Timestamp(NOW.0 - 5_000)),
            error: error.map(str::to_owned),
            deliveries: Deliveries {
                delivered: 3,
                failed: 2,
                refused: 1,
            },
            forgotten: 0,
        };
        AlertsStatus {
            sends: true,
            alerts: vec![
                alert("pool_down", AlertState::Firing, Severity::Critical),
                alert("pool_unhealthy", AlertState::Pending, Severity::Warning),
            ],
            pushed_out: 0,
            left_out: 2,
            receivers: vec![receiver("pager", None), receiver("chat", Some("status 500"))],
        }
    }

    #[test]
    fn a_person_sees_what_is_wrong_and_who_is_told() {
        let expected = "\x20 ALERT           STATE    SEVERITY  SINCE      ABOUT                        WHAT
  pool_down       firing   critical  1m 5s ago  load_balancer=shop pool=web  no backend is eligible
  pool_unhealthy  pending  warning   1m 5s ago  load_balancer=shop pool=web  no backend is eligible
  and 2 others

  RECEIVER  KIND     LAST TAKEN  TAKEN  FAILED  REFUSED  WHERE                   TROUBLE
  pager     webhook  5s ago          3       2        1  https://pager.example/
  chat      webhook  never           3       2        1  https://pager.example/  status 500
";
        let text = render(&status(), NOW, Paint(false));
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn the_section_has_what_fires_and_who_cannot_be_told() {
        let text = section(&status(), NOW, Paint(false));
        assert!(
            text.contains("pool_down") && !text.contains("pool_unhealthy"),
            "{text}"
        );
        assert!(text.ends_with("  chat takes no messages: status 500\n"), "{text}");
        assert_eq!(section(&AlertsStatus::default(), NOW, Paint(false)), "");
    }

    #[test]
    fn nothing_wrong_and_nobody_told_are_said() {
        let text = render(&AlertsStatus::default(), NOW, Paint(false));
        assert_eq!(
            text,
            "nothing is wrong\n\nnobody is told: the config has no receivers under [alerts]\n"
        );
    }
}
