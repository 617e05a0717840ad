//! The command line: definitions only. Exit codes: 0 done, 1 failed or invalid, 2 wrong usage.

mod store;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::config::{AdminRole, DEFAULT_ADMIN_LISTEN, MAX_SPLIT_WEIGHT, MAX_WEIGHT, Name};

pub(crate) use store::{
    ApplyArgs, ConfirmArgs, DeleteArgs, DiffArgs, ExportArgs, GetArgs, HistoryArgs, RollbackArgs, TermsArgs,
};

/// Evenkeel: one address in front of many servers.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  evenkeel demo
  evenkeel run --listen 127.0.0.1:8080 --backend 127.0.0.1:9001 --backend 127.0.0.1:9002
  evenkeel run --config /etc/evenkeel/evenkeel.toml
  evenkeel status

Exit codes: 0 done, 1 failed or invalid config, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the load balancer
    Run(RunArgs),
    /// Check a config file and list all its errors
    Check(CheckArgs),
    /// Print the JSON Schema of the config file
    Schema,
    /// Show what a config file would change in a running process, without changing anything
    Plan(PlanArgs),
    /// Set load balancers in the store, for every node that shares it
    Apply(ApplyArgs),
    /// Show what was applied
    Get(GetArgs),
    /// Remove load balancers from the store
    Delete(DeleteArgs),
    /// Show what is different between revisions of the store, or what a file would make different
    Diff(DiffArgs),
    /// Show who changed what in the store, and why
    History(HistoryArgs),
    /// Bring the load balancers of an older revision of the store back
    Rollback(RollbackArgs),
    /// Print all load balancers of the store, as `apply` reads them
    Export(ExportArgs),
    /// Let a change hold that was applied with `--confirm`
    Confirm(ConfirmArgs),
    /// Show load balancers, backends and recent events of a running process
    Status(StatusArgs),
    /// Show what is wrong and who is told of it, or send a test alert to them
    Alerts(AlertsArgs),
    /// Order a backend to drain, into maintenance, back to ready, or to another weight
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Order other weights for the pools of a route's split, or end such an order
    #[command(subcommand)]
    Route(RouteCommand),
    /// Show where a request would go, and why, without sending it
    Explain(ExplainArgs),
    /// Show what became of a request, and why; without an id, the last failures
    Why(WhyArgs),
    /// Show who changed what, and who was not let in
    Audit(AuditArgs),
    /// Make tokens for the admin API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make a running process read its config file again
    Reload(ClientArgs),
    /// Start three sample backends with a load balancer in front, and show live what goes where
    Demo(DemoArgs),
    /// A sample backend of the demo
    #[command(hide = true)]
    DemoBackend(DemoBackendArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel run --config evenkeel.toml
  evenkeel run --listen 127.0.0.1:8080 --backend 127.0.0.1:9001 --backend 127.0.0.1:9002
  evenkeel run --listen :8080 --backend 10.0.0.1:80 --backend 10.0.0.2:80 \\
               --algorithm least_connections --health-endpoint /health

Signals: SIGHUP reads the file again (so does changing it), SIGUSR1 opens the access log again,
SIGTERM and SIGINT finish what runs and end; a second one ends at once. Without a file the load balancer is named `default`.")]
pub(crate) struct RunArgs {
    /// Config file: TOML, or JSON where its name ends in `.json`
    #[arg(long, short, value_name = "FILE", required_unless_present = "listen")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on; `:8080` is every IPv4 address [repeatable]
    #[arg(long, value_name = "ADDR", conflicts_with = "config", requires = "backend", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Address of a backend server [repeatable]
    #[arg(long, value_name = "ADDR", conflicts_with = "config", requires = "listen")]
    pub(crate) backend: Vec<SocketAddr>,
    /// How a backend is chosen [default: round_robin]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) algorithm: Option<String>,
    /// Path of an HTTP check, e.g. /health; without it a check is a TCP connection
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(crate) health_endpoint: Option<String>,
    /// Address of the admin API, instead of `admin.listen`
    #[arg(long, value_name = "ADDR", value_parser = admin_address)]
    pub(crate) admin: Option<SocketAddr>,
    /// Where orders are kept, instead of `node.data_dir`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// How log lines look
    #[arg(long, value_enum, default_value = "text", env = "EVENKEEL_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a list such as `info,evenkeel_dataplane=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "EVENKEEL_LOG")]
    pub(crate) log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel check evenkeel.toml
  evenkeel check --effective evenkeel.toml > full.toml

Exit codes: 0 valid, 1 invalid or unreadable.")]
pub(crate) struct CheckArgs {
    /// Config file: TOML, or JSON where its name ends in `.json`
    pub(crate) file: PathBuf,
    /// Print the full form with every default filled in
    #[arg(long)]
    pub(crate) effective: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "effective")]
    pub(crate) json: bool,
}

