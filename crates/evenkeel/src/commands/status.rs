//! `evenkeel status`: what a running process says of itself, as tables.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use model::state::{Health, Override, RouteOrder, Source, Timestamp};
use model::status::{
    BackendLive, BackendStatus, CertificateStatus, CheckedBy, ConfigStatus, Event, ListenerStatus,
    LoadBalancerStatus, LookupStatus, PoolStatus, QueueStatus, RouteStatus, SourceStatus, SplitPartStatus,
    SplitStatus, Status,
};
use model::units::format_duration;

use crate::cli::StatusArgs;
use crate::client::Client;
use crate::hub;
use crate::table::{Cell, Paint, Table, Tone};
use crate::text::{ago, counted, duration, utc};

/// Events shown; all that are kept are in `--json`.
const EVENTS_SHOWN: usize = 10;

/// Routes shown of a load balancer.
const ROUTES_SHOWN: usize = 20;

/// A certificate that ends sooner should have been renewed.
const CERTIFICATE_SOON: Duration = Duration::from_secs(21 * 86_400);

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(&args.client)?.get("/api/v1/status")?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let status: Status = serde_json::from_str(&answer)
        .context("the admin API's answer is not a status: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&render(&status, paint))?;
    Ok(ExitCode::SUCCESS)
}

/// The whole status for a person.
pub(crate) fn render(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    head(&mut out, status, paint);
    super::status_store::render(&mut out, &status.store, paint);
    super::status_orchestrators::render(&mut out, status.orchestrators.as_ref(), status.now, paint);
    super::status_nodes::render(&mut out, &status.nodes, status.store.head, paint);
    for lb in &status.load_balancers {
        load_balancer(&mut out, lb, status.now, paint);
    }
    out.push_str(&super::alerts::section(&status.alerts, status.now, paint));
    if !status.events.is_empty() {
        let _ = writeln!(out, "\n{}", paint.text(Tone::Title, "events"));
        let skip = status.events.len().saturating_sub(EVENTS_SHOWN);
        out.push_str(&events(&status.events[skip..], paint));
    }
    out
}

fn head(out: &mut String, status: &Status, paint: Paint) {
    let ConfigStatus {
        source,
        revision,
        since,
        last_reload,
    } = &status.config;
    let _ = writeln!(
        out,
        "{} ({} {}), up {}",
        paint.text(Tone::Title, &status.node),
        env!("CARGO_PKG_NAME"),
        paint.text(Tone::Plain, &status.version),
        ago(status.now, status.started)
    );
    let _ = writeln!(
        out,
        "config revision {revision} from {}, in force for {}",
        paint.text(Tone::Plain, source),
        ago(status.now, *since)
    );
    let Some(reload) = last_reload else {
        return;
    };
    let when = ago(status.now, reload.at);
    if reload.ok {
        let _ = writeln!(out, "last reload {when} ago: ok");
    } else {
        let refused = format!("last reload {when} ago: REFUSED, the config before it stays in force");
        let _ = writeln!(out, "{}", paint.text(Tone::Bad, &refused));
    }
    for line in reload.messages.iter().flat_map(|m| m.lines()) {
        let _ = writeln!(out, "  {}", paint.text(Tone::Plain, line));
    }
}

fn load_balancer(out: &mut String, lb: &LoadBalancerStatus, now: Timestamp, paint: Paint) {
    let _ = writeln!(out, "\n{}", paint.text(Tone::Title, lb.name.as_str()));
    for l in &lb.listeners {
        let _ = writeln!(out, "  listener {}", listener(l, paint));
        for c in &l.certificates {
            let _ = writeln!(out, "    certificate {}", certificate(c, now, paint));
        }
    }
    routes(out, lb, paint);
    for s in &lb.splits {
        let _ = writeln!(out, "  route {}", split(s, now, paint));
    }
    for p in &lb.pools {
        pool(out, p, now, paint);
    }
}

