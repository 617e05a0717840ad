//! The whole text that a person is told about wrong values, group by group: what, where, why, what to do.
//!
//! Each snippet of `wrong/cases.txt` begins with `#` and its scenario; `wrong/told.txt` has what is said about it.
//! `UPDATE_DOCS=1` writes that file anew; what changes in it is to be read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;

use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::{check_toml, parse_toml};

/// Where a snippet belongs.
fn whole(group: &str, lines: &str) -> String {
    let shop = "[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n";
    match group {
        "top" => format!("{lines}\n{shop}"),
        "pool" => format!("{shop}{lines}\n"),
        "route" => format!("{shop}[[load_balancers.shop.routes]]\n{lines}\n"),
        "listener" => {
            format!("{shop}[[load_balancers.shop.listeners]]\naddress = \"0.0.0.0:443\"\n{lines}\n")
        }
        other => panic!("no such group: {other}"),
    }
}

/// Scenario, group and lines of every snippet.
fn cases() -> Vec<(String, String, String)> {
    let text = include_str!("wrong/cases.txt");
    let blocks = text
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let (head, lines) = block
                .split_once('\n')
                .unwrap_or_else(|| panic!("no lines: {block}"));
            let (group, scenario) = head.trim_start_matches("# ").split_once(": ").unwrap();
            (scenario.to_owned(), group.to_owned(), lines.to_owned())
        })
        .collect()
}

#[test]
fn what_is_told_about_wrong_values() {
    let (mut told, mut helpless) = (String::new(), Vec::new());
    for (scenario, group, lines) in cases() {
        let text = whole(&group, &lines);
        let found: Vec<Diagnostic> = match parse_toml(&text, "evenkeel.toml") {
            Err(errors) => errors,
            Ok(_) => check_toml(&text, "evenkeel.toml").unwrap().warnings,
        };
        if found.is_empty() {
            helpless.push(format!("{scenario}: nothing is said"));
        }
        let _ = writeln!(told, "# {group}: {scenario}");
        for diagnostic in found {
            assert!(!diagnostic.cause.is_empty(), "{scenario}");
            let says_it_all = ["out of its range: ", "must be "];
            let said = says_it_all.iter().any(|words| diagnostic.cause.contains(words));
            if diagnostic.suggestion.is_none() && !said {
                helpless.push(format!("{scenario}: {diagnostic}"));
            }
            let _ = writeln!(told, "{diagnostic}\n");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong/told.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (is, should) in told.split("\n# ").zip(expected.split("\n# ")) {
        assert_eq!(is, should);
    }
    assert_eq!(told.len(), expected.len());
    assert!(helpless.is_empty(), "no help: {}", helpless.join("\n\n"));
}
