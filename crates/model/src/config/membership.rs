//! Members of a pool beside those that are declared, and who says that they live.

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
        }
    }
}

/// Where members are looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discovery {
    /// In a file, one member a line or as JSON.
    File(PathBuf),
}

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
