//! Members of pools that nobody declared: found by discovery, or registered by themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BackendId, ByLoadBalancer, OfLoadBalancer, Timestamp};
use crate::config::{Membership, Name};

/// Where a member was learnt of, in order of precedence: where two name one address, the first one's word counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `backend_servers` of the config.
    #[default]
    Declared,
    /// It registered itself.
    Registered,
    /// A file of members.
    File,
    /// A name of the DNS.
    Dns,
}

impl Source {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Declared, Self::Registered, Self::File, Self::Dns];

    /// The name in API, metrics and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Registered => "registered",
            Self::File => "file",
            Self::Dns => "dns",
        }
    }
}

/// A member as a source names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Share relative to the others: 0 to [`crate::config::MAX_WEIGHT`].
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<Name>,
    /// It wants no new requests.
    pub draining: bool,
    /// How busy it says it is, in percent. Shown, and part of nothing that is served: it changes all the time.
    pub load: Option<u8>,
    /// The number of its membership, where its source counts them: one that left and came back has another, and proves
    /// itself anew.
    pub life: u64,
}

impl Default for Listed {
    /// Nothing is said but that it is there.
    fn default() -> Self {
        Self {
            weight: 1,
            zone: None,
            draining: false,
            load: None,
            life: 0,
        }
    }
}

/// A member that nobody declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Who says so.
    pub source: Source,
    /// Share relative to the others: 0 to [`crate::config::MAX_WEIGHT`].
    pub weight: u32,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// Since when it wants no new requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Timestamp>,
    /// Since when it is a member.
    pub since: Timestamp,
    /// Seen to work as a member of this pool: a check has succeeded, now or before a restart. Until then it takes no
    /// requests where there are checks.
    #[serde(default)]
    pub proven: bool,
    /// The number of its membership: [`Listed::life`].
    #[serde(default)]
    pub life: u64,
}

impl Found {
    /// The same as its source names it, but for how busy it is.
    pub fn listed(&self) -> Listed {
        Listed {
            weight: self.weight,
            zone: self.zone.clone(),
            draining: self.draining.is_some(),
            load: None,
            life: self.life,
        }
    }

    /// Whether `after`, found at the same address, is another member, of which nothing is known that was found of this
    /// one. Where another source names the address now, it may well be the same.
    pub fn is_followed_by(&self, after: &Self) -> bool {
        self.source == after.source && self.life != after.life
    }
}

/// What one source says of one pool, whole: what is not in it is not a member any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Load balancer.
    pub load_balancer: Name,
    /// Pool.
    pub pool: Name,
    /// Who says so.
    pub source: Source,
    /// The members; `None`: as they were.
    pub members: Option<Arc<BTreeMap<SocketAddr, Listed>>>,
    /// Why the members are those of an earlier time: the source cannot be asked, or says nonsense.
    pub stale: Option<String>,
    /// Members that the source names beyond what it may.
    pub left_out: usize,
}

/// A member that fell silent, or is heard again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Which.
    pub backend: BackendId,
    /// For how long it may be silent, when it is silent now.
    pub silent: Option<Duration>,
}

/// What a member asks for over the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// To be a member, for so long; `None`: as long as the pool says.
    Register(Listed, Option<Duration>),
    /// To be none any more.
    Leave,
    /// To be known to live.
    Beat,
}

/// All of them, by load balancer and pool.
pub type Members = ByLoadBalancer<PoolKey, Arc<PoolMembers>>;

/// A load balancer and one of its pools.
pub type PoolKey = (Name, Name);

impl OfLoadBalancer for PoolKey {
    fn load_balancer(&self) -> &Name {
        &self.0
    }
}

/// The members of one pool by who names them, as last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolMembers {
    /// By source.
    pub sources: BTreeMap<Source, SourceState>,
}

/// What a source last said of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// The members.
    pub members: Arc<BTreeMap<SocketAddr, Found>>,
    /// Why they are those of an earlier time, and since when that is so.
    pub stale: Option<(String, Timestamp)>,
    /// Members that it names beyond what it may.
    pub left_out: usize,
}

impl PoolMembers {
    /// Every member once that a source names which is asked, in order of address: where two name one, the first of
    /// [`Source`] counts.
    pub fn merged(&self, asked: &Membership) -> BTreeMap<SocketAddr, &Found> {
        let mut merged = BTreeMap::new();
        let states = self.sources.iter().filter(|(source, _)| asked.asks(**source));
        for (_, state) in states.rev() {
            merged.extend(state.members.iter().map(|(address, found)| (*address, found)));
        }
        merged
    }

    /// Every address that a source names, some perhaps twice.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sources
            .values()
            .flat_map(|state| state.members.keys().copied())
    }

    /// Whether any source names this address.
    pub fn has(&self, address: SocketAddr) -> bool {
        let mut states = self.sources.values();
        states.any(|state| state.members.contains_key(&address))
    }
}
