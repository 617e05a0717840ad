//! The config in force as text: the full form with every default, which reads back as the same config.
//!
//! Secrets are not written; a comment stands in the place of one.

mod action;
mod admin;
mod alerts;
mod backend_http2;
mod http2;
mod membership;
mod observe;
mod overload;
mod route;
mod sticky;
mod store;
mod tls;

use std::time::Duration;

use crate::config::{
    Algorithm, Backend, CheckKind, Config, Connections, ConsistentHash, DEFAULT_HTTPS_PORT, HashTable,
    HealthCheck, HttpCheck, Listener, ListenerLimits, ListenerTimeouts, LoadBalancer, Node, Passive, Pool,
    PoolTimeouts,
};
use crate::units::{format_duration, format_size};

/// Writes the full form as TOML. [`crate::parse::parse_toml`] reads the same config from it, except for an
/// inline `admin.token` and `admin.tokens`, which are left out.
pub fn to_toml(config: &Config) -> String {
    let Config {
        node,
        admin,
        observe,
        store,
        notify,
        alerts,
        load_balancers,
    } = config;
    let mut w = Writer::default();
    write_node(&mut w, node);
    admin::write(&mut w, admin);
    observe::write(&mut w, observe);
    store::write(&mut w, store);
    store::write_notify(&mut w, notify.as_ref());
    alerts::write(&mut w, alerts);
    for balancer in load_balancers.values() {
        write_load_balancer(&mut w, balancer);
    }
    w.text
}

#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    fn header(&mut self, header: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}{header}\n"));
    }

    /// A key with its value, which is TOML already.
    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        self.text.push_str(&format!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, quoted(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>, otherwise: &str) {
        match value {
            Some(value) => self.text(key, value),
            None => self.comment(&format!("{key}: {otherwise}")),
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &format_duration(value));
    }

    fn size(&mut self, key: &str, value: u64) {
        self.text(key, &format_size(value));
    }

    fn percent(&mut self, key: &str, value: impl std::fmt::Display) {
        self.text(key, &format!("{value}%"));
    }

    fn comment(&mut self, text: &str) {
        self.text.push_str(&format!("# {text}\n"));
    }
}

fn write_node(w: &mut Writer, node: &Node) {
    let Node {
        name,
        roles,
        zone,
        bind,
        threads,
        data_dir,
        user,
        group,
        shutdown_timeout,
        plan_b_after,
        max_connections,
        secrets,
        geoip,
    } = node;
    w.header("[node]");
    w.text("name", name);
    let roles = roles.iter().map(|role| quoted(role.as_str()));
    w.raw("roles", list(roles));
    w.optional("zone", zone.as_deref(), "none");
    let bind = bind.map(|ip| ip.to_string());
    w.optional("bind", bind.as_deref(), "as the listeners say");
    match threads {
        Some(threads) => w.raw("threads", threads),
        None => w.comment("threads: one per core"),
    }
    let data_dir = data_dir.as_ref().map(|path| path.display().to_string());
    w.optional("data_dir", data_dir.as_deref(), "chosen by the command line");
    w.optional("user", user.as_deref(), "the user that started it");
    w.optional("group", group.as_deref(), "the user's own");
    w.duration("shutdown_timeout", *shutdown_timeout);
    w.duration("plan_b_after", *plan_b_after);
    w.raw("max_connections", max_connections);
    match secrets.is_empty() {
        true => w.comment("secret: a random one in the data directory"),
        false => w.comment("secret: set, and not shown"),
    }
    let geoip = geoip.as_ref().map(|path| path.display().to_string());
    w.optional("geoip", geoip.as_deref(), "none");
}

fn write_load_balancer(w: &mut Writer, balancer: &LoadBalancer) {
    let LoadBalancer {
        name,
        listeners,
        routes,
        pools,
        access_log,
        default_language,
    } = balancer;
    let path = format!("load_balancers.{}", bare_or_quoted(name.as_str()));
    w.header(&format!("[{path}]"));
    w.raw("access_log", access_log);
    w.optional("default_language", default_language.as_deref(), "none");
    for listener in listeners {
        write_listener(w, &format!("{path}.listeners"), listener);
    }
    for route in routes {
        route::write(w, &format!("{path}.routes"), route);
    }
    for pool in pools.values() {
        let path = format!("{path}.pools.{}", bare_or_quoted(pool.name.as_str()));
        write_pool(w, &path, pool);
    }
}

