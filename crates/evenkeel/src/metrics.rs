//! Metrics of the control side: config, health, orders and the process itself. Those of forwarding are the data
//! plane's own.
//!
//! Everything is read when somebody asks, from the hub's view and from the system; nothing is counted twice.
//! Labels come from config names, or from the fixed sets named in [`METRICS`].

use std::fmt;
use std::sync::Arc;

use cluster::nodes::Nodes;
use cluster::{DELAY_BOUNDS, NotifierStatus, Standing};
use console::Counters;
use dataplane::{Dataplane, Description};
use model::alert::{AlertKind, AlertState, AlertsStatus};
use model::cluster::{OrchestratorsStatus, PlanBStatus};
use model::config::Name;
use model::node::NodeRecord;
use model::scrape::Scope;
use model::snapshot::{Eligibility, Member, PoolState, WEIGHT_SCALE};
use model::state::{Health, Source, Timestamp};
use model::status::ListenerStatus;
use orchestrator::discovery::Book;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use reconcile::cluster::SLOTS as SLOTS_OF_A_CLUSTER;
use tokio::sync::watch;

use crate::hub::View;
use crate::lookups;
use crate::now;
use crate::process;
use crate::roll::Asked;

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:literal $labels:literal $help:literal;)*) => {
        $(const $constant: Description =
            Description { name: $name, kind: $kind, labels: $labels, help: $help };)*

        /// Every metric of this module, in the order of `docs/metrics.md`.
        #[cfg(test)]
        const METRICS: &[Description] = &[$($constant,)*];
    };
}

