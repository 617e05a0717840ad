//! Alerts: to a real Alertmanager, and to webhooks that are well, away, slow, broken and hostile.

use std::net::SocketAddr;

use peers::{Alertmanager, Etcd};
use serde_json::Value;

use crate::support::{
    Authority, Backend, Client, Evenkeel, Gate, Load, Message, free_address, shop, shop_on, wait_for,
    wait_until,
};

/// Checks that notice a death within a tenth of a second; nothing else takes a backend out, and whatever meets a dead one
/// before that may be tried again.
const CHECKED: &str = "passive = false\nslow_start = 0\nretries = { budget = \"100%\" }\n\
                       health = { interval = \"100ms\", fast_interval = \"50ms\" }\n";

/// Alerts as soon as something is so, told at once.
const QUICK: &str =
    "backend_down_for = 0\npool_unhealthy_for = 0\ngroup_wait = \"100ms\"\ngroup_interval = \"1s\"\n";

fn alerts(receivers: &str) -> String {
    format!("{CHECKED}\n[alerts]\n{QUICK}{receivers}\n")
}

fn webhook(hook: &Backend) -> String {
    format!(
        "[[alerts.webhooks]]\nname = \"hook\"\nurl = \"http://{}/alerts\"\n",
        hook.address
    )
}

/// A webhook that takes everything.
fn taking() -> Backend {
    Backend::saying("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
}

/// What a webhook was told, in order: `+` fires, `-` has ended.
fn told(hook: &Backend) -> Vec<String> {
    let mut all = Vec::new();
    // Of some a script took the head only.
    for message in hook.requests().iter().filter(|message| !message.body.is_empty()) {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(body["version"], 1);
        for group in body["groups"].as_array().unwrap() {
            for alert in group["alerts"].as_array().unwrap() {
                let sign = if alert["status"] == "firing" { '+' } else { '-' };
                let backend = alert["labels"]["backend"].as_str().unwrap_or_default();
                all.push(format!("{sign}{} {backend}", alert["name"].as_str().unwrap()));
            }
        }
    }
    all
}

fn has(hook: &Backend, wanted: &str) -> bool {
    told(hook).iter().any(|alert| alert == wanted)
}

/// The alerts that an Alertmanager has active.
fn active(manager: &Alertmanager) -> Vec<Value> {
    let address: SocketAddr = manager.place.parse().unwrap();
    let answer = Client::connect(address).get("/api/v2/alerts?active=true");
    let alerts: Value = serde_json::from_slice(&answer.body).unwrap();
    alerts.as_array().unwrap().clone()
}

fn active_about(manager: &Alertmanager, name: &str, backend: SocketAddr) -> Option<Value> {
    let about = |alert: &Value| {
        alert["labels"]["alertname"] == name && alert["labels"]["backend"] == backend.to_string()
    };
    active(manager).into_iter().find(about)
}

fn shown(evenkeel: &Evenkeel) -> Value {
    serde_json::from_slice(&evenkeel.get("/api/v1/alerts").body).unwrap()
}

fn deliveries(evenkeel: &Evenkeel, result: &str) -> f64 {
    evenkeel.metric("evenkeel_alert_deliveries_total", &[("result", result)])
}

/// Scenario: a backend is killed and comes back. The alert becomes active in Alertmanager, with our labels and those
/// of the config, and is resolved there.
#[test]
fn a_death_is_active_in_alertmanager_until_the_backend_is_back() {
    let manager = Alertmanager::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let receivers = format!(
        "labels = {{ team = \"web\" }}\n[[alerts.alertmanagers]]\nname = \"am\"\nurl = \"http://{}/\"\n",
        manager.place
    );
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], &alerts(&receivers)));
    evenkeel.wait_for_state(two.address, "eligible");
    two.kill();
    let alert = wait_for("the alert is active", || {
        active_about(&manager, "backend_down", two.address)
    });
    let labels = &alert["labels"];
    assert_eq!(labels["severity"], "warning");
    assert_eq!(labels["source"], "evenkeel");
    assert_eq!(labels["load_balancer"], "shop");
    assert_eq!(labels["team"], "web");
    assert_eq!(labels.as_object().unwrap().len(), 7, "{labels}");
    assert_eq!(alert["annotations"]["summary"], "connection refused");
    evenkeel.wait_for_metric("evenkeel_alerts_firing", &[("name", "backend_down")], 1.0);
    let text = String::from_utf8(evenkeel.cli(&["status"]).stdout).unwrap();
    assert!(
        text.contains("\nalerts\n") && text.contains("connection refused"),
        "{text}"
    );
    two.start();
    wait_until("it is resolved", || active(&manager).is_empty());
    wait_until("nothing fires", || {
        shown(&evenkeel)["alerts"].as_array().unwrap().is_empty()
    });
}

