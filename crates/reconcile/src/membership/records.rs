//! What stands in the store of members that register themselves.
//!
//! - `members/LB/POOL/ADDRESS`: what an instance said of itself, [`MemberRecord`]. Facts only: written when it is new or
//!   says something else, never because it is still there.
//! - `beats/TELLER`: whom a node has heard since it last told, [`Beats`]. It hangs on a lease of that node. Who tells is
//!   one life of a process ([`teller`]): two of one node's name are two.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::config::Name;
use model::state::{BackendId, Listed, PoolKey};
use serde::{Deserialize, Serialize};

use crate::cluster::incarnation;

/// What an instance said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Share relative to the others.
    pub weight: u32,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// It wants no new requests.
    #[serde(default)]
    pub draining: bool,
    /// It is gone when it was silent for so long, in milliseconds.
    pub ttl_ms: u64,
    /// The number of its membership: one that left and came back has another.
    pub life: u64,
}

impl MemberRecord {
    /// Of what it said.
    pub fn of(listed: &Listed, ttl_ms: u64) -> Self {
        Self {
            weight: listed.weight,
            zone: listed.zone.clone(),
            draining: listed.draining,
            ttl_ms,
            life: listed.life,
        }
    }

    /// What it said; how busy it is stands in no record.
    pub fn listed(&self, load: Option<u8>) -> Listed {
        Listed {
            weight: self.weight,
            zone: self.zone.clone(),
            draining: self.draining,
            load,
            life: self.life,
        }
    }
}

/// Below the store's prefix: where a member's record stands.
pub fn member_path(backend: &BackendId) -> String {
    format!("members/{backend}")
}

/// Whose record stands at a path below the store's prefix.
pub fn member_backend(path: &str) -> Option<BackendId> {
    let mut parts = path.strip_prefix("members/")?.splitn(3, '/');
    let mut next = || parts.next();
    Some(BackendId {
        load_balancer: Name::parse(next()?).ok()?,
        pool: Name::parse(next()?).ok()?,
        address: next()?.parse().ok()?,
    })
}

/// By which name a process of this node tells: no other one has it; `random` is another number with each start.
pub fn teller(node: &Name, random: u64) -> Name {
    incarnation(node, random)
}

/// Below the store's prefix: where somebody tells whom he has heard.
pub fn beats_path(teller: &Name) -> String {
    format!("beats/{teller}")
}

/// Who tells at a path below the store's prefix.
pub fn beats_teller(path: &str) -> Option<Name> {
    Name::parse(path.strip_prefix("beats/")?).ok()
}

/// One who was heard: how many milliseconds before the telling, and how busy he said he is, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said(pub u64, #[serde(default)] pub Option<u8>);

type OfPools = BTreeMap<Name, BTreeMap<Name, BTreeMap<SocketAddr, Said>>>;

/// Whom a node has heard since it last told; nobody is an answer, too: that it could hear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beats {
    /// Members that register themselves, by load balancer, pool and address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: OfPools,
    /// Other backends, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    backends: OfPools,
}

impl Beats {
    /// Adds one.
    pub fn say(&mut self, registered: bool, (lb, pool): &PoolKey, address: SocketAddr, said: Said) {
        let kind = if registered {
            &mut self.members
        } else {
            &mut self.backends
        };
        let pools = kind.entry(lb.clone()).or_default();
        pools.entry(pool.clone()).or_default().insert(address, said);
    }

    /// All of one kind.
    pub fn of(&self, registered: bool) -> impl Iterator<Item = (PoolKey, SocketAddr, Said)> {
        let kind = if registered { &self.members } else { &self.backends };
        kind.iter().flat_map(|(lb, pools)| {
            pools.iter().flat_map(move |(pool, heard)| {
                heard
                    .iter()
                    .map(move |(address, said)| ((lb.clone(), pool.clone()), *address, *said))
            })
        })
    }

    /// How many were heard.
    pub fn len(&self) -> usize {
        self.of(true).count() + self.of(false).count()
    }

    /// Whether nobody was.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.backends.is_empty()
    }
}
