//! Files that are replaced, never edited: a crash at any moment leaves the old content or the new.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the name of a file ends in that is being written.
pub(crate) const NEW: &str = ".new";

/// Puts `content` in the place of what a file holds, for its owner alone. Of each file one at a time. What could not be
/// written takes no room; a crash may leave the file that was being written, its name with [`NEW`] at the end.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(NEW);
    let beside = Path::new(&beside);
    let replaced = write(beside, content).and_then(|()| std::fs::rename(beside, path));
    if replaced.is_err() {
        // It is the first error that counts.
        _ = std::fs::remove_file(beside);
    }
    replaced
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut out = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    out.write_all(content)?;
    out.sync_all()
}

/// Makes sure that the names in a folder outlive a crash.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Scenario: the file cannot get its name, because a folder has it. What was written beside it goes.
    #[test]
    fn what_could_not_be_replaced_leaves_nothing_behind() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.object");
        std::fs::create_dir_all(path.join("full")).unwrap();
        assert!(replace(&path, b"content").is_err());
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(left, ["a.object"]);
    }
}
