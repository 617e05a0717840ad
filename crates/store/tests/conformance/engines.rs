//! The two engines, and members of etcd as processes of our own.

use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_store::{EtcdSettings, Store, StoreError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The longest that anything is waited for; far beyond what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test for each engine out of each scenario.
macro_rules! both_engines {
    ($($scenario:ident),* $(,)?) => {
        mod with_embedded {
            $(#[test]
            fn $scenario() {
                crate::engines::embedded(super::$scenario);
            })*
        }
        mod with_etcd {
            $(#[test]
            fn $scenario() {
                crate::engines::etcd(super::$scenario);
            })*
        }
    };
}

/// Runs a scenario on a new embedded store.
pub(crate) fn embedded<F: Future<Output = ()>>(scenario: impl FnOnce(Store) -> F) {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    run(scenario(store));
}

/// Runs a scenario on a new etcd of one member.
pub(crate) fn etcd<F: Future<Output = ()>>(scenario: impl FnOnce(Store) -> F) {
    run(async {
        let cluster = Cluster::start(1).await;
        scenario(cluster.store()).await;
    });
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a call works that may fail while a store comes back.
pub(crate) async fn until_works<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    until(what, async || call().await.ok()).await
}

/// Members of etcd. They end, and their data goes, when it is dropped.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) scheme: &'static str,
    /// Its data; goes with it.
    _folder: TempDir,
}

impl Cluster {
    /// Starts `count` members that form a cluster, and waits until it works.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// With further arguments for each member.
    pub(crate) async fn start_with(count: usize, arguments: &[String]) -> Self {
        // A port that was free may be taken by the time etcd wants it: then others are tried.
        for _ in 0..5 {
            let mut cluster = Self::launch(count, arguments);
            let up = until("a cluster", async || {
                if cluster.members.iter_mut().any(Member::has_ended) {
                    return Some(false);
                }
                let ready = cluster
                    .members
                    .iter()
                    .all(|member| member.says("serving client traffic"));
                ready.then_some(true)
            })
            .await;
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
        let held: Vec<TcpListener> = (0..2 * count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<u16> = held
            .iter()
            .map(|port| port.local_addr().unwrap().port())
            .collect();
        drop(held);
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
            Member::launch(client, options, &folder.path().join(format!("n{n}.log")))
        });
        let members = members.collect();
        Self {
            members,
            scheme,
            _folder: folder,
        }
    }

    pub(crate) fn settings(&self) -> EtcdSettings {
        EtcdSettings::new(self.members.iter().map(|member| member.url.clone()).collect())
    }

    /// A handle that knows all members.
    pub(crate) fn store(&self) -> Store {
        Store::etcd(self.settings()).unwrap()
    }

    /// The member at `place`, as the status of a store tells it.
    pub(crate) fn member(&mut self, place: &str) -> &mut Member {
        let url = format!("{}://{place}", self.scheme);
        self.members.iter_mut().find(|member| member.url == url).unwrap()
    }

    /// Runs `etcdctl`, which must succeed.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
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
        assert!(output.status.success(), "etcdctl {arguments:?}: {text}");
        text
    }
}

/// A process of etcd; ends when it is dropped.
pub(crate) struct Member {
    pub(crate) url: String,
    options: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Member {
    fn launch(url: String, options: Vec<String>, log: &Path) -> Self {
        let child = spawn(&options, log);
        Self {
            url,
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

    /// Starts it again after a crash, with the same data.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.options, &self.log);
    }

    /// Loses all its data; it must have crashed.
    pub(crate) fn forget(&self) {
        std::fs::remove_dir_all(self.log.with_extension("")).unwrap();
    }

    /// Stops it as a machine that hangs would: its connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn says(&self, words: &str) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(words)
    }
}

fn spawn(options: &[String], log: &Path) -> Child {
    let output = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new("etcd");
    command
        .args(options)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    command
        .spawn()
        .expect("etcd must be installed: cargo xtask tools")
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
