//! What holds now, derived from the state of a node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::alert::{About, AlertId, AlertKind, Facts};
use model::config::{AllDown, Name};
use model::snapshot::{Eligibility, Member, PoolState};
use model::state::{Health, Mode, Timestamp};
use model::status::{CertificateStatus, ListenerStatus};

/// A store that is away for less than this is no alert: leaders of etcd change.
const STORE_SILENT_FOR: Duration = Duration::from_secs(10);
/// Nor is a node that is back within this: one that was killed and started again takes its name anew as soon as its
/// former life has run out.
const NODE_SILENT_FOR: Duration = Duration::from_secs(5);
/// How long a node that does not come back is told.
pub const NODE_TOLD: Duration = Duration::from_secs(24 * 3600);

/// Something that holds now and is worth an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// What is wrong with what.
    pub id: AlertId,
    /// In words, without saying with what.
    pub why: Cow<'a, str>,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
    /// Whether this node tells of it, whoever tells of what several nodes see.
    pub own: bool,
}

/// Everything that holds now, the most important first. Each id may come more than once; the first one counts.
pub fn conditions(facts: &Facts, now: Timestamp) -> impl Iterator<Item = Condition<'_>> {
    let of_listeners = facts.listeners.iter().filter_map(|(lb, l)| closed(facts, lb, l));
    let pools = || facts.snapshot.pools.values();
    let share = facts.snapshot.config.alerts.healthy_share;
    let down = pools().flat_map(|pool| pool.members.iter().filter_map(backend));
    let found = config_refused(facts)
        .into_iter()
        .chain(of_cluster(facts))
        .chain(of_listeners)
        .chain(certificates(facts, now))
        .chain(pools().filter_map(|pool| none_eligible(pool)))
        .chain(pools().filter_map(move |pool| too_few(pool, share)))
        .chain(facts.open_circuits.iter().map(|open| circuit(facts, open)))
        .chain(down)
        .map(|condition| Condition {
            own: is_own(facts, &condition.id),
            ..condition
        });
    lost(facts, now).chain(found)
}

/// What is about this node, and what is about a load balancer that the others do not have from the store.
fn is_own(facts: &Facts, id: &AlertId) -> bool {
    let shared = facts.cluster.as_ref().map(|cluster| &cluster.shared);
    let with_others = id
        .load_balancer()
        .is_some_and(|lb| shared.is_some_and(|shared| shared.contains(lb)));
    id.kind.is_of_node() || !with_others
}

/// How the node stands towards its cluster.
fn of_cluster(facts: &Facts) -> impl Iterator<Item = Condition<'_>> {
    let cluster = facts.cluster.as_ref();
    let about = |kind, why: &Option<String>| {
        let why = why.clone()?;
        Some(Condition {
            id: AlertId {
                kind,
                about: About::Node(facts.node.clone()),
            },
            why: Cow::Owned(why),
            since: None,
            own: true,
        })
    };
    let found = cluster.map(|cluster| {
        [
            about(AlertKind::ConfigRefused, &cluster.refused),
            about(AlertKind::StoreUnreachable, &cluster.store_trouble),
            about(AlertKind::PlanB, &cluster.plan_b),
        ]
    });
    found.into_iter().flatten().flatten()
}

/// Nodes that are silent.
fn lost(facts: &Facts, now: Timestamp) -> impl Iterator<Item = Condition<'_>> {
    let lost = facts.cluster.iter().flat_map(|cluster| cluster.lost.iter());
    let lost = lost.filter(move |(_, at)| now.since(**at) < NODE_TOLD);
    lost.map(|(name, at)| Condition {
        id: AlertId {
            kind: AlertKind::NodeLost,
            about: About::Node(name.as_str().into()),
        },
        why: Cow::Borrowed("is silent: it died, hangs, or cannot reach the store"),
        since: Some(*at),
        own: false,
    })
}

/// How long a condition of this kind must hold before it is told.
pub fn holds_for(kind: AlertKind, alerts: &model::config::Alerts) -> Duration {
    match kind {
        AlertKind::BackendDown => alerts.backend_down_for,
        // With a mass of backends that go down there are too many alerts as soon as they are.
        AlertKind::TooManyAlerts => alerts.backend_down_for,
        AlertKind::PoolDown | AlertKind::PoolUnhealthy => alerts.pool_unhealthy_for,
        AlertKind::StoreUnreachable => STORE_SILENT_FOR,
        AlertKind::NodeLost => NODE_SILENT_FOR,
        AlertKind::ConfigRefused
        | AlertKind::ListenerClosed
        | AlertKind::CertificateExpires
        | AlertKind::CertificateRefused
        | AlertKind::PlanB
        | AlertKind::LeaderChanged
        | AlertKind::CircuitOpen => Duration::ZERO,
    }
}

fn config_refused(facts: &Facts) -> Option<Condition<'_>> {
    let refused = facts.last_reload.as_ref().filter(|reload| !reload.ok)?;
    let first = refused.messages.first().map_or("no reason given", String::as_str);
    let first = first.lines().next().unwrap_or_default();
    Some(Condition {
        id: AlertId {
            kind: AlertKind::ConfigRefused,
            about: About::Node(facts.node.clone()),
        },
        why: Cow::Owned(format!(
            "the new config was refused, the one before stays in force: {first}"
        )),
        since: Some(refused.at),
        own: false,
    })
}

