//! Configs made at random: every field of every struct, within its range.

mod actions;
mod alerts;
mod backend_http2;
mod http2;
mod membership;
mod overload;
mod sticky;
mod store;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::config::{
    AccessLog, Admin, AdminCertificate, AdminRole, AdminTls, Algorithm, AllDown, AuditTo, Backend, CheckKind,
    Config, Connections, ConsistentHash, GrpcCheck, HashKey, HashTable, HealthCheck, HostMatch, HttpCheck,
    IpNet, Listener, ListenerLimits, ListenerTimeouts, LoadBalancer, LogFormat, LogTarget, MAX_CONDITIONS,
    MAX_MATCH_DEPTH, MAX_SPLIT_WEIGHT, MAX_WEIGHT, Name, Node, Observe, Passive, PathMatch, Pattern, Pool,
    PoolTimeouts, Recorder, RequestId, Role, Route, RouteMatch, RouteTarget, Split, SplitPart, Tracing,
    Trust, ValueMatch,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_.-]{1,12}".prop_map(|text| Name::parse(&text).unwrap())
}

fn ms(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, 1..=u16::MAX)
        .prop_filter("an address of a server", |(ip, _)| !ip.is_unspecified())
        .prop_map(SocketAddr::from)
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[u8; 4]>().prop_map(IpAddr::from), 0..=32u8);
    let v6 = (any::<[u8; 16]>().prop_map(IpAddr::from), 0..=128u8);
    prop_oneof![v4, v6].prop_map(|(ip, prefix)| IpNet::new(ip, prefix).unwrap())
}

fn node() -> impl Strategy<Value = Node> {
    (
        "[a-z0-9._-]{1,20}",
        (
            subsequence(Role::ALL.to_vec(), 1..=3),
            option::of("[^\\pC]{1,20}"),
            option::of(Just(IpAddr::from([10, 0, 0, 5]))),
        ),
        option::of(1..=1024u16),
        option::of("/[^\\pC]{0,20}".prop_map(PathBuf::from)),
        option::of(("[a-z_][a-z0-9_-]{0,8}", option::of("[a-z_][a-z0-9_-]{0,8}"))),
        (ms(0..=3_600_000), ms(1000..=3_600_000)),
        1..=10_000_000u32,
        "/[^\\pC]{0,20}".prop_map(PathBuf::from),
    )
        .prop_map(
            |(
                name,
                (roles, zone, bind),
                threads,
                data_dir,
                account,
                (shutdown_timeout, plan_b_after),
                max_connections,
                geoip,
            )| {
                let (user, group) = account.unzip();
                Node {
                    name,
                    roles: roles.into_iter().collect(),
                    zone,
                    bind,
                    threads,
                    data_dir,
                    user,
                    group: group.flatten(),
                    shutdown_timeout,
                    plan_b_after,
                    max_connections,
                    secrets: Vec::new(),
                    geoip: Some(geoip),
                }
            },
        )
}

fn admin() -> impl Strategy<Value = Admin> {
    let file = || "[^\\pC]{1,20}".prop_map(PathBuf::from);
    let role = prop_oneof![
        Just(AdminRole::Viewer),
        Just(AdminRole::Operator),
        Just(AdminRole::Admin)
    ];
    let certificates = btree_map("[^\\pC]{1,20}", role, 1..3).prop_map(|entries| {
        let entry = |(name, role)| AdminCertificate { name, role };
        entries.into_iter().map(entry).collect::<Vec<_>>()
    });
    let clients = option::of((file(), certificates)).prop_map(Option::unzip);
    let audit_log = prop_oneof![
        Just(AuditTo::DataDir),
        Just(AuditTo::Off),
        file().prop_map(AuditTo::File)
    ];
    (
        address(),
        file(),
        (file(), file()),
        clients,
        (any::<bool>(), 0..=1_000_000_u32, audit_log),
    )
        .prop_map(
            |(
                listen,
                token_file,
                (certificate, key),
                (client_ca, certificates),
                (open_metrics, metrics_backends, audit_log),
            )| Admin {
                listen,
                token: None,
                token_file: Some(token_file),
                tls: Some(AdminTls {
                    certificate,
                    key,
                    client_ca,
                }),
                tokens: Vec::new(),
                certificates: certificates.unwrap_or_default(),
                open_metrics,
                metrics_backends,
                audit_log,
            },
        )
}

