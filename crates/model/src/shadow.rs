//! Which routes no request can reach, because an earlier one takes all that they match.
//!
//! Only what is certain is found: a route is *covered* by another when each condition of the other follows from
//! one of its own. What several earlier routes take together, and what only a closer look at two patterns could
//! tell, is not found.

use std::collections::BTreeMap;

use crate::config::{HostMatch, IpNet, PathMatch, Pattern, Route, RouteMatch, ValueMatch};

/// Most pairs of routes that are compared; beyond it, what is left is not looked at.
const MAX_COMPARISONS: usize = 2_000_000;
/// Most labels of a host, and most segments of a path, whose wildcards and prefixes are looked for.
const MAX_PARTS: usize = 16;

/// The key under which all patterns are looked for.
const ANY_PATTERN: &str = "~~";

/// Each route, in the order in which they are tried, that an earlier one covers, with the first such.
pub(crate) fn shadowed(routes: &[&Route]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut comparisons = 0;
    // Only routes of a host and path that take in another's can cover it.
    let mut earlier: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (i, route) in routes.iter().enumerate() {
        let hosts = hosts_around(route.matches.host.as_ref());
        let paths = paths_around(route.matches.path.as_ref());
        let mut first: Option<usize> = None;
        for key in hosts
            .iter()
            .flat_map(|host| paths.iter().map(|path| (host.clone(), path.clone())))
        {
            for &j in earlier.get(&key).into_iter().flatten() {
                comparisons += 1;
                if first.is_some_and(|first| first < j) || comparisons > MAX_COMPARISONS {
                    break;
                }
                let covers = routes
                    .get(j)
                    .is_some_and(|other| covers(&other.matches, &route.matches));
                if covers {
                    first = Some(j);
                    break;
                }
            }
        }
        found.extend(first.map(|first| (i, first)));
        let host = host_key(route.matches.host.as_ref());
        let path = route.matches.path.as_ref();
        if matches!(path, Some(PathMatch::Pattern(_))) {
            let any_pattern = (host.clone(), ANY_PATTERN.to_owned());
            earlier.entry(any_pattern).or_default().push(i);
        }
        earlier.entry((host, path_key(path))).or_default().push(i);
    }
    found
}

fn host_key(host: Option<&HostMatch>) -> String {
    host.map_or_else(String::new, HostMatch::to_string)
}

/// The keys of hosts that take in this one.
fn hosts_around(host: Option<&HostMatch>) -> Vec<String> {
    let mut keys = vec![String::new(), host_key(host)];
    if let Some(HostMatch::Exact(name) | HostMatch::Under(name)) = host {
        let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        keys.extend(
            dots.take(MAX_PARTS)
                .filter_map(|at| name.get(at..))
                .map(|suffix| format!("*{suffix}")),
        );
    }
    keys.dedup();
    keys
}

fn path_key(path: Option<&PathMatch>) -> String {
    match path {
        None => String::new(),
        Some(PathMatch::Prefix(prefix)) if prefix == "/" => String::new(),
        Some(PathMatch::Prefix(prefix)) => format!("^{prefix}"),
        Some(PathMatch::Exact(path)) => format!("={path}"),
        Some(PathMatch::Pattern(pattern)) => format!("~{}", pattern.as_str()),
    }
}

