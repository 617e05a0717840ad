//! Routes, as text.

use super::{Writer, action, inline_table, list, quoted, sticky};
use crate::config::{PathMatch, Route, RouteMatch, RouteTarget, Split, SplitPart, ValueMatch};

pub(super) fn write(w: &mut Writer, path: &str, route: &Route) {
    let Route {
        name,
        priority,
        matches,
        target,
        rate_limits,
        timeouts,
        actions,
    } = route;
    w.header(&format!("[[{path}]]"));
    w.text("name", name.as_str());
    w.raw("priority", priority);
    w.raw("match", match_table(matches));
    match target {
        RouteTarget::Pool(pool) => w.text("pool", pool.as_str()),
        RouteTarget::Split(split) => write_split(w, split),
        RouteTarget::Redirect(redirect) => action::write_redirect(w, redirect),
        RouteTarget::Respond(respond) => action::write_respond(w, respond),
    }
    sticky::write_limits(w, rate_limits, timeouts);
    action::write_actions(w, actions);
}

fn write_split(w: &mut Writer, split: &Split) {
    let Split { parts, key } = split;
    let parts = parts.iter().map(|SplitPart { pool, weight }| {
        format!("{{ pool = {}, weight = {weight} }}", quoted(pool.as_str()))
    });
    w.raw("split", list(parts));
    match key {
        Some(key) => w.text("split_key", &key.to_string()),
        None => w.comment("split_key: each request is shared out by itself"),
    }
}

fn match_table(matches: &RouteMatch) -> String {
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
    } = matches;
    let mut keys: Vec<(&str, String)> = Vec::new();
    keys.extend(host.iter().map(|host| ("host", quoted(&host.to_string()))));
    keys.extend(path.iter().map(|path| match path {
        PathMatch::Exact(path) => ("path", quoted(path)),
        PathMatch::Prefix(path) => ("path_prefix", quoted(path)),
        PathMatch::Pattern(pattern) => ("path_regex", quoted(pattern.as_str())),
    }));
    let networks: Vec<String> = client_address.iter().map(ToString::to_string).collect();
    for (key, texts) in [
        ("method", methods),
        ("client_address", &networks),
        ("language", languages),
        ("country", countries),
        ("continent", continents),
    ] {
        if !texts.is_empty() {
            keys.push((key, list(texts.iter().map(|text| quoted(text)))));
        }
    }
    for (key, values) in [("headers", headers), ("cookies", cookies), ("query", query)] {
        if !values.is_empty() {
            keys.push((key, inline_table(values.iter().map(condition))));
        }
    }
    for (key, nested) in [("any", any), ("all", all)] {
        if !nested.is_empty() {
            keys.push((key, list(nested.iter().map(match_table))));
        }
    }
    keys.extend(not.iter().map(|not| ("not", match_table(not))));
    inline_table(keys.into_iter().map(|(key, value)| format!("{key} = {value}")))
}

fn condition((name, value): &(String, ValueMatch)) -> String {
    let value = match value {
        ValueMatch::Present => "true".to_owned(),
        ValueMatch::Absent => "false".to_owned(),
        ValueMatch::Exact(value) => quoted(value),
        ValueMatch::Pattern(pattern) => format!("{{ regex = {} }}", quoted(pattern.as_str())),
    };
    // A key may have no multi-line form, which `quoted` takes for some texts.
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{name}\" = {value}")
}
