//! From a request to its pool: the route that takes it, and where that leads.

use std::net::IpAddr;

use balance::{Rng, Split};
use http::RequestHead;
use http::route::{Facts, is_credential};
use model::config::{HashKey, LoadBalancer, Name, RouteTarget, SplitPart};
use model::state::RouteOrder;

use crate::serving::{LbServing, ListenerServing};
use crate::shard::Shard;

/// Where the requests of a route go, by index into the pools of the load balancer.
#[derive(Debug)]
pub(crate) enum Target {
    Pool(usize),
    /// An answer of our own: no pool is asked.
    Answer,
    Split {
        split: Split,
        key: Option<HashKey>,
        /// Index of the pool of each part.
        pools: Vec<usize>,
        /// Name and weight of each part, for whoever asks.
        shares: Vec<(Name, u32)>,
    },
}

impl Target {
    /// The target of a route as configured, or with the weights that an operator ordered.
    pub(crate) fn new(
        target: &RouteTarget,
        order: Option<&RouteOrder>,
        pool: impl Fn(&Name) -> Option<usize>,
    ) -> Self {
        // The config is parsed to valid: every route's pool exists.
        let index = |name: &Name| pool(name).unwrap_or(0);
        match target {
            RouteTarget::Pool(pool) => Self::Pool(index(pool)),
            RouteTarget::Redirect(_) | RouteTarget::Respond(_) => Self::Answer,
            RouteTarget::Split(split) => {
                let weight = |part: &SplitPart| order.map_or(part.weight, |order| order.weight(&part.pool));
                let shares: Vec<(Name, u32)> = split
                    .parts
                    .iter()
                    .map(|part| (part.pool.clone(), weight(part)))
                    .collect();
                Self::Split {
                    split: Split::new(shares.iter().map(|(pool, weight)| (pool.as_str(), *weight))),
                    key: split.key.clone(),
                    pools: split.parts.iter().map(|part| index(&part.pool)).collect(),
                    shares,
                }
            }
        }
    }

    /// Index of the pool for this request.
    pub(crate) fn pool(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<usize> {
        match self {
            Self::Pool(pool) => Some(*pool),
            Self::Answer => None,
            Self::Split {
                split, key, pools, ..
            } => {
                let part = match key {
                    Some(key) => split.of_key(hash_of(key, head, bytes, || facts.client())),
                    None => split.random(rng),
                };
                part.and_then(|part| pools.get(part)).copied()
            }
        }
    }
}

impl Target {
    /// How a split shares this request out, in words.
    pub(crate) fn words(&self, head: &RequestHead, bytes: &[u8], client: IpAddr) -> Option<String> {
        match self {
            Self::Pool(_) | Self::Answer => None,
            Self::Split { key, shares, .. } => {
                let by = match key {
                    Some(key) => format!("by {}", key_words(key, head, bytes, client)),
                    None => "at random: the next request may go elsewhere".to_owned(),
                };
                let shares: Vec<String> = shares
                    .iter()
                    .map(|(pool, weight)| format!("{pool} {weight}"))
                    .collect();
                Some(format!("{}; {by}", shares.join(", ")))
            }
        }
    }
}

/// The targets of all routes, in their order.
pub(crate) fn targets(
    config: &LoadBalancer,
    order: impl Fn(&Name) -> Option<std::sync::Arc<RouteOrder>>,
    pool: impl Fn(&Name) -> Option<usize>,
) -> Vec<Target> {
    let routes = config.routes.iter();
    routes
        .map(|route| Target::new(&route.target, order(&route.name).as_deref(), &pool))
        .collect()
}

/// Index of the route that takes a request from `peer`, and of the pool that it leads to.
pub(crate) fn route(
    shard: &Shard,
    serving: &ListenerServing,
    head: &RequestHead,
    bytes: &[u8],
    peer: IpAddr,
) -> (Option<usize>, Option<usize>) {
    let look_up = |address| shard.shared.geo.look_up(address);
    let trusted = &serving.config.trusted_proxies;
    let facts = Facts::new(head, bytes, peer, trusted, &look_up);
    pick(&serving.lb, head, bytes, &facts, &mut shard.rng.borrow_mut())
}

/// The same of known facts.
pub(crate) fn pick(
    lb: &LbServing,
    head: &RequestHead,
    bytes: &[u8],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> (Option<usize>, Option<usize>) {
    let route = lb.router.find(facts);
    let target = route.and_then(|route| lb.targets.get(route));
    (
        route,
        target.and_then(|target| target.pool(head, bytes, facts, rng)),
    )
}

/// The hash of what a key names in a request; of the client's address where it names nothing there.
pub(crate) fn hash_of(
    key: &HashKey,
    head: &RequestHead,
    bytes: &[u8],
    client: impl FnOnce() -> IpAddr,
) -> u64 {
    value_of(key, head, bytes).map_or_else(|| hash_address(client()), balance::hash)
}

/// What a key names in a request, in words. The value of a cookie, or of a field that lets somebody in, is not told:
/// who reads the words is not always who has it.
pub(crate) fn key_words(key: &HashKey, head: &RequestHead, bytes: &[u8], client: IpAddr) -> String {
    let what = match key {
        HashKey::ClientAddress => return format!("client address = {client}"),
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Path => "path".to_owned(),
        HashKey::Query(name) => format!("query parameter {name}"),
    };
    let is_secret = match key {
        HashKey::Cookie(_) => true,
        HashKey::Header(name) => is_credential(name),
        _ => false,
    };
    match value_of(key, head, bytes) {
        Some(value) if is_secret => format!("{what} = {} bytes that are not shown", value.len()),
        Some(value) => format!("{what} = {:?}", String::from_utf8_lossy(value)),
        None => format!("{what} is absent: client address = {client}"),
    }
}

/// What a key names in a request.
fn value_of<'a>(key: &HashKey, head: &'a RequestHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    match key {
        HashKey::ClientAddress => None,
        HashKey::Header(name) => head.field(bytes, name),
        HashKey::Cookie(name) => head.cookie(bytes, name),
        HashKey::Path => Some(head.path(bytes)),
        HashKey::Query(name) => head.query_parameter(bytes, name),
    }
}

/// The hash by which an address is spread; IPv4-mapped addresses count as IPv4.
pub(crate) fn hash_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(a) => balance::hash(&a.octets()),
        IpAddr::V6(a) => balance::hash(&a.octets()),
    }
}