metrics! {
    REVISION "evenkeel_config_revision" "gauge" "" "Revision of the config in force; 1 at start, one more with each change";
    RELOAD_OK "evenkeel_config_last_reload_successful" "gauge" "" "Whether the last reload was taken (1) or refused (0); 1 before the first";
    RELOAD_TIME "evenkeel_config_last_reload_timestamp_seconds" "gauge" "" "Unix time of the last reload, or of the start";
    RELOADS "evenkeel_config_reloads_total" "counter" "result" "Reloads by result: ok or refused";
    LISTENER_OPEN "evenkeel_listener_open" "gauge" "load_balancer, listener" "Whether the listener is open (1)";
    ALL_DOWN "evenkeel_pool_all_down" "gauge" "load_balancer, pool" "Whether no backend of the pool is eligible (1)";
    POOL_BACKENDS "evenkeel_pool_backends" "gauge" "load_balancer, pool, state" "Backends of the pool by state, those of evenkeel_backend_state";
    MEMBERS "evenkeel_pool_members" "gauge" "load_balancer, pool, source" "Members of the pool by where they were learnt of: declared, registered, file or dns";
    LEFT_OUT "evenkeel_pool_members_left_out" "gauge" "load_balancer, pool" "Members that were found and are not used: there are too many, or this process listens there itself";
    STALE "evenkeel_pool_source_stale" "gauge" "load_balancer, pool, source" "Whether the source's members are those of an earlier time (1): it cannot be asked, or says nonsense";
    LOOKS "evenkeel_dns_lookups_total" "counter" "name, type, result" "Looks at names of the DNS by result: good, or failed (some question was not answered)";
    ANSWERED "evenkeel_dns_last_answer_timestamp_seconds" "gauge" "name, type" "Unix time of the last look that brought every answer; 0 before the first";
    STRANGERS "evenkeel_dns_strange_messages_total" "counter" "name, type" "Messages that came to a question and were no answer to it: late ones, or forged ones";
    ASKED "evenkeel_pool_member_requests_total" "counter" "load_balancer, pool, result" "What members asked for over the admin API, and registrations that ended: new, renewed, left, lapsed, heartbeat, too_many or not_allowed";
    MEMBER_WRITES "evenkeel_member_store_writes_total" "counter" "what, result" "Writes to the shared store about members: what one says of itself (record), or whom this node has heard (beats); done, lost to another node's, or failed and tried again";
    MEMBER_WAITING "evenkeel_member_store_writes_waiting" "gauge" "" "Records of members that are to be written to the shared store, and are not yet";
    MEMBER_NODES "evenkeel_member_nodes" "gauge" "" "Other nodes that tell whom they have heard; those that nobody speaks to tell nothing";
    UP "evenkeel_backend_up" "gauge" "load_balancer, pool, backend" "0 when the checks say down, else 1";
    HEALTH "evenkeel_backend_health" "gauge" "load_balancer, pool, backend, state" "1 for the state of the checks that holds: up, down or unchecked";
    ELIGIBLE "evenkeel_backend_eligible" "gauge" "load_balancer, pool, backend" "Whether the backend takes new requests (1)";
    STATE "evenkeel_backend_state" "gauge" "load_balancer, pool, backend, state" "1 for the state that holds: eligible, fail_open, draining, maintenance, down, ejected, zero_weight or awaits_check";
    WEIGHT "evenkeel_backend_weight" "gauge" "load_balancer, pool, backend" "Weight in effect: declared or ordered, less what slow start holds back; 0 takes no new requests";
    CHANGES "evenkeel_backend_state_changes_total" "counter" "load_balancer, pool, backend, to" "Verdicts of the checks that changed the state, by the new one: up or down";
    EJECTIONS "evenkeel_backend_ejections_total" "counter" "load_balancer, pool, backend" "Passive ejections";
    SUMMED "evenkeel_metrics_summed_backends" "gauge" "" "Backends without series of their own in this scrape, for lack of room (admin.metrics_backends)";
    FAILED_LOGINS "evenkeel_admin_failed_logins_total" "counter" "why" "Logins to the admin API that failed: no_credential, wrong_token, unknown_certificate, or limited (too many from one address)";
    DENIED "evenkeel_admin_denied_total" "counter" "needs" "Requests to the admin API that the sender's role does not allow, by the role that is needed: operator or admin";
    AUDIT "evenkeel_audit_records_total" "counter" "result" "Records of the audit log: written, failed (told to the log of the process instead), or suppressed (failed logins and denials beyond the bound)";
    HANDSHAKES "evenkeel_admin_handshake_failures_total" "counter" "" "TLS handshakes with the admin API that failed";
    CROWDED "evenkeel_admin_connections_refused_total" "counter" "" "Connections to the admin API closed at once because their address had as many as it may, or too many waited";
    UNANSWERED "evenkeel_admin_answers_refused_total" "counter" "" "Requests for large answers (status, events, config, the store's load balancers) refused because as many as may be were being made or read";
    ORCHESTRATORS "evenkeel_orchestrators" "gauge" "" "Orchestrators that share the checks, as this node sees it; 1 with an embedded store";
    LEADS "evenkeel_orchestrator_leader" "gauge" "" "Whether this process leads the orchestrators (1)";
    SLOTS "evenkeel_orchestrator_slots" "gauge" "" "Shares of the checks (slots, of 1,024) that this process makes";
    UNCHECKED "evenkeel_orchestrator_slots_unchecked" "gauge" "" "Slots that no orchestrator checks at this moment, as this node sees it";
    VERDICTS "evenkeel_orchestrator_verdicts_total" "counter" "result" "Verdicts of this process for the store: written, refused (something had changed) or failed (no answer)";
    LEASES_LOST "evenkeel_orchestrator_leases_lost_total" "counter" "" "Leases of this process as an orchestrator that were over while it was at work: it hung, or could not reach the store, or that gave them up; what it writes late is refused";
    PLAN_B "evenkeel_plan_b_phase" "gauge" "phase" "1 for the phase that holds: following, holding, own_checks or handing_back";
    PLAN_B_BEGAN "evenkeel_plan_b_began_total" "counter" "" "Times that this node began to check the store's backends for itself";
    PLAN_B_ALONE "evenkeel_plan_b_alone" "gauge" "" "Members found by name on which no orchestrator gives a verdict, so that this node checks them for itself";
    STORE_CONNECTED "evenkeel_store_connected" "gauge" "" "Whether the store is heard (1)";
    STORE_HEAD "evenkeel_store_revision" "gauge" "" "Revision that the store has, as far as this node knows";
    STORE_SERVED "evenkeel_store_served_revision" "gauge" "" "Revision of the store that this node serves";
    STORE_REFUSED "evenkeel_store_refused" "gauge" "" "Whether this node refuses what the store has (1)";
    STORE_SKIPPED "evenkeel_store_keys_skipped_total" "counter" "" "Keys in etcd that are no text, written by somebody else below our prefix: each time that one was met and passed over";
    STORE_DELAY "evenkeel_store_apply_seconds" "histogram" "" "Time from the writing of a change to its being served by this node, however it heard of it: pushed, or found by a look at the store; not of what was there at its start";
    HINTS_CONNECTED "evenkeel_store_hints_connected" "gauge" "" "Whether hints over Redis are heard (1)";
    HINTS "evenkeel_store_hints_total" "counter" "direction" "Hints over Redis by direction: sent, received, or nonsense (received, and no hint)";
    NAME_TAKEN "evenkeel_node_name_taken" "gauge" "" "Whether another process has this node's name, so that this one is not registered (1)";
    NODES "evenkeel_nodes" "gauge" "state" "Nodes of the cluster, where this one looks after them, by what they serve: current, behind or refused";
    ALERTS_FIRING "evenkeel_alerts_firing" "gauge" "name" "Alerts that fire, by name (docs/alerts.md)";
    ALERTS_LEFT_OUT "evenkeel_alerts_left_out" "gauge" "" "Alerts that there was no room for";
    ALERTS_PUSHED_OUT "evenkeel_alerts_pushed_out_total" "counter" "" "Alerts that made room for more important ones";
    ALERT_DELIVERIES "evenkeel_alert_deliveries_total" "counter" "receiver, result" "Messages to receivers of alerts by what became of them: delivered, failed (tried again) or refused";
    ALERT_FORGOTTEN "evenkeel_alert_ends_forgotten_total" "counter" "receiver" "Ends of alerts that a receiver was never told, for lack of room";
    TCP "evenkeel_open_tcp_connections" "gauge" "side" "Open TCP connections by side: client, or backend (in use and idle)";
    CPU "process_cpu_seconds_total" "counter" "" "CPU time used, user and system together";
    MEMORY "process_resident_memory_bytes" "gauge" "" "Resident memory";
    FILES "process_open_fds" "gauge" "" "Open file descriptors";
    START "process_start_time_seconds" "gauge" "" "Unix time of the start";
}

