//! A zone that changes, servers of it that do not know of that yet, resolvers that keep answers, a network that loses
//! and a clock that goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use domain::base::iana::{Rcode, Rtype};
use sim::Random;

use super::server::{Answer, Data, Record};

pub(crate) const NAME: &str = "app.internal";
/// What the name is an alias of, at times.
const REAL: &str = "real.internal";
const TARGETS: [&str; 4] = ["a.internal", "b.internal", "c.internal", "d.internal"];
/// In the zone from beginning to end.
const STEADY: u8 = 2;
/// Longest that a resolver takes for an answer that comes.
const SLOWEST_MS: u64 = 300;

/// A record of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// `.` says that there is no such service.
    pub(crate) target: &'static str,
}

/// What a name has of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Addresses(Vec<IpAddr>),
    Services(Vec<Service>),
    /// It is an alias of [`REAL`].
    Alias,
    NoRecords,
    NoName,
}

/// One answer of a server of the zone, as it is told out of a cache.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// No two answers of a server of the zone have the same one.
    pub(crate) id: u64,
    pub(crate) owner: &'static str,
    pub(crate) kind: Rtype,
    pub(crate) what: What,
    /// As it is told, in seconds.
    pub(crate) ttl: u32,
}

#[derive(Clone, Debug)]
struct Cached {
    told: Told,
    until_ms: u64,
}

