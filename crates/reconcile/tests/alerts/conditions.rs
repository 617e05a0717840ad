//! What is worth an alert.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_reconcile::alerts::conditions::conditions;
use model::alert::{ClusterFacts, Facts};
use model::config::Config;
use model::parse::parse_toml;
use model::snapshot::{Layers, Snapshot};
use model::state::{
    BackendId, Health, HealthState, Mode, Observed, Override, OverrideKey, Overrides, Timestamp,
};
use model::status::{CertificateStatus, ListenerStatus, ReloadStatus};

use crate::support::{START, name};

const NOW: Timestamp = Timestamp(START);

fn config(backends: usize, keys: &str) -> Arc<Config> {
    let list: Vec<String> = (1..=backends).map(|n| format!("\"10.0.0.{n}:80\"")).collect();
    let text = format!(
        "[load_balancers.shop]\nbackend_servers = [{}]\n{keys}",
        list.join(", ")
    );
    Arc::new(parse_toml(&text, "test.toml").unwrap_or_else(|errors| panic!("{}", errors[0])))
}

/// The state with these backends down, by the last number of their address, and these orders.
fn facts(config: &Arc<Config>, down: &[u8], orders: &[(u8, Mode)]) -> Facts {
    let address = |n: u8| std::net::SocketAddr::from(([10, 0, 0, n], 80));
    let mut observed = Observed::default();
    for n in down {
        let id = BackendId {
            load_balancer: name("shop"),
            pool: name("default"),
            address: address(*n),
        };
        let state = HealthState {
            health: Health::Down,
            reason: "connection refused".to_owned(),
            since: Timestamp(START - 1000),
        };
        observed.health.insert(id, state);
    }
    let mut overrides = Overrides::default();
    for (n, mode) in orders {
        let key = OverrideKey {
            load_balancer: name("shop"),
            address: address(*n),
        };
        let order = Override {
            mode: *mode,
            weight: None,
            by: "alice".to_owned(),
            since: NOW,
            expires: None,
        };
        overrides.backends.insert(key, order);
    }
    let layers = Layers {
        revision: 1,
        config,
        overrides: &overrides,
        observed: &observed,
    };
    Facts {
        node: "edge-1".into(),
        snapshot: Arc::new(Snapshot::build(layers, None, NOW)),
        last_reload: None,
        listeners: Vec::new(),
        open_circuits: Vec::new(),
        cluster: None,
    }
}

fn told(facts: &Facts) -> Vec<String> {
    let found = conditions(facts, NOW);
    found
        .map(|condition| format!("{}: {}", condition.id, condition.why))
        .collect()
}

/// Scenario: of four backends one, two, three, all are down.
#[test]
fn backends_and_their_pool_are_told() {
    let config = config(4, "");
    assert_eq!(told(&facts(&config, &[], &[])), [""; 0]);
    assert_eq!(
        told(&facts(&config, &[1, 2], &[])),
        [
            "backend_down shop/default/10.0.0.1:80: connection refused",
            "backend_down shop/default/10.0.0.2:80: connection refused",
        ]
    );
    let three = told(&facts(&config, &[1, 2, 3], &[]));
    assert_eq!(
        three[0],
        "pool_unhealthy shop/default: 1 of 4 backends are healthy, less than 50 %"
    );
    assert_eq!(three.len(), 4);
    let all = told(&facts(&config, &[1, 2, 3, 4], &[]));
    assert!(
        all[0].starts_with("pool_down shop/default: no backend is eligible; requests go to"),
        "{all:?}"
    );
    assert!(all[1].starts_with("pool_unhealthy"), "{all:?}");
    assert_eq!(all.len(), 6);
}

/// Scenario: an operator took backends out. They do not count for the share, and one in maintenance that is down is
/// nobody's surprise; one that drains is.
#[test]
fn what_an_operator_took_out_does_not_count() {
    let config = config(4, "");
    let orders = [(1, Mode::Maintenance), (2, Mode::Maintenance), (3, Mode::Drain)];
    assert_eq!(told(&facts(&config, &[1, 2], &orders)), [""; 0]);
    assert_eq!(
        told(&facts(&config, &[3], &orders)),
        ["backend_down shop/default/10.0.0.3:80: connection refused"]
    );
}

/// Scenario: the share is a setting, and a pool that fails closed or has no backend says so.
#[test]
fn the_share_and_the_policy_are_those_of_the_config() {
    let strict = config(
        4,
        "all_down = \"fail_closed\"\n[alerts]\nhealthy_share = \"100%\"\n",
    );
    assert!(told(&facts(&strict, &[1], &[]))[0].contains("3 of 4 backends are healthy, less than 100 %"));
    assert!(told(&facts(&strict, &[1, 2, 3, 4], &[]))[0].ends_with("every request is answered 503"));
    let any = config(4, "[alerts]\nhealthy_share = \"0%\"\n");
    assert!(
        !told(&facts(&any, &[1, 2, 3, 4], &[]))
            .iter()
            .any(|c| c.starts_with("pool_unhealthy"))
    );
    let empty = told(&facts(&config(0, ""), &[], &[]));
    assert_eq!(
        empty,
        ["pool_down shop/default: it has no backend: every request is answered 503"]
    );
}