/// What only the data plane knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Listeners with their load balancer.
    pub(crate) listeners: Vec<(Name, ListenerStatus)>,
    /// Client connections now.
    pub(crate) client_connections: u64,
    /// Connections to backends now.
    pub(crate) backend_connections: u64,
}

/// What is known of the store and of those who share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// How this node stands towards it.
    pub(crate) standing: Standing,
    /// How often a key was passed over that is no text.
    pub(crate) skipped_keys: u64,
    /// Hints over Redis.
    pub(crate) hints: NotifierStatus,
    /// The nodes of the cluster.
    pub(crate) nodes: Nodes,
    /// Whether another process has this node's name.
    pub(crate) name_taken: bool,
}

/// The collector.
#[derive(Clone)]
pub(crate) struct ControlMetrics {
    /// The hub's view.
    pub(crate) view: watch::Receiver<View>,
    /// Alerts, and who is told of them.
    pub(crate) alerts: watch::Receiver<AlertsStatus>,
    /// Asks the data plane.
    pub(crate) figures: Arc<dyn Fn() -> Figures + Send + Sync>,
    /// What is seen of the orchestrators; `None`: this process checks everything.
    pub(crate) orchestrators: Arc<dyn Fn() -> Option<OrchestratorsStatus> + Send + Sync>,
    /// What is known of the store.
    pub(crate) stored: Arc<dyn Fn() -> Stored + Send + Sync>,
    /// Start of the process.
    pub(crate) started: Timestamp,
    /// Who asked the admin API.
    pub(crate) admin: Arc<Counters>,
    /// What members asked for.
    pub(crate) asked: Asked,
    /// Names that are looked up.
    pub(crate) book: Book,
}

impl fmt::Debug for ControlMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlMetrics").finish_non_exhaustive()
    }
}

/// Pools that a scrape asks for, by load balancer and name.
type Pools<'a> = Vec<(&'a (Name, Name), &'a PoolState)>;

