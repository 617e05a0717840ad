//! Which route a request takes.

use evenkeel_http::route::Router;
use model::config::{HostMatch, LoadBalancer, Name, PathMatch, Route, RouteMatch, RouteTarget};
use std::collections::BTreeMap;

fn router(routes: &[(Option<&str>, Option<PathMatch>)]) -> Router {
    let name = |text: &str| Name::parse(text).unwrap();
    Router::new(&LoadBalancer {
        name: name("lb"),
        listeners: Vec::new(),
        routes: routes
            .iter()
            .enumerate()
            .map(|(i, (host, path))| Route {
                name: name(&format!("route-{i}")),
                priority: 0,
                matches: RouteMatch {
                    host: host.map(|host| HostMatch::Exact(host.to_owned())),
                    path: path.clone(),
                    ..RouteMatch::default()
                },
                target: RouteTarget::Pool(name("default")),
                actions: Default::default(),
                rate_limits: Vec::new(),
                timeouts: Default::default(),
            })
            .collect(),
        pools: BTreeMap::new(),
        access_log: true,
        default_language: None,
    })
}

fn prefix(text: &str) -> Option<PathMatch> {
    Some(PathMatch::Prefix(text.to_owned()))
}

fn exact(text: &str) -> Option<PathMatch> {
    Some(PathMatch::Exact(text.to_owned()))
}

#[test]
fn a_route_without_conditions_takes_everything() {
    for only in [None, prefix("/")] {
        let router = router(&[(None, only)]);
        for (host, path) in [("a", "/"), ("", "/x"), ("a", "*")] {
            assert_eq!(router.find(host.as_bytes(), path.as_bytes()), Some(0));
        }
    }
}

#[test]
fn the_first_that_matches_is_taken() {
    let router = router(&[
        (Some("shop.example"), exact("/cart")),
        (Some("shop.example"), prefix("/api")),
        (Some("shop.example"), None),
        (None, prefix("/api/")),
    ]);
    for (host, path, index) in [
        ("shop.example", "/cart", Some(0)),
        ("SHOP.Example.", "/cart", Some(0)),
        ("shop.example", "/cart/", Some(2)),
        ("shop.example", "/api", Some(1)),
        ("shop.example", "/api/x", Some(1)),
        ("shop.example", "/apis", Some(2)),
        ("other", "/api/x", Some(3)),
        ("other", "/api/", Some(3)),
        ("other", "/api", None),
        ("other", "/Api/x", None),
        ("xshop.example", "/cart", None),
        ("", "/", None),
    ] {
        assert_eq!(
            router.find(host.as_bytes(), path.as_bytes()),
            index,
            "{host} {path}"
        );
    }
}

#[test]
fn the_explanation_lists_what_was_tried_and_why() {
    let router = router(&[
        (Some("a"), exact("/x")),
        (Some("b"), None),
        (None, prefix("/p")),
        (Some("a"), prefix("/q")),
        (None, None),
    ]);
    let steps = |host: &str, path: &str| -> Vec<(bool, String)> {
        router
            .explain(host.as_bytes(), path.as_bytes())
            .into_iter()
            .map(|step| (step.matched, step.why))
            .collect()
    };
    assert_eq!(
        steps("a", "/q/1"),
        [
            (false, "path `/q/1` is not `/x`".to_owned()),
            (false, "host `a` is not `b`".to_owned()),
            (false, "path `/q/1` is not under `/p`".to_owned()),
            (true, "host is `a`, path `/q/1` is under `/q`".to_owned()),
        ]
    );
    assert_eq!(steps("a", "/x"), [(true, "host is `a`, path is `/x`".to_owned())]);
    assert_eq!(
        steps("c", "/").last(),
        Some(&(true, "matches everything".to_owned()))
    );
}
