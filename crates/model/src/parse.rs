//! From text to a valid [`Config`], or to everything that is wrong with the text, at once.
//!
//! TOML and JSON become one tree with places; tables, keys, types and ranges are checked by what
//! [`crate::schema`] declares; what must hold across keys is checked here. The short form of a load balancer and
//! the full form meet in the same values. Nothing is read but the text: a `token_file` is named, not opened.

mod action;
mod admin;
mod alerts;
mod backend_http2;
mod declared;
mod depth;
mod health;
mod http2;
mod limits;
mod load_balancer;
mod membership;
mod observe;
mod overload;
mod place;
mod pool;
mod route;
mod section;
mod sticky;
mod store;
mod text;
mod tls;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Admin, Alerts, Config, LoadBalancer, Name, Node, Observe, StoreConfig};
use crate::diagnostic::{Diagnostic, Fault, Source};
use crate::schema;
pub use declared::{Declared, DeclaredText, REDACTED, check_declared, redact};
pub use place::place;
use section::{Findings, Section, narrow};
use tree::Value;

/// Longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;

/// Most diagnostics that are returned; one more says that there are others.
pub const MAX_DIAGNOSTICS: usize = 200;

/// Most backends in a pool.
pub const MAX_BACKENDS: usize = 10_000;

/// A JSON object with one of these keys is a whole document, any other a map of load balancers.
const DOCUMENT_KEYS: [&str; 4] = ["node", "admin", "store", "load_balancers"];

/// Most listeners in a config: each has a socket per thread.
pub const MAX_LISTENERS: usize = 1_000;

/// A valid config, and what in its text is probably not meant.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The config.
    pub config: Config,
    /// In the order of the text, at most [`MAX_DIAGNOSTICS`]: the config works, but not as it looks.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a config file. `file` names it in diagnostics.
///
/// # Errors
/// Everything that is wrong, in the order of the text: errors of syntax and of meaning together, at most
/// [`MAX_DIAGNOSTICS`] and a note on the rest. After an error of syntax that leaves unknown where what follows
/// belongs, such as a heading that is not closed, nothing more is said.
pub fn parse_toml(text: &str, file: &str) -> Result<Config, Vec<Diagnostic>> {
    check_toml(text, file).map(|checked| checked.config)
}

/// As [`parse_toml`], with warnings.
///
/// # Errors
/// As [`parse_toml`].
pub fn check_toml(text: &str, file: &str) -> Result<Checked, Vec<Diagnostic>> {
    let source = Source::new(file, text);
    refuse_too_long(&source, text)?;
    let (root, errors) = tree::read_toml(&source, text);
    let mut findings = Findings::new(&source, errors);
    let config = root.and_then(|root| document(&mut findings, &root));
    let (config, warnings) = findings.finish(config)?;
    Ok(Checked { config, warnings })
}

/// Reads the JSON form: the whole document, or just a map of load balancers by name when none of the document's
/// keys (`node`, `admin`, `load_balancers`) is there.
///
/// # Errors
/// As [`parse_toml`], but nothing can be said about what follows an error of syntax.
pub fn check_json(text: &str, file: &str) -> Result<Checked, Vec<Diagnostic>> {
    let source = Source::new(file, text);
    refuse_too_long(&source, text)?;
    let (root, errors) = tree::read_json(&source, text);
    let mut findings = Findings::new(&source, errors);
    let config = root.and_then(|root| match &root.value {
        Value::Table(entries) if !entries.iter().any(|e| DOCUMENT_KEYS.contains(&e.key.as_str())) => {
            let admin = Admin::default();
            findings.claim_unwritten(admin.listen, "the default of admin.listen");
            let balancers = load_balancers(&mut findings, "", &root)?;
            findings.require_geography(&Node::default());
            Some(Config {
                node: Node::default(),
                admin,
                observe: Observe::default(),
                store: StoreConfig::default(),
                notify: None,
                alerts: Alerts::default(),
                load_balancers: balancers,
            })
        }
        _ => document(&mut findings, &root),
    });
    let (config, warnings) = findings.finish(config)?;
    Ok(Checked { config, warnings })
}

/// Reads one load balancer from its JSON, for itself: what must hold over several of them, [`crate::merge`] checks.
/// `from` names the text in diagnostics.
///
/// # Errors
/// As [`check_json`].
pub fn parse_balancer(name: &Name, text: &str, from: &str) -> Result<LoadBalancer, Vec<Diagnostic>> {
    let source = Source::new(from, text);
    refuse_too_long(&source, text)?;
    let (root, errors) = tree::read_json(&source, text);
    let mut findings = Findings::new(&source, errors);
    let balancer = root.and_then(|root| {
        let path = format!("load_balancers.{name}");
        let section = Section::open(&mut findings, &root, path, &schema::LOAD_BALANCER)?;
        load_balancer::load_balancer(&mut findings, name, &section)
    });
    findings.finish(balancer).map(|(balancer, _)| balancer)
}

