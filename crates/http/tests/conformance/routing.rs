//! Which route a request takes.

use std::cell::Cell;
use std::net::IpAddr;

use evenkeel_http::RequestHead;
use evenkeel_http::route::{Facts, Router};
use model::config::{IpNet, ListenerLimits, LoadBalancer};
use model::geography::{Code, Geography};
use model::parse::parse_toml;
use proptest::prelude::*;

/// A load balancer with these routes, each line a name and what it matches; they may have `key = value` pairs
/// behind a semicolon.
fn balancer(routes: &[(&str, &str)]) -> LoadBalancer {
    let mut text =
        "[node]\ngeoip = \"x\"\n[load_balancers.lb]\ndefault_language = \"en\"\nbackend_servers = []\n"
            .to_owned();
    for (name, matches) in routes {
        let (matches, more) = matches.split_once("; ").unwrap_or((matches, ""));
        text.push_str(&format!(
            "[[load_balancers.lb.routes]]\nname = \"{name}\"\npool = \"default\"\nmatch = {{ {matches} }}\n{more}\n"
        ));
    }
    let config = parse_toml(&text, "routes.toml").unwrap_or_else(|errors| panic!("{}", errors[0]));
    config.load_balancers.values().next().unwrap().as_ref().clone()
}

/// A request with some fields, from some address, somewhere.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    target: &'a str,
    fields: &'a [&'a str],
    from: [u8; 4],
    trusted: &'a [IpNet],
}

const ASKED: Asked<'static> = Asked {
    method: "GET",
    target: "/",
    fields: &["Host: shop.example"],
    from: [127, 0, 0, 1],
    trusted: &[],
};

impl Asked<'_> {
    /// The name of the route taken, which the explanation must name too.
    fn of(&self, lb: &LoadBalancer) -> Option<String> {
        let router = Router::new(lb);
        let fields: String = self.fields.iter().map(|field| format!("{field}\r\n")).collect();
        let text = format!("{} {} HTTP/1.1\r\n{fields}\r\n", self.method, self.target);
        let mut head = RequestHead::new();
        head.parse(text.as_bytes(), &ListenerLimits::default()).unwrap();
        let asked = Cell::new(0);
        let look_up = |address: IpAddr| {
            asked.set(asked.get() + 1);
            match address {
                IpAddr::V4(ip) if ip.octets()[0] == 81 => geography("DE", "EU"),
                IpAddr::V4(ip) if ip.octets()[0] == 8 => geography("US", "NA"),
                _ => Geography::default(),
            }
        };
        let facts = Facts::new(&head, text.as_bytes(), self.from.into(), self.trusted, &look_up);
        let found = router.find(&facts).map(|i| lb.routes[i].name.to_string());
        assert!(asked.get() <= 1, "an address is looked up once at most");
        let told = router.explain(&facts).into_iter().find(|step| step.matched);
        assert_eq!(found, told.map(|step| step.route.to_string()));
        found
    }
}

fn geography(country: &str, continent: &str) -> Geography {
    Geography {
        country: Code::parse(country),
        continent: Code::parse(continent),
    }
}

fn at(lb: &LoadBalancer, host: &str, target: &str) -> Option<String> {
    Asked {
        target,
        fields: &[&format!("Host: {host}")],
        ..ASKED
    }
    .of(lb)
}

#[test]
fn a_route_without_conditions_takes_everything() {
    for only in ["", "path_prefix = \"/\""] {
        let lb = balancer(&[("only", only)]);
        for (host, path) in [("a", "/"), ("a.b", "/x?y"), ("[::1]:80", "/")] {
            assert_eq!(at(&lb, host, path).as_deref(), Some("only"));
        }
    }
}

