//! Members that register themselves and say that they live, with curl as the client.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::{Backend, Evenkeel, Gate, Load, Place, free_ip, wait_until};

/// The token of the tests, and its hash as `sha256sum` has it.
pub(crate) const TOKEN: &str = "ek_1111111111111111111111111111111111111111111111111111111111111111";

pub(crate) fn hash() -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), TOKEN.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let digits = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", digits.split(' ').next().unwrap())
}

/// The load balancer `shop` whose members register themselves.
fn registering(more: &str, keys: &str) -> String {
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nslow_start = 0\n\
         registration = {{ token_hash = \"{}\", allow = \"127.0.0.0/8\", {more} }}\n{keys}",
        free_ip(),
        hash()
    )
}

const FAST: &str = "health = { interval = \"200ms\", fast_interval = \"100ms\" }\n";

/// The body of who does not lapse while a test runs.
const LASTING: &str = r#"{"ttl": "1h"}"#;

/// What curl prints of the status, and the body.
fn curl(evenkeel: &Evenkeel, method: &str, path: &str, body: &str) -> (u16, String) {
    let url = format!(
        "http://{}/api/v1/load-balancers/shop/pools/default/{path}",
        evenkeel.admin
    );
    let output = Command::new("curl")
        .args([
            "-sS",
            "-X",
            method,
            "-H",
            &format!("Authorization: Bearer {TOKEN}"),
            "-d",
            body,
        ])
        .args(["-w", "\n%{http_code}", &url])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn register(evenkeel: &Evenkeel, backend: &Backend, body: &str) -> (u16, String) {
    curl(evenkeel, "PUT", &format!("members/{}", backend.address), body)
}

fn asked(evenkeel: &Evenkeel, result: &str) -> f64 {
    evenkeel.metric("evenkeel_pool_member_requests_total", &[("result", result)])
}

/// An instance registers, gets requests after its first check, changes its weight, says that it drains, and leaves: all
/// the while every request succeeds.
#[test]
fn the_life_of_a_member_under_load() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&registering("", FAST));
    let (status, body) = register(&evenkeel, &one, r#"{"zone": "eu-1", "load": 40}"#);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"ttl\":\"15s\""), "{body}");
    // Longer than this can take: nobody lapses here.
    let lasting = r#"{"zone": "eu-1", "load": 40, "ttl": "1h"}"#;
    assert_eq!(register(&evenkeel, &one, lasting).0, 200);
    evenkeel.wait_for_state(one.address, "eligible");
    let shown = evenkeel.backend(one.address);
    assert_eq!(
        (&shown["source"], &shown["zone"], &shown["load"]),
        (&"registered".into(), &"eu-1".into(), &40.into())
    );
    let load = Load::start(evenkeel.address(), 8);
    load.wait_for_more(50);
    assert_eq!(register(&evenkeel, &two, r#"{"weight": 3, "ttl": "1h"}"#).0, 200);
    evenkeel.wait_for_state(two.address, "eligible");
    wait_until("the new one is used", || two.count() > 50);
    assert_eq!(evenkeel.backend(two.address)["weight"], 3);
    assert_eq!(
        register(&evenkeel, &one, r#"{"draining": true, "ttl": "1h"}"#).0,
        200
    );
    evenkeel.wait_for_state(one.address, "draining");
    wait_until("nothing runs there", || one.open_connections() == 0);
    let before = one.count();
    load.wait_for_more(50);
    assert_eq!(one.count(), before);
    assert_eq!(
        curl(&evenkeel, "DELETE", &format!("members/{}", one.address), "").0,
        204
    );
    wait_until("it has left", || {
        evenkeel.metric("evenkeel_pool_members", &[("source", "registered")]) == 1.0
    });
    assert_eq!(
        curl(&evenkeel, "DELETE", &format!("members/{}", one.address), "").0,
        404
    );
    load.stop().assert_nothing_failed();
    assert_eq!((asked(&evenkeel, "new"), asked(&evenkeel, "left")), (2.0, 1.0));
}

/// Requests to an instance fail, and it is ejected for an hour. It deregisters while one request is still under way there,
/// and a new instance registers at its address: that one serves after its first check.
#[test]
fn a_new_instance_is_not_ejected_for_the_one_before() {
    let (gate, is_broken) = (Gate::default(), Arc::new(AtomicBool::new(true)));
    let (held, breaks) = (gate.clone(), is_broken.clone());
    let one = Backend::named("one");
    let two = Backend::answering(move |request| {
        if request.target() == "/held" {
            held.pass();
        }
        let status = match breaks.load(SeqCst) {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\ntwo").into()
    });
    let ejecting = "passive = { consecutive_failures = 2, ejection_time = \"1h\" }\n";
    let evenkeel = Evenkeel::start(&registering("", &format!("{FAST}{ejecting}")));
    for backend in [&one, &two] {
        assert_eq!(register(&evenkeel, backend, LASTING).0, 200);
        evenkeel.wait_for_state(backend.address, "eligible");
    }
    let (mut holding, mut client) = (evenkeel.client(), evenkeel.client());
    while gate.came() == 0 {
        holding.send("GET /held HTTP/1.1\r\nHost: shop\r\n\r\n");
        wait_until("it is under way, or answered by the other one", || {
            gate.came() > 0 || holding.has_answer()
        });
        if gate.came() == 0 {
            assert_eq!(holding.response().text(), "one");
        }
    }
    wait_until("it is ejected", || {
        client.get("/");
        evenkeel.backend(two.address)["eligibility"] == "ejected"
    });
    let path = format!("members/{}", two.address);
    assert_eq!(curl(&evenkeel, "DELETE", &path, "").0, 204);
    is_broken.store(false, SeqCst);
    assert_eq!(register(&evenkeel, &two, LASTING).0, 200);
    evenkeel.wait_for_state(two.address, "eligible");
    wait_until("it serves", || client.get("/").text() == "two");
    gate.open();
    assert_eq!(holding.response().status(), 200);
}

/// The client of the documentation: registers while its server runs, keeps at it, and leaves when it is told to stop.
#[test]
fn the_shell_client_of_the_documentation() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/members.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, script) = page.split_once("```bash\n").unwrap();
    let script = script.split("```").next().unwrap();
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&registering("ttl = \"2s\"", FAST));
    let client = |every: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", script])
            .env("EVENKEEL", format!("http://{}", evenkeel.admin))
            .env("TOKEN", TOKEN)
            .env("POOL", "shop/pools/default")
            .env("ADDRESS", one.address.to_string())
            .env("EVERY", every)
            .stdout(Stdio::piped());
        bash.spawn().unwrap()
    };
    let stop = |client: &Child| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    };
    let often = client("0.5");
    evenkeel.wait_for_state(one.address, "eligible");
    wait_until("it has kept itself alive beyond its lease", || {
        asked(&evenkeel, "renewed") > 6.0
    });
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "eligible");
    stop(&often);
    often.wait_with_output().unwrap();
    wait_until("it has left", || asked(&evenkeel, "left") == 1.0);

    // Stopped in the middle of a long pause, it leaves nothing behind that would hold its output open.
    let seldom = client("600");
    wait_until("it is there again", || asked(&evenkeel, "new") == 2.0);
    stop(&seldom);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(seldom.wait_with_output().unwrap()));
    end.recv_timeout(crate::support::DEADLINE)
        .expect("its output ends");
}

