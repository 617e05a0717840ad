//! The files of the repository and what cargo knows about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Folders that are built, fetched or recorded, never written by hand. Names that start with a dot are skipped
/// too, except these.
const SKIPPED: &[&str] = &["target", "corpus", "artifacts", "seeds", "node_modules"];
const DOT_FOLDERS: &[&str] = &[".cargo", ".ci", ".config", ".github"];

/// A text file of the repository.
#[derive(Debug)]
pub(crate) struct File {
    /// Path from the top, with `/`.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
}

impl File {
    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| matches!(part, "tests" | "benches"))
            || matches!(
                self.path.rsplit('/').next(),
                Some("tests.rs" | "fixture.rs" | "simulation.rs")
            )
    }

    /// The lines before a trailing `#[cfg(test)] mod … {`: what is shipped.
    pub(crate) fn production(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_start = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(is_start).unwrap_or(lines.len());
        lines[..end].to_vec()
    }
}

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("xtask has a parent")
            .to_owned()
    })
}

/// All text files, in order of path.
pub(crate) fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        collect(root(), &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(
            files.len() > 50,
            "the repository was not found at {}",
            root().display()
        );
        files
    })
}

/// All Markdown files.
pub(crate) fn documents() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".md"))
}

fn collect(dir: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).expect("a folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            let hidden = name.starts_with('.') && !DOT_FOLDERS.contains(&name);
            if !hidden && !SKIPPED.contains(&name) {
                collect(&path, files);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).expect("it is below the top");
            files.push(File {
                path: path.to_string_lossy().replace('\\', "/"),
                text,
            });
        }
    }
}

/// `cargo metadata`, with the dependencies of the dependencies.
pub(crate) fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let out = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
            .current_dir(root())
            .output()
            .expect("cargo can be started");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON")
    })
}

/// The packages of the workspace, as `cargo metadata` shows them.
pub(crate) fn members() -> Vec<&'static Value> {
    let all = metadata();
    let ids: Vec<&Value> = array(&all["workspace_members"]).iter().collect();
    array(&all["packages"])
        .iter()
        .filter(|package| ids.contains(&&package["id"]))
        .collect()
}

/// A JSON array's elements.
pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Fails with all complaints at once.
pub(crate) fn expect_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
