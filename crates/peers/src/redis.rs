//! A Redis.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_ports, wait_until};

/// A Redis without a memory on disk.
#[derive(Debug)]
pub struct Redis {
    /// Its port on 127.0.0.1.
    pub port: u16,
    process: Process,
    /// Log; goes with it.
    _folder: TempDir,
}

impl Redis {
    /// Starts one and waits until it serves.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that wants this password of its default user.
    #[must_use]
    pub fn with_password(password: &str) -> Self {
        Self::start_with(&[format!("--requirepass {password}")])
    }

    /// One that speaks TLS and nothing else.
    #[must_use]
    pub fn with_tls(certificate: &Path, key: &Path, authority: &Path) -> Self {
        Self::start_with(&[
            "--tls".to_owned(),
            format!("--tls-cert-file {}", certificate.display()),
            format!("--tls-key-file {}", key.display()),
            format!("--tls-ca-cert-file {}", authority.display()),
            "--tls-auth-clients no".to_owned(),
        ])
    }

    fn start_with(more: &[String]) -> Self {
        for _ in 0..5 {
            let mut started = Self::launch(more);
            let up = wait_until("a Redis", || match started.process.has_ended() {
                true => Some(false),
                false => started
                    .process
                    .says("Ready to accept connections")
                    .then_some(true),
            });
            if up {
                return started;
            }
        }
        panic!("redis-server does not start");
    }

    fn launch(more: &[String]) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_ports(1)[0];
        let tls = more.iter().any(|option| option == "--tls");
        let ports = match tls {
            true => format!("--port 0 --tls-port {port}"),
            false => format!("--port {port}"),
        };
        let fixed = format!(
            "{ports} --bind 127.0.0.1 --save \"\" --appendonly no --dir {}",
            folder.path().display()
        );
        let more = more
            .iter()
            .filter(|option| *option != "--tls")
            .map(String::as_str);
        let options: Vec<String> = std::iter::once(fixed.as_str())
            .chain(more)
            .flat_map(|text| text.split(' ').map(|word| word.trim_matches('"').to_owned()))
            .collect();
        let process = Process::start("redis-server", options, &folder.path().join("log"));
        Self {
            port,
            process,
            _folder: folder,
        }
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// Starts it again after a crash.
    pub fn start_again(&mut self) {
        self.process.start_again();
    }

    /// Stops it in its tracks: its connections stay open and nothing is answered.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Runs `redis-cli` and gives what it printed.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