/// Where the admin API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// Address of the admin API, as `127.0.0.1:7700` or `https://lb.internal:7700`
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_ADMIN_LISTEN, env = "EVENKEEL_ADMIN", value_parser = admin_url)]
    pub(crate) admin: String,
    /// File that holds the admin token
    #[arg(long, value_name = "FILE", env = "EVENKEEL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Authorities of its certificate (PEM), instead of those that the system trusts
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show it (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "EVENKEEL_CLIENT_CERTIFICATE",
        requires = "client_key"
    )]
    pub(crate) client_certificate: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "EVENKEEL_CLIENT_KEY",
        requires = "client_certificate"
    )]
    pub(crate) client_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel audit
  evenkeel audit --last 500 --json

The last records of `admin.audit_log`, newest first. Reading it needs the role admin.")]
pub(crate) struct AuditArgs {
    /// How many to list
    #[arg(long, value_name = "COUNT", default_value = "30", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) last: u16,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; print it this once, and what to write into the config
    Create(TokenCreateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel token create --name ci --role operator
  evenkeel token create --name ci --role operator --write ci.token >> evenkeel.toml
  evenkeel token create --write shop.token     # for members of a pool: not for the API itself

The token is 256 random bits; only its hash goes into the config. Nothing is sent anywhere.")]
pub(crate) struct TokenCreateArgs {
    /// Who or what gets it; orders and the audit log are signed with it. Without it and `--role` the
    /// token is for what registers or sends heartbeats: its hash goes into the pool
    #[arg(long, value_parser = Name::parse, requires = "role")]
    pub(crate) name: Option<Name>,
    /// What it opens: viewer, operator or admin
    #[arg(long, value_parser = role, requires = "name")]
    pub(crate) role: Option<AdminRole>,
    /// Write the token to this new file, for `--token-file`, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

fn role(text: &str) -> Result<AdminRole, String> {
    AdminRole::parse(text).ok_or_else(|| "a role is `viewer`, `operator` or `admin`".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel plan evenkeel.toml
  evenkeel plan --json evenkeel.toml

The running process reads the files that the config names, and its own flags stand above it. Exit
code 1: the config has errors; all are listed.")]
pub(crate) struct PlanArgs {
    /// Config file: TOML, or JSON where its name ends in `.json`
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel status
  evenkeel status --json
  evenkeel status --admin https://lb.internal:7700 --token-file /etc/evenkeel/token --ca ca.pem")]
pub(crate) struct StatusArgs {
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  evenkeel alerts
  evenkeel alerts --json
  evenkeel alerts test

Exit code of `test`: 0 when every receiver took it, 1 when one did not, or when there is none."
)]
pub(crate) struct AlertsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AlertsCommand>,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// Send a test alert to each receiver, and tell what came of it
    Test(ClientArgs),
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  evenkeel backend drain shop 10.0.0.1:9001
  evenkeel backend maintenance shop 10.0.0.1:9001 --for 30m
  evenkeel backend weight shop 10.0.0.1:9001 5
  evenkeel backend ready shop 10.0.0.1:9001

An order replaces the one before it and survives a restart; `ready` ends all orders for the backend.")]
pub(crate) enum BackendCommand {
    /// No new requests; running ones finish; checks go on
    Drain(OrderArgs),
    /// No new requests and no checks
    Maintenance(OrderArgs),
    /// Back to what the config says; forgets an ordered weight too
    Ready(ReadyArgs),
    /// Another weight than the configured one; keeps the mode
    Weight(WeightArgs),
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  evenkeel route weight shop all blue=0 green=100
  evenkeel route weight shop all blue=95 green=5 --for 10m
  evenkeel route reset shop all

The first is blue/green in one command: everybody to green at once. An order replaces the one
before it and survives a restart; `reset` ends it.")]
pub(crate) enum RouteCommand {
    /// Other weights than the configured ones; a pool of the split that is not named gets no requests
    Weight(RouteWeightArgs),
    /// Back to the weights of the config
    Reset(RouteArgs),
}

/// Whose order it is, and to whom.
#[derive(Debug, Args)]
pub(crate) struct SignedArgs {
    /// Who orders it [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How long an order lasts.
#[derive(Debug, Args)]
pub(crate) struct LastsArgs {
    /// End by itself after this time, e.g. 90s, 10m, 1h30m
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) time: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// Name of the load balancer
    #[arg(value_name = "LB", value_parser = Name::parse)]
    pub(crate) load_balancer: Name,
    /// Name of the route
    #[arg(value_parser = Name::parse)]
    pub(crate) route: Name,
    #[command(flatten)]
    pub(crate) signed: SignedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RouteWeightArgs {
    #[command(flatten)]
    pub(crate) route: RouteArgs,
    /// Pools with their weights
    #[arg(required = true, value_name = "POOL=WEIGHT", value_parser = pool_weight)]
    pub(crate) weights: Vec<(Name, u32)>,
    #[command(flatten)]
    pub(crate) lasts: LastsArgs,
}

/// `POOL=WEIGHT`.
fn pool_weight(text: &str) -> Result<(Name, u32), String> {
    let (pool, weight) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not a pool with its weight, such as `green=5`"))?;
    let pool = Name::parse(pool).map_err(|error| error.to_string())?;
    let weight = weight
        .parse()
        .ok()
        .filter(|weight| *weight <= MAX_SPLIT_WEIGHT)
        .ok_or_else(|| format!("`{weight}` is not a weight from 0 to {MAX_SPLIT_WEIGHT}"))?;
    Ok((pool, weight))
}

#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// Name of the load balancer
    #[arg(value_name = "LB", value_parser = Name::parse)]
    pub(crate) load_balancer: Name,
    /// Address of the backend
    pub(crate) address: SocketAddr,
    #[command(flatten)]
    pub(crate) signed: SignedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    #[command(flatten)]
    pub(crate) lasts: LastsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WeightArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Share relative to the other backends; 0 takes no new requests
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_WEIGHT)))]
    pub(crate) weight: u32,
    #[command(flatten)]
    pub(crate) lasts: LastsArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel explain --listener shop GET /cart
  evenkeel explain --listener shop GET https://shop.example/cart
  evenkeel explain --listener shop/http GET '/cart?id=7' -H 'Host: shop.example' -H 'Cookie: user=7'
  evenkeel explain --listener 127.0.0.1:8080 GET / --client-address 192.0.2.7")]
pub(crate) struct ExplainArgs {
    /// LB/LISTENER, the listener's address, or LB when it has one listener
    #[arg(long, value_name = "LISTENER")]
    pub(crate) listener: String,
    /// Request method
    pub(crate) method: String,
    /// Request target: path and query, or a whole URL
    pub(crate) target: String,
    /// Header field [repeatable]
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Address of the client [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(crate) client_address: Option<IpAddr>,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel why 01977b2e-31c0-7c3a-9d7e-3f1f0a2b4c5d
  evenkeel why
  evenkeel why --last 100 --all

The id of a request is in its `X-Request-Id`, which every answer carries, and in the access log.
Failures and refusals are remembered until newer ones take their place, successes by sample: see
[recorder] in the config.")]
pub(crate) struct WhyArgs {
    /// Id of the request
    #[arg(value_name = "REQUEST_ID")]
    pub(crate) id: Option<String>,
    /// How many to list
    #[arg(long, value_name = "COUNT", default_value = "20", conflicts_with = "id", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) last: u16,
    /// List refusals and sampled successes too
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
    /// Print what the API answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evenkeel demo
  evenkeel demo --listen 127.0.0.1:8888 --no-visitor

Ctrl-C ends it and everything it started.")]
pub(crate) struct DemoArgs {
    /// Where the load balancer listens; the next free port when taken
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Address of the admin API; the next free port when taken
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_ADMIN_LISTEN, value_parser = admin_address)]
    pub(crate) admin: SocketAddr,
    /// Send no requests of its own
    #[arg(long)]
    pub(crate) no_visitor: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoBackendArgs {
    /// Shown on its page
    #[arg(long)]
    pub(crate) name: String,
    /// Where it listens
    #[arg(long)]
    pub(crate) listen: SocketAddr,
}

/// The URL of an admin API, without a `/` at its end, from a URL or just the address in it.
fn admin_url(text: &str) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err("the URL of the admin API begins with `http://` or `https://`".to_owned()),
        None => ("http", text),
    };
    let is_url = rest.len() < text.len();
    let rest = rest.trim_end_matches('/');
    let authority = rest.split('/').next().unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    // Without a port it is that of the scheme in a URL, and a slip elsewhere.
    let has_port = port.map_or(is_url, |port| port.parse::<u16>().is_ok());
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host = !host.is_empty() && (bracketed || !host.contains([':', '@', ' ', '?', '#']));
    match has_port && is_host {
        true => Ok(format!("{scheme}://{rest}")),
        false => Err(
            "write it as `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`, such as `127.0.0.1:7700`"
                .to_owned(),
        ),
    }
}

/// The address on which the admin API listens, from the address or its URL.
fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address
        .parse()
        .map_err(|_| "write it as `IP:PORT` or `http://IP:PORT`, such as `127.0.0.1:7700`".to_owned())
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    full.parse()
        .map_err(|_| "write it as IP:PORT, [IPV6]:PORT or :PORT".to_owned())
}

/// A header as `NAME: VALUE`, as curl writes it.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "write it as `Name: value`".to_owned())?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("`{name}` is not a header name"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Every example of every help text is a command line that parses.
    #[test]
    fn every_example_in_the_help_parses() {
        let mut root = Cli::command();
        let mut help = vec![root.render_long_help().to_string()];
        for sub in root.get_subcommands_mut() {
            help.push(sub.render_long_help().to_string());
        }
        let mut seen = 0;
        for text in &help {
            let joined = text.replace("\\\n", " ");
            for line in joined.lines().filter_map(|l| l.strip_prefix("  evenkeel ")) {
                let line = line.split(['>', '|']).next().unwrap();
                let words = shell_words(&format!("evenkeel {line}"));
                Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
                seen += 1;
            }
        }
        assert!(seen >= 15, "{seen}");
    }

    /// Splits at spaces outside single quotes.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|w| !w.is_empty());
        words
    }