fn trust() -> impl Strategy<Value = Trust> {
    prop_oneof![Just(Trust::TrustedProxies), Just(Trust::All), Just(Trust::Nobody)]
}

fn observe() -> impl Strategy<Value = Observe> {
    let file = || "/[^\\pC]{0,20}".prop_map(PathBuf::from);
    let to = prop_oneof![
        Just(LogTarget::Stdout),
        file().prop_map(LogTarget::File),
        file().prop_map(LogTarget::Syslog),
        "[a-z0-9.-]{1,10}:[1-9][0-9]{0,3}".prop_map(LogTarget::SyslogUdp),
    ];
    let format = prop_oneof![Just(LogFormat::Json), Just(LogFormat::Common)];
    let access_log = (to, format, 0..=100u8, any::<bool>(), 65_536..=1u64 << 30).prop_map(
        |(to, format, sample, query, queue)| AccessLog {
            to,
            format,
            sample,
            query,
            queue,
        },
    );
    let request_id = ("X-[A-Za-z]{1,8}", trust()).prop_map(|(header, trust)| RequestId { header, trust });
    let tracing = (
        "https?://[a-z0-9.-]{1,10}(:[1-9][0-9]{0,3})?(/[a-z0-9/]{0,8})?",
        option::of(file()),
        0..=100u8,
        trust(),
        "[^\\pC]{1,20}",
        option::of(file()),
        16..=1_000_000u32,
    )
        .prop_map(
            |(endpoint, ca, sample, trust, service_name, headers_file, queue)| Tracing {
                endpoint,
                ca,
                sample,
                trust,
                service_name,
                headers_file,
                queue,
            },
        );
    let figure = || 0..=1_000_000u32;
    let recorder =
        (figure(), figure(), figure(), 0..=100u8).prop_map(|(failures, refusals, successes, sample)| {
            Recorder {
                failures,
                refusals,
                successes,
                sample,
            }
        });
    (option::of(access_log), request_id, option::of(tracing), recorder).prop_map(
        |(access_log, request_id, tracing, recorder)| Observe {
            access_log,
            request_id,
            tracing,
            recorder,
        },
    )
}

fn listener() -> impl Strategy<Value = Listener> {
    let limits = (
        1024..=1_048_576u32,
        1..=1000u16,
        0.0..=1.0f64,
        option::of(0..1u64 << 50),
    )
        .prop_map(
            |(header_bytes, header_fields, share, body_bytes)| ListenerLimits {
                header_bytes,
                header_fields,
                target_bytes: 64 + (f64::from(header_bytes - 64) * share) as u32,
                body_bytes,
            },
        );
    let timeout = || ms(10..=3_600_000);
    let timeouts = (
        timeout(),
        timeout(),
        0..=1u32 << 30,
        timeout(),
        timeout(),
        timeout(),
    )
        .prop_map(
            |(
                request_headers,
                request_body_idle,
                request_body_min_rate,
                keep_alive,
                response_write_idle,
                tls_handshake,
            )| {
                ListenerTimeouts {
                    request_headers,
                    request_body_idle,
                    request_body_min_rate,
                    keep_alive,
                    response_write_idle,
                    tls_handshake,
                }
            },
        );
    (
        name(),
        address(),
        option::of(tls::listener_tls()),
        (
            vec(network(), 0..3),
            vec("[a-z]{1,9}x(/[0-9.]{1,3})?", 0..3),
            option::of(prop_oneof![Just(443), 1..=u16::MAX]),
        ),
        1..=10_000_000u32,
        limits,
        timeouts,
        http2::http2(),
    )
        .prop_map(
            |(
                name,
                address,
                tls,
                (trusted_proxies, upgrades, redirect_to_https),
                max_connections,
                limits,
                timeouts,
                http2,
            )| Listener {
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
            },
        )
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let texts = ["/v[0-9]+/.*", "a|b", "(?:x|y)", "(?x) a # b", "\\\"'a{1,2}"];
    prop::sample::select(texts.map(|text| Pattern::parse(text).unwrap()).to_vec())
}

