//! The published schema and the parser agree about documents.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::parse::{check_json, parse_toml};
use evenkeel_model::schema::json_schema;
use serde_json::Value;

fn as_json(toml: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(toml).unwrap()).unwrap()
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&json_schema()).unwrap()
}

/// The schema is one that tools of draft 2020-12 take.
#[test]
fn the_schema_is_a_schema() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema));
}

/// Lines of the load balancer `x`, which has a backend unless they say otherwise, that both take.
const VALID: &[&str] = &[
    "",
    "listen = \"[::]:0\"",
    "listen = [\"0.0.0.0:80\", \"0.0.0.0:81\"]",
    "algorithm = \"peak_ewma\"",
    "algorithm = \"consistent_hash\"",
    "algorithm = \"consistent_hash\"\nhash = { key = \"cookie:sid\", table = \"maglev\", bounded_load = \"150%\" }",
    "backend_servers = []",
    "backend_servers = [\"[::1]:80\", { address = \"10.0.0.1:80\" }, { address = \"10.0.0.2:80\", weight = 0 }]",
    "health = false\npassive = false",
    "health = { type = \"none\" }",
    "health = { type = \"tcp\", port = 9 }",
    "health = { expected_status = 204 }",
    "health = { expected_status = [204, \"300-301\"], headers = { \"X-A\" = \"1\" } }",
    "health = {}",
    "health_endpoint = \"/health?x=1\"\npoll_frequency = 250",
    "poll_frequency = \"1m30s\"",
    "slow_start = 0",
    "slow_start = \"0s\"",
    "timeouts = { total = 0 }",
    "timeouts = { total = 10 }",
    "timeouts.connect = \"250ms\"",
    "retries = { attempts = 0, budget = \"0%\", replay_bytes = 0 }",
    "retries = { replay_bytes = \"1MB\" }",
    "retries = { on = [\"connect\", \"timeout\", 503, \"504\", \"5xx\"], per_try_timeout = \"2s\" }",
    "sticky = { cookie = \"evk\", ttl = \"1h\", secure = true, same_site = \"none\", http_only = false, path = \"/a\", domain = \"a.b\" }",
    "sticky = { cookie = \"evk\", secure = \"auto\", secret = [\"0123456789abcdef\", \"fedcba9876543210\"] }",
    "sticky = { app_cookie = \"JSESSIONID\", ttl = \"30m\", max_sessions = 1000 }",
    "sticky = { header = \"X-Session\", drain_timeout = 0 }",
    "sticky = { client_address = true }",
    "routes = [{ pool = \"default\", rate_limit = { requests = 10 } }]",
    "routes = [{ pool = \"default\", rate_limit = [{ requests = 10, per = \"1m\", burst = 20, key = \"header:X-Key\" }, { requests = 5, key = \"route\", announce = true }] }]",
    "routes = [{ pool = \"default\", timeouts = { total = \"1s\", first_byte = \"500ms\" } }]",
    "routes = [{ pool = \"default\" }]",
    "routes = [{ split = [{ pool = \"default\", weight = 3 }], split_key = \"cookie:user\", priority = 7 }]",
    "routes = [{ pool = \"default\", match = { host = \"*.Example.com\", path_regex = \"/v[0-9]+\", method = \"GET\" } }]",
    "routes = [{ pool = \"default\", match = { headers = { \"X-A\" = \"1\", b = true, c = { regex = \"x|y\" } }, cookies = { a = false } } }]",
    "routes = [{ pool = \"default\", match = { query = { a = \"\" }, client_address = \"10.0.0.0/8\", language = [\"de\", \"pt-BR\"] } }]",
    "routes = [{ pool = \"default\", match = { any = [{ path = \"/\" }, { not = { all = [{ method = [\"PUT\"] }] } }] } }]",
    "default_language = \"de-CH\"",
    "routes = [{ pool = \"default\", match = { host = \"a.b\", path = \"/\" }, name = \"r\" }]",
    "listeners = [{ address = \"0.0.0.0:80\", protocol = \"http\", trusted_proxies = [\"::/0\", \"10.0.0.1\"] }]",
    "listeners = [{ address = \"0.0.0.0:80\", limits = { body_bytes = \"1GiB\" }, timeouts = { keep_alive = 1000 } }]",
];

