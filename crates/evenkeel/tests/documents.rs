//! What the documents tell people to type is what the program understands: each `evenkeel` command and each config.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All documents at the top and under docs, with their names.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/adr", "examples"] {
        let dir = root().join(folder);
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry can be read").path();
            if path.extension().is_some_and(|e| e == "md") {
                let text = std::fs::read_to_string(&path).expect("a document can be read");
                found.push((
                    path.file_name()
                        .expect("it has a name")
                        .to_string_lossy()
                        .into_owned(),
                    text,
                ));
            }
        }
    }
    assert!(found.len() > 8, "the documents were not found");
    found
}

/// Code blocks as (language, text).
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            if inside {
                found.push((language.to_owned(), String::new()));
            }
        } else if let Some((_, text)) = found.last_mut().filter(|_| inside) {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

/// Commands of the program in code blocks and in the text: the words after `evenkeel`.
fn commands(document: &str) -> Vec<Vec<String>> {
    let prose = document
        .split("```")
        .step_by(2)
        .flat_map(|part| part.split('`').skip(1).step_by(2));
    let code: Vec<String> = blocks(document)
        .into_iter()
        .filter(|(language, _)| matches!(language.as_str(), "sh" | "console" | "bash"))
        .map(|(_, text)| text.replace("\\\n", " "))
        .collect();
    let lines = code.iter().flat_map(|text| text.lines()).chain(prose);
    lines.filter_map(words_of_command).collect()
}

fn words_of_command(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line
        .split(" #")
        .next()?
        .split(" > ")
        .next()?
        .split(" | ")
        .next()?;
    let rest = match line.split_once(" -- ") {
        Some((cargo, rest)) if cargo.starts_with("cargo run") => rest,
        _ => line.strip_prefix("evenkeel ")?,
    };
    Some(
        rest.split_whitespace()
            .map(|word| word.trim_matches('\'').to_owned())
            .collect(),
    )
}

fn evenkeel(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(words)
        .output()
        .expect("evenkeel can be started")
}

/// Scenario: a person copies a command out of a document.
#[test]
fn every_command_in_the_documents_exists_with_its_flags() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (name, text) in documents() {
        for words in commands(&text) {
            let shown = words.join(" ");
            // `evenkeel backend drain …`, `evenkeel route weight …`: commands first, then what they work on.
            let depth = if words
                .first()
                .is_some_and(|w| ["backend", "route", "token"].contains(&w.as_str()))
            {
                2
            } else {
                1
            };
            let sub: Vec<&str> = words.iter().take(depth).map(String::as_str).collect();
            if sub
                .iter()
                .any(|w| w.contains(['|', '…', '<']) || w.starts_with("--"))
            {
                continue;
            }
            let out = evenkeel(&[sub.as_slice(), &["--help"]].concat());
            if !out.status.success() {
                complaints.push(format!("{name}: `evenkeel {shown}`: no such command"));
                continue;
            }
            seen += 1;
            let help = String::from_utf8_lossy(&out.stdout).into_owned();
            let known: Vec<&str> = help
                .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
                .collect();
            for flag in words
                .iter()
                .filter(|word| word.starts_with('-') && word.len() > 1)
            {
                let flag = flag.split('=').next().unwrap_or(flag);
                if !known.contains(&flag) {
                    complaints.push(format!("{name}: `evenkeel {shown}`: no flag `{flag}`"));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert!(seen > 10, "only {seen} commands were found");
}

/// Scenario: a person copies a whole config out of a document.
#[test]
fn every_config_in_the_documents_is_valid() {
    let dir = std::env::temp_dir().join(format!("evenkeel-documents-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
    let mut complaints = Vec::new();
    let mut seen = 0;
    for (name, text) in documents() {
        // A block that declares no load balancer is a fragment, shown to explain a key.
        let whole = |(language, text): &(String, String)| language == "toml" && is_whole(text);
        for (_, config) in blocks(&text).into_iter().filter(whole) {
            seen += 1;
            let file = dir.join(format!("{seen}.toml"));
            std::fs::write(&file, &config).expect("a temporary file can be written");
            let wrong = wrong_with(&file);
            if !wrong.is_empty() {
                complaints.push(format!("{name}:\n{config}{}", wrong.join("\n")));
            }
        }
    }
    std::fs::remove_dir_all(&dir).expect("the temporary folder can be removed");
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert!(seen > 20, "only {seen} configs were found");
}

/// What `check` says against a config, warnings too, but for files and users that the reader is to make.
fn wrong_with(file: &Path) -> Vec<String> {
    let out = evenkeel(&["check", "--json", &file.to_string_lossy()]);
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).expect("check prints JSON");
    let told = ["errors", "warnings"]
        .into_iter()
        .filter_map(|key| result[key].as_array());
    told.flatten()
        .map(|diagnostic| format!("line {}: {}", diagnostic["line"], diagnostic["cause"]))
        .filter(|cause| {
            let not_there = [
                "No such file or directory",
                "there is no user",
                "there is no group",
            ];
            !not_there.iter().any(|words| cause.contains(words))
        })
        .collect()
}

/// A config that could be run as it stands: it says what is balanced against.
fn is_whole(text: &str) -> bool {
    text.contains("[load_balancers.") && text.contains("backend_servers") && !text.contains('…')
}