/// The keys of paths that take in this one.
fn paths_around(path: Option<&PathMatch>) -> Vec<String> {
    let mut keys = vec![String::new(), path_key(path)];
    let start = match path {
        None => "",
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
            keys.push(format!("^{path}"));
            path
        }
        Some(PathMatch::Pattern(pattern)) => literal_start(pattern),
    };
    // What a pattern matches can be told of an exact path, which may also stand within `any` or `all`.
    if matches!(path, None | Some(PathMatch::Exact(_))) {
        keys.push(ANY_PATTERN.to_owned());
    }
    for (at, _) in start.match_indices('/').take(MAX_PARTS) {
        keys.extend(
            start
                .get(..at)
                .filter(|prefix| !prefix.is_empty())
                .map(|prefix| format!("^{prefix}")),
        );
        keys.extend(start.get(..=at).map(|prefix| format!("^{prefix}")));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether every request that matches `inner` matches `outer`. `false` may also mean: not known.
fn covers(outer: &RouteMatch, inner: &RouteMatch) -> bool {
    let RouteMatch {
        host,
        path,
        methods,
        headers,
        cookies,
        query,
        client_address,
        languages,
        countries,
        continents,
        any,
        all,
        not,
    } = outer;
    let values = |wanted: &[(String, ValueMatch)], given: fn(&RouteMatch) -> &[(String, ValueMatch)]| {
        wanted.iter().all(|wanted| {
            follows(inner, &|m| {
                given(m)
                    .iter()
                    .any(|(name, value)| *name == wanted.0 && value_within(value, &wanted.1))
            })
        })
    };
    let words = |wanted: &[String], given: fn(&RouteMatch) -> &[String]| {
        wanted.is_empty()
            || follows(inner, &|m| {
                let given = given(m);
                !given.is_empty() && given.iter().all(|word| wanted.contains(word))
            })
    };
    host.as_ref()
        .is_none_or(|host| follows(inner, &|m| host_within(m.host.as_ref(), host)))
        && path
            .as_ref()
            .is_none_or(|path| path_is_any(path) || follows(inner, &|m| path_within(m.path.as_ref(), path)))
        && words(methods, |m| &m.methods)
        && words(languages, |m| &m.languages)
        && words(countries, |m| &m.countries)
        && words(continents, |m| &m.continents)
        && values(headers, |m| &m.headers)
        && values(cookies, |m| &m.cookies)
        && values(query, |m| &m.query)
        && (client_address.is_empty()
            || follows(inner, &|m| networks_within(&m.client_address, client_address)))
        && (any.is_empty() || any.iter().any(|each| covers(each, inner)))
        && all.iter().all(|each| covers(each, inner))
        && not
            .as_ref()
            .is_none_or(|not| follows(inner, &|m| m.not.as_ref().is_some_and(|given| covers(given, not))))
}

/// Whether a condition follows from `given`: from what stands in it directly, from one of what must all hold, or
/// from each of what may hold instead of another.
fn follows(given: &RouteMatch, holds: &dyn Fn(&RouteMatch) -> bool) -> bool {
    holds(given)
        || given.all.iter().any(|each| follows(each, holds))
        || (!given.any.is_empty() && given.any.iter().all(|each| follows(each, holds)))
}

fn host_within(given: Option<&HostMatch>, wanted: &HostMatch) -> bool {
    match (given, wanted) {
        (None, _) => false,
        (Some(HostMatch::Exact(given)), HostMatch::Under(suffix)) => {
            given.len() > suffix.len() && given.ends_with(suffix)
        }
        (Some(HostMatch::Under(given)), HostMatch::Under(suffix)) => given.ends_with(suffix),
        (Some(given), wanted) => given == wanted,
    }
}

fn path_is_any(path: &PathMatch) -> bool {
    matches!(path, PathMatch::Prefix(prefix) if prefix == "/")
}

fn path_within(given: Option<&PathMatch>, wanted: &PathMatch) -> bool {
    let under = |path: &str, prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    };
    match (given, wanted) {
        (None, _) => false,
        (Some(PathMatch::Exact(given) | PathMatch::Prefix(given)), PathMatch::Prefix(prefix)) => {
            under(given, prefix)
        }
        (Some(PathMatch::Exact(given)), PathMatch::Pattern(pattern)) => pattern.matches(given.as_bytes()),
        (Some(PathMatch::Pattern(given)), PathMatch::Prefix(prefix)) => {
            let start = literal_start(given);
            // What follows the start is not known: it must reach beyond the border.
            start.len() > prefix.len() && under(start, prefix)
                || (prefix.ends_with('/') && start.starts_with(prefix.as_str()))
        }
        (Some(given), wanted) => given == wanted,
    }
}

/// What every path that matches starts with, as far as it is plain to see.
fn literal_start(pattern: &Pattern) -> &str {
    let text = pattern.as_str();
    let text = text.strip_prefix('^').unwrap_or(text);
    // Alternatives and flags change the meaning of what stands before or behind them.
    if text.contains('|') || text.contains("(?") {
        return "";
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '%');
    let end = text.find(|c| !plain(c)).unwrap_or(text.len());
    // A character that is repeated or optional is not certain.
    let repeated = text
        .get(end..)
        .is_some_and(|rest| rest.starts_with(['*', '?', '{', '+']));
    let end = if repeated { end.saturating_sub(1) } else { end };
    text.get(..end).unwrap_or("")
}

fn value_within(given: &ValueMatch, wanted: &ValueMatch) -> bool {
    match (given, wanted) {
        (ValueMatch::Absent, ValueMatch::Absent) => true,
        (ValueMatch::Absent, _) | (_, ValueMatch::Absent) => false,
        (_, ValueMatch::Present) => true,
        (ValueMatch::Exact(given), ValueMatch::Pattern(pattern)) => pattern.matches(given.as_bytes()),
        (given, wanted) => given == wanted,
    }
}

