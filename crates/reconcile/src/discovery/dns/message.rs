//! Questions and answers on the wire (RFC 1035, 2308, 2782, 6891).
//!
//! What can be read of a message is read by the crate `domain`; what it means is decided here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name, ToName, Ttl};
use domain::rdata::{A, Aaaa, Cname, Soa, Srv};

use super::UDP_SIZE;

/// A name, compared without regard to case.
pub(super) type DnsName = Name<Vec<u8>>;

/// Aliases (CNAME) followed from one name.
pub(super) const MAX_ALIASES: u8 = 8;

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
            Self::Srv => Rtype::SRV,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: DnsName,
    pub(super) kind: Kind,
}

/// The message that asks this.
pub(super) fn ask(id: u16, question: &Question) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    // A vector has room for one question and one option record.
    let _ = builder.push((&question.name, question.kind.rtype()));
    let mut builder = builder.additional();
    let _ = builder.opt(|opt| {
        opt.set_udp_payload_size(UDP_SIZE);
        Ok(())
    });
    builder.finish()
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// That it does not fit into a datagram.
    Truncated,
    /// Nothing about the name: why.
    Fault(String),
    Good(Good),
}

/// What a server says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Good {
    /// What the name has of what was asked; empty: nothing, or there is no such name.
    pub(super) data: Vec<Data>,
    /// The name is an alias of this one, of which the answer says nothing more.
    pub(super) alias: Option<DnsName>,
    /// For how many seconds all of that holds, where that is said.
    pub(super) ttl: Option<u32>,
    /// For how many seconds a cache may go on saying some of it.
    pub(super) longest: u32,
    /// Addresses of other names.
    pub(super) more: Vec<(DnsName, IpAddr, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Service(Service),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: DnsName,
}

/// Reads an answer; `None` when it is none to this question.
pub(super) fn read(bytes: &[u8], id: u16, question: &Question) -> Option<Answer> {
    let message = Message::from_octets(bytes).ok()?;
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
        return None;
    }
    let asked = message.sole_question().ok()?;
    let fits = *asked.qname() == question.name
        && asked.qtype() == question.kind.rtype()
        && asked.qclass() == Class::IN;
    if !fits {
        return None;
    }
    if header.tc() {
        return Some(Answer::Truncated);
    }
    let rcode = message.opt_rcode();
    if rcode != OptRcode::NOERROR && rcode != OptRcode::NXDOMAIN {
        return Some(Answer::Fault(format!("answered {rcode}")));
    }
    let read = understand(&message, question, rcode == OptRcode::NXDOMAIN);
    Some(read.unwrap_or_else(|_| Answer::Fault("answered with a damaged message".to_owned())))
}

/// What is in the sections of an answer.
#[derive(Default)]
struct Sections {
    aliases: BTreeMap<DnsName, (DnsName, u32)>,
    data: BTreeMap<DnsName, Vec<(Data, u32)>>,
    /// How long "there is nothing" holds.
    negative: Option<u32>,
    /// Other servers are named that might know.
    referral: bool,
    more: Vec<(DnsName, IpAddr, u32)>,
}

fn understand(
    message: &Message<&[u8]>,
    question: &Question,
    no_such_name: bool,
) -> Result<Answer, ParseError> {
    let mut sections = collect(message, question.kind)?;
    let mut name = question.name.clone();
    let mut ttls = Vec::new();
    let mut before = Vec::new();
    while let Some((next, ttl)) = sections.aliases.remove(&name) {
        ttls.push(ttl);
        before.push(std::mem::replace(&mut name, next));
        if before.len() > MAX_ALIASES.into() {
            let why = format!("answered with more than {MAX_ALIASES} aliases (CNAME)");
            return Ok(Answer::Fault(why));
        }
    }
    if before.contains(&name) {
        let why = "answered with aliases (CNAME) that go round in a circle";
        return Ok(Answer::Fault(why.to_owned()));
    }
    let found = sections.data.remove(&name).unwrap_or_default();
    let mut data = Vec::with_capacity(found.len());
    for (datum, ttl) in found {
        ttls.push(ttl);
        data.push(datum);
    }
    let mut alias = None;
    if data.is_empty() {
        match sections.negative {
            Some(negative) => ttls.push(negative),
            None if no_such_name => {}
            None if !before.is_empty() => alias = Some(name),
            None if sections.referral && !message.header().aa() => {
                let why = "only says whom else to ask: it is no resolver";
                return Ok(Answer::Fault(why.to_owned()));
            }
            None => {}
        }
    }
    Ok(Answer::Good(Good {
        data,
        alias,
        ttl: ttls.iter().min().copied(),
        longest: ttls.into_iter().max().unwrap_or_default(),
        more: sections.more,
    }))
}

fn collect(message: &Message<&[u8]>, kind: Kind) -> Result<Sections, ParseError> {
    let mut sections = Sections::default();
    let (_, answers, authority, additional) = message.sections()?;
    for record in answers {
        let record = record?;
        if record.class() != Class::IN {
            continue;
        }
        let (owner, ttl) = (record.owner().to_name(), seconds(record.ttl()));
        if let Some(alias) = record.to_record::<Cname<_>>()? {
            // Two aliases of one name are an error; the first one counts.
            let to = alias.data().cname().to_name();
            sections.aliases.entry(owner).or_insert((to, ttl));
            continue;
        }
        let data = match kind {
            Kind::A => record
                .to_record::<A>()?
                .map(|a| Data::Address(a.data().addr().into())),
            Kind::Aaaa => record
                .to_record::<Aaaa>()?
                .map(|a| Data::Address(a.data().addr().into())),
            Kind::Srv => record.to_record::<Srv<_>>()?.map(|srv| {
                Data::Service(Service {
                    priority: srv.data().priority(),
                    weight: srv.data().weight(),
                    port: srv.data().port(),
                    target: srv.data().target().to_name(),
                })
            }),
        };
        if let Some(data) = data {
            sections.data.entry(owner).or_default().push((data, ttl));
        }
    }
    for record in authority {
        let record = record?;
        if let Some(soa) = record.to_record::<Soa<_>>()? {
            let ttl = seconds(soa.data().minimum()).min(seconds(record.ttl()));
            sections.negative = Some(ttl);
        }
        sections.referral |= record.rtype() == Rtype::NS;
    }
    if kind == Kind::Srv {
        for record in additional {
            let record = record?;
            let (owner, ttl) = (record.owner().to_name(), seconds(record.ttl()));
            let a = record.to_record::<A>()?.map(|a| a.data().addr().into());
            let aaaa = record.to_record::<Aaaa>()?.map(|a| a.data().addr().into());
            let address = a.or(aaaa).filter(|_| record.class() == Class::IN);
            sections
                .more
                .extend(address.map(|address: IpAddr| (owner, address, ttl)));
        }
    }
    Ok(sections)
}

/// A time to live; one with the topmost bit is none (RFC 2181).
fn seconds(ttl: Ttl) -> u32 {
    let seconds = ttl.as_secs();
    if seconds > i32::MAX.unsigned_abs() {
        0
    } else {
        seconds
    }
}
