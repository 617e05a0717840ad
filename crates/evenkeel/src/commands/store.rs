//! `evenkeel apply`, `get`, `delete`, `diff`, `history`, `rollback`, `export`, `confirm`: the load balancers of the
//! store, over the admin API.

use std::fmt::Write;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use model::desired::{
    Awaiting, Change, ChangeQuery, Changed, ConfirmQuery, Confirmed, DesiredState, Difference, Fate, History,
    RevisionNote, Text,
};
use model::plan::Format;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::backend::signer;
use crate::cli::{
    ApplyArgs, ClientArgs, ConfirmArgs, DeleteArgs, DiffArgs, ExportArgs, GetArgs, HistoryArgs, RollbackArgs,
    TermsArgs,
};
use crate::client::Client;
use crate::commands::plan;
use crate::source;
use crate::table::{Cell, Paint, Table};
use crate::text::{counted, duration, utc};

const CHANGES: &str = "/api/v1/desired/changes";

pub(crate) fn apply(args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let text = text(&args.file)?;
    change(Change::Apply(text), args.terms)
}

pub(crate) fn delete(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    change(Change::Delete(args.names), args.terms)
}

pub(crate) fn rollback(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    change(Change::Rollback(args.revision), args.terms)
}

pub(crate) fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(&args.client)?.get("/api/v1/desired")?;
    let mut state: DesiredState = understand(&answer)?;
    if let Some(name) = &args.name {
        let known: Vec<String> = state
            .load_balancers
            .keys()
            .map(|name| format!("`{name}`"))
            .collect();
        let Some(found) = state.load_balancers.remove(name) else {
            let known = match known.is_empty() {
                true => "it has none at all".to_owned(),
                false => format!("it has {}", known.join(", ")),
            };
            bail!("the store has no load balancer `{name}`; {known}");
        };
        state.load_balancers.clear();
        let text = match args.json {
            true => format!("{}\n", serde_json::to_string_pretty(&found)?),
            false => as_toml(&json!({ "load_balancers": { name.as_str(): found } }))?,
        };
        return print(&text);
    }
    match args.json {
        true => print(&format!("{}\n", answer.trim_end())),
        false => print(&listed(&state)),
    }
}

pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let path = match args.revision {
        Some(revision) => format!("/api/v1/desired?revision={revision}"),
        None => "/api/v1/desired".to_owned(),
    };
    let state: DesiredState = understand(&Client::new(&args.client)?.get(&path)?)?;
    let document = json!({ "load_balancers": state.load_balancers });
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&document)?)),
        false => print(&as_toml(&document)?),
    }
}

pub(crate) fn diff(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let from = args.from.as_deref();
    let revision = from.and_then(|from| from.parse::<u64>().ok());
    let client = Client::new(&args.client)?;
    let answer = match (from, revision) {
        (Some(file), None) => {
            if args.to.is_some() {
                bail!("a file is compared with what is in force: leave the revision out");
            }
            let query = ChangeQuery {
                change: Change::Apply(text(Path::new(file))?),
                dry_run: true,
                expect: None,
                confirm: None,
                message: None,
                by: None,
            };
            let answer = client.post(CHANGES, &serde_json::to_value(&query)?)?;
            if !args.json {
                let changed: Changed = understand(&answer)?;
                return print(&lines(&changed.changes, "nothing would be different"));
            }
            answer
        }
        (Some(_), Some(from)) => {
            let to = args.to.map_or_else(String::new, |to| format!("&to={to}"));
            client.get(&format!("/api/v1/desired/diff?from={from}{to}"))?
        }
        (None, _) => {
            let state: DesiredState = understand(&client.get("/api/v1/desired")?)?;
            if state.revision == 0 {
                bail!("nothing was applied to the store yet");
            }
            client.get(&format!("/api/v1/desired/history/{}", state.revision))?
        }
    };
    if args.json {
        return print(&format!("{}\n", answer.trim_end()));
    }
    let difference: Difference = understand(&answer)?;
    let mut out = format!("from revision {} to {}:\n", difference.from, difference.to);
    out.push_str(&lines(&difference.changes, "nothing is different"));
    print(&out)
}