/// Routes in the order tried; nothing of the one that every load balancer with one pool has.
fn routes(out: &mut String, lb: &LoadBalancerStatus, paint: Paint) {
    let plain = |route: &RouteStatus| route.matches == "everything" && route.besides.is_empty();
    if lb.route_count == 1 && lb.routes.iter().all(plain) {
        return;
    }
    let mut table = Table::new(&["ROUTE", "MATCHES", "LEADS TO", "BESIDES"]);
    for route in lb.routes.iter().take(ROUTES_SHOWN) {
        table.row(vec![
            Cell::text(route.route.to_string()),
            Cell::text(route.matches.clone()),
            Cell::text(route.leads_to.clone()),
            Cell::text(route.besides.join("; ")),
        ]);
    }
    let _ = writeln!(out, "  routes, in the order in which they are tried");
    out.push_str(&table.render(4, paint));
    let more = lb.route_count.saturating_sub(ROUTES_SHOWN);
    if more > 0 {
        let _ = writeln!(out, "    and {more} more");
    }
}

fn listener(listener: &ListenerStatus, paint: Paint) -> String {
    let state = match (&listener.error, listener.open) {
        (_, true) => paint.text(Tone::Good, "open"),
        (Some(error), false) => paint.text(Tone::Bad, &format!("NOT OPEN: {error}")),
        (None, false) => paint.text(Tone::Bad, "NOT OPEN"),
    };
    let connections = usize::try_from(listener.connections).unwrap_or(usize::MAX);
    format!(
        "{} on {}: {state}, {}",
        listener.name,
        listener.address,
        counted(connections, "connection")
    )
}

fn certificate(certificate: &CertificateStatus, now: Timestamp, paint: Paint) -> String {
    let ends = match certificate.expires {
        None => paint.text(Tone::Bad, "NONE TO SHOW"),
        Some(at) if at <= now => paint.text(Tone::Bad, "EXPIRED"),
        Some(at) => {
            let left = at.since(now);
            let tone = if left < CERTIFICATE_SOON {
                Tone::Bad
            } else {
                Tone::Good
            };
            paint.text(
                tone,
                &format!("{} left", counted((left.as_secs() / 86_400) as usize, "day")),
            )
        }
    };
    let hosts = paint.text(Tone::Plain, &certificate.hosts.join(", "));
    let error = match &certificate.error {
        Some(error) => paint.text(Tone::Bad, &format!("; NOT RELOADED: {error}")),
        None => String::new(),
    };
    let name = paint.text(Tone::Plain, &certificate.name);
    format!("{name} for {hosts}: {ends}{error}")
}

/// `all: blue 0, green 100 (instead of blue 95, green 5; by alice since …)`.
fn split(split: &SplitStatus, now: Timestamp, paint: Paint) -> String {
    let shares = |weight: fn(&SplitPartStatus) -> u32| {
        let shares: Vec<String> = split
            .parts
            .iter()
            .map(|part| format!("{} {}", part.pool, weight(part)))
            .collect();
        shares.join(", ")
    };
    let in_force = format!("{}: {}", split.route, shares(|part| part.weight));
    let Some(order) = &split.order else {
        return in_force;
    };
    let order = format!(
        "{}; configured: {}",
        route_order(order, now),
        shares(|part| part.configured)
    );
    format!("{in_force} ({})", paint.text(Tone::Warning, &order))
}

fn pool(out: &mut String, pool: &PoolStatus, now: Timestamp, paint: Paint) {
    let about = [std::slice::from_ref(&pool.algorithm), &pool.settings].concat();
    let about = paint.text(Tone::Plain, &about.join(", "));
    let _ = write!(out, "  pool {} ({about})", pool.name);
    if pool.all_down {
        let all_down = format!(": NO BACKEND IS ELIGIBLE, {}", pool.all_down_policy.as_str());
        out.push_str(&paint.text(Tone::Bad, &all_down));
    }
    out.push('\n');
    for warning in &pool.warnings {
        let _ = writeln!(
            out,
            "    {}",
            paint.text(Tone::Bad, &format!("WARNING: {warning}"))
        );
    }
    if let Some(queue) = &pool.live.queue {
        let _ = writeln!(out, "    queue: {}", queue_line(queue, paint));
    }
    if let Some(circuit) = &pool.live.circuit {
        let text = match circuit.as_str() {
            "closed" => paint.text(Tone::Plain, "closed"),
            "open" => paint.text(Tone::Bad, "OPEN, requests are refused"),
            other => paint.text(Tone::Warning, &other.replace('_', " ")),
        };
        let _ = writeln!(out, "    circuit breaker: {text}");
    }
    for source in &pool.sources {
        let _ = writeln!(out, "    {}", source_line(source, now, paint));
    }
    if pool.left_out > 0 {
        let text = format!(
            "{} have no room in the pool",
            counted(pool.left_out, "found member")
        );
        let _ = writeln!(out, "    {}", paint.text(Tone::Bad, &text));
    }
    if !pool.backends.is_empty() {
        out.push_str(&backends(&pool.backends, now).render(4, paint));
    }
}

