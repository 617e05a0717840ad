//! From `apply` to served: one etcd, an orchestrator with the API and twenty LB servers on this machine; changes one
//! after the other, each of which goes to all of them by etcd's watch.
//!
//! What is counted is what each node tells of itself: the time from the writing of a change (the API took the command)
//! to its being served there. It is read from `evenkeel_store_apply_seconds` once all is quiet again, so that nobody
//! who asks is in the way of what is measured.
//!
//! With the push broken etcd refuses the LB servers their watch, for good: their user may read what is declared key by
//! key, and not the whole of it, which is what they watch. They find each change by looking again.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::peers::{Lab, free_addresses};
use super::{Sample, usage};
use crate::process::{Server, command, find, output};

/// LB servers.
const NODES: usize = 20;
/// Changes of one measurement.
const CHANGES: usize = 100;
/// Changes of one measurement with the push broken: each takes as long as the slowest node needs to look again.
const CHANGES_FOUND: usize = 20;
/// Pause after a change, before anybody is asked: longer than a change has ever taken.
const QUIET: Duration = Duration::from_millis(250);
/// The budget's bound, in milliseconds.
const BOUND_MS: f64 = 100.0;
/// The same with the push broken.
const BOUND_FOUND_MS: f64 = 36_000.0;
/// After this a change is taken for lost.
const PATIENCE: Duration = Duration::from_secs(40);
/// The metric.
const DELAY: &str = "evenkeel_store_apply_seconds";

/// How the nodes learn of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// etcd's watch.
    Push,
    /// Looking again, because etcd refuses the watch.
    Looking,
}

/// Measures one cluster, started for it.
///
/// # Errors
/// When a program does not start, or a change is not served.
pub(super) fn measure(lab: &Lab, by: By) -> Result<Sample> {
    let (changes, bound) = match by {
        By::Push => (CHANGES, BOUND_MS),
        By::Looking => (CHANGES_FOUND, BOUND_FOUND_MS),
    };
    // They take connections, and so pass their checks.
    let backends: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = backends
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    let mut cluster = Cluster::start(lab, by)?;
    let pids: Vec<u32> = cluster.nodes.iter().map(|node| node.server.pid()).collect();
    // The first one opens listeners, and warms up.
    cluster.change(&addresses)?;
    cluster.times()?;
    let (mut times, mut used) = (Vec::new(), usage::Ticks::default());
    for change in 0..changes {
        let before = usage::ticks(&pids)?;
        cluster.change(addresses.get(..=change % 3).unwrap_or_default())?;
        let after = usage::ticks(&pids)?;
        used.user += after.user - before.user;
        used.system += after.system - before.system;
        times.extend(cluster.times()?);
    }
    if times.len() != changes * NODES {
        bail!("{} changes of {} were counted", times.len(), changes * NODES);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0.0) * 1e6;
    let within = times.iter().filter(|time| **time < bound / 1000.0).count();
    let each = |ticks: u64| ticks as f64 / usage::TICKS_PER_SECOND * 1e6 / (changes * NODES) as f64;
    Ok(Sample {
        user_us: each(used.user),
        system_us: each(used.system),
        p50_us: at(50),
        p99_us: at(99),
        longest_us: times.last().copied().unwrap_or(0.0) * 1e6,
        in_time: within as f64 / times.len() as f64 * 100.0,
        resident_kib: usage::resident_kib(&pids) / NODES as u64,
        ..Sample::default()
    })
}

/// One etcd, one orchestrator, and the LB servers.
struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    console: Node,
    nodes: Vec<Node>,
    /// What the nodes have told so far.
    told: Vec<Told>,
    _etcd: Server,
}

struct Node {
    server: Server,
    admin: SocketAddr,
}

/// What a node tells of itself.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The revision that it serves.
    served: f64,
    /// Number and sum of the times that changes took.
    count: f64,
    sum: f64,
}

