//! What receivers get, in the form that each understands.

use std::collections::BTreeMap;

use model::alert::{Alert, Severity};
use model::calendar::date;
use model::config::ReceiverKind;
use model::state::Timestamp;
use reconcile::alerts::outbox::{ALERTMANAGER_REPEAT_MS, GroupKey, GroupNews, Notification};
use serde_json::{Value, json};

/// Version of the body that webhooks get: grows when something in it changes its meaning or goes away.
const VERSION: u32 = 1;

/// `source` of every alert, so that a rule can pick ours out.
const SOURCE: &str = "evenkeel";

/// How long an Alertmanager believes an alert to fire that it is not told again of: three messages may be lost.
const BELIEVED_MS: u64 = 4 * ALERTMANAGER_REPEAT_MS;

/// Name of a test alert.
const TEST: &str = "test";

/// Labels from the config.
type Labels = BTreeMap<String, String>;

/// One alert in a message.
struct Item<'a> {
    name: &'a str,
    severity: &'a str,
    labels: Labels,
    summary: &'a str,
    fingerprint: String,
    since: Timestamp,
    ended: Option<Timestamp>,
}

/// The body of a message.
pub(super) fn of(kind: ReceiverKind, sent: &Notification, labels: &Labels, now: Timestamp) -> String {
    match kind {
        ReceiverKind::Webhook => {
            let groups = sent.groups.iter().map(|group| {
                let (name, of) = match &group.key {
                    GroupKey::All => ("all", None),
                    GroupKey::Of(kind, lb) => (kind.as_str(), lb.as_ref()),
                };
                let of = of.map(|lb| ("load_balancer".to_owned(), lb.to_string()));
                webhook_group(name, of.into_iter().collect(), items(group, labels))
            });
            webhook(groups.collect(), now)
        }
        ReceiverKind::Alertmanager => {
            let items = sent.groups.iter().flat_map(|group| items(group, labels));
            Value::Array(items.map(|item| alertmanager(item, now, BELIEVED_MS)).collect()).to_string()
        }
    }
}

/// The body of a test: an alert that says that nothing is wrong. An Alertmanager ends it by itself after a minute.
pub(super) fn of_test(kind: ReceiverKind, labels: &Labels, now: Timestamp) -> String {
    let item = Item {
        name: TEST,
        severity: Severity::Warning.as_str(),
        labels: labels.clone(),
        summary: "a test of alerts: nothing is wrong",
        fingerprint: "0".repeat(16),
        since: now,
        ended: None,
    };
    match kind {
        ReceiverKind::Webhook => webhook(vec![webhook_group(TEST, Labels::new(), vec![item])], now),
        ReceiverKind::Alertmanager => Value::Array(vec![alertmanager(item, now, 60_000)]).to_string(),
    }
}

/// What fires first, then what has ended.
fn items<'a>(group: &'a GroupNews, labels: &Labels) -> Vec<Item<'a>> {
    let firing = group.firing.iter().map(|alert| item(alert, None, labels));
    let resolved = group
        .resolved
        .iter()
        .map(|(alert, ended)| item(alert, Some(*ended), labels));
    firing.chain(resolved).collect()
}

fn item<'a>(alert: &'a Alert, ended: Option<Timestamp>, labels: &Labels) -> Item<'a> {
    let mut all = labels.clone();
    all.extend(alert.id.labels());
    Item {
        name: alert.id.kind.as_str(),
        severity: alert.id.kind.severity().as_str(),
        labels: all,
        summary: &alert.summary,
        fingerprint: alert.id.fingerprint(),
        since: alert.since,
        ended,
    }
}

fn webhook(groups: Vec<Value>, now: Timestamp) -> String {
    let firing = groups.iter().any(|group| group["status"] == "firing");
    let body = json!({
        "version": VERSION,
        "source": SOURCE,
        "status": status(firing),
        "sent_at": rfc3339(now),
        "groups": groups,
    });
    body.to_string()
}

fn webhook_group(name: &str, labels: Labels, items: Vec<Item<'_>>) -> Value {
    let firing = items.iter().any(|item| item.ended.is_none());
    let alerts = items.into_iter().map(|item| {
        let mut alert = json!({
            "name": item.name,
            "status": status(item.ended.is_none()),
            "severity": item.severity,
            "labels": item.labels,
            "summary": item.summary,
            "fingerprint": item.fingerprint,
            "since": rfc3339(item.since),
        });
        if let (Some(ended), Some(fields)) = (item.ended, alert.as_object_mut()) {
            fields.insert("ended".to_owned(), json!(rfc3339(ended)));
        }
        alert
    });
    json!({
        "name": name,
        "labels": labels,
        "status": status(firing),
        "alerts": alerts.collect::<Vec<_>>(),
    })
}

