//! What tests run is installed before them: a machine that happens to have it would hide that it is not.

use std::collections::BTreeSet;

use crate::source::{expect_none, files};

/// On every Debian, or brought by a package that another program needs.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bash", "package bash, essential"),
    ("date", "package coreutils, essential"),
    ("mkfifo", "package coreutils, essential"),
    ("pebble-challtestsrv", "package pebble"),
    ("prlimit", "package util-linux, essential"),
    ("sh", "package dash, essential"),
    ("sha256sum", "package coreutils, essential"),
    ("unshare", "package util-linux, essential"),
];

/// What stands before the name of a program that is started.
const STARTS: &[&str] = &["Command::new(\"", "Process::start(\"", "need(\""];

#[test]
fn every_program_that_tests_start_is_installed_for_them() {
    let lists = &file("xtask/src/tools.rs");
    let (_, list) = lists.split_once("FOR_TESTS: ").expect("the list of tests");
    let (list, _) = list.split_once("];").expect("its end");
    let mut known: BTreeSet<&str> = quoted_after(list, "program: \"").collect();
    known.extend(ELSEWHERE.iter().map(|(program, _)| *program));
    let mut complaints = Vec::new();
    let mut found = BTreeSet::new();
    for file in files().iter().filter(|file| file.path.starts_with("crates/")) {
        let is_for_tests = file.is_test() || file.path.starts_with("crates/peers/");
        for start in STARTS.iter().filter(|_| file.is_rust() && is_for_tests) {
            for program in quoted_after(&file.text, start) {
                found.insert(program);
                if !known.contains(program) {
                    complaints.push(format!(
                        "{}: `{program}` is not in FOR_TESTS of xtask/src/tools.rs",
                        file.path
                    ));
                }
            }
        }
    }
    assert!(found.contains("nginx") && found.contains("etcd"), "{found:?}");
    expect_none(&complaints);
}

fn file(path: &str) -> String {
    let found = files().iter().find(|file| file.path == path);
    found.expect("it is there").text.clone()
}

/// What stands between each `before` and the next quotation mark.
fn quoted_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}