/// Label names and values of one series.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl ControlMetrics {
    /// Those that a scrape asks for.
    pub(crate) fn of(&self, scope: Scope) -> Box<dyn Collector> {
        let metrics = self.clone();
        Box::new(Scoped { metrics, scope })
    }
}

impl ControlMetrics {
    /// Writes what a scrape asks for, that of the data plane first.
    pub(crate) fn write(
        &self,
        dataplane: &Arc<Dataplane>,
        scope: Scope,
        mut out: &mut dyn fmt::Write,
    ) -> fmt::Result {
        let mut registry = Registry::default();
        registry.register_collector(dataplane.metrics(scope.clone()));
        registry.register_collector(self.of(scope));
        encode(&mut out, &registry)
    }
}

/// What a scrape asks for.
#[derive(Debug)]
struct Scoped {
    metrics: ControlMetrics,
    scope: Scope,
}

impl Collector for Scoped {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.metrics.encode(encoder, &self.scope)
    }
}

impl ControlMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>, scope: &Scope) -> fmt::Result {
        let view = self.view.borrow().clone();
        let mut figures = (self.figures)();
        figures.listeners.retain(|(lb, _)| scope.has(lb));
        let wanted = view.snapshot.pools.iter().filter(|((lb, _), _)| scope.has(lb));
        let wanted: Pools<'_> = wanted.map(|(key, pool)| (key, &**pool)).collect();
        let out = &mut encoder;
        self.config(out, &view)?;
        listeners(out, &figures)?;
        pools(out, &wanted)?;
        members(out, &view, &wanted)?;
        self.names(out)?;
        self.asked(out, scope)?;
        backends(out, &view, (&wanted, scope))?;
        self.admin(out)?;
        orchestrators(out, (self.orchestrators)())?;
        stored(out, &(self.stored)())?;
        alerts(out, &self.alerts.borrow().clone())?;
        self.process(out, &figures)
    }
}

impl ControlMetrics {
    fn names(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let looked = self.book.all();
        let figures = lookups::figures(&looked, now());
        let looks = figures.iter().flat_map(|(key, of)| {
            [("good", of.good), ("failed", of.failed)].map(|(result, n)| (key, result, n as f64))
        });
        let looks = looks.map(|(key, result, n)| (more(of_name(key), "result", result), n));
        family(out, LOOKS, looks)?;
        let answered = figures.iter().map(|(key, of)| {
            let at = of.answered.map_or(0.0, unix_seconds);
            (of_name(key), at)
        });
        family(out, ANSWERED, answered)?;
        let strangers = figures
            .iter()
            .map(|(key, of)| (of_name(key), of.strangers as f64));
        family(out, STRANGERS, strangers)
    }

    fn asked(&self, out: &mut DescriptorEncoder<'_>, scope: &Scope) -> fmt::Result {
        let asked = self.asked.all();
        let series = asked
            .iter()
            .filter(|(((lb, _), _), _)| scope.has(lb))
            .map(|((pool, result), count)| (more(of_pool(pool), "result", result), *count as f64));
        family(out, ASKED, series)?;
        let told = self.asked.told();
        let writes = told
            .writes
            .iter()
            .map(|((what, result), count)| (vec![("what", *what), ("result", *result)], *count as f64));
        family(out, MEMBER_WRITES, writes)?;
        single(out, MEMBER_WAITING, told.waiting as f64)?;
        single(out, MEMBER_NODES, told.nodes as f64)
    }

    fn config(&self, out: &mut DescriptorEncoder<'_>, view: &View) -> fmt::Result {
        let last = view.config.last_reload.as_ref();
        let at = last.map_or(self.started, |r| r.at);
        single(out, REVISION, view.config.revision as f64)?;
        single(out, RELOAD_OK, flag(last.is_none_or(|r| r.ok)))?;
        single(out, RELOAD_TIME, unix_seconds(at))?;
        let by_result = [("ok", view.reloads.ok), ("refused", view.reloads.refused)];
        family(
            out,
            RELOADS,
            by_result.map(|(result, n)| (vec![("result", result)], n as f64)),
        )
    }

