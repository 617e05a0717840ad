//! A name server in memory.

use std::net::IpAddr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::{Message, MessageBuilder, Name, Serial, Ttl};
use domain::rdata::{A, Aaaa, Cname, Ns, Soa, Srv};

pub(crate) fn name(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).unwrap()
}

/// A record.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Address(IpAddr),
    /// Priority, weight, port, target.
    Srv(u16, u16, u16, &'static str),
    Cname(&'static str),
}

/// `NAME TTL DATA`.
pub(crate) type Record = (&'static str, u32, Data);

pub(crate) fn ip(name: &'static str, ttl: u32, address: &str) -> Record {
    (name, ttl, Data::Address(address.parse().unwrap()))
}

/// What a server answers.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) rcode: Rcode,
    pub(crate) truncated: bool,
    pub(crate) answer: Vec<Record>,
    /// "There is nothing", for so long.
    pub(crate) soa: Option<u32>,
    pub(crate) referral: bool,
    pub(crate) additional: Vec<Record>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            rcode: Rcode::NOERROR,
            truncated: false,
            answer: Vec::new(),
            soa: None,
            referral: false,
            additional: Vec::new(),
        }
    }
}

/// Records that are there.
pub(crate) fn records(records: Vec<Record>) -> Answer {
    Answer {
        answer: records,
        ..Answer::default()
    }
}

/// Nothing, for so long.
pub(crate) fn nothing(rcode: Rcode, ttl: u32) -> Answer {
    Answer {
        rcode,
        soa: Some(ttl),
        ..Answer::default()
    }
}

/// Name and type that are asked for, with the size that is offered.
pub(crate) fn asked(query: &[u8]) -> (String, Rtype, u16) {
    let message = Message::from_octets(query).unwrap();
    let question = message.sole_question().unwrap();
    let size = message.opt().unwrap().udp_payload_size();
    (question.qname().to_string(), question.qtype(), size)
}

/// The message that answers a question.
pub(crate) fn write(query: &[u8], answer: &Answer) -> Vec<u8> {
    let query = Message::from_octets(query).unwrap();
    let builder = MessageBuilder::new_vec();
    let mut builder = builder.start_answer(&query, answer.rcode).unwrap();
    builder.header_mut().set_ra(true);
    builder.header_mut().set_tc(answer.truncated);
    for record in &answer.answer {
        match record {
            (owner, ttl, Data::Address(IpAddr::V4(v4))) => {
                builder
                    .push((name(owner), Ttl::from_secs(*ttl), A::new(*v4)))
                    .unwrap();
            }
            (owner, ttl, Data::Address(IpAddr::V6(v6))) => {
                builder
                    .push((name(owner), Ttl::from_secs(*ttl), Aaaa::new(*v6)))
                    .unwrap();
            }
            (owner, ttl, Data::Srv(priority, weight, port, target)) => {
                let srv = Srv::new(*priority, *weight, *port, name(target));
                builder.push((name(owner), Ttl::from_secs(*ttl), srv)).unwrap();
            }
            (owner, ttl, Data::Cname(to)) => {
                let cname = Cname::new(name(to));
                builder.push((name(owner), Ttl::from_secs(*ttl), cname)).unwrap();
            }
        }
    }
    let mut builder = builder.authority();
    if let Some(ttl) = answer.soa {
        let ttl = Ttl::from_secs(ttl);
        let soa = Soa::new(name("internal"), name("internal"), Serial(1), ttl, ttl, ttl, ttl);
        builder.push((name("internal"), ttl, soa)).unwrap();
    }
    if answer.referral {
        let ns = Ns::new(name("ns.internal"));
        builder.push((name("internal"), Ttl::from_secs(60), ns)).unwrap();
    }
    push(builder.additional(), &answer.additional).finish()
}

fn push(mut builder: AdditionalBuilder<Vec<u8>>, records: &[Record]) -> AdditionalBuilder<Vec<u8>> {
    for (owner, ttl, data) in records {
        let ttl = Ttl::from_secs(*ttl);
        match data {
            Data::Address(IpAddr::V4(v4)) => builder.push((name(owner), ttl, A::new(*v4))).unwrap(),
            Data::Address(IpAddr::V6(v6)) => builder.push((name(owner), ttl, Aaaa::new(*v6))).unwrap(),
            Data::Srv(..) | Data::Cname(_) => panic!("only addresses are written there"),
        }
    }
    builder
}