fn values(names: &'static str, values: &'static str) -> impl Strategy<Value = Vec<(String, ValueMatch)>> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        Just(ValueMatch::Absent),
        values.prop_map(ValueMatch::Exact),
        pattern().prop_map(ValueMatch::Pattern),
    ];
    btree_map(names, value, 0..3).prop_map(|values| values.into_iter().collect())
}

fn host_match() -> impl Strategy<Value = HostMatch> {
    prop_oneof![
        "[a-z0-9.-]{0,11}[a-z0-9-]".prop_map(HostMatch::Exact),
        "[.][a-z0-9.-]{0,11}[a-z0-9-]".prop_map(HostMatch::Under),
    ]
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let path = || "/[a-z0-9/\"'\\\\%_~-]{0,10}";
    let path = prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Pattern),
    ];
    let words = |form: &'static str| vec(form, 0..3);
    let plain = (
        (option::of(host_match()), option::of(path), words("[A-Z]{1,8}")),
        (
            values("[a-z!#$%&'*+.^_`|~-]{1,6}", "[!-~]([ -~]{0,4}[!-~])?"),
            values("[A-Za-z!#$%&'*+.^_`|~-]{1,6}", "[!-:<-~]{1,6}"),
            values("[!-\"$%'-<>-~]{1,6}", "[ -~äß]{0,6}"),
        ),
        vec(network(), 0..3),
        words("[a-z]{2,3}(-[a-z0-9]{2,4})?"),
        (words("AT|CH|DE|FR|GB|US|XK|ZA"), words("EU|AS|NA")),
    )
        .prop_map(
            |(
                (host, path, methods),
                (headers, cookies, query),
                client_address,
                languages,
                (countries, continents),
            )| {
                RouteMatch {
                    host,
                    path,
                    methods,
                    headers,
                    cookies,
                    query,
                    client_address,
                    languages,
                    countries,
                    continents,
                    ..RouteMatch::default()
                }
            },
        );
    plain.prop_recursive(2, 2, 1, |inner| {
        (
            inner.clone(),
            vec(inner.clone(), 0..2),
            vec(inner.clone(), 0..2),
            option::of(inner),
        )
            .prop_map(|(plain, any, all, not)| RouteMatch {
                any,
                all,
                not: not.map(Box::new),
                ..plain
            })
            .prop_filter("within the bounds", |matches| {
                let (conditions, depth) = matches.size();
                conditions <= MAX_CONDITIONS && depth <= MAX_MATCH_DEPTH
            })
    })
}

fn hash_key() -> impl Strategy<Value = HashKey> {
    let token = || "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,10}";
    prop_oneof![
        Just(HashKey::ClientAddress),
        Just(HashKey::Path),
        token().prop_map(|name| HashKey::Header(name.to_ascii_lowercase())),
        token().prop_map(HashKey::Cookie),
        "[!-\"$%'-<>-~]{1,10}".prop_map(HashKey::Query),
    ]
}

/// A pool of its own, or a split of all with weights made of this number.
fn target(pools: &[Name], own: &Name, (split, number, key): (bool, u32, Option<HashKey>)) -> RouteTarget {
    if !split {
        return RouteTarget::Pool(own.clone());
    }
    let parts = pools.iter().zip(1..).map(|(pool, i)| SplitPart {
        pool: pool.clone(),
        weight: number / i + u32::from(i == 1),
    });
    RouteTarget::Split(Split {
        parts: parts.collect(),
        key,
    })
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    let key = hash_key();
    let table = prop_oneof![Just(HashTable::Ring), Just(HashTable::Maglev)];
    let hash = (key, table, option::of(101..=10_000u16)).prop_map(|(key, table, bounded_load)| {
        Algorithm::ConsistentHash(ConsistentHash {
            key,
            table,
            bounded_load,
        })
    });
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::LeastConnections),
        Just(Algorithm::Random),
        Just(Algorithm::PowerOfTwo),
        Just(Algorithm::PeakEwma),
        Just(Algorithm::IpHash),
        hash,
    ]
}