    fn admin(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let logins = self.admin.failed_logins();
        let logins = logins.map(|(why, n)| (vec![("why", why)], n as f64));
        family(out, FAILED_LOGINS, logins)?;
        let denied = self.admin.denied();
        let denied = denied.map(|(needs, n)| (vec![("needs", needs)], n as f64));
        family(out, DENIED, denied)?;
        let records = self.admin.audit_records();
        let records = records.map(|(result, n)| (vec![("result", result)], n as f64));
        family(out, AUDIT, records)?;
        single(out, HANDSHAKES, self.admin.failed_handshakes() as f64)?;
        single(out, CROWDED, self.admin.refused_connections() as f64)?;
        single(out, UNANSWERED, self.admin.refused_answers() as f64)
    }

    fn process(&self, out: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
        let by_side = [
            ("client", figures.client_connections),
            ("backend", figures.backend_connections),
        ];
        family(
            out,
            TCP,
            by_side.map(|(side, n)| (vec![("side", side)], n as f64)),
        )?;
        if let Some(time) = process::cpu_time() {
            single(out, CPU, time.as_secs_f64())?;
        }
        if let Some(bytes) = process::resident_bytes() {
            single(out, MEMORY, bytes as f64)?;
        }
        if let Some(files) = process::open_files() {
            single(out, FILES, files as f64)?;
        }
        single(out, START, unix_seconds(self.started))
    }
}

fn orchestrators(out: &mut DescriptorEncoder<'_>, seen: Option<OrchestratorsStatus>) -> fmt::Result {
    let alone = seen.is_none();
    let seen = seen.unwrap_or_default();
    let own = seen.own.unwrap_or_default();
    single(
        out,
        ORCHESTRATORS,
        if alone {
            1.0
        } else {
            seen.orchestrators.len() as f64
        },
    )?;
    single(out, LEADS, flag(alone || own.leads))?;
    single(
        out,
        SLOTS,
        f64::from(if alone { SLOTS_OF_A_CLUSTER } else { own.slots }),
    )?;
    single(out, UNCHECKED, f64::from(seen.slots_unchecked))?;
    let verdicts = [
        ("written", own.verdicts_written),
        ("refused", own.verdicts_refused),
        ("failed", own.verdicts_failed),
    ];
    let verdicts = verdicts.map(|(result, n)| (vec![("result", result)], n as f64));
    family(out, VERDICTS, verdicts)?;
    single(out, LEASES_LOST, own.leases_lost as f64)?;
    let phase = seen
        .plan_b
        .as_ref()
        .map_or("following", |plan_b| plan_b.phase.as_str());
    let phases = PlanBStatus::PHASES.map(|name| (vec![("phase", name)], flag(name == phase)));
    family(out, PLAN_B, phases)?;
    single(
        out,
        PLAN_B_BEGAN,
        seen.plan_b.as_ref().map_or(0, |plan_b| plan_b.began) as f64,
    )?;
    single(
        out,
        PLAN_B_ALONE,
        seen.plan_b.as_ref().map_or(0, |plan_b| plan_b.alone) as f64,
    )
}

fn stored(out: &mut DescriptorEncoder<'_>, stored: &Stored) -> fmt::Result {
    let Stored {
        standing,
        skipped_keys,
        hints,
        nodes,
        name_taken,
    } = stored;
    single(out, NAME_TAKEN, flag(*name_taken))?;
    single(out, STORE_CONNECTED, flag(standing.connected))?;
    single(out, STORE_HEAD, standing.head as f64)?;
    single(out, STORE_SERVED, standing.served as f64)?;
    single(out, STORE_REFUSED, flag(standing.refused.is_some()))?;
    single(out, STORE_SKIPPED, *skipped_keys as f64)?;
    let bounds = DELAY_BOUNDS.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(standing.delays.counts).collect();
    let count = standing.delays.counts.iter().sum();
    let encoder = out.encode_descriptor(STORE_DELAY.name, STORE_DELAY.help, None, MetricType::Histogram);
    encoder?.encode_histogram::<NoLabelSet>(standing.delays.sum.as_secs_f64(), count, &buckets, None)?;
    single(out, HINTS_CONNECTED, flag(hints.connected))?;
    let by_direction = [
        ("sent", hints.sent),
        ("received", hints.received),
        ("nonsense", hints.nonsense),
    ];
    let by_direction = by_direction.map(|(direction, n)| (vec![("direction", direction)], n as f64));
    family(out, HINTS, by_direction)?;
    let state = |record: &NodeRecord| match &record.refused {
        Some(_) => "refused",
        None if record.served < standing.head => "behind",
        None => "current",
    };
    let count = |wanted: &str| nodes.values().filter(|record| state(record) == wanted).count();
    let states = ["current", "behind", "refused"];
    family(out, NODES, states.map(|s| (vec![("state", s)], count(s) as f64)))
}