/// The specificity rule, in whatever order routes are written.
#[test]
fn the_most_specific_route_is_taken() {
    let lb = balancer(&[
        ("any-api", "path_prefix = \"/api/\""),
        ("host", "host = \"shop.example\""),
        ("under-long", "host = \"*.eu.shop.example\""),
        ("api", "host = \"shop.example\", path_prefix = \"/api\""),
        ("under", "host = \"*.shop.example\""),
        ("regex", "host = \"shop.example\", path_regex = \"/c.*\""),
        ("api-v1", "host = \"shop.example\", path_prefix = \"/api/v1\""),
        ("cart", "host = \"shop.example\", path = \"/cart\""),
    ]);
    for (host, path, route) in [
        ("shop.example", "/cart", Some("cart")),
        ("SHOP.Example.", "/cart", Some("cart")),
        ("shop.example", "/cart/", Some("regex")),
        ("shop.example:8080", "/api", Some("api")),
        ("shop.example", "/api/x", Some("api")),
        ("shop.example", "/api/v1", Some("api-v1")),
        ("shop.example", "/api/v1/x?y=/z", Some("api-v1")),
        ("shop.example", "/api/v12", Some("api")),
        ("shop.example", "/apis", Some("host")),
        ("a.shop.example", "/api/v1", Some("under")),
        ("a.eu.shop.example", "/", Some("under-long")),
        ("eu.shop.example", "/", Some("under")),
        ("xshop.example", "/", None),
        ("other", "/api/x", Some("any-api")),
        ("other", "/api/", Some("any-api")),
        ("other", "/api", None),
        ("other", "/Api/x", None),
    ] {
        assert_eq!(at(&lb, host, path).as_deref(), route, "{host} {path}");
    }
}

/// More conditions go first, then the order written; a priority goes before all.
#[test]
fn conditions_and_priority_decide_among_equals() {
    let lb = balancer(&[
        ("plain", "path_prefix = \"/\""),
        ("one", "headers = { x-a = \"1\" }"),
        ("two", "headers = { x-a = \"1\" }, method = \"GET\""),
        ("also-one", "headers = { x-a = true }"),
        ("first", "headers = { x-first = true }; priority = 1"),
    ]);
    for (fields, route) in [
        (&["Host: a"][..], "plain"),
        (&["Host: a", "X-A: 1"], "two"),
        (&["Host: a", "X-A: 2"], "also-one"),
        (&["Host: a", "X-A: 1", "X-First: "], "first"),
    ] {
        assert_eq!(
            Asked { fields, ..ASKED }.of(&lb).as_deref(),
            Some(route),
            "{fields:?}"
        );
    }
    let post = Asked {
        method: "POST",
        fields: &["Host: a", "X-A: 1"],
        ..ASKED
    };
    assert_eq!(post.of(&lb).as_deref(), Some("one"));
}

/// Whether one route with these conditions takes a request with these fields.
fn takes(matches: &str, asked: Asked<'_>) -> bool {
    asked.of(&balancer(&[("it", matches)])).is_some()
}

#[test]
fn values_of_headers_cookies_and_query() {
    let fields = &[
        "Host: a",
        "X-Group: beta-7",
        "X-Group: other",
        "X-Empty:",
        "Cookie: a=1; user=alice; a=2",
        "Cookie: b=x=y",
    ];
    let asked = Asked {
        target: "/?q=red%20shoes&q=b+c&flag&n%61me=1&e=%C3%A4&bad=%zz",
        fields,
        ..ASKED
    };
    for (matches, expected) in [
        ("headers = { X-Group = \"beta-7\" }", true),
        ("headers = { x-group = \"other\" }", true),
        ("headers = { x-group = \"beta\" }", false),
        ("headers = { x-group = { regex = \"beta-[0-9]+\" } }", true),
        ("headers = { x-group = { regex = \"eta\" } }", false),
        ("headers = { x-empty = true, x-none = false }", true),
        ("headers = { x-none = true }", false),
        ("headers = { x-group = false }", false),
        ("cookies = { user = \"alice\", a = \"2\", b = \"x=y\" }", true),
        ("cookies = { User = \"alice\" }", false),
        ("cookies = { use = true }", false),
        ("query = { q = \"red shoes\" }", true),
        ("query = { q = \"b c\" }", true),
        ("query = { q = \"b+c\" }", false),
        ("query = { flag = true, none = false }", true),
        ("query = { flag = \"\" }", true),
        ("query = { name = \"1\" }", true),
        ("query = { e = \"ä\" }", true),
        ("query = { e = { regex = \"[ä-ö]\" } }", true),
        ("query = { bad = \"%zz\" }", true),
    ] {
        assert_eq!(takes(matches, asked), expected, "{matches}");
    }
}

