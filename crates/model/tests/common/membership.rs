//! Members that are not declared, and heartbeats.

use evenkeel_model::config::{Discovery, Heartbeat, Membership, Registration, TokenHash};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{ms, network};

pub(super) fn membership() -> impl Strategy<Value = Membership> {
    let discovery = "/[^\\pC]{0,20}".prop_map(|file| Discovery::File(file.into()));
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
