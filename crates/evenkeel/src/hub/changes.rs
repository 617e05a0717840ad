//! Events in words: what changed, about what, and why. Pure functions; [`super::core`] records what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dataplane::{CertificateChange, CertificateNews};
use model::cluster::ClusterNews;
use model::config::{AllDown, Config, Name, Pool};
use model::node::{NameTaken, NodeEvent};
use model::snapshot::{PoolState, Snapshot};
use model::state::{
    CircuitMoved, Ejected, Health, HealthState, Mode, Order, OrderAction, Override, OverrideKey, Overrides,
    RouteKey, RouteOrder, RouteWeights, Timestamp, Verdict,
};
use orchestrator::acme::AcmeEvent;

use crate::text::{duration, utc, whole_seconds};

/// The subject of what concerns them.
const ORCHESTRATORS: &str = "orchestrators";
/// The subject of what concerns the store.
const STORE: &str = "store";
/// Reasons of a refusal that an event tells.
const MAX_REASONS_TOLD: usize = 4;

/// Kind, subject and message of an event to be.
pub(super) type Change = (Kind, String, String);

/// The kinds of events; the names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BackendUp,
    BackendDown,
    BackendEjected,
    BackendReturned,
    Order,
    Reload,
    ReloadRefused,
    ListenerOpen,
    ListenerClosed,
    ListenerFailed,
    PoolAllDown,
    PoolRecovered,
    CertificateIssued,
    CertificateNotIssued,
    CertificateReloaded,
    CertificateRefused,
    CertificateExpires,
    OcspStale,
    GeoipLoaded,
    GeoipFailed,
    CircuitOpened,
    CircuitClosed,
    Applied,
    ApplyRefused,
    Reverted,
    Shadowed,
    MembersChanged,
    MembersStale,
    MembersFresh,
    MembersLeftOut,
    LeaderChanged,
    PlanBBegan,
    PlanBEnded,
    VerdictsDamaged,
    OrdersKept,
    NodeJoined,
    NodeLeft,
    NodeLost,
    NodeNameTaken,
    NodeNameFree,
}

impl Kind {
    /// The name in API and log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BackendUp => "backend_up",
            Self::BackendDown => "backend_down",
            Self::BackendEjected => "backend_ejected",
            Self::BackendReturned => "backend_returned",
            Self::Order => "order",
            Self::Reload => "reload",
            Self::ReloadRefused => "reload_refused",
            Self::ListenerOpen => "listener_open",
            Self::ListenerClosed => "listener_closed",
            Self::ListenerFailed => "listener_failed",
            Self::PoolAllDown => "pool_all_down",
            Self::PoolRecovered => "pool_recovered",
            Self::CertificateIssued => "certificate_issued",
            Self::CertificateNotIssued => "certificate_not_issued",
            Self::CertificateReloaded => "certificate_reloaded",
            Self::CertificateRefused => "certificate_refused",
            Self::CertificateExpires => "certificate_expires",
            Self::OcspStale => "ocsp_stale",
            Self::GeoipLoaded => "geoip_loaded",
            Self::GeoipFailed => "geoip_failed",
            Self::CircuitOpened => "circuit_opened",
            Self::CircuitClosed => "circuit_closed",
            Self::Applied => "applied",
            Self::ApplyRefused => "apply_refused",
            Self::Reverted => "reverted",
            Self::Shadowed => "shadowed",
            Self::MembersChanged => "members_changed",
            Self::MembersStale => "members_stale",
            Self::MembersFresh => "members_fresh",
            Self::MembersLeftOut => "members_left_out",
            Self::LeaderChanged => "leader_changed",
            Self::PlanBBegan => "plan_b_began",
            Self::PlanBEnded => "plan_b_ended",
            Self::VerdictsDamaged => "verdicts_damaged",
            Self::OrdersKept => "orders_kept",
            Self::NodeJoined => "node_joined",
            Self::NodeLeft => "node_left",
            Self::NodeLost => "node_lost",
            Self::NodeNameTaken => "node_name_taken",
            Self::NodeNameFree => "node_name_free",
        }
    }

    /// Whether an operator should look: logged as a warning.
    pub(crate) fn is_bad(kind: &str) -> bool {
        let bad = [
            Self::BackendDown,
            Self::BackendEjected,
            Self::ReloadRefused,
            Self::ListenerFailed,
            Self::PoolAllDown,
            Self::CertificateNotIssued,
            Self::CertificateRefused,
            Self::CertificateExpires,
            Self::OcspStale,
            Self::GeoipFailed,
            Self::CircuitOpened,
            Self::ApplyRefused,
            Self::Reverted,
            Self::Shadowed,
            Self::MembersStale,
            Self::MembersLeftOut,
            Self::PlanBBegan,
            Self::VerdictsDamaged,
            Self::OrdersKept,
            Self::NodeLost,
            Self::NodeNameTaken,
        ];
        bad.iter().any(|k| k.as_str() == kind)
    }
}

