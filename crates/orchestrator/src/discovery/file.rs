//! A file of members, watched as the config is: read once a second, and a change counts when two looks agree.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reconcile::discovery::file::parse;
use tokio::time::MissedTickBehavior;

use super::{Gone, Teller};

/// Time between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Greatest file read.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

pub(super) async fn watch(path: PathBuf, mut teller: Teller) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was taken last, and what the last look saw.
    let mut taken: Option<Vec<u8>> = None;
    let mut seen: Option<Vec<u8>> = None;
    let mut first = true;
    loop {
        ticks.tick().await;
        // The very first look is taken as it is: whoever starts us has written the file.
        let first = std::mem::take(&mut first);
        let told = match read_off_thread(path.clone()).await {
            Err(error) => {
                // It may come back with what it had, or be seen while it is written.
                (taken, seen) = (None, None);
                teller.stale(error).await
            }
            Ok(text) if taken.as_ref() != Some(&text) && (first || seen.as_ref() == Some(&text)) => {
                let told = tell(&path, &text, &mut teller).await;
                taken = Some(text.clone());
                seen = Some(text);
                told
            }
            Ok(text) => {
                seen = Some(text);
                Ok(())
            }
        };
        if told.is_err() {
            return;
        }
    }
}

async fn tell(path: &Path, text: &[u8], teller: &mut Teller) -> Result<(), Gone> {
    match parse(text, Teller::MOST) {
        Ok(listing) => teller.found(listing).await,
        Err(error) => teller.stale(format!("{}: {error}", path.display())).await,
    }
}

async fn read_off_thread(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    read.unwrap_or_else(|error| Err(error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // Whoever opens a pipe waits for who writes into it, for ever if need be.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{} is greater than {} MiB: that is no list of members",
            path.display(),
            MAX_BYTES / 1024 / 1024
        ));
    }
    Ok(bytes)
}