/// Scenario: a reload that was refused, a listener that is closed, an open circuit.
#[test]
fn what_the_node_itself_suffers_is_told() {
    let mut facts = facts(&config(1, ""), &[], &[]);
    facts.last_reload = Some(ReloadStatus {
        at: NOW,
        ok: false,
        messages: vec![
            "evenkeel.toml:3:1: unknown key `x`\n 3 | x".to_owned(),
            "more".to_owned(),
        ],
    });
    let listener = ListenerStatus {
        name: name("http"),
        address: ([0, 0, 0, 0], 80).into(),
        open: false,
        error: Some("address in use".to_owned()),
        connections: 0,
        certificates: Vec::new(),
    };
    facts.listeners = vec![(name("shop"), listener)];
    facts.open_circuits = vec![(name("shop"), name("default"))];
    assert_eq!(
        told(&facts),
        [
            "config_refused edge-1: the new config was refused, the one before stays in force: evenkeel.toml:3:1: unknown key `x`",
            "listener_closed edge-1: shop/http: 0.0.0.0:80 takes no clients: address in use",
            "circuit_open edge-1: shop/default: the circuit breaker is open: requests are refused",
        ]
    );
}

/// Scenario: certificates that end in a month, in ten days, in an hour, and that ended; one of them on two
/// listeners, one with files that are no good.
#[test]
fn certificates_that_end_are_told_once() {
    let mut facts = facts(&config(1, ""), &[], &[]);
    let certificate = |file: &str, hours: i64, error: Option<&str>| CertificateStatus {
        name: file.to_owned(),
        hosts: vec!["shop.example".to_owned()],
        expires: Some(Timestamp(START.saturating_add_signed(hours * 3_600_000))),
        error: error.map(str::to_owned),
    };
    let listener = |certificates| ListenerStatus {
        name: name("https"),
        address: ([0, 0, 0, 0], 443).into(),
        open: true,
        error: None,
        connections: 0,
        certificates,
    };
    facts.listeners = vec![
        (
            name("a"),
            listener(vec![
                certificate("month", 720, None),
                certificate("ten", 235, None),
            ]),
        ),
        (
            name("b"),
            listener(vec![
                certificate("ten", 235, None),
                certificate("hour", 1, None),
                certificate("over", -1, Some("no key")),
            ]),
        ),
    ];
    assert_eq!(
        told(&facts),
        [
            "certificate_expires edge-1: hour: it ends within a day (shop.example)",
            "certificate_expires edge-1: over: it has ended (shop.example)",
            "certificate_refused edge-1: over: no key",
            "certificate_expires edge-1: ten: it ends within 10 days (shop.example)",
        ]
    );
    let within = Duration::from_secs(3600 * 800);
    assert_eq!(conditions(&facts, NOW.plus(within)).count(), 5);
}

/// Scenario: a node of a cluster with a load balancer of its own file and the store's. Of the file's it tells itself,
/// of the store's one node does; that the store is away, and what follows from it, each tells of itself.
#[test]
fn in_a_cluster_each_tells_of_what_is_its_own() {
    let config = config(2, "");
    let mut facts = facts(&config, &[1, 2], &[]);
    let own =
        |facts: &Facts| -> Vec<bool> { conditions(facts, NOW).map(|condition| condition.own).collect() };
    assert_eq!(own(&facts), [true; 4]);
    facts.cluster = Some(ClusterFacts::default());
    assert_eq!(own(&facts), [true; 4]);
    facts.cluster = Some(ClusterFacts {
        shared: [name("shop")].into(),
        store_trouble: Some("no answer".to_owned()),
        refused: Some("revision 7: no".to_owned()),
        plan_b: Some("own_checks: store_unreachable".to_owned()),
        ..ClusterFacts::default()
    });
    assert_eq!(own(&facts), [true, true, true, false, false, false, false]);
    assert_eq!(
        told(&facts)[..3],
        [
            "config_refused edge-1: revision 7: no",
            "store_unreachable edge-1: no answer",
            "plan_b edge-1: own_checks: store_unreachable",
        ]
    );
}

/// Scenario: three nodes are silent, one of them for more than a day. Whoever leads tells of the others, from the
/// registry: what else happens cannot hide them, and who is back is told no more.
#[test]
fn a_lost_node_is_told_until_it_is_back() {
    let mut facts = facts(&config(2, ""), &[], &[]);
    let day_ago = Timestamp(NOW.0 - 24 * 3600 * 1000);
    let lost = |nodes: &[(&str, Timestamp)]| {
        let lost = nodes.iter().map(|(node, at)| (name(node), *at)).collect();
        Some(ClusterFacts {
            lost: Arc::new(lost),
            ..ClusterFacts::default()
        })
    };
    facts.cluster = lost(&[("a", Timestamp(NOW.0 - 5)), ("b", NOW), ("old", day_ago)]);
    let words =
        |node: &str| format!("node_lost {node}: is silent: it died, hangs, or cannot reach the store");
    assert_eq!(told(&facts), [words("a"), words("b")]);
    assert!(conditions(&facts, NOW).all(|condition| !condition.own));
    facts.cluster = lost(&[("b", NOW)]);
    assert_eq!(told(&facts), [words("b")]);
}
