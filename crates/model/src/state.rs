//! The other two layers of truth: operators' orders ([`Override`]) and what was found ([`Observed`]).

mod by_load_balancer;
mod members;
mod route;
mod target;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Name;
pub use by_load_balancer::{ByLoadBalancer, OfLoadBalancer};
pub use members::{
    Found, Listed, MemberAction, Members, PoolKey, PoolMembers, Report, Silence, Source, SourceState,
};
pub use route::{RouteKey, RouteOrder, RouteWeights};
pub use target::{Life, Standing, Target};

/// Milliseconds since the Unix epoch; the shells read the clock, this crate only compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This much later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Time passed since `earlier`; zero when that lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One backend as a member of one pool: the key of all that is observed or counted about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendId {
    /// Load balancer.
    pub load_balancer: Name,
    /// Pool.
    pub pool: Name,
    /// Backend.
    pub address: SocketAddr,
}

impl OfLoadBalancer for BackendId {
    fn load_balancer(&self) -> &Name {
        &self.load_balancer
    }
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.load_balancer, self.pool, self.address)
    }
}

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Traffic as its health allows.
    #[default]
    Ready,
    /// No new requests; running ones finish.
    Drain,
    /// No new requests and no checks.
    Maintenance,
}

impl Mode {
    /// The name in API and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// An operator's standing order for one backend of a load balancer (in each of its pools that has it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The mode ordered.
    pub mode: Mode,
    /// Weight instead of the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Who ordered it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// When it lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Whose override it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OverrideKey {
    /// Load balancer.
    pub load_balancer: Name,
    /// Backend.
    pub address: SocketAddr,
}

impl OfLoadBalancer for OverrideKey {
    fn load_balancer(&self) -> &Name {
        &self.load_balancer
    }
}

/// All orders in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// For backends.
    pub backends: ByLoadBalancer<OverrideKey, Override>,
    /// For the weights of splits.
    pub routes: ByLoadBalancer<RouteKey, RouteOrder>,
}

impl Overrides {
    /// The load balancers that there are orders for.
    pub fn load_balancers(&self) -> impl Iterator<Item = &Name> {
        let of_backends = self.backends.parts().map(|(name, _)| name);
        of_backends.chain(self.routes.parts().map(|(name, _)| name))
    }
}

/// An operator's order, as it arrives over the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// For which backend.
    pub key: OverrideKey,
    /// What to do.
    pub action: OrderAction,
    /// For how long; `None`: until another order.
    pub lasts: Option<Duration>,
    /// Who says so.
    pub by: String,
}

impl Order {
    /// What stands after it, upon what stood before; `None`: nothing any more.
    #[must_use]
    pub fn upon(&self, old: Option<&Override>, now: Timestamp) -> Option<Override> {
        let (mode, weight) = match self.action {
            OrderAction::Mode(Mode::Ready) => return None,
            OrderAction::Mode(mode) => (mode, old.and_then(|old| old.weight)),
            OrderAction::Weight(weight) => (old.map_or(Mode::Ready, |old| old.mode), Some(weight)),
        };
        Some(Override {
            mode,
            weight,
            by: self.by.clone(),
            since: now,
            expires: self.lasts.map(|lasts| now.plus(lasts)),
        })
    }
}

/// What an [`Order`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderAction {
    /// Set the mode; `Ready` also forgets an ordered weight.
    Mode(Mode),
    /// Set the weight, keep the mode.
    Weight(u32),
}

/// Health as checks see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not checked yet; takes traffic, so that a start needs no waiting.
    #[default]
    Unchecked,
    /// Checks succeed.
    Up,
    /// Checks fail.
    Down,
}

impl Health {
    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A verdict of the active checks on one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which backend.
    pub backend: BackendId,
    /// What was found.
    pub health: Health,
    /// Why, in words: `connection refused`, `status 503`, `timeout after 1s`, `body lacks "ok"`.
    pub reason: String,
    /// The [`Target::life`] of the check that found it; where it is told to be believed, of which membership it is.
    pub life: Life,
}

/// The last verdict on a backend, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthState {
    /// What was found.
    pub health: Health,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A passive ejection in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Why: `5 failures in a row (last: connection refused)`.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

/// A passive ejection as a shard reports it: already in force in the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// Which backend.
    pub backend: BackendId,
    /// The number of the membership in which it failed ([`Listed::life`]); 0 where nobody counts.
    pub life: u64,
    /// Why.
    pub reason: String,
    /// For how long.
    pub lasts: Duration,
}

/// A circuit breaker that opened or closed, as a shard reports it: already in force in the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitMoved {
    /// Load balancer of the pool.
    pub load_balancer: Name,
    /// The pool.
    pub pool: Name,
    /// It opened; else it closed.
    pub open: bool,
    /// Why.
    pub why: String,
}

/// What checks and traffic found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Verdicts by backend.
    pub health: ByLoadBalancer<BackendId, HealthState>,
    /// Ejections by backend.
    pub ejections: ByLoadBalancer<BackendId, Ejection>,
    /// Members that should say that they live and do not, by backend; each is down.
    pub silent: ByLoadBalancer<BackendId, HealthState>,
    /// Members that nobody declared, by pool.
    pub members: Members,
}
