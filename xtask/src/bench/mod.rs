//! `cargo xtask bench`: Evenkeel beside its peers, on this machine, under the same load.
//!
//! The proxy has one core, the load generator and two nginx origins have another. The figure of merit is the
//! processor time of the proxy per request: unlike requests per second it does not depend on how fast the load's
//! side is. Rounds are interleaved (A B C A B C …) so that a machine that gets slower in between does so for all;
//! the median is what counts, the spread is shown. Never a test: a figure of time passes or fails nothing.

mod load;
mod names;
mod overload;
mod peers;
mod push;
mod table;
pub(crate) mod usage;
mod variant;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::process::{Server, command, output};
use crate::{counts, tools};
use peers::{Lab, Peer, Placement};
use variant::Variant;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every proxy once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only this row (may be given several times).
    #[arg(long, value_name = "ROW")]
    only: Vec<Row>,
    /// Which proxies to measure.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "evenkeel,nginx,haproxy,envoy,caddy"
    )]
    peers: Vec<Peer>,
    /// Also write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the tables into docs/performance.md.
    #[arg(long)]
    update_docs: bool,
    /// Install nothing; say what is missing instead.
    #[arg(long)]
    no_install: bool,
}

/// What is measured; one table each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Row {
    /// HTTP/1.1 keep-alive, responses of 128 bytes, 64 connections.
    Small,
    /// Responses of 1 MiB, 16 connections.
    Large,
    /// Latency at 70 % of nginx's own rate, responses of 128 bytes, 64 connections.
    Paced,
    /// As `small` with two workers on two cores.
    TwoWorkers,
    /// As `small` with a JSON access log.
    AccessLog,
    /// As `small` over TLS 1.3.
    Tls,
    /// TLS 1.3 handshakes (P-256) with one request each.
    Handshake,
    /// HTTP/2 over TLS, 32 connections of 32 streams.
    Http2,
    /// Memory per idle keep-alive connection after one request each.
    Idle,
    /// The same over TLS.
    IdleTls,
    /// Twice what the backends can do, beside HAProxy with `maxconn` and a queue.
    Overload,
    /// Time from `apply` to served on twenty LB servers that share an etcd.
    Push,
    /// The same with the push broken: etcd refuses the watch.
    PushBroken,
    /// A thousand names of the DNS: the start, and a minute after it.
    Names,
}

impl Row {
    const ALL: [Self; 14] = [
        Self::Small,
        Self::AccessLog,
        Self::Tls,
        Self::Handshake,
        Self::Http2,
        Self::Large,
        Self::Paced,
        Self::TwoWorkers,
        Self::Idle,
        Self::IdleTls,
        Self::Overload,
        Self::Push,
        Self::PushBroken,
        Self::Names,
    ];

    /// Whether this proxy is measured: under overload those that cap and queue.
    fn suits(self, peer: Peer) -> bool {
        match self {
            Self::Overload => matches!(peer, Peer::Evenkeel | Peer::Haproxy),
            Self::Push | Self::PushBroken | Self::Names => peer == Peer::Evenkeel,
            _ => self.variant().suits(peer),
        }
    }

    fn variant(self) -> Variant {
        Variant {
            tls: matches!(self, Self::Tls | Self::Handshake | Self::Http2 | Self::IdleTls),
            access_log: self == Self::AccessLog,
        }
    }
}

/// What one measurement of one proxy found; a row fills in what it measures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Processor time per request in the program, in microseconds.
    user_us: f64,
    /// Processor time per request in the kernel, in microseconds.
    system_us: f64,
    /// Requests per second.
    rate: f64,
    /// Median latency in microseconds.
    p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    p99_us: f64,
    /// The longest of them, in microseconds.
    longest_us: f64,
    /// Those within the budget's bound, in per cent.
    in_time: f64,
    /// Resident memory after the load, in KiB.
    resident_kib: u64,
    /// Growth of resident memory per idle connection, in bytes.
    idle_bytes: f64,
    /// Answers that were of use, as a share of what the backends can do, in per cent.
    goodput: f64,
    /// Requests that were refused, as a share of all, in per cent.
    refused: f64,
    /// Time until every name was known, in milliseconds.
    known_ms: f64,
    /// Most requests within a second, until then.
    busiest_at_start: f64,
    /// The same after that.
    busiest: f64,
}

