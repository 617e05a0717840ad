//! `evenkeel demo`: three sample backends in processes of their own, a load balancer in front of them, a small
//! visitor, and a live view of what goes where. It is the real thing from the first byte: the same config parser,
//! the same server, the same admin API; only what stands around it is for show.

pub(crate) mod backend;
mod children;
mod screen;
mod visitor;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use self::children::Children;
use self::screen::Screen;
use self::visitor::Visitor;
use crate::cli::{DemoArgs, LogArgs, LogFormat};
use crate::commands;
use crate::logging;
use crate::server::{Server, Setup};
use crate::source::{self, Flags, Source};
use crate::table::Paint;

/// Sample backends.
const BACKENDS: usize = 3;
/// Ports tried after the one wanted.
const PORTS_TRIED: u16 = 100;
/// How often the demo looks after its backends.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let is_terminal = std::io::stdout().is_terminal();
    logging::init(&LogArgs {
        log_format: LogFormat::Text,
        // On a terminal the screen shows events itself, and log lines would tear it.
        log_level: if is_terminal { "off" } else { "warn" }.to_owned(),
    })?;
    let data = tempfile::tempdir().context("cannot make a temporary data directory")?;
    let mut children = Children::start(BACKENDS)?;
    let listen = free_address(args.listen)?;
    let admin = free_address(args.admin)?;
    let text = config(listen, admin, &children.addresses());
    let flags = Flags {
        admin: None,
        data_dir: Some(data.path().to_owned()),
    };
    let config = source::parse(text.as_bytes(), &Source::CommandLine, &flags)
        .map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
    let server = Server::start(Setup {
        config,
        source: Source::CommandLine,
        text: text.into_bytes(),
        flags,
    })?;
    let status = server.status();
    let visitor = (!args.no_visitor).then(|| Visitor::start(listen));
    let paint = Paint::for_terminal(is_terminal);
    let mut screen = Screen::new(is_terminal, paint, listen, server.admin());
    let (stop, stopped) = mpsc::channel::<()>();
    let show = std::thread::spawn(move || {
        let mut next = Instant::now();
        while matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            children.look_after();
            if Instant::now() >= next {
                let visits = visitor.as_ref().map(Visitor::visits);
                screen.show(&status(), &children, visits);
                next += screen.pause();
            }
        }
        if let Some(visitor) = visitor {
            visitor.stop();
        }
        children
    });
    let result = server.run();
    drop(stop);
    match show.join() {
        Ok(children) => children.stop(),
        Err(_) => bail!("the demo's view failed"),
    }
    result?;
    commands::print("demo ended\n")?;
    Ok(ExitCode::SUCCESS)
}

/// The demo's config: what a person would write, with quicker checks so that a watcher is not bored, and with a few
/// routes to try.
fn config(listen: SocketAddr, admin: SocketAddr, backends: &[SocketAddr]) -> String {
    let list = |backends: &[SocketAddr]| {
        let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
        backends.join(", ")
    };
    let pool = |name: &str, backends: &[SocketAddr]| {
        format!(
            "[load_balancers.demo.pools.{name}]\nbackend_servers = [{}]\nhealth_endpoint = \"/health\"\n\
             poll_frequency = \"1s\"\nslow_start = \"5s\"\n\n",
            list(backends)
        )
    };
    let route =
        |name: &str, lines: &str| format!("[[load_balancers.demo.routes]]\nname = \"{name}\"\n{lines}\n\n");
    // Two of them, so that one may die here too.
    let beta = backends.get(..2).unwrap_or(backends);
    [
        format!("[node]\nname = \"demo\"\nshutdown_timeout = \"3s\"\n\n[admin]\nlisten = \"{admin}\"\n\n"),
        format!("[load_balancers.demo]\nlisten = \"{listen}\"\n\n"),
        pool("web", backends),
        pool("beta", beta),
        route(
            "beta",
            "match = { headers = { X-Beta-User = \"1\" } }\npool = \"beta\"",
        ),
        route(
            "limited",
            "match = { path = \"/limited\" }\npool = \"web\"\nrate_limit = { requests = 3, per = \"10s\" }",
        ),
        route(
            "moved",
            &format!(
                "match = {{ path = \"/old\" }}\nredirect = {{ to = \"http://{listen}/\", status = 302 }}"
            ),
        ),
        route("all", "pool = \"web\""),
    ]
    .concat()
}

/// This address, or the same with the next free port.
fn free_address(wanted: SocketAddr) -> anyhow::Result<SocketAddr> {
    for port in wanted.port()..=wanted.port().saturating_add(PORTS_TRIED) {
        let address = SocketAddr::new(wanted.ip(), port);
        if let Ok(listener) = TcpListener::bind(address) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no free port from {wanted} on; choose another with --listen or --admin")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_taken_port_makes_way_for_the_next_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = taken.local_addr().unwrap();
        let free = free_address(wanted).unwrap();
        assert!(free.port() > wanted.port() && free.ip() == wanted.ip());
    }

    #[test]
    fn the_demos_config_is_valid() {
        let backends = ["127.0.0.1:1", "127.0.0.1:2"].map(|a| a.parse().unwrap());
        let text = config(
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.1:7700".parse().unwrap(),
            &backends,
        );
        source::parse(text.as_bytes(), &Source::CommandLine, &Flags::default()).unwrap();
    }
}