fn alertmanager(item: Item<'_>, now: Timestamp, believed_ms: u64) -> Value {
    let mut labels = item.labels;
    for (name, value) in [
        ("alertname", item.name),
        ("severity", item.severity),
        ("source", SOURCE),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    let ends = item
        .ended
        .unwrap_or_else(|| Timestamp(now.0.saturating_add(believed_ms)));
    // It takes none that ends before it begins, as after a clock that was set back.
    let starts = item.since.min(ends);
    json!({
        "labels": labels,
        "annotations": { "summary": item.summary },
        "startsAt": rfc3339(starts),
        "endsAt": rfc3339(ends),
    })
}

fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

/// `2026-03-01T12:34:56.789Z` (RFC 3339).
fn rfc3339(at: Timestamp) -> String {
    let (seconds, ms) = (at.0 / 1000, at.0 % 1000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;

    use model::alert::{About, AlertId, AlertKind};
    use model::config::Name;

    use super::*;

    const NOW: Timestamp = Timestamp(1_772_368_496_789);

    fn notification() -> Notification {
        let name = |text| Name::parse(text).unwrap();
        let alert = |pool| {
            Arc::new(Alert {
                id: AlertId {
                    kind: AlertKind::PoolDown,
                    about: About::Pool {
                        load_balancer: name("shop"),
                        pool: name(pool),
                    },
                },
                summary: "no \"backend\"".to_owned(),
                since: Timestamp(NOW.0 - 60_000),
                own: true,
            })
        };
        Notification {
            groups: vec![GroupNews {
                key: GroupKey::Of(AlertKind::PoolDown, Some(name("shop"))),
                firing: vec![alert("web")],
                resolved: vec![(alert("api"), Timestamp(NOW.0 - 1000))],
            }],
        }
    }

    fn labels() -> Labels {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // A label of the config never takes the place of one of the alert's own.
        [pair("team", "web"), pair("pool", "x")].into()
    }

    /// Scenario: the body that docs/alerts.md shows.
    #[test]
    fn a_webhook_gets_the_documented_body() {
        let body: Value =
            serde_json::from_str(&of(ReceiverKind::Webhook, &notification(), &labels(), NOW)).unwrap();
        let alert = |pool: &str, status: &str, fingerprint: &str| {
            json!({
                "name": "pool_down", "status": status, "severity": "critical",
                "labels": { "load_balancer": "shop", "pool": pool, "team": "web" },
                "summary": "no \"backend\"", "fingerprint": fingerprint,
                "since": "2026-03-01T12:33:56.789Z",
            })
        };
        let alerts = body["groups"][0]["alerts"].as_array().unwrap();
        let mut ended = alert("api", "resolved", alerts[1]["fingerprint"].as_str().unwrap());
        ended["ended"] = json!("2026-03-01T12:34:55.789Z");
        let expected = json!({
            "version": 1, "source": "evenkeel", "status": "firing", "sent_at": "2026-03-01T12:34:56.789Z",
            "groups": [{
                "name": "pool_down", "labels": { "load_balancer": "shop" }, "status": "firing",
                "alerts": [alert("web", "firing", alerts[0]["fingerprint"].as_str().unwrap()), ended],
            }],
        });
        assert_eq!(body, expected);
    }

    /// Scenario: who sent it must not show in what an Alertmanager gets, or two senders make two alerts of one.
    #[test]
    fn an_alertmanager_gets_labels_and_times() {
        let body: Value =
            serde_json::from_str(&of(ReceiverKind::Alertmanager, &notification(), &labels(), NOW)).unwrap();
        let labels = |pool: &str| {
            json!({
                "alertname": "pool_down", "severity": "critical", "source": "evenkeel",
                "load_balancer": "shop", "pool": pool, "team": "web",
            })
        };
        let annotations = json!({ "summary": "no \"backend\"" });
        let expected = json!([
            {
                "labels": labels("web"), "annotations": annotations,
                "startsAt": "2026-03-01T12:33:56.789Z", "endsAt": "2026-03-01T12:38:56.789Z",
            },
            {
                "labels": labels("api"), "annotations": annotations,
                "startsAt": "2026-03-01T12:33:56.789Z", "endsAt": "2026-03-01T12:34:55.789Z",
            },
        ]);
        assert_eq!(body, expected);
    }

    #[test]
    fn a_test_says_that_nothing_is_wrong() {
        for kind in [ReceiverKind::Webhook, ReceiverKind::Alertmanager] {
            let body = of_test(kind, &labels(), NOW);
            assert!(
                body.contains("nothing is wrong") && body.contains("\"team\":\"web\""),
                "{body}"
            );
        }
    }
}
