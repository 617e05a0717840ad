//! One load balancer: listeners, routes and pools, in the short form or in full.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::http2::http2;
use super::pool::pool;
use super::route::routes;
use super::section::{Findings, Section, item_text, narrow};
use super::sticky::warn_of_clear_text;
use super::tls::listener_tls;
use super::tree::{Entry, Value};
use super::{MAX_LISTENERS, text};
use crate::config::{
    DEFAULT_HTTPS_PORT, DEFAULT_LISTEN_PORT, DEFAULT_MAX_CONNECTIONS, DEFAULT_UPGRADES, Http2, IpNet,
    Listener, ListenerLimits, ListenerTimeouts, LoadBalancer, Name, Pool,
};
use crate::diagnostic::Fault;
use crate::schema;

/// The name of a pool or route that has no other.
pub(super) const DEFAULT_NAME: &str = "default";

pub(super) fn load_balancer(f: &mut Findings<'_>, name: &Name, s: &Section<'_>) -> Option<LoadBalancer> {
    let listeners = listeners(f, s);
    let declared = match s.entry("pools") {
        Some(_) => pools_in_full(f, s)?,
        None if forwards_nothing(s) => Declared::default(),
        None => default_pool(f, s)?,
    };
    warn_of_clear_text(f, listeners.as_deref().unwrap_or_default());
    let routes = routes(f, s, &declared.names, &declared.pools);
    let access_log = s.boolean(f, "access_log").unwrap_or(true);
    let default_language = s.text(f, "default_language", text::language);
    let pools = declared
        .pools
        .into_iter()
        .map(|pool| (pool.name.clone(), Arc::new(pool)));
    Some(LoadBalancer {
        name: name.clone(),
        listeners: listeners?,
        routes: routes?,
        pools: pools.collect(),
        access_log,
        default_language,
    })
}

// ---- listeners ----

