//! Routes: what they match, their order, and where they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::action::{actions, redirect, respond};
use super::limits::{rate_limits, route_timeouts};
use super::load_balancer::{DEFAULT_NAME, report_second};
use super::section::{Findings, Section, closest, cut, item_text, narrow, parsed};
use super::text;
use super::tree::{Node, Value};
use crate::config::{
    Actions, HostMatch, MAX_CONDITIONS, MAX_MATCH_DEPTH, MAX_PATTERNS, MAX_ROUTES, MAX_SPLIT, Name,
    PathMatch, Pattern, Pool, Route, RouteMatch, RouteTarget, RouteTimeouts, Split, SplitPart, ValueMatch,
    country_meant, is_country,
};
use crate::diagnostic::Fault;
use crate::schema::{self, Form};
use crate::shadow;

/// A route with where it stands.
struct Placed {
    route: Route,
    span: Range<usize>,
    path: String,
}

pub(super) fn routes(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    pools: &[(Name, Range<usize>)],
    built: &[Pool],
) -> Option<Vec<Route>> {
    if s.entry("routes").is_none() {
        return route_to_the_only_pool(f, s, pools);
    }
    let items = s.items(f, "routes")?;
    let count = items.len();
    if count > MAX_ROUTES {
        let fault = Fault::new(format!(
            "a load balancer has at most {MAX_ROUTES} routes; here are {count}"
        ));
        f.report(s.span.clone(), &s.path_of("routes"), fault);
        return None;
    }
    let known: BTreeSet<&Name> = pools.iter().map(|(name, _)| name).collect();
    let mut seen = Seen::default();
    let mut routes: Vec<Placed> = Vec::new();
    for (i, (path, node)) in items.into_iter().enumerate() {
        let Some(section) = Section::open(f, node, path, &schema::ROUTE) else {
            continue;
        };
        let Some(route) = route(f, i, &section, &known) else {
            continue;
        };
        seen.report_second(f, &route, &section);
        report_unfit_mirror(f, &section, &route, built);
        routes.push(Placed {
            route,
            span: section.span.clone(),
            path: section.path.clone(),
        });
    }
    // What is wrong with a route is reported; it may be the one that was meant to lead to the pool left over.
    if routes.len() == count {
        report_left_over(f, s, pools, &routes);
    }
    // Sorting is stable: what is equal stays as written.
    routes.sort_by_cached_key(|placed| placed.route.rank());
    warn_of_shadows(f, &routes);
    Some(routes.into_iter().map(|placed| placed.route).collect())
}

/// Copies are sent over HTTP/1.
fn report_unfit_mirror(f: &mut Findings<'_>, s: &Section<'_>, route: &Route, pools: &[Pool]) {
    let mirror = route.actions.mirror.as_ref();
    let pool = mirror.and_then(|mirror| pools.iter().find(|pool| pool.name == mirror.pool));
    let Some(pool) = pool.filter(|pool| pool.http2.is_some()) else {
        return;
    };
    let fault = Fault::new(format!(
        "the route `{}` mirrors to the pool `{}`, which speaks HTTP/2: copies are sent over HTTP/1",
        route.name, pool.name
    ))
    .suggest("mirror to a pool of the same backends without `protocol = \"http2\"`");
    let span = s
        .entry("mirror")
        .map_or_else(|| s.span.clone(), |entry| entry.key_span.clone());
    f.report(span, &s.path_of("mirror"), fault);
}

fn report_left_over(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    pools: &[(Name, Range<usize>)],
    routes: &[Placed],
) {
    let reached: BTreeSet<&Name> = routes
        .iter()
        .flat_map(|placed| {
            let mirror = placed.route.actions.mirror.iter().map(|mirror| &mirror.pool);
            placed.route.target.pools().chain(mirror)
        })
        .collect();
    if !reached
        .iter()
        .all(|pool| pools.iter().any(|(name, _)| name == *pool))
    {
        return;
    }
    for (pool, span) in pools.iter().filter(|(pool, _)| !reached.contains(pool)) {
        let fault = Fault::new(format!("no route leads to the pool `{pool}`")).suggest(format!(
            "add a route with `pool = \"{pool}\"`, or remove the pool"
        ));
        f.report(span.clone(), &format!("{}.{pool}", s.path_of("pools")), fault);
    }
}

