//! A console on a free port with a state to show, and a client that reads every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use evenkeel_console::{
    Alerting, AuditLog, Console, Counters, MemberAnswer, MemberError, MemberNews, MemberRequest, OrderError,
    OrderRequest, ReloadRequest, WeightsRequest,
};
use model::alert::{AlertState, AlertStatus, AlertsStatus, Deliveries, ReceiverStatus, Severity, TestResult};
use model::cluster::{OrchestratorStatus, OrchestratorsStatus, OwnPart, PlanBStatus};
use model::config::{
    AdminRole, AdminToken, AllDown, Config, Name, Role, Secret, TOKEN_RANDOM_BYTES, TokenHash, token_from,
};
use model::explain::{Candidate, Chosen, ExplainQuery, Explanation, Refusal, RouteStep};
use model::geography::{Code, Geography};
use model::node::{NameTaken, NodeLoad, NodeRecord, NodeStatus};
use model::plan::{Draining, Moved, Plan, PlanQuery};
use model::record::{AttemptRecord, QueueRecord, RecordQuery, RequestRecord, TlsRecord};
use model::state::{
    BackendId, Ejection, Health, MemberAction, Mode, OrderAction, Override, RouteOrder, Source, Timestamp,
};
use model::status::LookupStatus;
use model::status::{
    BackendLive, BackendStatus, CertificateStatus, CheckedBy, ConfigStatus, Event, ListenerStatus,
    LoadBalancerStatus, PoolLive, PoolStatus, QueueStatus, RefusedRevision, ReloadStatus, RouteStatus,
    SourceStatus, SplitPartStatus, SplitStatus, Status, StoreStatus,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::contract;

pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) counters: Arc<Counters>,
    /// Holds the audit log.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text:?}"));
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Status and reason of a problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.field("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let json = self.json();
        assert_eq!(json["status"], self.status);
        let reason = json["reason"].as_str().unwrap().to_owned();
        assert_eq!(json["type"], format!("urn:evenkeel:problem:{reason}"));
        (self.status, reason)
    }

    pub(crate) fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// Serves with a hub that answers as [`answer_order`] and [`answer_reload`] say.
    pub(crate) async fn start(token: Option<&str>) -> Self {
        Self::start_as(token, config()).await
    }

    /// The same with another config.
    pub(crate) async fn start_as(token: Option<&str>, config: Arc<Config>) -> Self {
        let (orders, mut order_requests) = mpsc::channel::<OrderRequest>(4);
        let (reloads, mut reload_requests) = mpsc::channel::<ReloadRequest>(4);
        tokio::spawn(async move {
            while let Some(request) = order_requests.recv().await {
                let answer = answer_order(&request);
                let _ = request.reply.send(answer);
            }
        });
        tokio::spawn(async move {
            let mut ok = true;
            while let Some(request) = reload_requests.recv().await {
                let _ = request.reply.send(answer_reload(ok));
                ok = false;
            }
        });
        Self::serve(token, config, orders, reloads).await
    }

    pub(crate) async fn start_with(
        token: Option<&str>,
        orders: mpsc::Sender<OrderRequest>,
        reloads: mpsc::Sender<ReloadRequest>,
    ) -> Self {
        Self::serve(token, config(), orders, reloads).await
    }

    async fn serve(
        token: Option<&str>,
        config: Arc<Config>,
        orders: mpsc::Sender<OrderRequest>,
        reloads: mpsc::Sender<ReloadRequest>,
    ) -> Self {
        let ready = Arc::new(AtomicBool::new(true));
        let readiness = ready.clone();
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(7);
        registry.register("evenkeel_requests", "Requests", counter);
        let counters = Arc::<Counters>::default();
        let dir = tempfile::tempdir().unwrap();
        let console = Console {
            token: token.map(|token| Secret::new(token.to_owned())),
            config: Arc::new(move || config.clone()),
            tls: None,
            audit: AuditLog::open(dir.path().join("audit.log"), counters.clone())
                .ok()
                .map(Arc::new),
            counters: counters.clone(),
            status: Arc::new(status),
            ready: Arc::new(move || readiness.load(Ordering::Relaxed)),
            explain: Arc::new(explain),
            plan: Arc::new(|query, _| match query.text.as_str() {
                "long" => Box::pin(async {
                    let plan = long_plan();
                    TURNS.store(0, Ordering::Relaxed);
                    Ok(plan)
                }),
                "endless" => {
                    ENDLESS.fetch_add(1, Ordering::Relaxed);
                    Box::pin(std::future::pending())
                }
                _ => Box::pin(std::future::ready(plan(&query))),
            }),
            desired: Arc::new(|query| Box::pin(std::future::ready(crate::desired::answer(query)))),
            recall: Arc::new(|query| Box::pin(std::future::ready(recall(&query)))),
            orders,
            weights: weights(),
            members: members(),
            reloads,
            alerts: alerting(),
            metrics: Arc::new(move |_, mut out| {
                prometheus_client::encoding::text::encode(&mut out, &registry)
            }),
            effective: Arc::new(|| "[load_balancers.shop]\n".to_owned()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        Self {
            address,
            ready,
            counters,
            dir,
            stop: Some(stop),
            task: tokio::spawn(evenkeel_console::serve(listener, console, shutdown)),
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One exchange. `fields` are further header lines, `body` is sent with its length.
    pub(crate) async fn call(&self, method: &str, path: &str, fields: &[&str], body: &str) -> Response {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !fields.iter().any(|field| field.starts_with("Host:")) {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        for field in fields {
            text.push_str(&format!("{field}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = self.connect().await;
        // Who is refused may be told so, and closed to, before all of it is sent.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let response = Response::parse(&bytes);
        if method != "HEAD" {
            contract::hold(method, path, &response);
        }
        response
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.call("POST", path, &["Content-Type: application/json"], body)
            .await
    }

    pub(crate) async fn order(&self, body: &str) -> Response {
        self.post(ORDER, body).await
    }
}

/// Turns that others had since the last long plan was made.
pub(crate) static TURNS: AtomicUsize = AtomicUsize::new(0);
/// Plans asked for that never end.
pub(crate) static ENDLESS: AtomicUsize = AtomicUsize::new(0);

/// One alert, and two receivers of which one takes no messages.
fn alerts() -> AlertsStatus {
    let receiver = |name: &str, error: Option<&str>| ReceiverStatus {
        name: self::name(name),
        kind: "webhook".to_owned(),
        to: format!("https://{name}.example/"),
        last_delivered: error.is_none().then_some(Timestamp(2)),
        error: error.map(str::to_owned),
        deliveries: Deliveries::default(),
        forgotten: 0,
    };
    AlertsStatus {
        sends: true,
        alerts: vec![AlertStatus {
            name: "pool_down".to_owned(),
            state: AlertState::Firing,
            severity: Severity::Critical,
            labels: [("pool".to_owned(), "default".to_owned())].into(),
            summary: "no backend is eligible".to_owned(),
            since: Timestamp(1),
            fingerprint: "7d2af5c4b7581481".to_owned(),
        }],
        pushed_out: 0,
        left_out: 0,
        receivers: vec![receiver("pager", None), receiver("chat", Some("status 500"))],
    }
}

/// Answers tests of alerts as if one of two receivers had taken it.
fn alerting() -> Alerting {
    let (tests, mut requests) = mpsc::channel::<oneshot::Sender<Vec<TestResult>>>(1);
    tokio::spawn(async move {
        while let Some(reply) = requests.recv().await {
            let result = |receiver: &str, error: Option<&str>| TestResult {
                receiver: name(receiver),
                to: format!("https://{receiver}.example/"),
                error: error.map(str::to_owned),
                took_ms: 12,
            };
            let _ = reply.send(vec![result("pager", None), result("chat", Some("status 500"))]);
        }
    });
    Alerting {
        status: Arc::new(alerts),
        tests,
    }
}

/// The path of orders for the one backend that there is.
pub(crate) const ORDER: &str = "/api/v1/load-balancers/shop/backends/10.0.0.1:9001/order";

/// The token of a role, and what `config` knows it by.
pub(crate) fn token_of(role: AdminRole) -> String {
    token_from(&[role as u8; TOKEN_RANDOM_BYTES]).expose().to_owned()
}

/// A config without any login.
fn config() -> Arc<Config> {
    let text = "[load_balancers.shop]\nbackend_servers = []\n";
    Arc::new(model::parse::parse_toml(text, "test.toml").unwrap())
}

/// A config with a token for each role.
pub(crate) fn config_with_roles() -> Arc<Config> {
    let mut config = Config::clone(&config());
    config.admin.tokens = AdminRole::ALL
        .iter()
        .map(|role| AdminToken {
            name: name(&format!("the-{}", role.as_str())),
            role: *role,
            hash: TokenHash::of(token_of(*role).as_bytes()),
        })
        .collect();
    Arc::new(config)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// One load balancer `shop` with one backend `10.0.0.1:9001`.
fn answer_order(request: &OrderRequest) -> Result<Option<Override>, OrderError> {
    let order = &request.order;
    if order.key.load_balancer.as_str() != "shop" {
        return Err(OrderError::UnknownLoadBalancer {
            name: order.key.load_balancer.clone(),
            known: vec![name("shop")],
        });
    }
    if order.key.address.port() != 9001 {
        return Err(OrderError::UnknownBackend {
            load_balancer: order.key.load_balancer.clone(),
            address: order.key.address,
            known: (0..25).map(|n| SocketAddr::from(([10, 0, 0, n], 9001))).collect(),
        });
    }
    if order.by == "full disk" {
        return Err(OrderError::StoreFailed("no space left on device".to_owned()));
    }
    if order.by == "no store" {
        return Err(OrderError::StoreUnavailable(
            "no endpoint can be reached".to_owned(),
        ));
    }
    let since = Timestamp(1_000);
    let expires = order.lasts.map(|lasts| since.plus(lasts));
    let (mode, weight) = match order.action {
        OrderAction::Mode(Mode::Ready) => return Ok(None),
        OrderAction::Mode(mode) => (mode, None),
        OrderAction::Weight(weight) => (Mode::Ready, Some(weight)),
    };
    Ok(Some(Override {
        mode,
        weight,
        by: order.by.clone(),
        since,
        expires,
    }))
}

fn answer_reload(ok: bool) -> ReloadStatus {
    let messages: &[&str] = if ok {
        &["backend 10.0.0.3:9001 added"]
    } else {
        &["line 3: unknown key `algoritm`", "line 9: no such pool"]
    };
    ReloadStatus {
        at: Timestamp(5),
        ok,
        messages: messages.iter().map(|m| (*m).to_owned()).collect(),
    }
}

fn explain(query: &ExplainQuery) -> Result<Explanation, String> {
    if query.listener != "shop" {
        return Err(format!("no listener `{}`", query.listener));
    }
    let refused = query.target == "/nowhere";
    Ok(Explanation {
        load_balancer: name("shop"),
        listener: name("http"),
        host: "shop.example".to_owned(),
        path: query.target.clone(),
        routes: vec![RouteStep {
            route: name("default"),
            matched: !refused,
            why: "path".to_owned(),
        }],
        language: (!refused).then(|| "de-ch".to_owned()),
        geography: (!refused).then(|| Geography {
            country: Code::parse("CH"),
            continent: None,
        }),
        actions: Vec::new(),
        split: (!refused).then(|| "default 5; at random".to_owned()),
        limits: Vec::new(),
        pool: (!refused).then(|| name("default")),
        algorithm: (!refused).then(|| "round_robin".to_owned()),
        hash_key: query.headers.first().map(|(n, v)| format!("header {n} = {v:?}")),
        session: None,
        candidates: vec![Candidate {
            address: "10.0.0.1:9001".parse().unwrap(),
            eligible: true,
            why: "up: status 200".to_owned(),
            weight: 0.5,
            in_flight: 3,
            score: String::new(),
        }],
        chosen: (!refused).then(|| Chosen {
            address: "10.0.0.1:9001".parse().unwrap(),
            why: "its turn".to_owned(),
        }),
        queue: None,
        refused: refused.then(|| Refusal {
            status: 404,
            reason: "no_route".to_owned(),
            detail: "no route".to_owned(),
        }),
    })
}

/// A config that is empty changes nothing, one of `bad` has two errors, any other all there is.
/// As what a change of everything would do.
fn long_plan() -> Plan {
    let change = |n: u32| {
        format!(
            "shop/default: backend 10.{}.{}.1:9001 added",
            n >> 8 & 255,
            n & 255
        )
    };
    Plan {
        changes: (0..300_000).map(change).collect(),
        ..Plan::default()
    }
}

fn plan(query: &PlanQuery) -> Result<Plan, Vec<String>> {
    let revision = 3;
    match query.text.as_str() {
        "" => Ok(Plan {
            revision,
            ..Plan::default()
        }),
        "bad" => Err(vec!["line 3: no".to_owned(), "line 9: no".to_owned()]),
        _ => Ok(Plan {
            revision,
            changes: vec!["node.threads changed".to_owned()],
            restart: vec!["node.threads".to_owned()],
            drains: vec![Draining {
                backend: BackendId {
                    load_balancer: name("shop"),
                    pool: name("default"),
                    address: "10.0.0.1:9001".parse().unwrap(),
                },
                in_flight: 4,
            }],
            moved: vec![Moved {
                load_balancer: name("shop"),
                pool: name("default"),
                share: 0.25,
            }],
        }),
    }
}

/// Remembers a failure `full` with all that is optional, and one without.
fn recall(query: &RecordQuery) -> Vec<RequestRecord> {
    match query {
        RecordQuery::Id(id) if id == "full" => vec![record(true)],
        RecordQuery::Id(_) => vec![],
        RecordQuery::Last { count, all } => {
            let both = [record(true), record(false)];
            both.into_iter().take(*count + usize::from(*all)).collect()
        }
    }
}

fn record(full: bool) -> RequestRecord {
    let attempt = AttemptRecord {
        backend: "10.0.0.1:9001".parse().unwrap(),
        began_us: 10,
        reused: false,
        connect_us: full.then_some(200),
        first_byte_us: full.then_some(300),
        ended_us: 400,
        status: full.then_some(200),
        reason: full.then(|| "backend_truncated".to_owned()),
        then: full.then(|| "tried again".to_owned()),
    };
    let explained = explain(&ExplainQuery {
        listener: "shop".to_owned(),
        method: "GET".to_owned(),
        target: "/".to_owned(),
        headers: vec![],
        client: None,
    })
    .unwrap();
    RequestRecord {
        id: "full".to_owned(),
        trace_id: full.then(|| "0af7651916cd43dd8448eb211c80319c".to_owned()),
        time: Timestamp(3),
        client: "192.0.2.7".parse().unwrap(),
        method: "GET".to_owned(),
        host: "shop.example".to_owned(),
        target: "/".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        tls: full.then(|| TlsRecord {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            group: Some("X25519MLKEM768".to_owned()),
            resumed: false,
            alpn: Some("h2".to_owned()),
            sni: Some("shop.example".to_owned()),
            client_subject: Some("CN=alice".to_owned()),
        }),
        load_balancer: name("shop"),
        listener: name("http"),
        route: full.then(|| name("default")),
        pool: full.then(|| name("default")),
        status: 502,
        reason: full.then(|| "backend_truncated".to_owned()),
        detail: full.then(|| "It closed.".to_owned()),
        session: full.then(|| "moved".to_owned()),
        queued: full.then_some(QueueRecord {
            position: 1,
            waited_us: 5,
        }),
        attempts: vec![attempt],
        total_us: 500,
        received_bytes: 80,
        sent_bytes: 120,
        routes: if full { explained.routes } else { vec![] },
        candidates: if full { explained.candidates } else { vec![] },
        more_candidates: usize::from(full),
    }
}

fn status() -> Status {
    Status {
        node: "evenkeel".to_owned(),
        version: "0.1.0".to_owned(),
        started: Timestamp(1),
        now: Timestamp(2),
        config: ConfigStatus {
            source: "evenkeel.toml".to_owned(),
            revision: 1,
            since: Timestamp(1),
            last_reload: Some(answer_reload(true)),
        },
        store: StoreStatus {
            kind: "etcd".to_owned(),
            connected: false,
            trouble: Some("no endpoint can be reached".to_owned()),
            head: 7,
            served: 6,
            refused: Some(RefusedRevision {
                revision: 7,
                reasons: vec!["0.0.0.0:80 is listened on twice".to_owned()],
            }),
            name_taken: Some(NameTaken {
                since: Timestamp(2),
                started: Timestamp(1),
                zone: Some("a".to_owned()),
                addresses: vec![([10, 0, 0, 1], 80).into()],
            }),
        },
        orchestrators: Some(OrchestratorsStatus {
            heard: false,
            leader: Some(name("edge-1-0a1b2c3d")),
            epoch: Some(12),
            orchestrators: vec![OrchestratorStatus {
                name: name("edge-1-0a1b2c3d"),
                slots: 1000,
                settled: true,
            }],
            slots: 1024,
            slots_unchecked: 24,
            own: Some(OwnPart {
                name: Some(name("edge-1-0a1b2c3d")),
                slots: 1000,
                leads: true,
                ..OwnPart::default()
            }),
            plan_b: Some(PlanBStatus {
                phase: "holding".to_owned(),
                since: Timestamp(1),
                why: Some("store_unreachable".to_owned()),
                began: 0,
                alone: 1,
                alone_with: Default::default(),
            }),
        }),
        nodes: vec![NodeStatus {
            name: "edge-1".to_owned(),
            record: NodeRecord {
                version: "0.1.0".to_owned(),
                started: Timestamp(1),
                life: 5,
                roles: vec![Role::Lb],
                zone: Some("eu-1a".to_owned()),
                addresses: vec![SocketAddr::from(([10, 0, 0, 1], 8080))],
                served: 6,
                refused: Some((7, "0.0.0.0:80 is listened on twice".to_owned())),
                load: NodeLoad::default(),
                trial: None,
                declares: None,
                leaving: true,
            },
        }],
        load_balancers: vec![LoadBalancerStatus {
            name: name("shop"),
            listeners: vec![ListenerStatus {
                name: name("http"),
                address: "[::1]:8080".parse().unwrap(),
                open: false,
                error: Some("address in use".to_owned()),
                connections: 3,
                certificates: vec![CertificateStatus {
                    name: "shop.pem".into(),
                    hosts: vec!["shop.example.com".into()],
                    expires: Some(Timestamp(9)),
                    error: Some("cannot read shop.pem".into()),
                }],
            }],
            pools: vec![PoolStatus {
                warnings: vec!["insecure".into()],
                name: name("default"),
                algorithm: "maglev".to_owned(),
                settings: vec!["TLS".to_owned()],
                all_down: false,
                all_down_policy: AllDown::FailOpen,
                live: PoolLive {
                    queue: Some(QueueStatus {
                        waiting: 3,
                        size: 1000,
                        timeout_ms: 1000,
                        overloaded: true,
                    }),
                    circuit: Some("half_open".into()),
                },
                sources: vec![SourceStatus {
                    source: Source::Dns,
                    members: 1,
                    left_out: 2,
                    stale: Some("no answer".into()),
                    stale_since: Some(Timestamp(1)),
                    lookup: Some(LookupStatus {
                        name: "shop.internal".to_owned(),
                        kind: "ip".to_owned(),
                        resolver: Some(([127, 0, 0, 1], 53).into()),
                        answered: Some(Timestamp(1)),
                        ttl_ms: 5_000,
                        failures: 2,
                    }),
                }],
                left_out: 0,
                backends: vec![backend(true), backend(false)],
            }],
            route_count: 1,
            routes: vec![RouteStatus {
                route: name("all"),
                matches: "everything".to_owned(),
                leads_to: "split default 1".to_owned(),
                besides: vec!["compresses".to_owned()],
            }],
            splits: vec![SplitStatus {
                route: name("all"),
                parts: vec![SplitPartStatus {
                    pool: name("default"),
                    weight: 5,
                    configured: 1,
                }],
                order: Some(weighed(true)),
            }],
        }],
        alerts: alerts(),
        events: vec![Event {
            at: Timestamp(2),
            kind: "backend_down".to_owned(),
            subject: "shop/default/10.0.0.1:9001".to_owned(),
            message: "connection refused".to_owned(),
        }],
    }
}

/// Takes what members ask for as the owner of the registrations would.
fn members() -> mpsc::Sender<MemberRequest> {
    let (sender, mut requests) = mpsc::channel::<MemberRequest>(1);
    tokio::spawn(async move {
        while let Some(MemberRequest {
            backend,
            action,
            reply,
        }) = requests.recv().await
        {
            let answer = match action {
                MemberAction::Register(..) if backend.address.port() == 1 => Err(MemberError::TooMany(5)),
                MemberAction::Register(listed, ttl) => Ok(MemberAnswer {
                    ttl: Some(ttl.unwrap_or(std::time::Duration::from_secs(15))),
                    news: match (listed.load, listed.draining) {
                        (Some(_), _) => None,
                        (None, true) => Some(MemberNews::Changed),
                        (None, false) => Some(MemberNews::Registered),
                    },
                }),
                MemberAction::Leave if backend.address.port() == 2 => Ok(MemberAnswer {
                    ttl: None,
                    news: Some(MemberNews::Left),
                }),
                MemberAction::Leave => Err(MemberError::UnknownMember(backend.address)),
                MemberAction::Beat => Ok(MemberAnswer::default()),
            };
            let _ = reply.send(answer);
        }
    });
    sender
}

/// Takes each order for a route as the owner of the overrides would.
fn weights() -> mpsc::Sender<WeightsRequest> {
    let (sender, mut requests) = mpsc::channel::<WeightsRequest>(1);
    tokio::spawn(async move {
        while let Some(WeightsRequest { order, reply }) = requests.recv().await {
            let answer = match order.key.route.as_str() {
                "all" => Ok(order.weights.map(|weights| RouteOrder {
                    weights,
                    by: order.by,
                    since: Timestamp(1),
                    expires: order.lasts.map(|lasts| Timestamp(1).plus(lasts)),
                })),
                "plain" => Err(OrderError::NoSplit(order.key)),
                _ => Err(OrderError::UnknownRoute {
                    load_balancer: order.key.load_balancer,
                    route: order.key.route,
                    known: vec![name("all"), name("plain")],
                }),
            };
            let _ = reply.send(answer);
        }
    });
    sender
}

fn weighed(lapses: bool) -> RouteOrder {
    RouteOrder {
        weights: [(name("default"), 5)].into(),
        by: "alice".to_owned(),
        since: Timestamp(1),
        expires: lapses.then_some(Timestamp(9)),
    }
}

/// With all that is optional, or with none of it.
fn backend(full: bool) -> BackendStatus {
    BackendStatus {
        address: "10.0.0.1:9001".parse().unwrap(),
        source: if full { Source::File } else { Source::Declared },
        zone: full.then(|| name("eu-1")),
        load: full.then_some(70),
        eligibility: "eligible".to_owned(),
        health: Health::Up,
        health_reason: "status 200".to_owned(),
        health_since: Timestamp(1),
        checked_by: full.then(|| CheckedBy::Orchestrator(name("edge-2-5be0cd19"))),
        mode: Mode::Ready,
        order: full.then(|| Override {
            mode: Mode::Ready,
            weight: Some(5),
            by: "alice".to_owned(),
            since: Timestamp(1),
            expires: Some(Timestamp(9)),
        }),
        ejection: full.then(|| Ejection {
            reason: "5 failures in a row".to_owned(),
            since: Timestamp(1),
            until: Timestamp(9),
        }),
        weight: 5,
        effective_weight: 2.5,
        live: BackendLive {
            max_in_flight: full.then_some(4),
            max_connections: full.then_some(8),
            ..BackendLive::default()
        },
    }
}
