//! The demo's backends as processes: started, watched, started again some time after somebody killed them.
//!
//! Each holds the reading end of a pipe as its standard input and ends when that closes, so none outlives the
//! demo however it ends. Each is in a process group of its own: Ctrl-C is for the demo, which first finishes
//! what runs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a killed backend stays away.
pub(super) const AWAY: Duration = Duration::from_secs(10);
/// How long a backend may take to end once its input is closed.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Children {
    all: Vec<Backend>,
}

/// One of them.
pub(super) struct Backend {
    /// Shown on its pages.
    pub(super) name: String,
    /// Where it listens, also after it was started again.
    pub(super) address: SocketAddr,
    state: State,
}

enum State {
    Running(Child),
    /// Until then.
    Away(Instant),
}

impl Children {
    /// Starts as many, each on a free port.
    pub(super) fn start(count: usize) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for number in 1..=count {
            let name = format!("backend-{number}");
            let (child, address) = spawn(&name, SocketAddr::from(([127, 0, 0, 1], 0)))?;
            all.push(Backend {
                name,
                address,
                state: State::Running(child),
            });
        }
        Ok(Self { all })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|b| b.address).collect()
    }

    /// The one that listens there.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Backend> {
        self.all.iter().find(|b| b.address == address)
    }

    /// The first that runs.
    pub(super) fn first_running(&self) -> Option<&Backend> {
        self.all.iter().find(|b| b.pid().is_some())
    }

    /// Notices who has ended, and starts those again that were away for long enough.
    pub(super) fn look_after(&mut self) {
        for backend in &mut self.all {
            match &mut backend.state {
                State::Running(child) => {
                    // An error would mean that it is no child of ours: then it is not running either.
                    if !matches!(child.try_wait(), Ok(None)) {
                        backend.state = State::Away(Instant::now() + AWAY);
                    }
                }
                State::Away(until) if *until <= Instant::now() => {
                    // Its port may be taken by now; then it is tried again later.
                    backend.state = match spawn(&backend.name, backend.address) {
                        Ok((child, _)) => State::Running(child),
                        Err(_) => State::Away(Instant::now() + AWAY),
                    };
                }
                State::Away(_) => {}
            }
        }
    }

    /// Ends them all: closes their input, and kills whom that does not move.
    pub(super) fn stop(self) {
        let mut running: Vec<Child> = self.all.into_iter().filter_map(Backend::into_child).collect();
        for child in &mut running {
            drop(child.stdin.take());
        }
        let deadline = Instant::now() + PATIENCE;
        for child in &mut running {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= deadline {
                    // It may have ended in this very moment.
                    let _ = child.kill();
                    let _ = child.wait();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Backend {
    /// Its process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Running(child) => Some(child.id()),
            State::Away(_) => None,
        }
    }

    /// How long it is still away.
    pub(super) fn back_in(&self) -> Option<Duration> {
        match &self.state {
            State::Running(_) => None,
            State::Away(until) => Some(until.saturating_duration_since(Instant::now())),
        }
    }

    fn into_child(self) -> Option<Child> {
        match self.state {
            State::Running(child) => Some(child),
            State::Away(_) => None,
        }
    }
}

/// Starts one and waits for the address that it tells on its output.
fn spawn(name: &str, listen: SocketAddr) -> anyhow::Result<(Child, SocketAddr)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .args(["demo-backend", "--name", name, "--listen", &listen.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start a sample backend")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match line.trim().parse() {
        Ok(address) => Ok((child, address)),
        Err(_) => {
            // It has said why on its standard error; it must not stay behind as a zombie.
            let _ = child.wait();
            Err(anyhow::anyhow!("sample backend {name} did not start on {listen}"))
        }
    }
}
