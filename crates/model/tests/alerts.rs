//! The config of alerts: what it means, and what tells one alert from another.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_model::alert::{About, AlertId, AlertKind, RESERVED_LABELS};
use evenkeel_model::config::{Alerts, MAX_RECEIVERS, Name, ReceiverKind, ReceiverUrl};
use evenkeel_model::effective::to_toml;
use evenkeel_model::parse::parse_toml;
use evenkeel_model::state::BackendId;

fn read(lines: &str) -> Alerts {
    let text = format!("{lines}\n[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n");
    parse_toml(&text, "evenkeel.toml").unwrap().alerts
}

/// Scenario: nothing written. Nobody is told, and what is worth an alert is what the reference says.
#[test]
fn without_a_word_nobody_is_told() {
    let alerts = read("");
    assert_eq!(alerts, Alerts::default());
    assert!(alerts.receivers.is_empty());
    assert_eq!(
        (alerts.backend_down_for, alerts.healthy_share),
        (Duration::from_secs(30), 50)
    );
}

/// Scenario: receivers without names. Each gets one by its kind and place.
#[test]
fn receivers_are_named_by_their_place() {
    let alerts = read(
        "[alerts]\nwebhooks = [{ url = \"http://a/x\" }, { name = \"b\", url_file = \"u\" }]\n\
         alertmanagers = [{ url = \"https://[::1]:9093/am/\" }]",
    );
    let told: Vec<(&str, ReceiverKind)> = alerts
        .receivers
        .iter()
        .map(|r| (r.name.as_str(), r.kind))
        .collect();
    assert_eq!(
        told,
        [
            ("webhook-1", ReceiverKind::Webhook),
            ("b", ReceiverKind::Webhook),
            ("alertmanager-1", ReceiverKind::Alertmanager)
        ]
    );
    assert_eq!(alerts.receivers[1].url, ReceiverUrl::File("u".into()));
}

/// Scenario: more receivers than there may be. Told once, however many.
#[test]
fn there_are_only_so_many_receivers() {
    let list = vec!["{ url = \"http://a\" }"; MAX_RECEIVERS + 5].join(", ");
    let text = format!(
        "[alerts]\nwebhooks = [{list}]\n[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n"
    );
    let found = parse_toml(&text, "evenkeel.toml").unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].cause.contains("more than 16 receivers"), "{}", found[0]);
}

/// Scenario: the files with secrets are named in the config in force, and nothing of what is in them.
#[test]
fn the_config_in_force_names_files_only() {
    let text = "[alerts]\nwebhooks = [{ url_file = \"/u\", token_file = \"/t\", secret_file = \"/s\" }]\n\
                [load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n";
    let config = parse_toml(text, "evenkeel.toml").unwrap();
    let full = to_toml(&config);
    assert!(
        full.contains("url_file = \"/u\"\ntoken_file = \"/t\"\nsecret_file = \"/s\""),
        "{full}"
    );
    assert_eq!(parse_toml(&full, "full.toml").unwrap(), config);
}

fn backend(pool: &str, port: u16) -> AlertId {
    let name = |text| Name::parse(text).unwrap();
    AlertId {
        kind: AlertKind::BackendDown,
        about: About::Backend(BackendId {
            load_balancer: name("shop"),
            pool: name(pool),
            address: ([10, 0, 0, 1], port).into(),
        }),
    }
}

/// Scenario: other people's rules rest on names, labels and fingerprints: they stay what they are.
#[test]
fn an_alert_is_known_by_its_name_and_labels() {
    let alert = backend("web", 9001);
    let labels: Vec<String> = alert
        .labels()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        labels,
        ["backend=10.0.0.1:9001", "load_balancer=shop", "pool=web"]
    );
    assert_eq!(alert.to_string(), "backend_down shop/web/10.0.0.1:9001");
    assert_eq!(alert.fingerprint(), "7d2af5c4b7581481");
    let several = [backend("web", 9001), backend("web", 9002), backend("api", 9001)];
    let different: BTreeSet<String> = several.iter().map(AlertId::fingerprint).collect();
    assert_eq!(different.len(), 3);
    let names: BTreeSet<&str> = AlertKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), AlertKind::ALL.len());
}

/// Scenario: a label of the config must never take the place of one of an alert's own.
#[test]
fn labels_of_alerts_are_reserved() {
    let node: std::sync::Arc<str> = "edge-1".into();
    let name = |text| Name::parse(text).unwrap();
    let abouts = [
        About::Node(node.clone()),
        About::Listener {
            node: node.clone(),
            load_balancer: name("shop"),
            listener: name("http"),
        },
        About::Certificate {
            node,
            certificate: "shop.pem".into(),
        },
        About::Pool {
            load_balancer: name("shop"),
            pool: name("web"),
        },
        backend("web", 1).about,
    ];
    for about in abouts {
        let kind = AlertKind::PoolDown;
        let labels = AlertId { kind, about }.labels();
        assert!(
            labels
                .keys()
                .all(|label| RESERVED_LABELS.contains(&label.as_str())),
            "{labels:?}"
        );
    }
}
