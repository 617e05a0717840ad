//! The documentation and the examples hold: tables are up to date, every block of TOML or JSON is a config, every
//! error that is quoted is what the parser says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use evenkeel_model::config::Config;
use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::{check_json, parse_toml};
use evenkeel_model::schema::{json_schema, rewrite};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn guide() -> String {
    std::fs::read_to_string(root().join("docs/config.md")).unwrap()
}

fn read(text: &str, file: &str) -> Result<Config, Vec<Diagnostic>> {
    match file.ends_with(".json") {
        true => check_json(text, file).map(|checked| checked.config),
        false => parse_toml(text, file),
    }
}

/// Fenced blocks of this language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    let starts = text.match_indices(&fence).map(|(at, fence)| at + fence.len());
    starts.map(|at| text[at..].split("```").next().unwrap()).collect()
}

#[test]
fn the_tables_of_keys_are_up_to_date() {
    let text = guide();
    let fresh = rewrite(&text).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs/config.md"), &fresh).unwrap();
        return;
    }
    assert!(
        text == fresh,
        "docs/config.md is out of date: run this test once with UPDATE_DOCS=1"
    );
}

/// Each links to a heading that is there.
#[test]
fn links_within_the_guide_lead_somewhere() {
    let text = guide();
    let headings: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .collect();
    let mut links = 0;
    for (at, _) in text.match_indices("](#") {
        let target = text[at + 3..].split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == target), "#{target}");
        links += 1;
    }
    assert!(links > 10, "{links}");
}

#[test]
fn every_example_is_a_config() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.ends_with(".toml") || name.ends_with(".json")) {
            continue;
        }
        let found = read(&std::fs::read_to_string(&path).unwrap(), &name)
            .err()
            .unwrap_or_default();
        assert!(found.is_empty(), "{}", found[0]);
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

#[test]
fn every_block_of_the_guide_is_a_config() {
    let text = guide();
    let toml = blocks(&text, "toml")
        .into_iter()
        .map(|block| (block, "guide.toml"));
    let json = blocks(&text, "json")
        .into_iter()
        .map(|block| (block, "guide.json"));
    let mut seen = 0;
    for (block, file) in toml.chain(json) {
        let found = read(block, file).err().unwrap_or_default();
        assert!(found.is_empty(), "{}", found[0]);
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

/// The errors quoted are those of this very file.
#[test]
fn the_errors_of_the_guide_are_those_of_the_parser() {
    let wrong = "[load_balancers.shop]\n\
                 listen = \"0.0.0.0:8080\"\n\
                 algoritm = \"round_robin\"\n\
                 backend_servers = [\"web-1:9001\", \"10.0.0.1:9001\", \"10.0.0.1:9001\"]\n\
                 poll_frequency = \"5\"\n";
    let found = parse_toml(wrong, "evenkeel.toml").unwrap_err();
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    let text = guide();
    assert_eq!(blocks(&text, "text")[0].trim_end(), told.join("\n\n"));
}

/// The full example shows every key there is: what is missing from it is named here, with the reason.
#[test]
fn the_full_example_has_every_key() {
    let example = std::fs::read_to_string(root().join("examples/full.toml")).unwrap();
    // `token` is what `token_file` is better than; the others are the short form.
    let short = ["token", "listen", "health_endpoint", "poll_frequency"];
    let schema = json_schema();
    for (table, definition) in schema["$defs"].as_object().unwrap() {
        for key in definition["properties"].as_object().unwrap().keys() {
            let shown = example.contains(&format!("{key} = "))
                || example.contains(&format!(".{key}]"))
                || example.contains(&format!(".{key}."));
            assert!(
                shown || short.contains(&key.as_str()),
                "{table}.{key} is not in examples/full.toml"
            );
        }
    }
}