/// Lines that neither takes.
const INVALID: &[&str] = &[
    "colour = 1",
    "listen = []",
    "listen = 80",
    "listen = \"x\"",
    "listen = \"0.0.0.0:80\"\nlisteners = [{ address = \"0.0.0.0:81\" }]",
    "algorithm = \"Random\"",
    "hash = { key = \"path\" }",
    "algorithm = \"random\"\nhash = {}",
    "algorithm = \"consistent_hash\"\nhash = { bounded_load = 125 }",
    "backend_servers = \"10.0.0.1:80\"",
    "backend_servers = [1]",
    "backend_servers = [{ weight = 1 }]",
    "backend_servers = [{ address = \"10.0.0.1:80\", weight = 1001 }]",
    "backend_servers = [{ address = \"10.0.0.1:80\", wait = 1 }]",
    "backend_servers = [\"web:80\"]",
    "pools.web.backend_servers = []",
    "pools = {}\nbackend_servers = []",
    "health = true",
    "health = \"/\"",
    "health = { type = \"icmp\" }",
    "health = { type = \"tcp\", path = \"/\" }",
    "health = { type = \"none\", rise = 1 }",
    "health = { method = \"HEAD\", body_contains = \"x\" }",
    "health = { method = \"DELETE\" }",
    "health = { rise = 0 }",
    "health = { headers = { \"a b\" = \"1\" } }",
    "health = { headers = { a = 1 } }",
    "health = { expected_status = [] }",
    "health = { expected_status = 99 }",
    "health = { expected_status = \"2xx\" }",
    "health = false\nhealth_endpoint = \"/\"",
    "health = {}\npoll_frequency = 250",
    "health_endpoint = \"health\"",
    "poll_frequency = 99",
    "poll_frequency = 1.5",
    "poll_frequency = \"\"",
    "poll_frequency = \"1s1m\"",
    "poll_frequency = \"5\"",
    "slow_start = -1",
    "timeouts = { total = 9 }",
    "timeouts = { conect = 1000 }",
    "retries = { attempts = 6 }",
    "retries = { budget = 20 }",
    "retries = { replay_bytes = \"1 MB\" }",
    "retries = []",
    "retries = { on = [] }",
    "retries = { on = [\"refused\"] }",
    "retries = { on = [200] }",
    "sticky = true",
    "sticky = { cookie = \"a b\" }",
    "sticky = { cookie = \"a\", header = \"X\" }",
    "sticky = { header = \"X\", secure = true }",
    "sticky = { cookie = \"a\", secure = \"yes\" }",
    "sticky = { cookie = \"a\", secret = \"short\" }",
    "sticky = { cookie = \"a\", max_sessions = 1000 }",
    "routes = [{ pool = \"default\", rate_limit = {} }]",
    "routes = [{ pool = \"default\", rate_limit = [] }]",
    "routes = [{ pool = \"default\", rate_limit = { requests = 0 } }]",
    "routes = [{ pool = \"default\", rate_limit = { requests = 1, key = \"path\" } }]",
    "routes = [{ pool = \"default\", timeouts = { connect = \"1s\" } }]",
    "all_down = \"panic\"",
    "routes = []",
    "routes = [{}]",
    "routes = [{ pool = \"default\", match = { path = \"/a\", path_prefix = \"/a\" } }]",
    "routes = [{ pool = \"default\", match = { methods = \"GET\" } }]",
    "routes = [{ match = { path = \"/\" } }]",
    "routes = [{ pool = \"default\", split = [{ pool = \"default\" }] }]",
    "routes = [{ pool = \"default\", split_key = \"path\" }]",
    "routes = [{ split = [] }]",
    "routes = [{ pool = \"default\", priority = -1 }]",
    "routes = [{ pool = \"default\", match = { host = \"a*.example.com\" } }]",
    "routes = [{ pool = \"default\", match = { path = \"/\", path_regex = \"/\" } }]",
    "routes = [{ pool = \"default\", match = { headers = {} } }]",
    "routes = [{ pool = \"default\", match = { headers = { \"X-A\" = 1 } } }]",
    "routes = [{ pool = \"default\", match = { headers = { \"X A\" = \"1\" } } }]",
    "routes = [{ pool = \"default\", match = { cookies = { a = \"x;y\" } } }]",
    "routes = [{ pool = \"default\", match = { query = { a = { regexp = \".\" } } } }]",
    "routes = [{ pool = \"default\", match = { language = \"de_DE\" } }]",
    "routes = [{ pool = \"default\", match = { any = [] } }]",
    "routes = [{ pool = \"default\", match = { any = [{ not = { metod = \"GET\" } }] } }]",
    "default_language = \"german!\"",
    "listeners = []",
    "listeners = [{ name = \"a\" }]",
    "listeners = [{ address = \"0.0.0.0:80\", protocol = \"tcp\" }]",
    "listeners = [{ address = \"0.0.0.0:80\", name = \"a b\" }]",
    "listeners = [{ address = \"0.0.0.0:80\", limits = { header_fields = 0 } }]",
    "listeners = [{ address = \"0.0.0.0:80\", trusted_proxies = \"10.0.0.0/8\" }]",
];

/// Lines that only the parser refuses: what is wrong lies between values, or in the figure behind a unit.
const ONLY_THE_PARSER_REFUSES: &[&str] = &[
    "poll_frequency = \"1ms\"",
    "retries = { budget = \"101%\" }",
    "retries = { replay_bytes = \"1GiB\" }",
    "retries = { per_try_timeout = \"1s\" }",
    "sticky = {}",
    "sticky = { client_address = false }",
    "sticky = { cookie = \"__Host-evk\" }",
    "sticky = { cookie = \"evk\", same_site = \"none\", secure = false }",
    "sticky = { cookie = \"evk\", path = \"/a;b\" }",
    "routes = [{ pool = \"default\", rate_limit = [{ requests = 1, name = \"a\" }, { requests = 2, name = \"a\" }] }]",
    "backend_servers = [\"10.0.0.1:80\", \"10.0.0.1:80\"]",
    "backend_servers = [\"10.0.0.1:0\"]",
    "health = { interval = 1000, timeout = 2000 }",
    "health = { expected_status = \"299-200\" }",
    "health = { headers = { Host = \"x\" } }",
    "routes = [{ pool = \"web\" }]",
    "routes = [{ pool = \"default\" }, { pool = \"default\" }]",
    "listen = [\"0.0.0.0:80\", \"0.0.0.0:80\"]",
    "listen = \"127.0.0.1:7700\"",
    "listeners = [{ address = \"0.0.0.0:80\", limits = { header_bytes = 1024, target_bytes = 2048 } }]",
];