    #[test]
    fn run_needs_a_file_or_addresses_and_not_both() {
        assert!(parse("evenkeel run").is_err());
        assert!(parse("evenkeel run --listen 127.0.0.1:80").is_err());
        assert!(parse("evenkeel run --backend 127.0.0.1:80").is_err());
        assert!(parse("evenkeel run --config x --listen 127.0.0.1:80 --backend 127.0.0.1:81").is_err());
        assert!(parse("evenkeel run --config x --admin 127.0.0.1:1 --data-dir /x").is_ok());
    }

    /// One form for the process and for the commands that talk to it: what is copied from one fits the other.
    #[test]
    fn an_admin_api_is_an_address_or_a_url() {
        for text in [
            "127.0.0.1:7700",
            "http://127.0.0.1:7700",
            "http://127.0.0.1:7700/",
        ] {
            assert_eq!(admin_url(text).as_deref(), Ok("http://127.0.0.1:7700"));
            assert_eq!(admin_address(text), Ok(([127, 0, 0, 1], 7700).into()));
        }
        for (text, url) in [
            ("lb.internal:7700", "http://lb.internal:7700"),
            ("[::1]:7700", "http://[::1]:7700"),
            ("http://lb.internal", "http://lb.internal"),
            ("http://proxy:80/evenkeel/", "http://proxy:80/evenkeel"),
            ("https://lb.internal:7700/", "https://lb.internal:7700"),
            ("https://lb.internal", "https://lb.internal"),
        ] {
            assert_eq!(admin_url(text).as_deref(), Ok(url));
        }
        for wrong in [
            "", ":7700", "7700", "lb", "lb/", "[::1]", "::1:7700", "http://", "a:b", "a:70000", "a b:1",
        ] {
            assert!(admin_url(wrong).unwrap_err().contains("HOST:PORT"), "{wrong}");
            assert!(admin_address(wrong).unwrap_err().contains("IP:PORT"), "{wrong}");
        }
        assert!(admin_url("ftp://lb:7700").unwrap_err().contains("https://"));
        assert!(admin_address("localhost:7700").is_err());
    }

    #[test]
    fn usage_errors_exit_with_2() {
        assert_eq!(
            parse("evenkeel backend weight shop 1.2.3.4:5 1001")
                .unwrap_err()
                .exit_code(),
            2
        );
        assert_eq!(parse("evenkeel nonsense").unwrap_err().exit_code(), 2);
        assert_eq!(parse("evenkeel --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_header_is_written_as_curl_writes_it() {
        assert_eq!(header("X-User:  7 "), Ok(("X-User".into(), "7".into())));
        assert!(header("no colon").is_err());
        assert!(header(": empty").is_err());
    }
}
