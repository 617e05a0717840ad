//! Members that are not declared, and heartbeats.

use evenkeel_model::config::{
    AddressFamily, Discovery, DnsLookup, DnsRecords, Heartbeat, Membership, Registration, TokenHash,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{ms, network};

pub(super) fn membership() -> impl Strategy<Value = Membership> {
    let file = "/[^\\pC]{0,20}".prop_map(|file| Discovery::File(file.into()));
    let discovery = prop_oneof![file, dns().prop_map(Discovery::Dns)];
    let token = || any::<[u8; 4]>().prop_map(|bytes| TokenHash::of(&bytes));
    let silence = || ms(1_000..=3_600_000);
    let registration =
        (token(), silence(), 1..=10_000u32, vec(network(), 0..3)).prop_map(|(token, ttl, max, allow)| {
            Registration {
                token,
                ttl,
                max,
                allow,
            }
        });
    let heartbeat = (token(), silence()).prop_map(|(token, timeout)| Heartbeat { token, timeout });
    (
        option::of(discovery),
        option::of(registration),
        option::of(heartbeat),
    )
        .prop_map(|(discovery, registration, heartbeat)| Membership {
            discovery,
            registration,
            heartbeat,
        })
}

fn dns() -> impl Strategy<Value = DnsLookup> {
    let family = prop::sample::select(vec![AddressFamily::Both, AddressFamily::V4, AddressFamily::V6]);
    let addresses = (family, 1..=u16::MAX).prop_map(|(family, port)| DnsRecords::Addresses(family, port));
    let records = prop_oneof![addresses, Just(DnsRecords::Srv)];
    let resolver = (any::<[u8; 4]>(), 1..=u16::MAX)
        .prop_map(|([_, b, c, d], port)| std::net::SocketAddr::from(([10, b, c, d], port)));
    (
        "[a-z_][a-z0-9_]{0,20}(\\.[a-z][a-z0-9]{0,10}){1,3}",
        records,
        vec(resolver, 0..3),
        (ms(1_000..=3_600_000), ms(1_000..=3_600_000)),
        ms(100..=30_000),
        1..=10u32,
    )
        .prop_map(|(name, records, resolvers, ttls, timeout, attempts)| DnsLookup {
            name,
            records,
            resolvers,
            min_ttl: ttls.0.min(ttls.1),
            max_ttl: ttls.0.max(ttls.1),
            timeout,
            attempts,
        })
}
