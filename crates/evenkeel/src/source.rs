//! Where the config comes from, and when it is read again.
//!
//! A file is watched by reading it once a second and comparing bytes. That needs no kernel interface, and it sees
//! every way in which files change: written in place, replaced by rename, or a symbolic link that is switched
//! (Kubernetes). A change counts when two successive reads agree, so that a half-written file is not taken for
//! the new one. SIGHUP and the API do not wait for that: whoever asks says that the file is ready.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::config::{Config, MAX_PAGE_BYTES};
use model::diagnostic::Diagnostic;
use model::parse::Checked;
use model::status::ReloadStatus;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Time between two looks at the file.
const POLL: Duration = Duration::from_secs(1);
/// Greatest config file read.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// Where the config comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// This file.
    File(PathBuf),
    /// Flags; there is nothing to read again.
    CommandLine,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Flags that stand above what the file says, also after each reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Instead of `admin.listen`.
    pub(crate) admin: Option<SocketAddr>,
    /// Instead of `node.data_dir`.
    pub(crate) data_dir: Option<PathBuf>,
}

/// A wish that the file be read again now.
pub(crate) struct Request {
    /// Told the outcome, if someone waits for it.
    pub(crate) reply: Option<Reply>,
}

/// Where to tell what became of a reload.
pub(crate) type Reply = oneshot::Sender<ReloadStatus>;

/// A config as read, valid or not.
pub(crate) struct Candidate {
    /// The config, or every error.
    pub(crate) result: Result<Config, Vec<String>>,
    /// Told the outcome.
    pub(crate) reply: Option<Reply>,
}

/// Reads a config file.
///
/// # Errors
/// When it cannot be read, or is too big.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = read_up_to(path, MAX_CONFIG_BYTES + 1)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format!(
            "{} is greater than {} MiB: that is no config file",
            path.display(),
            MAX_CONFIG_BYTES / 1024 / 1024
        ));
    }
    Ok(text)
}

fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Text to a valid config with the flags above it.
///
/// # Errors
/// Every error, each in full.
pub(crate) fn parse(text: &[u8], source: &Source, flags: &Flags) -> Result<Config, Vec<String>> {
    let text = std::str::from_utf8(text)
        .map_err(|error| vec![format!("{source}: byte {} is not UTF-8", error.valid_up_to())])?;
    let (config, warnings) = understand(text, source, flags, read_page)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// The same in silence: the config, whose files `read` reads, and what is odd about it.
///
/// # Errors
/// Every error, each in full.
pub(crate) fn understand(
    text: &str,
    source: &Source,
    flags: &Flags,
    read: impl FnMut(&Path) -> Result<Vec<u8>, String>,
) -> Result<(Config, Vec<Diagnostic>), Vec<String>> {
    let checked = diagnose(text, source, read)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let config = flags.apply(checked.config).map_err(|error| vec![error])?;
    Ok((config, checked.warnings))
}

/// Text to a valid config.
///
/// # Errors
/// Every error with its place.
fn diagnose(
    text: &str,
    source: &Source,
    read: impl FnMut(&Path) -> Result<Vec<u8>, String>,
) -> Result<Checked, Vec<Diagnostic>> {
    let (checked, problems) = with_pages(text, source, read)?;
    match problems.is_empty() {
        true => Ok(checked),
        false => Err(source.placed(text, problems)),
    }
}

/// Text to a valid config, and which of the files could not be read (by `read`) whose content is a part of it.
///
/// # Errors
/// Every error with its place.
pub(crate) fn with_pages(
    text: &str,
    source: &Source,
    read: impl FnMut(&Path) -> Result<Vec<u8>, String>,
) -> Result<(Checked, Problems), Vec<Diagnostic>> {
    let name = source.to_string();
    let mut checked = match source.is_json() {
        true => model::parse::check_json(text, &name),
        false => model::parse::check_toml(text, &name),
    }?;
    let problems = checked.config.load_files(read);
    Ok((checked, problems))
}

/// What is wrong outside of the text: paths of keys, each with the cause.
pub(crate) type Problems = Vec<(String, String)>;

impl Source {
    /// A file whose name ends in `.json` is JSON, everything else TOML.
    fn is_json(&self) -> bool {
        matches!(self, Self::File(path) if path.extension().is_some_and(|e| e == "json"))
    }

    /// The problems in their places of the text that was read from here.
    pub(crate) fn placed(&self, text: &str, problems: Problems) -> Vec<Diagnostic> {
        model::parse::place(text, self.is_json(), &self.to_string(), problems)
    }
}

/// A file whose content is a part of the config. Who asks what a config would change names it, too: a pipe may wait
/// for ever to be opened, and to open a device may do something.
pub(crate) fn read_page(path: &Path) -> Result<Vec<u8>, String> {
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(format!("{} is not a regular file", path.display()));
    }
    read_up_to(path, MAX_PAGE_BYTES + 1)
}

