//! One look at a name: every question that it takes, one after the other.
//!
//! A question goes over UDP to one server at a time; one that is silent, or cannot say, is followed by the next.
//! Messages that do not fit the question are passed over: anybody can send them. An answer that says that it does not
//! fit into a datagram, and a flood of messages that do not fit, are followed by the same question over TCP.
//!
//! Each question has a number of its own at random. The caller gives each a port of its own too, and takes messages
//! from the server's address only (RFC 5452).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use domain::base::Name;
use model::config::{AddressFamily, DnsLookup, DnsRecords};
use model::parse::MAX_BACKENDS;

use super::message::{self, Answer, Data, DnsName, Good, Kind, MAX_ALIASES, Question, Service};
use crate::discovery::usable;

/// Questions of one look, besides those about what a name is an alias of; names of services beyond it are left out.
pub const MAX_QUESTIONS: usize = 512;
/// A look that takes longer ends as it is.
const MAX_LOOK_MS: u64 = 30_000;
/// Messages that do not fit, until the question is asked over TCP.
const MAX_STRANGERS: u8 = 8;
/// Stands for the port until it is known.
const NO_PORT: u16 = 1;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection, behind its length.
    Tcp,
}

/// A question to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whom to ask.
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
    /// What to send.
    pub message: Vec<u8>,
    /// How long to wait for the answer.
    pub timeout_ms: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The time is over.
    TimedOut,
    /// The server cannot be reached.
    Unreachable(String),
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Addresses, each with its weight as the records have it. Where the records have no port, it is 0.
    pub found: BTreeMap<SocketAddr, u32>,
    /// Addresses that are not taken: there is no room, or nothing can be reached there.
    pub left_out: usize,
    /// How long all of it holds, in seconds, where anything was said about that.
    pub ttl: Option<u32>,
    /// For how many seconds a cache may go on saying that other IPv4 addresses are not there.
    pub longest_v4: u32,
    /// The same of IPv6 addresses.
    pub longest_v6: u32,
    /// Servers of services, by the address that was found of them.
    pub servers: BTreeMap<SocketAddr, String>,
    /// Servers that were not asked for, each with whether it is for IPv4 addresses: there was no room. Of those who
    /// belong to them nothing is known.
    pub unasked: BTreeSet<(String, bool)>,
    /// When it was begun: no answer is older.
    pub begun_ms: u64,
    /// Why not every question was answered. Of what is missing in `found` nothing is known then.
    pub fault: Option<String>,
    /// Messages that were no answers to what was asked.
    pub strangers: u64,
    /// Who answered last.
    pub server: Option<SocketAddr>,
}

impl Outcome {
    /// A look that could not be made.
    pub fn failed(why: String) -> Self {
        Self {
            fault: Some(why),
            ..Self::default()
        }
    }
}

/// A look that is being made.
#[derive(Debug)]
pub struct Lookup {
    servers: Vec<SocketAddr>,
    /// Who is asked first: the one who answered last.
    first: usize,
    attempts: u32,
    timeout_ms: u64,
    until_ms: u64,
    todo: VecDeque<Question>,
    asked: usize,
    doing: Option<Doing>,
    /// Ports and weights of services, by the name of the server that has them.
    services: BTreeMap<DnsName, Vec<(u16, u16)>>,
    /// Whether a server has answered at all, though it could not say.
    heard: bool,
    outcome: Outcome,
}

/// The question that is being asked.
#[derive(Debug)]
struct Doing {
    question: Question,
    /// The name that the addresses are for: the question may be about what it is an alias of.
    of: DnsName,
    aliases: u8,
    id: u16,
    tries: u32,
    over_tcp: bool,
    strangers: u8,
    /// Whether a server has answered this one, though it could not say.
    heard: bool,
}

