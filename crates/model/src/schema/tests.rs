//! What is declared holds of the parser: every key is read, every default is true, every range is kept.

use super::{ALL, Default, Form, Key, Kind, Table, json_schema};
use crate::config::{Config, Pattern, TokenHash};
use crate::diagnostic::Diagnostic;
use crate::effective::to_toml;
use crate::parse::parse_toml;
use crate::units::{format_duration, format_size};

/// A document in which `line` stands in the table, beside what the table needs for the line to have a meaning.
fn document(table: &Table, key: &str, line: &str) -> String {
    let without = |needed: &str, text: &str| {
        if key == needed {
            String::new()
        } else {
            format!("{text}\n")
        }
    };
    let servers = without("backend_servers", "backend_servers = [\"10.0.0.1:9001\"]");
    let listener = "[[load_balancers.x.listeners]]\naddress = \"0.0.0.0:80\"\n";
    let https = "[[load_balancers.x.listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"https\"\n";
    let balancer = format!("[load_balancers.x]\n{servers}");
    match table.id {
        "config" => format!("{line}\n{}", without("load_balancers", &balancer)),
        "node" if key == "group" => format!("{balancer}[node]\nuser = \"x\"\n{line}\n"),
        "tracing" => {
            let endpoint = without("endpoint", "endpoint = \"http://127.0.0.1:4318\"");
            format!("{balancer}[tracing]\n{endpoint}{line}\n")
        }
        "notify" => {
            let beside = if key == "user" {
                "password_file = \"p\"\n"
            } else {
                ""
            };
            let url = without("url", "url = \"redis://10.0.0.1:6379\"");
            format!(
                "{balancer}[node]\nname = \"a\"\n[store]\nkind = \"etcd\"\nendpoints = [\"http://10.0.0.1:2379\"]\n[notify]\n{url}{beside}{line}\n"
            )
        }
        "store" if key == "kind" => format!("{balancer}[store]\n{line}\n"),
        "store" => {
            let beside = match key {
                "user" => "password_file = \"p\"\n",
                "password_file" => "user = \"u\"\n",
                "cert" => "key = \"k\"\n",
                "key" => "cert = \"c\"\n",
                _ => "",
            };
            let endpoints = without("endpoints", "endpoints = [\"http://10.0.0.1:2379\"]");
            format!("{balancer}[node]\nname = \"a\"\n[store]\nkind = \"etcd\"\n{endpoints}{beside}{line}\n")
        }
        "webhook" | "alertmanager" => {
            let url = without(if key == "url_file" { key } else { "url" }, "url = \"http://a\"");
            format!("{balancer}[[alerts.{}s]]\n{url}{line}\n", table.id)
        }
        "node" | "admin" | "access_log" | "request_id" | "recorder" | "alerts" => {
            format!("{balancer}[{}]\n{line}\n", table.id)
        }
        "admin_tls" => {
            let (certificate, file) = (
                without("certificate", "certificate = \"c\""),
                without("key", "key = \"k\""),
            );
            let whose = if key == "client_ca" {
                "[[admin.certificates]]\nname = \"x\"\nrole = \"viewer\"\n"
            } else {
                ""
            };
            format!("{balancer}[admin.tls]\n{certificate}{file}{line}\n{whose}")
        }
        "admin_token" => {
            let hash = Form::TokenHash.example();
            let (name, role) = (
                without("name", "name = \"x\""),
                without("role", "role = \"viewer\""),
            );
            let hash = without("hash", &format!("hash = \"{hash}\""));
            format!("{balancer}[[admin.tokens]]\n{name}{role}{hash}{line}\n")
        }
        "admin_certificate" => {
            let (name, role) = (
                without("name", "name = \"x\""),
                without("role", "role = \"viewer\""),
            );
            let tls = "[admin.tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
            format!("{balancer}{tls}[[admin.certificates]]\n{name}{role}{line}\n")
        }
        "load_balancer" if key == "pools" => format!("[load_balancers.x]\n{line}\n"),
        "load_balancer" => format!("{balancer}{line}\n"),
        "listener" => {
            let address = without("address", "address = \"0.0.0.0:80\"");
            format!("{balancer}[[load_balancers.x.listeners]]\n{address}{line}\n")
        }
        "listener_tls" => {
            let certificates = without(
                "certificates",
                "tls.certificates = [{ cert = \"c\", key = \"k\" }]",
            );
            format!("{balancer}{https}{certificates}tls.{line}\n")
        }
        "acme" => {
            let domains = without("domains", "domains = [\"a.example\"]");
            format!("{balancer}{https}[load_balancers.x.listeners.tls.acme]\n{domains}{line}\n")
        }
        "certificate" => format!(
            "{balancer}{https}[[load_balancers.x.listeners.tls.certificates]]\n{}{line}\n",
            key_pair(key)
        ),
        "client_certificates" => {
            let ca = without(if key == "ca_pem" { key } else { "ca" }, "ca = \"c\"");
            format!(
                "{balancer}{https}tls.certificates = [{{ cert = \"c\", key = \"k\" }}]\n[load_balancers.x.listeners.tls.client_certificates]\n{ca}{line}\n"
            )
        }
        "backend_tls" => format!(
            "{balancer}{}tls.{line}\n",
            without("server_name", "tls.server_name = \"b\"")
        ),
        "client_certificate" => {
            format!(
                "{balancer}[load_balancers.x.tls.client_certificate]\n{}{line}\n",
                key_pair(key)
            )
        }
        "limits" if key == "target_bytes" => {
            format!("{balancer}{listener}limits.header_bytes = \"1MiB\"\nlimits.{line}\n")
        }
        "limits" => format!("{balancer}{listener}limits.{line}\n"),
        "http2" => format!("{balancer}{listener}http2.{line}\n"),
        "listener_timeouts" => format!("{balancer}{listener}timeouts.{line}\n"),
        "route" if key == "split_key" => {
            format!("{balancer}[[load_balancers.x.routes]]\nsplit = [{{ pool = \"default\" }}]\n{line}\n")
        }
        "route" if ["redirect", "respond"].contains(&key) => {
            format!("{balancer}{TWO_ROUTES}{line}\n")
        }
        "route" if key == "intercept_errors" => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\nerror_pages = {{ \"5xx\" = \"x\" }}\n{line}\n"
        ),
        "redirect" => format!(
            "{balancer}{TWO_ROUTES}{}redirect.{line}\n",
            without("to", "redirect.to = \"/x\"")
        ),
        "respond" => {
            let beside = match key.starts_with("body") {
                true => "respond.content_type = \"x\"",
                false => "respond.body = \"ok\"",
            };
            format!("{balancer}{TWO_ROUTES}{beside}\nrespond.{line}\n")
        }
        "rewrite" if ["path_to", "path_regex"].contains(&key) => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\n{}{}rewrite.{line}\n",
            without("path_regex", "rewrite.path_regex = \"/(.*)\""),
            without("path_to", "rewrite.path_to = \"/x\"")
        ),
        "mirror" => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\n{}mirror.{line}\n",
            without("pool", "mirror.pool = \"default\"")
        ),
        "header_rules" => {
            format!("{balancer}[[load_balancers.x.routes]]\npool = \"default\"\nresponse_headers.{line}\n")
        }
        "rewrite" | "compression" | "buffer_requests" | "buffer_responses" => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\n[load_balancers.x.routes.{}]\n{line}\n",
            table.id
        ),
        "route" if key == "split" => format!("{balancer}[[load_balancers.x.routes]]\n{line}\n"),
        "route" => format!(
            "{balancer}[[load_balancers.x.routes]]\n{}{line}\n",
            without("pool", "pool = \"default\"")
        ),
        "split" => {
            format!(
                "{TWO_POOLS}[[load_balancers.x.routes]]\nsplit = [{{ pool = \"p\" }}, {{ {}{line} }}]\n",
                without("pool", "pool = \"q\",").trim_end()
            )
        }
        "pattern" => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\nmatch = {{ query = {{ a = {{ {line} }} }} }}\n"
        ),
        "match" if ["country", "continent"].contains(&key) => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\nmatch.{line}\n[node]\ngeoip = \"x\"\n"
        ),
        "match" => format!("{balancer}[[load_balancers.x.routes]]\npool = \"default\"\nmatch.{line}\n"),
        "pool" => format!("[load_balancers.x.pools.p]\n{servers}{line}\n"),
        "backend" => format!(
            "[load_balancers.x]\nbackend_servers = [{{ {}{line} }}]\n",
            without("address", "address = \"10.0.0.1:9001\",").trim_end()
        ),
        "hash" => format!("{balancer}algorithm = \"consistent_hash\"\nhash.{line}\n"),
        "health" if key == "service" => format!("{balancer}health.type = \"grpc\"\nhealth.{line}\n"),
        "backend_http2" => format!("{balancer}protocol = \"http2\"\nhttp2.{line}\n"),
        "health" => {
            let interval = match key {
                "timeout" | "fast_interval" => "health.interval = \"1h\"\n",
                _ => "",
            };
            format!(
                "{balancer}{}{interval}health.{line}\n",
                without("type", "health.type = \"http\"")
            )
        }
        "pool_timeouts" => format!("{balancer}timeouts.{line}\n"),
        "route_timeouts" => {
            format!("{balancer}[[load_balancers.x.routes]]\npool = \"default\"\ntimeouts.{line}\n")
        }
        "rate_limit" => format!(
            "{balancer}[[load_balancers.x.routes]]\npool = \"default\"\n[load_balancers.x.routes.rate_limit]\n{}{line}\n",
            without("requests", "requests = 10")
        ),
        "retries" if key == "per_try_timeout" => {
            format!("{balancer}retries.on = [\"timeout\"]\nretries.{line}\n")
        }
        "sticky" if ["app_cookie", "header", "client_address", "cookie"].contains(&key) => {
            format!("{balancer}sticky.{line}\n")
        }
        "sticky" if key == "max_sessions" => {
            format!("{balancer}sticky.header = \"X-Session\"\nsticky.{line}\n")
        }
        "queue" if key == "target" => format!("{balancer}queue.timeout = \"1h\"\nqueue.{line}\n"),
        "circuit_breaker" => {
            let present = match key {
                "window" => "open_time = \"5s\"",
                _ => "window = \"10s\"",
            };
            format!("{balancer}circuit_breaker.{present}\ncircuit_breaker.{line}\n")
        }
        "sticky" => format!("{balancer}sticky.cookie = \"evk\"\nsticky.{line}\n"),
        "discovery" if key == "file" => format!("{balancer}discovery.{line}\n"),
        "dns" => {
            let needed = without("name", "discovery.dns.name = \"shop.internal\"")
                + without("port", "discovery.dns.port = 8080").as_str();
            format!("{balancer}{needed}discovery.dns.{line}\n")
        }
        "registration" | "heartbeat" => {
            let hash = TokenHash::of(b"x");
            let needed = without("token_hash", &format!("{}.token_hash = \"{hash}\"", table.id));
            format!("{balancer}{needed}{}.{line}\n", table.id)
        }
        other => format!("{balancer}{other}.{line}\n"),
    }
}