impl Flags {
    fn apply(&self, mut config: Config) -> Result<Config, String> {
        if let Some(admin) = self.admin {
            config.admin.listen = admin;
        }
        if let Some(data_dir) = &self.data_dir {
            config.node.data_dir = Some(data_dir.clone());
        }
        // The parser refuses this for the file's own address; the flag must not be a way around it.
        if let Some(lacks) = config.admin.lacks_on(config.admin.listen) {
            return Err(format!(
                "--admin {} is not a loopback address: the admin API may not listen there without {lacks} \
                 (`tls`, `tokens` and `certificates` of `[admin]` in the config file)",
                config.admin.listen
            ));
        }
        Ok(config)
    }
}

/// Serves requests and watches the file, until the hub or everyone who may ask is gone. `taken` is what the
/// running config was read from.
pub(crate) async fn watch(
    source: Source,
    flags: Flags,
    taken: Vec<u8>,
    mut requests: mpsc::Receiver<Request>,
    hub: mpsc::Sender<Candidate>,
) {
    let mut seen = Seen::new(taken);
    let mut missing = false;
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            request = requests.recv() => match request {
                Some(request) => Some(request),
                None => return,
            },
            _ = ticks.tick() => None,
        };
        let Source::File(path) = &source else {
            if let Some(reply) = request.and_then(|r| r.reply) {
                let nothing = "configured on the command line: there is no file to read again";
                let _ = reply.send(ReloadStatus {
                    at: crate::now(),
                    ok: true,
                    messages: vec![nothing.to_owned()],
                });
            }
            continue;
        };
        let text = read_off_thread(path.clone()).await;
        let candidate = match (request, text) {
            (Some(request), Ok(text)) => {
                let result = parse(&text, &source, &flags);
                seen.take(text);
                Some(Candidate {
                    result,
                    reply: request.reply,
                })
            }
            (Some(request), Err(error)) => Some(Candidate {
                result: Err(vec![error]),
                reply: request.reply,
            }),
            (None, Ok(text)) => {
                missing = false;
                let changed = seen.look(text);
                changed.then(|| Candidate {
                    result: parse(&seen.taken, &source, &flags),
                    reply: None,
                })
            }
            (None, Err(error)) => {
                if !std::mem::replace(&mut missing, true) {
                    tracing::warn!("{error}; the config in force stays, and the file is looked for again");
                }
                None
            }
        };
        if let Some(candidate) = candidate
            && hub.send(candidate).await.is_err()
        {
            return;
        }
    }
}

async fn read_off_thread(path: PathBuf) -> Result<Vec<u8>, String> {
    tokio::task::spawn_blocking(move || read(&path))
        .await
        .map_err(|error| error.to_string())?
}

/// What was last taken for the file's content, and what may become it.
#[derive(Debug)]
struct Seen {
    taken: Vec<u8>,
    candidate: Option<Vec<u8>>,
}

impl Seen {
    fn new(taken: Vec<u8>) -> Self {
        Self {
            taken,
            candidate: None,
        }
    }

    /// Takes a content without waiting for a second look.
    fn take(&mut self, text: Vec<u8>) {
        self.taken = text;
        self.candidate = None;
    }

    /// One look; true when a new content was there twice in a row and is now the taken one.
    fn look(&mut self, text: Vec<u8>) -> bool {
        if text == self.taken {
            self.candidate = None;
            return false;
        }
        if self.candidate.as_ref() == Some(&text) {
            self.take(text);
            return true;
        }
        self.candidate = Some(text);
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// An editor writes the file in two steps: only the whole one counts, and once.
    #[test]
    fn a_change_counts_when_two_looks_agree() {
        let mut seen = Seen::new(b"one".to_vec());
        let looks = ["one", "tw", "two", "two", "two"];
        let changes = looks.map(|text| seen.look(text.as_bytes().to_vec()));
        assert_eq!(changes, [false, false, false, true, false]);
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        let mut seen = Seen::new(b"one".to_vec());
        let changes = ["two", "one", "two", "one"].map(|text| seen.look(text.as_bytes().to_vec()));
        assert_eq!(changes, [false; 4]);
    }

    /// SIGHUP read it already; the next look must not reload once more.
    #[test]
    fn what_was_taken_on_request_is_no_change_later() {
        let mut seen = Seen::new(b"one".to_vec());
        seen.take(b"two".to_vec());
        assert!(!seen.look(b"two".to_vec()));
        assert!(!seen.look(b"two".to_vec()));
    }

    /// Scenario: somebody who may ask for a plan names a pipe that nobody writes to, and a device, as the page of an
    /// error. The thread that reads must not wait for it.
    #[test]
    fn a_page_is_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            let text = format!(
                "[load_balancers.x]\nbackend_servers = [\"10.0.0.1:1\"]\n[[load_balancers.x.routes]]\n\
                 pool = \"default\"\nerror_pages = {{ \"5xx\" = \"{}\" }}\n",
                path.display()
            );
            let errors = understand(&text, &Source::CommandLine, &Flags::default(), read_page).unwrap_err();
            assert!(errors[0].contains("is not a regular file"), "{errors:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_too_big_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evenkeel.toml");
        assert!(read(&path).unwrap_err().starts_with("cannot read"));
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_CONFIG_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err().ends_with("that is no config file"));
        file.set_len(7).unwrap();
        assert_eq!(read(&path).unwrap(), vec![0; 7]);
    }
}
