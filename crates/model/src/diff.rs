//! What a new config changes, as values: for the log of a reload and for whoever asks before one.
//!
//! Empty exactly when the two configs are equal: every struct is taken apart field by field, so that a field
//! which is added without a thought here does not compile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{
    Actions, Admin, Backend, Config, Listener, LoadBalancer, Membership, Name, Node, Observe, Overload, Pool,
    Route, RouteTarget,
};

/// One change from an old config to a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key of `[node]` or `[admin]`, or a table of the process; values are not repeated, one of them is a secret.
    Setting {
        /// Its path, e.g. `node.threads`.
        key: &'static str,
        /// Whether it takes effect only after a restart.
        restart: bool,
    },
    /// A load balancer is new, with all that is in it.
    LoadBalancerAdded(Name),
    /// A load balancer is gone, with all that was in it.
    LoadBalancerRemoved(Name),
    /// What changed within a load balancer that was there before.
    Within {
        /// The load balancer.
        load_balancer: Name,
        /// What changed.
        what: Part,
    },
}

/// One change within a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A listener opens.
    ListenerOpened {
        /// Its name.
        listener: Name,
        /// Its address.
        address: SocketAddr,
    },
    /// A listener closes.
    ListenerClosed {
        /// Its name.
        listener: Name,
        /// Its address.
        address: SocketAddr,
    },
    /// Settings of a listener change; it stays open.
    ListenerChanged {
        /// Its name.
        listener: Name,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// The same listeners in another order.
    ListenersReordered,
    /// Whether its requests are in the access log.
    AccessLog(bool),
    /// The language of what routes without one serve.
    DefaultLanguage(Option<String>),
    /// A route is new.
    RouteAdded(Name),
    /// A route is gone.
    RouteRemoved(Name),
    /// A route matches something else or leads elsewhere.
    RouteChanged {
        /// Its name.
        route: Name,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// The same routes in another order.
    RoutesReordered,
    /// A pool is new.
    PoolAdded {
        /// Its name.
        pool: Name,
        /// How many backends it has.
        backends: usize,
    },
    /// A pool is gone.
    PoolRemoved(Name),
    /// Settings of a pool change.
    PoolChanged {
        /// Its name.
        pool: Name,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// A backend is new.
    BackendAdded {
        /// Its pool.
        pool: Name,
        /// Its address.
        address: SocketAddr,
        /// Its weight.
        weight: u32,
    },
    /// A backend is gone.
    BackendRemoved {
        /// Its pool.
        pool: Name,
        /// Its address.
        address: SocketAddr,
    },
    /// A backend has another weight.
    BackendReweighted {
        /// Its pool.
        pool: Name,
        /// Its address.
        address: SocketAddr,
        /// Weight before.
        from: u32,
        /// Weight now.
        to: u32,
    },
    /// A backend has other caps.
    BackendCapped {
        /// Its pool.
        pool: Name,
        /// Its address.
        address: SocketAddr,
    },
    /// The same backends in another order.
    BackendsReordered(Name),
}

/// What `new` changes: settings first, then load balancers in order of name.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let Config {
        node,
        admin,
        observe,
        store,
        notify,
        alerts,
        load_balancers,
    } = new;
    let mut changes = Vec::new();
    node_changes(&mut changes, &old.node, node);
    admin_changes(&mut changes, &old.admin, admin);
    observe_changes(&mut changes, &old.observe, observe);
    settings(
        &mut changes,
        [
            ("store", old.store == *store, true),
            ("notify", old.notify == *notify, true),
        ],
    );
    settings(&mut changes, [("alerts", old.alerts == *alerts, false)]);
    changes.extend(diff_load_balancers(&old.load_balancers, load_balancers));
    changes
}

/// What `new` changes among load balancers, in order of name.
pub fn diff_load_balancers(
    old: &BTreeMap<Name, Arc<LoadBalancer>>,
    new: &BTreeMap<Name, Arc<LoadBalancer>>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, before, after) in side_by_side(old, new) {
        match (before, after) {
            (Some(before), Some(after)) if std::sync::Arc::ptr_eq(before, after) => {}
            (Some(before), Some(after)) => {
                let parts = parts(before, after).into_iter();
                changes.extend(parts.map(|what| Change::Within {
                    load_balancer: name.clone(),
                    what,
                }));
            }
            (None, _) => changes.push(Change::LoadBalancerAdded(name.clone())),
            (_, None) => changes.push(Change::LoadBalancerRemoved(name.clone())),
        }
    }
    changes
}