/// Scenario: Alertmanager is killed while a backend is down, and comes back with nothing in its memory. It is told
/// again without anything new happening.
#[test]
fn an_alertmanager_that_lost_its_memory_is_told_again() {
    let mut manager = Alertmanager::start();
    let one = Backend::named("one");
    let receivers = format!("[[alerts.alertmanagers]]\nurl = \"http://{}\"\n", manager.place);
    manager.crash();
    let evenkeel = Evenkeel::start(&shop(&[&one], &alerts(&receivers)));
    evenkeel.wait_for_state(one.address, "eligible");
    one.kill();
    wait_until("it is noticed", || deliveries(&evenkeel, "failed") >= 2.0);
    let trouble = shown(&evenkeel)["receivers"][0]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(trouble.contains("refused"), "{trouble}");
    manager.start_again();
    wait_until("it knows", || {
        let address: SocketAddr = manager.place.parse().unwrap();
        std::net::TcpStream::connect(address).is_ok()
            && active_about(&manager, "backend_down", one.address).is_some()
    });
    wait_until("the trouble is over", || {
        shown(&evenkeel)["receivers"][0]["error"].is_null()
    });
}

/// Scenario: a webhook is away, answers 500, hangs, resets and sends rubbish, while a backend dies and requests go
/// on. None of them fails, and when the webhook is well again, it gets the newest state: the death of the backend,
/// and later its return.
#[test]
fn a_webhook_in_trouble_disturbs_nobody_and_is_told_in_the_end() {
    let gate = Gate::default();
    let well = gate.clone();
    let hook = Backend::scripted(move |conversation| match conversation.number {
        1 => {
            conversation.request();
            conversation.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops");
        }
        2 => {
            conversation.head();
            conversation.reset();
        }
        3 => {
            conversation.request();
            conversation.send("rubbish\r\n\r\n");
        }
        4 => {
            conversation.request();
            conversation.hold();
        }
        _ => {
            well.pass();
            if conversation.request().is_some() {
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    });
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let receivers = format!("timeout = \"3s\"\n{}", webhook(&hook));
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], &alerts(&receivers)));
    evenkeel.wait_for_state(two.address, "eligible");
    let load = Load::start(evenkeel.address(), 4);
    load.wait_for_more(20);
    two.kill();
    wait_until("the webhook was tried in vain", || {
        deliveries(&evenkeel, "failed") >= 4.0
    });
    assert_eq!(deliveries(&evenkeel, "delivered"), 0.0);
    let before = hook.count();
    gate.open();
    wait_until("it is told", || deliveries(&evenkeel, "delivered") >= 1.0);
    let last: Value =
        serde_json::from_slice(&hook.requests()[before.max(1) - 1..].last().unwrap().body).unwrap();
    assert_eq!(last["groups"][0]["name"], "backend_down");
    load.wait_for_more(20);
    load.stop().assert_nothing_failed();
    two.start();
    let ended = format!("-backend_down {}", two.address);
    wait_until("its return is told", || has(&hook, &ended));
}

/// Scenario: 500 backends go down together. There are a few messages, with all of them in one group.
#[test]
fn a_burst_of_deaths_is_a_few_messages() {
    let hook = taking();
    // Nobody listens there: ports that were free a moment ago.
    let dead: Vec<SocketAddr> = (0..500)
        .map(|n: u16| {
            let address = free_address();
            SocketAddr::new(address.ip(), 1 + n)
        })
        .collect();
    let receivers = alerts(&webhook(&hook)).replace("group_wait = \"100ms\"", "group_wait = \"3s\"");
    // Who is noticed later than that waits for the next message.
    let receivers = receivers.replace("group_interval = \"1s\"", "group_interval = \"5s\"");
    let receivers = receivers.replace(
        "interval = \"100ms\", fast_interval = \"50ms\"",
        "interval = \"1s\"",
    );
    let evenkeel = Evenkeel::start(&shop_on("127.0.0.1:0", &dead, &receivers));
    wait_until("all are told", || {
        let down = told(&hook)
            .into_iter()
            .filter(|alert| alert.starts_with("+backend_down"));
        let different: std::collections::BTreeSet<String> = down.collect();
        different.len() == 500
    });
    assert!(hook.count() <= 6, "{} messages", hook.count());
    evenkeel.wait_for_metric("evenkeel_alerts_firing", &[("name", "pool_down")], 1.0);
    let messages = hook.requests();
    let largest = messages.iter().map(|message| message.body.len()).max().unwrap();
    assert!(largest < 1_000_000, "{largest} bytes");
}

