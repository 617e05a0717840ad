//! Operators' orders about routes: other weights for the pools of a split.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{OfLoadBalancer, Timestamp};
use crate::config::{Config, Name, RouteTarget, Split};

/// A route of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Load balancer.
    pub load_balancer: Name,
    /// Route.
    pub route: Name,
}

impl OfLoadBalancer for RouteKey {
    fn load_balancer(&self) -> &Name {
        &self.load_balancer
    }
}

impl RouteKey {
    /// The split of this route; `None` when there is no such route, or it leads to one place.
    pub fn split<'c>(&self, config: &'c Config) -> Option<&'c Split> {
        let lb = config.load_balancers.get(&self.load_balancer)?;
        let route = lb.routes.iter().find(|route| route.name == self.route)?;
        match &route.target {
            RouteTarget::Split(split) => Some(split),
            RouteTarget::Pool(_) | RouteTarget::Redirect(_) | RouteTarget::Respond(_) => None,
        }
    }
}

impl std::fmt::Display for RouteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.load_balancer, self.route)
    }
}

/// An operator's standing order for the weights of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteOrder {
    /// Weights by pool instead of the configured ones; a pool that is not named has none.
    pub weights: BTreeMap<Name, u32>,
    /// Who ordered it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// When it lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl RouteOrder {
    /// The weight of a pool under this order.
    pub fn weight(&self, pool: &Name) -> u32 {
        self.weights.get(pool).copied().unwrap_or(0)
    }

    /// Whether it can be followed: it names pools of the split only, and one at least gets requests.
    pub fn fits(&self, split: &Split) -> bool {
        self.weights.values().any(|weight| *weight > 0)
            && self
                .weights
                .keys()
                .all(|pool| split.parts.iter().any(|part| part.pool == *pool))
    }
}

/// An operator's order for a route, as it arrives over the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWeights {
    /// For which route.
    pub key: RouteKey,
    /// Weights by pool; `None`: as configured again.
    pub weights: Option<BTreeMap<Name, u32>>,
    /// For how long; `None`: until another order.
    pub lasts: Option<Duration>,
    /// Who says so.
    pub by: String,
}

impl RouteWeights {
    /// What stands after it; `None`: nothing any more.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> Option<RouteOrder> {
        Some(RouteOrder {
            weights: self.weights.clone()?,
            by: self.by.clone(),
            since: now,
            expires: self.lasts.map(|lasts| now.plus(lasts)),
        })
    }
}