pub(crate) fn history(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let path = match args.revision {
        Some(revision) => format!("/api/v1/desired/history/{revision}"),
        None => format!("/api/v1/desired/history?last={}", args.last),
    };
    let answer = Client::new(&args.client)?.get(&path)?;
    if args.json {
        return print(&format!("{}\n", answer.trim_end()));
    }
    if args.revision.is_some() {
        let difference: Difference = understand(&answer)?;
        let mut out = difference.note.as_ref().map_or_else(String::new, one);
        out.push_str(&lines(&difference.changes, "nothing became different"));
        return print(&out);
    }
    let history: History = understand(&answer)?;
    print(&table(&history.revisions))
}

pub(crate) fn confirm(args: ConfirmArgs) -> anyhow::Result<ExitCode> {
    let query = ConfirmQuery {
        revision: args.revision,
        by: Some(signer(args.signed.by)),
    };
    let client = Client::new(&args.signed.client)?;
    let answer = client.post("/api/v1/desired/confirm", &serde_json::to_value(&query)?)?;
    let confirmed: Confirmed = understand(&answer)?;
    print(&format!(
        "revision {} is confirmed and stays\n",
        confirmed.revision
    ))
}

// ---- changes ----

fn change(change: Change, terms: TermsArgs) -> anyhow::Result<ExitCode> {
    let query = ChangeQuery {
        change,
        dry_run: terms.dry_run,
        expect: terms.expect,
        confirm: terms.confirm,
        message: terms.message,
        by: Some(signer(terms.signed.by)),
    };
    let answer = send(&terms.signed.client, &query)?;
    if terms.json {
        return print(&format!("{}\n", answer.trim_end()));
    }
    let changed: Changed = understand(&answer)?;
    for warning in &changed.warnings {
        eprintln!("warning: {warning}\n");
    }
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    print(&match query.dry_run {
        true => foreseen(&changed, paint),
        false => made(&changed),
    })
}

fn send(client: &ClientArgs, query: &ChangeQuery) -> anyhow::Result<String> {
    Client::new(client)?.post(CHANGES, &serde_json::to_value(query)?)
}

fn made(changed: &Changed) -> String {
    if !changed.changed {
        return format!("nothing changed: revision {} says the same\n", changed.revision);
    }
    let mut out = format!("revision {}:\n", changed.revision);
    out.push_str(&lines(&changed.changes, "nothing is different in what is served"));
    if let Some(settled) = changed.settled {
        let _ = writeln!(
            out,
            "revision {settled} awaited confirmation; this change ended that"
        );
    }
    if let Some(awaiting) = &changed.awaiting {
        out.push_str(&awaits(awaiting));
    }
    out
}

fn awaits(awaiting: &Awaiting) -> String {
    let left = awaiting.until.since(crate::now());
    format!(
        "revision {} awaits `evenkeel confirm`; in {} revision {} comes back\n",
        awaiting.revision,
        duration(std::time::Duration::from_secs(left.as_secs())),
        awaiting.back_to
    )
}

fn foreseen(changed: &Changed, paint: Paint) -> String {
    let mut out = format!("the store, revision {}:\n", changed.revision);
    out.push_str(&lines(&changed.changes, "nothing would be different"));
    if let Some(plan) = &changed.plan {
        out.push_str("\nthe node that was asked:\n");
        out.push_str(&plan::told(plan, paint));
    }
    out.push_str("nothing was changed\n");
    out
}

/// What stands in a file, or comes in.
fn text(file: &Path) -> anyhow::Result<Text> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        let format = match text.trim_start().starts_with('{') {
            true => Format::Json,
            false => Format::Toml,
        };
        let name = Some("standard input".to_owned());
        return Ok(Text { text, format, name });
    }
    let name = file.display().to_string();
    let text = source::read(file).map_err(anyhow::Error::msg)?;
    let text = String::from_utf8(text)
        .map_err(|error| anyhow::anyhow!("{name}: byte {} is not UTF-8", error.utf8_error().valid_up_to()))?;
    let format = match file.extension().is_some_and(|e| e == "json") {
        true => Format::Json,
        false => Format::Toml,
    };
    let name = Some(name);
    Ok(Text { text, format, name })
}

// ---- words ----

fn listed(state: &DesiredState) -> String {
    let mut out = match state.revision {
        0 => "nothing was applied to the store yet\n".to_owned(),
        revision => format!(
            "revision {revision}: {}\n",
            counted(state.load_balancers.len(), "load balancer")
        ),
    };
    if let Some(awaiting) = &state.awaiting {
        out.push_str(&awaits(awaiting));
    }
    if state.load_balancers.is_empty() {
        return out;
    }
    let mut table = Table::new(&["NAME", "LISTEN", "BACKENDS>"]);
    for (name, declared) in &state.load_balancers {
        table.row(vec![
            Cell::text(name.to_string()),
            Cell::text(listens(declared).join(", ")),
            Cell::number(backends(declared)),
        ]);
    }
    out.push_str(&table.render(2, Paint(false)));
    out
}

