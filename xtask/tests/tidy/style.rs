//! What must not be left in the text of the project.

use crate::source::{expect_none, files};

/// This folder names what it looks for.
const HERE: &str = "xtask/tests/tidy/";

/// Text that belongs to one machine, one day or one person, or that was left by accident. Lower case.
const BANNED: &[(&str, &str)] = &[
    ("/work/", "a path of one machine"),
    ("/tmp/ek", "a path of one machine"),
    ("/root/", "a path of one machine"),
    ("crates-proxy", "a registry's host"),
    ("registry-proxy", "a registry's host"),
    ("static.crates.io", "a registry's host"),
    ("files.pythonhosted.org", "a registry's host"),
    (
        "issue #",
        "a number means nothing without its tracker: give the reason itself",
    ),
    ("this session", "the project speaks of itself alone"),
    ("the lead ", "the project speaks of itself alone"),
    ("as instructed", "the project speaks of itself alone"),
    ("claude", "the project speaks of itself alone"),
    ("fixme", "fix it"),
    ("xxx", "fix it"),
    ("todo!(", "write it"),
    ("unimplemented!(", "write it"),
    ("dbg!(", "left by accident"),
];

/// Functions that wait for a condition are named so.
const WAITS: &[&str] = &["wait_", "until", "eventually"];

/// Files whose text was not written here, or whose bytes mean something else.
const NOT_OURS: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Written by a wait in a test: it asks a condition again and again, with a deadline.
const POLL_MARK: &str = "// condition poll";

#[test]
fn nothing_is_left_that_does_not_belong() {
    let mut complaints = Vec::new();
    for file in files()
        .iter()
        .filter(|f| !f.path.starts_with(HERE) && !NOT_OURS.iter().any(|n| f.path.ends_with(n)))
    {
        for (number, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (word, why) in BANNED.iter().filter(|(word, _)| lower.contains(word)) {
                complaints.push(format!("{}:{}: `{word}`: {why}", file.path, number + 1));
            }
        }
    }
    expect_none(&complaints);
}

#[test]
fn no_test_is_switched_off_without_a_reason() {
    let mut complaints = Vec::new();
    for file in files()
        .iter()
        .filter(|f| f.is_rust() && !f.path.starts_with(HERE))
    {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim();
            if line == "#[ignore]" {
                complaints.push(format!(
                    "{}:{}: say why: #[ignore = \"…\"]",
                    file.path,
                    number + 1
                ));
            }
            let silenced = line.starts_with("#[allow(")
                || line.starts_with("#![allow(")
                || line.starts_with("#[expect(");
            let on_one_line = line.ends_with(")]");
            if silenced && on_one_line && !line.contains("reason = ") {
                complaints.push(format!(
                    "{}:{}: say why: {line} needs reason = \"…\"",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    expect_none(&complaints);
}

#[test]
fn no_test_waits_for_a_fixed_time() {
    let mut complaints = Vec::new();
    for file in files()
        .iter()
        .filter(|f| f.is_rust() && !f.path.starts_with(HERE))
    {
        let lines: Vec<&str> = file.text.lines().collect();
        let first = if file.is_test() {
            0
        } else {
            file.production().len()
        };
        let mut function = "";
        for (number, line) in lines.iter().enumerate() {
            if let Some((_, name)) = line.split_once("fn ") {
                function = name;
            }
            let sleeps = ["thread::sleep(", "time::sleep(", " sleep("]
                .iter()
                .any(|s| line.contains(s));
            let before = number
                .checked_sub(1)
                .and_then(|n| lines.get(n))
                .copied()
                .unwrap_or_default();
            let polls = line.contains(POLL_MARK)
                || before.contains(POLL_MARK)
                || WAITS.iter().any(|wait| function.starts_with(wait));
            if number >= first && sleeps && !polls {
                complaints.push(format!(
                    "{}:{}: a fixed sleep is too short on a slow machine and too long on a fast one: \
                     wait for a condition (`{POLL_MARK}`)",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    expect_none(&complaints);
}
