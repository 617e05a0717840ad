//! RFC 9110 section 15.4: redirects, and the addresses that they name; and targets rewritten for a backend.

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_http::template::{self, Values};
use evenkeel_http::{Parsed, RequestHead};
use model::config::{ListenerLimits, PathRewrite, Pattern, Template, Variable};
use model::reason::Reason;

fn values<'a>(host: &'a str, path: &'a str, query: Option<&'a str>) -> Values<'a> {
    Values {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        host: host.as_bytes(),
        method: b"GET",
        path: path.as_bytes(),
        query: query.map(str::as_bytes),
        request_id: b"id",
        route: b"main",
        scheme: b"http",
    }
}

fn location(to: &str, values: &Values<'_>) -> Result<String, Reason> {
    let to = Template::parse(to, &Variable::ALL, None).unwrap();
    let mut out = b"kept ".to_vec();
    template::location(&to, values, None, &mut out)?;
    Ok(String::from_utf8(out)
        .unwrap()
        .strip_prefix("kept ")
        .unwrap()
        .to_owned())
}

#[test]
fn an_address_is_filled_in_with_what_was_asked() {
    let asked = values("Shop.Test", "/a/b", Some("c=d&e"));
    for (to, wanted) in [
        ("https://{host}{path}{query}", "https://shop.test/a/b?c=d&e"),
        ("{scheme}://new.test/{route}", "http://new.test/main"),
        ("/x{query}", "/x?c=d&e"),
        ("{path}", "/a/b"),
    ] {
        assert_eq!(location(to, &asked).unwrap(), wanted);
    }
    assert_eq!(location("/x{query}", &values("a", "/", None)).unwrap(), "/x");
    assert_eq!(
        location("https://{host}{path}", &values("a", "*", None)).unwrap(),
        "https://a/"
    );
}

/// An address that begins with two slashes names a host: no path may lead there.
#[test]
fn no_path_leads_to_another_host() {
    for path in ["//evil.test", "///evil.test/x", "//"] {
        for to in ["{path}", "/{path}", "{path}{query}"] {
            let got = location(to, &values("a", path, None)).unwrap();
            assert!(
                got.starts_with('/') && !got.starts_with("//"),
                "{to} {path}: {got}"
            );
        }
    }
}

#[test]
fn an_address_with_a_host_needs_one() {
    let none = values("", "/", None);
    assert_eq!(location("https://{host}/", &none), Err(Reason::BadHost));
    assert_eq!(location("https://a/", &none).unwrap(), "https://a/");
}

fn rewritten(rule: &PathRewrite, prefix: Option<&str>, target: &str) -> Result<String, Reason> {
    let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse(text.as_bytes(), &ListenerLimits::default()),
        Ok(Parsed::Complete)
    );
    let mut out = Vec::new();
    let mut outgoing = RequestHead::new();
    outgoing.copy_from(&head);
    if template::rewrite(rule, prefix, &head, text.as_bytes(), &mut out) {
        outgoing.set_target(&out)?;
    }
    Ok(String::from_utf8(outgoing.target(text.as_bytes()).to_vec()).unwrap())
}

#[test]
fn a_prefix_is_replaced_at_its_border() {
    for (new, prefix, target, wanted) in [
        ("/v2", Some("/api"), "/api", "/v2"),
        ("/v2", Some("/api"), "/api/x?y", "/v2/x?y"),
        ("/v2/", Some("/api"), "/api/x", "/v2/x"),
        ("/v2", Some("/api/"), "/api/x", "/v2/x"),
        ("/", Some("/api"), "/api", "/"),
        ("/", Some("/api"), "/api/x", "/x"),
        ("/", Some("/api"), "/api?q", "/?q"),
        ("/v2", None, "/x", "/v2/x"),
        ("/v2", None, "/", "/v2/"),
    ] {
        let rule = PathRewrite::Prefix(new.to_owned());
        assert_eq!(
            rewritten(&rule, prefix, target).unwrap(),
            wanted,
            "{new} {target}"
        );
    }
}

/// What a pattern makes of a path is held to the same rules as what a client sends.
#[test]
fn a_rewritten_path_is_in_normal_form_or_refused() {
    let rule = |pattern: &str, to: &str| PathRewrite::Pattern {
        pattern: Pattern::parse(pattern).unwrap(),
        to: Template::parse(to, &[], Some(2)).unwrap(),
    };
    let dots = rule("/x(.*)y", "/a/b/{1}/c");
    assert_eq!(rewritten(&dots, None, "/x..y").unwrap(), "/a/c");
    assert_eq!(rewritten(&dots, None, "/other").unwrap(), "/other");
    let halves = rule("/(..)(.*)", "/%{1}{2}");
    assert_eq!(rewritten(&halves, None, "/2fx"), Err(Reason::BadPath));
    assert_eq!(rewritten(&halves, None, "/zzx"), Err(Reason::BadTarget));
    let query = rule("/(.*)", "/s?q={1}");
    assert_eq!(rewritten(&query, None, "/a?b=c").unwrap(), "/s?q=a&b=c");
}
