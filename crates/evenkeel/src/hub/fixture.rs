//! Configs for the tests of the hub: one load balancer `shop` with one pool `default`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{Config, Name};
use model::state::{BackendId, OverrideKey, Timestamp};

/// The start of every test's time.
pub(crate) fn started() -> Timestamp {
    Timestamp(1_772_368_496_000)
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

pub(crate) fn id(port: u16) -> BackendId {
    BackendId {
        load_balancer: name("shop"),
        pool: name("default"),
        address: address(port),
    }
}

pub(crate) fn key(port: u16) -> OverrideKey {
    OverrideKey {
        load_balancer: name("shop"),
        address: address(port),
    }
}

/// With these backends, an active check and no slow start.
pub(crate) fn config(ports: &[u16]) -> Arc<Config> {
    config_with(ports, "slow_start = \"0s\"\nhealth_endpoint = \"/health\"\n")
}

/// With these backends and further keys of the load balancer.
pub(crate) fn config_with(ports: &[u16], keys: &str) -> Arc<Config> {
    let mut text = String::from("[load_balancers.shop]\nlisten = \"127.0.0.1:8080\"\nbackend_servers = [");
    for port in ports {
        write!(text, "\"{}\", ", address(*port)).unwrap();
    }
    text.push_str("]\n");
    text.push_str(keys);
    let parsed = model::parse::parse_toml(&text, "test.toml");
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{}\n{text}", errors[0])))
}