fn balancer(lines: &str) -> String {
    let backends = match lines.contains("backend_servers = ") && !lines.contains("pools.web") {
        true => "",
        false => "backend_servers = [\"10.0.0.1:9001\"]\n",
    };
    format!("[load_balancers.x]\n{backends}{lines}\n")
}

/// Whole documents and whether both take them.
const DOCUMENTS: &[(&str, bool)] = &[
    ("", false),
    ("[load_balancers]", false),
    ("[load_balancers.x]", false),
    ("[load_balancers.\"a b\"]\nbackend_servers = []", false),
    (
        "[node]\nthreads = 2\n[load_balancers.x]\nbackend_servers = []",
        true,
    ),
    (
        "[node]\nuser = \"u\"\ngroup = \"g\"\n[load_balancers.x]\nbackend_servers = []",
        true,
    ),
    (
        "[node]\ngroup = \"g\"\n[load_balancers.x]\nbackend_servers = []",
        false,
    ),
    (
        "[node]\nthreads = 0\n[load_balancers.x]\nbackend_servers = []",
        false,
    ),
    (
        "[admin]\ntoken = \"x\"\n[load_balancers.x]\nbackend_servers = []",
        true,
    ),
    (
        "[admin]\ntoken = \"x\"\ntoken_file = \"x\"\n[load_balancers.x]\nbackend_servers = []",
        false,
    ),
    (
        "[admin]\ntoken = \"x y\"\n[load_balancers.x]\nbackend_servers = []",
        false,
    ),
    (
        "[store]\nkind = \"etcd\"\n[load_balancers.x]\nbackend_servers = []",
        false,
    ),
    ("[load_balancers.x.pools.p]\nbackend_servers = []", true),
    ("[load_balancers.x.pools.p]\nalgorithm = \"random\"", false),
    (
        "[load_balancers.x]\nslow_start = 1\n[load_balancers.x.pools.p]\nbackend_servers = []",
        false,
    ),
    ("[load_balancers.x.pools]", false),
];

#[test]
fn parser_and_schema_agree() {
    let validator = validator();
    let lines = VALID.iter().map(|lines| (balancer(lines), true));
    let wrong = INVALID.iter().map(|lines| (balancer(lines), false));
    let whole = DOCUMENTS.iter().map(|(text, valid)| ((*text).to_owned(), *valid));
    for (text, valid) in lines.chain(wrong).chain(whole) {
        let json = as_json(&text);
        let parsed = parse_toml(&text, "a.toml");
        assert_eq!(parsed.is_ok(), valid, "{text}\n{parsed:?}");
        assert_eq!(validator.is_valid(&json), valid, "{text}");
        // The JSON form of a document without any of its keys is a bare map of load balancers.
        if json
            .as_object()
            .is_some_and(|o| !o.is_empty() && !o.contains_key("store"))
        {
            assert_eq!(check_json(&json.to_string(), "a.json").is_ok(), valid, "{json}");
        }
    }
}

#[test]
fn what_only_the_parser_can_tell() {
    let validator = validator();
    for lines in ONLY_THE_PARSER_REFUSES {
        let text = balancer(lines);
        assert!(parse_toml(&text, "a.toml").is_err(), "{text}");
        assert!(validator.is_valid(&as_json(&text)), "{text}");
    }
}

/// Every place of a document that uses every table: a key that is not known there, and a value that cannot be
/// there, are refused by both.
#[test]
fn every_place_of_a_document_is_checked_by_both() {
    let document = as_json(include_str!("../../../examples/full.toml"));
    let validator = validator();
    assert!(validator.is_valid(&document));
    let mut places = Vec::new();
    pointers(&document, String::new(), &mut places);
    assert!(places.len() > 100, "{}", places.len());
    for place in places {
        let mut wrong = document.clone();
        let target = wrong.pointer_mut(&place).unwrap();
        match target {
            Value::Object(entries) if !place.ends_with("/headers") => {
                entries.insert("no_such_key".to_owned(), Value::from(1));
            }
            _ => *target = Value::Null,
        }
        assert!(!validator.is_valid(&wrong), "schema at {place}");
        assert!(
            check_json(&wrong.to_string(), "a.json").is_err(),
            "parser at {place}"
        );
    }
}

fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            entries
                .iter()
                .for_each(|(key, inner)| pointers(inner, format!("{at}/{key}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, inner)| pointers(inner, format!("{at}/{i}"), found));
        }
        _ => {}
    }
    found.push(at);
}
