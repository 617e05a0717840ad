//! What the documents name exists: files, links, headings, crates, commands.
//!
//! (`evenkeel` commands are held to the program itself by `crates/evenkeel/tests/documents.rs`.)

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::source::{File, documents, expect_none, files, members, root, text};

/// Folders at the top; inline code that starts with one of them is a path.
const TOP: &[&str] = &[
    "crates/",
    "xtask/",
    "bench/",
    "fuzz/",
    "docs/",
    "examples/",
    ".ci/",
    ".cargo/",
    ".config/",
];

/// Commands of cargo that the documents may use, beside `cargo xtask`.
const CARGO: &[&str] = &[
    "add", "bench", "build", "check", "clippy", "deny", "doc", "fmt", "fuzz", "install", "metadata",
    "nextest", "run", "test", "tree", "update",
];

#[test]
fn every_link_resolves() {
    let mut complaints = Vec::new();
    for document in documents() {
        for target in links(document) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() {
                document.path.clone()
            } else {
                beside(&document.path, path)
            };
            if !root().join(&file).exists() {
                complaints.push(format!("{}: link to {target}: no such file", document.path));
            } else if !anchor.is_empty() && !headings(&file).iter().any(|heading| heading == anchor) {
                complaints.push(format!("{}: link to {target}: no such heading", document.path));
            }
        }
    }
    expect_none(&complaints);
}

#[test]
fn every_path_exists() {
    let mut complaints = Vec::new();
    for document in documents() {
        for code in inline_code(document) {
            let is_path = TOP.iter().any(|top| code.starts_with(top)) && !code.contains(char::is_whitespace);
            let is_pattern = code.contains(['*', '<', '{']) || code.split('/').any(is_placeholder);
            if is_path && !is_pattern && !root().join(&code).exists() {
                complaints.push(format!("{}: `{code}` does not exist", document.path));
            }
        }
    }
    expect_none(&complaints);
}

/// `NAME`, `TARGET`: stands for something else.
fn is_placeholder(part: &str) -> bool {
    let stem = part.split(['.', '-']).next().unwrap_or_default();
    let known = ["README", "ARCHITECTURE", "CONTRIBUTING", "TESTING", "CHANGELOG"].contains(&stem);
    !known && stem.len() > 1 && stem.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The tables in `docs/security.md` name tests by file and function, in their last column.
#[test]
fn every_attack_has_its_tests() {
    let page = documents()
        .find(|document| document.path == "docs/security.md")
        .expect("there is a page");
    let rows = page.text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("| Attack ")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    let mut complaints = Vec::new();
    for row in rows {
        let last = row
            .trim_end_matches(['|', ' '])
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            complaints.push(format!("docs/security.md: no test: {row}"));
        }
        for test in tests.iter().filter(|test| !is_test(test)) {
            complaints.push(format!("docs/security.md: there is no test `{test}`"));
        }
    }
    expect_none(&complaints);
}

/// Whether a file of that name has a test of that name.
fn is_test(path: &str) -> bool {
    let Some((file, function)) = path.split_once("::") else {
        return false;
    };
    let test = format!("#[test]\nfn {function}() {{");
    let in_a_runtime = format!("#[tokio::test]\nasync fn {function}() {{");
    let mut files = files()
        .iter()
        .filter(|source| source.path.ends_with(&format!("/{file}.rs")));
    files.any(|source| {
        source.is_test() && (source.text.contains(&test) || source.text.contains(&in_a_runtime))
    })
}

#[test]
fn the_map_shows_every_crate_and_no_other() {
    let map = documents()
        .find(|document| document.path == "ARCHITECTURE.md")
        .expect("there is a map");
    let named: Vec<String> = inline_code(map)
        .into_iter()
        .filter(|code| is_crate_name(code))
        .collect();
    let exist: Vec<&str> = members().iter().map(|package| text(&package["name"])).collect();
    let mut complaints = Vec::new();
    for name in exist.iter().filter(|name| !named.iter().any(|n| n == *name)) {
        complaints.push(format!("ARCHITECTURE.md does not name the crate `{name}`"));
    }
    for name in named.iter().filter(|name| !exist.contains(&name.as_str())) {
        complaints.push(format!("ARCHITECTURE.md names `{name}`, which does not exist"));
    }
    expect_none(&complaints);
}

