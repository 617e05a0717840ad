//! One pool: the same keys in a table under `pools` and, in the short form, in the load balancer itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::backend_http2::backend_http2;
use super::health::health;
use super::limits::retries;
use super::membership::membership;
use super::overload::{caps, overload, refuse_connections, warn_of_idle_queue};
use super::section::{Findings, Section, narrow, parsed};
use super::sticky::sticky;
use super::tls::backend_tls;
use super::tree::{Node, Value};
use super::{MAX_BACKENDS, text};
use crate::config::{
    Algorithm, AllDown, Backend, Caps, Connections, ConsistentHash, DEFAULT_SLOW_START, HashKey, HashTable,
    Name, Passive, Pool, PoolTimeouts,
};
use crate::diagnostic::Fault;
use crate::schema;

pub(super) fn pool(f: &mut Findings<'_>, name: Name, s: &Section<'_>) -> Option<Pool> {
    let algorithm = algorithm(f, s);
    let http2 = backend_http2(f, s);
    let tls = backend_tls(f, s);
    let health = health(f, s, tls.as_ref(), http2.is_some());
    let passive = match s.section_or_false(f, "passive") {
        Some(Some(section)) => Some(passive(f, &section)),
        Some(None) => None,
        None => Some(Passive::default()),
    };
    let slow_start = s.duration(f, "slow_start").unwrap_or(DEFAULT_SLOW_START);
    let all_down = match s.choice(f, "all_down") {
        Some("fail_closed") => AllDown::FailClosed,
        _ => AllDown::FailOpen,
    };
    let connections = s.section(f, "connections").map(|s| connections(f, &s));
    let timeouts = s.section(f, "timeouts").map(|s| timeouts(f, &s));
    let retries = s.section(f, "retries").map(|s| retries(f, &s));
    let sticky = s.section(f, "sticky").and_then(|s| sticky(f, &s));
    let overload = overload(f, s);
    refuse_connections(f, s, http2.is_some());
    let membership = membership(f, s);
    let backends = backends(f, s, http2.is_some())?;
    warn_of_idle_queue(f, s, &overload, &backends);
    Some(Pool {
        name,
        algorithm,
        backends,
        health,
        passive,
        slow_start,
        all_down,
        http2,
        connections: connections.unwrap_or_default(),
        timeouts: timeouts.unwrap_or_default(),
        retries: retries.unwrap_or_default(),
        sticky,
        tls,
        overload,
        membership,
    })
}

fn algorithm(f: &mut Findings<'_>, s: &Section<'_>) -> Algorithm {
    let hash = s.section(f, "hash").map(|section| consistent_hash(f, &section));
    match s.choice(f, "algorithm") {
        Some("least_connections") => Algorithm::LeastConnections,
        Some("random") => Algorithm::Random,
        Some("power_of_two") => Algorithm::PowerOfTwo,
        Some("peak_ewma") => Algorithm::PeakEwma,
        Some("ip_hash") => Algorithm::IpHash,
        Some("consistent_hash") => Algorithm::ConsistentHash(hash.unwrap_or(ConsistentHash {
            key: HashKey::ClientAddress,
            table: HashTable::Ring,
            bounded_load: None,
        })),
        _ => Algorithm::RoundRobin,
    }
}

fn consistent_hash(f: &mut Findings<'_>, s: &Section<'_>) -> ConsistentHash {
    ConsistentHash {
        key: s.text(f, "key", text::hash_key).unwrap_or(HashKey::ClientAddress),
        table: match s.choice(f, "table") {
            Some("maglev") => HashTable::Maglev,
            _ => HashTable::Ring,
        },
        bounded_load: s.percent(f, "bounded_load").map(narrow),
    }
}

