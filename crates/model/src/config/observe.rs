//! What the process tells about requests: access log, request ids, traces, and the recorder behind
//! `evenkeel why`.

use std::path::PathBuf;

/// What is told about requests, by the whole process. Hot: each part follows a reload.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Observe {
    /// `[access_log]`; `None`: no line is written.
    pub access_log: Option<AccessLog>,
    /// `[request_id]`.
    pub request_id: RequestId,
    /// `[tracing]`; `None`: no trace is begun and `traceparent` passes untouched.
    pub tracing: Option<Tracing>,
    /// `[recorder]`.
    pub recorder: Recorder,
}

/// One line for each request (`[access_log]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub to: LogTarget,
    /// How a line looks.
    pub format: LogFormat,
    /// Share of successes that is logged, in percent. What failed, or was answered 5xx, always is.
    pub sample: u8,
    /// Whether the query of a target is logged.
    pub query: bool,
    /// Bytes of lines that may wait for the writer, over all shards; beyond it lines are dropped and counted.
    pub queue: u64,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            to: LogTarget::Stdout,
            format: LogFormat::Json,
            sample: 100,
            query: true,
            queue: 4 * 1024 * 1024,
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// This file, appended to; opened again on SIGUSR1.
    File(PathBuf),
    /// A syslog daemon on a Unix datagram socket (RFC 5424 messages).
    Syslog(PathBuf),
    /// A syslog daemon over UDP (RFC 5426), as `host:port`.
    SyslogUdp(String),
}

/// Path of the socket on which the syslog daemon of the machine listens.
pub const DEFAULT_SYSLOG_SOCKET: &str = "/dev/log";

impl std::fmt::Display for LogTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Syslog(path) => write!(f, "syslog:{}", path.display()),
            Self::SyslogUdp(address) => write!(f, "syslog:udp://{address}"),
        }
    }
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// The combined log format of Apache and nginx.
    Common,
}

impl LogFormat {
    /// The name in config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Common => "common",
        }
    }
}

/// Whose statements about a request are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of peers in `trusted_proxies` of the listener.
    TrustedProxies,
    /// Everybody's.
    All,
    /// Nobody's.
    Nobody,
}

impl Trust {
    /// The name in config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustedProxies => "trusted_proxies",
            Self::All => "all",
            Self::Nobody => "nobody",
        }
    }

    /// Whether a peer is believed that is a trusted proxy, or not.
    pub fn believes(self, trusted_proxy: bool) -> bool {
        match self {
            Self::TrustedProxies => trusted_proxy,
            Self::All => true,
            Self::Nobody => false,
        }
    }
}

/// The name by which a request is found again (`[request_id]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Header field that carries it, to the backend and back to the client.
    pub header: String,
    /// Whose ids are kept; others are replaced.
    pub trust: Trust,
}

impl Default for RequestId {
    fn default() -> Self {
        Self {
            header: DEFAULT_REQUEST_ID_HEADER.to_owned(),
            trust: Trust::TrustedProxies,
        }
    }
}

/// Default of `request_id.header`.
pub const DEFAULT_REQUEST_ID_HEADER: &str = "X-Request-Id";

/// Traces over OTLP/HTTP (`[tracing]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Base URL of the collector; spans go to `/v1/traces` below it.
    pub endpoint: String,
    /// File with the authorities (PEM) that may have issued the collector's certificate; `None`: whoever the system
    /// trusts.
    pub ca: Option<PathBuf>,
    /// Share of the traces begun here that is sampled, in percent.
    pub sample: u8,
    /// Whose `traceparent` is taken over, with its decision to sample.
    pub trust: Trust,
    /// `service.name` of the spans.
    pub service_name: String,
    /// File with header fields for the collector, one `Name: value` a line; read before each export.
    pub headers_file: Option<PathBuf>,
    /// Sampled requests that may wait for the exporter; beyond it their spans are dropped and counted.
    pub queue: u32,
}

/// Default of `tracing.sample`, in percent.
pub const DEFAULT_TRACE_SAMPLE: u8 = 1;
/// Default of `tracing.queue`.
pub const DEFAULT_TRACE_QUEUE: u32 = 4096;
/// Default of `tracing.service_name`.
pub const DEFAULT_SERVICE_NAME: &str = "evenkeel";

/// The requests that `evenkeel why` can tell about (`[recorder]`). Kept in memory, over all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Last failures kept; 0 keeps none.
    pub failures: u32,
    /// Last refusals (4xx of our own, clients that went away) kept; 0 keeps none.
    pub refusals: u32,
    /// Last sampled successes kept; 0 keeps none.
    pub successes: u32,
    /// Share of successes that is kept, in percent.
    pub sample: u8,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            failures: 1000,
            refusals: 500,
            successes: 200,
            sample: 1,
        }
    }
}
