//! The form of what stands in the store: other versions read it, so it may only grow.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::records::{
    Assignment, Key, Leadership, LeaseId, Round, Value, VerdictRecord, WorkerRecord,
};
use model::config::Name;
use model::state::{BackendId, Health, Timestamp};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn backend() -> BackendId {
    BackendId {
        load_balancer: name("shop"),
        pool: name("web"),
        address: "10.0.0.1:8080".parse().unwrap(),
    }
}

fn examples() -> Vec<(Key, Value, &'static str, &'static str)> {
    let slots: BTreeSet<Slot> = [Slot(1), Slot(7)].into();
    vec![
        (
            Key::Leader,
            Value::Leader(Leadership {
                name: name("a-1"),
                lease: LeaseId(7),
            }),
            "leader",
            r#"{"name":"a-1","lease":7}"#,
        ),
        (
            Key::Round,
            Value::Round(Round {
                by: name("a-1"),
                epoch: 3,
                workers: BTreeMap::from([(name("a-1"), LeaseId(7))]),
            }),
            "assign/head",
            r#"{"by":"a-1","epoch":3,"workers":{"a-1":7}}"#,
        ),
        (
            Key::Worker(name("a-1")),
            Value::Worker(WorkerRecord {
                lease: LeaseId(7),
                acknowledged: 12,
            }),
            "workers/a-1",
            r#"{"lease":7,"acknowledged":12}"#,
        ),
        (
            Key::Assignment(name("a-1")),
            Value::Assignment(Assignment {
                epoch: 3,
                slots,
                leaving: [Slot(2)].into(),
            }),
            "assign/a-1",
            r#"{"epoch":3,"slots":[1,7],"leaving":[2]}"#,
        ),
        (
            Key::Verdict(backend()),
            Value::Verdict(VerdictRecord {
                health: Health::Down,
                reason: "connection refused".to_owned(),
                at: Timestamp(5),
                by: name("a-1"),
                epoch: 3,
                life: 0,
            }),
            "verdicts/shop/web/10.0.0.1:8080",
            r#"{"health":"down","reason":"connection refused","at":5,"by":"a-1","epoch":3}"#,
        ),
        (
            Key::Verdict(backend()),
            Value::Verdict(VerdictRecord {
                health: Health::Up,
                reason: "status 200".to_owned(),
                at: Timestamp(5),
                by: name("a-1"),
                epoch: 3,
                life: u64::MAX,
            }),
            "verdicts/shop/web/10.0.0.1:8080",
            r#"{"health":"up","reason":"status 200","at":5,"by":"a-1","epoch":3,"life":18446744073709551615}"#,
        ),
    ]
}

#[test]
fn records_are_read_as_they_are_written() {
    for (key, value, path, json) in examples() {
        assert_eq!(key.path(), path);
        assert_eq!(Key::parse(path).as_ref(), Some(&key));
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(key.read(json.as_bytes()).unwrap(), value);
    }
}

/// Scenario: a newer version writes a field more.
#[test]
fn a_field_of_a_later_version_is_passed_over() {
    for (key, value, _, json) in examples() {
        let more = json.replacen('{', r#"{"later":true,"#, 1);
        assert_eq!(key.read(more.as_bytes()).unwrap(), value);
    }
}

/// Scenario: somebody wrote something else under a key.
#[test]
fn what_does_not_belong_under_a_key_is_refused() {
    for (key, ..) in examples() {
        assert!(key.read(b"[]").is_err());
        assert!(key.read(b"").is_err());
        assert!(key.read(br#"{"name":"no good/name"}"#).is_err());
    }
}

/// Scenario: keys under the same prefixes that are nobody's of the cluster.
#[test]
fn other_paths_are_no_keys_of_the_cluster() {
    let others = [
        "",
        "leader/",
        "leaders",
        "assign",
        "assign/",
        "assign/a/b",
        "workers/no good",
        "verdicts/shop/web",
        "verdicts/shop/web/here",
        "verdicts/shop/web/10.0.0.1:80/more",
        "orders/backends/shop/10.0.0.1:80",
    ];
    for path in others {
        assert_eq!(Key::parse(path), None, "{path}");
    }
    let ipv6 = Key::Verdict(BackendId {
        address: "[2001:db8::1]:8080".parse().unwrap(),
        ..backend()
    });
    assert_eq!(Key::parse(&ipv6.path()), Some(ipv6));
}
