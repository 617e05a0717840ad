//! The admin token, kept in a file of its own so that it stands in no config and no process list.

use std::path::Path;

use anyhow::{Context, bail};

/// Reads a token: one line, the white space around it does not count.
///
/// # Errors
/// When the file cannot be read or holds no token.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the token file {}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_ascii_control()) {
        bail!("the token file {} holds no token on one line", path.display());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_token_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read(&path).unwrap(), "s3cret");
        for bad in ["", "\n", "a\nb\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad:?}");
        }
    }
}