/// `dns: 3 members`, and what is wrong with them.
fn source_line(source: &SourceStatus, now: Timestamp, paint: Paint) -> String {
    let mut text = format!(
        "{}: {}",
        source.source.as_str(),
        counted(source.members, "member")
    );
    if let Some(lookup) = &source.lookup {
        text.push_str(&of_the_name(lookup, now));
    }
    if source.left_out > 0 {
        let left_out = format!(", {} LEFT OUT", source.left_out);
        text.push_str(&paint.text(Tone::Bad, &left_out));
    }
    if let Some(why) = &source.stale {
        let since = source
            .stale_since
            .map_or_else(String::new, |at| format!(" for {}", ago(now, at)));
        text.push_str(&paint.text(Tone::Bad, &format!(", STALE{since}: {why}")));
    }
    text
}

/// ` of shop.internal (ip), answered 3s ago by 127.0.0.1:53, for 5s`.
fn of_the_name(lookup: &LookupStatus, now: Timestamp) -> String {
    let mut text = format!(" of {} ({})", lookup.name, lookup.kind);
    match (lookup.answered, lookup.resolver) {
        (Some(at), Some(resolver)) => {
            let holds = format_duration(Duration::from_millis(lookup.ttl_ms));
            text.push_str(&format!(
                ", answered {} ago by {resolver}, for {holds}",
                ago(now, at)
            ));
        }
        _ => text.push_str(", not answered yet"),
    }
    if lookup.failures > 0 {
        text.push_str(&format!(", {} failed since", counted_looks(lookup.failures)));
    }
    text
}

fn counted_looks(looks: u32) -> String {
    counted(usize::try_from(looks).unwrap_or(usize::MAX), "look")
}

/// `3 of at most 1000 wait, up to 1s`.
fn queue_line(queue: &QueueStatus, paint: Paint) -> String {
    let QueueStatus {
        waiting,
        size,
        timeout_ms,
        overloaded,
    } = queue;
    let longest = format_duration(Duration::from_millis(*timeout_ms));
    let text = format!("{waiting} of at most {size} wait, up to {longest}");
    match overloaded {
        true => paint.text(
            Tone::Bad,
            &format!("{text}: OVERLOADED, the newest are served first"),
        ),
        false => paint.text(Tone::Plain, &text),
    }
}

/// A table of backends; the demo shows the same one.
fn backends(backends: &[BackendStatus], now: Timestamp) -> Table {
    let mut columns = vec![
        "BACKEND",
        "STATE",
        "HEALTH",
        "SINCE",
        "WEIGHT>",
        "IN FLIGHT>",
        "REQUESTS>",
        "FAILURES>",
        "IDLE>",
        "ORDER",
    ];
    // Where others may check, it is told who does.
    let by_others = |b: &BackendStatus| !matches!(b.checked_by, None | Some(CheckedBy::ThisNode));
    let shared = backends.iter().any(by_others);
    if shared {
        columns.push("CHECKED BY");
    }
    let mut table = Table::new(&columns);
    for b in backends {
        let mut row = vec![
            Cell::text(address(b)),
            state(b, now),
            health(b),
            Cell::text(ago(now, b.health_since)),
            Cell::number(weight(b)),
            Cell::number(in_flight(&b.live)),
            Cell::number(b.live.requests),
            Cell::number(b.live.failures),
            Cell::number(b.live.idle_connections),
            b.order
                .as_ref()
                .map_or_else(Cell::default, |o| Cell::text(order(o, now))),
        ];
        if shared {
            row.push(b.checked_by.as_ref().map_or_else(Cell::default, checked_by));
        }
        table.row(row);
    }
    table
}