/// What goes wrong in this run, in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Of exchanges.
    pub(crate) trouble: u64,
    /// Of answers of the zone's servers: they know less than there is.
    pub(crate) ignorance: u64,
    /// Of steps, in which the zone changes.
    pub(crate) change: u64,
    /// TTLs are below this, in seconds; above a year any TTL may be told, also such as mean nothing.
    pub(crate) ttl: (u64, u64),
    /// One address is there for one answer, and not for the next.
    pub(crate) flaps: bool,
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let ttls = [(0, 1), (0, 4), (1, 61), (1, 61), (1, 700), (0, 1 << 33)];
        let mut one_of = |list: &[u64]| list[random.below(list.len() as u64) as usize];
        Self {
            trouble: one_of(&[0, 100, 300, 500, 800]),
            ignorance: one_of(&[0, 0, 30, 100, 300]),
            change: one_of(&[50, 300, 700]),
            ttl: ttls[one_of(&[0, 1, 2, 3, 4, 5]) as usize],
            flaps: one_of(&[0, 0, 0, 1]) == 1,
        }
    }

    /// From now on all goes well, and nothing changes.
    pub(crate) const FAIR: Self = Self {
        trouble: 0,
        ignorance: 0,
        change: 0,
        ttl: (30, 61),
        flaps: false,
    };
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) weather: Weather,
    /// What everybody but the machine calls the time.
    now_ms: u64,
    /// For so long the machine was suspended: its clock stood still.
    asleep_ms: u64,
    /// By so many millionths its clock is fast, plus a million.
    pace: u64,
    /// Octets of addresses by the name that has them: below 20 of IPv4, from there on of IPv6.
    addresses: BTreeMap<&'static str, BTreeSet<u8>>,
    services: Vec<Service>,
    is_alias: bool,
    caches: Vec<BTreeMap<(&'static str, Rtype), Cached>>,
    answers: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let owners = [REAL].into_iter().chain(TARGETS);
        let some = |owner| (owner, BTreeSet::from([STEADY, 20 + STEADY]));
        let mut world = Self {
            weather: Weather::of(&mut random),
            now_ms: random.below(1 << 40),
            asleep_ms: 0,
            // Clocks that are steered go wrong by no more than that, seen by others that do so, too.
            pace: random.within(995_000, 1_005_001),
            addresses: owners.map(some).collect(),
            services: Vec::new(),
            is_alias: random.chance(200),
            caches: vec![BTreeMap::new(); 3],
            answers: 0,
            random,
        };
        for _ in 0..4 {
            world.change();
        }
        world
    }

    /// What the machine calls the time.
    pub(crate) fn machine_ms(&self) -> u64 {
        let awake = u128::from(self.now_ms - self.asleep_ms) * u128::from(self.pace);
        u64::try_from(awake / 1_000_000).unwrap()
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Time passes, and the machine does not notice.
    pub(crate) fn suspend(&mut self, ms: u64) {
        self.now_ms += ms;
        self.asleep_ms += ms;
    }

    /// Time passes until the machine's clock says so.
    pub(crate) fn pass_until(&mut self, machine_ms: u64) {
        while self.machine_ms() < machine_ms {
            self.now_ms += (machine_ms - self.machine_ms()) * 99 / 100 + 1;
        }
    }

    /// Who may be asked: some of the resolvers in any order, and at times nobody.
    pub(crate) fn servers(&mut self) -> Vec<SocketAddr> {
        let count = self.caches.len() as u64;
        if self.weather.trouble == 0 {
            return (0..count).map(server).collect();
        }
        let (first, many) = (self.random.below(count), self.random.below(count + 1));
        (0..many).map(|n| server((first + n) % count)).collect()
    }

    /// Somebody changes the zone.
    pub(crate) fn change(&mut self) {
        let owners = [REAL, TARGETS[0], TARGETS[1], TARGETS[2], TARGETS[3]];
        let owner = owners[self.random.below(5) as usize];
        let family = 20 * self.random.below(2);
        let octet = u8::try_from(family + self.random.within(STEADY.into(), 10)).unwrap();
        let there = self.addresses.get_mut(owner).unwrap();
        if !there.remove(&octet) {
            there.insert(octet);
        }
        if self.random.chance(50) {
            self.is_alias = !self.is_alias;
        }
        if self.random.chance(20) {
            self.services.clear();
        } else if self.services.len() > 5 || !self.services.is_empty() && self.random.chance(400) {
            let gone = self.random.below(self.services.len() as u64) as usize;
            self.services.remove(gone);
        } else {
            let target = match self.random.chance(50) {
                true => ".",
                false => TARGETS[self.random.below(4) as usize],
            };
            self.services.push(Service {
                priority: u16::try_from(self.random.below(2)).unwrap(),
                weight: [0, 1, 2, 100, u16::MAX][self.random.below(5) as usize],
                port: u16::try_from(self.random.within(80, 83)).unwrap(),
                target,
            });
        }
    }

    /// What there is, for who asks now and is told the truth.
    pub(crate) fn truth(&self, owner: &'static str, kind: Rtype) -> What {
        let octets = match owner {
            NAME if kind == Rtype::SRV => return What::Services(self.services.clone()),
            NAME if self.is_alias => return What::Alias,
            NAME => &self.addresses[REAL],
            owner => &self.addresses[owner],
        };
        let wanted = |octet: &&u8| (**octet < 20) == (kind == Rtype::A);
        What::Addresses(octets.iter().filter(wanted).map(|n| of_octet(*n)).collect())
    }

    /// What is told of all that belongs to the name, if everybody tells the truth.
    pub(crate) fn all_of_it(&self) -> Vec<Told> {
        let mut all = Vec::new();
        for owner in [NAME, REAL].into_iter().chain(TARGETS) {
            for kind in [Rtype::A, Rtype::AAAA, Rtype::SRV] {
                if kind == Rtype::SRV && owner != NAME {
                    continue;
                }
                all.push(Told {
                    id: 0,
                    owner,
                    kind,
                    what: self.truth(owner, kind),
                    ttl: 0,
                });
            }
        }
        all
    }

    /// For how long anybody may go on telling what is not true any more.
    pub(crate) fn cached_for_ms(&self) -> u64 {
        let all = self.caches.iter().flat_map(BTreeMap::values);
        let until = all.map(|cached| cached.until_ms).max().unwrap_or_default();
        until.saturating_sub(self.now_ms)
    }

    pub(crate) fn empty_caches(&mut self) {
        self.caches.iter_mut().for_each(BTreeMap::clear);
    }

    /// A server of the zone answers; what it says, and for how many seconds that holds.
    fn ask_zone(&mut self, owner: &'static str, kind: Rtype) -> (What, u64) {
        let mut what = self.truth(owner, kind);
        let flapped = self.weather.flaps && self.random.chance(500);
        match &mut what {
            What::Addresses(there) if flapped => there.retain(|ip| *ip != of_octet(STEADY)),
            _ => {}
        }
        if self.random.chance(self.weather.ignorance) {
            match (self.random.below(3), &mut what) {
                (0, _) => what = What::NoName,
                (1, What::Addresses(there)) => there.truncate(1),
                (_, What::Services(there)) => there.truncate(1),
                _ => what = What::NoRecords,
            }
        }
        let is_empty = match &what {
            What::Addresses(there) => there.is_empty(),
            What::Services(there) => there.is_empty(),
            _ => false,
        };
        if is_empty {
            what = [What::NoRecords, What::NoName][self.random.below(2) as usize].clone();
        }
        let (from, to) = self.weather.ttl;
        (what, self.random.within(from, to))
    }

    /// What a resolver says of a name: out of its cache while that holds.
    fn look_up(&mut self, resolver: usize, owner: &'static str, kind: Rtype) -> Told {
        let key = (owner, kind);
        let cached = self.caches[resolver].get(&key).cloned();
        if let Some(Cached { mut told, until_ms }) = cached.filter(|cached| cached.until_ms > self.now_ms) {
            told.ttl = u32::try_from((until_ms - self.now_ms) / 1000).unwrap();
            return told;
        }
        // The last one asks the first, and keeps what that says.
        if resolver == 2 {
            let told = self.look_up(0, owner, kind);
            self.keep(resolver, told.clone());
            return told;
        }
        let (what, ttl) = self.ask_zone(owner, kind);
        self.answers += 1;
        let told = Told {
            id: self.answers,
            owner,
            kind,
            what,
            ttl: u32::try_from(ttl).unwrap_or(u32::MAX),
        };
        self.keep(resolver, told.clone());
        told
    }

    fn keep(&mut self, resolver: usize, told: Told) {
        let key = (told.owner, told.kind);
        // A TTL with the topmost bit is none (RFC 2181). What is told is rounded down.
        if i32::try_from(told.ttl).is_ok() {
            let late_ms = if told.ttl == 0 { 0 } else { self.random.below(1000) };
            let until_ms = self.now_ms + u64::from(told.ttl) * 1000 + late_ms;
            self.caches[resolver].insert(key, Cached { told, until_ms });
        }
    }

    /// A resolver answers a question: the message, and what is in it.
    pub(crate) fn resolve(&mut self, who: SocketAddr, owner: &str, kind: Rtype) -> (Answer, Vec<Told>) {
        self.now_ms += self.random.below(SLOWEST_MS);
        let resolver = (0..3).find(|n| server(*n) == who).unwrap() as usize;
        let known = [NAME, REAL]
            .into_iter()
            .chain(TARGETS)
            .find(|known| *known == owner);
        let mut told = vec![self.look_up(resolver, known.unwrap(), kind)];
        // Some say only what it is an alias of.
        if told[0].what == What::Alias && self.random.chance(800) {
            told.push(self.look_up(resolver, REAL, kind));
        }
        let mut answer = Answer::default();
        for told in &told {
            write(told, &mut answer);
        }
        for Service { target, .. } in services(&told) {
            for kind in [Rtype::A, Rtype::AAAA] {
                let already = told.iter().any(|t| t.owner == target && t.kind == kind);
                if target == "." || already || !self.random.chance(500) {
                    continue;
                }
                let address = self.look_up(resolver, target, kind);
                if let What::Addresses(there) = &address.what {
                    answer.additional.extend(of_addresses(&address, there));
                    told.push(address);
                }
            }
        }
        (answer, told)
    }
}