fn node_changes(changes: &mut Vec<Change>, old: &Node, new: &Node) {
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
    } = new;
    let compared = [
        ("node.secret", old.secrets == *secrets, false),
        ("node.name", old.name == *name, false),
        ("node.roles", old.roles == *roles, true),
        ("node.zone", old.zone == *zone, true),
        ("node.bind", old.bind == *bind, false),
        ("node.threads", old.threads == *threads, true),
        ("node.data_dir", old.data_dir == *data_dir, true),
        ("node.user", old.user == *user, true),
        ("node.group", old.group == *group, true),
        (
            "node.shutdown_timeout",
            old.shutdown_timeout == *shutdown_timeout,
            false,
        ),
        ("node.plan_b_after", old.plan_b_after == *plan_b_after, true),
        (
            "node.max_connections",
            old.max_connections == *max_connections,
            false,
        ),
        ("node.geoip", old.geoip == *geoip, false),
    ];
    settings(changes, compared);
}

fn admin_changes(changes: &mut Vec<Change>, old: &Admin, new: &Admin) {
    let Admin {
        listen,
        token,
        token_file,
        tls,
        tokens,
        certificates,
        open_metrics,
        metrics_backends,
        audit_log,
    } = new;
    let compared = [
        ("admin.listen", old.listen == *listen, true),
        ("admin.token", old.token == *token, true),
        ("admin.token_file", old.token_file == *token_file, true),
        ("admin.tls", old.tls == *tls, true),
        ("admin.tokens", old.tokens == *tokens, false),
        ("admin.certificates", old.certificates == *certificates, false),
        ("admin.open_metrics", old.open_metrics == *open_metrics, false),
        (
            "admin.metrics_backends",
            old.metrics_backends == *metrics_backends,
            false,
        ),
        ("admin.audit_log", old.audit_log == *audit_log, true),
    ];
    settings(changes, compared);
}

fn observe_changes(changes: &mut Vec<Change>, old: &Observe, new: &Observe) {
    let Observe {
        access_log,
        request_id,
        tracing,
        recorder,
    } = new;
    let compared = [
        ("access_log", old.access_log == *access_log, false),
        ("request_id", old.request_id == *request_id, false),
        ("tracing", old.tracing == *tracing, false),
        ("recorder", old.recorder == *recorder, false),
    ];
    settings(changes, compared);
}

/// Settings with whether they are the same and whether a change needs a restart.
fn settings<const N: usize>(changes: &mut Vec<Change>, compared: [(&'static str, bool, bool); N]) {
    let changed = compared.into_iter().filter(|(_, same, _)| !same);
    changes.extend(changed.map(|(key, _, restart)| Change::Setting { key, restart }));
}

fn parts(old: &LoadBalancer, new: &LoadBalancer) -> Vec<Part> {
    let LoadBalancer {
        name: _,
        listeners,
        routes,
        pools,
        access_log,
        default_language,
    } = new;
    let mut parts = Vec::new();
    if old.access_log != *access_log {
        parts.push(Part::AccessLog(*access_log));
    }
    if old.default_language != *default_language {
        parts.push(Part::DefaultLanguage(default_language.clone()));
    }
    listener_changes(&mut parts, &old.listeners, listeners);
    for (name, before, after) in side_by_side(&old.pools, pools) {
        match (before, after) {
            (Some(before), Some(after)) => pool_changes(&mut parts, before, after),
            (None, Some(after)) => parts.push(Part::PoolAdded {
                pool: name.clone(),
                backends: after.backends.len(),
            }),
            (_, None) => parts.push(Part::PoolRemoved(name.clone())),
        }
    }
    route_changes(&mut parts, &old.routes, routes);
    parts
}

fn listener_changes(
    parts: &mut Vec<Part>,
    old: &[std::sync::Arc<Listener>],
    new: &[std::sync::Arc<Listener>],
) {
    let before = by_key(old, |listener| &listener.name);
    let after = by_key(new, |listener| &listener.name);
    let closed = |l: &Listener| Part::ListenerClosed {
        listener: l.name.clone(),
        address: l.address,
    };
    let opened = |l: &Listener| Part::ListenerOpened {
        listener: l.name.clone(),
        address: l.address,
    };
    for (name, before, after) in side_by_side(&before, &after) {
        match (before, after) {
            (Some(before), Some(after)) => {
                if before.address != after.address {
                    parts.extend([closed(before), opened(after)]);
                }
                let keys = listener_keys(before, after);
                if !keys.is_empty() {
                    let listener = (*name).clone();
                    parts.push(Part::ListenerChanged { listener, keys });
                }
            }
            (before, after) => {
                parts.extend(before.map(|l| closed(l)));
                parts.extend(after.map(|l| opened(l)));
            }
        }
    }
    if reordered(old, new, |listener| &listener.name) {
        parts.push(Part::ListenersReordered);
    }
}

fn listener_keys(old: &Listener, new: &Listener) -> Vec<&'static str> {
    let Listener {
        name: _,
        address: _,
        tls,
        trusted_proxies,
        upgrades,
        redirect_to_https,
        max_connections,
        limits,
        timeouts,
        http2,
    } = new;
    different([
        ("upgrades", old.upgrades == *upgrades),
        ("tls", old.tls == *tls),
        ("trusted_proxies", old.trusted_proxies == *trusted_proxies),
        ("redirect_to_https", old.redirect_to_https == *redirect_to_https),
        ("max_connections", old.max_connections == *max_connections),
        ("limits", old.limits == *limits),
        ("timeouts", old.timeouts == *timeouts),
        ("http2", old.http2 == *http2),
    ])
}

fn route_changes(parts: &mut Vec<Part>, old: &[Route], new: &[Route]) {
    let before = by_key(old, |route| &route.name);
    let after = by_key(new, |route| &route.name);
    for (name, before, after) in side_by_side(&before, &after) {
        match (before, after) {
            (Some(before), Some(after)) => {
                let keys = route_keys(before, after);
                if !keys.is_empty() {
                    let route = (*name).clone();
                    parts.push(Part::RouteChanged { route, keys });
                }
            }
            (None, _) => parts.push(Part::RouteAdded((*name).clone())),
            (_, None) => parts.push(Part::RouteRemoved((*name).clone())),
        }
    }
    if reordered(old, new, |route| &route.name) {
        parts.push(Part::RoutesReordered);
    }
}

fn route_keys(old: &Route, new: &Route) -> Vec<&'static str> {
    let Route {
        name: _,
        priority,
        matches,
        target,
        rate_limits,
        timeouts,
        actions,
    } = new;
    let target_key = match target {
        RouteTarget::Pool(_) => "pool",
        RouteTarget::Split(_) => "split",
        RouteTarget::Redirect(_) => "redirect",
        RouteTarget::Respond(_) => "respond",
    };
    let mut keys = different([
        ("priority", old.priority == *priority),
        ("match", old.matches == *matches),
        (target_key, old.target == *target),
        ("rate_limit", old.rate_limits == *rate_limits),
        ("timeouts", old.timeouts == *timeouts),
    ]);
    keys.extend(action_keys(&old.actions, actions));
    keys
}