/// Scenario: a webhook wants a token and checks the signature. Both are in files; a changed file counts from the
/// next message on, and neither is shown anywhere, not even when the webhook sends it back.
#[test]
fn a_webhook_gets_a_token_and_a_signature_and_both_stay_secret() {
    let hook = Backend::answering(|request| {
        let token = request.field("authorization").unwrap_or_default();
        match token == "Bearer new-token-hunter2" {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            false => {
                let body = format!("I do not know {token}");
                format!(
                    "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                )
                .into()
            }
        }
    });
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let receivers = format!(
        "[[alerts.webhooks]]\nurl_file = \"{}\"\ntoken_file = \"{}\"\nsecret_file = \"{}\"\n",
        file("url", &format!("http://{}/hunter2?key=hunter2\n", hook.address)),
        file("token", "old-token-hunter2\n"),
        file("secret", "signed-with-hunter2\n"),
    );
    let evenkeel = Evenkeel::start(&shop(&[], &alerts(&receivers)));
    wait_until("it is refused", || deliveries(&evenkeel, "refused") >= 1.0);
    let tested = evenkeel.cli(&["alerts", "test"]);
    let printed = String::from_utf8(tested.stdout).unwrap();
    assert_eq!(tested.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("status 401: I do not know Bearer <secret>"),
        "{printed}"
    );

    file("token", "new-token-hunter2\n");
    let tested = evenkeel.cli(&["alerts", "test"]);
    let printed = String::from_utf8(tested.stdout).unwrap();
    assert_eq!(tested.status.code(), Some(0), "{printed}");
    assert!(printed.contains("taken"), "{printed}");
    assert_signed(&hook.last(), "signed-with-hunter2");
    assert_eq!(hook.last().target(), "/hunter2?key=hunter2");

    let alerts = evenkeel.cli(&["alerts"]).stdout;
    for place in [
        evenkeel.log(),
        evenkeel.status().to_string(),
        evenkeel.get("/api/v1/config").text().to_owned(),
        shown(&evenkeel).to_string(),
        String::from_utf8(alerts).unwrap(),
        evenkeel.metrics().text().to_owned(),
    ] {
        assert!(!place.contains("hunter2"), "{place}");
    }
}

/// The signature by a program that was not written here.
fn assert_signed(message: &Message, secret: &str) {
    let signature = message.field("evenkeel-signature").unwrap();
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let signed = [time.as_bytes(), b".", &message.body].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signed).unwrap();
    let openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .arg(file.path())
        .output()
        .unwrap();
    let printed = String::from_utf8(openssl.stdout).unwrap();
    assert!(
        printed.trim().ends_with(&format!("= {hex}")),
        "{printed} {signature}"
    );
}

/// Scenario: a receiver over TLS with an authority of its own; without that authority it is not told.
#[test]
fn a_receiver_over_tls_is_verified() {
    let authority = Authority::new();
    authority.issue("hook", &["localhost"]);
    let hook = taking();
    // The program itself ends TLS in front of the webhook.
    let front = Evenkeel::start(&format!(
        "[load_balancers.hook]\nbackend_servers = [\"{}\"]\n[[load_balancers.hook.listeners]]\naddress = \"127.0.0.1:0\"\n\
         protocol = \"https\"\ntls = {{ certificates = [{{ cert = \"{}\", key = \"{}\" }}] }}\n",
        hook.address,
        authority.file("hook.pem"),
        authority.file("hook.key"),
    ));
    let port = front.address().port();
    let receiver = |name: &str, ca: &str| {
        format!(
            "[[alerts.webhooks]]\nname = \"{name}\"\nurl = \"https://localhost:{port}/\"\nca = \"{ca}\"\n"
        )
    };
    let other = Authority::new();
    let receivers =
        receiver("known", &authority.file("ca.pem")) + &receiver("unknown", &other.file("ca.pem"));
    let evenkeel = Evenkeel::start(&shop(&[], &alerts(&receivers)));
    let printed = String::from_utf8(evenkeel.cli(&["alerts", "test"]).stdout).unwrap();
    let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("known").contains("taken"), "{printed}");
    assert!(
        line("unknown").to_lowercase().contains("certificate"),
        "{printed}"
    );
}

