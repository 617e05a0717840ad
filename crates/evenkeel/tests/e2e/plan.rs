//! What a config would change is told before it is made, and asking changes nothing.

use serde_json::Value;

use crate::support::{Backend, Evenkeel, Gate, QUIET, free_ip, shop_on, wait_until};

const HASHED: &str = "algorithm = \"consistent_hash\"\nhash = { key = \"path\" }\n";

/// Scenario: of three backends of a hashed pool one is to go, which has a request now. The plan names it, the request
/// and the third of the keys that moves, and nothing of it happens.
#[test]
fn a_backend_that_goes_drains_and_its_keys_move() {
    let gate = Gate::default();
    let go = gate.clone();
    let slow = Backend::answering(move |_| {
        go.pass();
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let listen = format!("{}:0", free_ip());
    let more = format!("{HASHED}{QUIET}");
    let evenkeel = Evenkeel::start(&shop_on(
        &listen,
        &[one.address, two.address, slow.address],
        &more,
    ));
    let mut waiting = Vec::new();
    for path in 0.. {
        let mut client = evenkeel.client();
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        wait_until("it is somewhere", || gate.came() == 1 || client.has_answer());
        waiting.push(client);
        if gate.came() == 1 {
            break;
        }
    }
    let place = evenkeel.place();
    place.write(&shop_on(
        &listen,
        &[one.address, two.address],
        &format!("{more}[node]\nthreads = 1\n"),
    ));
    let file = place.config().display().to_string();
    let plan: Value = serde_json::from_str(&evenkeel.cli_ok(&["plan", "--json", &file])).unwrap();
    assert_eq!(plan["restart"], serde_json::json!(["node.threads"]));
    assert_eq!(plan["drains"][0]["address"], slow.address.to_string());
    assert_eq!(plan["drains"][0]["in_flight"], 1);
    let share = plan["moved"][0]["share"].as_f64().unwrap();
    assert!((0.2..0.5).contains(&share), "{share}");
    let told = evenkeel.cli_ok(&["plan", &file]);
    for line in [
        "against revision 1, this would change:\n".to_owned(),
        "only after a restart: node.threads\n".to_owned(),
        "1 backend would drain: no new requests, running ones finish\n".to_owned(),
        format!("  shop/default/{}          1\n", slow.address),
        "keys that would get another backend\n  shop/default: ".to_owned(),
    ] {
        assert!(told.contains(&line), "{line:?} is not in {told}");
    }
    gate.open();
}

/// Scenario: an operator asks with the file that is in force, in TOML and the same in JSON.
#[test]
fn the_config_in_force_changes_nothing() {
    let one = Backend::named("one");
    let listen = format!("{}:0", free_ip());
    let config = shop_on(&listen, &[one.address], "");
    let evenkeel = Evenkeel::start(&config);
    let told = "nothing would change: revision 1 says the same\n";
    let file = evenkeel.place().config().display().to_string();
    assert_eq!(evenkeel.cli_ok(&["plan", &file]), told);
    let json = evenkeel.place().path().join("same.json");
    let text = format!(
        r#"{{"load_balancers": {{"shop": {{"listen": "{listen}", "backend_servers": ["{}"]}}}}}}"#,
        one.address
    );
    std::fs::write(&json, text).unwrap();
    assert_eq!(evenkeel.cli_ok(&["plan", &json.display().to_string()]), told);
}

/// Scenario: the file has two mistakes. Both are told at their lines, by the name that the operator gave.
#[test]
fn a_config_with_errors_is_no_plan() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_on(&format!("{}:0", free_ip()), &[one.address], ""));
    let file = evenkeel.place().path().join("new.toml");
    std::fs::write(
        &file,
        "[load_balancers.shop]\nlisten = \"nowhere\"\nalgoritm = \"random\"\n",
    )
    .unwrap();
    let output = evenkeel.cli(&["plan", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("The config has errors: "), "{told}");
    for place in ["new.toml:2:", "new.toml:3:"] {
        assert!(told.contains(place), "{place} is not in {told}");
    }
    assert_eq!(evenkeel.revision(), 1);
}