fn closed<'a>(facts: &Facts, lb: &Name, listener: &'a ListenerStatus) -> Option<Condition<'a>> {
    if listener.open {
        return None;
    }
    let why = listener
        .error
        .as_deref()
        .unwrap_or("it is not open on every thread");
    Some(Condition {
        id: AlertId {
            kind: AlertKind::ListenerClosed,
            about: About::Listener {
                node: facts.node.clone(),
                load_balancer: lb.clone(),
                listener: listener.name.clone(),
            },
        },
        why: Cow::Owned(format!("{} takes no clients: {why}", listener.address)),
        since: None,
        own: false,
    })
}

/// Each certificate once, with the listener that comes first.
fn certificates(facts: &Facts, now: Timestamp) -> impl Iterator<Item = Condition<'_>> {
    let within = facts.snapshot.config.alerts.certificate_expires_within;
    let shown = facts
        .listeners
        .iter()
        .flat_map(|(_, listener)| &listener.certificates);
    let once: BTreeMap<&str, &CertificateStatus> = shown.map(|c| (c.name.as_str(), c)).collect();
    let node = facts.node.clone();
    once.into_iter().flat_map(move |(name, certificate)| {
        let about = About::Certificate {
            node: node.clone(),
            certificate: Arc::from(name),
        };
        let refused = certificate.error.as_deref().map(|why| Condition {
            id: AlertId {
                kind: AlertKind::CertificateRefused,
                about: about.clone(),
            },
            why: Cow::Borrowed(why),
            since: None,
            own: false,
        });
        let ends = certificate.expires.filter(|end| *end <= now.plus(within));
        let ends = ends.map(|end| Condition {
            id: AlertId {
                kind: AlertKind::CertificateExpires,
                about,
            },
            why: Cow::Owned(ends_in(end, now, &certificate.hosts)),
            since: None,
            own: false,
        });
        ends.into_iter().chain(refused)
    })
}

/// `ends in 13 days (shop.example.com)`; whole days, so that the words do not change all the time.
fn ends_in(end: Timestamp, now: Timestamp, hosts: &[String]) -> String {
    const DAY: u64 = 24 * 3600;
    let left = end.since(now).as_secs();
    let hosts = hosts.join(", ");
    match left {
        0 => format!("it has ended ({hosts})"),
        1..DAY => format!("it ends within a day ({hosts})"),
        _ => format!("it ends within {} days ({hosts})", left / DAY + 1),
    }
}

fn pool_id(kind: AlertKind, pool: &PoolState) -> AlertId {
    AlertId {
        kind,
        about: About::Pool {
            load_balancer: pool.load_balancer.clone(),
            pool: pool.config.name.clone(),
        },
    }
}

fn none_eligible(pool: &PoolState) -> Option<Condition<'_>> {
    if !pool.all_down {
        return None;
    }
    let why = match pool.config.all_down {
        _ if pool.members.is_empty() => "it has no backend: every request is answered 503",
        AllDown::FailOpen => "no backend is eligible; requests go to those that checks or failures took out",
        AllDown::FailClosed => "no backend is eligible: every request is answered 503",
    };
    Some(Condition {
        id: pool_id(AlertKind::PoolDown, pool),
        why: Cow::Borrowed(why),
        since: None,
        own: false,
    })
}

fn too_few(pool: &PoolState, share: u8) -> Option<Condition<'_>> {
    let counted = pool
        .members
        .iter()
        .filter(|m| m.mode() == Mode::Ready && m.weight > 0);
    let (healthy, all) = counted.fold((0_usize, 0_usize), |(healthy, all), member| {
        (healthy + usize::from(is_healthy(member)), all + 1)
    });
    if healthy * 100 >= usize::from(share) * all {
        return None;
    }
    Some(Condition {
        id: pool_id(AlertKind::PoolUnhealthy, pool),
        why: Cow::Owned(format!(
            "{healthy} of {all} backends are healthy, less than {share} %"
        )),
        since: None,
        own: false,
    })
}

fn is_healthy(member: &Member) -> bool {
    member.health.health != Health::Down
        && member.ejection.is_none()
        && member.eligibility != Eligibility::Down
}

fn circuit<'a>(facts: &'a Facts, (lb, pool): &'a (Name, Name)) -> Condition<'a> {
    Condition {
        id: AlertId {
            kind: AlertKind::CircuitOpen,
            about: About::PoolOn {
                node: facts.node.clone(),
                load_balancer: lb.clone(),
                pool: pool.clone(),
            },
        },
        why: Cow::Borrowed("the circuit breaker is open: requests are refused"),
        since: None,
        own: false,
    }
}

/// A backend that is down, unless an operator took it into maintenance.
fn backend(member: &Member) -> Option<Condition<'_>> {
    let down = member.health.health == Health::Down && member.mode() != Mode::Maintenance;
    down.then(|| Condition {
        id: AlertId {
            kind: AlertKind::BackendDown,
            about: About::Backend(member.id.clone()),
        },
        why: Cow::Borrowed(&member.health.reason),
        since: Some(member.health.since),
        own: false,
    })
}