/// A verdict that differs from the one before.
pub(super) fn verdict(verdict: &Verdict, old: Option<HealthState>, now: Timestamp) -> Change {
    let kind = match verdict.health {
        Health::Down => Kind::BackendDown,
        Health::Up | Health::Unchecked => Kind::BackendUp,
    };
    let before = old.map_or_else(
        || "first check".to_owned(),
        |o| {
            format!(
                "was {} for {}",
                o.health.as_str(),
                duration(whole_seconds(now.since(o.since)))
            )
        },
    );
    (
        kind,
        verdict.backend.to_string(),
        format!("{} ({before})", verdict.reason),
    )
}

/// An ejection.
pub(super) fn ejected(ejected: &Ejected) -> Change {
    let message = format!("{}; out for {}", ejected.reason, duration(ejected.lasts));
    (Kind::BackendEjected, ejected.backend.to_string(), message)
}

/// News of a certificate.
pub(super) fn certificate(news: CertificateNews) -> Change {
    let kind = match news.change {
        CertificateChange::Reloaded => Kind::CertificateReloaded,
        CertificateChange::Refused => Kind::CertificateRefused,
        CertificateChange::Expires => Kind::CertificateExpires,
        CertificateChange::Stale => Kind::OcspStale,
    };
    (kind, news.subject, news.message)
}

/// The end of an order for a certificate. Whoever serves it tells when it is in use.
pub(super) fn certificate_ordered(event: AcmeEvent, now: Timestamp) -> Change {
    let until = |second: u64| duration(whole_seconds(Timestamp(second.saturating_mul(1000)).since(now)));
    match event {
        AcmeEvent::Issued {
            name,
            domains,
            not_after_s,
        } => {
            let message = format!(
                "issued for {}, valid for {}",
                domains.join(", "),
                until(not_after_s)
            );
            (Kind::CertificateIssued, name, message)
        }
        AcmeEvent::Failed { name, why, next_s } => (
            Kind::CertificateNotIssued,
            name,
            format!("{why}; next try in {}", until(next_s)),
        ),
    }
}

/// What an operator should know about the settings of a pool.
pub(super) fn warnings(pool: &Pool) -> Vec<String> {
    let insecure = pool.tls.as_ref().is_some_and(|tls| tls.insecure);
    let warning = "its backends' certificates are not verified (`tls.insecure`): whoever is between here and them can read and change everything";
    insecure.then(|| warning.to_owned()).into_iter().collect()
}

/// The same for every pool, with its load balancer.
pub(crate) fn all_warnings(config: &Config) -> Vec<(&Name, String)> {
    let lbs = config.load_balancers.values();
    let pools = lbs.flat_map(|lb| lb.pools.values().map(move |pool| (lb, pool)));
    let each = pools.flat_map(|(lb, pool)| {
        let place = format!("pool {}/{}", lb.name, pool.name);
        warnings(pool)
            .into_iter()
            .map(move |warning| (&lb.name, format!("{place}: {warning}")))
    });
    each.collect()
}

/// The database of countries was read, or could not be.
pub(super) fn geoip(path: &Path, result: Result<(), String>) -> Change {
    let subject = path.display().to_string();
    match result {
        Ok(()) => (
            Kind::GeoipLoaded,
            subject,
            "the database of countries is in force".to_owned(),
        ),
        Err(error) => (
            Kind::GeoipFailed,
            subject,
            format!("{error}; the one before stays in force"),
        ),
    }
}