fn checked_by(by: &CheckedBy) -> Cell {
    match by {
        CheckedBy::ThisNode => Cell::text("this node"),
        CheckedBy::LbServers => Cell::text("each LB server"),
        CheckedBy::Orchestrator(name) => Cell::text(name.to_string()),
        CheckedBy::Nobody => Cell::tone("NOBODY".to_owned(), Tone::Warning),
    }
}

/// `10.0.0.1:9001`, and where it was learnt of unless it is declared: `10.0.0.1:9001 (dns, eu-1)`.
fn address(backend: &BackendStatus) -> String {
    if backend.source == Source::Declared {
        return backend.address.to_string();
    }
    let source = [backend.source.as_str().to_owned()].into_iter();
    let zone = backend.zone.iter().map(ToString::to_string);
    let load = backend.load.iter().map(|load| format!("load {load}%"));
    let words: Vec<String> = source.chain(zone).chain(load).collect();
    format!("{} ({})", backend.address, words.join(", "))
}

/// `3`, or `3 of 4` where there is a cap.
fn in_flight(live: &BackendLive) -> String {
    let most = live.max_in_flight.map(|most| format!(" of {most}"));
    format!("{}{}", live.in_flight, most.unwrap_or_default())
}

fn state(backend: &BackendStatus, now: Timestamp) -> Cell {
    let tone = match backend.eligibility.as_str() {
        "eligible" => Tone::Good,
        "down" | "ejected" => Tone::Bad,
        _ => Tone::Warning,
    };
    match &backend.ejection {
        Some(ejection) if backend.eligibility == "ejected" => {
            let left = left(ejection.until, now);
            Cell::tone(format!("ejected for {left}: {}", ejection.reason), tone)
        }
        _ => Cell::tone(backend.eligibility.replace('_', " "), tone),
    }
}

fn health(backend: &BackendStatus) -> Cell {
    let tone = match backend.health {
        Health::Up => Tone::Good,
        Health::Down => Tone::Bad,
        Health::Unchecked => Tone::Faint,
    };
    let text = match backend.health {
        // The reason says it all.
        Health::Unchecked => backend.health_reason.clone(),
        health => format!("{}: {}", health.as_str(), backend.health_reason),
    };
    Cell::tone(text, tone)
}

/// The weight; while slow start climbs, the one in effect of it.
fn weight(backend: &BackendStatus) -> String {
    let full = f64::from(backend.weight);
    if backend.effective_weight > 0.0 && backend.effective_weight < full {
        format!("{:.1} of {}", backend.effective_weight, backend.weight)
    } else {
        backend.weight.to_string()
    }
}

/// An order in force: `drain by alice, 2m ago, ends in 8m`.
pub(crate) fn order(order: &Override, now: Timestamp) -> String {
    let mut text = format!("{}, {} ago", hub::describe(order), ago(now, order.since));
    if let Some(expires) = order.expires {
        text.push_str(&format!(", ends in {}", left(expires, now)));
    }
    text
}

/// An order for a split: `blue=0 green=100 by alice, 2m ago, ends in 8m`.
pub(crate) fn route_order(order: &RouteOrder, now: Timestamp) -> String {
    let RouteOrder {
        weights,
        by,
        since,
        expires,
    } = order;
    let ends = expires.map_or_else(String::new, |until| format!(", ends in {}", left(until, now)));
    format!("{} by {by}, {} ago{ends}", hub::shares(weights), ago(now, *since))
}

/// Time to an end, in whole seconds begun.
fn left(end: Timestamp, now: Timestamp) -> String {
    duration(Duration::from_secs(end.0.saturating_sub(now.0).div_ceil(1000)))
}

