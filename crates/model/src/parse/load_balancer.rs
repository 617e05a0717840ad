//! One load balancer: listeners, routes and pools, in the short form or in full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::limits::{rate_limits, route_timeouts};
use super::pool::pool;
use super::section::{Findings, Section, closest, item_text, narrow};
use super::{MAX_LISTENERS, text};
use crate::config::{
    DEFAULT_LISTEN_PORT, DEFAULT_MAX_CONNECTIONS, DEFAULT_UPGRADES, IpNet, Listener, ListenerLimits,
    ListenerTimeouts, LoadBalancer, Name, PathMatch, Pool, Route, RouteMatch, RouteTimeouts,
};
use crate::diagnostic::Fault;
use crate::schema;

/// The name of a pool or route that has no other.
const DEFAULT_NAME: &str = "default";

pub(super) fn load_balancer(f: &mut Findings<'_>, name: &Name, s: &Section<'_>) -> Option<LoadBalancer> {
    let listeners = listeners(f, s);
    let declared = match s.entry("pools") {
        Some(_) => pools_in_full(f, s)?,
        None => default_pool(f, s)?,
    };
    let routes = routes(f, s, &declared.names);
    let access_log = s.boolean(f, "access_log").unwrap_or(true);
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
        name: listener_name(index)?,
        address,
        trusted_proxies: Vec::new(),
        upgrades: default_upgrades(),
        max_connections: DEFAULT_MAX_CONNECTIONS,
        limits: ListenerLimits::default(),
        timeouts: ListenerTimeouts::default(),
    })
}

fn listener_name(index: usize) -> Option<Name> {
    let text = match index {
        0 => "http".to_owned(),
        _ => format!("http-{}", index + 1),
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
    let _only_http = s.choice(f, "protocol");
    let limits = s.section(f, "limits").map(|s| limits(f, &s)).unwrap_or_default();
    let timeouts = s
        .section(f, "timeouts")
        .map(|s| timeouts(f, &s))
        .unwrap_or_default();
    let max_connections = s.integer(f, "max_connections");
    let trusted_proxies = trusted_proxies(f, s);
    let upgrades = upgrades(f, s);
    Some(Listener {
        name: name.or_else(|| listener_name(index))?,
        address: address?,
        trusted_proxies,
        upgrades,
        max_connections: max_connections.map_or(DEFAULT_MAX_CONNECTIONS, narrow),
        limits,
        timeouts,
    })
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
        request_body_min_rate: s
            .size(f, "request_body_min_rate")
            .map_or(defaults.request_body_min_rate, narrow),
    }
}

// ---- pools ----

/// The pools of a load balancer.
struct Declared {
    /// Every name with its place, also of those that could not be built: a route there is no route to nowhere.
    names: Vec<(Name, Range<usize>)>,
    pools: Vec<Pool>,
}