fn listeners(out: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
    let series = figures.listeners.iter().map(|(lb, l)| {
        let labels = vec![("load_balancer", lb.as_str()), ("listener", l.name.as_str())];
        (labels, flag(l.open))
    });
    family(out, LISTENER_OPEN, series)
}

fn pools(out: &mut DescriptorEncoder<'_>, pools: &Pools<'_>) -> fmt::Result {
    let all_down = pools
        .iter()
        .map(|(key, pool)| (of_pool(key), flag(pool.all_down)));
    family(out, ALL_DOWN, all_down)?;
    let by_state = pools.iter().flat_map(|(key, pool)| {
        let count = |state| pool.members.iter().filter(|m| m.eligibility == state).count();
        Eligibility::ALL
            .iter()
            .map(move |state| (more(of_pool(key), "state", state.as_str()), count(*state) as f64))
    });
    family(out, POOL_BACKENDS, by_state)
}

fn members(out: &mut DescriptorEncoder<'_>, view: &View, pools: &Pools<'_>) -> fmt::Result {
    let by_source = pools.iter().flat_map(|(key, pool)| {
        let asked = Source::ALL
            .iter()
            .filter(|source| pool.config.membership.asks(**source));
        asked.map(move |source| {
            let members = pool.members.iter().filter(|member| member.source() == *source);
            (of_source(key, *source), members.count() as f64)
        })
    });
    family(out, MEMBERS, by_source)?;
    let dynamic = pools
        .iter()
        .filter(|(_, pool)| pool.config.membership.is_dynamic());
    let left_out = dynamic.map(|(key, pool)| {
        let found = view.snapshot.found.get(key);
        let sources = found.into_iter().flat_map(|found| found.sources.values());
        let at_sources: usize = sources.map(|state| state.left_out).sum();
        (of_pool(key), (pool.left_out + at_sources) as f64)
    });
    family(out, LEFT_OUT, left_out)?;
    let found = pools
        .iter()
        .filter_map(|(key, _)| Some((key, view.snapshot.found.get(key)?)));
    let stale = found.flat_map(|(key, found)| {
        let sources = found.sources.iter();
        sources.map(move |(source, state)| (of_source(key, *source), flag(state.stale.is_some())))
    });
    family(out, STALE, stale)
}

fn of_name<'a>((name, kind): &(&'a str, &'static str)) -> Labels<'a> {
    vec![("name", *name), ("type", *kind)]
}

fn of_pool((lb, pool): &(Name, Name)) -> Labels<'_> {
    vec![("load_balancer", lb.as_str()), ("pool", pool.as_str())]
}

fn of_source(pool: &(Name, Name), source: Source) -> Labels<'_> {
    more(of_pool(pool), "source", source.as_str())
}