impl Cluster {
    fn start(lab: &Lab, by: By) -> Result<Self> {
        let folder = lab.dir.join("push");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (etcd, endpoint) = start_etcd(&folder)?;
        let password = folder.join("password");
        fs::write(&password, PASSWORD)?;
        if by == By::Looking {
            refuse_watches(&endpoint)?;
        }
        let start = |name: &str, roles: &str, bind: &str, user: &str| -> Result<Node> {
            let [admin] = free_addresses()?;
            let user = match by {
                By::Push => String::new(),
                By::Looking => format!("user = \"{user}\"\npassword_file = \"{}\"\n", password.display()),
            };
            let text = format!(
                "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{bind}\"\nthreads = 1\ndata_dir = \"{}\"\n\
                 [admin]\nlisten = \"{admin}\"\n[store]\nkind = \"etcd\"\nendpoints = [\"{endpoint}\"]\n{user}",
                folder.join(name).display()
            );
            let config = folder.join(format!("{name}.toml"));
            fs::write(&config, text)?;
            let mut program = command(&lab.evenkeel.to_string_lossy(), &["run", "--config"]);
            let server = Server::start(name, program.arg(config), folder.join(format!("{name}.log")))?;
            Ok(Node { server, admin })
        };
        let console = start("orch-1", r#"["orchestrator", "console"]"#, "127.0.0.1", "root")?;
        let node = |n: usize| start(&format!("lb-{n}"), r#"["lb"]"#, &format!("127.0.88.{n}"), "node");
        let nodes: Vec<Node> = (1..=NODES).map(node).collect::<Result<_>>()?;
        let [listen] = free_addresses()?;
        let mut cluster = Self {
            program: lab.evenkeel.clone(),
            folder,
            port: listen.port(),
            told: vec![Told::default(); nodes.len()],
            console,
            nodes,
            _etcd: etcd,
        };
        let watching = match by {
            By::Push => cluster.nodes.iter_mut(),
            By::Looking => [].iter_mut(),
        };
        for node in watching.chain([&mut cluster.console]) {
            // Who has not asked the store yet would read what others are told.
            let url = format!("http://{}/metrics", node.admin);
            let hears = || output(&mut command("curl", &["--silent", "--fail", &url]));
            node.server
                .wait_until(|| hears().is_ok_and(|text| text.contains("\nevenkeel_store_connected 1")))?;
        }
        Ok(cluster)
    }

    /// Makes a change, as an operator does.
    fn change(&self, backends: &[SocketAddr]) -> Result<()> {
        let backends: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
        let file = self.folder.join("shop.toml");
        fs::write(
            &file,
            format!(
                "[load_balancers.shop]\nlisten = \"0.0.0.0:{}\"\nbackend_servers = [{}]\n",
                self.port,
                backends.join(", ")
            ),
        )?;
        let admin = self.console.admin.to_string();
        let arguments = [
            "apply",
            "--admin",
            &admin,
            "--by",
            "bench",
            &file.to_string_lossy(),
        ];
        output(&mut command(&self.program.to_string_lossy(), &arguments))?;
        std::thread::sleep(QUIET);
        Ok(())
    }

    /// How long the last change took, in seconds, on each node that counted it.
    fn times(&mut self) -> Result<Vec<f64>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.nodes.iter().map(Node::told).collect::<Result<Vec<_>>>()?;
            let pairs = || now.iter().zip(&self.told);
            if pairs().all(|(now, before)| now.served > before.served) {
                let told = pairs().filter(|(now, before)| now.count > before.count);
                let times = told.map(|(now, before)| now.sum - before.sum).collect();
                self.told = now;
                return Ok(times);
            }
            if Instant::now() > deadline {
                bail!(
                    "a change is not served everywhere after {PATIENCE:?}: {now:?} after {:?}",
                    self.told
                );
            }
            std::thread::sleep(QUIET);
        }
    }
}

impl Node {
    fn told(&self) -> Result<Told> {
        let url = format!("http://{}/metrics", self.admin);
        let text = output(&mut command(
            "curl",
            &["--silent", "--show-error", "--fail", &url],
        ))?;
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = line.with_context(|| format!("{url} has no {name}"))?;
            Ok::<f64, anyhow::Error>(value.parse()?)
        };
        Ok(Told {
            served: value("evenkeel_store_served_revision")?,
            count: value(&format!("{DELAY}_count"))?,
            sum: value(&format!("{DELAY}_sum"))?,
        })
    }
}

/// Of all users.
const PASSWORD: &str = "bench";

/// Users of etcd: `root`, and `node`, who may do all that an LB server does but watch what is declared.
fn refuse_watches(endpoint: &str) -> Result<()> {
    let etcdctl = find("etcdctl").context("etcdctl is missing")?;
    for words in [
        "user add root:bench",
        "user grant-role root root",
        "user add node:bench",
        "role add node",
        "role grant-permission node --prefix=true read /evenkeel/config/head",
        "role grant-permission node --prefix=true read /evenkeel/config/log/",
        "role grant-permission node --prefix=true read /evenkeel/config/objects/",
        "role grant-permission node readwrite /evenkeel/ /evenkeel/config/",
        "role grant-permission node readwrite /evenkeel/config0 /evenkeel0",
        "user grant-role node node",
        "auth enable",
    ] {
        let mut command = command(&etcdctl.to_string_lossy(), &["--endpoints", endpoint]);
        output(command.env("ETCDCTL_API", "3").args(words.split(' ')))?;
    }
    Ok(())
}

fn start_etcd(folder: &Path) -> Result<(Server, String)> {
    let [client, peer] = free_addresses()?.map(|address: SocketAddr| format!("http://{address}"));
    let mut etcd = command(&find("etcd").context("etcd is missing")?.to_string_lossy(), &[]);
    etcd.arg("--name=bench")
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=bench={peer}"))
        .arg("--logger=zap");
    let mut server = Server::start("etcd", &mut etcd, folder.join("etcd.log"))?;
    let health = format!("{client}/health");
    server.wait_until(|| output(&mut command("curl", &["--silent", "--fail", &health])).is_ok())?;
    Ok((server, client))
}
