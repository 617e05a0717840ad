//! What a reload says in the log: a line for each thing that changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::config::Config;
use evenkeel_model::diff::diff;
use evenkeel_model::parse::parse_toml;

fn config(text: &str) -> Config {
    parse_toml(text, "test.toml").unwrap()
}

fn lines(old: &str, new: &str) -> Vec<String> {
    diff(&config(old), &config(new))
        .iter()
        .map(ToString::to_string)
        .collect()
}

const SHOP: &str = r#"
[load_balancers.shop]
listen = "0.0.0.0:8080"
backend_servers = ["10.0.0.1:9001", "10.0.0.2:9001"]
"#;

/// Backends come, go and are weighed anew.
#[test]
fn backends() {
    let new = r#"
[load_balancers.shop]
listen = "0.0.0.0:8080"
backend_servers = [{ address = "10.0.0.2:9001", weight = 5 }, "10.0.0.3:9001", { address = "10.0.0.4:9001", weight = 2 }]
"#;
    assert_eq!(
        lines(SHOP, new),
        [
            "shop: backend 10.0.0.1:9001 removed from pool default",
            "shop: backend 10.0.0.2:9001 of pool default has weight 5 instead of 1",
            "shop: backend 10.0.0.3:9001 added to pool default",
            "shop: backend 10.0.0.4:9001 added to pool default with weight 2",
        ]
    );
}

/// Order alone is a change too: round robin follows it.
#[test]
fn order() {
    let new = SHOP.replace(
        r#""10.0.0.1:9001", "10.0.0.2:9001""#,
        r#""10.0.0.2:9001", "10.0.0.1:9001""#,
    );
    assert_eq!(lines(SHOP, &new), ["shop: backends of pool default reordered"]);
}

/// Settings are named by their keys.
#[test]
fn settings_of_a_pool() {
    let new =
        format!("{SHOP}algorithm = \"random\"\nretries = {{ attempts = 2 }}\nhealth_endpoint = \"/\"\n");
    assert_eq!(
        lines(SHOP, &new),
        ["shop: pool default changed: algorithm, health, retries"]
    );
}

/// A listener that moves is closed and opened; one with other settings stays open.
#[test]
fn listeners() {
    let old = r#"
[load_balancers.shop]
backend_servers = []
[[load_balancers.shop.listeners]]
name = "a"
address = "0.0.0.0:8080"
[[load_balancers.shop.listeners]]
name = "b"
address = "0.0.0.0:8081"
"#;
    let new = r#"
[load_balancers.shop]
backend_servers = []
[[load_balancers.shop.listeners]]
name = "a"
address = "0.0.0.0:9090"
[[load_balancers.shop.listeners]]
name = "b"
address = "0.0.0.0:8081"
limits = { header_fields = 50 }
[[load_balancers.shop.listeners]]
name = "c"
address = "0.0.0.0:8082"
"#;
    assert_eq!(
        lines(old, new),
        [
            "shop: listener a closed on 0.0.0.0:8080",
            "shop: listener a opened on 0.0.0.0:9090",
            "shop: listener b changed: limits",
            "shop: listener c opened on 0.0.0.0:8082",
        ]
    );
}

/// Pools and routes come and go together.
#[test]
fn pools_and_routes() {
    let old = r#"
[load_balancers.shop.pools.web]
backend_servers = []
[load_balancers.shop.pools.api]
backend_servers = []
[[load_balancers.shop.routes]]
pool = "web"
[[load_balancers.shop.routes]]
name = "api"
match = { path_prefix = "/api" }
pool = "api"
"#;
    let new = r#"
[load_balancers.shop.pools.web]
backend_servers = []
[load_balancers.shop.pools.v2]
backend_servers = ["10.0.0.1:80"]
[[load_balancers.shop.routes]]
pool = "web"
[[load_balancers.shop.routes]]
name = "api"
match = { path_prefix = "/v2" }
pool = "v2"
[[load_balancers.shop.routes]]
name = "static"
match = { path = "/logo.png" }
pool = "web"
"#;
    assert_eq!(
        lines(old, new),
        [
            "shop: pool api removed",
            "shop: pool v2 added with 1 backend",
            "shop: route api changed: match, pool",
            "shop: route static added",
        ]
    );
}

/// Whole load balancers, and settings of the process with whether they wait for a restart.
#[test]
fn load_balancers_and_settings() {
    let new = r#"
[node]
threads = 2
max_connections = 5
[admin]
token = "hunter2"
[load_balancers.blog]
backend_servers = []
"#;
    assert_eq!(
        lines(SHOP, new),
        [
            "node.threads changed; it takes effect after a restart",
            "node.max_connections changed",
            "admin.token changed; it takes effect after a restart",
            "blog: load balancer added",
            "shop: load balancer removed",
        ]
    );
}