fn events(events: &[Event], paint: Paint) -> String {
    let mut table = Table::new(&["TIME", "EVENT", "ABOUT", "WHAT"]);
    for event in events {
        let tone = if hub::is_bad(&event.kind) {
            Tone::Bad
        } else {
            Tone::Plain
        };
        table.row(vec![
            Cell::text(utc(event.at)),
            Cell::tone(event.kind.clone(), tone),
            Cell::text(event.subject.clone()),
            Cell::text(event.message.clone()),
        ]);
    }
    table.render(2, paint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::config::{AllDown, Name};
    use model::state::{Ejection, Mode};
    use model::status::StoreStatus;
    use model::status::{PoolLive, ReloadStatus};

    const NOW: Timestamp = Timestamp(1_772_368_496_000);

    fn ago_s(seconds: u64) -> Timestamp {
        Timestamp(NOW.0 - seconds * 1000)
    }

    fn backend(port: u16) -> BackendStatus {
        BackendStatus {
            address: ([10, 0, 0, 1], port).into(),
            source: Source::Declared,
            zone: None,
            load: None,
            eligibility: "eligible".into(),
            health: Health::Up,
            health_reason: "status 200".into(),
            health_since: ago_s(3600),
            checked_by: None,
            mode: Mode::Ready,
            order: None,
            ejection: None,
            weight: 1,
            effective_weight: 1.0,
            live: BackendLive {
                in_flight: 3,
                connections: 7,
                requests: 1234,
                failures: 0,
                idle_connections: 4,
                ..BackendLive::default()
            },
        }
    }

    fn drained() -> BackendStatus {
        BackendStatus {
            eligibility: "draining".into(),
            mode: Mode::Drain,
            order: Some(Override {
                mode: Mode::Drain,
                weight: None,
                by: "alice".into(),
                since: ago_s(120),
                expires: Some(Timestamp(NOW.0 + 480_000)),
            }),
            effective_weight: 0.0,
            ..backend(9002)
        }
    }

    fn status() -> Status {
        let name = |n| Name::parse(n).unwrap();
        let ejected = BackendStatus {
            eligibility: "ejected".into(),
            ejection: Some(Ejection {
                reason: "5 failures in a row (last: connect_refused)".into(),
                since: ago_s(3),
                until: Timestamp(NOW.0 + 7_000),
            }),
            effective_weight: 0.0,
            ..backend(9003)
        };
        let mut ramping = BackendStatus {
            weight: 2,
            effective_weight: 0.4,
            ..backend(9004)
        };
        ramping.live.max_in_flight = Some(4);
        Status {
            node: "edge-1".into(),
            version: "0.1.0".into(),
            started: ago_s(7_500),
            now: NOW,
            config: ConfigStatus {
                source: "evenkeel.toml".into(),
                revision: 2,
                since: ago_s(60),
                last_reload: Some(ReloadStatus {
                    at: ago_s(5),
                    ok: false,
                    messages: vec!["evenkeel.toml:3:1: unknown key `algoritm`".into()],
                }),
            },
            store: StoreStatus {
                kind: "embedded".into(),
                connected: true,
                ..StoreStatus::default()
            },
            orchestrators: None,
            nodes: Vec::new(),
            load_balancers: vec![LoadBalancerStatus {
                name: name("shop"),
                listeners: vec![ListenerStatus {
                    name: name("http"),
                    address: ([0, 0, 0, 0], 8080).into(),
                    open: true,
                    error: None,
                    connections: 1,
                    certificates: vec![CertificateStatus {
                        name: "shop.pem".into(),
                        hosts: vec!["shop.example.com".into(), "*.example.com".into()],
                        expires: Some(Timestamp(NOW.0 + 20 * 86_400_000)),
                        error: Some(
                            "the key in shop.key does not belong to the certificate in shop.pem".into(),
                        ),
                    }],
                }],
                route_count: 2,
                routes: vec![
                    RouteStatus {
                        route: name("beta"),
                        matches: "header x-beta = 1".into(),
                        leads_to: "pool default".into(),
                        besides: vec!["5 in 1m by client_address".into(), "rewrites".into()],
                    },
                    RouteStatus {
                        route: name("all"),
                        matches: "everything".into(),
                        leads_to: "split blue 95, green 5".into(),
                        besides: Vec::new(),
                    },
                ],
                splits: vec![SplitStatus {
                    route: name("all"),
                    parts: vec![
                        SplitPartStatus {
                            pool: name("blue"),
                            weight: 0,
                            configured: 95,
                        },
                        SplitPartStatus {
                            pool: name("green"),
                            weight: 100,
                            configured: 5,
                        },
                    ],
                    order: Some(RouteOrder {
                        weights: [(name("green"), 100)].into(),
                        by: "bob".into(),
                        since: ago_s(120),
                        expires: Some(Timestamp(NOW.0 + 480_000)),
                    }),
                }],
                pools: vec![PoolStatus {
                    name: name("default"),
                    algorithm: "round_robin".into(),
                    settings: vec!["TLS".into(), "sticky by cookie evk".into()],
                    all_down: false,
                    all_down_policy: AllDown::FailOpen,
                    live: PoolLive {
                        queue: Some(QueueStatus {
                            waiting: 3,
                            size: 1000,
                            timeout_ms: 1500,
                            overloaded: false,
                        }),
                        circuit: Some("half_open".into()),
                    },
                    warnings: vec!["its backends' certificates are not verified (insecure)".into()],
                    sources: Vec::new(),
                    left_out: 0,
                    backends: vec![backend(9001), drained(), ejected, ramping],
                }],
            }],
            alerts: Default::default(),
            events: vec![Event {
                at: ago_s(3),
                kind: "backend_ejected".into(),
                subject: "shop/default/10.0.0.1:9003".into(),
                message: "5 failures in a row".into(),
            }],
        }
    }

    #[test]
    fn a_person_sees_everything_at_a_glance() {
        let expected = "\
edge-1 (evenkeel 0.1.0), up 2h 5m
config revision 2 from evenkeel.toml, in force for 1m
last reload 5s ago: REFUSED, the config before it stays in force
  evenkeel.toml:3:1: unknown key `algoritm`

shop
  listener http on 0.0.0.0:8080: open, 1 connection
    certificate shop.pem for shop.example.com, *.example.com: 20 days left; NOT RELOADED: the key in shop.key does not belong to the certificate in shop.pem
  routes, in the order in which they are tried
    ROUTE  MATCHES            LEADS TO                BESIDES
    beta   header x-beta = 1  pool default            5 in 1m by client_address; rewrites
    all    everything         split blue 95, green 5
  route all: blue 0, green 100 (green=100 by bob, 2m ago, ends in 8m; configured: blue 95, green 5)
  pool default (round_robin, TLS, sticky by cookie evk)
    WARNING: its backends' certificates are not verified (insecure)
    queue: 3 of at most 1000 wait, up to 1s500ms
    circuit breaker: half open
    BACKEND        STATE                                                        HEALTH          SINCE    WEIGHT  IN FLIGHT  REQUESTS  FAILURES  IDLE  ORDER
    10.0.0.1:9001  eligible                                                     up: status 200  1h            1          3      1234         0     4
    10.0.0.1:9002  draining                                                     up: status 200  1h            1          3      1234         0     4  drain by alice, 2m ago, ends in 8m
    10.0.0.1:9003  ejected for 7s: 5 failures in a row (last: connect_refused)  up: status 200  1h            1          3      1234         0     4
    10.0.0.1:9004  eligible                                                     up: status 200  1h     0.4 of 2     3 of 4      1234         0     4

events
  TIME                  EVENT            ABOUT                       WHAT
  2026-03-01 12:34:53Z  backend_ejected  shop/default/10.0.0.1:9003  5 failures in a row
";
        let text = render(&status(), Paint(false));
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn colours_appear_only_when_asked_for() {
        assert!(!render(&status(), Paint(false)).contains('\x1b'));
        assert!(render(&status(), Paint(true)).contains("\x1b[31m"));
    }

    #[test]
    fn a_pool_without_an_eligible_backend_cries() {
        let mut status = status();
        status.load_balancers[0].pools[0].all_down = true;
        let text = render(&status, Paint(false));
        assert!(text.contains("NO BACKEND IS ELIGIBLE, fail_open"), "{text}");
    }

    #[test]
    fn an_order_without_end_says_no_end() {
        let order_in_force = Override {
            expires: None,
            weight: Some(5),
            ..drained().order.unwrap()
        };
        assert_eq!(order(&order_in_force, NOW), "drain, weight 5 by alice, 2m ago");
    }
}
