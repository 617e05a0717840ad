//! Where in a text something stands that was found out after reading it, such as a file that cannot be used.
//!
//! A valid config no longer knows its text, and rarely needs to: the text is read once more when there is something
//! to tell. Listeners, routes and pools are found by their names, also by those that were not written.

use std::ops::Range;

use super::load_balancer::DEFAULT_NAME;
use super::tree::{Entry, Node, Value, read_json, read_toml};
use crate::diagnostic::{Diagnostic, Fault, Source};

/// Problems of a valid config in their places of `text`, in its order. Each is the path of a key, in which
/// listeners, routes and pools go by their names (`load_balancers.shop.routes.api.error_pages`), and what is wrong
/// with it. What cannot be found stands at the next thing around it that can.
pub fn place(text: &str, is_json: bool, file: &str, problems: Vec<(String, String)>) -> Vec<Diagnostic> {
    if problems.is_empty() {
        return Vec::new();
    }
    let source = Source::new(file, text);
    let root = match is_json {
        true => read_json(&source, text).0,
        false => read_toml(&source, text).0,
    };
    let placed = problems.into_iter().map(|(key, cause)| {
        let found = root.as_ref().and_then(|root| find(root, &key));
        match found {
            Some(span) => source.diagnose(span, &key, Fault::new(cause)),
            None => Diagnostic::about_key(file, &key, cause),
        }
    });
    let mut placed: Vec<Diagnostic> = placed.collect();
    placed.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    placed
}

/// Where the key stands, or what is nearest around it.
fn find(root: &Node, key: &str) -> Option<Range<usize>> {
    let (mut at, mut rest) = (root, key);
    let mut found = None;
    while !rest.is_empty() {
        let Some((next, left)) = step(at, rest) else {
            // In the short form, what belongs to the pool stands in the load balancer itself, and in JSON load
            // balancers may stand at the top.
            let shorter = ["pools.default.", "load_balancers."];
            let shorter = shorter.iter().find_map(|words| rest.strip_prefix(words));
            match shorter.filter(|shorter| step(at, shorter).is_some()) {
                Some(shorter) => rest = shorter,
                None => break,
            }
            continue;
        };
        (at, rest) = (next, left);
        found = Some(at.span.clone());
    }
    found
}

/// The node that the path begins with, and the path below it.
fn step<'n, 'k>(at: &'n Node, path: &'k str) -> Option<(&'n Node, &'k str)> {
    match &at.value {
        Value::Table(entries) => {
            // Names may hold dots: the longest one that fits is meant.
            let fitting = entries
                .iter()
                .filter_map(|entry| Some((entry, below(path, &entry.key)?)));
            let (entry, rest) = fitting.min_by_key(|(_, rest)| rest.len())?;
            Some((&entry.node, rest))
        }
        Value::List(items) => match path.strip_prefix('[').and_then(|path| path.split_once(']')) {
            Some((index, rest)) => {
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, rest.strip_prefix('.').unwrap_or(rest)))
            }
            None => named(items, path),
        },
        _ => None,
    }
}

/// The listener or route whose name the path begins with.
fn named<'n, 'k>(items: &'n [Node], path: &'k str) -> Option<(&'n Node, &'k str)> {
    let fitting = items.iter().enumerate().filter_map(|(i, item)| {
        let rest = names(i, item).into_iter().find_map(|name| below(path, &name))?;
        Some((item, rest))
    });
    fitting.min_by_key(|(_, rest)| rest.len())
}

/// The name of an item of a list; without one, those that it may have got by its place.
fn names(index: usize, item: &Node) -> Vec<String> {
    let Value::Table(entries) = &item.value else {
        return Vec::new();
    };
    let get = |key: &str| entries.iter().find(|entry| entry.key == key);
    if let Some(Entry { node, .. }) = get("name") {
        return match &node.value {
            Value::Text(name) => vec![name.clone()],
            _ => Vec::new(),
        };
    }
    let number = index + 1;
    let mut names = vec![format!("route-{number}")];
    if get("match").is_none() {
        names.push(DEFAULT_NAME.to_owned());
    }
    for protocol in ["http", "https"] {
        names.push(match index {
            0 => protocol.to_owned(),
            _ => format!("{protocol}-{number}"),
        });
    }
    names
}

/// What follows `key` in a path that begins with it.
fn below<'k>(path: &'k str, key: &str) -> Option<&'k str> {
    let rest = path.strip_prefix(key)?;
    match rest.chars().next() {
        None | Some('[') => Some(rest),
        Some('.') => rest.get(1..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TEXT: &str = r#"[load_balancers."my.shop"]
tls = { ca = "ca.pem" }
[[load_balancers."my.shop".listeners]]
address = "0.0.0.0:80"
[[load_balancers."my.shop".listeners]]
protocol = "https"
tls = { certificates = [{ cert = "a" }, { cert = "b" }] }
[[load_balancers."my.shop".listeners]]
name = "https-2.x"
tls = { certificates = [{ cert = "c" }] }
[[load_balancers."my.shop".routes]]
match.path = "/x"
respond = { body_file = "x.html" }
[[load_balancers."my.shop".routes]]
error_pages = { 404 = "404.html", 5xx = "5xx.html" }
"#;

    fn placed(text: &str, is_json: bool, key: &str) -> (u32, String) {
        let problems = vec![(key.to_owned(), "cannot be read".to_owned())];
        let mut found = place(text, is_json, "e", problems);
        let found = found.remove(0);
        (found.line, found.text)
    }

    #[test]
    fn things_are_found_by_name_and_place() {
        for (key, line, text) in [
            (
                "my.shop.listeners.https-2.tls.certificates[1]",
                7,
                "{ cert = \"b\" }",
            ),
            (
                "my.shop.listeners.https-2.x.tls.certificates[0]",
                10,
                "{ cert = \"c\" }",
            ),
            ("my.shop.routes.route-1.respond.body_file", 13, "\"x.html\""),
            ("my.shop.routes.default.error_pages.5xx", 15, "\"5xx.html\""),
            ("my.shop.pools.default.tls", 2, "{ ca = \"ca.pem\" }"),
            ("my.shop.pools.default.tls.ca", 2, "\"ca.pem\""),
        ] {
            let found = placed(TEXT, false, &format!("load_balancers.{key}"));
            assert_eq!(found, (line, text.to_owned()), "{key}");
        }
    }

    #[test]
    fn what_is_not_there_stands_at_what_is_around_it() {
        let around = "load_balancers.my.shop.listeners.http.tls";
        assert_eq!(placed(TEXT, false, around).0, 3);
        assert_eq!(placed(TEXT, false, "node.geoip").0, 0);
    }

    #[test]
    fn json_may_leave_the_load_balancers_out() {
        let text = "{\n\"shop\": {\"tls\": {\n\"ca\": \"x.pem\"}}}";
        let found = placed(text, true, "load_balancers.shop.pools.default.tls.ca");
        assert_eq!(found, (3, "\"x.pem\"".to_owned()));
    }

    #[test]
    fn several_come_in_the_order_of_the_text() {
        let key = |end: &str| (format!("load_balancers.my.shop.{end}"), "wrong".to_owned());
        let problems = vec![key("routes.default.error_pages"), key("pools.default.tls")];
        let lines: Vec<u32> = place(TEXT, false, "e", problems).iter().map(|d| d.line).collect();
        assert_eq!(lines, [2, 15]);
    }
}