/// What is not forwarded is not seen, and a client cannot speak for a proxy.
#[test]
fn routing_sees_what_is_forwarded() {
    let fields = &[
        "Host: a",
        "Connection: x-hop",
        "X-Hop: 1",
        "X_Under: 1",
        "X-Forwarded-Proto: https",
    ];
    let asked = Asked { fields, ..ASKED };
    for matches in [
        "headers = { x-hop = true }",
        "headers = { X_Under = true }",
        "headers = { x-forwarded-proto = \"https\" }",
    ] {
        assert!(!takes(matches, asked), "{matches}");
    }
    let trusted = [IpNet::new([127, 0, 0, 0].into(), 8).unwrap()];
    let from_proxy = Asked {
        trusted: &trusted,
        ..asked
    };
    assert!(takes("headers = { x-forwarded-proto = \"https\" }", from_proxy));
}

/// The client is the peer, or behind trusted proxies the one that they report.
#[test]
fn client_address_country_and_continent() {
    let trusted = [IpNet::new([127, 0, 0, 0].into(), 8).unwrap()];
    let behind = Asked {
        fields: &["Host: a", "X-Forwarded-For: 81.2.3.4"],
        trusted: &trusted,
        ..ASKED
    };
    let direct = Asked {
        from: [81, 2, 3, 4],
        ..ASKED
    };
    let liar = Asked {
        trusted: &[],
        ..behind
    };
    for matches in [
        "client_address = \"81.0.0.0/8\"",
        "client_address = [\"::/0\", \"81.2.3.4\"]",
        "country = \"de\"",
        "country = [\"FR\", \"DE\"], continent = \"EU\"",
        "not = { country = \"US\" }",
    ] {
        assert!(takes(matches, behind) && takes(matches, direct), "{matches}");
    }
    for matches in [
        "client_address = \"81.0.0.0/8\"",
        "country = \"DE\"",
        "continent = \"EU\"",
    ] {
        assert!(!takes(matches, liar), "{matches}");
    }
}

/// All languages that routes name take part, and the default one.
#[test]
fn the_language_preferred_among_all_on_offer() {
    let lb = balancer(&[
        ("default", ""),
        ("german", "language = \"de\""),
        ("swiss", "language = [\"de-CH\", \"fr-CH\"]"),
    ]);
    for (accept, route) in [
        ("de", "german"),
        ("de-AT, en;q=0.9", "german"),
        ("de-CH", "swiss"),
        ("fr", "swiss"),
        ("en, de;q=0.8", "default"),
        ("en-GB, de;q=0.8", "default"),
        ("it, *;q=0.1", "default"),
        ("it", "default"),
    ] {
        let field = format!("Accept-Language: {accept}");
        let asked = Asked {
            fields: &["Host: a", &field],
            ..ASKED
        };
        assert_eq!(asked.of(&lb).as_deref(), Some(route), "{accept}");
    }
    assert_eq!(ASKED.of(&lb).as_deref(), Some("default"));
}

