//! Members by names of the DNS: single looks against servers of every kind, and names over time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caches;
mod lookup;
mod server;
mod shadow;
mod simulation;
mod watch;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use model::config::{AddressFamily, DnsLookup, DnsRecords};

/// What is asked of `app.internal`.
fn settings(records: DnsRecords) -> DnsLookup {
    DnsLookup {
        name: "app.internal".to_owned(),
        records,
        resolvers: Vec::new(),
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(300),
        timeout: Duration::from_secs(2),
        attempts: 3,
    }
}

fn addresses(family: AddressFamily) -> DnsLookup {
    settings(DnsRecords::Addresses(family, 8080))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
