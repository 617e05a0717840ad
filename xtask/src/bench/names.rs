//! A thousand names of the DNS: how soon all are known after a start, how many questions a name server gets then and
//! later, what they take of processor and memory.
//!
//! One Knot DNS has them all in one zone, and counts the questions that it is asked. The memory is compared with that of
//! a process that has the same pools with the same backends declared. Questions are counted, so those figures do not hang
//! on what else the machine does; processor time and the time until all are known do.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::peers::{Lab, free_addresses};
use super::{Sample, usage};
use crate::process::{Server, command, find, output};

/// Names; each has two addresses.
const NAMES: u64 = 1_000;
/// For how long each answer holds, in seconds.
const TTL_S: u64 = 10;
/// For so long the questions of a process that knows all names are counted: each name is looked up four times at least.
const WATCHED: Duration = Duration::from_secs(60);
/// Between two looks at what was counted.
const TICK: Duration = Duration::from_millis(100);
/// After this a name is taken for not found.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures one process with names, and one without.
///
/// # Errors
/// When a program does not start, or not all names become known.
pub(super) fn measure(lab: &Lab) -> Result<Sample> {
    let folder = lab.dir.join("names");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let dns = Dns::start(&folder)?;
    let declared = {
        let process = Process::start(lab, &folder, |n| {
            let [one, two] = addresses(n);
            format!("backend_servers = [\"{one}:80\", \"{two}:80\"]\n")
        })?;
        usage::resident_kib(&[process.server.pid()])
    };
    let began = Instant::now();
    let process = Process::start(lab, &folder, |n| {
        format!(
            "discovery = {{ dns = {{ name = \"app-{n}.bench\", port = 80, resolvers = \"{}\" }} }}\n",
            dns.address
        )
    })?;
    let mut counts = vec![(began, 0.0)];
    // Who asks the process itself is in the way of what is measured: not before the last name can be known.
    let both = 2.0 * NAMES as f64;
    while counts.last().is_none_or(|(_, asked)| *asked < both) || process.members()? < both {
        if began.elapsed() > PATIENCE {
            bail!("not all names are known after {PATIENCE:?}");
        }
        std::thread::sleep(TICK);
        counts.push((Instant::now(), dns.asked()?));
    }
    let known = began.elapsed();
    let pid = [process.server.pid()];
    let (before, since) = (usage::ticks(&pid)?, Instant::now());
    let mut later = vec![(since, dns.asked()?)];
    while since.elapsed() < WATCHED {
        std::thread::sleep(TICK);
        later.push((Instant::now(), dns.asked()?));
    }
    let (after, watched) = (usage::ticks(&pid)?, since.elapsed().as_secs_f64());
    let count = |of: Option<&(Instant, f64)>| of.map_or(0.0, |(_, asked)| *asked);
    let asked = count(later.last()) - count(later.first());
    let each = |ticks: u64| ticks as f64 / usage::TICKS_PER_SECOND * 1e6 / asked.max(1.0);
    let resident_kib = usage::resident_kib(&pid);
    Ok(Sample {
        user_us: each(after.user - before.user),
        system_us: each(after.system - before.system),
        known_ms: known.as_secs_f64() * 1e3,
        busiest_at_start: busiest(&counts),
        rate: asked / watched,
        busiest: busiest(&later),
        resident_kib,
        idle_bytes: resident_kib.saturating_sub(declared) as f64 * 1024.0 / NAMES as f64,
        ..Sample::default()
    })
}

/// The most questions in a second, or in a little more, as it is looked at; 0 when there was no whole second.
fn busiest(counts: &[(Instant, f64)]) -> f64 {
    let rate = |(number, (from, before)): (usize, &(Instant, f64))| {
        let mut later = counts.iter().skip(number);
        let (to, after) = later.find(|(to, _)| to.duration_since(*from) >= Duration::from_secs(1))?;
        Some((after - before) / to.duration_since(*from).as_secs_f64())
    };
    let rates = counts.iter().enumerate().filter_map(rate);
    rates.max_by(f64::total_cmp).unwrap_or(0.0)
}

/// The addresses of a name. Nobody asks for anything there.
fn addresses(n: u64) -> [String; 2] {
    [1, 2].map(|which| format!("10.{which}.{}.{}", n / 250, n % 250 + 1))
}