fn default_pool(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Declared> {
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

// ---- routes ----

fn routes(f: &mut Findings<'_>, s: &Section<'_>, pools: &[(Name, Range<usize>)]) -> Option<Vec<Route>> {
    if s.entry("routes").is_none() {
        return route_to_the_only_pool(f, s, pools);
    }
    let known: BTreeSet<&Name> = pools.iter().map(|(name, _)| name).collect();
    let mut seen = Seen::default();
    let mut routes: Vec<Route> = Vec::new();
    let items = s.items(f, "routes")?;
    let count = items.len();
    for (i, (path, node)) in items.into_iter().enumerate() {
        let Some(section) = Section::open(f, node, path, &schema::ROUTE) else {
            continue;
        };
        let Some(route) = route(f, i, &section) else {
            continue;
        };
        if !known.contains(&route.pool) {
            report_unknown_pool(f, &route.pool, &known, &section);
        }
        seen.report_second(f, &route, &section);
        routes.push(route);
    }
    let reached: BTreeSet<&Name> = routes.iter().map(|route| &route.pool).collect();
    // What is wrong with a route is reported; it may be the one that was meant to lead to the pool left over.
    let all_lead_somewhere = routes.len() == count && reached.is_subset(&known);
    let left_over = |pool: &Name| all_lead_somewhere && !reached.contains(pool);
    for (pool, span) in pools.iter().filter(|(pool, _)| left_over(pool)) {
        let fault = Fault::new(format!("no route leads to the pool `{pool}`")).suggest(format!(
            "add a route with `pool = \"{pool}\"`, or remove the pool"
        ));
        f.report(span.clone(), &format!("{}.{pool}", s.path_of("pools")), fault);
    }
    routes.sort_by_key(|route| rank(&route.matches));
    Some(routes)
}

fn route_to_the_only_pool(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    pools: &[(Name, Range<usize>)],
) -> Option<Vec<Route>> {
    let [(pool, _)] = pools else {
        let fault = Fault::new("there are several pools, but no routes to say which requests go where");
        let fault = fault.suggest(format!(
            "add `[[{}]]` tables with `match` and `pool`",
            s.path_of("routes")
        ));
        f.report(s.span.clone(), &s.path_of("routes"), fault);
        return None;
    };
    Some(vec![Route {
        name: Name::parse(DEFAULT_NAME).ok()?,
        matches: RouteMatch::default(),
        pool: pool.clone(),
        rate_limits: Vec::new(),
        timeouts: RouteTimeouts::default(),
    }])
}

fn route(f: &mut Findings<'_>, index: usize, s: &Section<'_>) -> Option<Route> {
    let matches = match s.section(f, "match") {
        Some(section) => {
            let exact = section.text(f, "path", text::exact_path);
            let prefix = section.text(f, "path_prefix", text::path_prefix);
            RouteMatch {
                host: section.text(f, "host", text::host),
                path: exact.or(prefix),
            }
        }
        None => RouteMatch::default(),
    };
    let unnamed = match matches == RouteMatch::default() {
        true => DEFAULT_NAME.to_owned(),
        false => format!("route-{}", index + 1),
    };
    let name = s
        .text(f, "name", text::name)
        .or_else(|| Name::parse(&unnamed).ok());
    let pool = s.text(f, "pool", text::name);
    let rate_limits = rate_limits(f, s);
    let timeouts = s.section(f, "timeouts").map(|s| route_timeouts(f, &s));
    Some(Route {
        name: name?,
        matches,
        pool: pool?,
        rate_limits,
        timeouts: timeouts.unwrap_or_default(),
    })
}

/// Order of routes, least first: exact host, then exact path, then the longer prefix; sorting is stable, so what
/// is equal stays as written.
fn rank(matches: &RouteMatch) -> (bool, u8, std::cmp::Reverse<usize>) {
    let (kind, length) = match &matches.path {
        Some(PathMatch::Exact(_)) => (0, 0),
        Some(PathMatch::Prefix(prefix)) => (1, prefix.len()),
        None => (2, 0),
    };
    (matches.host.is_none(), kind, std::cmp::Reverse(length))
}

fn report_unknown_pool(f: &mut Findings<'_>, wanted: &Name, known: &BTreeSet<&Name>, s: &Section<'_>) {
    if f.is_full() {
        return;
    }
    let fault = Fault::new(format!("there is no pool `{wanted}`"));
    let fault = match closest(wanted.as_str(), known.iter().map(|name| name.as_str())) {
        Some(close) => fault.suggest(format!("did you mean `{close}`?")),
        None => {
            let shown: Vec<&str> = known.iter().map(|name| name.as_str()).take(10).collect();
            fault.suggest(format!("the pools are: {}", shown.join(", ")))
        }
    };
    let span = s
        .entry("pool")
        .map_or_else(|| s.span.clone(), |entry| entry.node.span.clone());
    f.report(span, &s.path_of("pool"), fault);
}

/// Routes seen so far.
#[derive(Default)]
struct Seen {
    names: BTreeMap<Name, usize>,
    /// Name and line of the first route for each match.
    matches: BTreeMap<RouteMatch, (Name, usize)>,
}

impl Seen {
    /// Reports a route that no request can reach, and else a name that is taken.
    fn report_second(&mut self, f: &mut Findings<'_>, route: &Route, s: &Section<'_>) {
        if let Some((same, line)) = self.matches.get(&route.matches) {
            let fault = Fault::new(format!(
                "no request reaches this route: `{same}` in line {line} matches the same"
            ));
            let fault = fault.suggest("give it another `match`, or remove one of the two");
            f.report(s.span.clone(), &s.path, fault);
            return;
        }
        let first = (route.name.clone(), f.line(s.span.start));
        self.matches.insert(route.matches.clone(), first);
        report_second(f, &mut self.names, &route.name, s);
    }
}

/// Reports a name that stands for two things, and remembers where each first stands.
fn report_second(f: &mut Findings<'_>, names: &mut BTreeMap<Name, usize>, name: &Name, s: &Section<'_>) {
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