#[test]
fn any_all_and_not() {
    let beta = Asked {
        fields: &["Host: a", "X-Beta: 1", "Cookie: team=qa"],
        ..ASKED
    };
    for (matches, expected) in [
        (
            "any = [{ headers = { x-beta = \"2\" } }, { cookies = { team = \"qa\" } }]",
            true,
        ),
        (
            "any = [{ headers = { x-beta = \"2\" } }, { cookies = { team = \"dev\" } }]",
            false,
        ),
        (
            "all = [{ headers = { x-beta = \"1\" } }, { cookies = { team = \"qa\" } }]",
            true,
        ),
        (
            "all = [{ headers = { x-beta = \"1\" } }, { cookies = { team = \"dev\" } }]",
            false,
        ),
        ("not = { headers = { x-beta = true } }", false),
        (
            "not = { headers = { x-beta = true }, cookies = { team = \"dev\" } }",
            true,
        ),
        ("not = { not = { host = \"a\" } }", true),
        (
            "any = [{ host = \"b\" }, { host = \"a\", not = { path_prefix = \"/x\" } }]",
            true,
        ),
        ("any = [{ host = \"*.a\" }, { path_regex = \"/.+\" }]", false),
    ] {
        assert_eq!(takes(matches, beta), expected, "{matches}");
    }
}

#[test]
fn the_explanation_lists_what_was_tried_and_why() {
    let lb = balancer(&[
        ("exact", "host = \"a\", path = \"/x\""),
        ("other", "host = \"b\""),
        (
            "headed",
            "host = \"a\", path_prefix = \"/q\", headers = { x-a = \"1\" }",
        ),
        ("under", "host = \"a\", path_prefix = \"/q\""),
    ]);
    let text = "GET /q/1 HTTP/1.1\r\nHost: a\r\nX-A: 2\r\n\r\n";
    let mut head = RequestHead::new();
    head.parse(text.as_bytes(), &ListenerLimits::default()).unwrap();
    let facts = Facts::new(&head, text.as_bytes(), [127, 0, 0, 1].into(), &[], &|_| {
        Geography::default()
    });
    let steps: Vec<String> = Router::new(&lb)
        .explain(&facts)
        .into_iter()
        .map(|step| step.why)
        .collect();
    assert_eq!(
        steps,
        [
            "path `/q/1` is not `/x`",
            "header x-a is `2`, not `1`",
            "host is `a`, path `/q/1` is under `/q`",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The index finds what looking at every route in order finds: the explanation does that.
    #[test]
    fn the_index_finds_what_a_walk_finds(
        routes in proptest::collection::btree_map(
            (
                prop_oneof![
                    Just(String::new()),
                    "(a|b|[*][.]a|[*][.]b[.]a|c[.]a)".prop_map(|host| format!("host = \"{host}\", ")),
                ],
                prop_oneof![
                    Just(String::new()),
                    "(path|path_prefix) = \"(/a|/a/|/a/b|/ab|/|/a/b/c)\", ",
                    "path_regex = \"(/a[.][*]|/[.]b[.][*])\", ",
                ],
                prop_oneof![Just(""), Just("headers = { x-a = true }, "), Just("method = \"PUT\", ")],
            ),
            0..3u8,
            1..12,
        ),
        asked in proptest::collection::vec(("(a|b|c[.]a|b[.]a|x[.]b[.]a|d)", "(/|/a|/a/|/a/b|/a/b/c/d|/ab|/cb)", any::<bool>()), 8),
    ) {
        let routes: Vec<(String, String)> = routes
            .into_iter()
            .enumerate()
            .map(|(i, ((host, path, more), priority))| {
                (format!("r{i}"), format!("{host}{path}{more}; priority = {priority}").replace(", ;", ";"))
            })
            .collect();
        let lb = balancer(&routes.iter().map(|(n, m)| (n.as_str(), m.as_str())).collect::<Vec<_>>());
        for (host, target, headed) in asked {
            let host = format!("Host: {host}");
            let fields = [host.as_str(), "X-A: 1"];
            let fields = if headed { &fields[..] } else { &fields[..1] };
            // Compares the two.
            Asked { target: &target, fields, ..ASKED }.of(&lb);
        }
    }
}
