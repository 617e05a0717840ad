//! A process of a test, and waiting for what it does.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The longest that anything is waited for; far beyond what it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The first of the ports that [`free_ports`] gives, and the first after them.
const PORTS: std::ops::Range<u16> = 10_000..18_000;

/// Ports of 127.0.0.1 that are free now. They may be taken by the time they are used: then others are tried.
///
/// They lie below the range from which Linux gives out ports (it begins at 32768), so that no connection to another
/// server takes the port of one that was killed and is started again.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in PORTS {
        if held.len() == count {
            break;
        }
        // Each process begins elsewhere: 61 ports on, so that neighbours by number do not meet.
        let turn = std::process::id()
            .wrapping_mul(61)
            .wrapping_add(GIVEN.fetch_add(1, Relaxed));
        let port = PORTS.start + (turn % u32::from(PORTS.end - PORTS.start)) as u16;
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    assert_eq!(held.len(), count, "too few free ports");
    held.iter()
        .map(|port| port.local_addr().unwrap().port())
        .collect()
}

/// Waits until `condition` gives something.
///
/// # Panics
/// When it has not within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20)); // condition poll
    }
}

/// A server with its log; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    options: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    pub(crate) fn start(program: &'static str, options: Vec<String>, log: &Path) -> Self {
        let child = spawn(program, &options, log);
        Self {
            program,
            options,
            log: log.to_owned(),
            child,
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after a crash, with the same options.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.program, &self.options, &self.log);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether its log has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(words)
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

fn spawn(program: &str, options: &[String], log: &Path) -> Child {
    let output = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(program);
    command
        .args(options)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let child = command.spawn();
    child.unwrap_or_else(|error| panic!("{program} must be installed (cargo xtask tools): {error}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