/// All samples of one proxy in one row, in the order of the rounds.
#[derive(Serialize)]
pub(crate) struct Series {
    row: Row,
    proxy: &'static str,
    samples: Vec<Sample>,
    /// Why it was left out, when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
}

/// Connections of the rows with small responses.
const CONNECTIONS: u32 = 64;
/// Connections of the row with large responses.
const CONNECTIONS_LARGE: u32 = 16;
/// Idle connections that are opened.
const IDLE_CONNECTIONS: u32 = 4000;
/// Share of nginx's rate in [`Row::Paced`].
const PACE: f64 = 0.7;
/// Where one-worker proxies run, and where load and origins do.
const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// Runs the benchmark and prints one table per row.
///
/// # Errors
/// When a program is missing, a proxy does not start, or a run of load saw an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("the benchmark needs two cores: one for the proxy, one for load and origins");
    }
    tools::provide(tools::FOR_BENCH, !args.no_install)?;
    raise_file_limit()?;
    let lab = Lab::new(&counts::target_dir()?, &args.peers)?;
    let first = lab.start_origin("origin-a", LOAD_CORE)?;
    let second = lab.start_origin("origin-b", LOAD_CORE)?;
    let bench = Bench {
        lab: &lab,
        origins: [first.1, second.1],
        seconds: args.seconds,
    };
    let mut all: Vec<Series> = Vec::new();
    for row in Row::ALL
        .into_iter()
        .filter(|row| args.only.is_empty() || args.only.contains(row))
    {
        let series = bench.row(row, args)?;
        all.extend(series);
        println!("{}", table::of_row(row, &all));
    }
    let about = about(&lab, args)?;
    println!("{about}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "about": about, "series": all }))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.update_docs {
        table::update_docs(&about, &all)?;
    }
    Ok(())
}

struct Bench<'a> {
    lab: &'a Lab,
    origins: [SocketAddr; 2],
    seconds: u32,
}

