//! Any bytes as answers of a name server: a look ends in bounded time, takes no more than it may, and never panics.
//!
//! An input is a list of messages, each behind its length; each gets the number of the question that it answers, and
//! where it is long enough the question itself, so that it gets past what would only throw it away.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_reconcile::discovery::dns::{Failure, Lookup, MAX_QUESTIONS};
use libfuzzer_sys::fuzz_target;
use model::config::{AddressFamily, DnsLookup, DnsRecords};

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (services, as_they_are, mut bytes) = input;
    let settings = DnsLookup {
        name: "app.internal".to_owned(),
        records: match services {
            true => DnsRecords::Srv,
            false => DnsRecords::Addresses(AddressFamily::Both, 80),
        },
        resolvers: Vec::new(),
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(300),
        timeout: Duration::from_secs(2),
        attempts: 3,
    };
    let servers = vec![SocketAddr::from(([10, 0, 0, 1], 53))];
    let mut lookup = Lookup::new(&settings, servers, None, 0);
    let mut exchanges = 0;
    while let Some(exchange) = lookup.next(0, exchanges) {
        exchanges += 1;
        assert!(exchanges < 100 * MAX_QUESTIONS as u64, "it has no end");
        let Some((length, rest)) = bytes.split_first_chunk() else {
            lookup.failed(Failure::TimedOut);
            continue;
        };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        let mut message = message.to_vec();
        if !as_they_are && message.len() >= 12 {
            // The head of an answer to this question, and the question.
            message[..2].copy_from_slice(&exchange.message[..2]);
            message[2] = (message[2] & 0x07) | 0x80;
            message[4..6].copy_from_slice(&[0, 1]);
            let question = &exchange.message[12..exchange.message.len() - 11];
            message.splice(12..12, question.iter().copied());
        }
        if !lookup.heard(&message) {
            lookup.failed(Failure::TimedOut);
        }
    }
    let outcome = lookup.outcome();
    assert!(outcome.found.len() <= 10_000);
    assert!(outcome.fault.is_some() || outcome.server.is_some());
});
