//! The desired layer: load balancers as declared, in full form, already valid.
//!
//! Text becomes these types in the parsing modules only; the defaults of every key are the `DEFAULT_*`
//! constants here, so that documentation, schema and parser name one number.

mod action;
mod admin;
mod alerts;
mod backend_http2;
mod country;
mod http2;
mod membership;
mod observe;
mod overload;
mod pages;
mod rate_limit;
mod retry;
mod route;
mod sharing;
mod sticky;
mod store;
mod template;
mod tls;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use action::{
    Actions, BufferRequests, BufferResponses, Compression, Content, DEFAULT_BUFFER_DISK_TOTAL,
    DEFAULT_BUFFER_MEMORY, DEFAULT_BUFFER_MEMORY_TOTAL, DEFAULT_COMPRESSED_TYPES,
    DEFAULT_COMPRESSION_MINIMUM, DEFAULT_MIRROR_BODY, DEFAULT_MIRROR_IN_FLIGHT, DEFAULT_MIRROR_TIMEOUT,
    Encoding, ErrorPages, HeaderRules, MAX_ERROR_PAGES, MAX_HEADER_RULES, MAX_PAGE_BYTES, Mirror,
    PathRewrite, Redirect, Respond, Rewrite,
};
pub(crate) use admin::HASH_PREFIX;
pub use admin::{
    Admin, AdminCertificate, AdminRole, AdminTls, AdminToken, AuditTo, DEFAULT_ADMIN_LISTEN,
    MAX_ADMIN_LOGINS, TOKEN_PREFIX, TOKEN_RANDOM_BYTES, TokenHash, is_generated_token, token_from,
};
pub use alerts::{
    Alerts, MAX_ALERT_LABELS, MAX_LABEL_CHARS, MAX_RECEIVERS, Receiver, ReceiverKind, ReceiverUrl,
};
pub use backend_http2::{BackendHttp2, GrpcCheck};
pub use country::{country_meant, is_country};
pub use http2::Http2;
pub use membership::{
    AddressFamily, DEFAULT_DNS_ATTEMPTS, DEFAULT_DNS_TIMEOUT, DEFAULT_MAX_REGISTERED, DEFAULT_MAX_TTL,
    DEFAULT_MIN_TTL, DEFAULT_SILENCE, Discovery, DnsLookup, DnsRecords, Heartbeat, MAX_RESOLVERS, Membership,
    Registration,
};
pub use observe::{
    AccessLog, DEFAULT_REQUEST_ID_HEADER, DEFAULT_SERVICE_NAME, DEFAULT_SYSLOG_SOCKET, DEFAULT_TRACE_QUEUE,
    DEFAULT_TRACE_SAMPLE, LogFormat, LogTarget, Observe, Recorder, RequestId, Tracing, Trust,
};
pub use overload::{Caps, CircuitBreaker, DEFAULT_QUEUE_TARGET, Overload, Queue};
pub use rate_limit::{DEFAULT_MAX_KEYS, DEFAULT_PER, LimitKey, RateLimit};
pub use retry::{Retries, RetryOn, RouteTimeouts};
pub use route::{
    HostMatch, MAX_CONDITIONS, MAX_MATCH_DEPTH, MAX_PATTERN_BYTES, MAX_PATTERN_SIZE, MAX_PATTERNS,
    MAX_PRIORITY, MAX_ROUTES, MAX_SPLIT, MAX_SPLIT_WEIGHT, PathMatch, Pattern, PatternError, Route,
    RouteMatch, RouteTarget, Split, SplitPart, ValueMatch,
};
pub use sticky::{
    DEFAULT_DRAIN_TIMEOUT, DEFAULT_LEARNED_TTL, DEFAULT_MAX_SESSIONS, Learned, SameSite, Secure, SessionKey,
    Sticky, StickyBy, StickyCookie,
};
pub use store::{DEFAULT_STORE_PREFIX, EtcdStore, MAX_STORE_ENDPOINTS, NotifyConfig, Role, StoreConfig};
pub use template::{MAX_PIECES, Piece, Template, TemplateError, Variable};
pub use tls::{
    Acme, BackendTls, Certificate, ClientCertificates, DEFAULT_ACME_DIRECTORY, DEFAULT_BACKEND_TLS,
    DEFAULT_TLS_HANDSHAKE, ListenerTls, Pem, PrivateKey, TlsVersion,
};

/// A name as it stands in the config: 1 to 63 characters of `[A-Za-z0-9_.-]`. Cheap to clone; labels of
/// metrics come only from these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 63 letters, digits, `_`, `-` or `.`")]
pub struct NameError(pub String);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] when empty, longer than 63 bytes, or holding any other character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Everything one process was told: node, admin address, load balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Settings of this process.
    pub node: Node,
    /// The admin API.
    pub admin: Admin,
    /// What is told about requests.
    pub observe: Observe,
    /// Where what is not in the file is kept.
    pub store: StoreConfig,
    /// Hints that the store has something new.
    pub notify: Option<NotifyConfig>,
    /// What is worth an alert, and who is told.
    pub alerts: Alerts,
    /// Load balancers by name.
    pub load_balancers: BTreeMap<Name, Arc<LoadBalancer>>,
}