impl Bench<'_> {
    /// Measures every proxy in interleaved rounds.
    fn row(&self, row: Row, args: &Args) -> Result<Vec<Series>> {
        let pace = if row == Row::Paced {
            self.rate_of_nginx()? * PACE
        } else {
            0.0
        };
        let suits = |peer: &&Peer| row.suits(**peer);
        let peers: Vec<Peer> = args.peers.iter().filter(suits).copied().collect();
        let mut series: Vec<Series> = peers
            .iter()
            .map(|peer| Series {
                row,
                proxy: peer.name(),
                samples: Vec::new(),
                left_out: None,
            })
            .collect();
        for round in 1..=args.rounds {
            for (peer, series) in peers
                .iter()
                .zip(&mut series)
                .filter(|(_, s)| s.left_out.is_none())
            {
                eprintln!("{row:?} round {round}/{}: {}", args.rounds, peer.name());
                match self.measure(row, *peer, pace) {
                    Ok(sample) => series.samples.push(sample),
                    // One that cannot keep the pace says so in the table; it ends nothing.
                    Err(error) if row == Row::Paced => series.left_out = Some(format!("{error:#}")),
                    Err(error) => return Err(error.context(format!("{} in row {row:?}", peer.name()))),
                }
            }
        }
        Ok(series)
    }

    /// One measurement on a fresh process.
    fn measure(&self, row: Row, peer: Peer, pace: f64) -> Result<Sample> {
        match row {
            Row::Overload => return overload::measure(self.lab, peer, self.seconds),
            Row::Push => return push::measure(self.lab, push::By::Push),
            Row::PushBroken => return push::measure(self.lab, push::By::Looking),
            Row::Names => return names::measure(self.lab),
            _ => {}
        }
        let two = row == Row::TwoWorkers;
        let place = if two {
            Placement {
                workers: 2,
                cores: "0,1",
            }
        } else {
            Placement {
                workers: 1,
                cores: PROXY_CORE,
            }
        };
        let load_cores = match std::thread::available_parallelism()?.get() {
            4.. if two => "2,3",
            _ if two => "0,1",
            _ => LOAD_CORE,
        };
        let (server, address) = self.lab.start(peer, self.origins, place, row.variant())?;
        if row == Row::Idle {
            return idle(&server, |count| load::idle(address, count));
        }
        if row == Row::IdleTls {
            return idle(&server, |count| load::idle_over_tls(address, count));
        }
        let (path, connections) = if row == Row::Large {
            ("large", CONNECTIONS_LARGE)
        } else {
            ("small", CONNECTIONS)
        };
        let url = format!("{}://{address}/{path}", row.variant().scheme());
        let run = |seconds| match row {
            Row::Http2 => load::http2(load_cores, &url, seconds),
            Row::Handshake => load::full(
                load_cores,
                &url,
                connections,
                seconds,
                &["-H", "Connection: close"],
            ),
            _ => load::full(load_cores, &url, connections, seconds, &[]),
        };
        // Warm: connections to the origins are open, caches are filled.
        run(1)?;
        let family = usage::family(server.pid());
        let before = usage::ticks(&family)?;
        let seen = if row == Row::Paced {
            load::paced(load_cores, &url, connections, self.seconds, pace, &self.lab.dir)?
        } else {
            run(self.seconds)?
        };
        let after = usage::ticks(&family)?;
        let per_request = |ticks: u64| ticks as f64 / usage::TICKS_PER_SECOND * 1e6 / seen.requests as f64;
        Ok(Sample {
            user_us: per_request(after.user - before.user),
            system_us: per_request(after.system - before.system),
            rate: seen.rate,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            resident_kib: usage::resident_kib(&family),
            ..Sample::default()
        })
    }

    /// What nginx reaches at full load, measured now.
    fn rate_of_nginx(&self) -> Result<f64> {
        Ok(self.measure(Row::Small, Peer::Nginx, 0.0)?.rate)
    }
}

/// Memory that idle connections take: a few first, so that what is set up once is not counted.
fn idle<Held>(server: &Server, open: impl Fn(usize) -> Result<Held>) -> Result<Sample> {
    let first = open(16)?;
    let family = usage::family(server.pid());
    let before = usage::resident_kib(&family);
    let many = open(IDLE_CONNECTIONS as usize)?;
    let after = usage::resident_kib(&family);
    drop((first, many));
    let grown = after.saturating_sub(before) * 1024;
    Ok(Sample {
        idle_bytes: grown as f64 / f64::from(IDLE_CONNECTIONS),
        resident_kib: after,
        ..Sample::default()
    })
}

/// Thousands of connections need as many open files, here and in the proxies, which inherit the limit.
fn raise_file_limit() -> Result<()> {
    let pid = std::process::id().to_string();
    output(&mut command("prlimit", &["--pid", &pid, "--nofile=16384:"]))
        .context("cannot raise the limit of open files to 16384")?;
    Ok(())
}

/// What was run, on what.
fn about(lab: &Lab, args: &Args) -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism()?;
    let versions: Vec<String> = args
        .peers
        .iter()
        .map(|p| Ok(format!("{} {}", p.name(), lab.version(*p)?)))
        .collect::<Result<_>>()?;
    Ok(format!(
        "{}: {} cores of {}, Linux {}. {}. {} rounds of {} s, interleaved; median (min–max).",
        output(&mut command("date", &["-u", "+%Y-%m-%d"]))?.trim(),
        cores,
        cpu.map_or("an unknown processor", |(_, name)| name.trim()),
        read("/proc/sys/kernel/osrelease").trim(),
        versions.join(", "),
        args.rounds,
        args.seconds,
    ))
}