/// A circuit breaker that opened or closed.
pub(super) fn circuit_moved(moved: &CircuitMoved) -> Change {
    let kind = match moved.open {
        true => Kind::CircuitOpened,
        false => Kind::CircuitClosed,
    };
    let subject = format!("{}/{}", moved.load_balancer, moved.pool);
    (kind, subject, moved.why.clone())
}

/// An order taken.
pub(super) fn ordered(order: &Order) -> Change {
    let mut message = match order.action {
        OrderAction::Mode(mode) => mode.as_str().to_owned(),
        OrderAction::Weight(weight) => format!("weight {weight}"),
    };
    message.push_str(&format!(" by {}", order.by));
    let forever = order.action == OrderAction::Mode(Mode::Ready);
    if let Some(lasts) = order.lasts.filter(|_| !forever) {
        message.push_str(&format!(" for {}", duration(lasts)));
    }
    (Kind::Order, subject(&order.key), message)
}

/// An order for a split taken.
pub(super) fn weighed(order: &RouteWeights) -> Change {
    let mut message = match &order.weights {
        Some(weights) => format!("weights {} by {}", shares(weights), order.by),
        None => format!("weights as configured by {}", order.by),
    };
    if let Some(lasts) = order.lasts.filter(|_| order.weights.is_some()) {
        message.push_str(&format!(" for {}", duration(lasts)));
    }
    (Kind::Order, format!("{}", order.key), message)
}

/// An order for a split whose time is over.
pub(super) fn weights_lapsed(key: &RouteKey, order: &RouteOrder) -> Change {
    let message = format!(
        "weights {} by {} have ended; as configured again",
        shares(&order.weights),
        order.by
    );
    (Kind::Order, key.to_string(), message)
}

/// What other nodes, or who has the store, changed of the orders.
pub(super) fn of_orders(old: &Overrides, new: &Overrides) -> Vec<Change> {
    let names: BTreeSet<&Name> = old.load_balancers().chain(new.load_balancers()).collect();
    let mut changes = Vec::new();
    for name in names {
        differing(
            old.backends.part(name),
            new.backends.part(name),
            |key, was, is| {
                changes.push((
                    Kind::Order,
                    subject(key),
                    elsewhere(was.map(describe), is.map(describe)),
                ));
            },
        );
        let words = |order: &RouteOrder| format!("weights {} by {}", shares(&order.weights), order.by);
        differing(old.routes.part(name), new.routes.part(name), |key, was, is| {
            changes.push((
                Kind::Order,
                key.to_string(),
                elsewhere(was.map(words), is.map(words)),
            ));
        });
    }
    changes
}

fn elsewhere(was: Option<String>, is: Option<String>) -> String {
    match (was, is) {
        (_, Some(is)) => format!("{is}, given elsewhere"),
        (Some(was), None) => format!("{was} was ended elsewhere; as configured again"),
        (None, None) => String::new(),
    }
}

/// Tells each key whose value is another.
fn differing<K: Ord, V: PartialEq>(
    old: Option<&Arc<BTreeMap<K, V>>>,
    new: Option<&Arc<BTreeMap<K, V>>>,
    mut tell: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    if let (Some(old), Some(new)) = (old, new)
        && Arc::ptr_eq(old, new)
    {
        return;
    }
    let keys = [old, new].into_iter().flatten().flat_map(|part| part.keys());
    for key in keys.collect::<BTreeSet<_>>() {
        let was = old.and_then(|part| part.get(key));
        let is = new.and_then(|part| part.get(key));
        if was != is {
            tell(key, was, is);
        }
    }
}

/// An order for a split that is no longer in the config: it waits for the split to come back.
pub(super) fn weights_orphaned(key: &RouteKey, order: &RouteOrder) -> Change {
    let message = format!(
        "weights {} by {} wait: the config has no such split any more; should it within a day, they hold again",
        shares(&order.weights),
        order.by
    );
    (Kind::Order, key.to_string(), message)
}

/// `blue=5 green=95`.
pub(crate) fn shares(weights: &BTreeMap<Name, u32>) -> String {
    let shares: Vec<String> = weights
        .iter()
        .map(|(pool, weight)| format!("{pool}={weight}"))
        .collect();
    shares.join(" ")
}

/// An order whose time is over.
pub(super) fn lapsed(key: &OverrideKey, order: &Override) -> Change {
    let message = format!("{} has ended; as configured again", describe(order));
    (Kind::Order, subject(key), message)
}