/// Warns of routes that no request reaches because an earlier one takes all that they match.
fn warn_of_shadows(f: &mut Findings<'_>, placed: &[Placed]) {
    let routes: Vec<&Route> = placed.iter().map(|each| &each.route).collect();
    for (hidden, by) in shadow::shadowed(&routes) {
        let Some((hidden, by)) = placed.get(hidden).zip(placed.get(by)) else {
            continue;
        };
        // Said as an error already.
        if hidden.route.matches == by.route.matches {
            continue;
        }
        let line = f.line(by.span.start);
        let why = if by.route.priority > hidden.route.priority {
            "and has a greater priority"
        } else {
            "and is tried before it"
        };
        let fault = Fault::new(format!(
            "no request reaches the route `{}`: `{}` in line {line} takes all that it matches {why}",
            hidden.route.name, by.route.name
        ));
        let fault = fault.suggest(format!(
            "give it a `priority` above {}, narrow the other, or remove it",
            by.route.priority
        ));
        f.warn(hidden.span.clone(), &hidden.path, fault);
    }
}

fn route_to_the_only_pool(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    pools: &[(Name, Range<usize>)],
) -> Option<Vec<Route>> {
    if pools.is_empty() {
        return Some(Vec::new());
    }
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
        priority: 0,
        matches: RouteMatch::default(),
        target: RouteTarget::Pool(pool.clone()),
        rate_limits: Vec::new(),
        timeouts: RouteTimeouts::default(),
        actions: Actions::default(),
    }])
}

fn route(f: &mut Findings<'_>, index: usize, s: &Section<'_>, known: &BTreeSet<&Name>) -> Option<Route> {
    let conditions = s.section(f, "match");
    let matches = match &conditions {
        Some(section) => route_match(f, section, 1)?,
        None => RouteMatch::default(),
    };
    report_too_many_conditions(f, s, &matches);
    let unnamed = match matches == RouteMatch::default() {
        true => DEFAULT_NAME.to_owned(),
        false => format!("route-{}", index + 1),
    };
    let name = s
        .text(f, "name", text::name)
        .or_else(|| Name::parse(&unnamed).ok());
    let priority = s.integer(f, "priority").map_or(0, narrow);
    let groups = match &matches.path {
        Some(PathMatch::Pattern(pattern)) => Some(pattern.groups()),
        // What is wrong with the pattern is said already.
        _ if conditions.is_some_and(|s| s.entry("path_regex").is_some()) => Some(usize::MAX),
        _ => None,
    };
    let target = target(f, s, known, groups);
    let rate_limits = rate_limits(f, s);
    let timeouts = s.section(f, "timeouts").map(|s| route_timeouts(f, &s));
    let actions = actions(f, s, known);
    Some(Route {
        name: name?,
        priority,
        matches,
        target: target?,
        rate_limits,
        timeouts: timeouts.unwrap_or_default(),
        actions,
    })
}

// ---- where they lead ----

/// `groups` are those of the pattern that the route compares paths with.
fn target(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    known: &BTreeSet<&Name>,
    groups: Option<usize>,
) -> Option<RouteTarget> {
    let key = s.text(f, "split_key", text::hash_key);
    if s.entry("split").is_some() {
        let parts = split(f, s, known)?;
        return Some(RouteTarget::Split(Split { parts, key }));
    }
    if let Some(section) = s.section(f, "redirect") {
        return redirect(f, &section, groups).map(RouteTarget::Redirect);
    }
    if let Some(section) = s.section(f, "respond") {
        return Some(RouteTarget::Respond(respond(f, &section)));
    }
    let pool = s.text(f, "pool", text::name)?;
    report_unknown_pool(f, &pool, known, s);
    Some(RouteTarget::Pool(pool))
}