/// Where a load balancer says that it listens.
fn listens(declared: &Value) -> Vec<String> {
    let listeners = declared.get("listeners").and_then(Value::as_array);
    let each = match (declared.get("listen"), listeners) {
        (Some(Value::Array(addresses)), _) => addresses.iter().collect(),
        (Some(address), _) => vec![address],
        (None, Some(listeners)) => listeners.iter().filter_map(|l| l.get("address")).collect(),
        (None, None) => Vec::new(),
    };
    each.into_iter()
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect()
}

/// How many backends stand there.
fn backends(declared: &Value) -> usize {
    let of = |pool: &Value| {
        let written = pool.get("backend_servers").and_then(Value::as_array);
        written.map_or(0, Vec::len)
    };
    let pools = declared.get("pools").and_then(Value::as_object);
    of(declared) + pools.map_or(0, |pools| pools.values().map(of).sum())
}

fn table(revisions: &[RevisionNote]) -> String {
    if revisions.is_empty() {
        return "nothing was applied to the store yet\n".to_owned();
    }
    let mut table = Table::new(&["REVISION>", "WHEN", "WHO", "WHAT", "LOAD BALANCERS", "WHY"]);
    for note in revisions {
        table.row(vec![
            Cell::number(note.revision),
            Cell::text(utc(note.at)),
            Cell::text(note.author.clone()),
            Cell::text(note.what.clone()),
            Cell::text(touched(note)),
            Cell::text(note.message.clone()),
        ]);
    }
    table.render(0, Paint(false))
}

/// The load balancers of a change; `-` before those that it removed.
fn touched(note: &RevisionNote) -> String {
    const SHOWN: usize = 4;
    let name = |(name, fate): (&_, &Fate)| match fate {
        Fate::Set => format!("{name}"),
        Fate::Deleted => format!("-{name}"),
    };
    let mut shown: Vec<String> = note.changed.iter().take(SHOWN).map(name).collect();
    if let Some(more) = note.changed.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

fn one(note: &RevisionNote) -> String {
    let why = match note.message.is_empty() {
        true => String::new(),
        false => format!(": {}", note.message),
    };
    let (revision, at) = (note.revision, utc(note.at));
    format!(
        "revision {revision}, {at}, {} by {}{why}\n",
        note.what, note.author
    )
}

fn lines(changes: &[String], otherwise: &str) -> String {
    match changes.is_empty() {
        true => format!("  {otherwise}\n"),
        false => changes.iter().map(|change| format!("  {change}\n")).collect(),
    }
}

fn as_toml(document: &Value) -> anyhow::Result<String> {
    toml::to_string(document).context("this cannot be written as TOML: use --json")
}

fn understand<T: DeserializeOwned>(answer: &str) -> anyhow::Result<T> {
    serde_json::from_str(answer)
        .context("the admin API's answer is not understood: are both sides of one version?")
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    super::print(text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_is_exported_reads_back() {
        let document = json!({"load_balancers": {"shop": {
            "backend_servers": ["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3}],
            "listen": "127.0.0.1:8080",
            "routes": [{"match": {"path": "/a"}, "pool": "x"}, {"pool": "y"}],
            "health": false,
        }}});
        let text = as_toml(&document).unwrap();
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), document, "{text}");
    }

    #[test]
    fn a_list_shows_both_forms_of_a_load_balancer() {
        let short =
            json!({"listen": ["127.0.0.1:1", "[::1]:1"], "backend_servers": ["10.0.0.1:1", "10.0.0.2:1"]});
        let full = json!({"listeners": [{"address": "127.0.0.1:2"}],
            "pools": {"a": {"backend_servers": ["10.0.0.1:1"]}, "b": {"backend_servers": []}}});
        assert_eq!(
            (listens(&short).join(","), backends(&short)),
            ("127.0.0.1:1,[::1]:1".into(), 2)
        );
        assert_eq!(
            (listens(&full).join(","), backends(&full)),
            ("127.0.0.1:2".into(), 1)
        );
    }
}