fn action_keys(old: &Actions, new: &Actions) -> Vec<&'static str> {
    let Actions {
        rewrite,
        request_headers,
        response_headers,
        error_pages,
        max_body,
        mirror,
        compression,
        buffer_requests,
        buffer_responses,
    } = new;
    different([
        ("rewrite", old.rewrite == *rewrite),
        ("request_headers", old.request_headers == *request_headers),
        ("response_headers", old.response_headers == *response_headers),
        ("error_pages", old.error_pages == *error_pages),
        ("max_body", old.max_body == *max_body),
        ("mirror", old.mirror == *mirror),
        ("compression", old.compression == *compression),
        ("buffer_requests", old.buffer_requests == *buffer_requests),
        ("buffer_responses", old.buffer_responses == *buffer_responses),
    ])
}

fn pool_changes(parts: &mut Vec<Part>, old: &Pool, new: &Pool) {
    let Pool {
        name,
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
    } = new;
    let Membership {
        discovery,
        registration,
        heartbeat,
    } = membership;
    let Overload {
        caps,
        queue,
        circuit_breaker,
    } = overload;
    let keys = different([
        // The settings of `hash` are part of the algorithm.
        ("algorithm", old.algorithm == *algorithm),
        ("health", old.health == *health),
        ("passive", old.passive == *passive),
        ("slow_start", old.slow_start == *slow_start),
        ("all_down", old.all_down == *all_down),
        ("protocol", old.http2.is_some() == http2.is_some()),
        (
            "http2",
            old.http2 == *http2 || old.http2.is_some() != http2.is_some(),
        ),
        ("connections", old.connections == *connections),
        ("timeouts", old.timeouts == *timeouts),
        ("retries", old.retries == *retries),
        ("sticky", old.sticky == *sticky),
        ("tls", old.tls == *tls),
        (
            "max_requests",
            old.overload.caps.max_requests == caps.max_requests,
        ),
        (
            "max_connections",
            old.overload.caps.max_connections == caps.max_connections,
        ),
        ("queue", old.overload.queue == *queue),
        (
            "circuit_breaker",
            old.overload.circuit_breaker == *circuit_breaker,
        ),
        ("discovery", old.membership.discovery == *discovery),
        ("registration", old.membership.registration == *registration),
        ("heartbeat", old.membership.heartbeat == *heartbeat),
    ]);
    if !keys.is_empty() {
        let pool = name.clone();
        parts.push(Part::PoolChanged { pool, keys });
    }
    backend_changes(parts, name, &old.backends, backends);
}