fn split(f: &mut Findings<'_>, s: &Section<'_>, known: &BTreeSet<&Name>) -> Option<Vec<SplitPart>> {
    let items = s.items(f, "split")?;
    let span = s
        .entry("split")
        .map_or_else(|| s.span.clone(), |entry| entry.key_span.clone());
    if items.len() > MAX_SPLIT {
        let fault = Fault::new(format!(
            "a split has at most {MAX_SPLIT} pools; here are {}",
            items.len()
        ));
        f.report(span, &s.path_of("split"), fault);
        return None;
    }
    let count = items.len();
    let mut parts: Vec<SplitPart> = Vec::with_capacity(count);
    for (path, node) in items {
        let Some(section) = Section::open(f, node, path, &schema::SPLIT) else {
            continue;
        };
        let weight = section.integer(f, "weight").map_or(1, narrow);
        let Some(pool) = section.text(f, "pool", text::name) else {
            continue;
        };
        report_unknown_pool(f, &pool, known, &section);
        if parts.iter().any(|part| part.pool == pool) {
            let fault = Fault::new(format!("the pool `{pool}` is given twice in this split"));
            let fault = fault.suggest("to send it more requests, give it a greater `weight`");
            f.report(section.span.clone(), &section.path, fault);
        }
        parts.push(SplitPart { pool, weight });
    }
    if parts.len() == count && parts.iter().all(|part| part.weight == 0) {
        let fault = Fault::new("every pool of this split has the weight 0, so it takes no requests");
        f.report(
            span,
            &s.path_of("split"),
            fault.suggest("give one of them a `weight` of 1 or more"),
        );
    }
    (parts.len() == count).then_some(parts)
}

pub(super) fn report_unknown_pool(
    f: &mut Findings<'_>,
    wanted: &Name,
    known: &BTreeSet<&Name>,
    s: &Section<'_>,
) {
    if known.contains(wanted) || f.is_full() {
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

// ---- what they match ----

/// `None` only when it stands too deep.
fn route_match(f: &mut Findings<'_>, s: &Section<'_>, depth: usize) -> Option<RouteMatch> {
    if depth > MAX_MATCH_DEPTH {
        let fault = Fault::new(format!(
            "`any`, `all` and `not` stand more than {MAX_MATCH_DEPTH} deep within each other"
        ));
        f.report(
            s.span.clone(),
            &s.path,
            fault.suggest("write the conditions flatter"),
        );
        return None;
    }
    let exact = s.text(f, "path", exact_path);
    let prefix = s.text(f, "path_prefix", path_prefix);
    let by_pattern = s.text(f, "path_regex", pattern).map(PathMatch::Pattern);
    f.count_pattern(s, "path_regex");
    let matches = RouteMatch {
        host: s.text(f, "host", host),
        path: exact.or(prefix).or(by_pattern),
        methods: texts(f, s, "method", Form::Method, method),
        headers: conditions(
            f,
            s,
            "headers",
            |name| text::field_name(name).map(|name| name.to_ascii_lowercase()),
            text::field_value,
        ),
        cookies: conditions(f, s, "cookies", text::cookie_name, cookie_value),
        query: conditions(f, s, "query", query_name, query_value),
        client_address: texts(f, s, "client_address", Form::Network, text::network),
        languages: texts(f, s, "language", Form::Language, text::language),
        countries: texts(f, s, "country", Form::Country, country),
        continents: texts(f, s, "continent", Form::Continent, continent),
        any: several(f, s, "any", depth)?,
        all: several(f, s, "all", depth)?,
        not: match s.section(f, "not") {
            Some(section) => Some(Box::new(route_match(f, &section, depth + 1)?)),
            None => None,
        },
    };
    warn_of_stars(f, s);
    if let Some(entry) = s
        .entry("not")
        .filter(|_| matches.not.as_deref() == Some(&RouteMatch::default()))
    {
        let fault = Fault::new("this never matches: `not` has no condition, so it excludes every request");
        let fault =
            fault.suggest("write what requests must not be, as in `not = { path_prefix = \"/admin\" }`");
        f.warn(entry.key_span.clone(), &s.path_of("not"), fault);
    }
    for key in ["country", "continent"] {
        if let (Some(entry), None) = (s.entry(key), &f.geography) {
            f.geography = Some((entry.key_span.clone(), s.path_of(key)));
        }
    }
    Some(matches)
}

/// Warns of a `*` in a path, which other proxies take for anything.
fn warn_of_stars(f: &mut Findings<'_>, s: &Section<'_>) {
    for (key, entry) in ["path", "path_prefix"].map(|key| (key, s.entry(key))) {
        let Some((entry, text)) = entry.and_then(|entry| match &entry.node.value {
            Value::Text(text) if text.contains('*') => Some((entry, text)),
            _ => None,
        }) else {
            continue;
        };
        let fault = Fault::new(format!("`*` stands for itself in `{key}`, not for anything"));
        let before = text.split('*').next().unwrap_or("").trim_end_matches('/');
        let prefix = if before.is_empty() { "/" } else { before };
        let fault = fault.suggest(match text.matches('*').count() == 1 && text.ends_with('*') {
            true => format!("for all below `{prefix}`, write `path_prefix = \"{prefix}\"`"),
            false => "use `path_regex`, where `.*` stands for anything".to_owned(),
        });
        f.warn(entry.node.span.clone(), &s.path_of(key), fault);
    }
}

fn several(f: &mut Findings<'_>, s: &Section<'_>, key: &str, depth: usize) -> Option<Vec<RouteMatch>> {
    if s.entry(key).is_none() {
        return Some(Vec::new());
    }
    let mut built = Vec::new();
    for (path, node) in s.items(f, key)? {
        let section = Section::open(f, node, path, &schema::MATCH)?;
        built.push(route_match(f, &section, depth + 1)?);
    }
    Some(built)
}

fn texts<T>(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    key: &str,
    form: Form,
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> Vec<T> {
    if s.entry(key).is_none() {
        return Vec::new();
    }
    let items = s.items(f, key).unwrap_or_default();
    let read = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), form.expected(), &parse));
    read.collect()
}

