//! Load balancers in the store: applied, served, compared, brought back, never half and never lost.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{Backend, Client, Evenkeel, QUIET, free_address, wait_until};

/// A load balancer `name` on an address in front of one backend.
fn balancer(name: &str, listen: SocketAddr, backend: SocketAddr) -> String {
    format!("[load_balancers.{name}]\nlisten = \"{listen}\"\nbackend_servers = [\"{backend}\"]\n{QUIET}\n")
}

/// A node whose own file declares nothing.
fn empty() -> Evenkeel {
    Evenkeel::start("[store]\nkind = \"embedded\"\n")
}

/// Writes a file beside the node's own; its path.
fn write(evenkeel: &Evenkeel, name: &str, text: &str) -> String {
    let path = evenkeel.place().path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Waits until `listen` answers with what this backend says.
fn wait_for(listen: SocketAddr, backend: &str) {
    wait_until(&format!("{listen} leads to {backend}"), || {
        !Client::refused(listen) && Client::connect(listen).get("/").text() == backend
    });
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Scenario: the whole life of a load balancer in the store, by the commands that a person uses.
#[test]
fn what_is_applied_is_served_compared_and_brought_back() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = empty();
    let listen = free_address();
    assert_eq!(
        evenkeel.cli_ok(&["get"]),
        "nothing was applied to the store yet\n"
    );
    let first = write(&evenkeel, "first.toml", &balancer("shop", listen, one.address));
    let dry = evenkeel.cli_ok(&["apply", "--dry-run", &first]);
    assert!(
        dry.contains("shop: load balancer added") && dry.ends_with("nothing was changed\n"),
        "{dry}"
    );
    assert_eq!(
        evenkeel.cli_ok(&["history"]),
        "nothing was applied to the store yet\n"
    );
    let applied = evenkeel.cli_ok(&["apply", &first, "--by", "alice", "-m", "the first"]);
    assert!(applied.starts_with("revision 1:\n"), "{applied}");
    wait_for(listen, "one");
    // What a dry run would do is told by what the node shows, and that is served first.
    wait_until("it is shown", || {
        !evenkeel.status()["load_balancers"].as_array().unwrap().is_empty()
    });
    assert_eq!(
        evenkeel.cli_ok(&["apply", &first]),
        "nothing changed: revision 1 says the same\n"
    );

    // A dry run tells what this node would do, and does nothing.
    let second = write(&evenkeel, "second.toml", &balancer("shop", listen, two.address));
    let dry: Value =
        serde_json::from_str(&evenkeel.cli_ok(&["apply", "--dry-run", "--json", &second])).unwrap();
    assert_eq!((&dry["revision"], &dry["changed"]), (&1.into(), &false.into()));
    assert_eq!(dry["plan"]["drains"][0]["address"], one.address.to_string());
    let told = evenkeel.cli_ok(&["diff", &second]);
    assert!(told.contains(&two.address.to_string()), "{told}");
    assert_eq!(Client::connect(listen).get("/").text(), "one");
    let json = format!(
        r#"{{"shop": {{"listen": "{listen}", "backend_servers": ["{}"], "health": false}}}}"#,
        two.address
    );
    let json = write(&evenkeel, "second.json", &json);
    evenkeel.cli_ok(&["apply", &json, "--by", "bob"]);
    wait_for(listen, "two");

    let history = evenkeel.cli_ok(&["history"]);
    let lines: Vec<&str> = history.lines().collect();
    assert!(
        lines[1].contains("bob") && lines[2].contains("alice") && lines[2].contains("the first"),
        "{history}"
    );
    let change = evenkeel.cli_ok(&["history", "2"]);
    assert!(
        change.contains("apply by bob") && change.contains(&one.address.to_string()),
        "{change}"
    );
    assert!(
        evenkeel
            .cli_ok(&["diff", "1", "2"])
            .contains(&two.address.to_string())
    );
    let listed = evenkeel.cli_ok(&["get"]);
    assert!(
        listed.contains("revision 2: 1 load balancer") && listed.contains(&listen.to_string()),
        "{listed}"
    );

    evenkeel.cli_ok(&["rollback", "1"]);
    wait_for(listen, "one");
    // What is exported is what was applied, and applying it changes nothing.
    let exported = write(&evenkeel, "all.toml", &evenkeel.cli_ok(&["export"]));
    assert_eq!(
        evenkeel.cli_ok(&["apply", &exported]),
        "nothing changed: revision 3 says the same\n"
    );
    evenkeel.cli_ok(&["delete", "shop"]);
    wait_until("nobody listens", || Client::refused(listen));
    assert_eq!(
        evenkeel.cli_ok(&["export", "--revision", "1"]),
        std::fs::read_to_string(exported).unwrap()
    );
}

/// Scenario: two people have looked at revision 1 and change it at the same time. One wins; the other is told who was
/// faster, and with which change.
#[test]
fn of_two_who_change_the_same_revision_one_is_told_who_was_faster() {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::named("x")).collect();
    let evenkeel = empty();
    let listen = free_address();
    let file = |i: usize| {
        let text = balancer("shop", listen, backends[i].address);
        write(&evenkeel, &format!("{i}.toml"), &text)
    };
    evenkeel.cli_ok(&["apply", &file(0)]);
    let files = [file(1), file(2)];
    let outputs: Vec<(&str, Output)> = std::thread::scope(|scope| {
        let evenkeel = &evenkeel;
        let people = [("alice", &files[0]), ("bob", &files[1])].map(|(who, file)| {
            scope.spawn(move || (who, evenkeel.cli(&["apply", file, "--expect", "1", "--by", who])))
        });
        people.into_iter().map(|person| person.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|(_, output)| output.status.success());
    assert_eq!((won.len(), lost.len()), (1, 1), "{outputs:?}");
    let told = refused(&lost[0].1);
    let expected = format!(
        "revision 1 was expected, but 2 is in force, made by {}: apply (`shop`)",
        won[0].0
    );
    assert!(told.contains(&expected), "{told}");
    let body = format!(
        r#"{{"change": {{"apply": {{"text": "[load_balancers.shop]\nbackend_servers = [\"{}\"]"}}}}, "expect": 1}}"#,
        backends[0].address
    );
    let answer = evenkeel.post("/api/v1/desired/changes", &body);
    assert_eq!(answer.status(), 409);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["reason"], "conflict");
    let history = evenkeel.cli_ok(&["history", "--json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(history["revisions"].as_array().unwrap().len(), 2);
}

/// Scenario: texts that are not taken: with errors, with what belongs to a node, with a name or an address of the node's
/// own file. Nothing changes.
#[test]
fn what_is_wrong_is_refused_with_every_reason() {
    let backend = Backend::named("own");
    let own = free_address();
    let evenkeel = Evenkeel::start(&balancer("own", own, backend.address));
    let apply = |text: &str| {
        let file = write(&evenkeel, "wrong.toml", text);
        refused(&evenkeel.cli(&["apply", &file]))
    };
    let told = apply(
        "[admin]\nlisten = \"127.0.0.1:1\"\n[load_balancers.x]\nalgoritm = \"random\"\nbackend_servers = 5\n",
    );
    for part in [
        "wrong.toml:1:",
        "belongs to a node's own file",
        "wrong.toml:4:",
        "did you mean `algorithm`?",
        "wrong.toml:5:",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let told = apply(&balancer("own", free_address(), backend.address));
    assert!(
        told.contains("`own` is declared in this node's own file"),
        "{told}"
    );
    let told = apply(&balancer("new", own, backend.address));
    assert!(told.contains(&format!("{own} is listened on twice")), "{told}");
    let told = refused(&evenkeel.cli(&["delete", "own"]));
    assert!(
        told.contains("declared in this node's own file: remove it there"),
        "{told}"
    );
    let told = refused(&evenkeel.cli(&["rollback", "7"]));
    assert!(told.contains("nothing was applied yet"), "{told}");
    let told = refused(&evenkeel.cli(&["confirm"]));
    assert!(told.contains("nothing awaits confirmation"), "{told}");
    assert_eq!(
        evenkeel.cli_ok(&["get"]),
        "nothing was applied to the store yet\n"
    );
    assert_eq!(Client::connect(own).get("/").text(), "own");
}

/// Scenario: a load balancer with a secret. No answer shows it; what is exported and applied again keeps it.
#[test]
fn a_secret_is_in_no_answer_and_survives_being_edited() {
    let backend = Backend::named("one");
    let evenkeel = empty();
    let (listen, secret) = (free_address(), "hunter2-hunter2-hunter2");
    let text = |ttl: &str| {
        let sticky = format!("sticky = {{ cookie = \"evk\", ttl = \"{ttl}\", secret = \"{secret}\" }}\n");
        balancer("shop", listen, backend.address) + &sticky
    };
    let file = write(&evenkeel, "shop.toml", &text("1h"));
    let mut said = vec![evenkeel.cli_ok(&["apply", &file])];
    let exported = evenkeel.cli_ok(&["export"]);
    assert!(exported.contains("<secret>"), "{exported}");
    let edited = write(&evenkeel, "edited.toml", &exported.replace("1h", "2h"));
    said.push(exported);
    said.push(evenkeel.cli_ok(&["diff", &edited]));
    said.push(evenkeel.cli_ok(&["apply", &edited]));
    // The same with the secret itself changes nothing: it is the one that was kept.
    let itself = write(&evenkeel, "itself.toml", &text("2h"));
    assert_eq!(
        evenkeel.cli_ok(&["apply", &itself]),
        "nothing changed: revision 2 says the same\n"
    );
    for command in [
        &["get", "shop"][..],
        &["get", "--json"],
        &["history", "2"],
        &["diff", "1", "2", "--json"],
    ] {
        said.push(evenkeel.cli_ok(command));
    }
    let other = write(
        &evenkeel,
        "other.toml",
        &said[1].replace("load_balancers.shop", "load_balancers.new"),
    );
    said.push(refused(&evenkeel.cli(&["apply", &other])));
    assert!(
        said.last().unwrap().contains("write the secret itself"),
        "{said:?}"
    );
    said.push(evenkeel.log());
    assert!(!said.iter().any(|text| text.contains(secret)), "{said:?}");
}

/// Scenario: `kill -9` while four clients apply as fast as they can. After the restart every change that was told to
/// be made is in the history, each whole, and the last is served.
#[test]
fn what_was_told_to_be_applied_survives_kill_9() {
    const CLIENTS: u16 = 4;
    let backend = Backend::named("one");
    let mut evenkeel = empty();
    let listens: Vec<SocketAddr> = (0..CLIENTS).map(|_| free_address()).collect();
    // Set and removed in turn, so that each is a change.
    let change = |client: usize, count: usize| {
        let name = format!("lb-{client}");
        let change = match count % 2 {
            0 => serde_json::json!({"apply": {"text": balancer(&name, listens[client], backend.address)}}),
            _ => serde_json::json!({"delete": [name]}),
        };
        serde_json::json!({"change": change, "message": format!("{client}/{count}")}).to_string()
    };
    let admin = evenkeel.admin;
    let told: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..usize::from(CLIENTS))
            .map(|client| {
                let change = &change;
                scope.spawn(move || apply_until_the_end(admin, |count| change(client, count), client))
            })
            .collect();
        // In steps: each change is as slow as the disk.
        for many in [20, 40, 61] {
            wait_until(&format!("{many} changes are made"), || {
                evenkeel.log().matches("the store: revision").count() >= many
            });
        }
        evenkeel.kill();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let again = evenkeel.place().start();
    let history = again.cli_ok(&["history", "--last", "1000", "--json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let revisions = history["revisions"].as_array().unwrap();
    let kept: Vec<&str> = revisions.iter().map(|r| r["message"].as_str().unwrap()).collect();
    assert!(told.len() > 40, "{}", told.len());
    let lost: Vec<&String> = told
        .iter()
        .filter(|message| !kept.contains(&message.as_str()))
        .collect();
    assert!(lost.is_empty(), "told to be made and not there: {lost:?}");
    // At most one of each client was made and not told.
    assert!(
        kept.len() <= told.len() + usize::from(CLIENTS),
        "{} of {}",
        told.len(),
        kept.len()
    );
    let numbers: Vec<u64> = revisions
        .iter()
        .map(|r| r["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).rev().collect::<Vec<_>>());
    let state: Value = serde_json::from_str(&again.cli_ok(&["get", "--json"])).unwrap();
    for (client, listen) in listens.iter().enumerate() {
        match state["load_balancers"].get(format!("lb-{client}")) {
            Some(_) => wait_for(*listen, "one"),
            None => wait_until("nobody listens", || Client::refused(*listen)),
        }
    }
}

/// Applies over and over, again after each lost race, until nobody answers; the messages of what was told to be made.
fn apply_until_the_end(admin: SocketAddr, change: impl Fn(usize) -> String, client: usize) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let count = told.len();
        let body = change(count);
        let request = format!(
            "POST /api/v1/desired/changes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let Ok(mut connection) = Client::try_connect(admin) else {
            return told;
        };
        let Ok(()) = connection.try_send(request) else {
            return told;
        };
        match connection.try_response().map(|answer| answer.status()) {
            Ok(200) => told.push(format!("{client}/{count}")),
            Ok(409) => {}
            Ok(other) => panic!("{other}"),
            Err(_) => return told,
        }
    }
}

/// The file of a node may be just its own settings; the path of a file is no name of a load balancer.
#[test]
fn a_file_that_is_not_there_is_said_to_be() {
    let evenkeel = empty();
    assert!(!Path::new("no-such.toml").exists());
    let told = refused(&evenkeel.cli(&["apply", "no-such.toml"]));
    assert!(told.contains("cannot read no-such.toml"), "{told}");
}

/// What this node tells of a change that was taken back.
fn wait_for_reverted(evenkeel: &Evenkeel, what: &str) {
    wait_until(what, || {
        evenkeel
            .events("reverted")
            .iter()
            .any(|event| event.contains(what))
    });
}

/// Scenario: a change is applied on trial and nobody confirms it: what was before comes back by itself, once, with its
/// reason in the history. The next one is confirmed and stays.
#[test]
fn what_is_not_confirmed_is_taken_back() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = empty();
    let listen = free_address();
    let first = write(&evenkeel, "first.toml", &balancer("shop", listen, one.address));
    let second = write(&evenkeel, "second.toml", &balancer("shop", listen, two.address));
    evenkeel.cli_ok(&["apply", &first]);
    wait_for(listen, "one");
    let told = evenkeel.cli_ok(&["apply", &second, "--confirm", "8s"]);
    assert!(
        told.contains("revision 2 awaits `evenkeel confirm`") && told.contains("revision 1 comes back"),
        "{told}"
    );
    wait_for(listen, "two");
    wait_for_reverted(
        &evenkeel,
        "revision 2 was taken back: not confirmed in time; revision 3 is as it was before",
    );
    wait_for(listen, "one");
    let history = evenkeel.cli_ok(&["history"]);
    assert!(
        history.contains("revert of 2") && history.contains("not confirmed in time"),
        "{history}"
    );
    assert!(refused(&evenkeel.cli(&["confirm"])).contains("nothing awaits confirmation"));

    evenkeel.cli_ok(&["apply", &second, "--confirm", "1h"]);
    assert!(
        evenkeel
            .cli_ok(&["get"])
            .contains("revision 4 awaits `evenkeel confirm`")
    );
    assert_eq!(
        evenkeel.cli_ok(&["confirm"]),
        "revision 4 is confirmed and stays\n"
    );
    wait_for(listen, "two");
    let state: Value = serde_json::from_str(&evenkeel.cli_ok(&["get", "--json"])).unwrap();
    assert_eq!((&state["revision"], state.get("awaiting")), (&4.into(), None));
}

/// Scenario: a process is killed while a change of it is on trial. After the restart the time goes on from where it was.
#[test]
fn a_restart_does_not_confirm() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let mut evenkeel = empty();
    let listen = free_address();
    let first = write(&evenkeel, "first.toml", &balancer("shop", listen, one.address));
    let second = write(&evenkeel, "second.toml", &balancer("shop", listen, two.address));
    evenkeel.cli_ok(&["apply", &first]);
    evenkeel.cli_ok(&["apply", &second, "--confirm", "8s"]);
    evenkeel.kill();
    let again = evenkeel.place().start();
    wait_for_reverted(&again, "revision 2 was taken back: not confirmed in time");
    wait_for(listen, "one");
}

/// Scenario: requests run all the while. A change on trial leads to a backend that answers 500: it is taken back long
/// before its time, because more fails than in the minute before. Then nothing fails any more.
#[test]
fn what_fails_more_than_before_is_taken_back_at_once() {
    let good = Backend::named("good");
    let bad = Backend::answering(|_| b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let evenkeel = empty();
    let listen = free_address();
    let first = write(&evenkeel, "first.toml", &balancer("shop", listen, good.address));
    let second = write(&evenkeel, "second.toml", &balancer("shop", listen, bad.address));
    evenkeel.cli_ok(&["apply", &first]);
    wait_for(listen, "good");
    let mut client = Client::connect(listen);
    for _ in 0..50 {
        assert_eq!(client.get("/").status(), 200);
    }
    evenkeel.cli_ok(&["apply", &second, "--confirm", "1h"]);
    wait_until("it is taken back", || {
        for _ in 0..20 {
            client.get("/");
        }
        !evenkeel.events("reverted").is_empty()
    });
    let told = evenkeel.events("reverted").remove(0);
    assert!(
        told.contains("revision 2 was taken back: route default of shop failed more than before"),
        "{told}"
    );
    wait_for(listen, "good");
    assert!(evenkeel.cli_ok(&["history"]).contains("revert of 2"));
}

/// Scenario: a load balancer with a busy route and a quiet one, one request in fifty. A change on trial breaks the quiet
/// one: of all requests 2 % fail, of that route's all. It is taken back, and the reason names the route.
#[test]
fn a_quiet_route_that_breaks_takes_the_change_back() {
    let good = Backend::named("good");
    let bad = Backend::answering(|_| b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let evenkeel = empty();
    let listen = free_address();
    let text = |quiet: SocketAddr| {
        format!(
            "[load_balancers.shop]\nlisten = \"{listen}\"\n\
             [[load_balancers.shop.routes]]\nname = \"quiet\"\nmatch.path = \"/quiet\"\npool = \"quiet\"\n\
             [[load_balancers.shop.routes]]\nname = \"busy\"\npool = \"busy\"\n\
             [load_balancers.shop.pools.quiet]\nbackend_servers = [\"{quiet}\"]\n{QUIET}\n\
             [load_balancers.shop.pools.busy]\nbackend_servers = [\"{}\"]\n{QUIET}\n",
            good.address
        )
    };
    let first = write(&evenkeel, "first.toml", &text(good.address));
    let second = write(&evenkeel, "second.toml", &text(bad.address));
    evenkeel.cli_ok(&["apply", &first]);
    wait_for(listen, "good");
    let mut client = Client::connect(listen);
    let mut ask = |quiet: usize| {
        let mut failed = 0;
        for _ in 0..quiet {
            (0..49).for_each(|_| assert_eq!(client.get("/").status(), 200));
            failed += usize::from(client.get("/quiet").status() == 500);
        }
        failed
    };
    assert_eq!(ask(25), 0);
    evenkeel.cli_ok(&["apply", &second, "--confirm", "1h"]);
    wait_until("it is taken back", || {
        ask(5);
        !evenkeel.events("reverted").is_empty()
    });
    let told = evenkeel.events("reverted").remove(0);
    assert!(
        told.contains("revision 2 was taken back: route quiet of shop failed more than before"),
        "{told}"
    );
    wait_until("it is well again", || ask(1) == 0);
}

/// Scenario: somebody writes a load balancer into the node's own file, on an address that one of the store listens on:
/// the file is refused. The one of the store is deleted, and what the file says is served, without anybody touching the
/// file again.
#[test]
fn a_file_refused_for_what_the_store_has_is_tried_again() {
    let (own, stored) = (Backend::named("own"), Backend::named("stored"));
    let listen = free_address();
    let evenkeel = empty();
    let file = write(&evenkeel, "shop.toml", &balancer("shop", listen, stored.address));
    evenkeel.cli_ok(&["apply", &file]);
    wait_for(listen, "stored");
    let text = balancer("own", listen, own.address);
    let answer = evenkeel.try_reload(&format!("[store]\nkind = \"embedded\"\n{text}"));
    assert_eq!(answer.status(), 422, "{}", answer.text());
    assert!(
        answer.text().contains("is listened on twice"),
        "{}",
        answer.text()
    );
    // Another change of the store, after which it still does not go together, is no news.
    let other = write(
        &evenkeel,
        "other.toml",
        &balancer("other", free_address(), stored.address),
    );
    evenkeel.cli_ok(&["apply", &other]);
    assert_eq!(evenkeel.events("reload_refused").len(), 1);
    evenkeel.cli_ok(&["delete", "shop"]);
    wait_for(listen, "own");
    wait_until("it is told", || {
        evenkeel.status()["config"]["last_reload"]["ok"] == true
    });
}
