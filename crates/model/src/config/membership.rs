//! Members of a pool beside those that are declared, and who says that they live.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{IpNet, TokenHash};
use crate::state::Source;

/// Where a pool's further members come from, and how they tell that they live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// They are looked up.
    pub discovery: Option<Discovery>,
    /// They register themselves.
    pub registration: Option<Registration>,
    /// They say again and again that they live.
    pub heartbeat: Option<Heartbeat>,
}

impl Membership {
    /// Whether the pool may have members that are not declared.
    pub fn is_dynamic(&self) -> bool {
        self.discovery.is_some() || self.registration.is_some()
    }

    /// Whether this source is asked for members.
    pub fn asks(&self, source: Source) -> bool {
        match source {
            Source::Declared => true,
            Source::Registered => self.registration.is_some(),
            Source::File => matches!(self.discovery, Some(Discovery::File(_))),
            Source::Dns => matches!(self.discovery, Some(Discovery::Dns(_))),
        }
    }
}

/// Where members are looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discovery {
    /// In a file, one member a line or as JSON.
    File(PathBuf),
    /// Under a name of the DNS.
    Dns(DnsLookup),
}

/// A name whose records are members, and how it is looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsLookup {
    /// The whole name, in lower case, without the dot at its end.
    pub name: String,
    /// What it has.
    pub records: DnsRecords,
    /// Whom to ask; empty: the name servers of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// Least time that an answer holds, whatever it says.
    pub min_ttl: Duration,
    /// Longest time that an answer holds, whatever it says.
    pub max_ttl: Duration,
    /// How long one server may take to answer.
    pub timeout: Duration,
    /// Times that a question is asked, by all servers together.
    pub attempts: u32,
}

impl DnsLookup {
    /// How the records are called in the config.
    pub fn type_name(&self) -> &'static str {
        match self.records {
            DnsRecords::Addresses(AddressFamily::Both, _) => "ip",
            DnsRecords::Addresses(AddressFamily::V4, _) => "a",
            DnsRecords::Addresses(AddressFamily::V6, _) => "aaaa",
            DnsRecords::Srv => "srv",
        }
    }

    /// The port of members, where their records have none.
    pub fn port(&self) -> Option<u16> {
        match self.records {
            DnsRecords::Addresses(_, port) => Some(port),
            DnsRecords::Srv => None,
        }
    }

    /// The same whatever port the members listen on: pools that differ in nothing else share a lookup.
    pub fn without_port(&self) -> Self {
        let records = match self.records {
            DnsRecords::Addresses(family, _) => DnsRecords::Addresses(family, 0),
            DnsRecords::Srv => DnsRecords::Srv,
        };
        Self {
            records,
            ..self.clone()
        }
    }
}

/// Records that name members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsRecords {
    /// A and AAAA: addresses, all with this port.
    Addresses(AddressFamily, u16),
    /// SRV: names of servers, with ports and weights.
    Srv,
}

/// Which addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// A and AAAA.
    Both,
    /// A.
    V4,
    /// AAAA.
    V6,
}

/// Default of `discovery.dns.min_ttl`.
pub const DEFAULT_MIN_TTL: Duration = Duration::from_secs(5);
/// Default of `discovery.dns.max_ttl`.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(300);
/// Default of `discovery.dns.timeout`.
pub const DEFAULT_DNS_TIMEOUT: Duration = Duration::from_secs(2);
/// Default of `discovery.dns.attempts`.
pub const DEFAULT_DNS_ATTEMPTS: u32 = 3;
/// Most `discovery.dns.resolvers`.
pub const MAX_RESOLVERS: usize = 8;

/// How members register themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Who has this token may register members of this pool.
    pub token: TokenHash,
    /// How long a member that says nothing stays, where it does not ask for another time.
    pub ttl: Duration,
    /// Most members that may be registered.
    pub max: u32,
    /// Addresses that may be registered; empty: all but loopback and link-local ones.
    pub allow: Vec<IpNet>,
}

impl Registration {
    /// Whether requests may be sent there because somebody with the token says so.
    pub fn allows(&self, ip: std::net::IpAddr) -> bool {
        let link_local = match ip {
            std::net::IpAddr::V4(v4) => v4.is_link_local(),
            std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match self.allow.is_empty() {
            true => !ip.is_loopback() && !link_local,
            false => self.allow.iter().any(|net| net.contains(ip)),
        }
    }
}

/// Default of `registration.ttl` and `heartbeat.timeout`.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(15);
/// Default of `registration.max`.
pub const DEFAULT_MAX_REGISTERED: u32 = 1000;

/// How members that did not register tell that they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who has this token may say so.
    pub token: TokenHash,
    /// Who is silent for longer is down.
    pub timeout: Duration,
}