fn is_crate_name(code: &str) -> bool {
    let tail = code.strip_prefix("evenkeel-");
    code == "evenkeel"
        || code == "xtask"
        || tail.is_some_and(|t| t.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

#[test]
fn every_cargo_command_exists() {
    let mut complaints = Vec::new();
    for document in documents() {
        for command in commands(document, "cargo") {
            let words: Vec<&str> = command
                .split_whitespace()
                .skip(1)
                .filter(|word| !word.starts_with('+'))
                .collect();
            match words.as_slice() {
                ["xtask", rest @ ..] => complaints.extend(wrong_xtask(&document.path, rest)),
                [first, ..] if CARGO.contains(first) => {
                    complaints.extend(wrong_package(&document.path, &words))
                }
                _ => complaints.push(format!("{}: `{command}`: no such command", document.path)),
            }
        }
    }
    expect_none(&complaints);
}

/// What is wrong with `cargo xtask WORDS`, asked of the program itself.
fn wrong_xtask(document: &str, words: &[&str]) -> Option<String> {
    // `cargo xtask --help` and the bare `cargo xtask COMMAND` of an explanation name no command.
    let sub = words
        .first()
        .filter(|w| !w.starts_with('-') && !is_placeholder(w))?;
    let out = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args([*sub, "--help"])
        .output()
        .expect("xtask can be started");
    if !out.status.success() {
        return Some(format!("{document}: cargo xtask has no command `{sub}`"));
    }
    let help = String::from_utf8_lossy(&out.stdout);
    let known = |flag: &str| {
        help.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | '<'))
            .any(|w| w == flag)
    };
    let flags = words.iter().skip(1).filter(|word| word.starts_with("--"));
    let wrong = flags
        .map(|flag| flag.split('=').next().unwrap_or(flag))
        .find(|flag| !known(flag))?;
    Some(format!("{document}: cargo xtask {sub} has no `{wrong}`"))
}

/// A package that a cargo command names with `-p`, but that does not exist.
fn wrong_package(document: &str, words: &[&str]) -> Option<String> {
    let named = words
        .windows(2)
        .find(|pair| matches!(pair[0], "-p" | "--package"))?[1];
    let exists = is_placeholder(named) || members().iter().any(|package| text(&package["name"]) == named);
    (!exists).then(|| format!("{document}: no package is named `{named}`"))
}

/// The targets of `[text](target)`, code left out.
fn links(document: &File) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(document) {
        // Code in a line cannot hold a link.
        let visible: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for part in visible.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push(target.split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

/// What stands between backquotes outside of code blocks.
fn inline_code(document: &File) -> Vec<String> {
    prose(document)
        .flat_map(|line| {
            line.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Lines outside of code blocks.
fn prose(document: &File) -> impl Iterator<Item = &str> {
    let mut inside = false;
    document.text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// Lines of code blocks, with lines that end in `\` joined.
fn blocks(document: &File) -> Vec<String> {
    let mut inside = false;
    let mut lines: Vec<String> = Vec::new();
    let mut joining = false;
    for line in document.text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            joining = false;
        } else if inside {
            let part = line.trim_end_matches('\\');
            match lines.last_mut().filter(|_| joining) {
                Some(last) => last.push_str(part),
                None => lines.push(part.to_owned()),
            }
            joining = line.ends_with('\\');
        }
    }
    lines
}

/// Commands that start with `program`, from code blocks and inline code, comments cut off.
fn commands(document: &File, program: &str) -> Vec<String> {
    let begins = format!("{program} ");
    let lines = blocks(document).into_iter().chain(inline_code(document));
    lines
        .map(|line| line.trim().trim_start_matches("$ ").to_owned())
        .map(|line| line.split(" #").next().unwrap_or_default().trim_end().to_owned())
        .map(|line| {
            // `NAME=value cargo …` sets a variable first.
            let mut rest = line.as_str();
            while let Some((first, tail)) = rest.split_once(' ').filter(|(first, _)| first.contains('=')) {
                debug_assert!(!first.is_empty());
                rest = tail;
            }
            rest.to_owned()
        })
        .filter(|line| line.starts_with(&begins))
        .collect()
}

/// The anchors of a document's headings, as code hosts make them.
fn headings(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let file = File {
        path: path.to_owned(),
        text,
    };
    let anchor = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    prose(&file)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// The path that a link in `document` leads to, from the top.
fn beside(document: &str, target: &str) -> String {
    let joined = Path::new(document)
        .parent()
        .unwrap_or_else(|| Path::new(""))
        .join(target);
    let mut path = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

#[test]
fn commands_are_found_where_people_look_for_them() {
    let text = "Run `cargo test -p x`.\n```sh\n$ cargo run --release -- demo   # a comment\nA=1 cargo \\\n  fmt\nls\n```\n";
    let file = File {
        path: "a.md".into(),
        text: text.into(),
    };
    assert_eq!(
        commands(&file, "cargo"),
        ["cargo run --release -- demo", "cargo   fmt", "cargo test -p x"]
    );
}