fn networks_within(given: &[IpNet], wanted: &[IpNet]) -> bool {
    let within = |net: &IpNet| {
        wanted
            .iter()
            .any(|other| other.prefix <= net.prefix && other.contains(net.address))
    };
    !given.is_empty() && given.iter().all(within)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::config::Config;
    use crate::parse::parse_toml;

    /// Whether a route of the first conditions takes all that one of the second matches, as they stand.
    fn covers_all(outer: &str, inner: &str) -> bool {
        let route = |name: &str, conditions: &str| {
            format!(
                "[[load_balancers.shop.routes]]\nname = \"{name}\"\npool = \"default\"\nmatch = {{ {conditions} }}\n"
            )
        };
        let text = format!(
            "[node]\ngeoip = \"x.mmdb\"\n[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:1\"]\n{}{}",
            route("outer", outer),
            route("inner", inner)
        );
        let config: Config = parse_toml(&text, "x").unwrap_or_else(|errors| panic!("{}", errors[0]));
        let lb = config.load_balancers.values().next().unwrap();
        let named = |name: &str| {
            lb.routes
                .iter()
                .find(|route| route.name.as_str() == name)
                .unwrap()
        };
        let found = shadowed(&[named("outer"), named("inner")]);
        found == [(1, 0)]
    }

    #[test]
    fn what_follows_from_the_other_is_found() {
        for (outer, inner) in [
            ("", "path = \"/a\""),
            ("path_prefix = \"/\"", "host = \"shop.test\""),
            ("path_prefix = \"/a\"", "path = \"/a/b\""),
            ("path_prefix = \"/a\"", "path_prefix = \"/a\", method = \"GET\""),
            ("path_prefix = \"/a\"", "path_regex = \"/a/[0-9]+\""),
            ("path_regex = \"/a/[0-9]+\"", "path = \"/a/7\""),
            (
                "host = \"*.shop.test\", path_regex = \"/[a-z]+\"",
                "host = \"eu.shop.test\", path = \"/a\", method = \"GET\"",
            ),
            (
                "path_regex = \"/[a-z]\"",
                "any = [{ path = \"/a\" }, { path = \"/b\" }]",
            ),
            (
                "path_regex = \"/a\", headers = { X = { regex = \"[0-9]+\" } }, cookies = { c = { regex = \"a.*\" } }",
                "path = \"/a\", headers = { X = \"12\" }, cookies = { c = \"ab\" }, query = { q = \"1\" }",
            ),
            ("host = \"*.shop.test\"", "host = \"eu.shop.test\""),
            ("host = \"*.shop.test\"", "host = \"*.eu.shop.test\""),
            ("method = [\"GET\", \"HEAD\"]", "method = \"GET\""),
            ("headers = { X = true }", "headers = { X = \"1\" }"),
            (
                "headers = { X = { regex = \"[0-9]\" } }",
                "headers = { X = \"1\" }",
            ),
            (
                "client_address = \"10.0.0.0/8\"",
                "client_address = [\"10.1.0.0/16\", \"10.2.3.4\"]",
            ),
            ("country = [\"DE\", \"AT\"]", "country = \"AT\""),
            ("any = [{ path = \"/a\" }, { path = \"/b\" }]", "path = \"/b\""),
            (
                "method = \"GET\"",
                "any = [{ method = \"GET\", path = \"/a\" }, { method = \"GET\", path = \"/b\" }]",
            ),
            (
                "all = [{ method = \"GET\" }, { path_prefix = \"/a\" }]",
                "method = \"GET\", path = \"/a\"",
            ),
            ("not = { path = \"/a\" }", "not = { path_prefix = \"/a\" }"),
        ] {
            assert!(covers_all(outer, inner), "{outer} / {inner}");
        }
    }

    /// Nobody may be told that a route is dead which is not.
    #[test]
    fn what_something_slips_past_is_not_called_hidden() {
        for (outer, inner) in [
            ("path = \"/a\"", ""),
            ("path_prefix = \"/a\"", "path = \"/ab\""),
            ("path_prefix = \"/a\"", "path_regex = \"/a.*\""),
            ("path_prefix = \"/a/b\"", "path_regex = \"/a/b?\""),
            ("path_prefix = \"/a\"", "path_regex = \"/a/x|/b\""),
            ("path_regex = \"/a/[0-9]+\"", "path = \"/a/7x\""),
            ("path_regex = \"/a/[0-9]*\"", "path_prefix = \"/a/7\""),
            (
                "path_regex = \"/[a-z]\"",
                "any = [{ path = \"/a\" }, { path = \"/1\" }]",
            ),
            ("path_regex = \"/a\", method = \"GET\"", "path = \"/a\""),
            ("host = \"*.shop.test\"", "host = \"shop.test\""),
            ("host = \"eu.shop.test\"", "host = \"*.shop.test\""),
            ("method = \"GET\"", "method = [\"GET\", \"POST\"]"),
            ("headers = { X = \"1\" }", "headers = { X = true }"),
            ("headers = { X = true }", "headers = { X = false }"),
            (
                "client_address = \"10.1.0.0/16\"",
                "client_address = \"10.0.0.0/8\"",
            ),
            (
                "client_address = \"10.1.0.0/16\"",
                "client_address = [\"10.1.0.0/16\", \"10.2.0.0/16\"]",
            ),
            ("path = \"/a\"", "any = [{ path = \"/a\" }, { path = \"/b\" }]"),
            ("all = [{ method = \"GET\" }, { path = \"/a\" }]", "path = \"/a\""),
            ("not = { path_prefix = \"/a\" }", "not = { path = \"/a\" }"),
        ] {
            assert!(!covers_all(outer, inner), "{outer} / {inner}");
        }
    }
}