fn backend_changes(parts: &mut Vec<Part>, pool: &Name, old: &[Backend], new: &[Backend]) {
    let before = by_key(old, |backend| &backend.address);
    let after = by_key(new, |backend| &backend.address);
    for (address, before, after) in side_by_side(&before, &after) {
        let (pool, address) = (pool.clone(), **address);
        match (before, after) {
            (Some(before), Some(after)) => {
                let Backend {
                    address: _,
                    weight,
                    caps,
                } = after;
                if before.caps != *caps {
                    let pool = pool.clone();
                    parts.push(Part::BackendCapped { pool, address });
                }
                if before.weight != *weight {
                    parts.push(Part::BackendReweighted {
                        pool,
                        address,
                        from: before.weight,
                        to: *weight,
                    });
                }
            }
            (None, Some(after)) => parts.push(Part::BackendAdded {
                pool,
                address,
                weight: after.weight,
            }),
            (_, None) => parts.push(Part::BackendRemoved { pool, address }),
        }
    }
    if reordered(old, new, |backend| &backend.address) {
        parts.push(Part::BackendsReordered(pool.clone()));
    }
}

fn different<const N: usize>(compared: [(&'static str, bool); N]) -> Vec<&'static str> {
    let changed = compared.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| key).collect()
}

fn by_key<T, K: Ord>(items: &[T], key: impl Fn(&T) -> &K) -> BTreeMap<&K, &T> {
    items.iter().map(|item| (key(item), item)).collect()
}

/// Whether what is in both stands in another order.
fn reordered<T, K: Ord>(old: &[T], new: &[T], key: impl Fn(&T) -> &K) -> bool {
    let before = by_key(old, &key);
    let after = by_key(new, &key);
    let kept_before = old.iter().map(&key).filter(|k| after.contains_key(k));
    let kept_after = new.iter().map(&key).filter(|k| before.contains_key(k));
    !kept_before.eq(kept_after)
}

/// Every key of two maps with its value in each, in order.
fn side_by_side<'m, K: Ord, V>(
    old: &'m BTreeMap<K, V>,
    new: &'m BTreeMap<K, V>,
) -> impl Iterator<Item = (&'m K, Option<&'m V>, Option<&'m V>)> {
    let keys: std::collections::BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    keys.into_iter().map(|key| (key, old.get(key), new.get(key)))
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting { key, restart: true } => {
                write!(f, "{key} changed; it takes effect after a restart")
            }
            Self::Setting { key, restart: false } => write!(f, "{key} changed"),
            Self::LoadBalancerAdded(name) => write!(f, "{name}: load balancer added"),
            Self::LoadBalancerRemoved(name) => write!(f, "{name}: load balancer removed"),
            Self::Within { load_balancer, what } => write!(f, "{load_balancer}: {what}"),
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ListenerOpened { listener, address } => {
                write!(f, "listener {listener} opened on {address}")
            }
            Self::ListenerClosed { listener, address } => {
                write!(f, "listener {listener} closed on {address}")
            }
            Self::ListenerChanged { listener, keys } => {
                write!(f, "listener {listener} changed: {}", keys.join(", "))
            }
            Self::ListenersReordered => f.write_str("listeners reordered"),
            Self::AccessLog(true) => f.write_str("requests are in the access log"),
            Self::AccessLog(false) => f.write_str("requests are no longer in the access log"),
            Self::DefaultLanguage(Some(language)) => write!(f, "the default language is {language}"),
            Self::DefaultLanguage(None) => f.write_str("there is no default language"),
            Self::RouteAdded(route) => write!(f, "route {route} added"),
            Self::RouteRemoved(route) => write!(f, "route {route} removed"),
            Self::RouteChanged { route, keys } => write!(f, "route {route} changed: {}", keys.join(", ")),
            Self::RoutesReordered => f.write_str("routes reordered"),
            Self::PoolAdded { pool, backends: 1 } => write!(f, "pool {pool} added with 1 backend"),
            Self::PoolAdded { pool, backends } => write!(f, "pool {pool} added with {backends} backends"),
            Self::PoolRemoved(pool) => write!(f, "pool {pool} removed"),
            Self::PoolChanged { pool, keys } => write!(f, "pool {pool} changed: {}", keys.join(", ")),
            Self::BackendAdded {
                pool,
                address,
                weight: 1,
            } => write!(f, "backend {address} added to pool {pool}"),
            Self::BackendAdded {
                pool,
                address,
                weight,
            } => {
                write!(f, "backend {address} added to pool {pool} with weight {weight}")
            }
            Self::BackendRemoved { pool, address } => write!(f, "backend {address} removed from pool {pool}"),
            Self::BackendReweighted {
                pool,
                address,
                from,
                to,
            } => write!(
                f,
                "backend {address} of pool {pool} has weight {to} instead of {from}"
            ),
            Self::BackendCapped { pool, address } => write!(
                f,
                "backend {address} of pool {pool} has other caps (max_requests, max_connections)"
            ),
            Self::BackendsReordered(pool) => write!(f, "backends of pool {pool} reordered"),
        }
    }
}