fn backends(
    out: &mut DescriptorEncoder<'_>,
    view: &View,
    (pools, scope): (&Pools<'_>, &Scope),
) -> fmt::Result {
    let mut room = scope.room();
    let (own, summed): (Vec<&PoolState>, Vec<&PoolState>) = pools
        .iter()
        .map(|(_, pool)| *pool)
        .partition(|pool| room.takes(pool.members.len()));
    let summed: usize = summed.iter().map(|pool| pool.members.len()).sum();
    single(out, SUMMED, summed as f64)?;
    let members: Vec<(&Member, String)> = own
        .iter()
        .flat_map(|pool| &pool.members)
        .map(|member| (member, member.id.address.to_string()))
        .collect();
    let each = |value: fn(&Member) -> f64| {
        members
            .iter()
            .map(move |(member, address)| (labels(member, address), value(member)))
    };
    family(out, UP, each(|m| flag(m.health.health != Health::Down)))?;
    let states = [Health::Up, Health::Down, Health::Unchecked];
    let health = members.iter().flat_map(|(m, address)| {
        states.map(|s| {
            (
                more(labels(m, address), "state", s.as_str()),
                flag(m.health.health == s),
            )
        })
    });
    family(out, HEALTH, health)?;
    family(out, ELIGIBLE, each(|m| flag(m.eligibility.takes_requests())))?;
    let state = members.iter().flat_map(|(m, address)| {
        Eligibility::ALL.iter().map(move |s| {
            (
                more(labels(m, address), "state", s.as_str()),
                flag(m.eligibility == *s),
            )
        })
    });
    family(out, STATE, state)?;
    family(
        out,
        WEIGHT,
        each(|m| f64::from(m.effective_weight) / f64::from(WEIGHT_SCALE)),
    )?;
    let counts = |m: &Member| view.counts.get(&m.id).copied().unwrap_or_default();
    let changes = members.iter().flat_map(|(m, address)| {
        let counts = counts(m);
        [("up", counts.to_up), ("down", counts.to_down)]
            .map(|(to, n)| (more(labels(m, address), "to", to), n as f64))
    });
    family(out, CHANGES, changes)?;
    let ejections = members
        .iter()
        .map(|(m, address)| (labels(m, address), counts(m).ejections as f64));
    family(out, EJECTIONS, ejections)
}

fn alerts(out: &mut DescriptorEncoder<'_>, status: &AlertsStatus) -> fmt::Result {
    let firing = |kind: &AlertKind| {
        let of_kind = status.alerts.iter().filter(|a| a.name == kind.as_str());
        of_kind.filter(|a| a.state == AlertState::Firing).count()
    };
    let by_kind = AlertKind::ALL.iter();
    family(
        out,
        ALERTS_FIRING,
        by_kind.map(|kind| (vec![("name", kind.as_str())], firing(kind) as f64)),
    )?;
    single(out, ALERTS_LEFT_OUT, status.left_out as f64)?;
    single(out, ALERTS_PUSHED_OUT, status.pushed_out as f64)?;
    let deliveries = status.receivers.iter().flat_map(|receiver| {
        let counts = &receiver.deliveries;
        let by_result = [
            ("delivered", counts.delivered),
            ("failed", counts.failed),
            ("refused", counts.refused),
        ];
        by_result.map(|(result, n)| {
            (
                vec![("receiver", receiver.name.as_str()), ("result", result)],
                n as f64,
            )
        })
    });
    family(out, ALERT_DELIVERIES, deliveries)?;
    let forgotten = status.receivers.iter().map(|receiver| {
        (
            vec![("receiver", receiver.name.as_str())],
            receiver.forgotten as f64,
        )
    });
    family(out, ALERT_FORGOTTEN, forgotten)
}

fn labels<'a>(member: &'a Member, address: &'a str) -> Labels<'a> {
    vec![
        ("load_balancer", member.id.load_balancer.as_str()),
        ("pool", member.id.pool.as_str()),
        ("backend", address),
    ]
}

fn more<'a>(mut labels: Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.push((name, value));
    labels
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn unix_seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1000.0
}

/// A metric without labels.
fn single(out: &mut DescriptorEncoder<'_>, metric: Description, value: f64) -> fmt::Result {
    let (name, kind) = descriptor(metric);
    let encoder = out.encode_descriptor(name, metric.help, None, kind)?;
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

/// A metric with a value for each set of labels.
fn family<'a>(
    out: &mut DescriptorEncoder<'_>,
    metric: Description,
    series: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let (name, kind) = descriptor(metric);
    let mut encoder = out.encode_descriptor(name, metric.help, None, kind)?;
    for (labels, value) in series {
        let encoder = encoder.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
            _ => ConstGauge::new(value).encode(encoder)?,
        }
    }
    Ok(())
}