fn listeners(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Vec<Arc<Listener>>> {
    let listeners = if s.entry("listeners").is_some() {
        listeners_in_full(f, s)?
    } else {
        listen(f, s)?
    };
    f.listeners += listeners.len();
    if f.listeners > MAX_LISTENERS {
        let fault = Fault::new(format!("there are more than {MAX_LISTENERS} listeners"));
        f.report(s.span.clone(), &s.path_of("listeners"), fault);
    }
    Some(listeners.into_iter().map(Arc::new).collect())
}

/// Listeners of the short form.
fn listen(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Vec<Listener>> {
    if s.entry("listen").is_none() {
        let address = SocketAddr::from(([0, 0, 0, 0], DEFAULT_LISTEN_PORT));
        f.claim(address, &s.path_of("listen"), s.span.clone());
        return Some(vec![plain_listener(0, address)?]);
    }
    let mut listeners = Vec::new();
    for (i, (path, node)) in s.items(f, "listen")?.into_iter().enumerate() {
        let expected = schema::Form::ListenAddress.expected();
        if let Some(address) = item_text(f, (&path, node), expected, text::listen_address) {
            f.claim(address, &path, node.span.clone());
            listeners.extend(plain_listener(i, address));
        }
    }
    Some(listeners)
}

fn plain_listener(index: usize, address: SocketAddr) -> Option<Listener> {
    Some(Listener {
        name: listener_name("http", index)?,
        address,
        tls: None,
        trusted_proxies: Vec::new(),
        upgrades: default_upgrades(),
        redirect_to_https: None,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        limits: ListenerLimits::default(),
        timeouts: ListenerTimeouts::default(),
        http2: Some(Http2::default()),
    })
}

fn listener_name(protocol: &str, index: usize) -> Option<Name> {
    let text = match index {
        0 => protocol.to_owned(),
        _ => format!("{protocol}-{}", index + 1),
    };
    Name::parse(&text).ok()
}

fn listeners_in_full(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Vec<Listener>> {
    let mut names = BTreeMap::new();
    let mut listeners = Vec::new();
    for (i, (path, node)) in s.items(f, "listeners")?.into_iter().enumerate() {
        let Some(section) = Section::open(f, node, path, &schema::LISTENER) else {
            continue;
        };
        if let Some(listener) = listener(f, i, &section) {
            report_second(f, &mut names, &listener.name, &section);
            listeners.push(listener);
        }
    }
    Some(listeners)
}

fn listener(f: &mut Findings<'_>, index: usize, s: &Section<'_>) -> Option<Listener> {
    let address = s.text(f, "address", text::listen_address);
    if let Some((entry, address)) = s.entry("address").zip(address) {
        f.claim(address, &s.path_of("address"), entry.node.span.clone());
    }
    let name = s.text(f, "name", text::name);
    let tls = listener_tls(f, s);
    let protocol = if tls.is_some() { "https" } else { "http" };
    let limits = s.section(f, "limits").map(|s| limits(f, &s)).unwrap_or_default();
    let timeouts = s
        .section(f, "timeouts")
        .map(|s| timeouts(f, &s))
        .unwrap_or_default();
    let max_connections = s.integer(f, "max_connections");
    let trusted_proxies = trusted_proxies(f, s);
    let upgrades = upgrades(f, s);
    let redirect_to_https = redirect_to_https(f, s);
    let http2 = http2(f, s);
    Some(Listener {
        name: name.or_else(|| listener_name(protocol, index))?,
        address: address?,
        tls,
        trusted_proxies,
        upgrades,
        redirect_to_https,
        max_connections: max_connections.map_or(DEFAULT_MAX_CONNECTIONS, narrow),
        limits,
        timeouts,
        http2,
    })
}

/// `true`, or the port of HTTPS.
fn redirect_to_https(f: &mut Findings<'_>, s: &Section<'_>) -> Option<u16> {
    let entry = s.entry("redirect_to_https")?;
    match &entry.node.value {
        Value::Bool(to_https) => to_https.then_some(DEFAULT_HTTPS_PORT),
        Value::Integer(number) => {
            let port = u16::try_from(*number).ok().filter(|port| *port > 0);
            if port.is_none() {
                let fault = Fault::new(format!("`{number}` is no port: 1 to 65535"));
                f.report(entry.node.span.clone(), &s.path_of("redirect_to_https"), fault);
            }
            port
        }
        _ => {
            s.report_wrong_type(f, "redirect_to_https");
            None
        }
    }
}

fn trusted_proxies(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<IpNet> {
    let items = s.items(f, "trusted_proxies").unwrap_or_default();
    let expected = schema::Form::Network.expected();
    let networks = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::network));
    networks.collect()
}

fn upgrades(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<String> {
    let Some(items) = s.items(f, "upgrades") else {
        return default_upgrades();
    };
    let expected = schema::Form::Protocol.expected();
    let protocols = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::protocol));
    protocols.collect()
}

fn default_upgrades() -> Vec<String> {
    DEFAULT_UPGRADES
        .iter()
        .map(|protocol| (*protocol).to_owned())
        .collect()
}

fn limits(f: &mut Findings<'_>, s: &Section<'_>) -> ListenerLimits {
    let defaults = ListenerLimits::default();
    let header_bytes = s.size(f, "header_bytes").map_or(defaults.header_bytes, narrow);
    let target_bytes = s
        .size(f, "target_bytes")
        .map_or_else(|| defaults.target_bytes.min(header_bytes), narrow);
    if let Some(entry) = s.entry("target_bytes").filter(|_| target_bytes > header_bytes) {
        let fault = Fault::new("`target_bytes` is more than `header_bytes`, which counts the target too")
            .suggest("lower `target_bytes` or raise `header_bytes`");
        f.report(entry.node.span.clone(), &s.path_of("target_bytes"), fault);
    }
    ListenerLimits {
        header_bytes,
        header_fields: s
            .integer(f, "header_fields")
            .map_or(defaults.header_fields, narrow),
        target_bytes,
        body_bytes: s.size(f, "body_bytes"),
    }
}

fn timeouts(f: &mut Findings<'_>, s: &Section<'_>) -> ListenerTimeouts {
    let defaults = ListenerTimeouts::default();
    let mut or = |key, default| s.duration(f, key).unwrap_or(default);
    ListenerTimeouts {
        request_headers: or("request_headers", defaults.request_headers),
        request_body_idle: or("request_body_idle", defaults.request_body_idle),
        keep_alive: or("keep_alive", defaults.keep_alive),
        response_write_idle: or("response_write_idle", defaults.response_write_idle),
        tls_handshake: or("tls_handshake", defaults.tls_handshake),
        request_body_min_rate: s
            .size(f, "request_body_min_rate")
            .map_or(defaults.request_body_min_rate, narrow),
    }
}

// ---- pools ----

/// The pools of a load balancer.
#[derive(Default)]
struct Declared {
    /// Every name with its place, also of those that could not be built: a route there is no route to nowhere.
    names: Vec<(Name, Range<usize>)>,
    pools: Vec<Pool>,
}

/// Whether every request is answered here, so that no pool is needed: all routes answer or redirect, or without
/// routes all listeners send to HTTPS.
fn forwards_nothing(s: &Section<'_>) -> bool {
    let all = |key: &str, answers: fn(&[Entry]) -> bool| match s.entry(key).map(|entry| &entry.node.value) {
        Some(Value::List(items)) => items.iter().all(|item| match &item.value {
            Value::Table(entries) => answers(entries),
            _ => false,
        }),
        _ => false,
    };
    let answered = match s.entry("routes") {
        Some(_) => all("routes", |route| {
            route
                .iter()
                .any(|e| matches!(e.key.as_str(), "redirect" | "respond"))
                && !route.iter().any(|e| matches!(e.key.as_str(), "pool" | "split"))
        }),
        None => all("listeners", |listener| {
            let redirects = listener.iter().find(|e| e.key == "redirect_to_https");
            redirects.is_some_and(|e| !matches!(e.node.value, Value::Bool(false)))
        }),
    };
    answered && !s.has_any_of(&schema::POOL)
}

fn default_pool(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Declared> {
    let elsewhere = ["listeners", "routes"].iter().any(|key| s.entry(key).is_some());
    if elsewhere
        && !["backend_servers", "pools", "discovery", "registration"]
            .iter()
            .any(|key| s.is_given(key))
    {
        s.report_neither(f, "backend_servers", "pools");
    }
    let name = Name::parse(DEFAULT_NAME).ok()?;
    Some(Declared {
        names: vec![(name.clone(), s.span.clone())],
        pools: pool(f, name, s).into_iter().collect(),
    })
}

fn pools_in_full(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Declared> {
    let mut declared = Declared {
        names: Vec::new(),
        pools: Vec::new(),
    };
    for (name, section) in s.named(f, "pools")? {
        declared.names.push((name.clone(), section.span.clone()));
        declared.pools.extend(pool(f, name, &section));
    }
    Some(declared)
}

/// Reports a name that stands for two things, and remembers where each first stands.
pub(super) fn report_second(
    f: &mut Findings<'_>,
    names: &mut BTreeMap<Name, usize>,
    name: &Name,
    s: &Section<'_>,
) {
    let span = name_span(s);
    if let Some(first) = names.get(name) {
        let fault = Fault::new(format!(
            "the name `{name}` is given twice; it is first used in line {first}"
        ));
        f.report(
            span,
            &s.path_of("name"),
            fault.suggest("give each a `name` of its own"),
        );
        return;
    }
    names.insert(name.clone(), f.line(span.start));
}

fn name_span(s: &Section<'_>) -> Range<usize> {
    s.entry("name")
        .map_or_else(|| s.span.clone(), |entry| entry.node.span.clone())
}