/// An order whose backend is no longer in the config: it is forgotten, or waits for the backend to come back.
pub(super) fn orphaned(key: &OverrideKey, order: &Override, is_forgotten: bool) -> Change {
    let order = describe(order);
    let message = match is_forgotten {
        true => format!("{order} is forgotten: the backend is no longer configured"),
        false => format!(
            "{order} waits: the backend is no longer configured; should it be within a day, it holds again"
        ),
    };
    (Kind::Order, subject(key), message)
}

/// An order in force in words: `drain, weight 5 by alice`.
pub(crate) fn describe(order: &Override) -> String {
    let what = match (order.mode, order.weight) {
        (Mode::Ready, Some(weight)) => format!("weight {weight}"),
        (mode, Some(weight)) => format!("{}, weight {weight}", mode.as_str()),
        (mode, None) => mode.as_str().to_owned(),
    };
    format!("{what} by {}", order.by)
}

/// Something that happened among the orchestrators.
pub(super) fn cluster(news: ClusterNews) -> Change {
    match news {
        ClusterNews::Reverted { revision, made, why } => {
            let now = made.map_or_else(String::new, |made| {
                format!("; revision {made} is as it was before")
            });
            let message = format!("revision {revision} was taken back: {why}{now}");
            (Kind::Reverted, STORE.to_owned(), message)
        }
        ClusterNews::Leader { name, epoch } => {
            let message = format!("{name} leads the orchestrators (epoch {epoch})");
            (Kind::LeaderChanged, ORCHESTRATORS.to_owned(), message)
        }
        ClusterNews::PlanBBegan { why } => {
            let why = match why.as_str() {
                "store_unreachable" => "the store is not heard",
                "unchecked" => "some backends are checked by no orchestrator",
                _ => "there is no orchestrator",
            };
            let message = format!("{why}: this node checks the store's backends for itself");
            (Kind::PlanBBegan, ORCHESTRATORS.to_owned(), message)
        }
        ClusterNews::VerdictsDamaged { why } => {
            let message = format!("{why}; backends of the store begin unchecked until somebody is heard of");
            (Kind::VerdictsDamaged, ORCHESTRATORS.to_owned(), message)
        }
        ClusterNews::OrdersKept { count } => {
            let message = format!(
                "it was emptied, put back or replaced, and lacks {count} orders that are in force: they stay, and are \
                 written to it again"
            );
            (Kind::OrdersKept, STORE.to_owned(), message)
        }
        ClusterNews::PlanBEnded => {
            let message = "they are back and have checked everything: own checks have ended".to_owned();
            (Kind::PlanBEnded, ORCHESTRATORS.to_owned(), message)
        }
    }
}

/// One line about a reload that took.
pub(super) fn reload(revision: u64, messages: &[String], at_most: usize) -> String {
    let named = messages
        .iter()
        .take(at_most)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match messages.len().checked_sub(at_most) {
        Some(more) if more > 0 => format!("revision {revision}: {named}; and {more} more"),
        _ => format!("revision {revision}: {named}"),
    }
}

/// One line about a reload that was refused.
pub(super) fn refused(revision: u64, reasons: &[String]) -> String {
    let first = reasons
        .first()
        .and_then(|r| r.lines().next())
        .unwrap_or("no reason given");
    let more = match reasons.len() {
        0 | 1 => String::new(),
        2 => " (and 1 more error)".to_owned(),
        n => format!(" (and {} more errors)", n - 1),
    };
    format!("revision {revision} stays in force: {first}{more}")
}

/// A revision of the store that is served from now on.
pub(super) fn applied(revision: u64, messages: &[String], at_most: usize) -> Change {
    (
        Kind::Applied,
        STORE.to_owned(),
        reload(revision, messages, at_most),
    )
}

/// A revision of the store that is not served.
pub(super) fn apply_refused(revision: u64, reasons: &[String]) -> Change {
    let told = reasons
        .iter()
        .take(MAX_REASONS_TOLD)
        .map(|reason| reason.lines().next().unwrap_or_default());
    let more = match reasons.len().saturating_sub(MAX_REASONS_TOLD) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let told = told.collect::<Vec<_>>().join("; ");
    let message = format!("revision {revision} is not served here, the one before stays: {told}{more}");
    (Kind::ApplyRefused, STORE.to_owned(), message)
}