pub(crate) fn server(n: u64) -> SocketAddr {
    ([10, 0, 0, u8::try_from(n).unwrap()], 53).into()
}

fn services(told: &[Told]) -> Vec<Service> {
    let of = |told: &Told| match &told.what {
        What::Services(services) => services.clone(),
        _ => Vec::new(),
    };
    told.iter().flat_map(of).collect()
}

fn of_octet(octet: u8) -> IpAddr {
    match octet {
        0..20 => Ipv4Addr::new(10, 1, 0, octet).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, octet.into()).into(),
    }
}

fn of_addresses<'a>(told: &'a Told, there: &'a [IpAddr]) -> impl Iterator<Item = Record> + 'a {
    there.iter().map(|ip| (told.owner, told.ttl, Data::Address(*ip)))
}

fn write(told: &Told, answer: &mut Answer) {
    match &told.what {
        What::Addresses(there) => answer.answer.extend(of_addresses(told, there)),
        What::Services(there) => answer.answer.extend(there.iter().map(|service| {
            let Service {
                priority,
                weight,
                port,
                target,
            } = *service;
            (told.owner, told.ttl, Data::Srv(priority, weight, port, target))
        })),
        What::Alias => answer.answer.push((told.owner, told.ttl, Data::Cname(REAL))),
        What::NoRecords => answer.soa = Some(told.ttl),
        What::NoName => {
            answer.soa = Some(told.ttl);
            answer.rcode = Rcode::NXDOMAIN;
        }
    }
}