fn refuse_too_long(source: &Source<'_>, text: &str) -> Result<(), Vec<Diagnostic>> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let cause = format!(
        "the text is {} bytes long; at most {} are read",
        text.len(),
        crate::units::format_size(MAX_TEXT_BYTES as u64)
    );
    Err(vec![source.about_all(Fault::new(cause))])
}

fn document(f: &mut Findings<'_>, root: &tree::Node) -> Option<Config> {
    let root = Section::open(f, root, String::new(), &schema::ROOT)?;
    let node = root.section(f, "node").map(|s| node(f, &s)).unwrap_or_default();
    let admin = root
        .section(f, "admin")
        .map(|s| admin::admin(f, &s))
        .unwrap_or_default();
    f.claim_unwritten(admin.listen, "the default of admin.listen");
    let observe = observe::observe(f, &root);
    let store = store::store(f, &root);
    let notify = store::notify(f, &root, &store);
    let load_balancers = match root.entry("load_balancers") {
        Some(entry) => load_balancers(f, "load_balancers", &entry.node)?,
        None => BTreeMap::new(),
    };
    let alerts = root.section(f, "alerts").map(|s| alerts::alerts(f, &s));
    f.require_geography(&node);
    Some(Config {
        node,
        admin,
        observe,
        store,
        notify,
        alerts: alerts.unwrap_or_default(),
        load_balancers,
    })
}

fn node(f: &mut Findings<'_>, s: &Section<'_>) -> Node {
    let defaults = Node::default();
    Node {
        name: s.text(f, "name", text::words).unwrap_or(defaults.name),
        roles: store::roles(f, s),
        zone: s.text(f, "zone", text::words),
        bind: s.text(f, "bind", store::bind),
        threads: s.integer(f, "threads").map(narrow),
        data_dir: s.text(f, "data_dir", text::file).map(PathBuf::from),
        user: s.text(f, "user", text::account),
        group: s.text(f, "group", text::account),
        shutdown_timeout: s
            .duration(f, "shutdown_timeout")
            .unwrap_or(defaults.shutdown_timeout),
        plan_b_after: s.duration(f, "plan_b_after").unwrap_or(defaults.plan_b_after),
        max_connections: s
            .integer(f, "max_connections")
            .map_or(defaults.max_connections, narrow),
        secrets: sticky::secrets(f, s),
        geoip: s.text(f, "geoip", text::file).map(PathBuf::from),
    }
}

fn load_balancers(
    f: &mut Findings<'_>,
    path: &str,
    node: &tree::Node,
) -> Option<BTreeMap<Name, Arc<LoadBalancer>>> {
    let named = section::named(f, node, path, &schema::LOAD_BALANCER)?;
    let mut built = BTreeMap::new();
    for (name, section) in named {
        if let Some(balancer) = load_balancer::load_balancer(f, &name, &section) {
            built.insert(name, Arc::new(balancer));
        }
    }
    Some(built)
}

/// Where something that may be there only once first stands.
#[derive(Clone, Debug)]
struct First {
    path: String,
    line: Option<usize>,
}

impl Findings<'_> {
    /// Reports the first route by country when there is no database to tell countries.
    fn require_geography(&mut self, node: &Node) {
        let Some((span, path)) = self.geography.take().filter(|_| node.geoip.is_none()) else {
            return;
        };
        let fault = Fault::new("countries and continents cannot be told without a database")
            .suggest("name a MaxMind database in `[node]`: `geoip = \"GeoLite2-Country.mmdb\"`");
        self.report(span, &path, fault);
    }

    /// Takes a listening address for one listener; a second claim is an error.
    fn claim(&mut self, address: SocketAddr, path: &str, span: Range<usize>) {
        let line = Some(self.line(span.start));
        let claimed = self.addresses.get(&address).cloned();
        if let Some(first) = claimed {
            let place = first
                .line
                .map_or_else(String::new, |line| format!(" in line {line}"));
            let fault = Fault::new(format!(
                "{address} is listened on twice; first by {}{place}",
                first.path
            ))
            .suggest("give each listener an address or port of its own");
            self.report(span, path, fault);
            return;
        }
        let first = First {
            path: path.to_owned(),
            line,
        };
        self.addresses.insert(address, first);
    }

    /// Takes an address that is not written anywhere.
    fn claim_unwritten(&mut self, address: SocketAddr, whose: &str) {
        if address.port() == 0 {
            return;
        }
        let first = First {
            path: whose.to_owned(),
            line: None,
        };
        self.addresses.entry(address).or_insert(first);
    }
}