fn http_check() -> impl Strategy<Value = HttpCheck> {
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("OPTIONS"), Just("POST")];
    let headers = btree_map("x-[a-z]{1,8}", "[!-~]([ -~\\t]{0,6}[!-~])?", 0..3);
    let statuses = vec(
        (100..=599u16, 100..=599u16).prop_map(|(a, b)| (a.min(b), a.max(b))),
        1..4,
    );
    (
        "/[a-z0-9/?=&\"'\\\\]{0,10}",
        method,
        option::of("[a-z0-9.-]{1,10}(:[1-9][0-9]{0,3})?"),
        headers,
        statuses,
        option::of("[^\\pC]{1,10}"),
    )
        .prop_map(|(path, method, host, headers, expected_status, body)| HttpCheck {
            http2: false,
            path,
            method: method.to_owned(),
            host,
            headers: headers.into_iter().collect(),
            expected_status,
            body_contains: body.filter(|_| method != "HEAD"),
        })
}

fn health() -> impl Strategy<Value = HealthCheck> {
    let grpc = option::of("[a-z.]{1,12}").prop_map(|service| GrpcCheck {
        service: service.unwrap_or_default(),
    });
    let kind = prop_oneof![
        Just(CheckKind::Tcp),
        http_check().prop_map(CheckKind::Http),
        grpc.prop_map(CheckKind::Grpc)
    ];
    let port = option::of(1..=u16::MAX);
    (
        kind,
        port,
        100..=3_600_000u64,
        0.0..=1.0f64,
        0.0..=1.0f64,
        1..=100u16,
        1..=100u16,
        0..=50u8,
    )
        .prop_map(|(kind, port, interval, fast, timeout, rise, fall, jitter)| {
            let part = |least: u64, share: f64| least + ((interval - least) as f64 * share) as u64;
            HealthCheck {
                kind,
                port,
                interval: Duration::from_millis(interval),
                fast_interval: Duration::from_millis(part(50, fast)),
                timeout: Duration::from_millis(part(10, timeout)),
                rise,
                fall,
                jitter,
                tls: None,
            }
        })
}

fn passive() -> impl Strategy<Value = Passive> {
    (
        1..=1000u16,
        ms(1_000..=3_600_000),
        1..=100u8,
        1..=1_000_000u32,
        ms(100..=3_600_000),
        0..=100u8,
    )
        .prop_map(
            |(consecutive_failures, window, failure_ratio, minimum_requests, ejection_time, max_ejected)| {
                Passive {
                    consecutive_failures,
                    window,
                    failure_ratio,
                    minimum_requests,
                    ejection_time,
                    max_ejected,
                }
            },
        )
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    btree_map(address(), (0..=MAX_WEIGHT, overload::caps()), 0..5).prop_map(|backends| {
        let backends = backends.into_iter();
        backends
            .map(|(address, (weight, caps))| Backend {
                address,
                weight,
                caps,
            })
            .collect()
    })
}

fn pool() -> impl Strategy<Value = Pool> {
    let connections = (any::<u16>(), ms(10..=86_400_000)).prop_map(|(max_idle, idle_timeout)| Connections {
        max_idle,
        idle_timeout,
    });
    let total = prop_oneof![Just(Duration::ZERO), ms(10..=86_400_000)];
    let timeouts = (
        ms(10..=3_600_000),
        ms(10..=3_600_000),
        ms(10..=86_400_000),
        ms(10..=86_400_000),
        ms(10..=604_800_000),
        total,
    )
        .prop_map(
            |(connect, tls, first_byte, stream_idle, tunnel_idle, total)| PoolTimeouts {
                connect,
                tls,
                first_byte,
                stream_idle,
                tunnel_idle,
                total,
            },
        );
    let all_down = prop_oneof![Just(AllDown::FailOpen), Just(AllDown::FailClosed)];
    (
        (
            name(),
            algorithm(),
            backends(),
            option::of(health()),
            option::of(passive()),
        ),
        (
            ms(0..=3_600_000),
            all_down,
            connections,
            timeouts,
            sticky::retries(),
            option::of(sticky::sticky()),
            option::of(backend_http2::backend_http2()),
            option::of((tls::backend_tls(), any::<bool>())),
            (overload::overload(), membership::membership()),
        ),
    )
        .prop_map(
            |(
                (name, algorithm, backends, health, passive),
                (
                    slow_start,
                    all_down,
                    connections,
                    timeouts,
                    retries,
                    sticky,
                    http2,
                    tls,
                    (overload, membership),
                ),
            )| {
                let (tls, checked) = tls.unzip();
                let of_check = tls.clone().filter(|_| checked == Some(true));
                let health = health.map(|check| HealthCheck {
                    tls: of_check,
                    ..over(check, http2.is_some())
                });
                let mut pool = Pool {
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
                };
                overload::fit(&mut pool);
                pool
            },
        )
}

