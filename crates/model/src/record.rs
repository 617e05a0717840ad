//! A request as it is remembered: what `evenkeel why` and the API tell about it afterwards.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::Name;
use crate::explain::{Candidate, RouteStep};
use crate::state::Timestamp;

/// Which remembered requests are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordQuery {
    /// Those of this id: one, unless a client uses an id twice.
    Id(String),
    /// The last ones.
    Last {
        /// At most so many.
        count: usize,
        /// Refusals and sampled successes too, not only failures.
        all: bool,
    },
}

/// Most requests that one answer tells about.
pub const MAX_RECORDS: usize = 1000;

/// What the API answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// Newest first.
    pub requests: Vec<RequestRecord>,
}

/// One request. Times are in microseconds, counted from its beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its id.
    pub id: String,
    /// Its trace, where traces are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// When its head was there.
    pub time: Timestamp,
    /// The client's address; behind trusted proxies the one they report.
    pub client: IpAddr,
    /// Method; empty for a request that could not be read.
    pub method: String,
    /// Host asked for.
    pub host: String,
    /// Path, with the query where that may be shown; cut when long.
    pub target: String,
    /// `HTTP/1.1` and the like.
    pub protocol: String,
    /// The client's TLS, where it speaks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRecord>,
    /// Load balancer.
    pub load_balancer: Name,
    /// Listener.
    pub listener: Name,
    /// Route taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// Pool that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Status answered; 0: no response could be sent.
    pub status: u16,
    /// Reason code, when it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What became of its session, where the pool is sticky: `kept`, `new`, `moved` or `rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Its wait in the pool's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<QueueRecord>,
    /// The attempts, in order.
    pub attempts: Vec<AttemptRecord>,
    /// To its end.
    pub total_us: u64,
    /// Bytes of the request, head and body.
    pub received_bytes: u64,
    /// Bytes of the response.
    pub sent_bytes: u64,
    /// Routes in the order tried, up to the one taken; for failures, as long as there are not too many at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteStep>,
    /// Members of the pool as they stood at the end of the request; likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// How many further members there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_candidates: usize,
}

/// TLS of the connection that a request came over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRecord {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// Cipher suite, as IANA registers it.
    pub cipher: String,
    /// Group that the key was agreed in; absent where a session was resumed without a new agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether a session was resumed; else it was a full handshake.
    pub resumed: bool,
    /// Protocol chosen by ALPN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// Name that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Distinguished name of the client's certificate, verified; cut when long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_subject: Option<String>,
}

/// A wait in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Place in the queue on arrival, from 1.
    pub position: u32,
    /// How long it waited.
    pub waited_us: u64,
}

/// One attempt at one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Backend.
    pub backend: SocketAddr,
    /// When it began.
    pub began_us: u64,
    /// Whether it used a kept connection.
    pub reused: bool,
    /// How long connecting took; absent on a kept connection, and where none came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// From its beginning to the head of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
    /// When it ended.
    pub ended_us: u64,
    /// Status of its response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Reason code, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What followed from a failure: `tried again`, or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