/// Settings of this process (`[node]`). Changes need a restart, except where said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Shown in `status`, metrics and logs. Default: `evenkeel`. With a store that nodes share it is a [`Name`].
    pub name: String,
    /// What it does; all of it where nothing is said.
    pub roles: BTreeSet<Role>,
    /// Where it stands; told to the other nodes.
    pub zone: Option<String>,
    /// What listeners on every address (`0.0.0.0`, `[::]`) listen on instead.
    pub bind: Option<IpAddr>,
    /// Shards (threads that forward). `None`: one per core.
    pub threads: Option<u16>,
    /// Where overrides are kept. `None`: chosen by the command line from the platform's conventions.
    pub data_dir: Option<PathBuf>,
    /// User to become after binding, when started as root.
    pub user: Option<String>,
    /// Group to become after binding; default: the user's own.
    pub group: Option<String>,
    /// How long SIGTERM waits for running requests. Hot.
    pub shutdown_timeout: Duration,
    /// How long the orchestrators' last verdicts stand when none of them is heard; then the node checks for itself.
    pub plan_b_after: Duration,
    /// Client connections over all listeners; beyond it new ones are closed at once and counted. Hot.
    pub max_connections: u32,
    /// What is signed with where nothing nearer says otherwise: the first signs, the others are accepted still.
    /// Empty: a random key that is kept in the data directory. Hot.
    pub secrets: Vec<Secret>,
    /// MaxMind database for `country` and `continent` of routes. Hot.
    pub geoip: Option<PathBuf>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: DEFAULT_NODE_NAME.to_owned(),
            roles: Role::ALL.into(),
            zone: None,
            bind: None,
            threads: None,
            data_dir: None,
            user: None,
            group: None,
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            plan_b_after: DEFAULT_PLAN_B_AFTER,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            secrets: Vec::new(),
            geoip: None,
        }
    }
}

/// Default of `node.name`.
const DEFAULT_NODE_NAME: &str = "evenkeel";
/// Default of `node.shutdown_timeout`.
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of `node.plan_b_after`.
const DEFAULT_PLAN_B_AFTER: Duration = Duration::from_secs(15);
/// Default of `node.max_connections`.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 100_000;

/// A secret: never printed, logged or serialised.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself; for comparing and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// One named load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its name.
    pub name: Name,
    /// Where it listens; at least one. Names are unique within the load balancer, addresses in the config.
    pub listeners: Vec<Arc<Listener>>,
    /// Which requests go to which pool, in the order in which they are tried (see [`Route::rank`]).
    pub routes: Vec<Route>,
    /// Pools by name. Every route's pool is here.
    pub pools: BTreeMap<Name, Arc<Pool>>,
    /// Whether its requests are in the access log, when there is one.
    pub access_log: bool,
    /// The language of what routes without `language` serve (lower case): it takes part in the negotiation.
    pub default_language: Option<String>,
}

/// Default of the port of `listen`, on every IPv4 address.
pub const DEFAULT_LISTEN_PORT: u16 = 8080;

/// The port of HTTPS where `redirect_to_https` names none.
pub const DEFAULT_HTTPS_PORT: u16 = 443;

/// An address that clients connect to, with what it allows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name; default `http`, `http-2`, …, or `https`, `https-2`, ….
    pub name: Name,
    /// Address and port; port 0 takes a free one (shown in `status`).
    pub address: SocketAddr,
    /// TLS, with `protocol = "https"`.
    pub tls: Option<ListenerTls>,
    /// Sources whose `X-Forwarded-*` and `Forwarded` fields are believed and kept.
    pub trusted_proxies: Vec<IpNet>,
    /// Protocols that clients may switch to (RFC 9110 section 7.8), lower case.
    pub upgrades: Vec<String>,
    /// Where it sends all requests: the port of HTTPS on the same host; `None` where it serves them itself.
    pub redirect_to_https: Option<u16>,
    /// Client connections on this listener; beyond it new ones are closed at once and counted.
    pub max_connections: u32,
    /// Bounds on what a client may send.
    pub limits: ListenerLimits,
    /// Bounds on how long a client may take.
    pub timeouts: ListenerTimeouts,
    /// HTTP/2 beside HTTP/1; `None`: not spoken.
    pub http2: Option<Http2>,
}

/// Default of `upgrades` of a listener.
pub const DEFAULT_UPGRADES: &[&str] = &["websocket"];