/// A check goes over what the pool's requests go over.
fn over(mut check: HealthCheck, http2: bool) -> HealthCheck {
    if let CheckKind::Http(http) = &mut check.kind {
        http.http2 = http2;
    }
    check
}

fn load_balancer() -> impl Strategy<Value = LoadBalancer> {
    (
        name(),
        vec(listener(), 1..3),
        vec(pool(), 1..4),
        btree_set(route_match(), 3..6),
        btree_set(name(), 6),
        (any::<bool>(), option::of("[a-z]{2}")),
        vec(
            (
                (any::<bool>(), 0..MAX_SPLIT_WEIGHT, option::of(hash_key())),
                (sticky::rate_limits(), sticky::route_timeouts()),
                (option::of(actions::answer()), actions::actions()),
            ),
            6,
        ),
    )
        .prop_map(
            |(name, mut listeners, pools, matches, names, (access_log, default_language), rest)| {
                listeners.dedup_by(|a, b| a.name == b.name);
                let pools: BTreeMap<Name, Arc<Pool>> = pools
                    .into_iter()
                    .map(|pool| (pool.name.clone(), Arc::new(pool)))
                    .collect();
                let pool_names: Vec<Name> = pools.keys().cloned().collect();
                let leads_to = pool_names.iter().cycle();
                let mut routes: Vec<Route> = names
                    .into_iter()
                    .zip(matches)
                    .zip(leads_to.zip(rest))
                    .enumerate()
                    .map(|(i, ((name, matches), (pool, rest)))| {
                        let (choice, (rate_limits, timeouts), (answer, mut actions)) = rest;
                        // The first routes lead to the pools, each of which needs one.
                        let answer = answer.filter(|_| i >= pool_names.len());
                        let answer = answer.map(|answer| actions::with_groups(answer, matches.path.as_ref()));
                        if answer.is_some() {
                            actions = actions::without_pool(actions);
                        }
                        // Copies are sent over HTTP/1.
                        actions.mirror = actions.mirror.filter(|_| pools[pool].http2.is_none());
                        if let Some(mirror) = &mut actions.mirror {
                            mirror.pool = pool.clone();
                        }
                        Route {
                            name,
                            priority: choice.1 % 3,
                            matches,
                            target: answer.unwrap_or_else(|| target(&pool_names, pool, choice)),
                            rate_limits,
                            timeouts,
                            actions,
                        }
                    })
                    .collect();
                routes.sort_by_cached_key(Route::rank);
                LoadBalancer {
                    name,
                    listeners: listeners.into_iter().map(Arc::new).collect(),
                    routes,
                    pools,
                    access_log,
                    default_language,
                }
            },
        )
}

/// A valid config without an inline token.
pub(crate) fn config() -> impl Strategy<Value = Config> {
    (
        node(),
        admin(),
        observe(),
        store::store(),
        alerts::alerts(),
        vec(load_balancer(), 1..3),
    )
        .prop_map(|(node, admin, observe, store, alerts, balancers)| Config {
            node,
            admin,
            observe,
            notify: store::notify(&store),
            store,
            alerts,
            load_balancers: balancers
                .into_iter()
                .map(|lb| (lb.name.clone(), Arc::new(lb)))
                .collect(),
        })
        .prop_filter("listening addresses differ", |config| {
            let listeners = config.load_balancers.values().flat_map(|lb| &lb.listeners);
            let mut addresses: Vec<SocketAddr> = listeners.map(|l| l.address).collect();
            addresses.push(config.admin.listen);
            let count = addresses.len();
            addresses.sort();
            addresses.dedup();
            addresses.len() == count
        })
}