/// A route that leads to the pool, and the beginning of another.
const TWO_ROUTES: &str =
    "[[load_balancers.x.routes]]\npool = \"default\"\n[[load_balancers.x.routes]]\nmatch.path = \"/r\"\n";

/// Pools for a split.
const TWO_POOLS: &str =
    "[load_balancers.x.pools.p]\nbackend_servers = []\n[load_balancers.x.pools.q]\nbackend_servers = []\n";
/// What a certificate needs beside `key`.
fn key_pair(key: &str) -> &'static str {
    match key {
        "cert" | "cert_pem" => "key = \"k\"\n",
        "key" | "key_pem" => "cert = \"c\"\n",
        _ => "cert = \"c\"\nkey = \"k\"\n",
    }
}

fn read(table: &Table, key: &Key, line: &str) -> Result<Config, Vec<Diagnostic>> {
    let text = document(table, key.name, line);
    parse_toml(&text, "test.toml")
}

fn every_key() -> impl Iterator<Item = (&'static Table, &'static Key)> {
    ALL.iter()
        .flat_map(|table| table.all_keys().map(move |key| (*table, key)))
}

/// A date is a value that no key takes: each says what it wants instead, at its place.
#[test]
fn every_key_is_read_and_names_what_it_takes() {
    for (table, key) in every_key() {
        let found = read(table, key, &format!("{} = 1979-05-27", key.name)).unwrap_err();
        let about = found.iter().find(|d| d.cause.contains("not a date"));
        let about = about.unwrap_or_else(|| panic!("{}.{}: {found:?}", table.id, key.name));
        assert!(about.key.ends_with(key.name), "{about}");
        let shown = if ["token", "tokens", "secret", "key_pem"].contains(&key.name)
            || (table.id, key.name) == ("admin_token", "hash")
            || (key.name == "url" && about.key.starts_with("alerts."))
        {
            "<secret>"
        } else {
            "1979-05-27"
        };
        assert_eq!(about.text, shown, "{about}");
        assert!(about.line > 0);
    }
}

