//! Members that are looked up in files: they come and go while requests run, and a source that fails takes nobody out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Backend, Evenkeel, Load, Place, free_ip, wait_until};

/// The load balancer `shop` whose one pool is looked up in the file `members` beside the config.
fn looked_up(directory: &Path, more: &str) -> String {
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\ndiscovery = {{ file = \"{}\" }}\n{more}",
        free_ip(),
        directory.join("members").display()
    )
}

/// Replaces the list of members as a whole.
fn list(directory: &Path, text: &str) {
    let beside = directory.join("members.new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, directory.join("members")).unwrap();
}

fn place(more: &str, members: &str) -> Place {
    let place = Place::new("");
    place.write(&looked_up(place.path(), more));
    list(place.path(), members);
    place
}

const FAST: &str = "slow_start = 0\nhealth = { interval = \"200ms\", fast_interval = \"100ms\" }\n";

fn members(evenkeel: &Evenkeel, source: &str) -> f64 {
    evenkeel.metric("evenkeel_pool_members", &[("source", source)])
}

/// Members come and go in the file under load: every request succeeds, new ones are found, those that left get
/// nothing more.
#[test]
fn members_of_a_file_come_and_go_under_load() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = backends.each_ref().map(|b| b.address);
    let place = place(FAST, &format!("# the shop\n{one}\n{two} weight=2 zone=eu-1\n"));
    let evenkeel = place.start();
    for address in [one, two] {
        evenkeel.wait_for_state(address, "eligible");
    }
    let two_is = evenkeel.backend(two);
    assert_eq!(
        (&two_is["source"], &two_is["zone"], &two_is["weight"]),
        (&"file".into(), &"eu-1".into(), &2.into())
    );
    let load = Load::start(evenkeel.address(), 8);
    load.wait_for_more(100);
    list(
        place.path(),
        &format!("[\"{two}\", {{\"address\": \"{three}\", \"weight\": 3}}]"),
    );
    evenkeel.wait_for_state(three, "eligible");
    wait_until("the first one has left", || members(&evenkeel, "file") == 2.0);
    wait_until("the third one is used", || backends[2].count() > 20);
    wait_until("nothing more runs on the first one", || {
        backends[0].open_connections() == 0
    });
    let before = backends[0].count();
    load.wait_for_more(100);
    assert_eq!(backends[0].count(), before, "who has left gets nothing");
    load.stop().assert_nothing_failed();
    let told = evenkeel.events("members_changed").join("\n");
    assert!(
        told.contains(&format!("shop/default: file: joined: {three}; left: {one}")),
        "{told}"
    );
    let table = evenkeel.cli_ok(&["status"]);
    assert!(
        table.contains("file: 2 members") && table.contains(&format!("{three} (file)")),
        "{table}"
    );
}

/// A list with an error in it, and then none at all: the members known stay, and the status, an event and a metric say
/// what is wrong and where. A good list ends it.
#[test]
fn a_bad_or_missing_list_takes_nobody_out() {
    let one = Backend::named("one");
    let two = Backend::named("two");
    let place = place(FAST, &format!("{}\n", one.address));
    let evenkeel = place.start();
    evenkeel.wait_for_state(one.address, "eligible");
    let stale = || evenkeel.metric("evenkeel_pool_source_stale", &[("source", "file")]) == 1.0;
    list(place.path(), &format!("{}\n10.0.0.2 weight=1\n", two.address));
    wait_until("the bad list is noticed", stale);
    let told = evenkeel.events("members_stale").join("\n");
    assert!(
        told.contains("line 2: `10.0.0.2` is not an IP address and port"),
        "{told}"
    );
    assert!(told.contains("the one known member stays"), "{told}");
    std::fs::remove_file(place.path().join("members")).unwrap();
    wait_until("the missing list is noticed", || {
        evenkeel
            .events("members_stale")
            .join("\n")
            .contains("cannot read")
    });
    assert!(stale());
    assert_eq!(evenkeel.client().get("/").text(), "one");
    list(place.path(), &format!("{}\n", two.address));
    wait_until("the good list is taken", || !stale());
    evenkeel.wait_for_state(two.address, "eligible");
    assert_eq!(evenkeel.client().get("/").text(), "two");
    assert_eq!(evenkeel.events("members_fresh").len(), 1);
}

/// A new member whose checks fail gets no request, though nobody else is there and the pool fails open; it gets them
/// with its first success.
#[test]
fn a_new_member_waits_for_its_first_success() {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let one = Backend::answering(move |request| {
        let status = match request.target() == "/health" && !open.load(Ordering::Relaxed) {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\none").into_bytes()
    });
    let check = "health = { path = \"/health\", interval = \"100ms\" }\nslow_start = 0\n";
    let place = place(check, &format!("{}\n", one.address));
    let evenkeel = place.start();
    wait_until("it was checked a few times", || one.count() > 5);
    wait_until("its checks fail", || {
        evenkeel.backend(one.address)["health"] == "down"
    });
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "awaits_check");
    assert_eq!(evenkeel.client().get("/").status(), 503);
    gate.store(true, Ordering::Relaxed);
    evenkeel.wait_for_state(one.address, "eligible");
    assert_eq!(evenkeel.client().get("/").text(), "one");
    // It has proven itself: when it fails from now on, the pool's policy holds for it as for any other.
    gate.store(false, Ordering::Relaxed);
    evenkeel.wait_for_state(one.address, "fail_open");
}

/// The process ends and starts again while the list is gone: the members of before serve at once.
#[test]
fn members_outlive_a_restart_without_their_source() {
    let one = Backend::named("one");
    let check = "slow_start = 0\nhealth = { interval = \"1h\", fast_interval = \"100ms\" }\n";
    let place = place(check, &format!("{}\n", one.address));
    let mut evenkeel = place.start();
    evenkeel.wait_for_state(one.address, "eligible");
    wait_until("that is on disk", || {
        let text = std::fs::read_to_string(place.data().join("members.json"));
        text.is_ok_and(|text| text.contains("\"proven\":true"))
    });
    evenkeel.kill();
    std::fs::remove_file(place.path().join("members")).unwrap();
    let evenkeel = place.start();
    assert_eq!(
        evenkeel.client().get("/").text(),
        "one",
        "served before its first check"
    );
    assert_eq!(evenkeel.backend(one.address)["source"], "file");
    assert_eq!(evenkeel.metric("evenkeel_pool_source_stale", &[]), 1.0);
}

/// An order for a member that was found works, and stands when the member leaves and comes back.
#[test]
fn orders_for_found_members() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let both = format!("{}\n{}\n", one.address, two.address);
    let place = place(FAST, &both);
    let evenkeel = place.start();
    for backend in [&one, &two] {
        evenkeel.wait_for_state(backend.address, "eligible");
    }
    let address = one.address.to_string();
    evenkeel.cli_ok(&["backend", "drain", "shop", &address]);
    evenkeel.wait_for_state(one.address, "draining");
    list(place.path(), &format!("{}\n", two.address));
    wait_until("it has left", || members(&evenkeel, "file") == 1.0);
    list(place.path(), &both);
    evenkeel.wait_for_state(one.address, "draining");
    evenkeel.cli_ok(&["backend", "ready", "shop", &address]);
    evenkeel.wait_for_state(one.address, "eligible");
}

/// A list that names this process's own listener would send requests round in a circle: that member is left out, and
/// said to be.
#[test]
fn own_listeners_are_no_members() {
    let one = Backend::named("one");
    let place = place(FAST, "");
    let evenkeel = place.start();
    let own = evenkeel.address();
    list(place.path(), &format!("{}\n{own}\n", one.address));
    evenkeel.wait_for_state(one.address, "eligible");
    evenkeel.wait_for_metric("evenkeel_pool_members_left_out", &[], 1.0);
    assert_eq!(members(&evenkeel, "file"), 1.0);
    assert_eq!(evenkeel.events("members_left_out").len(), 1);
}
