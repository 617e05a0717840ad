//! Files and functions stay small enough to be read at once.
//!
//! A ratchet, not a purge: what is over a limit stands in the exceptions with its size. An exception may shrink,
//! never grow, and goes when it is no longer needed.

use crate::source::{File, expect_none, files};

/// Lines of a file, tests at its end not counted.
const FILE_LINES: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// `path` or `path function`, and its size today.
const EXCEPTIONS: &[(&str, usize)] = &[];

#[test]
fn files_and_functions_stay_small() {
    let mut over = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() && !file.is_test()) {
        let lines = file.production();
        if lines.len() > FILE_LINES {
            over.push((file.path.clone(), lines.len()));
        }
        over.extend(
            functions(file)
                .into_iter()
                .filter(|(_, size)| *size > FUNCTION_LINES),
        );
    }
    let mut complaints = Vec::new();
    for (name, size) in &over {
        match EXCEPTIONS.iter().find(|(known, _)| known == name) {
            None => complaints.push(format!(
                "{name}: {size} lines are too many to read at once: divide it"
            )),
            Some((_, known)) if size > known => {
                complaints.push(format!("{name} grew from {known} to {size} lines"))
            }
            Some((_, known)) if size < known => {
                complaints.push(format!("{name} shrank to {size} lines: lower its exception"));
            }
            Some(_) => {}
        }
    }
    for (known, _) in EXCEPTIONS
        .iter()
        .filter(|(known, _)| !over.iter().any(|(name, _)| name == known))
    {
        complaints.push(format!("{known} needs no exception any more"));
    }
    expect_none(&complaints);
}

/// Each function as `path name` with its lines. Goes by rustfmt's layout: a function ends at the first closing
/// brace that stands as far left as its `fn` line.
fn functions(file: &File) -> Vec<(String, usize)> {
    let lines = file.production();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let end_of_head = lines[start..].iter().position(|l| l.ends_with(['{', ';', '}']));
        let Some(head) = end_of_head
            .map(|offset| start + offset)
            .filter(|head| lines[*head].ends_with('{'))
        else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[head..].iter().position(|l| *l == closing) {
            found.push((format!("{} {name}", file.path), head - start + length + 1));
        }
    }
    found
}

/// The name of the function that a line begins.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub(").and_then(|r| r.split_once(") ")) {
        rest = after.1;
    }
    for word in ["pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

#[test]
fn the_ruler_itself_measures_right() {
    let text = "impl A {\n    pub(crate) async fn one(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n\n    fn none();\n}\n\
                fn two() {\n    if x {\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn unseen() {\n    }\n}\n";
    let file = File {
        path: "a.rs".into(),
        text: text.into(),
    };
    assert_eq!(
        functions(&file),
        [("a.rs one".to_owned(), 5), ("a.rs two".to_owned(), 4)]
    );
}