/// Written out, a default means the same as nothing.
#[test]
fn every_default_is_what_holds_without_it() {
    let mut written = 0;
    for (table, key) in every_key() {
        if let Default::Is(value) = key.default {
            let with = read(table, key, &format!("{} = {value}", key.name));
            let without = read_without(table, key);
            assert_eq!(with, without, "{}.{} = {value}", table.id, key.name);
            written += 1;
        }
    }
    assert!(written > 40, "{written}");
}

fn read_without(table: &Table, key: &Key) -> Result<Config, Vec<Diagnostic>> {
    let text = document(table, key.name, "THE_LINE");
    if ["backend", "split"].contains(&table.id) {
        return parse_toml(&text.replace("THE_LINE", ""), "test.toml");
    }
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("THE_LINE")).collect();
    parse_toml(&kept.join("\n"), "test.toml")
}

/// Both ends of a range are taken and shown again unchanged; what lies just beyond is refused, with the range.
#[test]
fn every_range_is_kept() {
    let mut ranges = 0;
    for (table, key) in every_key() {
        let (min, max) = match key.kind {
            Kind::Duration { min, max, .. } | Kind::Size { min, max } | Kind::Integer { min, max } => {
                (min, max)
            }
            Kind::Percent { min, max } => (u64::from(min), u64::from(max)),
            _ => continue,
        };
        ranges += 1;
        for number in [min, max] {
            let config = read(
                table,
                key,
                &format!("{} = {}", key.name, written(&key.kind, number)),
            );
            let config = config.unwrap_or_else(|e| panic!("{}.{} = {number}: {e:?}", table.id, key.name));
            let shown = to_toml(&config);
            let name = if key.name == "poll_frequency" {
                "interval"
            } else {
                key.name
            };
            let line = format!("{name} = {}", written(&key.kind, number));
            assert!(shown.contains(&line), "{}: `{line}` is not in\n{shown}", table.id);
        }
        let zero = matches!(key.kind, Kind::Duration { or_zero: true, .. });
        let below = min.checked_sub(1).filter(|below| !(zero && *below == 0));
        for number in below.into_iter().chain([max + 1]) {
            let found = read(
                table,
                key,
                &format!("{} = {}", key.name, written(&key.kind, number)),
            )
            .unwrap_err();
            let range = key.kind.range().unwrap_or_default();
            assert!(
                found.iter().any(|d| d.cause.contains(&range)),
                "{}.{}: {found:?}",
                table.id,
                key.name
            );
        }
    }
    assert!(ranges > 30, "{ranges}");
}