fn conditions(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    key: &str,
    name: impl Fn(&str) -> Result<String, Fault>,
    value: impl Fn(&str) -> Result<String, Fault>,
) -> Vec<(String, ValueMatch)> {
    let mut lines = BTreeMap::new();
    let mut found = Vec::new();
    let Some(entries) = s.fields(f, key) else {
        return found;
    };
    if entries.is_empty() {
        let fault = Fault::new(format!("`{key}` needs at least one entry"));
        f.report(s.span.clone(), &s.path_of(key), fault);
    }
    for entry in entries {
        let path = format!("{}.{}", s.path_of(key), entry.key);
        let condition = condition(f, &path, &entry.node, &value);
        let name = name(&entry.key).and_then(|name| {
            match lines.insert(name.clone(), f.line(entry.key_span.start)) {
                Some(first) => Err(Fault::new(format!(
                    "`{}` is given twice; it is first given in line {first}",
                    cut(&name)
                ))),
                None => Ok(name),
            }
        });
        match name {
            Ok(name) => found.extend(condition.map(|condition| (name, condition))),
            Err(fault) => f.report(entry.key_span.clone(), &path, fault),
        }
    }
    found
}

fn condition(
    f: &mut Findings<'_>,
    path: &str,
    node: &Node,
    value: impl Fn(&str) -> Result<String, Fault>,
) -> Option<ValueMatch> {
    match &node.value {
        Value::Bool(true) => Some(ValueMatch::Present),
        Value::Bool(false) => Some(ValueMatch::Absent),
        Value::Text(text) => parsed(f, node, path, value(text)).map(ValueMatch::Exact),
        Value::Table(_) => {
            let section = Section::open(f, node, path.to_owned(), &schema::PATTERN)?;
            f.count_pattern(&section, "regex");
            section.text(f, "regex", pattern).map(ValueMatch::Pattern)
        }
        other => {
            let fault = Fault::new(format!(
                "a condition must be a text, `true` or `false`, not {}",
                other.kind()
            ));
            let fault = fault.suggest("write `\"1\"` for a value, `true` for one that is there, `false` for one that is not, or `{ regex = \"…\" }`");
            f.report(node.span.clone(), path, fault);
            None
        }
    }
}

fn report_too_many_conditions(f: &mut Findings<'_>, s: &Section<'_>, matches: &RouteMatch) {
    let (conditions, _) = matches.size();
    if conditions > MAX_CONDITIONS {
        let fault = Fault::new(format!(
            "a route has at most {MAX_CONDITIONS} conditions; here are {conditions}"
        ));
        f.report(
            s.span.clone(),
            &s.path_of("match"),
            fault.suggest("divide it into several routes"),
        );
    }
}

impl Findings<'_> {
    pub(super) fn count_pattern(&mut self, s: &Section<'_>, key: &str) {
        let Some(entry) = s.entry(key) else { return };
        self.patterns += 1;
        if self.patterns == MAX_PATTERNS + 1 {
            let fault = Fault::new(format!("there are more than {MAX_PATTERNS} regular expressions"));
            self.report(entry.node.span.clone(), &s.path_of(key), fault);
        }
    }
}

// ---- forms ----