/// Scenario: receivers come and go with reloads. The new one is told what fires already, the old one nothing more;
/// and a redirect leads nowhere.
#[test]
fn receivers_follow_a_reload() {
    let (first, second) = (taking(), taking());
    let target = second.address;
    let elsewhere = Backend::answering(move |_| {
        format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{target}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .into()
    });
    let config = |hook: &Backend| shop_on("127.0.0.1:0", &[], &alerts(&webhook(hook)));
    let evenkeel = Evenkeel::start(&config(&first));
    wait_until("the first is told", || has(&first, "+pool_down "));
    evenkeel.reload(&config(&elsewhere));
    wait_until("the redirect is refused", || {
        deliveries(&evenkeel, "refused") >= 1.0
    });
    assert_eq!(second.count(), 0);
    let before = first.count();
    evenkeel.reload(&config(&second));
    wait_until("the second is told", || has(&second, "+pool_down "));
    assert_eq!(first.count(), before);
    evenkeel.reload(&shop_on("127.0.0.1:0", &[], CHECKED));
    wait_until("nobody is told", || {
        shown(&evenkeel)["receivers"].as_array().unwrap().is_empty()
    });
    let tested = evenkeel.cli(&["alerts", "test"]);
    assert_eq!(tested.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&tested.stdout).contains("nobody is told"));
}

/// Scenario: a config that is refused, and one that is taken after it.
#[test]
fn a_refused_config_is_an_alert_until_one_is_taken() {
    let hook = taking();
    let config = shop_on("127.0.0.1:0", &[], &alerts(&webhook(&hook)));
    let evenkeel = Evenkeel::start(&config);
    let answer = evenkeel.try_reload("nonsense = true\n");
    assert_eq!(answer.status(), 422);
    wait_until("the refusal is told", || has(&hook, "+config_refused "));
    let shown = shown(&evenkeel);
    let refused = shown["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["name"] == "config_refused");
    assert_eq!(refused.unwrap()["labels"]["node"], "evenkeel", "{shown}");
    evenkeel.reload(&config);
    wait_until("its end is told", || has(&hook, "-config_refused "));
}

/// A node of a cluster that tells its own webhook.
fn node(name: &str, etcd: &Etcd, hook: &Backend) -> Evenkeel {
    Evenkeel::start(&format!(
        "[node]\nname = \"{name}\"\n[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\n[alerts]\n{QUICK}{}\n",
        etcd.endpoints()[0],
        webhook(hook)
    ))
}

fn tells(evenkeel: &Evenkeel) -> bool {
    shown(evenkeel)["sends"] == true
}

fn fires(evenkeel: &Evenkeel, name: &str) -> bool {
    let shown = shown(evenkeel);
    let mut alerts = shown["alerts"].as_array().unwrap().iter();
    alerts.any(|alert| alert["name"] == name && alert["state"] == "firing")
}

/// Scenario: two nodes share a store, and a backend of a load balancer from there dies. The one that leads tells of
/// it, the other one sees it and keeps silent. The leader is killed: the other one leads, and tells of the backend, of
/// the lost node, and that the leader has changed.
#[test]
fn in_a_cluster_one_node_tells() {
    let etcd = Etcd::start(1);
    let (hook_a, hook_b) = (taking(), taking());
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let a = node("a", &etcd, &hook_a);
    wait_until("a leads", || a.status()["orchestrators"]["own"]["leads"] == true);
    let b = node("b", &etcd, &hook_b);
    wait_until("b sees that a tells", || tells(&a) && !tells(&b));
    let text = a.place().path().join("shop.toml");
    std::fs::write(&text, shop(&[&one, &two], CHECKED)).unwrap();
    let applied = a.cli(&["apply", text.to_str().unwrap()]);
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    for node in [&a, &b] {
        wait_until("the load balancer is there", || {
            node.status()["load_balancers"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        });
        node.wait_for_state(two.address, "eligible");
    }
    two.kill();
    let down = format!("+backend_down {}", two.address);
    wait_until("the leader tells", || has(&hook_a, &down));
    wait_until("the other one sees it", || fires(&b, "backend_down"));
    assert!(!has(&hook_b, &down), "{:?}", told(&hook_b));

    drop(a);
    let begun = std::time::Instant::now();
    for wanted in ["+leader_changed ", "+node_lost ", &down] {
        // The leases of the dead one last for ten seconds, and longer when the machine is busy.
        while !has(&hook_b, wanted) {
            assert!(
                begun.elapsed() < crate::support::DEADLINE,
                "{wanted}: {:?}",
                told(&hook_b)
            );
            std::thread::sleep(std::time::Duration::from_millis(50)); // condition poll
        }
    }
    eprintln!("told by the next leader after {:?}", begun.elapsed());
}

/// Scenario: a config names files for alerts that are not there. `check` says so, at the key.
#[test]
fn a_missing_secret_is_found_before_it_is_needed() {
    let receivers = "[[alerts.webhooks]]\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"/no/such/file\"\n";
    let place = crate::support::Place::new(&shop(&[], &alerts(receivers)));
    let checked = crate::support::program()
        .arg("check")
        .arg(place.config())
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(said.contains("cannot read /no/such/file"), "{said}");
}
