//! The answer to "where would this request go, and why?", as values that log, API and command line share.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::Name;
use crate::geography::Geography;

/// A request to explain. No traffic is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// `LB/LISTENER`, or the listener's address, or just `LB` when it has one listener.
    pub listener: String,
    /// Request method.
    pub method: String,
    /// Request target, e.g. `/cart?id=7`.
    pub target: String,
    /// Header fields in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The client's address; default 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Load balancer that owns the listener.
    pub load_balancer: Name,
    /// Listener.
    pub listener: Name,
    /// Host that routing saw.
    pub host: String,
    /// Path that routing saw, after normalisation.
    pub path: String,
    /// Routes in the order tried, up to the one taken.
    pub routes: Vec<RouteStep>,
    /// The language negotiated, where a route asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Where the client is, where a route asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geography: Option<Geography>,
    /// How the route shared the request out, where it has a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What each rate limit of the route says, up to the one that refuses: `limit by client_address: passes, 9 of
    /// 10 left`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What listener and route do besides choosing a pool, and how long they wait for it, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// The pool reached.
    pub pool: Option<Name>,
    /// Its algorithm.
    pub algorithm: Option<String>,
    /// The hash key used, in words, where the algorithm has one: `header x-user = "7"`.
    pub hash_key: Option<String>,
    /// The session that the request belongs to, in words, where the pool is sticky: `cookie evk: the session is at
    /// 10.0.0.1:9001`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// All members of the pool.
    pub candidates: Vec<Candidate>,
    /// The backend taken.
    pub chosen: Option<Chosen>,
    /// That it would wait, where every backend that could take it is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The refusal, when there is no backend.
    pub refused: Option<Refusal>,
}

/// One route considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStep {
    /// Route.
    pub route: Name,
    /// Whether it matched.
    pub matched: bool,
    /// Why (not).
    pub why: String,
}

/// One member of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Backend.
    pub address: SocketAddr,
    /// Whether it could be taken.
    pub eligible: bool,
    /// Why (not): `up: status 200`, `drain by alice`, `down: connection refused`.
    pub why: String,
    /// Weight in effect, in units of the declared weight.
    pub weight: f64,
    /// Requests in flight over all shards.
    pub in_flight: u32,
    /// The algorithm's figure for it, in words: `0.50 in flight per weight`; empty where there is none.
    pub score: String,
}

/// The backend taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Backend.
    pub address: SocketAddr,
    /// Why this one.
    pub why: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Reason code, see [`crate::reason::Reason`].
    pub reason: String,
    /// In words.
    pub detail: String,
}
