//! What must be known of a name, by what its zone and its resolvers have said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use domain::base::iana::Rtype;

use super::world::{NAME, Service, Told, What};

/// Longest that a cache is expected to keep an answer, or `max_ttl`, if that is longer.
const MAX_CACHED_MS: u64 = 3_600_000;

/// What all that was told in a look comes to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// With weights as the records have them.
    pub(crate) addresses: BTreeMap<SocketAddr, u32>,
    /// Nothing is missing.
    pub(crate) whole: bool,
    /// Of what was told, that which counts.
    pub(crate) told: Vec<Told>,
}

impl Found {
    /// The addresses of the name, without a port.
    pub(crate) fn addresses(kinds: &[Rtype], told: &[Told]) -> Self {
        let mut found = Self {
            whole: true,
            ..Self::default()
        };
        for kind in kinds {
            for ip in found.of(NAME, *kind, told) {
                found.addresses.insert((ip, 0).into(), 1);
            }
        }
        found
    }

    /// The services of the name, of the first priority only.
    pub(crate) fn services(told: &[Told]) -> Self {
        let mut found = Self {
            whole: true,
            ..Self::default()
        };
        let Some(own) = told.iter().find(|t| t.owner == NAME && t.kind == Rtype::SRV) else {
            return Self::default();
        };
        found.told.push(own.clone());
        let services: &[Service] = match &own.what {
            What::Services(services) => services,
            _ => &[],
        };
        let first = services.iter().map(|service| service.priority).min();
        let used = services
            .iter()
            .filter(|s| Some(s.priority) == first && s.target != ".");
        let targets: BTreeSet<&'static str> = used.clone().map(|service| service.target).collect();
        for target in targets {
            for kind in [Rtype::A, Rtype::AAAA] {
                for ip in found.of(target, kind, told) {
                    for service in used.clone().filter(|service| service.target == target) {
                        let address = SocketAddr::new(ip, service.port);
                        *found.addresses.entry(address).or_default() += u32::from(service.weight);
                    }
                }
            }
        }
        found
    }

    fn of(&mut self, owner: &str, kind: Rtype, told: &[Told]) -> Vec<IpAddr> {
        let mut owner = owner;
        loop {
            let Some(told) = told.iter().find(|t| t.owner == owner && t.kind == kind) else {
                self.whole = false;
                return Vec::new();
            };
            self.told.push(told.clone());
            match &told.what {
                What::Alias => owner = "real.internal",
                What::Addresses(there) => return there.clone(),
                _ => return Vec::new(),
            }
        }
    }

    /// For how long all of it holds, in seconds.
    pub(crate) fn ttl(&self) -> Option<u32> {
        self.told.iter().map(seconds).min()
    }

    /// What says whether there are addresses of this family.
    fn about(&self, v4: bool) -> impl Iterator<Item = &Told> {
        let other = if v4 { Rtype::AAAA } else { Rtype::A };
        self.told.iter().filter(move |told| told.kind != other)
    }
}

/// A time to live; one with the topmost bit is none (RFC 2181).
fn seconds(told: &Told) -> u32 {
    i32::try_from(told.ttl).map_or(0, |_| told.ttl)
}

/// A look that is over.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) began_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) found: Found,
}

/// A whole answer that did not have an address.
#[derive(Debug)]
struct Miss {
    /// From then on nobody repeats it.
    forgotten_ms: u64,
    /// Answers of the zone's servers that it was made of, but for those that may be kept for longer than is waited.
    answers: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Shadow {
    pub(crate) known: BTreeSet<SocketAddr>,
    /// Since it was found last, by address.
    misses: BTreeMap<SocketAddr, Vec<Miss>>,
    most_cached_ms: u64,
    pub(crate) left: u64,
    /// So often somebody was missing, and may have been so by the same answer as before.
    pub(crate) repeated: u64,
}

impl Shadow {
    /// Begins with these.
    pub(crate) fn new(known: BTreeSet<SocketAddr>, max_ttl_ms: u64) -> Self {
        Self {
            known,
            most_cached_ms: max_ttl_ms.max(MAX_CACHED_MS),
            ..Self::default()
        }
    }

    /// From when the last of those who are missing may be taken out.
    pub(crate) fn forgotten_ms(&self) -> u64 {
        let first = self.misses.values().filter_map(|misses| misses.first());
        first.map(|miss| miss.forgotten_ms).max().unwrap_or_default()
    }

    /// Whether those that are known `after` a look are those who must be.
    pub(crate) fn judge(&mut self, look: &Look, after: &BTreeSet<SocketAddr>) -> Result<(), String> {
        let found: BTreeSet<SocketAddr> = look.found.addresses.keys().copied().collect();
        self.misses.retain(|address, _| !found.contains(address));
        if let Some(new) = found.difference(after).next() {
            return Err(format!("{new} was found, and is not known"));
        }
        if let Some(stranger) = after
            .iter()
            .find(|a| !found.contains(a) && !self.known.contains(a))
        {
            return Err(format!("{stranger} was never found"));
        }
        let missing: Vec<SocketAddr> = self.known.difference(&found).copied().collect();
        for address in missing {
            let is_gone = !after.contains(&address);
            match look.found.whole {
                false if is_gone => return Err(format!("{address} has left by a failure")),
                false => {}
                true => self.missed(address, look, is_gone)?,
            }
        }
        self.known.clone_from(after);
        Ok(())
    }

    /// An address that was known is in none of the answers.
    fn missed(&mut self, address: SocketAddr, look: &Look, is_gone: bool) -> Result<(), String> {
        let about = || look.found.about(address.is_ipv4());
        let most = self.most_cached_ms;
        let cached_ms = |told: &Told| u64::from(seconds(told)) * 1000;
        let answers: BTreeSet<u64> = about()
            .filter(|t| cached_ms(t) <= most)
            .map(|told| told.id)
            .collect();
        let misses = self.misses.entry(address).or_default();
        if is_gone && misses.is_empty() {
            return Err(format!("{address} has left by one miss"));
        }
        if is_gone && !misses.iter().any(|miss| miss.answers.is_disjoint(&answers)) {
            return Err(format!("{address} has left by one answer that was read twice"));
        }
        let is_due = misses
            .first()
            .is_some_and(|miss| look.began_ms >= miss.forgotten_ms);
        if is_due && !is_gone {
            return Err(format!("{address} was missing twice, and has not left"));
        }
        if is_gone {
            self.left += 1;
            self.misses.remove(&address);
            return Ok(());
        }
        self.repeated += u64::from(!misses.is_empty());
        let longest_ms = about().map(cached_ms).max().unwrap_or_default().min(most);
        misses.push(Miss {
            // TTLs are rounded, by one resolver and by another before it, and clocks do not go alike.
            forgotten_ms: look.ended_ms + (longest_ms + 2_000) * 101 / 100,
            answers,
        });
        Ok(())
    }
}