fn write_listener(w: &mut Writer, path: &str, listener: &Listener) {
    let Listener {
        name,
        address,
        tls,
        trusted_proxies,
        upgrades,
        redirect_to_https,
        max_connections,
        limits,
        timeouts,
        http2,
    } = listener;
    w.header(&format!("[[{path}]]"));
    w.text("name", name.as_str());
    w.text("address", &address.to_string());
    w.text("protocol", if tls.is_some() { "https" } else { "http" });
    w.raw(
        "trusted_proxies",
        list(trusted_proxies.iter().map(|net| quoted(&net.to_string()))),
    );
    w.raw("upgrades", list(upgrades.iter().map(|protocol| quoted(protocol))));
    match redirect_to_https {
        Some(DEFAULT_HTTPS_PORT) => w.raw("redirect_to_https", true),
        Some(port) => w.raw("redirect_to_https", port),
        None => w.raw("redirect_to_https", false),
    }
    w.raw("max_connections", max_connections);
    if http2.is_none() {
        w.raw("http2", false);
    }

    let ListenerLimits {
        header_bytes,
        header_fields,
        target_bytes,
        body_bytes,
    } = limits;
    w.header(&format!("[{path}.limits]"));
    w.size("header_bytes", u64::from(*header_bytes));
    w.raw("header_fields", header_fields);
    w.size("target_bytes", u64::from(*target_bytes));
    match body_bytes {
        Some(bytes) => w.size("body_bytes", *bytes),
        None => w.comment("body_bytes: no limit"),
    }

    let ListenerTimeouts {
        request_headers,
        request_body_idle,
        request_body_min_rate,
        keep_alive,
        response_write_idle,
        tls_handshake,
    } = timeouts;
    w.header(&format!("[{path}.timeouts]"));
    w.duration("request_headers", *request_headers);
    w.duration("request_body_idle", *request_body_idle);
    w.size("request_body_min_rate", u64::from(*request_body_min_rate));
    w.duration("keep_alive", *keep_alive);
    w.duration("response_write_idle", *response_write_idle);
    w.duration("tls_handshake", *tls_handshake);
    if let Some(tls) = tls {
        tls::write_listener_tls(w, &format!("{path}.tls"), tls);
    }
    http2::write(w, path, http2.as_ref());
}

fn write_pool(w: &mut Writer, path: &str, pool: &Pool) {
    let Pool {
        name: _,
        algorithm,
        backends,
        health,
        passive,
        slow_start,
        all_down,
        http2,
        connections,
        timeouts,
        retries,
        sticky,
        tls,
        overload,
        membership,
    } = pool;
    w.header(&format!("[{path}]"));
    w.text("algorithm", algorithm.as_str());
    w.raw("backend_servers", backend_list(backends));
    w.duration("slow_start", *slow_start);
    w.text("all_down", all_down.as_str());
    w.text("protocol", http2.as_ref().map_or("http1", |_| "http2"));
    overload::write_keys(w, overload);
    if health.is_none() {
        w.raw("health", false);
    }
    if passive.is_none() {
        w.raw("passive", false);
    }
    if let Algorithm::ConsistentHash(hash) = algorithm {
        w.header(&format!("[{path}.hash]"));
        write_hash(w, hash);
    }
    if let Some(check) = health {
        w.header(&format!("[{path}.health]"));
        write_health(w, check);
        if tls.is_some() {
            w.raw("tls", check.tls.is_some());
        }
    }
    if let Some(passive) = passive {
        w.header(&format!("[{path}.passive]"));
        write_passive(w, passive);
    }

    backend_http2::write(w, path, http2.as_ref());
    w.header(&format!("[{path}.connections]"));
    write_connections(w, connections);

    w.header(&format!("[{path}.timeouts]"));
    write_pool_timeouts(w, timeouts);

    membership::write(w, path, membership);
    overload::write_tables(w, path, overload);
    w.header(&format!("[{path}.retries]"));
    sticky::write_retries(w, retries);
    if let Some(sticky) = sticky {
        w.header(&format!("[{path}.sticky]"));
        sticky::write_sticky(w, sticky);
    }
    if let Some(tls) = tls {
        tls::write_backend_tls(w, &format!("{path}.tls"), tls);
    }
}