fn host(text: &str) -> Result<HostMatch, Fault> {
    let fault = || Fault::new(format!("`{}` is not a host name", cut(text)));
    if let Some(rest) = text.strip_prefix("*.") {
        let name = rest.trim_end_matches('.').to_ascii_lowercase();
        let fits = text::is_host(rest) && !name.is_empty() && !name.starts_with('[') && rest.len() <= 251;
        return match fits {
            true => Ok(HostMatch::Under(format!(".{name}"))),
            false => Err(fault()),
        };
    }
    if text::is_host(text) {
        // The final dot names the root of the domain system: the same host without it.
        let lower = text.to_ascii_lowercase();
        let name = Some(lower.trim_end_matches('.')).filter(|name| !name.is_empty());
        return Ok(HostMatch::Exact(name.unwrap_or(&lower).to_owned()));
    }
    if text.contains('*') {
        return Err(fault().suggest("`*` stands for whole labels at the start, as in `*.example.com`"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or("");
        return Err(match text::is_host(name) {
            true => fault().suggest(format!("leave out the scheme and any path: `{name}`")),
            false => fault(),
        });
    }
    if !text.is_ascii() {
        return Err(fault().suggest("write it as it is sent: in ASCII, as in `xn--bcher-kva.example`"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if text::is_host(host) && port.bytes().all(|b| b.is_ascii_digit()) => {
            Err(fault().suggest(format!("leave out the port: `{host}`")))
        }
        _ => Err(fault()),
    }
}

fn exact_path(text: &str) -> Result<PathMatch, Fault> {
    text::route_path(text).map(PathMatch::Exact)
}

fn path_prefix(text: &str) -> Result<PathMatch, Fault> {
    text::route_path(text).map(PathMatch::Prefix)
}

pub(super) fn pattern(text: &str) -> Result<Pattern, Fault> {
    text::bounded(text, 1024)?;
    Pattern::parse(text).map_err(|error| Fault::new(format!("`{}`: {error}", cut(text))))
}

fn method(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::new(format!("`{}` is not a method", cut(text))).suggest("write it as `GET`");
    let token = text::field_name(text).map_err(|_| wrong())?;
    if token.len() > 32 {
        return Err(wrong());
    }
    let upper = token.to_ascii_uppercase();
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    if known.contains(&upper.as_str()) && upper != token {
        return Err(wrong().suggest(format!("letters of methods count: write `{upper}`")));
    }
    Ok(token)
}

fn cookie_value(text: &str) -> Result<String, Fault> {
    let fits = (1..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    match fits {
        true => Ok(text.to_owned()),
        false => Err(
            Fault::new(format!("`{}` is not the value of a cookie", cut(text)))
                .suggest("use 1 to 1024 visible ASCII characters other than `;`"),
        ),
    }
}

fn query_name(text: &str) -> Result<String, Fault> {
    let parameter = |b: u8| b.is_ascii_graphic() && !matches!(b, b'&' | b'=' | b'#');
    match (1..=128).contains(&text.len()) && text.bytes().all(parameter) {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(format!(
            "`{}` is not the name of a query parameter",
            cut(text)
        ))),
    }
}

fn query_value(text: &str) -> Result<String, Fault> {
    match text.is_empty() {
        true => Ok(String::new()),
        false => text::words(text),
    }
}

fn country(text: &str) -> Result<String, Fault> {
    let upper = text.to_ascii_uppercase();
    if is_country(&upper) {
        return Ok(upper);
    }
    let fault = Fault::new(format!("`{}` is not a country code", cut(text)));
    Err(match country_meant(&upper) {
        Some(meant) => fault.suggest(format!("did you mean `{meant}`?")),
        None => fault.suggest("write the two letters of ISO 3166-1, such as `DE`"),
    })
}

fn continent(text: &str) -> Result<String, Fault> {
    let upper = text.to_ascii_uppercase();
    match ["AF", "AN", "AS", "EU", "NA", "OC", "SA"].contains(&upper.as_str()) {
        true => Ok(upper),
        false => Err(
            Fault::new(format!("`{}` is not the code of a continent", cut(text)))
                .suggest("they are `AF`, `AN`, `AS`, `EU`, `NA`, `OC` and `SA`"),
        ),
    }
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
            f.report_missing(s.span.clone(), &s.path, fault);
            return;
        }
        let first = (route.name.clone(), f.line(s.span.start));
        self.matches.insert(route.matches.clone(), first);
        report_second(f, &mut self.names, &route.name, s);
    }
}
