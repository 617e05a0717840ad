//! What keeps a pool alive when more comes than it can do: caps, the queue, the circuit breaker.

use std::time::Duration;

use super::Pool;

/// Safety of a pool under overload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    /// What each backend takes at most, where the backend itself does not say.
    pub caps: Caps,
    /// Where requests wait while every backend is full.
    pub queue: Queue,
    /// Fails fast while the pool as a whole fails.
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// What one backend takes at most, counted over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Requests in flight, tunnels among them; `None`: any number.
    pub max_requests: Option<u32>,
    /// Connections, busy and idle; `None`: any number.
    pub max_connections: Option<u32>,
}

impl Caps {
    /// These, and where they do not say, `otherwise`.
    pub fn or(self, otherwise: Self) -> Self {
        Self {
            max_requests: self.max_requests.or(otherwise.max_requests),
            max_connections: self.max_connections.or(otherwise.max_connections),
        }
    }
}

impl Pool {
    /// The caps of the backend at this place, in the order declared.
    fn caps_of(&self, index: usize) -> Caps {
        let own = self.backends.get(index).map_or_else(Caps::default, |b| b.caps);
        own.or(self.overload.caps)
    }

    /// Connections that the backend at this place may have; `None`: any number. Never given over HTTP/2, where its own
    /// settings count ([`super::BackendHttp2`]).
    pub fn max_connections(&self, index: usize) -> Option<u32> {
        self.caps_of(index).max_connections
    }

    /// Requests that the backend at this place may have in flight; `None`: any number. Over HTTP/1 a request has a
    /// connection to itself.
    pub fn max_in_flight(&self, index: usize) -> Option<u32> {
        match (self.caps_of(index).max_requests, self.max_connections(index)) {
            (Some(requests), Some(connections)) => Some(requests.min(connections)),
            (requests, connections) => requests.or(connections),
        }
    }
}

/// The queue of a pool: one for all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that may wait: 0 to 100,000. 0: a request that finds every backend full is refused at once.
    pub size: u32,
    /// How long one may wait. No request is sent to a backend after it.
    pub timeout: Duration,
    /// The wait that is fine for good; at most `timeout`. When waits stay over it for as long as `timeout`, the
    /// newest are served first and who has waited longer than this is refused.
    pub target: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            size: 1000,
            timeout: Duration::from_secs(1),
            target: DEFAULT_QUEUE_TARGET,
        }
    }
}

/// Default of `queue.target` where `queue.timeout` is not less.
pub const DEFAULT_QUEUE_TARGET: Duration = Duration::from_millis(100);

/// When a pool's requests are refused without trying, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Failures among the requests of the window that open it, in percent: 1 to 100.
    pub failure_ratio: u8,
    /// Requests in the window below which the ratio says nothing.
    pub minimum_requests: u32,
    /// Length of the sliding window.
    pub window: Duration,
    /// How long it stays open before it tries.
    pub open_time: Duration,
    /// Requests it tries with; when all of them succeed it closes.
    pub half_open_requests: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_ratio: 50,
            minimum_requests: 20,
            window: Duration::from_secs(10),
            open_time: Duration::from_secs(5),
            half_open_requests: 5,
        }
    }
}