/// Bounds on a request (RFC 9110 section 5.4, RFC 9112 section 3; figures from common practice).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Bytes of request line and header fields together. Beyond: 431.
    pub header_bytes: u32,
    /// Number of header fields. Beyond: 431.
    pub header_fields: u16,
    /// Bytes of the request target. Beyond: 414.
    pub target_bytes: u32,
    /// Bytes of a request body; `None`: no limit. Beyond: 413.
    pub body_bytes: Option<u64>,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            header_fields: 100,
            target_bytes: 8 * 1024,
            body_bytes: None,
        }
    }
}

/// Timeouts on the client's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From the first byte of a request to the end of its header. Then 408.
    pub request_headers: Duration,
    /// Between two reads of a request body. Then 408.
    pub request_body_idle: Duration,
    /// Least average rate of a request body in bytes per second, measured after 5 s; 0 switches it off.
    pub request_body_min_rate: u32,
    /// An idle connection between two requests.
    pub keep_alive: Duration,
    /// A client that does not read its response.
    pub response_write_idle: Duration,
    /// From accepting a connection to the end of its TLS handshake.
    pub tls_handshake: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            request_headers: Duration::from_secs(10),
            request_body_idle: Duration::from_secs(30),
            request_body_min_rate: 500,
            keep_alive: Duration::from_secs(75),
            response_write_idle: Duration::from_secs(60),
            tls_handshake: DEFAULT_TLS_HANDSHAKE,
        }
    }
}

/// An IP network in CIDR form, e.g. `10.0.0.0/8`; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpNet {
    /// Its address with the host bits cleared.
    pub address: IpAddr,
    /// Length of the prefix in bits: 0 to 32 or 0 to 128.
    pub prefix: u8,
}

impl IpNet {
    /// Makes a network, clearing host bits; `None` when the prefix is too long for the family.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Whether `ip` lies in this network. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip.to_canonical(), self.prefix).is_some_and(|net| net == *self)
    }
}

impl std::fmt::Display for IpNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Backends that serve the same thing, with how to choose among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name; `default` in the short form.
    pub name: Name,
    /// How one backend is chosen.
    pub algorithm: Algorithm,
    /// What is balanced against; addresses are unique within the pool. May be empty: then every request is 503.
    pub backends: Vec<Backend>,
    /// Active check.
    pub health: Option<HealthCheck>,
    /// Ejection by what real requests meet; `None` when switched off.
    pub passive: Option<Passive>,
    /// Ramp from a tenth to the whole weight after a backend returns or is added; zero switches it off.
    pub slow_start: Duration,
    /// What to do when no backend is eligible.
    pub all_down: AllDown,
    /// HTTP/2 to the backends; `None`: HTTP/1.1.
    pub http2: Option<BackendHttp2>,
    /// Connections to the backends.
    pub connections: Connections,
    /// How long a backend may take.
    pub timeouts: PoolTimeouts,
    /// When a failed attempt is tried elsewhere.
    pub retries: Retries,
    /// How sessions are kept on one backend.
    pub sticky: Option<Sticky>,
    /// TLS to the backends.
    pub tls: Option<BackendTls>,
    /// What keeps it alive when more comes than it can do.
    pub overload: Overload,
    /// Its members beside `backends`.
    pub membership: Membership,
}

/// Default of `slow_start`.
pub const DEFAULT_SLOW_START: Duration = Duration::from_secs(10);

/// One backend server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// IP address and port.
    pub address: SocketAddr,
    /// Share relative to the others: 0 to 1000; 0 takes no traffic.
    pub weight: u32,
    /// Its own caps, where they differ from the pool's.
    pub caps: Caps,
}

/// Greatest weight of a backend.
pub const MAX_WEIGHT: u32 = 1000;

/// How one backend is chosen. Each is weighted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Fewest requests in flight per weight.
    LeastConnections,
    /// Weighted random.
    Random,
    /// The less loaded of two random ones.
    PowerOfTwo,
    /// Least expected latency: peak-sensitive moving average times load.
    PeakEwma,
    /// By a hash of the client's address.
    IpHash,
    /// By a hash of a key, moving few keys when backends come and go.
    ConsistentHash(ConsistentHash),
}

impl Algorithm {
    /// The name in config, metrics and `status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Random => "random",
            Self::PowerOfTwo => "power_of_two",
            Self::PeakEwma => "peak_ewma",
            Self::IpHash => "ip_hash",
            Self::ConsistentHash(_) => "consistent_hash",
        }
    }
}

/// Settings of `consistent_hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// Which table maps hashes to backends.
    pub table: HashTable,
    /// Greatest load of a backend in percent of the average, at least 101; `None`: unbounded.
    pub bounded_load: Option<u16>,
}