/// The encoder adds `_total` to the names of counters itself.
fn descriptor(metric: Description) -> (&'static str, MetricType) {
    match metric.kind {
        "counter" => (metric.name.trim_end_matches("_total"), MetricType::Counter),
        _ => (metric.name, MetricType::Gauge),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use super::*;
    use crate::hub::Core;
    use crate::hub::fixture::{config, started};

    fn scrape() -> String {
        scrape_of(usize::MAX)
    }

    /// With room for so many backends.
    fn scrape_of(backends: usize) -> String {
        let (core, _) = Core::new(
            started(),
            "test".into(),
            config(&[9001, 9002]).into(),
            Default::default(),
        );
        let (_keep, view) = watch::channel(core.view());
        let listener = ListenerStatus {
            name: Name::parse("http").unwrap(),
            address: ([127, 0, 0, 1], 80).into(),
            open: true,
            error: None,
            connections: 3,
            certificates: Vec::new(),
        };
        let figures = Figures {
            listeners: vec![(Name::parse("shop").unwrap(), listener)],
            client_connections: 3,
            backend_connections: 2,
        };
        let mut registry = Registry::default();
        let metrics = ControlMetrics {
            view,
            alerts: watch::channel(AlertsStatus::default()).1,
            figures: Arc::new(move || figures.clone()),
            orchestrators: Arc::new(|| None),
            stored: Arc::new(Stored::default),
            started: started(),
            admin: Arc::default(),
            asked: Asked::default(),
            book: Book::default(),
        };
        registry.register_collector(metrics.of(Scope {
            load_balancer: None,
            backends,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// Scenario: two backends, and room for one. The pool's own figures stay, and it is told that two are summed.
    #[test]
    fn backends_without_room_are_counted_together() {
        let (whole, summed) = (scrape_of(2), scrape_of(1));
        let of_backends = |text: &str| text.lines().filter(|line| line.contains("backend=")).count();
        assert_eq!((of_backends(&whole) % 2, of_backends(&summed)), (0, 0));
        assert!(of_backends(&whole) > 0);
        assert!(whole.contains("evenkeel_metrics_summed_backends 0"), "{whole}");
        for line in [
            "evenkeel_metrics_summed_backends 2",
            r#"evenkeel_pool_backends{load_balancer="shop",pool="default",state="eligible"} 2"#,
        ] {
            assert!(summed.contains(line), "{summed}");
        }
    }

    #[test]
    fn the_list_is_exactly_what_is_scraped() {
        let text = scrape();
        let types: BTreeSet<String> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .map(|l| match l.split_once(' ').unwrap() {
                (name, "counter") => format!("{name}_total counter"),
                (name, kind) => format!("{name} {kind}"),
            })
            .collect();
        let listed: BTreeSet<String> = METRICS.iter().map(|m| format!("{} {}", m.name, m.kind)).collect();
        assert_eq!(types, listed);
    }

    #[test]
    fn a_backend_has_its_series() {
        let text = scrape();
        let labels = r#"{load_balancer="shop",pool="default",backend="10.0.0.1:9001""#;
        for line in [
            format!("evenkeel_backend_up{labels}}} 1.0"),
            format!("evenkeel_backend_health{labels},state=\"unchecked\"}} 1.0"),
            format!("evenkeel_backend_health{labels},state=\"down\"}} 0.0"),
            format!("evenkeel_backend_state{labels},state=\"eligible\"}} 1.0"),
            format!("evenkeel_backend_weight{labels}}} 1.0"),
            format!("evenkeel_backend_state_changes_total{labels},to=\"up\"}} 0.0"),
            "evenkeel_open_tcp_connections{side=\"client\"} 3.0".to_owned(),
            "evenkeel_config_last_reload_successful 1.0".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }

    /// The reference names each metric with its kind, labels and help, in this order.
    #[test]
    fn the_reference_lists_every_metric() {
        let reference = include_str!("../../../docs/metrics.md");
        let (_, part) = reference.split_once("## Control and process").unwrap();
        let part = part.split("\n## ").next().unwrap();
        let rows: Vec<&str> = part.lines().filter(|l| l.starts_with("| `")).collect();
        let expected: Vec<String> = METRICS
            .iter()
            .map(|m| {
                let labels = match m.labels {
                    "" => "–".to_owned(),
                    labels => format!("`{}`", labels.replace(", ", "`, `")),
                };
                format!("| `{}` | {} | {labels} | {} |", m.name, m.kind, m.help)
            })
            .collect();
        assert_eq!(rows, expected, "\n{}", expected.join("\n"));
    }
}