impl Lookup {
    /// A look at what `settings` say, by asking these servers, `first` one first.
    pub fn new(
        settings: &DnsLookup,
        servers: Vec<SocketAddr>,
        first: Option<SocketAddr>,
        now_ms: u64,
    ) -> Self {
        let first = servers.iter().position(|server| Some(*server) == first);
        let mut lookup = Self {
            servers,
            first: first.unwrap_or_default(),
            attempts: settings.attempts,
            timeout_ms: u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX),
            until_ms: now_ms.saturating_add(MAX_LOOK_MS),
            todo: VecDeque::new(),
            asked: 0,
            doing: None,
            services: BTreeMap::new(),
            heard: false,
            outcome: Outcome {
                begun_ms: now_ms,
                ..Outcome::default()
            },
        };
        let Ok(name) = Name::vec_from_str(&settings.name) else {
            lookup.outcome = Outcome::failed(format!("`{}` is no name", settings.name));
            return lookup;
        };
        let kinds: &[Kind] = match settings.records {
            DnsRecords::Addresses(AddressFamily::Both, _) => &[Kind::A, Kind::Aaaa],
            DnsRecords::Addresses(AddressFamily::V4, _) => &[Kind::A],
            DnsRecords::Addresses(AddressFamily::V6, _) => &[Kind::Aaaa],
            DnsRecords::Srv => &[Kind::Srv],
        };
        let name = &name;
        lookup.todo.extend(kinds.iter().map(|kind| Question {
            name: name.clone(),
            kind: *kind,
        }));
        lookup
    }

    /// What to ask next; `None`: the look is over.
    pub fn next(&mut self, now_ms: u64, rand: u64) -> Option<Exchange> {
        if self.doing.is_none() {
            let question = self.todo.pop_front()?;
            self.asked += 1;
            self.doing = Some(Doing::new(question.name.clone(), question));
        }
        if now_ms >= self.until_ms {
            let time = MAX_LOOK_MS / 1000;
            self.give_up(&format!("not every question was answered within {time} s"));
            return None;
        }
        let doing = self.doing.as_mut()?;
        let next = self
            .first
            .wrapping_add(usize::try_from(doing.tries).unwrap_or_default());
        let Some(server) = self.servers.get(next % self.servers.len().max(1)) else {
            self.give_up("there is no server to ask");
            return None;
        };
        doing.id = (rand & 0xffff) as u16;
        Some(Exchange {
            server: *server,
            transport: if doing.over_tcp {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            message: message::ask(doing.id, &doing.question),
            timeout_ms: self.timeout_ms.min(self.until_ms - now_ms),
        })
    }

    /// Takes a message of the server that was asked last. Says whether the exchange is over; it is not when this was
    /// no answer to it.
    pub fn heard(&mut self, bytes: &[u8]) -> bool {
        let Some(doing) = &mut self.doing else {
            return true;
        };
        let Some(answer) = message::read(bytes, doing.id, &doing.question) else {
            self.outcome.strangers += 1;
            doing.strangers += 1;
            if doing.strangers < MAX_STRANGERS {
                return false;
            }
            match doing.over_tcp {
                true => self.failed_with("answers something else than it is asked".to_owned()),
                false => doing.over_tcp = true,
            }
            return true;
        };
        (self.heard, doing.heard) = (true, true);
        match answer {
            Answer::Truncated if doing.over_tcp => {
                self.failed_with("cuts its answer short even over TCP".to_owned());
            }
            Answer::Truncated => doing.over_tcp = true,
            Answer::Fault(why) => self.failed_with(why),
            Answer::Good(good) => self.take(good),
        }
        true
    }

    /// The exchange has failed.
    pub fn failed(&mut self, why: Failure) {
        let over_tcp = self.doing.as_ref().is_some_and(|doing| doing.over_tcp);
        self.failed_with(match why {
            Failure::TimedOut if over_tcp => "does not answer over TCP".to_owned(),
            Failure::TimedOut => "does not answer".to_owned(),
            Failure::Unreachable(why) => format!("cannot be reached: {why}"),
        });
    }

    /// What came of it.
    pub fn outcome(self) -> Outcome {
        self.outcome
    }

    /// Tries the next server, or leaves the question unanswered.
    fn failed_with(&mut self, why: String) {
        let server = self.asked_last();
        let Some(doing) = &mut self.doing else {
            return;
        };
        doing.tries += 1;
        (doing.over_tcp, doing.strangers) = (false, 0);
        if doing.tries < self.attempts {
            return;
        }
        let (kind, name) = (doing.question.kind.as_str(), &doing.question.name);
        let who = server.map(|server| format!("{server} ")).unwrap_or_default();
        let fault = format!("{kind} of {name}: {who}{why}");
        if !self.heard {
            // Nobody is there to ask for anything else.
            self.give_up(&fault);
            return;
        }
        self.outcome.fault.get_or_insert(fault);
        if !doing.heard {
            // It waits in vain for those who have this name. They are silent about what else it has, too.
            let of = &doing.of;
            self.todo.retain(|question| question.name != *of);
        }
        self.doing = None;
    }

    fn asked_last(&self) -> Option<SocketAddr> {
        let tries = usize::try_from(self.doing.as_ref()?.tries).ok()?;
        let index = self.first.wrapping_add(tries) % self.servers.len().max(1);
        self.servers.get(index).copied()
    }

    fn give_up(&mut self, why: &str) {
        self.outcome.fault.get_or_insert_with(|| why.to_owned());
        self.doing = None;
        self.todo.clear();
    }

    fn take(&mut self, good: Good) {
        let server = self.asked_last();
        self.first = self
            .servers
            .iter()
            .position(|s| Some(*s) == server)
            .unwrap_or_default();
        self.outcome.server = server;
        let Some(doing) = self.doing.take() else {
            return;
        };
        self.hold_for(good.ttl);
        self.cached_for(doing.question.kind, good.longest);
        if let Some(alias) = good.alias {
            self.follow(doing, alias);
            return;
        }
        let mut services = Vec::new();
        for data in good.data {
            match data {
                Data::Address(ip) => self.add_of(&doing.of, ip),
                Data::Service(service) => services.push(service),
            }
        }
        if doing.question.kind == Kind::Srv {
            self.serve(services, good.more);
        }
    }

    fn hold_for(&mut self, ttl: Option<u32>) {
        self.outcome.ttl = self.outcome.ttl.into_iter().chain(ttl).min();
    }

    /// An answer may come out of a cache again for so long; one about services says for both families who is there.
    fn cached_for(&mut self, kind: Kind, seconds: u32) {
        let Outcome {
            longest_v4,
            longest_v6,
            ..
        } = &mut self.outcome;
        if kind != Kind::Aaaa {
            *longest_v4 = seconds.max(*longest_v4);
        }
        if kind != Kind::A {
            *longest_v6 = seconds.max(*longest_v6);
        }
    }

    /// Asks what the name is an alias of.
    fn follow(&mut self, doing: Doing, alias: DnsName) {
        if doing.aliases == MAX_ALIASES {
            let (kind, of) = (doing.question.kind.as_str(), &doing.of);
            let fault = format!("{kind} of {of}: more than {MAX_ALIASES} aliases (CNAME)");
            self.outcome.fault.get_or_insert(fault);
            return;
        }
        let question = Question {
            name: alias,
            kind: doing.question.kind,
        };
        self.doing = Some(Doing {
            aliases: doing.aliases + 1,
            ..Doing::new(doing.of, question)
        });
    }

    /// Takes the services of the group that is to be used first; their addresses are in `more`, or are asked for.
    fn serve(&mut self, services: Vec<Service>, more: Vec<(DnsName, IpAddr, u32)>) {
        let first = services.iter().map(|service| service.priority).min();
        for service in services.into_iter().filter(|s| Some(s.priority) == first) {
            // The root says that there is no such service.
            if !service.target.is_root() {
                let ports = self.services.entry(service.target).or_default();
                ports.push((service.port, service.weight));
            }
        }
        let mut told: BTreeMap<(DnsName, Kind), Vec<(IpAddr, u32)>> = BTreeMap::new();
        for (name, ip, ttl) in more {
            let kind = if ip.is_ipv4() { Kind::A } else { Kind::Aaaa };
            told.entry((name, kind)).or_default().push((ip, ttl));
        }
        let targets: Vec<DnsName> = self.services.keys().cloned().collect();
        for name in targets {
            for kind in [Kind::A, Kind::Aaaa] {
                let (name, kind) = match told.remove(&(name.clone(), kind)) {
                    None => (name.clone(), kind),
                    Some(addresses) => {
                        for (ip, ttl) in addresses {
                            self.hold_for(Some(ttl));
                            self.cached_for(kind, ttl);
                            self.add_of(&name, ip);
                        }
                        continue;
                    }
                };
                match self.asked + self.todo.len() < MAX_QUESTIONS {
                    true => self.todo.push_back(Question { name, kind }),
                    false => {
                        self.outcome.left_out += 1;
                        let v4 = kind == Kind::A;
                        self.outcome.unasked.insert((written(&name), v4));
                    }
                }
            }
        }
    }

    /// Takes an address: of the name itself, or of a server that services have named.
    fn add_of(&mut self, of: &DnsName, ip: IpAddr) {
        match self.services.get(of) {
            None => {
                self.add(SocketAddr::new(ip, NO_PORT), 1);
            }
            Some(ports) => {
                for (port, weight) in ports.clone() {
                    if let Some(address) = self.add(SocketAddr::new(ip, port), weight.into()) {
                        self.outcome.servers.insert(address, written(of));
                    }
                }
            }
        }
    }

    /// Says as what it was taken.
    fn add(&mut self, address: SocketAddr, weight: u32) -> Option<SocketAddr> {
        let with_port = !self.services.is_empty();
        // In an AAAA record an IPv4 address makes no sense: as such it would be asked for by the other question.
        let is_mapped = address.is_ipv6() && address.ip().to_canonical().is_ipv4();
        let Some(mut address) = usable(address).ok().filter(|_| !is_mapped) else {
            self.outcome.left_out += 1;
            return None;
        };
        if !with_port {
            address.set_port(0);
        }
        let found = &mut self.outcome.found;
        if found.len() >= MAX_BACKENDS && !found.contains_key(&address) {
            self.outcome.left_out += 1;
            return None;
        }
        let known = found.entry(address).or_default();
        *known = known.saturating_add(weight);
        Some(address)
    }
}

impl Doing {
    fn new(of: DnsName, question: Question) -> Self {
        Self {
            question,
            of,
            aliases: 0,
            id: 0,
            tries: 0,
            over_tcp: false,
            strangers: 0,
            heard: false,
        }
    }
}

/// A name as text that is the same whatever the case of its letters.
fn written(name: &DnsName) -> String {
    name.to_string().to_ascii_lowercase()
}
