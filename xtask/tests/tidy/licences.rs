//! The dependencies: licences and versions that deny.toml allows, without needing cargo-deny.
//!
//! cargo-deny reads the same file and knows more (advisories); building it takes longer than all other tests
//! together, so it is not part of the test command.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::source::{array, expect_none, metadata, root, text};

#[derive(serde::Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(serde::Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Bans {
    skip: Vec<Skip>,
    deny: Vec<Banned>,
}

#[derive(serde::Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(serde::Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

fn deny() -> Deny {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml can be read");
    toml::from_str(&text).expect("deny.toml is valid")
}

/// Packages that end up in the program on Linux or in its tests there.
fn packages() -> Vec<&'static Value> {
    array(&metadata()["packages"]).iter().collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = deny().licenses.allow;
    let mut complaints = Vec::new();
    for package in packages() {
        let expression = text(&package["license"])
            .replace('/', " OR ")
            .replace(['(', ')'], " ");
        // `A OR B` needs one of them, `A AND B` all; no dependency nests them so that brackets would matter.
        let fits = expression.split(" OR ").any(|choice| {
            choice
                .split(" AND ")
                .all(|licence| allowed.iter().any(|a| a == licence.trim()))
        });
        if !fits {
            complaints.push(format!(
                "{}: licence `{expression}` is not in deny.toml",
                text(&package["name"])
            ));
        }
    }
    expect_none(&complaints);
}

#[test]
fn the_program_holds_one_version_of_each_library() {
    let deny = deny();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in used_on_linux() {
        versions
            .entry(text(&package["name"]))
            .or_default()
            .insert(text(&package["version"]));
    }
    let mut complaints = Vec::new();
    for (name, found) in versions.iter().filter(|(_, found)| found.len() > 1) {
        if !deny.bans.skip.iter().any(|skip| skip.name == *name) {
            complaints.push(format!(
                "{name} is there in versions {found:?}: one is enough, or deny.toml says why not"
            ));
        }
    }
    for skip in &deny.bans.skip {
        assert!(
            !skip.reason.is_empty(),
            "deny.toml: {} is skipped without a reason",
            skip.name
        );
        if versions
            .get(skip.name.as_str())
            .is_none_or(|found| found.len() < 2)
        {
            complaints.push(format!(
                "deny.toml skips {}, of which there is one version",
                skip.name
            ));
        }
    }
    expect_none(&complaints);
}

#[test]
fn no_banned_library_is_used() {
    let deny = deny();
    let found: Vec<String> = used_on_linux()
        .into_iter()
        .map(|package| text(&package["name"]))
        .filter(|name| deny.bans.deny.iter().any(|banned| banned.name == *name))
        .map(|name| format!("{name} is banned by deny.toml"))
        .collect();
    expect_none(&found);
}

/// The packages that `evenkeel` is built from on Linux: what `cargo tree` shows, without what only tests use.
fn used_on_linux() -> Vec<&'static Value> {
    let out = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    let resolved: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let nodes = array(&resolved["resolve"]["nodes"]);
    let all = array(&metadata()["packages"]);
    let start = all
        .iter()
        .find(|package| text(&package["name"]) == "evenkeel")
        .expect("evenkeel exists");
    let mut reached = vec![text(&start["id"]).to_owned()];
    let mut next = 0;
    while let Some(id) = reached.get(next).cloned() {
        next += 1;
        let Some(node) = nodes.iter().find(|node| text(&node["id"]) == id) else {
            continue;
        };
        for dependency in array(&node["deps"]) {
            let only_tests = array(&dependency["dep_kinds"])
                .iter()
                .all(|kind| text(&kind["kind"]) == "dev");
            let id = text(&dependency["pkg"]).to_owned();
            if !only_tests && !reached.contains(&id) {
                reached.push(id);
            }
        }
    }
    all.iter()
        .filter(|package| reached.iter().any(|id| id == text(&package["id"])))
        .collect()
}