fn backends(f: &mut Findings<'_>, s: &Section<'_>, http2: bool) -> Option<Vec<Backend>> {
    // Members may all be found; whether they are is not said by a table with an error in it.
    let may_be_found = s.is_given("discovery") || s.is_given("registration");
    if s.entry("backend_servers").is_none() && may_be_found {
        return Some(Vec::new());
    }
    let items = s.items(f, "backend_servers")?;
    if let Some(entry) = s.entry("backend_servers").filter(|_| items.len() > MAX_BACKENDS) {
        let fault = Fault::new(format!(
            "a pool has at most {MAX_BACKENDS} backends; here are {}",
            items.len()
        ));
        f.report(entry.key_span.clone(), &s.path_of("backend_servers"), fault);
        return None;
    }
    if let Some(entry) = s
        .entry("backend_servers")
        .filter(|_| items.is_empty() && !may_be_found)
    {
        let fault = Fault::new("there is no backend: every request is answered 503 `no_backend`");
        f.warn(entry.key_span.clone(), &s.path_of("backend_servers"), fault);
    }
    let mut lines: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut backends = Vec::with_capacity(items.len());
    for (path, node) in items {
        let Some(backend) = backend(f, &path, node, http2) else {
            continue;
        };
        if let Some(first) = lines.get(&backend.address) {
            let fault = Fault::new(format!(
                "the backend {} is given twice; it first stands in line {first}",
                backend.address
            ))
            .suggest("to send it more requests, give it a greater `weight`");
            f.report(node.span.clone(), &path, fault);
            continue;
        }
        lines.insert(backend.address, f.line(node.span.start));
        backends.push(backend);
    }
    Some(backends)
}

fn backend(f: &mut Findings<'_>, path: &str, node: &Node, http2: bool) -> Option<Backend> {
    match &node.value {
        Value::Text(text) => {
            let address = parsed(f, node, path, text::backend_address(text))?;
            Some(Backend {
                address,
                weight: 1,
                caps: Caps::default(),
            })
        }
        Value::Table(_) => {
            let s = Section::open(f, node, path.to_owned(), &schema::BACKEND)?;
            let weight = s.integer(f, "weight").map_or(1, narrow);
            let caps = caps(f, &s);
            refuse_connections(f, &s, http2);
            let address = s.text(f, "address", text::backend_address)?;
            Some(Backend {
                address,
                weight,
                caps,
            })
        }
        other => {
            let expected = schema::Form::BackendAddress.expected();
            let fault = Fault::new(format!(
                "a backend must be {expected}, or a table, not {}",
                other.kind()
            ))
            .suggest("write `\"10.0.0.1:9001\"` or `{ address = \"10.0.0.1:9001\", weight = 2 }`");
            f.report(node.span.clone(), path, fault);
            None
        }
    }
}

fn passive(f: &mut Findings<'_>, s: &Section<'_>) -> Passive {
    let defaults = Passive::default();
    Passive {
        consecutive_failures: s
            .integer(f, "consecutive_failures")
            .map_or(defaults.consecutive_failures, narrow),
        window: s.duration(f, "window").unwrap_or(defaults.window),
        failure_ratio: s
            .percent(f, "failure_ratio")
            .map_or(defaults.failure_ratio, narrow),
        minimum_requests: s
            .integer(f, "minimum_requests")
            .map_or(defaults.minimum_requests, narrow),
        ejection_time: s.duration(f, "ejection_time").unwrap_or(defaults.ejection_time),
        max_ejected: s.percent(f, "max_ejected").map_or(defaults.max_ejected, narrow),
    }
}

fn connections(f: &mut Findings<'_>, s: &Section<'_>) -> Connections {
    let defaults = Connections::default();
    Connections {
        max_idle: s.integer(f, "max_idle").map_or(defaults.max_idle, narrow),
        idle_timeout: s.duration(f, "idle_timeout").unwrap_or(defaults.idle_timeout),
    }
}

fn timeouts(f: &mut Findings<'_>, s: &Section<'_>) -> PoolTimeouts {
    let defaults = PoolTimeouts::default();
    let mut or = |key, default| s.duration(f, key).unwrap_or(default);
    PoolTimeouts {
        connect: or("connect", defaults.connect),
        tls: or("tls", defaults.tls),
        first_byte: or("first_byte", defaults.first_byte),
        stream_idle: or("stream_idle", defaults.stream_idle),
        tunnel_idle: or("tunnel_idle", defaults.tunnel_idle),
        total: or("total", defaults.total),
    }
}