fn write_connections(w: &mut Writer, connections: &Connections) {
    let Connections {
        max_idle,
        idle_timeout,
    } = connections;
    w.raw("max_idle", max_idle);
    w.duration("idle_timeout", *idle_timeout);
}

fn write_pool_timeouts(w: &mut Writer, timeouts: &PoolTimeouts) {
    let PoolTimeouts {
        connect,
        tls: tls_timeout,
        first_byte,
        stream_idle,
        tunnel_idle,
        total,
    } = timeouts;
    w.duration("connect", *connect);
    w.duration("tls", *tls_timeout);
    w.duration("first_byte", *first_byte);
    w.duration("stream_idle", *stream_idle);
    w.duration("tunnel_idle", *tunnel_idle);
    w.duration("total", *total);
}

fn backend_list(backends: &[Backend]) -> String {
    let entries: Vec<String> = backends.iter().map(overload::backend).collect();
    match entries.is_empty() {
        true => "[]".to_owned(),
        false => format!("[\n{}]", entries.concat()),
    }
}

fn write_hash(w: &mut Writer, hash: &ConsistentHash) {
    let ConsistentHash {
        key,
        table,
        bounded_load,
    } = hash;
    w.text("key", &key.to_string());
    let table = match table {
        HashTable::Ring => "ring",
        HashTable::Maglev => "maglev",
    };
    w.text("table", table);
    match bounded_load {
        Some(percent) => w.percent("bounded_load", percent),
        None => w.comment("bounded_load: unbounded"),
    }
}

fn write_health(w: &mut Writer, check: &HealthCheck) {
    let HealthCheck {
        kind,
        port,
        interval,
        fast_interval,
        timeout,
        rise,
        fall,
        jitter,
        tls: _,
    } = check;
    match kind {
        CheckKind::Tcp => w.text("type", "tcp"),
        CheckKind::Http(http) => {
            w.text("type", "http");
            write_http_check(w, http);
        }
        CheckKind::Grpc(check) => {
            w.text("type", "grpc");
            w.optional(
                "service",
                Some(check.service.as_str()).filter(|service| !service.is_empty()),
                "the server as a whole",
            );
        }
    }
    match port {
        Some(port) => w.raw("port", port),
        None => w.comment("port: the backend's"),
    }
    w.duration("interval", *interval);
    w.duration("fast_interval", *fast_interval);
    w.duration("timeout", *timeout);
    w.raw("rise", rise);
    w.raw("fall", fall);
    w.percent("jitter", jitter);
}

fn write_http_check(w: &mut Writer, check: &HttpCheck) {
    let HttpCheck {
        http2: _,
        path,
        method,
        host,
        headers,
        expected_status,
        body_contains,
    } = check;
    w.text("path", path);
    w.text("method", method);
    w.optional("host", host.as_deref(), "the backend's address");
    let fields = headers
        .iter()
        .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
    w.raw("headers", inline_table(fields));
    let ranges = expected_status.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("\"{first}-{last}\""),
    });
    w.raw("expected_status", list(ranges));
    w.optional("body_contains", body_contains.as_deref(), "any body");
}

fn write_passive(w: &mut Writer, passive: &Passive) {
    let Passive {
        consecutive_failures,
        window,
        failure_ratio,
        minimum_requests,
        ejection_time,
        max_ejected,
    } = passive;
    w.raw("consecutive_failures", consecutive_failures);
    w.duration("window", *window);
    w.percent("failure_ratio", failure_ratio);
    w.raw("minimum_requests", minimum_requests);
    w.duration("ejection_time", *ejection_time);
    w.percent("max_ejected", max_ejected);
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn inline_table(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", items.join(", ")),
    }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A part of a table's name: a [`crate::config::Name`] may have dots, which separate bare keys.
fn bare_or_quoted(name: &str) -> String {
    match name.contains('.') {
        true => quoted(name),
        false => name.to_owned(),
    }
}