/// A number as the effective config writes it.
fn written(kind: &Kind, number: u64) -> String {
    match kind {
        Kind::Duration { .. } => format!(
            "\"{}\"",
            format_duration(std::time::Duration::from_millis(number))
        ),
        Kind::Size { .. } => format!("\"{}\"", format_size(number)),
        Kind::Percent { .. } => format!("\"{number}%\""),
        _ => number.to_string(),
    }
}

/// Texts good and bad for the forms; each is tried on every key that takes text.
const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "-",
    ".",
    "_x",
    "x y",
    "shop",
    "Shop.Example.com",
    "shop.example.com:8080",
    "*.example.com",
    "ä",
    "a\u{7}b",
    "a\u{7f}b",
    "a\u{85}b",
    "a/b",
    "/",
    "//",
    "/a/../b",
    "/a/./b",
    "/api",
    "/a?b=c",
    "/a#b",
    "/a b",
    "/ä",
    "/%20",
    "/\"<>",
    "http://x/",
    "client_address",
    "path",
    "header:X-User",
    "header:",
    "header:a b",
    "cookie:sid",
    "cookie:a=b",
    "query:id",
    "query:a&b",
    "query:ä",
    "heder:x",
    "200",
    "200-299",
    "299-200",
    "99",
    "600",
    "100-599",
    "0.0.0.0:8080",
    "0.0.0.0",
    "10.0.0.1:0",
    "10.0.0.1:65535",
    "10.0.0.1:65536",
    "10.0.0.1:",
    "10.0.0.1:123456",
    "10.0.0.01:80",
    "256.0.0.1:80",
    "[::1]:80",
    "::1:80",
    "[::1]",
    "[fe80::1%3]:80",
    "[fe80::1%eth0]:80",
    "[::ffff:10.0.0.1]:80",
    "[:::]:80",
    ":80",
    "localhost:80",
    "10.0.0.0/8",
    "10.0.0.1/8",
    "10.0.0.0/33",
    "10.0.0.0/+8",
    "2001:db8::/32",
    "::/0",
    "::/129",
    "::g/1",
    "text/html; q=1",
    " x",
    "x ",
    "a\tb",
    "X-Check",
    "X_Check",
    "root",
    "1000",
    "user$",
    "[::1]:x",
    "[zz]:80",
    "+80",
    "10.0.0.1:+80",
    "stdout",
    "syslog",
    "syslog:/dev/log",
    "syslog:dev/log",
    "syslog:",
    "syslog:udp://127.0.0.1:514",
    "syslog:udp://[::1]:514",
    "syslog:udp://logs.example:514",
    "syslog:udp://logs.example",
    "syslog:tcp://127.0.0.1:514",
    "file:/var/log/access.log",
    "file:access.log",
    "file:",
    "file:/a\u{7}b",
    "http://127.0.0.1:4318",
    "https://otel.example/otlp",
    "https://[::1]:4318/",
    "http://",
    "ftp://x/",
    "http://a b/",
    "http://user@host/",
];