/// What `consistent_hash` hashes. A request without the named thing falls back to the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's IP address (behind trusted proxies: the one they report).
    ClientAddress,
    /// The value of this header field (lower case).
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The path of the target.
    Path,
    /// The value of this query parameter.
    Query(String),
}

impl std::fmt::Display for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client_address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// Table of `consistent_hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// Ketama-style ring: fewest moved keys.
    Ring,
    /// Maglev: most even spread, constant time.
    Maglev,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// Time from one check to the next, ± `jitter`.
    pub interval: Duration,
    /// The same while the state is about to change (between first contrary result and verdict).
    pub fast_interval: Duration,
    /// From connecting to the last byte needed.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up. The first check decides at once.
    pub rise: u16,
    /// Failures in a row that take it down.
    pub fall: u16,
    /// Share of the interval by which each check is moved at random, in percent: 0 to 50.
    pub jitter: u8,
    /// TLS, as the pool has it.
    pub tls: Option<BackendTls>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            port: None,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 10,
            tls: None,
        }
    }
}

/// What an active check asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// A TCP connection that opens is a success.
    Tcp,
    /// An HTTP request.
    Http(HttpCheck),
    /// A call of gRPC's own health service.
    Grpc(GrpcCheck),
}

/// An HTTP check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Asked over HTTP/2, as the pool's requests are; else over HTTP/1.1.
    pub http2: bool,
    /// Target in origin form, e.g. `/health`.
    pub path: String,
    /// `GET`, `HEAD`, `OPTIONS` or `POST` (without a body).
    pub method: String,
    /// `Host` sent; default: the backend's address.
    pub host: Option<String>,
    /// Further fields to send.
    pub headers: Vec<(String, String)>,
    /// Statuses that count as success, as inclusive ranges; default 200 to 299.
    pub expected_status: Vec<(u16, u16)>,
    /// Text that the first 64 KiB of the body must contain.
    pub body_contains: Option<String>,
}

/// Passive ejection: what real requests meet takes a backend out for a while.
///
/// A failure is a connect error, reset, timeout or a 502, 503 or 504 from the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Failures in a row that eject.
    pub consecutive_failures: u16,
    /// Length of the sliding window for the ratio.
    pub window: Duration,
    /// Share of failures in the window that ejects, in percent: 1 to 100.
    pub failure_ratio: u8,
    /// Requests in the window below which the ratio says nothing.
    pub minimum_requests: u32,
    /// First time out; grows by the same with each further ejection, up to ten times.
    pub ejection_time: Duration,
    /// Greatest share of a pool that may be ejected at once, in percent. The last eligible one never is.
    pub max_ejected: u8,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            window: Duration::from_secs(10),
            failure_ratio: 50,
            minimum_requests: 20,
            ejection_time: Duration::from_secs(10),
            max_ejected: 50,
        }
    }
}

/// What happens when no backend of a pool is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllDown {
    /// Use those that only checks or ejection took out, as if they were up: a wrong check does no harm.
    FailOpen,
    /// Answer 503 at once.
    FailClosed,
}

impl AllDown {
    /// The name in config and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailOpen => "fail_open",
            Self::FailClosed => "fail_closed",
        }
    }
}

/// Connections to backends, per shard and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Idle ones kept for reuse per shard and backend.
    pub max_idle: u16,
    /// How long an idle one is kept; a shorter `Keep-Alive: timeout=` of the backend wins.
    pub idle_timeout: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max_idle: 1024,
            idle_timeout: Duration::from_secs(55),
        }
    }
}

/// Timeouts on the backend's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// Opening a connection.
    pub connect: Duration,
    /// The TLS handshake after that.
    pub tls: Duration,
    /// From the end of the request to the response's header.
    pub first_byte: Duration,
    /// Between two reads or writes of a body.
    pub stream_idle: Duration,
    /// A tunnel (WebSocket) in which nothing moves.
    pub tunnel_idle: Duration,
    /// The whole request; zero means no limit.
    pub total: Duration,
}

impl Default for PoolTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            tls: DEFAULT_BACKEND_TLS,
            first_byte: Duration::from_secs(30),
            stream_idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3600),
            total: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let net = IpNet::new("10.1.2.3".parse().unwrap(), 8).unwrap();
        assert_eq!(net.to_string(), "10.0.0.0/8");
        assert!(net.contains("10.255.0.1".parse().unwrap()));
        assert!(net.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!net.contains("11.0.0.1".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(
            IpNet::new("0.0.0.0".parse().unwrap(), 0)
                .unwrap()
                .contains("1.2.3.4".parse().unwrap())
        );
        assert_eq!(IpNet::new("10.0.0.0".parse().unwrap(), 33), None);
    }

    #[test]
    fn a_name_is_bounded_and_plain() {
        assert!(Name::parse("shop-1.a_B").is_ok());
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "<secret>");
    }
}
