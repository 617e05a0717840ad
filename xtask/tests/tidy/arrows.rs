//! Which room may use which, and what the pure rooms may use at all.

use crate::source::{array, expect_none, files, members, root, text};

/// The law: a package and the packages of the workspace that it may depend on. Arrows point down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("evenkeel-model", &[]),
    ("evenkeel-net", &[]),
    ("evenkeel-store", &[]),
    ("evenkeel-tls", &["evenkeel-model"]),
    ("evenkeel-balance", &["evenkeel-model"]),
    ("evenkeel-http", &["evenkeel-model"]),
    ("evenkeel-reconcile", &["evenkeel-model"]),
    (
        "evenkeel-dataplane",
        &[
            "evenkeel-model",
            "evenkeel-balance",
            "evenkeel-http",
            "evenkeel-net",
            "evenkeel-tls",
        ],
    ),
    (
        "evenkeel-orchestrator",
        &[
            "evenkeel-model",
            "evenkeel-http",
            "evenkeel-reconcile",
            "evenkeel-net",
            "evenkeel-tls",
        ],
    ),
    ("evenkeel-console", &["evenkeel-model", "evenkeel-tls"]),
    (
        "evenkeel-cluster",
        &["evenkeel-model", "evenkeel-reconcile", "evenkeel-store"],
    ),
    ("evenkeel-peers", &[]),
    ("evenkeel-sim", &[]),
    (
        "evenkeel",
        &[
            "evenkeel-model",
            "evenkeel-balance",
            "evenkeel-reconcile",
            "evenkeel-net",
            "evenkeel-tls",
            "evenkeel-dataplane",
            "evenkeel-orchestrator",
            "evenkeel-console",
            "evenkeel-cluster",
            "evenkeel-reconcile",
            "evenkeel-store",
        ],
    ),
    (
        "evenkeel-counts",
        &["evenkeel-model", "evenkeel-balance", "evenkeel-http"],
    ),
    ("xtask", &[]),
];

/// What tests may use beyond that.
const ARROWS_OF_TESTS: &[(&str, &[&str])] = &[
    ("xtask", &["evenkeel-model"]),
    ("evenkeel-balance", &["evenkeel-sim"]),
    ("evenkeel-reconcile", &["evenkeel-sim"]),
    ("evenkeel-store", &["evenkeel-peers"]),
    ("evenkeel-cluster", &["evenkeel-orchestrator", "evenkeel-peers"]),
    ("evenkeel", &["evenkeel-peers", "evenkeel-sim"]),
];

/// Rooms without IO, clocks, randomness or threads.
const PURE: &[&str] = &["model", "balance", "http", "reconcile"];

/// What a pure room may use from outside: libraries that do no IO either.
const PURE_MAY_USE: &[&str] = &[
    "base64",
    "domain",
    "hmac",
    "httparse",
    "jsonc-parser",
    "memchr",
    "regex",
    "serde",
    "serde_json",
    "sha1",
    "sha2",
    "strsim",
    "thiserror",
    "toml",
    "toml_parser",
];

/// Rooms that may hold `unsafe`.
const UNSAFE_ROOMS: &[&str] = &["crates/net/"];

#[test]
fn arrows_point_down_only() {
    let mut complaints = Vec::new();
    for package in members() {
        let name = text(&package["name"]);
        let Some((_, allowed)) = ARROWS.iter().find(|(of, _)| *of == name) else {
            complaints.push(format!("{name} is not in the law: say which packages it may use"));
            continue;
        };
        let in_tests = ARROWS_OF_TESTS
            .iter()
            .find(|(of, _)| *of == name)
            .map_or(&[][..], |(_, to)| to);
        for dependency in array(&package["dependencies"])
            .iter()
            .filter(|d| !d["path"].is_null())
        {
            let to = text(&dependency["name"]);
            let for_tests = text(&dependency["kind"]) == "dev";
            if !allowed.contains(&to) && !(for_tests && (in_tests.contains(&to) || to == name)) {
                complaints.push(format!("{name} may not use {to}"));
            }
        }
    }
    for (name, _) in ARROWS
        .iter()
        .filter(|(name, _)| !members().iter().any(|p| text(&p["name"]) == *name))
    {
        complaints.push(format!("the law names {name}, which does not exist"));
    }
    expect_none(&complaints);
}

#[test]
fn a_pure_room_uses_nothing_that_could_do_io() {
    let mut complaints = Vec::new();
    for package in members() {
        let name = text(&package["name"]);
        if !PURE.iter().any(|room| name == format!("evenkeel-{room}")) {
            continue;
        }
        for dependency in array(&package["dependencies"]) {
            let (to, outside) = (text(&dependency["name"]), dependency["path"].is_null());
            if outside && text(&dependency["kind"]) != "dev" && !PURE_MAY_USE.contains(&to) {
                complaints.push(format!("{name} is pure and may not use {to}"));
            }
        }
    }
    expect_none(&complaints);
}

#[test]
fn a_pure_room_denies_itself_clocks_randomness_and_unsafe() {
    for room in PURE {
        let path = format!("crates/{room}/src/lib.rs");
        let lib = std::fs::read_to_string(root().join(&path)).expect("every pure room has a lib.rs");
        for line in [
            "#![forbid(unsafe_code)]",
            "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]",
        ] {
            assert!(lib.lines().any(|l| l == line), "{path} lacks {line}");
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut complaints = Vec::new();
    for file in files()
        .iter()
        .filter(|f| f.is_rust() && !UNSAFE_ROOMS.iter().any(|room| f.path.starts_with(room)))
    {
        for (number, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let held = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]
                .iter()
                .any(|u| code.contains(u));
            if held && !file.path.starts_with("xtask/tests/tidy/") {
                complaints.push(format!(
                    "{}:{}: unsafe outside of {UNSAFE_ROOMS:?}",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    expect_none(&complaints);
}
