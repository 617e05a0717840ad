//! Routes that the config's reader calls unreachable, asked of the router itself: no request takes them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use evenkeel_http::RequestHead;
use evenkeel_http::route::{Facts, Router};
use model::config::ListenerLimits;
use model::geography::Geography;
use model::parse::{Checked, check_toml};
use proptest::prelude::*;

const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/7", "/a/7x", "/a/b", "/ab", "/b"];
const VALUES: [Option<&str>; 3] = [None, Some("1"), Some("12")];

/// One condition, of a few that often follow from each other.
fn condition() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec![
        "path = \"/a\"",
        "path = \"/a/7\"",
        "path = \"/b\"",
        "path_prefix = \"/a\"",
        "path_prefix = \"/a/\"",
        "path_regex = \"/a.*\"",
        "path_regex = \"/a/[0-9]+\"",
        "path_regex = \"/a/7|/b\"",
        "path_regex = \"/[a-z]/?\"",
        "path_regex = \"(?i)/A(/7)?\"",
    ]);
    let value = prop::sample::select(vec![
        "true",
        "false",
        "\"1\"",
        "{ regex = \"1\" }",
        "{ regex = \"[0-9]+\" }",
        "{ regex = \"1?2?\" }",
    ]);
    let named = (prop::sample::select(vec!["headers", "query", "cookies"]), value)
        .prop_map(|(of, value)| format!("{of} = {{ x = {value} }}"));
    let other = prop::sample::select(vec![
        "method = \"GET\"",
        "method = [\"GET\", \"POST\"]",
        "host = \"a.test\"",
        "host = \"*.test\"",
    ]);
    prop_oneof![
        3 => path.prop_map(str::to_owned),
        2 => named,
        1 => other.prop_map(str::to_owned),
    ]
}

/// What a route matches: some conditions with different keys, and perhaps others within `any`, `all` or `not`.
fn conditions() -> impl Strategy<Value = String> {
    let flat = || prop::collection::vec(condition(), 0..3).prop_map(|each| joined(&each));
    let nested = prop_oneof![
        3 => Just(String::new()),
        1 => (condition(), condition()).prop_map(|(a, b)| format!("any = [{{ {a} }}, {{ {b} }}]")),
        1 => condition().prop_map(|a| format!("all = [{{ {a} }}]")),
        1 => condition().prop_map(|a| format!("not = {{ {a} }}")),
    ];
    (flat(), nested).prop_map(|(flat, nested)| match (flat.is_empty(), nested.is_empty()) {
        (false, false) => format!("{flat}, {nested}"),
        _ => format!("{flat}{nested}"),
    })
}

/// The first of each kind: a table has each key once, and one path.
fn joined(each: &[String]) -> String {
    let kind = |text: &str| match text.starts_with("path") {
        true => "path".to_owned(),
        false => text.split(' ').next().unwrap_or_default().to_owned(),
    };
    let mut kinds = BTreeSet::new();
    let first = each.iter().filter(|text| kinds.insert(kind(text)));
    first.cloned().collect::<Vec<_>>().join(", ")
}

/// Reads routes of these matches and priorities; `None` where two are the same, which is an error.
fn read(routes: &[(String, u8)]) -> Option<Checked> {
    let mut text = "[load_balancers.lb]\nbackend_servers = [\"10.0.0.1:1\"]\n".to_owned();
    for (i, (matches, priority)) in routes.iter().enumerate() {
        text.push_str(&format!(
            "[[load_balancers.lb.routes]]\nname = \"r{i}\"\npool = \"default\"\npriority = {priority}\n\
             match = {{ {matches} }}\n"
        ));
    }
    match check_toml(&text, "x") {
        Ok(checked) => Some(checked),
        Err(errors) => {
            let same = errors.iter().all(|error| error.cause.contains("the same"));
            assert!(same, "{}\n{text}", errors[0]);
            None
        }
    }
}

/// The routes that are called unreachable.
fn hidden(checked: &Checked) -> BTreeSet<String> {
    let named = |cause: &str| {
        let rest = cause.strip_prefix("no request reaches the route `")?;
        rest.split('`').next().map(str::to_owned)
    };
    checked
        .warnings
        .iter()
        .filter_map(|warning| named(&warning.cause))
        .collect()
}

/// Every request that can be made of the values that the conditions speak of.
fn requests() -> Vec<String> {
    let mut all = Vec::new();
    for host in ["a.test", "b.test", "c"] {
        for path in PATHS {
            for (method, query) in ["GET", "POST", "PUT"]
                .into_iter()
                .flat_map(|m| VALUES.map(|v| (m, v)))
            {
                for (header, cookie) in VALUES.into_iter().flat_map(|h| VALUES.map(|c| (h, c))) {
                    let part = |lead: &str, value: Option<&str>, end: &str| {
                        value.map_or_else(String::new, |value| format!("{lead}{value}{end}"))
                    };
                    all.push(format!(
                        "{method} {path}{} HTTP/1.1\r\nHost: {host}\r\n{}{}\r\n",
                        part("?x=", query, ""),
                        part("X: ", header, "\r\n"),
                        part("Cookie: x=", cookie, "\r\n")
                    ));
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Nobody is told that a route is dead which is not.
    #[test]
    fn a_route_that_is_called_unreachable_is_never_taken(
        routes in prop::collection::vec((conditions(), 0_u8..3), 2..6)
    ) {
        let Some(checked) = read(&routes) else {
            return Ok(());
        };
        let hidden = hidden(&checked);
        if hidden.is_empty() {
            return Ok(());
        }
        let lb = checked.config.load_balancers.values().next().unwrap();
        let router = Router::new(lb);
        for request in requests() {
            let mut head = RequestHead::new();
            head.parse(request.as_bytes(), &ListenerLimits::default()).unwrap();
            let nowhere = |_: IpAddr| Geography::default();
            let facts = Facts::new(&head, request.as_bytes(), [127, 0, 0, 1].into(), &[], &nowhere);
            let taken = router.find(&facts).map(|i| lb.routes[i].name.as_str());
            prop_assert!(taken.is_none_or(|name| !hidden.contains(name)), "{taken:?} by {request}\n{routes:#?}");
        }
    }
}

/// An exact path behind a pattern that matches it, which only its priority puts first.
#[test]
fn a_path_behind_a_pattern_is_found() {
    let route = |matches: &str, priority| (matches.to_owned(), priority);
    let checked = read(&[
        route("path_regex = \"/a/[0-9]+\"", 1),
        route("path = \"/a/7\", method = \"GET\"", 0),
        route("path = \"/a/b\"", 0),
    ]);
    assert_eq!(hidden(&checked.unwrap()), BTreeSet::from(["r1".to_owned()]));
}