/// Who says nothing for its time is gone. When all fall silent at once, all stay.
#[test]
fn silence_ends_a_membership_but_not_a_pool() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let evenkeel = Evenkeel::start(&registering("ttl = \"2s\"", FAST));
    for backend in &backends {
        assert_eq!(register(&evenkeel, backend, r#"{"ttl": "1h"}"#).0, 200);
    }
    // One of three lets its short lease run out.
    assert_eq!(register(&evenkeel, &backends[2], "").0, 200);
    wait_until("the silent one is gone", || asked(&evenkeel, "lapsed") == 1.0);
    wait_until("two are left", || {
        evenkeel.metric("evenkeel_pool_members", &[("source", "registered")]) == 2.0
    });
    // Then the others, all at once.
    for backend in &backends[..2] {
        assert_eq!(register(&evenkeel, backend, r#"{"ttl": "1s"}"#).0, 200);
    }
    wait_until("it is noticed", || {
        evenkeel.metric("evenkeel_pool_source_stale", &[("source", "registered")]) == 1.0
    });
    wait_until("it is told", || {
        let told = evenkeel.events("members_stale").join("\n");
        told.contains("more than half")
    });
    assert!(["one", "two"].contains(&evenkeel.client().get("/").text()));
    // They come back.
    for backend in &backends[..2] {
        assert_eq!(register(&evenkeel, backend, r#"{"ttl": "1h"}"#).0, 200);
    }
    wait_until("all is well again", || {
        evenkeel.metric("evenkeel_pool_source_stale", &[("source", "registered")]) == 0.0
    });
}

/// Registrations outlive a restart: those that were seen to work serve at once, and have their time to be heard.
#[test]
fn members_outlive_a_restart() {
    let one = Backend::named("one");
    let place = Place::new(&registering("", FAST));
    let mut evenkeel = place.start();
    assert_eq!(register(&evenkeel, &one, "").0, 200);
    evenkeel.wait_for_state(one.address, "eligible");
    wait_until("that is on disk", || {
        let text = std::fs::read_to_string(place.data().join("members.json"));
        text.is_ok_and(|text| text.contains("\"proven\":true"))
    });
    evenkeel.kill();
    let evenkeel = place.start();
    assert_eq!(evenkeel.client().get("/").text(), "one");
    assert_eq!(evenkeel.backend(one.address)["source"], "registered");
}

/// A flood of registrations, and addresses that may not be: refused, counted, and no harm done.
#[test]
fn a_flood_meets_its_bound() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&registering("max = 5", FAST));
    assert_eq!(register(&evenkeel, &one, LASTING).0, 200);
    let answers: Vec<u16> = (1..=20)
        .map(|port| curl(&evenkeel, "PUT", &format!("members/127.9.9.9:{port}"), LASTING).0)
        .collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 4);
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 16);
    assert_eq!(asked(&evenkeel, "too_many"), 16.0);
    assert_eq!(register(&evenkeel, &one, LASTING).0, 200, "who is in may stay");
    for address in [
        "10.0.0.1:80",
        "[::1]:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "127.0.0.1:0",
    ] {
        let address = address.replace('[', "%5B").replace(']', "%5D");
        let (status, body) = curl(&evenkeel, "PUT", &format!("members/{address}"), "");
        assert_eq!(status, 422, "{address}: {body}");
    }
    assert_eq!(asked(&evenkeel, "not_allowed"), 5.0);
    evenkeel.wait_for_state(one.address, "eligible");
    assert_eq!(evenkeel.client().get("/").text(), "one");
}

/// A declared backend that should be heard: in until it was silent for too long, out, and in with its next heartbeat,
/// although nothing checks it.
#[test]
fn heartbeats_instead_of_checks() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nbackend_servers = [\"{}\", \"{}\"]\nhealth = false\nslow_start = 0\n\
         heartbeat = {{ token_hash = \"{}\", timeout = \"8s\" }}\n",
        free_ip(),
        one.address,
        two.address,
        hash()
    );
    let evenkeel = Evenkeel::start(&config);
    assert_eq!(
        evenkeel.backend(one.address)["eligibility"],
        "eligible",
        "it has its time"
    );
    let beat = |backend: &Backend| curl(&evenkeel, "POST", &format!("heartbeats/{}", backend.address), "").0;
    wait_until("the silent one is out", || {
        assert_eq!(beat(&one), 204);
        evenkeel.backend(two.address)["eligibility"] == "down"
    });
    assert_eq!(evenkeel.backend(two.address)["health_reason"], "silent for 8s");
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "eligible");
    wait_until("it is told", || {
        let told = evenkeel.events("backend_down").join("\n");
        told.contains("silent for 8s")
    });
    assert_eq!(beat(&two), 204);
    evenkeel.wait_for_state(two.address, "eligible");
    assert_eq!(curl(&evenkeel, "POST", "heartbeats/127.0.0.1:9", "").0, 404);
}

/// Both must be good: a heartbeat does not bring back what the check has found dead, and the other way round.
#[test]
fn heartbeats_beside_checks() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nbackend_servers = [\"{}\", \"{}\"]\nslow_start = 0\n{FAST}\
         heartbeat = {{ token_hash = \"{}\", timeout = \"3s\" }}\n",
        free_ip(),
        one.address,
        two.address,
        hash()
    );
    let evenkeel = Evenkeel::start(&config);
    let beat = |backend: &Backend| {
        assert_eq!(
            curl(&evenkeel, "POST", &format!("heartbeats/{}", backend.address), "").0,
            204
        );
    };
    two.kill();
    wait_until("the dead one is out, though it is heard", || {
        beat(&one);
        beat(&two);
        evenkeel.backend(two.address)["eligibility"] == "down"
    });
    two.start();
    wait_until("the silent one is out, though its check succeeds", || {
        beat(&two);
        evenkeel.backend(one.address)["health_reason"] == "silent for 3s"
    });
    wait_until("the other one is back", || {
        beat(&two);
        evenkeel.backend(two.address)["eligibility"] == "eligible"
    });
}