/// A load balancer with a pool for each name.
struct Process {
    server: Server,
    admin: SocketAddr,
}

impl Process {
    fn start(lab: &Lab, folder: &Path, members: impl Fn(u64) -> String) -> Result<Self> {
        let [listen, admin] = free_addresses()?;
        let mut text = format!(
            "[node]\nthreads = 1\ndata_dir = \"{}\"\n[admin]\nlisten = \"{admin}\"\n\
             [load_balancers.shop]\nlisten = \"{listen}\"\n",
            folder.join("data").display()
        );
        for n in 0..NAMES {
            write!(
                text,
                "[[load_balancers.shop.routes]]\nmatch = {{ path = \"/{n}/\" }}\npool = \"p-{n}\"\n\
                 [load_balancers.shop.pools.p-{n}]\nhealth = false\n{}",
                members(n)
            )?;
        }
        let config = folder.join("evenkeel.toml");
        fs::write(&config, text)?;
        let mut program = command(&lab.evenkeel.to_string_lossy(), &["run", "--config"]);
        let log = folder.join("evenkeel.log");
        let server = Server::start("evenkeel", program.arg(&config), log)?;
        let mut process = Self { server, admin };
        let url = format!("http://{admin}/readyz");
        process
            .server
            .wait_until(|| output(&mut command("curl", &["--silent", "--fail", &url])).is_ok())?;
        Ok(process)
    }

    /// Members that were found by name.
    fn members(&self) -> Result<f64> {
        let url = format!("http://{}/metrics", self.admin);
        let text = output(&mut command(
            "curl",
            &["--silent", "--show-error", "--fail", &url],
        ))?;
        let found = text
            .lines()
            .filter(|line| line.starts_with("evenkeel_pool_members{") && line.contains("source=\"dns\""));
        let values = found.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }
}

/// The name server.
struct Dns {
    address: SocketAddr,
    config: String,
    _server: Server,
}

impl Dns {
    fn start(folder: &Path) -> Result<Self> {
        let [address] = free_addresses()?;
        let path = folder.display();
        let zone: String = (0..NAMES)
            .flat_map(|n| addresses(n).map(|address| format!("app-{n} {TTL_S} A {address}\n")))
            .collect();
        let soa = format!("@ {TTL_S} SOA ns hostmaster 1 3600 600 86400 {TTL_S}");
        fs::write(
            folder.join("bench.zone"),
            format!("$ORIGIN bench.\n{soa}\n@ {TTL_S} NS ns\nns {TTL_S} A 127.0.0.1\n{zone}"),
        )?;
        let config = folder.join("knot.conf").to_string_lossy().into_owned();
        let (ip, port) = (address.ip(), address.port());
        fs::write(
            &config,
            format!(
                "server:\n  rundir: \"{path}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
                 database:\n  storage: \"{path}/db\"\n\
                 template:\n- id: default\n  global-module: mod-stats\n\
                 zone:\n- domain: bench\n  storage: \"{path}\"\n  file: bench.zone\n  zonefile-sync: -1\n  journal-content: none\n"
            ),
        )?;
        let program = find("knotd").context("knotd is missing")?;
        let mut program = command(&program.to_string_lossy(), &["-c", &config]);
        let mut server = Server::start("knotd", &mut program, folder.join("knot.log"))?;
        let status =
            || knotc(&config, &["zone-status", "bench"]).is_ok_and(|said| said.contains("serial: 1"));
        server.wait_until(status)?;
        Ok(Self {
            address,
            config,
            _server: server,
        })
    }

    /// Questions so far.
    fn asked(&self) -> Result<f64> {
        let said = knotc(&self.config, &["stats", "mod-stats.request-protocol"])?;
        // `mod-stats.request-protocol[udp4] = 2000`, a line for each protocol that was used.
        let values = said
            .lines()
            .filter_map(|line| line.rsplit_once(" = ")?.1.parse::<f64>().ok());
        Ok(values.sum())
    }
}

fn knotc(config: &str, arguments: &[&str]) -> Result<String> {
    let program = find("knotc").context("knotc is missing")?;
    let arguments = [&["-c", config], arguments].concat();
    output(&mut command(&program.to_string_lossy(), &arguments))
}