/// What only the parser can tell: the shape is right, the figures are not.
fn only_the_parser_knows(form: Form, text: &str) -> bool {
    match form {
        Form::ListenAddress => ["10.0.0.1:65536", "[:::]:80"].contains(&text),
        Form::BackendAddress => ["0.0.0.0:8080", "10.0.0.1:0", "10.0.0.1:65536", "[:::]:80"].contains(&text),
        Form::Network => [
            "a",
            ".",
            "10.0.0.1:0",
            "10.0.0.1:80",
            "::1:80",
            ":80",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "200",
            "99",
            "600",
            "1000",
            "10.0.0.1:",
            "10.0.0.1:65535",
            "10.0.0.1:65536",
            "10.0.0.1:123456",
            "10.0.0.01:80",
            "256.0.0.1:80",
            "0.0.0.0:8080",
        ]
        .contains(&text),
        Form::Ip => text == "0.0.0.0",
        Form::Pattern => Pattern::parse(text).is_err(),
        Form::RoutePath => ["/a/../b", "/a/./b"].contains(&text),
        Form::StatusRange => text == "299-200",
        Form::Protocol => ["h2", "h2c", "http"].contains(&text),
        Form::RecordName => text.parse::<std::net::IpAddr>().is_ok(),
        Form::HostField => ["[:::]:80", "10.0.0.1:65536"].contains(&text),
        _ => false,
    }
}

/// The schema takes every text that the parser takes, and refuses the others unless only their figures are wrong.
#[test]
fn texts_have_the_same_form_for_schema_and_parser() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let long = [
        "x".repeat(32),
        "x".repeat(33),
        "x".repeat(63),
        "x".repeat(64),
        "x".repeat(1024),
        "x".repeat(1025),
    ];
    let texts = || TEXTS.iter().copied().chain(long.iter().map(String::as_str));
    let mut tried = 0;
    let mut differing = Vec::new();
    for (table, key) in every_key() {
        let Kind::Text(form) = key.kind else { continue };
        for text in texts() {
            let line = format!("{} = {}", key.name, toml::Value::String(text.to_owned()));
            let document = document(table, key.name, &line);
            let found = parse_toml(&document, "test.toml").err().unwrap_or_default();
            let refused = found.iter().any(|d| !about_more_than_the_text(d));
            let json: serde_json::Value =
                serde_json::to_value(toml::from_str::<toml::Table>(&document).unwrap()).unwrap();
            let refused_by_schema = !validator.is_valid(&json);
            let explained = refused && only_the_parser_knows(form, text);
            if refused != refused_by_schema && !explained {
                differing.push(format!("{}.{} = {text:?}: parser {refused}", table.id, key.name));
            }
            tried += 1;
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(tried > 1000, "{tried}");
}

/// Errors about a key that are not about its text: another pool or listener would make it right.
fn about_more_than_the_text(diagnostic: &Diagnostic) -> bool {
    ["there is no pool", "may not listen on", "listened on twice"]
        .iter()
        .any(|cause| diagnostic.cause.contains(cause))
}
