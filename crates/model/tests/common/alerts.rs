//! Alerts made at random.

use std::path::PathBuf;

use evenkeel_model::config::{Alerts, Receiver, ReceiverKind, ReceiverUrl};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{ms, name};

fn file() -> impl Strategy<Value = PathBuf> {
    "/[^\\pC]{0,20}".prop_map(PathBuf::from)
}

fn receiver() -> impl Strategy<Value = Receiver> {
    let url = prop_oneof![
        "https?://[a-z0-9.-]{1,10}(:[1-9][0-9]{0,3})?(/[a-z0-9/%~]{0,8})?".prop_map(ReceiverUrl::Url),
        file().prop_map(ReceiverUrl::File),
    ];
    let kind = prop_oneof![Just(ReceiverKind::Webhook), Just(ReceiverKind::Alertmanager)];
    let files = (option::of(file()), option::of(file()), option::of(file()));
    (name(), kind, url, files).prop_map(|(name, kind, url, (token_file, secret_file, ca))| Receiver {
        name,
        kind,
        url,
        token_file,
        secret_file: secret_file.filter(|_| kind == ReceiverKind::Webhook),
        ca,
    })
}

pub(crate) fn alerts() -> impl Strategy<Value = Alerts> {
    let receivers = vec(receiver(), 0..4).prop_map(|mut receivers| {
        receivers.sort_by_key(|receiver| receiver.kind);
        let mut names = Vec::new();
        receivers.retain(|receiver: &Receiver| {
            let new = !names.contains(&receiver.name);
            names.push(receiver.name.clone());
            new
        });
        receivers
    });
    let holds = || ms(0..=86_400_000);
    (
        receivers,
        btree_map("x[a-z0-9_]{0,8}", "[^\\pC]{1,20}", 0..3),
        (holds(), holds(), 0..=100u8, ms(3_600_000..=31_536_000_000)),
        (
            ms(0..=3_600_000),
            ms(1000..=86_400_000),
            ms(60_000..=2_592_000_000),
        ),
        ms(100..=8000),
    )
        .prop_map(|(receivers, labels, conditions, groups, timeout)| {
            let (backend_down_for, pool_unhealthy_for, healthy_share, certificate_expires_within) =
                conditions;
            let (group_wait, group_interval, repeat_interval) = groups;
            Alerts {
                receivers,
                labels,
                backend_down_for,
                pool_unhealthy_for,
                healthy_share,
                certificate_expires_within,
                group_wait,
                group_interval,
                repeat_interval,
                timeout,
            }
        })
}
