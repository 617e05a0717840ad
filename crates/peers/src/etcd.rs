//! Members of etcd that form a cluster.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_ports, wait_until};

/// A cluster of etcd. Its members end, and their data goes, when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    /// The members.
    pub members: Vec<Member>,
    scheme: &'static str,
    /// The data; goes with it.
    _folder: TempDir,
}

impl Etcd {
    /// Starts `count` members, and waits until they serve.
    #[must_use]
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// With further arguments for each member.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(count: usize, arguments: &[String]) -> Self {
        for _ in 0..5 {
            let mut cluster = Self::launch(count, arguments);
            let up = wait_until("a cluster of etcd", || {
                if cluster
                    .members
                    .iter_mut()
                    .any(|member| member.process.has_ended())
                {
                    return Some(false);
                }
                let ready = |member: &Member| member.process.says("serving client traffic");
                cluster.members.iter().all(ready).then_some(true)
            });
            if up {
                return cluster;
            }
        }
        panic!("etcd does not start");
    }

    fn launch(count: usize, arguments: &[String]) -> Self {
        let folder = TempDir::new().unwrap();
        let tls = arguments
            .iter()
            .any(|argument| argument.starts_with("--cert-file"));
        let scheme = if tls { "https" } else { "http" };
        let ports = free_ports(2 * count);
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[2 * n + 1]);
        let all: Vec<String> = (0..count).map(|n| format!("n{n}={}", peer(n))).collect();
        let members = (0..count).map(|n| {
            let client = format!("{scheme}://127.0.0.1:{}", ports[2 * n]);
            let mut options: Vec<String> = vec![
                format!("--name=n{n}"),
                format!("--data-dir={}", folder.path().join(format!("n{n}")).display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={}", peer(n)),
                format!("--initial-advertise-peer-urls={}", peer(n)),
                format!("--initial-cluster={}", all.join(",")),
                "--logger=zap".to_owned(),
            ];
            options.extend_from_slice(arguments);
            let log = folder.path().join(format!("n{n}.log"));
            Member {
                url: client,
                process: Process::start("etcd", options, &log),
            }
        });
        let members = members.collect();
        Self {
            members,
            scheme,
            _folder: folder,
        }
    }

    /// The URLs of all members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// The member at `place`, a host and a port.
    ///
    /// # Panics
    /// When there is none.
    pub fn member(&mut self, place: &str) -> &mut Member {
        let url = format!("{}://{place}", self.scheme);
        self.members.iter_mut().find(|member| member.url == url).unwrap()
    }

    /// Runs `etcdctl` and gives what it printed. It gives a member a few seconds only: again, while one starts or stalls.
    ///
    /// # Panics
    /// When it fails for good.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        wait_until(&format!("etcdctl {arguments:?}"), || {
            let mut command = Command::new("etcdctl");
            command
                .env("ETCDCTL_API", "3")
                .arg(format!("--endpoints={}", self.members[0].url))
                .args(arguments);
            let output = command.output().unwrap();
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            if !output.status.success() {
                eprintln!("etcdctl {arguments:?}: {text}");
            }
            output.status.success().then_some(text)
        })
    }
}

/// A process of etcd; ends when it is dropped.
#[derive(Debug)]
pub struct Member {
    /// Where clients reach it.
    pub url: String,
    process: Process,
}

impl Member {
    /// What it counts under this name.
    ///
    /// # Panics
    /// When it does not tell.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let address = self.url.trim_start_matches("http://");
        let mut etcd = TcpStream::connect(address).unwrap();
        write!(etcd, "GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").unwrap();
        let mut told = String::new();
        etcd.read_to_string(&mut told).unwrap();
        let mut lines = told.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse::<f64>().unwrap() as u64
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// Starts it again after a crash, with the same data.
    pub fn start_again(&mut self) {
        self.process.start_again();
    }

    /// Loses all its data; it must have crashed.
    ///
    /// # Panics
    /// When there is none.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.process.log().with_extension("")).unwrap();
    }

    /// Stops it as a machine that hangs would: its connections stay open.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}