/// A node of the cluster that came or went.
pub(super) fn node(event: &NodeEvent) -> Change {
    let (kind, name, message) = match event {
        NodeEvent::Joined(name) => (Kind::NodeJoined, name, "is there"),
        NodeEvent::Left(name) => (Kind::NodeLeft, name, "stops in order"),
        NodeEvent::Lost(name) => (
            Kind::NodeLost,
            name,
            "is silent: it died, hangs, or cannot reach the store",
        ),
        NodeEvent::NameTaken(name, other) => {
            return (Kind::NodeNameTaken, name.clone(), name_taken(other));
        }
        NodeEvent::NameFree(name) => (
            Kind::NodeNameFree,
            name,
            "the other process of this name is gone: this one is registered",
        ),
    };
    (kind, name.clone(), message.to_owned())
}

/// Whose this node's name is, what follows, and what to do.
pub(crate) fn name_taken(other: &NameTaken) -> String {
    let addresses: Vec<String> = other.addresses.iter().map(SocketAddr::to_string).collect();
    let takes = match addresses.as_slice() {
        [] => String::new(),
        addresses => format!(", takes clients at {}", addresses.join(", ")),
    };
    let zone = other.zone.as_deref().map(|zone| format!(", zone {zone}"));
    format!(
        "another process has this node's name in the store (it was started at {}{takes}{}): this one serves and checks \
         as before, but the other nodes do not see it, nor what it has to say of a change on trial. \
         Give one of the two a `node.name` of its own, or end it; this one takes the name as soon as it is free",
        utc(other.started),
        zone.unwrap_or_default()
    )
}

/// Load balancers that the store and the file of this node have.
pub(super) fn shadowed(revision: u64, names: &[Name]) -> Change {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let message = format!(
        "revision {revision} has {}, which this node's own file has too: the file's is served",
        names.join(", ")
    );
    (Kind::Shadowed, STORE.to_owned(), message)
}

/// What a new config changes, a line each.
pub(super) fn of_config(old: &Config, new: &Config) -> Vec<String> {
    model::diff::diff(old, new)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// What a reader of two successive snapshots would want to be told.
pub(super) fn between(before: Option<&Snapshot>, after: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, pool) in &after.pools {
        let old = before.and_then(|b| b.pools.get(key));
        if old.is_some_and(|old| std::sync::Arc::ptr_eq(old, pool)) {
            continue;
        }
        if let Some(old) = old {
            returned(old, pool, &mut changes);
        }
        let was = old.is_some_and(|old| old.all_down);
        if pool.all_down && !was {
            changes.push(all_down(&pool.load_balancer, pool));
        }
        if was && !pool.all_down {
            let message = "at least one backend takes requests again".to_owned();
            changes.push((
                Kind::PoolRecovered,
                pool_subject(&pool.load_balancer, pool),
                message,
            ));
        }
    }
    changes
}

fn returned(old: &PoolState, pool: &PoolState, changes: &mut Vec<Change>) {
    for member in pool.members.iter().filter(|m| m.ejection.is_none()) {
        let before = old.members.iter().find(|m| m.id == member.id);
        if let Some(ejection) = before.and_then(|m| m.ejection.as_ref()) {
            let message = format!("ejection is over (was: {})", ejection.reason);
            changes.push((Kind::BackendReturned, member.id.to_string(), message));
        }
    }
}

fn all_down(lb: &Name, pool: &PoolState) -> Change {
    let message = match pool.config.all_down {
        _ if pool.members.is_empty() => "the pool has no backend: every request is answered 503",
        AllDown::FailOpen => {
            "no backend is eligible; fail_open: those that only checks or ejection took out are used"
        }
        AllDown::FailClosed => "no backend is eligible; fail_closed: every request is answered 503",
    };
    (Kind::PoolAllDown, pool_subject(lb, pool), message.to_owned())
}

fn pool_subject(lb: &Name, pool: &PoolState) -> String {
    format!("{lb}/{}", pool.config.name)
}

fn subject(key: &OverrideKey) -> String {
    format!("{}/{}", key.load_balancer, key.address)
}
